//! Transactions: sending them, and finding them and their receipts again.

use std::time::Duration;

use alloy_consensus::{Header, Transaction as _};
use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::{Address, B256, Bytes, U64, keccak256};
use alloy_rpc_types_eth::{Log, Transaction, TransactionReceipt};
use serde_json::{Value, json};

use super::{Answer, Rpc, quantity, value};
use crate::block::StoredTransaction;
use crate::chain::{self, SealedHeader};
use crate::error::{Reason, RpcError};
use crate::producer::SubmitError;
use crate::request::{self, Params};
use crate::state::State;
use crate::store::Reader;

/// How long a block may take to be durable: as long as a disk under heavy load needs for a sync.
const SEAL_TIMEOUT: Duration = Duration::from_secs(8);

const UNREADABLE: &str = "a transaction can't be read";

impl From<SubmitError> for RpcError {
    fn from(error: SubmitError) -> Self {
        Self::new(Reason::Submit(error.reason()), error.to_string())
    }
}

impl Rpc {
    /// Answers when the block with the transaction is durable.
    pub(super) fn send_raw(&self, mut params: Params) -> Answer {
        let raw: Bytes = params.required("transaction")?;
        params.finish()?;
        let tx = request::transaction(&raw, self.chain.deployment().chain_id)?;
        let hash = *tx.tx_hash();
        let answered = self.queue.submit(tx)?;
        match answered.recv_timeout(SEAL_TIMEOUT) {
            Ok(outcome) => outcome?,
            // It may be in the block that is being written.
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                return Err(RpcError::new(Reason::Timeout, "the block takes long; ask for the receipt"));
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return Err(SubmitError::Stopped.into()),
        }
        Ok(json!(hash))
    }

    pub(super) fn nonce(&self, mut params: Params) -> Answer {
        let address: Address = params.required("address")?;
        let id: Option<BlockId> = params.optional("block")?;
        params.finish()?;
        let (reader, head) = self.look()?;
        let block = Self::state_block(&reader, head, id)?;
        let state = State::new(&reader, block.header.number, block.header.state_root);
        let next = state.account(&address)?.value.map_or(0, |account| account.nonce);
        let pending = id == Some(BlockId::Number(BlockNumberOrTag::Pending));
        Ok(quantity(if pending { self.queue.nonce_after(&address, next) } else { next }))
    }

    pub(super) fn transaction_by_hash(&self, mut params: Params) -> Answer {
        let hash: B256 = params.required("transaction hash")?;
        params.finish()?;
        let (reader, _) = self.look()?;
        let Some((number, index)) = reader.transaction(&hash)? else {
            let Some(inner) = self.queue.waiting(&hash) else { return Ok(Value::Null) };
            return value(Transaction {
                inner,
                block_hash: None,
                block_number: None,
                transaction_index: None,
                effective_gas_price: None,
                block_timestamp: None,
            });
        };
        let SealedHeader { id, header } = Self::header(&reader, number)?;
        let all = chain::body(&reader, &header)?;
        value(mined(named(&all, number, index, &hash)?, index.into(), id, &header)?)
    }

    pub(super) fn transaction_by_number_and_index(&self, mut params: Params) -> Answer {
        let tag: BlockNumberOrTag = params.required("block")?;
        let index: U64 = params.required("index")?;
        params.finish()?;
        let (reader, head) = self.look()?;
        let Some(number) = Self::number_of(tag, head) else { return Ok(Value::Null) };
        transaction_at(&reader, number, index.to())
    }

    pub(super) fn transaction_by_block_hash_and_index(&self, mut params: Params) -> Answer {
        let hash: B256 = params.required("block hash")?;
        let index: U64 = params.required("index")?;
        params.finish()?;
        let (reader, _) = self.look()?;
        let Some(number) = reader.number(&hash)? else { return Ok(Value::Null) };
        transaction_at(&reader, number, index.to())
    }

    pub(super) fn receipt(&self, mut params: Params) -> Answer {
        let hash: B256 = params.required("transaction hash")?;
        params.finish()?;
        let (reader, _) = self.look()?;
        let Some((number, index)) = reader.transaction(&hash)? else { return Ok(Value::Null) };
        let SealedHeader { id, header } = Self::header(&reader, number)?;
        let all = chain::body(&reader, &header)?;
        named(&all, number, index, &hash)?;
        value(receipts_of(&all, id, &header)?.into_iter().nth(index as usize))
    }
}

fn transaction_at(reader: &Reader, number: u64, index: u64) -> Answer {
    let SealedHeader { id, header } = Rpc::header(reader, number)?;
    let all = chain::body(reader, &header)?;
    match whole(&all, number, index)? {
        Some(stored) => value(mined(stored, index, id, &header)?),
        None => Ok(Value::Null),
    }
}

fn damaged(number: u64, what: &'static str) -> RpcError {
    RpcError::internal(&chain::ChainError::Damaged { number, what })
}

/// One of a block's transactions; what the block's roots say nothing of is looked at too.
fn whole(all: &[StoredTransaction], number: u64, index: u64) -> Result<Option<&StoredTransaction>, RpcError> {
    let Some(stored) = usize::try_from(index).ok().and_then(|place| all.get(place)) else { return Ok(None) };
    signed_by_sender(stored, number).map(|()| Some(stored))
}

fn signed_by_sender(stored: &StoredTransaction, number: u64) -> Result<(), RpcError> {
    match stored.is_whole() {
        true => Ok(()),
        false => Err(damaged(number, "the sender of a transaction is not who signed it")),
    }
}

/// One that is found by its hash: it must be there, and be the one.
fn named<'a>(
    all: &'a [StoredTransaction],
    number: u64,
    index: u32,
    hash: &B256,
) -> Result<&'a StoredTransaction, RpcError> {
    let found = whole(all, number, index.into())?.filter(|stored| keccak256(&stored.raw) == *hash);
    found.ok_or_else(|| damaged(number, "a transaction is not where its hash says"))
}

/// A stored transaction as an answer gives it.
pub(super) fn mined(
    stored: &StoredTransaction,
    index: u64,
    id: B256,
    header: &Header,
) -> Result<Transaction, RpcError> {
    let inner = stored.transaction().ok_or_else(|| damaged(header.number, UNREADABLE))?;
    signed_by_sender(stored, header.number)?;
    Ok(Transaction {
        effective_gas_price: Some(inner.effective_gas_price(header.base_fee_per_gas)),
        inner,
        block_hash: Some(id),
        block_number: Some(header.number),
        transaction_index: Some(index),
        block_timestamp: Some(header.timestamp),
    })
}

/// The receipts of a block as an answer gives them, with senders, which logs don't show.
pub(super) fn whole_receipts(reader: &Reader, number: u64) -> Result<Vec<TransactionReceipt>, RpcError> {
    let SealedHeader { id, header } = Rpc::header(reader, number)?;
    let all = chain::body(reader, &header)?;
    all.iter().try_for_each(|stored| signed_by_sender(stored, number))?;
    receipts_of(&all, id, &header)
}

/// The receipts of a block, with its logs numbered through.
pub(super) fn receipts(reader: &Reader, number: u64) -> Result<Vec<TransactionReceipt>, RpcError> {
    let SealedHeader { id, header } = Rpc::header(reader, number)?;
    receipts_of(&chain::body(reader, &header)?, id, &header)
}

fn receipts_of(
    all: &[StoredTransaction],
    id: B256,
    header: &Header,
) -> Result<Vec<TransactionReceipt>, RpcError> {
    let mut log_index = 0;
    (0..).zip(all).map(|(index, stored)| receipt(stored, index, id, header, &mut log_index)).collect()
}

fn receipt(
    stored: &StoredTransaction,
    index: u64,
    id: B256,
    header: &Header,
    log_index: &mut u64,
) -> Result<TransactionReceipt, RpcError> {
    let unreadable = || damaged(header.number, UNREADABLE);
    let tx = stored.transaction().ok_or_else(unreadable)?;
    let receipt = stored.receipt().ok_or_else(unreadable)?;
    let transaction_hash = keccak256(&stored.raw);
    let inner = receipt.map_logs(|inner| {
        let log = Log {
            inner,
            block_hash: Some(id),
            block_number: Some(header.number),
            block_timestamp: Some(header.timestamp),
            transaction_hash: Some(transaction_hash),
            transaction_index: Some(index),
            log_index: Some(*log_index),
            removed: false,
        };
        *log_index += 1;
        log
    });
    Ok(TransactionReceipt {
        inner,
        transaction_hash,
        transaction_index: Some(index),
        block_hash: Some(id),
        block_number: Some(header.number),
        gas_used: stored.gas_used,
        effective_gas_price: tx.effective_gas_price(header.base_fee_per_gas),
        blob_gas_used: None,
        blob_gas_price: None,
        from: stored.sender,
        to: tx.to(),
        contract_address: (stored.created.len() == 20).then(|| Address::from_slice(&stored.created)),
    })
}
