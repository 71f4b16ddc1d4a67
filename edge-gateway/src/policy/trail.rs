//! The audit trail: what came into force when, by whom, what ended why, and what was refused. It stays on the gateway, for the
//! patient's page; nothing of it goes into a log.

use std::collections::BTreeMap;

pub use caregate_protocol::audit::Ending;
use caregate_protocol::id::{PatientId, RecipientId};
use caregate_protocol::policy::{
    EmergencyAccess, Freshness, Grant, RecipientStatus, RelationshipId, VerifiedPolicy,
};
use ledger_client::verify::{Pins, RevocationSigner};
use serde::{Deserialize, Serialize};

/// By which path something came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The policy connection.
    Controller,
    /// The local door.
    Door,
    /// The core, by a feed.
    Core,
    /// The gateway's own disk, at its start.
    Disk,
}

impl Origin {
    /// Its name, for counters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Door => "door",
            Self::Core => "core",
            Self::Disk => "disk",
        }
    }
}

/// Whose word a revocation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokedBy {
    /// The ledger showed it.
    Ledger,
    /// Signed with the grant key, in the patient's wallet, and handed over alone.
    Wallet,
    /// Signed with the revoke-only key, as the button on the patient's page does.
    Button,
}

impl RevokedBy {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ledger => "ledger",
            Self::Wallet => "wallet",
            Self::Button => "button",
        }
    }
}

impl From<RevocationSigner> for RevokedBy {
    fn from(signer: RevocationSigner) -> Self {
        match signer {
            RevocationSigner::GrantKey => Self::Wallet,
            RevocationSigner::RevokeKey => Self::Button,
        }
    }
}

/// Who has access to whose readings, and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// Whose.
    pub patient: PatientId,
    /// The relationship's label at that time; empty for an emergency.
    pub label: String,
    /// Who.
    pub recipient: RecipientId,
    /// Version of the grant, or number of the emergency.
    pub version: u64,
    /// First second at which it holds no more.
    pub until: u64,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A policy epoch came into force.
    EpochInForce {
        /// Which.
        epoch: u64,
        /// The header's number; 0 where policy comes from a file.
        header: u64,
        /// By which path.
        origin: Origin,
    },
    /// A grant opens.
    GrantBegan(Access),
    /// A grant opens no more.
    GrantEnded {
        /// Which.
        access: Access,
        /// Why.
        why: Ending,
    },
    /// A revocation is in force.
    Revoked {
        /// Whose.
        patient: PatientId,
        /// The relationship's label at that time.
        label: String,
        /// Up to and including.
        version: u64,
        /// Whose word it is.
        by: RevokedBy,
    },
    /// The ledger has a revocation that was handed over here.
    Anchored {
        /// Whose.
        patient: PatientId,
        /// The relationship's label at that time.
        label: String,
    },
    /// Somebody broke the glass.
    EmergencyBegan(Access),
    /// An emergency is over.
    EmergencyEnded(Access),
    /// A bundle or a revocation was refused.
    Refused {
        /// The reason's name.
        reason: String,
        /// By which path it came.
        origin: Origin,
        /// How many, since the last such entry.
        times: u64,
    },
    /// Staff acted on the watch.
    Commanded {
        /// Whose.
        patient: PatientId,
        /// The relationship's label at that time; empty for an emergency.
        label: String,
        /// Which domain.
        domain: RecipientId,
        /// Who, by the domain's word.
        clinician: String,
        /// What they did.
        action: String,
        /// None where it was done; else why not.
        refused: Option<String>,
    },
    /// A patient's root was split into shares.
    RootShared {
        /// Whose.
        patient: PatientId,
        /// How many it takes.
        threshold: u8,
        /// Of how many.
        shares: u8,
    },
    /// A patient's root was put together from shares, here.
    RootRestored {
        /// Whose.
        patient: PatientId,
    },
    /// The patient ordered that nothing of theirs is to stay.
    ErasureOrdered {
        /// Whose.
        patient: PatientId,
    },
    /// A patient's root was destroyed.
    RootErased {
        /// Whose.
        patient: PatientId,
    },
    /// The policy is too old for anybody new.
    StalenessEntered {
        /// The newest header's time, Unix seconds.
        as_of: u64,
    },
    /// The policy is fresh again.
    StalenessLeft,
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Rises by one with each entry.
    pub number: u64,
    /// Unix time in seconds, by the gateway's clock.
    pub time_s: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Who may open what at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    grants: BTreeMap<(RelationshipId, u64), Access>,
    emergencies: BTreeMap<(PatientId, RecipientId, u64), Access>,
    stale: Option<u64>,
}

impl Snapshot {
    /// What opens under `policy` at `now_s`. Labels are of `pins`.
    #[must_use]
    pub fn of(policy: &VerifiedPolicy, pins: Option<&Pins>, now_s: u64) -> Self {
        let label = |relationship| label_of(pins, relationship);
        let holding = policy.standing().filter(|(_, grant)| policy.holds(grant, now_s));
        let grants = holding.map(|(patient, grant)| {
            let access = Access {
                patient,
                label: label(&grant.relationship),
                recipient: grant.grantee,
                version: grant.version,
                until: grant.until,
            };
            ((grant.relationship, grant.version), access)
        });
        let open = policy.emergencies().iter().filter(|open| policy.emergency_holds(open, now_s));
        let emergencies = open.map(emergency_access);
        let stale = match policy.freshness() {
            Freshness::Proven { as_of, .. } if policy.is_stale(now_s) => Some(as_of),
            Freshness::Proven { .. } | Freshness::Unproven => None,
        };
        Self { grants: grants.collect(), emergencies: emergencies.collect(), stale }
    }

    /// With emergencies that were handed over here and had begun before `now_s`, whatever the policy's own time: they are in the trail
    /// already.
    #[must_use]
    pub fn with_direct(mut self, policy: &VerifiedPolicy, now_s: u64) -> Self {
        let now_s = policy.time(now_s).unwrap_or(now_s);
        let direct =
            policy.emergencies().iter().filter(|open| open.is_direct && open.emergency.from <= now_s);
        self.emergencies.extend(direct.map(emergency_access));
        self
    }

    /// Forgets a patient. Nothing of theirs ends by it: that it was erased is an event of its own.
    pub fn forget(&mut self, patient: &PatientId) {
        self.grants.retain(|_, access| access.patient != *patient);
        self.emergencies.retain(|(of, _, _), _| of != patient);
    }

    /// How many emergencies hold.
    #[must_use]
    pub fn emergencies(&self) -> usize {
        self.emergencies.len()
    }

    /// What happened between `self` and `next`, which is of `policy` at `now_s`; `revoked` says up to which version a relationship
    /// is revoked.
    #[must_use]
    pub fn until(
        &self,
        next: &Self,
        policy: &VerifiedPolicy,
        revoked: impl Fn(&RelationshipId) -> Option<u64>,
        now_s: u64,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        match (self.stale, next.stale) {
            (None, Some(as_of)) => events.push(Event::StalenessEntered { as_of }),
            (Some(_), None) => events.push(Event::StalenessLeft),
            (None, None) | (Some(_), Some(_)) => {}
        }
        for ((relationship, version), access) in &self.grants {
            if !next.grants.contains_key(&(*relationship, *version)) {
                let why = if revoked(relationship).is_some_and(|revoked| revoked >= *version) {
                    Ending::Revoked
                } else {
                    ending(policy, relationship, access, now_s)
                };
                events.push(Event::GrantEnded { access: access.clone(), why });
            }
        }
        for (key, access) in &self.emergencies {
            if !next.emergencies.contains_key(key) {
                events.push(Event::EmergencyEnded(access.clone()));
            }
        }
        let new = |(key, access): (&(RelationshipId, u64), &Access)| {
            (!self.grants.contains_key(key)).then(|| Event::GrantBegan(access.clone()))
        };
        events.extend(next.grants.iter().filter_map(new));
        let new = |(key, access): (&(PatientId, RecipientId, u64), &Access)| {
            (!self.emergencies.contains_key(key)).then(|| Event::EmergencyBegan(access.clone()))
        };
        events.extend(next.emergencies.iter().filter_map(new));
        events
    }
}

fn emergency_access(open: &EmergencyAccess) -> ((PatientId, RecipientId, u64), Access) {
    let (patient, emergency) = (open.patient, &open.emergency);
    let access = Access {
        patient,
        label: String::new(),
        recipient: emergency.domain,
        version: emergency.number,
        until: emergency.until,
    };
    ((patient, emergency.domain, emergency.number), access)
}

/// Why a grant that is not revoked opens no more.
fn ending(policy: &VerifiedPolicy, relationship: &RelationshipId, access: &Access, now_s: u64) -> Ending {
    let standing: Option<&Grant> =
        policy.standing().map(|(_, grant)| grant).find(|grant| grant.relationship == *relationship);
    let status = policy.recipient_entry(&access.recipient).map(|entry| entry.status);
    let is_over = |grant: &Grant| policy.time(now_s).unwrap_or(now_s) >= grant.until;
    match (standing, status) {
        (None, _) => Ending::LeftOut,
        (Some(grant), _) if grant.version > access.version => Ending::Replaced,
        (Some(grant), _) if is_over(grant) => Ending::Expired,
        (Some(_), None) => Ending::LeftOut,
        (Some(_), Some(RecipientStatus::Suspended)) => Ending::Suspended,
        (Some(_), Some(RecipientStatus::Active)) => Ending::Stale,
    }
}

/// A relationship's name for the patient.
#[must_use]
pub fn label_of(pins: Option<&Pins>, relationship: &RelationshipId) -> String {
    let pin = pins.and_then(|pins| pins.relationships.get(relationship));
    pin.map(|pin| pin.label.clone()).unwrap_or_default()
}

impl Event {
    /// A sentence for the patient.
    #[must_use]
    pub fn text(&self) -> String {
        let name = |access: &Access| {
            if access.label.is_empty() { access.recipient.to_string() } else { access.label.clone() }
        };
        match self {
            Self::EpochInForce { epoch, header, origin } => {
                let from = match origin {
                    Origin::Controller => "from the controller",
                    Origin::Door => "from the local door",
                    Origin::Core => "by way of the core",
                    Origin::Disk => "as kept on this box",
                };
                format!("Policy epoch {epoch} of block {header} is in force, {from}")
            }
            Self::GrantBegan(access) => format!("{} may open", name(access)),
            Self::GrantEnded { access, why } => {
                let why = match why {
                    Ending::Revoked => "you revoked it",
                    Ending::Replaced => "a later grant took its place",
                    Ending::Expired => "its time is over",
                    Ending::Suspended => "it was suspended",
                    Ending::Stale => "nothing was heard of the ledger for too long",
                    Ending::LeftOut => "the policy does not have it any more",
                };
                format!("{} may open no more: {why}", name(access))
            }
            Self::Revoked { label, version, by, .. } => {
                let by = match by {
                    RevokedBy::Ledger => "on the ledger",
                    RevokedBy::Wallet => "by your wallet, ahead of the ledger",
                    RevokedBy::Button => "with this box's key",
                };
                format!("{label} revoked up to grant {version}, {by}")
            }
            Self::Anchored { label, .. } => format!("The ledger has the revocation of {label}"),
            Self::EmergencyBegan(access) => format!("EMERGENCY: {} broke the glass", access.recipient),
            Self::EmergencyEnded(access) => format!("The emergency access of {} is over", access.recipient),
            Self::Refused { reason, origin, times } => {
                let times = if *times > 1 { format!(", {times} times") } else { String::new() };
                format!("Policy from the {} was refused: {reason}{times}", origin.as_str())
            }
            Self::Commanded { label, domain, clinician, action, refused, .. } => {
                let domain = if label.is_empty() { domain.to_string() } else { label.clone() };
                let did = match action.as_str() {
                    "limits" => "set alarm limits",
                    "acknowledge" => "acknowledged alarms",
                    "pause" => "paused alarm tones",
                    "oxygen" => "entered oxygen",
                    "consciousness" => "entered consciousness",
                    "profile" => "entered who the patient is",
                    other => other,
                };
                let why = refused.as_ref().map_or_else(String::new, |word| format!(" (refused: {word})"));
                format!("{domain}: {clinician} {did}{why}")
            }
            Self::RootShared { threshold, shares, .. } => {
                format!(
                    "Your root key was split into {shares} shares; any {threshold} of them open your history"
                )
            }
            Self::RootRestored { .. } => "Your root key was put together from its shares, on this box".into(),
            Self::ErasureOrdered { .. } => "You ordered that nothing of yours is to stay".into(),
            Self::RootErased { .. } => "Your root key was destroyed on this box, for good".into(),
            Self::StalenessEntered { .. } => {
                "Nothing was heard of the ledger for too long: nobody new may open".into()
            }
            Self::StalenessLeft => "The ledger was heard again".into(),
        }
    }
}
