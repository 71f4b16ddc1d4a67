//! Random parts of messages.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::multipart::FlowStats;
use super::super::*;

pub(super) fn oxm() -> impl Strategy<Value = Oxm> {
    let field = select(MatchField::ALL);
    (field, vec(any::<u8>(), 32), any::<bool>()).prop_map(|(field, random, masked)| {
        let (value, mask) = random.split_at(16);
        let bytes = field.bytes();
        Oxm::new(field, &value[..bytes], masked.then(|| &mask[..bytes])).unwrap()
    })
}

pub(super) fn pattern() -> impl Strategy<Value = Match> {
    vec(oxm(), 0..8).prop_map(|fields| Match { fields })
}

pub(super) fn data() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..100)
}

/// The body of a TLV whose length must be a multiple of 8.
pub(super) fn words() -> impl Strategy<Value = Vec<u8>> {
    (0usize..4).prop_map(|words| vec![7; 8 * words])
}

/// The body of a TLV of which nobody knows anything.
pub(super) fn unknown() -> impl Strategy<Value = (u16, Vec<u8>)> {
    (30u16..0xfffe, 0usize..4).prop_map(|(kind, words)| (kind, vec![7; 4 + 8 * words]))
}

pub(super) fn action() -> impl Strategy<Value = Action> {
    let set_field = select(MatchField::ALL)
        .prop_map(|field| Action::SetField(Oxm::new(field, &[3; 16][..field.bytes()], None).unwrap()));
    let plain = [
        Action::CopyTtlOut,
        Action::CopyTtlIn,
        Action::DecMplsTtl,
        Action::PopVlan,
        Action::DecNwTtl,
        Action::PopPbb,
    ];
    prop_oneof![
        (any::<u32>(), any::<u16>()).prop_map(|(port, max_len)| Action::Output { port, max_len }),
        select(plain.to_vec()),
        any::<u8>().prop_map(Action::SetMplsTtl),
        any::<u16>().prop_map(Action::PushVlan),
        any::<u16>().prop_map(Action::PushMpls),
        any::<u16>().prop_map(Action::PopMpls),
        any::<u32>().prop_map(Action::SetQueue),
        any::<u32>().prop_map(Action::Group),
        any::<u8>().prop_map(Action::SetNwTtl),
        set_field,
        any::<u16>().prop_map(Action::PushPbb),
        (any::<u32>(), words()).prop_map(|(experimenter, data)| Action::Experimenter { experimenter, data }),
        unknown().prop_map(|(action_type, body)| Action::Other { action_type, body }),
    ]
}

pub(super) fn instructions() -> impl Strategy<Value = Vec<Instruction>> {
    let actions = || vec(action(), 0..5);
    let instruction = prop_oneof![
        any::<u8>().prop_map(Instruction::GotoTable),
        (any::<u64>(), any::<u64>())
            .prop_map(|(metadata, mask)| Instruction::WriteMetadata { metadata, mask }),
        actions().prop_map(Instruction::WriteActions),
        actions().prop_map(Instruction::ApplyActions),
        Just(Instruction::ClearActions),
        any::<u32>().prop_map(Instruction::Meter),
        (any::<u32>(), words())
            .prop_map(|(experimenter, data)| Instruction::Experimenter { experimenter, data }),
        unknown().prop_map(|(instruction_type, body)| Instruction::Other { instruction_type, body }),
    ];
    vec(instruction, 0..5)
}

pub(super) fn lasted() -> impl Strategy<Value = Lasted> {
    any::<[u32; 2]>().prop_map(|[seconds, nanoseconds]| Lasted { seconds, nanoseconds })
}

pub(super) fn flow_stats() -> impl Strategy<Value = FlowStats> {
    (any::<[u16; 4]>(), any::<[u64; 3]>(), lasted(), pattern(), instructions()).prop_map(
        |(short, long, lasted, pattern, instructions)| FlowStats {
            table_id: 1,
            lasted,
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

pub(super) fn buckets() -> impl Strategy<Value = Vec<Bucket>> {
    let bucket = (any::<u16>(), any::<[u32; 2]>(), vec(action(), 0..4)).prop_map(
        |(weight, [watch_port, watch_group], actions)| Bucket { weight, watch_port, watch_group, actions },
    );
    vec(bucket, 0..4)
}

pub(super) fn bands() -> impl Strategy<Value = Vec<Band>> {
    let action = prop_oneof![
        Just(BandAction::Drop),
        any::<u8>().prop_map(|prec_level| BandAction::DscpRemark { prec_level }),
        (any::<u32>(), data())
            .prop_map(|(experimenter, data)| BandAction::Experimenter { experimenter, data }),
        (3u16..0xffff, data()).prop_map(|(band_type, body)| BandAction::Other { band_type, body }),
    ];
    let band = (any::<[u32; 2]>(), action).prop_map(|([rate, burst_size], action)| Band {
        rate,
        burst_size,
        action,
    });
    vec(band, 0..4)
}

pub(super) fn type_ids() -> impl Strategy<Value = Vec<TypeId>> {
    let id = prop_oneof![
        (0u16..0xffff).prop_map(TypeId::Standard),
        (any::<u32>(), data()).prop_map(|(experimenter, data)| TypeId::Experimenter { experimenter, data }),
    ];
    vec(id, 0..5)
}

pub(super) fn oxm_ids() -> impl Strategy<Value = Vec<OxmId>> {
    let id = prop_oneof![
        (select(MatchField::ALL), any::<bool>()).prop_map(|(field, has_mask)| OxmId::of(field, has_mask)),
        (any::<u32>(), 0u8..128, any::<u8>()).prop_map(|(experimenter, number, length)| OxmId {
            class: CLASS_EXPERIMENTER,
            number,
            has_mask: true,
            length,
            experimenter: Some(experimenter),
        }),
    ];
    vec(id, 0..5)
}

pub(super) fn table_features() -> impl Strategy<Value = TableFeatures> {
    let property = prop_oneof![
        (any::<bool>(), type_ids()).prop_map(|(miss, ids)| TableProperty::Instructions { miss, ids }),
        (any::<bool>(), data()).prop_map(|(miss, tables)| TableProperty::NextTables { miss, tables }),
        (any::<bool>(), type_ids()).prop_map(|(miss, ids)| TableProperty::WriteActions { miss, ids }),
        (any::<bool>(), type_ids()).prop_map(|(miss, ids)| TableProperty::ApplyActions { miss, ids }),
        oxm_ids().prop_map(TableProperty::Match),
        oxm_ids().prop_map(TableProperty::Wildcards),
        (any::<bool>(), oxm_ids()).prop_map(|(miss, fields)| TableProperty::WriteSetField { miss, fields }),
        (any::<bool>(), oxm_ids()).prop_map(|(miss, fields)| TableProperty::ApplySetField { miss, fields }),
        (any::<bool>(), any::<[u32; 2]>(), data()).prop_map(|(miss, [experimenter, exp_type], data)| {
            TableProperty::Experimenter { miss, experimenter, exp_type, data }
        }),
        (select(vec![9, 11, 16, 999]), data())
            .prop_map(|(property_type, body)| TableProperty::Other { property_type, body }),
    ];
    let name = "[ -~]{0,40}".prop_map(|name| Text::new(&name));
    (any::<u8>(), name, any::<[u64; 2]>(), any::<[u32; 2]>(), vec(property, 0..6)).prop_map(
        |(table_id, name, [metadata_match, metadata_write], [config, entries_max], properties)| {
            TableFeatures { table_id, name, metadata_match, metadata_write, config, entries_max, properties }
        },
    )
}
