//! The routes and what they share.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use caregate_host::{clock, origin};
use caregate_protocol::alarm::view::PatientView;
use caregate_protocol::beat::PolicyState;
use caregate_protocol::erasure::SignedOrder;
use caregate_protocol::id::PatientId;
use caregate_protocol::policy::delivery::Verdict;
use caregate_protocol::policy::{
    Mac, RelationshipId, Revocation, SignedEmergency, SignedRevocation, VerifiedPolicy,
};
use ledger_client::revoke::RevokeKeys;
use ledger_client::verify::Pins;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::login::{AGE_MAX, COOKIE, Login, LoginError};
use super::metrics::LocalMetrics;
use super::offers::{self, Offers};
use super::page;
use super::view::{Facts, standing};
use crate::hints::{Hints, Quarantined};
use crate::inventory::Shared;
use crate::inventory::oui::Vendors;
use crate::watch::Standings;

/// HTTP connections at once: a browser opens up to six.
pub const CONNECTIONS_MAX: usize = 32;
/// Bytes of a request's body, but for `/policy/*`: an access code or a relationship, with room.
pub const BODY_BYTES_MAX: usize = 1024;
/// Entries of the quarantine that are listed at once: as many as a person reads before asking for older ones.
const QUARANTINE_LISTED: usize = 100;
/// How long a revocation may take to be in force: a commit with a slow disk. After that its outcome is not known.
const REVOKE_TIMEOUT: Duration = Duration::from_secs(8);

/// One line of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TrailLine {
    /// When, Unix time in seconds.
    pub at_s: i64,
    /// What happened, in a sentence for the patient.
    pub text: String,
}

/// A splitting of a patient's root, whose shares are with people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SharesView {
    /// When, Unix time in seconds.
    pub at_s: u64,
    /// How many it takes.
    pub threshold: u8,
    /// Of how many.
    pub shares: u8,
}

/// What became of an erasure, for the patient's wallet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErasureView {
    /// Whose.
    pub patient: PatientId,
    /// What the core is asked, as hexadecimal; receipts name it.
    pub request: Option<String>,
    /// Of those that have erased, as hexadecimal.
    pub receipts: Vec<String>,
    /// Why the core won't, by its word.
    pub core_refuses: Option<&'static str>,
    /// Shares of the root that were made here.
    pub shares: Vec<SharesView>,
    /// Why the salts are in the gateway's files still; none where they are not.
    pub salts_left: Option<String>,
}

/// What the door needs of the policy side.
pub trait PolicySide: Send + Sync + 'static {
    /// Who and what is enrolled.
    fn pins(&self) -> Arc<Pins>;
    /// The policy in force.
    fn current(&self) -> Arc<VerifiedPolicy>;
    /// How it stands.
    fn state(&self, now_s: u64) -> PolicyState;
    /// Holds a bundle against the pins and puts it in force.
    fn offer_bundle(&self, bytes: Vec<u8>) -> impl Future<Output = Verdict> + Send;
    /// Holds a revocation against the pins, puts it in force, and sees that the ledger gets it.
    fn offer_revocation(&self, signed: SignedRevocation) -> impl Future<Output = Verdict> + Send;
    /// Holds an emergency against the pins and the policy in force, puts it in force, and sees that the ledger gets it.
    fn offer_emergency(&self, signed: SignedEmergency) -> impl Future<Output = Verdict> + Send;
    /// Holds a patient's order of erasure against the pins and carries it out; has the core asked again where that was done.
    fn offer_erasure(&self, order: SignedOrder) -> impl Future<Output = Verdict> + Send;
    /// What became of an erasure.
    fn erasure(&self, patient: PatientId) -> impl Future<Output = ErasureView> + Send;
    /// What came into force and what was refused, the newest first.
    fn trail(&self) -> Vec<TrailLine>;
}

/// What the routes share.
pub struct App<P> {
    /// The policy side.
    pub policy: P,
    /// What the button signs with.
    pub keys: RwLock<RevokeKeys>,
    /// Who was seen.
    pub inventory: Shared,
    /// Whose blocks addresses are in.
    pub vendors: Vendors,
    /// Who was heard, and the quarantine.
    pub hints: Hints,
    /// Whose frames a controller's rule drops.
    pub quarantined: watch::Receiver<Arc<BTreeSet<Mac>>>,
    /// What the watch says.
    pub views: watch::Receiver<Arc<Standings>>,
    /// The access code and sessions.
    pub login: Login,
    /// Counters.
    pub metrics: LocalMetrics,
    /// Whether we serve HTTPS.
    pub secure: bool,
    /// What bounds `/policy/*`.
    pub offers: Offers,
}

/// The peer's address, as the server of `caregate-host` gives it.
type Peer = Extension<ConnectInfo<SocketAddr>>;
type Shelf<P> = State<Arc<App<P>>>;

/// All routes.
pub fn router<P: PolicySide>(app: Arc<App<P>>) -> Router {
    let offers = Router::new()
        .route("/policy/bundle", post(offers::bundle::<P>))
        .route("/policy/emergency", post(offers::emergency::<P>))
        .route("/policy/erasure", post(offers::erasure::<P>))
        .route("/policy/revocation", post(offers::revocation::<P>));
    Router::new()
        .route("/", get(page::index))
        .route("/page.css", get(page::style))
        .route("/page.js", get(page::script))
        .route("/icon.svg", get(page::icon))
        .route("/api/login", post(log_in::<P>))
        .route("/api/logout", post(log_out::<P>))
        .route("/api/state", get(state::<P>))
        .route("/api/devices", get(devices::<P>))
        .route("/api/quarantine", get(quarantine::<P>))
        .route("/api/alarms", get(alarms::<P>))
        .route("/api/trail", get(trail::<P>))
        .route("/api/revoke", post(revoke::<P>))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        // Their bodies are read by their handlers, each with its own bound.
        .merge(offers)
        .fallback(get(async || problem(StatusCode::NOT_FOUND, "no such page")))
        .layer(map_response(page::secured))
        .with_state(app)
}

/// A value as JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], bytes)
            .into_response(),
        Err(_unwritable) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// An error as `{"error":"…"}`.
pub(super) fn problem(status: StatusCode, text: impl ToString) -> Response {
    json(status, &serde_json::json!({ "error": text.to_string() }))
}

/// 429, with the time to wait.
pub(super) fn too_often(left: Duration) -> Response {
    let seconds = left.as_secs() + 1;
    let mut response = problem(StatusCode::TOO_MANY_REQUESTS, format!("too often; try again in {seconds} s"));
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// The body of a POST that only our own page or a program can have sent: a browser sends this content type to another site only
/// after asking it, and names its page in `Origin`.
fn own_json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<T, Box<Response>> {
    if !origin::is_own(headers) {
        return Err(Box::new(problem(StatusCode::FORBIDDEN, "Origin is another page than ours")));
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        let text = "Content-Type must be application/json";
        return Err(Box::new(problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, text)));
    }
    let body = body.map_err(|rejection| Box::new(problem(rejection.status(), rejection.body_text())))?;
    // The parser's words don't repeat the input.
    serde_json::from_slice(&body)
        .map_err(|error| Box::new(problem(StatusCode::BAD_REQUEST, format!("body: {error}"))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Code {
    code: String,
}

async fn log_in<P: PolicySide>(
    State(app): Shelf<P>,
    Extension(ConnectInfo(peer)): Peer,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let Code { code } = match own_json(&headers, body) {
        Ok(code) => code,
        Err(response) => return *response,
    };
    let opened = app.login.open(&code, peer.ip(), clock::monotonic());
    let outcome = opened.as_ref().map_or_else(LoginError::reason, |_| "ok");
    app.metrics.logins.with_label_values(&[outcome]).inc();
    match opened {
        Ok(token) => with_cookie(app.secure, &token, AGE_MAX.as_secs()),
        Err(LoginError::TooMany(left)) => too_often(left),
        Err(error @ LoginError::Wrong) => problem(StatusCode::FORBIDDEN, error),
        Err(error @ LoginError::Internal) => problem(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

fn with_cookie(secure: bool, token: &str, age_s: u64) -> Response {
    let secure = if secure { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={age_s}{secure}");
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response()
}

async fn log_out<P: PolicySide>(State(app): Shelf<P>, headers: HeaderMap) -> Response {
    if !origin::is_own(&headers) {
        return problem(StatusCode::FORBIDDEN, "Origin is another page than ours");
    }
    app.login.close(&headers);
    with_cookie(app.secure, "", 0)
}

/// What a request without a session gets.
fn to_stranger<P>(app: &App<P>, headers: &HeaderMap) -> Option<Response> {
    let admitted = app.login.admits(headers, clock::monotonic());
    (!admitted).then(|| problem(StatusCode::UNAUTHORIZED, "log in first"))
}

fn now_s() -> u64 {
    u64::try_from(clock::now_ms().div_euclid(1000)).unwrap_or(0)
}

/// Runs what may wait for the disk (sled) apart from the async tasks.
async fn apart(work: impl FnOnce() -> Response + Send + 'static) -> Response {
    let failed = |_panicked| problem(StatusCode::INTERNAL_SERVER_ERROR, "failed inside the gateway");
    tokio::task::spawn_blocking(work).await.unwrap_or_else(failed)
}

impl<P: PolicySide> App<P> {
    /// Has a patient's order carried out; then nothing here signs for them any more.
    pub(super) async fn erase(&self, order: SignedOrder) -> Verdict {
        let verdict = self.policy.offer_erasure(order).await;
        let pins = self.policy.pins();
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|relationship| pins.relationships.contains_key(relationship));
        verdict
    }

    /// Gives `look` the facts of this moment.
    fn with_facts<T>(&self, look: impl FnOnce(&Facts<'_>) -> T) -> T {
        let (policy, pins, heard) = (self.policy.current(), self.policy.pins(), self.hints.devices());
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let quarantined = Arc::clone(&self.quarantined.borrow());
        let inventory = self.inventory.lock();
        look(&Facts {
            policy: &policy,
            stands: self.policy.state(now_s()),
            pins: &pins,
            keys: &keys,
            inventory: &inventory,
            heard: &heard,
            quarantined: &quarantined,
        })
    }
}

async fn state<P: PolicySide>(State(app): Shelf<P>, headers: HeaderMap) -> Response {
    if let Some(response) = to_stranger(&app, &headers) {
        return response;
    }
    apart(move || json(StatusCode::OK, &app.with_facts(|facts| facts.state(now_s())))).await
}

async fn devices<P: PolicySide>(State(app): Shelf<P>, headers: HeaderMap) -> Response {
    if let Some(response) = to_stranger(&app, &headers) {
        return response;
    }
    apart(move || app.with_facts(|facts| json(StatusCode::OK, &facts.seen(&app.vendors)))).await
}

/// Which entries of the quarantine.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Browse {
    /// Only those of lower numbers: the last number that was listed.
    before: Option<u64>,
}

/// An entry of the quarantine, and its number.
#[derive(Serialize)]
struct Listed {
    number: u64,
    #[serde(flatten)]
    entry: Quarantined,
}

async fn quarantine<P: PolicySide>(
    State(app): Shelf<P>,
    headers: HeaderMap,
    browse: Result<Query<Browse>, QueryRejection>,
) -> Response {
    if let Some(response) = to_stranger(&app, &headers) {
        return response;
    }
    let Query(Browse { before }) = match browse {
        Ok(browse) => browse,
        Err(rejection) => return problem(StatusCode::BAD_REQUEST, rejection.body_text()),
    };
    apart(move || {
        let entries = app.hints.quarantined_before(before.unwrap_or(u64::MAX), QUARANTINE_LISTED);
        let listed = entries.into_iter().map(|(number, entry)| Listed { number, entry });
        json(StatusCode::OK, &listed.collect::<Vec<_>>())
    })
    .await
}

/// Each patient's alarms, score and limits.
async fn alarms<P: PolicySide>(State(app): Shelf<P>, headers: HeaderMap) -> Response {
    if let Some(response) = to_stranger(&app, &headers) {
        return response;
    }
    let standings = Arc::clone(&app.views.borrow());
    let views = standings.iter().map(|(patient, standing)| PatientView::new(*patient, standing));
    json(StatusCode::OK, &views.collect::<Vec<_>>())
}

async fn trail<P: PolicySide>(State(app): Shelf<P>, headers: HeaderMap) -> Response {
    if let Some(response) = to_stranger(&app, &headers) {
        return response;
    }
    apart(move || json(StatusCode::OK, &app.policy.trail())).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    relationship: RelationshipId,
}

async fn revoke<P: PolicySide>(
    State(app): Shelf<P>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    if let Some(response) = to_stranger(&app, &headers) {
        return response;
    }
    let Revoke { relationship } = match own_json(&headers, body) {
        Ok(revoke) => revoke,
        Err(response) => return *response,
    };
    let (outcome, response) = end(app.clone(), relationship).await;
    app.metrics.revocations.with_label_values(&[outcome]).inc();
    response
}

/// Ends what stands in a relationship: signs with its revoke-only key, puts it in force, and only then answers.
async fn end<P: PolicySide>(app: Arc<App<P>>, relationship: RelationshipId) -> (&'static str, Response) {
    let pins = app.policy.pins();
    if !pins.relationships.contains_key(&relationship) {
        return ("unknown", problem(StatusCode::NOT_FOUND, "no such relationship"));
    }
    let policy = app.policy.current();
    let Some(version) = standing(&policy, &relationship).map(|grant| grant.version) else {
        return ("nothing_stands", problem(StatusCode::CONFLICT, "nothing is granted there any more"));
    };
    let revocation = Revocation { relationship, version };
    let signed = app.keys.read().unwrap_or_else(PoisonError::into_inner).sign(&revocation, &pins.domain);
    let Some(signed) = signed else {
        return ("no_key", problem(StatusCode::CONFLICT, "this box has no key that ends it; the wallet has"));
    };
    // A task of its own: a browser that leaves in the middle must not stop it.
    let ending = tokio::spawn(async move { app.policy.offer_revocation(signed).await });
    match tokio::time::timeout(REVOKE_TIMEOUT, ending).await {
        Ok(Ok(Verdict { refused: None, epoch, .. })) => {
            let done =
                serde_json::json!({ "relationship": relationship, "version": version, "epoch": epoch });
            ("in_force", json(StatusCode::OK, &done))
        }
        Ok(Ok(Verdict { refused: Some(reason), .. })) => {
            ("refused", problem(StatusCode::INTERNAL_SERVER_ERROR, format!("refused: {reason}")))
        }
        Ok(Err(_panicked)) => {
            ("failed", problem(StatusCode::INTERNAL_SERVER_ERROR, "failed inside the gateway"))
        }
        Err(_elapsed) => ("slow", problem(StatusCode::GATEWAY_TIMEOUT, "it was not done in time")),
    }
}
