//! What a patient's wallet does: keep one seed, derive the keys of each relationship from it, and sign.
//!
//! It belongs on the patient's phone or with a named custodian. It is here so that the tests, the demo and evaluation
//! deployments sign exactly as a wallet would. A gateway, a controller or an operator's tool has no business with it.
//!
//! ```text
//! relationship = keccak256(seed ‖ "caregate relationship" ‖ grantee ‖ number)
//! grant key    = keccak256(seed ‖ "caregate grant key"    ‖ relationship ‖ try)
//! revoke key   = keccak256(seed ‖ "caregate revoke key"   ‖ relationship ‖ try)
//! ```
//! Keccak has no length extension, so a secret prefix makes it a key derivation (as in KMAC, NIST SP 800-185). `try`
//! counts up from 0 until the result is a secp256k1 scalar, which fails once in 2^127.

use std::fmt;

use caregate_protocol::id::RecipientId;
use caregate_protocol::policy::{
    EcdsaSignature, Grant, RelationshipId, Revocation, SignedGrant, SignedRevocation,
};
use k256::ecdsa::SigningKey;
use k256::elliptic_curve::Generate;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::verify::{
    Address, Domain, RelationshipPin, address_of, grant_digest, keccak256, revocation_digest,
};

/// Why there is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a secp256k1 secret key: zero, or not below the group order")]
pub struct KeyError;

/// One secp256k1 key of one relationship. Wiped from memory when dropped.
pub struct PatientKey(SigningKey);

impl fmt::Debug for PatientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PatientKey(…)")
    }
}

impl PatientKey {
    /// A new key from the operating system's random source.
    #[must_use]
    pub fn generate() -> Self {
        Self(SigningKey::generate())
    }

    /// Takes a secret scalar, big-endian.
    ///
    /// # Errors
    /// [`KeyError`] unless it is between 1 and the group order − 1.
    pub fn from_bytes(secret: &[u8; 32]) -> Result<Self, KeyError> {
        SigningKey::from_slice(secret).map(Self).map_err(|_source| KeyError)
    }

    /// What a gateway pins.
    #[must_use]
    pub fn address(&self) -> Address {
        address_of(self.0.verifying_key())
    }

    /// Signs a grant for this ledger. The same grant gives the same signature (RFC 6979).
    #[must_use]
    pub fn sign_grant(&self, grant: &Grant, domain: &Domain) -> SignedGrant {
        SignedGrant { grant: grant.clone(), signature: self.sign(&grant_digest(grant, domain)) }
    }

    /// Signs a revocation for this ledger.
    #[must_use]
    pub fn sign_revocation(&self, revocation: &Revocation, domain: &Domain) -> SignedRevocation {
        SignedRevocation {
            revocation: revocation.clone(),
            signature: self.sign(&revocation_digest(revocation, domain)),
        }
    }

    fn sign(&self, digest: &[u8; 32]) -> EcdsaSignature {
        let (rs, recovery) = self.0.sign_prehash_recoverable(digest);
        let mut bytes = [0; 65];
        bytes[..64].copy_from_slice(&rs.to_bytes());
        bytes[64] = 27 + u8::from(recovery.is_y_odd());
        EcdsaSignature(bytes)
    }
}

/// The one secret from which all keys of a patient come. Wiped from memory when dropped.
pub struct PatientSeed(Zeroizing<[u8; 32]>);

impl fmt::Debug for PatientSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PatientSeed(…)")
    }
}

impl PatientSeed {
    /// A new seed from the operating system's random source.
    #[must_use]
    pub fn generate() -> Self {
        Self(Zeroizing::new(SigningKey::generate().to_bytes().into()))
    }

    /// Takes a seed that was kept.
    #[must_use]
    pub fn from_bytes(seed: [u8; 32]) -> Self {
        Self(Zeroizing::new(seed))
    }

    /// The seed, to be kept.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The pseudonym under which this patient deals with `grantee`. `number` counts up when a relationship begins
    /// anew, after a lost key or a revocation for good.
    #[must_use]
    pub fn relationship(&self, grantee: &RecipientId, number: u32) -> RelationshipId {
        RelationshipId(keccak256(&[
            self.0.as_slice(),
            b"caregate relationship",
            &grantee.0,
            &number.to_be_bytes(),
        ]))
    }

    fn key(&self, label: &[u8], relationship: &RelationshipId) -> Result<PatientKey, KeyError> {
        (0..=u8::MAX)
            .find_map(|attempt| {
                let parts = [self.0.as_slice(), label, &relationship.0, &[attempt]];
                PatientKey::from_bytes(&Zeroizing::new(keccak256(&parts))).ok()
            })
            .ok_or(KeyError)
    }

    /// The key that grants and revokes in this relationship.
    ///
    /// # Errors
    /// [`KeyError`], which takes a broken hash.
    pub fn grant_key(&self, relationship: &RelationshipId) -> Result<PatientKey, KeyError> {
        self.key(b"caregate grant key", relationship)
    }

    /// The key that can only revoke in this relationship.
    ///
    /// # Errors
    /// [`KeyError`], which takes a broken hash.
    pub fn revoke_key(&self, relationship: &RelationshipId) -> Result<PatientKey, KeyError> {
        self.key(b"caregate revoke key", relationship)
    }

    /// What a gateway pins for this relationship.
    ///
    /// # Errors
    /// [`KeyError`], which takes a broken hash.
    pub fn pin(&self, relationship: &RelationshipId) -> Result<RelationshipPin, KeyError> {
        Ok(RelationshipPin {
            relationship: *relationship,
            grant_key: self.grant_key(relationship)?.address(),
            revoke_key: Some(self.revoke_key(relationship)?.address()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_keys_again_and_no_two_alike() {
        let seed = PatientSeed::generate();
        let again = PatientSeed::from_bytes(*seed.as_bytes());
        let (near, far) = (RecipientId([1; 20]), RecipientId([2; 20]));
        let relationship = seed.relationship(&near, 0);
        assert_eq!(again.relationship(&near, 0), relationship);
        assert_eq!(again.pin(&relationship), seed.pin(&relationship));
        let others = [
            seed.relationship(&near, 1),
            seed.relationship(&far, 0),
            PatientSeed::generate().relationship(&near, 0),
        ];
        assert!(!others.contains(&relationship));
        let mut addresses = Vec::new();
        for one in others.into_iter().chain([relationship]) {
            let pin = seed.pin(&one).expect("keys");
            addresses.extend([Some(pin.grant_key), pin.revoke_key]);
        }
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 8);
    }

    #[test]
    fn derivation_stays_what_it_was() {
        // Made with npm ethers 6.17.0: keccak256(concat([seed, toUtf8Bytes(label), …])), computeAddress.
        let seed = PatientSeed::from_bytes([0x5e; 32]);
        let relationship = seed.relationship(&RecipientId([0xb2; 20]), 1);
        assert_eq!(
            relationship.to_string(),
            "0x2c3f2e095fbe9033b0ed1125538d88cbcee7dce2fcfba6d54d9eb3bfc8170787"
        );
        let pin = seed.pin(&relationship).expect("keys");
        assert_eq!(pin.grant_key, "0x06C42A0a8aa50429c5146a0244fE04e73f1cb51f".parse().expect("an address"));
        assert_eq!(
            pin.revoke_key,
            Some("0xEcc9c36463401131aad3C5745F83a8ecd1aaCE22".parse().expect("an address"))
        );
    }

    #[test]
    fn what_is_no_scalar_is_refused_and_secrets_are_not_shown() {
        assert_eq!(PatientKey::from_bytes(&[0; 32]).map(|key| key.address()), Err(KeyError));
        assert_eq!(PatientKey::from_bytes(&[0xff; 32]).map(|key| key.address()), Err(KeyError));
        assert_eq!(format!("{:?}", PatientSeed::from_bytes([7; 32])), "PatientSeed(…)");
        assert_eq!(format!("{:?}", PatientKey::generate()), "PatientKey(…)");
    }
}
