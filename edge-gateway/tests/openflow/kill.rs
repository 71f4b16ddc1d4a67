//! `edge-gateway switch` and its helper as processes that are killed, restarted and upgraded, while frames go that a flow allows and
//! others that none does. Needs root, iproute2, and `caregate-datapathd` built (`cargo build --release -p caregate-datapathd`);
//! without them it fails and says so.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use caregate_host::identity::{IdentityFiles, Role};
use caregate_protocol::openflow::multipart::{FlowStatsRequest, ReplyBody, RequestBody};
use caregate_protocol::openflow::{
    Action, Command as Change, FlowMod, Instruction, Match, Message, MultipartReply,
};

use crate::openflow_support::controller::{Controller, Peer};
use crate::openflow_support::gateway::{Gateway, Wire};
use crate::openflow_support::pki::Pki;
use crate::openflow_support::wait_for;

/// Ports 1 and 2, with hosts on `s0` and `p0`.
const PORTS: &str = "switch_ports = [\"sen0\", \"up0\"]";
/// Of IEEE 802's experiments: no stack answers it.
const ETHER_TYPE: [u8; 2] = [0x88, 0xb5];
/// A frame that has not come by then is lost.
const LOST: Duration = Duration::from_secs(2);
/// Rounds that are seen after each step.
const ROUNDS: u64 = 100;

/// A running daemon; ended on drop, as by SIGKILL.
struct Switch(Child);

impl Switch {
    fn start(gateway: &Gateway, pki: &Pki, controller: &Controller) -> Self {
        let IdentityFiles { certificate, key, ca } = pki.issue(Role::Gateway, "switch-1");
        let text = format!(
            "data = {:?}\nadmin = \"127.0.0.1:0\"\nidentity = {{ certificate = {certificate:?}, key = {key:?}, ca = {ca:?} }}\n\
             [datapath]\nhelper = {:?}\n\
             [controller]\naddress = \"{}\"\nname = \"controller-1\"\ndatapath_id = \"00000000000000a2\"\n",
            gateway.path("data"),
            gateway.socket(),
            controller.address(),
        );
        fs::write(gateway.path("switch.toml"), text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_edge-gateway"));
        command.args(["switch", "--config"]).arg(gateway.path("switch.toml")).stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// As an operator does.
    fn stop(mut self) {
        let done = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().unwrap();
        assert!(done.success() && self.0.wait().unwrap().success());
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn across(command: Change) -> FlowMod {
    FlowMod {
        cookie: 7,
        pattern: Match::any().in_port(1),
        instructions: vec![Instruction::ApplyActions(vec![Action::output(2)])],
        ..FlowMod::new(command, 1, 10)
    }
}

fn cookies(peer: &mut Peer) -> Vec<u64> {
    let request = Message::MultipartRequest(RequestBody::Flow(FlowStatsRequest::all()).into());
    let Message::MultipartReply(MultipartReply { body: ReplyBody::Flow(flows), .. }) = peer.ask(&request)
    else {
        panic!()
    };
    flows.iter().map(|flow| flow.cookie).collect()
}

fn is_test(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&ETHER_TYPE[..])
}

fn frame(from: u8, number: u64) -> Vec<u8> {
    let head = [&[2, 8, 0, 0, 0, 9, 2, 8, 0, 0, 0, from][..], &ETHER_TYPE, &number.to_be_bytes()];
    let mut frame = head.concat();
    frame.resize(60, 0);
    frame
}

/// Frames both ways, each after the one before it has come; only those of port 1 may.
#[derive(Default)]
struct Traffic {
    stop: AtomicBool,
    rounds: AtomicU64,
}

impl Traffic {
    fn go(&self, one: &mut Wire, other: &mut Wire) {
        while !self.stop.load(Ordering::Relaxed) {
            let round = self.rounds.load(Ordering::Relaxed);
            other.send(&frame(2, round));
            one.send(&frame(1, round));
            assert_eq!(other.next(LOST, is_test), Some(frame(1, round)), "round {round}");
            self.rounds.fetch_add(1, Ordering::Relaxed);
        }
        assert_eq!(one.next(Duration::from_millis(200), is_test), None, "no flow leads back");
    }

    fn goes_on(&self, what: &str) {
        let before = self.rounds.load(Ordering::Relaxed);
        wait_for(what, || (self.rounds.load(Ordering::Relaxed) >= before + ROUNDS).then_some(()));
    }
}

/// Stops the traffic also where a step fails.
struct Stop<'a>(&'a Traffic);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// All steps; gives back the last connection and the daemon behind it.
fn steps(gateway: &mut Gateway, pki: &Pki, controller: &Controller, traffic: &Traffic) -> (Switch, Peer) {
    let come = |gateway: &Gateway| {
        let switch = Switch::start(gateway, pki, controller);
        let mut peer = controller.accept_switch();
        assert_eq!(cookies(&mut peer), [7], "it knows its flow");
        (switch, peer)
    };
    traffic.goes_on("no daemon is there");
    let (switch, peer) = come(gateway);
    traffic.goes_on("a daemon has come");
    drop((switch, peer));
    traffic.goes_on("the daemon was killed");
    let (switch, mut peer) = come(gateway);
    gateway.kill_helper();
    traffic.goes_on("the helper was killed");
    gateway.start_helper_with(PORTS);
    // It says of its own accord that it is there still.
    assert_eq!(peer.ask(&Message::EchoRequest(vec![7])), Message::EchoReply(vec![7]));
    // A barrier is not answered without a helper.
    wait_for("daemon and helper to be one again", || {
        peer.try_out(&Message::FlowMod(across(Change::Modify))).is_none().then_some(())
    });
    traffic.goes_on("the helper is back");
    drop((switch, peer));
    gateway.kill_helper();
    traffic.goes_on("nobody is there");
    // What a version with another layout left behind: its maps lie elsewhere, its programs go on.
    let pins = gateway.path("bpf/caregate");
    let maps = fs::read_dir(&pins).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir());
    fs::rename(maps.unwrap(), pins.join("maps-1")).unwrap();
    gateway.start_helper_with(PORTS);
    traffic.goes_on("a new version waits");
    assert!(pins.join("maps-1").exists(), "for what it has not been told");
    let last = come(gateway);
    wait_for("the new version to take over", || (!pins.join("maps-1").exists()).then_some(()));
    traffic.goes_on("it has taken over");
    last
}

#[test]
fn frames_go_as_flows_say_whoever_is_killed_and_whatever_version_follows() {
    let pki = Pki::new();
    let mut gateway = Gateway::new("kill");
    let controller = Controller::listen(&pki, Role::Controller, "controller-1");
    gateway.start_helper_with(PORTS);
    let switch = Switch::start(&gateway, &pki, &controller);
    let mut peer = controller.accept_switch();
    assert_eq!(peer.try_out(&Message::FlowMod(across(Change::Add))), None);
    // What decides over no sensor is on disk within half a minute, or when the daemon ends in order.
    switch.stop();
    let (mut one, mut other) = (gateway.wire("s0"), gateway.wire("p0"));
    let traffic = Traffic::default();
    let (_switch, mut peer) = std::thread::scope(|scope| {
        scope.spawn(|| traffic.go(&mut one, &mut other));
        let _stop = Stop(&traffic);
        steps(&mut gateway, &pki, &controller, &traffic)
    });
    // And what is taken away is away when the barrier is answered.
    assert_eq!(peer.try_out(&Message::FlowMod(across(Change::Delete))), None);
    one.send(&frame(1, u64::MAX));
    assert_eq!(other.next(Duration::from_millis(200), is_test), None, "no flow is left");
}
