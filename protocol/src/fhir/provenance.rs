//! Provenance (R4 §6.3): whose word a Consent is. The patient signed the grant; the signature is in it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::{RELATIONSHIP, coding, concept, identified};
use crate::policy::SignedGrant;

const AGENT_TYPE: &str = "http://terminology.hl7.org/CodeSystem/provenance-participant-type";
/// ASTM E1762's consent signature.
const CONSENT_SIGNATURE: (&str, &str) = ("urn:iso-astm:E1762-95:2013", "1.2.840.10065.1.12.1.7");

/// Of the Consent of this grant, whose id is the relationship's name. `recorded` is the time of the ledger's block, a FHIR instant.
#[must_use]
pub fn of_grant(signed: &SignedGrant, recorded: &str) -> Value {
    let id = hex::encode(signed.grant.relationship.0);
    let patient = || identified(RELATIONSHIP, signed.grant.relationship.to_string());
    json!({
        "resourceType": "Provenance",
        "id": id,
        "target": [{ "reference": format!("Consent/{id}") }],
        "recorded": recorded,
        "activity": concept("http://terminology.hl7.org/CodeSystem/v3-DataOperation", "CREATE"),
        "agent": [{ "type": concept(AGENT_TYPE, "author"), "who": patient() }],
        "signature": [{
            "type": [coding(CONSENT_SIGNATURE.0, CONSENT_SIGNATURE.1)],
            "when": recorded,
            "who": patient(),
            // EIP-712, secp256k1: r, s, v.
            "sigFormat": "application/octet-stream",
            "data": BASE64_STANDARD.encode(signed.signature.0),
        }],
    })
}
