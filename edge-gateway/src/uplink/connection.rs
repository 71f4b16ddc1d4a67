//! One QUIC connection after the other to the core.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use caregate_host::admin::Condition;
use caregate_host::identity::{Identity, Role};
use caregate_protocol::id::Lane;
use caregate_protocol::uplink::{self as wire, Frame, FrameError, Framer};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, TransportConfig, VarInt};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::Uplink;
use super::schedule::Part;
use crate::metrics::Metrics;
use crate::spool::{Position, Reader};

/// First pause after a lost connection, doubled at each failure up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(250);
/// Longest pause: an uplink that returns is used within this time.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Keep-alive: well under the 30 s after which many NATs forget a UDP flow.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Silence after which the path counts as dead: two keep-alives and their retransmissions.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a handshake, and for the core's welcome.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes handed to QUIC ahead of the network. Small, so that what is chosen is sent soon: live records must not wait
/// behind megabytes of backlog that were chosen before them.
const SEND_WINDOW_BYTES: u64 = 256 << 10;
/// Bytes read from the control stream at once.
const READ_BYTES: usize = 64 << 10;
/// Time for records in flight to be acknowledged when the gateway stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a connection ended.
#[derive(Debug, Error)]
pub enum LinkError {
    /// No path, or the path died.
    #[error("transport: {0}")]
    Transport(String),
    /// The core broke the protocol.
    #[error("core: {0}")]
    Frame(#[from] FrameError),
    /// A frame that has no place on the control stream.
    #[error("core: unexpected frame")]
    Unexpected,
    /// The core speaks another version.
    #[error("core: version {0} is not spoken here")]
    Version(u16),
    /// The committer is gone: the process is stopping.
    #[error("stopping")]
    Stopping,
}

fn transport(error: impl std::fmt::Display) -> LinkError {
    LinkError::Transport(error.to_string())
}

/// What the uplink needs.
#[derive(Clone)]
pub struct Link {
    /// The core's UDP address.
    pub core: SocketAddr,
    /// The name that the core's certificate must carry, if one is required.
    pub core_name: Option<String>,
    /// Our certificate.
    pub identity: Arc<Identity>,
    /// Reads records from the spool.
    pub reader: Reader,
    /// Shared with the committer.
    pub uplink: Arc<Uplink>,
    /// To the committer.
    pub acked: mpsc::Sender<RangeInclusive<u64>>,
    /// Counters.
    pub metrics: Metrics,
    /// Readiness: connected to the core.
    pub connected: Condition,
}

impl Link {
    /// Connects again and again until `shutdown`; then gives records in flight 3 s to be acknowledged.
    ///
    /// # Errors
    /// Only if no UDP socket can be had, or the identity does not fit QUIC.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), LinkError> {
        let any: SocketAddr = match self.core {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let mut endpoint = Endpoint::client(any).map_err(transport)?;
        endpoint.set_default_client_config(self.client_config()?);
        let mut backoff = BACKOFF_MIN;
        while !shutdown.is_cancelled() {
            match self.once(&endpoint, &shutdown, &mut backoff).await {
                Ok(()) => break,
                Err(error) => {
                    self.metrics.uplink_failures.with_label_values(&[error.reason()]).inc();
                    info!(%error, "no connection to the core");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(backoff) => backoff = (backoff * 2).min(BACKOFF_MAX),
                () = shutdown.cancelled() => {}
            }
        }
        endpoint.close(VarInt::from_u32(0), b"shutdown");
        endpoint.wait_idle().await;
        Ok(())
    }

    fn client_config(&self) -> Result<ClientConfig, LinkError> {
        let tls = self.identity.client_config(Role::Core, self.core_name.as_deref(), &[wire::ALPN]);
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).map_err(transport)?));
        let mut parameters = TransportConfig::default();
        parameters
            .keep_alive_interval(Some(KEEP_ALIVE))
            .max_idle_timeout(IDLE_TIMEOUT.try_into().ok())
            .send_window(SEND_WINDOW_BYTES);
        config.transport_config(Arc::new(parameters));
        Ok(config)
    }

    /// One connection, from handshake to loss. `Ok` only at shutdown.
    async fn once(
        &self,
        endpoint: &Endpoint,
        shutdown: &CancellationToken,
        backoff: &mut Duration,
    ) -> Result<(), LinkError> {
        let opening = async {
            let connection =
                endpoint.connect(self.core, "core").map_err(transport)?.await.map_err(transport)?;
            let (mut out, incoming) = connection.open_bi().await.map_err(transport)?;
            out.write_all(&Frame::Hello { version: wire::VERSION }.encode()).await.map_err(transport)?;
            let mut control = Control { stream: incoming, framer: Framer::new() };
            let Frame::Welcome { version } = control.next().await? else { return Err(LinkError::Unexpected) };
            if version == wire::VERSION {
                Ok((connection, out, control))
            } else {
                Err(LinkError::Version(version))
            }
        };
        let opened = tokio::select! {
            opened = tokio::time::timeout(HANDSHAKE_TIMEOUT, opening) => opened,
            () = shutdown.cancelled() => return Ok(()),
        };
        // `out` stays open as long as the connection: its end would tell the core that we are done.
        let (connection, out, control) = opened.map_err(transport)??;
        *backoff = BACKOFF_MIN;
        info!(core = %connection.remote_address(), "connected to the core");
        self.connected.set(true);
        self.uplink.schedule().connected();
        let mut lanes = JoinSet::new();
        let ended = self.serve(&connection, control, &mut lanes, shutdown).await;
        // Only when no sender runs any more: what one took now would count as sent on the next connection.
        lanes.shutdown().await;
        self.uplink.schedule().disconnected();
        self.connected.set(false);
        connection.close(VarInt::from_u32(u32::from(ended.is_err())), b"");
        drop(out);
        ended
    }

    async fn serve(
        &self,
        connection: &Connection,
        mut control: Control,
        lanes: &mut JoinSet<Result<(), LinkError>>,
        shutdown: &CancellationToken,
    ) -> Result<(), LinkError> {
        for lane in Lane::ALL {
            for part in [Part::Live, Part::Backlog] {
                lanes.spawn(self.clone().send_lane(connection.clone(), lane, part));
            }
        }
        let mut drained = None;
        loop {
            if drained.is_some() && self.uplink.waiting() == 0 {
                return Ok(());
            }
            let deadline = async {
                match drained {
                    None => std::future::pending().await,
                    Some(at) => tokio::time::sleep_until(at).await,
                }
            };
            tokio::select! {
                frame = control.next() => self.answered(frame?).await?,
                Some(ended) = lanes.join_next() => ended.map_err(transport)??,
                () = shutdown.cancelled(), if drained.is_none() => {
                    drained = Some(tokio::time::Instant::now() + DRAIN_TIMEOUT);
                }
                () = deadline => return Ok(()),
            }
        }
    }

    async fn answered(&self, frame: Frame) -> Result<(), LinkError> {
        match frame {
            Frame::Ack { ranges } => {
                for (first, last) in ranges {
                    self.uplink.schedule().acked(first, last);
                    self.acked.send(first..=last).await.map_err(|_gone| LinkError::Stopping)?;
                }
                self.uplink.observe(&self.metrics);
                Ok(())
            }
            Frame::Refuse { position, refusal } => {
                // It stays in the spool: the core can't take it, and nobody else may throw it away.
                self.metrics.uplink_refused.with_label_values(&[refusal.as_str()]).inc();
                warn!(position, refusal = refusal.as_str(), "the core refused a record");
                Ok(())
            }
            Frame::Hello { .. }
            | Frame::Welcome { .. }
            | Frame::Lane { .. }
            | Frame::Data { .. }
            | Frame::Subscribe { .. }
            | Frame::Subscribed { .. }
            | Frame::Delivery { .. } => Err(LinkError::Unexpected),
        }
    }

    /// Sends one queue of one lane for as long as the connection lasts.
    async fn send_lane(self, connection: Connection, lane: Lane, part: Part) -> Result<(), LinkError> {
        let mut stream: Option<SendStream> = None;
        loop {
            let position = self.uplink.next_position(lane, part).await;
            let reader = self.reader.clone();
            let read = tokio::task::spawn_blocking(move || reader.read(Position(position)));
            let record = match read.await.map_err(transport)? {
                Ok(Some((_, record))) => record,
                Ok(None) => {
                    debug!(position, "acknowledged meanwhile");
                    self.uplink.schedule().acked(position, position);
                    continue;
                }
                Err(failure) => {
                    // One bad sector must not hold up the rest. It counts as sent, so the next connection tries it again,
                    // and it stays in the spool: nobody but the core lets go of a record.
                    self.metrics.uplink_refused.with_label_values(&["unreadable"]).inc();
                    error!(position, %failure, "a record can't be read from the spool");
                    continue;
                }
            };
            let out = match &mut stream {
                Some(out) => out,
                none => none.insert(open_lane(&connection, lane, part).await?),
            };
            let frame = Frame::Data { position, record }.encode();
            out.write_all(&frame).await.map_err(transport)?;
            self.metrics.sent.with_label_values(&[lane.as_str(), label(part)]).inc();
        }
    }
}

fn label(part: Part) -> &'static str {
    match part {
        Part::Live => "live",
        Part::Backlog => "backlog",
    }
}

/// Live lanes above all backlog, and each in the order of lanes.
async fn open_lane(connection: &Connection, lane: Lane, part: Part) -> Result<SendStream, LinkError> {
    let mut out = connection.open_uni().await.map_err(transport)?;
    let rank = i32::from(lane as u8);
    let priority = match part {
        Part::Live => 8 - rank,
        Part::Backlog => -rank - 1,
    };
    out.set_priority(priority).map_err(transport)?;
    let frame = Frame::Lane { lane, backlog: part == Part::Backlog };
    out.write_all(&frame.encode()).await.map_err(transport)?;
    Ok(out)
}

impl LinkError {
    /// A label for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Transport(_) => "transport",
            Self::Frame(e) => e.reason(),
            Self::Unexpected => "unexpected",
            Self::Version(_) => "version",
            Self::Stopping => "stopping",
        }
    }
}

struct Control {
    stream: RecvStream,
    framer: Framer,
}

impl Control {
    /// The next frame. Cancel-safe: what was read stays in the framer.
    async fn next(&mut self) -> Result<Frame, LinkError> {
        loop {
            if let Some(frame) = self.framer.next_frame()? {
                return Ok(frame);
            }
            match self.stream.read_chunk(READ_BYTES, true).await.map_err(transport)? {
                Some(chunk) => self.framer.push(&chunk.bytes),
                None => return Err(transport("the core closed the control stream")),
            }
        }
    }
}
