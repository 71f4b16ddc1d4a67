//! AuditEvent (R4 §6.4) of an audit log's entries.

use serde::Serialize;
use serde_json::{Value, json};

use super::{ACT_REASON, DOMAIN, PATIENT, coding, concept, identified, instant};
use crate::audit::{AccessBasis, Hash, Line, Part, What};
use crate::id::{DataClass, PatientId, RecipientId};

const DCM: &str = "http://dicom.nema.org/resources/ontology/DCM";
const ENTITY_TYPE: &str = "http://terminology.hl7.org/CodeSystem/audit-entity-type";
const ENTITY_ROLE: &str = "http://terminology.hl7.org/CodeSystem/object-role";
const SOURCE_TYPE: &str = "http://terminology.hl7.org/CodeSystem/security-source-type";
/// The entry's own word for what happened.
const WHAT: &str = "urn:caregate:audit:what";
/// Whose log it is.
const LOG: &str = "urn:caregate:audit:log";
/// An entry's number in its log.
const ENTRY: &str = "urn:caregate:audit:entry";
/// Somebody who logs in at a feed.
const USER: &str = "urn:caregate:user";

/// Codes of DICOM PS3.16 CID 400 and 401.
mod dcm {
    pub(super) const AUDIT_LOG_USED: &str = "110101";
    pub(super) const IMPORT: &str = "110107";
    pub(super) const EXPORT: &str = "110106";
    pub(super) const PATIENT_RECORD: &str = "110110";
    pub(super) const SECURITY_ALERT: &str = "110113";
    pub(super) const USER_AUTHENTICATION: &str = "110114";
    pub(super) const LOGIN: &str = "110122";
    pub(super) const OVERRIDE_STARTED: &str = "110127";
    pub(super) const SECURITY_CONFIGURATION: &str = "110129";
    pub(super) const ATTRIBUTES_CHANGED: &str = "110135";
    pub(super) const OVERRIDE_STOPPED: &str = "110138";
}

/// What an entry comes to in FHIR's terms.
#[derive(Debug, Default)]
struct Told {
    /// Event id of DICOM.
    kind: &'static str,
    /// Event type of DICOM.
    subtype: Option<&'static str>,
    /// C, R, U, D or E.
    action: &'static str,
    failed: Option<String>,
    /// System and value of who did it; the log's owner where nobody else did.
    who: Option<(&'static str, String)>,
    patient: Option<PatientId>,
    purpose: Option<&'static str>,
    /// Oldest and newest reading, Unix microseconds.
    period: Option<(i64, Option<i64>)>,
    details: Vec<(&'static str, String)>,
}

fn user(name: &str) -> Option<(&'static str, String)> {
    Some((USER, name.to_owned()))
}

fn class(class: DataClass) -> (&'static str, String) {
    ("class", class.as_str().to_owned())
}

/// As the line has it.
fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|json| json.as_str().map(str::to_owned)).unwrap_or_default()
}

/// For what access is, by what it rests on.
fn purpose(basis: AccessBasis) -> Option<&'static str> {
    match basis {
        AccessBasis::Consent => Some("TREAT"),
        AccessBasis::Emergency => Some("ETREAT"),
        AccessBasis::Ended | AccessBasis::Unknown => None,
    }
}

/// Who read the log itself.
fn log_read(who: &str, (first, last): (u64, u64), reason: Option<&str>) -> Told {
    let entries = ("entries", format!("{first}-{last}"));
    let details = vec![entries, ("reason", reason.unwrap_or_default().to_owned())];
    Told { who: user(who), details, ..told(dcm::AUDIT_LOG_USED, None, "R") }
}

/// What users do at feeds.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "`of_export`, `of_handed`, `of_exchange` and `of_gateway` have the others"
)]
fn of_feed(what: &What) -> Option<Told> {
    let record = |who: &str, patient: &PatientId, action| Told {
        kind: dcm::PATIENT_RECORD,
        action,
        who: user(who),
        patient: Some(*patient),
        ..Told::default()
    };
    let alert = |who: &str, number: u64, failed: Option<String>| Told {
        kind: dcm::SECURITY_ALERT,
        subtype: Some(dcm::OVERRIDE_STARTED),
        action: "E",
        failed,
        who: user(who),
        purpose: Some("ETREAT"),
        details: vec![("number", number.to_string())],
        ..Told::default()
    };
    Some(match what {
        What::Login { user: name } => Told {
            kind: dcm::USER_AUTHENTICATION,
            subtype: Some(dcm::LOGIN),
            action: "E",
            who: user(name),
            ..Told::default()
        },
        What::Look { user: name, patient, class: of, from_us, until_us, basis } => Told {
            purpose: purpose(*basis),
            period: Some((*from_us, *until_us)),
            details: vec![class(*of), ("basis", word(basis))],
            ..record(name, patient, "R")
        },
        What::LookEnded { user: name, patient, class: of, from_us, until_us } => Told {
            period: Some((*from_us, Some(*until_us))),
            details: vec![class(*of)],
            ..record(name, patient, "R")
        },
        What::LogRead { user: name, first, last, reason } => {
            log_read(name, (*first, *last), reason.as_deref())
        }
        What::Emergency { user: name, number, .. } | What::EmergencyOpened { user: name, number, .. } => {
            alert(name, *number, None)
        }
        What::EmergencyFailed { user: name, number, why, .. } => alert(name, *number, Some(why.clone())),
        What::Command { user: name, patient, action, sequence } => Told {
            details: vec![("command", action.clone()), ("sequence", sequence.to_string())],
            ..record(name, patient, "E")
        },
        What::CommandDone { user: name, patient, action, sequence, why } => Told {
            failed: why.clone(),
            details: vec![("command", action.clone()), ("sequence", sequence.to_string())],
            ..record(name, patient, "U")
        },
        What::Frequent { user: name, count } => Told {
            kind: dcm::SECURITY_ALERT,
            action: "E",
            who: user(name),
            details: vec![("count", count.to_string())],
            ..Told::default()
        },
        _ => return None,
    })
}

/// What a feed's command writes out.
#[expect(clippy::wildcard_enum_match_arm, reason = "the other functions have the others")]
fn of_export(what: &What) -> Option<Told> {
    let by = |uid: &u32| Told { who: user(&format!("uid {uid}")), ..told(dcm::EXPORT, None, "R") };
    Some(match what {
        What::Export { uid, of: None } => Told { details: vec![("history", "whole".to_owned())], ..by(uid) },
        What::Export { uid, of: Some(Part { patient, class: of, from_us, until_us }) } => Told {
            patient: Some(*patient),
            period: Some((*from_us, Some(*until_us))),
            details: vec![class(*of)],
            ..by(uid)
        },
        What::Exported { uid, patient, class: of, from_us, until_us, basis } => Told {
            patient: Some(*patient),
            purpose: purpose(*basis),
            period: Some((*from_us, *until_us)),
            details: vec![class(*of), ("basis", word(basis))],
            ..by(uid)
        },
        _ => return None,
    })
}

/// What users hand to gateways.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "`of_feed`, `of_export`, `of_exchange` and `of_gateway` have the others"
)]
fn of_handed(what: &What) -> Option<Told> {
    Some(match what {
        What::Offered { user: name, gateway, kind } => Told {
            details: vec![("gateway", gateway.clone()), ("policy", kind.clone())],
            ..handed(name, "E")
        },
        What::OfferDone { user: name, gateway, kind, why } => Told {
            failed: why.clone(),
            details: vec![("gateway", gateway.clone()), ("policy", kind.clone())],
            ..handed(name, "U")
        },
        _ => return None,
    })
}

/// Policy that somebody hands to a gateway.
fn handed(who: &str, action: &'static str) -> Told {
    Told { who: user(who), ..told(dcm::SECURITY_ALERT, Some(dcm::SECURITY_CONFIGURATION), action) }
}

fn told(kind: &'static str, subtype: Option<&'static str>, action: &'static str) -> Told {
    Told { kind, subtype, action, ..Told::default() }
}

fn to(recipient: &RecipientId) -> (&'static str, String) {
    ("recipient", format!("0x{recipient}"))
}

/// What feed and core tell of what went between them, and for whom gateways wrapped.
#[expect(clippy::wildcard_enum_match_arm, reason = "`of_feed` and `of_gateway` have the others")]
fn of_exchange(what: &What) -> Option<Told> {
    Some(match what {
        What::Gap { patient, class: of, first, last } => Told {
            failed: Some(format!("segments {first} to {last} are missing")),
            patient: Some(*patient),
            details: vec![class(*of)],
            ..told(dcm::SECURITY_ALERT, None, "R")
        },
        What::Received { recipient, delivered } | What::Fetched { recipient, delivered, .. } => {
            let is_import = matches!(what, What::Received { .. });
            let runs: Vec<_> = delivered.segments.iter().map(|run| format!("{}-{}", run.0, run.1)).collect();
            Told {
                patient: Some(delivered.patient),
                details: vec![class(delivered.class), to(recipient), ("segments", runs.join(","))],
                ..told(if is_import { dcm::IMPORT } else { dcm::EXPORT }, None, "R")
            }
        }
        What::GapTold { patient, class: of, first, last, why } => Told {
            failed: Some(format!("segments {first} to {last} may be missing: {why}")),
            patient: Some(*patient),
            details: vec![class(*of)],
            ..told(dcm::SECURITY_ALERT, None, "R")
        },
        What::Wrapped { patient, class: of, generation, epoch, depth, recipients } => {
            let last = epoch | u32::MAX.checked_shr(u32::from(*depth)).unwrap_or(0);
            let epochs = if last == *epoch { epoch.to_string() } else { format!("{epoch}-{last}") };
            let numbers = [("generation", generation.to_string()), ("epoch", epochs)];
            let details = [class(*of)].into_iter().chain(numbers).chain(recipients.iter().map(to));
            Told { patient: Some(*patient), details: details.collect(), ..changed() }
        }
        _ => return None,
    })
}

fn changed() -> Told {
    told(dcm::SECURITY_ALERT, Some(dcm::ATTRIBUTES_CHANGED), "U")
}

/// What gateways tell of policy.
#[expect(clippy::wildcard_enum_match_arm, reason = "`of_feed` and `of_exchange` have the others")]
fn of_gateway(what: &What) -> Told {
    let configured = |action| told(dcm::SECURITY_ALERT, Some(dcm::SECURITY_CONFIGURATION), action);
    let number = |name: &'static str, number: &u64| (name, number.to_string());
    match what {
        What::PolicyInForce { epoch, header, origin } => Told {
            details: vec![number("epoch", epoch), number("header", header), ("origin", origin.clone())],
            ..configured("U")
        },
        What::PolicyRefused { reason, origin, times } => Told {
            failed: Some(reason.clone()),
            details: vec![("origin", origin.clone()), number("times", times)],
            ..configured("U")
        },
        What::PolicyStale { as_of } => Told {
            failed: Some("nothing was heard of the ledger".to_owned()),
            details: vec![number("as_of", as_of)],
            ..configured("E")
        },
        What::GrantBegan { patient, recipient, version, until } => Told {
            patient: Some(*patient),
            details: vec![to(recipient), number("version", version), number("until", until)],
            ..changed()
        },
        What::GrantEnded { patient, recipient, version, why } => Told {
            patient: Some(*patient),
            details: vec![to(recipient), number("version", version), ("why", word(why))],
            ..changed()
        },
        What::Revoked { patient, version, by } => Told {
            patient: Some(*patient),
            details: vec![number("version", version), ("by", by.clone())],
            ..changed()
        },
        What::DisplayBegan { patient, display, filter } | What::DisplayEnded { patient, display, filter } => {
            Told {
                patient: Some(*patient),
                details: vec![("display", display.as_str().to_owned()), ("filter", filter.clone())],
                ..told(dcm::PATIENT_RECORD, None, "R")
            }
        }
        What::RootShared { patient, threshold, shares } => Told {
            patient: Some(*patient),
            details: vec![("threshold", threshold.to_string()), ("shares", shares.to_string())],
            ..changed()
        },
        What::RootRestored { patient }
        | What::ErasureOrdered { patient }
        | What::RootErased { patient }
        | What::RevocationAnchored { patient } => Told { patient: Some(*patient), ..changed() },
        What::EmergencyBegan { patient, recipient, number: nth, until } => Told {
            patient: Some(*patient),
            purpose: Some("ETREAT"),
            details: vec![to(recipient), number("number", nth), number("until", until)],
            ..told(dcm::SECURITY_ALERT, Some(dcm::OVERRIDE_STARTED), "E")
        },
        What::EmergencyEnded { patient, recipient, number: nth } => Told {
            patient: Some(*patient),
            details: vec![to(recipient), number("number", nth)],
            ..told(dcm::SECURITY_ALERT, Some(dcm::OVERRIDE_STOPPED), "E")
        },
        What::Commanded { patient, recipient, clinician, action, refused } => Told {
            failed: refused.clone(),
            who: user(clinician),
            patient: Some(*patient),
            details: vec![to(recipient), ("command", action.clone())],
            ..told(dcm::PATIENT_RECORD, None, "U")
        },
        // The ledger was heard again.
        _ => configured("E"),
    }
}

/// The name of an entry's kind, as its line has it.
fn name(what: &What) -> String {
    let json = serde_json::to_value(what).unwrap_or_default();
    json["what"].as_str().unwrap_or_default().to_owned()
}

fn micros(us: i64) -> Option<String> {
    instant(u64::try_from(us.div_euclid(1_000_000)).ok()?)
}

/// An entry as an AuditEvent. `source` is the name of who keeps the log, `hash` the entry's leaf hash. None where the time of the entry is
/// beyond what FHIR can write.
#[must_use]
pub fn of_line(line: &Line, hash: &Hash, source: &str) -> Option<Value> {
    let what = &line.entry.what;
    let told = of_feed(what)
        .or_else(|| of_export(what))
        .or_else(|| of_handed(what))
        .or_else(|| of_exchange(what))
        .unwrap_or_else(|| of_gateway(what));
    let recorded = instant(u64::try_from(line.entry.at_ms.div_euclid(1000)).ok()?)?;
    let what = name(what);
    let mut subtypes = vec![coding(WHAT, &what)];
    subtypes.extend(told.subtype.map(|code| coding(DCM, code)));
    let (system, who) = told.who.clone().unwrap_or_else(|| (LOG, source.to_owned()));
    let mut event = json!({
        "resourceType": "AuditEvent",
        "id": format!("entry-{}", line.n),
        "type": coding(DCM, told.kind),
        "subtype": subtypes,
        "action": told.action,
        "recorded": recorded,
        // Minor failure, by the value set audit-event-outcome.
        "outcome": if told.failed.is_some() { "4" } else { "0" },
        "agent": [{ "who": identified(system, who), "requestor": true }],
        "source": {
            "observer": identified(LOG, source),
            "type": [coding(SOURCE_TYPE, "4")],
        },
        "entity": entities(line, hash, &told),
    });
    if let Some(why) = &told.failed {
        event["outcomeDesc"] = why.as_str().into();
    }
    if let Some(purpose) = told.purpose {
        event["purposeOfEvent"] = json!([concept(ACT_REASON, purpose)]);
    }
    if let Some((from_us, until_us)) = told.period
        && let Some(start) = micros(from_us)
    {
        event["period"] = json!({ "start": start });
        if let Some(end) = until_us.and_then(micros) {
            event["period"]["end"] = end.into();
        }
    }
    Some(event)
}

fn entities(line: &Line, hash: &Hash, told: &Told) -> Vec<Value> {
    let entry = json!({
        "what": identified(ENTRY, line.n.to_string()),
        "type": coding(ENTITY_TYPE, "4"),
        "detail": [
            { "type": "sha256", "valueString": hash },
            { "type": "sha256 of the entry before", "valueString": line.prev },
        ],
    });
    let details: Vec<_> = told.details.iter().filter(|(_, value)| !value.is_empty()).collect();
    let detail = |(name, value): &&(&str, String)| {
        let value = if *name == "recipient" { format!("{DOMAIN}|{value}") } else { value.clone() };
        json!({ "type": name, "valueString": value })
    };
    let mut about = match &told.patient {
        Some(patient) => json!({
            "what": identified(PATIENT, patient.to_string()),
            "type": coding(ENTITY_TYPE, "1"),
            "role": coding(ENTITY_ROLE, "1"),
        }),
        None if details.is_empty() => return vec![entry],
        None => json!({ "type": coding(ENTITY_TYPE, "4"), "name": "what the entry says" }),
    };
    if !details.is_empty() {
        about["detail"] = details.iter().map(detail).collect::<Vec<_>>().into();
    }
    vec![entry, about]
}
