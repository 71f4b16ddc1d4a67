//! The embedded server's shell: listens, shakes hands, and runs one task per connection.
//!
//! Shut down the pipeline only after [`Server::serve`] has returned: until then it still answers outstanding publishes.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use caregate_host::clock;
use caregate_protocol::id::{DeviceId, Lane};
use caregate_protocol::policy::BoundDevice;
use rustls::pki_types::CertificateDer;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access::Access;
use super::connection::{self, CLOSE_TIMEOUT, Peer};
use super::conversation::ConnectRefusal;
use super::credentials::Credentials;
use super::handshakes::{Handshakes, Place};
use super::hub::{ConnectionNumber, Effect, Hub, Rhythm};
use super::kept::{SNAPSHOT_BYTES_MAX, SessionFile};
use super::limits::{
    CLOSING_MAX, CONNECT_TIMEOUT, DRAIN_TIMEOUT, Limits, OUTSTANDING_ALARM_BYTES_MAX, OUTSTANDING_BYTES_MAX,
};
use super::metrics::ServerMetrics;
use super::publisher::Publisher;
use super::websocket;
use super::wire::Connect;
use crate::audit::Displays;
use crate::ingest::Inlet;

/// Pause after `accept` failed: it fails when file descriptors have run out, and they come back as connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often it is looked whether what is kept has changed.
const KEEP_TICK: Duration = Duration::from_secs(1);

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

/// How the shell reaches a connection.
#[derive(Clone, Default)]
pub(super) struct Handle {
    /// Something is to be sent.
    pub(super) wake: Arc<Notify>,
    /// Another takes its place.
    pub(super) taken_over: CancellationToken,
}

/// What one lock guards.
struct Shared {
    hub: Hub,
    handles: HashMap<ConnectionNumber, Handle>,
}

/// What all connections of all listeners share.
pub struct Server {
    pub(super) limits: Limits,
    credentials: Credentials,
    pub(super) access: Access,
    pub(super) inbound: Inlet,
    pub(super) metrics: ServerMetrics,
    shared: Mutex<Shared>,
    /// Who is told which display reads what; nobody in tests.
    displays: OnceLock<Displays>,
    /// The hub's next deadline may be earlier.
    timer: Notify,
    keeps_time: AtomicBool,
    /// Wills on their way through the pipeline.
    wills: TaskTracker,
    /// Outstanding bytes over all connections, but for those of alarms.
    memory: Arc<Semaphore>,
    /// Those of alarms.
    memory_of_alarms: Arc<Semaphore>,
    /// Connections between accept and CONNECT.
    handshakes: Arc<Handshakes>,
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
        access: Access,
        inbound: Inlet,
        metrics: ServerMetrics,
    ) -> Arc<Self> {
        let memory = |bytes| Arc::new(Semaphore::new(usize::try_from(bytes).unwrap_or(usize::MAX)));
        Arc::new(Self {
            limits,
            credentials,
            access,
            inbound,
            metrics,
            shared: Mutex::new(Shared { hub: Hub::new(limits.connections_max), handles: HashMap::new() }),
            displays: OnceLock::new(),
            timer: Notify::new(),
            keeps_time: AtomicBool::new(false),
            wills: TaskTracker::new(),
            memory: memory(OUTSTANDING_BYTES_MAX),
            memory_of_alarms: memory(OUTSTANDING_ALARM_BYTES_MAX),
            handshakes: Handshakes::new(),
            numbers: AtomicU64::new(0),
            origin: Instant::now(),
        })
    }

    /// What PUBLISHes of this lane must have in memory before they may wait, and the most that one can ask of it.
    pub(super) fn memory_of(&self, lane: Lane) -> (&Arc<Semaphore>, u32) {
        match lane {
            Lane::Alarm => (&self.memory_of_alarms, OUTSTANDING_ALARM_BYTES_MAX),
            Lane::Activity | Lane::Waveform | Lane::Vitals => (&self.memory, OUTSTANDING_BYTES_MAX),
        }
    }

    /// Accepts connections until `shutdown`; then answers what is outstanding (at most [`DRAIN_TIMEOUT`]), closes all and returns.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        tls: Option<TlsDoor>,
        shutdown: CancellationToken,
    ) {
        self.accept(listener, Transport { tls, websocket: false }, shutdown).await;
    }

    /// [`Self::serve`] for clients that speak MQTT over WebSocket (§6).
    pub async fn serve_websocket(
        self: Arc<Self>,
        listener: TcpListener,
        tls: Option<TlsDoor>,
        shutdown: CancellationToken,
    ) {
        self.accept(listener, Transport { tls, websocket: true }, shutdown).await;
    }

    async fn accept(
        self: Arc<Self>,
        listener: TcpListener,
        transport: Transport,
        shutdown: CancellationToken,
    ) {
        let mut tasks = JoinSet::new();
        if !self.keeps_time.swap(true, Ordering::Relaxed) {
            tasks.spawn(Arc::clone(&self).keep_time(shutdown.clone()));
        }
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(ended) = tasks.join_next() => self.note_ended(ended),
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.spawn(&mut tasks, stream, peer, transport.clone(), &shutdown),
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
            self.wills.close();
            self.wills.wait().await;
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
        transport: Transport,
        shutdown: &CancellationToken,
    ) {
        let entered = self.handshakes.enter();
        if entered.as_ref().is_none_or(|(_, is_taken)| *is_taken) {
            self.metrics.refused.with_label_values(&["handshakes-full"]).inc();
        }
        let Some((place, _)) = entered else { return };
        let (server, shutdown) = (Arc::clone(self), shutdown.clone());
        tasks.spawn(async move { server.shake_hands(stream, address, transport, place, shutdown).await });
    }

    async fn shake_hands(
        self: Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        Transport { tls, websocket }: Transport,
        place: Place,
        shutdown: CancellationToken,
    ) {
        let opened = self.now();
        if let Err(error) = set_options(&stream) {
            tracing::debug!(%address, %error, "socket options");
        }
        let Some(door) = tls else {
            let peer = Peer { certified: None, opened, place };
            return self.run(stream, websocket, peer, shutdown).await;
        };
        let accepted = tokio::select! {
            accepted = timeout(CONNECT_TIMEOUT, (door.acceptor)().accept(stream)) => accepted,
            () = place.gone() => return,
        };
        match accepted {
            Ok(Ok(stream)) => {
                let certificates = stream.get_ref().1.peer_certificates().filter(|chain| !chain.is_empty());
                let certified = certificates.map(|chain| (door.device_of)(chain));
                let peer = Peer { certified, opened, place };
                self.run(stream, websocket, peer, shutdown).await;
            }
            Ok(Err(error)) => {
                tracing::debug!(%address, %error, "TLS handshake");
                self.metrics.refused.with_label_values(&["tls"]).inc();
            }
            Err(_elapsed) => self.metrics.refused.with_label_values(&["tls-timeout"]).inc(),
        }
    }

    async fn run<S>(self: Arc<Self>, stream: S, websocket: bool, peer: Peer, shutdown: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        if !websocket {
            return connection::run(self, stream, peer, shutdown).await;
        }
        let accepted = tokio::select! {
            accepted = timeout(CONNECT_TIMEOUT, websocket::accept(stream, self.limits.packet_bytes_max)) => accepted,
            () = peer.place.gone() => return,
        };
        match accepted {
            Ok(Ok(stream)) => connection::run(self, stream, peer, shutdown).await,
            Ok(Err(error)) => {
                tracing::debug!(%error, "WebSocket handshake");
                self.metrics.refused.with_label_values(&["websocket"]).inc();
            }
            Err(_elapsed) => self.metrics.refused.with_label_values(&["websocket-timeout"]).inc(),
        }
    }

    /// Runs one step with the hub, then does what it says.
    pub(super) fn with_hub<R>(self: &Arc<Self>, step: impl FnOnce(&mut Hub) -> R) -> R {
        let mut wills = Vec::new();
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let result = step(&mut shared.hub);
        for effect in shared.hub.take_effects() {
            match effect {
                Effect::Wake(number) => {
                    if let Some(handle) = shared.handles.get(&number) {
                        handle.wake.notify_one();
                    }
                }
                Effect::TakeOver(number) => {
                    if let Some(handle) = shared.handles.get(&number) {
                        handle.taken_over.cancel();
                    }
                }
                Effect::Will(key, will) => wills.push((key, will)),
                Effect::Timer => self.timer.notify_one(),
            }
        }
        self.metrics.count(shared.hub.take_counts());
        let reads = shared.hub.take_reads();
        if let Some(displays) = self.displays.get() {
            // In the order in which it happened: the lock is held.
            reads.into_iter().for_each(|read| displays.tell(read));
        }
        drop(shared);
        for (key, will) in wills {
            self.wills.spawn(connection::publish_will(Arc::clone(self), key, will));
        }
        result
    }

    /// Wakes the hub when a will is due or a session ends.
    async fn keep_time(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            let deadline = self.with_hub(|hub| hub.next_deadline()).map(|at| self.instant(at));
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.timer.notified() => {}
                () = sleep_until(deadline.unwrap_or(self.origin)), if deadline.is_some() => {
                    self.with_hub(|hub| hub.tick(self.now()));
                    self.observe();
                }
            }
        }
    }

    /// From now on the audit log is told which display reads what. Call it before anybody connects.
    pub fn tell(&self, displays: Displays) {
        if self.displays.set(displays).is_err() {
            tracing::error!("the audit log has been told before");
        }
    }

    /// From now on only bound devices may read more than their own topics, whatever the operator wrote down. Holds as soon as this
    /// returns, and follows each change until `shutdown`.
    pub fn bind(
        self: &Arc<Self>,
        mut bound: watch::Receiver<Arc<Vec<BoundDevice>>>,
        shutdown: CancellationToken,
    ) {
        let server = Arc::clone(self);
        server.take_bound(&mut bound);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    changed = bound.changed() => match changed {
                        Ok(()) => server.take_bound(&mut bound),
                        Err(_gone) => return,
                    },
                }
            }
        });
    }

    fn take_bound(self: &Arc<Self>, bound: &mut watch::Receiver<Arc<Vec<BoundDevice>>>) {
        let bound = Arc::clone(&bound.borrow_and_update());
        let devices = bound.iter().map(|bound| (bound.device.clone(), bound.patient)).collect();
        self.with_hub(|hub| hub.bind(devices));
    }

    /// Takes in what a process before this one kept, and writes it again as what may be old from now on. A file that can't be read is
    /// told, and clients find no session.
    pub fn restore(self: &Arc<Self>, file: &SessionFile) {
        match file.read() {
            Ok(None) => {}
            Ok(Some(bytes)) => {
                let (now, unix_s) = (self.now(), clock::now_s());
                match self.with_hub(|hub| hub.restore(&bytes, now, unix_s, &self.access)) {
                    Ok(sessions) => tracing::info!(sessions, "MQTT sessions are back"),
                    Err(error) => {
                        self.metrics.kept.with_label_values(&["unreadable"]).inc();
                        tracing::error!(%error, "MQTT sessions are lost");
                    }
                }
            }
            Err(error) => {
                self.metrics.kept.with_label_values(&["unreadable"]).inc();
                tracing::error!(%error, "MQTT sessions are lost");
            }
        }
        self.write(file, false);
        self.observe();
    }

    /// Keeps sessions and retained messages as they change, until `shutdown`.
    pub async fn keep(self: Arc<Self>, file: Arc<SessionFile>, shutdown: CancellationToken) {
        let mut rhythm = Rhythm::new(self.with_hub(|hub| hub.changes()), self.now());
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(KEEP_TICK) => {}
            }
            if rhythm.is_due(self.with_hub(|hub| hub.changes()), self.now()) {
                let (server, file) = (Arc::clone(&self), Arc::clone(&file));
                let written = tokio::task::spawn_blocking(move || server.write(&file, false));
                if !matches!(written.await, Ok(true)) {
                    rhythm.failed();
                }
            }
        }
    }

    /// Keeps them for the last time, when [`Self::serve`] has returned. Blocks on the disk.
    pub fn keep_whole(self: &Arc<Self>, file: &SessionFile) {
        self.write(file, true);
    }

    /// Whether it was written.
    fn write(self: &Arc<Self>, file: &SessionFile, whole: bool) -> bool {
        let now = self.now();
        let mut snapshot = self.with_hub(|hub| hub.snapshot(now));
        let left_out = snapshot.fit(SNAPSHOT_BYTES_MAX);
        if left_out > 0 {
            tracing::warn!(sessions = left_out, "messages that wait for them are too many to be kept");
            self.metrics.kept.with_label_values(&["queue-left-out"]).inc_by(left_out as u64);
        }
        let written = file.write(&snapshot.encode(clock::now_s(), whole));
        if let Err(error) = &written {
            tracing::error!(%error, "MQTT sessions were not kept");
        }
        let outcome = if written.is_ok() { "written" } else { "failed" };
        self.metrics.kept.with_label_values(&[outcome]).inc();
        written.is_ok()
    }

    fn observe(&self) {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let (sessions, retained, _) = shared.hub.sizes();
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.connections.set(gauge(shared.hub.connections()));
        self.metrics.sessions.set(gauge(sessions));
        self.metrics.retained.set(gauge(retained));
    }

    /// A handle for the gateway's own messages.
    #[must_use]
    pub fn publisher(self: &Arc<Self>) -> Publisher {
        Publisher::new(Arc::clone(self))
    }

    /// Time since this server's origin.
    pub(super) fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// The tokio instant of a time since the origin.
    pub(super) fn instant(&self, at: Duration) -> Instant {
        self.origin + at
    }

    /// Who this is. The certificate decides where there is one; else the CONNECT's user name and secret.
    pub(super) fn admit(
        self: &Arc<Self>,
        connect: &Connect,
        certified: Option<&Result<DeviceId, CertificateRefused>>,
    ) -> Result<Admitted, ConnectRefusal> {
        let device = match (certified, &connect.username) {
            (Some(Ok(device)), _) => device,
            (Some(Err(refused)), _) => {
                tracing::debug!(%refused, "client certificate");
                return Err(ConnectRefusal::Certificate);
            }
            (None, Some(username)) => {
                // Our secrets are text; what isn't is nobody's.
                let secret = connect.password.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok());
                let device = secret.and_then(|secret| self.credentials.device(username, secret));
                device.ok_or(ConnectRefusal::BadCredentials)?
            }
            (None, None) => return Err(ConnectRefusal::Anonymous),
        };
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let handle = Handle::default();
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        // Also those that are closing have one.
        if shared.handles.len() >= self.limits.connections_max + CLOSING_MAX {
            return Err(ConnectRefusal::Full);
        }
        shared.handles.insert(number, handle.clone());
        drop(shared);
        Ok(Admitted { server: Arc::clone(self), device: device.clone(), number, handle })
    }
}

/// How a listener's clients reach MQTT.
#[derive(Clone)]
struct Transport {
    tls: Option<TlsDoor>,
    websocket: bool,
}

/// A connection that has shown who it is; forgotten when dropped.
pub(super) struct Admitted {
    server: Arc<Server>,
    pub(super) device: DeviceId,
    pub(super) number: ConnectionNumber,
    pub(super) handle: Handle,
}

impl Admitted {
    /// It is up: counted.
    pub(super) fn is_up(&self) {
        self.server.metrics.accepted.inc();
        self.server.observe();
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut shared = self.server.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.handles.remove(&self.number);
        drop(shared);
        self.server.observe();
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
