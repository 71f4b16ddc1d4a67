//! Transactions. What counts is the signed message in them, so anybody may send one: where gas is free, from a key that is made for
//! this one transaction and forgotten.

use std::fmt;
use std::time::Duration;

use alloy::consensus::{SignableTransaction as _, TxLegacy};
use alloy::eips::eip2718::Encodable2718 as _;
use alloy::primitives::{B256, Bytes, TxKind, U64, U256};
use alloy::rpc::types::TransactionReceipt;
use alloy::signers::SignerSync as _;
use alloy::signers::local::PrivateKeySigner;
use alloy::sol_types::SolCall;
use caregate_protocol::policy::{SignedBinding, SignedEmergency, SignedGrant, SignedRevocation};
use ledger_client::verify::{Address, revocation_digest, signer, slots};
use serde_json::json;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::client::Chain;
use crate::convert::{
    SignedParticipantKey, address, bind_call, emergency_call, grant_call, participant_key_call, revoke_call,
    word20,
};
use crate::error::{ChainError, Refusal};

/// Longest wait until a transaction is in a block. A QBFT chain makes one every few seconds.
const MINED_WITHIN: Duration = Duration::from_secs(30);
/// Pause between two looks for the receipt.
const RECEIPT_POLL: Duration = Duration::from_millis(20);
/// Most gas of a transaction: the largest of them takes 200,000; a node that estimates more is wrong.
const GAS_MAX: u64 = 2_000_000;

/// The key that signs a transaction, not what is in it.
pub struct RelayKey(PrivateKeySigner);

impl fmt::Debug for RelayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelayKey({})", self.address())
    }
}

impl RelayKey {
    /// A new key from the operating system's random source, for where gas is free.
    #[must_use]
    pub fn random() -> Self {
        Self(PrivateKeySigner::random())
    }

    /// Takes a secret scalar, big-endian; none where it isn't between 1 and the group order − 1.
    #[must_use]
    pub fn from_bytes(secret: &Zeroizing<[u8; 32]>) -> Option<Self> {
        PrivateKeySigner::from_slice(secret.as_slice()).ok().map(Self)
    }

    /// Who pays.
    #[must_use]
    pub fn address(&self) -> Address {
        address(self.0.address())
    }
}

/// A transaction in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mined {
    /// Its id.
    pub transaction: [u8; 32],
    /// The block.
    pub block: u64,
    /// What it took.
    pub gas: u64,
}

/// Why a transaction changed nothing, or why that is not known.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SendError {
    /// The contract refuses it; it was not sent, or it was in vain.
    #[error("the ledger refuses: {0}")]
    Refused(Refusal),
    /// The chain gives no answer.
    #[error(transparent)]
    Chain(ChainError),
    /// It was sent, and is in no block yet. It may still come.
    #[error("transaction 0x{} is in no block after {} s; it may still come", alloy::hex::encode(.transaction), .waited_s)]
    NotMined {
        /// Its id.
        transaction: [u8; 32],
        /// How long was waited.
        waited_s: u64,
    },
    /// The revocation is not signed by a key of its relationship.
    #[error("the revocation is not signed by a key of its relationship")]
    Signer,
}

impl From<ChainError> for SendError {
    fn from(error: ChainError) -> Self {
        if let ChainError::Refused(refusal) = error { Self::Refused(refusal) } else { Self::Chain(error) }
    }
}

impl Chain {
    /// Grants.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn grant(
        &self,
        signed: &SignedGrant,
        revoke_key: &Address,
        relay: &RelayKey,
    ) -> Result<Mined, SendError> {
        self.send(&grant_call(signed, revoke_key), relay).await
    }

    /// Revokes. `other_key` is the relationship's key that did not sign; which of the two did is found out here.
    ///
    /// # Errors
    /// [`SendError`]; [`SendError::Signer`] where neither did.
    pub async fn revoke(
        &self,
        signed: &SignedRevocation,
        other_key: &Address,
        relay: &RelayKey,
    ) -> Result<Mined, SendError> {
        let digest = revocation_digest(&signed.revocation, &self.domain());
        let signer = signer(&digest, &signed.signature).map_err(|_source| SendError::Signer)?;
        let by_revoke_key = if slots::relationship(&signer, other_key) == signed.revocation.relationship {
            false
        } else if slots::relationship(other_key, &signer) == signed.revocation.relationship {
            true
        } else {
            // By keys that followed the first ones.
            let keys = self.newest_keys(&signed.revocation.relationship).await?;
            let [grant_key, revoke_key] = keys.ok_or(SendError::Signer)?;
            if signer != grant_key && signer != revoke_key {
                return Err(SendError::Signer);
            }
            signer == revoke_key
        };
        self.send(&revoke_call(signed, other_key, by_revoke_key), relay).await
    }

    /// Binds a device, or releases it.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn bind_device(&self, signed: &SignedBinding, relay: &RelayKey) -> Result<Mined, SendError> {
        self.send(&bind_call(signed), relay).await
    }

    /// Gives a participant a new HPKE key.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn set_participant_key(
        &self,
        signed: &SignedParticipantKey,
        relay: &RelayKey,
    ) -> Result<Mined, SendError> {
        self.send(&participant_key_call(signed), relay).await
    }

    /// Breaks the glass.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn open_emergency(
        &self,
        signed: &SignedEmergency,
        relay: &RelayKey,
    ) -> Result<Mined, SendError> {
        self.send(&emergency_call(signed), relay).await
    }

    pub(crate) async fn send<C: SolCall>(&self, call: &C, relay: &RelayKey) -> Result<Mined, SendError> {
        let input = Bytes::from(call.abi_encode());
        let (to, from) = (word20(&self.config.contract), relay.0.address());
        let request = json!({ "from": from, "to": to, "data": input });
        // The estimate runs the call, so a refusal is known by name before anything is sent.
        let estimate: U64 = self.ask("eth_estimateGas", (request.clone(),)).await?;
        let nonce: U64 = self.ask("eth_getTransactionCount", (from, "pending")).await?;
        let transaction = TxLegacy {
            chain_id: Some(self.config.chain_id),
            nonce: nonce.to(),
            gas_price: self.gas_price().await?,
            // A change of state meanwhile may take another branch.
            gas_limit: estimate.to::<u64>().saturating_mul(3).div_ceil(2).min(GAS_MAX),
            to: TxKind::Call(to),
            value: U256::ZERO,
            input,
        };
        let signature = relay
            .0
            .sign_hash_sync(&transaction.signature_hash())
            .map_err(|error| ChainError::malformed("eth_sendRawTransaction", error))?;
        let signed = transaction.into_signed(signature);
        let hash = *signed.hash();
        let raw = Bytes::from(signed.encoded_2718());
        let _hash: B256 = self.ask("eth_sendRawTransaction", (raw,)).await?;
        let receipt = self.receipt(hash).await?;
        let block = receipt
            .block_number
            .ok_or_else(|| ChainError::malformed("eth_getTransactionReceipt", "a receipt without block"))?;
        if !receipt.status() {
            return Err(self.refusal(request, block).await.into());
        }
        Ok(Mined { transaction: hash.0, block, gas: receipt.gas_used })
    }

    async fn receipt(&self, hash: B256) -> Result<TransactionReceipt, SendError> {
        let waiting = async {
            loop {
                let receipt: Option<TransactionReceipt> =
                    self.ask("eth_getTransactionReceipt", (hash,)).await?;
                if let Some(receipt) = receipt {
                    return Ok(receipt);
                }
                tokio::time::sleep(RECEIPT_POLL).await;
            }
        };
        match tokio::time::timeout(MINED_WITHIN, waiting).await {
            Ok(receipt) => receipt,
            Err(_elapsed) => {
                Err(SendError::NotMined { transaction: hash.0, waited_s: MINED_WITHIN.as_secs() })
            }
        }
    }

    /// Why a transaction of this block was in vain: another came before it.
    async fn refusal(&self, request: serde_json::Value, block: u64) -> ChainError {
        match self.ask::<_, Bytes>("eth_call", (request, format!("{block:#x}"))).await {
            Err(error) => error,
            Ok(_) => ChainError::Refused(Refusal { name: "Revert".to_owned(), detail: String::new() }),
        }
    }
}
