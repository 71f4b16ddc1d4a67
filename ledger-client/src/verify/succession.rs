//! Keys of a relationship after the ones that were pinned: each link signed by the one before, or by custodians whom one of those before
//! had named (EIP-712).
//!
//! ```text
//! KeyRotation(bytes32 relationship,address grantKey,address revokeKey,uint64 version)     by the grant key so far
//! Custody(bytes32 relationship,bytes32 custodians,uint64 version)                         by the grant key of its time
//! KeyRecovery(bytes32 relationship,address grantKey,address revokeKey,uint64 version)     by `threshold` custodians
//! custodians = keccak256(abi.encode(threshold, delayS, salt, keccak256(key, one word ‖ …)))
//! ```
//! The links say whose word it is; that the last one is the ledger's is proven by its slot, as with everything else. So a key that was
//! stolen after it was replaced makes no link that counts.

use std::collections::BTreeMap;

use caregate_protocol::policy::{
    Claims, CustodianWord, RelationshipId, SUCCESSIONS_MAX, Succession, SuccessionAuthority,
};

use super::address::Address;
use super::eip712::{Domain, Word, address, keccak256, number, struct_hash};
use super::pins::Pins;
use super::refusal::{BundleRefusal, ClaimPath, SignerError};
use super::signature::signer;

const ROTATION_TYPE: &str =
    "KeyRotation(bytes32 relationship,address grantKey,address revokeKey,uint64 version)";
const CUSTODY_TYPE: &str = "Custody(bytes32 relationship,bytes32 custodians,uint64 version)";
const RECOVERY_TYPE: &str =
    "KeyRecovery(bytes32 relationship,address grantKey,address revokeKey,uint64 version)";

/// Keys that follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextKeys {
    /// Whose.
    pub relationship: RelationshipId,
    /// May grant from then on.
    pub grant_key: Address,
    /// May revoke from then on.
    pub revoke_key: Address,
    /// 1 for the first, then rising by one.
    pub version: u64,
}

impl NextKeys {
    fn digest(&self, type_text: &str, domain: &Domain) -> [u8; 32] {
        let words = [
            self.relationship.0,
            address(&self.grant_key.0),
            address(&self.revoke_key.0),
            number(self.version),
        ];
        domain.digest(&struct_hash(type_text, &words))
    }

    /// The 32 bytes that the grant key so far signs.
    #[must_use]
    pub fn rotation_digest(&self, domain: &Domain) -> [u8; 32] {
        self.digest(ROTATION_TYPE, domain)
    }

    /// The 32 bytes that custodians sign.
    #[must_use]
    pub fn recovery_digest(&self, domain: &Domain) -> [u8; 32] {
        self.digest(RECOVERY_TYPE, domain)
    }
}

/// The commitment to custodians.
#[must_use]
pub fn custodians_commitment(threshold: u8, delay_s: u64, salt: &[u8; 32], keys: &[Address]) -> [u8; 32] {
    let keys: Vec<Word> = keys.iter().map(|key| address(&key.0)).collect();
    keccak256(&[&number(threshold.into()), &number(delay_s), salt, &keccak256(&[keys.as_flattened()])])
}

/// The 32 bytes that a grant key signs that names custodians.
#[must_use]
pub fn custody_digest(
    relationship: &RelationshipId,
    custodians: &[u8; 32],
    version: u64,
    domain: &Domain,
) -> [u8; 32] {
    domain.digest(&struct_hash(CUSTODY_TYPE, &[relationship.0, *custodians, number(version)]))
}

/// The newest keys of relationships that have handed on, as a verified bundle shows them: who signs revocations that are handed over
/// alone, beside those who were pinned. The contract takes these and the first ones, and none in between.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewestKeys(BTreeMap<RelationshipId, (Address, Address)>);

impl NewestKeys {
    /// Grant key and revoke-only key.
    pub(super) fn of(&self, relationship: &RelationshipId) -> Option<(Address, Address)> {
        self.0.get(relationship).copied()
    }

    /// Forgets those of other relationships than these.
    pub fn retain(&mut self, is_pinned: impl Fn(&RelationshipId) -> bool) {
        self.0.retain(|relationship, _| is_pinned(relationship));
    }
}

/// The keys that each relationship has had, the pinned ones first.
pub(super) struct Keys(BTreeMap<RelationshipId, Vec<(Address, Address)>>);

impl Keys {
    /// Follows the claims from the pins. What is not pinned has no keys to follow from; the pins' check refuses it.
    pub(super) fn follow(claims: &Claims, pins: &Pins) -> Result<Self, BundleRefusal> {
        let mut keys = Self(BTreeMap::new());
        for (nth, claim) in claims.successions.iter().enumerate() {
            let path = ClaimPath { list: "successions", index: Some(nth) };
            let Some(pin) = pins.relationships.get(&claim.relationship) else { continue };
            let chain =
                keys.0.entry(claim.relationship).or_insert_with(|| vec![(pin.grant_key, pin.revoke_key)]);
            if claim.version != chain.len() as u64 || chain.len() > SUCCESSIONS_MAX {
                return Err(BundleRefusal::SuccessionOrder(path));
            }
            link(claim, chain, &pins.domain)
                .map_err(|source| BundleRefusal::SuccessionSignature { path, source })?;
            chain.push((Address(claim.grant_key), Address(claim.revoke_key)));
        }
        Ok(keys)
    }

    /// The last of each.
    pub(super) fn newest(&self) -> NewestKeys {
        NewestKeys(self.0.iter().filter_map(|(id, chain)| Some((*id, *chain.last()?))).collect())
    }

    /// Who may have signed a relationship's grants: the contract took each from the key of its time.
    pub(super) fn granting(&self, relationship: &RelationshipId, pinned: &Address) -> Vec<Address> {
        match self.0.get(relationship) {
            Some(chain) => chain.iter().map(|(grant, _)| *grant).collect(),
            None => vec![*pinned],
        }
    }

    /// Who may have signed its revocations.
    pub(super) fn revoking(&self, relationship: &RelationshipId, pinned: [&Address; 2]) -> Vec<Address> {
        match self.0.get(relationship) {
            Some(chain) => chain.iter().flat_map(|(grant, revoke)| [*grant, *revoke]).collect(),
            None => pinned.map(|key| *key).to_vec(),
        }
    }
}

fn link(claim: &Succession, chain: &[(Address, Address)], domain: &Domain) -> Result<(), SignerError> {
    let next = NextKeys {
        relationship: claim.relationship,
        grant_key: Address(claim.grant_key),
        revoke_key: Address(claim.revoke_key),
        version: claim.version,
    };
    match &claim.by {
        SuccessionAuthority::GrantKey(signature) => {
            let by = signer(&next.rotation_digest(domain), signature)?;
            let is_newest = chain.last().is_some_and(|(grant, _)| *grant == by);
            if is_newest { Ok(()) } else { Err(SignerError::Other) }
        }
        SuccessionAuthority::Custodians(word) => custodians(&next, word, chain, domain),
    }
}

fn custodians(
    next: &NextKeys,
    word: &CustodianWord,
    chain: &[(Address, Address)],
    domain: &Domain,
) -> Result<(), SignerError> {
    let keys: Vec<_> = word.keys.iter().copied().map(Address).collect();
    let commitment = custodians_commitment(word.threshold, word.delay_s, &word.salt, &keys);
    let digest = custody_digest(&next.relationship, &commitment, word.custody_version, domain);
    let by = signer(&digest, &word.custody_signature)?;
    let is_named = chain.iter().any(|(grant, _)| *grant == by);
    // Rising, so that nobody counts twice.
    let are_distinct = keys.windows(2).all(|two| two[0] < two[1]);
    if !is_named || !are_distinct || word.signatures.len() != keys.len() || word.threshold == 0 {
        return Err(SignerError::Other);
    }
    let digest = next.recovery_digest(domain);
    let mut good = 0;
    for (key, signature) in keys.iter().zip(&word.signatures) {
        let Some(signature) = signature else { continue };
        if signer(&digest, signature)? != *key {
            return Err(SignerError::Other);
        }
        good += 1;
    }
    if good >= usize::from(word.threshold) { Ok(()) } else { Err(SignerError::Other) }
}

#[cfg(test)]
mod tests;
