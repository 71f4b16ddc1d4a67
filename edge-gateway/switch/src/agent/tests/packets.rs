//! Frames to and from the controller.

use caregate_protocol::openflow::{PacketIn, PacketInReason};

use super::super::super::slow::Frame;
use super::*;

#[test]
fn packet_outs_leave_by_ports_and_a_barrier_waits_for_them() {
    let mut bench = Bench::open();
    let packet = PacketOut {
        buffer_id: NO_BUFFER,
        in_port: port::CONTROLLER,
        actions: vec![openflow::Action::output(3)],
        data: vec![2; 60],
    };
    let done = bench.give(1, &Message::PacketOut(packet.clone()));
    let sent = datapath::PacketOut { port: 3, queue: 0, frame: vec![2; 60] };
    assert_eq!(done.rest, [Action::PacketOut { ticket: 1, packet: sent }]);
    assert_eq!(bench.give(2, &Message::BarrierRequest), Done::default());
    assert!(bench.agent.is_waiting());
    let sent = Done::of(bench.agent.handle_packet_out(1, Ok(()), at(0)));
    assert_eq!(sent.sent, [(2, Message::BarrierReply)]);
    bench.give(3, &Message::PacketOut(packet.clone()));
    let refused = Done::of(bench.agent.handle_packet_out(2, Err(HelperRefused), at(0)));
    assert_eq!(refused.errors(), [(3, "OFPBRC_BAD_PORT")]);
    for (wrong, code) in [
        (PacketOut { buffer_id: 4, ..packet.clone() }, "OFPBRC_BUFFER_UNKNOWN"),
        (PacketOut { data: vec![2; 13], ..packet.clone() }, "OFPBRC_BAD_PACKET"),
        (PacketOut { data: vec![2; 1537], ..packet.clone() }, "OFPBRC_BAD_PACKET"),
        (PacketOut { in_port: 9, ..packet.clone() }, "OFPBRC_BAD_PORT"),
        (PacketOut { actions: vec![openflow::Action::output(9)], ..packet.clone() }, "OFPBAC_BAD_OUT_PORT"),
        (PacketOut { actions: vec![openflow::Action::Group(9)], ..packet.clone() }, "OFPBAC_BAD_OUT_GROUP"),
        (
            PacketOut { actions: vec![openflow::Action::output(port::LOCAL)], ..packet.clone() },
            "OFPBAC_BAD_OUT_PORT",
        ),
        (PacketOut { actions: vec![openflow::Action::PopPbb], ..packet.clone() }, "OFPBAC_BAD_TYPE"),
        (PacketOut { actions: vec![openflow::Action::output(3); 33], ..packet.clone() }, "OFPBAC_TOO_MANY"),
    ] {
        assert_eq!(bench.give(4, &Message::PacketOut(wrong)).errors(), [(4, code)]);
    }
    for _ in 0..PACKET_OUTS_MAX {
        bench.give(5, &Message::PacketOut(packet.clone()));
    }
    assert!(bench.agent.is_waiting(), "until the helper has sent some");
}

#[test]
fn a_frame_of_the_gateways_own_reaches_the_controller_and_a_sensors_never() {
    let mut bench = Bench::open();
    bench.add(quarantine(1));
    let lldp = Match::any().in_port(port::LOCAL).eth_type(0x88cc);
    let to_controller = openflow::Action::Output { port: port::CONTROLLER, max_len: 128 };
    bench.add(openflow::FlowMod { cookie: 77, ..with_actions(lldp, vec![to_controller]) });
    let id = |cookie| bench.flows().find(|flow| flow.cookie == cookie).unwrap().id.0;
    let (sensor, own) = (id(1), id(77));
    let done = Done::of(bench.agent.handle_packet_in(own, 200, vec![9; 128], at(1)));
    let [(0, Message::PacketIn(packet))] = &done.sent[..] else { panic!("{done:?}") };
    assert_eq!((packet.cookie, packet.total_len, packet.data.len()), (77, 200, 128));
    assert_eq!(packet.pattern, Match::any().in_port(port::LOCAL));
    for rule in [sensor, 999] {
        let done = Done::of(bench.agent.handle_packet_in(rule, 60, vec![9; 60], at(1)));
        assert_eq!((done.sent, done.rest), (vec![], vec![Action::Refused("packet-in-rule")]));
    }
    let mut sent = 0;
    for _ in 0..2 * PACKET_INS_PER_S {
        sent += Done::of(bench.agent.handle_packet_in(own, 60, vec![9; 60], at(1))).sent.len();
    }
    assert_eq!(sent, PACKET_INS_PER_S as usize - 1, "bounded");
    let later = Done::of(bench.agent.handle_packet_in(own, 60, vec![9; 60], at(2)));
    assert_eq!(later.sent.len(), 1);
}

fn packet_out(in_port: u32, actions: Vec<openflow::Action>) -> Message {
    Message::PacketOut(PacketOut { buffer_id: NO_BUFFER, in_port, actions, data: frame() })
}

fn frame() -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 7, 0x88, 0xb5][..], &[7; 46]].concat()
}

/// Where frames were sent.
fn sent_to(done: &Done) -> Vec<u32> {
    let port = |action: &Action| {
        if let Action::PacketOut { packet, .. } = action { Some(packet.port) } else { None }
    };
    done.rest.iter().filter_map(port).collect()
}

fn packet_ins(done: &Done) -> Vec<PacketIn> {
    let packet = |(_, message): &(u32, Message)| {
        if let Message::PacketIn(packet) = message { Some(packet.clone()) } else { None }
    };
    done.sent.iter().filter_map(packet).collect()
}

#[test]
fn a_packet_out_never_comes_to_a_sensor_nor_from_one() {
    let mut bench = Bench::open();
    let output = openflow::Action::output;
    for number in [1, 2] {
        let done = bench.give(7, &packet_out(port::CONTROLLER, vec![output(3), output(number)]));
        assert_eq!((done.errors(), sent_to(&done)), (vec![(7, "OFPBRC_EPERM")], vec![]), "{number}");
        let done = bench.give(8, &packet_out(number, vec![output(3)]));
        assert_eq!(done.errors(), [(8, "OFPBRC_EPERM")], "as if a sensor had sent it");
    }
    for number in [port::FLOOD, port::ALL] {
        let done = bench.give(9, &packet_out(port::CONTROLLER, vec![output(number)]));
        assert!(!sent_to(&done).is_empty(), "{number:#x}");
        assert!(sent_to(&done).iter().all(|port| *port > 2), "{done:?}");
        let done = bench.give(9, &packet_out(4, vec![output(number)]));
        assert!(sent_to(&done).iter().all(|port| *port == 3), "not back where it came in: {done:?}");
    }
    // Through the tables, too.
    let by_group = openflow::Action::Group(1);
    assert_eq!(bench.give(9, &packet_out(4, vec![by_group])).errors(), [(9, "OFPBAC_BAD_OUT_GROUP")]);
    bench.add(with_actions(Match::any().in_port(4), vec![output(3)]));
    assert_eq!(sent_to(&bench.give(9, &packet_out(4, vec![output(port::TABLE)]))), [3]);
    assert!(sent_to(&bench.give(9, &packet_out(3, vec![output(port::TABLE)]))).is_empty());
}

#[test]
fn a_punted_frame_is_sent_and_shown_and_a_sensors_is_neither() {
    let mut bench = Bench::open();
    let to_controller = openflow::Action::Output { port: port::CONTROLLER, max_len: 0xffff };
    let flow = with_actions(Match::any().in_port(4), vec![openflow::Action::output(3), to_controller]);
    bench.add(openflow::FlowMod { cookie: 5, ..flow });
    let bytes = frame();
    let punt = |in_port| Frame::new(in_port, &bytes);
    let done = Done::of(bench.agent.handle_punt(punt(4), at(1)));
    assert_eq!(sent_to(&done), [3]);
    let [packet] = &packet_ins(&done)[..] else { panic!("{done:?}") };
    assert_eq!((packet.cookie, packet.table_id, packet.reason), (5, 1, PacketInReason::Action));
    assert_eq!((&packet.data, packet.pattern.clone()), (&bytes, Match::any().in_port(4)));
    assert_eq!(
        bench.give(1, &Message::BarrierRequest).sent,
        [(1, Message::BarrierReply)],
        "nobody asked for it"
    );
    for in_port in [1, 2] {
        let done = Done::of(bench.agent.handle_punt(punt(in_port), at(1)));
        assert_eq!((done.sent, done.rest), (vec![], vec![Action::Refused("punt-sensor")]));
    }
    let metered = Frame { before: 1, ..punt(4) };
    assert!(sent_to(&Done::of(bench.agent.handle_punt(metered, at(1)))).is_empty(), "a meter dropped it");
    for _ in 0..2 * PUNTS_MAX {
        drop(bench.agent.handle_punt(punt(4), at(1)));
    }
    let busy = Done::of(bench.agent.handle_punt(punt(4), at(1)));
    assert_eq!((busy.sent, busy.rest), (vec![], vec![Action::Refused("punt-busy")]));
    assert!(!bench.agent.is_waiting(), "the controller's own frames go on");
}

#[test]
fn packet_ins_come_as_the_controller_wants_them() {
    let mut bench = Bench::open();
    let to_controller = || vec![openflow::Action::Output { port: port::CONTROLLER, max_len: 0xffff }];
    bench.add(with_actions(Match::any().in_port(4), to_controller()));
    let bytes = frame();
    let shown = |bench: &mut Bench| {
        let of = Frame::new(4, &bytes);
        packet_ins(&Done::of(bench.agent.handle_punt(of, at(1)))).len()
    };
    assert_eq!(shown(&mut bench), 1);
    let set = |packet_in| Message::SetAsync(AsyncConfig { packet_in, ..AsyncConfig::default() });
    assert_eq!(bench.give(1, &set([0b101, 0b010])), Done::default());
    assert_eq!(shown(&mut bench), 0, "not for this reason");
    let role = Message::RoleRequest(Role { role: ControllerRole::Slave, generation_id: 1 });
    bench.give(2, &role);
    assert_eq!(shown(&mut bench), 1, "this one as a slave");
    let master = Message::RoleRequest(Role { role: ControllerRole::Master, generation_id: 2 });
    bench.give(3, &master);
    bench.give(4, &set([0b011, 0]));
    let quiet = openflow::PortMod {
        port: 4,
        hw_addr: [2, 0, 0, 0, 1, 1],
        config: port::config::NO_PACKET_IN,
        mask: port::config::NO_PACKET_IN,
        advertise: 0,
    };
    bench.give(5, &Message::PortMod(quiet));
    assert_eq!(shown(&mut bench), 0, "of nothing that comes in here");
}
