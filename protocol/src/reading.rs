//! A reading: one numeric, one waveform chunk or one event of one device; and the CBOR that a segment seals.
//!
//! ```text
//! [* reading]
//! reading = [device: text, stream: text, seq: uint / null, sensor time: int / null, gateway time: int, flags: uint, value]
//! value   = [0, quantity: uint, value: float64]
//!         / [1, quantity: uint, t0: int, period: uint, scale: float64, offset: float64, samples: bytes, i16 little-endian]
//!         / [2, quantity: uint]
//!         / [3, standing: bytes]
//! ```
//! Arrays are of definite length (RFC 8949 §3.2.1). What the gateway seals it writes here, so the reader is strict.

use std::convert::Infallible;

use minicbor::{Decoder, Encoder, decode as cbor_in, encode as cbor};
use ring::digest::{Context, SHA256};
use thiserror::Error;

use crate::alarm::{STANDING_QUANTITY, Standing};
use crate::id::{DeviceId, IdError, StreamName};

/// Most samples in one waveform chunk: 250 ms at 32 kHz, far above any body sensor; it bounds a decoded chunk to 16 kB.
pub const SAMPLES_MAX: usize = 8192;

/// One measurement as the gateway admitted it.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The device that sent it.
    pub device: DeviceId,
    /// Which of the device's series: the metric, the waveform channel, the event type.
    pub stream: StreamName,
    /// The device's own counter in that series, where the payload carries one.
    pub seq: Option<u64>,
    /// Unix time in microseconds by the device's clock, where the payload carries one.
    pub sensor_time_us: Option<i64>,
    /// Unix time in microseconds by the gateway's clock, when the packet came in.
    pub gateway_time_us: i64,
    /// The device's quality flags, 0 where it sent none.
    pub flags: u32,
    /// What was measured.
    pub value: Value,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// One number, already in the quantity's own unit (`crate::code`).
    Numeric {
        /// The quantity, by its row in the code table.
        quantity: u16,
        /// In the unit of that row.
        value: f64,
    },
    /// Evenly spaced samples; the physical value is `offset + scale * sample`.
    Waveform {
        /// The quantity, by its row in the code table.
        quantity: u16,
        /// Unix time of the first sample in microseconds, by the device's clock.
        t0_us: i64,
        /// Time between samples in nanoseconds (360 Hz has no whole number of microseconds).
        period_ns: u32,
        /// Physical units per step.
        scale: f64,
        /// Physical value of sample 0.
        offset: f64,
        /// At most [`SAMPLES_MAX`].
        samples: Vec<i16>,
    },
    /// Something that happened.
    Event {
        /// The quantity, by its row in the code table.
        quantity: u16,
    },
    /// What the gateway's own watch says of the patient.
    Standing(Box<Standing>),
}

impl Value {
    /// The quantity's row in the code table; [`STANDING_QUANTITY`] for a standing.
    #[must_use]
    pub fn quantity(&self) -> u16 {
        match self {
            Self::Numeric { quantity, .. } | Self::Waveform { quantity, .. } | Self::Event { quantity } => {
                *quantity
            }
            Self::Standing(_) => STANDING_QUANTITY,
        }
    }
}

/// Most readings of one segment: a group commit of 5 ms on a gateway of 1,000 readings a second holds a handful, one
/// that caught up with a stalled disk some thousands. It bounds what a reader allocates.
pub const READINGS_MAX: usize = 4096;

/// Elements of a reading's array.
const READING_ELEMENTS: u64 = 7;
const NUMERIC: u8 = 0;
const WAVEFORM: u8 = 1;
const EVENT: u8 = 2;
const STANDING: u8 = 3;

/// Why bytes are no readings.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadingError {
    /// Not the CBOR that this module writes.
    #[error("{field} is malformed at byte {at}")]
    Malformed {
        /// What was expected.
        field: &'static str,
        /// Where.
        at: usize,
    },
    /// The input ends inside a reading.
    #[error("readings end inside {field} at byte {at}")]
    Truncated {
        /// What was being read.
        field: &'static str,
        /// Length of the input.
        at: usize,
    },
    /// More than [`READINGS_MAX`].
    #[error("{count} readings, at most {READINGS_MAX} are read")]
    TooMany {
        /// How many are announced.
        count: u64,
    },
    /// A device or stream name that is none.
    #[error("name at byte {at}: {source}")]
    Name {
        /// Where.
        at: usize,
        /// What is wrong with it.
        source: IdError,
    },
    /// Bytes follow the readings.
    #[error("{extra} bytes follow the readings at byte {at}")]
    Trailing {
        /// Where they should have ended.
        at: usize,
        /// How many follow.
        extra: usize,
    },
}

impl ReadingError {
    /// A label for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "malformed",
            Self::Truncated { .. } => "truncated",
            Self::TooMany { .. } => "too_many",
            Self::Name { .. } => "name",
            Self::Trailing { .. } => "trailing",
        }
    }
}

/// The readings as CBOR.
///
/// # Panics
/// With more than [`READINGS_MAX`] readings, more than [`SAMPLES_MAX`] samples in one or a number that is not finite:
/// nobody could read the segment, so it must not be acknowledged.
#[must_use]
pub fn encode(readings: &[Reading]) -> Vec<u8> {
    assert!(readings.len() <= READINGS_MAX, "a segment of {} readings", readings.len());
    let mut encoder = Encoder::new(Vec::with_capacity(64 * readings.len()));
    let written = write_all(&mut encoder, readings);
    let Ok(()) = written.map_err(|_source| unreachable!("a Vec takes every byte"));
    encoder.into_writer()
}

type Written = Result<(), cbor::Error<Infallible>>;

fn write_all(encoder: &mut Encoder<Vec<u8>>, readings: &[Reading]) -> Written {
    encoder.array(length(readings))?;
    readings.iter().try_for_each(|reading| write(encoder, reading))
}

fn length<T>(items: &[T]) -> u64 {
    u64::try_from(items.len()).unwrap_or(u64::MAX)
}

fn write(encoder: &mut Encoder<Vec<u8>>, reading: &Reading) -> Written {
    encoder.array(READING_ELEMENTS)?.str(reading.device.as_str())?.str(reading.stream.as_str())?;
    encoder.encode(reading.seq)?.encode(reading.sensor_time_us)?;
    encoder.i64(reading.gateway_time_us)?.u32(reading.flags)?;
    match &reading.value {
        Value::Numeric { quantity, value } => {
            assert!(value.is_finite(), "a numeric that is not finite");
            encoder.array(3)?.u8(NUMERIC)?.u16(*quantity)?.f64(*value)?;
        }
        Value::Waveform { quantity, t0_us, period_ns, scale, offset, samples } => {
            assert!(samples.len() <= SAMPLES_MAX, "a waveform of {} samples", samples.len());
            assert!(scale.is_finite() && offset.is_finite(), "a scale that is not finite");
            encoder.array(7)?.u8(WAVEFORM)?.u16(*quantity)?.i64(*t0_us)?.u32(*period_ns)?;
            encoder.f64(*scale)?.f64(*offset)?.bytes(&little_endian(samples))?;
        }
        Value::Event { quantity } => {
            encoder.array(2)?.u8(EVENT)?.u16(*quantity)?;
        }
        Value::Standing(standing) => {
            encoder.array(2)?.u8(STANDING)?.bytes(&standing.encode())?;
        }
    }
    Ok(())
}

fn little_endian(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

/// The readings of a segment's plaintext.
///
/// # Errors
/// [`ReadingError`] with the offset, on any other shape than the one above. Quantities are not looked up: a reader
/// with an older code table still reads what it knows.
pub fn decode(bytes: &[u8]) -> Result<Vec<Reading>, ReadingError> {
    let mut cursor = Cursor { decoder: Decoder::new(bytes), length: bytes.len() };
    let count = cursor.array("readings")?;
    let capacity = usize::try_from(count).ok().filter(|count| *count <= READINGS_MAX);
    let capacity = capacity.ok_or(ReadingError::TooMany { count })?;
    // The announced number is not yet backed by bytes: a reading has at least 10.
    let mut readings = Vec::with_capacity(capacity.min(bytes.len() / 10));
    for _ in 0..count {
        readings.push(cursor.reading()?);
    }
    let at = cursor.decoder.position();
    match bytes.len() - at {
        0 => Ok(readings),
        extra => Err(ReadingError::Trailing { at, extra }),
    }
}

struct Cursor<'b> {
    decoder: Decoder<'b>,
    length: usize,
}

impl<'b> Cursor<'b> {
    fn item<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Decoder<'b>) -> Result<T, cbor_in::Error>,
    ) -> Result<T, ReadingError> {
        let at = self.decoder.position();
        read(&mut self.decoder).map_err(|source| {
            if source.is_end_of_input() {
                ReadingError::Truncated { field, at: self.length }
            } else {
                ReadingError::Malformed { field, at }
            }
        })
    }

    /// The length of an array of definite length.
    fn array(&mut self, field: &'static str) -> Result<u64, ReadingError> {
        let at = self.decoder.position();
        self.item(field, Decoder::array)?.ok_or(ReadingError::Malformed { field, at })
    }

    fn array_of(&mut self, field: &'static str, elements: u64) -> Result<(), ReadingError> {
        let at = self.decoder.position();
        if self.array(field)? == elements { Ok(()) } else { Err(ReadingError::Malformed { field, at }) }
    }

    fn name<T>(
        &mut self,
        field: &'static str,
        parse: impl FnOnce(&str) -> Result<T, IdError>,
    ) -> Result<T, ReadingError> {
        let at = self.decoder.position();
        parse(self.item(field, Decoder::str)?).map_err(|source| ReadingError::Name { at, source })
    }

    fn reading(&mut self) -> Result<Reading, ReadingError> {
        self.array_of("reading", READING_ELEMENTS)?;
        Ok(Reading {
            device: self.name("device", DeviceId::new)?,
            stream: self.name("stream", StreamName::new)?,
            seq: self.item("seq", Decoder::decode)?,
            sensor_time_us: self.item("sensor time", Decoder::decode)?,
            gateway_time_us: self.item("gateway time", Decoder::i64)?,
            flags: self.item("flags", Decoder::u32)?,
            value: self.value()?,
        })
    }

    fn value(&mut self) -> Result<Value, ReadingError> {
        let at = self.decoder.position();
        let elements = self.array("value")?;
        let kind = self.item("kind of value", Decoder::u8)?;
        if (kind, elements) == (STANDING, 2) {
            let standing = Standing::decode(self.item("standing", Decoder::bytes)?)
                .map_err(|_source| ReadingError::Malformed { field: "standing", at })?;
            return Ok(Value::Standing(Box::new(standing)));
        }
        let quantity = self.item("quantity", Decoder::u16)?;
        match (kind, elements) {
            (NUMERIC, 3) => Ok(Value::Numeric { quantity, value: self.finite("value")? }),
            (WAVEFORM, 7) => Ok(Value::Waveform {
                quantity,
                t0_us: self.item("t0", Decoder::i64)?,
                period_ns: self.item("period", Decoder::u32)?,
                scale: self.finite("scale")?,
                offset: self.finite("offset")?,
                samples: self.samples()?,
            }),
            (EVENT, 2) => Ok(Value::Event { quantity }),
            _ => Err(ReadingError::Malformed { field: "value", at }),
        }
    }

    fn finite(&mut self, field: &'static str) -> Result<f64, ReadingError> {
        let at = self.decoder.position();
        let number = self.item(field, Decoder::f64)?;
        if number.is_finite() { Ok(number) } else { Err(ReadingError::Malformed { field, at }) }
    }

    fn samples(&mut self) -> Result<Vec<i16>, ReadingError> {
        let at = self.decoder.position();
        let (pairs, odd) = self.item("samples", Decoder::bytes)?.as_chunks::<2>();
        if !odd.is_empty() || pairs.len() > SAMPLES_MAX {
            return Err(ReadingError::Malformed { field: "samples", at });
        }
        Ok(pairs.iter().map(|pair| i16::from_le_bytes(*pair)).collect())
    }
}

/// What tells a repeated PUBLISH from a new reading: the first 8 bytes of SHA-256 over device, stream, the device's time, and
/// its sequence number or, without one, what was measured. The gateway's clock does not enter.
///
/// A sensor that was reset counts from 0 again, at another time: another fingerprint. None for a reading without the
/// device's time: the same number, or the same value, is then a new reading as likely as a repeated one, and a reading must
/// rather be stored twice than lost.
#[must_use]
pub fn fingerprint(reading: &Reading) -> Option<u64> {
    reading.sensor_time_us?;
    let mut hash = Context::new(&SHA256);
    for name in [reading.device.as_str(), reading.stream.as_str()] {
        // Names never contain a zero byte.
        hash.update(name.as_bytes());
        hash.update(&[0]);
    }
    update(&mut hash, reading.sensor_time_us.map(i64::to_be_bytes));
    update(&mut hash, reading.seq.map(u64::to_be_bytes));
    if reading.seq.is_none() {
        update_value(&mut hash, &reading.value);
    }
    let digest = hash.finish();
    digest.as_ref().first_chunk().copied().map(u64::from_be_bytes)
}

fn update(hash: &mut Context, number: Option<[u8; 8]>) {
    hash.update(&[u8::from(number.is_some())]);
    hash.update(&number.unwrap_or_default());
}

fn update_value(hash: &mut Context, value: &Value) {
    match value {
        Value::Numeric { quantity, value } => {
            hash.update(&[NUMERIC]);
            hash.update(&quantity.to_be_bytes());
            hash.update(&value.to_be_bytes());
        }
        Value::Waveform { quantity, t0_us, period_ns, scale, offset, samples } => {
            hash.update(&[WAVEFORM]);
            hash.update(&quantity.to_be_bytes());
            hash.update(&t0_us.to_be_bytes());
            hash.update(&period_ns.to_be_bytes());
            hash.update(&scale.to_be_bytes());
            hash.update(&offset.to_be_bytes());
            hash.update(&little_endian(samples));
        }
        Value::Event { quantity } => {
            hash.update(&[EVENT]);
            hash.update(&quantity.to_be_bytes());
        }
        Value::Standing(standing) => {
            hash.update(&[STANDING]);
            hash.update(&standing.at_us.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
