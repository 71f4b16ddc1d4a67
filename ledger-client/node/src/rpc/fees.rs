//! Fees: there are none.

use alloy_eips::BlockNumberOrTag;
use alloy_primitives::U64;
use alloy_rpc_types_eth::FeeHistory;
use serde::Deserialize;
use serde_json::Value;

use super::{Answer, Rpc, value};
use crate::error::{Reason, RpcError};
use crate::request::Params;

/// Most blocks of one history, as geth has it.
const BLOCKS_MAX: u64 = 1024;
/// Most percentiles, as geth has it.
const PERCENTILES_MAX: usize = 100;

#[derive(Deserialize)]
#[serde(untagged)]
enum Count {
    Hex(U64),
    Number(u64),
}

impl Rpc {
    pub(super) fn fee_history(&self, mut params: Params) -> Answer {
        let count: Count = params.required("block count")?;
        let newest: BlockNumberOrTag = params.required("newest block")?;
        let percentiles: Option<Vec<f64>> = params.optional("reward percentiles")?;
        params.finish()?;
        if percentiles.as_ref().is_some_and(|percentiles| percentiles.len() > PERCENTILES_MAX) {
            return Err(RpcError::limit(format!("more than {PERCENTILES_MAX} percentiles")));
        }
        let (reader, head) = self.look()?;
        let newest = Self::number_of(newest, head)
            .ok_or_else(|| RpcError::new(Reason::NotFound, "request beyond head block"))?;
        let count = match count {
            Count::Hex(count) => count.to(),
            Count::Number(count) => count,
        };
        let count = count.min(BLOCKS_MAX).min(newest + 1);
        if count == 0 {
            return Ok(Value::from(serde_json::Map::new()));
        }
        let oldest_block = newest + 1 - count;
        let mut gas_used_ratio = Vec::new();
        for number in oldest_block..=newest {
            let header = Self::header(&reader, number)?.header;
            #[expect(clippy::cast_precision_loss, reason = "gas of a block is below 2^25")]
            gas_used_ratio.push(header.gas_used as f64 / header.gas_limit as f64);
        }
        let blocks = gas_used_ratio.len();
        value(FeeHistory {
            base_fee_per_gas: vec![0; blocks + 1],
            gas_used_ratio,
            oldest_block,
            reward: percentiles.map(|percentiles| vec![vec![0; percentiles.len()]; blocks]),
            ..FeeHistory::default()
        })
    }
}
