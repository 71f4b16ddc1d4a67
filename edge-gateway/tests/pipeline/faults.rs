//! The pipeline when room runs out, the disk is damaged, or the process ends at any moment.

use std::collections::{BTreeMap, BTreeSet};

use caregate_protocol::alarm::{Score, Settings, Standing};
use caregate_protocol::id::{DataClass, Lane};
use caregate_protocol::policy::VerifiedPolicy;
use caregate_protocol::record::Record;
use caregate_protocol::segment::SegmentHash;
use edge_gateway::ingest::Verdict;
use edge_gateway::spool::{Limits, Position};
use proptest::prelude::*;

use crate::pipeline_support::{
    Gateway, Home, Hospital, MINUTE_US, NOW_US, PATIENT, Publish, damage, policy, small,
};

fn in_lane(lane: Lane, seq: u64) -> Publish {
    let t = 1_790_000_000_000 + seq;
    let event = |kind: &str| Publish::new("belt-1", kind, format!(r#"{{"seq":{seq},"t":{t}}}"#));
    match lane {
        Lane::Alarm => event("event/fall"),
        Lane::Vitals => Publish::beat(seq),
        Lane::Waveform => Publish::ecg(seq, 1400),
        Lane::Activity => event("event/walk"),
    }
}

/// Publishes to all lanes until `lane` is refused; returns in which order lanes were, and the next free number.
fn fill(gateway: &mut Gateway, policy: &VerifiedPolicy, lane: Lane, mut seq: u64) -> (Vec<Lane>, u64) {
    let mut refused = Vec::new();
    while !refused.contains(&lane) {
        // A minute each, so that every commit brings wraps as well.
        let now_us = NOW_US + i64::try_from(seq).unwrap() * MINUTE_US;
        let batch: Vec<_> = Lane::ALL.into_iter().rev().map(|lane| in_lane(lane, seq)).collect();
        let verdicts = gateway.commit_at(&batch, policy, now_us);
        for (lane, verdict) in Lane::ALL.into_iter().rev().zip(verdicts) {
            match verdict {
                Verdict::Stored => {
                    assert!(!refused.contains(&lane), "{lane:?} was refused before and is not now")
                }
                Verdict::Refused if !refused.contains(&lane) => refused.push(lane),
                Verdict::Refused => {}
                Verdict::Quarantined(_) => panic!("{lane:?} was quarantined"),
            }
        }
        seq += 1;
    }
    (refused, seq)
}

#[test]
fn a_full_spool_refuses_the_lowest_lane_first_and_alarms_still_fit() {
    let home = Home::new(small());
    let hospital = Hospital::new(1);
    let policy = policy(&[&hospital], &[hospital.whole()], &[]);
    let mut gateway = home.start();
    let (refused, seq) = fill(&mut gateway, &policy, Lane::Vitals, 0);
    assert_eq!(refused, [Lane::Activity, Lane::Waveform, Lane::Vitals]);
    assert_eq!(gateway.put(&in_lane(Lane::Alarm, seq), &policy), Verdict::Stored, "the reserve is for it");
    assert!(gateway.refused("spool_full") > 0);
    // What was refused comes again when the core has taken the rest, and is stored once.
    gateway.ack_all();
    let mut gateway = home.restart(gateway);
    gateway.ack_all();
    let again = [in_lane(Lane::Vitals, seq - 1), in_lane(Lane::Alarm, seq), in_lane(Lane::Activity, seq)];
    assert_eq!(gateway.commit(&again, &policy), [Verdict::Stored; 3]);
    assert_eq!(gateway.seqs(DataClass::Vitals).iter().filter(|s| **s == seq - 1).count(), 1);
}

#[test]
fn what_the_gateway_says_again_leaves_the_reserve_to_alarms() {
    let home = Home::new(small());
    let hospital = Hospital::new(1);
    let policy = policy(&[&hospital], &[hospital.whole()], &[]);
    let mut gateway = home.start();
    let (_, seq) = fill(&mut gateway, &policy, Lane::Vitals, 0);
    let at = |minutes: u64| NOW_US + i64::try_from(seq + minutes).unwrap() * MINUTE_US;
    let say = |gateway: &mut Gateway, minutes, pulse| {
        let score = Score::sum([Some(0), Some(0), None, None, Some(pulse), None, Some(0)]);
        let (alarms, settings) = (Vec::new(), Settings::default());
        let standing = Standing { at_us: at(minutes), alarms, settings, score, handled: Vec::new() };
        let spooled =
            gateway.committer.append_standings(vec![(PATIENT, standing)], &policy, at(minutes)).unwrap();
        gateway.committer.log.sync().unwrap();
        spooled.len() + gateway.committer.commit_heads(at(minutes)).unwrap().len()
    };
    assert!(say(&mut gateway, 0, 1) > 0, "it is new");
    let again: usize = (1..600).map(|minutes| say(&mut gateway, minutes, 1)).sum();
    assert_eq!(again, 0, "ten hours of the same");
    assert!(say(&mut gateway, 600, 3) > 0, "it has changed");
    assert_eq!(gateway.commit_at(&[in_lane(Lane::Alarm, seq)], &policy, at(601)), [Verdict::Stored]);
}

#[test]
fn a_repetition_within_a_batch_shares_the_fate_of_its_first() {
    let home = Home::new(small());
    let policy = policy(&[], &[], &[]);
    let mut gateway = home.start();
    let (_, seq) = fill(&mut gateway, &policy, Lane::Activity, 0);
    let walk = in_lane(Lane::Activity, seq);
    let batch = [walk.clone(), Publish::beat(seq), walk.clone()];
    assert_eq!(gateway.commit(&batch, &policy), [Verdict::Refused, Verdict::Stored, Verdict::Refused]);
    gateway.ack_all();
    let mut gateway = home.restart(gateway);
    gateway.ack_all();
    assert_eq!(gateway.commit(&[walk.clone(), walk], &policy), [Verdict::Stored; 2]);
    assert_eq!(gateway.seqs(DataClass::Activity).iter().filter(|s| **s == seq).count(), 1);
}

#[test]
fn damage_moves_the_chains_on_once_and_no_number_is_used_twice() {
    const SKIP: u64 = 1 << 20;
    let home = Home::new(Limits::with_budget(64 << 20));
    let policy = policy(&[], &[], &[]);
    let mut gateway = home.start();
    for seq in 0..4 {
        gateway.put(&Publish::beat(seq), &policy);
    }
    let (_, _, second) = gateway.records().remove(1);
    drop(gateway);
    damage(home.dir.path(), &second);
    let sequences = |gateway: &mut Gateway, class| -> Vec<(u64, u32)> {
        let opened = gateway.opened().into_iter().filter(|o| o.header.class == class);
        opened.map(|o| (o.header.sequence, o.header.generation)).collect()
    };
    let mut gateway = home.start();
    assert_eq!(gateway.recovery.damaged.len(), 1);
    gateway.put(&Publish::beat(4), &policy);
    let expected = vec![(0, 0), (2, 0), (3, 0), (4 + SKIP, 1)];
    assert_eq!(sequences(&mut gateway, DataClass::Vitals), expected);
    // A chain that was not known: its beginning may have been in the damage.
    gateway.put(&in_lane(Lane::Alarm, 0), &policy);
    assert_eq!(sequences(&mut gateway, DataClass::Alarm), [(SKIP, 1)]);
    let mut gateway = home.restart(gateway);
    assert_eq!(gateway.recovery.damaged.len(), 1, "it is still there, and still told");
    gateway.put(&Publish::beat(5), &policy);
    assert_eq!(sequences(&mut gateway, DataClass::Vitals)[4..], [(5 + SKIP, 1)]);
}

#[test]
fn a_root_that_is_gone_is_made_anew_and_recipients_get_its_keys() {
    let home = Home::new(Limits::with_budget(64 << 20));
    let hospital = Hospital::new(1);
    let policy = policy(&[&hospital], &[hospital.whole()], &[]);
    let mut gateway = home.start();
    gateway.put(&Publish::beat(0), &policy);
    drop(gateway);
    std::fs::remove_file(home.dir.path().join("keys.redb")).unwrap();
    let mut gateway = home.start();
    assert_eq!(gateway.put(&Publish::beat(1), &policy), Verdict::Stored);
    // In the same epoch, and the hospital opens both; the number goes on.
    let opened = gateway.opened_by(&hospital);
    let places: Vec<_> = opened.iter().map(|o| (o.header.sequence, o.header.generation)).collect();
    assert_eq!(places, [(0, 0), (1, 1)]);
}

/// What the core has: every record that ever was in the spool and synced, by chain and number.
#[derive(Default)]
struct Core {
    segments: BTreeMap<(DataClass, u64), SegmentHash>,
    readings: BTreeMap<(DataClass, u64), u32>,
    taken: BTreeSet<u64>,
}

impl Core {
    /// Takes what the gateway has and was not taken yet, then acknowledges up to a share of it.
    fn take(&mut self, gateway: &mut Gateway) {
        for opened in gateway.opened() {
            let h = &opened.header;
            let stored = *self.segments.entry((h.class, h.sequence)).or_insert(opened.hash);
            assert_eq!(stored, opened.hash, "a fork: {:?} {}", h.class, h.sequence);
            if self.taken.insert(opened.position) {
                for reading in &opened.readings {
                    *self.readings.entry((h.class, reading.seq.unwrap())).or_default() += 1;
                }
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// A batch: per PUBLISH a lane, and how many numbers to go back (0: a new one).
    Batch(Vec<(u8, u8)>),
    /// The core takes what there is and acknowledges it up to this many positions before the newest.
    Ack(u8),
    /// kill -9, with records appended that no sync covers.
    Crash(u8),
    Minute,
    ClockBack,
    Rotate,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let publish = (0_u8..4, prop_oneof![3 => Just(0_u8), 1 => 1_u8..20]);
    let step = prop_oneof![
        8 => proptest::collection::vec(publish, 1..24).prop_map(Step::Batch),
        2 => (0_u8..40).prop_map(Step::Ack),
        2 => (0_u8..3).prop_map(Step::Crash),
        1 => Just(Step::Minute),
        1 => Just(Step::ClockBack),
        1 => Just(Step::Rotate),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// However PUBLISHes repeat, the spool fills, rotates and empties and the process ends: what was acknowledged reaches
    /// the core exactly once, what was refused at most once, and no number of a chain names two segments.
    #[test]
    fn what_is_acknowledged_reaches_the_core_exactly_once(steps in steps()) {
        let home = Home::new(Limits::new(48 << 10, 464 << 10, 2 << 10));
        let hospital = Hospital::new(1);
        let policy = policy(&[&hospital], &[hospital.whole()], &[]);
        let (mut gateway, mut core) = (home.start(), Core::default());
        let (mut next, mut now_us) = ([0_u64; 4], NOW_US);
        let mut acknowledged: BTreeSet<(DataClass, u64)> = BTreeSet::new();
        let class = |lane: Lane| DataClass::ALL.into_iter().find(|class| class.lane() == lane).unwrap();
        for step in steps {
            match step {
                Step::Batch(publishes) => {
                    let mut names = Vec::new();
                    for (lane, back) in publishes {
                        let lane = Lane::from_u8(lane).unwrap();
                        let newest = &mut next[lane as usize];
                        let seq = if back == 0 || *newest == 0 { *newest } else { newest.saturating_sub(u64::from(back)) };
                        *newest = (*newest).max(seq + 1);
                        names.push((lane, seq));
                    }
                    let batch: Vec<_> = names.iter().map(|(lane, seq)| in_lane(*lane, *seq)).collect();
                    let verdicts = gateway.commit_at(&batch, &policy, now_us);
                    for ((lane, seq), verdict) in names.into_iter().zip(verdicts) {
                        if verdict == Verdict::Stored {
                            acknowledged.insert((class(lane), seq));
                        }
                    }
                    core.take(&mut gateway);
                }
                Step::Ack(behind) => {
                    let next = gateway.committer.log.stats().next.0;
                    gateway.committer.log.ack(0..=next.saturating_sub(u64::from(behind) + 1)).unwrap();
                }
                Step::Crash(unsynced) => {
                    for _ in 0..unsynced {
                        // Full is as good: there is then nothing that a crash could cut off.
                        drop(gateway.committer.log.append(Lane::Alarm, &[0x5a; 100]));
                    }
                    gateway = home.restart(gateway);
                    prop_assert!(gateway.recovery.damaged.is_empty());
                }
                Step::Minute => now_us += MINUTE_US,
                Step::ClockBack => now_us -= 3 * MINUTE_US,
                Step::Rotate => drop(gateway.committer.log.rotate(&gateway.committer.state.encode())),
            }
        }
        for name in &acknowledged {
            prop_assert_eq!(core.readings.get(name), Some(&1), "{:?}", name);
        }
        prop_assert!(core.readings.values().all(|times| *times == 1));
        let mut numbers: BTreeMap<DataClass, Vec<u64>> = BTreeMap::new();
        core.segments.keys().for_each(|(class, number)| numbers.entry(*class).or_default().push(*number));
        for (class, numbers) in numbers {
            let whole: Vec<_> = (0..numbers.len() as u64).collect();
            prop_assert_eq!(numbers, whole, "{:?}", class);
        }
    }
}

#[test]
fn a_record_that_was_not_synced_is_not_there_after_a_crash_or_counts_whole() {
    let home = Home::new(small());
    let policy = policy(&[], &[], &[]);
    let mut gateway = home.start();
    gateway.put(&Publish::beat(0), &policy);
    gateway.committer.log.append(Lane::Vitals, b"never synced").unwrap();
    let mut gateway = home.restart(gateway);
    assert!(gateway.recovery.damaged.is_empty());
    gateway.put(&Publish::beat(1), &policy);
    let reader = gateway.committer.log.reader();
    let last = reader.read(Position(gateway.committer.log.stats().next.0 - 1)).unwrap().unwrap().1;
    assert!(matches!(Record::decode(&last), Ok(Record::Segment(_))));
    assert_eq!(gateway.seqs(DataClass::Vitals), [0, 1]);
}
