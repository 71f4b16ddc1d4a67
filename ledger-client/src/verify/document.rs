//! Every signature of a document.

use std::collections::{BTreeMap, BTreeSet};

use caregate_protocol::id::{PatientId, RecipientId};
use caregate_protocol::policy::{
    EcdsaSignature, Freshness, Grant, PatientPolicy, PolicyDocument, RelationshipId, Revocation,
    VerifiedPolicy,
};
use thiserror::Error;

use super::address::Address;
use super::eip712::{Domain, grant_digest, revocation_digest};
use super::file_pins::{PatientPins, RelationshipPin};
use super::signature::{SignatureError, signer};

/// Why a grant or revocation was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RefusalReason {
    /// The gateway has no pins for this patient.
    #[error("the patient is not enrolled here")]
    PatientNotPinned,
    /// The gateway has no key for this relationship of this patient.
    #[error("the relationship is not pinned for this patient")]
    RelationshipNotPinned,
    /// Not a signature in its one allowed form.
    #[error("signature: {0}")]
    Signature(SignatureError),
    /// Signed by another key, for another ledger, or changed after it was signed.
    #[error("not signed by the pinned key")]
    Signer,
    /// Authentic, but `until` is not after `from`.
    #[error("until is not after from")]
    Window,
    /// Authentic, but the document has no such recipient.
    #[error("the grantee is not among the recipients")]
    GranteeUnknown,
    /// Authentic, but so is another grant with the same version; neither counts.
    #[error("two different grants carry this version")]
    SameVersionTwice,
}

impl RefusalReason {
    /// Every reason's name, in the order of their declaration: the labels of a counter.
    pub const NAMES: [&str; 9] = [
        "patient_not_pinned",
        "relationship_not_pinned",
        "signature_v",
        "signature_high_s",
        "signature_no_key",
        "signer",
        "window",
        "grantee_unknown",
        "same_version_twice",
    ];

    /// A short name for counters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PatientNotPinned => "patient_not_pinned",
            Self::RelationshipNotPinned => "relationship_not_pinned",
            Self::Signature(SignatureError::V) => "signature_v",
            Self::Signature(SignatureError::HighS) => "signature_high_s",
            Self::Signature(SignatureError::NoKey) => "signature_no_key",
            Self::Signer => "signer",
            Self::Window => "window",
            Self::GranteeUnknown => "grantee_unknown",
            Self::SameVersionTwice => "same_version_twice",
        }
    }
}

/// A grant or revocation that does not count.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("policy at {path}: {reason}")]
pub struct RefusedGrant {
    /// Where in the document, as `patients[0].grants[2]`; no pseudonym in it.
    pub path: String,
    /// Why.
    pub reason: RefusalReason,
}

/// What has been found good and what has not.
struct Check<'a> {
    pins: &'a PatientPins,
    domain: &'a Domain,
    recipients: BTreeSet<RecipientId>,
    grants: Vec<(PatientId, Grant)>,
    by_version: BTreeMap<(RelationshipId, u64), Grant>,
    revocations: Vec<Revocation>,
    refused: Vec<RefusedGrant>,
}

fn authentic(
    digest: &[u8; 32],
    signature: &EcdsaSignature,
    keys: impl IntoIterator<Item = Address>,
) -> Result<(), RefusalReason> {
    let signer = signer(digest, signature).map_err(RefusalReason::Signature)?;
    if keys.into_iter().any(|key| key == signer) { Ok(()) } else { Err(RefusalReason::Signer) }
}

impl Check<'_> {
    fn pin(
        &self,
        patient: &PatientId,
        relationship: &RelationshipId,
    ) -> Result<&RelationshipPin, RefusalReason> {
        let relationships = self.pins.of(patient).ok_or(RefusalReason::PatientNotPinned)?;
        relationships.get(relationship).ok_or(RefusalReason::RelationshipNotPinned)
    }

    fn refuse(&mut self, path: String, outcome: Result<(), RefusalReason>) {
        if let Err(reason) = outcome {
            self.refused.push(RefusedGrant { path, reason });
        }
    }

    /// An authentic grant is kept even where it can't be used: it supersedes the versions below it.
    fn keep(&mut self, patient: PatientId, grant: &Grant) -> Result<(), RefusalReason> {
        let twin = self.by_version.insert((grant.relationship, grant.version), grant.clone());
        self.grants.push((patient, grant.clone()));
        if twin.is_some_and(|twin| twin != *grant) {
            Err(RefusalReason::SameVersionTwice)
        } else if grant.until <= grant.from {
            Err(RefusalReason::Window)
        } else if !self.recipients.contains(&grant.grantee) {
            Err(RefusalReason::GranteeUnknown)
        } else {
            Ok(())
        }
    }

    fn patient(&mut self, at: usize, policy: &PatientPolicy) {
        for (nth, signed) in policy.grants.iter().enumerate() {
            let outcome = self
                .pin(&policy.patient, &signed.grant.relationship)
                .and_then(|pin| {
                    authentic(&grant_digest(&signed.grant, self.domain), &signed.signature, [pin.grant_key])
                })
                .and_then(|()| self.keep(policy.patient, &signed.grant));
            self.refuse(format!("patients[{at}].grants[{nth}]"), outcome);
        }
        for (nth, signed) in policy.revocations.iter().enumerate() {
            let digest = revocation_digest(&signed.revocation, self.domain);
            let outcome = self.pin(&policy.patient, &signed.revocation.relationship).and_then(|pin| {
                authentic(
                    &digest,
                    &signed.signature,
                    [Some(pin.grant_key), pin.revoke_key].into_iter().flatten(),
                )
            });
            if outcome.is_ok() {
                self.revocations.push(signed.revocation.clone());
            }
            self.refuse(format!("patients[{at}].revocations[{nth}]"), outcome);
        }
    }
}

/// Checks every signature of `document` against the pinned keys. Returns the policy that counts, and what does not
/// count, by path and reason. Hold the policy against what was seen before with [`VerifiedPolicy::admit`].
///
/// One signature takes about 80 µs, a full document (1 MiB) about 200 ms: not for an async task's thread.
#[must_use]
pub fn verify_document(
    document: &PolicyDocument,
    pins: &PatientPins,
    domain: &Domain,
    freshness: Freshness,
) -> (VerifiedPolicy, Vec<RefusedGrant>) {
    let mut check = Check {
        pins,
        domain,
        recipients: document.recipients.iter().map(|entry| entry.id).collect(),
        grants: Vec::new(),
        by_version: BTreeMap::new(),
        revocations: Vec::new(),
        refused: Vec::new(),
    };
    for (at, patient) in document.patients.iter().enumerate() {
        check.patient(at, patient);
    }
    let Check { grants, revocations, refused, .. } = check;
    (VerifiedPolicy::from_authentic(document, freshness, grants, revocations), refused)
}
