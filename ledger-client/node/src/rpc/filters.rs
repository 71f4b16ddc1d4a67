//! Filters that a client polls. A filter is a cursor: what comes after it is read from the chain, nothing is kept for anybody.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use alloy_primitives::{B256, U64};
use alloy_rpc_types_eth::Filter;
use caregate_host::clock;
use serde_json::json;

use super::{Answer, Rpc, logs, value};
use crate::error::{Reason, RpcError};
use crate::request::Params;

/// Most filters at once, of all clients; the one that was polled longest ago goes first.
const FILTERS_MAX: usize = 256;
/// A filter that nobody polls for so long is gone, as geth has it.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// Most block ids of one answer; the rest comes with the next.
const BLOCKS_MAX: u64 = 1024;

#[derive(Clone)]
enum Kind {
    Blocks,
    Logs(Arc<Filter>),
}

struct Cursor {
    kind: Kind,
    /// The first block that was not looked at.
    next: u64,
    polled: Instant,
}

/// All filters, by id.
#[derive(Default)]
pub(super) struct Filters {
    cursors: BTreeMap<u64, Cursor>,
    last_id: u64,
}

impl Filters {
    fn add(&mut self, kind: Kind, next: u64, now: Instant) -> u64 {
        self.cursors.retain(|_, cursor| now.duration_since(cursor.polled) < IDLE_MAX);
        if self.cursors.len() >= FILTERS_MAX
            && let Some(oldest) = self.cursors.iter().min_by_key(|(_, cursor)| cursor.polled)
        {
            let oldest = *oldest.0;
            self.cursors.remove(&oldest);
        }
        self.last_id += 1;
        self.cursors.insert(self.last_id, Cursor { kind, next, polled: now });
        self.last_id
    }
}

impl Rpc {
    pub(super) fn new_block_filter(&self, params: Params) -> Answer {
        params.finish()?;
        self.add_filter(Kind::Blocks)
    }

    pub(super) fn new_log_filter(&self, mut params: Params) -> Answer {
        let filter: Filter = params.required("filter")?;
        params.finish()?;
        logs::check(&filter)?;
        self.add_filter(Kind::Logs(Arc::new(filter)))
    }

    fn add_filter(&self, kind: Kind) -> Answer {
        let next = self.chain.head().header.number + 1;
        let mut filters = self.filters.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(json!(U64::from(filters.add(kind, next, clock::monotonic()))))
    }

    pub(super) fn filter_changes(&self, mut params: Params) -> Answer {
        let id: U64 = params.required("filter id")?;
        params.finish()?;
        let (reader, head) = self.look()?;
        let unknown = || RpcError::new(Reason::NotFound, "filter not found");
        let (kind, first, end) = {
            let mut filters = self.filters.lock().unwrap_or_else(PoisonError::into_inner);
            let cursor = filters.cursors.get_mut(&id.to()).ok_or_else(unknown)?;
            cursor.polled = clock::monotonic();
            let first = cursor.next;
            let end = match cursor.kind {
                Kind::Blocks => (head + 1).min(first.saturating_add(BLOCKS_MAX)),
                Kind::Logs(_) => head + 1,
            };
            cursor.next = end.max(first);
            (cursor.kind.clone(), first, end)
        };
        if first >= end {
            return Ok(json!([]));
        }
        // Read without the lock: a long answer to one client holds up no other.
        let answer = match kind {
            Kind::Blocks => (first..end)
                .map(|number| Ok(Self::header(&reader, number)?.id))
                .collect::<Result<Vec<B256>, RpcError>>()
                .and_then(value),
            Kind::Logs(filter) => logs::matching(&reader, &filter, first, end - 1).and_then(value),
        };
        if answer.is_err() {
            // Nothing was handed out, so it is still to come.
            let mut filters = self.filters.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(cursor) = filters.cursors.get_mut(&id.to()) {
                cursor.next = first;
            }
        }
        answer
    }

    pub(super) fn uninstall_filter(&self, mut params: Params) -> Answer {
        let id: U64 = params.required("filter id")?;
        params.finish()?;
        let mut filters = self.filters.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(json!(filters.cursors.remove(&id.to()).is_some()))
    }
}
