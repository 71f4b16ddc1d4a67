//! The policy connection: QUIC to the controller, again and again. What comes over it is verified like anything else; the controller
//! can starve this gateway and can't widen anything.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use caregate_host::identity::{Identity, Role};
use caregate_protocol::policy::delivery::{self, FRAME_BYTES_MAX, Frame, FrameError, frame_length};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, TransportConfig, VarInt};
use thiserror::Error;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::handle::PolicyHandle;
use super::pace::Pace;
use super::trail::Origin;

/// First pause after a lost connection, doubled at each failure up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(250);
/// Longest pause: a controller that returns is heard within this time.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Keep-alive, and silence of the path after which it counts as dead, as for the uplink.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the handshake, and for a frame of ours to be taken.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time without a frame: a controller sends a bundle every 10 s, and three may be late. A connection that lives and says nothing
/// is given up; another controller may be at the address.
const SILENCE_MAX: Duration = Duration::from_secs(40);
/// Bytes that the peer may have on the way: one frame.
const RECEIVE_WINDOW: u32 = 1 << 20;
/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;

/// Why a connection ended.
#[derive(Debug, Error)]
pub enum LinkError {
    /// No path, or the path died.
    #[error("transport: {0}")]
    Transport(String),
    /// The controller broke the protocol.
    #[error("controller: {0}")]
    Frame(#[from] FrameError),
    /// A frame that only gateways send.
    #[error("controller: unexpected frame")]
    Unexpected,
    /// Nothing came, or nothing was taken, for too long.
    #[error("controller: silent")]
    Silent,
    /// Fewer are enrolled now: the controller is told anew what to watch.
    #[error("enrolment changed")]
    Enrolment,
}

impl LinkError {
    /// A word for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Transport(_) => "transport",
            Self::Frame(source) => source.reason(),
            Self::Unexpected => "unexpected",
            Self::Silent => "silent",
            Self::Enrolment => "enrolment",
        }
    }
}

fn transport(error: impl std::fmt::Display) -> LinkError {
    LinkError::Transport(error.to_string())
}

/// What the policy connection needs.
#[derive(Debug, Clone)]
pub struct ControllerLink {
    /// The controller's UDP address.
    pub controller: SocketAddr,
    /// The name that its certificate must carry, if one is required.
    pub name: Option<String>,
    /// Our certificate.
    pub identity: Arc<Identity>,
    /// Where what comes is handed in.
    pub policy: PolicyHandle,
}

impl ControllerLink {
    /// Connects again and again until `shutdown`.
    ///
    /// # Errors
    /// Only if no UDP socket can be had, or the identity does not fit QUIC.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), LinkError> {
        let any: SocketAddr = match self.controller {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let mut endpoint = Endpoint::client(any).map_err(transport)?;
        endpoint.set_default_client_config(self.client_config()?);
        let (mut backoff, mut pace) = (BACKOFF_MIN, Pace::new());
        while !shutdown.is_cancelled() {
            tokio::select! {
                ended = self.once(&endpoint, &mut backoff, &mut pace) => {
                    let metrics = &self.policy.metrics().policy;
                    metrics.connected.set(0);
                    metrics.failures.with_label_values(&[ended.reason()]).inc();
                    info!(error = %ended, "no policy connection to the controller");
                }
                () = shutdown.cancelled() => break,
            }
            tokio::select! {
                () = tokio::time::sleep(backoff) => backoff = (backoff * 2).min(BACKOFF_MAX),
                () = shutdown.cancelled() => {}
            }
        }
        self.policy.metrics().policy.connected.set(0);
        endpoint.close(VarInt::from_u32(0), b"shutdown");
        endpoint.wait_idle().await;
        Ok(())
    }

    fn client_config(&self) -> Result<ClientConfig, LinkError> {
        let tls = self.identity.client_config(Role::Controller, self.name.as_deref(), &[delivery::ALPN]);
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).map_err(transport)?));
        let mut parameters = TransportConfig::default();
        parameters
            .keep_alive_interval(Some(KEEP_ALIVE))
            .max_idle_timeout(IDLE_TIMEOUT.try_into().ok())
            .receive_window(RECEIVE_WINDOW.into())
            .stream_receive_window(RECEIVE_WINDOW.into())
            .max_concurrent_bidi_streams(0_u32.into())
            .max_concurrent_uni_streams(0_u32.into());
        config.transport_config(Arc::new(parameters));
        Ok(config)
    }

    /// One connection, from handshake to loss.
    async fn once(&self, endpoint: &Endpoint, backoff: &mut Duration, pace: &mut Pace) -> LinkError {
        let opening = async {
            let connection = endpoint
                .connect(self.controller, "controller")
                .map_err(transport)?
                .await
                .map_err(transport)?;
            let (out, incoming) = connection.open_bi().await.map_err(transport)?;
            Ok::<_, LinkError>((connection, out, incoming))
        };
        let (connection, out, incoming) = match timeout(WRITE_TIMEOUT, opening).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(failure)) => return failure,
            Err(elapsed) => return transport(elapsed),
        };
        *backoff = BACKOFF_MIN;
        info!(controller = %connection.remote_address(), "policy connection to the controller");
        self.policy.metrics().policy.connected.set(1);
        let ended = self.serve(out, Incoming { stream: incoming, buffer: Vec::new() }, pace).await;
        let Err(failure) = ended;
        close(&connection);
        failure
    }

    async fn serve(
        &self,
        mut out: SendStream,
        mut incoming: Incoming,
        pace: &mut Pace,
    ) -> Result<std::convert::Infallible, LinkError> {
        let mut enrolled = self.policy.enrolled();
        let watch = enrolled.borrow_and_update().watch();
        send(&mut out, &Frame::Watch(watch)).await?;
        let (mut anchors, mut emergencies) = (self.policy.anchors(), self.policy.emergencies());
        anchors.mark_changed();
        emergencies.mark_changed();
        loop {
            tokio::select! {
                frame = timeout(SILENCE_MAX, incoming.next()) => {
                    let frame = frame.map_err(|_elapsed| LinkError::Silent)??;
                    pace.wait().await;
                    if self.handle(frame, &mut out).await? {
                        anchors.mark_changed();
                        emergencies.mark_changed();
                    }
                }
                Ok(()) = enrolled.changed() => return Err(LinkError::Enrolment),
                Ok(()) = emergencies.changed() => {
                    let waiting = Arc::clone(&emergencies.borrow_and_update());
                    for signed in waiting.iter() {
                        send(&mut out, &Frame::Emergency(signed.clone())).await?;
                    }
                }
                Ok(()) = anchors.changed() => {
                    let waiting = Arc::clone(&anchors.borrow_and_update());
                    for anchor in waiting.iter() {
                        send(&mut out, &Frame::Anchor(anchor.clone())).await?;
                    }
                }
            }
        }
    }

    /// Takes a frame. True where it was a bundle: then what the ledger has still not shown is sent again.
    async fn handle(&self, frame: Frame, out: &mut SendStream) -> Result<bool, LinkError> {
        match frame {
            Frame::Bundle(bytes) => {
                let verdict = self.policy.offer_bundle(bytes, Origin::Controller).await;
                send(out, &Frame::Verdict(verdict)).await?;
                Ok(true)
            }
            Frame::Revocation(signed) => {
                let verdict = self.policy.offer_revocation(signed, Origin::Controller).await;
                if let Some(reason) = verdict.refused {
                    warn!(reason, "a revocation from the controller was refused");
                }
                Ok(false)
            }
            Frame::Emergency(signed) => {
                let verdict = self.policy.offer_emergency(signed, Origin::Controller).await;
                if let Some(reason) = verdict.refused {
                    warn!(reason, "an emergency from the controller was refused");
                }
                Ok(false)
            }
            Frame::Watch(_) | Frame::Verdict(_) | Frame::Anchor(_) => Err(LinkError::Unexpected),
        }
    }
}

async fn send(out: &mut SendStream, frame: &Frame) -> Result<(), LinkError> {
    let written = timeout(WRITE_TIMEOUT, out.write_all(&frame.encode())).await;
    written.map_err(|_elapsed| LinkError::Silent)?.map_err(transport)
}

fn close(connection: &Connection) {
    connection.close(VarInt::from_u32(1), b"");
}

struct Incoming {
    stream: RecvStream,
    /// At most one frame and what came with its last bytes.
    buffer: Vec<u8>,
}

impl Incoming {
    /// The next frame. Cancel-safe: what was read stays in the buffer.
    async fn next(&mut self) -> Result<Frame, LinkError> {
        loop {
            if let Some(head) = self.buffer.first_chunk() {
                let end = 4 + frame_length(*head)?;
                debug_assert!(end <= 4 + FRAME_BYTES_MAX, "`frame_length` is bounded");
                if let Some(body) = self.buffer.get(4..end) {
                    let frame = Frame::decode(body)?;
                    self.buffer.drain(..end);
                    return Ok(frame);
                }
            }
            match self.stream.read_chunk(READ_BYTES, true).await.map_err(transport)? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk.bytes),
                None => return Err(transport("the controller closed the stream")),
            }
        }
    }
}
