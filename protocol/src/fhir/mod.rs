//! HL7 FHIR R4 (4.0.1): AuditEvent of audit logs, Consent and Provenance of grants. For the feed's server and for `caregatectl`; behind
//! the feature `fhir`, since gateways need none of it.
//!
//! What has no code in HL7's systems has one in ours, below `urn:caregate:`. `docs/fhir.md` has the tables.

pub mod audit_event;
pub mod consent;
pub mod provenance;

use serde_json::{Value, json};
use time::OffsetDateTime;

/// A relationship's name, which stands for its patient.
pub const RELATIONSHIP: &str = "urn:caregate:relationship";
/// A domain's ledger address.
pub const DOMAIN: &str = "urn:caregate:domain";
/// A patient's pseudonym in segments.
pub const PATIENT: &str = "urn:caregate:patient";
/// HL7's reasons for an act.
pub const ACT_REASON: &str = "http://terminology.hl7.org/CodeSystem/v3-ActReason";

/// Seconds of Unix time at the end of the year 9999, which is FHIR's last.
const TIME_S_MAX: u64 = 253_402_300_799;

/// A FHIR instant, in UTC; none where FHIR has no such time.
#[must_use]
pub fn instant(seconds: u64) -> Option<String> {
    let format = time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    let seconds = i64::try_from(seconds).ok().filter(|_| seconds <= TIME_S_MAX)?;
    OffsetDateTime::from_unix_timestamp(seconds).ok()?.format(format).ok()
}

/// A code of a system (§2.24.0.5).
#[must_use]
pub fn coding(system: &str, code: &str) -> Value {
    json!({ "system": system, "code": code })
}

/// One meaning, by one code (§2.24.0.6).
#[must_use]
pub fn concept(system: &str, code: &str) -> Value {
    json!({ "coding": [coding(system, code)] })
}

/// A reference by what something is called here, not by an address (§2.3).
pub fn identified(system: &str, value: impl Into<String>) -> Value {
    json!({ "identifier": { "system": system, "value": value.into() } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_utc_and_end_with_the_year_9999() {
        assert_eq!(instant(0).as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(instant(1_790_000_000).as_deref(), Some("2026-09-21T14:13:20Z"));
        assert_eq!(instant(TIME_S_MAX).as_deref(), Some("9999-12-31T23:59:59Z"));
        assert_eq!((instant(TIME_S_MAX + 1), instant(u64::MAX)), (None, None));
    }
}
