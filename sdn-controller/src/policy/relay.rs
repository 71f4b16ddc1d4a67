//! Revocations on their way to the ledger: each is tried until it is in a block, or the contract refuses it.
//!
//! None is lost with the controller: the gateway that took one repeats it until a bundle shows it, and what was handed to the
//! controller itself is in [`Waiting`](super::Waiting), from which it begins anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caregate_host::clock;
use caregate_protocol::policy::RelationshipId;
use caregate_protocol::policy::delivery::Anchor;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Policy;
use super::ledger::Failure;
use crate::events::Kind;

/// Revocations that wait: a ward's patients all at once.
pub const PENDING_MAX: usize = 256;
/// Transactions at once: a node makes a block of some thousand, one after the other here.
const SENDING_MAX: usize = 4;
/// Between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// For so long one that is in a block is not sent again: the bundle that shows it is on its way.
const DONE_INTERVAL: Duration = Duration::from_secs(30);

/// Why a revocation was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RelayError {
    /// By a key of another relationship, for another ledger, or by none.
    #[error("the revocation is not signed by a key of its relationship")]
    Signature,
    /// More than [`PENDING_MAX`].
    #[error("{PENDING_MAX} revocations wait for the ledger already; hand it to the gateway itself")]
    Busy,
    /// It could not be made durable.
    #[error("the revocation could not be kept; hand it to the gateway itself")]
    Store,
}

type Key = (RelationshipId, u64);

#[derive(Debug)]
enum State {
    Due(Instant),
    Sending,
    Done(Instant),
}

#[derive(Debug)]
struct Pending {
    anchor: Anchor,
    state: State,
}

/// Relays what comes until `shutdown`.
pub(super) async fn run(policy: Policy, mut anchors: mpsc::Receiver<Anchor>, shutdown: CancellationToken) {
    let mut pending: HashMap<Key, Pending> = HashMap::new();
    for anchor in policy.waiting.all() {
        add(&mut pending, anchor, clock::monotonic());
    }
    let mut sending: JoinSet<(Key, Result<(), Failure>)> = JoinSet::new();
    loop {
        let now = clock::monotonic();
        pending.retain(|_, pending| !matches!(pending.state, State::Done(until) if now >= until));
        begin_due(&policy, &mut pending, &mut sending, now);
        let next = pending.values().filter_map(|pending| match pending.state {
            State::Due(at) | State::Done(at) => Some(at.max(now + Duration::from_millis(10))),
            State::Sending => None,
        });
        let next = next.min().unwrap_or(now + DONE_INTERVAL);
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some(anchor) = anchors.recv(), if pending.len() < PENDING_MAX => {
                add(&mut pending, anchor, now);
            }
            Some(sent) = sending.join_next() => if let Ok((key, result)) = sent {
                end(&policy, &mut pending, key, &result);
            },
            () = sleep_until(next.into()) => {}
        }
    }
}

fn add(pending: &mut HashMap<Key, Pending>, anchor: Anchor, now: Instant) {
    let revocation = &anchor.revocation.revocation;
    let key = (revocation.relationship, revocation.version);
    pending.entry(key).or_insert(Pending { anchor, state: State::Due(now) });
}

fn begin_due(
    policy: &Policy,
    pending: &mut HashMap<Key, Pending>,
    sending: &mut JoinSet<(Key, Result<(), Failure>)>,
    now: Instant,
) {
    for (key, pending) in pending.iter_mut() {
        let is_due = matches!(pending.state, State::Due(at) if now >= at);
        if is_due && sending.len() < SENDING_MAX {
            pending.state = State::Sending;
            let (ledger, anchor, key) = (policy.ledger.clone(), pending.anchor.clone(), *key);
            sending.spawn(async move { (key, ledger.revoke(&anchor).await) });
        }
    }
}

fn end(policy: &Policy, all: &mut HashMap<Key, Pending>, key: Key, result: &Result<(), Failure>) {
    let Some(pending) = all.get_mut(&key) else { return };
    let now = clock::monotonic();
    let counted = |outcome: &str| policy.metrics.revocations.with_label_values(&[outcome]).inc();
    pending.state = match result {
        Ok(()) => {
            counted("anchored");
            info!("a revocation is on the ledger");
            policy.events.push(Kind::Revocation, "revocation", "is on the ledger");
            State::Done(now + DONE_INTERVAL)
        }
        Err(failure) if failure.is_final => {
            counted(failure.reason);
            warn!(error = failure.text, "the ledger refuses a revocation");
            policy.events.push(Kind::Revocation, "revocation", failure.text.as_str());
            State::Done(now + DONE_INTERVAL)
        }
        Err(failure) => {
            counted(failure.reason);
            warn!(error = failure.text, "a revocation is not on the ledger yet");
            State::Due(now + RETRY_INTERVAL)
        }
    };
    if matches!(pending.state, State::Done(_)) {
        let waiting = Arc::clone(&policy.waiting);
        tokio::task::spawn_blocking(move || waiting.forget(key));
    }
}
