//! The thread around [`Committer`]: gathers what has come in, commits, and passes acknowledgements to the log.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caregate_host::clock;
use caregate_protocol::alarm::Standing;
use caregate_protocol::id::{Lane, PatientId};
use caregate_protocol::key::epoch_of;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::commit::{CommitError, Committer};
use super::waiting::Waiting;
use crate::ingest::{Inbound, Intake, Verdict, lane_of};
use crate::metrics::Metrics;
use crate::policy::{Now, Proposal};
use crate::uplink::Uplink;

/// PUBLISHes in one commit: at 100 commits a second this is far more than a home sends.
const BATCH_MAX: usize = 1024;
/// Payload bytes in one commit, and one payload more: what a commit holds of them in several forms is most of its memory.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// With so many there is nothing to gather for: a commit of 16 numbers fills a block of the disk, which is what a smaller one costs too.
const GATHERED_ENOUGH: usize = 16;
/// Of a sync's time, how long the next group stays open for those whom it has answered: one eighth costs who sends by the clock little, and gives
/// who sends by the window twice as much.
const HELD_SHARE: u32 = 8;
/// Syncs that are shorter are not waited for so: a timer takes a millisecond at least.
const HELD_FROM: Duration = Duration::from_millis(2);
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
    pub inbound: Intake,
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
    mut inputs: Inputs,
    uplink: Arc<Uplink>,
    link_stop: CancellationToken,
) -> Result<(), CommitError> {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let landed = committer.log.landed();
    let (gathered, waiting, durable) = (Gathered::default(), VecDeque::new(), 0);
    let begun = clock::monotonic();
    let mut pipeline = Pipeline { committer, uplink, gathered, waiting, durable, begun };
    // What has passed is written down before anything is sealed.
    pipeline.tick()?;
    loop {
        let room = pipeline.has_room();
        let linger = inputs.linger;
        // Not biased: a core that acknowledges without end must not keep sensors waiting, nor the other way round.
        tokio::select! {
            () = landed.notified() => pipeline.committer.log.finish_sync()?,
            Some(proposal) = inputs.proposals.recv() => pipeline.decide(proposal),
            _ = ticks.tick() => pipeline.tick()?,
            Some(range) = inputs.acked.recv() => note_acked(range, &mut inputs, &mut pipeline.committer)?,
            Some(first) = inputs.standings.recv() => {
                let mut standings = vec![first];
                standings.extend(std::iter::from_fn(|| inputs.standings.try_recv().ok()));
                pipeline.stand(standings)?;
            }
            first = inputs.inbound.recv(), if room && !pipeline.gathered.is_enough() => {
                let Some(first) = first else { break };
                pipeline.gathered.push(first, linger);
                pipeline.gathered.take(&mut inputs);
            },
            () = pipeline.gathered.over(), if room && pipeline.gathered.is_open() => {
                pipeline.gathered.take(&mut inputs);
                // A revocation that came meanwhile holds for what is sealed now.
                while let Ok(proposal) = inputs.proposals.try_recv() {
                    pipeline.decide(proposal);
                }
                pipeline.commit()?;
            },
        }
        pipeline.go_on()?;
    }
    let Pipeline { mut committer, .. } = pipeline.finish()?;
    link_stop.cancel();
    while let Some(range) = inputs.acked.recv().await {
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

/// What is between the doors and their answers.
struct Pipeline {
    committer: Committer,
    uplink: Arc<Uplink>,
    /// To be sealed next.
    gathered: Gathered,
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
        let batch = std::mem::take(&mut self.gathered).batch;
        if batch.is_empty() {
            return Ok(());
        }
        self.look_at_clocks();
        let Some(policy) = self.committer.policy.policy().cloned() else {
            batch.into_iter().for_each(|publish| refuse(publish, &self.committer.metrics));
            return Ok(());
        };
        self.reopen();
        let (spooled, waiting) = self.committer.prepare(batch, &policy, clock::now_us())?;
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
        if !self.committer.log.is_syncing() && !self.gathered.held {
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
            self.gathered.hold(answered, self.committer.log.sync_took(), clock::monotonic());
        }
        if durable > self.durable {
            self.durable = durable;
            self.uplink.observe(&self.committer.metrics);
            self.committer.observe();
        }
    }

    /// Commits what is left.
    fn finish(mut self) -> Result<Self, CommitError> {
        if !self.gathered.batch.is_empty() {
            self.commit()?;
        }
        self.committer.log.sync()?;
        self.answer();
        Ok(self)
    }
}

/// Notes a range and those that wait behind it.
fn note_acked(
    first: RangeInclusive<u64>,
    inputs: &mut Inputs,
    committer: &mut Committer,
) -> Result<(), CommitError> {
    committer.log.ack(first)?;
    for _ in 1..ACKED_MAX {
        let Ok(range) = inputs.acked.try_recv() else { break };
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

/// What the next commit will be made of.
struct Gathered {
    batch: Vec<Inbound>,
    /// With so many there is nothing more to wait for.
    wanted: usize,
    /// Kept open for those who were just answered: a client whose window was full sends again at once, and what comes just after a sync
    /// has begun waits for two.
    held: bool,
    bytes: usize,
    /// There is an alarm among them.
    urgent: bool,
    /// When the linger is over; with none of it at once, for a timer takes a millisecond at least.
    until: Option<Instant>,
}

impl Default for Gathered {
    fn default() -> Self {
        let (batch, bytes, wanted, held) = (Vec::new(), 0, GATHERED_ENOUGH, false);
        Self { batch, bytes, wanted, held, urgent: false, until: None }
    }
}

impl Gathered {
    /// So many were answered by a sync that took so long: they are expected back.
    fn hold(&mut self, answered: usize, sync: Duration, now: Instant) {
        if sync >= HELD_FROM {
            self.held = true;
            self.wanted = answered.min(BATCH_MAX);
            self.until = Some(now + sync / HELD_SHARE);
        }
    }

    /// Whether it comes to an end by itself.
    fn is_open(&self) -> bool {
        self.held || !self.batch.is_empty()
    }

    fn push(&mut self, publish: Inbound, linger: Duration) {
        if !linger.is_zero() {
            self.until.get_or_insert_with(|| clock::monotonic() + linger);
        }
        self.bytes += publish.payload.len();
        self.urgent |= lane_of(&publish.topic, publish.payload.len()) == Lane::Alarm;
        self.batch.push(publish);
    }

    /// Takes what is there, as far as it fits.
    fn take(&mut self, inputs: &mut Inputs) {
        while self.batch.len() < BATCH_MAX && self.bytes < BATCH_BYTES_MAX {
            let Ok(next) = inputs.inbound.try_recv() else { break };
            self.push(next, inputs.linger);
        }
    }

    fn is_enough(&self) -> bool {
        self.urgent || self.batch.len() >= self.wanted || self.bytes >= BATCH_BYTES_MAX
    }

    /// Waits until there is no reason to gather any longer.
    async fn over(&self) {
        match self.until {
            Some(until) if !self.is_enough() => sleep_until(until.into()).await,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use caregate_protocol::id::DeviceId;
    use tokio::sync::oneshot;

    use super::*;
    use crate::ingest::{self, Inlet};

    fn publish(leaf: &str) -> Inbound {
        Inbound {
            device: DeviceId::new("monitor-1").unwrap(),
            topic: format!("vitals/v1/monitor-1/{leaf}"),
            payload: Bytes::new(),
            received_us: 0,
            verdict: oneshot::channel().0,
        }
    }

    fn inputs(linger: Duration) -> (Inlet, Inputs) {
        let (inbound, inbound_in) = ingest::queue();
        let (acked, proposals, standings) = (mpsc::channel(1).1, mpsc::channel(1).1, mpsc::channel(1).1);
        (inbound, Inputs { inbound: inbound_in, acked, proposals, standings, linger })
    }

    /// What is gathered of these with a linger that nobody waits out, or `None` where it is not enough.
    async fn gathered(leaves: &[&str]) -> Option<usize> {
        let (_inbound, mut inputs) = inputs(Duration::from_secs(3600));
        let mut gathered = Gathered::default();
        for leaf in leaves {
            gathered.push(publish(leaf), inputs.linger);
            gathered.take(&mut inputs);
        }
        let is_over = tokio::time::timeout(Duration::from_millis(1), gathered.over()).await.is_ok();
        is_over.then_some(gathered.batch.len())
    }

    #[tokio::test]
    async fn a_commit_waits_no_longer_than_there_is_reason_to() {
        assert_eq!(gathered(&["num/heart-rate"; GATHERED_ENOUGH]).await, Some(GATHERED_ENOUGH));
        assert_eq!(gathered(&["num/heart-rate"; GATHERED_ENOUGH - 1]).await, None);
        assert_eq!(gathered(&["event/fall"]).await, Some(1));
        let rest = ["num/heart-rate", "num/heart-rate", "event/fall"];
        assert_eq!(gathered(&rest).await, Some(3));
    }

    #[tokio::test]
    async fn a_slow_sync_is_followed_by_a_group_of_all_that_it_answered() {
        let (_inbound, mut inputs) = inputs(Duration::ZERO);
        let is_over = async |gathered: &Gathered| {
            tokio::time::timeout(Duration::from_millis(1), gathered.over()).await.is_ok()
        };
        let now = clock::monotonic();
        let mut gathered = Gathered::default();
        gathered.hold(2, HELD_FROM, now);
        assert!(gathered.held && gathered.is_open());
        let mut gathered = Gathered::default();
        gathered.hold(2, Duration::from_secs(3600), now);
        for is_whole in [false, true] {
            gathered.push(publish("num/heart-rate"), inputs.linger);
            gathered.take(&mut inputs);
            assert_eq!(is_over(&gathered).await, is_whole);
        }
        // An alarm waits for nobody, nor does anybody after a sync that was quick.
        let mut gathered = Gathered::default();
        gathered.hold(2, Duration::from_secs(3600), now);
        gathered.push(publish("event/fall"), inputs.linger);
        assert!(is_over(&gathered).await);
        let mut gathered = Gathered::default();
        gathered.hold(2, HELD_FROM / 2, now);
        assert!(!gathered.held && !gathered.is_open());
    }

    #[tokio::test]
    async fn a_linger_ends() {
        let mut gathered = Gathered::default();
        gathered.push(publish("num/heart-rate"), Duration::from_millis(1));
        gathered.over().await;
        assert!(!gathered.is_enough());
    }

    #[tokio::test]
    async fn a_commit_takes_no_more_than_its_bytes() {
        let (inbound, mut inputs) = inputs(Duration::ZERO);
        let large = || Inbound { payload: vec![0; BATCH_BYTES_MAX / 4].into(), ..publish("wave/ecg-ii") };
        for _ in 0..7 {
            inbound.of(Lane::Waveform).send(large()).await.unwrap();
        }
        for (taken, is_enough) in [(4, true), (3, false)] {
            let mut gathered = Gathered::default();
            gathered.take(&mut inputs);
            assert_eq!((gathered.batch.len(), gathered.is_enough()), (taken, is_enough));
        }
    }
}
