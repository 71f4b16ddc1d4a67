//! Gateways by TCP, where UDP does not get through: the same certificates, the same frames, one connection for each of theirs.

use std::sync::Arc;
use std::time::Duration;

use caregate_host::identity::{Identity, Role, peer_id};
use caregate_host::net;
use caregate_protocol::uplink::ALPN;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::gateway::SessionError;
use crate::relay::Relay;
use crate::server::{Places, Shared, ended, gateway};

/// Time for a TLS handshake: three round trips of the worst link, and no place held for longer by a peer that says nothing.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The door for gateways by TCP.
pub struct TcpDoor {
    pub(crate) listener: TcpListener,
    pub(crate) tls: TlsAcceptor,
}

impl std::fmt::Debug for TcpDoor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpDoor").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl TcpDoor {
    /// TLS 1.3 with a certificate of role `gateway`.
    #[must_use]
    pub fn new(listener: TcpListener, identity: &Identity) -> Self {
        let tls = TlsAcceptor::from(Arc::new(identity.server_config(&[Role::Gateway], &[ALPN])));
        Self { listener, tls }
    }
}

/// The next connection; never where there is no such door.
pub(crate) async fn accept(door: Option<&TcpDoor>) -> TcpStream {
    let Some(door) = door else { return std::future::pending().await };
    loop {
        match door.listener.accept().await {
            Ok((stream, _)) => return stream,
            // Of one connection, or too many open files: not the listener's end.
            Err(error) => {
                debug!(%error, "a connection by TCP was not accepted");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Serves one connection until it ends, or until `shutdown`.
pub(crate) async fn session(
    stream: TcpStream,
    tls: TlsAcceptor,
    shared: Shared,
    places: Places,
    relay: Relay,
    shutdown: CancellationToken,
) {
    let metrics = shared.metrics.clone();
    let handshake = async {
        net::watched(&stream).map_err(|error| error.to_string())?;
        let accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await;
        accepted.map_err(|_elapsed| "no handshake in time".to_owned())?.map_err(|error| error.to_string())
    };
    match handshake.await {
        Ok(stream) => {
            let serving = serve(stream, shared, &places, relay);
            tokio::select! {
                outcome = serving => ended(outcome, &metrics),
                () = shutdown.cancelled() => {}
            }
        }
        Err(error) => {
            metrics.connections_refused.with_label_values(&["handshake"]).inc();
            debug!(%error, "handshake by TCP failed");
        }
    }
}

async fn serve(
    stream: TlsStream<TcpStream>,
    shared: Shared,
    places: &Places,
    relay: Relay,
) -> Result<(), SessionError> {
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = peer_id(certificates).map_err(|_no_id| SessionError::Unexpected("certificate"))?;
    let (metrics, revoked) = (shared.metrics.clone(), shared.revoked.clone());
    let (session, _place) = gateway(&peer, shared, places, relay)?;
    info!(name = %peer.name, "a gateway is connected by TCP");
    metrics.tcp_connections.inc();
    let ended = tokio::select! {
        // Before a session may begin.
        biased;
        () = revoked.is_revoked(&peer.name) => Err(SessionError::Revoked),
        ended = session.run_tcp(stream) => ended,
    };
    metrics.tcp_connections.dec();
    info!(name = %peer.name, "a gateway by TCP is disconnected");
    ended
}
