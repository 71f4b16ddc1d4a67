//! The policy that counts: authentic grants, evaluated at a time that the caller gives.
//!
//! Per relationship the highest version counts alone, and no version at or below a revocation counts. An authentic
//! grant that can't be used (window that never opens, unknown grantee) still supersedes the versions below it: the
//! patient's last word stands, even where it opens nothing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::bundle::Emergency;
use super::device::BoundDevice;
use super::grant::{Grant, Purpose, RelationshipId, Revocation, class_bit};
use super::recipient::{GRANTS_MAX, PATIENTS_MAX, RecipientEntry, RecipientKind, RecipientStatus};
use crate::id::{DataClass, DeviceId, PatientId, RecipientId};

/// Longest time for which a treating clinician's grant outlives the policy's proof: one day, whatever was signed.
pub const STALE_BOUND_TREATING_MAX_S: u64 = 86_400;
/// How far a clock may be behind the newest header and still count: more than clocks differ that NTP keeps.
pub const CLOCK_BEHIND_MAX_S: u64 = 60;
/// Most relationships remembered: four times as many as one gateway has, for patients who came and went.
pub const FLOORS_MAX: usize = 4 * PATIENTS_MAX * GRANTS_MAX;

/// What is known of the clock by which a policy is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockOffset {
    /// It is behind by so much at least.
    Known {
        /// Seconds to add.
        behind_s: u64,
        /// Seconds that may have passed beside: a proof is as old as if they had.
        doubt_s: u64,
    },
    /// It was set back, or the gateway began with a wrong one: nobody knows the time.
    Unknown,
}

impl Default for ClockOffset {
    /// It is right.
    fn default() -> Self {
        Self::Known { behind_s: 0, doubt_s: 0 }
    }
}

/// How the age of a policy is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// By nobody: before the first policy. Nothing goes stale.
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

/// The newest ledger header that a gateway has verified; it only rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderFloor {
    /// The block's number.
    pub number: u64,
    /// Its time, Unix seconds.
    pub time_s: u64,
    /// Its id.
    pub hash: [u8; 32],
}

/// What a gateway keeps across policies and restarts, so that an old policy can bring nobody back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floors {
    /// Highest policy epoch seen.
    pub epoch: u64,
    /// Newest header seen.
    #[serde(default)]
    pub header: HeaderFloor,
    /// Per relationship; at most [`FLOORS_MAX`].
    pub relationships: BTreeMap<RelationshipId, Floor>,
    /// Who seals the ledger now, where those who were pinned have handed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validators: Option<ValidatorFloor>,
}

/// To whom the pinned validators have handed on. It counts as long as those are pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidatorFloor {
    /// Who was pinned.
    pub pinned: Vec<Validator>,
    /// Who seals now.
    pub now: Vec<Validator>,
}

/// The address of who seals a ledger's headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Validator(#[serde(with = "super::grant::hex_bytes")] pub [u8; 20]);

/// Why a verified policy was not admitted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AdmissionError {
    /// Older than one that was already admitted.
    #[error("policy epoch {epoch} is behind epoch {floor}, which was already in force")]
    EpochWentBack {
        /// The policy's epoch.
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

/// A break-glass access to a patient here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmergencyAccess {
    /// Whose pseudonym it names.
    pub patient: PatientId,
    /// What the domain signed.
    pub emergency: Emergency,
    /// It was handed to the gateway itself; no header has shown it yet.
    pub is_direct: bool,
}

/// What a verifier found authentic: every signature was checked against the key that was pinned for it, and that each relationship,
/// device and pseudonym is the named patient's.
#[derive(Debug, Clone)]
pub struct Authentic {
    /// The policy epoch.
    pub epoch: u64,
    /// How the age is known.
    pub freshness: Freshness,
    /// Each id once.
    pub recipients: Vec<RecipientEntry>,
    /// Each device once.
    pub devices: Vec<BoundDevice>,
    /// In any order, several versions of a relationship allowed.
    pub grants: Vec<(PatientId, Grant)>,
    /// In any order.
    pub revocations: Vec<Revocation>,
    /// Of domains that may break the glass.
    pub emergencies: Vec<EmergencyAccess>,
}

/// A policy whose grants and revocations are authentic. Made by `ledger-client`'s `verify`.
#[derive(Debug, Clone)]
pub struct VerifiedPolicy {
    epoch: u64,
    freshness: Freshness,
    recipients: BTreeMap<RecipientId, RecipientEntry>,
    devices: BTreeMap<DeviceId, BoundDevice>,
    emergencies: Vec<EmergencyAccess>,
    latest: BTreeMap<RelationshipId, Latest>,
    revoked: BTreeMap<RelationshipId, u64>,
    /// Unrevoked latest grants, each patient's sorted by grantee. Follows from `latest` and `revoked`.
    standing: BTreeMap<PatientId, Vec<Grant>>,
    clock: ClockOffset,
}

impl VerifiedPolicy {
    /// Takes what a verifier found authentic.
    #[must_use]
    pub fn new(authentic: Authentic) -> Self {
        let mut latest: BTreeMap<RelationshipId, Latest> = BTreeMap::new();
        for (patient, grant) in authentic.grants {
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
        for Revocation { relationship, version } in authentic.revocations {
            let highest = revoked.entry(relationship).or_insert(version);
            *highest = version.max(*highest);
        }
        let mut policy = Self {
            epoch: authentic.epoch,
            freshness: authentic.freshness,
            recipients: authentic.recipients.into_iter().map(|entry| (entry.id, entry)).collect(),
            devices: authentic.devices.into_iter().map(|bound| (bound.device.clone(), bound)).collect(),
            emergencies: authentic.emergencies,
            latest,
            revoked,
            standing: BTreeMap::new(),
            clock: ClockOffset::default(),
        };
        policy.settle(&BTreeMap::new());
        policy
    }

    /// Before any policy: nobody may open anything, and nothing is bound.
    #[must_use]
    pub fn none() -> Self {
        Self::new(Authentic {
            epoch: 0,
            freshness: Freshness::Unproven,
            recipients: Vec::new(),
            devices: Vec::new(),
            grants: Vec::new(),
            revocations: Vec::new(),
            emergencies: Vec::new(),
        })
    }

    fn settle(&mut self, floors: &BTreeMap<RelationshipId, Floor>) {
        self.standing.clear();
        for (relationship, version) in floors.iter().filter_map(|(of, floor)| Some((of, floor.revoked?))) {
            let revoked = self.revoked.entry(*relationship).or_insert(version);
            *revoked = version.max(*revoked);
        }
        for (relationship, latest) in &self.latest {
            let Some(grant) = &latest.grant else { continue };
            let floor = floors.get(relationship).copied().unwrap_or_default();
            let revoked = self.revoked.get(relationship).copied();
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

    /// The same policy under floors that have risen: what was revoked meanwhile does not stand.
    #[must_use]
    pub fn under(&self, floors: &Floors) -> Self {
        let mut policy = self.clone();
        policy.settle(&floors.relationships);
        policy
    }

    /// The same policy without a patient: nobody opens anything of theirs, and their devices are nobody's.
    #[must_use]
    pub fn without(&self, patient: &PatientId) -> Self {
        let mut policy = self.clone();
        policy.devices.retain(|_, bound| bound.patient != *patient);
        policy.emergencies.retain(|access| access.patient != *patient);
        policy.latest.retain(|relationship, latest| {
            let stays = latest.patient != *patient;
            if !stays {
                policy.revoked.remove(relationship);
            }
            stays
        });
        policy.standing.remove(patient);
        policy
    }

    /// Who may open this patient's readings of this class at `now_s` (Unix time in seconds; taken for the header's time where it is
    /// before that), for treatment, which is what the live path serves: by the patient's grant, or by an emergency. Each recipient once, sorted by id.
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
        let mut open = BTreeMap::new();
        for grant in self.standing.get(patient).into_iter().flatten() {
            let meant = grant.classes & class_bit(class) != 0 && grant.purposes & purpose.bit() != 0;
            if meant && self.holds(grant, now_s) {
                open.extend(self.recipient(grant.grantee));
            }
        }
        if purpose == Purpose::Treatment {
            for access in self.emergencies.iter().filter(|access| access.patient == *patient) {
                if self.emergency_holds(access, now_s) {
                    open.extend(self.recipient(access.emergency.domain));
                }
            }
        }
        open.into_values()
    }

    fn recipient(&self, id: RecipientId) -> Option<(RecipientId, Recipient)> {
        let entry = self.recipients.get(&id)?;
        Some((id, Recipient { id, hpke_public_key: entry.hpke_public_key }))
    }

    /// Whether this grant opens at `now_s`: within its window, its grantee takes part, and the policy is fresh enough for it.
    /// Whether it stands is not looked at.
    #[must_use]
    pub fn holds(&self, grant: &Grant, now_s: u64) -> bool {
        let Some(entry) = self.recipients.get(&grant.grantee) else { return false };
        let is_over = self.is_over(grant.until, now_s);
        let (Some(time_s), Some(now_s)) = (self.time(now_s), self.latest_time(now_s)) else { return false };
        if entry.status == RecipientStatus::Suspended || time_s < grant.from || is_over {
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

    /// Whether this emergency opens at `now_s`. One that had begun when the policy was fresh goes on to its own end, which is
    /// hours away at most; under a stale policy none begins but what was handed to the gateway itself.
    #[must_use]
    pub fn emergency_holds(&self, access: &EmergencyAccess, now_s: u64) -> bool {
        let EmergencyAccess { emergency, is_direct, .. } = access;
        let is_over = self.is_over(emergency.until, now_s);
        let (Some(time_s), Some(now_s)) = (self.time(now_s), self.latest_time(now_s)) else { return false };
        let may = self
            .recipients
            .get(&emergency.domain)
            .is_some_and(|entry| entry.status == RecipientStatus::Active && (entry.emergency || !is_direct));
        let fresh = self.freshness.stale_from().is_none_or(|from| now_s <= from || emergency.from <= from);
        may && (fresh || *is_direct) && time_s >= emergency.from && !is_over
    }

    /// The same policy with emergencies that were handed to the gateway itself. Of one domain and patient the higher number counts, as on
    /// the ledger.
    #[must_use]
    pub fn with_direct(mut self, direct: impl IntoIterator<Item = EmergencyAccess>) -> Self {
        for access in direct {
            let same = |other: &EmergencyAccess| {
                other.patient == access.patient
                    && other.emergency.pseudonym == access.emergency.pseudonym
                    && other.emergency.domain == access.emergency.domain
            };
            let number = access.emergency.number;
            if !self.emergencies.iter().any(|other| same(other) && other.emergency.number >= number) {
                self.emergencies.retain(|other| !same(other));
                self.emergencies.push(EmergencyAccess { is_direct: true, ..access });
            }
        }
        self
    }

    /// The time that counts where the clock says `now_s`: by what is known of the clock, and never before the header. None where nobody
    /// knows it, as of a clock that is further behind the header than [`CLOCK_BEHIND_MAX_S`]. Then nobody knows how old the policy is.
    #[must_use]
    pub fn time(&self, now_s: u64) -> Option<u64> {
        let Freshness::Proven { as_of, .. } = self.freshness else { return Some(now_s) };
        let ClockOffset::Known { behind_s, .. } = self.clock else { return None };
        let now_s = now_s.saturating_add(behind_s);
        (now_s.saturating_add(CLOCK_BEHIND_MAX_S) >= as_of).then(|| now_s.max(as_of))
    }

    /// Whether what ends at `until` is over. Doubt counts once it is as long as a policy may be old: a gateway that crashed ends nothing
    /// before its time, and one that is killed again and again keeps nothing open for ever.
    #[must_use]
    pub fn is_over(&self, until: u64, now_s: u64) -> bool {
        let slack_s = match self.freshness {
            Freshness::Proven { staleness_max_s, .. } => staleness_max_s,
            Freshness::Unproven => 0,
        };
        let over = |time: Option<u64>, until: u64| time.is_none_or(|time| time >= until);
        over(self.time(now_s), until) || over(self.latest_time(now_s), until.saturating_add(slack_s))
    }

    /// The time that it may be at the latest, by what is known: a proof is as old as this.
    fn latest_time(&self, now_s: u64) -> Option<u64> {
        let doubt_s = match self.clock {
            ClockOffset::Known { doubt_s, .. } => doubt_s,
            ClockOffset::Unknown => 0,
        };
        self.time(now_s).map(|now_s| now_s.saturating_add(doubt_s))
    }

    /// The same policy, judged by a clock of which this is known.
    #[must_use]
    pub fn with_clock(self, clock: ClockOffset) -> Self {
        Self { clock, ..self }
    }

    /// What is known of the clock by which it is judged.
    #[must_use]
    pub fn clock(&self) -> ClockOffset {
        self.clock
    }

    /// How old the policy's proof may be, in seconds. None where nothing proves an age, or nobody knows the time.
    #[must_use]
    pub fn age_s(&self, now_s: u64) -> Option<u64> {
        let Freshness::Proven { as_of, .. } = self.freshness else { return None };
        self.latest_time(now_s).map(|now_s| now_s.saturating_sub(as_of))
    }

    /// Whether the policy's proof is older than its greatest age, or of no known age for want of a clock. Always false where nothing
    /// proves an age.
    #[must_use]
    pub fn is_stale(&self, now_s: u64) -> bool {
        let stale_from = self.freshness.stale_from();
        stale_from.is_some_and(|from| self.latest_time(now_s).is_none_or(|now_s| now_s > from))
    }

    /// Who wears this device.
    #[must_use]
    pub fn patient_of(&self, device: &DeviceId) -> Option<PatientId> {
        self.devices.get(device).map(|bound| bound.patient)
    }

    /// Of which class a device's readings of a quantity are, by its row number: by the rules that the patient bound the device with. Of one
    /// that is not bound nothing is sealed; here it is kept most closely.
    #[must_use]
    pub fn class_of(&self, device: &DeviceId, quantity: u16) -> DataClass {
        self.devices.get(device).map_or(DataClass::Sensitive, |bound| bound.classes.class_of(quantity))
    }

    /// Every device binding, by device.
    pub fn devices(&self) -> impl ExactSizeIterator<Item = &BoundDevice> {
        self.devices.values()
    }

    /// Every emergency, whether it holds at present or not.
    #[must_use]
    pub fn emergencies(&self) -> &[EmergencyAccess] {
        &self.emergencies
    }

    /// A recipient's entry.
    #[must_use]
    pub fn recipient_entry(&self, id: &RecipientId) -> Option<&RecipientEntry> {
        self.recipients.get(id)
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

    /// Whether anything was revoked in a relationship. A grant that came after it may stand.
    #[must_use]
    pub fn is_revoked(&self, relationship: &RelationshipId) -> bool {
        self.revoked.contains_key(relationship)
    }

    /// Every grant that stands: latest of its relationship and unrevoked. Whether it holds at a time is not looked at.
    pub fn standing(&self) -> impl Iterator<Item = (PatientId, &Grant)> {
        self.standing.iter().flat_map(|(patient, grants)| grants.iter().map(|grant| (*patient, grant)))
    }
}
