//! Revocation without the wallet: what the button on the patient's page signs with (feature `revoke`).
//!
//! A gateway may hold a relationship's revoke-only key. That key ends grants and makes none; what signs a grant is in
//! `wallet`, behind a feature that no gateway turns on. The file is written when the patient is enrolled, and read by the gateway:
//!
//! ```toml
//! [[key]]
//! grant_key = "0x…"     # the address of the relationship's grant key: with the address of `secret` it names the relationship
//! secret = "…"          # the revoke-only key, 32 bytes
//! ```

use std::collections::BTreeMap;
use std::fmt;

use caregate_protocol::policy::{
    EcdsaSignature, GRANTS_MAX, PATIENTS_MAX, RelationshipId, Revocation, SignedRevocation,
};
use k256::ecdsa::SigningKey;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroize;

use crate::verify::slots;
use crate::verify::{Address, Domain, address_of, revocation_digest};

/// Most keys of one file: one for each relationship that a gateway may pin.
pub const REVOKE_KEYS_MAX: usize = PATIENTS_MAX * GRANTS_MAX;

/// Why a file of revoke-only keys was refused. Numbers name the entry, so that no key gets into a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RevokeKeyError {
    /// Too many entries.
    #[error("{len} revoke-only keys, allowed are {REVOKE_KEYS_MAX}")]
    TooMany {
        /// How many there are.
        len: usize,
    },
    /// Zero, or not below the group order.
    #[error("key[{at}].secret: not a secp256k1 secret key")]
    Secret {
        /// Index of the entry.
        at: usize,
    },
    /// A relationship for the second time.
    #[error("key[{at}]: an earlier entry is of the same relationship")]
    Duplicate {
        /// Index of the second entry.
        at: usize,
    },
}

/// A secret scalar as the file has it: 32 bytes in hexadecimal. Wiped when dropped, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct RevokeSecret([u8; 32]);

impl Drop for RevokeSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl RevokeSecret {
    /// Takes a secret scalar, big-endian.
    #[must_use]
    pub fn from_bytes(secret: [u8; 32]) -> Self {
        Self(secret)
    }
}

impl fmt::Debug for RevokeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RevokeSecret(…)")
    }
}

impl Serialize for RevokeSecret {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut text = hex::encode(self.0);
        let written = s.serialize_str(&text);
        text.zeroize();
        written
    }
}

impl<'de> Deserialize<'de> for RevokeSecret {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut text = String::deserialize(d)?;
        let mut secret = Self([0; 32]);
        let read = hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(&text), &mut secret.0);
        text.zeroize();
        // The error says nothing of the text.
        read.map(|()| secret).map_err(|_source| serde::de::Error::custom("must be 32 bytes in hexadecimal"))
    }
}

/// One relationship's revoke-only key, as the file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeKeyEntry {
    /// The address of the relationship's grant key.
    pub grant_key: Address,
    /// The revoke-only key.
    pub secret: RevokeSecret,
}

/// The file: TOML, mode 0600.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeKeyFile {
    /// At most [`REVOKE_KEYS_MAX`], each relationship once; in the file one `[[key]]` each.
    #[serde(default, rename = "key")]
    pub keys: Vec<RevokeKeyEntry>,
}

/// Revoke-only keys by relationship. Wiped from memory when dropped.
#[derive(Default)]
pub struct RevokeKeys(BTreeMap<RelationshipId, SigningKey>);

impl fmt::Debug for RevokeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RevokeKeys({})", self.0.len())
    }
}

impl RevokeKeys {
    /// Takes a file's keys.
    ///
    /// # Errors
    /// [`RevokeKeyError`] names the entry that is wrong.
    pub fn new(file: &RevokeKeyFile) -> Result<Self, RevokeKeyError> {
        let len = file.keys.len();
        if len > REVOKE_KEYS_MAX {
            return Err(RevokeKeyError::TooMany { len });
        }
        let mut keys = BTreeMap::new();
        for (at, entry) in file.keys.iter().enumerate() {
            let key =
                SigningKey::from_slice(&entry.secret.0).map_err(|_source| RevokeKeyError::Secret { at })?;
            let relationship = slots::relationship(&entry.grant_key, &address_of(key.verifying_key()));
            if keys.insert(relationship, key).is_some() {
                return Err(RevokeKeyError::Duplicate { at });
            }
        }
        Ok(Self(keys))
    }

    /// Whether this relationship can be revoked with a key held here.
    #[must_use]
    pub fn holds(&self, relationship: &RelationshipId) -> bool {
        self.0.contains_key(relationship)
    }

    /// Forgets the keys of other relationships than these, wiped.
    pub fn retain(&mut self, is_pinned: impl Fn(&RelationshipId) -> bool) {
        self.0.retain(|relationship, _| is_pinned(relationship));
    }

    /// Signs a revocation for this ledger; none where no key of its relationship is held here. The same revocation gives
    /// the same signature (RFC 6979).
    #[must_use]
    pub fn sign(&self, revocation: &Revocation, domain: &Domain) -> Option<SignedRevocation> {
        let key = self.0.get(&revocation.relationship)?;
        let (rs, recovery) = key.sign_prehash_recoverable(&revocation_digest(revocation, domain));
        let mut bytes = [0; 65];
        bytes[..64].copy_from_slice(&rs.to_bytes());
        bytes[64] = 27 + u8::from(recovery.is_y_odd());
        Some(SignedRevocation { revocation: revocation.clone(), signature: EcdsaSignature(bytes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::signer;
    use crate::wallet::PatientKey;

    const DOMAIN: Domain = Domain { chain_id: 4711, verifying_contract: Address([0xc0; 20]) };

    fn entry(grant: u8, revoke: u8) -> RevokeKeyEntry {
        RevokeKeyEntry {
            grant_key: PatientKey::from_bytes(&[grant; 32]).unwrap().address(),
            secret: RevokeSecret::from_bytes([revoke; 32]),
        }
    }

    #[test]
    fn what_it_signs_is_the_revoke_keys() {
        let keys = RevokeKeys::new(&RevokeKeyFile { keys: vec![entry(1, 2), entry(3, 4)] }).unwrap();
        let revoke_key = PatientKey::from_bytes(&[2; 32]).unwrap().address();
        let relationship = slots::relationship(&entry(1, 2).grant_key, &revoke_key);
        let revocation = Revocation { relationship, version: 9 };
        assert!(keys.holds(&relationship));
        let signed = keys.sign(&revocation, &DOMAIN).unwrap();
        assert_eq!(signer(&revocation_digest(&revocation, &DOMAIN), &signed.signature), Ok(revoke_key));
        assert_eq!(signed, PatientKey::from_bytes(&[2; 32]).unwrap().sign_revocation(&revocation, &DOMAIN));
        let stranger = Revocation { relationship: RelationshipId([7; 32]), version: 9 };
        assert_eq!((keys.holds(&stranger.relationship), keys.sign(&stranger, &DOMAIN)), (false, None));
    }

    #[test]
    fn the_file_is_read_as_it_was_written() {
        let file = RevokeKeyFile { keys: vec![entry(1, 2), entry(3, 4)] };
        let text = toml::to_string(&file).unwrap();
        assert!(text.contains("[[key]]"), "{text}");
        assert_eq!(toml::from_str::<RevokeKeyFile>(&text).unwrap(), file);
        assert_eq!(toml::from_str::<RevokeKeyFile>("").unwrap(), RevokeKeyFile::default());
    }

    #[test]
    fn a_wrong_entry_is_named_and_secrets_are_not() {
        let wrong = |keys| RevokeKeys::new(&RevokeKeyFile { keys }).unwrap_err();
        assert_eq!(wrong(vec![entry(1, 2), entry(1, 0)]), RevokeKeyError::Secret { at: 1 });
        assert_eq!(wrong(vec![entry(1, 0xff)]), RevokeKeyError::Secret { at: 0 });
        assert_eq!(wrong(vec![entry(1, 2), entry(1, 2)]), RevokeKeyError::Duplicate { at: 1 });
        let text = "[[key]]\ngrant_key = '0x0000000000000000000000000000000000000001'\nsecret = '5ec7e7'\n";
        let error = toml::from_str::<RevokeKeyFile>(text).unwrap_err();
        assert_eq!(error.message(), "must be 32 bytes in hexadecimal");
        assert_eq!(format!("{:?}", entry(1, 2).secret), "RevokeSecret(…)");
    }
}
