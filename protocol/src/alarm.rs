//! What a gateway's watch says of a patient: alarms, limits, pause, what people entered, and the early-warning score.
//!
//! It is said whole each time, as a [`Standing`]: whoever reads the newest one needs none before it (ADR 20). CBOR arrays
//! (RFC 8949) in the order of the fields' numbers; a field that a reader does not know is passed over, one that is missing is none.

mod score;
mod settings;
pub mod view;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::code;
use crate::id::{DeviceId, RecipientId};

pub use score::{MISSING_NAMES, PARAMETERS, Parameter, Refusal, Score};
pub use settings::{
    Category, Consciousness, DELAY_S_MAX, Entered, LIMITS_MAX, Limits, LimitsError, Scale, Settings,
};

/// Most alarms of one patient at once: each of ten numerics high and low, five sensors' technical ones, events, with room. What
/// comes beyond raises nothing and is counted.
pub const ALARMS_MAX: usize = 64;
/// Most domains whose last command is told: as many as a patient has treating.
pub const HANDLED_MAX: usize = 16;
/// Longest standing: all of the above at their longest take some 9 kB.
pub const STANDING_BYTES_MAX: usize = 16 * 1024;
/// The number that stands for a standing where a reading has a quantity. It is no row of the code table.
pub const STANDING_QUANTITY: u16 = 1025;

/// How urgent (IEC 60601-1-8 §6.1.2).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[cbor(index_only)]
pub enum Priority {
    /// Awareness.
    #[n(1)]
    Low,
    /// Prompt response.
    #[n(2)]
    Medium,
    /// Immediate response.
    #[n(3)]
    High,
}

impl Priority {
    /// All of them, the lowest first.
    pub const ALL: [Self; 3] = [Self::Low, Self::Medium, Self::High];

    /// What texts begin with.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Low => "*",
            Self::Medium => "**",
            Self::High => "***",
        }
    }

    /// Its name in JSON and counters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// What an alarm is about.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum Kind {
    /// A numeric above its limit.
    #[n(1)]
    High,
    /// A numeric below its limit.
    #[n(2)]
    Low,
    /// A numeric far above its limit.
    #[n(3)]
    ExtremeHigh,
    /// A numeric far below its limit.
    #[n(4)]
    ExtremeLow,
    /// A heart rate of 0.
    #[n(5)]
    Asystole,
    /// A respiratory rate of 0.
    #[n(6)]
    Apnoea,
    /// NEWS2 reached a threshold.
    #[n(7)]
    Score,
    /// The device saw a fall.
    #[n(8)]
    Fall,
    /// The patient calls.
    #[n(9)]
    Button,
    /// An electrode is off.
    #[n(32)]
    LeadsOff,
    /// A series that came regularly comes no more.
    #[n(33)]
    NoData,
    /// A sensor sends values that nobody can have.
    #[n(34)]
    Implausible,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::High,
        Self::Low,
        Self::ExtremeHigh,
        Self::ExtremeLow,
        Self::Asystole,
        Self::Apnoea,
        Self::Score,
        Self::Fall,
        Self::Button,
        Self::LeadsOff,
        Self::NoData,
        Self::Implausible,
    ];

    /// Whether it is about the equipment (IEC 60601-1-8: technical alarm condition).
    #[must_use]
    pub fn is_technical(self) -> bool {
        match self {
            Self::LeadsOff | Self::NoData | Self::Implausible => true,
            Self::High
            | Self::Low
            | Self::ExtremeHigh
            | Self::ExtremeLow
            | Self::Asystole
            | Self::Apnoea
            | Self::Score
            | Self::Fall
            | Self::Button => false,
        }
    }

    /// Whether it stays after its condition has ended, until somebody acknowledges.
    #[must_use]
    pub fn latches(self) -> bool {
        match self {
            Self::Asystole | Self::Apnoea | Self::Fall | Self::Button => true,
            Self::High
            | Self::Low
            | Self::ExtremeHigh
            | Self::ExtremeLow
            | Self::Score
            | Self::LeadsOff
            | Self::NoData
            | Self::Implausible => false,
        }
    }

    /// Its name in JSON and counters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Low => "low",
            Self::ExtremeHigh => "extreme_high",
            Self::ExtremeLow => "extreme_low",
            Self::Asystole => "asystole",
            Self::Apnoea => "apnoea",
            Self::Score => "score",
            Self::Fall => "fall",
            Self::Button => "button",
            Self::LeadsOff => "leads_off",
            Self::NoData => "no_data",
            Self::Implausible => "implausible",
        }
    }
}

/// How an alarm stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cbor(index_only)]
pub enum State {
    /// Its condition is there, and nobody has acknowledged it.
    #[n(0)]
    Active,
    /// Somebody has, and the condition is still there.
    #[n(1)]
    Acknowledged,
    /// Its condition has ended, and nobody has acknowledged it.
    #[n(2)]
    Latched,
}

/// One alarm.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alarm {
    /// Which one, of its patient; never used again.
    #[n(0)]
    pub number: u64,
    /// What about.
    #[n(1)]
    pub kind: Kind,
    /// How urgent.
    #[n(2)]
    pub priority: Priority,
    /// How it stands.
    #[n(3)]
    pub state: State,
    /// The quantity's row in the code table, where it is about one.
    #[n(4)]
    pub quantity: Option<u16>,
    /// The device, where it is about one.
    #[cbor(n(5), with = "device")]
    pub device: Option<DeviceId>,
    /// The value that raised it, in the row's unit; for the score its sum. None where the patient keeps the values from who may see alarms.
    #[n(6)]
    pub value: Option<f64>,
    /// The limit or threshold that it passed.
    #[n(7)]
    pub limit: Option<f64>,
    /// Since when, Unix microseconds by the gateway's clock.
    #[n(8)]
    pub since_us: i64,
}

impl Alarm {
    /// What a screen shows: prefix, what, value and limit, as in `** SpO2 84 < 90`.
    #[must_use]
    pub fn text(&self) -> String {
        let row = self.quantity.and_then(code::by_number);
        let name = row.map_or("", |row| row.display);
        let against = |sign: &str| match (self.value, self.limit) {
            (Some(value), Some(limit)) => format!("{name} {value:.4} {sign} {limit:.4}"),
            // The patient keeps the value for others than who may see alarms.
            (None, Some(limit)) => format!("{name} {sign} {limit:.4}"),
            (Some(_) | None, None) => name.to_owned(),
        };
        let device = self.device.as_ref().map_or("", DeviceId::as_str);
        let text = match self.kind {
            Kind::High | Kind::ExtremeHigh => against(">"),
            Kind::Low | Kind::ExtremeLow => against("<"),
            Kind::Asystole => "ASYSTOLE".to_owned(),
            Kind::Apnoea => "APNOEA".to_owned(),
            Kind::Score => match (self.value, self.limit) {
                // A single parameter that scores 3 has no sum to pass.
                (Some(_), None) | (None, _) => "NEWS2 3 in one parameter".to_owned(),
                (Some(value), Some(limit)) => format!("NEWS2 {value} ≥ {limit}"),
            },
            Kind::Fall => "FALL".to_owned(),
            Kind::Button => "CALL BUTTON".to_owned(),
            Kind::LeadsOff => format!("Leads off ({device})"),
            Kind::NoData => format!("{name}: no data ({device})"),
            Kind::Implausible => format!("Implausible values ({device})"),
        };
        format!("{} {}", self.priority.prefix(), trimmed(&text))
    }
}

/// `37.0000` is `37`.
fn trimmed(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        let is_number = word.contains('.') && word.parse::<f64>().is_ok();
        if is_number { word.trim_end_matches('0').trim_end_matches('.') } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// What became of a domain's last command.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handled {
    /// Whose.
    #[cbor(n(0), with = "recipient")]
    pub domain: RecipientId,
    /// Its number.
    #[n(1)]
    pub sequence: u64,
    /// None where it was done; else a word that says why not.
    #[n(2)]
    pub refused: Option<String>,
}

/// All that the watch says of one patient at one moment.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// When, Unix microseconds by the gateway's clock; rises with each standing of a patient.
    #[n(0)]
    pub at_us: i64,
    /// At most [`ALARMS_MAX`], the most urgent first.
    #[n(1)]
    pub alarms: Vec<Alarm>,
    /// What staff set and entered.
    #[n(2)]
    pub settings: Settings,
    /// NEWS2.
    #[n(3)]
    pub score: Score,
    /// At most [`HANDLED_MAX`].
    #[n(4)]
    pub handled: Vec<Handled>,
}

/// Bytes are no standing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StandingError {
    /// Longer than [`STANDING_BYTES_MAX`].
    #[error("standing has {0} bytes, allowed are {STANDING_BYTES_MAX}")]
    TooLong(usize),
    /// Not the CBOR that belongs there.
    #[error("standing: {0}")]
    Cbor(String),
    /// Bytes follow it.
    #[error("{0} bytes follow the standing")]
    Trailing(usize),
    /// More entries than there may be, or a number that is none.
    #[error("standing: {0} is out of bounds")]
    Bounds(&'static str),
}

impl Standing {
    /// As CBOR.
    ///
    /// # Panics
    /// Beyond [`STANDING_BYTES_MAX`]: nobody could read it. The watch keeps within its bounds.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Ok(bytes) = minicbor::to_vec(self).map_err(|_source| unreachable!("a Vec takes every byte"));
        assert!(bytes.len() <= STANDING_BYTES_MAX, "a standing of {} bytes", bytes.len());
        bytes
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`StandingError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, StandingError> {
        if bytes.len() > STANDING_BYTES_MAX {
            return Err(StandingError::TooLong(bytes.len()));
        }
        let mut decoder = minicbor::Decoder::new(bytes);
        let standing: Self = decoder.decode().map_err(|source| StandingError::Cbor(source.to_string()))?;
        match bytes.len() - decoder.position() {
            0 => standing.checked(),
            extra => Err(StandingError::Trailing(extra)),
        }
    }

    fn checked(self) -> Result<Self, StandingError> {
        let finite = |value: Option<f64>| value.is_none_or(f64::is_finite);
        if self.alarms.len() > ALARMS_MAX {
            return Err(StandingError::Bounds("alarms"));
        }
        if self.handled.len() > HANDLED_MAX {
            return Err(StandingError::Bounds("handled"));
        }
        if !self.alarms.iter().all(|alarm| finite(alarm.value) && finite(alarm.limit)) {
            return Err(StandingError::Bounds("value"));
        }
        self.settings.check().map_err(|_source| StandingError::Bounds("limits"))?;
        Ok(self)
    }

    /// The most urgent alarm that nobody has acknowledged.
    #[must_use]
    pub fn loudest(&self) -> Option<Priority> {
        let open = self.alarms.iter().filter(|alarm| alarm.state != State::Acknowledged);
        open.map(|alarm| alarm.priority).max()
    }
}

mod device {
    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{Decoder, Encoder};

    use crate::id::DeviceId;

    pub(super) fn encode<C, W: Write>(
        device: &Option<DeviceId>,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.encode(device.as_ref().map(DeviceId::as_str)).map(drop)
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Option<DeviceId>, DecodeError> {
        let name: Option<&str> = d.decode()?;
        name.map(DeviceId::new).transpose().map_err(DecodeError::message)
    }
}

mod recipient {
    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{Decoder, Encoder};

    use crate::id::RecipientId;

    pub(super) fn encode<C, W: Write>(
        id: &RecipientId,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.bytes(&id.0).map(drop)
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<RecipientId, DecodeError> {
        let bytes = d.bytes()?.try_into().map_err(|_length| DecodeError::message("no recipient"))?;
        Ok(RecipientId(bytes))
    }
}

#[cfg(test)]
mod tests;
