//! The store: what it promises, and the two that keep the promise.
//!
//! | store | where | durable by |
//! |---|---|---|
//! | [`Embedded`] | one redb file (`core.redb`) | its own commit |
//! | `JetStream` (cargo feature `nats`) | a stream of a NATS server; the index beside the core can be made anew from it | the server's sync of each message |
//!
//! Both decide with the same tables (`index`) and pass the same tests.

use std::fmt::Debug;

use caregate_protocol::erasure::{Receipt, SignedErasure};
use caregate_protocol::id::{DataClass, PatientId, RecipientId, SignerId};
use caregate_protocol::uplink::{HistoryPlace, Question, Refusal, Timing, Used};
use thiserror::Error;

mod embedded;
mod erase;
mod history;
mod index;
#[cfg(feature = "nats")]
pub mod jetstream;
mod retain;
pub mod rows;
#[cfg(test)]
mod tests;

pub use embedded::Embedded;

/// The store failed; nothing of the batch counts.
#[derive(Debug, Error)]
#[error("store: {doing}: {source}")]
pub struct StoreError {
    doing: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl StoreError {
    /// Where the thread that worked on it is gone.
    #[must_use]
    pub fn stopped() -> Self {
        failed("wait for the store")("its thread is gone")
    }
}

fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    doing: &'static str,
) -> impl FnOnce(E) -> StoreError {
    move |source| StoreError { doing, source: source.into() }
}

/// What became of one record of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Stored by this batch.
    Stored,
    /// Was there already, byte for byte the same chain entry.
    Known,
    /// Will never be taken as it is.
    Refused(Refusal),
}

/// What became of a request for erasure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Erased {
    /// All is gone, durably, by this request or an earlier one.
    Done {
        /// Records that went.
        records: u64,
        /// Their bytes.
        bytes: u64,
        /// When the last of them did, Unix microseconds.
        erased_us: i64,
    },
    /// What there is of this pseudonym came from other gateways alone; nothing was done.
    Stranger,
}

/// One page of a patient's history.
#[derive(Debug, Default)]
pub struct Past {
    /// In order; a wrap before what it opens.
    pub records: Vec<Vec<u8>>,
    /// Where there is more.
    pub next: Option<HistoryPlace>,
}

/// What one step of expiry took out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expired {
    /// Records.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// There may be more.
    pub more: bool,
}

/// A part of a recipient's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First number wanted.
    pub from: u64,
    /// One past the last number wanted.
    pub until: u64,
    /// Of which timing; all where none is named.
    pub of: Option<Timing>,
}

/// One page of a recipient's queue.
#[derive(Debug, Default)]
pub struct Page {
    /// (number, record) in order.
    pub records: Vec<(u64, Vec<u8>)>,
    /// One past the last number that was looked at.
    pub next: u64,
}

/// Where sealed records lie and who is offered them. Blocking; [`put`](Self::put) is called by one thread.
pub trait Store: Debug + Send + Sync {
    /// Stores a batch; what is `Stored` or `Known` is durable when this returns. The records' signatures have been checked by the
    /// caller, and that they come from their pseudonyms' owners: whoever signed the newest is the one for [`owners`](Self::owners). Of a
    /// (patient, class, sequence) the first is kept, whatever comes again. In queues stands with each record that all of the batch came
    /// `as_of` the present or from before.
    ///
    /// # Errors
    /// [`StoreError`]; then none of the batch may be acknowledged.
    fn put_as(&self, batch: &[Vec<u8>], as_of: Timing) -> Result<Vec<Outcome>, StoreError>;

    /// The same of what came live.
    ///
    /// # Errors
    /// [`StoreError`]; then none of the batch may be acknowledged.
    fn put(&self, batch: &[Vec<u8>]) -> Result<Vec<Outcome>, StoreError> {
        self.put_as(batch, Timing::Live)
    }

    /// One past the newest number in a recipient's queue.
    ///
    /// # Errors
    /// [`StoreError`].
    fn next_number(&self, recipient: RecipientId) -> Result<u64, StoreError>;

    /// The segment of this number, where it is there.
    ///
    /// # Errors
    /// [`StoreError`].
    fn segment(
        &self,
        patient: PatientId,
        class: DataClass,
        sequence: u64,
    ) -> Result<Option<Vec<u8>>, StoreError>;

    /// The records of a recipient's queue that are in `span`, at most `bytes_max` bytes but at least one record where there is one.
    ///
    /// # Errors
    /// [`StoreError`].
    fn page_of(&self, recipient: RecipientId, span: Span, bytes_max: usize) -> Result<Page, StoreError>;

    /// The same of either timing, from number `from` (inclusive) to `until` (exclusive).
    ///
    /// # Errors
    /// [`StoreError`].
    fn page(
        &self,
        recipient: RecipientId,
        from: u64,
        until: u64,
        bytes_max: usize,
    ) -> Result<Page, StoreError> {
        self.page_of(recipient, Span { from, until, of: None }, bytes_max)
    }

    /// Erases a pseudonym, for a gateway whose keys are `own`; the request's signature has been checked by the caller. From then on
    /// its records are refused as `Erased`, and the request stands in the queue of each recipient that ever held a wrap of it.
    /// What was begun is carried out also after a crash, before the store opens.
    ///
    /// # Errors
    /// [`StoreError`]; it may have been begun.
    fn erase(&self, request: &SignedErasure, own: &[SignerId], now_us: i64) -> Result<Erased, StoreError>;

    /// Bytes stored of each patient's records by each signer.
    ///
    /// # Errors
    /// [`StoreError`].
    fn usage(&self) -> Result<Vec<(PatientId, SignerId, u64)>, StoreError>;

    /// Whose each pseudonym is of which something was ever stored: who signed what came last. It stays when the records go.
    ///
    /// # Errors
    /// [`StoreError`].
    fn owners(&self) -> Result<Vec<(PatientId, SignerId)>, StoreError>;

    /// Takes out what a patient's gateways sealed before an epoch (minutes since 1970): some of it, in one commit. What would come again
    /// of it is `Known`.
    ///
    /// # Errors
    /// [`StoreError`].
    fn expire(&self, patient: PatientId, before: u32) -> Result<Expired, StoreError>;

    /// What a recipient can open of a patient's history, from `question.at` on; at most `bytes_max` bytes of it, but one record at least
    /// where there is one.
    ///
    /// # Errors
    /// [`StoreError`].
    fn history(&self, question: &Question, bytes_max: usize) -> Result<Past, StoreError>;

    /// Under which generations was sealed what is here of a chain, the lowest first, from one on and at most so many; each with its first
    /// and its last epoch.
    ///
    /// # Errors
    /// [`StoreError`].
    fn generations(
        &self,
        patient: PatientId,
        class: DataClass,
        from: u32,
        most: usize,
    ) -> Result<Vec<Used>, StoreError>;

    /// Keeps a feed's receipt, whose signature by `key` has been checked. False where nothing of that pseudonym was erased here.
    ///
    /// # Errors
    /// [`StoreError`].
    fn keep_receipt(&self, receipt: &Receipt, key: [u8; 32], bytes: &[u8]) -> Result<bool, StoreError>;

    /// Feeds' receipts of a pseudonym's erasure.
    ///
    /// # Errors
    /// [`StoreError`].
    fn receipts(&self, patient: PatientId) -> Result<Vec<Vec<u8>>, StoreError>;

    /// All pseudonyms of which an erasure was begun.
    ///
    /// # Errors
    /// [`StoreError`].
    fn erased(&self) -> Result<Vec<PatientId>, StoreError>;
}
