//! Does what the agent says must be done elsewhere: one thing after the other, in their order.

use std::time::{Duration, Instant};

use caregate_host::clock;
use caregate_protocol::datapath::switch::{CHANGES_MAX, Change, FLOWS_MAX};
use caregate_protocol::datapath::{self, PacketOut};
use caregate_protocol::rate::TokenBucket;
use tokio::sync::mpsc;
use tracing::{debug, error};

use super::agent::{HelperRefused, PACKET_OUTS_MAX, PUNTS_MAX, Part, Readings};
use super::helper::Helper;
use super::metrics::Metrics;
use super::slow::OUTPUTS_MAX;
use super::store::{FlowStore, Kept, encode};

/// Jobs that wait: frames of packet-outs and of punts, with the other copies of the last of each, the parts of a batch, and one each of
/// the others.
pub(super) const JOBS_MAX: usize =
    PACKET_OUTS_MAX + PUNTS_MAX + 2 * OUTPUTS_MAX + FLOWS_MAX / CHANGES_MAX + 8;
/// Changes of the file at once, and a second after that: an operator at work, and no controller that wears the flash out.
const KEEPS_BURST: u32 = 64;
const KEEPS_PER_S: u32 = 1;

/// What is to be done.
#[derive(Debug)]
pub(super) enum Task {
    Prepare {
        part: Part,
        changes: Vec<Change>,
    },
    Install {
        kept: Option<Kept>,
        part: Part,
        changes: Vec<Change>,
    },
    Keep(Kept),
    /// Each with its ticket; at most [`datapath::PACKET_OUTS_MAX`].
    PacketOuts(Vec<(u64, PacketOut)>),
    ReadCounters,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Outcome {
    Installed(Result<(), HelperRefused>),
    PacketOuts(Vec<(u64, Result<(), HelperRefused>)>),
    Counters(Result<Readings, HelperRefused>),
}

/// A task or an outcome, and how often the helper had gone when the task was given.
#[derive(Debug)]
pub(super) struct Numbered<T> {
    pub(super) absence: u64,
    pub(super) what: T,
}

/// Puts the frames of tasks that wait, in their order, to those of this one: one question to the helper for all of them. The task that
/// ends it is returned.
fn gather(
    absence: u64,
    packets: &mut Vec<(u64, PacketOut)>,
    tasks: &mut mpsc::Receiver<Numbered<Task>>,
) -> Option<Numbered<Task>> {
    loop {
        match tasks.try_recv().ok()? {
            Numbered { absence: same, what: Task::PacketOuts(more) }
                if same == absence && packets.len() + more.len() <= datapath::PACKET_OUTS_MAX =>
            {
                packets.extend(more);
            }
            other => return Some(other),
        }
    }
}

pub(super) struct Worker<H> {
    helper: H,
    store: FlowStore,
    metrics: Metrics,
    opened: Instant,
    keeps: TokenBucket,
}

impl<H: Helper> Worker<H> {
    pub(super) fn new(helper: H, store: FlowStore, metrics: Metrics) -> Self {
        let keeps = TokenBucket::new(KEEPS_PER_S, KEEPS_BURST, Duration::ZERO);
        Self { helper, store, metrics, opened: clock::monotonic(), keeps }
    }

    /// Until nobody gives tasks any more.
    pub(super) async fn run(
        mut self,
        mut tasks: mpsc::Receiver<Numbered<Task>>,
        outcomes: mpsc::UnboundedSender<Numbered<Outcome>>,
    ) {
        let mut held = None;
        loop {
            let next = match held.take() {
                Some(next) => Some(next),
                None => tasks.recv().await,
            };
            let Some(Numbered { absence, what }) = next else { break };
            let what = match what {
                Task::Prepare { part, changes } => {
                    // The last part is refused as well then.
                    if self.helper.prepare(part, changes).await.is_err() {
                        debug!("a part of a batch is refused");
                    }
                    continue;
                }
                Task::Install { kept, part, changes } => {
                    Outcome::Installed(self.install(kept, part, changes).await)
                }
                Task::Keep(kept) => {
                    self.keep(&kept).await;
                    continue;
                }
                Task::PacketOuts(mut packets) => {
                    held = gather(absence, &mut packets, &mut tasks);
                    Outcome::PacketOuts(self.send(packets).await)
                }
                Task::ReadCounters => Outcome::Counters(self.read_counters().await),
            };
            if outcomes.send(Numbered { absence, what }).is_err() {
                break;
            }
        }
    }

    async fn send(&mut self, packets: Vec<(u64, PacketOut)>) -> Vec<(u64, Result<(), HelperRefused>)> {
        let (tickets, packets): (Vec<u64>, Vec<PacketOut>) = packets.into_iter().unzip();
        let sent = self.helper.packet_outs(packets).await.unwrap_or_default();
        let outcomes = sent.into_iter().map(|sent| if sent { Ok(()) } else { Err(HelperRefused) });
        // What it says nothing of was not sent.
        tickets.into_iter().zip(outcomes.chain(std::iter::repeat(Err(HelperRefused)))).collect()
    }

    async fn read_counters(&mut self) -> Result<Readings, HelperRefused> {
        let ports = self.helper.counters().await?;
        Ok(Readings { ports, switch: self.helper.switch_counters().await? })
    }

    /// First on disk, then in the kernel: after a power cut, what a barrier confirmed of sensors is there.
    async fn install(
        &mut self,
        kept: Option<Kept>,
        part: Part,
        changes: Vec<Change>,
    ) -> Result<(), HelperRefused> {
        let begun = clock::monotonic();
        let is_kept = match &kept {
            Some(kept) => self.keep(kept).await,
            None => true,
        };
        let is_any = part.before > 0 || !changes.is_empty();
        let result = if !is_kept {
            // The helper's client sees by the next batch that this one has no end.
            "store"
        } else if is_any && self.helper.change(part, changes).await.is_err() {
            "helper"
        } else {
            "done"
        };
        self.metrics.installs.with_label_values(&[result]).inc();
        self.metrics.install_seconds.observe(begun.elapsed().as_secs_f64());
        if result == "done" { Ok(()) } else { Err(HelperRefused) }
    }

    async fn keep(&mut self, kept: &Kept) -> bool {
        let bytes = encode(kept);
        if self.store.holds(&bytes) {
            return true;
        }
        while !self.keeps.is_ready(self.opened.elapsed()) {
            let ready_at = self.keeps.ready_at().unwrap_or_default();
            tokio::time::sleep_until((self.opened + ready_at).into()).await;
        }
        self.keeps.take(self.opened.elapsed());
        match tokio::task::block_in_place(|| self.store.keep(bytes)) {
            Ok(()) => true,
            Err(failure) => {
                error!(%failure, "flows can't be kept");
                false
            }
        }
    }
}
