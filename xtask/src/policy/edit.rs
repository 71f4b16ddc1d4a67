//! Changes to a policy document and an enrolment, in memory.

use anyhow::{Context as _, bail};
use caregate_protocol::id::{DeviceId, PatientId, RecipientId};
use caregate_protocol::policy::{
    DeviceBinding, Grant, POLICY_VERSION, PatientPolicy, PolicyDocument, RecipientEntry, RelationshipId,
    Revocation,
};
use ledger_client::verify::{Domain, FileEnrolment as Enrolment, PatientPin, RelationshipPin};
use ledger_client::wallet::PatientSeed;

/// What a grant allows; masks as in [`Grant`], times in Unix seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// Bit `1 << DataClass`.
    pub(crate) classes: u32,
    /// Bit `1 << Purpose`.
    pub(crate) purposes: u32,
    /// First second at which it holds.
    pub(crate) from: u64,
    /// First second at which it holds no more.
    pub(crate) until: u64,
    /// How long it may outlive a fresh policy.
    pub(crate) stale_bound_s: u32,
}

/// Who with whom, for the how-many-eth time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Relation {
    pub(super) patient: PatientId,
    pub(super) grantee: RecipientId,
    pub(super) number: u32,
}

/// A document without anybody, before its first epoch.
pub(super) fn empty(now_s: u64) -> PolicyDocument {
    PolicyDocument {
        version: POLICY_VERSION,
        epoch: 0,
        as_of: now_s,
        recipients: Vec::new(),
        patients: Vec::new(),
        devices: Vec::new(),
    }
}

/// Begins the document's next epoch.
pub(super) fn touch(document: &mut PolicyDocument, now_s: u64) -> anyhow::Result<()> {
    document.epoch = document.epoch.checked_add(1).context("the policy epoch is at its end")?;
    document.as_of = now_s.max(document.as_of);
    Ok(())
}

/// Lists a recipient, unless it is there already. Its key is never replaced here.
pub(super) fn list_recipient(
    document: &mut PolicyDocument,
    grantee: RecipientId,
    entry: Option<RecipientEntry>,
) -> anyhow::Result<()> {
    let listed = document.recipients.iter().find(|listed| listed.id == grantee);
    match (listed, entry) {
        (Some(listed), Some(entry)) if listed.hpke_public_key != entry.hpke_public_key => {
            bail!("the policy lists grantee {grantee} with another HPKE key")
        }
        (Some(_), _) => Ok(()),
        (None, Some(entry)) => {
            document.recipients.push(entry);
            Ok(())
        }
        (None, None) => bail!("the policy doesn't list grantee {grantee}: give --hpke-public-key"),
    }
}

fn patient_of(document: &mut PolicyDocument, patient: PatientId) -> &mut PatientPolicy {
    let at = document.patients.iter().position(|entry| entry.patient == patient).unwrap_or_else(|| {
        document.patients.push(PatientPolicy { patient, grants: Vec::new(), revocations: Vec::new() });
        document.patients.len() - 1
    });
    &mut document.patients[at]
}

/// Binds devices to a patient. A device that another patient wears is refused.
pub(super) fn bind_devices(
    document: &mut PolicyDocument,
    patient: PatientId,
    devices: &[DeviceId],
) -> anyhow::Result<()> {
    patient_of(document, patient);
    for device in devices {
        match document.devices.iter().find(|binding| binding.device == *device) {
            Some(binding) if binding.patient == patient => {}
            Some(_) => bail!("device {device} is bound to another patient"),
            None => document.devices.push(DeviceBinding { device: device.clone(), patient }),
        }
    }
    Ok(())
}

/// Pins a relationship's keys, unless they are pinned already.
fn enrol(enrolment: &mut Enrolment, patient: PatientId, pin: RelationshipPin) -> anyhow::Result<()> {
    let at = enrolment.patients.iter().position(|entry| entry.patient == patient).unwrap_or_else(|| {
        enrolment.patients.push(PatientPin { patient, relationships: Vec::new() });
        enrolment.patients.len() - 1
    });
    let relationships = &mut enrolment.patients[at].relationships;
    match relationships.iter().find(|entry| entry.relationship == pin.relationship) {
        Some(entry) if entry.grant_key == pin.grant_key => Ok(()),
        Some(_) => bail!("the enrolment pins another key for this relationship"),
        None => {
            relationships.push(pin);
            Ok(())
        }
    }
}

/// The highest version of a relationship that was granted or revoked.
fn highest(policy: &PatientPolicy, relationship: RelationshipId) -> Option<u64> {
    let granted = policy.grants.iter().map(|signed| (signed.grant.relationship, signed.grant.version));
    let revoked =
        policy.revocations.iter().map(|signed| (signed.revocation.relationship, signed.revocation.version));
    granted.chain(revoked).filter(|(id, _)| *id == relationship).map(|(_, version)| version).max()
}

/// Signs a grant with the next version and puts it in place of the relationship's earlier ones. Returns its version.
pub(super) fn add_grant(
    document: &mut PolicyDocument,
    enrolment: &mut Enrolment,
    seed: &PatientSeed,
    relation: &Relation,
    terms: &Terms,
) -> anyhow::Result<u64> {
    if terms.until <= terms.from {
        bail!("a grant must end after it begins");
    }
    let relationship = seed.relationship(&relation.grantee, relation.number);
    enrol(enrolment, relation.patient, seed.pin(&relationship)?)?;
    let policy = patient_of(document, relation.patient);
    let version = match highest(policy, relationship) {
        Some(version) => version.checked_add(1).context("this relationship was revoked for good")?,
        None => 1,
    };
    let grant = Grant {
        relationship,
        grantee: relation.grantee,
        classes: terms.classes,
        purposes: terms.purposes,
        from: terms.from,
        until: terms.until,
        stale_bound_s: terms.stale_bound_s,
        version,
    };
    policy.grants.retain(|signed| signed.grant.relationship != relationship);
    policy.grants.push(seed.grant_key(&relationship)?.sign_grant(&grant, &enrolment.domain));
    Ok(version)
}

/// Signs a revocation of every grant so far and puts it in place of the relationship's earlier ones. Returns the
/// version up to which it reaches.
pub(super) fn add_revocation(
    document: &mut PolicyDocument,
    domain: &Domain,
    seed: &PatientSeed,
    relation: &Relation,
) -> anyhow::Result<u64> {
    let relationship = seed.relationship(&relation.grantee, relation.number);
    let policy = patient_of(document, relation.patient);
    let version = highest(policy, relationship)
        .context("this patient's key has granted nothing to this grantee in this policy")?;
    let revocation = Revocation { relationship, version };
    policy.revocations.retain(|signed| signed.revocation.relationship != relationship);
    policy.revocations.push(seed.grant_key(&relationship)?.sign_revocation(&revocation, domain));
    Ok(version)
}
