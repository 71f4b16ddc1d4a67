//! The policy that counts: authentic grants, evaluated at a time that the caller gives.
//!
//! Per relationship the highest version counts alone, and no version at or below a revocation counts. An authentic
//! grant that can't be used (window that never opens, unknown grantee) still supersedes the versions below it: the
//! patient's last word stands, even where it opens nothing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::document::{
    GRANTS_MAX, PATIENTS_MAX, PolicyDocument, RecipientEntry, RecipientKind, RecipientStatus,
};
use super::grant::{Grant, Purpose, RelationshipId, Revocation, class_bit};
use crate::id::{DataClass, DeviceId, PatientId, RecipientId};

/// Longest time for which a treating clinician's grant outlives the policy's proof: one day, whatever was signed.
pub const STALE_BOUND_TREATING_MAX_S: u64 = 86_400;
/// Most relationships remembered: four times as many as one document can hold, for patients who came and went.
pub const FLOORS_MAX: usize = 4 * PATIENTS_MAX * GRANTS_MAX;

/// How the age of a policy is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// By nobody: an operator's file proves no time. Grants never go stale; whoever runs on this says so openly.
    Unproven,
    /// By a ledger header.
    Proven {
        /// The header's time, Unix time in seconds.
        as_of: u64,
        /// From this age on (seconds) nobody new comes in and each grant falls back on its own stale bound.
        staleness_max_s: u64,
    },
}

impl Freshness {
    fn stale_from(self) -> Option<u64> {
        match self {
            Self::Unproven => None,
            Self::Proven { as_of, staleness_max_s } => Some(as_of.saturating_add(staleness_max_s)),
        }
    }
}

/// Somebody who may open, and the key to seal to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipient {
    /// Its ledger address.
    pub id: RecipientId,
    /// Its X25519 public key.
    pub hpke_public_key: [u8; 32],
}

/// What a gateway has seen of one relationship; it only rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floor {
    /// Highest grant version seen; lower ones count no more.
    pub granted: u64,
    /// Highest revoked version seen, if any.
    pub revoked: Option<u64>,
}

/// What a gateway keeps across policies and restarts, so that an old document can bring nobody back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floors {
    /// Highest policy epoch seen.
    pub epoch: u64,
    /// Per relationship; at most [`FLOORS_MAX`].
    pub relationships: BTreeMap<RelationshipId, Floor>,
}

/// Why a verified policy was not admitted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AdmissionError {
    /// Older than one that was already admitted.
    #[error("policy epoch {epoch} is behind epoch {floor}, which was already in force")]
    EpochWentBack {
        /// The document's epoch.
        epoch: u64,
        /// The highest epoch admitted before.
        floor: u64,
    },
    /// More relationships than are remembered.
    #[error("policy brings the relationships seen to {len}, remembered are {FLOORS_MAX}")]
    TooManyFloors {
        /// How many there would be.
        len: usize,
    },
}

/// The highest authentic grant of one relationship.
#[derive(Debug, Clone)]
struct Latest {
    patient: PatientId,
    version: u64,
    /// `None` when the patient's keys signed two different grants with this version: neither counts.
    grant: Option<Grant>,
}

/// A policy whose grants and revocations are authentic. Made by `ledger-client`'s `verify`.
#[derive(Debug, Clone)]
pub struct VerifiedPolicy {
    epoch: u64,
    freshness: Freshness,
    recipients: BTreeMap<RecipientId, RecipientEntry>,
    devices: BTreeMap<DeviceId, PatientId>,
    latest: BTreeMap<RelationshipId, Latest>,
    revoked: BTreeMap<RelationshipId, u64>,
    /// Unrevoked latest grants, each patient's sorted by grantee. Follows from `latest` and `revoked`.
    standing: BTreeMap<PatientId, Vec<Grant>>,
}

impl VerifiedPolicy {
    /// Takes grants and revocations of which the caller has checked every signature against the patient's pinned
    /// key, and that the relationship is this patient's. Recipients, devices and epoch come from `document`.
    #[must_use]
    pub fn from_authentic(
        document: &PolicyDocument,
        freshness: Freshness,
        grants: impl IntoIterator<Item = (PatientId, Grant)>,
        revocations: impl IntoIterator<Item = Revocation>,
    ) -> Self {
        let mut latest: BTreeMap<RelationshipId, Latest> = BTreeMap::new();
        for (patient, grant) in grants {
            match latest.entry(grant.relationship) {
                Entry::Vacant(slot) => {
                    slot.insert(Latest { patient, version: grant.version, grant: Some(grant) });
                }
                Entry::Occupied(mut slot) => {
                    let seen = slot.get_mut();
                    if grant.version > seen.version {
                        *seen = Latest { patient, version: grant.version, grant: Some(grant) };
                    } else if grant.version == seen.version && seen.grant.as_ref() != Some(&grant) {
                        seen.grant = None;
                    }
                }
            }
        }
        let mut revoked: BTreeMap<RelationshipId, u64> = BTreeMap::new();
        for Revocation { relationship, version } in revocations {
            let highest = revoked.entry(relationship).or_insert(version);
            *highest = version.max(*highest);
        }
        let mut policy = Self {
            epoch: document.epoch,
            freshness,
            recipients: document.recipients.iter().map(|entry| (entry.id, entry.clone())).collect(),
            devices: document.devices.iter().map(|bind| (bind.device.clone(), bind.patient)).collect(),
            latest,
            revoked,
            standing: BTreeMap::new(),
        };
        policy.settle(&BTreeMap::new());
        policy
    }

    fn settle(&mut self, floors: &BTreeMap<RelationshipId, Floor>) {
        self.standing.clear();
        for (relationship, latest) in &self.latest {
            let Some(grant) = &latest.grant else { continue };
            let floor = floors.get(relationship).copied().unwrap_or_default();
            let revoked = floor.revoked.max(self.revoked.get(relationship).copied());
            if grant.version >= floor.granted && revoked.is_none_or(|version| grant.version > version) {
                self.standing.entry(latest.patient).or_default().push(grant.clone());
            }
        }
        for grants in self.standing.values_mut() {
            grants.sort_by_key(|grant| grant.grantee);
        }
    }

    /// Holds the policy against what this gateway has seen before: an older epoch is refused, grants below a version
    /// already seen and grants whose revocation was seen earlier don't stand. Returns the policy and the floors to keep
    /// durably *before* acting on it.
    ///
    /// # Errors
    /// [`AdmissionError`]; the policy before stays in force.
    pub fn admit(mut self, floors: &Floors) -> Result<(Self, Floors), AdmissionError> {
        if self.epoch < floors.epoch {
            return Err(AdmissionError::EpochWentBack { epoch: self.epoch, floor: floors.epoch });
        }
        self.settle(&floors.relationships);
        let mut risen = floors.clone();
        risen.epoch = self.epoch;
        for (relationship, latest) in &self.latest {
            let floor = risen.relationships.entry(*relationship).or_default();
            floor.granted = floor.granted.max(latest.version);
        }
        for (relationship, version) in &self.revoked {
            let floor = risen.relationships.entry(*relationship).or_default();
            floor.revoked = floor.revoked.max(Some(*version));
        }
        let len = risen.relationships.len();
        if len > FLOORS_MAX { Err(AdmissionError::TooManyFloors { len }) } else { Ok((self, risen)) }
    }

    /// Who may open this patient's readings of this class at `now_s` (Unix time in seconds), for treatment, which is
    /// what the live path serves. Each recipient once, sorted by id.
    pub fn recipients(
        &self,
        patient: &PatientId,
        class: DataClass,
        now_s: u64,
    ) -> impl Iterator<Item = Recipient> + '_ {
        self.recipients_for(patient, class, Purpose::Treatment, now_s)
    }

    /// As [`Self::recipients`], for any purpose.
    pub fn recipients_for(
        &self,
        patient: &PatientId,
        class: DataClass,
        purpose: Purpose,
        now_s: u64,
    ) -> impl Iterator<Item = Recipient> + '_ {
        let mut last = None;
        self.standing
            .get(patient)
            .into_iter()
            .flatten()
            .filter(move |grant| grant.classes & class_bit(class) != 0 && grant.purposes & purpose.bit() != 0)
            .filter_map(move |grant| {
                let entry = self.recipients.get(&grant.grantee)?;
                self.holds(grant, entry, now_s)
                    .then_some(Recipient { id: entry.id, hpke_public_key: entry.hpke_public_key })
            })
            .filter(move |recipient| last.replace(recipient.id) != Some(recipient.id))
    }

    fn holds(&self, grant: &Grant, entry: &RecipientEntry, now_s: u64) -> bool {
        if entry.status == RecipientStatus::Suspended || now_s < grant.from || now_s >= grant.until {
            return false;
        }
        match self.freshness {
            Freshness::Unproven => true,
            Freshness::Proven { as_of, staleness_max_s } => {
                let stale_from = as_of.saturating_add(staleness_max_s);
                let bound_s = match entry.kind {
                    RecipientKind::Treating => u64::from(grant.stale_bound_s).min(STALE_BOUND_TREATING_MAX_S),
                    RecipientKind::Other => 0,
                };
                now_s <= stale_from || (grant.from <= stale_from && now_s <= as_of.saturating_add(bound_s))
            }
        }
    }

    /// Whether the policy's proof is older than its greatest age. Always false where nothing proves an age.
    #[must_use]
    pub fn is_stale(&self, now_s: u64) -> bool {
        self.freshness.stale_from().is_some_and(|from| now_s > from)
    }

    /// Who wears this device.
    #[must_use]
    pub fn patient_of(&self, device: &DeviceId) -> Option<PatientId> {
        self.devices.get(device).copied()
    }

    /// Every device binding.
    pub fn devices(&self) -> impl ExactSizeIterator<Item = (&DeviceId, PatientId)> {
        self.devices.iter().map(|(device, patient)| (device, *patient))
    }

    /// The policy epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How the policy's age is known.
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        self.freshness
    }

    /// Every grant that stands: latest of its relationship and unrevoked. Whether it holds at a time is not looked at.
    pub fn standing(&self) -> impl Iterator<Item = (PatientId, &Grant)> {
        self.standing.iter().flat_map(|(patient, grants)| grants.iter().map(|grant| (*patient, grant)))
    }
}
