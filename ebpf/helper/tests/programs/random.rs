//! Random tables and random frames, in the kernel and in a plain pipeline: the same fate, and the same bytes. Needs root.

use caregate_ebpf_common::switch::place;
use caregate_protocol::datapath::switch::{FlowAction, FlowInstructions};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::switch_rig::reference::{Rule, run};
use crate::switch_rig::{ALL, Fate, Field, Rig, flow, frames, output, prerequisites};

/// Values that frames have, and that actions set, so that rules are met.
const VALUES: [u128; 24] = [
    1,
    0x0251_5253_5455,
    0x02d1_d2d3_d4d5,
    0x102a,
    0x1003,
    5,
    40,
    10,
    0x0a01_0203,
    0x0a04_0506,
    0x1ce8,
    0x1151,
    8,
    3,
    2,
    0x3637_3839,
    0x1011_1213_1415_1617_1819_1a1b_1c1d_1e1f,
    0x12345,
    135,
    64,
    7,
    0x4041_4243_4445_4647_4849_4a4b_4c4d_4e4f,
    0,
    u128::MAX,
];

fn field_number() -> impl Strategy<Value = u8> {
    prop_oneof![Just(0), Just(2), 3u8..=36, Just(38), Just(39)]
}

fn field() -> impl Strategy<Value = Vec<Field>> {
    let mask = prop_oneof![3 => Just(ALL), 1 => any::<u128>()];
    (field_number(), proptest::sample::select(&VALUES[..]), mask, any::<bool>()).prop_map(
        |(oxm, value, mask, second)| {
            let all = prerequisites(oxm);
            let mut fields = all[usize::from(second) % all.len()].clone();
            let bits = place(oxm).unwrap().bits;
            let width = if bits == 128 { u128::MAX } else { (1 << bits) - 1 };
            if !fields.iter().any(|(other, ..)| *other == oxm) {
                fields.push((oxm, value & mask & width, mask & width));
            }
            fields
        },
    )
}

/// Two fields' prerequisites must agree, or they are asked for one field alone.
fn fields() -> impl Strategy<Value = Vec<Field>> {
    proptest::collection::vec(field(), 0..3).prop_map(|parts| {
        let mut fields: Vec<Field> = vec![];
        for part in parts {
            let agrees = part
                .iter()
                .all(|new| fields.iter().all(|old| old.0 != new.0 || old.1 == new.1 && old.2 == new.2));
            if agrees {
                for new in part {
                    if !fields.contains(&new) {
                        fields.push(new);
                    }
                }
            }
        }
        fields
    })
}

/// What can be set without making another kind of packet: that is tested one by one.
const SETTABLE: [u8; 30] = [
    3, 4, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 18, 20, 21, 22, 23, 24, 25, 26, 27, 28, 30, 31, 32, 33, 34,
    35, 38,
];

fn edit() -> impl Strategy<Value = FlowAction> {
    let set = (proptest::sample::select(&SETTABLE[..]), proptest::sample::select(&VALUES[..]))
        .prop_map(|(field, value)| FlowAction::SetField { field, value });
    prop_oneof![
        6 => set,
        1 => prop_oneof![Just(0x8100), Just(0x88a8)].prop_map(FlowAction::PushVlan),
        1 => Just(FlowAction::PopVlan),
        1 => prop_oneof![Just(0x8847), Just(0x8848)].prop_map(FlowAction::PushMpls),
        1 => prop_oneof![Just(0x0800), Just(0x86dd), Just(0x8847)].prop_map(FlowAction::PopMpls),
        1 => Just(FlowAction::CopyTtlOut),
        1 => Just(FlowAction::CopyTtlIn),
        1 => any::<u8>().prop_map(FlowAction::SetMplsTtl),
        1 => Just(FlowAction::DecMplsTtl),
        1 => any::<u8>().prop_map(FlowAction::SetNwTtl),
        1 => Just(FlowAction::DecNwTtl),
        1 => prop_oneof![Just(0), Just(3)].prop_map(FlowAction::SetQueue),
    ]
}

fn way_out() -> impl Strategy<Value = FlowAction> {
    let port = prop_oneof![
        8 => Just(2u32),
        2 => Just(3),
        1 => Just(1),
        2 => Just(0xffff_fff8),
        1 => Just(0xffff_fffe),
        1 => Just(0xffff_fffa),
        1 => Just(0xffff_fffd),
        1 => Just(0xffff_fffb),
    ];
    port.prop_map(output)
}

fn instructions(table: u8) -> impl Strategy<Value = FlowInstructions> {
    let lists = (proptest::collection::vec(edit(), 0..4), proptest::collection::vec(edit(), 0..3));
    let ways = (proptest::option::weighted(0.5, way_out()), proptest::option::weighted(0.4, way_out()));
    let others = (proptest::bool::weighted(0.1), proptest::option::of((any::<u64>(), Just(0xff00))));
    (lists, ways, others, proptest::bool::weighted(0.5)).prop_map(
        move |((mut apply, mut write), (sent, written), (clear, metadata), goes_on)| {
            apply.extend(sent);
            write.extend(written);
            let goto = (goes_on && table < 3).then_some(table + 1);
            let metadata = metadata.map(|(value, mask)| (value & mask, mask));
            FlowInstructions { meter: None, apply, clear, write, metadata, goto }
        },
    )
}

fn tables() -> impl Strategy<Value = Vec<Rule>> {
    let rule = (0u8..4).prop_flat_map(|table| {
        (fields(), instructions(table)).prop_map(move |(fields, instructions)| Rule {
            table,
            priority: 0,
            fields,
            instructions,
        })
    });
    proptest::collection::vec(rule, 1..24).prop_map(|mut rules| {
        for (priority, rule) in (1..).zip(&mut rules) {
            rule.priority = priority;
        }
        rules
    })
}

#[test]
fn the_kernel_does_what_a_plain_pipeline_does() {
    let mut rig = Rig::new();
    let all = frames::all();
    let rig = std::cell::RefCell::new((&mut rig, [0u32; 6]));
    let mut runner = TestRunner::new(Config { cases: 3000, failure_persistence: None, ..Config::default() });
    runner
        .run(&tables(), |rules| {
            let (rig, fates) = &mut *rig.borrow_mut();
            let flows = (1..).zip(&rules).map(|(id, rule)| {
                flow(id, rule.table, rule.priority, &rule.fields, rule.instructions.clone())
            });
            rig.flows(flows.collect());
            for frame in &all {
                let wanted = run(&rules, frame);
                // The second time it comes from the flow cache, the third time from that of microflows, if it has one.
                for _ in 0..3 {
                    prop_assert_eq!(rig.send(frame), wanted.clone(), "{:x?}", frame);
                }
                fates[match wanted {
                    Fate::Dropped => 0,
                    Fate::Passed(_) => 1,
                    Fate::Returned(_) => 2,
                    Fate::Sent(_) => 3,
                    Fate::Punted(None) => 4,
                    Fate::Punted(Some(_)) => 5,
                }] += 1;
            }
            Ok(())
        })
        .unwrap();
    let fates = rig.borrow().1;
    assert!(fates.iter().all(|frames| *frames > 200), "each fate is met: {fates:?}");
}
