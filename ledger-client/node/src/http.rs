//! JSON-RPC over HTTP/1.1: one route, bounded in connections, bytes, calls under way and time. A WebSocket is opened there by who
//! subscribes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::chain::NOTICE;
use crate::error::{Reason, RpcError};
use crate::request::REQUEST_BYTES_MAX;
use crate::rpc::{Rpc, client_version};
use crate::socket::{self, SOCKETS_MAX};

/// Connections at once: a controller, feeds, wallets and a few people, with room.
pub const CONNECTIONS_MAX: usize = 128;
/// Requests under way at once. Most of them wait for the disk that seals their block.
const REQUESTS_MAX: usize = 64;
/// For a body of [`REQUEST_BYTES_MAX`] on a bad link, and for the answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

struct Shared {
    rpc: Rpc,
    places: Arc<Semaphore>,
    sockets: Arc<Semaphore>,
}

/// The route.
pub fn router(rpc: Rpc) -> Router {
    let shared = Arc::new(Shared {
        rpc,
        places: Arc::new(Semaphore::new(REQUESTS_MAX)),
        sockets: Arc::new(Semaphore::new(SOCKETS_MAX)),
    });
    Router::new()
        .route("/", post(serve).get(open))
        // axum's own limit answers 413 before the body is read.
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .with_state(shared)
}

/// A WebSocket where one is asked for, and else what this is. A page in a browser names itself in `Origin`, and has no business here.
async fn open(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let Ok(upgrade) = upgrade else {
        let banner = format!(
            "{}\nCaregate ledger node: {NOTICE}. JSON-RPC by POST, or by WebSocket.\n",
            client_version()
        );
        return banner.into_response();
    };
    let counted = |reason: &str| shared.rpc.metrics().refused.with_label_values(&[reason]).inc();
    if headers.contains_key(header::ORIGIN) {
        counted("origin");
        return (StatusCode::FORBIDDEN, "not for pages in browsers\n").into_response();
    }
    let Ok(place) = Arc::clone(&shared.sockets).try_acquire_owned() else {
        counted("too_many_sockets");
        return (StatusCode::SERVICE_UNAVAILABLE, "as many WebSockets as can be are open\n").into_response();
    };
    let (rpc, work) = (shared.rpc.clone(), Arc::clone(&shared.places));
    upgrade
        .max_message_size(REQUEST_BYTES_MAX)
        .max_frame_size(REQUEST_BYTES_MAX)
        .on_upgrade(move |socket| socket::run(socket, rpc, work, place))
}

fn is_json(headers: &HeaderMap) -> bool {
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    media.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
}

/// A page in a browser may post text anywhere without asking, JSON not: so only JSON is taken.
async fn serve(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: axum::body::Body) -> Response {
    if !is_json(&headers) {
        shared.rpc.metrics().refused.with_label_values(&["content_type"]).inc();
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, "send application/json\n").into_response();
    }
    let rpc = shared.rpc.clone();
    let failed = |status, error: RpcError| json(status, rpc.refused(&Value::Null, &error).to_string().into());
    let work = async {
        let body = axum::body::to_bytes(body, REQUEST_BYTES_MAX).await.map_err(|_source| {
            let message = format!("the request is longer than {REQUEST_BYTES_MAX} bytes, or broke off");
            (StatusCode::PAYLOAD_TOO_LARGE, RpcError::limit(message))
        })?;
        let place = Arc::clone(&shared.places).acquire_owned().await;
        let rpc = shared.rpc.clone();
        // The place is held by the thread: a request that timed out still takes one until it has ended.
        let work = tokio::task::spawn_blocking(move || {
            let answer = rpc.serve(&body);
            drop(place);
            answer
        });
        work.await.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, RpcError::internal(&error)))
    };
    match tokio::time::timeout(REQUEST_TIMEOUT, work).await {
        Ok(Ok(answer)) if answer.is_empty() => StatusCode::NO_CONTENT.into_response(),
        Ok(Ok(answer)) => json(StatusCode::OK, answer.into()),
        Ok(Err((status, error))) => failed(status, error),
        Err(_elapsed) => failed(
            StatusCode::SERVICE_UNAVAILABLE,
            RpcError::new(Reason::Timeout, "the request took too long"),
        ),
    }
}

fn json(status: StatusCode, body: Bytes) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
