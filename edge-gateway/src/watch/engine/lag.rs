//! Whether a reading is of now, or of a sensor's memory: a hub that was out of reach sends what it kept, and the past raises no
//! alarm. Pure; the sensor's clock may be wrong, so what counts is how its times run against ours.

/// A reading that is later than the promptest of its series by more than this is of the past, in microseconds.
const LATE_US: i64 = 30_000_000;
/// A lag that stays the same for so long is a clock that was set, not a memory that is emptied: that runs faster than time.
const SETTLED_US: i64 = 30_000_000;
/// Within how much a lag counts as the same.
const SAME_US: i64 = 5_000_000;
/// No sensor remembers for longer; one that is further behind has lost its clock.
const MEMORY_US: i64 = 7 * 24 * 3_600_000_000;

/// What is known of one series' lag.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lag {
    /// The least seen; before anything was of now, none of ours or the sensor's clock being ahead.
    least_us: Option<i64>,
    /// A reading was of now, so that the least is one that was seen.
    is_known: bool,
    /// A greater one: since when, and how much.
    late: Option<(i64, i64)>,
    /// The greater one has become less: a memory is being emptied.
    shrinks: bool,
}

impl Lag {
    /// Whether a reading of `sensor_us` that came at `received_us` is of now. Without a sensor's time every reading is.
    pub(super) fn admits(&mut self, sensor_us: Option<i64>, received_us: i64) -> bool {
        let Some(sensor_us) = sensor_us else { return true };
        let lag = received_us.saturating_sub(sensor_us);
        // The first may be of the past itself: until it is known better, the sensor's clock is right.
        let least = *self.least_us.get_or_insert_with(|| lag.min(0));
        if lag <= least.saturating_add(LATE_US) {
            *self = Self { least_us: Some(least.min(lag)), is_known: true, ..Self::default() };
            return true;
        }
        match self.late {
            Some((since, same)) if lag.abs_diff(same) <= SAME_US.unsigned_abs() => {
                if received_us.saturating_sub(since) < SETTLED_US {
                    return false;
                }
                *self = Self { least_us: Some(lag), is_known: true, ..Self::default() };
                true
            }
            before => {
                self.shrinks = before.is_some_and(|(_, before)| lag < before);
                self.late = Some((received_us, lag));
                false
            }
        }
    }

    /// Whether something that comes so much later than its sensor's time is of the past; `None` where nothing is known of that clock.
    pub(super) fn is_past(&self, lag_us: i64) -> Option<bool> {
        let least = self.least_us?;
        let is_memory = lag_us <= least.saturating_add(MEMORY_US);
        let is_late = lag_us > least.saturating_add(LATE_US) && is_memory;
        (self.is_known || self.shrinks).then_some(is_late)
    }

    /// Whether a lag that was admitted is one that a clock that is behind was followed to.
    pub(super) fn is_followed(lag_us: i64) -> bool {
        lag_us > LATE_US
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000;

    #[test]
    fn a_memory_that_is_emptied_is_of_the_past_until_it_has_caught_up() {
        let mut lag = Lag::default();
        assert!((0..10).all(|n| lag.admits(Some(n * S), n * S + 5)));
        // Two minutes out of reach, then ten readings a second.
        let admitted: Vec<_> =
            (0..140).filter(|n| lag.admits(Some((10 + n) * S), 130 * S + n * S / 10)).collect();
        assert_eq!(admitted.first(), Some(&100), "30 s late at most: 120 − n + n/10 ≤ 30");
        assert_eq!(admitted.len(), 40);
    }

    #[test]
    fn a_memory_that_is_the_first_thing_heard_is_of_the_past_too() {
        let mut lag = Lag::default();
        // An hour of it, ten readings a second, then on by the second.
        let admitted: Vec<_> =
            (0..3_600).filter(|n| lag.admits(Some(n * S), 3_600 * S + n * S / 10)).collect();
        assert!(admitted.is_empty(), "at the end 360 s are missing still");
        assert_eq!(lag.is_past(3_000 * S), Some(true), "it has become less");
        assert!(lag.admits(Some(3_970 * S), 3_970 * S));
        let mut lag = Lag::default();
        assert!(!lag.admits(Some(0), 3_600 * S));
        assert_eq!(lag.is_past(3_600 * S), None, "it may as well be the clock");
        let admitted: Vec<_> = (1..40).filter(|n| lag.admits(Some(n * S), 3_600 * S + n * S)).collect();
        assert_eq!(admitted.first(), Some(&30));
        assert_eq!(lag.is_past(3_600 * S), Some(false), "it was the clock");
        assert_eq!(lag.is_past(7_200 * S), Some(true));
        assert_eq!(lag.is_past(MEMORY_US + 3_601 * S), Some(false), "a clock that was lost");
    }

    #[test]
    fn a_clock_that_was_set_is_followed_and_no_clock_is_of_now() {
        let mut lag = Lag::default();
        assert!(lag.admits(Some(1_000 * S), 0));
        let admitted: Vec<_> =
            (1..60).filter(|n| lag.admits(Some((1_000 - 600) * S + n * S), n * S)).collect();
        assert_eq!(admitted.first(), Some(&31));
        assert_eq!(admitted.len(), 29);
        assert!(lag.admits(Some(5_000 * S), 61 * S), "one that was set forward is followed at once");
        assert!(lag.admits(None, 62 * S));
    }
}
