//! Questions to the chain. What it answers is nobody's proof: a gateway verifies, this only carries.

use std::sync::Arc;

use alloy::consensus::Header;
use alloy::primitives::{B256, Bytes, U64, U256};
use alloy::rpc::client::RpcClient;
use alloy::rpc::json_rpc::{RpcRecv, RpcSend};
use alloy::rpc::types::{EIP1186AccountProofResponse, Filter, Log};
use alloy::sol_types::SolCall;
use caregate_protocol::id::RecipientId;
use caregate_protocol::policy::{Commitment, Pseudonym, RecipientKind, RecipientStatus, RelationshipId};
use ledger_client::verify::Domain;
use ledger_client::verify::slots::Slot;
use serde_json::json;

use crate::answer::in_order;
use crate::config::ChainConfig;
use crate::contract::Caregate;
use crate::convert::{kind, status, word20};
use crate::error::ChainError;
use crate::event::LedgerEvent;
use crate::transport::Http;

/// Blocks whose events are asked for at once: what Besu allows at most by default (`--rpc-max-logs-range`).
pub const LOG_BLOCKS_MAX: u64 = 5_000;
/// Slots whose proofs are asked for at once: some 1 MB of JSON.
const PROOF_SLOTS_MAX: usize = 256;

/// The newest block that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub number: u64,
    /// Its id.
    pub hash: [u8; 32],
    /// Its time, Unix time in seconds.
    pub time_s: u64,
}

/// A block's header as the node tells it.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub(crate) head: Head,
    pub(crate) header: Header,
}

impl Block {
    pub(crate) fn of(header: alloy::rpc::types::Header) -> Self {
        let head = Head { number: header.number, hash: header.hash.0, time_s: header.timestamp };
        Self { head, header: header.inner }
    }
}

/// Proofs of one account and some of its slots, at one block.
#[derive(Debug, Default)]
pub(crate) struct Proofs {
    /// In no order; some may come more than once.
    pub(crate) nodes: Vec<Bytes>,
    pub(crate) values: std::collections::HashMap<Slot, [u8; 32]>,
}

/// A relationship as the contract has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsentState {
    /// Version of the newest grant; 0 for none.
    pub version: u64,
    /// Highest version that is revoked; 0 for none.
    pub revoked: u64,
    /// First second at which the newest grant holds no more.
    pub until: u64,
    /// Who may open.
    pub grantee: RecipientId,
}

/// A participant as the contract has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParticipantState {
    /// None for one who takes no part.
    pub status: Option<RecipientStatus>,
    /// What it is to its patients.
    pub kind: RecipientKind,
    /// Whether it may break the glass.
    pub emergency: bool,
    /// 0 for none.
    pub key_version: u64,
    /// X25519; zeroes for none.
    pub hpke_public_key: [u8; 32],
}

/// One contract on one chain, through one node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Chain {
    pub(crate) config: Arc<ChainConfig>,
    client: RpcClient,
}

impl Chain {
    /// A client that has asked nothing yet.
    ///
    /// # Errors
    /// [`ChainError::Config`].
    pub fn new(config: ChainConfig) -> Result<Self, ChainError> {
        config.check()?;
        let transport = Http::new(config.endpoint()?, config.request_timeout());
        Ok(Self { client: RpcClient::new(transport, true), config: Arc::new(config) })
    }

    /// A client whose node follows the configured chain and has the contract.
    ///
    /// # Errors
    /// As [`Self::new`] and [`Self::check`].
    pub async fn connect(config: ChainConfig) -> Result<Self, ChainError> {
        let chain = Self::new(config)?;
        chain.check().await?;
        Ok(chain)
    }

    /// Asks for the chain's number and for the contract's code.
    ///
    /// # Errors
    /// [`ChainError::ChainId`], [`ChainError::NoContract`], or no answer.
    pub async fn check(&self) -> Result<(), ChainError> {
        let (has, wanted) = (self.chain_id().await?, self.config.chain_id);
        if has != wanted {
            return Err(ChainError::ChainId { has, wanted });
        }
        let code: Bytes = self.ask("eth_getCode", (word20(&self.config.contract), "latest")).await?;
        if code.is_empty() {
            return Err(ChainError::NoContract { contract: self.config.contract });
        }
        Ok(())
    }

    /// For which ledger messages are signed.
    #[must_use]
    pub fn domain(&self) -> Domain {
        Domain { chain_id: self.config.chain_id, verifying_contract: self.config.contract }
    }

    /// The node's chain number.
    ///
    /// # Errors
    /// No answer.
    pub async fn chain_id(&self) -> Result<u64, ChainError> {
        let id: U64 = self.ask("eth_chainId", ()).await?;
        Ok(id.to())
    }

    /// What the node calls itself; the embedded one says that one party seals it.
    ///
    /// # Errors
    /// No answer.
    pub async fn client_version(&self) -> Result<String, ChainError> {
        self.ask("web3_clientVersion", ()).await
    }

    /// The newest block.
    ///
    /// # Errors
    /// No answer.
    pub async fn head(&self) -> Result<Head, ChainError> {
        Ok(self.block(None).await?.head)
    }

    /// When a block was made, Unix time in seconds.
    ///
    /// # Errors
    /// No answer, or no such block.
    pub async fn block_time(&self, number: u64) -> Result<u64, ChainError> {
        Ok(self.block(Some(number)).await?.head.time_s)
    }

    pub(crate) async fn ask<P: RpcSend + 'static, R: RpcRecv>(
        &self,
        method: &'static str,
        params: P,
    ) -> Result<R, ChainError> {
        self.client.request(method, params).await.map_err(|error| ChainError::from_transport(method, error))
    }

    /// A block by number, or the newest.
    pub(crate) async fn block(&self, number: Option<u64>) -> Result<Block, ChainError> {
        let method = "eth_getBlockByNumber";
        let number = number.map_or_else(|| "latest".to_owned(), |number| format!("{number:#x}"));
        let block: Option<alloy::rpc::types::Header> = self.ask(method, (number, false)).await?;
        block.map(Block::of).ok_or_else(|| ChainError::malformed(method, "there is no such block"))
    }

    /// All events of these blocks, in order. The span is asked for in portions that the node can answer.
    ///
    /// # Errors
    /// No answer, or one that is no event of this contract's.
    pub async fn events(&self, from: u64, to: u64) -> Result<Vec<LedgerEvent>, ChainError> {
        self.events_about(from, to, None).await
    }

    /// As [`Self::events`], of one event with one indexed value.
    pub(crate) async fn events_about(
        &self,
        from: u64,
        to: u64,
        about: Option<(B256, B256)>,
    ) -> Result<Vec<LedgerEvent>, ChainError> {
        let (mut at, mut span, mut events) = (from.max(self.config.deployed_at), LOG_BLOCKS_MAX, Vec::new());
        while at <= to {
            let end = to.min(at.saturating_add(span - 1));
            let mut filter =
                Filter::new().address(word20(&self.config.contract)).from_block(at).to_block(end);
            if let Some((event, value)) = about {
                filter = filter.event_signature(event).topic1(value);
            }
            let logs: Vec<Log> = match self.ask("eth_getLogs", (filter,)).await {
                // Too many events for one answer, here or at the node.
                Err(ChainError::TooLarge { .. } | ChainError::Rpc { .. }) if span > 1 && end > at => {
                    span = (end - at).div_ceil(2);
                    continue;
                }
                answer => answer?,
            };
            // The portions come in the order of their blocks.
            events.extend(in_order(&logs)?);
            at = end.saturating_add(1);
            if end == u64::MAX {
                break;
            }
        }
        Ok(events)
    }

    /// Proofs of the contract's account and of `slots`, at one block.
    pub(crate) async fn proofs(&self, slots: &[Slot], block: u64) -> Result<Proofs, ChainError> {
        let method = "eth_getProof";
        let mut proofs = Proofs::default();
        for slots in slots.chunks(PROOF_SLOTS_MAX) {
            let keys: Vec<B256> = slots.iter().map(B256::from).collect();
            let params = (word20(&self.config.contract), keys, format!("{block:#x}"));
            let answer: EIP1186AccountProofResponse = self.ask(method, params).await?;
            if answer.storage_proof.len() != slots.len() {
                return Err(ChainError::malformed(method, "another number of slots than was asked for"));
            }
            proofs.nodes.extend(answer.account_proof);
            for (slot, proof) in slots.iter().zip(answer.storage_proof) {
                if proof.key.as_b256() != B256::from(slot) {
                    return Err(ChainError::malformed(method, "another slot than was asked for"));
                }
                proofs.nodes.extend(proof.proof);
                proofs.values.insert(*slot, proof.value.to_be_bytes());
            }
        }
        Ok(proofs)
    }

    pub(crate) async fn view<C: SolCall>(&self, call: C) -> Result<C::Return, ChainError> {
        let method = "eth_call";
        let request = json!({ "to": word20(&self.config.contract), "data": Bytes::from(call.abi_encode()) });
        let answer: Bytes = self.ask(method, (request, "latest")).await?;
        C::abi_decode_returns(&answer).map_err(|error| ChainError::malformed(method, error))
    }

    /// The policy epoch.
    ///
    /// # Errors
    /// No answer.
    pub async fn epoch(&self) -> Result<u64, ChainError> {
        self.view(Caregate::epochCall {}).await
    }

    /// A relationship as the contract has it; zeroes where it knows none.
    ///
    /// # Errors
    /// No answer.
    pub async fn consent(&self, relationship: &RelationshipId) -> Result<ConsentState, ChainError> {
        let state = self.view(Caregate::consentsCall(B256::from(relationship.0))).await?;
        Ok(ConsentState {
            version: state.version,
            revoked: state.revoked,
            until: state.until,
            grantee: RecipientId(state.grantee.into_array()),
        })
    }

    /// A binding's version (0 for none) and whether the device is bound.
    ///
    /// # Errors
    /// No answer.
    pub async fn binding(&self, key: &Commitment) -> Result<(u64, bool), ChainError> {
        let state = self.view(Caregate::bindingsCall(B256::from(key.0))).await?;
        Ok((state.version, state.bound))
    }

    /// A participant as the contract has it.
    ///
    /// # Errors
    /// No answer.
    pub async fn participant(&self, id: &RecipientId) -> Result<ParticipantState, ChainError> {
        let state = self.view(Caregate::participantsCall(id.0.into())).await?;
        Ok(ParticipantState {
            status: status(state.status),
            kind: kind(state.kind),
            emergency: state.emergency,
            key_version: state.keyVersion,
            hpke_public_key: state.hpkeKey.0,
        })
    }

    /// Number of the newest emergency of a domain and pseudonym; 0 for none.
    ///
    /// # Errors
    /// No answer.
    pub async fn emergency_number(&self, whose: &Pseudonym, domain: &RecipientId) -> Result<u64, ChainError> {
        // keccak256(abi.encode(pseudonym, domain)), as the contract's `emergencyKey` says.
        let mut preimage = [0; 64];
        preimage[..32].copy_from_slice(&whose.0);
        preimage[44..].copy_from_slice(&domain.0);
        let key = alloy::primitives::keccak256(preimage);
        Ok(self.view(Caregate::emergenciesCall(key)).await?.number)
    }

    pub(crate) async fn gas_price(&self) -> Result<u128, ChainError> {
        let price: U256 = self.ask("eth_gasPrice", ()).await?;
        u128::try_from(price).map_err(|error| ChainError::malformed("eth_gasPrice", error))
    }
}
