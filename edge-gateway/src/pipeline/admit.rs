//! What may enter: known device, decodable payload, plausible values, not stored before. Pure.

use caregate_protocol::code;
use caregate_protocol::id::{DataClass, PatientId};
use caregate_protocol::payload::{self, Decoded};
use caregate_protocol::policy::VerifiedPolicy;
use caregate_protocol::reading::Reading;

use crate::ingest::Inbound;

/// What is to be done with a PUBLISH.
#[derive(Debug)]
pub enum Admission {
    /// Readings to seal, each with its class.
    Readings(PatientId, Vec<(DataClass, Reading)>),
    /// The device told something of itself; nothing to seal.
    About(About),
    /// Can't be taken as it is: a label for counters, and a sentence without any value.
    Quarantine(&'static str, String),
}

/// Retained topics of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// `…/meta`.
    Meta,
    /// `…/status`.
    Status,
}

/// Decodes a PUBLISH and decides what is to be done with it.
#[must_use]
pub fn admit(inbound: &Inbound, policy: &VerifiedPolicy) -> Admission {
    let readings = match payload::decode(&inbound.topic, &inbound.payload, inbound.received_us) {
        Ok(Decoded::Readings(readings)) => readings,
        Ok(Decoded::Meta { .. }) => return Admission::About(About::Meta),
        Ok(Decoded::Status { .. }) => return Admission::About(About::Status),
        Err(error) => return Admission::Quarantine(error.reason(), error.to_string()),
    };
    if readings.iter().any(|reading| reading.device != inbound.device) {
        return Admission::Quarantine("device", "the topic names another device than the credentials".into());
    }
    let Some(patient) = policy.patient_of(&inbound.device) else {
        return Admission::Quarantine("unbound", "the device is bound to no patient".into());
    };
    let classed = readings.into_iter().map(|reading| (class_of(&reading), reading)).collect();
    Admission::Readings(patient, classed)
}

fn class_of(reading: &Reading) -> DataClass {
    // The decoder takes quantities from the same table; one that is not in it is kept most closely.
    code::by_number(reading.value.quantity()).map_or(DataClass::Sensitive, |row| row.class)
}
