//! The way from the core, on one QUIC connection: a subscription for what is live, one for the backlog that comes now, and one for what
//! was in the queue before. Of these the first goes before the others wherever they meet.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use caregate_host::clock;
use caregate_host::identity::{Identity, Role};
use caregate_protocol::id::{DataClass, RecipientId};
use caregate_protocol::uplink::{self as wire, Classes, Frame, FrameError, Framer, Question, Timing};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, TransportConfig};
use thiserror::Error;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::feed::Feed;
use crate::search::Inquiry;

/// First pause after a lost connection, doubled at each failure up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(250);
/// Longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// As at the gateway.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// As at the gateway: a dead path shows on the page within 10 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a handshake and the answer to a subscription.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Classes that are wanted before they are durable. Not waveforms: they are most of what comes, and the page's sweep runs behind by more
/// than a sync takes.
const PREVIEWED: [DataClass; 4] =
    [DataClass::Alarm, DataClass::Vitals, DataClass::Activity, DataClass::Sensitive];
/// Bytes read from a stream at once.
const READ_BYTES: usize = 64 << 10;

/// Why a connection ended.
#[derive(Debug, Error)]
pub enum LinkError {
    /// No path, or the path died.
    #[error("transport: {0}")]
    Transport(String),
    /// The core broke the protocol.
    #[error("core: {0}")]
    Frame(#[from] FrameError),
    /// A frame that has no place here.
    #[error("core: unexpected frame")]
    Unexpected,
    /// A number of the queue that is not above the one before it, or is the last that there is.
    #[error("core: record {number} after record {before:?}")]
    Number {
        /// What came.
        number: u64,
        /// What came before it in this subscription.
        before: Option<u64>,
    },
    /// The opener is gone: the process is stopping.
    #[error("stopping")]
    Stopping,
}

impl LinkError {
    /// A label for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Transport(_) => "transport",
            Self::Frame(e) => e.reason(),
            Self::Unexpected => "unexpected",
            Self::Number { .. } => "number",
            Self::Stopping => "stopping",
        }
    }
}

fn transport(error: impl std::fmt::Display) -> LinkError {
    LinkError::Transport(error.to_string())
}

/// What the opener is told.
#[derive(Debug)]
pub enum Event {
    /// A connection is up.
    Up,
    /// The connection is gone.
    Down(&'static str),
    /// One record of the queue that came to the core live.
    Record(Vec<u8>),
    /// One that did not, or that was in the queue before the connection came up.
    Backlog(Vec<u8>),
    /// A live record that the core has not synced yet.
    Provisional(Vec<u8>),
    /// Everything that was in the queue when the connection came up has been delivered.
    CaughtUp,
    /// Not of the link: somebody searches.
    Inquiry(Inquiry),
}

/// What goes beside records: gateways' heartbeats to us, staff's sealed commands to them.
#[derive(Debug, Clone)]
pub struct Staff {
    /// Takes heartbeats.
    pub feed: Arc<Feed>,
    /// Commands to send; one that comes while there is no connection is lost, and its sender repeats it.
    pub commands: broadcast::Sender<Vec<u8>>,
    /// Gives the connection to who searches.
    pub core: watch::Sender<Option<Connection>>,
}

/// What the link needs.
#[derive(Clone)]
pub struct Link {
    /// The core's UDP address.
    pub core: SocketAddr,
    /// The name that the core's certificate must carry, if one is required.
    pub core_name: Option<String>,
    /// Our certificate, of role `feed`.
    pub identity: Arc<Identity>,
    /// Whose queue.
    pub recipient: RecipientId,
    /// To the opener, what is live; bounded, so that a slow opener holds the core by flow control.
    pub events: mpsc::Sender<Event>,
    /// The same for all else. Where it is full, what is live goes on.
    pub backlog: mpsc::Sender<Event>,
    /// What goes beside records; none where history alone is wanted.
    pub staff: Option<Staff>,
}

impl Link {
    /// Connects again and again until `shutdown`. `delivered` numbers of the queue are not asked for twice: history resumes
    /// where the last connection stopped.
    ///
    /// # Errors
    /// Only if no UDP socket can be had, or the identity does not fit QUIC.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), LinkError> {
        let endpoint = self.endpoint()?;
        let mut backoff = BACKOFF_MIN;
        let mut progress = Progress::default();
        loop {
            let ended = tokio::select! {
                ended = self.once(&endpoint, &mut backoff, &mut progress) => ended,
                () = shutdown.cancelled() => break,
            };
            progress.interrupted();
            self.staff.iter().for_each(|staff| drop(staff.core.send_replace(None)));
            let Err(error) = ended else { continue };
            info!(%error, "no connection to the core");
            if self.events.send(Event::Down(error.reason())).await.is_err() {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff) => backoff = (backoff * 2).min(BACKOFF_MAX),
                () = shutdown.cancelled() => break,
            }
        }
        endpoint.close(0_u32.into(), b"shutdown");
        endpoint.wait_idle().await;
        Ok(())
    }

    /// Asks for a time of a patient's history until all of it was delivered, again and again where the connection is lost; what came
    /// before comes again then.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn history(self, mut question: Question, shutdown: CancellationToken) -> Result<(), LinkError> {
        let endpoint = self.endpoint()?;
        let mut backoff = BACKOFF_MIN;
        loop {
            let ended = tokio::select! {
                ended = self.history_once(&endpoint, &mut question) => ended,
                () = shutdown.cancelled() => break,
            };
            let Err(error) = ended else { break };
            info!(%error, "no connection to the core");
            if self.events.send(Event::Down(error.reason())).await.is_err() {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff) => backoff = (backoff * 2).min(BACKOFF_MAX),
                () = shutdown.cancelled() => break,
            }
        }
        endpoint.close(0_u32.into(), b"done");
        endpoint.wait_idle().await;
        Ok(())
    }

    async fn history_once(&self, endpoint: &Endpoint, question: &mut Question) -> Result<(), LinkError> {
        let connecting = endpoint.connect(self.core, "core").map_err(transport)?;
        let connection = tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting)
            .await
            .map_err(transport)?
            .map_err(transport)?;
        self.tell(Event::Up).await?;
        loop {
            let (mut out, stream) = connection.open_bi().await.map_err(transport)?;
            let frame = Frame::History { version: wire::VERSION, question: *question };
            out.write_all(&frame.encode()).await.map_err(transport)?;
            out.finish().map_err(transport)?;
            let mut frames = Frames { stream, framer: Framer::new() };
            let next = loop {
                match frames.next().await? {
                    Some(Frame::Past { record }) => self.tell(Event::Backlog(record)).await?,
                    Some(Frame::PastEnd { next }) => break next,
                    Some(_) => return Err(LinkError::Unexpected),
                    None => return Err(transport("the core ended the history")),
                }
            };
            match next {
                // A core that goes back would go on for ever.
                Some(next) if next > question.at => question.at = next,
                Some(_) => return Err(LinkError::Unexpected),
                None => return self.tell(Event::CaughtUp).await,
            }
        }
    }

    fn endpoint(&self) -> Result<Endpoint, LinkError> {
        let any: SocketAddr = match self.core {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let mut endpoint = Endpoint::client(any).map_err(transport)?;
        endpoint.set_default_client_config(self.client_config()?);
        Ok(endpoint)
    }

    fn client_config(&self) -> Result<ClientConfig, LinkError> {
        let tls = self.identity.client_config(Role::Core, self.core_name.as_deref(), &[wire::ALPN]);
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).map_err(transport)?));
        let mut parameters = TransportConfig::default();
        parameters.keep_alive_interval(Some(KEEP_ALIVE)).max_idle_timeout(IDLE_TIMEOUT.try_into().ok());
        config.transport_config(Arc::new(parameters));
        Ok(config)
    }

    async fn once(
        &self,
        endpoint: &Endpoint,
        backoff: &mut Duration,
        progress: &mut Progress,
    ) -> Result<(), LinkError> {
        let opening = async {
            let connection =
                endpoint.connect(self.core, "core").map_err(transport)?.await.map_err(transport)?;
            let span = (u64::MAX, u64::MAX);
            let live = Subscription::open(&connection, self.recipient, span, Some(Timing::Live)).await?;
            Ok::<_, LinkError>((connection, live))
        };
        let (connection, mut live) =
            tokio::time::timeout(HANDSHAKE_TIMEOUT, opening).await.map_err(transport)??;
        *backoff = BACKOFF_MIN;
        info!(core = %connection.remote_address(), "connected to the core");
        self.staff.iter().for_each(|staff| drop(staff.core.send_replace(Some(connection.clone()))));
        self.tell(Event::Up).await?;
        let span = (live.next, u64::MAX);
        let backlog = Subscription::open(&connection, self.recipient, span, Some(Timing::Backlog)).await?;
        let span = (progress.whole_below, live.next);
        let history = Subscription::open(&connection, self.recipient, span, None).await?;
        let mut past = Past { backlog, history: Some(history) };
        let mut following = Following::open(&connection, self.staff.as_ref()).await?;
        let mut preview = Preview::open(&connection, self.recipient, self.staff.is_some()).await?;
        progress.live_from(live.next);
        loop {
            tokio::select! {
                biased;
                came = live.next_of() => match came?.ok_or_else(|| transport("the core ended the subscription"))? {
                    Came::Record(number, record) => {
                        self.tell(Event::Record(record)).await?;
                        progress.passed(Timing::Live, number + 1);
                    }
                    Came::Passed(below) => progress.passed(Timing::Live, below),
                },
                ended = following.carry() => return Err(ended),
                record = preview.record() => self.tell(Event::Provisional(record?)).await?,
                done = past.pass_on(&self.backlog, progress) => done?,
            }
        }
    }

    async fn tell(&self, event: Event) -> Result<(), LinkError> {
        self.events.send(event).await.map_err(|_gone| LinkError::Stopping)
    }
}

/// What does not go before all else: backlog that comes now, and after it what was in the queue before.
struct Past {
    backlog: Subscription,
    history: Option<Subscription>,
}

impl Past {
    /// Passes one record on, as soon as the opener has room. Cancel-safe.
    async fn pass_on(
        &mut self,
        events: &mpsc::Sender<Event>,
        progress: &mut Progress,
    ) -> Result<(), LinkError> {
        // Room first: what is read here must not be lost where something else goes before it.
        let room = events.reserve().await.map_err(|_gone| LinkError::Stopping)?;
        tokio::select! {
            biased;
            came = self.backlog.next_of() => {
                match came?.ok_or_else(|| transport("the core ended the subscription"))? {
                    Came::Record(number, record) => {
                        room.send(Event::Backlog(record));
                        progress.passed(Timing::Backlog, number + 1);
                    }
                    Came::Passed(below) => progress.passed(Timing::Backlog, below),
                }
            }
            came = next_of(&mut self.history) => match came? {
                Some(Came::Record(number, record)) => {
                    room.send(Event::Backlog(record));
                    progress.whole_below = number + 1;
                }
                Some(Came::Passed(_)) => return Err(LinkError::Unexpected),
                None => {
                    self.history = None;
                    progress.caught_up();
                    room.send(Event::CaughtUp);
                }
            },
        }
        Ok(())
    }
}

/// The next of a subscription; never where there is none any more.
async fn next_of(subscription: &mut Option<Subscription>) -> Result<Option<Came>, LinkError> {
    match subscription {
        Some(subscription) => subscription.next_of().await,
        None => std::future::pending().await,
    }
}

/// How much of the queue has been delivered: all below `whole_below`, and, while history catches up, parts of what came after it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Progress {
    whole_below: u64,
    present: Option<Present>,
    caught_up: bool,
}

/// From where the connection came up: below which number all of each timing has been delivered.
#[derive(Debug, PartialEq, Eq)]
struct Present {
    start: u64,
    live: u64,
    backlog: u64,
}

impl Progress {
    fn live_from(&mut self, next: u64) {
        self.present = Some(Present { start: next, live: next, backlog: next });
        self.caught_up = false;
    }

    fn passed(&mut self, timing: Timing, below: u64) {
        if let Some(present) = &mut self.present {
            match timing {
                Timing::Live => present.live = below,
                Timing::Backlog => present.backlog = below,
            }
        }
        self.advance();
    }

    fn caught_up(&mut self) {
        self.caught_up = true;
        if let Some(present) = &self.present {
            self.whole_below = self.whole_below.max(present.start);
        }
        self.advance();
    }

    fn advance(&mut self) {
        if let (true, Some(present)) = (self.caught_up, &self.present) {
            self.whole_below = self.whole_below.max(present.live.min(present.backlog));
        }
    }

    /// What was delivered past a history that is not whole, or past a gap of the other timing, comes again; the opener knows it.
    fn interrupted(&mut self) {
        self.present = None;
        self.caught_up = false;
    }
}

/// Frames of one receiving stream.
struct Frames {
    stream: RecvStream,
    framer: Framer,
}

impl Frames {
    /// The next frame, or `None` at the end. Cancel-safe: what was read stays in the framer.
    async fn next(&mut self) -> Result<Option<Frame>, LinkError> {
        loop {
            if let Some(frame) = self.framer.next_frame()? {
                return Ok(Some(frame));
            }
            match self.stream.read_chunk(READ_BYTES, true).await.map_err(transport)? {
                Some(chunk) => self.framer.push(&chunk.bytes),
                None => return Ok(None),
            }
        }
    }
}

/// What a subscription brings.
enum Came {
    /// A record and its number.
    Record(u64, Vec<u8>),
    /// All below this number was delivered.
    Passed(u64),
}

struct Subscription {
    frames: Frames,
    next: u64,
    order: Order,
}

/// The order of a subscription's numbers. What is admitted can be counted on from: it is below `u64::MAX`.
#[derive(Debug, Default)]
struct Order {
    last: Option<u64>,
}

impl Order {
    fn admit(&mut self, number: u64) -> Result<u64, LinkError> {
        if number == u64::MAX || self.last.is_some_and(|last| number <= last) {
            return Err(LinkError::Number { number, before: self.last });
        }
        self.last = Some(number);
        Ok(number)
    }

    /// All below is done: as if the number before it had come.
    fn pass(&mut self, below: u64) -> Result<u64, LinkError> {
        let number = below.checked_sub(1).ok_or(LinkError::Unexpected)?;
        self.admit(number).map(|number| number + 1)
    }
}

impl Subscription {
    async fn open(
        connection: &Connection,
        recipient: RecipientId,
        (from, until): (u64, u64),
        of: Option<Timing>,
    ) -> Result<Self, LinkError> {
        let (mut out, stream) = connection.open_bi().await.map_err(transport)?;
        let frame = Frame::Subscribe { version: wire::VERSION, recipient, from, until, of };
        out.write_all(&frame.encode()).await.map_err(transport)?;
        out.finish().map_err(transport)?;
        let frames = Frames { stream, framer: Framer::new() };
        let mut subscription = Self { frames, next: 0, order: Order::default() };
        match subscription.frames.next().await? {
            Some(Frame::Subscribed { version: wire::VERSION, next }) => subscription.next = next,
            _ => return Err(LinkError::Unexpected),
        }
        Ok(subscription)
    }

    /// What comes next, or `None` at the end. Cancel-safe: what was read stays in the framer.
    async fn next_of(&mut self) -> Result<Option<Came>, LinkError> {
        match self.frames.next().await? {
            Some(Frame::Delivery { number, record }) => {
                Ok(Some(Came::Record(self.order.admit(number)?, record)))
            }
            Some(Frame::Passed { below }) => Ok(Some(Came::Passed(self.order.pass(below)?))),
            None => Ok(None),
            Some(_) => Err(LinkError::Unexpected),
        }
    }
}

/// The stream of what is not durable yet; none where history alone is wanted.
struct Preview {
    frames: Option<Frames>,
}

impl Preview {
    async fn open(
        connection: &Connection,
        recipient: RecipientId,
        is_wanted: bool,
    ) -> Result<Self, LinkError> {
        let mut frames = None;
        if is_wanted {
            let (mut out, incoming) = connection.open_bi().await.map_err(transport)?;
            let classes = Classes::of(&PREVIEWED);
            let frame = Frame::Preview { version: wire::VERSION, recipient, classes };
            out.write_all(&frame.encode()).await.map_err(transport)?;
            out.finish().map_err(transport)?;
            frames = Some(Frames { stream: incoming, framer: Framer::new() });
        }
        Ok(Self { frames })
    }

    /// The next record. Cancel-safe: what was read stays in the framer.
    async fn record(&mut self) -> Result<Vec<u8>, LinkError> {
        let Some(frames) = &mut self.frames else { return std::future::pending().await };
        match frames.next().await? {
            Some(Frame::Provisional { record }) => Ok(record),
            Some(_) => Err(LinkError::Unexpected),
            None => Err(transport("the core ended the preview")),
        }
    }
}

/// The stream beside records.
struct Following<'a> {
    staff: Option<(&'a Staff, broadcast::Receiver<Vec<u8>>)>,
    receipts: Option<watch::Receiver<Vec<Arc<[u8]>>>>,
    /// Sent over this connection.
    sent: HashSet<Arc<[u8]>>,
    stream: Option<(SendStream, RecvStream)>,
    framer: Framer,
}

impl<'a> Following<'a> {
    async fn open(connection: &Connection, staff: Option<&'a Staff>) -> Result<Self, LinkError> {
        let staff = staff.map(|staff| (staff, staff.commands.subscribe()));
        let stream = match &staff {
            None => None,
            Some(_) => {
                let (mut out, incoming) = connection.open_bi().await.map_err(transport)?;
                let frame = Frame::Follow { version: wire::VERSION };
                out.write_all(&frame.encode()).await.map_err(transport)?;
                Some((out, incoming))
            }
        };
        let receipts = staff.as_ref().map(|(staff, _)| staff.feed.erasures().follow());
        Ok(Self { staff, receipts, sent: HashSet::new(), stream, framer: Framer::new() })
    }

    /// Carries until the connection ends. Cancel-safe but for a command or a receipt that is half written: then so is the connection.
    async fn carry(&mut self) -> LinkError {
        let (Some((staff, commands)), Some(receipts), Some((out, incoming))) =
            (&mut self.staff, &mut self.receipts, &mut self.stream)
        else {
            return std::future::pending().await;
        };
        loop {
            match self.framer.next_frame() {
                Ok(Some(Frame::Beat { bytes })) => {
                    staff.feed.bedside().beat(&bytes, clock::monotonic());
                    continue;
                }
                Ok(Some(_)) => return LinkError::Unexpected,
                Ok(None) => {}
                Err(error) => return error.into(),
            }
            tokio::select! {
                read = incoming.read_chunk(READ_BYTES, true) => match read {
                    Ok(Some(chunk)) => self.framer.push(&chunk.bytes),
                    Ok(None) => return transport("the core ended the following"),
                    Err(error) => return transport(error),
                },
                changed = receipts.changed() => {
                    if changed.is_err() {
                        return LinkError::Stopping;
                    }
                    let all = receipts.borrow_and_update().clone();
                    self.sent.retain(|sent| all.contains(sent));
                    for receipt in all {
                        let frame = Frame::Erased { receipt: receipt.to_vec() };
                        if self.sent.insert(receipt)
                            && let Err(error) = out.write_all(&frame.encode()).await
                        {
                            return transport(error);
                        }
                    }
                }
                command = commands.recv() => match command {
                    Ok(bytes) => {
                        let frame = Frame::Command { bytes }.encode();
                        if let Err(error) = out.write_all(&frame).await {
                            return transport(error);
                        }
                    }
                    // They are repeated.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return LinkError::Stopping,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_numbers_badly_is_refused() {
        let mut order = Order::default();
        for number in [0, 1, 5, u64::MAX - 1] {
            assert_eq!(order.admit(number).unwrap(), number);
        }
        for number in [u64::MAX, u64::MAX - 1, 5, 0] {
            let error = order.admit(number).unwrap_err();
            assert_eq!(error.reason(), "number", "{error}");
        }
        assert!(Order::default().admit(u64::MAX).is_err());
        let mut order = Order::default();
        assert_eq!(order.pass(5).unwrap(), 5);
        assert!(order.admit(4).is_err() && order.pass(5).is_err() && order.pass(0).is_err());
        assert_eq!((order.admit(5).unwrap(), order.pass(7).unwrap()), (5, 7));
        let mut progress = Progress::default();
        progress.live_from(0);
        progress.passed(Timing::Live, u64::MAX);
        progress.passed(Timing::Backlog, u64::MAX);
        progress.caught_up();
        assert_eq!(progress.whole_below, u64::MAX);
    }

    #[test]
    fn what_was_delivered_whole_is_not_asked_for_again() {
        let mut progress = Progress::default();
        progress.live_from(10);
        progress.passed(Timing::Live, 13);
        progress.passed(Timing::Backlog, 12);
        assert_eq!(progress.whole_below, 0, "history is not whole yet");
        progress.caught_up();
        assert_eq!(progress.whole_below, 12, "backlog may be between");
        progress.passed(Timing::Backlog, 20);
        assert_eq!(progress.whole_below, 13);
        progress.passed(Timing::Live, 21);
        progress.interrupted();
        assert_eq!(progress.whole_below, 20);
    }

    #[test]
    fn an_interrupted_history_resumes_where_it_stopped() {
        let mut progress = Progress::default();
        progress.live_from(10);
        progress.passed(Timing::Live, 11);
        progress.passed(Timing::Backlog, 11);
        progress.whole_below = 4;
        progress.interrupted();
        assert_eq!(progress.whole_below, 4);
    }
}
