use caregate_ebpf_common::switch::place;
use caregate_protocol::datapath::Role;
use caregate_protocol::datapath::switch::{
    FlowAction, FlowInstructions, GroupBucket, GroupEntry, GroupKind, MATCH_BYTES,
};
use caregate_protocol::openflow::{PacketInReason, port};

use super::*;

const IN_PORT: u8 = 0;
const ETH_TYPE: u8 = 5;
const VLAN_VID: u8 = 6;
const IP_DSCP: u8 = 8;
const IPV4_DST: u8 = 12;
const UDP_DST: u8 = 16;
const SCTP_DST: u8 = 18;
const METADATA: u8 = 2;
const TUNNEL_ID: u8 = 38;

struct Flow {
    table: u8,
    priority: u16,
    cookie: u64,
    value: [u8; MATCH_BYTES],
    mask: [u8; MATCH_BYTES],
    instructions: FlowInstructions,
}

/// Tables as a test says them; flows in the order in which a frame meets them.
struct Tables {
    first: u8,
    flows: Vec<Flow>,
    groups: Vec<GroupEntry>,
    ports: Vec<PortView>,
}

impl View for Tables {
    fn first_table(&self) -> u8 {
        self.first
    }

    fn lookup(&self, table: u8, key: &Key) -> Option<Found<'_>> {
        let flow =
            self.flows.iter().find(|flow| flow.table == table && matches(key, &flow.value, &flow.mask))?;
        let is_table_miss = flow.priority == 0 && flow.mask == [0; MATCH_BYTES];
        Some(Found { instructions: &flow.instructions, cookie: flow.cookie, is_table_miss })
    }

    fn group(&self, id: u32) -> Option<&GroupEntry> {
        self.groups.iter().find(|group| group.id == id)
    }

    fn port(&self, number: u32) -> Option<PortView> {
        self.ports.iter().copied().find(|port| port.number == number)
    }

    fn ports(&self) -> Vec<PortView> {
        self.ports.clone()
    }
}

/// Port 1 leads to sensors, 2 to the core, 3 to 6 are the switch's.
fn tables() -> Tables {
    let port = |number| PortView {
        number,
        role: [Role::Sensor, Role::Uplink].get(number as usize - 1).copied().unwrap_or(Role::Switch),
        is_live: true,
        no_forward: false,
        no_packet_in: false,
    };
    Tables { first: 0, flows: Vec::new(), groups: Vec::new(), ports: (1..=6).map(port).collect() }
}

impl Tables {
    /// A flow behind those that are there.
    fn flow(mut self, table: u8, fields: &[(u8, u128)], instructions: FlowInstructions) -> Self {
        let (mut value, mut mask) = ([0; MATCH_BYTES], [0; MATCH_BYTES]);
        for (field, wanted) in fields {
            let at = place(*field).unwrap();
            let ones = if at.bits == 128 { u128::MAX } else { (1 << at.bits) - 1 };
            for (bytes, number) in [(&mut value, *wanted), (&mut mask, ones)] {
                let written = (number << at.shift).to_be_bytes();
                let range = at.byte..at.byte + at.bytes;
                bytes[range].iter_mut().zip(&written[16 - at.bytes..]).for_each(|(to, from)| *to |= from);
            }
        }
        let (cookie, priority) = (0x100 + self.flows.len() as u64, if fields.is_empty() { 0 } else { 9 });
        self.flows.push(Flow { table, priority, cookie, value, mask, instructions });
        self
    }

    fn group(mut self, id: u32, kind: GroupKind, buckets: &[GroupBucket]) -> Self {
        self.groups.push(GroupEntry { id, kind, buckets: buckets.to_vec() });
        self
    }
}

fn apply(actions: &[FlowAction]) -> FlowInstructions {
    FlowInstructions { apply: actions.to_vec(), ..FlowInstructions::default() }
}

fn write(actions: &[FlowAction]) -> FlowInstructions {
    FlowInstructions { write: actions.to_vec(), ..FlowInstructions::default() }
}

fn goto(table: u8, instructions: FlowInstructions) -> FlowInstructions {
    FlowInstructions { goto: Some(table), ..instructions }
}

fn to(port: u32) -> FlowAction {
    FlowAction::Output { port, max_len: 0xffff }
}

fn set(field: u8, value: u128) -> FlowAction {
    FlowAction::SetField { field, value }
}

fn bucket(actions: &[FlowAction]) -> GroupBucket {
    GroupBucket { weight: 1, watch_port: port::ANY, watch_group: port::ANY, actions: actions.to_vec() }
}

fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut total: u32 = words.sum();
    while total >> 16 != 0 {
        total = (total & 0xffff) + (total >> 16);
    }
    u16::try_from(total).unwrap()
}

/// IPv4 with this protocol and payload, and a right header checksum.
fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 4, 2, 0, 0, 0, 0, 3, 8, 0, 0x45, 0];
    frame.extend(u16::try_from(20 + payload.len()).unwrap().to_be_bytes());
    frame.extend([0, 1, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 3, 10, 0, 0, 4]);
    let header = !sum(&frame[14..34]);
    frame[24..26].copy_from_slice(&header.to_be_bytes());
    frame.extend(payload);
    frame
}

/// UDP from 1000 to 2000, without a checksum of its own.
fn udp() -> Vec<u8> {
    ipv4(17, &[&[0x03, 0xe8, 0x07, 0xd0, 0, 12, 0, 0][..], b"abcd"].concat())
}

fn frame(in_port: u32, bytes: &[u8]) -> Frame<'_> {
    Frame::new(in_port, bytes)
}

/// What a frame from port 3 comes to.
fn made(tables: &Tables) -> Vec<Made> {
    execute(tables, frame(3, &udp()))
}

/// The frame as it came.
fn sent(port: u32) -> Made {
    Made::Output { port, queue: 0, frame: udp() }
}

/// Ports and frames; anything else fails the test.
fn outputs(made: Vec<Made>) -> Vec<(u32, Vec<u8>)> {
    let output = |made| {
        let Made::Output { port, frame, .. } = made else { panic!("{made:?}") };
        (port, frame)
    };
    made.into_iter().map(output).collect()
}

fn ports(made: Vec<Made>) -> Vec<u32> {
    outputs(made).into_iter().map(|(port, _)| port).collect()
}

#[test]
fn each_output_has_the_frame_as_it_is_then() {
    let tables = tables().flow(
        0,
        &[(IN_PORT, 3), (ETH_TYPE, 0x800)],
        apply(&[
            to(4),
            set(IPV4_DST, 0x0a00_0005),
            to(5),
            FlowAction::PushVlan(0x8100),
            set(VLAN_VID, 0x1007),
            to(6),
        ]),
    );
    let outputs = outputs(made(&tables));
    assert_eq!(outputs.iter().map(|(port, _)| *port).collect::<Vec<_>>(), [4, 5, 6]);
    assert_eq!(outputs[0].1, udp());
    let mut changed = udp();
    changed[33] = 5;
    assert_eq!((outputs[1].1[30..34].to_vec(), sum(&outputs[1].1[14..34])), (vec![10, 0, 0, 5], 0xffff));
    changed[24..26].copy_from_slice(&outputs[1].1[24..26]);
    assert_eq!(outputs[1].1, changed);
    let mut tagged = changed[..12].to_vec();
    tagged.extend([0x81, 0, 0, 7]);
    tagged.extend(&changed[12..]);
    assert_eq!(outputs[2].1, tagged);
}

#[test]
fn a_table_sees_what_the_one_before_it_made() {
    let tables = tables()
        .flow(0, &[(UDP_DST, 2000)], goto(3, apply(&[set(UDP_DST, 53), set(TUNNEL_ID, 9)])))
        .flow(3, &[(UDP_DST, 2000)], apply(&[to(4)]))
        .flow(
            3,
            &[(UDP_DST, 53), (TUNNEL_ID, 9)],
            FlowInstructions { metadata: Some((0xab00, 0xff00)), ..goto(7, FlowInstructions::default()) },
        )
        .flow(7, &[(METADATA, 0xab00)], apply(&[to(5)]));
    assert_eq!(ports(made(&tables)), [5]);
}

#[test]
fn the_set_is_done_at_the_end_in_the_standards_order() {
    let tables = tables()
        .flow(0, &[(IN_PORT, 3)], goto(1, write(&[to(4), set(IP_DSCP, 10), FlowAction::SetQueue(1)])))
        .flow(1, &[(IN_PORT, 3)], goto(2, write(&[set(IP_DSCP, 46), to(5), FlowAction::DecNwTtl])))
        .flow(2, &[(IN_PORT, 3)], FlowInstructions::default());
    let done = outputs(made(&tables));
    assert_eq!(done.len(), 1);
    let (port, bytes) = &done[0];
    assert_eq!((*port, bytes[15], bytes[22], sum(&bytes[14..34])), (5, 46 << 2, 63, 0xffff));
}

#[test]
fn the_set_is_cleared_and_not_done_where_no_flow_matches() {
    let cleared = FlowInstructions { clear: true, ..write(&[to(5)]) };
    let one = tables().flow(0, &[(IN_PORT, 3)], goto(1, write(&[set(IP_DSCP, 46)]))).flow(
        1,
        &[(IN_PORT, 3)],
        cleared,
    );
    assert_eq!(outputs(made(&one)), [(5, udp())]);
    let none = tables().flow(0, &[(IN_PORT, 3)], goto(1, write(&[to(5)])));
    assert_eq!(made(&none), []);
}

#[test]
fn all_and_flood_leave_out_where_it_came_from_sensors_and_uplinks() {
    for port in [port::ALL, port::FLOOD] {
        let mut tables = tables().flow(0, &[(IN_PORT, 3)], apply(&[to(port)]));
        assert_eq!(ports(made(&tables)), [4, 5, 6]);
        tables.ports[3].is_live = false;
        tables.ports[4].no_forward = true;
        assert_eq!(made(&tables), [Made::LeftOut("no-forward"), sent(6)]);
    }
}

#[test]
fn back_by_its_own_port_with_in_port_alone() {
    let tables = tables().flow(0, &[(IN_PORT, 3)], apply(&[to(3), to(port::IN_PORT), to(99)]));
    let made = made(&tables);
    assert_eq!(made, [sent(3), Made::LeftOut("port")]);
}

#[test]
fn nothing_comes_from_sensors_or_goes_to_them() {
    let tables = tables()
        .flow(0, &[(IN_PORT, 3)], apply(&[to(1), FlowAction::Group(1), to(4)]))
        .flow(0, &[(IN_PORT, 1)], apply(&[to(4)]))
        .group(1, GroupKind::Indirect, &[bucket(&[to(1)])]);
    let refused = Made::LeftOut("sensor-port");
    assert_eq!(made(&tables), [refused.clone(), refused.clone(), sent(4)]);
    assert_eq!(execute(&tables, frame(1, &udp())), [Made::LeftOut("punt-sensor")]);
    let out = |in_port, actions: &[_]| execute_actions(&tables, frame(in_port, &udp()), actions);
    assert_eq!(out(port::CONTROLLER, &[to(1)]), [refused]);
    assert_eq!(out(1, &[to(4)]), [Made::LeftOut("packet-out-sensor")]);
}

fn told(made: &Made) -> &PacketIn {
    let Made::PacketIn(told) = made else { panic!("{made:?}") };
    told
}

#[test]
fn the_controller_is_told_why_by_whom_and_how_much_it_asked_for() {
    let ask = |max_len| FlowAction::Output { port: port::CONTROLLER, max_len };
    let metadata = FlowInstructions { metadata: Some((7, 7)), ..FlowInstructions::default() };
    let tables = tables()
        .flow(0, &[(UDP_DST, 2000)], goto(1, metadata))
        .flow(1, &[(UDP_DST, 2000)], goto(2, apply(&[ask(20), FlowAction::PushVlan(0x8100)])))
        .flow(2, &[], write(&[ask(0xffff)]));
    let made = made(&tables);
    let (first, second) = (told(&made[0]), told(&made[1]));
    assert_eq!((first.reason, first.table, first.cookie), (PacketInReason::Action, 1, 0x101));
    assert_eq!((first.in_port, first.metadata, first.total_len), (3, 7, 46));
    assert_eq!(first.data, udp()[..20]);
    assert_eq!((second.reason, second.table, second.cookie), (PacketInReason::NoMatch, 2, 0x102));
    assert_eq!((second.data.len(), second.total_len, &second.data[12..16]), (50, 50, &[0x81, 0, 0, 0][..]));
}

#[test]
fn a_port_that_is_not_to_be_told_of_is_not() {
    let mut tables = tables().flow(0, &[], apply(&[to(port::CONTROLLER)]));
    tables.ports[2].no_packet_in = true;
    assert_eq!(made(&tables), [Made::LeftOut("no-packet-in")]);
}

#[test]
fn a_ttl_at_its_end_is_told_and_goes_no_further() {
    let tables = tables().flow(
        0,
        &[(IN_PORT, 3)],
        apply(&[FlowAction::SetNwTtl(1), to(4), FlowAction::DecNwTtl, to(5)]),
    );
    let made = made(&tables);
    assert_eq!(made.len(), 2);
    assert!(matches!(made[0], Made::Output { port: 4, .. }));
    assert_eq!(told(&made[1]).reason, PacketInReason::InvalidTtl);
}

#[test]
fn a_group_works_on_copies() {
    let tables = tables().flow(0, &[(IN_PORT, 3)], apply(&[FlowAction::Group(1), to(6)])).group(
        1,
        GroupKind::All,
        &[
            bucket(&[to(4), set(IP_DSCP, 46)]),
            bucket(&[FlowAction::SetNwTtl(1), FlowAction::DecNwTtl, to(5)]),
            bucket(&[to(port::IN_PORT)]),
        ],
    );
    let made = made(&tables);
    // The set's order: the field before the output, the decrement before the TTL that is set.
    let Made::Output { port: 4, frame, .. } = &made[0] else { panic!("{made:?}") };
    assert_eq!(frame[15], 46 << 2);
    let Made::Output { port: 5, frame, .. } = &made[1] else { panic!("{made:?}") };
    assert_eq!(frame[22], 1);
    assert_eq!(made[2..], [3, 6].map(sent));
}

#[test]
fn a_group_in_the_set_takes_the_outputs_place() {
    let tables = tables().flow(0, &[(IN_PORT, 3)], write(&[to(4), FlowAction::Group(7)])).group(
        7,
        GroupKind::Indirect,
        &[bucket(&[to(5)])],
    );
    assert_eq!(ports(made(&tables)), [5]);
}

#[test]
fn failover_takes_the_first_that_is_live() {
    let watching = |port, group| GroupBucket { watch_port: port, watch_group: group, ..bucket(&[to(port)]) };
    let mut tables = tables()
        .flow(0, &[(IN_PORT, 3)], apply(&[FlowAction::Group(1)]))
        .group(
            1,
            GroupKind::FastFailover,
            &[
                watching(4, port::ANY),
                GroupBucket { watch_port: port::ANY, ..watching(5, 2) },
                watching(6, port::ANY),
            ],
        )
        .group(2, GroupKind::FastFailover, &[watching(5, port::ANY)]);
    let down = |tables: &mut Tables, port: usize| tables.ports[port - 1].is_live = false;
    assert_eq!(ports(made(&tables)), [4]);
    down(&mut tables, 4);
    assert_eq!(ports(made(&tables)), [5]);
    down(&mut tables, 5);
    assert_eq!(ports(made(&tables)), [6]);
    down(&mut tables, 6);
    assert_eq!(made(&tables), []);
}

#[test]
fn select_keeps_a_connection_together_and_weighs() {
    let weighing = |weight, port| GroupBucket { weight, ..bucket(&[to(port)]) };
    let mut tables = tables().flow(0, &[(IN_PORT, 3)], apply(&[FlowAction::Group(1)])).group(
        1,
        GroupKind::Select,
        &[weighing(1, 4), weighing(3, 5), weighing(0, 6)],
    );
    let mut counts = [0_u32; 7];
    for source in 0..4_000_u16 {
        let mut bytes = udp();
        bytes[34..36].copy_from_slice(&source.to_be_bytes());
        let chosen = ports(execute(&tables, frame(3, &bytes)));
        assert_eq!(chosen, ports(execute(&tables, frame(3, &bytes))));
        counts[chosen[0] as usize] += 1;
    }
    assert!((800..1_200).contains(&counts[4]) && counts[4] + counts[5] == 4_000, "{counts:?}");
    tables.groups[0].buckets.truncate(2);
    tables.groups[0].buckets[1].watch_port = 5;
    tables.ports[4].is_live = false;
    assert_eq!(ports(made(&tables)), [4]);
}

#[test]
fn an_sctp_packet_has_its_checksum_anew() {
    let mut payload = vec![0x03, 0xe8, 0x07, 0xd0, 1, 2, 3, 4, 0, 0, 0, 0];
    payload.extend((0..300_u16).map(|n| n.to_le_bytes()[0]));
    let bytes = ipv4(132, &payload);
    let tables = tables().flow(0, &[(SCTP_DST, 2000)], apply(&[to(4), set(SCTP_DST, 80), to(5)]));
    let outputs = outputs(execute(&tables, frame(3, &bytes)));
    let packet = &outputs[1].1[34..];
    assert_eq!(packet[2..4], [0, 80]);
    let mut zeroed = packet.to_vec();
    zeroed[8..12].fill(0);
    assert_eq!(packet[8..12], crc32c::crc32c(&zeroed).to_le_bytes());
    assert_eq!(outputs[0].1, bytes);
}

#[test]
fn tables_behind_a_meter_that_dropped_it_are_not_entered() {
    let tables = tables()
        .flow(0, &[(IN_PORT, 3)], goto(2, FlowInstructions { write: vec![to(5)], ..apply(&[to(4)]) }))
        .flow(2, &[(IN_PORT, 3)], apply(&[to(6)]));
    assert_eq!(ports(made(&tables)), [4, 6, 5]);
    assert_eq!(ports(execute(&tables, Frame { before: 2, ..frame(3, &udp()) })), [4]);
}

#[test]
fn the_stacks_copy_is_the_kernels_and_one() {
    let tables = tables().flow(0, &[(IN_PORT, 3)], apply(&[to(4), to(port::LOCAL), to(port::NORMAL), to(5)]));
    let handed = execute(&tables, Frame { is_handed: true, ..frame(3, &udp()) });
    assert_eq!(handed, [sent(4), Made::LeftOut("local"), sent(5)]);
    let left = Made::LeftOut("local");
    assert_eq!(made(&tables), [sent(4), left.clone(), left.clone(), sent(5)]);
    let out = |actions: &[_]| execute_actions(&tables, frame(port::LOCAL, &udp()), actions);
    assert_eq!(out(&[to(port::IN_PORT), to(port::TABLE)]), [left]);
}

#[test]
fn what_meters_added_is_added_where_they_did() {
    let marked = set(IP_DSCP, 18);
    let tables = tables()
        .flow(0, &[(IN_PORT, 3)], goto(2, apply(&[marked, to(4)])))
        .flow(2, &[(IP_DSCP, 18)], goto(5, FlowInstructions { write: vec![to(6)], ..apply(&[to(5)]) }))
        .flow(5, &[(IP_DSCP, 20)], FlowInstructions::default());
    let mut remarks = [0; 8];
    (remarks[2], remarks[7]) = (1, 3);
    let outputs = outputs(execute(&tables, Frame { remarks, ..frame(3, &udp()) }));
    let classes: Vec<_> = outputs.iter().map(|(port, frame)| (*port, frame[15] >> 2)).collect();
    assert_eq!(classes, [(4, 18), (5, 20), (6, 20)]);
    assert!(outputs.iter().all(|(_, frame)| sum(&frame[14..34]) == 0xffff));
}

#[test]
fn each_copy_has_the_queue_that_was_set_by_then() {
    let queue = FlowAction::SetQueue;
    let tables = tables()
        .flow(0, &[(IN_PORT, 3)], apply(&[to(4), queue(3), to(5), FlowAction::Group(1), queue(0), to(6)]))
        .group(1, GroupKind::Indirect, &[bucket(&[to(4), queue(7)])]);
    let queues = |made: Vec<Made>| {
        let of = |made| if let Made::Output { port, queue, .. } = made { (port, queue) } else { panic!() };
        made.into_iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(queues(made(&tables)), [(4, 0), (5, 3), (4, 7), (6, 0)]);
    let out = execute_actions(&tables, frame(port::CONTROLLER, &udp()), &[queue(2), to(2)]);
    assert_eq!(queues(out), [(2, 2)]);
}

#[test]
fn what_tags_off_make_too_short_is_padded() {
    let pop = [FlowAction::PopVlan, to(4), to(port::CONTROLLER), FlowAction::PushVlan(0x8100), to(5)];
    let tables = tables().flow(0, &[], apply(&pop));
    let mut tagged = udp();
    tagged.splice(12..12, [0x81, 0, 0, 7]);
    tagged.resize(60, 0);
    let mut padded = udp();
    padded.resize(60, 0);
    let made = execute(&tables, frame(3, &tagged));
    let Made::Output { frame: first, .. } = &made[0] else { panic!("{made:?}") };
    assert_eq!((first, &told(&made[1]).data, told(&made[1]).total_len), (&padded, &padded, 60));
    let Made::Output { frame: second, .. } = &made[2] else { panic!("{made:?}") };
    assert_eq!((second.len(), &second[..18]), (60, &[&tagged[..14], &[0, 0, 8, 0][..]].concat()[..]));
    // What came in short and is as long as it was is not padded.
    let made = execute(&tables, frame(3, &udp()));
    assert!(matches!(&made[0], Made::Output { frame, .. } if *frame == udp()), "{made:?}");
}

#[test]
fn a_frame_that_was_cut_is_told_and_not_sent() {
    let tables = tables().flow(0, &[(IN_PORT, 3)], apply(&[to(4), to(port::CONTROLLER)]));
    let made = execute(&tables, Frame { total_len: 9_000, ..frame(3, &udp()) });
    assert_eq!(made[0], Made::LeftOut("cut"));
    assert_eq!((told(&made[1]).total_len, told(&made[1]).data.len()), (9_000, 46));
}

#[test]
fn a_packet_out_is_done_as_it_says_and_meets_tables_with_table_alone() {
    let tables = tables().flow(0, &[(IN_PORT, port::CONTROLLER.into())], apply(&[to(4)])).flow(
        0,
        &[],
        apply(&[to(port::TABLE)]),
    );
    let out = |in_port, actions: &[_]| execute_actions(&tables, frame(in_port, &udp()), actions);
    assert_eq!(ports(out(port::CONTROLLER, &[to(5), to(port::TABLE), to(2)])), [5, 4, 2]);
    assert_eq!(ports(out(3, &[to(port::FLOOD)])), [4, 5, 6]);
    assert_eq!(ports(out(port::CONTROLLER, &[to(port::ALL)])), [2, 3, 4, 5, 6]);
    assert_eq!(out(3, &[to(port::TABLE)]), [Made::LeftOut("port")], "a flow has no TABLE");
    let made = out(port::CONTROLLER, &[to(port::CONTROLLER)]);
    assert_eq!((told(&made[0]).cookie, told(&made[0]).reason), (u64::MAX, PacketInReason::Action));
}

#[test]
fn what_a_frame_comes_to_is_bounded() {
    let many = vec![FlowAction::Group(1); 32];
    let tables = tables()
        .flow(0, &[], apply(&many))
        .group(1, GroupKind::All, &vec![bucket(&[FlowAction::Group(2), to(4)]); 32])
        .group(2, GroupKind::All, &vec![bucket(&[FlowAction::Group(3)]); 32])
        .group(3, GroupKind::All, &vec![bucket(&[FlowAction::Group(1)]); 32]);
    let made = made(&tables);
    assert!(made.len() <= OUTPUTS_MAX + 1, "{}", made.len());
    assert!(made.contains(&Made::LeftOut("group-depth")));
    let outputs = tables_with_outputs();
    let made = execute(&outputs, frame(3, &udp()));
    assert_eq!((made.len(), made.last()), (OUTPUTS_MAX + 1, Some(&Made::LeftOut("outputs"))));
}

fn tables_with_outputs() -> Tables {
    let group = vec![FlowAction::Group(1); 3];
    tables().flow(0, &[], apply(&group)).group(1, GroupKind::All, &vec![bucket(&[to(4)]); 32])
}

proptest::proptest! {
    #[test]
    fn no_frame_and_no_list_is_too_odd(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..1600),
        kind in 0..4_usize,
        codes in proptest::collection::vec((0..14_u8, proptest::prelude::any::<u32>(), 0..42_u8), 0..32),
    ) {
        let mut bytes = bytes;
        let ether_types = [[8, 0], [0x86, 0xdd], [0x88, 0x47], [0x81, 0]];
        if let Some(place) = bytes.get_mut(12..14) {
            place.copy_from_slice(&ether_types[kind]);
        }
        let action = |&(code, number, field): &(u8, u32, u8)| match code {
            0 => to(number % 8),
            1 => to(port::IN_PORT + number % 8),
            2 => FlowAction::Group(number % 3),
            3 => FlowAction::PushVlan(0x8100),
            4 => FlowAction::PopVlan,
            5 => FlowAction::PushMpls(0x8847),
            6 => FlowAction::PopMpls(0x0800),
            7 => FlowAction::CopyTtlOut,
            8 => FlowAction::CopyTtlIn,
            9 => FlowAction::DecMplsTtl,
            10 => FlowAction::DecNwTtl,
            11 => FlowAction::SetQueue(number),
            _ => set(field, u128::from(number)),
        };
        let actions: Vec<_> = codes.iter().map(action).collect();
        let tables = tables().flow(0, &[], goto(4, apply(&actions))).flow(4, &[], write(&actions))
            .group(0, GroupKind::All, &[bucket(&actions), bucket(&[to(4)])])
            .group(1, GroupKind::Select, &[bucket(&actions)]);
        let made = execute(&tables, frame(3, &bytes));
        proptest::prop_assert!(made.len() <= OUTPUTS_MAX + 1);
        for made in made {
            if let Made::Output { port, frame, .. } = made {
                proptest::prop_assert!(port != 1 && (14..=1536).contains(&frame.len()), "{port} {}", frame.len());
            }
        }
    }
}
