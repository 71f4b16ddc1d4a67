//! Notes what happens: in the journal, then on the pages.

use std::sync::Arc;

use caregate_host::clock;
use tracing::error;

use crate::journal::{Entry, Journal, JournalError, What};
use crate::metrics::Metrics;
use crate::trail::Trail;

/// Keeps the journal and the pages' list. Clones share both.
#[derive(Debug, Clone)]
pub struct Recorder {
    journal: Option<Arc<Journal>>,
    trail: Arc<Trail>,
    metrics: Metrics,
}

impl Recorder {
    /// Without a journal nothing is noted, except on the pages.
    #[must_use]
    pub fn new(journal: Option<Journal>, before: &[Entry], metrics: Metrics) -> Self {
        let trail = Trail::default();
        trail.add_entries(before);
        Self { journal: journal.map(Arc::new), trail: Arc::new(trail), metrics }
    }

    /// The pages' list.
    #[must_use]
    pub fn trail(&self) -> &Arc<Trail> {
        &self.trail
    }

    /// Whether there is a journal.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.journal.is_some()
    }

    /// Notes what happened now; it is on disk when this returns. Nothing is noted where there is no journal.
    ///
    /// # Errors
    /// [`JournalError`], which is logged and counted.
    pub async fn note(&self, happened: Vec<What>) -> Result<(), JournalError> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let at_ms = clock::now_ms();
        let entries: Vec<_> = happened.into_iter().map(|what| Entry { at_ms, what }).collect();
        let journal = Arc::clone(journal);
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
