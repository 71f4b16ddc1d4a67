//! A grant of the past: wraps alone, of exactly that span, and nothing of what comes after it ends.

use std::collections::{BTreeMap, BTreeSet};

use caregate_host::clock;
use caregate_protocol::id::{DataClass, Lane};
use caregate_protocol::key::epoch_of;
use caregate_protocol::policy::{Grant, Revocation};
use caregate_protocol::reading;
use caregate_protocol::record::Record;
use caregate_protocol::segment::Header;
use caregate_protocol::uplink::Used;
use edge_gateway::ingest::Verdict;
use edge_gateway::keys::KeyStore;
use edge_gateway::pipeline::chains::Beginning;
use edge_gateway::pipeline::expiry::{AGE_LIMIT_MIN, Expiry, PAST_KEPT};
use edge_gateway::spool::{Limits, Position};

use crate::pipeline_support::{
    Gateway, Home, Hospital, MINUTE_US, NOW_US, PATIENT, Publish, damage, device_key, policy,
};

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

/// A machine without a clock of its own wakes up in 1970. What was sealed before and what is sealed meanwhile is in the past of a later grant.
#[test]
fn a_clock_that_is_none_costs_nobody_a_past() {
    let home = Home::new(Limits::new(1 << 20, 8 << 20, 64 << 10));
    let mut gateway = home.start();
    let (a, c) = (Hospital::new(1), Hospital::new(3));
    let all = [&a, &c];
    let grants = [a.whole(), c.grant(&VITALS, second(2), second(1000))];
    beats(&mut gateway, 0..5, &all, &grants[..1], &[]);
    let mut gateway = home.restart(gateway);
    let in_1970 = 5 * MINUTE_US;
    let verdicts = gateway.commit_at(&[Publish::beat(5)], &policy(&all, &grants[..1], &[]), in_1970);
    assert_eq!(verdicts, [Verdict::Stored]);
    assert_eq!(gateway.opened().last().unwrap().header.epoch, epoch_of(minute(4)));
    assert_eq!(give(&mut gateway, &all, &grants[..1], &[], in_1970), 0, "nobody knows what is past");
    beats(&mut gateway, 6..8, &all, &grants[..1], &[]);
    while give(&mut gateway, &all, &grants, &[], minute(8)) > 0 {}
    assert_eq!(gateway.opened_with(&c), (2..8).collect::<Vec<_>>());
    assert_eq!(give(&mut gateway, &all, &grants, &[], minute(8)), 0, "once");
}

/// A power cut, after which the machine begins with the time of an hour before. The policy's clock knows better, but for the two minutes that
/// were not written down, and then by a header.
#[test]
fn a_clock_that_is_behind_costs_nobody_a_past() {
    let home = Home::new(Limits::new(1 << 20, 8 << 20, 64 << 10));
    let mut gateway = home.start();
    let (a, c) = (Hospital::new(1), Hospital::new(3));
    let all = [&a, &c];
    let grants = [a.whole(), c.grant(&VITALS, second(2), second(1000))];
    let before = policy(&all, &grants[..1], &[]);
    beats(&mut gateway, 0..5, &all, &grants[..1], &[]);
    let mut gateway = home.restart(gateway);
    for (n, behind_us, past) in [(5, 60 * MINUTE_US, 3), (6, 60 * MINUTE_US, 6), (7, 0, 6)] {
        let wall_us = minute(n) - behind_us;
        gateway.committer.state.look_at_clock(wall_us, second(past));
        assert_eq!(gateway.commit_at(&[Publish::beat(n)], &before, wall_us), [Verdict::Stored]);
    }
    let opened = gateway.opened();
    let epochs: Vec<_> = opened.iter().skip(4).map(|o| o.header.epoch).collect();
    assert_eq!(epochs, [4, 4, 6, 7].map(|n| epoch_of(minute(n))));
    while give(&mut gateway, &all, &grants, &[], minute(8)) > 0 {}
    assert_eq!(gateway.opened_with(&c), (2..8).collect::<Vec<_>>());
}

/// A clock that steps back by a second, over the end of a minute.
#[test]
fn a_step_back_over_a_minutes_end_costs_no_epoch() {
    let home = Home::new(Limits::new(1 << 20, 8 << 20, 64 << 10));
    let mut gateway = home.start();
    let (a, b, c) = (Hospital::new(1), Hospital::new(2), Hospital::new(3));
    let all = [&a, &b, &c];
    let of_c = c.grant(&VITALS, second(1), second(1000));
    let grants = [a.whole(), of_c.clone(), b.grant(&VITALS, second(2) + 59, second(1000))];
    beats(&mut gateway, 0..4, &all, &grants[..1], &[]);
    let at = minute(3) - 500_000;
    for _ in &grants {
        give(&mut gateway, &all, &grants, &[], at);
    }
    assert_eq!(gateway.opened_with(&c), [1, 2, 3]);
    assert!(gateway.opened_with(&b).is_empty(), "it was sealed before that grant began");
    let ended = [Revocation { relationship: of_c.relationship, version: 1 }];
    gateway.commit_at(&[Publish::beat(4)], &policy(&all, &grants[..2], &ended), at);
    assert_eq!(gateway.opened_with(&c), [1, 2, 3], "it is held, and closes");
}

/// The old gateway is gone with what it had written down; the core's word on its generations is all that the new one has.
#[test]
fn a_restored_root_gives_what_the_old_gateway_had_sealed() {
    let (a, b, c) = (Hospital::new(1), Hospital::new(2), Hospital::new(3));
    let all = [&a, &b, &c];
    let old_home = Home::new(Limits::new(1 << 20, 8 << 20, 64 << 10));
    let mut old = old_home.start();
    // Somebody comes and goes, so that three generations have sealed.
    for n in 0..20 {
        let grants = [a.whole(), b.whole()];
        beats(&mut old, n..n + 1, &all, &grants[..1 + usize::from(n / 4 % 2 == 1)], &[]);
    }
    let sealed: Vec<_> = old.records().into_iter().map(|(_, _, bytes)| bytes).collect();
    let mut used: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
    for bytes in &sealed {
        if let Record::Segment(segment) = Record::decode(bytes).unwrap() {
            let Header { generation, epoch, .. } = segment.header;
            used.entry(generation).or_insert((epoch, epoch)).1 = epoch;
        }
    }
    let told = used.into_iter().map(|(generation, (first, last))| Used { generation, first, last });
    let told: Vec<_> = told.collect();
    assert_eq!(told.len(), 3);
    let root = old.committer.keys.root(PATIENT).unwrap();

    let home = Home::new(Limits::new(1 << 20, 8 << 20, 64 << 10));
    let mut keys = KeyStore::open(home.dir.path()).unwrap();
    assert!(keys.restore(PATIENT, &root, Beginning::at(minute(30))).unwrap());
    drop(keys);
    let mut gateway = home.start();
    let grants = [a.whole(), c.grant(&VITALS, second(3), second(1000))];
    // Before the core was asked there is nothing to give, and it counts as given.
    while give(&mut gateway, &all, &grants, &[], minute(31)) > 0 {}
    assert!(waiting(&gateway, &c).is_empty());
    beats(&mut gateway, 31..33, &all, &grants, &[]);
    let key = (PATIENT, DataClass::Vitals);
    assert!(gateway.committer.keys.elsewhere().keep(key, &told).unwrap());
    // A kill before it was given.
    let mut gateway = home.restart(gateway);
    while give(&mut gateway, &all, &grants, &[], minute(33)) > 0 {}
    assert_eq!(opened_of(&gateway, &c, &sealed), (3..20).collect::<Vec<_>>());
    assert_eq!(gateway.opened_with(&c), [31, 32], "its own by its own");
    assert_eq!(give(&mut gateway, &all, &grants, &[], minute(33)), 0, "once");

    // What was given of the old one opens nothing that is sealed from now on.
    let generations: BTreeSet<_> = gateway.opened().iter().map(|o| o.header.generation).collect();
    let oldest = *generations.first().unwrap();
    assert!(told.iter().all(|used| used.generation < oldest), "{generations:?}");
    let ended = [Revocation { relationship: grants[1].relationship, version: 1 }];
    beats(&mut gateway, 33..36, &all, &grants, &ended);
    assert_eq!(gateway.opened_with(&c), [31, 32]);
}

/// What a hospital opens of another gateway's records, by the keys that this one has given it.
fn opened_of(gateway: &Gateway, hospital: &Hospital, records: &[Vec<u8>]) -> Vec<u64> {
    let nodes: Vec<_> = waiting(gateway, hospital)
        .iter()
        .map(|(_, bytes)| {
            let Record::Wrap(wrap) = Record::decode(bytes).unwrap() else { panic!("a wrap") };
            (wrap.generation, wrap.open(&hospital.private, &device_key().verifying_key()).unwrap())
        })
        .collect();
    let mut numbers = Vec::new();
    for bytes in records {
        let Record::Segment(segment) = Record::decode(bytes).unwrap() else { continue };
        let of = nodes.iter().filter(|(generation, _)| *generation == segment.header.generation);
        let plain = of
            .filter_map(|(_, node)| node.epoch_key(segment.header.epoch))
            .find_map(|key| segment.open(&key).ok());
        let readings = plain.into_iter().flat_map(|plain| reading::decode(&plain).unwrap());
        numbers.extend(readings.filter_map(|reading| reading.seq));
    }
    numbers
}

/// Wraps for a hospital that wait for the core.
fn waiting(gateway: &Gateway, hospital: &Hospital) -> Vec<(u64, Vec<u8>)> {
    let reader = gateway.committer.log.reader();
    let mut all = Vec::new();
    for lane in Lane::ALL {
        let mut from = Position(0);
        while let Some(position) = reader.next_unacked(lane, from) {
            let (_, bytes) = reader.read(position).unwrap().unwrap();
            if matches!(Record::decode(&bytes).unwrap(), Record::Wrap(wrap) if wrap.recipient == hospital.id)
            {
                all.push((position.0, bytes));
            }
            from = Position(position.0 + 1);
        }
    }
    all
}

/// What the age limit lets go at a time, just after a start.
fn expire(gateway: &mut Gateway, hospitals: &[&Hospital], grants: &[Grant], at: i64) -> Vec<u64> {
    let committer = &mut gateway.committer;
    let (next, now) = (committer.log.stats().next.0, clock::monotonic());
    committer.expiry = Some(Expiry::new(AGE_LIMIT_MIN, next, at, now));
    committer.expire(&policy(hospitals, grants, &[]), at, now).unwrap().gone
}

/// They open what the core has, so they are not as old as that; and what does go is given again while the grant stands.
#[test]
fn the_age_limit_costs_nobody_a_past() {
    let home = Home::new(Limits::new(1 << 20, 8 << 20, 64 << 10));
    let mut gateway = home.start();
    let (a, c) = (Hospital::new(1), Hospital::new(3));
    let all = [&a, &c];
    let grants = [a.whole(), c.grant(&VITALS, second(2), second(1_000_000))];
    beats(&mut gateway, 0..10, &all, &grants[..1], &[]);
    gateway.ack_all();
    while give(&mut gateway, &all, &grants, &[], minute(10)) > 0 {}
    let wraps = waiting(&gateway, &c);
    assert!(!wraps.is_empty());
    for hours in [1, 24] {
        gateway = home.restart(gateway);
        expire(&mut gateway, &all, &grants, minute(10 + 60 * hours));
        assert_eq!(waiting(&gateway, &c), wraps, "a core was away for {hours} h");
        assert_eq!(give(&mut gateway, &all, &grants, &[], minute(10 + 60 * hours)), 0);
    }
    // The chain goes on, so that nothing else holds the wraps back.
    let kept = PAST_KEPT.as_secs() / 60;
    gateway = home.restart(gateway);
    beats(&mut gateway, 9 + kept..10 + kept, &all, &grants, &[]);
    let gone = expire(&mut gateway, &all, &grants, minute(10 + kept));
    assert!(wraps.iter().all(|(position, _)| gone.contains(position)));
    assert!(!covers(&waiting(&gateway, &c), 2..10));
    while give(&mut gateway, &all, &grants, &[], minute(10 + kept)) > 0 {}
    assert!(covers(&waiting(&gateway, &c), 2..10), "it is given anew");
    // Not to whom nothing is granted any more.
    gateway = home.restart(gateway);
    beats(&mut gateway, 10 + 2 * kept..11 + 2 * kept, &all, &grants[..1], &[]);
    expire(&mut gateway, &all, &grants[..1], minute(11 + 2 * kept));
    while give(&mut gateway, &all, &grants[..1], &[], minute(11 + 2 * kept)) > 0 {}
    assert!(waiting(&gateway, &c).is_empty());
}

/// Whether the wraps open these minutes of a chain that has one generation.
fn covers(wraps: &[(u64, Vec<u8>)], mut minutes: std::ops::Range<u64>) -> bool {
    minutes.all(|n| {
        let epoch = u32::try_from(minute(n) / MINUTE_US).unwrap();
        wraps.iter().any(|(_, bytes)| {
            let Record::Wrap(wrap) = Record::decode(bytes).unwrap() else { panic!("a wrap") };
            (wrap.epoch..=wrap.last()).contains(&epoch)
        })
    })
}

/// In the middle of what the spool holds, and at its end, where it is a torn write.
#[test]
fn a_past_that_damage_took_is_given_again() {
    for is_torn in [false, true] {
        let home = Home::new(Limits::new(1 << 20, 8 << 20, 64 << 10));
        let mut gateway = home.start();
        let (a, c) = (Hospital::new(1), Hospital::new(3));
        let all = [&a, &c];
        let grants = [a.whole(), c.grant(&VITALS, second(2), second(1000))];
        beats(&mut gateway, 0..10, &all, &grants[..1], &[]);
        while give(&mut gateway, &all, &grants, &[], minute(10)) > 0 {}
        let (_, first) = waiting(&gateway, &c).swap_remove(0);
        let end = if is_torn { 10 } else { 12 };
        beats(&mut gateway, 10..end, &all, &grants, &[]);
        let granted: Vec<_> = (2..end).collect();
        assert_eq!(gateway.opened_with(&c), granted);
        drop(gateway);
        damage(home.dir.path(), &first);
        let mut gateway = home.start();
        assert_eq!(gateway.recovery.torn.is_some(), is_torn);
        assert_eq!(gateway.recovery.damaged.iter().any(|damage| damage.lost > 0), !is_torn);
        assert_ne!(gateway.opened_with(&c), granted, "some of it is gone");
        while give(&mut gateway, &all, &grants, &[], minute(10)) > 0 {}
        assert_eq!(gateway.opened_with(&c), granted);
        let mut gateway = home.restart(gateway);
        assert_eq!(give(&mut gateway, &all, &grants, &[], minute(11)), 0, "the damage is known");
    }
}

#[test]
fn a_long_past_is_given_in_parts_and_none_twice() {
    let home = Home::new(Limits::new(4 << 20, 64 << 20, 64 << 10));
    let mut gateway = home.start();
    let (a, b, c) = (Hospital::new(1), Hospital::new(2), Hospital::new(3));
    let all = [&a, &b, &c];
    // Somebody goes each other minute, and a generation with them.
    for n in 0..400 {
        let grants = [a.whole(), b.whole()];
        beats(&mut gateway, n..n + 1, &all, &grants[..1 + usize::from(n % 2 == 0)], &[]);
    }
    let grants = [c.grant(&VITALS, second(2), second(1000))];
    let first = give(&mut gateway, &all, &grants, &[], minute(400));
    assert_eq!(first, 256);
    let rest = give(&mut gateway, &all, &grants, &[], minute(400));
    assert!((1..256).contains(&rest), "{rest}");
    assert_eq!(give(&mut gateway, &all, &grants, &[], minute(400)), 0);
    let nodes = |gateway: &Gateway| {
        let wraps = gateway.spooled.iter().filter_map(|spooled| match Record::decode(&spooled.record) {
            Ok(Record::Wrap(wrap)) if wrap.recipient == c.id => {
                Some((wrap.generation, wrap.epoch, wrap.depth))
            }
            Ok(_) | Err(_) => None,
        });
        wraps.collect::<Vec<_>>()
    };
    let given = nodes(&gateway);
    assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), given.len(), "none comes twice");
    assert_eq!(gateway.opened_with(&c), (2..400).collect::<Vec<_>>());

    // A kill in the middle: it begins again, and comes to the same.
    let later = [Grant { version: 2, ..grants[0].clone() }];
    assert_eq!(give(&mut gateway, &all, &later, &[], minute(400)), 256);
    let mut gateway = home.restart(gateway);
    while give(&mut gateway, &all, &later, &[], minute(400)) > 0 {}
    assert_eq!(nodes(&gateway), given);
}

#[test]
fn a_past_waits_for_room_in_the_spool() {
    let home = Home::new(Limits::new(64 << 10, 2 << 20, 4 << 10));
    let mut gateway = home.start();
    let (a, c) = (Hospital::new(1), Hospital::new(3));
    let all = [&a, &c];
    let grants = [a.whole(), c.grant(&[DataClass::Waveform], second(0), second(100_000))];
    let before = policy(&all, &grants[..1], &[]);
    let mut sealed = 0;
    while gateway.commit_at(&[Publish::ecg(sealed, 1400)], &before, minute(sealed)) == [Verdict::Stored] {
        sealed += 1;
    }
    let next = gateway.committer.log.stats().next;
    for _ in 0..3 {
        let only = std::slice::from_ref(&grants[1]);
        assert_eq!(give(&mut gateway, &all, only, &[], minute(sealed)), 0, "there is no room");
    }
    assert_eq!(gateway.committer.log.stats().next, next);
    gateway.ack_all();
    let mut gateway = home.restart(gateway);
    gateway.ack_all();
    while give(&mut gateway, &all, &grants, &[], minute(sealed)) > 0 {}
    assert!(!waiting(&gateway, &c).is_empty());
}
