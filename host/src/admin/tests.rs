//! Over a real socket, with requests written by hand.

use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use prometheus::IntCounter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;

struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

async fn start(registry: Registry, health: Health, extra: Router) -> Server {
    let listener = crate::net::listen("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(serve(listener, registry, health, extra, shutdown.clone()));
    Server { address, shutdown, task }
}

async fn fetch(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn metrics_health_and_extra_routes() {
    let registry = registry().unwrap();
    let counter = IntCounter::new("caregate_sample_total", "A sample.").unwrap();
    registry.register(Box::new(counter.clone())).unwrap();
    counter.inc_by(3);
    let extra = Router::new().route(
        "/peer",
        get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.ip().to_string() }),
    );
    let server = start(registry, Health::new(), extra).await;
    let answer = fetch(server.address, "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("text/plain; version=0.0.4"), "{answer}");
    for line in ["caregate_sample_total 3", "process_resident_memory_bytes ", "process_open_fds "] {
        assert!(answer.lines().any(|l| l.starts_with(line)), "{line} in {answer}");
    }
    assert!(fetch(server.address, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(fetch(server.address, "/peer").await.ends_with("127.0.0.1"));
    assert!(fetch(server.address, "/none").await.starts_with("HTTP/1.1 404"));
    server.shutdown.cancel();
    server.task.await.unwrap();
    TcpStream::connect(server.address).await.unwrap_err();
}

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let health = Health::new();
    let (spool, uplink) = (health.condition("spool"), health.condition("uplink"));
    let server = start(registry().unwrap(), health.clone(), Router::new()).await;
    let answer = fetch(server.address, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("not ready: spool, uplink\n"), "{answer}");
    spool.set(true);
    assert!(fetch(server.address, "/readyz").await.ends_with("not ready: uplink\n"));
    uplink.set(true);
    assert!(fetch(server.address, "/readyz").await.starts_with("HTTP/1.1 200"));
    health.condition("spool").set(false);
    assert_eq!(health.missing(), ["spool"]);
    server.shutdown.cancel();
    server.task.await.unwrap();
}

/// A peer that sends nothing holds one of the places; the others still work, and shutdown does not wait for it for ever.
#[tokio::test]
async fn a_request_under_way_is_finished_at_shutdown() {
    let (begun, began) = tokio::sync::oneshot::channel();
    let begun = Arc::new(Mutex::new(Some(begun)));
    let release = Arc::new(tokio::sync::Notify::new());
    let held = Arc::clone(&release);
    let slow = get(move || {
        let (begun, held) = (Arc::clone(&begun), Arc::clone(&held));
        async move {
            let begun = begun.lock().unwrap().take();
            begun.unwrap().send(()).unwrap();
            held.notified().await;
            "done"
        }
    });
    let server = start(registry().unwrap(), Health::new(), Router::new().route("/slow", slow)).await;
    let idle = TcpStream::connect(server.address).await.unwrap();
    let answer = tokio::spawn(async move { fetch(server.address, "/slow").await });
    began.await.unwrap();
    server.shutdown.cancel();
    release.notify_one();
    assert!(answer.await.unwrap().ends_with("done"));
    server.task.await.unwrap();
    drop(idle);
}
