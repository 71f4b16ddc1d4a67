//! What bridges from Bluetooth to MQTT emit: one JSON object of a device's decoded values, under `…/BTtoMQTT/{MAC}`
//! (OpenMQTTGateway and Theengs, whose keys they mostly are). The bridge is the device; which of its own devices it was, is not kept.
//!
//! Sources, read in November 2026: Theengs decoder (`steps`, `act_bpm`, `bpm`, `tempc`, `tempf`, `weight`, `unit`, `weighing_mode`,
//! `type`), viatom-ble (`spo2`, `hr`, `pi`, `worn`, `calibrating`), omblepy (`sys`, `dia`, `bpm`). Keys beside the known ones, such as
//! `rssi`, `batt` and `model`, are passed over.
//!
//! Such an object carries no time of the device. A sensor that is not worn, or not ready, has no values, whatever stands there.

use serde::Deserialize;

use super::topic::quantity;
use super::{DecodeError, Parts, Source, json, numeric};
use crate::code::Kind;
use crate::reading::{Reading, Value};

/// Below it a thermometer measures a room, not a person: the lowest that a bridge's body thermometer is believed.
const BODY_CEL_MIN: f64 = 25.0;
/// The one `type` of Theengs that is worn.
const TYPE_BODY: &str = "BODY";
/// A scale's word for a person on it.
const MODE_PERSON: &str = "person";

/// The known keys.
#[derive(Deserialize)]
struct Values {
    spo2: Option<f64>,
    /// Percent, as oximeters show it.
    pi: Option<f64>,
    hr: Option<f64>,
    bpm: Option<f64>,
    act_bpm: Option<f64>,
    sys: Option<f64>,
    dia: Option<f64>,
    tempc: Option<f64>,
    tempf: Option<f64>,
    /// With it, a thermometer hangs on a wall.
    hum: Option<f64>,
    weight: Option<f64>,
    glucose: Option<f64>,
    steps: Option<f64>,
    unit: Option<String>,
    weighing_mode: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    worn: Option<bool>,
    calibrating: Option<bool>,
}

impl Values {
    /// Metric, value and unit of all that is there.
    fn measured(&self) -> Vec<(&'static str, f64, &str)> {
        let unit = self.unit.as_deref();
        let is_body = self.hum.is_none() && self.kind.as_deref().is_none_or(|kind| kind == TYPE_BODY);
        let is_person = self.weighing_mode.as_deref().is_none_or(|mode| mode == MODE_PERSON);
        // Alone it is a strap's; beside SpO2 or a cuff's pressures it is the pulse.
        let is_pulse = self.spo2.is_some() || self.sys.is_some();
        let beats = if is_pulse { "pulse-rate" } else { "heart-rate" };
        let celsius = if is_body { self.tempc } else { None };
        let fahrenheit = if is_body && self.tempc.is_none() { self.tempf } else { None };
        let weight = if is_person { self.weight } else { None };
        let all = [
            ("spo2", self.spo2, "%"),
            ("perfusion-index", self.pi, "%"),
            (beats, self.hr.or(self.bpm), "bpm"),
            ("pulse-rate", self.act_bpm, "bpm"),
            ("systolic", self.sys, "mmHg"),
            ("diastolic", self.dia, "mmHg"),
            ("temperature", celsius, "Cel"),
            ("temperature", fahrenheit, "degF"),
            ("weight", weight, unit.unwrap_or("kg")),
            // Both units are usual, and neither can be told from the number.
            ("glucose", self.glucose, unit.unwrap_or("")),
            ("steps", self.steps, "steps"),
        ];
        all.into_iter().filter_map(|(metric, value, unit)| Some((metric, value?, unit))).collect()
    }
}

/// The object's readings; none of a sensor that is not worn or not ready.
pub(super) fn decode(source: &Source, payload: &[u8]) -> Result<Vec<Reading>, DecodeError> {
    let values: Values = json::parse(payload, "an object of a bridge's values")?;
    if values.worn == Some(false) || values.calibrating == Some(true) {
        return Ok(Vec::new());
    }
    let mut readings = Vec::new();
    for (metric, value, unit) in values.measured() {
        let row = quantity(Kind::Numeric, metric)?;
        let value = numeric(row, value, Some(unit))?;
        if let (Value::Numeric { value, .. }, "temperature") = (&value, metric)
            && *value < BODY_CEL_MIN
        {
            let (_, max) = row.range.unwrap_or_default();
            return Err(DecodeError::Implausible { metric, min: BODY_CEL_MIN, max, unit: "Cel" });
        }
        readings.push(source.reading(Parts {
            quantity: row,
            seq: None,
            sensor_time_us: None,
            flags: 0,
            value,
        })?);
    }
    if readings.is_empty() { Err(DecodeError::Missing { key: "a known measurement" }) } else { Ok(readings) }
}
