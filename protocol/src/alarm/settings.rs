//! What staff set and enter for a patient.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::code::{self, Kind};

/// Most numerics with limits: all that the code table has, with room.
pub const LIMITS_MAX: usize = 32;
/// Longest delay of a limit alarm: beyond two minutes it warns nobody.
pub const DELAY_S_MAX: u16 = 120;

/// What limits and scores apply to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cbor(index_only)]
pub enum Category {
    /// From 16 years.
    #[n(1)]
    Adult,
    /// Below.
    #[n(2)]
    Child,
    /// In the first 28 days.
    #[n(3)]
    Neonate,
}

/// Consciousness as NEWS2 has it (ACVPU).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cbor(index_only)]
pub enum Consciousness {
    /// Alert.
    #[n(0)]
    Alert,
    /// New confusion.
    #[n(1)]
    Confused,
    /// Responds to voice.
    #[n(2)]
    Voice,
    /// Responds to pain.
    #[n(3)]
    Pain,
    /// Unresponsive.
    #[n(4)]
    Unresponsive,
}

/// NEWS2's scale for SpO2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cbor(index_only)]
pub enum Scale {
    /// For most people.
    #[default]
    #[n(1)]
    One,
    /// With a target of 88–92 %, in hypercapnic respiratory failure.
    #[n(2)]
    Two,
}

/// What somebody entered, and when: it ages as what is measured does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entered<T> {
    /// What.
    #[n(0)]
    pub value: T,
    /// When, Unix microseconds by the gateway's clock.
    #[n(1)]
    pub at_us: i64,
}

/// When a numeric alarms. In the unit of its row.
#[derive(Debug, Clone, Copy, PartialEq, Default, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Below it: medium priority.
    #[n(0)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// Above it: medium priority.
    #[n(1)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
    /// Below it: high priority.
    #[n(2)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extreme_low: Option<f64>,
    /// Above it: high priority.
    #[n(3)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extreme_high: Option<f64>,
    /// For how long it must be beyond before it alarms; 0 to [`DELAY_S_MAX`].
    #[n(4)]
    #[serde(default)]
    pub delay_s: u16,
    /// How far it must come back before the alarm's condition has ended.
    #[n(5)]
    #[serde(default)]
    pub hysteresis: f64,
}

/// Limits that make no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LimitsError {
    /// No numeric of the code table.
    #[error("no numeric has number {0}")]
    Quantity(u16),
    /// Not finite, or outside what the quantity can be.
    #[error("a limit is outside the plausible range of {0}")]
    Range(&'static str),
    /// Low is not below high, or extreme is inside.
    #[error("the limits of {0} are not in order")]
    Order(&'static str),
    /// Longer than [`DELAY_S_MAX`].
    #[error("the delay of {0} is above {DELAY_S_MAX} s")]
    Delay(&'static str),
    /// More than [`LIMITS_MAX`].
    #[error("more than {LIMITS_MAX} numerics with limits")]
    TooMany,
}

impl LimitsError {
    /// A word for counters and confirmations.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Quantity(_) => "limits_quantity",
            Self::Range(_) => "limits_range",
            Self::Order(_) => "limits_order",
            Self::Delay(_) => "limits_delay",
            Self::TooMany => "limits_too_many",
        }
    }
}

impl Limits {
    /// Whether they make sense for this quantity.
    ///
    /// # Errors
    /// [`LimitsError`].
    pub fn check(&self, quantity: u16) -> Result<(), LimitsError> {
        let row = code::by_number(quantity).filter(|row| row.kind == Kind::Numeric);
        let row = row.ok_or(LimitsError::Quantity(quantity))?;
        let in_order: Vec<f64> =
            [self.extreme_low, self.low, self.high, self.extreme_high].into_iter().flatten().collect();
        if !in_order.iter().all(|limit| row.is_plausible(*limit)) {
            return Err(LimitsError::Range(row.name));
        }
        let (least, greatest) = row.range.unwrap_or_default();
        // One that is a tenth of all there can be never ends.
        if !(0.0..=(greatest - least) / 10.0).contains(&self.hysteresis) {
            return Err(LimitsError::Range(row.name));
        }
        if !in_order.is_sorted_by(|before, after| before < after) {
            return Err(LimitsError::Order(row.name));
        }
        if self.delay_s > DELAY_S_MAX { Err(LimitsError::Delay(row.name)) } else { Ok(()) }
    }
}

/// What holds for one patient.
#[derive(Debug, Clone, PartialEq, Default, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// None until somebody said it: then adults' limits, and no score.
    #[n(0)]
    pub category: Option<Category>,
    /// Whether the patient is pregnant: then no score.
    #[n(1)]
    pub pregnant: bool,
    /// Which scale for SpO2.
    #[n(2)]
    pub scale: Scale,
    /// Whether oxygen is given.
    #[n(3)]
    pub oxygen: Option<Entered<bool>>,
    /// As found.
    #[n(4)]
    pub consciousness: Option<Entered<Consciousness>>,
    /// Until when no alarm sounds, Unix microseconds by the gateway's clock.
    #[n(5)]
    pub paused_until_us: Option<i64>,
    /// By the quantity's row number; at most [`LIMITS_MAX`].
    #[n(6)]
    pub limits: BTreeMap<u16, Limits>,
}

impl Settings {
    /// Whether all limits make sense.
    ///
    /// # Errors
    /// [`LimitsError`].
    pub fn check(&self) -> Result<(), LimitsError> {
        if self.limits.len() > LIMITS_MAX {
            return Err(LimitsError::TooMany);
        }
        self.limits.iter().try_for_each(|(quantity, limits)| limits.check(*quantity))
    }
}
