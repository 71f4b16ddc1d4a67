//! The gateway's switch under controllers that others wrote: os-ken and Open vSwitch's, both Debian's, over mutual TLS. Without the
//! packages python3-os-ken and openvswitch-testcontroller these tests fail and say so.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, channel};

use caregate_host::identity::Role;
use caregate_protocol::datapath::switch::FlowInstructions;
use edge_gateway::openflow::helper::HelperEvent;
use serde_json::Value;

use crate::openflow_support::pki::Pki;
use crate::openflow_support::running::{Running, welcome};
use crate::openflow_support::{PATIENCE, wait_for};

/// A process of the test's own, ended with it.
struct Foreign {
    child: Child,
    lines: Receiver<String>,
}

impl Foreign {
    fn start(mut command: Command, package: &str) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("{command:?} can't run ({error}); it is in Debian's {package}"),
        };
        let (said, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| said.send(line)));
        Self { child, lines }
    }

    /// Everything that it says up to this event.
    fn events_to(&self, last: &str) -> Vec<Value> {
        let mut events: Vec<Value> = Vec::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|error| panic!("no `{last}` ({error}) after {events:#?}"));
            events.push(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}")));
            if events.last().unwrap()["event"] == last {
                return events;
            }
        }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A port that is free now; another for each caller.
fn free_port() -> SocketAddr {
    // Below the range from which the kernel takes ports for sockets that do not care: other tests open many while a controller starts.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let from = 20_000 + u16::try_from(std::process::id() % 200).unwrap() * 50;
    let next = || SocketAddr::from((Ipv4Addr::LOCALHOST, from + NEXT.fetch_add(1, Ordering::Relaxed)));
    std::iter::repeat_with(next).find(|address| TcpListener::bind(address).is_ok()).unwrap()
}

fn os_ken(pki: &Pki, address: SocketAddr) -> Foreign {
    let files = pki.issue(Role::Controller, "controller-1");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openflow_support/os_ken_app.py");
    let mut command = Command::new("/usr/bin/python3");
    command.arg(script).arg(address.port().to_string()).args([&files.key, &files.certificate, &files.ca]);
    Foreign::start(command, "python3-os-ken")
}

fn errors(events: &[Value]) -> Vec<(&str, u64, u64)> {
    let errors = events.iter().filter(|event| event["event"] == "error");
    errors
        .map(|event| {
            (event["of"].as_str().unwrap(), event["type"].as_u64().unwrap(), event["code"].as_u64().unwrap())
        })
        .collect()
}

#[test]
fn os_ken_takes_the_switch_through_all_that_it_has() {
    let pki = Pki::new();
    let data = tempfile::tempdir().unwrap();
    let address = free_port();
    let controller = os_ken(&pki, address);
    let running = Running::start(&pki, data.path(), address);
    let events = controller.events_to("barrier");
    let of = |name: &str| events.iter().find(|event| event["event"] == name).unwrap_or(&Value::Null);

    assert_eq!((&of("features")["dpid"], &of("features")["n_tables"]), (&0xc0ffee.into(), &8.into()));
    assert_eq!(of("ports")["ports"], serde_json::json!([[1, "sensor0"], [2, "sensor1"], [3, "up0"]]));
    assert_eq!(of("description")["manufacturer"], "Caregate");
    // Types and codes by the standard's numbers.
    let expected = [
        ("table-0", 1, 5),
        ("mirror", 2, 6),
        ("spy", 2, 6),
        ("unknown-field", 4, 6),
        ("unknown-action", 2, 0),
        ("goto", 3, 2),
        ("meter", 12, 2),
        ("to-sensor", 1, 5),
        ("group", 6, 1),
        ("groups", 6, 8),
    ];
    assert_eq!(errors(&events), expected);
    let flows = of("flows")["flows"].as_array().unwrap();
    let cookies: Vec<_> = flows.iter().map(|flow| flow[0].as_u64().unwrap()).collect();
    assert_eq!(cookies, [1, 2, 3]);
    let actions = flows[1][3][0]["OFPInstructionActions"]["actions"].as_array().unwrap();
    assert_eq!((flows[1][1].as_u64(), actions.len()), (Some(1), 3));
    let prefix = &flows[2][2]["OFPMatch"]["oxm_fields"][1]["OXMTlv"];
    assert_eq!((&prefix["field"], &prefix["mask"]), (&"ipv6_src".into(), &"ffff:ffff::".into()));
    assert_eq!(of("aggregate")["flows"], 3);
    assert_eq!(
        of("tables")["tables"],
        serde_json::json!([[0, 0], [1, 3], [2, 0], [3, 0], [4, 0], [5, 0], [6, 0], [7, 0]])
    );
    assert_eq!(of("port-stats")["ports"], serde_json::json!([1, 2, 3]));
    assert_eq!(of("role")["role"], 2);
    let removed: Vec<_> = events
        .iter()
        .filter(|event| event["event"] == "removed")
        .map(|event| event["cookie"].as_u64().unwrap())
        .collect();
    assert_eq!(removed, [1, 2, 3]);
    assert_eq!(running.place.sent(), [(3, vec![2; 60])]);
    assert_eq!(running.place.flows().unwrap(), [], "released before the barrier was answered");

    let mut down = welcome().ports.remove(0);
    down.up = false;
    running.events.blocking_send(HelperEvent::Port(down)).unwrap();
    let status = controller.events_to("port-status").pop().unwrap();
    assert_eq!((status["port"].as_u64(), status["state"].as_u64()), (Some(1), Some(1)));
    drop(controller);
    running.stop();
}

/// It is a learning switch: it wants to see every frame, and is told that it may not.
#[test]
fn open_vswitchs_controller_is_refused_what_it_may_not_and_stays() {
    let pki = Pki::new();
    let data = tempfile::tempdir().unwrap();
    let address = free_port();
    let files = pki.issue(Role::Controller, "controller-1");
    let mut command = Command::new("ovs-testcontroller");
    command.env("OVS_RUNDIR", data.path()).env("OVS_LOGDIR", data.path());
    command.arg(format!("pssl:{}:127.0.0.1", address.port()));
    for (option, file) in
        [("--private-key", &files.key), ("--certificate", &files.certificate), ("--ca-cert", &files.ca)]
    {
        command.arg(option).arg(file);
    }
    let flow = data.path().join("flows");
    std::fs::write(&flow, "table=1,priority=9,dl_src=02:00:00:00:00:01,actions=drop\n").unwrap();
    command.arg(format!("--with-flows={}", flow.display()));
    let _controller = Foreign::start(command, "openvswitch-testcontroller");
    let running = Running::start(&pki, data.path(), address);
    wait_for("the flow of its file", || {
        let flows = running.place.flows()?;
        let [flow] = &flows[..] else { return None };
        assert_eq!(flow.instructions.as_ref(), &FlowInstructions::default());
        Some(())
    });
    let refused = "caregate_gateway_openflow_refused_total{reason=\"OFPBRC_EPERM\"}";
    wait_for("its table-miss flow for table 0 to be refused", || {
        (running.metric(refused) >= 1.0).then_some(())
    });
    assert_eq!(running.metric("caregate_gateway_openflow_connected"), 1.0);
    running.stop();
}
