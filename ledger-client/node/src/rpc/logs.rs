//! Events. Blocks without transactions are not looked at, so a range may span the whole chain.

use alloy_primitives::Log as RawLog;
use alloy_rpc_types_eth::{Filter, FilterBlockOption, Log};

use super::{Answer, Rpc, value};
use crate::error::{Reason, RpcError};
use crate::request::Params;
use crate::store::Reader;

/// Most events of one answer, as public providers have it.
pub(super) const LOGS_MAX: usize = 10_000;
/// Most blocks with transactions that one call looks through: two seconds.
pub(super) const BLOCKS_MAX: usize = 20_000;
/// Most addresses and most values of one topic.
const ALTERNATIVES_MAX: usize = 1000;

impl Rpc {
    pub(super) fn logs(&self, mut params: Params) -> Answer {
        let filter: Filter = params.required("filter")?;
        params.finish()?;
        check(&filter)?;
        let (reader, head) = self.look()?;
        let (first, last) = match &filter.block_option {
            FilterBlockOption::AtBlockHash(hash) => {
                let number = reader.number(hash)?;
                let number = number.ok_or_else(|| RpcError::new(Reason::NotFound, "unknown block"))?;
                (number, number)
            }
            FilterBlockOption::Range { from_block, to_block } => {
                let of = |tag: Option<alloy_eips::BlockNumberOrTag>| {
                    Self::number_of(tag.unwrap_or_default(), head)
                };
                // From a block that is not there yet nothing has come; up to one is up to the newest.
                let Some(first) = of(*from_block) else { return Ok(serde_json::json!([])) };
                (first, of(*to_block).unwrap_or(head))
            }
        };
        if first > last {
            return Err(RpcError::new(Reason::InvalidParams, "invalid block range: from is after to"));
        }
        value(matching(&reader, &filter, first, last)?)
    }
}

/// Refuses filters that are larger than anybody needs.
pub(super) fn check(filter: &Filter) -> Result<(), RpcError> {
    let most = filter.topics.iter().map(|topic| topic.len()).chain([filter.address.len()]).max();
    match most {
        Some(most) if most > ALTERNATIVES_MAX => {
            Err(RpcError::limit(format!("more than {ALTERNATIVES_MAX} addresses or topics")))
        }
        _ => Ok(()),
    }
}

/// The events that a filter lets through, oldest first.
pub(super) fn matching(
    reader: &Reader,
    filter: &Filter,
    first: u64,
    last: u64,
) -> Result<Vec<Log>, RpcError> {
    let mut found = Vec::new();
    for (looked, entry) in reader.blocks(first, last)?.enumerate() {
        let (number, _) = entry?;
        if looked >= BLOCKS_MAX {
            let message = format!(
                "more than {BLOCKS_MAX} blocks with transactions; ask for {first} to {} first",
                number - 1
            );
            return Err(RpcError::limit(message));
        }
        if !filter.matches_bloom(Rpc::header(reader, number)?.header.logs_bloom) {
            continue;
        }
        for receipt in super::transactions::receipts(reader, number)? {
            let logs = receipt.inner.into_logs().into_iter();
            found.extend(logs.filter(|log| matches(filter, &log.inner)));
        }
        if found.len() > LOGS_MAX {
            let message =
                format!("query returned more than {LOGS_MAX} results; ask for {first} to {}", number - 1);
            return Err(RpcError::limit(message));
        }
    }
    Ok(found)
}

fn matches(filter: &Filter, log: &RawLog) -> bool {
    filter.matches_address(log.address) && filter.matches_topics(log.topics())
}
