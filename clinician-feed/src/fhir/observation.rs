//! Readings as Observations: vital signs after the R4 vital-signs profiles, waveforms as sampled data, events. Pure.
//!
//! Pressures of one device and one instant are one panel (`bp` profile). Everything else is one Observation per reading. An id
//! names the segment, so it is the same after a restart and at another feed of the same hospital.

use std::fmt::Write as _;
use std::sync::Arc;

use caregate_protocol::code::{self, Kind, by_number};
use caregate_protocol::id::{DataClass, PatientId};
use caregate_protocol::reading::Value;
use ring::digest;

use super::date;
use super::resource::{
    ABSENT, CATEGORY, CodeableConcept, Coding, Component, Identifier, LOINC, MDC, Meta, Observation, Period,
    Quantity, Reference, SampledData, UCUM,
};
use crate::ring::Entry;

const SYSTOLIC: u16 = 5;
const DIASTOLIC: u16 = 6;
const MEAN: u16 = 7;
/// What stands for a sample that the device could not take (as in WFDB's 16-bit format).
const MISSING_SAMPLE: i16 = i16::MIN;
const PANEL_LOINC: &str = "85354-9";
const PANEL_MDC: &str = "150020";

/// What one Observation is made of.
#[derive(Debug, Clone)]
pub enum Item {
    /// One reading.
    Single(Arc<Entry>),
    /// Pressures of one device and instant, in the order in which they came; at least one.
    Panel(Vec<Arc<Entry>>),
}

/// Whether readings of this quantity are parts of the blood pressure panel.
#[must_use]
pub fn is_pressure(quantity: u16) -> bool {
    matches!(quantity, SYSTOLIC | DIASTOLIC | MEAN)
}

/// When it was measured, in Unix microseconds: by the sensor's clock where that can be written, else the gateway's, else ours.
#[must_use]
pub fn effective_us(entry: &Entry) -> i64 {
    let times = [entry.measured_us(), entry.reading.gateway_time_us, entry.opened_ms.saturating_mul(1000)];
    times.into_iter().find(|us| date::is_writable(*us)).unwrap_or(0)
}

/// The codes of a quantity, LOINC first.
#[must_use]
pub fn codings(quantity: u16) -> Vec<Coding> {
    let Some(q) = by_number(quantity) else { return Vec::new() };
    let loinc = q.loinc.iter().map(|code| Coding { system: LOINC, code: (*code).to_owned() });
    loinc.chain(q.mdc.map(|code| Coding { system: MDC, code: code.to_string() })).collect()
}

/// The codes of the blood pressure panel.
#[must_use]
pub fn panel_codings() -> Vec<Coding> {
    let coding = |system, code: &str| Coding { system, code: code.to_owned() };
    vec![coding(LOINC, PANEL_LOINC), coding(MDC, PANEL_MDC)]
}

/// The category of a quantity: vital signs where R4 has a profile.
#[must_use]
pub fn category(quantity: u16) -> &'static str {
    let Some(q) = by_number(quantity) else { return "procedure" };
    match (q.kind, q.class) {
        (Kind::Numeric, _) if profile(q).is_some() => "vital-signs",
        (Kind::Numeric, DataClass::Sensitive) => "laboratory",
        (Kind::Numeric | Kind::Event, DataClass::Activity) => "activity",
        (Kind::Event, DataClass::Alarm) if q.name == "fall" => "activity",
        (Kind::Numeric | Kind::Waveform | Kind::Event, _) => "procedure",
    }
}

/// The profile of a quantity among the R4 vital signs (<https://hl7.org/fhir/R4/observation-vitalsigns.html>).
fn profile(q: &code::Quantity) -> Option<&'static str> {
    match q.loinc.first().copied()? {
        "8867-4" => Some("http://hl7.org/fhir/StructureDefinition/heartrate"),
        "9279-1" => Some("http://hl7.org/fhir/StructureDefinition/resprate"),
        "2708-6" => Some("http://hl7.org/fhir/StructureDefinition/oxygensat"),
        "8310-5" => Some("http://hl7.org/fhir/StructureDefinition/bodytemp"),
        "29463-7" => Some("http://hl7.org/fhir/StructureDefinition/bodyweight"),
        "8480-6" | "8462-4" | "8478-0" => Some("http://hl7.org/fhir/StructureDefinition/bp"),
        _ => None,
    }
}

/// A unit as people write it.
fn unit_text(ucum: &'static str) -> &'static str {
    match ucum {
        "mm[Hg]" => "mmHg",
        "Cel" => "°C",
        "{steps}" => "steps",
        other => other,
    }
}

fn amount(value: f64, quantity: u16) -> Option<Quantity> {
    let code = by_number(quantity)?.unit?;
    Some(Quantity { value, unit: unit_text(code), system: UCUM, code })
}

fn concept(quantity: u16, stream: &str) -> CodeableConcept {
    let text = by_number(quantity).map_or(stream, |q| q.display);
    CodeableConcept { coding: codings(quantity), text: Some(text.to_owned()) }
}

fn subject(patient: PatientId) -> Reference {
    Reference { reference: Some(format!("Patient/{patient}")), kind: "Patient", identifier: None }
}

/// The id of a panel: a hash, because its parts may come in any order.
fn panel_id(entry: &Entry) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(&entry.patient.0);
    hash.update(&effective_us(entry).to_be_bytes());
    hash.update(entry.reading.device.as_str().as_bytes());
    format!("bp-{}", hex::encode(&hash.finish().as_ref()[..16]))
}

impl Item {
    /// What it is made of.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        match self {
            Self::Single(entry) => std::slice::from_ref(entry),
            Self::Panel(entries) => entries,
        }
        .iter()
        .map(|entry| &**entry)
    }

    /// The first of its readings to come.
    #[must_use]
    pub fn first(&self) -> Option<&Arc<Entry>> {
        match self {
            Self::Single(entry) => Some(entry),
            Self::Panel(entries) => entries.first(),
        }
    }

    /// `[A-Za-z0-9-.]{1,64}` (§2.24.0.1 `id`): patient, class, segment and place in it, or `bp-` and a hash.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::Single(entry) => {
                format!("{}-{}-{}-{}", entry.patient, entry.class as u8, entry.segment, entry.index)
            }
            Self::Panel(entries) => entries.first().map(|entry| panel_id(entry)).unwrap_or_default(),
        }
    }

    /// Bytes of its JSON, about.
    #[must_use]
    pub fn size(&self) -> usize {
        let Self::Single(entry) = self else { return 2048 };
        match &entry.reading.value {
            Value::Waveform { samples, .. } => 1024 + 6 * samples.len(),
            Value::Numeric { .. } | Value::Event { .. } | Value::Standing(_) => 1024,
        }
    }

    /// The Observation; none of an empty panel.
    #[must_use]
    pub fn observation(&self) -> Option<Observation> {
        let entry = self.first()?;
        let (quantity, effective_us) = (entry.quantity(), effective_us(entry));
        let identifier = Some(Identifier { value: entry.reading.device.to_string() });
        let profile = by_number(quantity).and_then(profile);
        let mut observation = Observation {
            resource_type: "Observation",
            id: self.id(),
            meta: profile.map(|profile| Meta { profile: vec![profile] }),
            status: "final",
            category: vec![CodeableConcept::one(CATEGORY, category(quantity))],
            code: concept(quantity, entry.reading.stream.as_str()),
            subject: subject(entry.patient),
            effective_date_time: Some(date::milliseconds(effective_us)),
            effective_period: None,
            value_quantity: None,
            value_boolean: None,
            device: Reference { reference: None, kind: "Device", identifier },
            component: Vec::new(),
        };
        match self {
            Self::Single(entry) => single(&mut observation, entry, effective_us),
            Self::Panel(entries) => panel(&mut observation, entries),
        }
        Some(observation)
    }
}

fn single(observation: &mut Observation, entry: &Entry, effective_us: i64) {
    match &entry.reading.value {
        Value::Numeric { quantity, value } => observation.value_quantity = amount(*value, *quantity),
        // A standing never gets into the ring (`feed.rs`).
        Value::Event { .. } | Value::Standing(_) => observation.value_boolean = Some(true),
        Value::Waveform { quantity, period_ns, scale, offset, samples, .. } => {
            let steps = i64::try_from(samples.len().saturating_sub(1)).unwrap_or(0);
            let end_us = effective_us.saturating_add(steps.saturating_mul(i64::from(*period_ns)) / 1000);
            observation.effective_date_time = None;
            observation.effective_period =
                Some(Period { start: date::microseconds(effective_us), end: date::microseconds(end_us) });
            let sampled = amount(*offset, *quantity).map(|origin| SampledData {
                origin,
                period: f64::from(*period_ns) / 1e6,
                factor: *scale,
                dimensions: 1,
                data: sampled(samples),
            });
            observation.component = vec![Component {
                code: observation.code.clone(),
                value_quantity: None,
                data_absent_reason: sampled.is_none().then(|| CodeableConcept::one(ABSENT, "unknown")),
                value_sampled_data: sampled,
            }];
        }
    }
}

/// Whole numbers between single spaces.
fn sampled(samples: &[i16]) -> String {
    let mut data = String::with_capacity(6 * samples.len());
    for (at, sample) in samples.iter().enumerate() {
        if at > 0 {
            data.push(' ');
        }
        if *sample == MISSING_SAMPLE {
            data.push('E');
        } else {
            let Ok(()) =
                write!(data, "{sample}").map_err(|_source| unreachable!("a String takes every character"));
        }
    }
    data
}

/// The profile wants systolic and diastolic, or a word why not.
fn panel(observation: &mut Observation, entries: &[Arc<Entry>]) {
    observation.code = CodeableConcept { coding: panel_codings(), text: Some("Blood pressure".to_owned()) };
    let part = |quantity: u16| {
        let mut values = entries.iter().filter_map(|entry| match entry.reading.value {
            Value::Numeric { quantity: q, value } if q == quantity => amount(value, q),
            Value::Numeric { .. } | Value::Waveform { .. } | Value::Event { .. } | Value::Standing(_) => None,
        });
        let value_quantity = values.next();
        Component {
            code: concept(quantity, ""),
            data_absent_reason: value_quantity.is_none().then(|| CodeableConcept::one(ABSENT, "unknown")),
            value_quantity,
            value_sampled_data: None,
        }
    };
    observation.component = vec![part(SYSTOLIC), part(DIASTOLIC)];
    observation.component.extend(Some(part(MEAN)).filter(|mean| mean.value_quantity.is_some()));
}

#[cfg(test)]
mod tests;
