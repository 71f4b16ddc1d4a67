//! Calls that change nothing: `eth_call` and `eth_estimateGas`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use alloy_eips::BlockId;
use alloy_primitives::{Bytes, TxKind, keccak256};
use alloy_rpc_types_eth::TransactionRequest;
use revm::context::TxEnv;
use revm::context::result::{EVMError, ExecutionResult};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Rpc, quantity};
use crate::chain::SealedHeader;
use crate::contract::ARTIFACT;
use crate::error::{Reason, RpcError};
use crate::evm::{EvmError, GAS_LIMIT, Overlay};
use crate::producer::invalid_text;
use crate::request::{Params, TRANSACTION_BYTES_MAX};
use crate::state::State;
use crate::store::Reader;

/// How close an estimate comes: 1/64 more than is needed is as good as exact where gas costs nothing.
const ESTIMATE_TOLERANCE: u64 = 64;
/// Of `Error(string)`, which Solidity's `revert("…")` gives.
const ERROR_SELECTOR: [u8; 4] = [0x08, 0xc3, 0x79, 0xa0];

impl Rpc {
    pub(super) fn call(&self, mut params: Params) -> Answer {
        let request: TransactionRequest = params.required("transaction")?;
        let id: Option<BlockId> = params.optional("block")?;
        no_overrides(params)?;
        let (reader, head) = self.look()?;
        let block = Self::state_block(&reader, head, id)?;
        let environment = self.environment(&request)?;
        match self.run(&reader, &block, environment)? {
            ExecutionResult::Success { output, .. } => Ok(json!(output.into_data())),
            failed @ (ExecutionResult::Revert { .. } | ExecutionResult::Halt { .. }) => Err(failure(&failed)),
        }
    }

    pub(super) fn estimate_gas(&self, mut params: Params) -> Answer {
        let request: TransactionRequest = params.required("transaction")?;
        let id: Option<BlockId> = params.optional("block")?;
        no_overrides(params)?;
        let (reader, head) = self.look()?;
        let block = Self::state_block(&reader, head, id)?;
        let environment = self.environment(&request)?;
        let with_gas = |gas_limit| self.run(&reader, &block, TxEnv { gas_limit, ..environment.clone() });
        let most = environment.gas_limit;
        let first = with_gas(most)?;
        let ExecutionResult::Success { gas, .. } = &first else { return Err(failure(&first)) };
        // A call gets 63/64 of what is left (EIP-150), and refunds come only at the end.
        let (mut low, mut high) = (gas.tx_gas_used().saturating_sub(1), most);
        let likely = gas.total_gas_spent().saturating_mul(65) / 64;
        let mut next = likely.clamp(low.saturating_add(1), high);
        while high - low > 1 && (high - low) > low / ESTIMATE_TOLERANCE {
            match with_gas(next) {
                Ok(result) if result.is_success() => high = next,
                Ok(_) => low = next,
                // Less than the transaction costs by itself.
                Err(error) if error.reason == Reason::Transaction => low = next,
                Err(error) => return Err(error),
            }
            next = low + (high - low) / 2;
        }
        Ok(quantity(high))
    }

    fn environment(&self, request: &TransactionRequest) -> Result<TxEnv, RpcError> {
        let data = request.input.input().cloned().unwrap_or_default();
        if data.len() > TRANSACTION_BYTES_MAX {
            return Err(RpcError::limit(format!("input of more than {TRANSACTION_BYTES_MAX} bytes")));
        }
        let chain_id = self.chain.deployment().chain_id;
        if request.chain_id.is_some_and(|id| id != chain_id) {
            return Err(RpcError::new(Reason::InvalidParams, format!("chain id is {chain_id}")));
        }
        let access_list = request.access_list.clone().unwrap_or_default();
        let fees = request.max_fee_per_gas.is_some() || request.max_priority_fee_per_gas.is_some();
        let tx_type = match (fees, access_list.is_empty()) {
            (true, _) => 2,
            (false, false) => 1,
            (false, true) => 0,
        };
        Ok(TxEnv {
            tx_type,
            caller: request.from.unwrap_or_default(),
            gas_limit: request.gas.unwrap_or(GAS_LIMIT).min(GAS_LIMIT),
            gas_price: request.max_fee_per_gas.or(request.gas_price).unwrap_or_default(),
            gas_priority_fee: fees.then(|| request.max_priority_fee_per_gas.unwrap_or_default()),
            kind: request.to.unwrap_or(TxKind::Create),
            value: request.value.unwrap_or_default(),
            data,
            access_list,
            chain_id: Some(chain_id),
            ..TxEnv::default()
        })
    }

    /// Runs a call on a block's state, in that block's time.
    fn run(
        &self,
        reader: &Reader,
        block: &SealedHeader,
        environment: TxEnv,
    ) -> Result<ExecutionResult, RpcError> {
        let header = &block.header;
        let mut overlay = Overlay::new(State::new(reader, header.number, header.state_root));
        let context = self.chain.context(header.number, header.timestamp);
        overlay.call(&context, environment).map_err(refused)
    }
}

/// Geth's third parameter replaces state; a call that means it must not run without.
fn no_overrides(mut params: Params) -> Result<(), RpcError> {
    match params.optional::<Value>("state overrides")? {
        None => params.finish(),
        Some(Value::Object(empty)) if empty.is_empty() => params.finish(),
        Some(_) => Err(RpcError::new(Reason::InvalidParams, "state overrides are not supported")),
    }
}

fn refused(error: EvmError) -> RpcError {
    match error {
        EVMError::Transaction(invalid) => RpcError::new(Reason::Transaction, invalid_text(&invalid)),
        EVMError::Database(error) => error.into(),
        EVMError::Header(_) | EVMError::Custom(_) | EVMError::CustomAny(_) => {
            RpcError::new(Reason::Halted, "the call can't run")
        }
    }
}

fn failure(result: &ExecutionResult) -> RpcError {
    match result {
        ExecutionResult::Revert { output, .. } => RpcError::reverted(error_name(output).as_deref(), output),
        ExecutionResult::Halt { reason, .. } => RpcError::new(Reason::Halted, reason.to_string()),
        ExecutionResult::Success { .. } => RpcError::new(Reason::Internal, "no failure"),
    }
}

#[derive(Deserialize)]
struct Abi {
    abi: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    inputs: Vec<Input>,
}

#[derive(Deserialize)]
struct Input {
    #[serde(rename = "type")]
    kind: String,
}

/// The contract's custom errors by selector. None takes a struct, so a type's text is its name.
static ERRORS: LazyLock<BTreeMap<[u8; 4], String>> = LazyLock::new(|| {
    let entries = serde_json::from_str::<Abi>(ARTIFACT).map(|abi| abi.abi).unwrap_or_default();
    let errors = entries.into_iter().filter(|entry| entry.kind == "error").map(|entry| {
        let types: Vec<_> = entry.inputs.into_iter().map(|input| input.kind).collect();
        let hash = keccak256(format!("{}({})", entry.name, types.join(",")));
        ([hash[0], hash[1], hash[2], hash[3]], entry.name)
    });
    errors.collect()
});

/// What a revert says: the name of one of the contract's errors, or a text.
fn error_name(output: &Bytes) -> Option<String> {
    let selector: [u8; 4] = output.get(..4)?.try_into().ok()?;
    if selector == ERROR_SELECTOR {
        let length = usize::try_from(u32::from_be_bytes(output.get(64..68)?.try_into().ok()?)).ok()?;
        let text = output.get(68..68_usize.checked_add(length)?)?;
        return Some(String::from_utf8_lossy(text).into_owned());
    }
    ERRORS.get(&selector).cloned()
}
