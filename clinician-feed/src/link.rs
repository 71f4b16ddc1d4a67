//! The way from the core, on one QUIC connection: a subscription for what is live, one for the backlog that comes now, and one for what
//! was in the queue before. Of these the first goes before the others wherever they meet.

mod subscription;

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

use self::subscription::{Came, Frames, Progress, Subscription, next_of};
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
            let mut frames = Frames::of(stream);
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
            frames = Some(Frames::of(incoming));
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
