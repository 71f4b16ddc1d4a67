//! Flows, frames, ports, roles, and the statistics of flows, tables and ports.

use super::super::multipart::{
    Aggregate, Desc, FlowStats, FlowStatsRequest, PortCounters, PortStats, ReplyBody, RequestBody, TableStats,
};
use super::super::*;

pub(super) fn request(body: RequestBody) -> Message {
    Message::MultipartRequest(body.into())
}

pub(super) fn reply(more: bool, body: ReplyBody) -> Message {
    Message::MultipartReply(MultipartReply { more, body })
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

pub(super) fn all() -> Vec<(String, Message)> {
    let requests = requests().into_iter().map(|(text, message)| (text.to_owned(), message));
    requests.chain(unasked()).chain(statistics()).collect()
}
