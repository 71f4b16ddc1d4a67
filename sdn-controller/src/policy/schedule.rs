//! When a gateway gets its next bundle. Pure.

use std::time::Duration;

/// A gateway hears at least so often that its policy is fresh.
pub const BUNDLE_INTERVAL: Duration = Duration::from_secs(10);
/// A block without a change waits for so long after the last bundle: an idle chain makes one every 10 s, a busy one every second.
const QUIET_INTERVAL: Duration = Duration::from_secs(5);
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
    head: u64,
    failures: u32,
}

impl Schedule {
    /// A gateway that has just said what it watches: it gets a bundle at once.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self { state: State::Idle { due: now }, sent: None, changed: 0, head: 0, failures: 0 }
    }

    /// When [`begin`](Self::begin) says yes next; none while one is being made.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        match self.state {
            State::Idle { due } => Some(due),
            State::Making => None,
        }
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
        if self.changed > number {
            now
        } else if self.head > number {
            at + QUIET_INTERVAL
        } else {
            at + BUNDLE_INTERVAL
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    /// A gateway that got the bundle of block 5 at second 0.
    fn served() -> Schedule {
        let mut schedule = Schedule::new(S(0));
        assert!(schedule.begin(S(0)));
        assert_eq!(schedule.due(), None);
        schedule.head(5, 3, S(0));
        schedule.sent(5, S(0));
        schedule
    }

    #[test]
    fn one_at_once_and_then_every_ten_seconds() {
        let mut schedule = served();
        assert_eq!(schedule.due(), Some(S(10)));
        assert!(!schedule.begin(S(9)));
        assert!(schedule.begin(S(10)));
        schedule.sent(5, S(11));
        assert_eq!(schedule.due(), Some(S(21)));
    }

    #[test]
    fn a_change_at_once_and_another_block_not_before_five_seconds() {
        let mut schedule = served();
        schedule.head(6, 3, S(1));
        assert_eq!(schedule.due(), Some(S(5)));
        schedule.head(7, 7, S(2));
        assert_eq!(schedule.due(), Some(S(2)));
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
        assert_eq!(schedule.due(), Some(S(12)));
    }

    #[test]
    fn failures_are_tried_again_with_growing_pauses() {
        let mut schedule = Schedule::new(S(0));
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
        assert_eq!(schedule.due(), Some(now + BUNDLE_INTERVAL));
    }

    #[test]
    fn a_ledger_that_began_anew_is_told_at_once() {
        let mut schedule = served();
        schedule.head(2, 1, S(3));
        assert_eq!(schedule.due(), Some(S(3)));
    }
}
