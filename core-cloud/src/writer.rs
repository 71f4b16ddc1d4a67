//! The one thread that writes: it takes whatever has come in, commits it durably in one go, and only then answers. What came live and
//! backlog have queues and commits of their own; `pace` says whose turn it is. A record whose pseudonym was taken over while it waited is
//! refused.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use caregate_host::{clock, kill_point};
use caregate_protocol::erasure::RequestHash;
use caregate_protocol::id::PatientId;
use caregate_protocol::record::Record;
use caregate_protocol::search::{self, Tokens};
use caregate_protocol::uplink::{EraseRefusal, Frame, Refusal, Timing};
use prometheus::IntGauge;
use thiserror::Error;
use tokio::sync::mpsc::OwnedPermit;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::metrics::Metrics;
use crate::owners::Owners;
use crate::pace::{BATCH_BYTES_MAX, Pace, Turn};
use crate::search::{SearchError, SearchIndex};
use crate::store::{Outcome, Store, StoreError};

/// Most records in one commit: bounds the memory of a commit to what [`BATCH_BYTES_MAX`] allows anyway, and its length.
const BATCH_RECORDS_MAX: usize = 4096;
/// Records of either kind waiting for the writer over all gateways; beyond it QUIC's flow control holds the senders.
const QUEUE_RECORDS_MAX: usize = 1024;
/// Their bytes, with those being written: two commits of the largest size. It bounds the core's memory, since a record may
/// have 1 MiB.
const QUEUE_BYTES_MAX: usize = 2 * BATCH_BYTES_MAX;

/// The writer is gone.
#[derive(Debug, Error)]
#[error("the store has stopped")]
pub struct Stopped;

/// The way to the writer, shared by all gateways.
#[derive(Debug, Clone)]
pub struct Queue {
    live: Door,
    backlog: Door,
}

/// Where records of one kind come in.
#[derive(Debug, Clone)]
struct Door {
    sender: mpsc::Sender<Incoming>,
    room: Arc<Semaphore>,
    waiting: IntGauge,
}

/// Counts a record that waits, until it is dropped.
#[derive(Debug)]
struct Counted(IntGauge);

impl Counted {
    fn new(waiting: &IntGauge) -> Self {
        waiting.inc();
        Self(waiting.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What comes in, for [`run`].
#[derive(Debug)]
pub struct Inbox {
    live: Waiting,
    backlog: Waiting,
}

/// Records of one kind that wait.
#[derive(Debug)]
struct Waiting {
    incoming: mpsc::Receiver<Incoming>,
    first: Option<Incoming>,
    has_ended: bool,
}

/// The queue and its end for [`run`].
#[must_use]
pub fn queue(metrics: &Metrics) -> (Queue, Inbox) {
    let door = |timing: Timing| {
        let (sender, incoming) = mpsc::channel(QUEUE_RECORDS_MAX);
        let (room, waiting) = (
            Arc::new(Semaphore::new(QUEUE_BYTES_MAX)),
            metrics.waiting.with_label_values(&[timing.as_str()]),
        );
        let door = Door { sender, room, waiting };
        (door, Waiting { incoming, first: None, has_ended: false })
    };
    let ((live, of_live), (backlog, of_backlog)) = (door(Timing::Live), door(Timing::Backlog));
    (Queue { live, backlog }, Inbox { live: of_live, backlog: of_backlog })
}

impl Queue {
    /// Waits for room, and queues a record whose signature has been checked, and that its pseudonym is its gateway's, for which it is looked
    /// at again when it is written. `position` is its place at the gateway; `answer` is a place already taken on the gateway's control
    /// stream, so that no answer can be lost or block the writer. Live records and backlog never wait for each other's room.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn put(
        &self,
        (position, timing): (u64, Timing),
        (record, claim): (Vec<u8>, Claim),
        answer: OwnedPermit<Answer>,
    ) -> Result<(), Stopped> {
        let door = match timing {
            Timing::Live => &self.live,
            Timing::Backlog => &self.backlog,
        };
        let counted = Counted::new(&door.waiting);
        let bytes = u32::try_from(record.len()).unwrap_or(u32::MAX);
        let room = Arc::clone(&door.room).acquire_many_owned(bytes).await.map_err(|_closed| Stopped)?;
        let incoming = Incoming { position, record, claim, answer, _held: (room, counted) };
        door.sender.send(incoming).await.map_err(|_gone| Stopped)
    }
}

impl Waiting {
    /// Whether one waits.
    fn any(&mut self) -> bool {
        if self.first.is_none() {
            self.first = self.incoming.try_recv().ok();
        }
        self.first.is_some()
    }

    /// Until one waits, or none comes any more. Cancel-safe.
    async fn come(&mut self) {
        self.first = self.incoming.recv().await;
        self.has_ended = self.first.is_none();
    }

    fn may_come(&self) -> bool {
        self.first.is_none() && !self.has_ended
    }

    /// All that wait, up to `bytes_max` and one record more.
    fn gather(&mut self, bytes_max: usize) -> Vec<Incoming> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_RECORDS_MAX && bytes < bytes_max && self.any() {
            let Some(incoming) = self.first.take() else { break };
            bytes += incoming.record.len();
            batch.push(incoming);
        }
        batch
    }
}

impl Inbox {
    /// What is to be committed next; nothing where nobody can send any more.
    async fn next(&mut self, pace: &mut Pace) -> Option<(Timing, Vec<Incoming>)> {
        loop {
            match pace.turn(self.live.any(), self.backlog.any(), clock::monotonic()) {
                Turn::Write(Timing::Live, bytes_max) => {
                    return Some((Timing::Live, self.live.gather(bytes_max)));
                }
                Turn::Write(Timing::Backlog, bytes_max) => {
                    return Some((Timing::Backlog, self.backlog.gather(bytes_max)));
                }
                Turn::Wait(until) => tokio::select! {
                    () = self.live.come(), if self.live.may_come() => {}
                    () = self.backlog.come(), if self.backlog.may_come() => {}
                    () = rested(until), if until.is_some() => {}
                    else => return None,
                },
            }
        }
    }
}

async fn rested(until: Option<Instant>) {
    if let Some(until) = until {
        tokio::time::sleep_until(until.into()).await;
    }
}

/// Whose a record's pseudonym was when it came.
#[derive(Debug)]
pub struct Claim {
    /// Of the record.
    pub patient: PatientId,
    /// Who brought it.
    pub gateway: Arc<str>,
    /// Whose those are of which records were refused over its connection.
    pub waits_for: watch::Sender<BTreeSet<Arc<str>>>,
}

/// A record on its way to the store.
#[derive(Debug)]
pub struct Incoming {
    position: u64,
    record: Vec<u8>,
    claim: Claim,
    answer: OwnedPermit<Answer>,
    _held: (OwnedSemaphorePermit, Counted),
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
    /// As well: policy that a feed hands in, sealed to the gateway.
    Offer(Vec<u8>),
    /// As well: under which generations a chain was sealed, as a frame.
    Generations(Frame),
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
    /// The system gives no timer.
    #[error("the writer's timer: {0}")]
    Timer(#[from] std::io::Error),
}

/// Where records go, and whose they may be.
#[derive(Debug, Clone)]
pub struct Stores {
    /// Whose which pseudonym is.
    pub owners: Owners,
    /// Segments, wraps and heads.
    pub store: Arc<dyn Store>,
    /// Tokens.
    pub search: Arc<SearchIndex>,
}

impl Stores {
    /// Stores a batch, each record where it belongs. Outcomes are in the batch's order.
    fn put(&self, records: Vec<Vec<u8>>, as_of: Timing) -> Result<Vec<Outcome>, WriteError> {
        let is_tokens: Vec<_> = records.iter().map(|record| record.starts_with(&search::MAGIC)).collect();
        if !is_tokens.contains(&true) {
            return Ok(self.store.put_as(&records, as_of)?);
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
        let (mut of_tokens, mut others) =
            (of_tokens.into_iter(), self.store.put_as(&others, as_of)?.into_iter());
        let each = is_tokens.into_iter().map(|is| if is { of_tokens.next() } else { others.next() });
        Ok(each.map(|outcome| outcome.unwrap_or(Outcome::Stored)).collect())
    }
}

/// Runs until every [`Queue`] is gone. `stored` is raised after each commit. Not on a thread of a runtime.
///
/// # Errors
/// [`WriteError`].
pub fn run(
    stores: &Stores,
    mut inbox: Inbox,
    stored: &watch::Sender<u64>,
    metrics: &Metrics,
) -> Result<(), WriteError> {
    let waiting = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let mut pace = Pace::default();
    while let Some((timing, batch)) = waiting.block_on(inbox.next(&mut pace)) {
        let began = clock::monotonic();
        write(stores, (timing, batch), stored, metrics)?;
        if timing == Timing::Backlog {
            pace.wrote_backlog(began, clock::monotonic());
        }
    }
    Ok(())
}

fn write(
    stores: &Stores,
    (timing, batch): (Timing, Vec<Incoming>),
    stored: &watch::Sender<u64>,
    metrics: &Metrics,
) -> Result<(), WriteError> {
    let batch = still_owned(&stores.owners, batch, metrics);
    if batch.is_empty() {
        return Ok(());
    }
    let (mut records, mut replies) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
    for Incoming { position, record, answer, _held: held, .. } in batch {
        replies.push((position, record.len(), answer, held));
        records.push(record);
    }
    kill_point::pass("writer.gathered");
    let outcomes = stores.put(records, timing)?;
    kill_point::pass("writer.stored");
    metrics.commits.inc();
    stored.send_modify(|commits| *commits += 1);
    for ((position, length, answer, _held), outcome) in replies.into_iter().zip(outcomes) {
        // A connection that is gone does not hear it; its gateway sends again and is told then.
        answer.send(note(position, outcome, length, metrics));
        kill_point::pass("writer.answered-one");
    }
    kill_point::pass("writer.answered");
    Ok(())
}

/// Refuses what is of pseudonyms that were taken over while it waited: stored after the next gateway's records it would give them back. What
/// passes is stored before anything that a later owner brings, and of each pseudonym it is one gateway's, so that a commit whose parts are
/// tried again, in another order, comes to the same owners.
fn still_owned(owners: &Owners, batch: Vec<Incoming>, metrics: &Metrics) -> Vec<Incoming> {
    let lost = owners.lost(batch.iter().map(|incoming| (incoming.claim.patient, &incoming.claim.gateway)));
    let mut passed = Vec::with_capacity(batch.len());
    for (incoming, owner) in batch.into_iter().zip(lost) {
        let Some(owner) = owner else {
            passed.push(incoming);
            continue;
        };
        // Before the answer: that connection ends when this owner is gone, as where the record is refused when it comes.
        incoming.claim.waits_for.send_if_modified(|owners| owners.insert(owner));
        let refused = Outcome::Refused(Refusal::Stranger);
        incoming.answer.send(note(incoming.position, refused, incoming.record.len(), metrics));
    }
    passed
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
