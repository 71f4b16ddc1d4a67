//! The HTTP routes and what they share.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::map_response_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use caregate_host::origin;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::command::Commander;
use crate::emergency::BreakGlass;
use crate::feed::Feed;
use crate::fhir::grants::Grants;
use crate::history::Historian;
use crate::journal::What;
use crate::ledger::Known;
use crate::login::{Access, COOKIE, Login, LoginError};
use crate::message::Bed;
use crate::metrics::Metrics;
use crate::offer::Offerer;
use crate::record::Recorder;
use crate::search::Searcher;
use crate::session::AGE_MAX;
use crate::{break_glass, command, fhir, history, offer, page, search, stream};

/// HTTP connections at once, upgraded ones not counted: a browser opens up to six.
pub const CONNECTIONS_MAX: usize = 256;
/// Streams at once: a hospital's stations, and phones.
pub const STREAMS_MAX: usize = 256;
/// FHIR searches at once: each walks the whole ring and takes a processor while it does.
pub const SEARCHES_MAX: usize = 2;
/// Bytes of a request's body: a user and a password, with room.
const BODY_BYTES_MAX: usize = 8 << 10;

/// What is kept of who looked, and what is known of consent.
#[derive(Debug)]
pub struct Oversight {
    /// The journal and the pages' list.
    pub recorder: Recorder,
    /// What the ledger says; none where there is none.
    pub ledger: Option<watch::Receiver<Known>>,
    /// Opens emergencies; none without a key.
    pub break_glass: Option<BreakGlass>,
    /// Sends commands; none without a key.
    pub commander: Option<Commander>,
    /// What patients granted to us; none where there is no ledger.
    pub grants: Option<Grants>,
}

/// What the routes share.
#[derive(Debug)]
pub struct App {
    /// What was opened.
    pub feed: Arc<Feed>,
    /// Users and sessions.
    pub login: Login,
    /// Who lies where.
    pub beds: Vec<Bed>,
    /// Who looked, what the ledger says, and break-glass.
    pub oversight: Oversight,
    /// Who searches at the core; none where there is no link.
    pub searcher: Option<Searcher>,
    /// Who hands policy to gateways; none where there is no link.
    pub offerer: Option<Offerer>,
    /// The feed's name, as whose the audit log is shown.
    pub name: String,
    /// Who asks the core for the past; none where there is no link.
    pub historian: Option<Historian>,
    /// Counters.
    pub metrics: Metrics,
    /// Places of streams.
    pub streams: Arc<Semaphore>,
    /// Places of searches.
    pub searches: Arc<Semaphore>,
    /// The streams that run, for the end.
    pub running: TaskTracker,
    /// Whether we serve HTTPS.
    pub secure: bool,
    /// Cancelled when the feed stops.
    pub stopping: CancellationToken,
}

impl App {
    /// Nobody connected yet.
    #[must_use]
    pub fn new(
        feed: Arc<Feed>,
        login: Login,
        beds: Vec<Bed>,
        oversight: Oversight,
        metrics: Metrics,
        secure: bool,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            feed,
            login,
            beds,
            oversight,
            searcher: None,
            offerer: None,
            name: "feed".to_owned(),
            historian: None,
            metrics,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            searches: Arc::new(Semaphore::new(SEARCHES_MAX)),
            running: TaskTracker::new(),
            secure,
            stopping,
        }
    }

    /// Who sends the request, counted where a password was wrong.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn access(&self, headers: &HeaderMap, peer: SocketAddr) -> Result<Access, LoginError> {
        let access = self.login.access(headers, peer.ip()).await;
        if let Err(error) = &access
            && *error != LoginError::Missing
        {
            self.metrics.logins.with_label_values(&[error.reason()]).inc();
        }
        access
    }
}

/// The peer's address, as the server of `caregate-host` gives it.
pub type Peer = Extension<ConnectInfo<SocketAddr>>;

/// All routes.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/api/login", post(log_in))
        .route("/api/logout", post(log_out))
        .route("/api/session", get(session))
        .route("/api/stream", get(open_stream))
        .route("/api/emergency", post(break_glass::open))
        .route("/api/command", post(command::post))
        .route("/api/search", get(search::get))
        .route("/api/policy", get(offer::gateways))
        .route("/api/policy/{kind}", post(offer::post))
        .route("/api/history", get(history::get))
        .nest("/fhir", fhir::router())
        .route("/api/{*rest}", get(async || problem(StatusCode::NOT_FOUND, "no such interface")))
        .fallback(get(page::asset))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(map_response_with_state(Arc::clone(&app), secured))
        .with_state(app)
}

/// An error as `{"error":"…"}`.
pub(crate) fn problem(status: StatusCode, text: impl ToString) -> Response {
    (status, Json(serde_json::json!({ "error": text.to_string() }))).into_response()
}

async fn secured(State(app): State<Arc<App>>, mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in page::SECURITY_HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if app.secure {
        let a_year = HeaderValue::from_static("max-age=31536000");
        headers.entry(header::STRICT_TRANSPORT_SECURITY).or_insert(a_year);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The status of a refused login.
pub fn refusal_status(error: LoginError) -> StatusCode {
    match error {
        LoginError::Missing | LoginError::Wrong => StatusCode::UNAUTHORIZED,
        LoginError::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
        LoginError::Busy => StatusCode::SERVICE_UNAVAILABLE,
        LoginError::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

pub(crate) fn refused(error: LoginError) -> Response {
    let mut response = problem(refusal_status(error), error);
    if let LoginError::TooMany(left) = error {
        response.headers_mut().insert(header::RETRY_AFTER, (left.as_secs() + 1).into());
    }
    response
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    user: String,
    password: String,
}

/// The body of a request that our own page sent, or a program: a form of another page can't send JSON.
#[expect(clippy::result_large_err, reason = "the error is the answer, and is sent")]
fn body_of_ours(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<Bytes, Response> {
    if !origin::is_own(headers) {
        return Err(problem(StatusCode::FORBIDDEN, "Origin is another page than ours"));
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return Err(problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Type must be application/json"));
    }
    body.map_err(|rejection| problem(rejection.status(), rejection.body_text()))
}

/// What somebody who is logged in asks for by a body that is ours, and who it is.
pub(crate) async fn asked<T: DeserializeOwned>(
    app: &App,
    peer: SocketAddr,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(Access, T), Response> {
    let body = body_of_ours(headers, body)?;
    let access = app.access(headers, peer).await.map_err(refused)?;
    let request = serde_json::from_slice(&body)
        .map_err(|error| problem(StatusCode::BAD_REQUEST, format!("body: {error}")))?;
    Ok((access, request))
}

async fn log_in(
    State(app): State<Arc<App>>,
    Extension(ConnectInfo(peer)): Peer,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body_of_ours(&headers, body) {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let Credentials { user, password } = match serde_json::from_slice(&body) {
        Ok(credentials) => credentials,
        Err(error) => return problem(StatusCode::BAD_REQUEST, format!("body: {error}")),
    };
    let opened = match app.login.verify(&user, &password, peer.ip()).await {
        Ok(user) => {
            // That it can't be noted is logged and counted, and keeps nobody from a patient.
            drop(app.oversight.recorder.note(vec![What::Login { user: user.to_string() }]).await);
            app.login.open(user)
        }
        Err(error) => Err(error),
    };
    let outcome = opened.as_ref().map_or_else(LoginError::reason, |_| "ok");
    app.metrics.logins.with_label_values(&[outcome]).inc();
    match opened {
        Ok(token) => with_cookie(&app, &token, AGE_MAX.as_secs()),
        Err(error) => refused(error),
    }
}

fn with_cookie(app: &App, token: &str, age_s: u64) -> Response {
    let secure = if app.secure { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={age_s}{secure}");
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response()
}

async fn log_out(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    if !origin::is_own(&headers) {
        return problem(StatusCode::FORBIDDEN, "Origin is another page than ours");
    }
    app.login.close(&headers);
    with_cookie(&app, "", 0)
}

async fn session(
    State(app): State<Arc<App>>,
    Extension(ConnectInfo(peer)): Peer,
    headers: HeaderMap,
) -> Response {
    match app.access(&headers, peer).await {
        Ok(access) => Json(serde_json::json!({ "user": &*access.user })).into_response(),
        Err(error) => refused(error),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct From {
    from: Option<u64>,
}

async fn open_stream(
    State(app): State<Arc<App>>,
    Extension(ConnectInfo(peer)): Peer,
    headers: HeaderMap,
    query: Result<Query<From>, QueryRejection>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    if !origin::is_own(&headers) {
        return problem(StatusCode::FORBIDDEN, "Origin is another page than ours");
    }
    let access = match app.access(&headers, peer).await {
        Ok(access) => access,
        Err(error) => return refused(error),
    };
    let from = match query {
        Ok(Query(From { from })) => from,
        Err(rejection) => return problem(rejection.status(), rejection.body_text()),
    };
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return problem(rejection.status(), rejection.body_text()),
    };
    let Ok(place) = Arc::clone(&app.streams).try_acquire_owned() else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, format!("{STREAMS_MAX} streams are open already"));
    };
    let running = app.running.token();
    upgrade
        .max_message_size(stream::INCOMING_BYTES_MAX)
        .max_frame_size(stream::INCOMING_BYTES_MAX)
        .write_buffer_size(stream::WRITE_BUFFER_BYTES)
        .on_upgrade(async move |socket| {
            stream::run(app, socket, from, access).await;
            drop((place, running));
        })
}
