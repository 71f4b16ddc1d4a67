//! The switch with the kernel behind it: a controller over TLS, the real helper, real frames on veth. Needs root, iproute2, and
//! `caregate-datapathd` built (`cargo build --release -p caregate-datapathd`); without them it fails and says so.

use std::time::Duration;

use caregate_host::clock;
use caregate_host::identity::Role;
use caregate_protocol::datapath::{Device, OpenPort, Policy};
use caregate_protocol::openflow::multipart::{FlowStats, FlowStatsRequest, ReplyBody, RequestBody};
use caregate_protocol::openflow::{
    Action, Command, FlowMod, Instruction, Match, Message, MultipartReply, NO_BUFFER, Oxm, PacketOut, flags,
    port,
};

use crate::openflow_support::controller::{Controller, Peer};
use crate::openflow_support::gateway::{GATEWAY_MAC, Gateway, NEIGHBOUR_MAC, SENSOR_MAC, Wire, tcp_from};
use crate::openflow_support::pki::Pki;
use crate::openflow_support::wait_for;

const LANE_PORT: u16 = 7400;

fn quarantine() -> FlowMod {
    FlowMod {
        cookie: 1,
        flags: flags::SEND_FLOW_REM,
        pattern: Match::any().eth_src(SENSOR_MAC),
        ..FlowMod::new(Command::Add, 1, 100)
    }
}

fn lane(cookie: u64, actions: Vec<Action>) -> FlowMod {
    FlowMod {
        cookie,
        pattern: Match::any().in_port(port::LOCAL).eth_type(0x0800).ip_proto(17).udp_src(LANE_PORT),
        instructions: vec![Instruction::ApplyActions(actions)],
        ..FlowMod::new(Command::Add, 1, 50)
    }
}

fn bound() -> Policy {
    Policy {
        devices: vec![Device { index: 0, mac: SENSOR_MAC }],
        ports: vec![OpenPort { protocol: 6, port: 1883 }],
        floor: Vec::new(),
    }
}

fn flows(peer: &mut Peer) -> Vec<FlowStats> {
    let request = Message::MultipartRequest(RequestBody::Flow(FlowStatsRequest::all()).into());
    let Message::MultipartReply(MultipartReply { body: ReplyBody::Flow(flows), .. }) = peer.ask(&request)
    else {
        panic!()
    };
    flows
}

/// Sends frames of the bound sensor until the verdict's count has risen, and checks that the other one's has not.
fn is_judged(gateway: &Gateway, wire: &mut Wire, verdict: &str, not: &str) {
    let before = (gateway.verdict(1, verdict), gateway.verdict(1, not));
    wait_for(verdict, || {
        wire.send(&tcp_from(SENSOR_MAC, 1883));
        (gateway.verdict(1, verdict) > before.0).then_some(())
    });
    assert_eq!(gateway.verdict(1, not), before.1, "{not}");
}

/// From the flow-mod to the barrier's reply: on disk and in the kernel. Deletes it first.
fn time_of_quarantine(peer: &mut Peer) -> Duration {
    let delete = FlowMod { command: Command::Delete, ..quarantine() };
    assert_eq!(peer.try_out(&Message::FlowMod(delete)), None);
    let begun = clock::monotonic();
    assert_eq!(peer.try_out(&Message::FlowMod(quarantine())), None);
    begun.elapsed()
}

#[test]
fn a_quarantined_sensor_stays_so_whoever_goes() {
    let pki = Pki::new();
    let mut gateway = Gateway::new("quarantine");
    let mut wire = gateway.wire("s0");
    let controller = Controller::listen(&pki, Role::Controller, "controller-1");
    gateway.start_helper();
    gateway.start_daemon(&pki, controller.address(), bound());
    let mut peer = controller.accept_switch();
    is_judged(&gateway, &mut wire, "admitted", "rule");

    let best = (0..10).map(|_| time_of_quarantine(&mut peer)).min().unwrap();
    println!("quarantine and barrier, best of 10: {best:?}");
    assert!(best < Duration::from_millis(100), "{best:?}");
    is_judged(&gateway, &mut wire, "rule", "admitted");
    let counted = flows(&mut peer).remove(0);
    assert!(counted.packets >= 1 && counted.bytes >= 60 * counted.packets, "{counted:?}");
    let port_stats = Message::MultipartRequest(RequestBody::PortStats(1).into());
    let Message::MultipartReply(MultipartReply { body: ReplyBody::PortStats(ports), .. }) =
        peer.ask(&port_stats)
    else {
        panic!()
    };
    assert!(ports[0].counters.rx_packets >= 2 && ports[0].counters.rx_dropped >= 1, "{ports:?}");

    // Nobody is there but the kernel; then the helper, then the daemon, and no controller.
    drop((peer, controller));
    gateway.stop_daemon();
    gateway.kill_helper();
    for _ in 0..50 {
        wire.send(&tcp_from(SENSOR_MAC, 1883));
    }
    gateway.start_helper();
    let admitted = gateway.ask_helper("admitted");
    let nobody = Controller::listen(&pki, Role::Controller, "controller-1");
    let address = nobody.address();
    drop(nobody);
    gateway.start_daemon(&pki, address, bound());
    assert_eq!(gateway.verdict(1, "admitted"), admitted, "not one frame in between");
    is_judged(&gateway, &mut wire, "rule", "admitted");
    gateway.stop_daemon();

    // The controller is back and lets it go.
    let controller = Controller::listen(&pki, Role::Controller, "controller-1");
    gateway.start_daemon(&pki, controller.address(), bound());
    let mut peer = controller.accept_switch();
    assert_eq!(flows(&mut peer)[0].cookie, 1);
    let release = FlowMod { command: Command::DeleteStrict, ..quarantine() };
    assert_eq!(peer.try_out(&Message::FlowMod(release)), None);
    is_judged(&gateway, &mut wire, "admitted", "rule");
    gateway.stop_daemon();
}

#[test]
fn a_lane_is_marked_shown_and_dropped_as_rules_say() {
    let pki = Pki::new();
    let mut gateway = Gateway::new("lane");
    let mut wire = gateway.wire("p0");
    let controller = Controller::listen(&pki, Role::Controller, "controller-1");
    gateway.start_helper();
    gateway.start_daemon(&pki, controller.address(), bound());
    let mut peer = controller.accept_switch();
    let socket = gateway.lane_socket(LANE_PORT);
    let say = |text: &[u8]| socket.send_to(text, gateway.core()).unwrap();

    say(b"unmarked");
    assert_eq!(wire.datagram(b"unmarked").dscp, 0);
    let marking = vec![Action::SetField(Oxm::ip_dscp(46)), Action::output(port::NORMAL)];
    assert_eq!(peer.try_out(&Message::FlowMod(lane(2, marking))), None);
    say(b"marked");
    let marked = wire.datagram(b"marked");
    assert_eq!((marked.dscp, marked.destination), (46, NEIGHBOUR_MAC));

    let show = vec![Action::Output { port: port::CONTROLLER, max_len: 40 }];
    assert_eq!(peer.try_out(&Message::FlowMod(lane(3, show))), None);
    say(b"shown");
    let Message::PacketIn(packet) = peer.unasked() else { panic!() };
    assert_eq!((packet.cookie, packet.table_id, packet.data.len()), (3, 1, 40));
    assert_eq!(usize::from(packet.total_len), 14 + 20 + 8 + b"shown".len());
    assert_eq!(packet.pattern, Match::any().in_port(port::LOCAL));
    assert_eq!((&packet.data[..6], &packet.data[34..36]), (&NEIGHBOUR_MAC[..], &LANE_PORT.to_be_bytes()[..]));

    assert_eq!(peer.try_out(&Message::FlowMod(lane(4, vec![]))), None);
    say(b"dropped");
    let delete = FlowMod { command: Command::Delete, ..lane(0, vec![]) };
    assert_eq!(peer.try_out(&Message::FlowMod(delete)), None);
    say(b"after");
    assert_eq!(wire.datagram_of(&[b"shown", b"dropped", b"after"]), b"after", "the others never left");

    // LLDP-like, by the controller.
    let frame = [&[1, 0x80, 0xc2, 0, 0, 0x0e][..], &GATEWAY_MAC, &[0x88, 0xcc], &[7; 46]].concat();
    let packet = PacketOut {
        buffer_id: NO_BUFFER,
        in_port: port::CONTROLLER,
        actions: vec![Action::output(2)],
        data: frame.clone(),
    };
    assert_eq!(peer.try_out(&Message::PacketOut(packet)), None);
    wire.frame(&frame);
    gateway.stop_daemon();
}
