//! Frames whose microflow is known: they fare as the first of them did, are counted as it was, and see each change. Needs root.

use caregate_ebpf_common::Verdict;
use caregate_protocol::datapath::switch::{
    Change, FlowAction, FlowEntry, FlowInstructions, GroupBucket, GroupEntry, GroupKind,
};

use crate::switch_rig::frames::*;
use crate::switch_rig::{ALL, Fate, IN_PORT, Rig, apply, flow, output};

const LOCAL: u32 = 0xffff_fffe;
const NORMAL: u32 = 0xffff_fffa;
const BACK: u32 = 0xffff_fff8;
/// Frames of a microflow that are seen on other ways before it is known: the first meets the tables, the second is in the flow cache and
/// has the processor's seeds drawn, the third is put down.
const UNKNOWN: u64 = 3;
/// Frames of each microflow.
const FRAMES: u64 = 8;
const FLOW: u64 = 9;

/// On one processor: each has microflows of its own.
fn rig() -> Rig {
    caregate_tests::bpf::stay_on_one_processor().unwrap();
    Rig::new()
}

fn to(actions: &[FlowAction]) -> FlowEntry {
    flow(FLOW, 0, 1, &[], apply(actions))
}

/// Sends a frame so often; what was counted of the flow, of the table, by the port's verdict, and of that at once.
fn counted(rig: &mut Rig, frame: &[u8], wanted: &Fate, verdict: Verdict) -> ([u64; 2], [u64; 2], u64, u64) {
    let state = |rig: &Rig| {
        let flow = if rig.places.flows.contains_key(&FLOW) { rig.counted(FLOW) } else { [0, 0] };
        (flow, rig.table(0), rig.verdict(verdict)[0], rig.at_once(verdict)[0])
    };
    let before = state(rig);
    for number in 0..FRAMES {
        assert_eq!(rig.send(frame), *wanted, "frame {number}");
    }
    let after = state(rig);
    let since = |now: [u64; 2], then: [u64; 2]| [now[0] - then[0], now[1] - then[1]];
    (since(after.0, before.0), since(after.1, before.1), after.2 - before.2, after.3 - before.3)
}

#[test]
fn each_way_is_taken_and_counted_again() {
    let frame = v4(17, &udp(b"a reading"));
    let bytes = FRAMES * u64::try_from(frame.len()).unwrap();
    let (sent, passed) = (Fate::Sent(frame.clone()), Fate::Passed(frame.clone()));
    let ways = [
        (to(&[output(2)]), sent, Verdict::Redirected),
        (to(&[output(BACK)]), Fate::Returned(frame.clone()), Verdict::Redirected),
        (to(&[output(LOCAL)]), passed.clone(), Verdict::Delivered),
        (to(&[output(NORMAL)]), passed, Verdict::Delivered),
        (to(&[]), Fate::Dropped, Verdict::SwitchDropped),
        (to(&[output(IN_PORT)]), Fate::Dropped, Verdict::SwitchDropped),
        // There is no such port.
        (to(&[output(9)]), Fate::Dropped, Verdict::SwitchDropped),
    ];
    let mut rig = rig();
    let mut unknown = UNKNOWN;
    for (way, fate, verdict) in ways {
        let what = format!("{way:?}");
        rig.flows(vec![way]);
        let counted = counted(&mut rig, &frame, &fate, verdict);
        let wanted = ([FRAMES, bytes], [FRAMES, FRAMES], FRAMES, FRAMES - unknown);
        assert_eq!(counted, wanted, "{what}");
        // The seeds are drawn once.
        unknown = UNKNOWN - 1;
    }
    rig.flows(vec![flow(1, 0, 1, &[(5, 0x0806, ALL)], apply(&[output(2)]))]);
    let counted = counted(&mut rig, &frame, &Fate::Dropped, Verdict::TableMiss);
    assert_eq!(counted, ([0, 0], [FRAMES, 0], FRAMES, FRAMES - unknown), "no rule");
}

#[test]
fn each_change_is_seen_by_the_next_frame() {
    let mut rig = rig();
    let frame = v4(6, &tcp(b"a reading"));
    for round in 0..40u32 {
        let to_port = round % 2 == 0;
        let actions = [output(2)];
        rig.flows(vec![to(if to_port { &actions } else { &[] })]);
        let wanted = if to_port { Fate::Sent(frame.clone()) } else { Fate::Dropped };
        for _ in 0..FRAMES {
            assert_eq!(rig.send(&frame), wanted, "round {round}");
        }
    }
    assert!(rig.at_once(Verdict::Redirected)[0] >= 20 * (FRAMES - UNKNOWN));
    // The rule asks for the port.
    rig.flows(vec![flow(FLOW, 0, 1, &[(0, u128::from(IN_PORT), ALL)], apply(&[output(2)]))]);
    for _ in 0..FRAMES {
        assert_eq!(rig.send(&frame), Fate::Sent(frame.clone()));
    }
    rig.come_in_by(3);
    for _ in 0..FRAMES {
        assert_eq!(rig.send(&frame), Fate::Dropped);
    }
    rig.come_in_by(IN_PORT);
    assert_eq!(rig.send(&frame), Fate::Sent(frame));
}

/// Of what a match may not ask for nothing tells microflows apart; of what it may, all.
#[test]
fn what_differs_in_a_match_field_is_another_microflow() {
    let mut rig = rig();
    let frame = v4(17, &udp(b"a reading"));
    rig.flows(vec![flow(
        1,
        0,
        2,
        &[(5, 0x0800, ALL), (10, 17, ALL), (16, 0x1151, ALL)],
        apply(&[output(2)]),
    )]);
    let known = |rig: &mut Rig, frame: &[u8]| {
        let before = rig.at_once(Verdict::Redirected)[0];
        assert_eq!(rig.send(frame), Fate::Sent(frame.to_vec()));
        rig.at_once(Verdict::Redirected)[0] > before
    };
    for _ in 0..UNKNOWN {
        assert!(!known(&mut rig, &frame));
    }
    assert!(known(&mut rig, &frame));
    // Identification, TTL, checksum, the payload.
    for at in [18, 19, 22, 24, 40, 42] {
        let mut other = frame.clone();
        other[at] ^= 1;
        assert!(known(&mut rig, &other), "byte {at}");
    }
    // MAC addresses, DSCP and ECN, IPv4 addresses, the source's port.
    for at in (0..12).chain([15]).chain(26..36) {
        let mut other = frame.clone();
        other[at] ^= 1;
        assert!(!known(&mut rig, &other), "byte {at}");
    }
    // A fragment has no ports, an EtherType other fields, and what is cut off, too.
    for (at, byte) in [(20, 0x20), (12, 0x86), (17, 27), (14, 0x46), (37, 0x50)] {
        let mut other = frame.clone();
        other[at] = byte;
        assert_eq!(rig.send(&other), Fate::Dropped, "byte {at}");
    }
    assert_eq!(rig.send(&frame[..40]), Fate::Dropped);
    assert!(known(&mut rig, &frame));
}

/// What a rule does beside sending is done for each frame: nothing of it is put down.
#[test]
fn what_has_more_to_go_through_is_never_known() {
    let mut rig = rig();
    let frame = v4(17, &udp(b"a reading"));
    let second = FlowInstructions { goto: Some(1), ..FlowInstructions::default() };
    let bucket = |port| GroupBucket {
        weight: 1,
        watch_port: port,
        watch_group: u32::MAX,
        actions: vec![output(port)],
    };
    let group = GroupEntry { id: 7, kind: GroupKind::FastFailover, buckets: vec![bucket(2), bucket(3)] };
    let put = |rig: &mut Rig, flows: Vec<FlowEntry>| {
        let flows = flows.into_iter().map(Change::PutFlow);
        let changes = [Change::Clear, Change::PutGroup(group.clone())].into_iter().chain(flows).collect();
        rig.change(changes);
    };
    for flows in [
        vec![flow(1, 0, 1, &[], second), flow(2, 1, 1, &[], apply(&[output(2)]))],
        vec![flow(1, 0, 1, &[], apply(&[FlowAction::Group(7)]))],
    ] {
        put(&mut rig, flows);
        for _ in 0..FRAMES {
            assert_eq!(rig.send(&frame), Fate::Sent(frame.clone()));
        }
    }
    rig.live(&[1]);
    assert_eq!(rig.send(&frame), Fate::Dropped, "no live bucket");
    assert_eq!(rig.at_once(Verdict::Redirected)[0], 0);
}
