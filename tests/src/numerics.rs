//! Plausible numerics of a resting adult, from the same heart as [`crate::ecg`] with the same seed.
//!
//! Heart rate is the mean of the last eight intervals, as bedside monitors do it; the rest moves slowly around normal
//! values. Each metric has its own period: a cuff once a minute, a thermometer every ten seconds, the others every second.

use std::collections::VecDeque;
use std::f64::consts::TAU;

use crate::heart::{Heart, SplitMix64};

/// One value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Numeric {
    /// Seconds from the start.
    pub t_s: u64,
    /// Its name in topics.
    pub metric: &'static str,
    /// UCUM.
    pub unit: &'static str,
    /// In that unit.
    pub value: f64,
}

/// Intervals that a monitor averages for the rate it shows.
const RATE_INTERVALS: usize = 8;
/// The cuff inflates at this second of each minute; early in the first, so that short runs see a blood pressure.
const CUFF_SECOND: u64 = 5;
/// The thermometer's period in seconds, and the second in it.
const THERMOMETER: (u64, u64) = (10, 3);

/// An endless iterator over the values, in order of time.
#[derive(Debug, Clone)]
pub struct Numerics {
    heart: Heart,
    rng: SplitMix64,
    beats: VecDeque<f64>,
    second: u64,
    queue: VecDeque<Numeric>,
}

impl Numerics {
    /// The numerics of [`Heart::new`] with the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let rng = SplitMix64::new(seed ^ 0x6e75_6d65_7269_6373);
        Self { heart: Heart::new(seed), rng, beats: VecDeque::from([0.0]), second: 0, queue: VecDeque::new() }
    }

    /// Mean rate over the last intervals before `t_s`, per minute; the long-run rate before the second beat.
    fn rate(&mut self, t_s: f64) -> f64 {
        // The heart runs one beat ahead of the moment.
        while self.beats.back().is_none_or(|beat| *beat <= t_s) {
            self.beats.extend(self.heart.next());
            if self.beats.len() > RATE_INTERVALS + 2 {
                self.beats.pop_front();
            }
        }
        let past = self.beats.len() - 1;
        match (self.beats.front(), past.checked_sub(1).and_then(|last| self.beats.get(last))) {
            (Some(first), Some(last)) if last > first => 60.0 * (past - 1) as f64 / (last - first),
            _ => self.heart.mean_rate(),
        }
    }

    fn measure(&mut self) {
        let (t_s, t) = (self.second, self.second as f64);
        let rate = self.rate(t);
        let noise = self.rng.next_normal();
        let mut push = |metric, unit, value| self.queue.push_back(Numeric { t_s, metric, unit, value });
        push("heart-rate", "/min", rate.round());
        // The oximeter averages on its own and may be a beat off.
        push("pulse-rate", "/min", (rate + 0.4 * noise).round());
        push("spo2", "%", (97.0 + (TAU * t / 90.0).sin() + 0.3 * noise).round().clamp(92.0, 100.0));
        push("respiratory-rate", "/min", (60.0 * self.heart.breath_hz() + 0.5 * noise).round());
        if t_s % THERMOMETER.0 == THERMOMETER.1 {
            push("temperature", "Cel", tenths(36.8 + 0.2 * (TAU * t / 3600.0).sin() + 0.03 * noise));
        }
        if t_s % 60 == CUFF_SECOND {
            let systolic = (120.0 + 6.0 * (TAU * t / 600.0).sin() + 2.0 * noise).round();
            let diastolic = (76.0 + 4.0 * (TAU * t / 600.0).sin() + noise).round();
            push("systolic", "mm[Hg]", systolic);
            push("diastolic", "mm[Hg]", diastolic);
            push("mean-pressure", "mm[Hg]", (diastolic + (systolic - diastolic) / 3.0).round());
        }
    }
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

impl Iterator for Numerics {
    type Item = Numeric;

    fn next(&mut self) -> Option<Numeric> {
        if self.queue.is_empty() {
            self.second += 1;
            self.measure();
        }
        self.queue.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecg::Ecg;

    #[test]
    fn heart_rate_is_that_of_the_beats() {
        for seed in 0..5 {
            let beats = Ecg::beat_times(seed, 300.0);
            for numeric in
                Numerics::new(seed).take_while(|n| n.t_s < 300).filter(|n| n.metric == "heart-rate")
            {
                let past: Vec<f64> = beats.iter().copied().filter(|b| *b <= numeric.t_s as f64).collect();
                let from = past.len().saturating_sub(RATE_INTERVALS + 1);
                if past.len() > 2 {
                    let expected =
                        60.0 * (past.len() - 1 - from) as f64 / (past[past.len() - 1] - past[from]);
                    assert_eq!(numeric.value, expected.round(), "at {} s", numeric.t_s);
                }
            }
        }
    }

    #[test]
    fn values_stay_normal() {
        for numeric in Numerics::new(4).take_while(|n| n.t_s < 7200) {
            let normal = match numeric.metric {
                "heart-rate" | "pulse-rate" => 50.0..=105.0,
                "spo2" => 92.0..=100.0,
                "respiratory-rate" => 9.0..=21.0,
                "temperature" => 36.1..=38.0,
                "systolic" => 100.0..=140.0,
                "diastolic" => 60.0..=90.0,
                "mean-pressure" => 75.0..=110.0,
                other => panic!("{other} is unknown"),
            };
            assert!(normal.contains(&numeric.value), "{numeric:?}");
        }
    }
}
