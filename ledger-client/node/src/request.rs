//! JSON-RPC 2.0 requests: from bytes to calls, bounded, without doing anything yet.

use alloy_consensus::transaction::{Recovered, SignerRecoverable as _};
use alloy_consensus::{Transaction as _, TxEnvelope, Typed2718 as _};
use alloy_eips::Decodable2718 as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::{Reason, RpcError};
use crate::evm::GAS_LIMIT;

/// Largest request: the largest transaction in hexadecimal, twice.
pub const REQUEST_BYTES_MAX: usize = 512 * 1024;
/// Most calls of a batch: alloy and ethers send 100 at most.
pub const BATCH_MAX: usize = 100;
/// Largest transaction, as geth has it: a contract's creation code is 48 KiB at most (EIP-3860).
pub const TRANSACTION_BYTES_MAX: usize = 128 * 1024;

/// A request: one call, or several.
#[derive(Debug)]
pub enum Request {
    /// One.
    Single(Result<Call, Failed>),
    /// Several, each with its own answer.
    Batch(Vec<Result<Call, Failed>>),
}

/// One call.
#[derive(Debug)]
pub struct Call {
    /// As it came; `None` for a notification, which gets no answer.
    pub id: Option<Value>,
    /// Its name.
    pub method: String,
    /// By position.
    pub params: Vec<Value>,
}

/// What is no call, and the id to answer with.
#[derive(Debug)]
pub struct Failed {
    /// Null where there is none.
    pub id: Value,
    /// Why.
    pub error: RpcError,
}

#[derive(Deserialize)]
struct Wire {
    jsonrpc: String,
    method: String,
    #[serde(default)]
    params: Option<Value>,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// [`RpcError`] where not even an id can be told: no JSON, or a batch that is empty or too long.
    pub fn decode(bytes: &[u8]) -> Result<Self, RpcError> {
        if bytes.len() > REQUEST_BYTES_MAX {
            return Err(RpcError::limit(format!("the request is longer than {REQUEST_BYTES_MAX} bytes")));
        }
        if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
            let calls: Vec<&RawValue> = serde_json::from_slice(bytes).map_err(|e| RpcError::parse(&e))?;
            return match calls.len() {
                0 => Err(RpcError::new(Reason::InvalidRequest, "an empty batch")),
                1..=BATCH_MAX => Ok(Self::Batch(calls.into_iter().map(|raw| call(raw.get())).collect())),
                len => Err(RpcError::limit(format!("a batch of {len} calls, allowed are {BATCH_MAX}"))),
            };
        }
        let raw: &RawValue = serde_json::from_slice(bytes).map_err(|e| RpcError::parse(&e))?;
        Ok(Self::Single(call(raw.get())))
    }
}

fn call(text: &str) -> Result<Call, Failed> {
    let invalid = |id, message: String| Failed { id, error: RpcError::new(Reason::InvalidRequest, message) };
    let value: Value = serde_json::from_str(text)
        .map_err(|error| Failed { id: Value::Null, error: RpcError::parse(&error) })?;
    let id = match value.get("id") {
        None => None,
        Some(id @ (Value::Null | Value::Number(_) | Value::String(_))) => Some(id.clone()),
        Some(_) => return Err(invalid(Value::Null, "the id is no string or number".to_owned())),
    };
    let named = id.clone().unwrap_or_default();
    let wire: Wire =
        serde_json::from_value(value).map_err(|error| invalid(named.clone(), error.to_string()))?;
    if wire.jsonrpc != "2.0" {
        return Err(invalid(named, "jsonrpc is not \"2.0\"".to_owned()));
    }
    let params = match wire.params {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(params)) => params,
        Some(_) => return Err(invalid(named, "params is no array".to_owned())),
    };
    Ok(Call { id, method: wire.method, params })
}

/// A call's parameters, taken one by one.
#[derive(Debug)]
pub struct Params {
    values: std::vec::IntoIter<Value>,
    place: usize,
}

impl Params {
    /// By position.
    #[must_use]
    pub fn new(values: Vec<Value>) -> Self {
        Self { values: values.into_iter(), place: 0 }
    }

    /// The next one, which must be there.
    ///
    /// # Errors
    /// [`RpcError`] with the place and what is wrong.
    pub fn required<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, RpcError> {
        let place = self.place;
        self.optional(name)?.ok_or_else(|| {
            RpcError::new(
                Reason::InvalidParams,
                format!("missing value for required argument {place} ({name})"),
            )
        })
    }

    /// The next one, if it is there and not null.
    ///
    /// # Errors
    /// As [`Self::required`].
    pub fn optional<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, RpcError> {
        let place = self.place;
        self.place += 1;
        match self.values.next() {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value).map(Some).map_err(|error| {
                RpcError::new(Reason::InvalidParams, format!("invalid argument {place} ({name}): {error}"))
            }),
        }
    }

    /// There must be no more.
    ///
    /// # Errors
    /// [`RpcError`].
    pub fn finish(self) -> Result<(), RpcError> {
        match self.values.len() {
            0 => Ok(()),
            _ => Err(RpcError::new(
                Reason::InvalidParams,
                format!("too many arguments, want at most {}", self.place),
            )),
        }
    }
}

/// A signed transaction that this chain could run, and who signed it.
///
/// # Errors
/// [`RpcError`]: too large, no transaction, a type that this chain doesn't have, for another chain, or with a bad signature.
pub fn transaction(raw: &[u8], chain_id: u64) -> Result<Recovered<TxEnvelope>, RpcError> {
    let refused = |message: String| RpcError::new(Reason::Transaction, message);
    if raw.len() > TRANSACTION_BYTES_MAX {
        return Err(refused(format!(
            "oversized data: transaction size {}, limit {TRANSACTION_BYTES_MAX}",
            raw.len()
        )));
    }
    let tx = TxEnvelope::decode_2718_exact(raw).map_err(|error| refused(format!("decode: {error}")))?;
    match &tx {
        TxEnvelope::Legacy(_) | TxEnvelope::Eip2930(_) | TxEnvelope::Eip1559(_) => {}
        TxEnvelope::Eip4844(_) | TxEnvelope::Eip7702(_) => {
            return Err(refused(format!("transaction type not supported: {}", tx.ty())));
        }
    }
    match tx.chain_id() {
        Some(id) if id == chain_id => {}
        Some(id) => return Err(refused(format!("invalid chain id for signer: have {id} want {chain_id}"))),
        None => {
            return Err(refused("only replay-protected (EIP-155) transactions allowed over RPC".to_owned()));
        }
    }
    if tx.gas_limit() > GAS_LIMIT {
        return Err(refused(format!("exceeds block gas limit: {} > {GAS_LIMIT}", tx.gas_limit())));
    }
    // Low s alone (EIP-2): no transaction has a second spelling.
    tx.try_into_recovered().map_err(|_source| refused("invalid sender: bad signature".to_owned()))
}
