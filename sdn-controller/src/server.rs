//! The listener for switches: TLS 1.3 with a certificate of role `gateway`, so many at once and no more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use caregate_host::identity::{Identity, PeerId, Role, peer_id};
use ledger_chain::RevokedGateways;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::connection::{self, Shared};

/// Switches at once. Each costs at most one message of 64 KiB, a read buffer of 16 KiB and TLS's 36 KiB: 60 MiB in all.
pub const SESSIONS_MAX: usize = 512;
/// TLS handshakes at once, apart from the sessions, so that strangers who never finish one keep no switch that is connected
/// from its place.
const HANDSHAKES_MAX: usize = 64;
/// Strangers hold a place no longer than a bad uplink needs.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after `accept` failed: descriptors are short and spinning would not free any.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// For all sessions to close after shutdown began; each takes a second at most.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until `shutdown`, then closes every session and waits for them. Gateways that are `revoked` are no switches of ours.
pub async fn serve(
    listener: TcpListener,
    identity: &Identity,
    shared: Shared,
    revoked: RevokedGateways,
    shutdown: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(Arc::new(identity.server_config(&[Role::Gateway], &[])));
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let sessions = Arc::new(Semaphore::new(SESSIONS_MAX));
    let tasks = TaskTracker::new();
    loop {
        let next = async {
            let place = Arc::clone(&handshakes).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            () = shutdown.cancelled() => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "can't accept a switch");
                tokio::select! {
                    () = tokio::time::sleep(ACCEPT_PAUSE) => continue,
                    () = shutdown.cancelled() => break,
                }
            }
        };
        let (acceptor, sessions) = (acceptor.clone(), Arc::clone(&sessions));
        let (shared, revoked, shutdown) = (shared.clone(), revoked.clone(), shutdown.clone());
        tasks.spawn(async move {
            let greeted = tokio::select! {
                greeted = handshake(stream, address, &acceptor, &sessions, &shared) => greeted,
                () = shutdown.cancelled() => None,
            };
            drop(place);
            if let Some((stream, peer, session)) = greeted {
                tokio::select! {
                    // Before a session may begin.
                    biased;
                    () = revoked.is_revoked(&peer.name) => {
                        shared.metrics.connections_refused.with_label_values(&["revoked"]).inc();
                        warn!(gateway = peer.name, "switch refused: the ledger has revoked this gateway");
                    }
                    () = connection::serve(stream, &peer.name, &shared, &shutdown) => {}
                }
                drop(session);
            }
        });
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, tasks.wait()).await.is_err() {
        warn!(open = tasks.len(), "sessions did not close in time");
    }
}

/// The stream, whom its certificate names, and a place among the sessions.
async fn handshake(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: &TlsAcceptor,
    sessions: &Arc<Semaphore>,
    shared: &Shared,
) -> Option<(TlsStream<TcpStream>, PeerId, OwnedSemaphorePermit)> {
    let refused = |reason: &str| {
        shared.metrics.connections_refused.with_label_values(&[reason]).inc();
        debug!(%address, reason, "connection refused");
    };
    if let Err(error) = stream.set_nodelay(true) {
        // Slower then, but it works.
        debug!(%address, %error, "no TCP_NODELAY");
    }
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            debug!(%address, %error, "TLS handshake failed");
            refused("tls");
            return None;
        }
        Err(_elapsed) => {
            refused("tls-timeout");
            return None;
        }
    };
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let Ok(peer) = peer_id(certificates) else {
        refused("certificate");
        return None;
    };
    let Ok(session) = Arc::clone(sessions).try_acquire_owned() else {
        refused("too-many");
        return None;
    };
    Some((stream, peer, session))
}
