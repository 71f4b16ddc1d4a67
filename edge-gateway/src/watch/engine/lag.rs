//! Whether a reading is of now, or of a sensor's memory: a hub that was out of reach sends what it kept, and the past raises no
//! alarm. Pure; the sensor's clock may be wrong, so what counts is how its times run against ours. Where that leaves a doubt, it is of now.

/// A reading that is later than the promptest of its series by more than this is of the past, in microseconds.
const LATE_US: i64 = 30_000_000;
/// The same for an event: one that waited in a minute's pack, or while a hub sought its network, is of now.
const EVENT_LATE_US: i64 = 120_000_000;
/// In a series that comes rarely it is this part of the pause before it, where that is more: people upload by hand.
const PAUSE_PART: i64 = 8;
/// But no more than this.
const LATE_MAX_US: i64 = 600_000_000;
/// So much of the time that passed may a clock have lost meanwhile: 86 s a day.
const DRIFT_PART: i64 = 1_000;
/// A lag that has not fallen over so long is a clock that is behind, not a memory that is emptied: that runs faster than time.
const SETTLED_US: i64 = 30_000_000;
/// A lag that falls by more than this within [`SETTLED_US`] is a memory's; less may be one reading that was held up.
const FALLEN_US: i64 = 60_000_000;
/// Once it has fallen, by how much it falls on.
const STEP_US: i64 = 1_000_000;
/// For so long after it fell an event is taken as of the same memory.
const FALLING_US: u64 = 10_000_000;
/// No sensor remembers for longer; one that is further behind has lost its clock.
const MEMORY_US: i64 = 7 * 24 * 3_600_000_000;

/// A lag, and when it was seen by our clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    at_us: i64,
    lag_us: i64,
}

impl Seen {
    /// The same where our clock was set by so much meanwhile.
    fn clock_set(self, by_us: i64) -> Self {
        Self { at_us: self.at_us.saturating_add(by_us), lag_us: self.lag_us.saturating_add(by_us) }
    }

    /// How much time passed until a later one, and how far the lag fell.
    fn until(self, later: Self) -> (i64, i64) {
        (later.at_us.saturating_sub(self.at_us), self.lag_us.saturating_sub(later.lag_us))
    }

    /// Whether a later one shows that the sensor's clock is behind. It fell by less than half of the time that passed; and the sensor's time
    /// did not run backwards, as where a memory is emptied with the newest first.
    fn is_clock(self, later: Self) -> bool {
        let (span_us, fallen_us) = self.until(later);
        let is_back = span_us.saturating_add(fallen_us) < 0;
        span_us >= SETTLED_US && fallen_us.saturating_mul(2) < span_us && !is_back
    }
}

/// Readings that are later than the promptest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Late {
    /// What the next one is held against: the first, or where it fell to.
    since: Seen,
    /// How often it fell.
    falls: u8,
    /// Where it fell to before a pause. One that sends packs begins each where the last began; a memory goes on.
    trough: Option<Seen>,
}

/// What is known of one series' lag.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lag {
    /// The least that was of now; before there was one, the sensor's clock is right.
    least: Option<Seen>,
    /// When anything came.
    newest_us: Option<i64>,
    late: Option<Late>,
}

impl Lag {
    /// Whether a reading of `sensor_us` that came at `received_us` is of now. Without a sensor's time every reading is.
    pub(super) fn admits(&mut self, sensor_us: Option<i64>, received_us: i64) -> bool {
        let Some(sensor_us) = sensor_us else { return true };
        let seen = Seen { at_us: received_us, lag_us: received_us.saturating_sub(sensor_us) };
        let before_us = self.newest_us.replace(received_us).unwrap_or(received_us);
        let pause_us = received_us.saturating_sub(before_us);
        if pause_us >= SETTLED_US {
            self.pause(seen);
        }
        let least_us = self.least_us(received_us);
        let late_us = LATE_US.max((pause_us / PAUSE_PART).min(LATE_MAX_US));
        // The first may be of the past itself: until it is known better, the sensor's clock is right.
        if seen.lag_us <= least_us.unwrap_or(0).saturating_add(late_us) {
            self.follow(least_us.map_or(seen.lag_us, |least_us| least_us.min(seen.lag_us)), received_us);
            return true;
        }
        self.is_behind(seen)
    }

    /// Whether an event of `lag_us` that came at `received_us` is of the past; `None` where nothing is known of that clock.
    pub(super) fn is_past(&self, lag_us: i64, received_us: i64) -> Option<bool> {
        let falls = |late: Late| late.falls > 1 && received_us.abs_diff(late.since.at_us) <= FALLING_US;
        let least_us = match self.least_us(received_us) {
            Some(least_us) => least_us,
            None if self.late.is_some_and(falls) => 0,
            None => return None,
        };
        let late_us = lag_us.saturating_sub(least_us);
        Some(late_us > EVENT_LATE_US && late_us <= MEMORY_US)
    }

    /// Our clock was set by so much: a sensor's that runs on has another lag to it, and is no later for that. One that says its times by ours, or
    /// was set with it, has the same lag as before; which it is, the next reading shows. So the least is the greater of the two.
    pub(super) fn clock_set(&mut self, by_us: i64) {
        let doubt_us = by_us.min(0);
        self.least = self.least.map(|least| {
            let moved = least.clock_set(by_us);
            Seen { lag_us: moved.lag_us.saturating_sub(doubt_us), ..moved }
        });
        self.newest_us = self.newest_us.map(|newest_us| newest_us.saturating_add(by_us));
        self.late = self.late.map(|late| Late {
            since: late.since.clock_set(by_us),
            trough: late.trough.map(|trough| trough.clock_set(by_us)),
            ..late
        });
    }

    /// Whether a lag that was admitted is one that a clock that is behind was followed to.
    pub(super) fn is_followed(lag_us: i64) -> bool {
        lag_us > LATE_US
    }

    /// The least by now: a clock drifts.
    fn least_us(&self, at_us: i64) -> Option<i64> {
        let drift_us = |least: Seen| at_us.saturating_sub(least.at_us).max(0) / DRIFT_PART;
        self.least.map(|least| least.lag_us.saturating_add(drift_us(least)))
    }

    fn follow(&mut self, lag_us: i64, at_us: i64) {
        (self.least, self.late) = (Some(Seen { at_us, lag_us }), None);
    }

    /// Looks at one that is late. Returns whether it shows that the sensor's clock is behind, which is followed.
    fn is_behind(&mut self, seen: Seen) -> bool {
        let Some(late) = self.late else {
            self.late = Some(Late { since: seen, falls: 0, trough: None });
            return false;
        };
        if late.since.is_clock(seen) {
            self.follow(seen.lag_us.min(late.since.lag_us), seen.at_us);
            return true;
        }
        let (span_us, fallen_us) = late.since.until(seen);
        let is_back = span_us < 0 || span_us.saturating_add(fallen_us) < 0;
        let enough_us = if late.falls > 0 { STEP_US } else { FALLEN_US };
        if is_back || span_us >= SETTLED_US {
            self.late = Some(Late { since: seen, falls: 0, ..late });
        } else if fallen_us > enough_us && fallen_us.saturating_mul(2) >= span_us {
            self.late = Some(Late { since: seen, falls: late.falls.saturating_add(1), ..late });
        }
        false
    }

    /// Something comes after a pause. Where a lag had fallen before it, only the next fall tells how far it gets.
    fn pause(&mut self, seen: Seen) {
        let Some(late) = self.late.filter(|late| late.falls > 0) else { return };
        match late.trough {
            Some(trough) if trough.is_clock(late.since) => {
                self.follow(late.since.lag_us.min(trough.lag_us), seen.at_us);
            }
            Some(_) | None => self.late = Some(Late { since: seen, falls: 0, trough: Some(late.since) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000;
    const HOUR: i64 = 3_600 * S;

    /// A reading that comes at `at_us` with this lag.
    fn comes(lag: &mut Lag, at_us: i64, lag_us: i64) -> bool {
        lag.admits(Some(at_us - lag_us), at_us)
    }

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
        assert_eq!(lag.is_past(3_000 * S, 3_960 * S), Some(true), "it falls");
        assert_eq!(lag.is_past(3_000 * S, 3_971 * S), None, "it may have ended");
        assert!(lag.admits(Some(3_970 * S), 3_970 * S));
        let mut lag = Lag::default();
        assert!(!lag.admits(Some(0), 3_600 * S));
        assert_eq!(lag.is_past(3_600 * S, 3_600 * S), None, "it may as well be the clock");
        let admitted: Vec<_> = (1..40).filter(|n| lag.admits(Some(n * S), 3_600 * S + n * S)).collect();
        assert_eq!(admitted.first(), Some(&30));
        assert_eq!(lag.is_past(3_600 * S, 3_640 * S), Some(false), "it was the clock");
        assert_eq!(lag.is_past(7_200 * S, 3_640 * S), Some(true));
        assert_eq!(lag.is_past(MEMORY_US + 3_601 * S, 3_640 * S), Some(false), "a clock that was lost");
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

    /// A press now and then, of which one took some seconds, is no memory that is emptied.
    #[test]
    fn a_lag_that_is_less_after_hours_or_by_seconds_tells_of_no_memory() {
        let mut lag = Lag::default();
        assert!(!comes(&mut lag, 0, 7_208 * S) && !comes(&mut lag, 10 * S, 7_150 * S));
        assert_eq!(lag.is_past(7_150 * S, 11 * S), None);
        assert!(!comes(&mut lag, 12 * S, 7_140 * S), "68 s at once: held up, or a memory");
        assert_eq!(lag.is_past(7_140 * S, 12 * S), None);
        let mut lag = Lag::default();
        assert!(!comes(&mut lag, 0, 7_208 * S));
        assert!(comes(&mut lag, HOUR, 7_200 * S));
        assert_eq!(lag.is_past(7_200 * S, 2 * HOUR), Some(false));
    }

    /// What comes by hand: the second shows that it is the clock, and what takes a little longer is of now still.
    #[test]
    fn a_clock_that_is_behind_is_followed_where_the_delay_varies() {
        let mut lag = Lag::default();
        let mut at_us = 0;
        let admitted = [18_010, 18_060, 18_025, 18_090, 18_300, 18_015].map(|lag_s| {
            at_us += 2 * HOUR;
            comes(&mut lag, at_us, lag_s * S)
        });
        assert_eq!(admitted, [false, true, true, true, true, true]);
        // The same each ten seconds.
        let mut lag = Lag::default();
        let admitted: Vec<i64> =
            (0..100_i64).filter(|n| comes(&mut lag, 10 * S * *n, (18_000 + *n * 7 % 9) * S)).collect();
        assert_eq!(admitted, (3..100).collect::<Vec<i64>>());
    }

    #[test]
    fn a_clock_that_drifts_is_followed() {
        let mut lag = Lag::default();
        // Twenty days at 20 ppm, a reading each minute that takes up to three seconds: 35 s in the end.
        for n in 0..28_800_i64 {
            let (at_us, lag_us) = (60 * S * n, 1_200 * n + n % 4 * S);
            assert!(comes(&mut lag, at_us, lag_us), "minute {n}");
            assert_eq!(lag.is_past(lag_us + 3 * S, at_us), Some(false), "minute {n}");
        }
    }

    #[test]
    fn a_clock_of_ours_that_is_set_makes_nothing_late_and_no_memory_of_now() {
        for by_us in [HOUR, -HOUR, 10_000 * 24 * HOUR, -10_000 * 24 * HOUR] {
            // One that runs on, and one that goes by ours.
            for lag_us in [by_us, 0] {
                let mut lag = Lag::default();
                assert!((0..10).all(|n| comes(&mut lag, n * S, 0)));
                lag.clock_set(by_us);
                assert_ne!(lag.is_past(lag_us, 10 * S + by_us), Some(true), "{by_us}, {lag_us}");
                assert!(comes(&mut lag, 10 * S + by_us, lag_us), "{by_us}, {lag_us}");
                assert!(!comes(&mut lag, 11 * S + by_us, lag_us + 60 * S), "{by_us}, {lag_us}");
                assert_eq!(lag.is_past(lag_us, 12 * S + by_us), Some(false), "{by_us}, {lag_us}");
                assert_eq!(lag.is_past(lag_us + 3_000 * S, 12 * S + by_us), Some(true), "{by_us}, {lag_us}");
            }
        }
    }

    #[test]
    fn what_is_being_learned_is_learned_on_when_our_clock_is_set() {
        for by_us in [HOUR, -HOUR] {
            let mut lag = Lag::default();
            let behind_us = 3 * HOUR;
            assert!((0..20).all(|n| !comes(&mut lag, n * S, behind_us)));
            lag.clock_set(by_us);
            let at_us = |n: i64| n * S + by_us;
            let admitted: Vec<_> =
                (20..40).filter(|n| comes(&mut lag, at_us(*n), behind_us + by_us)).collect();
            assert_eq!(admitted.first(), Some(&30), "{by_us}");
        }
    }

    #[test]
    fn a_memory_that_is_emptied_with_the_newest_first_is_of_the_past() {
        let mut lag = Lag::default();
        assert!(comes(&mut lag, 0, 0));
        let at = |n: i64| 2 * HOUR + n * S / 100;
        let admitted = (0..7_200_i64).filter(|n| comes(&mut lag, at(*n), at(*n) - (2 * HOUR - *n * S)));
        assert_eq!(admitted.count(), 30, "those of the last half minute");
    }

    #[test]
    fn a_memory_whose_emptying_breaks_off_is_of_the_past_still() {
        let mut lag = Lag::default();
        for burst in 0..5_i64 {
            for n in 0..100_i64 {
                let (sensor_s, at_us) = (1_000 * burst + 10 * n, 50 * S * burst + n * S / 10);
                assert!(!lag.admits(Some(sensor_s * S - 2 * HOUR), at_us), "burst {burst}, {n}");
            }
        }
    }

    /// Five minutes at once, each five minutes, by a clock that is an hour behind.
    #[test]
    fn packs_of_a_clock_that_is_behind_are_followed() {
        let mut lag = Lag::default();
        let mut pack = |pack: i64| {
            let lags = (3_601..=3_900_i64).rev();
            lags.filter(|lag_s| comes(&mut lag, 300 * S * pack, *lag_s * S)).collect::<Vec<i64>>()
        };
        assert!(pack(0).is_empty() && pack(1).is_empty(), "it may be a memory");
        for n in 2..6 {
            let admitted = pack(n);
            assert_eq!(admitted.last(), Some(&3_601), "pack {n}");
            assert!(admitted.len() >= 30, "pack {n}: {admitted:?}");
        }
    }
}
