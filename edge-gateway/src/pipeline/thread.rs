//! The thread around [`Committer`]: gathers what has come in, commits, and passes acknowledgements to the log.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use caregate_host::clock;
use caregate_protocol::alarm::Standing;
use caregate_protocol::id::PatientId;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::commit::{CommitError, Committer};
use crate::ingest::{Inbound, Verdict};
use crate::metrics::Metrics;
use crate::policy::Proposal;
use crate::uplink::Uplink;

/// PUBLISHes waiting for the next commit; beyond it the doors stop reading. Twice what one commit takes.
pub const INBOUND_MAX: usize = 2048;
/// PUBLISHes in one commit: at 100 commits a second this is far more than a home sends.
const BATCH_MAX: usize = 1024;
/// With so many there is nothing to gather for: a commit of 16 numbers fills a block of the disk, which is what a smaller one costs too.
const GATHERED_ENOUGH: usize = 16;
/// How often the clock is looked at: access that ends by its time closes its epochs this soon, also where no sensor sends.
const TICK: Duration = Duration::from_secs(1);
/// Acknowledged ranges waiting to be noted.
pub const ACKED_MAX: usize = 1024;

/// What the thread listens to.
#[derive(Debug)]
pub struct Inputs {
    /// From the doors. The thread ends when all senders are gone and the last PUBLISH is committed.
    pub inbound: mpsc::Receiver<Inbound>,
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
    mut committer: Committer,
    mut inputs: Inputs,
    uplink: Arc<Uplink>,
    link_stop: CancellationToken,
) -> Result<(), CommitError> {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Not biased: a core that acknowledges without end must not keep sensors waiting, nor the other way round.
        tokio::select! {
            Some(proposal) = inputs.proposals.recv() => committer.decide(proposal, clock::now_us()),
            _ = ticks.tick() => {
                committer.tick(clock::now_us());
                let spooled = committer.commit_heads(clock::now_us())?;
                uplink.spooled(spooled);
                if let Some(policy) = committer.policy.policy().cloned() {
                    uplink.spooled(committer.tell_losses(&policy, clock::now_us())?);
                    let expired = committer.expire(&policy, clock::now_us(), clock::monotonic())?;
                    uplink.spooled(expired.spooled);
                    uplink.expired(&expired.gone);
                }
            }
            Some(range) = inputs.acked.recv() => note_acked(range, &mut inputs, &mut committer)?,
            Some(first) = inputs.standings.recv() => {
                let mut standings = vec![first];
                standings.extend(std::iter::from_fn(|| inputs.standings.try_recv().ok()));
                let Some(policy) = committer.policy.policy().cloned() else { continue };
                let spooled = committer.commit_standings(standings, &policy, clock::now_us())?;
                uplink.spooled(spooled);
                uplink.observe(&committer.metrics);
                committer.observe();
            }
            first = inputs.inbound.recv() => {
                let Some(first) = first else { break };
                let batch = gather(first, &mut inputs).await;
                // A revocation that came meanwhile holds for what is sealed now.
                while let Ok(proposal) = inputs.proposals.try_recv() {
                    committer.decide(proposal, clock::now_us());
                }
                let Some(policy) = committer.policy.policy().cloned() else {
                    batch.into_iter().for_each(|publish| refuse(publish, &committer.metrics));
                    continue;
                };
                let spooled = committer.commit(batch, &policy, clock::now_us())?;
                uplink.spooled(spooled);
                uplink.observe(&committer.metrics);
                committer.observe();
            },
        }
    }
    link_stop.cancel();
    while let Some(range) = inputs.acked.recv().await {
        committer.log.ack(range)?;
    }
    if let Err(failure) = committer.hints.flush() {
        warn!(%failure, "the rebuildable state was not flushed");
    }
    info!("spool closed");
    Ok(())
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

/// Gathers for the linger, or until there is enough or something that should not wait.
async fn gather(first: Inbound, inputs: &mut Inputs) -> Vec<Inbound> {
    let mut batch = vec![first];
    take(&mut batch, inputs);
    if !inputs.linger.is_zero() {
        let until = tokio::time::sleep(inputs.linger);
        tokio::pin!(until);
        while !is_enough(&batch) {
            tokio::select! {
                biased;
                next = inputs.inbound.recv() => match next {
                    Some(next) => batch.push(next),
                    None => break,
                },
                () = &mut until => break,
            }
        }
        take(&mut batch, inputs);
    }
    batch
}

/// Takes what is there.
fn take(batch: &mut Vec<Inbound>, inputs: &mut Inputs) {
    while batch.len() < BATCH_MAX {
        let Ok(next) = inputs.inbound.try_recv() else { break };
        batch.push(next);
    }
}

/// An event may be an alarm; whether it is shows when it is decoded, after the gathering.
fn is_enough(batch: &[Inbound]) -> bool {
    batch.len() >= GATHERED_ENOUGH || batch.iter().any(|publish| publish.topic.contains("/event/"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use caregate_protocol::id::DeviceId;
    use tokio::sync::oneshot;

    use super::*;

    fn publish(leaf: &str) -> Inbound {
        Inbound {
            device: DeviceId::new("monitor-1").unwrap(),
            topic: format!("vitals/v1/monitor-1/{leaf}"),
            payload: Bytes::new(),
            received_us: 0,
            verdict: oneshot::channel().0,
        }
    }

    /// What is gathered when `first` comes, and the rest a moment later, with a linger that nobody waits out.
    async fn gathered(first: &str, rest: Vec<Inbound>) -> usize {
        let (inbound, inbound_in) = mpsc::channel(INBOUND_MAX);
        let (_acked, acked) = mpsc::channel(1);
        let (_proposals, proposals) = mpsc::channel(1);
        let (_standings, standings) = mpsc::channel(1);
        let linger = Duration::from_secs(3600);
        let mut inputs = Inputs { inbound: inbound_in, acked, proposals, standings, linger };
        let sending = async {
            tokio::task::yield_now().await;
            for publish in rest {
                inbound.send(publish).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let both = async { tokio::join!(gather(publish(first), &mut inputs), sending).0.len() };
        tokio::time::timeout(Duration::from_secs(60), both).await.unwrap()
    }

    #[tokio::test]
    async fn a_commit_waits_no_longer_than_there_is_reason_to() {
        let numbers = |count: usize| (1..count).map(|_| publish("num/heart-rate")).collect::<Vec<_>>();
        assert_eq!(gathered("num/heart-rate", numbers(GATHERED_ENOUGH)).await, GATHERED_ENOUGH);
        assert_eq!(gathered("event/fall", Vec::new()).await, 1);
        let mut rest = numbers(3);
        rest.push(publish("event/fall"));
        assert_eq!(gathered("num/heart-rate", rest).await, 4);
    }
}
