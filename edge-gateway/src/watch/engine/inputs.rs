//! What NEWS2 is made of: the newest values, smoothed, none of them too old. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use caregate_protocol::alarm::{Category, Entered, Parameter, Refusal, Score, Settings};

use super::clock::SET_BY_US;
use super::defaults::{HEART_RATE, PULSE_RATE, RESPIRATORY_RATE, SPO2, SYSTOLIC, TEMPERATURE};

/// A value is the median of what came within so long: one twitch of a sensor is no sign of illness.
pub(super) const SMOOTHED_OVER: Duration = Duration::from_secs(60);
/// Values kept of one quantity: one a second.
const RECENT_MAX: usize = 64;
/// Rates and SpO2 come all the time: after five minutes without one the patient's state is not known.
pub(super) const CONTINUOUS_AGE_MAX: Duration = Duration::from_secs(5 * 60);
/// Pressure and temperature are measured now and then: NEWS2 asks for a set of observations every 4 to 6 hours at a score of 1 to 4.
pub(super) const SPOT_AGE_MAX: Duration = Duration::from_secs(4 * 3600);
/// What people enter: NEWS2 asks for a set at least every 12 hours.
pub(super) const ENTERED_AGE_MAX_US: i64 = 12 * 3600 * 1_000_000;

/// The newest values of each quantity that NEWS2 needs.
#[derive(Debug, Clone, Default)]
pub(super) struct Inputs {
    recent: BTreeMap<u16, VecDeque<(Duration, f64)>>,
}

impl Inputs {
    /// Notes a value, if NEWS2 needs its quantity.
    pub(super) fn note(&mut self, quantity: u16, value: f64, now: Duration) {
        if ![HEART_RATE, PULSE_RATE, SPO2, RESPIRATORY_RATE, SYSTOLIC, TEMPERATURE].contains(&quantity) {
            return;
        }
        let recent = self.recent.entry(quantity).or_default();
        recent.push_back((now, value));
        let is_old = |at: Duration| now.saturating_sub(at) > SMOOTHED_OVER;
        while recent.len() > RECENT_MAX || recent.front().is_some_and(|(at, _)| is_old(*at)) {
            recent.pop_front();
        }
    }

    /// When the newest value of a quantity came.
    fn newest(&self, quantity: u16) -> Option<Duration> {
        self.recent.get(&quantity)?.back().map(|(at, _)| *at)
    }

    /// The heart's rate, unless the pulse's is newer by more than what both are smoothed over.
    fn pulse(&self) -> u16 {
        match (self.newest(HEART_RATE), self.newest(PULSE_RATE)) {
            (Some(heart), Some(pulse)) if heart.saturating_add(SMOOTHED_OVER) >= pulse => HEART_RATE,
            (Some(_), None) => HEART_RATE,
            (Some(_) | None, Some(_)) | (None, None) => PULSE_RATE,
        }
    }

    fn value(&self, quantity: u16, age_max: Duration, now: Duration) -> Option<f64> {
        let recent = self.recent.get(&quantity)?;
        if now.saturating_sub(self.newest(quantity)?) > age_max {
            return None;
        }
        let mut values: Vec<f64> = recent.iter().map(|(_, value)| *value).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    /// The score at `now`; `unix_us` is for what people entered.
    #[must_use]
    pub(super) fn score(&self, settings: &Settings, now: Duration, unix_us: i64) -> Score {
        match (settings.category, settings.pregnant) {
            (None, _) => return Score::Refused(Refusal::CategoryUnknown),
            (Some(Category::Child | Category::Neonate), _) => return Score::Refused(Refusal::NotAdult),
            (Some(Category::Adult), true) => return Score::Refused(Refusal::Pregnant),
            (Some(Category::Adult), false) => {}
        }
        let continuous = |quantity| self.value(quantity, CONTINUOUS_AGE_MAX, now);
        let spot = |quantity| self.value(quantity, SPOT_AGE_MAX, now);
        let oxygen = fresh(settings.oxygen, unix_us);
        let points = |parameter: Option<Parameter>| parameter.map(Parameter::points);
        Score::sum([
            points(continuous(RESPIRATORY_RATE).map(Parameter::Respiration)),
            points(continuous(SPO2).map(|value| Parameter::Spo2(value, settings.scale, oxygen))),
            points(oxygen.map(Parameter::Oxygen)),
            points(spot(SYSTOLIC).map(Parameter::Systolic)),
            points(continuous(self.pulse()).map(Parameter::Pulse)),
            points(fresh(settings.consciousness, unix_us).map(Parameter::Consciousness)),
            points(spot(TEMPERATURE).map(Parameter::Temperature)),
        ])
    }
}

/// What is not too old. What was entered after what the clock says now is of before a restart, and one of the two clocks was wrong: it may be of a
/// minute ago or of last week. It is left out, so that the score is partial and names it, until the clock has been set: a total that rests on
/// somebody who was alert last week would calm where nobody knows. A clock that is behind by less than counts as set is taken as it is.
fn fresh<T>(entered: Option<Entered<T>>, unix_us: i64) -> Option<T> {
    let is_fresh = |entered: &Entered<T>| {
        let age_us = unix_us.saturating_sub(entered.at_us);
        -SET_BY_US < age_us && age_us <= ENTERED_AGE_MAX_US
    };
    entered.filter(is_fresh).map(|entered| entered.value)
}

#[cfg(test)]
mod tests {
    use caregate_protocol::alarm::{Consciousness, Scale};

    use super::*;

    const HOUR_US: i64 = 3600 * 1_000_000;

    fn settings() -> Settings {
        Settings {
            category: Some(Category::Adult),
            oxygen: Some(Entered { value: false, at_us: 0 }),
            consciousness: Some(Entered { value: Consciousness::Alert, at_us: 0 }),
            ..Settings::default()
        }
    }

    fn inputs() -> Inputs {
        let mut inputs = Inputs::default();
        for (quantity, value) in [
            (RESPIRATORY_RATE, 22.0),
            (SPO2, 94.0),
            (SYSTOLIC, 105.0),
            (PULSE_RATE, 115.0),
            (TEMPERATURE, 38.5),
        ] {
            inputs.note(quantity, value, Duration::ZERO);
        }
        inputs
    }

    #[test]
    fn all_seven_make_a_sum_and_each_ages_in_its_own_time() {
        let (inputs, settings) = (inputs(), settings());
        let at = |minutes: u64, unix_us| inputs.score(&settings, Duration::from_secs(60 * minutes), unix_us);
        let parts = |score| match score {
            Score::Sum { total, parts } => (total, parts),
            Score::Refused(refusal) => panic!("{refusal:?}"),
        };
        let all = [Some(2), Some(1), Some(0), Some(1), Some(2), Some(0), Some(1)];
        assert_eq!(parts(at(5, 0)), (7, all));
        assert_eq!(parts(at(6, 0)), (2, [None, None, Some(0), Some(1), None, Some(0), Some(1)]));
        assert_eq!(parts(at(241, 0)).1, [None, None, Some(0), None, None, Some(0), None]);
        assert_eq!(parts(at(5, 12 * HOUR_US)).1, all);
        assert_eq!(
            parts(at(5, 12 * HOUR_US + 1)).1,
            [Some(2), Some(1), None, Some(1), Some(2), None, Some(1)]
        );
    }

    /// The clock was set back before a restart, or begins in 1970 after it.
    #[test]
    fn what_was_entered_after_now_is_missing_and_no_fresher_than_it_is() {
        let (inputs, settings) = (inputs(), settings());
        let entered = |unix_us| match inputs.score(&settings, Duration::ZERO, unix_us) {
            Score::Sum { parts, .. } => (parts[2], parts[5]),
            Score::Refused(refusal) => panic!("{refusal:?}"),
        };
        for unix_us in [-SET_BY_US, -HOUR_US, -13 * HOUR_US, -1_790_000_000_000_000, i64::MIN] {
            assert_eq!(entered(unix_us), (None, None), "{unix_us}");
        }
        for unix_us in [1 - SET_BY_US, 0, 12 * HOUR_US] {
            assert_eq!(entered(unix_us), (Some(0), Some(0)), "{unix_us}");
        }
    }

    #[test]
    fn the_pulse_counts_where_the_hearts_rate_is_old() {
        let mut inputs = Inputs::default();
        let pulse = |inputs: &Inputs, s| match inputs.score(&settings(), Duration::from_secs(s), 0) {
            Score::Sum { parts, .. } => parts[4],
            Score::Refused(refusal) => panic!("{refusal:?}"),
        };
        inputs.note(HEART_RATE, 70.0, Duration::ZERO);
        inputs.note(PULSE_RATE, 140.0, Duration::from_secs(60));
        assert_eq!(pulse(&inputs, 60), Some(0), "both are of now");
        inputs.note(PULSE_RATE, 140.0, Duration::from_secs(61));
        assert_eq!(pulse(&inputs, 61), Some(3));
        inputs.note(HEART_RATE, 70.0, Duration::from_secs(62));
        assert_eq!(pulse(&inputs, 62), Some(0));
    }

    #[test]
    fn it_refuses_where_it_must_not_be_used() {
        let refused = |change: &dyn Fn(&mut Settings)| {
            let mut settings = settings();
            change(&mut settings);
            inputs().score(&settings, Duration::ZERO, 0)
        };
        assert_eq!(refused(&|s| s.category = None), Score::Refused(Refusal::CategoryUnknown));
        assert_eq!(refused(&|s| s.category = Some(Category::Child)), Score::Refused(Refusal::NotAdult));
        assert_eq!(refused(&|s| s.category = Some(Category::Neonate)), Score::Refused(Refusal::NotAdult));
        assert_eq!(refused(&|s| s.pregnant = true), Score::Refused(Refusal::Pregnant));
    }

    #[test]
    fn a_twitch_is_smoothed_and_the_heart_goes_before_the_pulse() {
        let mut inputs = inputs();
        for second in 1..=60_u64 {
            let twitch = if second == 60 { 30.0 } else { 70.0 };
            inputs.note(HEART_RATE, twitch, Duration::from_secs(second));
        }
        let Score::Sum { parts, .. } = inputs.score(&settings(), Duration::from_secs(60), 0) else {
            panic!("a sum")
        };
        assert_eq!(parts[4], Some(0));
        let two = Settings { scale: Scale::Two, ..settings() };
        let Score::Sum { parts, .. } = inputs.score(&two, Duration::from_secs(60), 0) else {
            panic!("a sum")
        };
        assert_eq!(parts[1], Some(0), "94 % on air by scale 2");
    }
}
