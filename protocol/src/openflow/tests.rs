//! Golden bytes of the messages that carry flows, frames and statistics, and properties over all of them.
//!
//! The requests' bytes are what os-ken 4.2.2 (`ofproto_v1_3_parser`) serialised. It writes no switch's messages, so those were
//! checked in the other direction: its parser read the bytes below to the same values.

use proptest::prelude::*;

use super::multipart::{
    Aggregate, Desc, FlowStats, FlowStatsRequest, PortCounters, PortStats, ReplyBody, RequestBody, TableStats,
};
use super::*;

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text.replace([' ', '\n'], "")).unwrap()
}

/// A lane's marking: what an operator's controller sends most.
fn marking() -> FlowMod {
    let masked = |field, value: &[u8], mask: &[u8]| Oxm::new(field, value, Some(mask)).unwrap();
    let pattern = Match::any()
        .in_port(1)
        .and(masked(MatchField::EthSrc, &[2, 0, 0, 0, 0, 0], &[0xff, 0xff, 0xff, 0xff, 0xff, 0]))
        .eth_type(0x0800)
        .ip_proto(17)
        .and(masked(MatchField::Ipv4Dst, &[10, 0, 0, 0], &[255, 0, 0, 0]))
        .udp_src(7400);
    let actions = vec![Action::SetField(Oxm::ip_dscp(46)), Action::SetQueue(3), Action::output(port::NORMAL)];
    FlowMod {
        cookie: 0x1122_3344_5566_7788,
        idle_timeout_s: 10,
        hard_timeout_s: 300,
        flags: flags::SEND_FLOW_REM,
        pattern,
        instructions: vec![Instruction::ApplyActions(actions)],
        ..FlowMod::new(Command::Add, 1, 1000)
    }
}

fn every_instruction() -> FlowMod {
    let prefix = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
    let address = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let source = Oxm::new(MatchField::Ipv6Src, &address, Some(&prefix)).unwrap();
    FlowMod {
        pattern: Match::any().eth_type(0x86dd).and(source),
        instructions: vec![
            Instruction::Meter(9),
            Instruction::ClearActions,
            Instruction::WriteActions(vec![Action::Group(5), Action::PopVlan]),
            Instruction::WriteMetadata { metadata: 0x10, mask: 0xff },
            Instruction::GotoTable(2),
        ],
        out_port: 0,
        out_group: 0,
        ..FlowMod::new(Command::Modify, 0, 5)
    }
}

fn requests() -> Vec<(&'static str, Message)> {
    let delete = FlowMod {
        cookie_mask: u64::MAX,
        out_port: 2,
        out_group: 7,
        ..FlowMod::new(Command::DeleteStrict, 1, 5)
    };
    let packet_out = PacketOut {
        buffer_id: NO_BUFFER,
        in_port: port::CONTROLLER,
        actions: vec![Action::output(2)],
        data: vec![1, 2, 3],
    };
    let flows = FlowStatsRequest {
        table_id: 1,
        cookie: 5,
        cookie_mask: 0xff,
        pattern: Match::any().eth_dst([2, 0, 0, 0, 0, 9]),
        ..FlowStatsRequest::all()
    };
    let request = |body: RequestBody| Message::MultipartRequest(body.into());
    vec![
        (
            "040e00a000000011 1122334455667788 0000000000000000 01 00 000a 012c 03e8 ffffffff ffffffff ffffffff 0001 0000
             0001 0039 80000004 00000001 8000090c 020000000000 ffffffffff00 80000a02 0800 80001401 11
             80001908 0a000000 ff000000 80001e02 1ce8 00000000000000
             0004 0030 00000000 0019 0010 80001001 2e 00000000000000 0015 0008 00000003
             0000 0010 fffffffa 0000 000000000000",
            Message::FlowMod(marking()),
        ),
        (
            "040e003800000011 0000000000000000 ffffffffffffffff 01 04 0000 0000 0005 ffffffff 00000002 00000007 0000 0000
             0001 0004 00000000",
            Message::FlowMod(delete),
        ),
        (
            "040e00a800000011 0000000000000000 0000000000000000 00 01 0000 0000 0005 ffffffff 00000000 00000000 0000 0000
             0001 002e 80000a02 86dd 80003520 20010db8000000000000000000000000 ffffffffffffffff0000000000000000 0000
             0006 0008 00000009 0005 0008 00000000 0003 0018 00000000 0016 0008 00000005 0012 0008 00000000
             0002 0018 00000000 0000000000000010 00000000000000ff 0001 0008 02 000000",
            Message::FlowMod(every_instruction()),
        ),
        (
            "040d002b00000011 ffffffff fffffffd 0010 000000000000 0000 0010 00000002 0000 000000000000 010203",
            Message::PacketOut(packet_out),
        ),
        ("0412001000000011 0000 0000 00000000", request(RequestBody::Desc)),
        (
            "0412004000000011 0001 0000 00000000 01 000000 ffffffff ffffffff 00000000 0000000000000005 00000000000000ff
             0001 000e 80000606 020000000009 0000",
            request(RequestBody::Flow(flows)),
        ),
        (
            "0412003800000011 0002 0000 00000000 ff 000000 ffffffff ffffffff 00000000 0000000000000000 0000000000000000
             0001 0004 00000000",
            request(RequestBody::Aggregate(FlowStatsRequest::all())),
        ),
        ("0412001000000011 0003 0000 00000000", request(RequestBody::Table)),
        ("0412001800000011 0004 0000 00000000 ffffffff 00000000", request(RequestBody::PortStats(port::ANY))),
        ("0412001000000011 000d 0000 00000000", request(RequestBody::PortDesc)),
        (
            "0418001800000011 00000002 00000000 0102030405060708",
            Message::RoleRequest(Role { role: ControllerRole::Master, generation_id: 0x0102_0304_0506_0708 }),
        ),
    ]
}

fn uplink() -> Port {
    Port {
        number: 2,
        hw_addr: [2, 0, 0, 0, 0, 2],
        name: Text::new("eth0"),
        config: 0,
        state: port::state::LIVE,
        current: 0x2820,
        advertised: 1,
        supported: 2,
        peer: 3,
        current_speed: 1_000_000,
        max_speed: 10_000_000,
    }
}

const UPLINK: &str = "00000002 00000000 020000000002 0000 65746830000000000000000000000000
    00000000 00000004 00002820 00000001 00000002 00000003 000f4240 00989680";

fn reply(more: bool, body: ReplyBody) -> Message {
    Message::MultipartReply(MultipartReply { more, body })
}

fn unasked() -> Vec<(String, Message)> {
    let packet_in = PacketIn {
        buffer_id: NO_BUFFER,
        total_len: 64,
        reason: PacketInReason::Action,
        table_id: 1,
        cookie: 9,
        pattern: Match::any().in_port(port::LOCAL),
        data: vec![0xaa, 0xbb],
    };
    let removed = FlowRemoved {
        cookie: 9,
        priority: 1000,
        reason: RemovedReason::HardTimeout,
        table_id: 1,
        lasted: Lasted { seconds: 300, nanoseconds: 5 },
        idle_timeout_s: 10,
        hard_timeout_s: 300,
        packets: 7,
        bytes: 700,
        pattern: Match::any().in_port(1),
    };
    vec![
        (
            "040a002c00000011 ffffffff 0040 01 01 0000000000000009 0001 000c 80000004 fffffffe 00000000 0000 aabb".into(),
            Message::PacketIn(packet_in),
        ),
        (
            "040b004000000011 0000000000000009 03e8 01 01 0000012c 00000005 000a 012c 0000000000000007 00000000000002bc
             0001 000c 80000004 00000001 00000000"
                .into(),
            Message::FlowRemoved(removed),
        ),
        (
            format!("040c005000000011 02 00000000000000 {UPLINK}"),
            Message::PortStatus(PortStatus { reason: PortReason::Modify, port: uplink() }),
        ),
    ]
}

fn description() -> (String, Message) {
    let desc = Desc {
        manufacturer: Text::new("Caregate"),
        hardware: Text::new("gateway"),
        software: Text::new("0.1.0"),
        serial: Text::new("-"),
        datapath: Text::new("gw-1"),
    };
    let texts = [("Caregate", 256), ("gateway", 256), ("0.1.0", 256), ("-", 32), ("gw-1", 256)];
    let texts: String = texts
        .iter()
        .map(|(text, bytes)| format!("{:0<width$}", hex::encode(text), width = 2 * bytes))
        .collect();
    (format!("0413043000000011 0000 0000 00000000 {texts}"), reply(false, ReplyBody::Desc(Box::new(desc))))
}

fn statistics() -> Vec<(String, Message)> {
    let flow = FlowStats {
        table_id: 1,
        lasted: Lasted { seconds: 2, nanoseconds: 3 },
        priority: 4,
        idle_timeout_s: 5,
        hard_timeout_s: 6,
        flags: flags::SEND_FLOW_REM,
        cookie: 8,
        packets: 9,
        bytes: 10,
        pattern: Match::any().in_port(1),
        instructions: vec![Instruction::ApplyActions(vec![Action::output(port::LOCAL)])],
    };
    let counters = PortCounters {
        rx_packets: 1,
        tx_packets: 2,
        rx_bytes: 3,
        tx_bytes: 4,
        rx_dropped: 5,
        ..PortCounters::default()
    };
    let ports = PortStats { port: 2, counters, lasted: Lasted { seconds: 6, nanoseconds: 7 } };
    let table = TableStats { table_id: 1, active: 2, lookups: 3, matched: 4 };
    let sum = Aggregate { packets: 1, bytes: 2, flows: 3 };
    vec![
        description(),
        (
            "0413006800000011 0001 0001 00000000 0058 01 00 00000002 00000003 0004 0005 0006 0001 00000000
             0000000000000008 0000000000000009 000000000000000a 0001 000c 80000004 00000001 00000000
             0004 0018 00000000 0000 0010 fffffffe 0000 000000000000"
                .into(),
            reply(true, ReplyBody::Flow(vec![flow])),
        ),
        (
            "0413002800000011 0002 0000 00000000 0000000000000001 0000000000000002 00000003 00000000".into(),
            reply(false, ReplyBody::Aggregate(sum)),
        ),
        (
            "0413002800000011 0003 0000 00000000 01 000000 00000002 0000000000000003 0000000000000004".into(),
            reply(false, ReplyBody::Table(vec![table])),
        ),
        (
            format!(
                "0413008000000011 0004 0000 00000000 00000002 00000000 {} {} 00000006 00000007",
                "0000000000000001 0000000000000002 0000000000000003 0000000000000004 0000000000000005",
                "0".repeat(7 * 16)
            ),
            reply(false, ReplyBody::PortStats(vec![ports])),
        ),
        (
            format!("0413005000000011 000d 0000 00000000 {UPLINK}"),
            reply(false, ReplyBody::PortDesc(vec![uplink()])),
        ),
        (
            "0419001800000011 00000001 00000000 0000000000000007".into(),
            Message::RoleReply(Role { role: ControllerRole::Equal, generation_id: 7 }),
        ),
    ]
}

fn golden() -> Vec<(String, Message)> {
    requests()
        .into_iter()
        .map(|(text, message)| (text.to_owned(), message))
        .chain(unasked())
        .chain(statistics())
        .collect()
}

#[test]
fn golden_bytes_both_ways() {
    for (text, message) in golden() {
        assert_eq!(hex::encode(message.encode(0x11).unwrap()), hex::encode(bytes(&text)), "{message:?}");
        assert_eq!(Message::decode(&bytes(&text)), Ok((0x11, message)));
    }
}

/// Cut at any byte with the header's length set to fit: an error, or a shorter list of whole entries. Never a panic.
#[test]
fn every_cut_is_refused_or_shorter() {
    for (text, message) in golden() {
        let whole = bytes(&text);
        for end in HEADER_BYTES..whole.len() {
            let mut cut = whole[..end].to_vec();
            cut[2..4].copy_from_slice(&u16::try_from(end).unwrap().to_be_bytes());
            match Message::decode(&cut) {
                Ok((_, shorter)) => assert_ne!(shorter, message),
                Err(error) => assert!(error.header().is_some() && !error.to_string().is_empty()),
            }
        }
    }
}

/// What a wrong part of a flow-mod or packet-out is answered with.
#[test]
fn each_part_has_its_own_error() {
    let add = "040e00LL00000011 0000000000000000 0000000000000000 01 00 0000 0000 0001 ffffffff ffffffff ffffffff 0000 0000";
    let none = "0001 0004 00000000";
    for (rest, code) in [
        ("0000 0004 00000000", "OFPBMC_BAD_TYPE"),
        ("0001 0003 00000000", "OFPBMC_BAD_LEN"),
        ("0001 0028 00000000", "OFPBMC_BAD_LEN"),
        ("0001 0006 8000 0000", "OFPBMC_BAD_LEN"), // ends in a field's header
        ("0001 000a 80000006 0102 000000000000", "OFPBMC_BAD_LEN"), // ends in a field's value
        ("0001 000b 80000103 010203 0000000000", "OFPBMC_BAD_LEN"), // half a mask
        ("0001 0009 80000a01 08", "OFPBMC_BAD_LEN"), // no padding
        (&format!("{none} 0004 0004"), "OFPBIC_BAD_LEN"), // no multiple of 8
        (&format!("{none} 0004 0000 00000000"), "OFPBIC_BAD_LEN"),
        (&format!("{none} 0004 0010 00000000"), "OFPBIC_BAD_LEN"), // beyond the message
        (&format!("{none} 0001 0010 02 00000000000000 00000000"), "OFPBIC_BAD_LEN"),
        (&format!("{none} 0004"), "OFPBIC_BAD_LEN"),
        (&format!("{none} 0004 0010 00000000 0000 0008 00000001"), "OFPBAC_BAD_LEN"), // output of 8 bytes
        (&format!("{none} 0004 0010 00000000 0015 000c 00000001"), "OFPBAC_BAD_LEN"),
        (&format!("{none} 0004 0010 00000000 0015 0010 00000001"), "OFPBAC_BAD_LEN"), // beyond the instruction
        (&format!("{none} 0004 0010 00000000 0019 0008 8000100a"), "OFPBAC_BAD_SET_LEN"),
        (&format!("{none} 0004 0018 00000000 0019 0010 80001102 2eff 000000000000"), "OFPBAC_BAD_SET_TYPE"),
    ] {
        let mut frame = bytes(&format!("{} {rest}", add.replace("LL", "00")));
        frame[3] = u8::try_from(frame.len()).unwrap();
        let error = Message::decode(&frame).unwrap_err();
        assert_eq!(error.answer(&frame).unwrap().kind.as_str(), code, "{rest}");
    }
    let mut frame = Message::FlowMod(FlowMod::new(Command::Add, 1, 1)).encode(1).unwrap();
    frame[25] = 5;
    assert_eq!(Message::decode(&frame).unwrap_err().reason(), "OFPFMFC_BAD_COMMAND");
    let packet_out = bytes("040d001800000011 ffffffff fffffffd 0010 000000000000");
    assert_eq!(Message::decode(&packet_out).unwrap_err().reason(), "OFPBRC_BAD_LEN");
    let role = bytes("0418001800000011 00000004 00000000 0000000000000000");
    assert_eq!(Message::decode(&role).unwrap_err().reason(), "OFPRRFC_BAD_ROLE");
}

#[test]
fn nothing_longer_than_a_message_is_encoded() {
    let actions = vec![Action::output(1); 5000];
    let change = FlowMod {
        instructions: vec![Instruction::ApplyActions(actions.clone())],
        ..FlowMod::new(Command::Add, 1, 1)
    };
    let packet = PacketOut { buffer_id: NO_BUFFER, in_port: 1, actions, data: vec![] };
    let pattern = Match { fields: vec![Oxm::new(MatchField::Ipv6Src, &[0; 16], None).unwrap(); 4000] };
    for message in [
        Message::FlowMod(change),
        Message::PacketOut(packet),
        Message::FlowMod(FlowMod { pattern, ..FlowMod::new(Command::Add, 1, 1) }),
    ] {
        assert!(message.encode(1).unwrap_err().bytes > MESSAGE_BYTES_MAX);
    }
}

fn oxm() -> impl Strategy<Value = Oxm> {
    let field = proptest::sample::select(MatchField::ALL);
    (field, proptest::collection::vec(any::<u8>(), 32), any::<bool>()).prop_map(|(field, random, masked)| {
        let (value, mask) = random.split_at(16);
        let bytes = field.bytes();
        Oxm::new(field, &value[..bytes], masked.then(|| &mask[..bytes])).unwrap()
    })
}

fn pattern() -> impl Strategy<Value = Match> {
    proptest::collection::vec(oxm(), 0..8).prop_map(|fields| Match { fields })
}

/// The body of a TLV of which nobody knows anything.
fn unknown() -> impl Strategy<Value = (u16, Vec<u8>)> {
    (30u16..0xffff, 0usize..4).prop_map(|(kind, words)| (kind, vec![7; 4 + 8 * words]))
}

fn action() -> impl Strategy<Value = Action> {
    let set_field = proptest::sample::select(MatchField::ALL)
        .prop_map(|field| Action::SetField(Oxm::new(field, &[3; 16][..field.bytes()], None).unwrap()));
    prop_oneof![
        (any::<u32>(), any::<u16>()).prop_map(|(port, max_len)| Action::Output { port, max_len }),
        any::<u32>().prop_map(Action::SetQueue),
        any::<u32>().prop_map(Action::Group),
        set_field,
        unknown().prop_map(|(action_type, body)| Action::Other { action_type, body }),
    ]
}

fn instructions() -> impl Strategy<Value = Vec<Instruction>> {
    let actions = || proptest::collection::vec(action(), 0..5);
    let instruction = prop_oneof![
        any::<u8>().prop_map(Instruction::GotoTable),
        (any::<u64>(), any::<u64>())
            .prop_map(|(metadata, mask)| Instruction::WriteMetadata { metadata, mask }),
        actions().prop_map(Instruction::WriteActions),
        actions().prop_map(Instruction::ApplyActions),
        Just(Instruction::ClearActions),
        any::<u32>().prop_map(Instruction::Meter),
        unknown().prop_map(|(instruction_type, body)| Instruction::Other { instruction_type, body }),
    ];
    proptest::collection::vec(instruction, 0..5)
}

fn flow_stats() -> impl Strategy<Value = FlowStats> {
    (any::<[u16; 4]>(), any::<[u64; 3]>(), any::<[u32; 2]>(), pattern(), instructions()).prop_map(
        |(short, long, lasted, pattern, instructions)| FlowStats {
            table_id: 1,
            lasted: Lasted { seconds: lasted[0], nanoseconds: lasted[1] },
            priority: short[0],
            idle_timeout_s: short[1],
            hard_timeout_s: short[2],
            flags: short[3],
            cookie: long[0],
            packets: long[1],
            bytes: long[2],
            pattern,
            instructions,
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    let commands =
        [Command::Add, Command::Modify, Command::ModifyStrict, Command::Delete, Command::DeleteStrict];
    let change = (
        proptest::sample::select(commands.to_vec()),
        any::<[u16; 4]>(),
        any::<[u32; 3]>(),
        pattern(),
        instructions(),
    )
        .prop_map(|(command, short, long, pattern, instructions)| FlowMod {
            cookie: long[0].into(),
            cookie_mask: long[1].into(),
            idle_timeout_s: short[0],
            hard_timeout_s: short[1],
            buffer_id: long[2],
            flags: short[2],
            pattern,
            instructions,
            ..FlowMod::new(command, 1, short[3])
        });
    let data = || proptest::collection::vec(any::<u8>(), 0..100);
    let packet_out = (any::<[u32; 2]>(), proptest::collection::vec(action(), 0..5), data())
        .prop_map(|(head, actions, data)| PacketOut { buffer_id: head[0], in_port: head[1], actions, data });
    let packet_in = (any::<u64>(), pattern(), data()).prop_map(|(cookie, pattern, data)| PacketIn {
        buffer_id: NO_BUFFER,
        total_len: 99,
        reason: PacketInReason::NoMatch,
        table_id: 1,
        cookie,
        pattern,
        data,
    });
    let flows = (any::<bool>(), proptest::collection::vec(flow_stats(), 0..4)).prop_map(|(more, flows)| {
        Message::MultipartReply(MultipartReply { more, body: ReplyBody::Flow(flows) })
    });
    let other = (14u16..0xffff, data()).prop_map(|(multipart_type, body)| {
        Message::MultipartRequest(MultipartRequest {
            more: true,
            body: RequestBody::Other { multipart_type, body },
        })
    });
    prop_oneof![
        change.prop_map(Message::FlowMod),
        packet_out.prop_map(Message::PacketOut),
        packet_in.prop_map(Message::PacketIn),
        flows,
        other,
    ]
}

proptest! {
    #[test]
    fn round_trip(message in message(), xid in any::<u32>()) {
        let frame = message.encode(xid).unwrap();
        prop_assert_eq!(Message::decode(&frame), Ok((xid, message)));
    }

    /// A good message with some bytes overwritten: hostile lengths at every place.
    #[test]
    fn changed_bytes_decode_to_what_encodes_alike(
        message in message(), changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut frame = message.encode(1).unwrap();
        for (at, byte) in changes {
            let at = at.index(frame.len());
            if at >= HEADER_BYTES {
                frame[at] = byte;
            }
        }
        match Message::decode(&frame) {
            Ok((xid, message)) => prop_assert_eq!(Message::decode(&message.encode(xid).unwrap()), Ok((xid, message))),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
