//! JSON-RPC: which method does what. Everything here is synchronous and runs on threads that may block.

mod blocks;
mod calls;
mod fees;
mod filters;
mod logs;
mod state;
mod subscriptions;
mod transactions;

use std::sync::{Arc, Mutex};

use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::{B256, U64, keccak256};
use serde::Serialize;
use serde_json::{Value, json};

use crate::chain::{self, Chain, SealedHeader};
use crate::error::{Reason, RpcError};
use crate::metrics::Metrics;
use crate::producer::Queue;
use crate::request::{Call, Failed, Params, Request};
use crate::store::Reader;
use filters::Filters;
pub use subscriptions::{SUBSCRIPTIONS_MAX, Subscriptions};

/// Most bytes of the answers of one batch: a hundred blocks with their transactions.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Longest part of a foreign name in an answer or a metric's label.
const NAME_CHARS_MAX: usize = 64;

/// What serves calls. Clones share it.
#[derive(Clone)]
pub struct Rpc {
    chain: Arc<Chain>,
    queue: Queue,
    metrics: Metrics,
    filters: Arc<Mutex<Filters>>,
}

/// What a method gives.
type Answer = Result<Value, RpcError>;

/// Every method, so that a caller can't make up labels for the metrics.
const METHODS: [&str; 37] = [
    "eth_accounts",
    "eth_blockNumber",
    "eth_call",
    "eth_chainId",
    "eth_estimateGas",
    "eth_feeHistory",
    "eth_gasPrice",
    "eth_getBalance",
    "eth_getBlockByHash",
    "eth_getBlockByNumber",
    "eth_getBlockReceipts",
    "eth_getBlockTransactionCountByHash",
    "eth_getBlockTransactionCountByNumber",
    "eth_getCode",
    "eth_getFilterChanges",
    "eth_getLogs",
    "eth_getProof",
    "eth_getStorageAt",
    "eth_getTransactionByBlockHashAndIndex",
    "eth_getTransactionByBlockNumberAndIndex",
    "eth_getTransactionByHash",
    "eth_getTransactionCount",
    "eth_getTransactionReceipt",
    "eth_maxPriorityFeePerGas",
    "eth_newBlockFilter",
    "eth_newFilter",
    "eth_sendRawTransaction",
    "eth_subscribe",
    "eth_syncing",
    "eth_uninstallFilter",
    "eth_unsubscribe",
    "net_listening",
    "net_version",
    "qbft_getValidatorsByBlockHash",
    "qbft_getValidatorsByBlockNumber",
    "web3_clientVersion",
    "web3_sha3",
];

/// The answer to `web3_clientVersion`.
#[must_use]
pub fn client_version() -> String {
    format!("caregate-ledger-node/v{}/one-party-seals", env!("CARGO_PKG_VERSION"))
}

fn value(value: impl Serialize) -> Answer {
    serde_json::to_value(value).map_err(|error| RpcError::internal(&error))
}

fn quantity(number: u64) -> Value {
    json!(U64::from(number))
}

impl Rpc {
    /// Serves this chain.
    #[must_use]
    pub fn new(chain: Arc<Chain>, queue: Queue, metrics: Metrics) -> Self {
        Self { chain, queue, metrics, filters: Arc::default() }
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Serves one request. Empty where there is nothing to answer: notifications alone.
    #[must_use]
    pub fn serve(&self, bytes: &[u8]) -> Vec<u8> {
        let answer = match Request::decode(bytes) {
            Err(error) => Some(self.refused(&Value::Null, &error)),
            Ok(Request::Single(call)) => self.answer(call),
            Ok(Request::Batch(calls)) => return self.batch(calls),
        };
        answer.map(|answer| answer.to_string().into_bytes()).unwrap_or_default()
    }

    fn batch(&self, calls: Vec<Result<Call, Failed>>) -> Vec<u8> {
        let mut out = Vec::new();
        for call in calls {
            let answer = if out.len() < ANSWER_BYTES_MAX {
                self.answer(call)
            } else {
                let id = call.map_or_else(|failed| Some(failed.id), |call| call.id);
                let error =
                    RpcError::limit(format!("the batch's answers have {ANSWER_BYTES_MAX} bytes already"));
                id.map(|id| self.refused(&id, &error))
            };
            if let Some(answer) = answer {
                out.push(if out.is_empty() { b'[' } else { b',' });
                out.extend_from_slice(answer.to_string().as_bytes());
            }
        }
        if !out.is_empty() {
            out.push(b']');
        }
        out
    }

    /// The answer with an error, which is counted.
    #[must_use]
    pub fn refused(&self, id: &Value, error: &RpcError) -> Value {
        self.metrics.refused.with_label_values(&[error.reason.as_str()]).inc();
        error.answer(id)
    }

    fn answer(&self, call: Result<Call, Failed>) -> Option<Value> {
        let Call { id, method, params } = match call {
            Ok(call) => call,
            Err(Failed { id, error }) => return Some(self.refused(&id, &error)),
        };
        let label = METHODS.iter().find(|known| **known == method).copied().unwrap_or("other");
        self.metrics.requests.with_label_values(&[label]).inc();
        let result = self.dispatch(&method, Params::new(params));
        let id = id?;
        Some(match result {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
            Err(error) => self.refused(&id, &error),
        })
    }

    fn dispatch(&self, method: &str, params: Params) -> Answer {
        match method {
            "eth_chainId" => params.finish().map(|()| quantity(self.chain.deployment().chain_id)),
            "net_version" => params.finish().map(|()| json!(self.chain.deployment().chain_id.to_string())),
            "web3_clientVersion" => params.finish().map(|()| json!(client_version())),
            "web3_sha3" => web3_sha3(params),
            "net_listening" => params.finish().map(|()| json!(true)),
            "eth_syncing" => params.finish().map(|()| json!(false)),
            "eth_accounts" => params.finish().map(|()| json!([])),
            "eth_gasPrice" | "eth_maxPriorityFeePerGas" => params.finish().map(|()| quantity(0)),
            "eth_feeHistory" => self.fee_history(params),
            "eth_blockNumber" => params.finish().map(|()| quantity(self.chain.head().header.number)),
            "eth_getBlockByNumber" => self.block_by_number(params),
            "eth_getBlockByHash" => self.block_by_hash(params),
            "eth_getBlockReceipts" => self.block_receipts(params),
            "eth_getBlockTransactionCountByNumber" => self.transaction_count_by_number(params),
            "eth_getBlockTransactionCountByHash" => self.transaction_count_by_hash(params),
            "qbft_getValidatorsByBlockNumber" => self.validators_by_number(params),
            "qbft_getValidatorsByBlockHash" => self.validators_by_hash(params),
            "eth_getTransactionByHash" => self.transaction_by_hash(params),
            "eth_getTransactionByBlockNumberAndIndex" => self.transaction_by_number_and_index(params),
            "eth_getTransactionByBlockHashAndIndex" => self.transaction_by_block_hash_and_index(params),
            "eth_getTransactionReceipt" => self.receipt(params),
            "eth_sendRawTransaction" => self.send_raw(params),
            "eth_getTransactionCount" => self.nonce(params),
            "eth_getBalance" => self.balance(params),
            "eth_getCode" => self.code(params),
            "eth_getStorageAt" => self.storage_at(params),
            "eth_getProof" => self.proof(params),
            "eth_call" => self.call(params),
            "eth_estimateGas" => self.estimate_gas(params),
            "eth_getLogs" => self.logs(params),
            "eth_newBlockFilter" => self.new_block_filter(params),
            "eth_newFilter" => self.new_log_filter(params),
            "eth_getFilterChanges" => self.filter_changes(params),
            "eth_uninstallFilter" => self.uninstall_filter(params),
            "eth_subscribe" | "eth_unsubscribe" => {
                Err(RpcError::new(Reason::Method, format!("{method} needs a WebSocket, and is in no batch")))
            }
            _ => Err(RpcError::new(Reason::Method, unknown_method(method))),
        }
    }

    /// A consistent look at the chain, and the newest block in it.
    fn look(&self) -> Result<(Reader, u64), RpcError> {
        let reader = self.chain.read()?;
        let head = reader.head()?.unwrap_or_default();
        Ok((reader, head))
    }

    /// The block that a tag or number means; `None` where there is none yet.
    fn number_of(tag: BlockNumberOrTag, head: u64) -> Option<u64> {
        match tag {
            // What is sealed is final, and there is no block under way that anybody could see.
            BlockNumberOrTag::Latest
            | BlockNumberOrTag::Finalized
            | BlockNumberOrTag::Safe
            | BlockNumberOrTag::Pending => Some(head),
            BlockNumberOrTag::Earliest => Some(0),
            BlockNumberOrTag::Number(number) => (number <= head).then_some(number),
        }
    }

    /// The header of a block that a call is about; it must be there, and its state must be as well.
    fn state_block(reader: &Reader, head: u64, id: Option<BlockId>) -> Result<SealedHeader, RpcError> {
        let number = match id.unwrap_or_default() {
            BlockId::Number(tag) => Self::number_of(tag, head),
            BlockId::Hash(hash) => reader.number(&hash.block_hash)?,
        };
        let unknown = || RpcError::new(Reason::NotFound, "header not found");
        let number = number.ok_or_else(unknown)?;
        let begins = Chain::history_begins(head);
        if number < begins {
            let message = format!("the state of block {number} is gone; the first that is kept is {begins}");
            return Err(RpcError::new(Reason::NotFound, message));
        }
        chain::header(reader, number)?.ok_or_else(unknown)
    }

    fn header(reader: &Reader, number: u64) -> Result<SealedHeader, RpcError> {
        let damaged =
            || RpcError::internal(&chain::ChainError::Damaged { number, what: "its header is missing" });
        chain::header(reader, number)?.ok_or_else(damaged)
    }
}

fn web3_sha3(mut params: Params) -> Answer {
    let data: alloy_primitives::Bytes = params.required("data")?;
    params.finish()?;
    Ok(json!(B256::from(keccak256(data))))
}

fn unknown_method(method: &str) -> String {
    let name: String = method.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect();
    format!("the method {name} does not exist/is not available")
}
