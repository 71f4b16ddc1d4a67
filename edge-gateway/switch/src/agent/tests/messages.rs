//! Groups, meters, ports, tables, queues, and what is told unasked.

use caregate_protocol::datapath::switch::{GroupCounters, MeterCounters};
use caregate_protocol::openflow::queue::QueueStatsRequest;
use caregate_protocol::openflow::{
    Band, BandAction, Bucket, GroupCommand, GroupMod, GroupType, MatchField, MeterCommand, MeterMod, PortMod,
    TABLE_ALL, TableMod, TableProperty, group, meter,
};

use super::*;

fn group_mod(command: GroupCommand) -> Message {
    let buckets = vec![Bucket::new(vec![openflow::Action::output(3)]), Bucket::new(vec![])];
    Message::GroupMod(GroupMod { command, group_type: GroupType::All, group_id: 0, buckets })
}

fn meter_mod(command: MeterCommand) -> Message {
    let bands = vec![Band { rate: 100, burst_size: 0, action: BandAction::DscpRemark { prec_level: 1 } }];
    Message::MeterMod(MeterMod { command, flags: meter::flags::KBPS, meter_id: 1, bands })
}

/// The answer to a question, whole.
fn answer(bench: &mut Bench, body: RequestBody) -> ReplyBody {
    let mut done = bench.give(9, &ask(body));
    if done.rest.contains(&Action::ReadCounters) {
        let traffic = |frames| datapath::Traffic { frames, bytes: 10 * frames };
        let groups =
            vec![GroupCounters { id: 0, traffic: traffic(5), buckets: vec![traffic(4), traffic(1)] }];
        let meters = vec![MeterCounters { id: 1, traffic: traffic(7), bands: vec![traffic(3)] }];
        let switch = SwitchCounters { groups, meters, ..SwitchCounters::default() };
        let readings = Readings { switch, ..Readings::default() };
        done = Done::of(bench.agent.handle_counters(Ok(readings), bench.now));
    }
    let Some((9, Message::MultipartReply(MultipartReply { body, more: false }))) = done.sent.pop() else {
        panic!("{done:?}")
    };
    body
}

#[test]
fn groups_and_meters_are_installed_shown_and_counted() {
    let mut bench = Bench::open();
    assert_eq!(bench.give(1, &group_mod(GroupCommand::Add)), Done::default());
    assert_eq!(bench.give(2, &meter_mod(MeterCommand::Add)), Done::default());
    let use_both = vec![Instruction::Meter(1), Instruction::ApplyActions(vec![openflow::Action::Group(0)])];
    let flow = openflow::FlowMod {
        flags: flags::SEND_FLOW_REM,
        instructions: use_both,
        ..with_actions(Match::any().in_port(4), vec![])
    };
    bench.flow_mod(3, flow);
    let done = bench.give(4, &Message::BarrierRequest);
    let (changes, _) = done.install().unwrap();
    assert!(matches!(changes, [Change::PutMeter(_), Change::PutGroup(_), Change::PutFlow(_)]), "{changes:?}");
    bench.now += at(5);
    bench.installed(Ok(()));

    let ReplyBody::GroupDesc(groups) = answer(&mut bench, RequestBody::GroupDesc) else { panic!() };
    let Message::GroupMod(wanted) = group_mod(GroupCommand::Add) else { panic!() };
    assert_eq!(
        (groups[0].group_id, groups[0].group_type, &groups[0].buckets),
        (0, GroupType::All, &wanted.buckets)
    );
    let ReplyBody::Group(groups) = answer(&mut bench, RequestBody::Group(group::ALL)) else { panic!() };
    let (buckets, counted) = (&groups[0].buckets, (groups[0].packets, groups[0].ref_count));
    assert_eq!((counted, buckets[0].packets, buckets[1].bytes), ((5, 1), 4, 10));
    assert_eq!(groups[0].lasted.seconds, 5);
    let ReplyBody::MeterConfig(meters) = answer(&mut bench, RequestBody::MeterConfig(1)) else { panic!() };
    let Message::MeterMod(wanted) = meter_mod(MeterCommand::Add) else { panic!() };
    assert_eq!((meters[0].flags, meters[0].meter_id, &meters[0].bands), (1, 1, &wanted.bands), "burst 0 too");
    let ReplyBody::Meter(meters) = answer(&mut bench, RequestBody::Meter(meter::ALL)) else { panic!() };
    assert_eq!((meters[0].packets_in, meters[0].flow_count, meters[0].bands[0].packets), (7, 1, 3));
    for (body, code) in [
        (RequestBody::Group(7), "OFPGMFC_UNKNOWN_GROUP"),
        (RequestBody::Meter(7), "OFPMMFC_UNKNOWN_METER"),
        (RequestBody::MeterConfig(7), "OFPMMFC_UNKNOWN_METER"),
    ] {
        assert_eq!(bench.give(5, &ask(body)).errors(), [(5, code)]);
    }

    let delete = GroupMod {
        group_id: group::ALL,
        command: GroupCommand::Delete,
        group_type: GroupType::All,
        buckets: vec![],
    };
    bench.give(6, &Message::GroupMod(delete));
    bench.give(7, &Message::BarrierRequest);
    let sent = bench.installed(Ok(())).sent;
    let [(0, Message::FlowRemoved(removed)), (7, Message::BarrierReply)] = &sent[..] else {
        panic!("{sent:?}")
    };
    assert_eq!(removed.reason, RemovedReason::GroupDelete);
}

#[test]
fn what_the_helper_refuses_of_groups_and_meters_is_told_and_undone() {
    let mut bench = Bench::open();
    bench.give(1, &group_mod(GroupCommand::Add));
    bench.give(2, &meter_mod(MeterCommand::Add));
    bench.give(3, &Message::BarrierRequest);
    let done = bench.installed(Err(HelperRefused));
    assert_eq!(done.errors(), [(1, "OFPGMFC_INVALID_GROUP"), (2, "OFPMMFC_UNKNOWN")]);
    assert!(!done.rest.iter().any(|action| matches!(action, Action::Keep(_))), "the disk has nothing of it");
    assert_eq!(bench.give(4, &group_mod(GroupCommand::Modify)).errors(), [(4, "OFPGMFC_UNKNOWN_GROUP")]);
    assert_eq!(bench.give(5, &meter_mod(MeterCommand::Modify)).errors(), [(5, "OFPMMFC_UNKNOWN_METER")]);
    let role = Message::RoleRequest(Role { role: ControllerRole::Slave, generation_id: 1 });
    bench.give(6, &role);
    let table_mod = Message::TableMod(TableMod { table_id: 1, config: 0 });
    for message in [group_mod(GroupCommand::Add), meter_mod(MeterCommand::Add), table_mod] {
        assert_eq!(bench.give(7, &message).errors(), [(7, "OFPBRC_IS_SLAVE")]);
    }
}

#[test]
fn of_a_port_only_its_packet_ins_can_be_switched_off() {
    use openflow::port::config::{NO_FWD, NO_PACKET_IN, NO_RECV, PORT_DOWN};
    let mut bench = Bench::open();
    let port_mod = |port, config| {
        Message::PortMod(PortMod { port, hw_addr: [2, 0, 0, 0, 1, 1], config, mask: u32::MAX, advertise: 0 })
    };
    for number in [1, 2] {
        assert_eq!(bench.give(1, &port_mod(number, NO_PACKET_IN)).errors(), [(1, "OFPPMFC_EPERM")]);
    }
    assert_eq!(bench.give(1, &port_mod(9, 0)).errors(), [(1, "OFPPMFC_BAD_PORT")]);
    for config in [PORT_DOWN, NO_RECV, NO_FWD, NO_PACKET_IN | NO_FWD, 2] {
        assert_eq!(bench.give(1, &port_mod(4, config)).errors(), [(1, "OFPPMFC_BAD_CONFIG")]);
    }
    let of = PortMod { port: 4, hw_addr: [9; 6], config: 0, mask: 0, advertise: 0 };
    assert_eq!(bench.give(1, &Message::PortMod(of)).errors(), [(1, "OFPPMFC_BAD_HW_ADDR")]);
    let of = PortMod { hw_addr: [2, 0, 0, 0, 1, 1], advertise: 1, ..of };
    assert_eq!(bench.give(1, &Message::PortMod(of)).errors(), [(1, "OFPPMFC_BAD_ADVERTISE")]);
    assert_eq!(bench.give(1, &port_mod(4, 0)), Done::default(), "as it is");
    let done = bench.give(1, &port_mod(4, NO_PACKET_IN));
    let [(0, Message::PortStatus(status))] = &done.sent[..] else { panic!("{done:?}") };
    assert_eq!(
        (status.reason, status.port.number, status.port.config),
        (PortReason::Modify, 4, NO_PACKET_IN)
    );
    // The helper's news of the port leaves what was administered.
    let done = Done::of(bench.agent.handle_port(&helper_port(4, PortRole::Sensor), at(1)));
    let [(0, Message::PortStatus(status))] = &done.sent[..] else { panic!("{done:?}") };
    assert_eq!(status.port.config, NO_PACKET_IN);
}

#[test]
fn tables_say_what_they_can_and_are_not_configured() {
    let mut bench = Bench::open();
    let ReplyBody::TableFeatures(tables) = answer(&mut bench, RequestBody::TableFeatures(vec![])) else {
        panic!()
    };
    assert_eq!(tables.iter().map(|table| table.table_id).collect::<Vec<_>>(), (1..8).collect::<Vec<_>>());
    let next = |at: usize| {
        let next = tables[at].properties.iter().find_map(|property| {
            if let TableProperty::NextTables { tables, .. } = property { Some(tables.clone()) } else { None }
        });
        next.unwrap()
    };
    assert_eq!((next(0), next(6)), ((2..8).collect::<Vec<_>>(), vec![]));
    let fields = tables[0].properties.iter().find_map(|property| {
        if let TableProperty::Match(fields) = property { Some(fields.clone()) } else { None }
    });
    let fields: Vec<_> = fields.unwrap().iter().map(|of| of.field().unwrap()).collect();
    assert!(fields.contains(&MatchField::MplsBos) && !fields.contains(&MatchField::PbbIsid));
    let set = ask(RequestBody::TableFeatures(tables.clone()));
    assert_eq!(bench.give(1, &set).errors(), [(1, "OFPTFFC_EPERM")]);
    let table_mod = |table_id, config| Message::TableMod(TableMod { table_id, config });
    for (table, config, code) in [
        (0, 0, "OFPTMFC_EPERM"),
        (8, 0, "OFPTMFC_BAD_TABLE"),
        (1, 1, "OFPTMFC_BAD_CONFIG"),
        (TABLE_ALL, 3, "OFPTMFC_BAD_CONFIG"),
    ] {
        assert_eq!(bench.give(2, &table_mod(table, config)).errors(), [(2, code)]);
    }
    assert_eq!(bench.give(2, &table_mod(7, 0)), Done::default());
    assert_eq!(bench.give(2, &table_mod(TABLE_ALL, 0)), Done::default());

    let ReplyBody::GroupFeatures(groups) = answer(&mut bench, RequestBody::GroupFeatures) else { panic!() };
    assert_eq!((groups.types, groups.groups_max, groups.actions[0] >> 22 & 1), (0b1111, [256; 4], 0));
    let ReplyBody::MeterFeatures(meters) = answer(&mut bench, RequestBody::MeterFeatures) else { panic!() };
    assert_eq!((meters.meters_max, meters.band_types, meters.bands_max), (256, 0b110, 4));
}

#[test]
fn uplinks_have_queues_and_other_ports_none() {
    let mut bench = Bench::open();
    let mut config = |port| {
        let done = bench.give(1, &Message::QueueGetConfigRequest(port));
        match &done.sent[..] {
            [(1, Message::QueueGetConfigReply(config))] => Ok(config.queues.len()),
            _ => Err(done.errors()[0].1),
        }
    };
    assert_eq!((config(3), config(4), config(port::ANY)), (Ok(8), Ok(0), Ok(8)));
    assert_eq!(config(9), Err("OFPQOFC_BAD_PORT"));
    let request = |port, queue_id| RequestBody::Queue(QueueStatsRequest { port, queue_id });
    let ReplyBody::Queue(queues) = answer(&mut bench, request(port::ANY, 7)) else { panic!() };
    assert_eq!((queues[0].port, queues[0].queue_id, queues[0].tx_packets), (3, 7, u64::MAX), "not counted");
    assert_eq!(bench.give(1, &ask(request(9, 0))).errors(), [(1, "OFPQOFC_BAD_PORT")]);
    assert_eq!(bench.give(1, &ask(request(3, 8))).errors(), [(1, "OFPQOFC_BAD_QUEUE")]);
    assert_eq!(bench.give(1, &ask(request(4, 0))).errors(), [(1, "OFPQOFC_BAD_QUEUE")]);
}

#[test]
fn what_is_told_unasked_is_what_the_controller_wants() {
    let mut bench = Bench::open();
    let asked = bench.give(1, &Message::GetAsyncRequest);
    assert_eq!(asked.sent, [(1, Message::GetAsyncReply(AsyncConfig::default()))]);
    let wanted =
        AsyncConfig { packet_in: [0, 0], port_status: [0b001, 0b100], flow_removed: [0b0011, 0b0100] };
    assert_eq!(bench.give(2, &Message::SetAsync(wanted)), Done::default());
    assert_eq!(bench.give(3, &Message::GetAsyncRequest).sent, [(3, Message::GetAsyncReply(wanted))]);
    let moved = |up| datapath::Port { up, ..helper_port(4, PortRole::Switch) };
    assert_eq!(bench.agent.handle_port(&moved(false), at(1)), [], "no modifies");
    bench.add(quarantine(1));
    let delete = openflow::FlowMod { command: Command::Delete, ..quarantine(1) };
    bench.flow_mod(4, delete.clone());
    bench.flush();
    assert_eq!(bench.installed(Ok(())), Done::default(), "no deletes");

    let slave = Message::RoleRequest(Role { role: ControllerRole::Slave, generation_id: 1 });
    bench.add(quarantine(1));
    bench.flow_mod(5, delete);
    bench.give(6, &slave);
    bench.flush();
    let told = bench.installed(Ok(())).sent;
    assert!(matches!(told[..], [(0, Message::FlowRemoved(_))]), "as a slave it wants them: {told:?}");
    assert_eq!(Done::of(bench.agent.handle_port(&moved(true), at(2))).sent.len(), 1);
}

#[test]
fn four_thousand_flows_are_shown_in_parts() {
    let mut bench = Bench::open();
    let flow = |n: u32| {
        let [a, b, ..] = n.to_le_bytes();
        let pattern = Match::any().in_port(4).eth_src([2, 0, 0, 0, a, b]).eth_type(0x0800).ip_proto(17);
        openflow::FlowMod {
            cookie: n.into(),
            ..with_actions(pattern.udp_dst(7), vec![openflow::Action::output(3)])
        }
    };
    let mut prepared = Vec::new();
    for n in 0..4095 {
        let done = bench.flow_mod(n, flow(n));
        assert_eq!((done.sent.len(), done.rest.len()), (0, done.prepared().len()));
        prepared.extend(done.prepared());
    }
    let parts: Vec<_> = (0..15).map(|before| (before, 256)).collect();
    assert_eq!(prepared, parts, "the helper is told while more is to come");
    assert_eq!(bench.flow_mod(4095, flow(4095)).puts_and_removes(), (256, 0));
    bench.installed(Ok(()));
    assert_eq!(bench.flow_mod(1, flow(4096)).errors(), [(1, "OFPFMFC_TABLE_FULL")]);
    bench.give(2, &ask(RequestBody::Flow(FlowStatsRequest::all())));
    let parts = bench.counted(3).sent;
    let mut cookies = Vec::new();
    for (number, (xid, message)) in parts.iter().enumerate() {
        let Message::MultipartReply(MultipartReply { more, body: ReplyBody::Flow(flows) }) = message else {
            panic!()
        };
        assert_eq!((*xid, *more), (2, number + 1 < parts.len()));
        cookies.extend(flows.iter().map(|flow| flow.cookie));
    }
    assert!(parts.len() > 5, "{}", parts.len());
    assert_eq!(cookies, (0..4096).collect::<Vec<u64>>());
}

#[test]
fn a_second_in_which_tables_are_filled() {
    let frames: Vec<Vec<u8>> = (0..4096u32)
        .map(|n| {
            let [a, b, ..] = n.to_le_bytes();
            let pattern = Match::any().in_port(4).eth_src([2, 0, 0, 0, a, b]).eth_type(0x0800).ip_proto(17);
            let flow = with_actions(pattern.udp_dst(7), vec![openflow::Action::output(3)]);
            Message::FlowMod(flow).encode(n).unwrap()
        })
        .collect();
    let mut bench = Bench::open();
    let begun = caregate_host::clock::monotonic();
    for frame in &frames {
        drop(bench.agent.handle_frame(frame, bench.now));
    }
    let took = begun.elapsed();
    assert_eq!(bench.len(), 4096);
    println!("4,096 flow-mods from bytes to changes: {took:?}, {:.0} a second", 4096.0 / took.as_secs_f64());
    assert!(took < Duration::from_millis(200), "20,000 a second at least: {took:?}");
}
