//! HL7 FHIR R4 (4.0.1) in and out: Consent and Provenance of what stands on the ledger, AuditEvent of audit logs.
//!
//! What has no code in HL7's systems has one in ours, below `urn:caregate:`. `docs/fhir.md` has the tables.

pub(crate) mod audit_event;
pub(crate) mod consent;
pub(crate) mod provenance;
mod strict;

use serde_json::{Value, json};

/// A relationship's name, which stands for its patient.
pub(crate) const RELATIONSHIP: &str = "urn:caregate:relationship";
/// A domain's ledger address.
pub(crate) const DOMAIN: &str = "urn:caregate:domain";
/// Version of a grant.
pub(crate) const GRANT_VERSION: &str = "urn:caregate:grant-version";
/// Data classes.
pub(crate) const DATA_CLASS: &str = "urn:caregate:data-class";
/// Extension: seconds for which a grant outlives a fresh policy.
pub(crate) const STALE_BOUND: &str = "urn:caregate:stale-bound-s";
/// A patient's pseudonym in segments.
pub(crate) const PATIENT: &str = "urn:caregate:patient";
/// HL7's reasons for an act.
pub(crate) const ACT_REASON: &str = "http://terminology.hl7.org/CodeSystem/v3-ActReason";

/// Seconds of Unix time at the end of the year 9999, which is FHIR's last.
const TIME_S_MAX: u64 = 253_402_300_799;

/// A FHIR instant; none where FHIR has no such time.
pub(crate) fn instant(seconds: u64) -> Option<String> {
    (seconds <= TIME_S_MAX).then(|| crate::args::utc(seconds))
}

pub(crate) fn coding(system: &str, code: &str) -> Value {
    json!({ "system": system, "code": code })
}

pub(crate) fn concept(system: &str, code: &str) -> Value {
    json!({ "coding": [coding(system, code)] })
}

/// A reference by what something is called here, not by an address.
pub(crate) fn identified(system: &str, value: impl Into<String>) -> Value {
    json!({ "identifier": { "system": system, "value": value.into() } })
}

/// A Bundle of type `collection`.
pub(crate) fn collection(resources: Vec<Value>) -> Value {
    let entry = |resource: Value| {
        let url = format!(
            "urn:caregate:{}:{}",
            resource["resourceType"].as_str().unwrap_or_default().to_ascii_lowercase(),
            resource["id"].as_str().unwrap_or_default()
        );
        json!({ "fullUrl": url, "resource": resource })
    };
    let entries: Vec<_> = resources.into_iter().map(entry).collect();
    let mut bundle = json!({ "resourceType": "Bundle", "type": "collection" });
    // FHIR has no empty lists.
    if !entries.is_empty() {
        bundle["entry"] = entries.into();
    }
    bundle
}
