//! Keys that follow others: what the events say of them, and the transactions.

use alloy::primitives::{B256, Bytes};
use caregate_protocol::policy::{
    CustodianWord, EcdsaSignature, RelationshipId, Succession, SuccessionAuthority,
};
use ledger_client::verify::{Address, NextKeys, custodians_commitment};

use crate::client::Chain;
use crate::contract::Caregate;
use crate::convert::{address, bytes, signature, word20};
use crate::error::ChainError;
use crate::send::{Mined, RelayKey, SendError};

/// The patient's word on who may recover a relationship.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCustody {
    /// Whose.
    pub relationship: RelationshipId,
    /// Commitment to them.
    pub custodians: [u8; 32],
    /// Rises with each change.
    pub version: u64,
    /// By the grant key of its time.
    pub signature: EcdsaSignature,
}

/// Who may recover a relationship; opens the commitment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Custodians {
    /// How many of them it takes.
    pub threshold: u8,
    /// Seconds in which the patient can stop it.
    pub delay_s: u64,
    /// Of the commitment.
    pub salt: [u8; 32],
    /// Rising; 8 at most.
    pub keys: Vec<Address>,
}

impl Custodians {
    /// What the patient signs.
    #[must_use]
    pub fn commitment(&self) -> [u8; 32] {
        custodians_commitment(self.threshold, self.delay_s, &self.salt, &self.keys)
    }
}

/// Custodians ask for other keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Which.
    pub next: NextKeys,
    /// Who they are.
    pub custodians: Custodians,
    /// As many as keys; none where it is missing.
    pub signatures: Vec<Option<EcdsaSignature>>,
    /// Unix time from which they may have them.
    pub ready_at: u64,
}

impl Recovery {
    /// What a bundle says of it once it is done, beside the custody that named the custodians; none where it named others.
    pub(crate) fn succession(&self, custody: &SignedCustody) -> Option<Succession> {
        (self.custodians.commitment() == custody.custodians).then(|| Succession {
            relationship: self.next.relationship,
            grant_key: self.next.grant_key.0,
            revoke_key: self.next.revoke_key.0,
            version: self.next.version,
            by: SuccessionAuthority::Custodians(Box::new(CustodianWord {
                custody_version: custody.version,
                custody_signature: custody.signature,
                threshold: self.custodians.threshold,
                delay_s: self.custodians.delay_s,
                salt: self.custodians.salt,
                keys: self.custodians.keys.iter().map(|key| key.0).collect(),
                signatures: self.signatures.clone(),
            })),
        })
    }
}

pub(crate) fn rotation(r: &Caregate::KeyRotation, signed: &Bytes) -> Option<Succession> {
    Some(Succession {
        relationship: RelationshipId(r.relationship.0),
        grant_key: r.grantKey.into_array(),
        revoke_key: r.revokeKey.into_array(),
        version: r.version,
        by: SuccessionAuthority::GrantKey(signature(signed)?),
    })
}

pub(crate) fn signed_custody(c: &Caregate::Custody, signed: &Bytes) -> Option<SignedCustody> {
    Some(SignedCustody {
        relationship: RelationshipId(c.relationship.0),
        custodians: c.custodians.0,
        version: c.version,
        signature: signature(signed)?,
    })
}

pub(crate) fn next_keys(r: &Caregate::KeyRecovery) -> NextKeys {
    NextKeys {
        relationship: RelationshipId(r.relationship.0),
        grant_key: address(r.grantKey),
        revoke_key: address(r.revokeKey),
        version: r.version,
    }
}

/// None where a signature has neither 65 bytes nor none.
pub(crate) fn recovery(event: &Caregate::RecoveryBegun) -> Option<Recovery> {
    let signatures = event.signatures.iter().map(|signed| match signed.is_empty() {
        true => Some(None),
        false => signature(signed).map(Some),
    });
    let Caregate::Custodians { threshold, delayS, salt, keys } = &event.custodians;
    Some(Recovery {
        next: next_keys(&event.r),
        custodians: Custodians {
            threshold: *threshold,
            delay_s: *delayS,
            salt: salt.0,
            keys: keys.iter().copied().map(address).collect(),
        },
        signatures: signatures.collect::<Option<_>>()?,
        ready_at: event.readyAt,
    })
}

fn key_recovery(next: &NextKeys) -> Caregate::KeyRecovery {
    Caregate::KeyRecovery {
        relationship: B256::from(next.relationship.0),
        grantKey: word20(&next.grant_key),
        revokeKey: word20(&next.revoke_key),
        version: next.version,
    }
}

impl Chain {
    /// How often a relationship's keys were replaced.
    ///
    /// # Errors
    /// No answer.
    pub async fn keys_version(&self, relationship: &RelationshipId) -> Result<u64, ChainError> {
        let call = Caregate::relationshipKeysCall(B256::from(relationship.0));
        Ok(self.view(call).await?.version)
    }

    /// Grant key and revoke-only key of a relationship that has handed on; none where its first keys hold.
    ///
    /// # Errors
    /// No answer.
    pub async fn newest_keys(&self, id: &RelationshipId) -> Result<Option<[Address; 2]>, ChainError> {
        let keys = self.view(Caregate::relationshipKeysCall(B256::from(id.0))).await?;
        Ok((keys.version > 0).then(|| [address(keys.grantKey), address(keys.revokeKey)]))
    }

    /// The keys that took the place of a relationship's first ones; of version 0 where none did.
    ///
    /// # Errors
    /// No answer.
    pub async fn relationship_keys(&self, relationship: &RelationshipId) -> Result<NextKeys, ChainError> {
        let keys = self.view(Caregate::relationshipKeysCall(B256::from(relationship.0))).await?;
        Ok(NextKeys {
            relationship: *relationship,
            grant_key: address(keys.grantKey),
            revoke_key: address(keys.revokeKey),
            version: keys.version,
        })
    }

    /// From when on a recovery that waits may be completed, Unix time; none where none waits.
    ///
    /// # Errors
    /// No answer.
    pub async fn recovery_ready_at(&self, relationship: &RelationshipId) -> Result<Option<u64>, ChainError> {
        let waiting = self.view(Caregate::pendingRecoveriesCall(B256::from(relationship.0))).await?;
        let custody = self.custody_version(relationship).await?;
        let waits = waiting.digest != B256::ZERO && waiting.custodyVersion == custody;
        Ok(waits.then_some(waiting.readyAt))
    }

    /// Version of the newest custody of a relationship; 0 for none.
    ///
    /// # Errors
    /// No answer.
    pub async fn custody_version(&self, relationship: &RelationshipId) -> Result<u64, ChainError> {
        Ok(self.view(Caregate::custodianSetsCall(B256::from(relationship.0))).await?.version)
    }

    /// Gives a relationship other keys. `revoke_key` is its revoke-only key so far.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn rotate_keys(
        &self,
        next: &NextKeys,
        revoke_key: &Address,
        signed: &EcdsaSignature,
        relay: &RelayKey,
    ) -> Result<Mined, SendError> {
        let r = Caregate::KeyRotation {
            relationship: B256::from(next.relationship.0),
            grantKey: word20(&next.grant_key),
            revokeKey: word20(&next.revoke_key),
            version: next.version,
        };
        let call = Caregate::rotateKeysCall { r, revokeKey: word20(revoke_key), signature: bytes(signed) };
        self.send(&call, relay).await
    }

    /// Says who may recover a relationship.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn set_custodians(
        &self,
        signed: &SignedCustody,
        revoke_key: &Address,
        relay: &RelayKey,
    ) -> Result<Mined, SendError> {
        let c = Caregate::Custody {
            relationship: B256::from(signed.relationship.0),
            custodians: B256::from(signed.custodians),
            version: signed.version,
        };
        let signature = bytes(&signed.signature);
        self.send(&Caregate::setCustodiansCall { c, revokeKey: word20(revoke_key), signature }, relay).await
    }

    /// Asks for other keys in the custodians' name; signatures in the order of their keys, none where one is missing.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn recover_keys(
        &self,
        next: &NextKeys,
        custodians: &Custodians,
        signatures: &[Option<EcdsaSignature>],
        relay: &RelayKey,
    ) -> Result<Mined, SendError> {
        let call = Caregate::recoverKeysCall {
            r: key_recovery(next),
            custodians: Caregate::Custodians {
                threshold: custodians.threshold,
                delayS: custodians.delay_s,
                salt: B256::from(custodians.salt),
                keys: custodians.keys.iter().map(word20).collect(),
            },
            signatures: signatures.iter().map(|one| one.as_ref().map(bytes).unwrap_or_default()).collect(),
        };
        self.send(&call, relay).await
    }

    /// Ends a recovery that has waited.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn complete_recovery(&self, next: &NextKeys, relay: &RelayKey) -> Result<Mined, SendError> {
        self.send(&Caregate::completeRecoveryCall { r: key_recovery(next) }, relay).await
    }
}
