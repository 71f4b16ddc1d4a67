//! The helper as a process: what it may, whom it lets in, what it says when something is missing. Needs root; without it each test
//! fails and says so.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use caregate_protocol::datapath::{Event, FromHelper, Mode, Reason, Request, ToHelper};

use crate::support::frames::*;
use crate::support::{Client, DEADLINE, Helper, PORTS, Place, Wire, binary, policy, run, until};

/// What `--check` or a start says, and whether it is good.
fn said(config: &std::path::Path, option: Option<&str>) -> (bool, String) {
    let mut command = Command::new(binary());
    command.arg("--config").arg(config).args(option).stdin(Stdio::null());
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[test]
fn it_keeps_four_capabilities_and_its_socket_is_private() {
    let place = Place::new();
    let helper = place.helper();
    drop(place.connect());
    let status = std::fs::read_to_string(format!("/proc/{}/status", helper.process.id())).unwrap();
    // CAP_NET_ADMIN 12, CAP_NET_RAW 13, CAP_PERFMON 38, CAP_BPF 39.
    let kept = format!("{:016x}", 1u64 << 12 | 1 << 13 | 1 << 38 | 1 << 39);
    for set in ["CapPrm", "CapEff"] {
        assert!(status.contains(&format!("{set}:\t{kept}\n")), "{status}");
    }
    assert!(status.contains("CapInh:\t0000000000000000\n"), "{status}");
    let mode = std::fs::metadata(place.path("run/datapath.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn another_user_is_not_served() {
    let place = Place::new();
    let _helper = Helper::start(&place.configure_for("12345", PORTS));
    let path = place.path("run/datapath.sock");
    let mut stream = until("it listens", || UnixStream::connect(&path).ok());
    let hello = Request::Hello { version: 1, session: 1 };
    // It may have been closed already.
    drop(stream.write_all(&ToHelper { number: 1, request: hello }.encode()));
    let mut nothing = Vec::new();
    assert!(matches!(stream.read_to_end(&mut nothing), Ok(0) | Err(_)), "{nothing:x?}");
    assert!(place.metrics("/metrics").contains("caregate_datapathd_strangers_total 1\n"));
}

#[test]
fn what_is_no_request_is_refused_by_name() {
    let place = Place::new();
    let _helper = place.helper();
    drop(place.connect());
    let answer = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(place.path("run/datapath.sock")).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        if answer.is_empty() {
            return None;
        }
        match FromHelper::decode(&answer[4..]) {
            Ok(FromHelper::Reply { result: Err(refused), .. }) => Some(refused.reason),
            other => panic!("{other:?}"),
        }
    };
    let request = |request| ToHelper { number: 1, request }.encode();
    assert_eq!(answer(&request(Request::Counters)), Some(Reason::Order));
    assert_eq!(answer(&request(Request::Hello { version: 9, session: 1 })), Some(Reason::Version));
    assert_eq!(answer(&[0, 0, 0, 2, 0x82, 0xff]), Some(Reason::Malformed));
    assert_eq!(answer(&[0xff; 64]), None, "where the next frame begins is not known");
    let metrics = place.metrics("/metrics");
    for reason in ["order", "version", "malformed"] {
        assert!(metrics.contains(&format!("caregate_datapathd_refused_total{{reason=\"{reason}\"}} 1\n")));
    }
}

#[test]
fn what_is_missing_is_named() {
    let place = Place::new();
    let (good, text) = said(&place.configure(PORTS), Some("--check"));
    assert!(good && text.contains("are good"), "{text}");
    assert!(!place.path("bpf/caregate").exists(), "a check changes nothing");
    let (good, text) = said(&place.configure("sensor_ports = ['nowhere']"), Some("--check"));
    assert!(!good && text.contains("`nowhere`"), "{text}");
    let (good, text) = said(&place.configure_for("nobody-has-this-name", PORTS), None);
    assert!(!good && text.contains("nobody-has-this-name"), "{text}");
    let config = place.configure(PORTS);
    let text = std::fs::read_to_string(&config).unwrap().replace("/bpf/caregate", "/no-bpf/caregate");
    std::fs::write(&config, text).unwrap();
    for option in [None, Some("--check"), Some("--detach")] {
        let (good, text) = said(&config, option);
        assert!(!good && text.contains("mount -t bpf bpf"), "{text}");
    }
}

#[test]
fn without_privilege_it_says_what_it_needs() {
    let place = Place::new();
    let config = place.configure(PORTS);
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"]).arg(binary());
    let output = command.arg("--config").arg(&config).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(text.contains("CAP_BPF") && text.contains("datapath = \"off\""), "{text}");
}

#[test]
fn interfaces_come_and_go() {
    let place = Place::new();
    let _helper = Helper::start(&place.configure("sensor_ports = ['port', 'late']\nuplinks = ['uplink']"));
    let mut client = place.connect();
    assert_eq!(client.welcome.ports[1].mode, Mode::None);
    assert!(place.metrics("/readyz").contains("not ready: ports"));
    client.set_policy(policy());
    let changed = |client: &mut Client, wanted: fn(&caregate_protocol::datapath::Port) -> bool| {
        client.event(|event| match event {
            Event::PortStatus(port) if wanted(port) => Some(port.clone()),
            Event::PortStatus(_) | Event::PacketIn { .. } | Event::Punt(_) => None,
        })
    };
    run("ip", &["link", "add", "far", "type", "veth", "peer", "name", "late", "address", GATEWAY_TEXT]);
    run("ip", &["link", "set", "far", "up"]);
    run("ip", &["link", "set", "late", "up"]);
    run("ip", &["address", "add", "10.9.0.1/24", "dev", "late"]);
    let port = changed(&mut client, |port| port.number == 2 && port.up);
    assert_eq!((port.mode, port.mac), (Mode::Native, GATEWAY));
    until("it is ready", || place.metrics("/readyz").contains("200 OK").then_some(()));
    let mut far = Wire::open("far");
    far.send(&publish(SENSOR));
    far.send(&publish(STRANGER));
    client.judged(2, 2);
    assert_eq!((client.verdict(2, "admitted"), client.verdict(2, "unbound_source")), (1, 1));
    // The same name, another interface.
    drop(far);
    run("ip", &["link", "del", "far"]);
    changed(&mut client, |port| port.number == 2 && port.mode == Mode::None);
    run("ip", &["link", "add", "far", "type", "veth", "peer", "name", "late"]);
    run("ip", &["link", "set", "far", "up"]);
    run("ip", &["link", "set", "late", "up"]);
    changed(&mut client, |port| port.number == 2 && port.mode == Mode::Native && port.up);
    Wire::open("far").send(&publish(STRANGER));
    client.judged(2, 3);
    run("ip", &["link", "set", "sensor", "down"]);
    changed(&mut client, |port| port.number == 1 && !port.up);
}

#[test]
fn where_the_driver_takes_no_program_the_stack_does() {
    let place = Place::new();
    // A bridge has no XDP of its own; frames for it come in by its port.
    run("ip", &["link", "add", "br0", "address", GATEWAY_TEXT, "type", "bridge"]);
    run("ip", &["link", "set", "br0", "up"]);
    run("ip", &["link", "add", "far", "type", "veth", "peer", "name", "near"]);
    run("ip", &["link", "set", "near", "master", "br0"]);
    run("ip", &["link", "set", "far", "up"]);
    run("ip", &["link", "set", "near", "up"]);
    run("ip", &["address", "add", "10.9.0.1/24", "dev", "br0"]);
    let _helper = Helper::start(&place.configure("sensor_ports = ['br0']"));
    let mut client = place.connect();
    assert_eq!(client.welcome.ports[0].mode, Mode::Generic);
    assert!(place.metrics("/metrics").contains("port_mode{interface=\"br0\",mode=\"generic\"} 1\n"));
    client.set_policy(policy());
    let mut far = Wire::open("far");
    until("the bridge forwards", || {
        far.send(&publish(SENSOR));
        (client.verdict(1, "admitted") > 0).then_some(())
    });
    far.send(&publish(STRANGER));
    until("the stranger is dropped", || (client.verdict(1, "unbound_source") == 1).then_some(()));
}

#[test]
fn a_port_of_a_bridge_is_reached_at_the_bridges_addresses() {
    let place = Place::new();
    run("ip", &["link", "add", "br0", "address", "02:00:00:00:00:bb", "type", "bridge"]);
    run("ip", &["link", "set", "br0", "up"]);
    run("ip", &["link", "set", "port", "master", "br0"]);
    run("ip", &["address", "add", "10.8.0.1/24", "dev", "br0"]);
    let _helper = place.helper();
    let mut client = place.connect();
    client.set_policy(policy());
    let bridge = [2, 0, 0, 0, 0, 0xbb];
    let mut sensor = Wire::open("sensor");
    sensor.send(&publish_to(SENSOR, bridge, "10.8.0.1".parse().unwrap(), 1883));
    client.judged(1, 1);
    assert_eq!(client.verdict(1, "admitted"), 1);
    run("ip", &["address", "del", "10.8.0.1/24", "dev", "br0"]);
    let mut sent = 1;
    until("the address is gone from the filter", || {
        sensor.send(&publish_to(SENSOR, bridge, "10.8.0.1".parse().unwrap(), 1883));
        sent += 1;
        client.judged(1, sent);
        (client.verdict(1, "other_destination") > 0).then_some(())
    });
}
