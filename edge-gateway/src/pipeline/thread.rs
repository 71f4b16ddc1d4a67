//! The thread around [`Committer`]: gathers what has come in, commits, and passes acknowledgements to the log.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caregate_host::clock;
use caregate_protocol::alarm::Standing;
use caregate_protocol::id::PatientId;
use caregate_protocol::key::epoch_of;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::commit::{CommitError, Committer};
use super::front::Front;
use super::waiting::Waiting;
use crate::ingest::{Inbound, Verdict};
use crate::metrics::Metrics;
use crate::policy::{Now, Proposal};
use crate::uplink::Uplink;

/// Batches that are sealed and not answered: one that is being synced, and one to be synced next.
const WAITING_MAX: usize = 2;
/// A sync that takes so long has met a disk that stalls: flash cards that clear blocks do so for seconds.
const STALLED_AFTER: Duration = Duration::from_secs(1);
/// Batches that are sealed and not answered while the disk stalls, so that the watch goes on seeing what comes: some ten a second, for as long as
/// sensors whose window is not full go on sending.
const STALLED_WAITING_MAX: usize = 256;
/// Their bytes in the spool: as many as a usual batch's payloads.
const STALLED_BYTES_MAX: u64 = 256 << 10;
/// How often the clock is looked at: access that ends by its time closes its epochs this soon, also where no sensor sends.
const TICK: Duration = Duration::from_secs(1);
/// Acknowledged ranges waiting to be noted.
pub const ACKED_MAX: usize = 1024;

/// What the thread listens to.
#[derive(Debug)]
pub struct Inputs {
    /// From the doors. The thread ends when all senders are gone and the last PUBLISH is committed.
    pub inbound: Front,
    /// From the uplink.
    pub acked: mpsc::Receiver<RangeInclusive<u64>>,
    /// From the source of policy.
    pub proposals: mpsc::Receiver<Proposal>,
    /// From the watch, to be sealed at once.
    pub standings: mpsc::Receiver<(PatientId, Standing)>,
    /// How long to gather after the first PUBLISH of a commit.
    pub linger: Duration,
}

/// Runs until the doors are closed and everything is committed, then tells the uplink to drain (`link_stop`) and notes what
/// the core still acknowledges. Call on a thread of its own: it blocks on the disk.
///
/// Until a policy is in force every PUBLISH is refused: without it nobody's reading is anybody's.
///
/// # Errors
/// [`CommitError`]: the process must end; what was not durable was not acknowledged.
pub async fn run(
    committer: Committer,
    inputs: Inputs,
    uplink: Arc<Uplink>,
    link_stop: CancellationToken,
) -> Result<(), CommitError> {
    let Inputs { inbound: front, mut acked, mut proposals, mut standings, linger } = inputs;
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let landed = committer.log.landed();
    let (waiting, durable, begun) = (VecDeque::new(), 0, clock::monotonic());
    let mut pipeline = Pipeline { committer, uplink, front, waiting, durable, begun };
    // What has passed is written down before anything is sealed.
    pipeline.tick()?;
    loop {
        let awaited = pipeline.front.attend(pipeline.has_room());
        // Not biased: a core that acknowledges without end must not keep sensors waiting, nor the other way round.
        let turn = tokio::select! {
            () = landed.notified() => Turn::Landed,
            Some(proposal) = proposals.recv() => Turn::Decide(proposal),
            _ = ticks.tick() => Turn::Tick,
            Some(range) = acked.recv() => Turn::Acked(range),
            Some(first) = standings.recv() => Turn::Stand(first),
            is_open = pipeline.front.gather(linger), if awaited.next => Turn::Gathered { is_open },
            () = pipeline.front.over(), if awaited.over => Turn::Commit,
        };
        pipeline.front.leave();
        match turn {
            Turn::Landed => pipeline.committer.log.finish_sync()?,
            Turn::Decide(proposal) => pipeline.decide(proposal),
            Turn::Tick => pipeline.tick()?,
            Turn::Acked(range) => note_acked(range, &mut acked, &mut pipeline.committer)?,
            Turn::Stand(first) => {
                let rest = std::iter::from_fn(|| standings.try_recv().ok());
                pipeline.stand(std::iter::once(first).chain(rest).collect())?;
            }
            Turn::Gathered { is_open: true } => {}
            Turn::Gathered { is_open: false } => break,
            Turn::Commit => {
                pipeline.front.take(linger);
                // A revocation that came meanwhile holds for what is sealed now.
                while let Ok(proposal) = proposals.try_recv() {
                    pipeline.decide(proposal);
                }
                pipeline.commit()?;
            }
        }
        pipeline.go_on()?;
    }
    let Pipeline { mut committer, .. } = pipeline.finish()?;
    link_stop.cancel();
    while let Some(range) = acked.recv().await {
        committer.log.ack(range)?;
    }
    if let Err(failure) = committer.policy.close(clock::monotonic()) {
        warn!(%failure, "the time that has passed was not written down; more will be taken to have");
    }
    if let Err(failure) = committer.hints.flush() {
        warn!(%failure, "the rebuildable state was not flushed");
    }
    info!("spool closed");
    Ok(())
}

/// What the thread waited for.
enum Turn {
    Landed,
    Decide(Proposal),
    Tick,
    Acked(RangeInclusive<u64>),
    Stand((PatientId, Standing)),
    Gathered {
        /// Whether more may come.
        is_open: bool,
    },
    Commit,
}

/// What is between the doors and their answers.
struct Pipeline {
    committer: Committer,
    uplink: Arc<Uplink>,
    /// Of which the next is sealed.
    front: Front,
    /// Sealed and appended, oldest first: the first of them is being synced.
    waiting: VecDeque<Waiting>,
    /// Below this position all is on disk, as was told last.
    durable: u64,
    /// When the newest sync began.
    begun: Instant,
}

impl Pipeline {
    /// Whether another batch may be sealed.
    fn has_room(&self) -> bool {
        let waiting = self.waiting.len();
        let more = waiting < STALLED_WAITING_MAX && self.committer.log.pending_bytes() < STALLED_BYTES_MAX;
        waiting < WAITING_MAX || (more && self.is_stalled())
    }

    fn is_stalled(&self) -> bool {
        self.committer.log.is_syncing() && self.begun.elapsed() >= STALLED_AFTER
    }

    /// Seals what was gathered and lets it go up; it is answered when it is durable.
    fn commit(&mut self) -> Result<(), CommitError> {
        let taken = self.front.gathered();
        if taken.batch.is_empty() {
            return Ok(());
        }
        self.look_at_clocks();
        let Some(policy) = self.committer.policy.policy().cloned() else {
            taken.batch.into_iter().for_each(|publish| refuse(publish, &self.committer.metrics));
            return Ok(());
        };
        self.reopen();
        let (spooled, waiting) = self.committer.prepare(taken, &policy, clock::now_us())?;
        self.uplink.early(spooled);
        self.waiting.push_back(waiting);
        Ok(())
    }

    /// A clock that was set a moment ago is not used with what was known of it before.
    fn look_at_clocks(&mut self) {
        let (now_us, at) = (clock::now_us(), clock::monotonic());
        let Committer { policy, state, .. } = &mut self.committer;
        policy.set_clock(Now { unix_s: u64::try_from(now_us / 1_000_000).unwrap_or(0), at });
        state.look_at_clock(now_us, policy.past_s(at));
    }

    fn decide(&mut self, proposal: Proposal) {
        self.committer.decide(proposal, clock::now_us(), clock::monotonic());
    }

    fn stand(&mut self, standings: Vec<(PatientId, Standing)>) -> Result<(), CommitError> {
        self.look_at_clocks();
        let Some(policy) = self.committer.policy.policy().cloned() else { return Ok(()) };
        self.reopen();
        let spooled = self.committer.append_standings(standings, &policy, clock::now_us())?;
        self.uplink.early(spooled);
        Ok(())
    }

    /// Where a lane has come up behind its backlog, what is sealed from now on brings its own wraps.
    fn reopen(&mut self) {
        let epoch = epoch_of(self.committer.state.sealing_us(clock::now_us()));
        for lane in self.uplink.take_behind() {
            self.committer.state.reopen(lane, epoch);
        }
    }

    fn tick(&mut self) -> Result<(), CommitError> {
        let is_stalled = self.is_stalled();
        let Self { committer, uplink, .. } = self;
        committer.tick(clock::now_us(), clock::monotonic());
        if is_stalled {
            // The rest waits for a sync, and would hold up what the watch is to see.
            return Ok(());
        }
        uplink.early(committer.commit_heads(committer.state.past_us(clock::now_us()))?);
        let erased = committer.let_go_of_erased(clock::now_us())?;
        if !erased.is_empty() {
            uplink.expired(&erased);
            uplink.observe(&committer.metrics);
        }
        if let Some(policy) = committer.policy.policy().cloned() {
            uplink.early(committer.give_past(&policy, clock::now_us())?);
            uplink.early(committer.tell_losses(&policy, clock::now_us())?);
            let expired = committer.expire(&policy, clock::now_us(), clock::monotonic())?;
            uplink.early(expired.spooled);
            uplink.expired(&expired.gone);
        }
        Ok(())
    }

    /// Answers what has become durable, and has the next group synced.
    fn go_on(&mut self) -> Result<(), CommitError> {
        self.answer();
        // Where there is no room for what is held open, nothing but a sync makes any.
        if !self.committer.log.is_syncing() && (!self.front.is_held() || !self.has_room()) {
            if self.committer.log.rotation_due() {
                // It syncs what is pending first.
                self.committer.rotate()?;
                self.answer();
            }
            self.committer.log.begin_sync()?;
            self.begun = clock::monotonic();
        }
        Ok(())
    }

    fn answer(&mut self) {
        let durable = self.committer.log.durable();
        self.uplink.durable(durable);
        let mut answered = 0;
        while let Some(waiting) = self.waiting.pop_front_if(|waiting| waiting.is_durable(durable)) {
            answered += waiting.answer(&self.committer.metrics);
        }
        if answered > 0 {
            self.front.hold(answered, self.committer.log.sync_took(), clock::monotonic());
        }
        if durable > self.durable {
            self.durable = durable;
            self.uplink.observe(&self.committer.metrics);
            self.committer.observe();
        }
    }

    /// Commits what is left.
    fn finish(mut self) -> Result<Self, CommitError> {
        self.commit()?;
        self.committer.log.sync()?;
        self.answer();
        Ok(self)
    }
}

/// Notes a range and those that wait behind it.
fn note_acked(
    first: RangeInclusive<u64>,
    acked: &mut mpsc::Receiver<RangeInclusive<u64>>,
    committer: &mut Committer,
) -> Result<(), CommitError> {
    committer.log.ack(first)?;
    for _ in 1..ACKED_MAX {
        let Ok(range) = acked.try_recv() else { break };
        committer.log.ack(range)?;
    }
    Ok(())
}

fn refuse(publish: Inbound, metrics: &Metrics) {
    metrics.refused.with_label_values(&["no_policy"]).inc();
    if publish.verdict.send(Verdict::Refused).is_err() {
        metrics.publishes.with_label_values(&["unanswered"]).inc();
    }
}
