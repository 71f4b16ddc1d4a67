//! Open mHealth data points (openmhealth.org, schemas of namespace `omh`): one measurement with its unit and time, in an envelope of
//! header and body, or the body alone. The header is passed over: its id is no device's, and what was measured says the body.

use serde::Deserialize;

use super::time::rfc3339_us;
use super::topic::quantity;
use super::{DecodeError, Parts, Source, json, numeric, time_us};
use crate::code::Kind;
use crate::reading::Reading;

/// `{"value": 72, "unit": "beats/min"}`
#[derive(Deserialize)]
struct Measure {
    value: f64,
    unit: String,
}

/// When it held: a moment, or an interval, of which the end counts.
#[derive(Deserialize)]
struct TimeFrame {
    date_time: Option<String>,
    time_interval: Option<Interval>,
}

#[derive(Deserialize)]
struct Interval {
    start_date_time: Option<String>,
    end_date_time: Option<String>,
}

#[derive(Deserialize)]
struct Body {
    heart_rate: Option<Measure>,
    oxygen_saturation: Option<Measure>,
    respiratory_rate: Option<Measure>,
    systolic_blood_pressure: Option<Measure>,
    diastolic_blood_pressure: Option<Measure>,
    body_temperature: Option<Measure>,
    body_weight: Option<Measure>,
    blood_glucose: Option<Measure>,
    effective_time_frame: Option<TimeFrame>,
}

/// A data point; the keys of a bare body lie beside `body`.
#[derive(Deserialize)]
struct Point {
    body: Option<Body>,
}

/// The data point's readings: one, or of a blood pressure two.
pub(super) fn decode(source: &Source, payload: &[u8]) -> Result<Vec<Reading>, DecodeError> {
    let expected = "an Open mHealth data point";
    let body = match json::parse::<Point>(payload, expected)?.body {
        Some(body) => body,
        None => json::parse::<Body>(payload, expected)?,
    };
    let sensor_time_us = body.effective_time_frame.as_ref().map(time_of).transpose()?.flatten();
    let measures = [
        ("heart-rate", body.heart_rate),
        ("spo2", body.oxygen_saturation),
        ("respiratory-rate", body.respiratory_rate),
        ("systolic", body.systolic_blood_pressure),
        ("diastolic", body.diastolic_blood_pressure),
        ("temperature", body.body_temperature),
        ("weight", body.body_weight),
        ("glucose", body.blood_glucose),
    ];
    let mut readings = Vec::new();
    for (name, measure) in measures {
        let Some(Measure { value, unit }) = measure else { continue };
        let row = quantity(Kind::Numeric, name)?;
        let value = numeric(row, value, Some(&unit))?;
        readings.push(source.reading(Parts { quantity: row, seq: None, sensor_time_us, flags: 0, value })?);
    }
    if readings.is_empty() { Err(DecodeError::Missing { key: "body" }) } else { Ok(readings) }
}

fn time_of(frame: &TimeFrame) -> Result<Option<i64>, DecodeError> {
    const EXPECTED: &str = "a date and time as in RFC 3339";
    let interval = frame.time_interval.as_ref();
    let end =
        interval.and_then(|interval| interval.end_date_time.as_ref().or(interval.start_date_time.as_ref()));
    let Some(text) = frame.date_time.as_ref().or(end) else { return Ok(None) };
    let key = "effective_time_frame";
    let us = rfc3339_us(text).ok_or(DecodeError::Type { key, expected: EXPECTED, at: None })?;
    time_us(key, Some(us)).map(Some)
}
