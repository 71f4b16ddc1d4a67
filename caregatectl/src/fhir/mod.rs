//! HL7 FHIR R4 (4.0.1) in and out: Consent and Provenance of what stands on the ledger, AuditEvent of audit logs.
//!
//! What has no code in HL7's systems has one in ours, below `urn:caregate:`. `docs/fhir.md` has the tables.

pub mod consent;
mod strict;

pub use caregate_protocol::fhir::{ACT_REASON, DOMAIN, RELATIONSHIP, audit_event, instant, provenance};
use serde_json::{Value, json};
pub use strict::Refusal;

/// A Bundle of type `collection`.
#[must_use]
pub fn collection(resources: Vec<Value>) -> Value {
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
