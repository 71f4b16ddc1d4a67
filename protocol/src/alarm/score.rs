//! NEWS2, the National Early Warning Score (© Royal College of Physicians 2017, reproduced with acknowledgement): what a patient's
//! seven parameters score. Pure; ageing is the caller's.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::settings::{Consciousness, Scale};

/// How many parameters there are.
pub const PARAMETERS: usize = 7;
/// What each is called where it is missing, in the order of [`Score::Sum::parts`].
pub const MISSING_NAMES: [&str; PARAMETERS] = [
    "respiratory rate",
    "SpO2",
    "air or oxygen",
    "systolic pressure",
    "pulse",
    "consciousness",
    "temperature",
];

/// Why there is no score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum Refusal {
    /// Nobody said whether the patient is an adult.
    #[n(1)]
    CategoryUnknown,
    /// Below 16 years.
    #[n(2)]
    NotAdult,
    /// In pregnancy other scores hold.
    #[n(3)]
    Pregnant,
}

/// What is known.
#[derive(Debug, Clone, Copy, PartialEq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Score {
    /// The score must not be used here.
    #[n(0)]
    Refused(#[n(0)] Refusal),
    /// The sum of what is known.
    #[n(1)]
    Sum {
        /// 0 to 20; a lower bound where a part is none.
        #[n(0)]
        total: u8,
        /// Respiration, SpO2, air or oxygen, systolic, pulse, consciousness, temperature; none where it is not known or too old.
        #[n(1)]
        parts: [Option<u8>; PARAMETERS],
    },
}

/// One parameter's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Parameter {
    /// Breaths a minute.
    Respiration(f64),
    /// Percent, by which scale, and whether oxygen is given. Without knowing it, scale 2 takes air: its higher bands score only
    /// on oxygen.
    Spo2(f64, Scale, Option<bool>),
    /// Whether oxygen is given.
    Oxygen(bool),
    /// `mm[Hg]`.
    Systolic(f64),
    /// Beats a minute.
    Pulse(f64),
    /// As found.
    Consciousness(Consciousness),
    /// Cel.
    Temperature(f64),
}

impl Parameter {
    /// What it scores, 0 to 3. Values are first rounded to what the chart has: whole numbers, temperature to a tenth.
    #[must_use]
    pub fn points(self) -> u8 {
        match self {
            Self::Respiration(value) => match value.round() {
                ..=8.0 => 3,
                ..=11.0 => 1,
                ..=20.0 => 0,
                ..=24.0 => 2,
                _ => 3,
            },
            Self::Spo2(value, Scale::One, _) => match value.round() {
                ..=91.0 => 3,
                ..=93.0 => 2,
                ..=95.0 => 1,
                _ => 0,
            },
            Self::Spo2(value, Scale::Two, oxygen) => match (value.round(), oxygen == Some(true)) {
                (..=83.0, _) => 3,
                (..=85.0, _) => 2,
                (..=87.0, _) => 1,
                (..=92.0, _) | (_, false) => 0,
                (..=94.0, true) => 1,
                (..=96.0, true) => 2,
                (_, true) => 3,
            },
            Self::Oxygen(given) => 2 * u8::from(given),
            Self::Systolic(value) => match value.round() {
                ..=90.0 => 3,
                ..=100.0 => 2,
                ..=110.0 => 1,
                ..=219.0 => 0,
                _ => 3,
            },
            Self::Pulse(value) => match value.round() {
                ..=40.0 => 3,
                ..=50.0 => 1,
                ..=90.0 => 0,
                ..=110.0 => 1,
                ..=130.0 => 2,
                _ => 3,
            },
            Self::Consciousness(found) => 3 * u8::from(found != Consciousness::Alert),
            Self::Temperature(value) => match (value * 10.0).round() {
                ..=350.0 => 3,
                ..=360.0 => 1,
                ..=380.0 => 0,
                ..=390.0 => 1,
                _ => 2,
            },
        }
    }
}

impl Score {
    /// The sum of what is known.
    #[must_use]
    pub fn sum(parts: [Option<u8>; PARAMETERS]) -> Self {
        Self::Sum { total: parts.iter().flatten().sum(), parts }
    }

    /// Whether a parameter is missing, so that the sum is a lower bound.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        match self {
            Self::Refused(_) => true,
            Self::Sum { parts, .. } => parts.iter().any(Option::is_none),
        }
    }
}
