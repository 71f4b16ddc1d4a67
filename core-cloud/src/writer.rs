//! The one thread that writes: it takes whatever has come in, commits it durably in one go, and only then answers.

use std::sync::Arc;

use caregate_protocol::uplink::Refusal;
use tokio::sync::{mpsc, watch};
use tracing::error;

use crate::metrics::Metrics;
use crate::store::{Outcome, Store};

/// Most records in one commit: bounds the memory of a commit to what [`BATCH_BYTES_MAX`] allows anyway, and its length.
const BATCH_RECORDS_MAX: usize = 4096;
/// Most bytes in one commit: large enough that a backlog drains at disk speed, small enough to stay under 50 ms.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Records waiting for the writer over all gateways; beyond it QUIC's flow control holds the senders.
pub const QUEUE_RECORDS_MAX: usize = 1024;

/// A record whose signature has been checked, on its way to the store.
#[derive(Debug)]
pub struct Incoming {
    /// Its position at the gateway.
    pub position: u64,
    /// Its bytes.
    pub record: Vec<u8>,
    /// Where to answer.
    pub answer: mpsc::Sender<Answer>,
}

/// What the gateway's control stream is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Durable here.
    Ack(u64),
    /// Will not be taken.
    Refuse(u64, Refusal),
}

/// Runs until all senders of `incoming` are gone, or the store fails. `stored` is raised after each commit.
pub fn run(
    store: &Arc<Store>,
    mut incoming: mpsc::Receiver<Incoming>,
    stored: &watch::Sender<u64>,
    metrics: &Metrics,
) {
    while let Some(first) = incoming.blocking_recv() {
        let mut bytes = first.record.len();
        let mut batch = vec![first];
        while batch.len() < BATCH_RECORDS_MAX && bytes < BATCH_BYTES_MAX {
            let Ok(next) = incoming.try_recv() else { break };
            bytes += next.record.len();
            batch.push(next);
        }
        let (records, replies): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|i| (i.record, (i.position, i.answer))).unzip();
        match store.put(&records) {
            Ok(outcomes) => {
                metrics.commits.inc();
                stored.send_modify(|commits| *commits += 1);
                for ((position, answer), (outcome, record)) in
                    replies.into_iter().zip(outcomes.into_iter().zip(&records))
                {
                    reply(position, &answer, outcome, record.len(), metrics);
                }
            }
            Err(failure) => {
                // Nothing is acknowledged: the gateways keep what they sent and send it again to a core that can store.
                error!(%failure, "store failed; the core stops taking records");
                return;
            }
        }
    }
}

fn reply(position: u64, answer: &mpsc::Sender<Answer>, outcome: Outcome, bytes: usize, metrics: &Metrics) {
    let message = match outcome {
        Outcome::Stored => {
            metrics.records.with_label_values(&["stored"]).inc();
            metrics.bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
            Answer::Ack(position)
        }
        Outcome::Known => {
            metrics.records.with_label_values(&["known"]).inc();
            Answer::Ack(position)
        }
        Outcome::Refused(refusal) => {
            metrics.records.with_label_values(&["refused"]).inc();
            metrics.refused.with_label_values(&[refusal.as_str()]).inc();
            Answer::Refuse(position, refusal)
        }
    };
    // A connection that is gone, or so slow in taking acks that its queue is full, gets them when it sends again.
    if answer.try_send(message).is_err() {
        metrics.records.with_label_values(&["unanswered"]).inc();
    }
}
