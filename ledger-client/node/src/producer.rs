//! The thread that makes blocks: at once for each batch of transactions, and one every [`IDLE_INTERVAL`] without.
//!
//! What arrives while a block is being written goes into the next one, so a burst costs few syncs. A caller is answered when the block
//! with its transaction is durable.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use alloy_consensus::TxEnvelope;
use alloy_consensus::transaction::Recovered;
use alloy_primitives::{Address, B256};
use caregate_host::admin::Condition;
use caregate_host::clock;
use revm::context::result::InvalidTransaction;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::block::{Building, ClockBehind, Refused, block_time};
use crate::chain::{Chain, ChainError, SealedHeader};
use crate::metrics::Metrics;
use crate::pool::{Pool, PoolError};
use crate::state::StateError;

/// An idle chain seals so often: gateways tell a live ledger from a withheld one by the age of its head. A block at least every 10 s is
/// what is promised; the second between is for a thread that wakes late and for a disk whose sync takes long.
pub const IDLE_INTERVAL: Duration = Duration::from_secs(9);
/// How often the thread looks whether it should stop.
const STOP_INTERVAL: Duration = Duration::from_millis(200);
/// Submissions that wait for the thread; more are refused. A block takes some 300.
const QUEUE_MAX: usize = 1024;

/// When the next block is due without transactions. It is told the time.
struct Idle {
    due: Instant,
}

impl Idle {
    /// A block was sealed.
    fn sealed(now: Instant) -> Self {
        Self { due: now + IDLE_INTERVAL }
    }

    /// None could be: the clock is behind the chain. Looked at again as often as whether to stop.
    fn refused(now: Instant) -> Self {
        Self { due: now + STOP_INTERVAL }
    }

    /// How long the thread may wait for transactions.
    fn wait(&self, now: Instant) -> Duration {
        self.due.saturating_duration_since(now).min(STOP_INTERVAL)
    }

    fn is_due(&self, now: Instant) -> bool {
        now >= self.due
    }
}

/// Why a transaction was not taken.
#[derive(Debug, Error)]
pub enum SubmitError {
    /// By the pool.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// By the EVM, before it ran.
    #[error("{}", invalid_text(.0))]
    Invalid(InvalidTransaction),
    /// The clock is behind the chain.
    #[error(transparent)]
    Clock(#[from] ClockBehind),
    /// More than the thread can take.
    #[error("the node is busy")]
    Busy,
    /// The node stops.
    #[error("the node is stopping")]
    Stopped,
}

/// Why a transaction may not run, for who sent it; a price is what tools offer unasked.
pub(crate) fn invalid_text(invalid: &InvalidTransaction) -> String {
    if matches!(invalid, InvalidTransaction::LackOfFundForMaxFee { .. }) {
        return format!(
            "insufficient funds for gas * price + value: {invalid}; this chain's gas price is 0, send with gas price 0"
        );
    }
    invalid.to_string()
}

impl SubmitError {
    /// A word for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Pool(error) => error.reason(),
            Self::Invalid(_) => "invalid_transaction",
            Self::Clock(_) => "clock_behind",
            Self::Busy => "busy",
            Self::Stopped => "stopping",
        }
    }
}

/// A transaction on its way to the thread.
pub struct Submission {
    tx: Recovered<TxEnvelope>,
    answer: SyncSender<Outcome>,
}

/// The way to the thread, and what waits there. Clones share both.
#[derive(Clone)]
pub struct Queue {
    submissions: SyncSender<Submission>,
    pool: Arc<Mutex<Pool>>,
}

impl Queue {
    /// Hands over a transaction. The answer comes when its block is durable, or, where one ahead of it is missing, when it waits.
    ///
    /// # Errors
    /// [`SubmitError::Busy`] and [`SubmitError::Stopped`].
    pub fn submit(&self, tx: Recovered<TxEnvelope>) -> Result<Receiver<Outcome>, SubmitError> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.submissions.try_send(Submission { tx, answer }).map_err(|error| match error {
            TrySendError::Full(_) => SubmitError::Busy,
            TrySendError::Disconnected(_) => SubmitError::Stopped,
        })?;
        Ok(answered)
    }

    /// A waiting transaction.
    #[must_use]
    pub fn waiting(&self, hash: &B256) -> Option<Recovered<TxEnvelope>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).find(hash).cloned()
    }

    /// The nonce after those that wait in an unbroken row.
    #[must_use]
    pub fn nonce_after(&self, sender: &Address, next: u64) -> u64 {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).nonce_after(sender, next)
    }
}

/// The thread's end of the queue.
pub struct Incoming {
    submissions: Receiver<Submission>,
    pool: Arc<Mutex<Pool>>,
}

/// Both ends.
#[must_use]
pub fn queue() -> (Queue, Incoming) {
    let (sender, receiver) = mpsc::sync_channel(QUEUE_MAX);
    let pool = Arc::new(Mutex::new(Pool::default()));
    (Queue { submissions: sender, pool: Arc::clone(&pool) }, Incoming { submissions: receiver, pool })
}

/// The thread.
pub struct Producer {
    /// The chain that it extends.
    pub chain: Arc<Chain>,
    /// What comes in.
    pub incoming: Incoming,
    /// Counters.
    pub metrics: Metrics,
    /// Holds while blocks can be sealed.
    pub sealing: Condition,
    /// Ends it.
    pub stop: CancellationToken,
}

type Outcome = Result<(), SubmitError>;
/// To one caller, and what it is told.
type Answer = (SyncSender<Outcome>, Outcome);

impl Producer {
    /// Makes blocks until it is told to stop.
    ///
    /// # Errors
    /// [`ChainError`]: nothing more can be sealed.
    pub fn run(mut self) -> Result<(), ChainError> {
        // A gateway must not wait for the first header after a restart.
        let mut idle = self.idle_round()?;
        loop {
            let first = match self.incoming.submissions.recv_timeout(idle.wait(clock::monotonic())) {
                Ok(submission) => Some(submission),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            let is_due = idle.is_due(clock::monotonic());
            if first.is_none() && self.stop.is_cancelled() {
                return Ok(());
            }
            let batch: Vec<_> =
                first.into_iter().chain(self.incoming.submissions.try_iter().take(QUEUE_MAX)).collect();
            if is_due && batch.is_empty() {
                idle = self.idle_round()?;
            } else if !batch.is_empty() && self.round(batch, is_due)? {
                idle = Idle::sealed(clock::monotonic());
            }
        }
    }

    /// A block without waiting for transactions, and when to look again.
    fn idle_round(&mut self) -> Result<Idle, ChainError> {
        let sealed = self.round(Vec::new(), true)?;
        let now = clock::monotonic();
        Ok(if sealed { Idle::sealed(now) } else { Idle::refused(now) })
    }

    /// Takes a batch in and seals what is ready, in as many blocks as it takes; whether any was sealed.
    fn round(&mut self, batch: Vec<Submission>, idle: bool) -> Result<bool, ChainError> {
        let began = clock::monotonic();
        let now_s = u64::try_from(clock::now_ms() / 1000).unwrap_or_default();
        let mut answers = Vec::new();
        let time_s = match block_time(self.chain.head().header.timestamp, now_s) {
            Ok(time_s) => time_s,
            Err(behind) => {
                self.clock_behind(behind, batch);
                return Ok(false);
            }
        };
        self.sealing.set(true);
        let waiting = self.take_in(batch, now_s, &mut answers)?;
        let mut sealed = false;
        let mut results = Vec::new();
        loop {
            let reader = self.chain.read()?;
            let mut building = self.chain.begin(&reader, time_s);
            self.fill(&mut building, now_s, &mut results)?;
            if building.is_empty() && (sealed || !idle) {
                break;
            }
            let kind = if building.is_empty() { "idle" } else { "transactions" };
            let more = building.len();
            let head = self.chain.commit(building)?;
            self.count(&head, kind, more, began);
            sealed = true;
            if more == 0 {
                break;
            }
        }
        let pooled = self.incoming.pool.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.metrics.pool.set(i64::try_from(pooled).unwrap_or(i64::MAX));
        for (hash, answer) in waiting {
            let refused = results.iter().position(|(refused, _)| *refused == hash);
            let result = refused.map_or(Ok(()), |index| Err(results.swap_remove(index).1));
            answers.push((answer, result));
        }
        self.answer(answers);
        Ok(sealed)
    }

    /// Puts a batch into the pool; who is refused there has its answer.
    fn take_in(
        &self,
        batch: Vec<Submission>,
        now_s: u64,
        answers: &mut Vec<Answer>,
    ) -> Result<Vec<(B256, SyncSender<Outcome>)>, ChainError> {
        let reader = self.chain.read()?;
        let building = self.chain.begin(&reader, now_s);
        let mut pool = self.incoming.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let expired = pool.expire(now_s);
        self.metrics.transactions.with_label_values(&["expired"]).inc_by(expired as u64);
        let mut waiting = Vec::new();
        for Submission { tx, answer } in batch {
            let hash = *tx.tx_hash();
            let next = building.nonce(&tx.signer())?;
            match pool.insert(tx, next, now_s) {
                Ok(()) => waiting.push((hash, answer)),
                Err(error) => answers.push((answer, Err(error.into()))),
            }
        }
        Ok(waiting)
    }

    /// Fills a block with what is ready; what may not run is thrown out with its reason.
    fn fill(
        &self,
        building: &mut Building<'_>,
        now_s: u64,
        refused: &mut Vec<(B256, SubmitError)>,
    ) -> Result<(), ChainError> {
        loop {
            let mut pool = self.incoming.pool.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(tx) = pool.take_ready() else { return Ok(()) };
            drop(pool);
            let hash = *tx.tx_hash();
            match building.push(tx.clone()) {
                Ok(()) => {
                    let next = building.nonce(&tx.signer())?;
                    let mut pool = self.incoming.pool.lock().unwrap_or_else(PoisonError::into_inner);
                    pool.advance(&tx.signer(), next);
                }
                Err(Refused::Full) => {
                    let next = building.nonce(&tx.signer())?;
                    let mut pool = self.incoming.pool.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Err(error) = pool.insert(tx, next, now_s) {
                        refused.push((hash, error.into()));
                    }
                    return Ok(());
                }
                Err(Refused::Invalid(invalid)) => refused.push((hash, SubmitError::Invalid(invalid))),
                Err(Refused::Fatal(error)) => {
                    error!(%error, "the state can't be read");
                    return Err(StateError::into(error));
                }
            }
        }
    }

    fn clock_behind(&self, behind: ClockBehind, batch: Vec<Submission>) {
        if self.sealing.holds() {
            warn!(%behind, "not sealing");
        }
        self.sealing.set(false);
        self.metrics.clock_behind.inc();
        self.answer(batch.into_iter().map(|submission| (submission.answer, Err(behind.into()))).collect());
    }

    fn count(&self, head: &SealedHeader, kind: &'static str, transactions: usize, began: Instant) {
        self.metrics.blocks.with_label_values(&[kind]).inc();
        self.metrics.head_number.set(i64::try_from(head.header.number).unwrap_or(i64::MAX));
        self.metrics.head_time.set(i64::try_from(head.header.timestamp).unwrap_or(i64::MAX));
        if transactions > 0 {
            self.metrics.transactions.with_label_values(&["included"]).inc_by(transactions as u64);
            self.metrics.seal.observe(clock::monotonic().duration_since(began).as_secs_f64());
            info!(number = head.header.number, transactions, "sealed");
        }
    }

    fn answer(&self, answers: Vec<Answer>) {
        for (answer, result) in answers {
            if result.is_err() {
                self.metrics.transactions.with_label_values(&["refused"]).inc();
            }
            // Who asked may have gone.
            drop(answer.try_send(result));
        }
    }
}

#[cfg(test)]
mod tests;
