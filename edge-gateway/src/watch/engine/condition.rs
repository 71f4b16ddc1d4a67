//! One threshold: beyond it for long enough, and back by enough. Pure.

use std::time::Duration;

/// On which side of the limit a value is beyond it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Below.
    Low,
    /// Above.
    High,
}

/// A limit as it is watched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Threshold {
    /// Which side.
    pub side: Side,
    /// Its value.
    pub limit: f64,
    /// How far a value must come back once the condition was there.
    pub hysteresis: f64,
    /// For how long a value must be beyond.
    pub delay: Duration,
}

impl Threshold {
    /// Whether a value is beyond; once it `is_there`, until it has come back by the hysteresis.
    fn is_beyond(&self, value: f64, is_there: bool) -> bool {
        let give = if is_there { self.hysteresis } else { 0.0 };
        match self.side {
            Side::Low => value < self.limit + give,
            Side::High => value > self.limit - give,
        }
    }
}

/// What is known of one threshold.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Condition {
    /// Since when every value was beyond, and the newest of them.
    beyond: Option<(Duration, f64)>,
    is_there: bool,
}

impl Condition {
    /// Looks at a value that came at `now`.
    pub(super) fn see(&mut self, threshold: &Threshold, value: f64, now: Duration) {
        if threshold.is_beyond(value, self.is_there) {
            let since = self.beyond.map_or(now, |(since, _)| since);
            self.beyond = Some((since, value));
        } else {
            *self = Self::default();
        }
        self.pass(threshold, now);
    }

    /// Looks at the clock: a value that nothing contradicts goes on to hold.
    pub(super) fn pass(&mut self, threshold: &Threshold, now: Duration) {
        let is_due = |since: Duration| now.saturating_sub(since) >= threshold.delay;
        self.is_there |= self.beyond.is_some_and(|(since, _)| is_due(since));
    }

    /// The newest value, where the condition is there.
    #[must_use]
    pub(super) fn value(&self) -> Option<f64> {
        self.beyond.filter(|_| self.is_there).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOW: Threshold =
        Threshold { side: Side::Low, limit: 90.0, hysteresis: 2.0, delay: Duration::from_secs(10) };

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn it_waits_for_its_delay_and_for_its_hysteresis() {
        let mut condition = Condition::default();
        condition.see(&LOW, 89.0, seconds(0));
        condition.pass(&LOW, seconds(9));
        assert_eq!(condition.value(), None);
        condition.pass(&LOW, seconds(10));
        assert_eq!(condition.value(), Some(89.0));
        condition.see(&LOW, 91.9, seconds(11));
        assert_eq!(condition.value(), Some(91.9), "it has not come back by two");
        condition.see(&LOW, 92.0, seconds(12));
        assert_eq!(condition.value(), None);
        condition.see(&LOW, 90.0, seconds(13));
        condition.pass(&LOW, seconds(60));
        assert_eq!(condition.value(), None, "the limit itself is within");
        condition.see(&LOW, 80.0, seconds(61));
        condition.see(&LOW, 95.0, seconds(65));
        condition.see(&LOW, 80.0, seconds(66));
        condition.pass(&LOW, seconds(75));
        assert_eq!(condition.value(), None, "one good value begins the delay anew");
    }

    proptest! {
        /// Against the definition: walk back from the end and look for a stretch of values beyond that was long enough.
        #[test]
        fn it_is_there_just_when_a_stretch_was_long_enough(
            steps in prop::collection::vec((0_u64..8, 80.0_f64..100.0), 1..40),
            delay in 0_u64..20,
            hysteresis in 0.0_f64..5.0,
            high in any::<bool>(),
        ) {
            let side = if high { Side::High } else { Side::Low };
            let threshold = Threshold { side, limit: 90.0, hysteresis, delay: seconds(delay) };
            let (mut condition, mut now) = (Condition::default(), 0);
            let (mut since, mut there): (Option<u64>, bool) = (None, false);
            for (step, value) in steps {
                now += step;
                // Before the value: the one before held until now.
                there |= since.is_some_and(|since| now - since >= delay);
                let give = if there { hysteresis } else { 0.0 };
                let beyond = if high { value > 90.0 - give } else { value < 90.0 + give };
                (since, there) = if beyond { (since.or(Some(now)), there) } else { (None, false) };
                there |= since.is_some_and(|since| now - since >= delay);
                condition.pass(&threshold, seconds(now));
                condition.see(&threshold, value, seconds(now));
                prop_assert_eq!(condition.value(), there.then_some(value));
            }
        }
    }
}
