//! What a patient's wallet does: keep one seed, derive the keys of each relationship from it, and sign.
//!
//! It belongs on the patient's phone or with a named custodian. It is here so that the tests, the demo and evaluation
//! deployments sign exactly as a wallet would. A gateway, a controller or an operator's tool has no business with it.
//!
//! ```text
//! grant key   = keccak256(seed ‖ "caregate grant key"   ‖ grantee ‖ number ‖ try)      of one relationship
//! revoke key  = keccak256(seed ‖ "caregate revoke key"  ‖ grantee ‖ number ‖ try)      of the same
//! home key    = keccak256(seed ‖ "caregate home key"    ‖ length ‖ gateway ‖ try)      towards one gateway
//! salt        = keccak256(home secret ‖ "caregate device salt" ‖ length ‖ gateway ‖ device) of a device's commitment
//! patient     = keccak256(seed ‖ "caregate patient"     ‖ length ‖ gateway), 16 bytes  the pseudonym in segments
//! pseudonym   = keccak256(seed ‖ "caregate pseudonym"   ‖ number)                      for break-glass
//! ```
//! Keccak has no length extension, so a secret prefix makes it a key derivation (as in KMAC, NIST SP 800-185). `try`
//! counts up from 0 until the result is a secp256k1 scalar, which fails once in 2^127. Numbers are 4 bytes, big-endian;
//! `length` is one byte. So the seed restores everything but labels, versions and salts. The ledger knows the versions. Salts come from a
//! random secret of each gateway, so that an erasure can destroy them: where it is gone nobody can say any more of which device a
//! commitment on the ledger was. A wallet that was restored from its seed binds its devices anew.

#[cfg(any(test, feature = "keystore"))]
pub mod keystore;
#[cfg(any(test, feature = "keystore"))]
mod state;

use std::fmt;

use caregate_protocol::command::{Command, SignedCommand};
use caregate_protocol::erasure::SignedOrder;
use caregate_protocol::id::{DeviceId, PatientId, RecipientId};
use caregate_protocol::policy::{
    Commitment, EcdsaSignature, Emergency, Grant, Pseudonym, RelationshipId, Revocation, SignedBinding,
    SignedEmergency, SignedGrant, SignedRevocation,
};
use k256::ecdsa::SigningKey;
use k256::elliptic_curve::Generate;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::verify::{
    Address, Anchor, CouncilChange, Domain, EnrolledRelationship, NextKeys, ParticipantChange, Salt,
    SignedAnchor, address_of, binding_digest, command_digest, custody_digest, emergency_digest,
    erasure_digest, grant_digest, keccak256, objection_digest, participant_key_digest, review_digest,
    revocation_digest, slots,
};

#[cfg(any(test, feature = "keystore"))]
pub use state::{
    Device, ERASED_MAX, ErasedHome, GATEWAY_BYTES_MAX, HOMES_MAX, Home, HomeSecret, Ledger, Relationship,
    Terms, Wallet, WalletError, WalletFormatError,
};

/// Why there is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a secp256k1 secret key: zero, or not below the group order")]
pub struct KeyError;

/// One secp256k1 key of a patient: of one relationship, or towards one gateway. Wiped from memory when dropped.
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

    /// As a home key: nothing of this pseudonym is to stay at its gateway. `made_us` is Unix time in microseconds.
    #[must_use]
    pub fn sign_erasure(&self, patient: PatientId, made_us: i64, domain: &Domain) -> SignedOrder {
        let signature = self.sign(&erasure_digest(&patient, made_us, domain));
        SignedOrder { patient, made_us, signature }
    }

    /// As a relationship's grant key: the next keys take its place.
    #[must_use]
    pub fn sign_rotation(&self, next: &NextKeys, domain: &Domain) -> EcdsaSignature {
        self.sign(&next.rotation_digest(domain))
    }

    /// As a relationship's grant key: says who may recover it.
    #[must_use]
    pub fn sign_custody(
        &self,
        relationship: &RelationshipId,
        custodians: &[u8; 32],
        version: u64,
        domain: &Domain,
    ) -> EcdsaSignature {
        self.sign(&custody_digest(relationship, custodians, version, domain))
    }

    /// As a custodian of a relationship: the next keys take the place of those that were lost.
    #[must_use]
    pub fn sign_recovery(&self, next: &NextKeys, domain: &Domain) -> EcdsaSignature {
        self.sign(&next.recovery_digest(domain))
    }

    /// Signs that a device is the patient's, or is no more, for this ledger; with a home key.
    #[must_use]
    pub fn sign_binding(
        &self,
        commitment: Commitment,
        bound: bool,
        version: u64,
        domain: &Domain,
    ) -> SignedBinding {
        let signature = self.sign(&binding_digest(&commitment, bound, version, domain));
        SignedBinding { commitment, bound, version, signature }
    }

    /// The secret scalar, big-endian: of a revoke-only key, for the gateway that holds it.
    #[must_use]
    pub fn secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes().into())
    }

    fn sign(&self, digest: &[u8; 32]) -> EcdsaSignature {
        sign(&self.0, digest)
    }
}

/// Signs a digest; the one form that the contract and the verifier take.
fn sign(key: &SigningKey, digest: &[u8; 32]) -> EcdsaSignature {
    let (rs, recovery) = key.sign_prehash_recoverable(digest);
    let mut bytes = [0; 65];
    bytes[..64].copy_from_slice(&rs.to_bytes());
    bytes[64] = 27 + u8::from(recovery.is_y_odd());
    EcdsaSignature(bytes)
}

/// The key of a domain that takes part, with which it signs its HPKE key and its emergencies. Wiped from memory when dropped.
#[derive(Clone)]
pub struct DomainKey(SigningKey);

impl fmt::Debug for DomainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DomainKey(…)")
    }
}

impl DomainKey {
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

    /// The secret scalar, big-endian, to be kept.
    #[must_use]
    pub fn secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes().into())
    }

    /// The domain's ledger address, by which patients grant to it.
    #[must_use]
    pub fn id(&self) -> RecipientId {
        RecipientId(address_of(self.0.verifying_key()).0)
    }

    /// Signs the domain's HPKE key for this ledger.
    #[must_use]
    pub fn sign_hpke_key(&self, hpke_public_key: &[u8; 32], version: u64, domain: &Domain) -> EcdsaSignature {
        sign(&self.0, &participant_key_digest(&self.id(), hpke_public_key, version, domain))
    }

    /// As a governor: approves who takes part.
    #[must_use]
    pub fn approve_participant(&self, change: &ParticipantChange, domain: &Domain) -> EcdsaSignature {
        sign(&self.0, &change.digest(domain))
    }

    /// As a governor: approves who governs.
    #[must_use]
    pub fn approve_council(&self, change: &CouncilChange, domain: &Domain) -> EcdsaSignature {
        sign(&self.0, &change.digest(domain))
    }

    /// As a governor: is against a change, which is named by its digest.
    #[must_use]
    pub fn oppose(&self, change: &[u8; 32], domain: &Domain) -> EcdsaSignature {
        sign(&self.0, &objection_digest(change, domain))
    }

    /// As a governor: has looked at an emergency.
    #[must_use]
    pub fn review(&self, whose: &Pseudonym, by: &RecipientId, nth: u64, domain: &Domain) -> EcdsaSignature {
        sign(&self.0, &review_digest(whose, by, nth, domain))
    }

    /// As an audit log's key: signs its next batch; it counts where [`Anchor::log`] is this key's address.
    #[must_use]
    pub fn sign_anchor(&self, anchor: &Anchor, domain: &Domain) -> SignedAnchor {
        SignedAnchor { anchor: *anchor, signature: sign(&self.0, &anchor.digest(domain)) }
    }

    /// Signs an emergency for this ledger; it counts where [`Emergency::domain`] is [`Self::id`].
    #[must_use]
    pub fn sign_emergency(&self, emergency: &Emergency, domain: &Domain) -> SignedEmergency {
        let signature = sign(&self.0, &emergency_digest(emergency, domain));
        SignedEmergency { emergency: emergency.clone(), signature }
    }

    /// Signs what staff do at a gateway's watch; it counts where [`Command::domain`] is [`Self::id`].
    #[must_use]
    pub fn sign_command(&self, command: Command, domain: &Domain) -> SignedCommand {
        let signature = sign(&self.0, &command_digest(&command, domain));
        SignedCommand { command, signature }
    }
}

/// The two keys of a relationship, and so its name.
#[derive(Debug)]
pub struct RelationshipKeys {
    /// Grants and revokes; stays in the wallet.
    pub grant: PatientKey,
    /// Can only revoke; the gateway holds it too, for the button on the patient's page.
    pub revoke: PatientKey,
}

impl RelationshipKeys {
    /// `keccak256(abi.encode(grantKey, revokeKey))`.
    #[must_use]
    pub fn relationship(&self) -> RelationshipId {
        slots::relationship(&self.grant.address(), &self.revoke.address())
    }

    /// What a gateway pins of it.
    #[must_use]
    pub fn enrolled(&self, label: &str) -> EnrolledRelationship {
        EnrolledRelationship {
            label: label.to_owned(),
            grant_key: self.grant.address(),
            revoke_key: self.revoke.address(),
        }
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

    /// The keys towards `grantee`. `number` counts up when a relationship begins anew, after a lost key or a revocation for good.
    ///
    /// # Errors
    /// [`KeyError`], which takes a broken hash.
    pub fn relationship_keys(
        &self,
        grantee: &RecipientId,
        number: u32,
    ) -> Result<RelationshipKeys, KeyError> {
        let number = number.to_be_bytes();
        Ok(RelationshipKeys {
            grant: self.scalar(&[b"caregate grant key", &grantee.0, &number])?,
            revoke: self.scalar(&[b"caregate revoke key", &grantee.0, &number])?,
        })
    }

    /// The keys that take the place of those of [`Self::relationship_keys`]; `version` is 1 for the first that do.
    ///
    /// # Errors
    /// [`KeyError`], which takes a broken hash.
    pub fn next_relationship_keys(
        &self,
        grantee: &RecipientId,
        number: u32,
        version: u64,
    ) -> Result<RelationshipKeys, KeyError> {
        let (number, version) = (number.to_be_bytes(), version.to_be_bytes());
        Ok(RelationshipKeys {
            grant: self.scalar(&[b"caregate next grant key", &grantee.0, &number, &version])?,
            revoke: self.scalar(&[b"caregate next revoke key", &grantee.0, &number, &version])?,
        })
    }

    /// The key that binds devices for one gateway. `gateway` is its name, at most 255 bytes.
    ///
    /// # Errors
    /// [`KeyError`], which takes a broken hash.
    pub fn home_key(&self, gateway: &str) -> Result<PatientKey, KeyError> {
        self.scalar(&[b"caregate home key", &length(gateway), gateway.as_bytes()])
    }

    /// The salt of a device's commitment towards one gateway, as wallets of before had it: of those that know no secret of that gateway.
    #[must_use]
    pub fn device_salt(&self, gateway: &str, device: &DeviceId) -> Salt {
        device_salt(&self.0, gateway, device)
    }

    /// The pseudonym in segments of one gateway.
    #[must_use]
    pub fn patient(&self, gateway: &str) -> PatientId {
        let hash = self.hash(&[b"caregate patient", &length(gateway), gateway.as_bytes()]);
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        PatientId(id)
    }

    /// The pseudonym for break-glass, known to whom the patient gives it. `number` counts up when it is to be another.
    #[must_use]
    pub fn pseudonym(&self, number: u32) -> Pseudonym {
        Pseudonym(self.hash(&[b"caregate pseudonym", &number.to_be_bytes()]))
    }

    fn hash(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut all = vec![self.0.as_slice()];
        all.extend(parts);
        keccak256(&all)
    }

    fn scalar(&self, parts: &[&[u8]]) -> Result<PatientKey, KeyError> {
        (0..=u8::MAX)
            .find_map(|attempt| {
                let mut parts = parts.to_vec();
                let attempt = [attempt];
                parts.push(&attempt);
                PatientKey::from_bytes(&Zeroizing::new(self.hash(&parts))).ok()
            })
            .ok_or(KeyError)
    }
}

/// The salt of a device's commitment towards one gateway, from that gateway's secret.
fn device_salt(secret: &[u8; 32], gateway: &str, device: &DeviceId) -> Salt {
    let (label, device) = (b"caregate device salt", device.as_str().as_bytes());
    Salt(keccak256(&[secret, label, &length(gateway), gateway.as_bytes(), device]))
}

/// Length of a name, as one byte; names are at most 255 bytes long.
fn length(name: &str) -> [u8; 1] {
    [u8::try_from(name.len()).unwrap_or(u8::MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::signer;

    fn text(bytes: &[u8]) -> String {
        hex::encode(bytes)
    }

    #[test]
    fn what_a_wallet_derives_stays_what_it_was() {
        // Made with npm ethers 6: keccak256(concat([seed, toUtf8Bytes(label), …])), computeAddress, AbiCoder.
        let seed = PatientSeed::from_bytes([0x5e; 32]);
        let keys = seed.relationship_keys(&RecipientId([0xb2; 20]), 1).unwrap();
        assert_eq!(text(&keys.grant.address().0), "3a3bc8dc56682740d06b06380ebd32f2dd80f6d8");
        assert_eq!(text(&keys.revoke.address().0), "0c18b6e67922a22554b4e199b7e8e0b3f123ff8b");
        assert_eq!(
            text(&keys.relationship().0),
            "108df8b25853925444a9290ab3f3052fd1709e1b5a5472219415dcec779dfc11"
        );
        assert_eq!(
            text(&seed.home_key("gateway-1").unwrap().address().0),
            "6eb07dd1559623a9ff0d310287ebc9dd8a2e3123"
        );
        assert_eq!(
            text(&seed.device_salt("gateway-1", &DeviceId::new("ecg-1").unwrap()).0),
            "86f38f19b3e374aba540ac056440c9ee3bdb115856ce9fdba1b2e3eaba00922b"
        );
        assert_eq!(text(&seed.patient("gateway-1").0), "f0240624b9ea96bd45b6460d13a17407");
        assert_eq!(
            text(&seed.pseudonym(0).0),
            "c6d38765ec260174b0cc139ce4345f6832b3d98662496ec4c37878080e0b9d4c"
        );
        assert_eq!(keys.enrolled("City").relationship(), keys.relationship());
    }

    #[test]
    fn no_two_relationships_gateways_or_devices_share_a_key() {
        let seed = PatientSeed::generate();
        let mut found = Vec::new();
        for (grantee, number) in [(1, 0), (1, 1), (2, 0)] {
            let keys = seed.relationship_keys(&RecipientId([grantee; 20]), number).unwrap();
            found.extend([keys.grant.address(), keys.revoke.address()]);
        }
        for gateway in ["a", "b", "ab"] {
            found.push(seed.home_key(gateway).unwrap().address());
        }
        found.sort();
        found.dedup();
        assert_eq!(found.len(), 9);
        // A name's end is not another's beginning.
        let device = |name| DeviceId::new(name).unwrap();
        assert_ne!(seed.device_salt("a", &device("bc")).0, seed.device_salt("ab", &device("c")).0);
    }

    #[test]
    fn signatures_are_the_keys_that_made_them() {
        let domain = Domain { chain_id: 4711, verifying_contract: Address([0xc0; 20]) };
        let home = PatientKey::generate();
        let signed = home.sign_binding(Commitment([1; 32]), true, 3, &domain);
        let digest = binding_digest(&Commitment([1; 32]), true, 3, &domain);
        assert_eq!(signer(&digest, &signed.signature), Ok(home.address()));
        let hospital = DomainKey::generate();
        let again = DomainKey::from_bytes(&hospital.secret()).unwrap();
        assert_eq!(again.id(), hospital.id());
        let signature = hospital.sign_hpke_key(&[7; 32], 2, &domain);
        let digest = participant_key_digest(&hospital.id(), &[7; 32], 2, &domain);
        assert_eq!(signer(&digest, &signature), Ok(Address(hospital.id().0)));
        let command = Command {
            patient: PatientId([3; 16]),
            domain: hospital.id(),
            sequence: 1,
            issued_ms: 2,
            expires_ms: 3,
            content: vec![4; 5],
        };
        let signed = hospital.sign_command(command.clone(), &domain);
        assert_eq!(
            signer(&command_digest(&command, &domain), &signed.signature),
            Ok(Address(hospital.id().0))
        );
        let other = Command { content: vec![4; 6], ..command };
        assert_ne!(signer(&command_digest(&other, &domain), &signed.signature), Ok(Address(hospital.id().0)));
        assert_eq!(DomainKey::from_bytes(&[0; 32]).map(|key| key.id()), Err(KeyError));
        assert_eq!(format!("{hospital:?}"), "DomainKey(…)");
    }

    #[test]
    fn what_is_no_scalar_is_refused_and_secrets_are_not_shown() {
        assert_eq!(PatientKey::from_bytes(&[0; 32]).map(|key| key.address()), Err(KeyError));
        assert_eq!(PatientKey::from_bytes(&[0xff; 32]).map(|key| key.address()), Err(KeyError));
        assert_eq!(format!("{:?}", PatientSeed::from_bytes([7; 32])), "PatientSeed(…)");
        assert_eq!(format!("{:?}", PatientKey::generate()), "PatientKey(…)");
    }
}
