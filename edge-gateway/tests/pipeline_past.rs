//! A grant of the past: wraps alone, of exactly that span, and nothing of what comes after it ends.

#![expect(clippy::unwrap_used, reason = "tests")]

mod pipeline_support;

use caregate_protocol::id::DataClass;
use caregate_protocol::policy::{Grant, Revocation};
use caregate_protocol::record::Record;
use edge_gateway::ingest::Verdict;
use edge_gateway::spool::Limits;
use pipeline_support::{Gateway, Home, Hospital, MINUTE_US, NOW_US, Publish, policy};

const VITALS: [DataClass; 1] = [DataClass::Vitals];

fn minute(n: u64) -> i64 {
    (NOW_US / MINUTE_US + 1 + i64::try_from(n).unwrap()) * MINUTE_US
}

fn second(n: u64) -> u64 {
    u64::try_from(minute(n) / 1_000_000).unwrap()
}

/// One beat a minute, numbered by it.
fn beats(
    gateway: &mut Gateway,
    minutes: std::ops::Range<u64>,
    hospitals: &[&Hospital],
    grants: &[Grant],
    revoked: &[Revocation],
) {
    let policy = policy(hospitals, grants, revoked);
    for n in minutes {
        let verdicts = gateway.commit_at(&[Publish::beat(n)], &policy, minute(n) + 1_000_000);
        assert_eq!(verdicts, [Verdict::Stored]);
    }
}

/// How many wraps the past of the grants took.
fn give(
    gateway: &mut Gateway,
    hospitals: &[&Hospital],
    grants: &[Grant],
    revoked: &[Revocation],
    at: i64,
) -> usize {
    let policy = policy(hospitals, grants, revoked);
    let spooled = gateway.committer.give_past(&policy, at).unwrap();
    let wraps = spooled.iter().all(|s| matches!(Record::decode(&s.record).unwrap(), Record::Wrap(_)));
    assert!(wraps, "nothing is sealed anew");
    let count = spooled.len();
    gateway.spooled.extend(spooled);
    count
}

#[test]
fn a_span_of_the_past_opens_whole_and_nothing_beside_it() {
    let home = Home::new(Limits::new(1 << 20, 8 << 20, 64 << 10));
    let mut gateway = home.start();
    let (a, b, c) = (Hospital::new(1), Hospital::new(2), Hospital::new(3));
    let all = [&a, &b, &c];
    let (of_a, of_b) = (a.whole(), b.whole());
    beats(&mut gateway, 0..10, &all, std::slice::from_ref(&of_a), &[]);
    // Somebody comes and goes: generations change in between, the last time over a restart.
    beats(&mut gateway, 10..20, &all, &[of_a.clone(), of_b.clone()], &[]);
    let gone = [Revocation { relationship: of_b.relationship, version: 1 }];
    let mut gateway = home.restart(gateway);
    beats(&mut gateway, 20..33, &all, &[of_a.clone(), of_b.clone()], &gone);
    let segments = gateway.opened().len();

    // From the middle of minute 6: that one had begun.
    let of_c = c.grant(&VITALS, second(6) + 30, second(1000));
    let grants = [of_a, of_b, of_c.clone()];
    // The first one's, who could open it all along, and nothing for the revoked.
    assert!(give(&mut gateway, &all, &grants[..2], &gone, minute(33)) > 0);
    assert_eq!(give(&mut gateway, &all, &grants[..2], &gone, minute(33)), 0);
    while give(&mut gateway, &all, &grants, &gone, minute(33)) > 0 {}
    let opened = |gateway: &Gateway, hospital: &Hospital| -> Vec<u64> {
        let opened = gateway.opened_by(hospital).into_iter();
        opened.flat_map(|o| o.readings.into_iter().map(|r| r.seq.unwrap())).collect()
    };
    assert_eq!(opened(&gateway, &c), (7..33).collect::<Vec<_>>());
    assert_eq!(opened(&gateway, &b), (10..20).collect::<Vec<_>>(), "the revoked get nothing of it");
    assert_eq!(gateway.opened().len(), segments, "no segment was sealed for it");
    assert_eq!(give(&mut gateway, &all, &grants, &gone, minute(34)), 0, "once");

    // Over a restart too; and live from now on.
    let mut gateway = home.restart(gateway);
    assert_eq!(give(&mut gateway, &all, &grants, &gone, minute(34)), 0);
    beats(&mut gateway, 34..36, &all, &grants, &gone);
    assert_eq!(opened(&gateway, &c), (7..36).filter(|n| *n != 33).collect::<Vec<_>>());
    let ended = [gone[0].clone(), Revocation { relationship: of_c.relationship, version: 1 }];
    beats(&mut gateway, 36..40, &all, &grants, &ended);
    assert_eq!(opened(&gateway, &c), (7..36).filter(|n| *n != 33).collect::<Vec<_>>(), "and no further");
}

/// The present epoch is given with the past: it counts as a wrap of the live path, and closes when access ends, also over a restart.
#[test]
fn who_was_given_the_present_epoch_loses_it_with_access() {
    for restarts in [false, true] {
        let home = Home::new(Limits::new(1 << 20, 8 << 20, 64 << 10));
        let mut gateway = home.start();
        let (a, c) = (Hospital::new(1), Hospital::new(3));
        let all = [&a, &c];
        let (of_a, of_c) = (a.whole(), c.grant(&VITALS, second(0) - 3_600, second(1000)));
        beats(&mut gateway, 0..3, &all, std::slice::from_ref(&of_a), &[]);
        let grants = [of_a, of_c.clone()];
        while give(&mut gateway, &all, &grants, &[], minute(2) + 2_000_000) > 0 {}
        let mut gateway = if restarts { home.restart(gateway) } else { gateway };
        let at = minute(2) + 3_000_000;
        gateway.commit_at(&[Publish::beat(50)], &policy(&all, &grants, &[]), at);
        assert_eq!(gateway.opened_with(&c), [0, 1, 2, 50]);
        let ended = [Revocation { relationship: of_c.relationship, version: 1 }];
        gateway.commit_at(&[Publish::beat(51)], &policy(&all, &grants, &ended), at + 1_000_000);
        assert_eq!(gateway.opened_with(&c), [0, 1, 2, 50], "restarts: {restarts}");
        assert_eq!(gateway.opened_with(&a), [0, 1, 2, 50, 51]);
    }
}
