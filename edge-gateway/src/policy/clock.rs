//! The time by which policy is judged. A verified header is proof that its moment is past, and the monotonic clock counts on from there;
//! the wall's clock may say that it is later and not that it is earlier. So whoever holds back headers can't keep a policy young by setting
//! the clock back to just behind the newest one, again and again, in one process or over many.

use std::time::{Duration, Instant};

use caregate_protocol::policy::{CLOCK_BEHIND_MAX_S, ClockOffset};
use serde::{Deserialize, Serialize};

/// What has passed is written down each time that this part of a policy's life has: a flash is written to every two minutes at most.
pub const KEPT_PARTS: u64 = 5;

/// One moment by both clocks of the machine.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Unix time in seconds, by a clock that anybody on the machine or in the network may have set.
    pub unix_s: u64,
    /// By the clock that nobody sets; of this process alone.
    pub at: Instant,
}

/// What a process leaves to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptClock {
    /// A moment that is past, in Unix seconds.
    pub floor_s: u64,
    /// Seconds that may have passed beside since the newest header: of processes that ended without a word.
    pub doubt_s: u64,
    /// Whether this was written at a process's end, so that none of its time is missing.
    pub is_whole: bool,
}

/// By how much of what the monotonic clock counts a header may set the floor back, as one part in so many: crystals and slewed clocks are off
/// by less than a thousandth, and it must not add up over years. Who holds headers back gains a hundredth of the time by it.
const DRIFT_PART: u32 = 100;

/// Counts on from the newest header.
#[derive(Debug, Clone)]
pub struct PolicyClock {
    /// Since 1970, a moment that is past, and when that was so.
    floor: (Duration, Instant),
    /// By how much the wall's clock was behind when the newest header came, in seconds.
    behind_s: u64,
    doubt_s: u64,
    started: Instant,
    /// Whether a header has come in this process.
    is_heard: bool,
    kept: Option<KeptClock>,
    /// The age at which a policy is stale, in seconds.
    staleness_max_s: u64,
}

impl PolicyClock {
    /// With what the process before has left, or the newest header's time. Nothing is written down before [`Self::due`] says so: a
    /// process that only looks, or does not get far, leaves what it found.
    #[must_use]
    pub fn new(kept: Option<KeptClock>, header_s: u64, staleness_max_s: u64, at: Instant) -> Self {
        let before = kept.unwrap_or(KeptClock { floor_s: header_s, doubt_s: 0, is_whole: true });
        let missing_s = if before.is_whole { 0 } else { staleness_max_s / KEPT_PARTS };
        Self {
            floor: (Duration::from_secs(before.floor_s.max(header_s)), at),
            behind_s: 0,
            doubt_s: before.doubt_s.saturating_add(missing_s),
            started: at,
            is_heard: false,
            kept: None,
            staleness_max_s,
        }
    }

    /// A header that is newer than any before has come: its moment is past. It ends the doubt only where this process has run for as long
    /// as a policy lives: one that is killed after each header that was held back for it would never have any.
    pub fn heard(&mut self, header_s: u64, now: Now) {
        let (floor, header) = (self.floor(now.at), Duration::from_secs(header_s));
        let drift = now.at.saturating_duration_since(self.floor.1) / DRIFT_PART;
        self.floor = (floor.saturating_sub(drift).max(header).min(floor.max(header)), now.at);
        self.behind_s = self.floor.0.as_secs().saturating_sub(now.unix_s);
        self.is_heard = true;
        if now.at.saturating_duration_since(self.started).as_secs() >= self.staleness_max_s {
            self.doubt_s = 0;
        }
    }

    /// What is known of the wall's clock. It is unknown once it was set back by more than clocks differ since the newest header came.
    #[must_use]
    pub fn offset(&self, now: Now) -> ClockOffset {
        let behind_s = self.floor(now.at).as_secs().saturating_sub(now.unix_s);
        if behind_s > self.behind_s.saturating_add(CLOCK_BEHIND_MAX_S) {
            ClockOffset::Unknown
        } else {
            ClockOffset::Known { behind_s, doubt_s: self.doubt_s }
        }
    }

    /// Unix seconds that are past for certain, and when that was so, for who holds a header's time against the clock. None where there is
    /// nothing to hold it against: before this process has heard one, and where the clock was set back.
    #[must_use]
    pub fn reference(&self, now: Now) -> Option<(u64, Instant)> {
        let is_known = self.is_heard && self.offset(now) != ClockOffset::Unknown;
        is_known.then(|| (self.floor(now.at).as_secs(), now.at))
    }

    /// What is to be written down by now, if anything: a process that ends without a word leaves so much of its time out at most.
    #[must_use]
    pub fn due(&self, at: Instant) -> Option<KeptClock> {
        let now = self.kept_now(at);
        let every_s = self.staleness_max_s / KEPT_PARTS;
        let is_due = self.kept.is_none_or(|kept| now.floor_s >= kept.floor_s.saturating_add(every_s));
        is_due.then_some(now)
    }

    /// What would be written down now.
    #[must_use]
    pub fn kept_now(&self, at: Instant) -> KeptClock {
        KeptClock { floor_s: self.floor(at).as_secs(), doubt_s: self.doubt_s, is_whole: false }
    }

    /// It is written down.
    pub fn was_kept(&mut self, kept: KeptClock) {
        self.kept = Some(kept);
    }

    fn floor(&self, at: Instant) -> Duration {
        let (floor, since) = self.floor;
        floor.saturating_add(at.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER_S: u64 = 1_790_000_000;
    const STALE_S: u64 = 600;
    const EVERY_S: u64 = 120;

    struct Machine {
        start: Instant,
        clock: PolicyClock,
    }

    impl Machine {
        fn new(kept: Option<KeptClock>) -> Self {
            let start = caregate_host::clock::monotonic();
            Self { start, clock: PolicyClock::new(kept, HEADER_S, STALE_S, start) }
        }

        /// So many seconds after the start, when the wall's clock says `unix_s`.
        fn at(&self, seconds: u64, unix_s: u64) -> Now {
            Now { unix_s, at: self.start + Duration::from_secs(seconds) }
        }

        fn age_s(&self, now: Now) -> Option<u64> {
            match self.clock.offset(now) {
                ClockOffset::Known { behind_s, doubt_s } => Some(now.unix_s + behind_s + doubt_s - HEADER_S),
                ClockOffset::Unknown => None,
            }
        }
    }

    #[test]
    fn a_clock_that_is_set_back_to_just_behind_the_header_keeps_nothing_young() {
        let machine = Machine::new(None);
        for second in (0..=60).chain(600..604) {
            let now = machine.at(second, HEADER_S + second);
            assert_eq!(machine.age_s(now), Some(second), "a clock that is right");
        }
        // A minute's difference is what clocks differ by; beyond it nobody knows the time.
        assert_eq!(machine.age_s(machine.at(60, HEADER_S + 1)), Some(60));
        assert_eq!(machine.age_s(machine.at(62, HEADER_S + 1)), None);
        // One that is ahead only makes it older.
        assert_eq!(machine.age_s(machine.at(5, HEADER_S + 700)), Some(700));
        assert_eq!(machine.age_s(machine.at(100, HEADER_S + 90)), Some(100));
    }

    #[test]
    fn a_newer_header_gives_the_time_to_a_clock_that_is_wrong_and_none_is_taken_from_what_has_passed() {
        let mut machine = Machine::new(None);
        let day = 86_400;
        assert_eq!(machine.age_s(machine.at(10, HEADER_S - day)), None);
        let now = machine.at(20, HEADER_S - day);
        machine.clock.heard(HEADER_S + 15, now);
        assert_eq!(machine.age_s(now), Some(19), "the header before was 20 seconds old, but for a hundredth");
        let now = machine.at(30, HEADER_S - day + 10);
        machine.clock.heard(HEADER_S + 30, now);
        assert_eq!(machine.age_s(now), Some(30));
        assert_eq!(machine.age_s(machine.at(90, HEADER_S - day + 70)), Some(90));
        assert_eq!(machine.age_s(machine.at(91, HEADER_S - day - 10)), None, "set back once more");
        // Headers that were collected, one every nine minutes: the time goes on all the same, but for a hundredth.
        let mut machine = Machine::new(None);
        for step in 1..=10 {
            let now = machine.at(step * 540, HEADER_S + step * 10);
            machine.clock.heard(HEADER_S + step * 10, now);
            let age_s = machine.age_s(now).unwrap();
            assert!((step * 534..=step * 540).contains(&age_s), "{step}: {age_s}");
        }
        // One each tenth of a second stops nothing.
        let mut machine = Machine::new(None);
        for step in 1..=1000 {
            let at = machine.start + Duration::from_millis(100 * step);
            machine.clock.heard(HEADER_S + 1, Now { unix_s: HEADER_S + 1, at });
        }
        assert!(machine.age_s(machine.at(100, HEADER_S + 1)).unwrap() >= 98);
    }

    #[test]
    fn a_monotonic_clock_that_runs_fast_adds_nothing_up() {
        let mut machine = Machine::new(None);
        // A thousandth, for four months: headers say what time it is.
        for block in 1..=1_000_000 {
            let at = machine.start + Duration::from_millis(10_010 * block);
            machine.clock.heard(HEADER_S + 10 * block, Now { unix_s: HEADER_S + 10 * block, at });
        }
        let end = HEADER_S + 10_000_000;
        let now = Now { unix_s: end, at: machine.start + Duration::from_millis(10_010 * 1_000_000) };
        assert_eq!(machine.clock.offset(now), ClockOffset::Known { behind_s: 0, doubt_s: 0 });
    }

    #[test]
    fn a_header_is_held_against_the_clock_once_one_was_heard_and_the_clock_is_known() {
        let mut machine = Machine::new(None);
        assert_eq!(machine.clock.reference(machine.at(5, HEADER_S + 5)), None);
        let now = machine.at(10, HEADER_S + 10);
        machine.clock.heard(HEADER_S + 10, now);
        assert_eq!(machine.clock.reference(now), Some((HEADER_S + 10, now.at)));
        assert_eq!(machine.clock.reference(machine.at(20, HEADER_S - 86_400)), None);
    }

    #[test]
    fn no_restart_gives_time_back() {
        let mut machine = Machine::new(None);
        assert_eq!(machine.clock.due(machine.start).map(|kept| kept.floor_s), Some(HEADER_S));
        machine.clock.was_kept(machine.clock.kept_now(machine.start));
        assert_eq!(machine.clock.due(machine.at(EVERY_S - 1, 0).at), None);
        let kept = machine.clock.due(machine.at(EVERY_S, 0).at).unwrap();
        assert_eq!(kept, KeptClock { floor_s: HEADER_S + EVERY_S, doubt_s: 0, is_whole: false });

        // Killed again and again before anything is due, with the clock set back each time.
        let mut kept = kept;
        for life in 1..=4 {
            let machine = Machine::new(Some(kept));
            let now = machine.at(50, HEADER_S + EVERY_S);
            assert_eq!(machine.age_s(now), Some(EVERY_S + 50 + life * EVERY_S));
            kept = machine.clock.kept_now(machine.start);
        }
        // A newer header ends the doubt of a process that has run for as long as a policy lives, and of no other.
        let mut machine = Machine::new(Some(kept));
        let doubt_s = kept.doubt_s + EVERY_S;
        let now = machine.at(1, HEADER_S + 1000);
        machine.clock.heard(HEADER_S + 990, now);
        assert_eq!(machine.age_s(now), Some(1000 + doubt_s));
        let now = machine.at(STALE_S, HEADER_S + 1000 + STALE_S);
        machine.clock.heard(HEADER_S + 1000 + STALE_S, now);
        assert_eq!(machine.age_s(now), Some(1000 + STALE_S));
        // A header that was held back for each life: five lives and no more.
        let mut kept = KeptClock { floor_s: HEADER_S, doubt_s: 0, is_whole: false };
        for life in 1..=6 {
            let mut machine = Machine::new(Some(kept));
            let now = machine.at(EVERY_S - 1, HEADER_S + 10 * life);
            machine.clock.heard(HEADER_S + 10 * life, now);
            assert!(machine.age_s(now).unwrap() >= life * EVERY_S, "{life}");
            kept = machine.clock.kept_now(machine.start);
        }
        // Stopped in order, nothing is missing.
        let whole = KeptClock { floor_s: HEADER_S + 77, doubt_s: 0, is_whole: true };
        let machine = Machine::new(Some(whole));
        assert_eq!(machine.age_s(machine.at(3, HEADER_S + 60)), Some(80));
        assert_eq!(machine.age_s(machine.at(3, HEADER_S + 10)), None, "begun with a clock that was set back");
    }
}
