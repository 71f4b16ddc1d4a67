//! What the age limit lets go, and what damage took, is told before it is gone.

use std::time::{Duration, Instant};

use caregate_host::clock;
use caregate_protocol::gap::{Missing, Why};
use caregate_protocol::id::{DataClass, Lane};
use caregate_protocol::policy::VerifiedPolicy;
use caregate_protocol::record::Record;
use edge_gateway::ingest::Verdict;
use edge_gateway::pipeline::expiry::Expiry;
use edge_gateway::pipeline::gaps::Expired;
use edge_gateway::spool::{Limits, Position};

use crate::pipeline_support::{Gateway, Home, Hospital, NOW_US, Publish, damage, device_key, policy, small};

const LIMIT: Duration = Duration::from_secs(3600);

/// A clock that a test moves: monotonic and Unix time alike.
struct Clock {
    start: Instant,
    s: u64,
}

impl Clock {
    fn new() -> Self {
        Self { start: clock::monotonic(), s: 0 }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_secs(self.s)
    }

    fn now_us(&self) -> i64 {
        NOW_US + i64::try_from(self.s).unwrap() * 1_000_000
    }
}

/// Switches the age limit on, as the daemon does at its start.
fn limited(gateway: &mut Gateway, clock: &Clock) {
    let next = gateway.committer.log.stats().next.0;
    gateway.committer.expiry = Some(Expiry::new(LIMIT, next, clock.now_us(), clock.now()));
}

fn expire(gateway: &mut Gateway, policy: &VerifiedPolicy, clock: &Clock) -> Expired {
    gateway.committer.expire(policy, clock.now_us(), clock.now()).unwrap()
}

/// What waits for the core: positions with what they hold.
fn waiting(gateway: &Gateway) -> Vec<(u64, Vec<u8>)> {
    let reader = gateway.committer.log.reader();
    let mut all = Vec::new();
    for lane in Lane::ALL {
        let mut from = Position(0);
        while let Some(position) = reader.next_unacked(lane, from) {
            all.push((position.0, reader.read(position).unwrap().unwrap().1));
            from = Position(position.0 + 1);
        }
    }
    all.sort_unstable();
    all
}

/// The numbers of the segments that wait, and the gaps.
fn told(gateway: &Gateway, class: DataClass) -> (Vec<u64>, Vec<Missing>) {
    let (mut numbers, mut gaps) = (Vec::new(), Vec::new());
    for (_, bytes) in waiting(gateway) {
        match Record::decode(&bytes).unwrap() {
            Record::Segment(segment) if segment.header.class == class => {
                numbers.push(segment.header.sequence)
            }
            Record::Gap(gap) if gap.gap.class == class => {
                gap.verify(&device_key().verifying_key()).unwrap();
                gaps.push(gap.gap.missing);
            }
            Record::Segment(_) | Record::Gap(_) | Record::Wrap(_) | Record::Head(_) | Record::Tokens(_) => {}
        }
    }
    (numbers, gaps)
}

fn span(missing: &Missing) -> (Why, u64, u64) {
    (missing.why, missing.first, missing.last)
}

#[test]
fn without_an_age_limit_nothing_ever_goes() {
    let home = Home::new(Limits::with_budget(64 << 20));
    let policy = policy(&[], &[], &[]);
    let mut gateway = home.start();
    gateway.put(&Publish::beat(0), &policy);
    let clock = Clock { s: 365 * 86_400, ..Clock::new() };
    let expired = expire(&mut gateway, &policy, &clock);
    assert!(expired.gone.is_empty() && expired.spooled.is_empty());
    assert_eq!(told(&gateway, DataClass::Vitals), (vec![0], Vec::new()));
}

#[test]
fn what_is_older_than_the_limit_goes_once_it_is_told_and_the_rest_stays() {
    let home = Home::new(Limits::with_budget(64 << 20));
    let hospital = Hospital::new(1);
    let policy = policy(&[&hospital], &[hospital.whole()], &[]);
    let mut clock = Clock::new();
    let mut gateway = home.start();
    limited(&mut gateway, &clock);
    let put = |gateway: &mut Gateway, clock: &Clock, seq: u64| {
        assert_eq!(gateway.commit_at(&[Publish::beat(seq)], &policy, clock.now_us()), [Verdict::Stored]);
    };
    for seq in 0..60 {
        put(&mut gateway, &clock, seq);
        assert!(expire(&mut gateway, &policy, &clock).gone.is_empty());
        clock.s += 60;
    }
    // The core took the first ten, so they are not missing.
    let ten = waiting(&gateway).into_iter().find(|(_, bytes)| {
        matches!(Record::decode(bytes), Ok(Record::Segment(segment)) if segment.header.sequence == 10)
    });
    gateway.committer.log.ack(0..=ten.unwrap().0 - 1).unwrap();
    clock.s += 1830;
    let before = waiting(&gateway).len();
    let expired = expire(&mut gateway, &policy, &clock);
    let (numbers, gaps) = told(&gateway, DataClass::Vitals);
    let first = numbers[0];
    assert!((29..=32).contains(&first), "{first} is the first that is younger than an hour");
    assert_eq!(numbers, (first..60).collect::<Vec<_>>());
    assert_eq!(gaps.iter().map(span).collect::<Vec<_>>(), [(Why::Expired, 10, first - 1)]);
    assert_eq!((gaps[0].from_us, gaps[0].to_us % 60_000_000), (NOW_US + 600_000_000, NOW_US % 60_000_000));
    assert_eq!(waiting(&gateway).len(), before - expired.gone.len() + expired.spooled.len());
    // Whose wraps the core has not got can't be opened: those of segments that stay must stay.
    let opened = gateway.opened_by(&hospital);
    assert!(numbers.iter().all(|n| opened.iter().any(|o| o.header.sequence == *n)));
    let wraps = |gateway: &Gateway| {
        let all = waiting(gateway).into_iter();
        all.filter(|(_, bytes)| matches!(Record::decode(bytes), Ok(Record::Wrap(_)))).count()
    };
    assert!(wraps(&gateway) >= numbers.len() && wraps(&gateway) <= numbers.len() + 5, "{}", wraps(&gateway));

    // The next that goes is told in the same record, not in one more.
    clock.s += 600;
    put(&mut gateway, &clock, 60);
    expire(&mut gateway, &policy, &clock);
    let (numbers, gaps) = told(&gateway, DataClass::Vitals);
    assert!((39..=42).contains(&numbers[0]));
    assert_eq!(gaps.iter().map(span).collect::<Vec<_>>(), [(Why::Expired, 10, numbers[0] - 1)]);

    // After a restart it is the same; at last all is gone but the word of it, which is renewed and stays.
    let mut gateway = home.restart(gateway);
    limited(&mut gateway, &clock);
    for _ in 0..5 {
        clock.s += 3600;
        expire(&mut gateway, &policy, &clock);
        clock.s += 130;
        expire(&mut gateway, &policy, &clock);
    }
    let (numbers, gaps) = told(&gateway, DataClass::Vitals);
    assert_eq!((numbers.len(), gaps.iter().map(span).collect::<Vec<_>>()), (0, vec![(Why::Expired, 10, 60)]));
    assert!(waiting(&gateway).len() <= 3, "the gap and its wraps: {}", waiting(&gateway).len());
}

#[test]
fn a_clock_that_is_set_lets_nothing_go() {
    let home = Home::new(Limits::with_budget(64 << 20));
    let policy = policy(&[], &[], &[]);
    let mut clock = Clock::new();
    let mut gateway = home.start();
    limited(&mut gateway, &clock);
    gateway.put(&Publish::beat(0), &policy);
    expire(&mut gateway, &policy, &clock);
    clock.s += 120;
    let leapt = clock.now_us() + 86_400_000_000 * 365;
    assert!(gateway.committer.expire(&policy, leapt, clock.now()).unwrap().gone.is_empty());
    clock.s += 3600;
    assert_eq!(expire(&mut gateway, &policy, &clock).gone.len(), 1);
}

#[test]
fn a_spool_that_is_full_of_what_is_old_makes_room() {
    let home = Home::new(small());
    let hospital = Hospital::new(1);
    let policy = policy(&[&hospital], &[hospital.whole()], &[]);
    let mut clock = Clock::new();
    let mut gateway = home.start();
    limited(&mut gateway, &clock);
    let fall = |seq: u64| Publish::new("belt-1", "event/fall", format!(r#"{{"seq":{seq},"t":{seq}}}"#));
    let mut seq = 0;
    // Until not even an alarm fits.
    loop {
        let batch = [fall(seq), Publish::ecg(seq, 1400)];
        if gateway.commit_at(&batch, &policy, clock.now_us())[0] == Verdict::Refused {
            break;
        }
        expire(&mut gateway, &policy, &clock);
        (seq, clock.s) = (seq + 1, clock.s + 1);
    }
    clock.s += 3600;
    let stored = (0..20).find(|_| {
        expire(&mut gateway, &policy, &clock);
        clock.s += 130;
        gateway.commit_at(&[fall(seq)], &policy, clock.now_us()) == [Verdict::Stored]
    });
    assert!(stored.is_some(), "nothing was let go");
    let (numbers, gaps) = told(&gateway, DataClass::Alarm);
    assert_eq!(span(&gaps[0]), (Why::Expired, 0, numbers[0] - 1));
    let (_, gaps) = told(&gateway, DataClass::Waveform);
    assert_eq!((gaps.len(), gaps[0].first), (1, 0));
}

#[test]
fn what_damage_took_is_told_once_and_bounded() {
    const SKIP: u64 = 1 << 20;
    let home = Home::new(Limits::with_budget(64 << 20));
    let policy = policy(&[], &[], &[]);
    let mut gateway = home.start();
    for seq in 0..6 {
        gateway.put(&Publish::beat(seq), &policy);
    }
    let records = gateway.records();
    drop(gateway);
    damage(home.dir.path(), &records[2].2);
    let mut gateway = home.start();
    gateway.committer.tell_losses(&policy, NOW_US).unwrap();
    let (numbers, gaps) = told(&gateway, DataClass::Vitals);
    assert_eq!(numbers, [0, 1, 3, 4, 5]);
    let expected = [(Why::Damaged, 2, 2), (Why::Damaged, 6, 5 + SKIP)];
    assert_eq!(gaps.iter().map(span).collect::<Vec<_>>(), expected);
    gateway.put(&Publish::beat(6), &policy);
    assert_eq!(told(&gateway, DataClass::Vitals).0[5..], [6 + SKIP]);
    // A chain that is not known may have been hidden whole.
    let fall = Publish::new("belt-1", "event/fall", r#"{"seq":1,"t":1}"#);
    gateway.put(&fall, &policy);
    gateway.committer.tell_losses(&policy, NOW_US).unwrap();
    let (numbers, gaps) = told(&gateway, DataClass::Alarm);
    assert_eq!((numbers, gaps.iter().map(span).collect()), (vec![SKIP], vec![(Why::Damaged, 0, SKIP - 1)]));
    // Told is told, also after a restart that finds the same damage; what was not told yet is.
    let mut gateway = home.restart(gateway);
    assert_eq!(gateway.recovery.damaged.len(), 1);
    assert!(gateway.committer.tell_losses(&policy, NOW_US).unwrap().is_empty());
    drop(gateway);
    damage(home.dir.path(), &records[4].2);
    let gateway = home.start();
    drop(gateway);
    let mut gateway = home.start();
    gateway.committer.tell_losses(&policy, NOW_US).unwrap();
    let (_, gaps) = told(&gateway, DataClass::Vitals);
    assert!(gaps.iter().any(|gap| span(gap) == (Why::Damaged, 4, 4)), "{gaps:?}");
}
