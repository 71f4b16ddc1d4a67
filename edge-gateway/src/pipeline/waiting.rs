//! A batch between its sealing and its verdicts.

use caregate_host::kill_point;
use prometheus::HistogramTimer;
use tokio::sync::oneshot;

use crate::ingest::{Inbound, Verdict};
use crate::metrics::Metrics;

/// A batch that is sealed and appended and waits for its sync.
#[derive(Debug)]
pub struct Waiting {
    below: u64,
    batch: Vec<oneshot::Sender<Verdict>>,
    verdicts: Vec<Verdict>,
    timer: HistogramTimer,
}

impl Waiting {
    /// `below`: durable when all records below this position are.
    pub(super) fn new(below: u64, batch: Vec<Inbound>, verdicts: Vec<Verdict>, metrics: &Metrics) -> Self {
        let batch = batch.into_iter().map(|publish| publish.verdict).collect();
        Self { below, batch, verdicts, timer: metrics.sync_seconds.start_timer() }
    }

    /// Whether it may be answered when all records below `durable` are on disk.
    #[must_use]
    pub fn is_durable(&self, durable: u64) -> bool {
        self.below <= durable
    }

    /// Gives each PUBLISH its verdict; how many there were. All of the batch must be durable.
    pub fn answer(self, metrics: &Metrics) -> usize {
        kill_point::pass("commit.synced");
        self.timer.observe_duration();
        let Self { batch, verdicts, .. } = self;
        let label = |verdict: &Verdict| match verdict {
            Verdict::Stored => "stored",
            Verdict::Quarantined(_) => "quarantined",
            Verdict::Refused => "refused",
        };
        for known in ["stored", "quarantined", "refused"] {
            let count = verdicts.iter().map(label).filter(|given| *given == known).count();
            metrics.publishes.with_label_values(&[known]).inc_by(count as u64);
        }
        let count = batch.len();
        for (sender, verdict) in batch.into_iter().zip(verdicts) {
            let answered = sender.send(verdict);
            kill_point::pass("commit.answered-one");
            if answered.is_err() {
                // The connection is gone; its client will send again and be recognised.
                metrics.publishes.with_label_values(&["unanswered"]).inc();
            }
        }
        kill_point::pass("commit.answered");
        count
    }
}
