//! Every match field, instruction and action of a switch port, frame by frame in the running kernel (`BPF_PROG_TEST_RUN`). Needs root.

use caregate_datapathd::{object, stages};
use caregate_ebpf_common::switch::record::remark_in;
use caregate_ebpf_common::switch::stage::STAGE_PROGRAMS;
use caregate_protocol::datapath::switch::{
    BandKind, Change, FlowAction, FlowInstructions, GroupBucket, GroupEntry, GroupKind, MeterBand, MeterEntry,
};

use crate::switch_rig::frames::*;
use crate::switch_rig::reference::{self, Rule};
use crate::switch_rig::{ALL, Fate, Field, IN_PORT, Rig, apply, flow, output, prerequisites, set};

const LOCAL: u32 = 0xffff_fffe;
const CONTROLLER: u32 = 0xffff_fffd;
const ANY: u32 = u32::MAX;
/// Fields that a frame brings with it.
const FIELDS: [u8; 37] = [
    0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29,
    30, 31, 32, 33, 34, 35, 36, 39, 0,
];

fn sent(frame: &[u8]) -> Fate {
    Fate::Sent(frame.to_vec())
}

/// Of the prerequisites those that the frame has.
fn of_frame(frame: &[u8], oxm: u8) -> Vec<Field> {
    let has = |field: &Field| {
        reference::value(frame, field.0).is_some_and(|value| value & field.2 == field.1 & field.2)
    };
    prerequisites(oxm).into_iter().find(|fields| fields.iter().all(has)).unwrap()
}

#[test]
fn every_field_matches_by_value_and_mask() {
    let mut rig = Rig::new();
    for oxm in FIELDS {
        let mut frames = 0;
        for frame in all() {
            let Some(value) = reference::value(&frame, oxm) else { continue };
            frames += 1;
            let mut ask = |value: u128, mask: u128| {
                let mut fields = of_frame(&frame, oxm);
                fields.retain(|field| field.0 != oxm);
                fields.push((oxm, value, mask));
                rig.flows(vec![flow(1, 0, 1, &fields, apply(&[output(2)]))]);
                rig.send(&frame)
            };
            assert_eq!(ask(value, ALL), sent(&frame), "{oxm} is {value:x}");
            assert_eq!(ask(value ^ 1, ALL), Fate::Dropped, "{oxm} is {value:x}");
            assert_eq!(ask(value ^ 1, ALL ^ 1), sent(&frame), "{oxm} is {value:x} but for its lowest bit");
        }
        assert!(frames > 0, "no frame has field {oxm}");
    }
}

#[test]
fn vlan_is_asked_for_as_the_standard_says() {
    let mut rig = Rig::new();
    let (plain, tagged) = (v4(6, &tcp(b"")), tagged(0x8100, 0x6060, &v4(6, &tcp(b""))));
    // No tag; any tag (§7.2.3.7, table 13); some bits of the number.
    for (value, mask, of_plain, of_tagged) in [
        (0, ALL, true, false),
        (0x1000, 0x1000, false, true),
        (0x60, 0xf0, false, true),
        (0x1060, ALL, false, true),
    ] {
        rig.flows(vec![flow(1, 0, 1, &[(6, value, mask)], apply(&[output(2)]))]);
        assert_eq!(rig.send(&plain) == sent(&plain), of_plain, "{value:x}/{mask:x}");
        assert_eq!(rig.send(&tagged) == sent(&tagged), of_tagged, "{value:x}/{mask:x}");
    }
}

#[test]
fn every_field_is_set_and_checksums_are_right() {
    let mut rig = Rig::new();
    for oxm in (3..=36).chain([38]) {
        let mut changed = 0;
        for frame in all() {
            for bits in [1, u128::MAX] {
                let value = reference::value(&frame, oxm).unwrap_or_default() ^ bits;
                let instructions = apply(&[set(oxm, value), output(2)]);
                rig.flows(vec![flow(1, 0, 1, &[], instructions.clone())]);
                let wanted;
                if matches!(oxm, 5 | 10 | 19 | 29) {
                    // What is behind it would be another thing: these bytes change, and IPv4's checksum.
                    wanted = renamed(&frame, oxm, value);
                } else {
                    let rule = Rule { table: 0, priority: 1, fields: vec![], instructions };
                    match reference::run(&[rule], &frame) {
                        Fate::Sent(bytes) => wanted = bytes,
                        other @ (Fate::Dropped | Fate::Passed(_) | Fate::Returned(_) | Fate::Punted(_)) => {
                            assert_eq!(
                                rig.send(&frame),
                                other,
                                "{oxm}: SCTP's checksum is for the slow path"
                            );
                            changed += 1;
                            continue;
                        }
                    }
                }
                assert_eq!(rig.send(&frame), sent(&wanted), "{oxm} := {value:x} in {frame:x?}");
                changed += u32::from(wanted != frame);
            }
        }
        assert!(changed > 0 || oxm == 38, "no frame has field {oxm}");
    }
}

/// A frame with another EtherType, protocol or ICMP type.
fn renamed(frame: &[u8], oxm: u8, value: u128) -> Vec<u8> {
    let mut wanted = frame.to_vec();
    if reference::value(frame, oxm).is_none() {
        return wanted;
    }
    let rule =
        Rule { table: 0, priority: 1, fields: vec![], instructions: apply(&[set(oxm, value), output(2)]) };
    if let Fate::Sent(bytes) = reference::run(&[rule], frame) {
        wanted = bytes;
    }
    if oxm == 10 {
        // The transport's bytes stay as they were, but for what the pseudo header adds to the checksum of what it was.
        let start = reference::payload_at(frame).unwrap();
        wanted[start..].copy_from_slice(&frame[start..]);
        let old = u8::try_from(reference::value(frame, 10).unwrap()).unwrap();
        let new = u8::try_from(value & 0xff).unwrap();
        if let Some((place, true)) = checksum_place(old) {
            let at = start + place;
            let sum = u16::from_be_bytes([wanted[at], wanted[at + 1]]);
            let sum = internet_checksum(&[&(!sum).to_be_bytes(), &[0xff, !old, 0, new]]);
            wanted[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
    }
    wanted
}

#[test]
fn tables_metadata_and_the_action_set() {
    let mut rig = Rig::new();
    let frame = v4(6, &tcp(b"reading"));
    let first = FlowInstructions {
        write: vec![output(3), FlowAction::PushVlan(0x8100), set(6, 0x1007), output(LOCAL)],
        metadata: Some((0xab00, 0xff00)),
        goto: Some(4),
        ..FlowInstructions::default()
    };
    let second = FlowInstructions { write: vec![set(14, 1)], goto: Some(7), ..FlowInstructions::default() };
    let cleared = FlowInstructions { clear: true, goto: Some(7), ..FlowInstructions::default() };
    let end = FlowInstructions::default();
    rig.flows(vec![
        flow(1, 0, 1, &[], first.clone()),
        flow(2, 4, 9, &[(2, 0xab00, 0xff00)], second),
        flow(3, 4, 1, &[], cleared.clone()),
        flow(4, 7, 1, &[], end.clone()),
    ]);
    let mut wanted = v4(6, &{
        let mut segment = tcp(b"reading");
        segment[2..4].copy_from_slice(&[0, 1]);
        segment
    });
    wanted = tagged(0x8100, 7, &wanted);
    assert_eq!(rig.send(&frame), Fate::Passed(wanted), "in the set's order, the last output of two");
    let bytes = u64::try_from(frame.len()).unwrap();
    assert_eq!([1, 2, 3, 4].map(|id| rig.counted(id)), [[1, bytes], [1, bytes], [0, 0], [1, bytes]]);
    assert_eq!([0, 1, 4, 7].map(|number| rig.table(number)), [[1, 1], [0, 0], [1, 1], [1, 1]]);
    rig.flows(vec![flow(1, 0, 1, &[], first.clone()), flow(3, 4, 1, &[], cleared), flow(4, 7, 1, &[], end)]);
    assert_eq!(rig.send(&frame), Fate::Dropped, "cleared");
    rig.flows(vec![flow(1, 0, 1, &[], first)]);
    assert_eq!(rig.send(&frame), Fate::Dropped, "a table without a rule drops");
    assert_eq!(rig.table(4)[0] - rig.table(4)[1], 1);
}

#[test]
fn a_tunnel_is_set_and_matched_and_is_no_part_of_the_frame() {
    let mut rig = Rig::new();
    let frame = arp();
    let first =
        FlowInstructions { apply: vec![set(38, 0x1234)], goto: Some(1), ..FlowInstructions::default() };
    rig.flows(vec![
        flow(1, 0, 1, &[(38, 0, ALL)], first),
        flow(2, 1, 1, &[(38, 0x1200, 0xff00)], apply(&[output(2)])),
    ]);
    assert_eq!(rig.send(&frame), sent(&frame));
}

#[test]
fn what_is_popped_is_parsed_again() {
    let mut rig = Rig::new();
    let inner = ipv4(6, &tcp(b"labelled"));
    let frame = ethernet(&[0x88, 0x47], &labelled(0x1234_5b40, &inner));
    let pop = FlowInstructions {
        apply: vec![FlowAction::PopMpls(0x0800)],
        goto: Some(1),
        ..FlowInstructions::default()
    };
    let ports = [(5, 0x0800, ALL), (10, 6, ALL), (13, 0x1ce8, ALL)];
    rig.flows(vec![flow(1, 0, 1, &[(5, 0x8847, ALL)], pop), flow(2, 1, 1, &ports, apply(&[output(2)]))]);
    assert_eq!(rig.send(&frame), sent(&ethernet(&[8, 0], &inner)));
    // And within one list.
    let list =
        [FlowAction::PopMpls(0x0800), FlowAction::SetNwTtl(9), FlowAction::PushVlan(0x88a8), output(2)];
    rig.flows(vec![flow(1, 0, 1, &[], apply(&list))]);
    let Fate::Sent(bytes) = rig.send(&frame) else { panic!("not sent") };
    assert!(reference::is_sealed(&bytes), "{bytes:x?}");
    assert_eq!((&bytes[12..18], bytes[26]), (&[0x88, 0xa8, 0, 0, 8, 0][..], 9));
}

#[test]
fn every_way_out() {
    let mut rig = Rig::new();
    let frame = v6(17, &udp(b"reading"));
    for (port, fate) in [
        (2, sent(&frame)),
        (3, sent(&frame)),
        (9, Fate::Dropped),
        (IN_PORT, Fate::Dropped),
        (0xffff_fff8, Fate::Returned(frame.clone())),
        (LOCAL, Fate::Passed(frame.clone())),
        (0xffff_fffa, Fate::Passed(frame.clone())),
        (CONTROLLER, Fate::Punted(None)),
        (0xffff_fffc, Fate::Punted(None)),
        (0xffff_fffb, Fate::Punted(None)),
    ] {
        for written in [false, true] {
            let mut instructions = apply(&[output(port)]);
            if written {
                std::mem::swap(&mut instructions.apply, &mut instructions.write);
            }
            rig.flows(vec![flow(1, 0, 1, &[], instructions)]);
            for _ in 0..2 {
                assert_eq!(rig.send(&frame), fate, "{port:x}");
            }
        }
    }
    let drop = FlowInstructions::default();
    let twice = apply(&[output(2), output(3)]);
    let edited_after = apply(&[output(2), FlowAction::DecNwTtl]);
    let queued = apply(&[FlowAction::SetQueue(1), output(2)]);
    for (instructions, fate) in [
        (drop, Fate::Dropped),
        (twice, Fate::Punted(None)),
        (edited_after, Fate::Punted(None)),
        (queued, Fate::Punted(None)),
    ] {
        rig.flows(vec![flow(1, 0, 1, &[], instructions.clone())]);
        assert_eq!(rig.send(&frame), fate, "{instructions:?}");
    }
    rig.flows(vec![]);
    assert_eq!(rig.send(&frame), Fate::Dropped, "no rule at all");
    rig.come_in_by(5);
    rig.flows(vec![flow(1, 0, 1, &[(0, 5, ALL)], apply(&[output(IN_PORT + 1)]))]);
    assert_eq!(rig.send(&frame), sent(&frame));
}

#[test]
fn a_ttl_at_its_end_is_for_the_slow_path() {
    let mut rig = Rig::new();
    for (ttl, fate) in [(0, Fate::Punted(None)), (1, Fate::Punted(None))] {
        for frame in [v4(6, &tcp(b"")), v6(6, &tcp(b""))] {
            rig.flows(vec![flow(
                1,
                0,
                1,
                &[],
                apply(&[FlowAction::SetNwTtl(ttl), FlowAction::DecNwTtl, output(2)]),
            )]);
            assert_eq!(rig.send(&frame), fate);
        }
        let labels =
            [FlowAction::PushMpls(0x8847), FlowAction::SetMplsTtl(ttl), FlowAction::DecMplsTtl, output(2)];
        rig.flows(vec![flow(1, 0, 1, &[], apply(&labels))]);
        assert_eq!(rig.send(&v4(6, &tcp(b""))), fate);
    }
}

fn bucket(weight: u16, watch_port: u32, actions: &[FlowAction]) -> GroupBucket {
    GroupBucket { weight, watch_port, watch_group: ANY, actions: actions.to_vec() }
}

fn grouped(rig: &mut Rig, kind: GroupKind, buckets: Vec<GroupBucket>) {
    rig.change(vec![
        Change::Clear,
        Change::PutGroup(GroupEntry { id: 0, kind, buckets }),
        Change::PutFlow(flow(1, 0, 1, &[], apply(&[FlowAction::Group(0)]))),
    ]);
}

#[test]
fn groups_send_one_copy_and_many_are_punted() {
    let mut rig = Rig::new();
    let frame = v4(17, &udp(b"reading"));
    grouped(&mut rig, GroupKind::Indirect, vec![bucket(0, ANY, &[FlowAction::PushVlan(0x8100), output(2)])]);
    assert_eq!(rig.send(&frame), sent(&tagged(0x8100, 0, &frame)));
    let place = rig.places.groups[&0];
    assert_eq!((rig.group(place.group)[0], rig.bucket(place.first)[0]), (1, 1));
    grouped(&mut rig, GroupKind::All, vec![bucket(0, ANY, &[output(3)])]);
    assert_eq!(rig.send(&frame), sent(&frame));
    grouped(&mut rig, GroupKind::All, vec![bucket(0, ANY, &[output(2)]), bucket(0, ANY, &[output(3)])]);
    assert_eq!(rig.send(&frame), Fate::Punted(None));
    grouped(&mut rig, GroupKind::All, vec![]);
    assert_eq!(rig.send(&frame), Fate::Dropped);
    // In the action set it goes before an output.
    rig.change(vec![
        Change::Clear,
        Change::PutGroup(GroupEntry {
            id: 0,
            kind: GroupKind::Indirect,
            buckets: vec![bucket(0, ANY, &[output(LOCAL)])],
        }),
        Change::PutFlow(flow(
            1,
            0,
            1,
            &[],
            FlowInstructions {
                write: vec![FlowAction::Group(0), output(2), set(3, 0x0a0b_0c0d_0e0f)],
                ..FlowInstructions::default()
            },
        )),
    ]);
    let Fate::Passed(bytes) = rig.send(&frame) else { panic!("not by the group") };
    assert_eq!(bytes[..6], [10, 11, 12, 13, 14, 15]);
}

#[test]
fn fast_failover_takes_the_first_live_bucket() {
    let mut rig = Rig::new();
    let frame = arp();
    let ways = vec![bucket(0, 2, &[output(2)]), bucket(0, 3, &[output(LOCAL)])];
    grouped(&mut rig, GroupKind::FastFailover, ways);
    assert_eq!(rig.send(&frame), sent(&frame));
    rig.live(&[1, 3]);
    assert_eq!(rig.send(&frame), Fate::Passed(frame.clone()));
    rig.live(&[1]);
    assert_eq!(rig.send(&frame), Fate::Dropped, "none is live");
    rig.live(&[1, 2, 3]);
    assert_eq!(rig.send(&frame), sent(&frame));
}

#[test]
fn select_spreads_by_weight_and_keeps_what_belongs_together() {
    let mut rig = Rig::new();
    let buckets = vec![
        bucket(1, ANY, &[output(2)]),
        bucket(2, ANY, &[output(LOCAL)]),
        bucket(0, ANY, &[output(0xffff_fff8)]),
    ];
    grouped(&mut rig, GroupKind::Select, buckets);
    // By Ethernet addresses alone, and by ARP's alone.
    let by_mac = |n: u16| {
        let mut frame = arp();
        frame[10..12].copy_from_slice(&n.to_be_bytes());
        frame
    };
    let by_arp = |n: u16| {
        let mut frame = arp();
        frame[30..32].copy_from_slice(&n.to_be_bytes());
        frame
    };
    for make in [&by_mac as &dyn Fn(u16) -> Vec<u8>, &by_arp] {
        let mut first = 0;
        for n in 0..3000 {
            let frame = make(n);
            let fate = rig.send(&frame);
            assert!(!matches!(fate, Fate::Returned(_)), "no weight, no frame");
            first += u32::from(fate == sent(&frame));
        }
        // A third; five deviations.
        assert!((870..1130).contains(&first), "{first} of 3000");
    }
    assert_eq!(rig.send(&by_mac(7)), rig.send(&by_mac(7)));
}

fn metered(rig: &mut Rig, counts_packets: bool, bands: Vec<MeterBand>) {
    let instructions = FlowInstructions { meter: Some(1), ..apply(&[output(2)]) };
    rig.change(vec![
        Change::Clear,
        Change::PutMeter(MeterEntry { id: 1, counts_packets, bands }),
        Change::PutFlow(flow(1, 0, 1, &[], instructions)),
    ]);
}

#[test]
fn meters_drop_and_remark_what_exceeds_their_rate() {
    let mut rig = Rig::new();
    let frame = v4(6, &tcp(b"reading"));
    metered(&mut rig, true, vec![MeterBand { kind: BandKind::Drop, rate: 1, burst: 3 }]);
    let fates: Vec<Fate> = (0..6).map(|_| rig.send(&frame)).collect();
    assert_eq!(fates.iter().filter(|fate| **fate == sent(&frame)).count(), 3);
    let place = rig.places.meters[&1] * 5;
    assert_eq!((rig.meter(place)[0], rig.meter(place + 1)[0]), (6, 3));
    // AF21 becomes AF22, one kbit/s; the checksum too. What has no such class stays.
    let mut rig = Rig::new();
    let marked = |class: u8, packet: &[u8]| {
        let mut packet = packet.to_vec();
        packet[1] = class;
        packet[10..12].fill(0);
        let sum = internet_checksum(&[&packet[..20]]).to_be_bytes();
        packet[10..12].copy_from_slice(&sum);
        ethernet(&[8, 0], &packet)
    };
    let packet = ipv4(17, &udp(&[0; 1000]));
    metered(&mut rig, false, vec![MeterBand { kind: BandKind::DscpRemark(1), rate: 1, burst: 0 }]);
    let fates: Vec<Fate> = (0..6).map(|_| rig.send(&marked(18 << 2 | 1, &packet))).collect();
    assert_eq!(fates.iter().filter(|fate| **fate == sent(&marked(18 << 2 | 1, &packet))).count(), 2);
    assert_eq!(fates.iter().filter(|fate| **fate == sent(&marked(20 << 2 | 1, &packet))).count(), 4);
    assert_eq!(rig.send(&marked(0, &packet)), sent(&marked(0, &packet)));
    // Of several bands the one with the highest rate that is exceeded.
    let mut rig = Rig::new();
    let bands = vec![
        MeterBand { kind: BandKind::DscpRemark(1), rate: 1, burst: 1 },
        MeterBand { kind: BandKind::Drop, rate: 2, burst: 4 },
    ];
    metered(&mut rig, true, bands);
    let frame = marked(18 << 2, &packet);
    let fates: Vec<Fate> = (0..8).map(|_| rig.send(&frame)).collect();
    let count = |wanted: &Fate| fates.iter().filter(|fate| *fate == wanted).count();
    assert_eq!((count(&sent(&frame)), count(&Fate::Dropped)), (2, 4), "{fates:?}");
}

#[test]
fn frames_of_any_length_are_judged() {
    let mut rig = Rig::new();
    let long = v4(17, &udp(&[0x5a; 1472]));
    rig.flows(vec![flow(
        1,
        0,
        1,
        &[(5, 0x0800, ALL), (10, 17, ALL)],
        apply(&[FlowAction::PushVlan(0x8100), set(12, 1), output(2)]),
    )]);
    let Fate::Sent(bytes) = rig.send(&long) else { panic!("not sent") };
    assert_eq!(bytes.len(), 1518);
    assert!(reference::is_sealed(&bytes));
    rig.flows(vec![flow(
        1,
        0,
        1,
        &[],
        apply(&[FlowAction::PushVlan(0x8100), FlowAction::PopVlan, FlowAction::DecNwTtl, output(2)]),
    )]);
    for frame in all() {
        for length in 14..frame.len() {
            let fate = rig.send(&frame[..length]);
            let Fate::Sent(bytes) = fate else { panic!("{fate:?}") };
            assert_eq!((bytes.len(), &bytes[..12]), (length, &frame[..12]));
        }
    }
}

#[test]
fn the_stack_has_its_copy_beside_others() {
    let mut rig = Rig::new();
    let frame = v4(17, &udp(b"reading"));
    let handed = |bytes: &[u8]| Fate::Punted(Some(bytes.to_vec()));
    let (local, normal) = (output(LOCAL), output(0xffff_fffa));
    let (push, shorter) = (FlowAction::PushVlan(0x8100), FlowAction::DecNwTtl);
    let with_tag = tagged(0x8100, 0, &frame);
    let lists: [(&[FlowAction], Fate); 9] = [
        (&[output(2), local], handed(&frame)),
        (&[normal, output(CONTROLLER)], handed(&frame)),
        (&[local, normal], handed(&frame)),
        (&[local, push, shorter, output(2)], handed(&frame)),
        (&[push, local, FlowAction::PopVlan, output(2)], handed(&with_tag)),
        (&[output(2), push, output(3), local, shorter], handed(&with_tag)),
        (&[local, shorter], handed(&frame)),
        (&[local, FlowAction::SetNwTtl(1), shorter, output(2)], handed(&frame)),
        (&[FlowAction::SetNwTtl(1), shorter, local], Fate::Punted(None)),
    ];
    for (list, fate) in lists {
        rig.flows(vec![flow(1, 0, 1, &[], apply(list))]);
        assert_eq!(rig.send(&frame), fate, "{list:?}");
    }
    // SCTP's checksum is wrong there until the slow path has mended it.
    let chunk = v4(132, &sctp(b"chunk"));
    for (list, fate) in [
        ([local, set(18, 7), output(2)], handed(&chunk)),
        ([set(18, 7), local, output(2)], Fate::Punted(None)),
    ] {
        rig.flows(vec![flow(1, 0, 1, &[], apply(&list))]);
        assert_eq!(rig.send(&chunk), fate, "{list:?}");
    }
    // In one table, and what is edited in the next.
    let first = FlowInstructions { goto: Some(1), ..apply(&[push, local]) };
    let second = FlowInstructions { write: vec![output(2), set(3, 9)], ..FlowInstructions::default() };
    rig.flows(vec![flow(1, 0, 1, &[], first), flow(2, 1, 1, &[], second)]);
    assert_eq!(rig.send(&frame), handed(&with_tag));
}

#[test]
fn a_groups_bucket_for_the_stack_has_its_copy_and_all_are_counted() {
    let mut rig = Rig::new();
    let frame = v4(17, &udp(b"reading"));
    let with_tag = tagged(0x8100, 0, &frame);
    let group = |list: &[FlowAction]| {
        let buckets = vec![
            bucket(0, ANY, &[output(2)]),
            bucket(0, ANY, &[FlowAction::PushVlan(0x8100), output(LOCAL)]),
            bucket(0, ANY, &[output(3)]),
        ];
        vec![
            Change::Clear,
            Change::PutGroup(GroupEntry { id: 0, kind: GroupKind::All, buckets }),
            Change::PutFlow(flow(1, 0, 1, &[], apply(list))),
        ]
    };
    let mut seen = 0;
    for (list, copy) in [
        (&[FlowAction::Group(0)][..], Some(&with_tag)),
        (&[output(3), FlowAction::Group(0)], Some(&with_tag)),
        (&[output(CONTROLLER), FlowAction::Group(0)], Some(&with_tag)),
        (&[FlowAction::Group(0), output(LOCAL)], Some(&frame)),
    ] {
        rig.change(group(list));
        assert_eq!(rig.send(&frame), Fate::Punted(copy.cloned()), "{list:?}");
        seen += 1;
        let place = rig.places.groups[&0];
        let counted = (place.first..place.first + 3).map(|bucket| rig.bucket(bucket)[0]);
        assert_eq!(counted.chain([rig.group(place.group)[0]]).collect::<Vec<_>>(), [seen; 4], "{list:?}");
    }
    // By what the group was to send, not by what it has become.
    rig.change(group(&[FlowAction::Group(0), FlowAction::DecNwTtl]));
    assert_eq!(rig.send(&frame), Fate::Punted(None));
}

#[test]
fn what_tags_off_make_too_short_is_padded() {
    let mut rig = Rig::new();
    let bottom = 16 << 12 | 0x100 | 64;
    let inner = ipv4(1, &icmp(8));
    let mut frame = tagged(0x8100, 7, &ethernet(&[0x88, 0x47], &labelled(bottom, &inner)));
    frame.truncate(50);
    frame.resize(60, 0);
    let short = {
        let mut short = ethernet(&[8, 0], &inner);
        short.truncate(42);
        short
    };
    let pops = [FlowAction::PopMpls(0x0800), FlowAction::PopVlan];
    let padded = |bytes: usize| {
        let mut padded = short.clone();
        padded.resize(bytes, 0);
        padded
    };
    for (port, fate) in [
        (2, Fate::Sent(padded(60))),
        (0xffff_fff8, Fate::Returned(padded(60))),
        (LOCAL, Fate::Passed(padded(52))),
    ] {
        rig.flows(vec![flow(1, 0, 1, &[], apply(&[&pops[..], &[output(port)]].concat()))]);
        assert_eq!(rig.send(&frame), fate, "{port:x}");
    }
    // What is as long as it came is not longer.
    let came = ethernet(&[0x88, 0xb5], &[7; 20]);
    rig.flows(vec![flow(1, 0, 1, &[], apply(&[set(3, 9), output(2)]))]);
    let Fate::Sent(bytes) = rig.send(&came) else { panic!("not sent") };
    assert_eq!(bytes.len(), came.len());
}

#[test]
fn a_punted_frame_says_what_meters_added() {
    let mut rig = Rig::new();
    let frame = v4(6, &tcp(b"reading"));
    let band = |steps| vec![MeterBand { kind: BandKind::DscpRemark(steps), rate: 1, burst: 1 }];
    let meter = |id, steps| MeterEntry { id, counts_packets: true, bands: band(steps) };
    let first = FlowInstructions { meter: Some(1), goto: Some(3), ..apply(&[output(2)]) };
    let second = FlowInstructions { meter: Some(2), ..apply(&[output(3)]) };
    rig.change(vec![
        Change::Clear,
        Change::PutMeter(meter(1, 1)),
        Change::PutMeter(meter(2, 200)),
        Change::PutFlow(flow(1, 0, 1, &[], first)),
        Change::PutFlow(flow(2, 3, 1, &[], second)),
    ]);
    let mut remarks = Vec::new();
    for _ in 0..3 {
        assert_eq!(rig.send(&frame), Fate::Punted(None));
        remarks.push([0, 1, 3].map(|table| remark_in(rig.remarks, table)));
    }
    // A burst of one, and one more that a meter lets through at the least.
    assert_eq!(remarks, [[0, 0, 0], [0, 0, 0], [1, 0, 3]]);
}

/// Older kernels' verifiers follow the same paths; a million instructions is their limit.
#[test]
fn the_verifier_is_far_from_its_limit() {
    let mut ebpf = object::load(None).expect("needs root");
    let _stages = stages::load(&mut ebpf).unwrap();
    for name in STAGE_PROGRAMS.into_iter().chain(["enter"]) {
        let info = stages::program(&mut ebpf, name).unwrap().info().unwrap();
        let count = info.verified_instruction_count().expect("Linux 5.16 and later say so");
        println!("{name}: {count}");
        assert!(count < 300_000, "{name}: {count}");
    }
    let depart = stages::depart(&mut ebpf).unwrap().info().unwrap();
    assert!(depart.verified_instruction_count().is_some_and(|count| count < 250_000));
}
