//! When a gateway gets its next bundle. Pure.
//!
//! A change of what a gateway watches is sent at once. All else only says that its policy is fresh, and comes once in
//! [`BUNDLE_INTERVAL`], to each gateway at a moment of its own: so a block that changes nothing for a thousand gateways costs a hundred
//! bundles a second, and holds up nobody whom the next one changes something for.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// A gateway hears at least so often that its policy is fresh.
pub const BUNDLE_INTERVAL: Duration = Duration::from_secs(10);
/// Pauses after a bundle that could not be made: the first, doubled up to the last.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// One is due then.
    Idle {
        due: Duration,
    },
    Making,
}

/// One gateway's.
#[derive(Debug)]
pub struct Schedule {
    state: State,
    /// The block of the newest bundle that was sent, and when.
    sent: Option<(u64, Duration)>,
    /// The block of the newest change of what the gateway watches.
    changed: u64,
    failures: u32,
    head: u64,
    /// Bundles without a change are due at this time and every [`BUNDLE_INTERVAL`] after it; below that interval.
    moment: Duration,
}

/// A gateway's own moment in the interval, by its name: those that come back together don't stay together.
#[must_use]
pub fn moment(name: &str) -> Duration {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let interval_ms = u64::try_from(BUNDLE_INTERVAL.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(hasher.finish() % interval_ms)
}

impl Schedule {
    /// A gateway that has just said what it watches: it gets a bundle at once, and those without a change at its [`moment`].
    #[must_use]
    pub fn new(now: Duration, moment: Duration) -> Self {
        Self { state: State::Idle { due: now }, sent: None, changed: 0, failures: 0, head: 0, moment }
    }

    /// When [`begin`](Self::begin) says yes next; none while one is being made.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        match self.state {
            State::Idle { due } => Some(due),
            State::Making => None,
        }
    }

    /// Whether what is watched has changed since the last bundle, or there was none.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.sent.is_none_or(|(number, _)| self.changed > number)
    }

    /// Whether a bundle is to be made now; then it counts as being made.
    pub fn begin(&mut self, now: Duration) -> bool {
        let begins = self.due().is_some_and(|due| now >= due);
        if begins {
            self.state = State::Making;
        }
        begins
    }

    /// The ledger's newest block, and the block of the last change of what the gateway watches.
    pub fn head(&mut self, number: u64, changed: u64, now: Duration) {
        // A ledger that began anew counts from the beginning again.
        if number < self.head {
            self.sent = self.sent.map(|(_, at)| (0, at));
        }
        (self.head, self.changed) = (number, changed);
        if let State::Idle { due } = self.state
            && self.failures == 0
        {
            self.state = State::Idle { due: due.min(self.next(now)) };
        }
    }

    /// The bundle was made of this block and sent.
    pub fn sent(&mut self, number: u64, now: Duration) {
        self.sent = Some((number, now));
        self.failures = 0;
        self.state = State::Idle { due: self.next(now) };
    }

    /// It could not be made.
    pub fn failed(&mut self, now: Duration) {
        let pause = RETRY.0.saturating_mul(1 << self.failures.min(8)).min(RETRY.1);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Idle { due: now + pause };
    }

    fn next(&self, now: Duration) -> Duration {
        let Some((number, at)) = self.sent else { return now };
        if self.changed > number { now } else { self.after(at) }
    }

    /// The gateway's first moment after `at`.
    fn after(&self, at: Duration) -> Duration {
        let intervals = at.saturating_sub(self.moment).as_millis() / BUNDLE_INTERVAL.as_millis();
        let ahead = if at < self.moment { 0 } else { u32::try_from(intervals).unwrap_or(u32::MAX - 1) + 1 };
        self.moment + BUNDLE_INTERVAL.saturating_mul(ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    /// A gateway that got the bundle of block 5 at second 0.
    fn served() -> Schedule {
        let mut schedule = Schedule::new(S(0), S(7));
        assert!(schedule.is_changed() && schedule.begin(S(0)));
        assert_eq!(schedule.due(), None);
        schedule.head(5, 3, S(0));
        schedule.sent(5, S(0));
        schedule
    }

    #[test]
    fn one_at_once_and_then_at_its_moment_in_every_ten_seconds() {
        let mut schedule = served();
        assert_eq!(schedule.due(), Some(S(7)));
        assert!(!schedule.begin(S(6)));
        assert!(schedule.begin(S(7)));
        schedule.sent(5, S(8));
        assert_eq!(schedule.due(), Some(S(17)));
        assert!(schedule.begin(S(17)));
        schedule.sent(5, S(17));
        assert_eq!(schedule.due(), Some(S(27)));
    }

    #[test]
    fn a_change_at_once_and_any_other_block_at_its_moment() {
        let mut schedule = served();
        schedule.head(6, 3, S(1));
        assert_eq!(schedule.due(), Some(S(7)));
        assert!(!schedule.is_changed());
        schedule.head(7, 7, S(2));
        assert_eq!(schedule.due(), Some(S(2)));
        assert!(schedule.is_changed());
    }

    #[test]
    fn a_thousand_gateways_are_spread_over_the_interval() {
        let mut tenths = [0; 100];
        for n in 0..1000 {
            tenths[usize::try_from(moment(&format!("home-{n}")).as_millis() / 100).unwrap()] += 1;
        }
        // Ten each on average; a binomial spread passes thirty once in ten million.
        assert!(tenths.iter().all(|count| *count < 30), "{tenths:?}");
    }

    #[test]
    fn a_change_while_one_is_made_is_in_it_or_in_the_next() {
        let mut schedule = served();
        schedule.head(6, 6, S(1));
        assert!(schedule.begin(S(1)));
        schedule.head(7, 7, S(1));
        schedule.sent(6, S(2));
        assert_eq!(schedule.due(), Some(S(2)), "it was of the block before");
        assert!(schedule.begin(S(2)));
        schedule.sent(7, S(2));
        assert_eq!(schedule.due(), Some(S(7)));
    }

    #[test]
    fn failures_are_tried_again_with_growing_pauses() {
        let mut schedule = Schedule::new(S(0), S(7));
        let mut pauses = Vec::new();
        let mut now = S(0);
        for _ in 0..7 {
            assert!(schedule.begin(now));
            schedule.failed(now);
            // Blocks don't shorten the pause.
            schedule.head(9, 9, now);
            let due = schedule.due().unwrap();
            pauses.push((due - now).as_millis());
            now = due;
        }
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 5000, 5000]);
        assert!(schedule.begin(now));
        schedule.sent(9, now);
        assert_eq!(schedule.due(), Some(S(27)), "{now:?}");
    }

    #[test]
    fn a_ledger_that_began_anew_is_told_at_once() {
        let mut schedule = served();
        schedule.head(2, 1, S(3));
        assert_eq!(schedule.due(), Some(S(3)));
    }
}
