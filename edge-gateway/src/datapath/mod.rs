//! The daemon's end of the datapath helper (`caregate-datapathd`), which holds the BPF maps: this process has no privilege.
//!
//! ```text
//!  policy ─┐
//!  switch ─┼─▶ Datapath ──queue──▶ task: one request at a time, reconnects ──Unix socket──▶ helper
//!  metrics ┘        ◀── events (Up, PacketIn, Port, Down) ─┘
//! ```
//! What is in force in the kernel stays in force while either process is away. After the helper was away it is told again
//! what it was told before: first the rules, then the policy, so that nothing is open in between that was closed.

mod connection;
pub mod metrics;
mod mirror;
pub mod policy;
mod start;
mod task;

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use caregate_protocol::datapath::switch::{Change, SwitchCounters};
use caregate_protocol::datapath::{
    Counters, FrameError, PacketOut, Policy, Port, Reason, Refused, Reply, Request, Welcome,
};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::openflow::agent::{HelperRefused, Part};
use crate::openflow::helper::{Helper, HelperEvent};
use task::Task;

pub use start::start;

/// Requests that wait: policy, switch, metrics and inventory ask one at a time each.
const REQUESTS_MAX: usize = 32;
/// Events that a listener may be behind: three seconds of frames to the controller, and some changes of ports.
const EVENTS_MAX: usize = 320;

/// Why the helper can't be used.
#[derive(Debug, Error)]
pub enum DatapathError {
    /// Nobody listens there, or may.
    #[error(
        "the datapath helper is not there ({path}: {source}); start caregate-datapathd, \
         or say `datapath = \"off\"` to do without a packet filter"
    )]
    Connect {
        /// The socket.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The connection was lost, or there is none now.
    #[error("the datapath helper is away")]
    Away,
    /// It said no.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// What it sent is no answer.
    #[error("the datapath helper's answer: {0}")]
    Frame(#[from] FrameError),
    /// Another answer than the question's.
    #[error("the datapath helper answers something else than was asked")]
    Unexpected,
    /// No answer in time.
    #[error("the datapath helper did not answer in {} s", connection::REPLY_TIMEOUT.as_secs())]
    Timeout,
    /// Reading or writing failed.
    #[error("the datapath helper's socket: {0}")]
    Io(#[from] io::Error),
}

/// An answer, and the descriptor that came beside it.
type Answer = Result<(Reply, Option<OwnedFd>), DatapathError>;

/// A request and where its answer goes.
struct Call {
    request: Request,
    /// Of a [`Request::Change`]: which of its batch it is.
    part: Part,
    answer: oneshot::Sender<Answer>,
}

/// The helper. Clones share one connection.
#[derive(Debug, Clone)]
pub struct Datapath {
    calls: mpsc::Sender<Call>,
    welcome: watch::Receiver<Option<Welcome>>,
    listeners: Listeners,
}

impl Datapath {
    /// Connects to the helper's socket. From then on the connection is kept: when it is lost it is made again, until `stop`.
    ///
    /// # Errors
    /// [`DatapathError`], where this first attempt fails: a gateway without its filter does not start.
    pub async fn connect(path: &Path, session: u64, stop: CancellationToken) -> Result<Self, DatapathError> {
        let (calls, calls_in) = mpsc::channel(REQUESTS_MAX);
        let listeners = Listeners::default();
        let (task, welcome) = Task::start(path, session, calls_in, listeners.clone()).await?;
        tokio::spawn(task.run(stop));
        Ok(Self { calls, welcome, listeners })
    }

    /// What it says unasked, from now on; first [`HelperEvent::Up`] if it is there. A listener that falls behind loses frames, and
    /// never a change of a port.
    #[must_use]
    pub fn events(&self) -> mpsc::Receiver<HelperEvent> {
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        self.listeners.add(sender, self.welcome.borrow().as_ref());
        receiver
    }

    /// The ports as it last told them; none while it is away.
    #[must_use]
    pub fn ports(&self) -> Vec<Port> {
        self.welcome.borrow().as_ref().map_or_else(Vec::new, |welcome| welcome.ports.clone())
    }

    /// Says when it comes, goes, or has another port.
    #[must_use]
    pub fn welcome(&self) -> watch::Receiver<Option<Welcome>> {
        self.welcome.clone()
    }

    /// Frames for the controller that a listener was too slow for.
    #[must_use]
    pub fn packets_lost(&self) -> u64 {
        self.listeners.packets_lost()
    }

    async fn call(&self, request: Request) -> Answer {
        self.call_part(Part::WHOLE, request).await
    }

    async fn call_part(&self, part: Part, request: Request) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.calls.send(Call { request, part, answer }).await.map_err(|_gone| DatapathError::Away)?;
        answered.await.map_err(|_gone| DatapathError::Away)?
    }

    async fn done(&self, part: Part, request: Request) -> Result<(), DatapathError> {
        match self.call_part(part, request).await? {
            (Reply::Done, None) => Ok(()),
            _ => Err(DatapathError::Unexpected),
        }
    }

    /// Replaces the policy in one step. It is told to the helper again whenever that was away, also where this call came then.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub async fn set_policy(&self, policy: Policy) -> Result<(), DatapathError> {
        self.done(Part::WHOLE, Request::SetPolicy(policy)).await
    }

    /// Has the helper make ready for a part of a batch; [`change`](Self::change) ends it.
    ///
    /// # Errors
    /// [`DatapathError`]; then the end will be refused as well.
    pub async fn prepare(&self, part: Part, changes: Vec<Change>) -> Result<(), DatapathError> {
        self.done(part, Request::Change { changes, more: true }).await
    }

    /// Changes the switch's tables, groups and meters in one step, with what was prepared of the same batch. Once it is in force the helper
    /// is told again what is there, whenever it was away.
    ///
    /// # Errors
    /// [`DatapathError`]; then nothing of the batch is in force or told again. So it is where the connection was lost since a part of it.
    pub async fn change(&self, part: Part, changes: Vec<Change>) -> Result<(), DatapathError> {
        self.done(part, Request::Change { changes, more: false }).await
    }

    /// What tables, flows, groups and meters counted.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub async fn switch_counters(&self) -> Result<SwitchCounters, DatapathError> {
        match self.call(Request::SwitchCounters).await? {
            (Reply::SwitchCounters(counters), None) => Ok(counters),
            _ => Err(DatapathError::Unexpected),
        }
    }

    /// What was counted.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub async fn counters(&self) -> Result<Counters, DatapathError> {
        match self.call(Request::Counters).await? {
            (Reply::Counters(counters), None) => Ok(counters),
            _ => Err(DatapathError::Unexpected),
        }
    }

    /// Sends frames, none of them to a sensor port, at most [`PACKET_OUTS_MAX`](caregate_protocol::datapath::PACKET_OUTS_MAX); says of
    /// each why it was not sent.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub async fn packet_outs(&self, packets: Vec<PacketOut>) -> Result<Vec<Option<Reason>>, DatapathError> {
        let count = packets.len();
        match self.call(Request::PacketOuts(packets)).await? {
            (Reply::PacketOuts(outcomes), None) if outcomes.len() == count => Ok(outcomes),
            _ => Err(DatapathError::Unexpected),
        }
    }

    /// A non-blocking packet socket that hears what devices on a port say of themselves.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub async fn packet_socket(&self, port: u32) -> Result<OwnedFd, DatapathError> {
        match self.call(Request::PacketSocket { port }).await? {
            (Reply::Socket, Some(socket)) => Ok(socket),
            _ => Err(DatapathError::Unexpected),
        }
    }
}

fn refused(error: DatapathError) -> HelperRefused {
    tracing::warn!(%error, "the datapath helper did not do it");
    HelperRefused
}

impl Helper for Datapath {
    async fn prepare(&self, part: Part, changes: Vec<Change>) -> Result<(), HelperRefused> {
        Self::prepare(self, part, changes).await.map_err(refused)
    }

    async fn change(&self, part: Part, changes: Vec<Change>) -> Result<(), HelperRefused> {
        Self::change(self, part, changes).await.map_err(refused)
    }

    async fn switch_counters(&self) -> Result<SwitchCounters, HelperRefused> {
        Self::switch_counters(self).await.map_err(refused)
    }

    async fn packet_outs(&self, packets: Vec<PacketOut>) -> Result<Vec<bool>, HelperRefused> {
        let outcomes = Self::packet_outs(self, packets).await.map_err(refused)?;
        Ok(outcomes.iter().map(Option::is_none).collect())
    }

    async fn counters(&self) -> Result<Counters, HelperRefused> {
        Self::counters(self).await.map_err(refused)
    }
}

/// Those who want to know what the helper says.
#[derive(Debug, Clone, Default)]
struct Listeners {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    senders: Vec<mpsc::Sender<HelperEvent>>,
    packets_lost: u64,
}

/// Room that frames leave to what must not be lost.
const RESERVED: usize = 64;

impl Listeners {
    fn add(&self, sender: mpsc::Sender<HelperEvent>, welcome: Option<&Welcome>) {
        if let Some(welcome) = welcome {
            // A new queue has room.
            drop(sender.try_send(HelperEvent::Up(welcome.clone())));
        }
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).senders.push(sender);
    }

    /// A listener whose queue is full of other things than frames does not listen any more, and sees its queue end.
    fn tell(&self, event: &HelperEvent) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { senders, packets_lost } = &mut *inner;
        senders.retain(|sender| {
            if matches!(event, HelperEvent::PacketIn { .. } | HelperEvent::Punt(_))
                && sender.capacity() <= RESERVED
            {
                *packets_lost = packets_lost.saturating_add(1);
                return !sender.is_closed();
            }
            sender.try_send(event.clone()).is_ok()
        });
    }

    fn packets_lost(&self) -> u64 {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).packets_lost
    }
}
