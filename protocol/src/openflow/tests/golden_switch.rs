//! Groups, meters, queues, tables' features, and the configuration of ports, tables and asynchronous messages.

use super::super::group::{BucketCounter, GroupDesc, GroupFeatures, GroupStats};
use super::super::meter::{BandStats, MeterConfig, MeterFeatures, MeterStats};
use super::super::multipart::{ReplyBody, RequestBody};
use super::super::queue::{QueueStats, QueueStatsRequest};
use super::super::*;
use super::golden::{reply, request};

type Golden = Vec<(String, Message)>;

/// Bucket out of port 3, with no liveness.
const BUCKET: &str = "0020 0000 ffffffff ffffffff 00000000 0000 0010 00000003 0000 000000000000";

fn group_mods() -> Golden {
    let failover = GroupMod {
        command: GroupCommand::Add,
        group_type: GroupType::FastFailover,
        group_id: 7,
        buckets: vec![
            Bucket { watch_port: 2, ..Bucket::new(vec![Action::output(2)]) },
            Bucket {
                watch_port: 3,
                watch_group: 9,
                ..Bucket::new(vec![Action::SetQueue(1), Action::PushVlan(eth_type::VLAN), Action::output(3)])
            },
        ],
    };
    let select = GroupMod {
        command: GroupCommand::Modify,
        group_type: GroupType::Select,
        group_id: 10,
        buckets: vec![Bucket { weight: 5, ..Bucket::new(vec![]) }],
    };
    let delete = GroupMod {
        command: GroupCommand::Delete,
        group_type: GroupType::All,
        group_id: group::ALL,
        buckets: vec![],
    };
    let texts = [
        "040f006000000011 0000 03 00 00000007
         0020 0000 00000002 ffffffff 00000000 0000 0010 00000002 0000 000000000000
         0030 0000 00000003 00000009 00000000 0015 0008 00000001 0011 0008 8100 0000 0000 0010 00000003 0000 000000000000",
        "040f002000000011 0001 01 00 0000000a 0010 0005 ffffffff ffffffff 00000000",
        "040f001000000011 0002 00 00 fffffffc",
    ];
    let messages = [Message::GroupMod(failover), Message::GroupMod(select), Message::GroupMod(delete)];
    texts.map(str::to_owned).into_iter().zip(messages).collect()
}

fn groups() -> Golden {
    let counter = |packets| BucketCounter { packets, bytes: 60 * packets };
    let stats = GroupStats {
        group_id: 7,
        ref_count: 3,
        packets: 5,
        bytes: 300,
        lasted: Lasted { seconds: 8, nanoseconds: 9 },
        buckets: vec![counter(4), counter(1)],
    };
    let desc = GroupDesc {
        group_type: GroupType::Indirect,
        group_id: 7,
        buckets: vec![Bucket::new(vec![Action::output(3)])],
    };
    let features = GroupFeatures {
        types: 0x0f,
        capabilities: group::capabilities::SELECT_WEIGHT | group::capabilities::CHAINING,
        groups_max: [64, 65, 66, 67],
        actions: [0x03c0_1801, 0x03c0_1801, 1, 2],
    };
    let texts = [
        "0412001800000011 0006 0000 00000000 fffffffc 00000000".to_owned(),
        "0413005800000011 0006 0000 00000000 0048 0000 00000007 00000003 00000000 0000000000000005 000000000000012c
         00000008 00000009 0000000000000004 00000000000000f0 0000000000000001 000000000000003c"
            .to_owned(),
        "0412001000000011 0007 0000 00000000".to_owned(),
        format!("0413003800000011 0007 0001 00000000 0028 02 00 00000007 {BUCKET}"),
        "0412001000000011 0008 0000 00000000".to_owned(),
        "0413003800000011 0008 0000 00000000 0000000f 00000005 00000040 00000041 00000042 00000043
         03c01801 03c01801 00000001 00000002"
            .to_owned(),
    ];
    let messages = [
        request(RequestBody::Group(group::ALL)),
        reply(false, ReplyBody::Group(vec![stats])),
        request(RequestBody::GroupDesc),
        reply(true, ReplyBody::GroupDesc(vec![desc])),
        request(RequestBody::GroupFeatures),
        reply(false, ReplyBody::GroupFeatures(features)),
    ];
    texts.into_iter().zip(messages).collect()
}

fn meters() -> Golden {
    let band = |rate, burst_size, action| Band { rate, burst_size, action };
    let add = MeterMod {
        command: MeterCommand::Add,
        flags: meter::flags::KBPS | meter::flags::BURST | meter::flags::STATS,
        meter_id: 5,
        bands: vec![
            band(1000, 10, BandAction::Drop),
            band(2000, 20, BandAction::DscpRemark { prec_level: 1 }),
        ],
    };
    let foreign = MeterMod {
        command: MeterCommand::Modify,
        flags: meter::flags::PKTPS,
        meter_id: 1,
        bands: vec![
            band(1, 2, BandAction::Experimenter { experimenter: 999, data: vec![0xaa, 0xbb, 0xcc, 0xdd] }),
            band(1, 2, BandAction::Other { band_type: 7, body: vec![0x11, 0x22, 0x33, 0x44] }),
        ],
    };
    let delete = MeterMod { command: MeterCommand::Delete, flags: 0, meter_id: meter::ALL, bands: vec![] };
    let stats = MeterStats {
        meter_id: 5,
        flow_count: 2,
        packets_in: 10,
        bytes_in: 600,
        lasted: Lasted { seconds: 8, nanoseconds: 9 },
        bands: vec![BandStats { packets: 3, bytes: 180 }],
    };
    let config = MeterConfig { flags: add.flags, meter_id: 5, bands: vec![band(1000, 0, BandAction::Drop)] };
    let features =
        MeterFeatures { meters_max: 1024, band_types: 6, capabilities: 0x0f, bands_max: 8, colors_max: 2 };
    vec![
        (
            "041d003000000011 0000 000d 00000005 0001 0010 000003e8 0000000a 00000000
             0002 0010 000007d0 00000014 01 000000"
                .to_owned(),
            Message::MeterMod(add),
        ),
        (
            "041d003400000011 0001 0002 00000001 ffff 0014 00000001 00000002 000003e7 aabbccdd
             0007 0010 00000001 00000002 11223344"
                .to_owned(),
            Message::MeterMod(foreign),
        ),
        ("041d001000000011 0002 0000 ffffffff".to_owned(), Message::MeterMod(delete)),
        (
            "0412001800000011 0009 0000 00000000 ffffffff 00000000".to_owned(),
            request(RequestBody::Meter(meter::ALL)),
        ),
        (
            "0413004800000011 0009 0000 00000000 00000005 0038 000000000000 00000002 000000000000000a 0000000000000258
             00000008 00000009 0000000000000003 00000000000000b4"
                .to_owned(),
            reply(false, ReplyBody::Meter(vec![stats])),
        ),
        (
            "0412001800000011 000a 0000 00000000 00000005 00000000".to_owned(),
            request(RequestBody::MeterConfig(5)),
        ),
        (
            "0413002800000011 000a 0000 00000000 0018 000d 00000005 0001 0010 000003e8 00000000 00000000".to_owned(),
            reply(false, ReplyBody::MeterConfig(vec![config])),
        ),
        ("0412001000000011 000b 0000 00000000".to_owned(), request(RequestBody::MeterFeatures)),
        (
            "0413002000000011 000b 0000 00000000 00000400 00000006 0000000f 08 02 0000".to_owned(),
            reply(false, ReplyBody::MeterFeatures(features)),
        ),
    ]
}

fn queues() -> Golden {
    let config = QueueConfig {
        port: 2,
        queues: vec![
            PacketQueue {
                queue_id: 1,
                port: 2,
                properties: vec![QueueProperty::MinRate(100), QueueProperty::MaxRate(1000)],
            },
            PacketQueue {
                queue_id: 2,
                port: 2,
                properties: vec![
                    QueueProperty::Experimenter { experimenter: 999, data: vec![0xaa, 0xbb, 0xcc, 0xdd] },
                    QueueProperty::Other { property: 9, body: vec![1, 2, 3, 4, 5, 6, 7, 8] },
                ],
            },
        ],
    };
    let stats = QueueStats {
        port: 2,
        queue_id: 1,
        tx_bytes: 2000,
        tx_packets: 10,
        tx_errors: 1,
        lasted: Lasted { seconds: 5, nanoseconds: 6 },
    };
    vec![
        ("0416001000000011 00000002 00000000".to_owned(), Message::QueueGetConfigRequest(2)),
        (
            "0417007400000011 00000002 00000000
             00000001 00000002 0030 000000000000
             0001 0010 00000000 0064 000000000000 0002 0010 00000000 03e8 000000000000
             00000002 00000002 0034 000000000000
             ffff 0014 00000000 000003e7 00000000 aabbccdd 0009 0010 00000000 0102030405060708"
                .to_owned(),
            Message::QueueGetConfigReply(config),
        ),
        (
            "0412001800000011 0005 0000 00000000 ffffffff ffffffff".to_owned(),
            request(RequestBody::Queue(QueueStatsRequest { port: port::ANY, queue_id: queue::ALL })),
        ),
        (
            "0413003800000011 0005 0000 00000000 00000002 00000001 00000000000007d0 000000000000000a 0000000000000001
             00000005 00000006"
                .to_owned(),
            reply(false, ReplyBody::Queue(vec![stats])),
        ),
    ]
}

/// Every property with its bytes, padding included.
pub(super) fn properties() -> Vec<(&'static str, TableProperty)> {
    [properties_of_types(), properties_of_fields()].concat()
}

fn properties_of_types() -> Vec<(&'static str, TableProperty)> {
    let of = |number: InstructionType| TypeId::Standard(number as u16);
    let action = |number: ActionType| TypeId::Standard(number as u16);
    let foreign = || TypeId::Experimenter { experimenter: 0x2320, data: vec![] };
    vec![
        (
            "0000 0018 0001 0004 0004 0004 0006 0004 ffff 0008 00002320",
            TableProperty::Instructions {
                miss: false,
                ids: vec![
                    of(InstructionType::GotoTable),
                    of(InstructionType::ApplyActions),
                    of(InstructionType::Meter),
                    foreign(),
                ],
            },
        ),
        (
            "0001 0008 0005 0004",
            TableProperty::Instructions { miss: true, ids: vec![of(InstructionType::ClearActions)] },
        ),
        ("0002 0007 020304 00", TableProperty::NextTables { miss: false, tables: vec![2, 3, 4] }),
        ("0003 0004 00000000", TableProperty::NextTables { miss: true, tables: vec![] }),
        (
            "0004 000c 0000 0004 0016 0004 00000000",
            TableProperty::WriteActions {
                miss: false,
                ids: vec![action(ActionType::Output), action(ActionType::Group)],
            },
        ),
        ("0005 0004 00000000", TableProperty::WriteActions { miss: true, ids: vec![] }),
        (
            "0006 0008 0019 0004",
            TableProperty::ApplyActions { miss: false, ids: vec![action(ActionType::SetField)] },
        ),
        (
            "0007 0010 0000 0004 ffff 0008 00002320",
            TableProperty::ApplyActions { miss: true, ids: vec![action(ActionType::Output), foreign()] },
        ),
    ]
}

fn properties_of_fields() -> Vec<(&'static str, TableProperty)> {
    let foreign_field = OxmId {
        class: CLASS_EXPERIMENTER,
        number: 3,
        has_mask: false,
        length: 4,
        experimenter: Some(0x4f4e_4600),
    };
    vec![
        (
            "0008 000c 80000004 8000070c 00000000",
            TableProperty::Match(vec![
                OxmId::of(MatchField::InPort, false),
                OxmId::of(MatchField::EthDst, true),
            ]),
        ),
        ("000a 000c ffff0604 4f4e4600 00000000", TableProperty::Wildcards(vec![foreign_field])),
        (
            "000c 0008 80001001",
            TableProperty::WriteSetField { miss: false, fields: vec![OxmId::of(MatchField::IpDscp, false)] },
        ),
        ("000d 0004 00000000", TableProperty::WriteSetField { miss: true, fields: vec![] }),
        (
            "000e 0008 80000606",
            TableProperty::ApplySetField { miss: false, fields: vec![OxmId::of(MatchField::EthDst, false)] },
        ),
        ("000f 0004 00000000", TableProperty::ApplySetField { miss: true, fields: vec![] }),
        (
            "fffe 0010 00002320 00000001 aabbccdd",
            TableProperty::Experimenter {
                miss: false,
                experimenter: 0x2320,
                exp_type: 1,
                data: vec![0xaa, 0xbb, 0xcc, 0xdd],
            },
        ),
        (
            "ffff 000c 00002320 00000002 00000000",
            TableProperty::Experimenter { miss: true, experimenter: 0x2320, exp_type: 2, data: vec![] },
        ),
        (
            "0010 0008 11223344",
            TableProperty::Other { property_type: 16, body: vec![0x11, 0x22, 0x33, 0x44] },
        ),
    ]
}

fn tables() -> Golden {
    let features = TableFeatures {
        table_id: 1,
        name: Text::new("acl"),
        metadata_match: u64::MAX,
        metadata_write: 0xff,
        config: 3,
        entries_max: 4096,
        properties: properties().into_iter().map(|(_, property)| property).collect(),
    };
    let texts: String = properties().iter().map(|(text, _)| *text).collect();
    let name = format!("{:0<64}", "61636c");
    let body =
        format!("0108 01 0000000000 {name} ffffffffffffffff 00000000000000ff 00000003 00001000 {texts}");
    vec![
        ("0412001000000011 000c 0000 00000000".to_owned(), request(RequestBody::TableFeatures(vec![]))),
        (
            format!("0412011800000011 000c 0000 00000000 {body}"),
            request(RequestBody::TableFeatures(vec![features.clone()])),
        ),
        (
            format!("0413011800000011 000c 0000 00000000 {body}"),
            reply(false, ReplyBody::TableFeatures(vec![features])),
        ),
        (
            "0411001000000011 ff 000000 00000003".to_owned(),
            Message::TableMod(TableMod { table_id: TABLE_ALL, config: 3 }),
        ),
    ]
}

fn configuration() -> Golden {
    let port = PortMod {
        port: 2,
        hw_addr: [2, 0, 0, 0, 0, 2],
        config: port::config::PORT_DOWN | port::config::NO_FWD,
        mask: 0x65,
        advertise: 0x2820,
    };
    let unasked = AsyncConfig { packet_in: [3, 0], port_status: [7, 7], flow_removed: [15, 0] };
    assert_eq!(unasked, AsyncConfig::default());
    let words = "00000003 00000000 00000007 00000007 0000000f 00000000";
    let experimenter =
        Experimenter { experimenter: 0x2320, exp_type: 10, data: vec![0xaa, 0xbb, 0xcc, 0xdd] };
    let unknown = || vec![0xaa, 0xbb, 0xcc, 0xdd];
    vec![
        (
            "0410002800000011 00000002 00000000 020000000002 0000 00000021 00000065 00002820 00000000"
                .to_owned(),
            Message::PortMod(port),
        ),
        ("041a000800000011".to_owned(), Message::GetAsyncRequest),
        (format!("041b002000000011 {words}"), Message::GetAsyncReply(unasked)),
        (format!("041c002000000011 {words}"), Message::SetAsync(unasked)),
        (
            "0404001400000011 00002320 0000000a aabbccdd".to_owned(),
            Message::Experimenter(experimenter.clone()),
        ),
        (
            "0412001c00000011 ffff 0000 00000000 00002320 0000000a aabbccdd".to_owned(),
            request(RequestBody::Experimenter(experimenter.clone())),
        ),
        (
            "0413001c00000011 ffff 0001 00000000 00002320 0000000a aabbccdd".to_owned(),
            reply(true, ReplyBody::Experimenter(experimenter)),
        ),
        (
            "0412001400000011 000e 0000 00000000 aabbccdd".to_owned(),
            request(RequestBody::Other { multipart_type: 14, body: unknown() }),
        ),
        (
            "0413001400000011 000e 0000 00000000 aabbccdd".to_owned(),
            reply(false, ReplyBody::Other { multipart_type: 14, body: unknown() }),
        ),
    ]
}

pub(super) fn all() -> Golden {
    [group_mods(), groups(), meters(), queues(), tables(), configuration()].concat()
}
