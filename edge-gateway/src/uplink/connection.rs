//! The connections to the core: one for each lane and one for the backlog, each from a UDP port of its own, so that the
//! network can tell them apart (`docs/control-path.md`, "Lanes on the wire"). Each is lost and made again by itself; where UDP does
//! not get through, by TCP ([`Path`]).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use caregate_host::admin::Condition;
use caregate_host::clock;
use caregate_host::identity::{Identity, Role};
use caregate_protocol::beat::BEAT_BYTES;
use caregate_protocol::uplink::{self as wire, FrameError};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint, TransportConfig, VarInt};
use thiserror::Error;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Uplink;
use super::line::{Line, Opened};
use super::path::{Path, Way};
use super::ports::LanePorts;
use super::schedule::Part;
use crate::keys::elsewhere::Elsewhere;
use crate::keys::erasures::Erasures;
use crate::metrics::Metrics;
use crate::policy::offers::Incoming;
use crate::spool::Reader;

/// First pause after a lost connection, doubled at each failure up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(250);
/// Longest pause: an uplink that returns is used within this time.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Time for a handshake, and for the core's welcome.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// An attempt of this age that has no answer is begun anew when another connection comes up: its first packet and the first
/// repetition (RFC 9002 §6.2.2: after 1 s) are lost, and the next may be seconds away.
const ATTEMPT_STALE: Duration = Duration::from_secs(1);
/// Keep-alive: well under the 30 s after which many NATs forget a UDP flow.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Silence after which the path counts as dead: two keep-alives and their retransmissions.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes handed to QUIC ahead of the network, for each connection. Small, so that what is chosen is sent soon: what one
/// lane has handed over can't be overtaken by what is more urgent.
const SEND_WINDOW_BYTES: u64 = 256 << 10;

/// Why a connection ended.
#[derive(Debug, Error)]
pub enum LinkError {
    /// A UDP port can't be had.
    #[error("UDP port {port} (core.lane_ports, {part}): {source}")]
    Port {
        /// Which port; 0 for any.
        port: u16,
        /// Whose.
        part: &'static str,
        /// Why.
        source: std::io::Error,
    },
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
    /// QUIC gets through again: the TCP connection is left for it.
    #[error("QUIC gets through again")]
    Better,
}

impl LinkError {
    /// A label for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Port { .. } => "port",
            Self::Transport(_) => "transport",
            Self::Frame(e) => e.reason(),
            Self::Unexpected => "unexpected",
            Self::Version(_) => "version",
            Self::Stopping => "stopping",
            Self::Better => "better",
        }
    }
}

pub(super) fn transport(error: impl std::fmt::Display) -> LinkError {
    LinkError::Transport(error.to_string())
}

/// What goes by the alarm lane's control stream: heartbeats and erasures up, staff's sealed commands and receipts down.
#[derive(Debug, Clone)]
pub struct Staff {
    /// The newest heartbeat.
    pub beats: watch::Receiver<Option<[u8; BEAT_BYTES]>>,
    /// To the watch. What finds no room is sent again by whoever sent it.
    pub commands: mpsc::Sender<Vec<u8>>,
    /// What the core is asked to erase, with its receipts; and what it is asked of restored roots.
    pub questions: (Erasures, Elsewhere),
}

/// What the uplink needs.
#[derive(Clone)]
pub struct Link {
    /// The core's UDP address.
    pub core: SocketAddr,
    /// Its TCP address, for where UDP does not get through.
    pub core_tcp: Option<SocketAddr>,
    /// The name that the core's certificate must carry, if one is required.
    pub core_name: Option<String>,
    /// The UDP ports to send from; any where none are given.
    pub lane_ports: Option<LanePorts>,
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
    /// What the watch sends and gets beside records; none where there is no watch.
    pub staff: Option<Staff>,
    /// Takes policy that comes by way of the core; none where nobody takes it.
    pub offers: Option<mpsc::Sender<Incoming>>,
    /// Readiness: every lane has its connection to the core.
    pub connected: Condition,
}

impl Link {
    /// Connects again and again until `shutdown`; then gives records in flight 3 s to be acknowledged.
    ///
    /// # Errors
    /// Only if a UDP port can't be had, or the identity does not fit QUIC.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), LinkError> {
        let config = self.client_config()?;
        let path = Arc::new(Notify::new());
        // All ports before the first connection: a port that is taken stops the gateway, not one lane of it.
        let mut lines = Vec::new();
        for part in Part::ALL {
            let mut endpoint = self.endpoint(part)?;
            endpoint.set_default_client_config(config.clone());
            lines.push((Line { link: self.clone(), part }, endpoint));
        }
        let mut running = JoinSet::new();
        for (line, endpoint) in lines {
            running.spawn(keep(line, endpoint, Arc::clone(&path), shutdown.clone()));
        }
        while let Some(ended) = running.join_next().await {
            ended.map_err(transport)?;
        }
        Ok(())
    }

    fn endpoint(&self, part: Part) -> Result<Endpoint, LinkError> {
        let any: IpAddr = match self.core {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let port = self.lane_ports.map_or(0, |ports| ports.of(part));
        let taken = |source| LinkError::Port { port, part: part.as_str(), source };
        Endpoint::client((any, port).into()).map_err(taken)
    }

    /// The same for both ways.
    pub(super) fn tls(&self) -> Arc<rustls::ClientConfig> {
        Arc::new(self.identity.client_config(Role::Core, self.core_name.as_deref(), &[wire::ALPN]))
    }

    fn client_config(&self) -> Result<ClientConfig, LinkError> {
        let tls = QuicClientConfig::try_from(self.tls()).map_err(transport)?;
        let mut config = ClientConfig::new(Arc::new(tls));
        let mut parameters = TransportConfig::default();
        parameters
            .keep_alive_interval(Some(KEEP_ALIVE))
            .max_idle_timeout(IDLE_TIMEOUT.try_into().ok())
            .send_window(SEND_WINDOW_BYTES);
        config.transport_config(Arc::new(parameters));
        Ok(config)
    }
}

/// One connection after the other. `path` tells the others that one has come up, so that there is a path.
async fn keep(line: Line, endpoint: Endpoint, path: Arc<Notify>, shutdown: CancellationToken) {
    let mut backoff = BACKOFF_MIN;
    let mut ways = Path::new(line.link.core_tcp.is_some());
    let mut found = None;
    while !shutdown.is_cancelled() {
        let (way, opened) = match found.take() {
            Some(opened) => (Way::Quic, Ok(opened)),
            None => {
                let way = ways.next(clock::monotonic());
                let stale = async {
                    tokio::time::sleep(ATTEMPT_STALE).await;
                    path.notified().await;
                };
                tokio::select! {
                    opened = open(&line, &endpoint, way) => (way, opened),
                    () = stale => continue,
                    () = shutdown.cancelled() => break,
                }
            }
        };
        let ended = match opened {
            Ok(opened) => {
                backoff = BACKOFF_MIN;
                path.notify_waiters();
                ways.stands(way, clock::monotonic());
                let (ended, better) = hold(&line, opened, &endpoint, &mut ways, &shutdown).await;
                ways.lost(way, clock::monotonic());
                found = better;
                ended
            }
            Err(error) => Err(error),
        };
        match ended {
            Ok(()) => break,
            Err(LinkError::Better) => continue,
            Err(error) => {
                line.link.metrics.uplink_failures.with_label_values(&[error.reason()]).inc();
                info!(%error, lane = line.part.as_str(), "no connection to the core");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(backoff) => backoff = (backoff * 2).min(BACKOFF_MAX),
            () = path.notified() => {}
            () = shutdown.cancelled() => {}
        }
    }
    endpoint.close(VarInt::from_u32(0), b"shutdown");
    endpoint.wait_idle().await;
}

async fn open(line: &Line, endpoint: &Endpoint, way: Way) -> Result<Opened, LinkError> {
    tokio::time::timeout(HANDSHAKE_TIMEOUT, line.open(endpoint, way)).await.map_err(transport)?
}

/// Holds a connection; by TCP, QUIC is tried beside it, and found it takes over.
async fn hold(
    line: &Line,
    opened: Opened,
    endpoint: &Endpoint,
    ways: &mut Path,
    shutdown: &CancellationToken,
) -> (Result<(), LinkError>, Option<Opened>) {
    let better = CancellationToken::new();
    let holding = line.hold(opened, shutdown, &better);
    tokio::pin!(holding);
    let mut found = None;
    loop {
        let at = ways.probe_at();
        let probing = async {
            match at {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
            open(line, endpoint, Way::Quic).await
        };
        tokio::select! {
            ended = &mut holding => return (ended, found),
            probed = probing, if found.is_none() => {
                ways.probed(clock::monotonic());
                found = probed.ok();
                if found.is_some() {
                    better.cancel();
                }
            }
        }
    }
}
