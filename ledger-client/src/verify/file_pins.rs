//! The pins of the policy file (ADR 4), which the ledger replaces. Goes with [`super::verify_document`].

use std::collections::{BTreeMap, BTreeSet};

use caregate_protocol::id::PatientId;
use caregate_protocol::policy::{GRANTS_MAX, PATIENTS_MAX, RelationshipId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::address::Address;
use super::eip712::Domain;

/// The keys of one relationship, as the configuration writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelationshipPin {
    /// The relationship's pseudonym.
    pub relationship: RelationshipId,
    /// May grant and revoke; in the patient's wallet.
    pub grant_key: Address,
    /// May revoke only, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke_key: Option<Address>,
}

/// One patient's relationships, as the configuration writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatientPin {
    /// Whose they are.
    pub patient: PatientId,
    /// At most [`GRANTS_MAX`].
    pub relationships: Vec<RelationshipPin>,
}

/// What a gateway's configuration says about consent: for which ledger, and whose keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEnrolment {
    /// The ledger and contract for which patients sign.
    pub domain: Domain,
    /// At most [`PATIENTS_MAX`]; in the file one `[[patient]]` each.
    #[serde(default, rename = "patient")]
    pub patients: Vec<PatientPin>,
}

impl FileEnrolment {
    /// The pins, checked.
    ///
    /// # Errors
    /// [`FilePinError`] as for [`PatientPins::new`].
    pub fn pins(&self) -> Result<PatientPins, FilePinError> {
        PatientPins::new(&self.patients)
    }
}

/// Why pins were refused. Indices name the entry, so that no pseudonym gets into a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FilePinError {
    /// Too many patients.
    #[error("{len} pinned patients, allowed are {PATIENTS_MAX}")]
    TooManyPatients {
        /// How many there are.
        len: usize,
    },
    /// Too many relationships of one patient.
    #[error("pinned patient {patient}: {len} relationships, allowed are {GRANTS_MAX}")]
    TooManyRelationships {
        /// Index of the patient.
        patient: usize,
        /// How many there are.
        len: usize,
    },
    /// A patient for the second time.
    #[error("pinned patient {patient}: an earlier entry pins the same patient")]
    DuplicatePatient {
        /// Index of the second entry.
        patient: usize,
    },
    /// A relationship for the second time, with this or another patient.
    #[error("pinned patient {patient}, relationship {relationship}: pinned earlier already")]
    DuplicateRelationship {
        /// Index of the patient.
        patient: usize,
        /// Index of the second entry in that patient's list.
        relationship: usize,
    },
}

/// Who may sign for which relationship. Invariant: each relationship belongs to one patient.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PatientPins {
    patients: BTreeMap<PatientId, BTreeMap<RelationshipId, RelationshipPin>>,
}

impl PatientPins {
    /// Takes the pins of a configuration.
    ///
    /// # Errors
    /// [`FilePinError`] for a list past its bound, or a patient or relationship that comes twice.
    pub fn new(pins: &[PatientPin]) -> Result<Self, FilePinError> {
        if pins.len() > PATIENTS_MAX {
            return Err(FilePinError::TooManyPatients { len: pins.len() });
        }
        let mut seen = BTreeSet::new();
        let mut patients = BTreeMap::new();
        for (patient, pin) in pins.iter().enumerate() {
            if pin.relationships.len() > GRANTS_MAX {
                return Err(FilePinError::TooManyRelationships { patient, len: pin.relationships.len() });
            }
            if let Some(relationship) =
                pin.relationships.iter().position(|entry| !seen.insert(entry.relationship))
            {
                return Err(FilePinError::DuplicateRelationship { patient, relationship });
            }
            let relationships = pin.relationships.iter().map(|entry| (entry.relationship, *entry)).collect();
            if patients.insert(pin.patient, relationships).is_some() {
                return Err(FilePinError::DuplicatePatient { patient });
            }
        }
        Ok(Self { patients })
    }

    /// The pinned relationships of a patient, if the patient is enrolled here.
    pub(super) fn of(&self, patient: &PatientId) -> Option<&BTreeMap<RelationshipId, RelationshipPin>> {
        self.patients.get(patient)
    }
}
