//! The gateway's own clock, which may be set while it watches: one without a battery begins in 1970, or when it last ran, and is put right once
//! the network tells the time. Pure.

use std::time::Duration;

use caregate_protocol::alarm::{Entered, Settings};

use super::Now;

/// A clock that has gone so far from the monotonic one since it was set last was set, in microseconds. A leap second, and what passes between
/// reading the two, is less; what makes a reading late is a multiple. Both are slewed alike, so what only runs faster for a while is not seen.
pub(super) const SET_BY_US: i64 = 5_000_000;

/// How it is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Set {
    /// What it would have said at the start.
    start_us: i64,
    /// What it said when it was set so, at the earliest; before it was set at all, when it was looked at first.
    since_us: i64,
    /// When it was looked at last.
    looked: Duration,
}

/// What is known of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::watch) struct Clock(Option<Set>);

impl Clock {
    /// Whether it was ever looked at.
    #[must_use]
    pub(super) fn is_known(&self) -> bool {
        self.0.is_some()
    }

    /// Looks at it. Returns by how many microseconds it was set since the last look.
    pub(in crate::watch) fn look(&mut self, now: Now) -> Option<i64> {
        let start_us = now.unix_us.saturating_sub(micros(now.at));
        let Some(set) = self.0 else {
            self.0 = Some(Set { start_us, since_us: now.unix_us, looked: now.at });
            return None;
        };
        let by_us = start_us.saturating_sub(set.start_us);
        if by_us.saturating_abs() < SET_BY_US {
            self.0 = Some(Set { looked: now.at, ..set });
            return None;
        }
        let since_us = now.unix_us.saturating_sub(micros(now.at.saturating_sub(set.looked)));
        self.0 = Some(Set { start_us, since_us, looked: now.at });
        Some(by_us)
    }

    /// When something came that bears this time. What was on its way while the clock was set bears one that the clock, as it is set now, has not
    /// said since: it came just now.
    #[must_use]
    pub(in crate::watch) fn received_us(&self, received_us: i64, now: Now) -> i64 {
        let Some(set) = self.0 else { return received_us };
        received_us.max(set.since_us).min(now.unix_us)
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// What of a patient's settings was said since the start, and so by a clock of which it is known how it was set since.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// The pause.
    pub(super) pause: bool,
    /// Oxygen.
    pub(super) oxygen: bool,
    /// Consciousness.
    pub(super) consciousness: bool,
}

impl Said {
    /// The clock was set by so much: what was said is as old as it was, and a pause ends when it would have.
    pub(super) fn clock_set(self, settings: &mut Settings, by_us: i64) {
        let until = settings.paused_until_us.as_mut().filter(|_| self.pause);
        let oxygen = settings.oxygen.as_mut().filter(|_| self.oxygen).map(|entered| &mut entered.at_us);
        let consciousness = settings.consciousness.as_mut().filter(|_| self.consciousness);
        let consciousness = consciousness.map(|entered| &mut entered.at_us);
        for stamp in [until, oxygen, consciousness].into_iter().flatten() {
            *stamp = stamp.saturating_add(by_us);
        }
    }
}

/// How far ahead of the clock something that was entered may be and yet count once the clock has come up to it: by so much, or less, it is older
/// then than it seems.
const AHEAD_US: i64 = 3_600_000_000;

/// What of a patient's settings was further ahead of the clock than that when it was looked at, since the clock was set last. It was entered before
/// a restart, and one of the two clocks was wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ahead {
    /// Oxygen.
    pub(super) oxygen: bool,
    /// Consciousness.
    pub(super) consciousness: bool,
}

impl Ahead {
    /// Forgets what the clock has come up to by going on, at which it would be fresh whatever its age. Returns whether there was anything.
    pub(super) fn look(&mut self, settings: &mut Settings, unix_us: i64) -> bool {
        let oxygen = come_up_to(&mut self.oxygen, &mut settings.oxygen, unix_us);
        let consciousness = come_up_to(&mut self.consciousness, &mut settings.consciousness, unix_us);
        oxygen || consciousness
    }
}

fn come_up_to<T>(was_ahead: &mut bool, entered: &mut Option<Entered<T>>, unix_us: i64) -> bool {
    let Some(at_us) = entered.as_ref().map(|entered| entered.at_us) else { return false };
    let ahead_us = at_us.saturating_sub(unix_us);
    *was_ahead |= ahead_us > AHEAD_US;
    let is_over = *was_ahead && ahead_us < SET_BY_US;
    if is_over {
        (*entered, *was_ahead) = (None, false);
    }
    is_over
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000;

    fn now(at_s: u64, unix_us: i64) -> Now {
        Now { at: Duration::from_secs(at_s), unix_us }
    }

    #[test]
    fn a_clock_that_is_set_is_seen_once_and_what_only_runs_fast_is_not() {
        for by_us in [SET_BY_US, -SET_BY_US, 1_790_000_000 * S, -3_600 * S] {
            let mut clock = Clock::default();
            assert_eq!(clock.look(now(7, 100 * S)), None, "whatever it says first");
            assert_eq!(clock.look(now(9, 102 * S)), None);
            assert_eq!(clock.look(now(10, 103 * S + by_us)), Some(by_us));
            assert_eq!(clock.look(now(10_000, 10_093 * S + by_us)), None);
            assert_eq!(clock.look(now(10_001, 10_094 * S)), Some(-by_us));
        }
        // By 500 ppm, as fast as one is slewed, for two hours; and a leap second.
        for sign in [1, -1] {
            let mut clock = Clock::default();
            let is_set = |at_s: i64| {
                let leap_us = if at_s > 3_600 { S } else { 0 };
                let unix_us = at_s * S + sign * (at_s * 500 + leap_us);
                clock.look(now(at_s.unsigned_abs(), unix_us)).is_some()
            };
            assert!(!(0..7_200).any(is_set));
        }
        // By less each time, and more in all.
        let mut clock = Clock::default();
        let set = [0, 1, 2, 3, 4].map(|at_s: i64| clock.look(now(at_s.unsigned_abs(), 4 * at_s * S)));
        assert_eq!(set, [None, None, Some(6 * S), None, Some(6 * S)]);
    }

    #[test]
    fn what_bears_a_time_that_the_clock_did_not_say_came_just_now() {
        let mut clock = Clock::default();
        assert_eq!(clock.received_us(7, now(0, 0)), 7, "nobody has looked");
        clock.look(now(1, 1_000 * S));
        clock.look(now(2, 1_001 * S));
        assert_eq!(clock.received_us(1_000 * S, now(60, 1_059 * S)), 1_000 * S, "it waited");
        assert_eq!(clock.received_us(3 * S, now(60, 1_059 * S)), 1_000 * S, "it came before the first look");
        // An hour forward within the last second.
        clock.look(now(3, 4_602 * S));
        assert_eq!(clock.received_us(1_001 * S, now(3, 4_602 * S)), 4_601 * S);
        assert_eq!(clock.received_us(4_601 * S, now(8, 4_607 * S)), 4_601 * S);
        // And back.
        clock.look(now(9, 1_008 * S));
        assert_eq!(clock.received_us(4_607 * S, now(9, 1_008 * S)), 1_008 * S);
        assert_eq!(clock.received_us(1_008 * S, now(12, 1_011 * S)), 1_008 * S);
    }
}
