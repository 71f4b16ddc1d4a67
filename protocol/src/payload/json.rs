//! JSON of devices: plain numerics and events, and the records of SenML JSON (RFC 8428 §5).
//!
//! serde_json bounds the depth (128) and refuses numbers that no double holds. Its own messages quote values, so they
//! are not passed on. A key with the value `null` counts as absent.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;

use super::senml::{RECORDS_MAX, Record};
use super::{DecodeError, Parts, Source, numeric, time_us};
use crate::code::Quantity;
use crate::reading::{Reading, Value};

/// Every key that some format here reads; others are skipped.
const KEYS: [&str; 18] = [
    "v",
    "u",
    "t",
    "seq",
    "q",
    "n",
    "vs",
    "vb",
    "vd",
    "s",
    "bn",
    "bt",
    "bu",
    "bv",
    "bver",
    "manufacturer",
    "model",
    "firmware",
];

/// A JSON object's known keys.
#[derive(Default)]
pub(super) struct Fields {
    kept: Vec<(&'static str, Json)>,
    duplicate: Option<&'static str>,
    must_understand: bool,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Fields::default();
                while let Some(key) = map.next_key::<String>()? {
                    let Some(key) = KEYS.into_iter().find(|known| *known == key) else {
                        fields.must_understand |= key.ends_with('_');
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    let value = map.next_value()?;
                    if fields.kept.iter().any(|(kept, _)| *kept == key) {
                        fields.duplicate = Some(key);
                    } else {
                        fields.kept.push((key, value));
                    }
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Object)
    }
}

impl Fields {
    fn checked(self) -> Result<Self, DecodeError> {
        self.duplicate.map_or(Ok(self), |key| Err(DecodeError::Duplicate { key, at: None }))
    }

    fn value(&self, key: &'static str) -> Option<&Json> {
        self.kept.iter().find(|(kept, value)| *kept == key && !value.is_null()).map(|(_, value)| value)
    }

    fn read<'a, T>(
        &'a self,
        key: &'static str,
        expected: &'static str,
        convert: impl Fn(&'a Json) -> Option<T>,
    ) -> Result<Option<T>, DecodeError> {
        let wrong = || DecodeError::Type { key, expected, at: None };
        self.value(key).map(|value| convert(value).ok_or_else(wrong)).transpose()
    }

    pub(super) fn text(&self, key: &'static str) -> Result<Option<&str>, DecodeError> {
        self.read(key, "text", Json::as_str)
    }

    fn number(&self, key: &'static str) -> Result<Option<f64>, DecodeError> {
        self.read(key, "a number", Json::as_f64)
    }

    fn unsigned(&self, key: &'static str) -> Result<Option<u64>, DecodeError> {
        self.read(key, "a whole number from 0", Json::as_u64)
    }

    /// `seq`, `t` in microseconds and `q`.
    fn origin(&self) -> Result<(Option<u64>, Option<i64>, u32), DecodeError> {
        let ms = self.read("t", "a whole number of milliseconds", Json::as_i64)?;
        let time = ms.map(|ms| time_us("t", ms.checked_mul(1000))).transpose()?;
        let flags = u32::try_from(self.unsigned("q")?.unwrap_or(0)).map_err(|_above| DecodeError::Range {
            key: "q",
            min: 0,
            max: u32::MAX.into(),
        })?;
        Ok((self.unsigned("seq")?, time, flags))
    }
}

/// A payload that is one JSON object.
pub(super) fn object(payload: &[u8]) -> Result<Fields, DecodeError> {
    parse::<Fields>(payload, "an object")?.checked()
}

/// Parses the whole payload; `expected` is what it must be, other than JSON.
pub(super) fn parse<'de, T: Deserialize<'de>>(
    payload: &'de [u8],
    expected: &'static str,
) -> Result<T, DecodeError> {
    serde_json::from_slice(payload).map_err(|source| {
        if source.is_data() {
            DecodeError::Type { key: "payload", expected, at: None }
        } else if source.is_eof() {
            DecodeError::Truncated { at: payload.len() }
        } else {
            DecodeError::Json { line: source.line(), column: source.column() }
        }
    })
}

/// `{"v":72,"u":"/min","t":1790000000000,"seq":7,"q":0}`; all but `v` are optional.
pub(super) fn decode_numeric(
    source: &Source,
    quantity: &'static Quantity,
    payload: &[u8],
) -> Result<Reading, DecodeError> {
    let fields = object(payload)?;
    let value = fields.number("v")?.ok_or(DecodeError::Missing { key: "v" })?;
    let value = numeric(quantity, value, fields.text("u")?)?;
    let (seq, sensor_time_us, flags) = fields.origin()?;
    source.reading(Parts { quantity, seq, sensor_time_us, flags, value })
}

/// `{"t":1790000000000,"seq":7,"q":0}`, all optional, or nothing at all.
pub(super) fn decode_event(
    source: &Source,
    quantity: &'static Quantity,
    payload: &[u8],
) -> Result<Reading, DecodeError> {
    let fields = if payload.is_empty() { Fields::default() } else { object(payload)? };
    let (seq, sensor_time_us, flags) = fields.origin()?;
    source.reading(Parts {
        quantity,
        seq,
        sensor_time_us,
        flags,
        value: Value::Event { quantity: quantity.number },
    })
}

/// A SenML pack's objects, of which at most [`RECORDS_MAX`] are kept.
struct Pack {
    records: Vec<Fields>,
    too_many: bool,
}

impl<'de> Deserialize<'de> for Pack {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Array;

        impl<'de> Visitor<'de> for Array {
            type Value = Pack;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of objects")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Pack, A::Error> {
                let mut records = Vec::new();
                while records.len() < RECORDS_MAX {
                    match seq.next_element()? {
                        Some(fields) => records.push(fields),
                        None => return Ok(Pack { records, too_many: false }),
                    }
                }
                let mut too_many = false;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    too_many = true;
                }
                Ok(Pack { records, too_many })
            }
        }

        deserializer.deserialize_seq(Array)
    }
}

/// The records of a SenML JSON pack as they stand, unresolved.
pub(super) fn senml_records(payload: &[u8]) -> Result<Vec<Record>, DecodeError> {
    let pack: Pack = parse(payload, "an array of objects")?;
    if pack.too_many {
        return Err(DecodeError::TooMany { what: "records", max: RECORDS_MAX });
    }
    let at = |index| move |source| DecodeError::Record { index, source: Box::new(source) };
    pack.records
        .into_iter()
        .enumerate()
        .map(|(index, fields)| senml_record(fields).map_err(at(index)))
        .collect()
}

fn senml_record(fields: Fields) -> Result<Record, DecodeError> {
    let fields = fields.checked()?;
    if fields.must_understand {
        return Err(DecodeError::MustUnderstand);
    }
    let text = |key| Ok::<_, DecodeError>(fields.text(key)?.map(str::to_owned));
    Ok(Record {
        base_name: text("bn")?,
        base_time: fields.number("bt")?,
        base_unit: text("bu")?,
        base_value: fields.number("bv")?,
        version: fields.unsigned("bver")?,
        name: text("n")?,
        unit: text("u")?,
        value: fields.number("v")?,
        time: fields.number("t")?,
        no_number: ["vs", "vb", "vd", "s"].iter().any(|key| fields.value(key).is_some()),
    })
}
