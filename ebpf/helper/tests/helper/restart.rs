//! What is pinned outlives the processes, and a new version takes the old one's place in one step. Needs root; without it each
//! test fails and says so.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use caregate_protocol::datapath::Mode;

use crate::support::frames::*;
use crate::support::{Client, Helper, PORTS, Place, Wire, binary, drop_source, policy, until};

/// Sends a stranger's reading and a bound sensor's in turn until `stop`; how many of each.
fn talk(wire: &mut Wire, stop: &AtomicBool) -> u64 {
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        wire.send(&publish(STRANGER));
        wire.send(&publish(SENSOR));
        sent += 1;
    }
    sent
}

#[test]
fn a_kill_and_a_restart_change_nothing_for_any_frame() {
    let place = Place::new();
    let helper = place.helper();
    let mut client = place.connect();
    client.set_policy(policy());
    client.set_flows(vec![drop_source(3, [2, 0, 0, 0, 0, 9])]);
    let stop = AtomicBool::new(false);
    let mut sensor = Wire::open("sensor");
    let sent = std::thread::scope(|scope| {
        let talking = scope.spawn(|| talk(&mut sensor, &stop));
        let judged = |client: &mut Client, more: u64| {
            let before = client.verdict(1, "admitted");
            until("frames go on", || (client.verdict(1, "admitted") >= before + more).then_some(()));
        };
        judged(&mut client, 500);
        // The daemon goes as if killed, and so does the helper.
        drop(client);
        helper.kill();
        for _ in 0..3 {
            let helper = place.helper();
            let mut client = place.connect();
            judged(&mut client, 500);
            let flows = "caregate_datapathd_entries{table=\"flows\"} 1\n";
            assert!(place.metrics("/metrics").contains(flows), "flows stay in force");
            helper.kill();
        }
        let _helper = place.helper();
        let mut client = place.connect();
        judged(&mut client, 500);
        stop.store(true, Ordering::Relaxed);
        talking.join().unwrap()
    });
    let _helper = place.helper();
    let mut client = place.connect();
    client.judged(1, 2 * sent);
    // Each frame met the same filter, whoever ran meanwhile.
    assert_eq!((client.verdict(1, "admitted"), client.verdict(1, "unbound_source")), (sent, sent));
    let device = client.counters().devices[0];
    assert_eq!((device.passed.frames, device.dropped.frames), (sent, 0));
}

#[test]
fn without_any_process_strangers_are_dropped_and_bound_sensors_heard() {
    let place = Place::new();
    let helper = place.helper();
    place.connect().set_policy(policy());
    helper.kill();
    let (mut sensor, mut port) = (Wire::open("sensor"), Wire::open("port"));
    for _ in 0..20 {
        sensor.send(&publish(STRANGER));
        sensor.send(&publish(SENSOR));
        assert_eq!(port.next(|frame| frame[12..14] == [8, 0]), Some(publish(SENSOR)));
    }
    assert_eq!(port.next(|frame| frame[12..14] == [8, 0]), None);
}

#[test]
fn another_versions_programs_stay_until_the_policy_is_known() {
    let place = Place::new();
    let helper = place.helper();
    place.connect().set_policy(policy());
    helper.kill();
    // What a version with another layout left behind: its maps lie elsewhere, its programs go on.
    let pins = place.path("bpf/caregate");
    let own = fs::read_dir(&pins).unwrap().map(|entry| entry.unwrap().path());
    let own = own.into_iter().find(|path| path.is_dir()).unwrap();
    fs::rename(&own, pins.join("maps-1")).unwrap();
    let _helper = place.helper();
    let mut client = place.connect();
    assert!(client.welcome.ports.iter().all(|port| port.mode == Mode::None), "the new programs wait");
    let (mut sensor, mut port) = (Wire::open("sensor"), Wire::open("port"));
    let mut passes = |source| {
        sensor.send(&publish(source));
        port.next(|frame| frame == publish(source)).is_some()
    };
    assert!(passes(SENSOR) && !passes(STRANGER));
    assert_eq!(client.verdicts(1), [], "the new programs have judged nothing");
    client.set_policy(policy());
    assert!(passes(SENSOR) && !passes(STRANGER));
    client.judged(1, 2);
    assert!(!pins.join("maps-1").exists() && own.exists());
    let mode = until("ports are filtered", || {
        let welcome = place.connect().welcome;
        (welcome.ports[0].mode != Mode::None).then_some(welcome.ports[0].mode)
    });
    assert_eq!(mode, Mode::Native);
}

#[test]
fn detach_leaves_nothing_behind() {
    let place = Place::new();
    let config = place.configure(PORTS);
    let helper = Helper::start(&config);
    drop(place.connect());
    helper.kill();
    let filters = || {
        let shown = Command::new("tc").args(["filter", "show", "dev", "uplink", "egress"]).output().unwrap();
        String::from_utf8(shown.stdout).unwrap()
    };
    assert!(filters().contains("uplink"), "{}", filters());
    let done = Command::new(binary()).arg("--config").arg(&config).arg("--detach").status().unwrap();
    assert!(done.success());
    assert_eq!(filters(), "");
    assert!(!place.path("bpf/caregate").exists());
    let (mut sensor, mut port) = (Wire::open("sensor"), Wire::open("port"));
    // The kernel takes a program off some moments after its link's last pin is gone.
    until("strangers pass", || {
        sensor.send(&publish(STRANGER));
        port.next(|frame| frame == publish(STRANGER))
    });
    // Where nothing is, there is nothing to do.
    let again = Command::new(binary()).arg("--config").arg(&config).arg("--detach").status().unwrap();
    assert!(again.success());
}
