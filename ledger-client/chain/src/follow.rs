//! Follows the chain: its head, and the events up to it. A node that goes away is asked again until it is back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caregate_protocol::policy::Watch;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::client::{Block, Chain, Head, LOG_BLOCKS_MAX};
use crate::error::ChainError;
use crate::handover::Handovers;
use crate::index::Index;

/// Pauses between attempts to reach a node that does not answer: the first, doubled up to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Whether the chain is followed at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Not yet: nothing has been answered.
    Starting,
    /// Events up to the head are known.
    Following,
    /// The node does not answer, or not as it should. Asked again all the time.
    Down(ChainError),
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) index: Index,
    /// The block up to which the index is complete; none while it is not.
    pub(crate) synced: Option<Block>,
    /// The last block whose events are in the index: that of `synced`, where there is one. What is read next must stand on it.
    read: Option<Head>,
    /// Of the newest block seen.
    pub(crate) latest: u64,
    /// Who sealed until when.
    pub(crate) handovers: Handovers,
}

impl State {
    fn new(index_max: usize) -> Self {
        Self {
            index: Index::new(index_max),
            synced: None,
            read: None,
            latest: 0,
            handovers: Handovers::default(),
        }
    }

    /// The first block whose events have not been read.
    pub(crate) fn next(&self) -> u64 {
        self.read.map_or(0, |read| read.number.saturating_add(1))
    }
}

/// A chain that is being followed.
#[derive(Debug)]
pub struct Follower {
    chain: Chain,
    state: Mutex<State>,
    heads: watch::Sender<Option<Head>>,
    status: watch::Sender<Status>,
}

impl Follower {
    /// Begins to follow, in a task of its own, until `shutdown`. The node need not be there yet.
    #[must_use]
    pub fn start(chain: Chain, shutdown: CancellationToken) -> Arc<Self> {
        let follower = Arc::new(Self {
            state: Mutex::new(State::new(chain.config.index_max)),
            heads: watch::Sender::new(None),
            status: watch::Sender::new(Status::Starting),
            chain,
        });
        let task = Arc::clone(&follower);
        tokio::spawn(async move { shutdown.run_until_cancelled(task.run()).await });
        follower
    }

    /// The chain that is followed.
    #[must_use]
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The newest block up to which the index is complete. Changes with each block.
    #[must_use]
    pub fn heads(&self) -> watch::Receiver<Option<Head>> {
        self.heads.subscribe()
    }

    /// Whether the node answers. Changes when that changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Looks into the index. Keep it short: the follower waits meanwhile.
    pub fn with_index<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        look(&self.state().index)
    }

    /// The block of the last change of what is watched ([`Index::last_change`]).
    #[must_use]
    pub fn last_change(&self, watch: &Watch) -> u64 {
        self.with_index(|index| index.last_change(watch))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self) {
        let mut pause = BACKOFF.0;
        let mut checked = false;
        loop {
            let wait = match self.look(&mut checked).await {
                Ok(()) => {
                    pause = BACKOFF.0;
                    self.say(Status::Following);
                    self.chain.config.poll()
                }
                Err(error) => {
                    checked = false;
                    self.say(Status::Down(error));
                    let wait = pause;
                    pause = (pause * 2).min(BACKOFF.1);
                    wait
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    fn say(&self, status: Status) {
        self.status.send_if_modified(|known| {
            let changed = *known != status;
            if changed {
                match &status {
                    Status::Down(error) => tracing::warn!(%error, "the ledger is not followed"),
                    Status::Following | Status::Starting => tracing::info!("the ledger is followed"),
                }
                *known = status;
            }
            changed
        });
    }

    /// One look: the head, and the events since the last look.
    async fn look(&self, checked: &mut bool) -> Result<(), ChainError> {
        if !*checked {
            self.chain.check().await?;
            *checked = true;
        }
        let latest = self.chain.block(None).await?;
        if !self.continues(&latest).await? {
            tracing::warn!(
                block = latest.head.number,
                "the ledger is another one than before: read from its beginning"
            );
            *self.state() = State::new(self.chain.config.index_max);
            self.heads.send_replace(None);
        }
        let from = {
            let mut state = self.state();
            state.latest = latest.head.number;
            if state.synced.as_ref().is_some_and(|synced| synced.head == latest.head) {
                return Ok(());
            }
            if state.synced.is_none() {
                // What a look found out that came to no end may be of blocks that are gone.
                state.handovers = Handovers::default();
            }
            state.next().max(self.chain.config.deployed_at)
        };
        self.follow_validators(&latest).await?;
        self.catch_up(from, &latest).await?;
        self.heads.send_replace(Some(latest.head));
        Ok(())
    }

    /// Whether `latest` stands on what was read before. A QBFT chain is final; a node whose data were lost begins again.
    async fn continues(&self, latest: &Block) -> Result<bool, ChainError> {
        let Some(known) = self.state().read else { return Ok(true) };
        if latest.head.number < known.number {
            return Ok(false);
        }
        if latest.head.number == known.number {
            return Ok(latest.head.hash == known.hash);
        }
        if latest.head.number == known.number + 1 {
            return Ok(latest.header.parent_hash.0 == known.hash);
        }
        self.has(&known).await
    }

    /// Whether the node has this block still.
    async fn has(&self, known: &Head) -> Result<bool, ChainError> {
        Ok(self.chain.block(Some(known.number)).await?.head.hash == known.hash)
    }

    async fn catch_up(&self, from: u64, latest: &Block) -> Result<(), ChainError> {
        let mut at = from;
        while at <= latest.head.number {
            let end = latest.head.number.min(at.saturating_add(LOG_BLOCKS_MAX - 1));
            let last = end == latest.head.number;
            // Asked for before its events: of a chain that comes in between, these don't stand on it, and the next look sees that.
            let read = if last { latest.head } else { self.checkpoint(end).await? };
            let events = self.chain.events(at, end).await?;
            let before = self.state().read;
            if let (false, Some(before)) = (last, before)
                && !self.has(&before).await?
            {
                return Err(ChainError::malformed("eth_getBlockByNumber", "another chain than a moment ago"));
            }
            let mut state = self.state();
            events.iter().for_each(|event| state.index.apply(event));
            state.read = Some(read);
            // Events and header change together: whoever looks finds an index that is complete up to its header.
            state.synced = last.then(|| latest.clone());
            at = end.saturating_add(1);
        }
        Ok(())
    }

    /// The block in the middle of a long way at which reading may go on.
    async fn checkpoint(&self, number: u64) -> Result<Head, ChainError> {
        let head = self.chain.block(Some(number)).await?.head;
        if head.number == number {
            Ok(head)
        } else {
            Err(ChainError::malformed("eth_getBlockByNumber", "another block than was asked for"))
        }
    }
}
