//! `POST /policy/bundle`, `/policy/revocation`, `/policy/emergency` and `/policy/erasure`: policy by any path. No login: each carries its own authority, and
//! whoever hands it in learns only whether it counts.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Extension;
use axum::body::{self, Body};
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::Response;
use caregate_host::clock;
use caregate_protocol::cbor::CborError;
use caregate_protocol::erasure::{ErasureError, SignedOrder};
use caregate_protocol::policy::delivery::{EMERGENCY_BYTES_MAX, Verdict};
use caregate_protocol::policy::{BUNDLE_BYTES_MAX, SignedEmergency, SignedRevocation};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::door::{App, json, problem, too_often};
use super::pace::{self, Pace};

/// Bundles being read or verified at once: each takes a MiB, and a processor for up to 300 ms.
pub const OFFERS_MAX: usize = 4;
/// Longest message alone: a revocation's CBOR has 112 bytes, an emergency's 260 at most.
pub const MESSAGE_BYTES_MAX: usize = EMERGENCY_BYTES_MAX;
/// Time in which a body must be here: a MiB over a bad link.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Bundles of one address at once, and then one in so long: a controller has one each ten seconds.
const BUNDLES: (u32, Duration) = (5, Duration::from_secs(2));
/// Revocations and emergencies of one address at once, and then one in so long: a wallet ends all of a patient's relationships in one go.
const MESSAGES: (u32, Duration) = (64, Duration::from_millis(250));

/// What bounds the routes.
#[derive(Debug)]
pub struct Offers {
    bundles: Mutex<Pace>,
    messages: Mutex<Pace>,
    places: Arc<Semaphore>,
    /// Addresses with a bundle under way: one each, so that a slow sender holds one place and not all.
    senders: Arc<Mutex<HashSet<IpAddr>>>,
}

impl Default for Offers {
    fn default() -> Self {
        Self {
            bundles: Mutex::new(Pace::new(BUNDLES.0, BUNDLES.1)),
            messages: Mutex::new(Pace::new(MESSAGES.0, MESSAGES.1)),
            places: Arc::new(Semaphore::new(OFFERS_MAX)),
            senders: Arc::default(),
        }
    }
}

impl Offers {
    fn place(&self, address: IpAddr) -> Option<Place> {
        let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let address = pace::network(address);
        let is_new = self.senders.lock().unwrap_or_else(PoisonError::into_inner).insert(address);
        is_new.then(|| Place { address, senders: Arc::clone(&self.senders), _permit: permit })
    }
}

/// One sender's place; freed on drop.
struct Place {
    address: IpAddr,
    senders: Arc<Mutex<HashSet<IpAddr>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.address);
    }
}

fn take(pace: &Mutex<Pace>, address: IpAddr) -> Result<(), Duration> {
    pace.lock().unwrap_or_else(PoisonError::into_inner).take(address, clock::monotonic())
}

async fn read(body: Body, bytes_max: usize) -> Result<body::Bytes, (StatusCode, &'static str)> {
    match tokio::time::timeout(BODY_TIMEOUT, body::to_bytes(body, bytes_max)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_too_long_or_broken)) => Err((StatusCode::PAYLOAD_TOO_LARGE, "too_large")),
        Err(_elapsed) => Err((StatusCode::REQUEST_TIMEOUT, "slow")),
    }
}

fn answered(verdict: &Verdict) -> Response {
    let status = if verdict.refused.is_none() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    let Verdict { number, epoch, refused } = verdict;
    json(status, &serde_json::json!({ "number": number, "epoch": epoch, "refused": refused }))
}

fn refused(app_kind: &'static str, status: StatusCode, reason: &'static str) -> Response {
    let text = match reason {
        "too_large" => "the body is too long, or did not come whole",
        "slow" => "the body did not come in time",
        _ => "too many bundles at once; try again",
    };
    tracing::debug!(kind = app_kind, reason, "an offer was not looked at");
    problem(status, text)
}

pub(super) async fn bundle<P: super::PolicySide>(
    State(app): State<Arc<App<P>>>,
    Extension(ConnectInfo(peer)): Extension<ConnectInfo<SocketAddr>>,
    body: Body,
) -> Response {
    let count = |outcome: &str| app.metrics.offers.with_label_values(&["bundle", outcome]).inc();
    if let Err(left) = take(&app.offers.bundles, peer.ip()) {
        count("too_often");
        return too_often(left);
    }
    let Some(place) = app.offers.place(peer.ip()) else {
        count("busy");
        return refused("bundle", StatusCode::SERVICE_UNAVAILABLE, "busy");
    };
    let bytes = match read(body, BUNDLE_BYTES_MAX).await {
        Ok(bytes) => bytes,
        Err((status, reason)) => {
            count(reason);
            return refused("bundle", status, reason);
        }
    };
    let verdict = app.policy.offer_bundle(bytes.into()).await;
    drop(place);
    count(verdict.refused.as_deref().unwrap_or("in_force"));
    answered(&verdict)
}

pub(super) async fn revocation<P: super::PolicySide>(
    State(app): State<Arc<App<P>>>,
    Extension(ConnectInfo(peer)): Extension<ConnectInfo<SocketAddr>>,
    body: Body,
) -> Response {
    match message(&app, "revocation", peer.ip(), body, SignedRevocation::decode).await {
        Ok(signed) => said(&app, "revocation", &app.policy.offer_revocation(signed).await),
        Err(response) => *response,
    }
}

pub(super) async fn emergency<P: super::PolicySide>(
    State(app): State<Arc<App<P>>>,
    Extension(ConnectInfo(peer)): Extension<ConnectInfo<SocketAddr>>,
    body: Body,
) -> Response {
    match message(&app, "emergency", peer.ip(), body, SignedEmergency::decode).await {
        Ok(signed) => said(&app, "emergency", &app.policy.offer_emergency(signed).await),
        Err(response) => *response,
    }
}

/// An order of erasure; the answer has the receipts that are here by then, and the core is asked for more.
pub(super) async fn erasure<P: super::PolicySide>(
    State(app): State<Arc<App<P>>>,
    Extension(ConnectInfo(peer)): Extension<ConnectInfo<SocketAddr>>,
    body: Body,
) -> Response {
    let order = match message(&app, "erasure", peer.ip(), body, SignedOrder::decode).await {
        Ok(order) => order,
        Err(response) => return *response,
    };
    // A task of its own: who leaves in the middle must not stop it.
    let behind = Arc::clone(&app);
    let Ok(verdict) = tokio::spawn(async move { behind.erase(order).await }).await else {
        return problem(StatusCode::INTERNAL_SERVER_ERROR, "failed inside the gateway");
    };
    let outcome = verdict.refused.as_deref().unwrap_or("in_force");
    app.metrics.offers.with_label_values(&["erasure", outcome]).inc();
    if verdict.refused.is_some() {
        return answered(&verdict);
    }
    json(StatusCode::OK, &app.policy.erasure(order.patient).await)
}

/// Why bytes are no message.
trait Reason: std::fmt::Display {
    fn word(&self) -> &'static str;
}

impl Reason for CborError {
    fn word(&self) -> &'static str {
        self.reason()
    }
}

impl Reason for ErasureError {
    fn word(&self) -> &'static str {
        self.reason()
    }
}

/// Reads a signed message alone, at its pace.
async fn message<P, T, E: Reason>(
    app: &App<P>,
    kind: &'static str,
    peer: IpAddr,
    body: Body,
    decode: impl FnOnce(&[u8]) -> Result<T, E>,
) -> Result<T, Box<Response>> {
    let count = |outcome: &str| app.metrics.offers.with_label_values(&[kind, outcome]).inc();
    if let Err(left) = take(&app.offers.messages, peer) {
        count("too_often");
        return Err(Box::new(too_often(left)));
    }
    let bytes = read(body, MESSAGE_BYTES_MAX).await.map_err(|(status, reason)| {
        count(reason);
        Box::new(refused(kind, status, reason))
    })?;
    decode(&bytes).map_err(|error| {
        count(error.word());
        Box::new(problem(StatusCode::BAD_REQUEST, format!("{kind}: {error}")))
    })
}

/// What became of it.
fn said<P>(app: &App<P>, kind: &'static str, verdict: &Verdict) -> Response {
    app.metrics.offers.with_label_values(&[kind, verdict.refused.as_deref().unwrap_or("in_force")]).inc();
    answered(verdict)
}
