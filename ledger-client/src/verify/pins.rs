//! What a gateway pinned when its patients were enrolled: the ledger and who seals it, the keys of each relationship, the
//! devices. It is the root of all consent here, so it comes from the gateway's own configuration and from nowhere else.
//!
//! [`Enrolment`] is the file (docs/control-path.md, "The enrolment file"), public values alone; [`Pins`] are what it comes to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use caregate_protocol::id::{DeviceId, PatientId};
use caregate_protocol::policy::{
    Classes, Commitment, DEVICES_MAX, GRANTS_MAX, Mac, PATIENTS_MAX, Pseudonym, RelationshipId, WATCHED_MAX,
    Watch,
};
use serde::{Deserialize, Serialize, de::Error as _};
use thiserror::Error;

use super::address::Address;
use super::eip712::Domain;
use super::header::VALIDATORS_MAX;
use super::slots;

/// Age (seconds) from which a policy is stale, where the file says nothing: 60 of an idle ledger's headers.
pub const STALENESS_MAX_S: u64 = 600;
/// Least and greatest such age. An idle ledger seals every 10 s, and three headers may be late; beyond a day a withheld revocation
/// would outlive what any grant may (treating clinicians: one day).
pub const STALENESS_BOUNDS_S: std::ops::RangeInclusive<u64> = 30..=86_400;
/// Longest label, in bytes: a hospital's name.
pub const LABEL_BYTES_MAX: usize = 64;

/// The salt of a device's commitment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Salt(pub [u8; 32]);

impl fmt::Display for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for Salt {
    type Err = SaltError;

    /// Takes hexadecimal text, with or without `0x`.
    fn from_str(s: &str) -> Result<Self, SaltError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(s.strip_prefix("0x").unwrap_or(s), &mut bytes).map_err(|_source| SaltError)?;
        Ok(Self(bytes))
    }
}

/// Not a salt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("salt must be 32 bytes in hexadecimal")]
pub struct SaltError;

impl Serialize for Salt {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Salt {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

/// `[ledger]`: which one, and who seals it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerPin {
    /// The chain's number (EIP-155).
    pub chain_id: u64,
    /// The contract.
    pub contract: Address,
    /// Who seals; 1 to [`VALIDATORS_MAX`], each once.
    pub validators: Vec<Address>,
    /// Age in seconds from which a policy is stale; within [`STALENESS_BOUNDS_S`].
    #[serde(default = "staleness_max_s")]
    pub staleness_max_s: u64,
}

fn staleness_max_s() -> u64 {
    STALENESS_MAX_S
}

/// `[[patient.relationship]]`: a recipient's name for the patient's page, and the keys. The relationship is named by its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolledRelationship {
    /// For the patient's page; 1 to [`LABEL_BYTES_MAX`] bytes without control characters. Stays on the gateway.
    pub label: String,
    /// May grant and revoke; in the patient's wallet. Of this relationship alone.
    pub grant_key: Address,
    /// May revoke only. Of this relationship alone.
    pub revoke_key: Address,
}

impl EnrolledRelationship {
    /// `keccak256(abi.encode(grantKey, revokeKey))`.
    #[must_use]
    pub fn relationship(&self) -> RelationshipId {
        slots::relationship(&self.grant_key, &self.revoke_key)
    }
}

/// `[[patient.device]]`: a device that the patient may bind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolledDevice {
    /// Its id, as in its MQTT topics.
    pub device: DeviceId,
    /// Its address on the sensor network; unicast.
    pub mac: Mac,
    /// Of the commitment, which says nothing without it.
    pub salt: Salt,
    /// Of which class its readings are, where the patient says another than the code table. Part of the commitment, so that no other rules
    /// than those count that the patient signed the device's binding with.
    #[serde(default, skip_serializing_if = "Classes::is_empty")]
    pub classes: Classes,
}

impl EnrolledDevice {
    /// `keccak256(salt ‖ MAC ‖ device id)`, followed by `0 ‖ rules` where there are some.
    #[must_use]
    pub fn commitment(&self) -> Commitment {
        slots::device_commitment(&self.salt.0, &self.mac.0, &self.device, &self.classes)
    }
}

/// `[[patient]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolledPatient {
    /// The pseudonym in segments.
    pub patient: PatientId,
    /// Signs device bindings for this gateway.
    pub home_key: Address,
    /// For break-glass; none where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pseudonym: Option<Pseudonym>,
    /// At most [`GRANTS_MAX`].
    #[serde(default, rename = "relationship", skip_serializing_if = "Vec::is_empty")]
    pub relationships: Vec<EnrolledRelationship>,
    /// At most [`DEVICES_MAX`] in all.
    #[serde(default, rename = "device", skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<EnrolledDevice>,
}

/// The enrolment file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// The ledger.
    pub ledger: LedgerPin,
    /// At most [`PATIENTS_MAX`].
    #[serde(default, rename = "patient", skip_serializing_if = "Vec::is_empty")]
    pub patients: Vec<EnrolledPatient>,
}

impl Enrolment {
    /// The pins, checked.
    ///
    /// # Errors
    /// [`PinError`] names the entry that is wrong.
    pub fn pins(&self) -> Result<Pins, PinError> {
        Pins::new(self)
    }
}

/// Why an enrolment was refused. Paths name keys and indices, so that no pseudonym gets into a log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PinError {
    /// A list longer than its bound, or empty where something must be in it.
    #[error("enrolment at {path}: {len} entries, allowed are {min} to {max}")]
    Count {
        /// Which list.
        path: String,
        /// Its length.
        len: usize,
        /// The fewest.
        min: usize,
        /// The most.
        max: usize,
    },
    /// An id, key, address or name for the second time.
    #[error("enrolment at {path}: an earlier entry has the same")]
    Duplicate {
        /// The second one.
        path: String,
    },
    /// A value that can't be.
    #[error("enrolment at {path}: {problem}")]
    Value {
        /// Which key.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// A relationship of a patient here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedRelationship {
    /// Whose.
    pub patient: PatientId,
    /// For the patient's page.
    pub label: String,
    /// May grant and revoke.
    pub grant_key: Address,
    /// May revoke only.
    pub revoke_key: Address,
}

/// A device that may be bound to a patient here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedDevice {
    /// Whose.
    pub patient: PatientId,
    /// Signs its binding.
    pub home_key: Address,
    /// Its id.
    pub device: DeviceId,
    /// Its address.
    pub mac: Mac,
    /// Of which class its readings are.
    pub classes: Classes,
    /// Its number in the order of the file, from 0.
    pub index: u32,
}

/// Who may sign for what. Invariants: each relationship, device, MAC address, pseudonym and key belongs to one patient, and each
/// key to one relationship; as many relationships, devices and pseudonyms as one delivery connection watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pins {
    /// For which ledger and contract is signed.
    pub domain: Domain,
    /// Who seals.
    pub validators: Vec<Address>,
    /// Age in seconds from which a policy is stale.
    pub staleness_max_s: u64,
    /// By their name.
    pub relationships: BTreeMap<RelationshipId, PinnedRelationship>,
    /// By their commitment.
    pub devices: BTreeMap<Commitment, PinnedDevice>,
    /// Whose.
    pub pseudonyms: BTreeMap<Pseudonym, PatientId>,
    /// Signs for each patient's bindings and erasure here.
    pub home_keys: BTreeMap<PatientId, Address>,
    /// Their places in the file, from 1.
    pub patients: BTreeMap<PatientId, usize>,
}

fn count(path: impl Into<String>, len: usize, min: usize, max: usize) -> Result<(), PinError> {
    if (min..=max).contains(&len) {
        Ok(())
    } else {
        Err(PinError::Count { path: path.into(), len, min, max })
    }
}

fn value(good: bool, path: impl Fn() -> String, problem: &'static str) -> Result<(), PinError> {
    if good { Ok(()) } else { Err(PinError::Value { path: path(), problem }) }
}

/// Everything that must come once.
#[derive(Default)]
struct Seen {
    patients: BTreeSet<PatientId>,
    keys: BTreeSet<Address>,
    pseudonyms: BTreeSet<Pseudonym>,
    devices: BTreeSet<DeviceId>,
    macs: BTreeSet<Mac>,
}

fn once<T: Ord>(seen: &mut BTreeSet<T>, entry: T, path: impl Fn() -> String) -> Result<(), PinError> {
    if seen.insert(entry) { Ok(()) } else { Err(PinError::Duplicate { path: path() }) }
}

impl Pins {
    fn new(file: &Enrolment) -> Result<Self, PinError> {
        let LedgerPin { chain_id, contract, validators, staleness_max_s } = &file.ledger;
        count("ledger.validators", validators.len(), 1, VALIDATORS_MAX)?;
        let mut sealers = BTreeSet::new();
        for (at, validator) in validators.iter().enumerate() {
            once(&mut sealers, *validator, || format!("ledger.validators[{at}]"))?;
        }
        value(
            STALENESS_BOUNDS_S.contains(staleness_max_s),
            || "ledger.staleness_max_s".into(),
            "must be 30 to 86400",
        )?;
        count("patient", file.patients.len(), 0, PATIENTS_MAX)?;
        let mut pins = Self {
            domain: Domain { chain_id: *chain_id, verifying_contract: *contract },
            validators: validators.clone(),
            staleness_max_s: *staleness_max_s,
            relationships: BTreeMap::new(),
            devices: BTreeMap::new(),
            pseudonyms: BTreeMap::new(),
            home_keys: BTreeMap::new(),
            patients: BTreeMap::new(),
        };
        let mut seen = Seen::default();
        for (at, patient) in file.patients.iter().enumerate() {
            pins.patient(at, patient, &mut seen)?;
        }
        count("patient.relationship", pins.relationships.len(), 0, WATCHED_MAX)?;
        count("patient.device", pins.devices.len(), 0, DEVICES_MAX)?;
        Ok(pins)
    }

    fn patient(&mut self, at: usize, entry: &EnrolledPatient, seen: &mut Seen) -> Result<(), PinError> {
        once(&mut seen.patients, entry.patient, || format!("patient[{at}].patient"))?;
        once(&mut seen.keys, entry.home_key, || format!("patient[{at}].home_key"))?;
        count(format!("patient[{at}].relationship"), entry.relationships.len(), 0, GRANTS_MAX)?;
        self.patients.insert(entry.patient, at + 1);
        self.home_keys.insert(entry.patient, entry.home_key);
        if let Some(pseudonym) = entry.pseudonym {
            once(&mut seen.pseudonyms, pseudonym, || format!("patient[{at}].pseudonym"))?;
            self.pseudonyms.insert(pseudonym, entry.patient);
        }
        for (nth, one) in entry.relationships.iter().enumerate() {
            let path = |key| format!("patient[{at}].relationship[{nth}].{key}");
            let label = &one.label;
            let short = (1..=LABEL_BYTES_MAX).contains(&label.len());
            value(
                short && !label.chars().any(char::is_control),
                || path("label"),
                "must be 1 to 64 bytes of text",
            )?;
            once(&mut seen.keys, one.grant_key, || path("grant_key"))?;
            once(&mut seen.keys, one.revoke_key, || path("revoke_key"))?;
            let pin = PinnedRelationship {
                patient: entry.patient,
                label: label.clone(),
                grant_key: one.grant_key,
                revoke_key: one.revoke_key,
            };
            self.relationships.insert(one.relationship(), pin);
        }
        count(format!("patient[{at}].device"), entry.devices.len(), 0, DEVICES_MAX)?;
        for (nth, one) in entry.devices.iter().enumerate() {
            let path = |key| format!("patient[{at}].device[{nth}].{key}");
            value(one.mac.is_unicast(), || path("mac"), "must be a unicast address")?;
            once(&mut seen.devices, one.device.clone(), || path("device"))?;
            once(&mut seen.macs, one.mac, || path("mac"))?;
            let pin = PinnedDevice {
                patient: entry.patient,
                home_key: entry.home_key,
                device: one.device.clone(),
                mac: one.mac,
                classes: one.classes.clone(),
                index: u32::try_from(self.devices.len()).unwrap_or(u32::MAX),
            };
            self.devices.insert(one.commitment(), pin);
        }
        Ok(())
    }

    /// The same without a patient and all that is theirs. The others keep their places, and their devices their numbers.
    #[must_use]
    pub fn without(&self, patient: &PatientId) -> Self {
        let mut pins = self.clone();
        pins.relationships.retain(|_, pin| pin.patient != *patient);
        pins.devices.retain(|_, pin| pin.patient != *patient);
        pins.pseudonyms.retain(|_, of| of != patient);
        pins.home_keys.remove(patient);
        pins.patients.remove(patient);
        pins
    }

    /// What a gateway with these pins watches on the ledger.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch {
            relationships: self.relationships.keys().copied().collect(),
            bindings: self.devices.iter().map(|(id, pin)| slots::binding_key(&pin.home_key, id)).collect(),
            pseudonyms: self.pseudonyms.keys().copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests;
