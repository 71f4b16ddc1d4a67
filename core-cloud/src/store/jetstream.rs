//! The store on a stream of a NATS server (JetStream).
//!
//! ```text
//!  put ─▶ tables decide ─▶ messages, one for each patient and class ─▶ stream, synced ─▶ places into the tables ─▶ outcomes
//!                                                                        │
//!  open, or after a failure ◀──── whatever the tables have not seen ─────┘
//! ```
//! The stream is the truth: each message holds records and what they put into queues, so that the tables (`index.redb` beside the core)
//! can be made anew from it and are synced only now and then. Each message names the sequence that it follows
//! (`Nats-Expected-Last-Sequence`): of two cores on one stream only one writes at a time, and a message that was given up can't come late.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use async_nats::{HeaderMap, jetstream};
use bytes::Bytes;
use caregate_host::admin::Condition;
use caregate_host::clock;
use caregate_protocol::entry;
use caregate_protocol::erasure::{Receipt, SignedErasure};
use caregate_protocol::id::{DataClass, PatientId, RecipientId, SignerId};
use caregate_protocol::uplink::{Question, Timing, Used};
use redb::{Database, Durability, WriteTransaction};
use tokio::runtime::Runtime;
use tracing::{info, warn};

use super::erase::{self, Begun};
use super::index::{self, Keep, Tables};
use super::rows::Place;
use super::{Erased, Expired, Outcome, Page, Past, Span, Store, StoreError, failed, history};

mod expire;
mod message;
mod server;
mod tables;

use message::{Held, Message};
pub use server::Settings;
use tables::{applied, mark, open_tables};

/// Commits of the tables for one that is synced: what a crash leaves out is read again from the stream, some seconds of it.
const SYNCED_EVERY: u32 = 32;
/// How long a batch is tried while the server does not take it: longer than a server's restart or a change of leader. Then the
/// process ends, having acknowledged nothing of it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries.
const RETRY: Duration = Duration::from_millis(250);
/// Messages of the stream that are read into the tables in one commit.
const REPLAY_MAX: usize = 256;
/// Newest messages that are kept for feeds that follow live: some seconds of a large site.
const RECENT_BYTES_MAX: usize = 16 << 20;

/// What went wrong in one try.
enum Failure {
    /// The tables' own disk, or what must not be: no second try.
    Here(StoreError),
    /// The server or the way to it.
    There(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Here(error)
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Here(error) | Failure::There(error) => error,
        }
    }
}

fn there<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    doing: &'static str,
) -> impl FnOnce(E) -> Failure {
    move |source| Failure::There(failed(doing)(source))
}

/// What only the writer changes.
#[derive(Debug)]
struct Written {
    /// The last sequence of the stream that the tables have seen.
    applied: u64,
    /// Commits since the last one that was synced.
    unsynced: u32,
    /// Whether the stream may hold what the tables have not seen.
    behind: bool,
    /// Which of the client's connections it was whose servers said how they sync.
    checked: u64,
}

/// The newest messages.
#[derive(Debug, Default)]
struct Recent {
    messages: BTreeMap<u64, Bytes>,
    bytes: usize,
}

impl Recent {
    fn clear(&mut self) {
        *self = Self::default();
    }

    fn remove(&mut self, sequence: u64) {
        self.bytes -= self.messages.remove(&sequence).map_or(0, |payload| payload.len());
    }

    fn insert(&mut self, sequence: u64, payload: Bytes) {
        self.bytes += payload.len();
        self.messages.insert(sequence, payload);
        while self.bytes > RECENT_BYTES_MAX
            && let Some((_, oldest)) = self.messages.pop_first()
        {
            self.bytes -= oldest.len();
        }
    }
}

/// The store.
#[derive(Debug)]
pub struct JetStream {
    /// Taken only when it is dropped.
    runtime: Option<Runtime>,
    context: jetstream::Context,
    stream: Stream,
    settings: Settings,
    message_bytes_max: usize,
    db: Database,
    written: Mutex<Written>,
    recent: Mutex<Recent>,
    storing: Option<Condition>,
}

impl JetStream {
    /// Connects, makes the stream where there is none, and brings the tables in `dir` up to it. Not on a thread of a runtime.
    ///
    /// # Errors
    /// [`StoreError`]: no server, one whose acknowledgement is not durable, a stream of another shape, one that has lost what the tables
    /// have seen, or tables of another stream.
    pub fn open(dir: &Path, settings: &Settings) -> Result<Self, StoreError> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).thread_name("nats").enable_all().build();
        let runtime = runtime.map_err(failed("start the client's thread"))?;
        let opened = runtime.block_on(server::open(settings))?;
        let db = open_tables(dir)?;
        let written =
            Written { applied: applied(&db)?, unsynced: 0, behind: true, checked: opened.connection };
        let store = Self {
            runtime: Some(runtime),
            context: opened.context,
            stream: opened.stream,
            settings: settings.clone(),
            message_bytes_max: opened.message_bytes_max,
            written: Mutex::new(written),
            recent: Mutex::default(),
            storing: None,
            db,
        };
        let mut written = store.written();
        tables::pair(&store.db, &opened.info)?;
        store.catch_up(&mut written)?;
        store.resume_erasures(&mut written)?;
        info!(stream = settings.stream, sequence = written.applied, "the store is a NATS stream");
        drop(written);
        Ok(store)
    }

    /// Says in the daemon's readiness whether the server takes what it is given.
    #[must_use]
    pub fn telling(mut self, storing: Condition) -> Self {
        self.storing = Some(storing);
        self
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<T>(&self, future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        match &self.runtime {
            Some(runtime) => runtime.block_on(future),
            None => Err(Failure::Here(failed("wait")("the store is closed"))),
        }
    }

    /// Asks again how the servers sync where the client has connected since they were asked: a server may have come back without it.
    fn check(&self, written: &mut Written) -> Result<(), Failure> {
        let connection = server::connection(&self.context.client());
        if connection != written.checked {
            self.wait(server::check(&self.settings, server::majority(self.settings.replicas)))?;
            written.checked = connection;
        }
        Ok(())
    }

    /// Reads into the tables what the stream holds beyond them.
    fn catch_up(&self, written: &mut Written) -> Result<(), Failure> {
        let info = self.wait(async { self.stream.get_info().await.map_err(there("ask for the stream")) })?;
        let last = info.state.last_sequence;
        if last < written.applied {
            let text = format!("the stream ends at {last}, and {} was acknowledged", written.applied);
            return Err(Failure::Here(failed("catch up")(text)));
        }
        let subject = format!("{}.>", self.settings.stream);
        loop {
            let mut messages = Vec::new();
            let mut from = written.applied + 1;
            while messages.len() < REPLAY_MAX
                && from <= last
                && let Some((sequence, payload)) = self.next_message(from, &subject)?
            {
                from = sequence + 1;
                messages.push((sequence, payload));
            }
            let ends = messages.len() < REPLAY_MAX;
            let until = if ends { last } else { from - 1 };
            self.check(written)?;
            self.replay(&messages, until)?;
            written.applied = until.max(messages.last().map_or(0, |(sequence, _)| *sequence));
            if ends {
                written.behind = false;
                return Ok(());
            }
        }
    }

    fn next_message(&self, from: u64, subject: &str) -> Result<Option<(u64, Bytes)>, Failure> {
        let request = self.stream.raw_message_builder().sequence(from).next_by_subject(subject);
        self.wait(async {
            match request.send().await {
                Ok(found) => Ok(Some((found.sequence, found.payload))),
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
                Err(error) => Err(there("read the stream")(error)),
            }
        })
    }

    fn replay(&self, messages: &[(u64, Bytes)], until: u64) -> Result<(), StoreError> {
        let txn = self.db.begin_write().map_err(failed("begin"))?;
        let mut tables = Tables::open(&txn, Keep::Elsewhere)?;
        for (sequence, payload) in messages {
            for entry in entry::decode(payload).map_err(failed("read the stream's entries"))? {
                let held = Held::of(entry.index, entry.record, entry.offset);
                tables.apply(&entry, &held.place(*sequence).encode())?;
            }
        }
        tables.settle()?;
        drop(tables);
        mark(&txn, messages.last().map_or(until, |(sequence, _)| until.max(*sequence)))?;
        txn.commit().map_err(failed("commit"))
    }

    fn try_put(
        &self,
        written: &mut Written,
        batch: &[Vec<u8>],
        as_of: Timing,
    ) -> Result<Vec<Outcome>, Failure> {
        if written.behind {
            self.catch_up(written)?;
        }
        let mut txn = self.db.begin_write().map_err(failed("begin"))?;
        if written.unsynced < SYNCED_EVERY {
            txn.set_durability(Durability::None).map_err(failed("set durability"))?;
        }
        let mut tables = Tables::open(&txn, Keep::Elsewhere)?;
        tables.as_of = as_of;
        let outcomes = batch.iter().map(|bytes| tables.put(bytes)).collect::<Result<Vec<_>, _>>()?;
        let stored = batch.iter().zip(&outcomes).filter(|(_, outcome)| **outcome == Outcome::Stored);
        let noted = std::mem::take(&mut tables.noted);
        let messages =
            message::gather(stored.map(|(bytes, _)| bytes.as_slice()).zip(noted), self.message_bytes_max);
        if messages.is_empty() {
            return Ok(outcomes);
        }
        tables.settle()?;
        drop(tables);
        self.store_messages(written, &txn, messages)?;
        txn.commit().map_err(failed("commit"))?;
        written.unsynced = if written.unsynced < SYNCED_EVERY { written.unsynced + 1 } else { 0 };
        written.behind = false;
        Ok(outcomes)
    }

    /// Messages in the stream.
    #[cfg(test)]
    pub(super) fn messages(&self) -> u64 {
        let info = self.wait(async { self.stream.get_info().await.map_err(there("ask for the stream")) });
        info.map_or(0, |info| info.state.messages)
    }

    /// Again and again, while the server does not take it, for [`PATIENCE`].
    fn retried<T>(
        &self,
        written: &mut Written,
        mut work: impl FnMut(&mut Written) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let deadline = clock::monotonic() + PATIENCE;
        loop {
            let done = self.check(written).and_then(|()| work(written));
            if let Some(storing) = &self.storing {
                storing.set(done.is_ok());
            }
            match done {
                Ok(done) => return Ok(done),
                Err(Failure::There(error)) if clock::monotonic() < deadline => {
                    warn!(%error, "the stream server did not take it; it is tried again");
                    std::thread::sleep(RETRY);
                }
                Err(failure) => return Err(failure.into()),
            }
        }
    }

    fn begin_erasure(
        &self,
        written: &mut Written,
        request: &SignedErasure,
        own: &[SignerId],
    ) -> Result<Begun, Failure> {
        if written.behind {
            self.catch_up(written)?;
        }
        let txn = self.db.begin_write().map_err(failed("begin"))?;
        let mut tables = Tables::open(&txn, Keep::Elsewhere)?;
        let begun = tables.begin_erasure(request, own)?;
        let noted = std::mem::take(&mut tables.noted);
        drop(tables);
        if begun == Begun::Now {
            let noted = noted.into_iter().map(|noted| (request.bytes().as_slice(), noted));
            let messages = message::erasure(noted, request.erasure.patient);
            self.store_messages(written, &txn, messages)?;
            txn.commit().map_err(failed("commit"))?;
            written.behind = false;
        }
        Ok(begun)
    }

    /// Publishes, then writes into the tables where records are. `written.behind` until these are committed.
    fn store_messages(
        &self,
        written: &mut Written,
        txn: &WriteTransaction,
        messages: Vec<Message>,
    ) -> Result<(), Failure> {
        // Until the tables say so, what was sent may be in the stream and not in them.
        written.behind = true;
        self.publish(written.applied, &messages)?;
        // The client sends what waited as soon as it has connected again: who acknowledged may be unchecked.
        self.check(written)?;
        let mut tables = Tables::open(txn, Keep::Elsewhere)?;
        let first = written.applied + 1;
        for (sequence, message) in (first..).zip(&messages) {
            for held in &message.records {
                tables.place(held.index, &held.place(sequence).encode())?;
            }
        }
        drop(tables);
        let last = written.applied + u64::try_from(messages.len()).unwrap_or(u64::MAX);
        mark(txn, last)?;
        written.applied = last;
        let mut recent = self.recent();
        (first..).zip(messages).for_each(|(sequence, message)| recent.insert(sequence, message.payload));
        Ok(())
    }

    /// Takes a patient's messages out of the stream.
    fn purge(&self, patient: PatientId) -> Result<(), Failure> {
        let subject = format!("{}.{}", self.settings.stream, message::subjects_of(patient));
        self.recent().clear();
        self.wait(async {
            let purged = self.stream.purge().filter(subject).await;
            purged.map(drop).map_err(there("purge the stream"))
        })
    }

    /// Erasures are carried out again at each start: whether the server had synced its purge it does not say.
    fn resume_erasures(&self, written: &mut Written) -> Result<(), StoreError> {
        for (patient, _) in erase::all(&self.db)? {
            self.retried(written, |_| self.purge(patient))?;
            erase::carry_out(&self.db, Keep::Elsewhere, patient, clock::now_us())?;
        }
        Ok(())
    }

    /// Sends all, then waits for the acknowledgements: each says that the message is synced, at the sequence that was foreseen.
    fn publish(&self, applied: u64, messages: &[Message]) -> Result<(), Failure> {
        self.wait(async {
            let mut acks = Vec::with_capacity(messages.len());
            for (follows, message) in (applied..).zip(messages) {
                let mut headers = HeaderMap::new();
                headers.insert(async_nats::header::NATS_EXPECTED_LAST_SEQUENCE, follows.to_string());
                let subject = format!("{}.{}", self.settings.stream, message.subject);
                let sent = self.context.publish_with_headers(subject, headers, message.payload.clone());
                acks.push((follows + 1, sent.await.map_err(there("publish"))?));
            }
            for (expected, ack) in acks {
                let ack = ack.await.map_err(there("publish"))?;
                if ack.sequence != expected {
                    let text = format!("acknowledged as {} instead of {expected}", ack.sequence);
                    return Err(there("publish")(text));
                }
            }
            Ok(())
        })
    }

    /// A record by its place; `newest` is the message that was read last.
    fn stored(
        &self,
        stored: &[u8],
        newest: &mut Option<(u64, Bytes)>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let place = Place::decode(stored).ok_or_else(|| failed("read a record")("its place is malformed"))?;
        if newest.as_ref().is_none_or(|(sequence, _)| *sequence != place.sequence) {
            *newest = self.payload(place.sequence)?.map(|payload| (place.sequence, payload));
        }
        let Some((_, payload)) = &newest else { return Ok(None) };
        let record = place.cut(payload).ok_or_else(|| failed("read a record")("it is not in its message"))?;
        Ok(Some(record.to_vec()))
    }

    /// The payload of one message; `None` where it was deleted.
    fn payload(&self, sequence: u64) -> Result<Option<Bytes>, StoreError> {
        if let Some(payload) = self.recent().messages.get(&sequence) {
            return Ok(Some(payload.clone()));
        }
        let found = self.wait(async {
            if let Ok(found) = self.stream.direct_get(sequence).await {
                return Ok(Some(found.payload));
            }
            // A replica that lags does not have it yet: the leader's word counts.
            match self.stream.get_raw_message(sequence).await {
                Ok(found) => Ok(Some(found.payload)),
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
                Err(error) => Err(there("read a message")(error)),
            }
        });
        Ok(found?)
    }
}

impl Drop for JetStream {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A runtime must not wait for its threads on a thread of another.
            runtime.shutdown_background();
        }
    }
}

impl Store for JetStream {
    /// In one message for each patient and class.
    fn put_as(&self, batch: &[Vec<u8>], as_of: Timing) -> Result<Vec<Outcome>, StoreError> {
        self.retried(&mut self.written(), |written| self.try_put(written, batch, as_of))
    }

    fn next_number(&self, recipient: RecipientId) -> Result<u64, StoreError> {
        index::next(&self.db, recipient)
    }

    fn segment(
        &self,
        patient: PatientId,
        class: DataClass,
        sequence: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        index::segment(&self.db, (patient, class, sequence), |stored| {
            let place =
                Place::decode(stored).ok_or_else(|| failed("read a record")("its place is malformed"))?;
            let Some(payload) = self.payload(place.sequence)? else { return Ok(None) };
            let record =
                place.cut(&payload).ok_or_else(|| failed("read a record")("it is not in its message"))?;
            Ok(Some(record.to_vec()))
        })
    }

    fn page_of(&self, recipient: RecipientId, span: Span, bytes_max: usize) -> Result<Page, StoreError> {
        // Neighbours in a queue often came in one message.
        let mut newest: Option<(u64, Bytes)> = None;
        index::page(&self.db, recipient, span, bytes_max, |stored| self.stored(stored, &mut newest))
    }

    /// Written down as a message of its own; then the patient's messages are purged by their subject.
    fn erase(&self, request: &SignedErasure, own: &[SignerId], now_us: i64) -> Result<Erased, StoreError> {
        let patient = request.erasure.patient;
        let mut written = self.written();
        if self.retried(&mut written, |written| self.begin_erasure(written, request, own))? == Begun::Stranger
        {
            return Ok(Erased::Stranger);
        }
        self.retried(&mut written, |_| self.purge(patient))?;
        erase::carry_out(&self.db, Keep::Elsewhere, patient, now_us)
    }

    fn usage(&self) -> Result<Vec<(PatientId, SignerId, u64)>, StoreError> {
        index::usage(&self.db)
    }

    fn owners(&self) -> Result<Vec<(PatientId, SignerId)>, StoreError> {
        index::owners(&self.db)
    }

    fn expire(&self, patient: PatientId, before: u32) -> Result<Expired, StoreError> {
        self.retried(&mut self.written(), |written| self.try_expire(written, patient, before))
    }

    fn history(&self, question: &Question, bytes_max: usize) -> Result<Past, StoreError> {
        let mut newest = None;
        history::history(&self.db, question, bytes_max, |stored| self.stored(stored, &mut newest))
    }

    fn generations(
        &self,
        patient: PatientId,
        class: DataClass,
        from: u32,
        most: usize,
    ) -> Result<Vec<Used>, StoreError> {
        history::generations(&self.db, (patient, class), from, most)
    }

    fn keep_receipt(&self, receipt: &Receipt, key: [u8; 32], bytes: &[u8]) -> Result<bool, StoreError> {
        erase::keep_receipt(&self.db, receipt, key, bytes)
    }

    fn receipts(&self, patient: PatientId) -> Result<Vec<Vec<u8>>, StoreError> {
        erase::receipts(&self.db, patient)
    }

    fn erased(&self) -> Result<Vec<PatientId>, StoreError> {
        Ok(erase::all(&self.db)?.into_iter().map(|(patient, _)| patient).collect())
    }
}
