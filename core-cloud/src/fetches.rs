//! The core's audit log: what it delivered to which feed. What a feed's own log says it received can be held against it
//! (`caregate_protocol::audit::verify`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use caregate_host::clock;
use caregate_host::journal::Journal;
use caregate_protocol::audit::{Entry, Tally, What};
use caregate_protocol::id::RecipientId;
use tracing::error;

use crate::metrics::Metrics;

/// How often a subscription's deliveries are noted: half of what a comparison of logs allows for.
const NOTE_INTERVAL: Duration = Duration::from_mins(1);

/// Notes the deliveries of one subscription; what is left when it is dropped as well.
#[derive(Debug)]
pub(crate) struct Fetches {
    journal: Arc<Journal>,
    metrics: Metrics,
    recipient: RecipientId,
    feed: Arc<str>,
    tally: Tally,
    due: Instant,
}

impl Fetches {
    pub(crate) fn new(
        journal: Arc<Journal>,
        metrics: Metrics,
        recipient: RecipientId,
        feed: Arc<str>,
    ) -> Self {
        let due = clock::monotonic() + NOTE_INTERVAL;
        Self { journal, metrics, recipient, feed, tally: Tally::default(), due }
    }

    /// Counts a record in that is about to be sent.
    pub(crate) async fn add(&mut self, record: &[u8]) {
        if self.tally.add(record) {
            self.note().await;
        }
    }

    /// When [`Self::note`] is due, if anything is to be noted.
    pub(crate) fn due(&self) -> Option<Instant> {
        (!self.tally.is_empty()).then_some(self.due)
    }

    /// Notes what was delivered since the last time. That it can't be noted is logged and counted: readings go on.
    pub(crate) async fn note(&mut self) {
        self.due = clock::monotonic() + NOTE_INTERVAL;
        let entries = self.take();
        let (journal, metrics) = (Arc::clone(&self.journal), self.metrics.clone());
        let noted = tokio::task::spawn_blocking(move || append(&journal, &entries, &metrics));
        // A panic in it is a bug that its own message tells.
        drop(noted.await);
    }

    fn take(&mut self) -> Vec<Entry> {
        let at_ms = clock::now_ms();
        let entry = |delivered| {
            let (recipient, feed) = (self.recipient, self.feed.to_string());
            Entry { at_ms, what: What::Fetched { recipient, feed, delivered } }
        };
        self.tally.take().into_iter().map(entry).collect()
    }
}

impl Drop for Fetches {
    fn drop(&mut self) {
        let entries = self.take();
        if !entries.is_empty() {
            append(&self.journal, &entries, &self.metrics);
        }
    }
}

fn append(journal: &Journal, entries: &[Entry], metrics: &Metrics) {
    if let Err(failure) = journal.append(entries) {
        metrics.journal_failures.inc();
        error!(%failure, "what was delivered could not be noted");
    }
}
