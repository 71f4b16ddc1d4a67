//! The policy document: JSON, bounded, every key known.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::grant::{SignedGrant, SignedRevocation, hex_bytes};
use crate::id::{DeviceId, PatientId, RecipientId};

/// The format that this release reads and writes.
pub const POLICY_VERSION: u32 = 1;
/// Largest document: a ward of 256 patients with seven grants each (560 bytes per grant, indented). It bounds the
/// signature checks to some 2,600.
pub const DOCUMENT_BYTES_MAX: usize = 1 << 20;
/// Most patients of one gateway: a large ward; a home has one or two.
pub const PATIENTS_MAX: usize = 256;
/// Most grants of one patient: more hospital domains than any patient deals with.
pub const GRANTS_MAX: usize = 64;
/// Most revocations of one patient: one for each grant.
pub const REVOCATIONS_MAX: usize = GRANTS_MAX;
/// Most recipients: each takes one wrap per class and minute, and a region has fewer hospital domains.
pub const RECIPIENTS_MAX: usize = 256;
/// Most device bindings: four sensors on each of [`PATIENTS_MAX`] patients.
pub const DEVICES_MAX: usize = 1024;

/// Whether a recipient takes part at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecipientStatus {
    /// It receives what patients grant to it.
    Active,
    /// It receives nothing, whatever patients granted.
    Suspended,
}

/// What a recipient is to its patients; it decides how long a grant may outlive a fresh policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecipientKind {
    /// Clinicians who treat: a grant goes on as far as its own stale bound, at most a day.
    Treating,
    /// All others: with a stale policy they get nothing.
    Other,
}

/// One hospital domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipientEntry {
    /// Its ledger address.
    pub id: RecipientId,
    /// Its X25519 public key, to which epoch keys are wrapped (RFC 9180, DHKEM(X25519, HKDF-SHA256)).
    #[serde(with = "hex_bytes")]
    pub hpke_public_key: [u8; 32],
    /// Whether it takes part.
    pub status: RecipientStatus,
    /// What it is to its patients.
    pub kind: RecipientKind,
}

/// What one patient signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatientPolicy {
    /// Whose grants these are.
    pub patient: PatientId,
    /// In any order, several versions of a relationship allowed; at most [`GRANTS_MAX`].
    pub grants: Vec<SignedGrant>,
    /// At most [`REVOCATIONS_MAX`].
    pub revocations: Vec<SignedRevocation>,
}

/// Which patient wears a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceBinding {
    /// The device.
    pub device: DeviceId,
    /// Who wears it; one of the document's patients.
    pub patient: PatientId,
}

/// All that a gateway acts on, before any signature has been checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyDocument {
    /// [`POLICY_VERSION`].
    pub version: u32,
    /// The policy epoch: rises with each change, never goes back.
    pub epoch: u64,
    /// Unix time in seconds at which this was the policy: the file's last edit, or the ledger header's time.
    pub as_of: u64,
    /// At most [`RECIPIENTS_MAX`], each id once.
    pub recipients: Vec<RecipientEntry>,
    /// At most [`PATIENTS_MAX`], each patient once.
    pub patients: Vec<PatientPolicy>,
    /// At most [`DEVICES_MAX`], each device once.
    pub devices: Vec<DeviceBinding>,
}

/// Why a policy document was refused as a whole. Paths name keys and indices, never a pseudonym.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// Larger than [`DOCUMENT_BYTES_MAX`].
    #[error("policy has {len} bytes, allowed are {DOCUMENT_BYTES_MAX}")]
    TooLarge {
        /// Its size in bytes.
        len: usize,
    },
    /// Not the JSON of a policy document.
    #[error("policy at {path}: {source}")]
    Json {
        /// Where, as `patients[0].grants[2].grant.until`; `.` is the document itself.
        path: String,
        /// What was wrong, with line and column.
        source: serde_json::Error,
    },
    /// Another format version.
    #[error("policy at version: {version} is not {POLICY_VERSION}, the format that this release reads")]
    Version {
        /// The version that it states.
        version: u32,
    },
    /// A list longer than its bound.
    #[error("policy at {path}: {len} entries, allowed are {max}")]
    TooMany {
        /// Which list.
        path: String,
        /// Its length.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// The same id for the second time.
    #[error("policy at {path}: an earlier entry has the same id")]
    Duplicate {
        /// The second entry's id.
        path: String,
    },
    /// A device of a patient that the document doesn't list.
    #[error("policy at {path}: no such patient in `patients`")]
    UnknownPatient {
        /// The device binding's key.
        path: String,
    },
    /// A key of zeroes, which every HPKE implementation refuses (RFC 9180 §7.1.4).
    #[error("policy at {path}: a key of zeroes is no key")]
    ZeroKey {
        /// The recipient's key.
        path: String,
    },
}

impl PolicyError {
    /// A short name for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::Json { .. } => "json",
            Self::Version { .. } => "version",
            Self::TooMany { .. } => "too_many",
            Self::Duplicate { .. } => "duplicate",
            Self::UnknownPatient { .. } => "unknown_patient",
            Self::ZeroKey { .. } => "zero_key",
        }
    }
}

fn check_count(path: impl Into<String>, len: usize, max: usize) -> Result<(), PolicyError> {
    if len > max { Err(PolicyError::TooMany { path: path.into(), len, max }) } else { Ok(()) }
}

fn check_unique<T: Ord>(ids: impl Iterator<Item = T>, list: &str, key: &str) -> Result<(), PolicyError> {
    let mut seen = BTreeSet::new();
    for (at, id) in ids.enumerate() {
        if !seen.insert(id) {
            return Err(PolicyError::Duplicate { path: format!("{list}[{at}].{key}") });
        }
    }
    Ok(())
}

impl PolicyDocument {
    /// Reads a document of at most [`DOCUMENT_BYTES_MAX`] bytes of JSON. Signatures are not looked at.
    ///
    /// # Errors
    /// [`PolicyError`] names the key and what is wrong with it.
    pub fn decode(json: &[u8]) -> Result<Self, PolicyError> {
        if json.len() > DOCUMENT_BYTES_MAX {
            return Err(PolicyError::TooLarge { len: json.len() });
        }
        let mut reader = serde_json::Deserializer::from_slice(json);
        let document: Self = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            PolicyError::Json { path: error.path().to_string(), source: error.into_inner() }
        })?;
        reader.end().map_err(|source| PolicyError::Json { path: ".".into(), source })?;
        document.check()?;
        Ok(document)
    }

    /// The document as indented JSON with a final newline. What [`Self::decode`] would refuse is not written.
    ///
    /// # Errors
    /// [`PolicyError`] as for [`Self::decode`].
    pub fn encode(&self) -> Result<Vec<u8>, PolicyError> {
        self.check()?;
        let mut json = serde_json::to_vec_pretty(self)
            .map_err(|source| PolicyError::Json { path: ".".into(), source })?;
        json.push(b'\n');
        if json.len() > DOCUMENT_BYTES_MAX {
            return Err(PolicyError::TooLarge { len: json.len() });
        }
        Ok(json)
    }

    fn check(&self) -> Result<(), PolicyError> {
        if self.version != POLICY_VERSION {
            return Err(PolicyError::Version { version: self.version });
        }
        check_count("recipients", self.recipients.len(), RECIPIENTS_MAX)?;
        check_count("patients", self.patients.len(), PATIENTS_MAX)?;
        check_count("devices", self.devices.len(), DEVICES_MAX)?;
        for (at, patient) in self.patients.iter().enumerate() {
            check_count(format!("patients[{at}].grants"), patient.grants.len(), GRANTS_MAX)?;
            check_count(format!("patients[{at}].revocations"), patient.revocations.len(), REVOCATIONS_MAX)?;
        }
        check_unique(self.recipients.iter().map(|entry| entry.id), "recipients", "id")?;
        check_unique(self.patients.iter().map(|entry| entry.patient), "patients", "patient")?;
        check_unique(self.devices.iter().map(|entry| &entry.device), "devices", "device")?;
        if let Some(at) = self.recipients.iter().position(|entry| entry.hpke_public_key == [0; 32]) {
            return Err(PolicyError::ZeroKey { path: format!("recipients[{at}].hpke_public_key") });
        }
        let patients: BTreeSet<_> = self.patients.iter().map(|entry| entry.patient).collect();
        match self.devices.iter().position(|binding| !patients.contains(&binding.patient)) {
            Some(at) => Err(PolicyError::UnknownPatient { path: format!("devices[{at}].patient") }),
            None => Ok(()),
        }
    }
}
