//! Controllers that others wrote drive a switch, and hosts talk across it: os-ken's learning switch, and Faucet with VLANs, an ACL
//! and a meter.
//!
//! Each runs twice: with Open vSwitch as the switch, which shows that the test itself is right, and with ours. `cargo xtask
//! interop` makes what is needed (the controllers' environments, builds without guard, whose table 0 is the controller's) and runs
//! this; it is not among the tests that `cargo test` runs unasked, since it needs root and downloads.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod caregate;
mod controller;
mod ground;
mod open_vswitch;
#[allow(dead_code, reason = "of another test, and not all of it is needed here")]
#[path = "../../../edge-gateway/tests/openflow_support/pki.rs"]
mod pki;

use caregate::Caregate;
use controller::Controller;
use ground::{Ground, Host, wait_for};
use open_vswitch::OpenVswitch;
use pki::Pki;

/// As every switch here is called by its controller.
const DATAPATH_ID: u64 = 0x1ea;

/// Something that is a switch with the ground's ports, until it is dropped.
trait Switch: Sized {
    fn start(ground: &Ground, pki: &Pki) -> Self;
}

/// Hosts, controller, switch. Fields are dropped in their order.
struct Stage<S> {
    switch: S,
    controller: Controller,
    ground: Ground,
    _pki: Pki,
}

impl<S: Switch> Stage<S> {
    fn new(test: &str, controller: impl FnOnce(&Ground, &Pki) -> Controller) -> Self {
        let (ground, pki) = (Ground::new(test), Pki::new());
        let controller = controller(&ground, &pki);
        let switch = S::start(&ground, &pki);
        Self { switch, controller, ground, _pki: pki }
    }

    fn host(&self, number: u8) -> &Host {
        self.ground.host(number)
    }
}

/// TCP of a learned path, in Mbit/s. Far below what any of these reach; above what frames reach that all go by a controller.
const MBITS_MIN: f64 = 50.0;
/// Frames that may go by the controller once all hosts are known: the switch does the rest itself.
const PACKET_INS_MAX: usize = 50;

fn hosts_meet_across_a_learning_switch<S: Switch>(test: &str) {
    let stage = Stage::<S>::new(test, Controller::learning_switch);
    for (from, to) in [(1, 2), (2, 3), (3, 1), (4, 1)] {
        wait_for(&format!("host {to} to answer host {from}"), || stage.host(from).pings(to).then_some(()));
    }
    let before = stage.controller.count("packet-in");
    assert!(before > 0, "frames of strangers went past the controller");
    let tcp = stage.host(1).tcp(stage.host(2), 5201).unwrap();
    let lost = stage.host(2).udp(stage.host(3), 5201, 5).lost;
    println!("{test}: TCP {tcp:.0} Mbit/s; of UDP at 5 Mbit/s {:.1} % lost", 100.0 * lost);
    assert!(tcp > MBITS_MIN, "{tcp} Mbit/s");
    assert!(lost < 0.05, "{lost}");
    let since = stage.controller.count("packet-in") - before;
    assert!(since < PACKET_INS_MAX, "{since} frames went by the controller, after it had learned all hosts");
    assert_eq!(stage.controller.count("error"), 0, "the switch refused something");
}

fn faucets_vlans_acl_and_meter_hold<S: Switch>(test: &str) {
    let stage = Stage::<S>::new(test, Controller::faucet);
    let (one, two) = (stage.host(1), stage.host(2));
    wait_for("host 2 to answer host 1", || one.pings(2).then_some(()));
    // Host 3 is in another VLAN, with an address of the same subnet.
    assert!(!one.pings(3) && !stage.host(3).pings(2), "from one VLAN to another");
    let trunk = |vlan, address| stage.host(4).asks_in_vlan(vlan, address);
    let answers =
        [(100, 1, "100"), (100, 2, "100"), (200, 3, "200"), (200, 1, "silence"), (100, 3, "silence")];
    for (vlan, host, answer) in answers {
        assert_eq!(trunk(vlan, host), answer, "who has host {host}'s address, asked in VLAN {vlan}");
    }
    let tcp = one.tcp(two, 5201).unwrap();
    assert!(tcp > MBITS_MIN, "{tcp} Mbit/s");
    let refused = one.tcp(two, 5202);
    assert!(refused.is_err(), "TCP port 5202 is not for host 1, which reached {refused:?} Mbit/s");
    let back = two.tcp(one, 5202);
    assert!(back.is_ok(), "TCP port 5202 is host 2's to use: {back:?}");
    let (metered, free) = (one.udp(two, 5203, 5), two.udp(one, 5203, 5));
    println!(
        "{test}: TCP {tcp:.0} Mbit/s; of UDP at 5 Mbit/s, metered to 1, {:.0} % lost, unmetered {:.1} %",
        100.0 * metered.lost,
        100.0 * free.lost
    );
    assert!((0.5..0.95).contains(&metered.lost), "{}", metered.lost);
    assert!(free.lost < 0.05, "{}", free.lost);
    stage.controller.assert_no_complaint();
}

#[test]
fn open_vswitch_under_os_kens_learning_switch() {
    hosts_meet_across_a_learning_switch::<OpenVswitch>("ovs-learning");
}

#[test]
fn open_vswitch_under_faucet() {
    faucets_vlans_acl_and_meter_hold::<OpenVswitch>("ovs-faucet");
}

#[test]
fn ours_under_os_kens_learning_switch() {
    hosts_meet_across_a_learning_switch::<Caregate>("own-learning");
}

#[test]
fn ours_under_faucet() {
    faucets_vlans_acl_and_meter_hold::<Caregate>("own-faucet");
}

/// What the kernel was told last holds while there is nobody who could tell it more.
#[test]
fn hosts_talk_on_when_our_daemon_has_stopped() {
    let mut stage = Stage::<Caregate>::new("own-stop", Controller::learning_switch);
    // One ping is answered before both ways are learned, the next needs no controller.
    for _ in 0..2 {
        wait_for("host 2 to answer host 1", || stage.host(1).pings(2).then_some(()));
    }
    wait_for("both ways to be in the kernel", || (stage.switch.flows(&stage.ground) >= 3).then_some(()));
    stage.switch.stop();
    assert!(stage.host(1).pings(2), "a way that was learned");
    assert!(!stage.host(1).pings(3), "nobody floods what no flow sends on");
}
