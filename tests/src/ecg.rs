//! A plausible ECG with known beat times: lead II at 250 Hz, 5 µV steps.
//!
//! After McSharry et al. 2003 (ECGSYN), simplified: each beat is a sum of five Gaussians (P, Q, R, S, T) at fixed angles
//! of the cardiac cycle, and instead of integrating their differential equation, the trace is that sum. Angles and widths
//! are the paper's (table I) and scale with the square root of the RR interval, as the QT interval does (Bazett);
//! heights are those of a healthy adult's lead II. Baseline wander at the breath's frequency and noise are added.
//!
//! ```text
//!            R
//!            │
//!    P      ╱│╲        T
//!  ─╱╲──╲  ╱ │ ╲  ╱──╱──╲───
//!         Q     S
//! ```

use std::collections::VecDeque;

use crate::heart::{Heart, SplitMix64};
use crate::round;

/// Samples per second.
pub const SAMPLE_HZ: f64 = 250.0;
/// Millivolts per step, as in the MIT-BIH database (200 steps per mV).
pub const SCALE_MV: f64 = 0.005;
/// Standard deviation of the noise: a quiet electrode.
const NOISE_MV: f64 = 0.008;
/// How far the breath moves the baseline.
const WANDER_MV: f64 = 0.04;
/// Beats that can reach a sample: the one before, the next and the one after it.
const BEATS_AROUND: usize = 4;

/// One wave of the beat.
struct Wave {
    /// Seconds from the R peak at 60 beats a minute: the paper's angle over 2π.
    at_s: f64,
    /// Standard deviation in seconds at 60 beats a minute: the paper's b over 2π.
    width_s: f64,
    height_mv: f64,
}

/// P −70°, Q −15°, R 0°, S 15°, T 100°; b = 0.25, 0.1, 0.1, 0.1, 0.4.
const WAVES: [Wave; 5] = [
    Wave { at_s: -0.1944, width_s: 0.0398, height_mv: 0.15 },
    Wave { at_s: -0.0417, width_s: 0.0159, height_mv: -0.12 },
    Wave { at_s: 0.0, width_s: 0.0159, height_mv: 1.2 },
    Wave { at_s: 0.0417, width_s: 0.0159, height_mv: -0.28 },
    Wave { at_s: 0.2778, width_s: 0.0637, height_mv: 0.32 },
];

/// An endless iterator over samples in steps of [`SCALE_MV`].
#[derive(Debug, Clone)]
pub struct Ecg {
    heart: Heart,
    noise: SplitMix64,
    /// R peaks around the next sample, in seconds, ascending.
    beats: VecDeque<f64>,
    next: u64,
}

impl Ecg {
    /// The ECG of [`Heart::new`] with the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut heart = Heart::new(seed);
        // A beat before the start lets the first samples be those of a running heart.
        let before = -60.0 / heart.mean_rate();
        let beats = [before, 0.0].into_iter().chain(heart.by_ref().take(2)).collect();
        Self { heart, noise: SplitMix64::new(seed ^ 0x006e_6f69_7365), beats, next: 0 }
    }

    /// R peaks in the first `duration_s` seconds, in seconds.
    #[must_use]
    pub fn beat_times(seed: u64, duration_s: f64) -> Vec<f64> {
        std::iter::once(0.0).chain(Heart::new(seed)).take_while(|t| *t < duration_s).collect()
    }

    fn value_mv(&self, t_s: f64) -> f64 {
        let beats = || self.beats.iter();
        let mut sum = 0.0;
        for ((before, beat), after) in beats().zip(beats().skip(1)).zip(beats().skip(2)) {
            for wave in &WAVES {
                let rr = if wave.at_s < 0.0 { beat - before } else { after - beat };
                let stretch = rr.sqrt();
                let x = (t_s - beat - wave.at_s * stretch) / (wave.width_s * stretch);
                sum += wave.height_mv * (-0.5 * x * x).exp();
            }
        }
        sum + WANDER_MV * self.heart.breath(t_s)
    }
}

impl Iterator for Ecg {
    type Item = i16;

    fn next(&mut self) -> Option<i16> {
        let t_s = self.next as f64 / SAMPLE_HZ;
        self.next += 1;
        // The two beats in the middle must enclose the sample.
        while self.beats.get(BEATS_AROUND - 2).is_some_and(|beat| *beat < t_s) {
            self.beats.pop_front();
            self.beats.extend(self.heart.next());
        }
        let noise = NOISE_MV * self.noise.next_normal();
        Some(round::to_i16((self.value_mv(t_s) + noise) / SCALE_MV))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples above 0.7 mV that are the highest within a quarter second: a textbook R-peak detector.
    fn peaks(samples: &[i16]) -> Vec<usize> {
        let threshold = round::to_i16(0.7 / SCALE_MV);
        let near = 62;
        (near..samples.len() - near)
            .filter(|&i| samples[i] > threshold)
            .filter(|&i| {
                let before = samples[i - near..i].iter().all(|s| *s < samples[i]);
                before && samples[i + 1..=i + near].iter().all(|s| *s <= samples[i])
            })
            .collect()
    }

    #[test]
    fn every_known_beat_is_found_and_no_other() {
        for seed in 0..10 {
            let samples: Vec<i16> = Ecg::new(seed).take(250 * 120).collect();
            let found = peaks(&samples);
            let known: Vec<f64> = Ecg::beat_times(seed, 119.5).into_iter().filter(|t| *t > 0.25).collect();
            assert!(found.len().abs_diff(known.len()) <= 1, "{} of {}", found.len(), known.len());
            for (at, beat) in found.iter().zip(&known) {
                let error_s = (*at as f64 / SAMPLE_HZ - beat).abs();
                assert!(error_s <= 0.012, "beat at {beat} s found {error_s} s away");
            }
        }
    }

    #[test]
    fn amplitudes_are_those_of_lead_ii() {
        let samples: Vec<i16> = Ecg::new(3).take(250 * 60).collect();
        let mv = |step: i16| f64::from(step) * SCALE_MV;
        let (low, high) = (mv(*samples.iter().min().unwrap()), mv(*samples.iter().max().unwrap()));
        assert!((0.9..1.6).contains(&high), "R {high} mV");
        assert!((-0.6..-0.1).contains(&low), "S {low} mV");
    }

    #[test]
    fn a_seed_repeats() {
        let first: Vec<i16> = Ecg::new(9).take(5000).collect();
        assert_eq!(first, Ecg::new(9).take(5000).collect::<Vec<_>>());
        assert_ne!(first, Ecg::new(10).take(5000).collect::<Vec<_>>());
    }
}
