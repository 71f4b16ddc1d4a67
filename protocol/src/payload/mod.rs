//! What devices send: MQTT topics and payloads to readings with standard codes and units.
//!
//! A device chooses the format by the payload's first byte. Whatever can't be understood whole is refused whole, with an
//! error that names what and where but never a measured value, so that it can be logged. Keys that nobody defined
//! are ignored: firmware gains fields, and a reading is worth more than a strict reader. Formats: `docs/payloads.md`.

mod bridge;
mod cbor;
mod device;
mod json;
mod omh;
mod senml;
mod time;
pub mod topic;
mod wave;

use thiserror::Error;

use crate::code::Quantity;
use crate::id::{DeviceId, IdError, StreamName};
use crate::reading::{Reading, Value};

pub use device::{META_TEXT_BYTES_MAX, Meta, Status};
pub use senml::RECORDS_MAX;
pub use wave::{PERIOD_NS_MAX, PERIOD_NS_MIN};

use topic::Leaf;

/// Longest payload: a waveform chunk of the most samples is 16 kB, a SenML pack of the most records some 25 kB.
pub const PAYLOAD_BYTES_MAX: usize = 32 * 1024;
/// Latest device time, the end of the year 9999 in Unix microseconds: any clock that is merely wrong passes (both clocks
/// are kept), and sums of times can't overflow.
pub const TIME_US_MAX: i64 = 253_402_300_799_999_999;

/// What a PUBLISH said.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    /// One reading, or those of a SenML pack, a data point or a bridge's object; none of a sensor that is not worn.
    Readings(Vec<Reading>),
    /// What the device says of itself.
    Meta(Meta),
    /// Whether the device is there.
    Status(Status),
}

/// Why a PUBLISH was not understood.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum DecodeError {
    /// Longer than [`PAYLOAD_BYTES_MAX`].
    #[error("payload has {bytes} bytes, at most {PAYLOAD_BYTES_MAX} are read")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The topic is of another tree or version.
    #[error("topic does not begin with {}", topic::PREFIX)]
    TopicPrefix,
    /// The topic has levels that the tree lacks.
    #[error("topic is none of {{device}}/num/*, /wave/*, /event/*, /meta, /status and /BTtoMQTT/*")]
    TopicShape,
    /// A device or stream name that is none.
    #[error(transparent)]
    Name(#[from] IdError),
    /// A stream that the code table lacks.
    #[error("{kind} {name} is not in the code table")]
    UnknownStream {
        /// Metric, channel or event type.
        kind: &'static str,
        /// As named.
        name: StreamName,
    },
    /// The first byte begins none of the formats of this topic.
    #[error("payload does not begin as {expected}")]
    Format {
        /// What would.
        expected: &'static str,
    },
    /// Not JSON (RFC 8259), or a number that no double holds, or nested too deep.
    #[error("payload is not JSON: error in line {line}, column {column}")]
    Json {
        /// From 1.
        line: usize,
        /// From 1; 0 is the line's beginning.
        column: usize,
    },
    /// The payload ends inside an item.
    #[error("payload ends inside an item at byte {at}")]
    Truncated {
        /// Its length.
        at: usize,
    },
    /// Bytes follow the payload's one item.
    #[error("{extra} bytes follow the end at byte {at}")]
    Trailing {
        /// Where it should have ended.
        at: usize,
        /// How many follow.
        extra: usize,
    },
    /// A key that must be there is not.
    #[error("{key} is missing")]
    Missing {
        /// Which.
        key: &'static str,
    },
    /// A key that was there before.
    #[error("{key} is there twice{}", At(*.at))]
    Duplicate {
        /// Which.
        key: &'static str,
        /// Its offset, where the format has offsets.
        at: Option<usize>,
    },
    /// A value of another type.
    #[error("{key} must be {expected}{}", At(*.at))]
    Type {
        /// Of which key.
        key: &'static str,
        /// What it must be.
        expected: &'static str,
        /// Its offset, where the format has offsets.
        at: Option<usize>,
    },
    /// A number outside what the format allows.
    #[error("{key} must be from {min} to {max}")]
    Range {
        /// Of which key.
        key: &'static str,
        /// Least.
        min: i64,
        /// Greatest.
        max: i64,
    },
    /// More items than are read.
    #[error("more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are.
        max: usize,
    },
    /// Infinite, or not a number.
    #[error("{key} is not a finite number")]
    NotFinite {
        /// Which.
        key: &'static str,
    },
    /// A unit without a conversion to the quantity's own.
    #[error("unit of {metric} is neither {unit} nor one that is converted to it")]
    Unit {
        /// Which metric or channel.
        metric: &'static str,
        /// Its own unit.
        unit: &'static str,
    },
    /// A value that no sensor on a person can mean.
    #[error("{metric} is outside {min} to {max} {unit}")]
    Implausible {
        /// Which metric.
        metric: &'static str,
        /// Least plausible value.
        min: f64,
        /// Greatest plausible value.
        max: f64,
        /// Their unit.
        unit: &'static str,
    },
    /// A SenML version above 10 (RFC 8428 §4.4).
    #[error("bver is above {}", senml::VERSION)]
    Version,
    /// A SenML label that must be understood and is not: it ends in `_` (RFC 8428 §4.4).
    #[error("a label that ends in _ must be understood and is not")]
    MustUnderstand,
    /// One record of a SenML pack.
    #[error("record {index}: {source}")]
    Record {
        /// From 0.
        index: usize,
        /// What was wrong with it.
        source: Box<Self>,
    },
}

/// ` at byte N`, where there is an N.
struct At(Option<usize>);

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |at| write!(f, " at byte {at}"))
    }
}

impl DecodeError {
    /// A label for counters; few, and none of them from the payload.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "too_long",
            Self::TopicPrefix | Self::TopicShape | Self::Name(_) => "topic",
            Self::UnknownStream { .. } => "unknown_stream",
            Self::Format { .. } => "format",
            Self::Json { .. } => "json",
            Self::Truncated { .. } => "truncated",
            Self::Trailing { .. } => "trailing",
            Self::Missing { .. } => "missing_key",
            Self::Duplicate { .. } => "duplicate_key",
            Self::Type { .. } => "type",
            Self::Range { .. } => "range",
            Self::TooMany { .. } => "too_many",
            Self::NotFinite { .. } => "not_finite",
            Self::Unit { .. } => "unit",
            Self::Implausible { .. } => "implausible",
            Self::Version | Self::MustUnderstand => "senml_version",
            Self::Record { source, .. } => source.reason(),
        }
    }
}

/// Takes one PUBLISH apart. `received_us` is the gateway's Unix time in microseconds; it becomes each reading's
/// `gateway_time_us`.
///
/// # Errors
/// [`DecodeError`]; nothing of a payload is kept that was not understood whole.
pub fn decode(topic: &str, payload: &[u8], received_us: i64) -> Result<Decoded, DecodeError> {
    let topic::Topic { device, leaf } = topic::parse(topic)?;
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(DecodeError::TooLong { bytes: payload.len() });
    }
    let source = Source { device, received_us };
    Ok(match leaf {
        Leaf::Numeric(metric) => Decoded::Readings(decode_numeric(&source, metric, payload)?),
        Leaf::DataPoint => Decoded::Readings(omh::decode(&source, payload)?),
        Leaf::Bridge => Decoded::Readings(bridge::decode(&source, payload)?),
        Leaf::Waveform(channel) => Decoded::Readings(vec![wave::decode(&source, channel, payload)?]),
        Leaf::Event(kind) => Decoded::Readings(vec![json::decode_event(&source, kind, payload)?]),
        Leaf::Meta => Decoded::Meta(device::decode_meta(payload)?),
        Leaf::Status => Decoded::Status(device::decode_status(payload)?),
    })
}

/// The first byte tells the formats apart: no CBOR array begins as JSON text does.
fn decode_numeric(
    source: &Source,
    metric: Option<&'static Quantity>,
    payload: &[u8],
) -> Result<Vec<Reading>, DecodeError> {
    let first = payload.iter().find(|byte| !byte.is_ascii_whitespace());
    match (first, metric) {
        (Some(b'{'), Some(metric)) => Ok(vec![json::decode_numeric(source, metric, payload)?]),
        (Some(b'['), _) => senml::decode(source, &json::senml_records(payload)?),
        (Some(0x80..=0x9f), _) => senml::decode(source, &senml::cbor_records(payload)?),
        (Some(_) | None, Some(_)) => Err(DecodeError::Format { expected: "a JSON object or a SenML pack" }),
        (Some(_) | None, None) => Err(DecodeError::Format { expected: "a SenML pack" }),
    }
}

/// Where a payload came from, and when.
struct Source {
    device: DeviceId,
    received_us: i64,
}

/// What goes into a reading besides its source.
struct Parts {
    quantity: &'static Quantity,
    seq: Option<u64>,
    sensor_time_us: Option<i64>,
    flags: u32,
    value: Value,
}

impl Source {
    fn reading(&self, parts: Parts) -> Result<Reading, DecodeError> {
        Ok(Reading {
            device: self.device.clone(),
            stream: StreamName::new(parts.quantity.name)?,
            seq: parts.seq,
            sensor_time_us: parts.sensor_time_us,
            gateway_time_us: self.received_us,
            flags: parts.flags,
            value: parts.value,
        })
    }
}

/// A numeric in its own unit and within its plausible range.
fn numeric(quantity: &'static Quantity, value: f64, unit: Option<&str>) -> Result<Value, DecodeError> {
    let own = quantity.unit.unwrap_or_default();
    let value = quantity
        .convert(value, unit.unwrap_or(own))
        .ok_or(DecodeError::Unit { metric: quantity.name, unit: own })?;
    if !quantity.is_plausible(value) {
        let (min, max) = quantity.range.unwrap_or_default();
        return Err(DecodeError::Implausible { metric: quantity.name, min, max, unit: own });
    }
    Ok(Value::Numeric { quantity: quantity.number, value })
}

/// A device's time in microseconds, if it is one.
fn time_us(key: &'static str, us: Option<i64>) -> Result<i64, DecodeError> {
    us.filter(|us| (0..=TIME_US_MAX).contains(us)).ok_or(DecodeError::Range { key, min: 0, max: TIME_US_MAX })
}

#[cfg(test)]
mod tests;
