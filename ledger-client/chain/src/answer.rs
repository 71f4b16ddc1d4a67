//! A node's answers as bytes: what is read of them. [`crate::Chain`] reads the same types off the connection; answers that were kept, and
//! the fuzzer's, come here.

use alloy::rpc::types::{Header, Log};

use crate::bundle::header_bytes;
use crate::client::Block;
use crate::error::ChainError;
use crate::event::LedgerEvent;

/// The events in the result of an `eth_getLogs`, in their order.
///
/// # Errors
/// [`ChainError::Malformed`].
pub fn events(result: &[u8]) -> Result<Vec<LedgerEvent>, ChainError> {
    let logs: Vec<Log> =
        serde_json::from_slice(result).map_err(|error| ChainError::malformed("eth_getLogs", error))?;
    in_order(&logs)
}

/// The RLP of the header in the result of an `eth_getBlockByNumber`, seals included.
///
/// # Errors
/// [`ChainError::Malformed`], and [`ChainError::HeaderHash`] where it is not the block that it names.
pub fn header(result: &[u8]) -> Result<Vec<u8>, ChainError> {
    let header: Header = serde_json::from_slice(result)
        .map_err(|error| ChainError::malformed("eth_getBlockByNumber", error))?;
    header_bytes(&Block::of(header))
}

/// Logs as events; what a reorganisation took away is none.
pub(crate) fn in_order(logs: &[Log]) -> Result<Vec<LedgerEvent>, ChainError> {
    let standing = logs.iter().filter(|log| !log.removed);
    let mut events = standing.map(LedgerEvent::decode).collect::<Result<Vec<_>, _>>()?;
    events.sort_by_key(|event| (event.block, event.index));
    Ok(events)
}
