//! Random messages.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::group::{BucketCounter, GroupDesc, GroupFeatures, GroupStats};
use super::super::meter::{BandStats, MeterConfig, MeterFeatures, MeterStats};
use super::super::multipart::{
    Aggregate, FlowStatsRequest, PortCounters, PortStats, ReplyBody, RequestBody, TableStats,
};
use super::super::queue::{QueueStats, QueueStatsRequest};
use super::super::*;
use super::parts::*;

fn flow_messages() -> impl Strategy<Value = Message> {
    let commands =
        [Command::Add, Command::Modify, Command::ModifyStrict, Command::Delete, Command::DeleteStrict];
    let change = (select(commands.to_vec()), any::<[u16; 4]>(), any::<[u32; 5]>(), pattern(), instructions())
        .prop_map(|(command, short, long, pattern, instructions)| FlowMod {
            cookie: long[0].into(),
            cookie_mask: long[1].into(),
            idle_timeout_s: short[0],
            hard_timeout_s: short[1],
            buffer_id: long[2],
            out_port: long[3],
            out_group: long[4],
            flags: short[2],
            pattern,
            instructions,
            ..FlowMod::new(command, 1, short[3])
        });
    let packet_out = (any::<[u32; 2]>(), vec(action(), 0..5), data())
        .prop_map(|(head, actions, data)| PacketOut { buffer_id: head[0], in_port: head[1], actions, data });
    let reasons = [PacketInReason::NoMatch, PacketInReason::Action, PacketInReason::InvalidTtl];
    let packet_in = (any::<u64>(), select(reasons.to_vec()), pattern(), data()).prop_map(
        |(cookie, reason, pattern, data)| PacketIn {
            buffer_id: NO_BUFFER,
            total_len: 99,
            reason,
            table_id: 1,
            cookie,
            pattern,
            data,
        },
    );
    let reasons = [
        RemovedReason::IdleTimeout,
        RemovedReason::HardTimeout,
        RemovedReason::Delete,
        RemovedReason::GroupDelete,
    ];
    let removed = (any::<[u64; 3]>(), any::<[u16; 3]>(), select(reasons.to_vec()), lasted(), pattern())
        .prop_map(|(long, short, reason, lasted, pattern)| FlowRemoved {
            cookie: long[0],
            priority: short[0],
            reason,
            table_id: 2,
            lasted,
            idle_timeout_s: short[1],
            hard_timeout_s: short[2],
            packets: long[1],
            bytes: long[2],
            pattern,
        });
    prop_oneof![
        change.prop_map(Message::FlowMod),
        packet_out.prop_map(Message::PacketOut),
        packet_in.prop_map(Message::PacketIn),
        removed.prop_map(Message::FlowRemoved),
    ]
}

fn port() -> impl Strategy<Value = Port> {
    (any::<[u32; 9]>(), any::<[u8; 6]>(), "[ -~]{0,20}").prop_map(|(words, hw_addr, name)| Port {
        number: words[0],
        hw_addr,
        name: Text::new(&name),
        config: words[1],
        state: words[2],
        current: words[3],
        advertised: words[4],
        supported: words[5],
        peer: words[6],
        current_speed: words[7],
        max_speed: words[8],
    })
}

fn experimenter() -> impl Strategy<Value = Experimenter> {
    (any::<[u32; 2]>(), data()).prop_map(|([experimenter, exp_type], data)| Experimenter {
        experimenter,
        exp_type,
        data,
    })
}

fn queue_config() -> impl Strategy<Value = QueueConfig> {
    let property = prop_oneof![
        any::<u16>().prop_map(QueueProperty::MinRate),
        any::<u16>().prop_map(QueueProperty::MaxRate),
        (any::<u32>(), data())
            .prop_map(|(experimenter, data)| QueueProperty::Experimenter { experimenter, data }),
        (3u16..0xffff, data()).prop_map(|(property, body)| QueueProperty::Other { property, body }),
    ];
    let queue = (any::<[u32; 2]>(), vec(property, 0..4))
        .prop_map(|([queue_id, port], properties)| PacketQueue { queue_id, port, properties });
    (any::<u32>(), vec(queue, 0..4)).prop_map(|(port, queues)| QueueConfig { port, queues })
}

fn switch_messages() -> impl Strategy<Value = Message> {
    let commands = [GroupCommand::Add, GroupCommand::Modify, GroupCommand::Delete];
    let group = (select(commands.to_vec()), select(GroupType::ALL), any::<u32>(), buckets()).prop_map(
        |(command, group_type, group_id, buckets)| GroupMod { command, group_type, group_id, buckets },
    );
    let commands = [MeterCommand::Add, MeterCommand::Modify, MeterCommand::Delete];
    let meter = (select(commands.to_vec()), any::<u16>(), any::<u32>(), bands())
        .prop_map(|(command, flags, meter_id, bands)| MeterMod { command, flags, meter_id, bands });
    let port_mod = (any::<[u32; 4]>(), any::<[u8; 6]>()).prop_map(|(words, hw_addr)| PortMod {
        port: words[0],
        hw_addr,
        config: words[1],
        mask: words[2],
        advertise: words[3],
    });
    let unasked = || {
        any::<[[u32; 2]; 3]>().prop_map(|[packet_in, port_status, flow_removed]| AsyncConfig {
            packet_in,
            port_status,
            flow_removed,
        })
    };
    let role = || {
        let roles =
            [ControllerRole::NoChange, ControllerRole::Equal, ControllerRole::Master, ControllerRole::Slave];
        (select(roles.to_vec()), any::<u64>()).prop_map(|(role, generation_id)| Role { role, generation_id })
    };
    let reasons = [PortReason::Add, PortReason::Delete, PortReason::Modify];
    let status = (select(reasons.to_vec()), port()).prop_map(|(reason, port)| PortStatus { reason, port });
    prop_oneof![
        group.prop_map(Message::GroupMod),
        meter.prop_map(Message::MeterMod),
        port_mod.prop_map(Message::PortMod),
        (any::<u8>(), any::<u32>())
            .prop_map(|(table_id, config)| Message::TableMod(TableMod { table_id, config })),
        unasked().prop_map(Message::SetAsync),
        unasked().prop_map(Message::GetAsyncReply),
        Just(Message::GetAsyncRequest),
        any::<u32>().prop_map(Message::QueueGetConfigRequest),
        queue_config().prop_map(Message::QueueGetConfigReply),
        experimenter().prop_map(Message::Experimenter),
        role().prop_map(Message::RoleRequest),
        role().prop_map(Message::RoleReply),
        status.prop_map(Message::PortStatus),
    ]
}

fn request_body() -> impl Strategy<Value = RequestBody> {
    let flows = || {
        (any::<[u32; 2]>(), any::<[u64; 2]>(), pattern()).prop_map(
            |([out_port, out_group], [cookie, cookie_mask], pattern)| FlowStatsRequest {
                out_port,
                out_group,
                cookie,
                cookie_mask,
                pattern,
                ..FlowStatsRequest::all()
            },
        )
    };
    let plain = [
        RequestBody::Desc,
        RequestBody::Table,
        RequestBody::GroupDesc,
        RequestBody::GroupFeatures,
        RequestBody::MeterFeatures,
        RequestBody::PortDesc,
    ];
    prop_oneof![
        select(plain.to_vec()),
        flows().prop_map(RequestBody::Flow),
        flows().prop_map(RequestBody::Aggregate),
        any::<u32>().prop_map(RequestBody::PortStats),
        any::<[u32; 2]>()
            .prop_map(|[port, queue_id]| RequestBody::Queue(QueueStatsRequest { port, queue_id })),
        any::<u32>().prop_map(RequestBody::Group),
        any::<u32>().prop_map(RequestBody::Meter),
        any::<u32>().prop_map(RequestBody::MeterConfig),
        vec(table_features(), 0..3).prop_map(RequestBody::TableFeatures),
        experimenter().prop_map(RequestBody::Experimenter),
        (14u16..0xffff, data())
            .prop_map(|(multipart_type, body)| RequestBody::Other { multipart_type, body }),
    ]
}

fn group_and_meter_replies() -> impl Strategy<Value = ReplyBody> {
    let groups = (any::<[u32; 2]>(), any::<[u64; 2]>(), lasted(), vec(any::<[u64; 2]>(), 0..4)).prop_map(
        |([group_id, ref_count], [packets, bytes], lasted, buckets)| GroupStats {
            group_id,
            ref_count,
            packets,
            bytes,
            lasted,
            buckets: buckets.into_iter().map(|[packets, bytes]| BucketCounter { packets, bytes }).collect(),
        },
    );
    let descs = (select(GroupType::ALL), any::<u32>(), buckets())
        .prop_map(|(group_type, group_id, buckets)| GroupDesc { group_type, group_id, buckets });
    let features = (any::<[u32; 2]>(), any::<[[u32; 4]; 2]>()).prop_map(
        |([types, capabilities], [groups_max, actions])| GroupFeatures {
            types,
            capabilities,
            groups_max,
            actions,
        },
    );
    let meters = (any::<[u32; 2]>(), any::<[u64; 2]>(), lasted(), vec(any::<[u64; 2]>(), 0..4)).prop_map(
        |([meter_id, flow_count], [packets_in, bytes_in], lasted, bands)| MeterStats {
            meter_id,
            flow_count,
            packets_in,
            bytes_in,
            lasted,
            bands: bands.into_iter().map(|[packets, bytes]| BandStats { packets, bytes }).collect(),
        },
    );
    let configs = (any::<u16>(), any::<u32>(), bands()).prop_map(|(flags, meter_id, bands)| MeterConfig {
        flags,
        meter_id,
        bands,
    });
    let meter_features =
        (any::<[u32; 3]>(), any::<[u8; 2]>()).prop_map(|(words, [bands_max, colors_max])| MeterFeatures {
            meters_max: words[0],
            band_types: words[1],
            capabilities: words[2],
            bands_max,
            colors_max,
        });
    prop_oneof![
        vec(groups, 0..4).prop_map(ReplyBody::Group),
        vec(descs, 0..4).prop_map(ReplyBody::GroupDesc),
        features.prop_map(ReplyBody::GroupFeatures),
        vec(meters, 0..4).prop_map(ReplyBody::Meter),
        vec(configs, 0..4).prop_map(ReplyBody::MeterConfig),
        meter_features.prop_map(ReplyBody::MeterFeatures),
    ]
}

fn reply_body() -> impl Strategy<Value = ReplyBody> {
    let ports = (any::<[u64; 3]>(), any::<u32>(), lasted()).prop_map(|(counted, port, lasted)| PortStats {
        port,
        counters: PortCounters {
            rx_packets: counted[0],
            tx_errors: counted[1],
            collisions: counted[2],
            ..PortCounters::default()
        },
        lasted,
    });
    let queues = (any::<[u32; 2]>(), any::<[u64; 3]>(), lasted()).prop_map(
        |([port, queue_id], [tx_bytes, tx_packets, tx_errors], lasted)| QueueStats {
            port,
            queue_id,
            tx_bytes,
            tx_packets,
            tx_errors,
            lasted,
        },
    );
    let tables = (any::<u8>(), any::<u32>(), any::<[u64; 2]>())
        .prop_map(|(table_id, active, [lookups, matched])| TableStats { table_id, active, lookups, matched });
    let sum = (any::<[u64; 2]>(), any::<u32>()).prop_map(|([packets, bytes], flows)| Aggregate {
        packets,
        bytes,
        flows,
    });
    prop_oneof![
        vec(flow_stats(), 0..4).prop_map(ReplyBody::Flow),
        sum.prop_map(ReplyBody::Aggregate),
        vec(tables, 0..4).prop_map(ReplyBody::Table),
        vec(ports, 0..4).prop_map(ReplyBody::PortStats),
        vec(queues, 0..4).prop_map(ReplyBody::Queue),
        group_and_meter_replies(),
        vec(table_features(), 0..3).prop_map(ReplyBody::TableFeatures),
        vec(port(), 0..4).prop_map(ReplyBody::PortDesc),
        experimenter().prop_map(ReplyBody::Experimenter),
        (14u16..0xffff, data()).prop_map(|(multipart_type, body)| ReplyBody::Other { multipart_type, body }),
    ]
}

pub(super) fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        flow_messages(),
        switch_messages(),
        (any::<bool>(), request_body())
            .prop_map(|(more, body)| Message::MultipartRequest(MultipartRequest { more, body })),
        (any::<bool>(), reply_body())
            .prop_map(|(more, body)| Message::MultipartReply(MultipartReply { more, body })),
    ]
}
