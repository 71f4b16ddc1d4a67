//! What can go wrong between here and the chain.

use alloy::rpc::json_rpc::RpcError;
use alloy::sol_types::SolInterface as _;
use alloy::transports::{TransportError, TransportErrorKind};
use ledger_client::verify::Address;
use thiserror::Error;

use crate::config::ConfigError;
use crate::contract::Caregate::CaregateErrors;
use crate::transport::HttpFault;

/// Longest text of a node that is repeated in an error: a sentence. The rest is cut off.
const TEXT_BYTES_MAX: usize = 200;

/// Why the chain gave no answer, or none that can be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChainError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No connection, no answer in time, no HTTP.
    #[error("ledger: {0}")]
    Unreachable(String),
    /// An answer larger than [`crate::ANSWER_BYTES_MAX`].
    #[error("ledger: the answer to {method} is too large")]
    TooLarge {
        /// Which question.
        method: &'static str,
    },
    /// The node refuses (JSON-RPC error).
    #[error("ledger: {method}: {message} ({code})")]
    Rpc {
        /// Which question.
        method: &'static str,
        /// JSON-RPC's number.
        code: i64,
        /// The node's words, cut to a sentence.
        message: String,
    },
    /// An answer of another shape.
    #[error("ledger: {method}: {what}")]
    Malformed {
        /// Which question.
        method: &'static str,
        /// What is wrong with the answer.
        what: String,
    },
    /// Another chain than configured.
    #[error("ledger: the node's chain is {has}, configured is {wanted}")]
    ChainId {
        /// The node's.
        has: u64,
        /// Ours.
        wanted: u64,
    },
    /// Nothing is deployed there.
    #[error("ledger: there is no contract at {contract}")]
    NoContract {
        /// Where.
        contract: Address,
    },
    /// The events up to the head have not been read yet.
    #[error("ledger: still reading events, at block {at} of {head}")]
    CatchingUp {
        /// Block up to which events have been read.
        at: u64,
        /// The newest block seen.
        head: u64,
    },
    /// The header that the node's JSON describes is not the block that it names: a field is missing or new.
    #[error("ledger: the header of block {number} does not hash to the block's id")]
    HeaderHash {
        /// Which block.
        number: u64,
    },
    /// More claims than a bundle may have.
    #[error("ledger: {what}: {len} do not fit a bundle, {max} do")]
    BundleFull {
        /// Of what.
        what: &'static str,
        /// How many there are.
        len: usize,
        /// How many may be.
        max: usize,
    },
    /// What the contract answers to a question it refuses.
    #[error("ledger: the contract refuses: {0}")]
    Refused(#[from] Refusal),
}

impl ChainError {
    /// A word for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Config(_) => "config",
            Self::Unreachable(_) => "unreachable",
            Self::TooLarge { .. } => "too_large",
            Self::Rpc { .. } => "rpc",
            Self::Malformed { .. } => "malformed",
            Self::ChainId { .. } => "chain_id",
            Self::NoContract { .. } => "no_contract",
            Self::CatchingUp { .. } => "catching_up",
            Self::HeaderHash { .. } => "header_hash",
            Self::BundleFull { .. } => "bundle_full",
            Self::Refused(_) => "refused",
        }
    }

    pub(crate) fn malformed(method: &'static str, what: impl ToString) -> Self {
        Self::Malformed { method, what: cut(&what.to_string()) }
    }

    pub(crate) fn from_transport(method: &'static str, error: TransportError) -> Self {
        match error {
            RpcError::ErrorResp(payload) => {
                match Refusal::of(payload.as_revert_data().as_ref().map(AsRef::as_ref)) {
                    Some(refusal) => Self::Refused(refusal),
                    None => Self::Rpc { method, code: payload.code, message: cut(&payload.message) },
                }
            }
            RpcError::Transport(TransportErrorKind::Custom(source)) => match source.downcast::<HttpFault>() {
                Ok(fault) if matches!(*fault, HttpFault::TooLarge { .. }) => Self::TooLarge { method },
                Ok(fault) => Self::Unreachable(fault.to_string()),
                // alloy's own: an answer that does not fit the question.
                Err(source) => Self::malformed(method, source),
            },
            RpcError::NullResp => Self::malformed(method, "nothing is answered"),
            RpcError::DeserError { err, .. } | RpcError::SerError(err) => Self::malformed(method, err),
            other @ (RpcError::Transport(_)
            | RpcError::UnsupportedFeature(_)
            | RpcError::LocalUsageError(_)) => Self::Unreachable(cut(&other.to_string())),
        }
    }
}

/// The first sentence of what a stranger says, without control characters.
fn cut(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars().filter(|character| !character.is_control()) {
        if out.len() + character.len_utf8() > TEXT_BYTES_MAX {
            out.push('…');
            break;
        }
        out.push(character);
    }
    out
}

/// The contract's refusal.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{name}{detail}")]
pub struct Refusal {
    /// Its error by name, as in `Caregate.sol`; `Revert` where it has none.
    pub name: String,
    /// The error's values, as ` { version: 1, known: 3 }`; may be empty.
    pub detail: String,
}

impl Refusal {
    /// From what a call returned that did not succeed; none where it is no contract's refusal.
    pub(crate) fn of(data: Option<&[u8]>) -> Option<Self> {
        let data = data?;
        let Some(selector) = data.first_chunk::<4>() else {
            return Some(Self { name: "Revert".to_owned(), detail: String::new() });
        };
        let Some(name) = CaregateErrors::name_by_selector(*selector) else {
            return Some(Self {
                name: "Revert".to_owned(),
                detail: format!(" {}", alloy::hex::encode(selector)),
            });
        };
        let detail = CaregateErrors::abi_decode(data).map(|error| format!("{error:?}")).unwrap_or_default();
        // `VersionNotRaised(VersionNotRaised { version: 1, known: 1 })`: the braces hold what there is to say.
        let values = detail.find('{').map(|at| format!(" {}", detail[at..].trim_end_matches(')')));
        Some(Self { name: name.to_owned(), detail: values.unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use alloy::sol_types::SolError as _;

    use super::*;
    use crate::contract::Caregate;

    #[test]
    fn refusals_have_the_contracts_names() {
        let data = Caregate::VersionNotRaised { version: 1, known: 3 }.abi_encode();
        let refusal = Refusal::of(Some(&data)).unwrap();
        assert_eq!(refusal.to_string(), "VersionNotRaised { version: 1, known: 3 }");
        let data = Caregate::EmptyGrant {}.abi_encode();
        assert_eq!(Refusal::of(Some(&data)).unwrap().name, "EmptyGrant");
        assert_eq!(Refusal::of(Some(&[])).unwrap().name, "Revert");
        assert_eq!(Refusal::of(Some(&[1, 2, 3, 4])).unwrap().to_string(), "Revert 01020304");
        assert_eq!(Refusal::of(None), None);
    }

    #[test]
    fn a_strangers_words_are_cut() {
        assert_eq!(cut("a\u{1b}[31mb\n"), "a[31mb");
        let long = cut(&"ä".repeat(500));
        assert!(long.ends_with('…') && long.len() <= TEXT_BYTES_MAX + 3);
    }
}
