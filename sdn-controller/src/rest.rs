//! The interface for operators: HTTP behind mutual TLS, role `operator`. `openapi.json` describes it, and a test holds the two
//! together.
//!
//! Nothing here waits for the ledger or for more than one switch's answer, and each wait ends.

mod intents;
mod policy;
mod problem;
mod switches;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use caregate_host::identity::{Identity, PeerId, Role};
use rustls::ServerConfig;
use serde::Serialize;

use crate::connection::Shared;
use crate::policy::Policy;
use crate::store::Store;

pub use problem::Problem;

pub(crate) use intents::entry_json as intent_json;
pub(crate) use switches::switch_json;

/// Connections of operators at once: their tools, and a few pages that look every second.
pub const CONNECTIONS_MAX: usize = 64;
/// Longest body: a rule has at most some kilobytes.
pub const BODY_BYTES_MAX: usize = 16 << 10;
/// How long an answer waits for switches.
pub const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

/// The interface's description.
pub const OPENAPI: &str = include_str!("rest/openapi.json");

/// What the routes share.
#[derive(Debug, Clone)]
pub struct App {
    /// The switches.
    pub shared: Shared,
    /// The intents.
    pub store: Arc<Store>,
    /// Policy delivery, where it is configured.
    pub policy: Option<Policy>,
}

/// Who asks, for the log.
fn operator(peer: Option<&PeerId>) -> &str {
    peer.map_or("unnamed", |peer| peer.name.as_str())
}

/// The TLS side of it.
#[must_use]
pub fn tls_config(identity: &Identity) -> Arc<ServerConfig> {
    Arc::new(identity.server_config(&[Role::Operator], &[b"http/1.1"]))
}

/// All routes.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/openapi.json", get(async || ([(header::CONTENT_TYPE, "application/json")], OPENAPI)))
        .route("/v1/switches", get(switches::list))
        .route("/v1/switches/{dpid}/flows", get(switches::flows))
        .route("/v1/switches/{dpid}/ports", get(switches::ports))
        .route("/v1/switches/{dpid}/tables", get(switches::tables))
        .route("/v1/switches/{dpid}/flow-mods", post(switches::flow_mod))
        .route("/v1/intents", get(intents::list))
        .route("/v1/intents/{name}", get(intents::show).put(intents::put).delete(intents::remove))
        .route("/v1/gateways", get(policy::gateways))
        .route("/v1/gateways/{name}/bundle", get(policy::bundle))
        .route("/v1/revocations", post(policy::revoke))
        .route("/v1/events", get(policy::events))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is no such resource"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "the resource does not take this method")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(app.clone(), counted))
        .with_state(app)
}

async fn counted(State(app): State<App>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    let route = path.as_ref().map_or("none", MatchedPath::as_str);
    app.shared.metrics.requests.with_label_values(&[route, response.status().as_str()]).inc();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// An answer in JSON.
fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => (status, [(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(error) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error).into_response(),
    }
}
