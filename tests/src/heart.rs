//! A heart's rhythm from a seed: the times of its beats and of its owner's breaths, shared by the ECG and the numerics.
//!
//! RR intervals follow McSharry et al. (IEEE Trans. Biomed. Eng. 50:289, 2003): around a mean, with respiratory sinus
//! arrhythmia (high frequency) and Mayer waves (0.1 Hz, low frequency), and a little noise.

use std::f64::consts::TAU;

/// SplitMix64 (Steele, Lea, Flood 2014): reproducible on any machine, which is all that a simulation asks of randomness.
#[derive(Debug, Clone)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// Starts at a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1), from 53 bits.
    pub fn next_unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Near enough to a normal deviate (sum of 12 uniforms): only additions, so the same everywhere.
    pub fn next_normal(&mut self) -> f64 {
        (0..12).map(|_| self.next_unit()).sum::<f64>() - 6.0
    }
}

/// Respiratory sinus arrhythmia as a share of the RR interval.
const RSA: f64 = 0.035;
/// Mayer waves as a share of the RR interval, and their frequency.
const MAYER: f64 = 0.02;
const MAYER_HZ: f64 = 0.1;
/// Beat-to-beat noise, standard deviation as a share of the RR interval.
const JITTER: f64 = 0.008;

/// An endless iterator over the times of R peaks, in seconds from the start.
#[derive(Debug, Clone)]
pub struct Heart {
    rng: SplitMix64,
    mean_rr_s: f64,
    breath_hz: f64,
    phase: f64,
    last_s: f64,
}

impl Heart {
    /// A resting adult: 62 to 88 beats and 12 to 18 breaths a minute, by the seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut rng = SplitMix64::new(seed);
        let mean_rr_s = 60.0 / (62.0 + 26.0 * rng.next_unit());
        let breath_hz = (12.0 + 6.0 * rng.next_unit()) / 60.0;
        let phase = TAU * rng.next_unit();
        Self { rng, mean_rr_s, breath_hz, phase, last_s: 0.0 }
    }

    /// The rate that it keeps in the long run, per minute.
    #[must_use]
    pub fn mean_rate(&self) -> f64 {
        60.0 / self.mean_rr_s
    }

    /// Breaths per second.
    #[must_use]
    pub fn breath_hz(&self) -> f64 {
        self.breath_hz
    }

    /// Where in the breath a moment lies, as sine: 1 is full inspiration.
    #[must_use]
    pub fn breath(&self, t_s: f64) -> f64 {
        (TAU * self.breath_hz * t_s + self.phase).sin()
    }
}

impl Iterator for Heart {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        let t = self.last_s;
        let modulation = -RSA * self.breath(t) + MAYER * (TAU * MAYER_HZ * t).sin();
        // Three standard deviations at most, so that no interval ever turns absurd.
        let noise = JITTER * self.rng.next_normal().clamp(-3.0, 3.0);
        self.last_s += self.mean_rr_s * (1.0 + modulation + noise);
        Some(self.last_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rhythm_is_that_of_a_resting_adult() {
        for seed in 0..20 {
            let heart = Heart::new(seed);
            let mean = heart.mean_rate();
            assert!((62.0..=88.0).contains(&mean), "{mean}");
            let beats: Vec<f64> = heart.take(600).collect();
            let rr: Vec<f64> = beats.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let mean_rr = rr.iter().sum::<f64>() / rr.len() as f64;
            assert!((60.0 / mean_rr - mean).abs() < 1.0);
            let sdnn_ms =
                (rr.iter().map(|r| (r - mean_rr).powi(2)).sum::<f64>() / rr.len() as f64).sqrt() * 1000.0;
            assert!(
                (15.0..60.0).contains(&sdnn_ms),
                "SDNN of a resting adult over minutes, got {sdnn_ms} ms"
            );
        }
    }

    #[test]
    fn a_seed_repeats_and_another_differs() {
        let beats = |seed| Heart::new(seed).take(50).collect::<Vec<_>>();
        assert_eq!(beats(1), beats(1));
        assert_ne!(beats(1), beats(2));
    }
}
