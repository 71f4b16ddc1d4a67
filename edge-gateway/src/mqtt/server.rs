//! The embedded server's shell: listens, shakes hands, and runs one task per connection.
//!
//! Shut down the pipeline only after [`Server::serve`] has returned: until then it still answers outstanding publishes.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use caregate_protocol::id::DeviceId;
use rumqttc::mqttbytes::v4::Connect;
use rustls::pki_types::CertificateDer;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::connection::{self, CLOSE_TIMEOUT, Peer};
use super::credentials::Credentials;
use super::limits::{CONNECT_TIMEOUT, DRAIN_TIMEOUT, HANDSHAKES_MAX, Limits, OUTSTANDING_BYTES_MAX};
use super::metrics::ServerMetrics;
use super::registry::{ConnectionNumber, Registry};
use super::session::{Client, ConnectRefusal};
use crate::ingest::Inbound;

/// Pause after `accept` failed: it fails when file descriptors have run out, and they come back as connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whom a client certificate names; an error where it names no sensor.
pub type DeviceOfCertificate =
    dyn Fn(&[CertificateDer<'_>]) -> Result<DeviceId, CertificateRefused> + Send + Sync;

/// A chain that passed TLS but names no sensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("client certificate names no sensor: {0}")]
pub struct CertificateRefused(pub String);

/// How a TLS listener proves itself and reads who is there.
#[derive(Clone)]
pub struct TlsDoor {
    acceptor: Arc<dyn Fn() -> TlsAcceptor + Send + Sync>,
    device_of: Arc<DeviceOfCertificate>,
}

impl TlsDoor {
    /// `acceptor` is asked for each connection, so that a rotated identity holds from the next one on. `device_of` is given the
    /// client's chain, leaf first, which rustls has verified. A client without a certificate (where the acceptor lets it in)
    /// must show user name and secret.
    pub fn new(
        acceptor: impl Fn() -> TlsAcceptor + Send + Sync + 'static,
        device_of: impl Fn(&[CertificateDer<'_>]) -> Result<DeviceId, CertificateRefused> + Send + Sync + 'static,
    ) -> Self {
        Self { acceptor: Arc::new(acceptor), device_of: Arc::new(device_of) }
    }
}

impl fmt::Debug for TlsDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsDoor").finish_non_exhaustive()
    }
}

/// What all connections of all listeners share.
pub struct Server {
    pub(super) limits: Limits,
    credentials: Credentials,
    pub(super) inbound: mpsc::Sender<Inbound>,
    pub(super) metrics: ServerMetrics,
    registry: Mutex<Registry<CancellationToken>>,
    /// Outstanding bytes over all connections.
    pub(super) memory: Arc<Semaphore>,
    /// Connections between accept and CONNECT.
    handshakes: Arc<Semaphore>,
    numbers: AtomicU64,
    /// The origin of all times that the sessions are given.
    origin: Instant,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Server {
    /// A server that hands publishes to `inbound`. Several listeners may serve for it ([`Self::serve`]).
    #[must_use]
    pub fn new(
        limits: Limits,
        credentials: Credentials,
        inbound: mpsc::Sender<Inbound>,
        metrics: ServerMetrics,
    ) -> Arc<Self> {
        let memory = usize::try_from(OUTSTANDING_BYTES_MAX).unwrap_or(usize::MAX);
        Arc::new(Self {
            limits,
            credentials,
            inbound,
            metrics,
            registry: Mutex::new(Registry::new(limits.connections_max)),
            memory: Arc::new(Semaphore::new(memory)),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            numbers: AtomicU64::new(0),
            origin: Instant::now(),
        })
    }

    /// Accepts connections until `shutdown`; then answers what is outstanding (at most [`DRAIN_TIMEOUT`]), closes all and returns.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        tls: Option<TlsDoor>,
        shutdown: CancellationToken,
    ) {
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(ended) = tasks.join_next() => self.note_ended(ended),
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.spawn(&mut tasks, stream, peer, tls.clone(), &shutdown),
                    Err(error) => {
                        tracing::warn!(%error, "MQTT listener can't accept");
                        self.metrics.refused.with_label_values(&["accept"]).inc();
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        let all_ended = async {
            while let Some(ended) = tasks.join_next().await {
                self.note_ended(ended);
            }
        };
        if timeout(DRAIN_TIMEOUT + 3 * CLOSE_TIMEOUT, all_ended).await.is_err() {
            tracing::warn!(connections = tasks.len(), "MQTT connections cut off at shutdown");
            tasks.shutdown().await;
        }
    }

    /// A task that panicked took only its own connection with it; it is counted like any other reason.
    fn note_ended(&self, ended: Result<(), tokio::task::JoinError>) {
        if let Err(error) = ended
            && error.is_panic()
        {
            tracing::error!("a connection's task panicked");
            self.metrics.closes.with_label_values(&["panic"]).inc();
        }
    }

    fn spawn(
        self: &Arc<Self>,
        tasks: &mut JoinSet<()>,
        stream: TcpStream,
        address: SocketAddr,
        tls: Option<TlsDoor>,
        shutdown: &CancellationToken,
    ) {
        let Ok(handshake) = Arc::clone(&self.handshakes).try_acquire_owned() else {
            self.metrics.refused.with_label_values(&["handshakes-full"]).inc();
            return;
        };
        let (server, shutdown) = (Arc::clone(self), shutdown.clone());
        tasks.spawn(async move { server.shake_hands(stream, address, tls, handshake, shutdown).await });
    }

    async fn shake_hands(
        self: Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        tls: Option<TlsDoor>,
        handshake: OwnedSemaphorePermit,
        shutdown: CancellationToken,
    ) {
        let opened = self.now();
        if let Err(error) = set_options(&stream) {
            tracing::debug!(%address, %error, "socket options");
        }
        let Some(door) = tls else {
            let peer = Peer { certified: None, opened, _handshake: handshake };
            return connection::run(self, stream, peer, shutdown).await;
        };
        match timeout(CONNECT_TIMEOUT, (door.acceptor)().accept(stream)).await {
            Ok(Ok(stream)) => {
                let certificates = stream.get_ref().1.peer_certificates().filter(|chain| !chain.is_empty());
                let certified = certificates.map(|chain| (door.device_of)(chain));
                let peer = Peer { certified, opened, _handshake: handshake };
                connection::run(self, stream, peer, shutdown).await;
            }
            Ok(Err(error)) => {
                tracing::debug!(%address, %error, "TLS handshake");
                self.metrics.refused.with_label_values(&["tls"]).inc();
            }
            Err(_elapsed) => self.metrics.refused.with_label_values(&["tls-timeout"]).inc(),
        }
    }

    /// Time since this server's origin.
    pub(super) fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// The tokio instant of a time since the origin.
    pub(super) fn instant(&self, at: Duration) -> Instant {
        self.origin + at
    }

    /// Who this is, and a slot for it. The certificate decides where there is one; else the CONNECT's user name and secret.
    pub(super) fn admit(
        self: &Arc<Self>,
        connect: &Connect,
        certified: Option<&Result<DeviceId, CertificateRefused>>,
    ) -> Result<(Client, Admitted), ConnectRefusal> {
        let device = match (certified, &connect.login) {
            (Some(Ok(device)), _) => device,
            (Some(Err(refused)), _) => {
                tracing::debug!(%refused, "client certificate");
                return Err(ConnectRefusal::Certificate);
            }
            (None, Some(login)) => self
                .credentials
                .device(&login.username, &login.password)
                .ok_or(ConnectRefusal::BadCredentials)?,
            (None, None) => return Err(ConnectRefusal::Anonymous),
        };
        let client = Client::new(device.clone(), connect)?;
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let taken_over = CancellationToken::new();
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let displaced = registry
            .admit(device, &connect.client_id, number, taken_over.clone())
            .map_err(|_full| ConnectRefusal::Full)?;
        self.metrics.connections.set(i64::try_from(registry.count()).unwrap_or(i64::MAX));
        drop(registry);
        if let Some(displaced) = displaced {
            displaced.cancel();
        }
        self.metrics.accepted.inc();
        let admitted = Admitted { server: Arc::clone(self), device: device.clone(), number, taken_over };
        Ok((client, admitted))
    }
}

/// A slot in the registry, given back when dropped.
pub(super) struct Admitted {
    server: Arc<Server>,
    device: DeviceId,
    number: ConnectionNumber,
    /// Cancelled when another connection takes this one over.
    pub(super) taken_over: CancellationToken,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut registry = self.server.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.remove(&self.device, self.number);
        self.server.metrics.connections.set(i64::try_from(registry.count()).unwrap_or(i64::MAX));
    }
}

/// PUBACKs leave at once; a peer that vanished without a word is noticed in about two minutes even where it asked for no
/// keep-alive, so that its slot comes free.
fn set_options(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
