//! JSON-RPC errors: codes of JSON-RPC 2.0 §5.1 and of EIP-1474, geth's for what reverts, and a word for each in the metrics.

use serde::Serialize;
use serde_json::{Value, json};

/// Why a call has an error for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No JSON.
    Parse,
    /// JSON, and no call.
    InvalidRequest,
    /// No such method.
    Method,
    /// A parameter is missing or wrong.
    InvalidParams,
    /// No such block, or no state of it any more.
    NotFound,
    /// The transaction is refused.
    Transaction,
    /// By the pool or the EVM, with a word of its own.
    Submit(&'static str),
    /// The call reverted.
    Reverted,
    /// The call ran out of gas or into an invalid instruction.
    Halted,
    /// More than allowed is asked for.
    Limit,
    /// It took too long.
    Timeout,
    /// The node can't read its store.
    Internal,
}

impl Reason {
    /// For counters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::InvalidRequest => "invalid_request",
            Self::Method => "method_not_found",
            Self::InvalidParams => "invalid_params",
            Self::NotFound => "not_found",
            Self::Transaction => "transaction",
            Self::Submit(reason) => reason,
            Self::Reverted => "reverted",
            Self::Halted => "halted",
            Self::Limit => "limit",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
        }
    }

    fn code(self) -> i32 {
        match self {
            Self::Parse => -32700,
            Self::InvalidRequest => -32600,
            Self::Method => -32601,
            Self::InvalidParams => -32602,
            Self::Internal => -32603,
            Self::Transaction | Self::Submit(_) | Self::Halted => -32000,
            Self::NotFound => -32001,
            Self::Timeout => -32002,
            Self::Limit => -32005,
            Self::Reverted => 3,
        }
    }
}

/// An error for an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct RpcError {
    /// Why.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// What a call reverted with.
    pub data: Option<Value>,
}

#[derive(Serialize)]
struct Wire<'a> {
    code: i32,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Value>,
}

impl RpcError {
    /// With a message.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), data: None }
    }

    /// More than allowed.
    #[must_use]
    pub fn limit(message: String) -> Self {
        Self::new(Reason::Limit, message)
    }

    /// No JSON; with line and column.
    #[must_use]
    pub fn parse(error: &serde_json::Error) -> Self {
        Self::new(Reason::Parse, format!("parse error: {error}"))
    }

    /// The store or the state can't be read. What exactly is for the log, not for the caller.
    #[must_use]
    pub fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(%error, "a call failed");
        Self::new(Reason::Internal, "internal error; the node's log has it")
    }

    /// A call that reverted with these bytes.
    #[must_use]
    pub fn reverted(name: Option<&str>, output: &alloy_primitives::Bytes) -> Self {
        let message = match name {
            Some(name) => format!("execution reverted: {name}"),
            None => "execution reverted".to_owned(),
        };
        Self { reason: Reason::Reverted, message, data: Some(json!(output)) }
    }

    /// The answer with this error.
    #[must_use]
    pub fn answer(&self, id: &Value) -> Value {
        let wire = Wire { code: self.reason.code(), message: &self.message, data: self.data.as_ref() };
        json!({ "jsonrpc": "2.0", "id": id, "error": wire })
    }
}

impl From<crate::state::StateError> for RpcError {
    fn from(error: crate::state::StateError) -> Self {
        Self::internal(&error)
    }
}

impl From<crate::store::StoreError> for RpcError {
    fn from(error: crate::store::StoreError) -> Self {
        Self::internal(&error)
    }
}

impl From<crate::chain::ChainError> for RpcError {
    fn from(error: crate::chain::ChainError) -> Self {
        Self::internal(&error)
    }
}
