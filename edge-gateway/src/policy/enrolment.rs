//! The gateway's files that name an erased patient: the enrolment, with the salts of device commitments, and the revoke-only keys. Both are
//! written by wallets; here a patient is only ever taken out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use caregate_host::config;
use caregate_host::key_file;
use caregate_protocol::id::PatientId;
use ledger_client::revoke::RevokeKeyFile;
use ledger_client::verify::Enrolment;
use thiserror::Error;
use zeroize::Zeroizing;

/// Where they are.
#[derive(Debug, Clone)]
pub struct EnrolmentFiles {
    /// `policy.enrolment`.
    pub enrolment: PathBuf,
    /// `local.revoke_keys`.
    pub revoke_keys: Option<PathBuf>,
}

/// Why a patient is in them still.
#[derive(Debug, Error)]
pub enum UnenrolError {
    /// It can't be read.
    #[error(transparent)]
    Read(#[from] config::ConfigError),
    /// It can't be read or replaced: where the gateway may not write, the operator takes the patient out.
    #[error(transparent)]
    File(#[from] key_file::KeyFileError),
    /// It can't be put in words.
    #[error("{path}: {source}", path = .path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// Why.
        source: toml::ser::Error,
    },
}

fn put<T: serde::Serialize>(path: &Path, value: &T) -> Result<(), UnenrolError> {
    let text =
        toml::to_string(value).map_err(|source| UnenrolError::Text { path: path.to_owned(), source })?;
    Ok(key_file::replace_wiping(path, Zeroizing::new(text).as_bytes())?)
}

impl EnrolmentFiles {
    /// Takes a patient out, and overwrites what the files held; nothing where the patient is not there. What runs has forgotten them
    /// before ([`super::Decider::erase`]).
    ///
    /// # Errors
    /// [`UnenrolError`]; again, it goes on where it ended.
    pub fn unenrol(&self, patient: PatientId) -> Result<(), UnenrolError> {
        let mut enrolment: Enrolment = config::load(&self.enrolment)?;
        let mut patients = enrolment.patients.iter();
        let Some(known) = patients.find(|known| known.patient == patient) else { return Ok(()) };
        // Keys first: the enrolment says whose they are.
        if let Some(path) = &self.revoke_keys {
            let whose: BTreeSet<_> = known.relationships.iter().map(|known| known.grant_key).collect();
            let mut file: RevokeKeyFile = config::load(path)?;
            let before = file.keys.len();
            file.keys.retain(|key| !whose.contains(&key.grant_key));
            if file.keys.len() < before {
                put(path, &file)?;
            }
        }
        enrolment.patients.retain(|known| known.patient != patient);
        put(&self.enrolment, &enrolment)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use caregate_host::key_file::Existing;
    use ledger_client::fixture::Site;
    use ledger_client::revoke::{RevokeKeyEntry, RevokeSecret};

    use super::*;

    #[test]
    fn a_patient_is_taken_out_with_salts_and_keys_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (path, keys) = (dir.path().join("enrolment.toml"), dir.path().join("revoke.toml"));
        let site = Site::new(4);
        let mut enrolment = site.enrolment;
        let gone = enrolment.patients[0].clone();
        let mut other = gone.clone();
        (other.patient, other.relationships, other.devices) = (PatientId([9; 16]), Vec::new(), Vec::new());
        (other.pseudonym, other.home_key.0[0]) = (None, other.home_key.0[0] ^ 1);
        enrolment.patients.push(other.clone());
        key_file::write_public(&path, toml::to_string(&enrolment).unwrap().as_bytes(), Existing::Keep)
            .unwrap();
        let entry = |grant_key| RevokeKeyEntry { grant_key, secret: RevokeSecret::from_bytes([7; 32]) };
        let file =
            RevokeKeyFile { keys: vec![entry(gone.relationships[0].grant_key), entry(other.home_key)] };
        key_file::write(&keys, toml::to_string(&file).unwrap().as_bytes(), Existing::Keep).unwrap();
        let files = EnrolmentFiles { enrolment: path.clone(), revoke_keys: Some(keys.clone()) };
        for _ in 0..2 {
            files.unenrol(gone.patient).unwrap();
            let left: Enrolment = config::load(&path).unwrap();
            assert_eq!(left.patients, [other.clone()]);
            assert_eq!(config::load::<RevokeKeyFile>(&keys).unwrap().keys, [entry(other.home_key)]);
        }
        let salt = hex::encode(gone.devices[0].salt.0);
        assert!(!fs::read_to_string(&path).unwrap().contains(&salt));
        fs::remove_file(&path).unwrap();
        assert!(files.unenrol(gone.patient).unwrap_err().to_string().contains("enrolment.toml"));
    }
}
