//! SenML (RFC 8428): packs of numerics in JSON or CBOR.
//!
//! A record's resolved name (base name and name) ends in the metric, after the last `/`, `:` or `_`:
//! `urn:dev:mac:0024befffe804ff1/heart-rate`. It is the name that says what the record is, whatever metric the topic
//! names. Records without a number (`vs`, `vb`, `vd`, or `s` alone) are refused.
//!
//! Times below 2^28 s are relative to now (§4.5.3), which for this end is when the gateway received the pack; such
//! a reading of a pack that is sent twice can't be recognised as the same. Without any time, or at 0, the sensor is taken to know none.

use super::cbor::{Cursor, MAP_ENTRIES_MAX};
use super::topic::quantity;
use super::{DecodeError, Parts, Source, TIME_US_MAX, numeric};
use crate::code::Kind;
use crate::reading::Reading;

/// Most records of one pack: four metrics, once a minute, for an hour make 240.
pub const RECORDS_MAX: usize = 256;
/// The version of RFC 8428, and the default of `bver`.
pub(super) const VERSION: u64 = 10;
/// Seconds from which a time is absolute (RFC 8428 §4.5.3).
const ABSOLUTE_FROM_S: f64 = 268_435_456.0;

/// One record as it stands. The comments are the labels in JSON and in CBOR.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// `bn`, -2
    pub(super) base_name: Option<String>,
    /// `bt`, -3, in seconds
    pub(super) base_time: Option<f64>,
    /// `bu`, -4
    pub(super) base_unit: Option<String>,
    /// `bv`, -5
    pub(super) base_value: Option<f64>,
    /// `bver`, -1
    pub(super) version: Option<u64>,
    /// `n`, 0
    pub(super) name: Option<String>,
    /// `u`, 1
    pub(super) unit: Option<String>,
    /// `v`, 2
    pub(super) value: Option<f64>,
    /// `t`, 6, in seconds
    pub(super) time: Option<f64>,
    /// Whether `vs` 3, `vb` 4, `s` 5 or `vd` 8 is there.
    pub(super) no_number: bool,
}

/// The base fields in force (§4.1).
#[derive(Default)]
struct Base {
    name: String,
    time: f64,
    unit: Option<String>,
    value: Option<f64>,
}

/// Resolves the records (§4.6) to readings.
pub(super) fn decode(source: &Source, records: &[Record]) -> Result<Vec<Reading>, DecodeError> {
    let mut base = Base::default();
    let mut readings = Vec::with_capacity(records.len());
    for (index, record) in records.iter().enumerate() {
        let resolved = base.resolve(source, record);
        readings.extend(resolved.map_err(|source| DecodeError::Record { index, source: Box::new(source) })?);
    }
    if readings.is_empty() { Err(DecodeError::Missing { key: "v" }) } else { Ok(readings) }
}

impl Base {
    fn resolve(&mut self, source: &Source, record: &Record) -> Result<Option<Reading>, DecodeError> {
        if record.version.is_some_and(|version| version > VERSION) {
            return Err(DecodeError::Version);
        }
        self.take(record);
        let only_base =
            record.name.is_none() && record.unit.is_none() && record.value.is_none() && record.time.is_none();
        if only_base && !record.no_number {
            return Ok(None);
        }
        let value = match (record.value, self.value) {
            (Some(value), base) => value + base.unwrap_or(0.0),
            (None, Some(base)) if !record.no_number => base,
            (None, _) => return Err(DecodeError::Missing { key: "v" }),
        };
        let mut name = self.name.clone();
        name.push_str(record.name.as_deref().unwrap_or_default());
        if name.is_empty() {
            return Err(DecodeError::Missing { key: "n" });
        }
        let metric = quantity(Kind::Numeric, name.rsplit(['/', ':', '_']).next().unwrap_or_default())?;
        let unit = record.unit.as_deref().or(self.unit.as_deref());
        let value = numeric(metric, value, unit)?;
        let sensor_time_us = sensor_time_us(self.time + record.time.unwrap_or(0.0), source.received_us)?;
        source.reading(Parts { quantity: metric, seq: None, sensor_time_us, flags: 0, value }).map(Some)
    }

    fn take(&mut self, record: &Record) {
        if let Some(name) = &record.base_name {
            self.name.clone_from(name);
        }
        if let Some(unit) = &record.base_unit {
            self.unit = Some(unit.clone());
        }
        self.time = record.base_time.unwrap_or(self.time);
        self.value = record.base_value.or(self.value);
    }
}

fn sensor_time_us(seconds: f64, received_us: i64) -> Result<Option<i64>, DecodeError> {
    const MICROS: f64 = 1e6;
    if seconds == 0.0 {
        return Ok(None);
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "the year 9999 needs 58 bits; the bound may be off by 16 µs"
    )]
    let max = TIME_US_MAX as f64;
    let wrong = DecodeError::Range { key: "t", min: 0, max: TIME_US_MAX };
    let us = seconds * MICROS;
    if !(-ABSOLUTE_FROM_S * MICROS..max).contains(&us) {
        return Err(wrong);
    }
    #[expect(clippy::cast_possible_truncation, reason = "in range, as checked, and rounded")]
    let us = us.round() as i64;
    let absolute = if seconds < ABSOLUTE_FROM_S { received_us.checked_add(us) } else { Some(us) };
    match absolute {
        Some(us) if (0..=TIME_US_MAX).contains(&us) => Ok(Some(us)),
        Some(_) | None => Err(wrong),
    }
}

/// The records of a SenML CBOR pack (§6) as they stand, unresolved.
pub(super) fn cbor_records(payload: &[u8]) -> Result<Vec<Record>, DecodeError> {
    let mut cursor = Cursor::new(payload);
    let mut left = cursor.array("pack")?;
    let mut records = Vec::new();
    while cursor.more(&mut left)? {
        let index = records.len();
        if index == RECORDS_MAX {
            return Err(DecodeError::TooMany { what: "records", max: RECORDS_MAX });
        }
        let record = cbor_record(&mut cursor)
            .map_err(|source| DecodeError::Record { index, source: Box::new(source) });
        records.push(record?);
    }
    cursor.finish()?;
    Ok(records)
}

fn cbor_record(cursor: &mut Cursor<'_>) -> Result<Record, DecodeError> {
    let mut record = Record::default();
    let mut left = cursor.map("record")?;
    let mut entries = 0;
    while cursor.more(&mut left)? {
        entries += 1;
        if entries > MAP_ENTRIES_MAX {
            return Err(DecodeError::TooMany { what: "entries of one record", max: MAP_ENTRIES_MAX });
        }
        if cursor.is_text() {
            if cursor.text("label")?.ends_with('_') {
                return Err(DecodeError::MustUnderstand);
            }
            cursor.skip()?;
            continue;
        }
        cbor_entry(cursor, &mut record)?;
    }
    Ok(record)
}

fn cbor_entry(cursor: &mut Cursor<'_>, record: &mut Record) -> Result<(), DecodeError> {
    let at = cursor.at();
    match cursor.integer("label")? {
        -1 => put(&mut record.version, cursor.unsigned("bver")?, "bver", at),
        -2 => put(&mut record.base_name, cursor.text("bn")?.to_owned(), "bn", at),
        -3 => put(&mut record.base_time, cursor.number("bt")?, "bt", at),
        -4 => put(&mut record.base_unit, cursor.text("bu")?.to_owned(), "bu", at),
        -5 => put(&mut record.base_value, cursor.number("bv")?, "bv", at),
        0 => put(&mut record.name, cursor.text("n")?.to_owned(), "n", at),
        1 => put(&mut record.unit, cursor.text("u")?.to_owned(), "u", at),
        2 => put(&mut record.value, cursor.number("v")?, "v", at),
        6 => put(&mut record.time, cursor.number("t")?, "t", at),
        3 | 4 | 5 | 8 => {
            record.no_number = true;
            cursor.skip()
        }
        _ => cursor.skip(),
    }
}

/// Fills a field that may come once.
pub(super) fn put<T>(
    field: &mut Option<T>,
    value: T,
    key: &'static str,
    at: usize,
) -> Result<(), DecodeError> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(DecodeError::Duplicate { key, at: Some(at) }),
    }
}
