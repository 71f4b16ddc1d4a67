//! One switch's connection: bytes to the session machine and the exchange on it, what they say back to bytes.
//!
//! There is no send queue. What a switch makes us send is written before its next bytes are read, so a switch that
//! doesn't read stops itself, and no other.

mod established;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use caregate_host::clock;
use caregate_protocol::openflow::session::{Action, CloseReason, Session, Switch, Timing};
use caregate_protocol::openflow::{FlowMod, Framer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::events::{Events, Kind};
use crate::exchange::{Answer, REQUESTS_MAX};
use crate::metrics::Metrics;
use crate::store::Desired;
use crate::switches::{Handle, Refusal, Switches, Ticket};
use established::Established;

/// Bytes per read: four longest TLS records' worth of small messages, or a quarter of one longest message.
const READ_BYTES: usize = 16 * 1024;
/// A switch that takes no bytes for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// For the TLS close; the switch needs nothing from it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What connections share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// How long sessions wait.
    pub timing: Timing,
    /// Who is there.
    pub switches: Arc<Mutex<Switches>>,
    /// Counters.
    pub metrics: Metrics,
    /// What is worth a line.
    pub events: Events,
    /// What is wanted of the switches.
    pub desired: watch::Receiver<Arc<Desired>>,
    /// Source port of the alarm lane.
    pub lane_ports: u16,
    /// Raised whenever something was found of a switch.
    pub found: Arc<watch::Sender<u64>>,
}

/// What others ask of a switch.
#[derive(Debug)]
pub enum Request {
    /// To take this flow-mod as it is.
    Write(Box<FlowMod>, oneshot::Sender<Answer>),
    /// To say what it holds now.
    Read(oneshot::Sender<Answer>),
}

impl Shared {
    /// The tables, even after a panic elsewhere: each method leaves them whole.
    pub fn lock(&self) -> MutexGuard<'_, Switches> {
        self.switches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Session(CloseReason),
    Refused(Refusal),
    /// The switch closed it, or the network did.
    Peer,
    WriteTimeout,
    /// The same switch came again.
    Replaced,
    Shutdown,
}

impl End {
    fn as_str(self) -> &'static str {
        match self {
            Self::Session(reason) => reason.as_str(),
            Self::Refused(refusal) => refusal.as_str(),
            Self::Peer => "peer",
            Self::WriteTimeout => "write-timeout",
            Self::Replaced => "replaced",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Leaves the tables as they were when the connection goes, however that is.
struct Place {
    shared: Shared,
    ticket: Ticket,
    peer: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut switches = self.shared.lock();
        if let Some(switch) = switches.disconnect(self.ticket, &self.peer) {
            self.shared.events.push(Kind::SwitchGone, switch, self.peer.as_str());
        }
        self.shared.metrics.switches.set(i64::try_from(switches.len()).unwrap_or(i64::MAX));
        self.shared.metrics.connections.dec();
    }
}

/// Serves one connection to its end. `peer` is the name in the certificate that the TLS handshake accepted.
pub async fn serve<S>(stream: S, peer: &str, shared: &Shared, shutdown: &CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let ticket = match shared.lock().connect(peer) {
        Ok(ticket) => ticket,
        Err(refusal) => {
            shared.metrics.connections_refused.with_label_values(&[refusal.as_str()]).inc();
            return warn!(peer, reason = refusal.as_str(), "connection refused: {refusal}");
        }
    };
    shared.metrics.connections.inc();
    let place = Place { shared: shared.clone(), ticket, peer: peer.to_owned() };
    let replaced = CancellationToken::new();
    let mut connection =
        Connection { stream, place, replaced, opened: clock::monotonic(), established: None };
    let end = connection.run(shutdown).await;
    match end {
        End::Session(reason) => warn!(peer, reason = end.as_str(), "connection closed: {reason}"),
        End::Refused(refusal) => warn!(peer, reason = end.as_str(), "connection closed: {refusal}"),
        End::Peer | End::WriteTimeout | End::Replaced | End::Shutdown => {
            info!(peer, reason = end.as_str(), "connection closed");
        }
    }
    shared.metrics.connections_closed.with_label_values(&[end.as_str()]).inc();
    // The switch is off the list before its connection is closed for it.
    let Connection { mut stream, place, .. } = connection;
    drop(place);
    if !matches!(timeout(CLOSE_TIMEOUT, stream.shutdown()).await, Ok(Ok(()))) {
        debug!(peer, "the connection was not closed in order");
    }
}

struct Connection<S> {
    stream: S,
    place: Place,
    replaced: CancellationToken,
    opened: Instant,
    established: Option<Established>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn run(&mut self, shutdown: &CancellationToken) -> End {
        let mut framer = Framer::new();
        let mut bytes = vec![0; READ_BYTES];
        let replaced = self.replaced.clone();
        let (mut session, greeting) = Session::open(self.place.shared.timing, self.now());
        if let Err(end) = self.perform(greeting, &mut session).await {
            return end;
        }
        loop {
            let own = self.established.as_ref().map(Established::next_timeout);
            let due = session.next_timeout().into_iter().chain(own).min().unwrap_or_default();
            let step = tokio::select! {
                () = shutdown.cancelled() => Err(End::Shutdown),
                () = replaced.cancelled() => Err(End::Replaced),
                () = sleep_until((self.opened + due).into()) => self.pass_time(&mut session).await,
                wish = established::next_wish(self.established.as_mut()) => {
                    self.advance(&mut session, |established, now, send| established.grant(wish, now, send)).await
                }
                read = self.stream.read(&mut bytes) => match read {
                    Ok(0) | Err(_) => Err(End::Peer),
                    Ok(count) => self.receive(&mut framer, &mut session, &bytes[..count]).await,
                },
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    fn now(&self) -> Duration {
        clock::monotonic().saturating_duration_since(self.opened)
    }

    async fn pass_time(&mut self, session: &mut Session) -> Result<(), End> {
        let actions = session.handle_timeout(self.now());
        self.perform(actions, session).await?;
        self.advance(session, Established::handle_timeout).await
    }

    async fn receive(
        &mut self,
        framer: &mut Framer,
        session: &mut Session,
        mut bytes: &[u8],
    ) -> Result<(), End> {
        loop {
            let count = framer.accept(bytes);
            bytes = &bytes[count..];
            loop {
                let now = self.now();
                let actions = match framer.next_frame() {
                    Ok(Some(frame)) => {
                        self.place.shared.metrics.messages_received.inc();
                        session.handle_frame(frame, now)
                    }
                    Ok(None) => break,
                    Err(error) => session.handle_framing_error(&error),
                };
                self.perform(actions, session).await?;
            }
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    /// Does what the session says, in its order.
    async fn perform(&mut self, actions: Vec<Action>, session: &mut Session) -> Result<(), End> {
        for action in actions {
            match action {
                Action::Send(bytes) => self.send(&bytes).await?,
                Action::Established(switch) => self.establish(switch, session).await?,
                Action::EchoAnswered(rtt) => {
                    self.place.shared.metrics.echo.observe(rtt.as_secs_f64());
                    let rtt_us = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
                    self.place.shared.lock().echo_answered(self.place.ticket, rtt_us);
                }
                Action::Refused(reason) => {
                    self.place.shared.metrics.messages_refused.with_label_values(&[reason]).inc();
                    debug!(peer = self.place.peer, reason, "message refused");
                }
                Action::PeerError(kind) => {
                    self.place.shared.metrics.switch_errors.with_label_values(&[kind.as_str()]).inc();
                    info!(peer = self.place.peer, error = kind.as_str(), "the switch reports an error");
                }
                Action::Received(xid, message) => {
                    self.advance(session, |established, now, send| {
                        established.handle(xid, message, now, send);
                    })
                    .await?;
                }
                Action::Close(reason) => return Err(End::Session(reason)),
            }
        }
        Ok(())
    }

    /// Lets the exchange take a step, if there is one, and sends what it says.
    async fn advance(
        &mut self,
        session: &mut Session,
        step: impl FnOnce(&mut Established, Duration, crate::reconcile::Send<'_>),
    ) -> Result<(), End> {
        let now = self.now();
        let Some(established) = &mut self.established else { return Ok(()) };
        let mut out = Vec::new();
        step(established, now, &mut sender(session, &mut out));
        if out.is_empty() { Ok(()) } else { self.send(&out).await }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), End> {
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match timeout(WRITE_TIMEOUT, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Peer),
            Err(_elapsed) => Err(End::WriteTimeout),
        }
    }

    async fn establish(&mut self, switch: Switch, session: &mut Session) -> Result<(), End> {
        let Place { shared, ticket, peer } = &self.place;
        let (requests_out, requests) = mpsc::channel(REQUESTS_MAX);
        let handle = Handle { replaced: self.replaced.clone(), requests: requests_out };
        let table = {
            let mut switches = shared.lock();
            let table =
                switches.identify(*ticket, peer, switch, clock::now_ms(), handle).map_err(End::Refused)?;
            shared.metrics.switches.set(i64::try_from(switches.len()).unwrap_or(i64::MAX));
            table
        };
        let id = crate::intent::DatapathId(switch.features.datapath_id);
        info!(peer, datapath_id = %id, n_tables = switch.features.n_tables, table, "switch connected");
        shared.events.push(Kind::SwitchConnected, id, peer.as_str());
        let now = self.now();
        let mut out = Vec::new();
        let (shared, ticket) = (shared.clone(), *ticket);
        let established =
            Established::new(shared, ticket, (id, table), requests, now, &mut sender(session, &mut out));
        self.established = Some(established);
        self.send(&out).await
    }
}

/// Gives messages their transaction ids and puts them behind `out`.
fn sender<'a>(
    session: &'a mut Session,
    out: &'a mut Vec<u8>,
) -> impl FnMut(&caregate_protocol::openflow::Message) -> u32 + use<'a> {
    move |message| match session.send(message) {
        Ok((xid, bytes)) => {
            out.extend(bytes);
            xid
        }
        // Of an established session only what doesn't fit a message, which is checked where it comes from; it gets no answer.
        Err(error) => {
            warn!(%error, "message not sent");
            u32::MAX
        }
    }
}

#[cfg(test)]
mod tests;
