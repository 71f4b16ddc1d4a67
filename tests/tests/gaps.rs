//! Gateway, core and feed around a gap: what the gateway let go is told as such, and what was taken away on the way is not.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../../edge-gateway/tests/pipeline_support/mod.rs"]
mod pipeline_support;

use std::time::Duration;

use caregate_host::clock;
use caregate_protocol::gap::Why;
use caregate_protocol::id::{DataClass, Lane, RecipientId};
use caregate_protocol::record::Record;
use clinician_feed::opener::{ChainState, Opener};
use core_cloud::store::{Embedded, Outcome, Store};
use edge_gateway::pipeline::expiry::Expiry;
use edge_gateway::spool::{Limits, Position};
use pipeline_support::{Gateway, Home, Hospital, NOW_US, PATIENT, Publish, device_key, policy};
use tempfile::TempDir;

/// Sends what waits to the core, which acknowledges it.
fn send(gateway: &mut Gateway, core: &Embedded) {
    let reader = gateway.committer.log.reader();
    for lane in Lane::ALL {
        let mut from = Position(0);
        while let Some(position) = reader.next_unacked(lane, from) {
            let record = reader.read(position).unwrap().unwrap().1;
            let outcome = core.put(&[record]).unwrap()[0];
            assert!(matches!(outcome, Outcome::Stored | Outcome::Known), "{outcome:?}");
            gateway.committer.log.ack(position.0..=position.0).unwrap();
            from = Position(position.0 + 1);
        }
    }
}

/// What a hospital makes of its queue, if somebody keeps records from it: how the chain stands, and the readings' numbers.
fn reads(core: &Embedded, hospital: &Hospital, keep: impl Fn(&Record<'_>) -> bool) -> (ChainState, Vec<u64>) {
    let mut opener = Opener::new(hospital.id, hospital.private.clone(), [device_key().verifying_key()]);
    let mut numbers = Vec::new();
    for (_, record) in core.page(hospital.id, 0, u64::MAX, usize::MAX).unwrap().records {
        if keep(&Record::decode(&record).unwrap()) {
            let taken = opener.take(&record);
            assert!(taken.refused.is_empty(), "{:?}", taken.refused);
            let readings = taken.opened.into_iter().flat_map(|opened| opened.readings);
            numbers.extend(readings.filter_map(|reading| reading.seq));
        }
    }
    numbers.sort_unstable();
    (opener.chain(PATIENT, DataClass::Vitals).unwrap(), numbers)
}

fn is_segment(record: &Record<'_>, number: u64) -> bool {
    matches!(record, Record::Segment(segment) if segment.header.sequence == number)
}

fn is_gap(record: &Record<'_>) -> bool {
    matches!(record, Record::Gap(_))
}

fn core() -> (TempDir, Embedded) {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path()).unwrap();
    (dir, store)
}

#[test]
fn what_was_let_go_is_told_to_the_reader_and_what_was_taken_away_is_seen() {
    let home = Home::new(Limits::with_budget(64 << 20));
    let (here, other) = (Hospital::new(1), Hospital::new(2));
    let policy = policy(&[&here, &other], &[here.whole()], &[]);
    let (_dir, core) = core();
    let mut gateway = home.start();
    let start = clock::monotonic();
    gateway.committer.expiry = Some(Expiry::new(Duration::from_secs(3600), 1, NOW_US, start));
    let at = |gateway: &mut Gateway, s: u64, seqs: std::ops::Range<u64>| {
        let (now, now_us) = (start + Duration::from_secs(s), NOW_US + i64::try_from(s).unwrap() * 1_000_000);
        for seq in seqs {
            gateway.commit_at(&[Publish::beat(seq)], &policy, now_us);
        }
        gateway.committer.expire(&policy, now_us, now).unwrap()
    };
    at(&mut gateway, 0, 0..3);
    send(&mut gateway, &core);
    // The uplink is down for two hours: 3 to 6 grow too old, 7 and 8 don't.
    at(&mut gateway, 10, 3..7);
    at(&mut gateway, 60, 7..7);
    let expired = at(&mut gateway, 7200, 7..9);
    assert!(!expired.gone.is_empty());
    // The process is killed before the let-go is on disk, and does it again.
    let mut gateway = home.restart(gateway);
    let limit = Duration::from_secs(3600);
    let next = gateway.committer.log.stats().next.0;
    gateway.committer.expiry = Some(Expiry::new(limit, next, NOW_US + 7_200_000_000, start));
    gateway.committer.expire(&policy, NOW_US + 7_200_000_000, start).unwrap();
    send(&mut gateway, &core);

    let whole = reads(&core, &here, |_| true);
    assert_eq!(whole.1, [0, 1, 2, 7, 8]);
    assert_eq!((whole.0.verified, whole.0.gap), (8, None));
    let told = whole.0.told.unwrap();
    assert_eq!((told.why, told.first, told.last), (Why::Expired, 3, 6));
    assert_eq!((told.from_us, told.to_us), (NOW_US + 10_000_000, NOW_US + 10_000_000));
    // Without the gateway's word it is a gap like any other.
    let (state, _) = reads(&core, &here, |record| !is_gap(record));
    assert_eq!((state.gap, state.told), (Some((3, 6)), None));
    // The word excuses nothing else: what is taken away beside it is seen, in the middle and at the end.
    let (state, _) = reads(&core, &here, |record| !is_segment(record, 1));
    assert_eq!((state.gap, state.told), (Some((1, 1)), Some(told)));
    // Nobody else hears of it.
    assert!(core.page(other.id, 0, u64::MAX, usize::MAX).unwrap().records.is_empty());
    assert!(core.page(RecipientId([9; 20]), 0, u64::MAX, usize::MAX).unwrap().records.is_empty());
}

#[test]
fn a_tail_that_was_let_go_is_told_and_one_that_is_held_back_is_a_gap() {
    let home = Home::new(Limits::with_budget(64 << 20));
    let here = Hospital::new(1);
    let policy = policy(&[&here], &[here.whole()], &[]);
    let (_dir, core) = core();
    let mut gateway = home.start();
    let start = clock::monotonic();
    gateway.committer.expiry = Some(Expiry::new(Duration::from_secs(3600), 1, NOW_US, start));
    gateway.put(&Publish::beat(0), &policy);
    gateway.put(&Publish::beat(1), &policy);
    gateway.committer.commit_heads(NOW_US).unwrap();
    gateway.committer.commit_heads(NOW_US + 10_000_000).unwrap();
    send(&mut gateway, &core);
    let (state, _) = reads(&core, &here, |record| !is_segment(record, 1));
    assert_eq!(state.gap, Some((1, 1)), "held back");
    gateway.put(&Publish::beat(2), &policy);
    gateway.committer.expire(&policy, NOW_US, start).unwrap();
    for s in [60, 3700] {
        let now_us = NOW_US + i64::try_from(s).unwrap() * 1_000_000;
        gateway.committer.expire(&policy, now_us, start + Duration::from_secs(s)).unwrap();
    }
    send(&mut gateway, &core);
    let (state, numbers) = reads(&core, &here, |_| true);
    assert_eq!((numbers, state.gap), (vec![0, 1], None));
    let (state, _) = reads(&core, &here, |record| !is_segment(record, 1));
    assert_eq!(state.gap, Some((1, 1)), "and still seen beside what was let go");
}
