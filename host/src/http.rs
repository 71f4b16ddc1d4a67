//! An HTTP/1.1 server with the limits that `axum::serve` lacks: connections, time to a request's head, time to drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::identity::peer_id;

/// Time for a TLS handshake, and for the head of each request on a connection: a phone on a bad link needs 3 s, a held
/// connection should not last much longer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that requests under way may take after shutdown began; systemd allows 90 s in all.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after `accept` failed: descriptors are short and spinning would not free any.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Bytes of one request's head: hyper's least is 8 kB, and cookies with a session id need less.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How a server behaves.
#[derive(Clone)]
pub struct Options {
    /// Connections at once; more wait in the kernel's queue. An upgraded connection (WebSocket) no longer counts: its
    /// handler bounds those.
    pub connections_max: usize,
    /// Serve HTTPS with this configuration.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// Serves `router` until `shutdown`, then lets requests under way finish for 5 s. Handlers find the peer's address as
/// `ConnectInfo<SocketAddr>`, and whom its certificate names as `Extension<PeerId>`, where it showed one.
pub async fn serve(listener: TcpListener, router: Router, options: Options, shutdown: CancellationToken) {
    let places = Arc::new(Semaphore::new(options.connections_max));
    let tls = options.tls.map(TlsAcceptor::from);
    let connections = TaskTracker::new();
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            () = shutdown.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "can't accept an HTTP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (router, tls, shutdown) = (router.clone(), tls.clone(), shutdown.clone());
        connections.spawn(async move {
            let Some(tls) = tls else {
                connection(stream, peer, router, shutdown).await;
                drop(place);
                return;
            };
            match tokio::time::timeout(HEAD_TIMEOUT, tls.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
                    let router = match peer_id(certificates) {
                        Ok(named) => router.layer(axum::Extension(named)),
                        Err(_unnamed) => router,
                    };
                    connection(stream, peer, router, shutdown).await;
                }
                Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                Err(_elapsed) => tracing::debug!(%peer, "TLS handshake timed out"),
            }
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
        tracing::warn!(open = connections.len(), "closed HTTP connections that did not drain");
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    router: Router,
    shutdown: CancellationToken,
) {
    let service = TowerToHyperService::new(router.layer(axum::Extension(ConnectInfo(peer))));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "HTTP connection ended");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::Instant;

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    async fn start(connections_max: usize) -> (SocketAddr, CancellationToken) {
        let listener = crate::net::listen("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (router, shutdown) = (Router::new().route("/", get(async || "hello")), CancellationToken::new());
        tokio::spawn(serve(listener, router, Options { connections_max, tls: None }, shutdown.clone()));
        (address, shutdown)
    }

    /// The clock is tokio's and jumps when nothing else is left to do.
    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_loses_its_place_to_the_next() {
        let (address, shutdown) = start(1).await;
        let started = Instant::now();
        let mut silent = TcpStream::connect(address).await.unwrap();
        silent.write_all(b"GET / HT").await.unwrap();
        let mut next = TcpStream::connect(address).await.unwrap();
        next.write_all(REQUEST).await.unwrap();
        let mut answer = String::new();
        next.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
        assert!(started.elapsed() >= HEAD_TIMEOUT);
        shutdown.cancel();
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_is_refused() {
        let (address, shutdown) = start(4).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\nCookie: {}", "a".repeat(HEAD_BYTES_MAX));
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, b"HTTP/1.1 431");
        shutdown.cancel();
    }
}
