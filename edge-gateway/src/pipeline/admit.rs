//! What may enter: known device, decodable payload, plausible values, not stored before; and of which class it is, by the patient's
//! rules for the device and else by the code table (ADR 47). Pure.

use caregate_protocol::id::{DataClass, PatientId};
use caregate_protocol::payload::{self, Decoded};
use caregate_protocol::policy::VerifiedPolicy;
use caregate_protocol::reading::Reading;

use crate::ingest::{Fault, Inbound};

/// The decoder's word for a value outside its plausible range.
pub(super) const IMPLAUSIBLE: &str = "implausible";

/// What is to be done with a PUBLISH.
#[derive(Debug)]
pub enum Admission {
    /// Readings to seal, each with its class.
    Readings(PatientId, Vec<(DataClass, Reading)>),
    /// The device told something of itself; nothing to seal.
    About(About),
    /// Can't be taken as it is: whose fault it is, a label for counters, and a sentence without any value.
    Quarantine(Fault, &'static str, String),
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
        Err(error) => return Admission::Quarantine(Fault::Payload, error.reason(), error.to_string()),
    };
    if readings.iter().any(|reading| reading.device != inbound.device) {
        let detail = "the topic names another device than the credentials";
        return Admission::Quarantine(Fault::Device, "device", detail.into());
    }
    let Some(patient) = policy.patient_of(&inbound.device) else {
        return Admission::Quarantine(Fault::Device, "unbound", "the device is bound to no patient".into());
    };
    let class = |reading: &Reading| policy.class_of(&inbound.device, reading.value.quantity());
    let classed = readings.into_iter().map(|reading| (class(&reading), reading)).collect();
    Admission::Readings(patient, classed)
}

#[cfg(test)]
mod tests {
    use caregate_protocol::code;
    use caregate_protocol::id::DeviceId;
    use caregate_protocol::policy::{Authentic, BoundDevice, Classes, Freshness};
    use tokio::sync::oneshot;

    use super::*;

    const PATIENT: PatientId = PatientId([1; 16]);

    /// Two sensors of one patient: of `therapy-1` all is sensitive but SpO2; `monitor-1` is as the table has it.
    fn policy() -> VerifiedPolicy {
        let mut rules = Classes::default();
        rules.set(None, Some(DataClass::Sensitive)).unwrap();
        rules.set(code::by_name("spo2"), Some(DataClass::Vitals)).unwrap();
        rules.set(code::by_name("glucose"), Some(DataClass::Vitals)).unwrap();
        let bound = |name, classes| BoundDevice {
            device: DeviceId::new(name).unwrap(),
            patient: PATIENT,
            classes,
            station: None,
        };
        VerifiedPolicy::new(Authentic {
            epoch: 1,
            freshness: Freshness::Unproven,
            recipients: Vec::new(),
            devices: vec![bound("therapy-1", rules), bound("monitor-1", Classes::default())],
            grants: Vec::new(),
            revocations: Vec::new(),
            emergencies: Vec::new(),
        })
    }

    fn classes(device: &str, leaf: &str, payload: &str) -> Vec<DataClass> {
        let inbound = Inbound {
            device: DeviceId::new(device).unwrap(),
            topic: format!("vitals/v1/{device}/{leaf}"),
            payload: payload.as_bytes().to_vec().into(),
            received_us: 1_790_000_000_000_000,
            verdict: oneshot::channel().0,
        };
        let admission = admit(&inbound, &policy());
        let Admission::Readings(PATIENT, readings) = admission else { panic!("{admission:?}") };
        readings.into_iter().map(|(class, _)| class).collect()
    }

    #[test]
    fn the_class_depends_on_the_device_by_the_patients_word() {
        use DataClass::{Alarm, Sensitive, Vitals};
        let beat = r#"{"v":72,"seq":1}"#;
        assert_eq!(classes("monitor-1", "num/heart-rate", beat), [Vitals]);
        assert_eq!(classes("therapy-1", "num/heart-rate", beat), [Sensitive]);
        assert_eq!(classes("therapy-1", "num/spo2", r#"{"v":97}"#), [Vitals]);
        assert_eq!(classes("monitor-1", "num/glucose", r#"{"v":99}"#), [Sensitive]);
        assert_eq!(classes("therapy-1", "num/glucose", r#"{"v":99}"#), [Vitals]);
        for device in ["monitor-1", "therapy-1"] {
            assert_eq!(classes(device, "event/fall", r#"{"seq":4}"#), [Alarm], "no rule moves an alarm");
        }
    }

    /// What a device says of itself selects nothing: the rules are those of the device that its credentials name.
    #[test]
    fn one_payload_has_as_many_classes_as_its_quantities() {
        let pack = r#"[{"bt":1790000000,"n":"heart-rate","v":72,"u":"/min"},{"n":"spo2","v":97,"u":"%"}]"#;
        use DataClass::{Sensitive, Vitals};
        assert_eq!(classes("monitor-1", "num/senml", pack), [Vitals, Vitals]);
        assert_eq!(classes("therapy-1", "num/senml", pack), [Sensitive, Vitals]);
    }
}
