//! The one thread that writes: it takes whatever has come in, commits it durably in one go, and only then answers.

use std::sync::Arc;

use caregate_host::kill_point;
use caregate_protocol::erasure::RequestHash;
use caregate_protocol::record::Record;
use caregate_protocol::search::{self, Tokens};
use caregate_protocol::uplink::{EraseRefusal, Refusal};
use thiserror::Error;
use tokio::sync::mpsc::OwnedPermit;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::metrics::Metrics;
use crate::search::{SearchError, SearchIndex};
use crate::store::{Outcome, Store, StoreError};

/// Most records in one commit: bounds the memory of a commit to what [`BATCH_BYTES_MAX`] allows anyway, and its length.
const BATCH_RECORDS_MAX: usize = 4096;
/// Most bytes in one commit: large enough that a backlog drains at disk speed, small enough to stay under 50 ms.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Records waiting for the writer over all gateways; beyond it QUIC's flow control holds the senders.
const QUEUE_RECORDS_MAX: usize = 1024;
/// Their bytes, with those being written: four commits of the largest size. It bounds the core's memory, since a record may
/// have 1 MiB.
const QUEUE_BYTES_MAX: usize = 4 * BATCH_BYTES_MAX;

/// The writer is gone.
#[derive(Debug, Error)]
#[error("the store has stopped")]
pub struct Stopped;

/// The way to the writer, shared by all gateways.
#[derive(Debug, Clone)]
pub struct Queue {
    sender: mpsc::Sender<Incoming>,
    room: Arc<Semaphore>,
}

/// The queue and its end for [`run`].
#[must_use]
pub fn queue() -> (Queue, mpsc::Receiver<Incoming>) {
    let (sender, incoming) = mpsc::channel(QUEUE_RECORDS_MAX);
    (Queue { sender, room: Arc::new(Semaphore::new(QUEUE_BYTES_MAX)) }, incoming)
}

impl Queue {
    /// Waits for room, and queues a record whose signature has been checked. `position` is its place at the gateway;
    /// `answer` is a place already taken on the gateway's control stream, so that no answer can be lost or block the writer.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn put(
        &self,
        position: u64,
        record: Vec<u8>,
        answer: OwnedPermit<Answer>,
    ) -> Result<(), Stopped> {
        let bytes = u32::try_from(record.len()).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes).await.map_err(|_closed| Stopped)?;
        let incoming = Incoming { position, record, answer, _room: room };
        self.sender.send(incoming).await.map_err(|_gone| Stopped)
    }
}

/// A record on its way to the store.
#[derive(Debug)]
pub struct Incoming {
    position: u64,
    record: Vec<u8>,
    answer: OwnedPermit<Answer>,
    _room: OwnedSemaphorePermit,
}

/// What the gateway's control stream is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Durable here.
    Ack(u64),
    /// Will not be taken.
    Refuse(u64, Refusal),
    /// Not of the writer, but on the same stream: what staff send down.
    Command(Vec<u8>),
    /// As well: the receipt of an erasure.
    Erased(Vec<u8>),
    /// As well: what was not erased.
    EraseRefused(RequestHash, EraseRefusal),
}

/// Nothing of that commit was acknowledged; the gateways keep it and send it again to a core that can store.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The search index did.
    #[error(transparent)]
    Search(#[from] SearchError),
}

/// Where records go.
#[derive(Debug, Clone)]
pub struct Stores {
    /// Segments, wraps and heads.
    pub store: Arc<dyn Store>,
    /// Tokens.
    pub search: Arc<SearchIndex>,
}

impl Stores {
    /// Stores a batch, each record where it belongs. Outcomes are in the batch's order.
    fn put(&self, records: Vec<Vec<u8>>) -> Result<Vec<Outcome>, WriteError> {
        let is_tokens: Vec<_> = records.iter().map(|record| record.starts_with(&search::MAGIC)).collect();
        if !is_tokens.contains(&true) {
            return Ok(self.store.put(&records)?);
        }
        let (mut tokens, mut others) = (Vec::new(), Vec::new());
        for record in records {
            match Record::decode(&record) {
                Ok(Record::Tokens(signed)) => tokens.push(signed.tokens),
                // What does not parse was refused before it came here.
                Ok(_) | Err(_) => others.push(record),
            }
        }
        let erased = self.store.erased()?;
        let is_erased = |tokens: &Tokens| erased.contains(&tokens.patient);
        let of_tokens: Vec<_> = tokens
            .iter()
            .map(|tokens| if is_erased(tokens) { Outcome::Refused(Refusal::Erased) } else { Outcome::Stored })
            .collect();
        tokens.retain(|tokens| !is_erased(tokens));
        self.search.put(&tokens)?;
        let (mut of_tokens, mut others) = (of_tokens.into_iter(), self.store.put(&others)?.into_iter());
        let each = is_tokens.into_iter().map(|is| if is { of_tokens.next() } else { others.next() });
        Ok(each.map(|outcome| outcome.unwrap_or(Outcome::Stored)).collect())
    }
}

/// Runs until every [`Queue`] is gone. `stored` is raised after each commit.
///
/// # Errors
/// [`WriteError`].
pub fn run(
    stores: &Stores,
    mut incoming: mpsc::Receiver<Incoming>,
    stored: &watch::Sender<u64>,
    metrics: &Metrics,
) -> Result<(), WriteError> {
    while let Some(first) = incoming.blocking_recv() {
        let mut bytes = first.record.len();
        let (mut records, mut replies, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(Incoming { position, record, answer, _room: room }) = next {
            lengths.push(record.len());
            records.push(record);
            replies.push((position, answer, room));
            next = None;
            if records.len() < BATCH_RECORDS_MAX && bytes < BATCH_BYTES_MAX {
                next = incoming.try_recv().ok();
                bytes += next.as_ref().map_or(0, |incoming| incoming.record.len());
            }
        }
        kill_point::pass("writer.gathered");
        let outcomes = stores.put(records)?;
        kill_point::pass("writer.stored");
        metrics.commits.inc();
        stored.send_modify(|commits| *commits += 1);
        for ((position, answer, _room), (outcome, length)) in
            replies.into_iter().zip(outcomes.into_iter().zip(lengths))
        {
            // A connection that is gone does not hear it; its gateway sends again and is told then.
            answer.send(note(position, outcome, length, metrics));
            kill_point::pass("writer.answered-one");
        }
        kill_point::pass("writer.answered");
    }
    Ok(())
}

fn note(position: u64, outcome: Outcome, bytes: usize, metrics: &Metrics) -> Answer {
    match outcome {
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
    }
}
