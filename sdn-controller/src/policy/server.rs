//! The QUIC listener for gateways.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use caregate_host::identity::{Identity, Role, peer_id};
use caregate_host::net::{self, ListenError};
use caregate_protocol::policy::delivery::ALPN;
use ledger_chain::RevokedGateways;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    Connection, Endpoint, EndpointConfig, Incoming, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::session::{self, SessionError};
use super::{GATEWAYS_MAX, Policy};

/// Connections at once: each gateway's, and those that have not noticed yet that they are gone.
const CONNECTIONS_MAX: usize = 2 * GATEWAYS_MAX;
/// A peer that says nothing for so long is gone.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// Keeps a quiet connection, and the way through a NAT, alive.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Bytes in flight towards us: a full watch list.
const RECEIVE_WINDOW_BYTES: u32 = 128 << 10;

/// The listener could not start.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The UDP address can't be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The socket can't be used.
    #[error("policy: {0}")]
    Socket(#[from] std::io::Error),
    /// The TLS configuration does not fit QUIC.
    #[error("TLS configuration: {0}")]
    Tls(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
}

/// Binds the endpoint.
///
/// # Errors
/// [`ServeError`].
pub fn bind(address: &str, identity: &Identity) -> Result<Endpoint, ServeError> {
    let tls = identity.server_config(&[Role::Gateway], &[ALPN]);
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(IDLE_TIMEOUT.try_into().ok())
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .stream_receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES));
    config.transport_config(Arc::new(transport));
    let socket = net::udp(address)?;
    Ok(Endpoint::new(EndpointConfig::default(), Some(config), socket, Arc::new(TokioRuntime))?)
}

/// Serves until `shutdown`, then closes all connections and waits until they have drained. Gateways that are `revoked` get nothing.
pub async fn serve(
    endpoint: Endpoint,
    policy: Policy,
    revoked: RevokedGateways,
    shutdown: CancellationToken,
) {
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) if sessions.len() >= CONNECTIONS_MAX => {
                    policy.metrics.policy_refused.with_label_values(&["too_many"]).inc();
                    incoming.refuse();
                }
                Some(incoming) => {
                    drop(sessions.spawn(serve_one(incoming, policy.clone(), revoked.clone(), shutdown.clone())));
                }
                None => break,
            },
            Some(_) = sessions.join_next() => {}
            () = shutdown.cancelled() => break,
        }
    }
    while sessions.join_next().await.is_some() {}
    endpoint.close(VarInt::from_u32(0), b"shutdown");
    endpoint.wait_idle().await;
}

async fn serve_one(
    incoming: Incoming,
    policy: Policy,
    revoked: RevokedGateways,
    shutdown: CancellationToken,
) {
    let address = incoming.remote_address();
    let refused = |reason: &str| policy.metrics.policy_refused.with_label_values(&[reason]).inc();
    let connected = tokio::select! {
        connected = incoming => connected,
        () = shutdown.cancelled() => return,
    };
    let connection = match connected {
        Ok(connection) => connection,
        Err(error) => {
            debug!(%address, %error, "handshake failed");
            return refused("handshake");
        }
    };
    let Some(name) = name_of(&connection, address) else { return refused("certificate") };
    let ended = tokio::select! {
        // Before a session may begin.
        biased;
        () = revoked.is_revoked(&name) => {
            warn!(gateway = name, "policy connection refused: the ledger has revoked this gateway");
            connection.close(VarInt::from_u32(4), b"revoked");
            return refused("revoked");
        }
        ended = session::run(&policy, &name, &connection, &shutdown) => ended,
    };
    match ended {
        Ok(()) | Err(SessionError::Transport(_)) => info!(gateway = name, "policy connection closed"),
        Err(error) => {
            warn!(gateway = name, %error, "policy connection closed");
            refused(error.reason());
        }
    }
    connection.close(VarInt::from_u32(1), b"");
}

fn name_of(connection: &Connection, address: SocketAddr) -> Option<String> {
    let certificates = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    match peer_id(&certificates) {
        Ok(peer) => Some(peer.name),
        Err(error) => {
            debug!(%address, %error, "certificate without a name");
            None
        }
    }
}
