//! How large the next group is to become. Pure.

use std::time::Duration;

use super::GATHERED_ENOUGH;

/// How long the next group may grow after a sync that was quicker, where groups fill: more than that costs who sends by the clock.
pub(super) const GROWN_WITHIN: Duration = Duration::from_millis(1);
/// And to how many at most: from there on a group's own cost, a signature here and its check at the core and at each feed, is small beside its
/// readings'.
const GROWN_MAX: usize = 256;
/// Commits after which it is tried again where groups did not fill: one client with a small window never fills more than that.
const GROWN_AGAIN: u32 = 64;

/// How large the next group is to become where a disk is quick and many send. Groups of what comes within such a sync alone are small, and each
/// costs a signature, its check at the core and at each feed, and more. It doubles as long as groups fill in time, and is halved where one did
/// not.
#[derive(Debug)]
pub(super) struct Growth {
    next: usize,
    /// Commits until it is tried again.
    rests: u32,
}

impl Default for Growth {
    fn default() -> Self {
        Self { next: 2 * GATHERED_ENOUGH, rests: 0 }
    }
}

impl Growth {
    /// To how many the next group is to grow after one of which so many were answered; none where it is not.
    pub(super) fn wanted(&mut self, answered: usize) -> Option<usize> {
        if self.rests > 0 {
            self.rests -= 1;
            return None;
        }
        (answered >= GATHERED_ENOUGH).then_some(self.next)
    }

    /// A group that was to grow has ended.
    pub(super) fn ended(&mut self, is_full: bool) {
        self.next = if is_full { (self.next * 2).min(GROWN_MAX) } else { self.next / 2 };
        if self.next <= GATHERED_ENOUGH {
            *self = Self { rests: GROWN_AGAIN, ..Self::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use caregate_host::clock;

    use super::*;
    use crate::pipeline::front::tests::{LONG, front, is_over, push};

    #[tokio::test]
    async fn groups_grow_for_as_long_as_they_fill_in_time_and_an_alarm_waits_for_none() {
        let now = clock::monotonic();
        let (_inlet, front) = front();
        let fill = |with: usize| (0..with).for_each(|_| push(&front, "num/heart-rate", Duration::ZERO));
        let mut wanted = Vec::new();
        for _ in 0..6 {
            front.hold(GATHERED_ENOUGH, Duration::ZERO, now + LONG);
            wanted.push(front.window().gathered.wanted);
            fill(wanted.last().unwrap() - 1);
            assert!(!is_over(&front).await);
            fill(1);
            assert!(is_over(&front).await);
            front.gathered();
        }
        assert_eq!(wanted, [32, 64, 128, 256, 256, 256]);
        // Those that don't fill in time are halved, and in the end it is left for a while.
        let mut grown = 0;
        for _ in 0..GROWN_AGAIN {
            front.hold(GATHERED_ENOUGH, Duration::ZERO, now);
            grown += usize::from(front.window().gathered.grows);
            fill(GATHERED_ENOUGH);
            front.gathered();
        }
        assert_eq!(grown, 4, "128, 64 and 32 after the first of 256");
        // Where few send it is not begun.
        let (_inlet, front) = self::front();
        front.hold(GATHERED_ENOUGH - 1, Duration::ZERO, now + LONG);
        assert!(!front.window().gathered.grows);
        front.hold(GATHERED_ENOUGH, Duration::ZERO, now + LONG);
        push(&front, "event/fall", Duration::ZERO);
        assert!(is_over(&front).await);
    }
}
