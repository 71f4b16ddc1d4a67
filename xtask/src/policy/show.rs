//! A policy in words.

use std::fmt::Write as _;

use caregate_protocol::id::DataClass;
use caregate_protocol::policy::{Freshness, Grant, PolicyDocument, Purpose, class_bit};
use ledger_client::verify::{FileEnrolment as Enrolment, verify_document};

fn classes(mask: u32) -> String {
    let names: Vec<_> = DataClass::ALL
        .into_iter()
        .filter(|class| mask & class_bit(*class) != 0)
        .map(DataClass::as_str)
        .collect();
    names.join(",")
}

fn purposes(mask: u32) -> String {
    let names: Vec<_> =
        Purpose::ALL.into_iter().filter(|purpose| mask & purpose.bit() != 0).map(Purpose::as_str).collect();
    names.join(",")
}

fn line(grant: &Grant) -> String {
    format!(
        "to {} classes {} purposes {} from {} until {} stale bound {} s version {}",
        grant.grantee,
        classes(grant.classes),
        purposes(grant.purposes),
        grant.from,
        grant.until,
        grant.stale_bound_s,
        grant.version
    )
}

/// What the document says, and with an enrolment what of it counts at `now_s` and what is refused.
///
/// # Errors
/// If a pin of the enrolment comes twice.
pub(super) fn describe(
    document: &PolicyDocument,
    enrolment: Option<&Enrolment>,
    now_s: u64,
) -> anyhow::Result<String> {
    let mut text = String::new();
    writeln!(text, "epoch {}, as of {}", document.epoch, document.as_of)?;
    for entry in &document.recipients {
        writeln!(text, "recipient {} {:?} {:?}", entry.id, entry.status, entry.kind)?;
    }
    for binding in &document.devices {
        writeln!(text, "device {} patient {}", binding.device, binding.patient)?;
    }
    for entry in &document.patients {
        for signed in &entry.grants {
            writeln!(text, "patient {} grant {}", entry.patient, line(&signed.grant))?;
        }
        for signed in &entry.revocations {
            writeln!(
                text,
                "patient {} revocation up to version {}",
                entry.patient, signed.revocation.version
            )?;
        }
    }
    let Some(enrolment) = enrolment else {
        write!(text, "no signature was checked: give --enrolment")?;
        return Ok(text);
    };
    let (policy, refused) =
        verify_document(document, &enrolment.pins()?, &enrolment.domain, Freshness::Unproven);
    for one in &refused {
        writeln!(text, "refused: {one}")?;
    }
    for entry in &document.patients {
        for class in DataClass::ALL {
            for recipient in policy.recipients(&entry.patient, class, now_s) {
                writeln!(
                    text,
                    "now patient {} {}: {} may open",
                    entry.patient,
                    class.as_str(),
                    recipient.id
                )?;
            }
        }
    }
    write!(
        text,
        "{} grants stand, {} refused; a file proves no freshness",
        policy.standing().count(),
        refused.len()
    )?;
    Ok(text)
}
