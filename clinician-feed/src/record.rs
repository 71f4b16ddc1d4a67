//! Notes what happens: in the journal, then on the pages.

mod looks;
mod readers;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caregate_host::clock;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::error;

use self::looks::{Due, Looks};
use self::readers::{Due as ReadingDue, Readers};
use crate::journal::{Entry, Journal, JournalError, What};
use crate::look::Look;
use crate::metrics::Metrics;
use crate::trail::Trail;

/// A program that polls is noted once in so many milliseconds for each patient and class that it reads, and then as far as it
/// read on; at once where it reads what is older.
const LOOK_AGAIN_MS: i64 = 15 * 60 * 1000;
/// How often those are looked for whose time is over.
const SETTLE_INTERVAL_MS: u32 = 60 * 1000;
/// Looks of programs that are remembered for that; when they are full it begins anew, and notes more, not less.
const LOOKS_MAX: usize = 4096;
/// Users who are remembered to have read the log; when they are full it begins anew as well.
const READERS_MAX: usize = 4096;

/// Less than [`LOOK_AGAIN_MS`] ago; and not in the future, as where the clock was set back.
fn is_recent(then_ms: i64, now_ms: i64) -> bool {
    (0..LOOK_AGAIN_MS).contains(&now_ms.saturating_sub(then_ms))
}

/// Entries of the log, by their numbers: which somebody is shown or may page to, and where the log's end that is served begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The oldest that they may see.
    pub first: u64,
    /// The newest.
    pub last: u64,
    /// The oldest that is served at all.
    pub oldest: u64,
    /// The newest there was.
    pub newest: u64,
}

/// Keeps the journal and the pages' list. Clones share both.
#[derive(Debug, Clone)]
pub struct Recorder {
    journal: Arc<Journal>,
    trail: Arc<Trail>,
    looks: Arc<Mutex<Looks>>,
    readers: Arc<AsyncMutex<Readers>>,
    metrics: Metrics,
}

impl Recorder {
    /// `before` is what the journal has, for the pages.
    #[must_use]
    pub fn new(journal: Journal, before: &[Entry], metrics: Metrics) -> Self {
        let trail = Trail::default();
        trail.add_entries(before);
        Self {
            journal: Arc::new(journal),
            trail: Arc::new(trail),
            looks: Arc::default(),
            readers: Arc::default(),
            metrics,
        }
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> Arc<Journal> {
        Arc::clone(&self.journal)
    }

    /// The pages' list.
    #[must_use]
    pub fn trail(&self) -> &Arc<Trail> {
        &self.trail
    }

    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a program is about to be given these readings. What goes on from a look that was noted is noted when its time is over.
    pub async fn looked(&self, user: &Arc<str>, given: Vec<Look>) {
        let due = looks::due(&mut self.looks(), user, given, clock::now_ms(), LOOKS_MAX);
        self.note_looks(due).await;
    }

    /// Notes what programs read on, and what was read on of the log, when its time is over; until `stop`.
    pub async fn settle(self, stop: CancellationToken) {
        let mut ticks = interval(Duration::from_millis(SETTLE_INTERVAL_MS.into()));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            // What would be over at the next tick is noted at this one, so that none waits for longer.
            let next_ms = clock::now_ms().saturating_add(SETTLE_INTERVAL_MS.into());
            let due = looks::settle(&mut self.looks(), next_ms);
            self.note_looks(due).await;
            // That it can't be noted is logged and counted; it is due again then.
            drop(self.note_readings(move |readers| readers::settle(readers, next_ms)).await);
        }
    }

    /// Notes all that programs read on, and all that was read on of the log, for the end.
    pub async fn settle_all(&self) {
        let due = looks::settle_all(&mut self.looks());
        self.note_looks(due).await;
        drop(self.note_readings(readers::settle_all).await);
    }

    /// That they can't be noted is logged and counted, and keeps nobody from a patient; they are due again at the next look.
    async fn note_looks(&self, due: Vec<Due>) {
        if due.is_empty() {
            return;
        }
        let recorder = self.clone();
        let noting = async move {
            if recorder.note(due.iter().map(Due::noted).collect()).await.is_err() {
                looks::failed(&mut recorder.looks(), due, LOOKS_MAX);
            }
        };
        // To its end, also where whoever asked has gone.
        drop(tokio::spawn(noting).await);
    }

    /// Notes that somebody is about to be shown entries of the log. What goes on from entries that were noted is noted when its time is over.
    ///
    /// # Errors
    /// [`JournalError`]: then they are not to be shown. Nobody's care waits for it.
    pub async fn read_log(
        &self,
        user: &Arc<str>,
        asked: Extent,
        reason: Option<String>,
    ) -> Result<(), JournalError> {
        let (user, now_ms) = (Arc::clone(user), clock::now_ms());
        self.note_readings(move |readers| readers::due(readers, &user, asked, reason, now_ms, READERS_MAX))
            .await
    }

    /// Notes what was read of the log, one at a time, so that nobody is shown what is still being noted. What can't be noted of what was
    /// shown is due again.
    async fn note_readings(
        &self,
        due: impl FnOnce(&mut Readers) -> Vec<ReadingDue> + Send + 'static,
    ) -> Result<(), JournalError> {
        let recorder = self.clone();
        let noting = async move {
            let mut readers = recorder.readers.lock().await;
            let due = due(&mut readers);
            if due.is_empty() {
                return Ok(());
            }
            let noted = recorder.note(due.iter().map(ReadingDue::noted).collect()).await;
            if noted.is_err() {
                readers::failed(&mut readers, due);
            }
            noted
        };
        // To its end, also where whoever asked has gone.
        match tokio::spawn(noting).await {
            Ok(noted) => noted,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// Notes what happened now; it is on disk when this returns.
    ///
    /// # Errors
    /// [`JournalError`], which is logged and counted.
    pub async fn note(&self, happened: Vec<What>) -> Result<(), JournalError> {
        let at_ms = clock::now_ms();
        let entries: Vec<_> = happened.into_iter().map(|what| Entry { at_ms, what }).collect();
        let journal = self.journal();
        let append = move || journal.append(&entries).map(|()| entries);
        let appended = match tokio::task::spawn_blocking(append).await {
            Ok(appended) => appended,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        let entries = appended.inspect_err(|error| {
            self.metrics.journal_failures.inc();
            error!(%error, "what happened could not be noted");
        })?;
        self.trail.add_entries(&entries);
        Ok(())
    }
}
