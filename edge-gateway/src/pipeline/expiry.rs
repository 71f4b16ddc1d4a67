//! Which records have waited for the core for longer than the operator's age limit. Pure.
//!
//! A record of this process's life is as old as the monotonic clock says, so a clock that is set (a router without one of its own
//! wakes up in 1970) lets nothing go. What was there before is as old as its date says, and not younger than this process.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use caregate_protocol::gap::Missing;
use caregate_protocol::id::{DataClass, PatientId};

/// Least age limit: below it a slow reconnect would cost readings.
pub const AGE_LIMIT_MIN: Duration = Duration::from_secs(60);
/// By how much longer wraps stay: two epochs, so that no segment stays without its wrap.
pub const WRAP_GRACE: Duration = Duration::from_secs(120);
/// How long wraps of a past wait for the core, whatever the age limit: what they open is not here but at the core, and they are some hundred
/// of 200 bytes. After it they are made anew as long as their grant stands, so nothing of one that has ended lies here for longer; once a
/// week that costs a flash nothing.
pub const PAST_KEPT: Duration = Duration::from_secs(7 * 86_400);
/// How often it is looked: each run tells a gap for each chain, and the spool keeps for this much longer than asked for.
const EVERY: Duration = Duration::from_secs(60);
/// Marks per age limit: positions are told apart by age to this part of it.
const MARKS: u32 = 256;

/// The age limit, and what tells how old a position is.
#[derive(Debug)]
pub struct Expiry {
    age_limit: Duration,
    started: Instant,
    started_us: i64,
    /// The first position of this life.
    first: u64,
    /// At these times the next position was that one; positions grow.
    marks: VecDeque<(Instant, u64)>,
    next_run: Instant,
    /// The newest gap record of each chain that waits in the spool, and where; the next one of the same chain takes it in.
    pub told: BTreeMap<(PatientId, DataClass), (Missing, u64)>,
}

impl Expiry {
    /// Begins with the process; `next` is the next position, `now_us` the Unix time.
    #[must_use]
    pub fn new(age_limit: Duration, next: u64, now_us: i64, now: Instant) -> Self {
        Self {
            age_limit,
            started: now,
            started_us: now_us,
            first: next,
            marks: VecDeque::new(),
            next_run: now,
            told: BTreeMap::new(),
        }
    }

    /// Notes the next position; call about every second. True where it is time to look.
    pub fn tick(&mut self, next: u64, now: Instant) -> bool {
        let spacing = (self.age_limit / MARKS).max(Duration::from_secs(1));
        if self.marks.back().is_none_or(|(at, _)| now.duration_since(*at) >= spacing) {
            self.marks.push_back((now, next));
        }
        // Of those that are older than anything is asked for, the newest says all.
        let oldest = self.age_limit + WRAP_GRACE;
        while self.marks.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= oldest) {
            self.marks.pop_front();
        }
        now >= self.next_run
    }

    /// A look is over; `whole` where nothing was left for the next one.
    pub fn looked(&mut self, whole: bool, now: Instant) {
        if whole {
            self.next_run = now + EVERY.min(self.age_limit / 4);
        }
    }

    /// Whether a record is older than the limit and `grace`; `dated_us` is its own Unix time.
    #[must_use]
    pub fn is_due(&self, position: u64, dated_us: i64, grace: Duration, now: Instant) -> bool {
        let limit = self.age_limit + grace;
        if position >= self.first {
            let old = self.marks.iter().rev().find(|(at, _)| now.duration_since(*at) >= limit);
            return old.is_some_and(|(_, next)| position < *next);
        }
        let before = u64::try_from(self.started_us.saturating_sub(dated_us)).unwrap_or(0);
        Duration::from_micros(before) + now.duration_since(self.started) >= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const NOW_US: i64 = 1_790_000_000_000_000;

    #[test]
    fn what_was_spooled_in_this_life_is_aged_by_the_monotonic_clock() {
        let start = caregate_host::clock::monotonic();
        let mut expiry = Expiry::new(HOUR, 10, NOW_US, start);
        for second in 0..7200 {
            // One record a second.
            expiry.tick(11 + second, start + Duration::from_secs(second));
        }
        let now = start + Duration::from_secs(7199);
        // Dates count for nothing: neither in 1970 nor in the future.
        let due = |position, grace| {
            let [old, new] = [0, i64::MAX].map(|dated| expiry.is_due(position, dated, grace, now));
            assert_eq!(old, new);
            old
        };
        let oldest = (10..7200).find(|position| !due(*position, Duration::ZERO)).unwrap();
        assert!((3590..=3610).contains(&oldest), "{oldest} is an hour old");
        let oldest = (10..7200).find(|position| !due(*position, WRAP_GRACE)).unwrap();
        assert!((3470..=3490).contains(&oldest), "{oldest}");
        assert!(expiry.marks.len() < 300, "{}", expiry.marks.len());
    }

    #[test]
    fn what_was_there_before_is_aged_by_its_date() {
        let start = caregate_host::clock::monotonic();
        let expiry = Expiry::new(HOUR, 10, NOW_US, start);
        let due = |ago_s: i64, later: Duration| {
            expiry.is_due(9, NOW_US - ago_s * 1_000_000, Duration::ZERO, start + later)
        };
        assert!(due(3600, Duration::ZERO) && !due(3599, Duration::ZERO));
        assert!(due(3599, Duration::from_secs(1)), "and it goes on ageing");
        assert!(!due(-86_400, Duration::ZERO) && !due(-86_400, Duration::from_secs(3599)));
        assert!(due(-86_400, HOUR), "one of the future is as old as this process");
    }

    #[test]
    fn it_is_looked_once_a_minute_unless_something_was_left() {
        let start = caregate_host::clock::monotonic();
        let mut expiry = Expiry::new(HOUR, 1, NOW_US, start);
        assert!(expiry.tick(1, start));
        expiry.looked(false, start);
        assert!(expiry.tick(1, start));
        expiry.looked(true, start);
        assert!(!expiry.tick(1, start + Duration::from_secs(59)));
        assert!(expiry.tick(1, start + Duration::from_secs(60)));
    }
}
