//! The gateway's switch over real TLS, against a controller that says what the test tells it to.

use caregate_host::identity::Role;
use caregate_protocol::datapath::switch::FlowInstructions;
use caregate_protocol::openflow::multipart::{FlowStatsRequest, ReplyBody, RequestBody};
use caregate_protocol::openflow::{
    Action, Command, FlowMod, HEADER_BYTES, Instruction, Match, Message, MultipartReply, NO_BUFFER,
    PacketOut, PortReason, flags, port,
};
use edge_gateway::openflow::helper::HelperEvent;
use edge_gateway::openflow::store::FlowStore;
use tempfile::TempDir;

use crate::openflow_support::controller::{Controller, Peer};
use crate::openflow_support::pki::Pki;
use crate::openflow_support::running::{Running, welcome};
use crate::openflow_support::wait_for;

fn quarantine(last: u8) -> FlowMod {
    FlowMod {
        cookie: u64::from(last),
        flags: flags::SEND_FLOW_REM,
        pattern: Match::any().eth_src([2, 0, 0, 0, 0, last]),
        ..FlowMod::new(Command::Add, 1, 100)
    }
}

struct Bench {
    pki: Pki,
    data: TempDir,
    controller: Controller,
}

impl Bench {
    fn new() -> Self {
        let pki = Pki::new();
        let controller = Controller::listen(&pki, Role::Controller, "controller-1");
        Self { pki, data: tempfile::tempdir().unwrap(), controller }
    }

    fn start(&self) -> Running {
        Running::start(&self.pki, self.data.path(), self.controller.address())
    }
}

fn flows(peer: &mut Peer) -> Vec<u64> {
    let request = Message::MultipartRequest(RequestBody::Flow(FlowStatsRequest::all()).into());
    let Message::MultipartReply(MultipartReply { body: ReplyBody::Flow(flows), more: false }) =
        peer.ask(&request)
    else {
        panic!()
    };
    flows.iter().map(|flow| flow.cookie).collect()
}

#[test]
fn a_barrier_means_in_force_and_on_disk() {
    let bench = Bench::new();
    let running = bench.start();
    let mut peer = bench.controller.accept_switch();
    let Message::FeaturesReply(features) = peer.ask(&Message::FeaturesRequest) else { panic!() };
    assert_eq!((features.datapath_id, features.n_tables), (0xc0ffee, 8));

    running.place.hold(true);
    peer.send(&Message::FlowMod(quarantine(1)));
    let barrier = peer.send(&Message::BarrierRequest);
    let echo = peer.send(&Message::EchoRequest(vec![7]));
    wait_for("the flow on disk", || (FlowStore::open(bench.data.path()).unwrap().1.len() == 1).then_some(()));
    assert_eq!(running.place.flows().unwrap().len(), 0, "held back");
    running.place.hold(false);
    assert_eq!(peer.receive(), (barrier, Message::BarrierReply));
    assert_eq!(running.place.flows().unwrap()[0].instructions.as_ref(), &FlowInstructions::default());
    assert_eq!(peer.receive(), (echo, Message::EchoReply(vec![7])), "in order");
    assert_eq!(running.metric("caregate_gateway_openflow_flows"), 1.0);
    assert_eq!(running.metric("caregate_gateway_openflow_connected"), 1.0);

    running.place.refuse(true);
    assert_eq!(peer.try_out(&Message::FlowMod(quarantine(2))).unwrap().as_str(), "OFPFMFC_UNKNOWN");
    running.place.refuse(false);
    assert_eq!(flows(&mut peer), [1]);
    let kept = || FlowStore::open(bench.data.path()).unwrap().1.len() == 1;
    wait_for("the refused flow to be off the disk", || kept().then_some(()));
    running.stop();
}

#[test]
fn flows_go_on_without_a_controller_and_after_a_restart() {
    let bench = Bench::new();
    let running = bench.start();
    let mut peer = bench.controller.accept_switch();
    assert_eq!(peer.try_out(&Message::FlowMod(quarantine(1))), None);
    assert_eq!(peer.try_out(&Message::FlowMod(FlowMod { priority: 7, ..quarantine(2) })), None);
    let before = running.place.flows().unwrap();
    drop(peer);
    wait_for("the controller's end to be seen", || {
        (running.metric("caregate_gateway_openflow_connected") == 0.0).then_some(())
    });
    assert_eq!(running.place.flows().unwrap(), before);
    let mut peer = bench.controller.accept_switch();
    assert_eq!(flows(&mut peer), [1, 2]);
    drop(peer);
    running.stop();

    // Nobody listens any more.
    let Bench { pki, data, controller } = bench;
    let address = controller.address();
    drop(controller);
    let again = Running::start(&pki, data.path(), address);
    assert_eq!(wait_for("the kept rules", || again.place.flows()), before);
    assert_eq!(again.place.changed(), 1, "at once, in one step");
    wait_for("attempts", || {
        (again.metric("caregate_gateway_openflow_connects_total{result=\"tcp\"}") >= 2.0).then_some(())
    });
    again.stop();
}

#[test]
fn what_policy_keeps_is_refused_and_the_session_goes_on() {
    let bench = Bench::new();
    let running = bench.start();
    let mut peer = bench.controller.accept_switch();
    let mut refused = |message: Message| peer.try_out(&message).map(|kind| kind.as_str());
    assert_eq!(refused(Message::FlowMod(FlowMod { table_id: 0, ..quarantine(1) })), Some("OFPBRC_EPERM"));
    let mirror = vec![Action::output(port::LOCAL), Action::output(3)];
    let mirror = FlowMod { instructions: vec![Instruction::ApplyActions(mirror)], ..quarantine(1) };
    assert_eq!(refused(Message::FlowMod(mirror)), Some("OFPBAC_EPERM"));
    let to_controller = vec![Action::Output { port: port::CONTROLLER, max_len: 128 }];
    let spy = FlowMod { instructions: vec![Instruction::WriteActions(to_controller)], ..quarantine(1) };
    assert_eq!(refused(Message::FlowMod(spy)), Some("OFPBAC_EPERM"));
    let packet = |output| PacketOut {
        buffer_id: NO_BUFFER,
        in_port: port::CONTROLLER,
        actions: vec![Action::output(output)],
        data: vec![2; 60],
    };
    assert_eq!(refused(Message::PacketOut(packet(1))), Some("OFPBRC_EPERM"));
    assert_eq!(refused(Message::PacketOut(packet(3))), None);
    assert_eq!(running.place.sent(), [(3, vec![2; 60])], "before the barrier was answered");
    let count =
        |code| running.metric(&format!("caregate_gateway_openflow_refused_total{{reason=\"{code}\"}}"));
    assert_eq!((count("OFPBRC_EPERM"), count("OFPBAC_EPERM")), (2.0, 2.0));
    assert_eq!(running.place.flows().unwrap(), []);
    let numbered = |n: u16| {
        let [a, b] = n.to_be_bytes();
        Message::FlowMod(FlowMod { pattern: Match::any().eth_src([2, 0, 0, 0, a, b]), ..quarantine(1) })
    };
    for n in 0..4095 {
        peer.send(&numbered(n));
    }
    assert_eq!(peer.try_out(&numbered(4095)), None, "of none of them");
    assert_eq!(running.place.flows().unwrap().len(), 4096);
    assert_eq!(peer.try_out(&numbered(4096)).unwrap().as_str(), "OFPFMFC_TABLE_FULL");
    running.stop();
}

#[test]
fn only_the_controller_of_its_name_is_spoken_to() {
    let pki = Pki::new();
    for (role, name) in [(Role::Controller, "controller-2"), (Role::Core, "controller-1")] {
        let data = tempfile::tempdir().unwrap();
        let controller = Controller::listen(&pki, role, name);
        let running = Running::start(&pki, data.path(), controller.address());
        assert_eq!(controller.accept().try_receive(), None, "{role} {name}");
        let failed = "caregate_gateway_openflow_connects_total{result=\"tls\"}";
        wait_for("the refusal to be counted", || (running.metric(failed) >= 1.0).then_some(()));
        running.stop();
    }
}

#[test]
fn hostile_controllers_are_left_and_nothing_else_is() {
    let bench = Bench::new();
    let running = bench.start();
    let closed =
        |reason| running.metric(&format!("caregate_gateway_openflow_closed_total{{reason=\"{reason}\"}}"));
    let mut peer = bench.controller.accept_switch();
    assert_eq!(peer.try_out(&Message::FlowMod(quarantine(1))), None);

    // More malformed messages than anybody has by mistake.
    let cut = [4, 14, 0, 12, 0, 0, 0, 5, 0, 0, 0, 0];
    peer.send_bytes(&cut.repeat(1000));
    let mut errors = 0;
    while let Some((_, message)) = peer.try_receive() {
        assert!(matches!(message, Message::Error(_)), "{message:?}");
        errors += 1;
    }
    assert_eq!(errors, 65);
    wait_for("the end to be counted", || (closed("faults") == 1.0).then_some(()));

    // No OpenFlow at all; a length that can't be; a frame that never ends.
    let mut stranger = bench.controller.accept();
    stranger.send_bytes(&b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n".repeat(1000));
    while stranger.try_receive().is_some() {}
    wait_for("the end to be counted", || (closed("no-hello") == 1.0).then_some(()));
    let mut lost = bench.controller.accept_switch();
    lost.send_bytes(&[4, 2, 0, 3, 0, 0, 0, 9]);
    let (9, Message::Error(error)) = lost.receive() else { panic!() };
    assert_eq!(error.kind.as_str(), "OFPBRC_BAD_LEN");
    assert_eq!(lost.try_receive(), None);
    wait_for("the end to be counted", || (closed("framing") == 1.0).then_some(()));
    let mut endless = bench.controller.accept_switch();
    endless.send_bytes(&[&[4, 2, 0xff, 0xff, 0, 0, 0, 9][..], &[0; 1000]].concat());
    // Cut off in the middle of it.
    drop(endless);
    wait_for("the end to be counted", || (closed("peer") >= 1.0).then_some(()));

    let mut peer = bench.controller.accept_switch();
    assert_eq!(flows(&mut peer), [1], "through all of it");
    assert_eq!(running.place.flows().unwrap().len(), 1);
    running.stop();
}

#[test]
fn a_controller_that_does_not_read_stops_itself_alone() {
    let bench = Bench::new();
    let running = bench.start();
    let mut peer = bench.controller.accept_switch();
    assert_eq!(peer.try_out(&Message::FlowMod(quarantine(1))), None);
    let by_port = FlowMod { pattern: Match::any().in_port(2), ..quarantine(2) };
    assert_eq!(peer.try_out(&Message::FlowMod(by_port)), None);
    let echo = Message::EchoRequest(vec![1; 32 * 1024 - HEADER_BYTES]).encode(9).unwrap();
    let sent = peer.send_until_it_stops(&echo, 256 << 20);
    assert!(sent < 64 << 20, "{sent} bytes were taken without an answer being read");
    // The helper goes and comes, with a port less: the switch does its work.
    running.events.blocking_send(HelperEvent::Down).unwrap();
    let mut fewer = welcome();
    fewer.ports.remove(1);
    running.events.blocking_send(HelperEvent::Up(fewer)).unwrap();
    wait_for("the port's flow to go", || (running.place.flows()?.len() == 1).then_some(()));
    wait_for("it to be left", || {
        let closed = "caregate_gateway_openflow_closed_total{reason=\"write-timeout\"}";
        (running.metric(closed) == 1.0).then_some(())
    });
    let mut peer = bench.controller.accept_switch();
    assert_eq!(flows(&mut peer), [1]);
    running.stop();
}

#[test]
fn ports_come_and_go_and_the_controller_hears_of_it() {
    let bench = Bench::new();
    let running = bench.start();
    let mut peer = bench.controller.accept_switch();
    assert!(matches!(peer.ask(&Message::FeaturesRequest), Message::FeaturesReply(_)));
    let mut down = welcome().ports.remove(1);
    down.up = false;
    running.events.blocking_send(HelperEvent::Port(down)).unwrap();
    let (0, Message::PortStatus(status)) = peer.receive() else { panic!() };
    assert_eq!((status.reason, status.port.number), (PortReason::Modify, 2));
    assert_eq!(status.port.state, port::state::LINK_DOWN);
    let request = Message::MultipartRequest(RequestBody::PortDesc.into());
    let Message::MultipartReply(MultipartReply { body: ReplyBody::PortDesc(ports), .. }) = peer.ask(&request)
    else {
        panic!()
    };
    let states: Vec<_> = ports.iter().map(|port| port.state).collect();
    assert_eq!(states, [port::state::LIVE, port::state::LINK_DOWN, port::state::LIVE]);
    running.stop();
}
