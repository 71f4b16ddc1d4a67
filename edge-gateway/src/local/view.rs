//! What the patient's page shows, as JSON. Pure: from verified policy, pins and what was seen, at a time that the caller gives.
//!
//! The page is the patient's own, behind the access code, so labels, addresses and relationships may stand here; readings don't.

use std::collections::BTreeSet;
use std::net::IpAddr;

use caregate_protocol::beat::PolicyState;
use caregate_protocol::id::{DataClass, DeviceId, PatientId, RecipientId};
use caregate_protocol::policy::{
    Classes, Freshness, Grant, Mac, RecipientStatus, RelationshipId, VerifiedPolicy, class_bit,
};
use ledger_client::revoke::RevokeKeys;
use ledger_client::verify::Pins;
use serde::Serialize;

use crate::hints::Device;
use crate::inventory::frame::Means;
use crate::inventory::oui::{Vendor, Vendors};
use crate::inventory::table::{Inventory, Seen};

/// What `GET /api/state` answers.
#[derive(Debug, Serialize)]
pub struct State {
    /// Our clock, Unix time in seconds.
    pub now_s: u64,
    /// How many patients this gateway serves.
    pub patients: usize,
    /// The policy in force.
    pub policy: PolicyView,
    /// Each enrolled relationship, in the order of patients and labels.
    pub access: Vec<Access>,
    /// Emergencies, the newest first.
    pub emergencies: Vec<EmergencyView>,
    /// Devices that are or may be bound.
    pub devices: Vec<SensorView>,
    /// Devices on the sensor network that are not bound.
    pub strangers: usize,
}

/// The policy in force.
#[derive(Debug, Serialize)]
pub struct PolicyView {
    /// Its epoch; 0 before there is any.
    pub epoch: u64,
    /// The header's time, where a ledger proves it.
    pub as_of_s: Option<u64>,
    /// How old it is.
    pub age_s: Option<u64>,
    /// Whether it is too old for anybody new to come in.
    pub is_stale: bool,
    /// Whether the clock was set back, so that nobody knows how old it is.
    pub clock_unknown: bool,
    /// Whether one party seals the ledger, and could rewrite it.
    pub one_sealer: bool,
}

/// How an access stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessStatus {
    /// They may see what comes in now.
    Open,
    /// It begins later.
    Waiting,
    /// Its time has passed.
    Expired,
    /// The governors have suspended them.
    Suspended,
    /// The policy is too old for it.
    Paused,
    /// The patient has revoked what they had.
    Revoked,
    /// The patient has granted nothing, or the policy does not have it any more.
    None,
}

/// One relationship.
#[derive(Debug, Serialize)]
pub struct Access {
    /// Whose, as a number from 1.
    pub patient: usize,
    /// Its name on the ledger; what `POST /api/revoke` takes.
    pub relationship: RelationshipId,
    /// From the enrolment.
    pub label: String,
    /// How it stands.
    pub status: AccessStatus,
    /// To whom, where something is granted.
    pub grantee: Option<RecipientId>,
    /// What, where something is granted.
    pub classes: Vec<&'static str>,
    /// From when, Unix time in seconds.
    pub from_s: Option<u64>,
    /// Until when.
    pub until_s: Option<u64>,
    /// Whether the button can end it: it stands, and its revoke-only key is here.
    pub is_revocable: bool,
}

/// Somebody broke the glass.
#[derive(Debug, Serialize)]
pub struct EmergencyView {
    /// Whose, as a number from 1.
    pub patient: usize,
    /// Who.
    pub domain: RecipientId,
    /// The enrolment's label, where the patient has a relationship with them.
    pub label: Option<String>,
    /// Whether it runs.
    pub is_running: bool,
    /// From when, Unix time in seconds.
    pub from_s: u64,
    /// Until when.
    pub until_s: u64,
    /// Rises with each of this domain.
    pub number: u64,
}

/// A device of the enrolment.
#[derive(Debug, Serialize)]
pub struct SensorView {
    /// Its id.
    pub device: DeviceId,
    /// Its address.
    pub mac: Mac,
    /// Whose, as a number from 1.
    pub patient: usize,
    /// Whether the patient's binding counts.
    pub is_bound: bool,
    /// Of which class its readings are, where the patient says another than the usual one: by quantity, `all` for the rest.
    pub classes: Classes,
    /// Whether a controller's rule drops what it sends.
    pub is_quarantined: bool,
    /// When its last reading came, Unix time in seconds.
    pub last_reading_s: Option<i64>,
    /// When it was last seen on the network.
    pub last_seen_s: Option<i64>,
}

/// One device of the inventory, as `GET /api/devices` lists it.
#[derive(Debug, Serialize)]
pub struct SeenView<'i> {
    /// Its address.
    pub mac: Mac,
    /// The bound sensor, where it is one.
    pub device: Option<&'i DeviceId>,
    /// Whose block the address is in, where the table has it.
    pub vendor: Option<&'i str>,
    /// True where the device chose its address itself, so that no vendor can be told.
    pub is_private_address: bool,
    /// Whether a controller's rule drops what it sends.
    pub is_quarantined: bool,
    /// The sensor port.
    pub port: u32,
    /// The addresses that it claimed, the newest last.
    pub addresses: &'i [IpAddr],
    /// The name that it gave itself.
    pub name: Option<&'i str>,
    /// What it said that it is.
    pub about: Option<&'i str>,
    /// By what it was seen.
    pub means: &'i BTreeSet<Means>,
    /// Unix time in seconds.
    pub first_seen_s: i64,
    /// Unix time in seconds.
    pub last_seen_s: i64,
    /// Frames that reached the inventory.
    pub frames: u64,
}

/// What the views are made of.
pub struct Facts<'f> {
    /// The policy in force.
    pub policy: &'f VerifiedPolicy,
    /// How it stands.
    pub stands: PolicyState,
    /// Who and what is enrolled.
    pub pins: &'f Pins,
    /// What the button can sign with.
    pub keys: &'f RevokeKeys,
    /// Who was seen.
    pub inventory: &'f Inventory,
    /// When each device was last heard, by its id.
    pub heard: &'f [(String, Device)],
    /// Whose frames a controller's rule drops.
    pub quarantined: &'f BTreeSet<Mac>,
}

impl Facts<'_> {
    /// The page's state.
    #[must_use]
    pub fn state(&self, now_s: u64) -> State {
        let mut access: Vec<_> = self.accesses(now_s).collect();
        access.sort_by(|a, b| {
            (a.patient, &a.label, a.relationship).cmp(&(b.patient, &b.label, b.relationship))
        });
        let mut emergencies: Vec<_> = self.emergencies(now_s).collect();
        emergencies.sort_by_key(|one| std::cmp::Reverse((one.from_s, one.number)));
        let bound: BTreeSet<_> = self.inventory.bindings().map(|(mac, _)| mac).collect();
        let strangers = self.inventory.devices().iter().filter(|(mac, _)| !bound.contains(mac)).count();
        State {
            now_s,
            patients: self.pins.patients.values().copied().max().unwrap_or(0),
            policy: policy_view(self.policy, self.stands, now_s),
            access,
            emergencies,
            devices: self.sensors(),
            strangers,
        }
    }

    /// The grant that stands in a relationship.
    #[must_use]
    pub fn standing(&self, relationship: &RelationshipId) -> Option<&Grant> {
        standing(self.policy, relationship)
    }

    fn number_of(&self, patient: &PatientId) -> usize {
        self.pins.patients.get(patient).copied().unwrap_or(0)
    }

    fn accesses(&self, now_s: u64) -> impl Iterator<Item = Access> {
        self.pins.relationships.iter().map(move |(relationship, pin)| {
            let grant = self.standing(relationship);
            let status = match grant {
                Some(grant) => access_status(self.policy, grant, now_s),
                None if self.policy.is_revoked(relationship) => AccessStatus::Revoked,
                None => AccessStatus::None,
            };
            let is_revocable = grant.is_some() && self.keys.holds(relationship);
            Access {
                patient: self.number_of(&pin.patient),
                relationship: *relationship,
                label: pin.label.clone(),
                status,
                grantee: grant.map(|grant| grant.grantee),
                classes: grant.map_or_else(Vec::new, |grant| class_names(grant.classes)),
                from_s: grant.map(|grant| grant.from),
                until_s: grant.map(|grant| grant.until),
                is_revocable,
            }
        })
    }

    fn emergencies(&self, now_s: u64) -> impl Iterator<Item = EmergencyView> {
        self.policy.emergencies().iter().map(move |access| {
            let emergency = &access.emergency;
            EmergencyView {
                patient: self.number_of(&access.patient),
                domain: emergency.domain,
                label: self.label_of(&access.patient, &emergency.domain),
                is_running: self.policy.emergency_holds(access, now_s),
                from_s: emergency.from,
                until_s: emergency.until,
                number: emergency.number,
            }
        })
    }

    /// What the patient calls a domain: the label of a relationship in which it is the grantee.
    fn label_of(&self, patient: &PatientId, domain: &RecipientId) -> Option<String> {
        let grants = self.policy.standing();
        let (_, grant) =
            grants.into_iter().find(|(whose, grant)| whose == patient && grant.grantee == *domain)?;
        self.pins.relationships.get(&grant.relationship).map(|pin| pin.label.clone())
    }

    fn sensors(&self) -> Vec<SensorView> {
        let mut pinned: Vec<_> = self.pins.devices.values().collect();
        pinned.sort_by_key(|pin| pin.index);
        let views = pinned.into_iter().map(|pin| {
            let heard = self.heard.iter().find(|(device, _)| device == pin.device.as_str());
            SensorView {
                device: pin.device.clone(),
                mac: pin.mac,
                patient: self.number_of(&pin.patient),
                is_bound: self.policy.patient_of(&pin.device).is_some(),
                classes: pin.classes.clone(),
                is_quarantined: self.quarantined.contains(&pin.mac),
                last_reading_s: heard.map(|(_, device)| seconds(device.last_heard_us)),
                last_seen_s: self.inventory.device(pin.mac).map(|seen| seconds(seen.last_us)),
            }
        });
        views.collect()
    }

    /// The inventory, the last one seen first.
    #[must_use]
    pub fn seen<'v>(&'v self, vendors: &'v Vendors) -> Vec<SeenView<'v>> {
        let seen = self.inventory.devices().into_iter();
        seen.map(|(mac, seen)| self.seen_view(mac, seen, vendors)).collect()
    }

    fn seen_view<'v>(&'v self, mac: Mac, seen: &'v Seen, vendors: &'v Vendors) -> SeenView<'v> {
        let vendor = vendors.of(mac);
        SeenView {
            mac,
            device: self.inventory.bound(mac),
            vendor: match vendor {
                Vendor::Named(name) => Some(name),
                Vendor::Local | Vendor::Unknown => None,
            },
            is_private_address: vendor == Vendor::Local,
            is_quarantined: self.quarantined.contains(&mac),
            port: seen.port,
            addresses: &seen.addresses,
            name: seen.name.as_deref(),
            about: seen.about.as_deref(),
            means: &seen.means,
            first_seen_s: seconds(seen.first_us),
            last_seen_s: seconds(seen.last_us),
            frames: seen.frames,
        }
    }
}

/// The grant that stands in a relationship.
#[must_use]
pub fn standing<'p>(policy: &'p VerifiedPolicy, relationship: &RelationshipId) -> Option<&'p Grant> {
    policy.standing().map(|(_, grant)| grant).find(|grant| grant.relationship == *relationship)
}

fn seconds(us: i64) -> i64 {
    us.div_euclid(1_000_000)
}

fn class_names(classes: u32) -> Vec<&'static str> {
    let granted = DataClass::ALL.into_iter().filter(|class| classes & class_bit(*class) != 0);
    granted.map(DataClass::as_str).collect()
}

fn access_status(policy: &VerifiedPolicy, grant: &Grant, now_s: u64) -> AccessStatus {
    let suspended =
        policy.recipient_entry(&grant.grantee).is_none_or(|entry| entry.status == RecipientStatus::Suspended);
    // By the time that access is judged by.
    let time_s = policy.time(now_s).unwrap_or(now_s);
    if policy.holds(grant, now_s) {
        AccessStatus::Open
    } else if time_s >= grant.until {
        AccessStatus::Expired
    } else if suspended {
        AccessStatus::Suspended
    } else if time_s < grant.from {
        AccessStatus::Waiting
    } else {
        AccessStatus::Paused
    }
}

fn policy_view(policy: &VerifiedPolicy, stands: PolicyState, now_s: u64) -> PolicyView {
    let as_of_s = match policy.freshness() {
        Freshness::Unproven => None,
        Freshness::Proven { as_of, .. } => Some(as_of),
    };
    PolicyView {
        epoch: policy.epoch(),
        as_of_s,
        age_s: policy.age_s(now_s).or_else(|| as_of_s.map(|as_of| now_s.saturating_sub(as_of))),
        is_stale: policy.is_stale(now_s),
        clock_unknown: stands.clock_unknown,
        one_sealer: stands.one_sealer,
    }
}
