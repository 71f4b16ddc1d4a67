//! One device's series of one quantity: how often it comes, whether it still does, and which numbers are missing. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use super::lag::Lag;

/// Gaps between readings that the usual interval is taken from; fewer than [`GAPS_MIN`] make none.
const GAPS: usize = 8;
/// Four readings come before a series is expected to go on.
const GAPS_MIN: usize = 3;
/// A series is lost when nothing came for so long, or for `MISSED` usual intervals where that is longer. With the engine's tick of a
/// second the alarm is there within 10 s.
pub const LOST_AFTER: Duration = Duration::from_secs(9);
/// Usual intervals after which one that comes more rarely is lost.
const MISSED: u32 = 3;
/// What comes more rarely than this is measured now and then, not watched.
const INTERVAL_MAX: Duration = Duration::from_secs(600);
/// The same for quantities that people measure by hand.
const INTERVAL_SPOT_MAX: Duration = Duration::from_secs(30);
/// Numbers that a single jump counts as missing at most; a greater one is a counter that was set.
const MISSING_MAX: u64 = 100_000;
/// For so long after a device was heard it is known how its clock stands.
const CLOCK_KNOWN_FOR: Duration = Duration::from_secs(600);
/// What comes within so long is one arrival: a pack of readings, or a few that were sent together.
const TOGETHER: Duration = Duration::from_millis(100);

/// A series.
#[derive(Debug, Clone, Default)]
pub(super) struct Series {
    lag: Lag,
    /// When anything came, of now or of the past.
    heard: Duration,
    /// When the newest came that was of now.
    newest: Option<Duration>,
    /// When the first came of those that came together with the newest.
    arrived: Option<Duration>,
    gaps: VecDeque<Duration>,
    sequence: Option<u64>,
    missing: u64,
    /// Nobody expects it to go on: somebody acknowledged that it had stopped.
    let_go: bool,
    /// Its values are not told, as [`super::Observation::is_withheld`] says.
    pub(super) is_withheld: bool,
}

impl Series {
    /// Notes a reading. Returns whether it is of now, and how many numbers are missing before it.
    pub(super) fn note(
        &mut self,
        sequence: Option<u64>,
        sensor_us: Option<i64>,
        received_us: i64,
        now: Duration,
    ) -> (bool, u64) {
        let missing = self.missing_before(sequence);
        self.missing += missing;
        self.heard = now;
        let is_now = self.lag.admits(sensor_us, received_us);
        if is_now {
            self.arrive(now);
        }
        (is_now, missing)
    }

    /// What is of the past says nothing of how the series goes on.
    fn arrive(&mut self, now: Duration) {
        self.let_go = false;
        self.newest = Some(now);
        let gap = self.arrived.map(|arrived| now.saturating_sub(arrived));
        if gap.is_some_and(|gap| gap < TOGETHER) {
            return;
        }
        self.arrived = Some(now);
        self.gaps.extend(gap);
        if self.gaps.len() > GAPS {
            self.gaps.pop_front();
        }
    }

    /// What it says of its device's clock, as [`Lag::is_past`] does; nothing where it was not heard lately.
    #[must_use]
    pub(super) fn is_past(&self, lag_us: i64, received_us: i64, now: Duration) -> Option<bool> {
        if self.knows_clock(now) { self.lag.is_past(lag_us, received_us) } else { None }
    }

    fn knows_clock(&self, now: Duration) -> bool {
        now.saturating_sub(self.heard) <= CLOCK_KNOWN_FOR
    }

    /// Forgets how its device's clock stood, where it was not heard lately. Events come months apart: by then a clock has drifted.
    pub(super) fn forget_clock(&mut self, now: Duration) {
        if !self.knows_clock(now) {
            self.lag = Lag::default();
        }
    }

    /// The gateway's clock was set by so much.
    pub(super) fn clock_set(&mut self, by_us: i64) {
        self.lag.clock_set(by_us);
    }

    /// When the newest came that was of now.
    #[must_use]
    pub(super) fn newest(&self) -> Option<Duration> {
        self.newest
    }

    fn missing_before(&mut self, sequence: Option<u64>) -> u64 {
        let Some(sequence) = sequence else { return 0 };
        let before = self.sequence.replace(sequence);
        let jump = before.and_then(|before| sequence.checked_sub(before)).unwrap_or(0);
        if jump > MISSING_MAX { 0 } else { jump.saturating_sub(1) }
    }

    /// How often it usually comes: the median of its last gaps.
    #[must_use]
    pub(super) fn interval(&self) -> Option<Duration> {
        if self.gaps.len() < GAPS_MIN {
            return None;
        }
        let mut gaps: Vec<_> = self.gaps.iter().copied().collect();
        gaps.sort_unstable();
        gaps.get(gaps.len() / 2).copied()
    }

    /// Whether it came regularly and comes no more. `is_spot` says that people measure it by hand.
    #[must_use]
    pub(super) fn is_lost(&self, is_spot: bool, now: Duration) -> bool {
        let (Some(interval), Some(newest), false) = (self.interval(), self.newest, self.let_go) else {
            return false;
        };
        let watched = interval <= if is_spot { INTERVAL_SPOT_MAX } else { INTERVAL_MAX };
        watched && now.saturating_sub(newest) >= LOST_AFTER.max(interval * MISSED)
    }

    /// Whether a value of it still says something: it came within [`LOST_AFTER`], or within `MISSED` of its usual intervals.
    #[must_use]
    pub(super) fn is_fresh(&self, now: Duration) -> bool {
        let most = LOST_AFTER.max(self.interval().unwrap_or_default() * MISSED);
        self.newest.is_some_and(|newest| now.saturating_sub(newest) < most)
    }

    /// Nobody expects it to go on until it does.
    pub(super) fn let_go(&mut self) {
        self.let_go = true;
        self.gaps.clear();
    }

    /// Numbers that never came, since the start.
    #[must_use]
    pub(super) fn missing(&self) -> u64 {
        self.missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coming_every(ms: u64, times: u64) -> Series {
        let mut series = Series::default();
        for n in 0..times {
            series.note(None, None, 0, Duration::from_millis(n * ms));
        }
        series
    }

    fn lost_at(series: &Series, is_spot: bool) -> Option<u64> {
        (0..10_000).find(|s| series.is_lost(is_spot, Duration::from_secs(*s)))
    }

    #[test]
    fn what_came_regularly_is_missed_in_time() {
        assert_eq!(lost_at(&coming_every(1_000, 5), false), Some(4 + 9));
        assert_eq!(lost_at(&coming_every(60_000, 5), false), Some(4 * 60 + 180));
        assert_eq!(lost_at(&coming_every(60_000, 5), true), None, "a cuff");
        assert_eq!(lost_at(&coming_every(1_000_000, 5), false), None);
        assert_eq!(lost_at(&coming_every(1_000, 3), false), None, "not yet regular");
        let mut series = coming_every(1_000, 5);
        series.let_go();
        assert_eq!(lost_at(&series, false), None);
        series = coming_every(1_000, 9);
        series.note(None, None, 0, Duration::from_secs(9));
        assert!(series.is_fresh(Duration::from_secs(17)) && !series.is_fresh(Duration::from_secs(18)));
    }

    /// A pack an hour is no series that comes all the time, however many readings are in it.
    #[test]
    fn what_comes_together_is_one_arrival() {
        let mut series = Series::default();
        for pack in 0..6 {
            for n in 0..60 {
                let now = Duration::from_secs(3_600 * pack) + Duration::from_millis(n);
                series.note(None, None, 0, now);
            }
            assert!(!series.is_lost(false, Duration::from_secs(3_600 * pack + 60)), "pack {pack}");
        }
        assert_eq!(series.interval(), Some(Duration::from_secs(3_600)));
    }

    #[test]
    fn what_is_late_neither_keeps_a_series_fresh_nor_counts_as_its_interval() {
        let mut series = coming_every(1_000, 5);
        let late = |series: &mut Series, n: i64| {
            let received = 100_000_000_000 + n;
            series.note(None, Some(n * 1_000_000), received, Duration::from_secs(60)).0
        };
        assert!(series.note(None, Some(1), 1, Duration::from_secs(5)).0);
        assert!((0..20).all(|n| !late(&mut series, n)));
        assert_eq!(series.interval(), Some(Duration::from_secs(1)));
        assert!(!series.is_fresh(Duration::from_secs(60)) && series.is_lost(false, Duration::from_secs(60)));
        series.let_go();
        assert!(!late(&mut series, 20));
        assert!(series.let_go);
    }

    #[test]
    fn missing_numbers_are_counted_and_a_counter_may_begin_anew() {
        let mut series = Series::default();
        let mut note = |sequence| series.note(Some(sequence), None, 0, Duration::ZERO).1;
        assert_eq!([5, 6, 9, 9, 8, 10, 0, 1, 1_000_000].map(&mut note), [0, 0, 2, 0, 0, 1, 0, 0, 0]);
        assert_eq!(series.missing(), 3);
    }
}
