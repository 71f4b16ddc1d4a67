//! Waveform chunks: a CBOR map with text keys, in any order.
//!
//! `t0` Unix µs of the first sample; `period` nanoseconds between samples; `scale`, `offset` and `unit`: the physical value
//! is `offset + scale * sample`; `data` little-endian 16-bit samples; `seq` and `flags` besides.
//! `offset`, `seq` and `flags` may be left out.

use super::cbor::{Cursor, MAP_ENTRIES_MAX};
use super::senml::put;
use super::{DecodeError, Parts, Source, time_us};
use crate::code::Quantity;
use crate::reading::{Reading, SAMPLES_MAX, Value};

/// Shortest time between samples: 32 kHz, far above any body sensor.
pub const PERIOD_NS_MIN: u32 = 31_250;
/// Longest time between samples: what comes less than once a second is a numeric.
pub const PERIOD_NS_MAX: u32 = 1_000_000_000;

#[derive(Default)]
struct Fields<'b> {
    t0: Option<i64>,
    period: Option<u64>,
    seq: Option<u64>,
    scale: Option<f64>,
    offset: Option<f64>,
    unit: Option<&'b str>,
    data: Option<&'b [u8]>,
    flags: Option<u64>,
}

pub(super) fn decode(
    source: &Source,
    channel: &'static Quantity,
    payload: &[u8],
) -> Result<Reading, DecodeError> {
    if !matches!(payload.first(), Some(0xa0..=0xbf)) {
        return Err(DecodeError::Format { expected: "a CBOR map" });
    }
    let fields = parse(payload)?;
    let missing = |key| DecodeError::Missing { key };
    let t0_us = time_us("t0", Some(fields.t0.ok_or_else(|| missing("t0"))?))?;
    let period_ns =
        narrow("period", fields.period.ok_or_else(|| missing("period"))?, PERIOD_NS_MIN, PERIOD_NS_MAX)?;
    let scale = fields.scale.ok_or_else(|| missing("scale"))?;
    let unit = fields.unit.ok_or_else(|| missing("unit"))?;
    let (scale, offset) = in_own_unit(channel, unit, scale, fields.offset.unwrap_or(0.0))?;
    let samples = samples(fields.data.ok_or_else(|| missing("data"))?)?;
    source.reading(Parts {
        quantity: channel,
        seq: fields.seq,
        sensor_time_us: Some(t0_us),
        flags: narrow("flags", fields.flags.unwrap_or(0), 0, u32::MAX)?,
        value: Value::Waveform { quantity: channel.number, t0_us, period_ns, scale, offset, samples },
    })
}

fn parse(payload: &[u8]) -> Result<Fields<'_>, DecodeError> {
    let mut cursor = Cursor::new(payload);
    let mut fields = Fields::default();
    let mut left = cursor.map("payload")?;
    let mut entries = 0;
    while cursor.more(&mut left)? {
        entries += 1;
        if entries > MAP_ENTRIES_MAX {
            return Err(DecodeError::TooMany { what: "entries", max: MAP_ENTRIES_MAX });
        }
        let at = cursor.at();
        match cursor.text("key")? {
            "t0" => put(&mut fields.t0, cursor.integer("t0")?, "t0", at)?,
            "period" => put(&mut fields.period, cursor.unsigned("period")?, "period", at)?,
            "seq" => put(&mut fields.seq, cursor.unsigned("seq")?, "seq", at)?,
            "scale" => put(&mut fields.scale, cursor.number("scale")?, "scale", at)?,
            "offset" => put(&mut fields.offset, cursor.number("offset")?, "offset", at)?,
            "unit" => put(&mut fields.unit, cursor.text("unit")?, "unit", at)?,
            "data" => put(&mut fields.data, cursor.bytes("data")?, "data", at)?,
            "flags" => put(&mut fields.flags, cursor.unsigned("flags")?, "flags", at)?,
            _ => cursor.skip()?,
        }
    }
    cursor.finish()?;
    Ok(fields)
}

fn narrow(key: &'static str, value: u64, min: u32, max: u32) -> Result<u32, DecodeError> {
    match u32::try_from(value) {
        Ok(value) if (min..=max).contains(&value) => Ok(value),
        Ok(_) | Err(_) => Err(DecodeError::Range { key, min: min.into(), max: max.into() }),
    }
}

/// Scale and offset in the channel's own unit, so that every sample has a finite physical value.
fn in_own_unit(
    channel: &'static Quantity,
    unit: &str,
    scale: f64,
    offset: f64,
) -> Result<(f64, f64), DecodeError> {
    let own = channel.unit.unwrap_or_default();
    let accepted = channel.accepts(unit).ok_or(DecodeError::Unit { metric: channel.name, unit: own })?;
    let (scale, offset) = (accepted.factor * scale, accepted.factor * offset + accepted.offset);
    if !(scale.abs() * f64::from(u16::MAX) + offset.abs()).is_finite() {
        return Err(DecodeError::NotFinite { key: "offset + scale * sample" });
    }
    if !scale.is_normal() {
        return Err(DecodeError::Type { key: "scale", expected: "other than 0", at: None });
    }
    Ok((scale, offset))
}

fn samples(data: &[u8]) -> Result<Vec<i16>, DecodeError> {
    let (pairs, odd) = data.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(DecodeError::Type { key: "data", expected: "whole 16-bit samples", at: None });
    }
    if pairs.is_empty() {
        return Err(DecodeError::Missing { key: "a sample in data" });
    }
    if pairs.len() > SAMPLES_MAX {
        return Err(DecodeError::TooMany { what: "samples", max: SAMPLES_MAX });
    }
    Ok(pairs.iter().map(|pair| i16::from_le_bytes(*pair)).collect())
}
