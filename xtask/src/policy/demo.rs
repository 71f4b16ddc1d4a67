//! The demo's policy, signed as patients' wallets would.

use anyhow::Context as _;
use caregate_protocol::id::{DataClass, DeviceId, PatientId};
use caregate_protocol::policy::{PolicyDocument, Purpose, RecipientEntry, class_bit};
use ledger_client::verify::{Domain, FileEnrolment as Enrolment};
use ledger_client::wallet::PatientSeed;

use super::edit::{Relation, Terms, add_grant, bind_devices, empty, touch};

impl Terms {
    /// Every data class for treatment, going on for a day at most when the policy can't be refreshed.
    pub(crate) fn treatment(from: u64, until: u64) -> Self {
        let classes = DataClass::ALL.iter().fold(0, |mask, class| mask | class_bit(*class));
        Self { classes, purposes: Purpose::Treatment.bit(), from, until, stale_bound_s: 86_400 }
    }
}

/// A patient of the demo, who grants to every recipient.
#[derive(Debug)]
pub(crate) struct DemoPatient<'a> {
    /// The pseudonym.
    pub(crate) patient: PatientId,
    /// The wallet's seed, in no file that a gateway reads.
    pub(crate) seed: &'a PatientSeed,
    /// What the patient wears.
    pub(crate) devices: Vec<DeviceId>,
}

/// A policy in which every patient grants `terms` to every recipient, and the enrolment with which a gateway checks it.
///
/// # Errors
/// If a bound of the document is broken or a device is bound twice.
pub(crate) fn demo_document(
    patients: &[DemoPatient<'_>],
    recipients: &[RecipientEntry],
    domain: Domain,
    terms: &Terms,
    now_s: u64,
) -> anyhow::Result<(PolicyDocument, Enrolment)> {
    let mut document = PolicyDocument { recipients: recipients.to_vec(), ..empty(now_s) };
    let mut enrolment = Enrolment { domain, patients: Vec::new() };
    for DemoPatient { patient, seed, devices } in patients {
        bind_devices(&mut document, *patient, devices)?;
        for recipient in recipients {
            let relation = Relation { patient: *patient, grantee: recipient.id, number: 0 };
            add_grant(&mut document, &mut enrolment, seed, &relation, terms)?;
        }
    }
    touch(&mut document, now_s)?;
    document.encode().context("the demo's policy")?;
    Ok((document, enrolment))
}
