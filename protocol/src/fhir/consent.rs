//! Consent (R4 §6.2): a grant as FHIR. `caregatectl` reads a grant's terms out of one.

use serde_json::{Value, json};
use thiserror::Error;

use super::{ACT_REASON, DOMAIN, RELATIONSHIP, coding, concept, identified, instant};
use crate::id::DataClass;
use crate::policy::{Grant, Purpose, class_bit};

/// Version of a grant.
pub const GRANT_VERSION: &str = "urn:caregate:grant-version";
/// Data classes.
pub const DATA_CLASS: &str = "urn:caregate:data-class";
/// Extension: seconds for which a grant outlives a fresh policy.
pub const STALE_BOUND: &str = "urn:caregate:stale-bound-s";
/// What it is about: who may see what.
pub const SCOPE: (&str, &str) = ("http://terminology.hl7.org/CodeSystem/consentscope", "patient-privacy");
/// Patient Consent.
pub const CATEGORY: (&str, &str) = ("http://loinc.org", "59284-0");
/// Nothing is shared but what is said here.
pub const POLICY_RULE: (&str, &str) = ("http://terminology.hl7.org/CodeSystem/v3-ActCode", "OPTIN");
/// Information recipient.
pub const ROLE: (&str, &str) = ("http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "IRCP");
/// What is permitted.
pub const ACTION: (&str, &str) = ("http://terminology.hl7.org/CodeSystem/consentaction", "access");
/// HL7's word for each purpose.
pub const PURPOSES: [(Purpose, &str); 3] =
    [(Purpose::Treatment, "TREAT"), (Purpose::Research, "HRESCH"), (Purpose::PatientRequest, "PATRQT")];

/// A time of a grant that FHIR can't write.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{path}: {seconds} s is beyond the year 9999")]
pub struct NoTime {
    /// FHIRPath of the element.
    pub path: String,
    /// Unix time.
    pub seconds: u64,
}

/// A grant as a Consent; `is_active` unless it was revoked or is over.
///
/// # Errors
/// [`NoTime`].
pub fn of_grant(grant: &Grant, is_active: bool) -> Result<Value, NoTime> {
    let time = |name: &str, seconds: u64| {
        instant(seconds).ok_or_else(|| NoTime { path: format!("Consent.provision.period.{name}"), seconds })
    };
    let classes: Vec<_> = DataClass::ALL
        .into_iter()
        .filter(|class| grant.classes & class_bit(*class) != 0)
        .map(|class| coding(DATA_CLASS, class.as_str()))
        .collect();
    let purposes: Vec<_> = PURPOSES
        .iter()
        .filter(|(purpose, _)| grant.purposes & purpose.bit() != 0)
        .map(|(_, code)| coding(ACT_REASON, code))
        .collect();
    let relationship = grant.relationship.to_string();
    Ok(json!({
        "resourceType": "Consent",
        "id": hex::encode(grant.relationship.0),
        "identifier": [{ "system": GRANT_VERSION, "value": grant.version.to_string() }],
        "status": if is_active { "active" } else { "inactive" },
        "scope": concept(SCOPE.0, SCOPE.1),
        "category": [concept(CATEGORY.0, CATEGORY.1)],
        "patient": identified(RELATIONSHIP, relationship),
        "policyRule": concept(POLICY_RULE.0, POLICY_RULE.1),
        "provision": {
            "extension": [{ "url": STALE_BOUND, "valueUnsignedInt": grant.stale_bound_s }],
            "type": "permit",
            "period": { "start": time("start", grant.from)?, "end": time("end", grant.until)? },
            "actor": [{
                "role": concept(ROLE.0, ROLE.1),
                "reference": identified(DOMAIN, format!("0x{}", grant.grantee)),
            }],
            "action": [concept(ACTION.0, ACTION.1)],
            "purpose": purposes,
            "class": classes,
        },
    }))
}
