//! `eth_subscribe`: new heads and events, told over a WebSocket as blocks are sealed. A subscription is a cursor, as a filter is.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_primitives::U64;
use alloy_rpc_types_eth::Filter;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Answer, Rpc, blocks, logs, value};
use crate::error::{Reason, RpcError};
use crate::request::{Call, Params, Request};

/// Subscriptions of one connection: of a client that watches several contracts.
pub const SUBSCRIPTIONS_MAX: usize = 16;
/// Heads that one telling has at most: who is further behind is told of the newest alone.
const HEADS_MAX: u64 = 256;

#[derive(Debug, Clone)]
enum Kind {
    Heads,
    Logs(Arc<Filter>),
}

/// One connection's.
#[derive(Debug, Default)]
pub struct Subscriptions {
    cursors: BTreeMap<u64, (Kind, u64)>,
    last_id: u64,
}

impl Subscriptions {
    /// Whether there is anything to tell at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cursors.is_empty()
    }
}

impl Rpc {
    /// The newest block's number, and its changes.
    #[must_use]
    pub fn heads(&self) -> watch::Receiver<u64> {
        self.chain.heads()
    }

    /// As [`Rpc::serve`], for a connection that can be told of what comes later.
    #[must_use]
    pub fn serve_subscriber(&self, bytes: &[u8], subscriptions: &mut Subscriptions) -> Vec<u8> {
        let Ok(Request::Single(Ok(Call { id, method, params }))) = Request::decode(bytes) else {
            return self.serve(bytes);
        };
        let (label, result) = match method.as_str() {
            "eth_subscribe" => ("eth_subscribe", self.subscribe(Params::new(params), subscriptions)),
            "eth_unsubscribe" => ("eth_unsubscribe", unsubscribe(Params::new(params), subscriptions)),
            _ => return self.serve(bytes),
        };
        self.metrics.requests.with_label_values(&[label]).inc();
        let Some(id) = id else { return Vec::new() };
        let answer = match result {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
            Err(error) => self.refused(&id, &error),
        };
        answer.to_string().into_bytes()
    }

    fn subscribe(&self, mut params: Params, subscriptions: &mut Subscriptions) -> Answer {
        let name: String = params.required("subscription")?;
        let kind = match name.as_str() {
            "newHeads" => Kind::Heads,
            "logs" => {
                let filter: Option<Filter> = params.optional("filter")?;
                let filter = filter.unwrap_or_default();
                logs::check(&filter)?;
                Kind::Logs(Arc::new(filter))
            }
            _ => return Err(RpcError::new(Reason::InvalidParams, "subscriptions are newHeads and logs")),
        };
        params.finish()?;
        if subscriptions.cursors.len() >= SUBSCRIPTIONS_MAX {
            return Err(RpcError::limit(format!(
                "{SUBSCRIPTIONS_MAX} subscriptions are all that one connection has"
            )));
        }
        subscriptions.last_id += 1;
        let next = self.chain.head().header.number + 1;
        subscriptions.cursors.insert(subscriptions.last_id, (kind, next));
        Ok(json!(U64::from(subscriptions.last_id)))
    }

    /// What has come since the last call, as messages. Each is told once.
    ///
    /// # Errors
    /// [`RpcError`]: the store can't be read, or a filter lets more through than one answer has. The connection had better end.
    pub fn news(&self, subscriptions: &mut Subscriptions) -> Result<Vec<String>, RpcError> {
        let (reader, head) = self.look()?;
        let mut messages = Vec::new();
        for (id, (kind, next)) in &mut subscriptions.cursors {
            let first = std::mem::replace(next, (head + 1).max(*next));
            let results: Vec<Value> = match kind {
                Kind::Heads => (first.max((head + 1).saturating_sub(HEADS_MAX))..=head)
                    .map(|number| blocks::header(&reader, number))
                    .collect::<Result<_, _>>()?,
                Kind::Logs(filter) if first <= head => logs::matching(&reader, filter, first, head)?
                    .into_iter()
                    .map(value)
                    .collect::<Result<_, _>>()?,
                Kind::Logs(_) => Vec::new(),
            };
            messages.extend(results.into_iter().map(|result| {
                let params = json!({ "subscription": U64::from(*id), "result": result });
                json!({ "jsonrpc": "2.0", "method": "eth_subscription", "params": params }).to_string()
            }));
        }
        Ok(messages)
    }
}

fn unsubscribe(mut params: Params, subscriptions: &mut Subscriptions) -> Answer {
    let id: U64 = params.required("subscription id")?;
    params.finish()?;
    Ok(json!(subscriptions.cursors.remove(&id.to()).is_some()))
}
