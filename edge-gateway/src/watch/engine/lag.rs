//! Whether a reading is of now, or of a sensor's memory: a hub that was out of reach sends what it kept, and the past raises no
//! alarm. Pure; the sensor's clock may be wrong, so what counts is how its times run against ours.

/// A reading that is later than the promptest of its series by more than this is of the past, in microseconds.
const LATE_US: i64 = 30_000_000;
/// A lag that stays the same for so long is a clock that was set, not a memory that is emptied: that runs faster than time.
const SETTLED_US: i64 = 30_000_000;
/// Within how much a lag counts as the same.
const SAME_US: i64 = 5_000_000;

/// What is known of one series' lag.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lag {
    /// The least seen.
    least_us: Option<i64>,
    /// A greater one: since when, and how much.
    late: Option<(i64, i64)>,
}

impl Lag {
    /// Whether a reading of `sensor_us` that came at `received_us` is of now. Without a sensor's time every reading is.
    pub(super) fn admits(&mut self, sensor_us: Option<i64>, received_us: i64) -> bool {
        let Some(sensor_us) = sensor_us else { return true };
        let lag = received_us.saturating_sub(sensor_us);
        let least = *self.least_us.get_or_insert(lag);
        if lag <= least.saturating_add(LATE_US) {
            self.least_us = Some(least.min(lag));
            self.late = None;
            return true;
        }
        match self.late {
            Some((since, same)) if lag.abs_diff(same) <= SAME_US.unsigned_abs() => {
                if received_us.saturating_sub(since) < SETTLED_US {
                    return false;
                }
                (self.least_us, self.late) = (Some(lag), None);
                true
            }
            Some(_) | None => {
                self.late = Some((received_us, lag));
                false
            }
        }
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
