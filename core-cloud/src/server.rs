//! The QUIC listener: who the certificate says it is decides which session it gets.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use caregate_host::identity::{Identity, PeerId, Role, peer_id};
use caregate_host::journal::Journal;
use caregate_protocol::uplink::ALPN;
use ed25519_dalek::SigningKey;
use ledger_chain::RevokedGateways;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, Incoming, ServerConfig, TokioRuntime, TransportConfig, VarInt};
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::config::Peers;
use crate::erase::Eraser;
use crate::gateway::{GatewaySession, SessionError};
use crate::metrics::Metrics;
use crate::owners::Owners;
use crate::preview::Previews;
use crate::relay::Relay;
use crate::search::SearchIndex;
use crate::store::Store;
use crate::subscriber::FeedSession;
use crate::tcp::{self, TcpDoor};
use crate::tenants::Tenants;
use crate::writer::Queue;

/// Connections at once: a site's gateways and a few hospitals, with room; each costs some 100 kB.
const CONNECTIONS_MAX: usize = 1024;
/// Connections of one gateway at once: it has five, and those that a killed one has left lie here until [`IDLE_TIMEOUT`]; so
/// it may be killed twice within that time. Whoever has a gateway's certificate takes no more of the others' places.
const GATEWAY_CONNECTIONS_MAX: usize = 16;
/// A peer that says nothing for so long is gone; half of it is how fast a dead path is noticed by the peers.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// A gateway opens one on the connection of a lane, and one for each of four lanes on that of the backlog.
const UNI_STREAMS_MAX: u32 = 4;
/// Control stream, or a feed's: subscriptions, searches, offers.
const BIDI_STREAMS_MAX: u32 = 12;
/// Bytes in flight per connection towards us: what a gateway may send before the store has taken it.
const RECEIVE_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes in flight per stream.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// The listener could not start.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The UDP address can't be bound.
    #[error("listen on {address}: {source}")]
    Bind {
        /// Which address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The TLS configuration does not fit QUIC.
    #[error("TLS configuration: {0}")]
    Tls(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
}

/// What the listener shares among its connections.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Who may do what.
    pub peers: Arc<Peers>,
    /// Gateways that may not any more, by the ledger's word.
    pub revoked: RevokedGateways,
    /// Whose which pseudonym is.
    pub owners: Owners,
    /// The store.
    pub store: Arc<dyn Store>,
    /// What segments can be found by.
    pub search: Arc<SearchIndex>,
    /// To the writer thread.
    pub writer: Queue,
    /// Raised after each commit.
    pub stored: watch::Receiver<u64>,
    /// What was delivered to whom.
    pub journal: Arc<Journal>,
    /// What signs receipts of erasures.
    pub receipt_key: SigningKey,
    /// Live records before they are durable.
    pub previews: Previews,
    /// Shares of the core.
    pub tenants: Tenants,
    /// Counters.
    pub metrics: Metrics,
}

impl Shared {
    fn eraser(&self, relay: &Relay) -> Eraser {
        let (store, search) = (Arc::clone(&self.store), Arc::clone(&self.search));
        let (key, owners) = (self.receipt_key.clone(), self.owners.clone());
        Eraser::new(store, search, key, owners, relay.clone(), self.previews.clone(), self.metrics.clone())
    }
}

/// Binds the QUIC endpoint. Returns it so that the caller can log the bound address before it serves.
///
/// # Errors
/// [`ServeError`].
pub fn bind(address: SocketAddr, identity: &Identity) -> Result<Endpoint, ServeError> {
    let tls = identity.server_config(&[Role::Gateway, Role::Feed], &[ALPN]);
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(IDLE_TIMEOUT.try_into().ok())
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS_MAX))
        .max_concurrent_bidi_streams(VarInt::from_u32(BIDI_STREAMS_MAX))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES));
    config.transport_config(Arc::new(transport));
    let socket = std::net::UdpSocket::bind(address).map_err(|source| ServeError::Bind { address, source })?;
    Endpoint::new(EndpointConfig::default(), Some(config), socket, Arc::new(TokioRuntime))
        .map_err(|source| ServeError::Bind { address, source })
}

/// Serves until `shutdown`, then closes all connections and waits until they have drained. `door` is for gateways by TCP.
pub async fn serve(endpoint: Endpoint, door: Option<TcpDoor>, shared: Shared, shutdown: CancellationToken) {
    let mut sessions = JoinSet::new();
    let places = Places::new(&shared.peers);
    let relay = Relay::new(shared.metrics.clone());
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) if sessions.len() >= CONNECTIONS_MAX => {
                    shared.metrics.connections_refused.with_label_values(&["too_many"]).inc();
                    incoming.refuse();
                }
                Some(incoming) => drop(sessions.spawn(session(incoming, shared.clone(), places.clone(), relay.clone()))),
                None => break,
            },
            stream = tcp::accept(door.as_ref()) => {
                let Some(door) = door.as_ref().filter(|_| sessions.len() < CONNECTIONS_MAX) else {
                    shared.metrics.connections_refused.with_label_values(&["too_many"]).inc();
                    continue;
                };
                let (tls, shutdown) = (door.tls.clone(), shutdown.clone());
                sessions.spawn(tcp::session(stream, tls, shared.clone(), places.clone(), relay.clone(), shutdown));
            }
            Some(_) = sessions.join_next() => {}
            () = shutdown.cancelled() => break,
        }
    }
    endpoint.close(VarInt::from_u32(0), b"shutdown");
    while sessions.join_next().await.is_some() {}
    endpoint.wait_idle().await;
}

/// The places of each gateway that is configured.
#[derive(Debug, Clone)]
pub(crate) struct Places(Arc<HashMap<String, Arc<Semaphore>>>);

impl Places {
    fn new(peers: &Peers) -> Self {
        let place = |name: &String| (name.clone(), Arc::new(Semaphore::new(GATEWAY_CONNECTIONS_MAX)));
        Self(Arc::new(peers.gateways.keys().map(place).collect()))
    }

    /// A place, held until it is dropped.
    fn take(&self, gateway: &str) -> Option<OwnedSemaphorePermit> {
        Arc::clone(self.0.get(gateway)?).try_acquire_owned().ok()
    }
}

async fn session(incoming: Incoming, shared: Shared, places: Places, relay: Relay) {
    let metrics = shared.metrics.clone();
    let ended = match incoming.await {
        Ok(connection) => match identify(&connection) {
            Some(peer) => {
                let role = peer.role.as_str();
                metrics.connections.with_label_values(&[role]).inc();
                info!(role, name = %peer.name, from = %connection.remote_address(), "connected");
                let ended = by_role(&peer, connection, shared, &places, relay).await;
                metrics.connections.with_label_values(&[role]).dec();
                info!(role, name = %peer.name, "disconnected");
                ended
            }
            None => Err(SessionError::Unexpected("certificate")),
        },
        Err(error) => {
            metrics.connections_refused.with_label_values(&["handshake"]).inc();
            debug!(%error, "handshake failed");
            return;
        }
    };
    self::ended(ended, &metrics);
}

/// Notes how a connection ended.
pub(crate) fn ended(ended: Result<(), SessionError>, metrics: &Metrics) {
    match ended {
        Ok(()) | Err(SessionError::Transport(_)) => {}
        Err(error) => {
            metrics.connections_refused.with_label_values(&[error.reason()]).inc();
            warn!(%error, "connection closed");
        }
    }
}

/// The session of a gateway that is configured and has a place.
pub(crate) fn gateway(
    peer: &PeerId,
    shared: Shared,
    places: &Places,
    relay: Relay,
) -> Result<(GatewaySession, OwnedSemaphorePermit), SessionError> {
    let keys = shared.peers.gateways.get(&peer.name).filter(|_| peer.role == Role::Gateway);
    let keys = keys.ok_or(SessionError::NotConfigured("gateway"))?;
    let place = places.take(&peer.name).ok_or(SessionError::TooMany)?;
    let eraser = shared.eraser(&relay);
    let session = GatewaySession {
        name: peer.name.as_str().into(),
        owners: shared.owners,
        waits_for: watch::Sender::default(),
        device_keys: keys.as_slice().into(),
        writer: shared.writer,
        relay,
        tenant: shared.tenants.of(&peer.name),
        previews: shared.previews,
        eraser,
        store: shared.store,
        metrics: shared.metrics,
    };
    Ok((session, place))
}

fn identify(connection: &quinn::Connection) -> Option<PeerId> {
    let certificates = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    peer_id(&certificates).ok()
}

async fn by_role(
    peer: &PeerId,
    connection: quinn::Connection,
    shared: Shared,
    places: &Places,
    relay: Relay,
) -> Result<(), SessionError> {
    match peer.role {
        Role::Gateway => {
            let revoked = shared.revoked.clone();
            let (session, _place) = gateway(peer, shared, places, relay).inspect_err(|error| {
                let is_full = matches!(error, SessionError::TooMany);
                let (code, reason): (u32, &[u8]) =
                    if is_full { (3, b"too many connections") } else { (2, b"unknown gateway") };
                connection.close(code.into(), reason);
            })?;
            tokio::select! {
                // Before a session may begin.
                biased;
                () = revoked.is_revoked(&peer.name) => {
                    connection.close(4_u32.into(), b"revoked");
                    Err(SessionError::Revoked)
                }
                ended = session.run(connection.clone()) => ended,
            }
        }
        Role::Feed => {
            let Some(recipients) = shared.peers.feeds.get(&peer.name) else {
                connection.close(2_u32.into(), b"unknown feed");
                return Err(SessionError::NotConfigured("feed"));
            };
            let eraser = shared.eraser(&relay);
            let session = FeedSession {
                eraser,
                recipients: recipients.as_slice().into(),
                store: shared.store,
                search: shared.search,
                stored: shared.stored,
                relay,
                previews: shared.previews,
                name: peer.name.as_str().into(),
                journal: shared.journal,
                metrics: shared.metrics,
            };
            session.run(connection).await
        }
        Role::Core | Role::Controller | Role::Sensor | Role::Operator => {
            Err(SessionError::Unexpected("role"))
        }
    }
}
