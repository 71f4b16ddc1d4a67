//! Accounts, storage and their proofs, at the newest block or one of the last 512.

use alloy_eips::BlockId;
use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_rpc_types_eth::{EIP1186AccountProofResponse, EIP1186StorageProof};
use serde::Deserialize;
use serde_json::json;

use super::{Answer, Rpc, value};
use crate::error::RpcError;
use crate::request::Params;
use crate::state::{KECCAK256_EMPTY, State};
use crate::trie::EMPTY_ROOT;

/// Most storage keys of one proof: those of a ward's patients. Each costs some seven reads.
pub(super) const PROOF_KEYS_MAX: usize = 1024;

/// A storage key: 32 bytes, or a number as some clients send it.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Slot {
    Bytes(B256),
    Number(U256),
}

impl Slot {
    fn number(self) -> U256 {
        match self {
            Self::Bytes(bytes) => bytes.into(),
            Self::Number(number) => number,
        }
    }
}

impl Rpc {
    pub(super) fn balance(&self, mut params: Params) -> Answer {
        let address: Address = params.required("address")?;
        let id: Option<BlockId> = params.optional("block")?;
        params.finish()?;
        let (reader, head) = self.look()?;
        let block = Self::state_block(&reader, head, id)?;
        let state = State::new(&reader, block.header.number, block.header.state_root);
        Ok(json!(state.account(&address)?.value.map_or(U256::ZERO, |account| account.balance)))
    }

    pub(super) fn code(&self, mut params: Params) -> Answer {
        let address: Address = params.required("address")?;
        let id: Option<BlockId> = params.optional("block")?;
        params.finish()?;
        let (reader, head) = self.look()?;
        let block = Self::state_block(&reader, head, id)?;
        let state = State::new(&reader, block.header.number, block.header.state_root);
        match state.account(&address)?.value {
            Some(account) => Ok(json!(state.code(&account.code_hash)?)),
            None => Ok(json!(Bytes::new())),
        }
    }

    pub(super) fn storage_at(&self, mut params: Params) -> Answer {
        let address: Address = params.required("address")?;
        let slot: Slot = params.required("slot")?;
        let id: Option<BlockId> = params.optional("block")?;
        params.finish()?;
        let (reader, head) = self.look()?;
        let block = Self::state_block(&reader, head, id)?;
        let state = State::new(&reader, block.header.number, block.header.state_root);
        let root = state.account(&address)?.value.map_or(EMPTY_ROOT, |account| account.storage_root);
        let value = state.slot(&address, &root, &slot.number())?.value.unwrap_or_default();
        Ok(json!(B256::from(value)))
    }

    pub(super) fn proof(&self, mut params: Params) -> Answer {
        let address: Address = params.required("address")?;
        let slots: Vec<Slot> = params.required("storage keys")?;
        let id: Option<BlockId> = params.optional("block")?;
        params.finish()?;
        if slots.len() > PROOF_KEYS_MAX {
            let message = format!("{} storage keys, allowed are {PROOF_KEYS_MAX}", slots.len());
            return Err(RpcError::limit(message));
        }
        let (reader, head) = self.look()?;
        let block = Self::state_block(&reader, head, id)?;
        let state = State::new(&reader, block.header.number, block.header.state_root);
        let account = state.account(&address)?;
        let bytes = |proof: Vec<Vec<u8>>| proof.into_iter().map(Bytes::from).collect();
        let found = account.value.unwrap_or_default();
        let storage_hash = if account.value.is_some() { found.storage_root } else { EMPTY_ROOT };
        let mut storage_proof = Vec::with_capacity(slots.len());
        for slot in slots {
            let proven = state.slot(&address, &storage_hash, &slot.number())?;
            storage_proof.push(EIP1186StorageProof {
                key: B256::from(slot.number()).into(),
                value: proven.value.unwrap_or_default(),
                proof: bytes(proven.proof),
            });
        }
        value(EIP1186AccountProofResponse {
            address,
            balance: found.balance,
            code_hash: if account.value.is_some() { found.code_hash } else { KECCAK256_EMPTY },
            nonce: found.nonce,
            storage_hash,
            account_proof: bytes(account.proof),
            storage_proof,
        })
    }
}
