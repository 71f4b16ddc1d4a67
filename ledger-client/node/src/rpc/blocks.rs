//! Blocks and their headers. A header's `extraData` are those with seals, as Besu gives them; its `hash` is the block's id.

use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::{B256, U256};
use alloy_rpc_types_eth::{Block, BlockTransactions, Header, Transaction};
use serde_json::{Value, json};

use super::{Answer, Rpc, quantity, value};
use crate::chain::{self, SealedHeader};
use crate::error::RpcError;
use crate::request::Params;
use crate::store::Reader;

impl Rpc {
    pub(super) fn block_by_number(&self, mut params: Params) -> Answer {
        let tag: BlockNumberOrTag = params.required("block")?;
        let full: Option<bool> = params.optional("full transactions")?;
        params.finish()?;
        let (reader, head) = self.look()?;
        let Some(number) = Self::number_of(tag, head) else { return Ok(Value::Null) };
        block(&reader, number, full.unwrap_or_default())
    }

    pub(super) fn block_by_hash(&self, mut params: Params) -> Answer {
        let hash: B256 = params.required("block hash")?;
        let full: Option<bool> = params.optional("full transactions")?;
        params.finish()?;
        let (reader, _) = self.look()?;
        let Some(number) = reader.number(&hash)? else { return Ok(Value::Null) };
        block(&reader, number, full.unwrap_or_default())
    }

    pub(super) fn block_receipts(&self, mut params: Params) -> Answer {
        let id: BlockId = params.required("block")?;
        params.finish()?;
        let (reader, head) = self.look()?;
        let number = match id {
            BlockId::Number(tag) => Self::number_of(tag, head),
            BlockId::Hash(hash) => reader.number(&hash.block_hash)?,
        };
        let Some(number) = number else { return Ok(Value::Null) };
        value(super::transactions::whole_receipts(&reader, number)?)
    }

    pub(super) fn transaction_count_by_number(&self, mut params: Params) -> Answer {
        let tag: BlockNumberOrTag = params.required("block")?;
        params.finish()?;
        let (reader, head) = self.look()?;
        let Some(number) = Self::number_of(tag, head) else { return Ok(Value::Null) };
        Ok(quantity(chain::transactions(&reader, number)?.len() as u64))
    }

    pub(super) fn transaction_count_by_hash(&self, mut params: Params) -> Answer {
        let hash: B256 = params.required("block hash")?;
        params.finish()?;
        let (reader, _) = self.look()?;
        let Some(number) = reader.number(&hash)? else { return Ok(Value::Null) };
        Ok(quantity(chain::transactions(&reader, number)?.len() as u64))
    }

    /// Besu's: the validators are the same for every block of this chain.
    pub(super) fn validators_by_number(&self, mut params: Params) -> Answer {
        let tag: BlockNumberOrTag = params.required("block")?;
        params.finish()?;
        let head = self.chain.head().header.number;
        match Self::number_of(tag, head) {
            Some(_) => Ok(json!(self.chain.deployment().validators)),
            None => Ok(Value::Null),
        }
    }

    pub(super) fn validators_by_hash(&self, mut params: Params) -> Answer {
        let hash: B256 = params.required("block hash")?;
        params.finish()?;
        match self.look()?.0.number(&hash)? {
            Some(_) => Ok(json!(self.chain.deployment().validators)),
            None => Ok(Value::Null),
        }
    }
}

/// A header, as subscriptions tell it.
pub(super) fn header(reader: &Reader, number: u64) -> Answer {
    let SealedHeader { id, header } = Rpc::header(reader, number)?;
    value(Header { hash: id, total_difficulty: None, inner: header, size: None })
}

fn block(reader: &Reader, number: u64, full: bool) -> Answer {
    let SealedHeader { id, header } = Rpc::header(reader, number)?;
    let stored = chain::body(reader, &header)?;
    let transactions = match full {
        true => {
            let all: Result<Vec<Transaction>, RpcError> = (0..)
                .zip(&stored)
                .map(|(index, stored)| super::transactions::mined(stored, index, id, &header))
                .collect();
            BlockTransactions::Full(all?)
        }
        false => BlockTransactions::Hashes(
            stored.iter().map(|stored| alloy_primitives::keccak256(&stored.raw)).collect(),
        ),
    };
    // The header and the empty lists of ommers around it; each transaction with its own length.
    let size = alloy_rlp::encode(&header).len() + stored.iter().map(|stored| stored.raw.len()).sum::<usize>();
    let header = Header {
        hash: id,
        // Difficulty is 1 for each block from the second on, as on Besu.
        total_difficulty: Some(U256::from(header.number) + U256::ONE),
        inner: header,
        size: Some(U256::from(size)),
    };
    value(Block { header, uncles: Vec::new(), transactions, withdrawals: None })
}
