//! `GET /fhir/…` (R4 §3.1.0): read, search-type, capabilities; every error is an OperationOutcome.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use caregate_protocol::id::PatientId;
use ledger_chain::ChainError;
use serde::Serialize;
use serde_json::json;
use thiserror::Error;
use tokio::time::timeout;

use super::audit::LogError;
use super::observation::Item;
use super::resource::{Bundle, BundleEntry, BundleLink, BundleSearch, Match, OperationOutcome};
use super::search::{PARAMETERS, Search, SearchError};
use super::{oversight, select, select::Found};
use crate::journal::JournalError;
use crate::login::LoginError;
use crate::look::{looks, spans_of};
use crate::server::{App, Peer, refusal_status};

const FHIR_JSON: &str = "application/fhir+json";
/// How long a search waits for its turn: each takes 0.3 s when the ring is full (a million readings).
const PLACE_TIMEOUT: Duration = Duration::from_secs(5);
/// Asks for HTTP Basic (RFC 7617 §2.1).
const CHALLENGE: &str = "Basic realm=\"caregate\", charset=\"UTF-8\"";

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum FhirError {
    #[error(transparent)]
    Login(#[from] LoginError),
    #[error(transparent)]
    Search(#[from] SearchError),
    #[error("the query string is malformed")]
    Query,
    #[error("no such resource is held here; the feed keeps what was opened last, and the audit log's end")]
    NotHeld,
    #[error("only Observation, AuditEvent, Consent, Provenance and metadata are served here")]
    NotServed,
    #[error("Caregate-Reason must have 1 to 200 bytes of text")]
    Reason,
    #[error("this feed follows no ledger: its configuration has no [ledger]")]
    NoLedger,
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the ledger does not answer: {0}")]
    Ledger(#[from] ChainError),
    #[error("only GET is served here")]
    Method,
    #[error("too many searches at once; try again")]
    Busy,
    #[error("the search failed inside the server")]
    Internal,
}

impl FhirError {
    /// Status, issue type (value set `issue-type`) and label for counters.
    fn kind(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Login(LoginError::Missing | LoginError::Wrong) => {
                (StatusCode::UNAUTHORIZED, "login", "unauthorised")
            }
            Self::Login(error @ (LoginError::TooMany(_) | LoginError::Busy)) => {
                (refusal_status(*error), "throttled", "throttled")
            }
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "throttled", "throttled"),
            Self::Login(LoginError::Internal) | Self::Internal => {
                (StatusCode::INTERNAL_SERVER_ERROR, "exception", "internal")
            }
            Self::Search(SearchError::Unknown(_)) => (StatusCode::BAD_REQUEST, "not-supported", "query"),
            Self::Search(SearchError::Format(_)) => (StatusCode::NOT_ACCEPTABLE, "not-supported", "query"),
            Self::Search(SearchError::TooMany) => (StatusCode::BAD_REQUEST, "too-costly", "query"),
            Self::Search(SearchError::Value { .. }) | Self::Query | Self::Reason => {
                (StatusCode::BAD_REQUEST, "value", "query")
            }
            Self::NotHeld | Self::NoLedger => (StatusCode::NOT_FOUND, "not-found", "not_found"),
            Self::Journal(_) | Self::Log(_) => (StatusCode::INTERNAL_SERVER_ERROR, "exception", "journal"),
            Self::Ledger(_) => (StatusCode::SERVICE_UNAVAILABLE, "transient", "ledger"),
            Self::NotServed => (StatusCode::NOT_FOUND, "not-supported", "not_found"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "not-supported", "method"),
        }
    }
}

/// The routes below `/fhir`.
pub fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/metadata", get(metadata))
        .route("/Observation", get(search))
        .route("/Observation/{id}", get(read))
        .route("/AuditEvent", get(oversight::events))
        .route("/AuditEvent/{id}", get(oversight::event))
        .route("/Consent", get(oversight::consents))
        .route("/Consent/{id}", get(oversight::consent))
        .route("/Provenance", get(oversight::provenances))
        .route("/Provenance/{id}", get(oversight::provenance))
        .fallback(async |State(app): State<Arc<App>>| answer(&app, Err::<(), _>(FhirError::NotServed)))
        .method_not_allowed_fallback(async |State(app): State<Arc<App>>| {
            let mut response = answer(&app, Err::<(), _>(FhirError::Method));
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        })
}

fn written(status: StatusCode, resource: &impl Serialize) -> Response {
    match serde_json::to_vec(resource) {
        Ok(json) => (status, [(header::CONTENT_TYPE, FHIR_JSON)], json).into_response(),
        Err(_not_json) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

pub(super) fn answer(app: &App, result: Result<impl Serialize, FhirError>) -> Response {
    let error = match result {
        Ok(resource) => {
            app.metrics.fhir.with_label_values(&["ok"]).inc();
            return written(StatusCode::OK, &resource);
        }
        Err(error) => error,
    };
    let (status, code, label) = error.kind();
    app.metrics.fhir.with_label_values(&[label]).inc();
    let mut response = written(status, &OperationOutcome::error(code, error.to_string()));
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
    }
    if let FhirError::Login(LoginError::TooMany(left)) = error {
        response.headers_mut().insert(header::RETRY_AFTER, (left.as_secs() + 1).into());
    }
    response
}

/// What this server can do; open to all, as the specification asks.
async fn metadata(State(app): State<Arc<App>>) -> Response {
    let parameters: Vec<_> =
        PARAMETERS.iter().map(|(name, kind)| json!({ "name": name, "type": kind })).collect();
    let observation = json!({
        "type": "Observation",
        "interaction": [{ "code": "read" }, { "code": "search-type" }],
        "versioning": "no-version",
        "searchParam": parameters,
    });
    let resources: Vec<_> = std::iter::once(observation).chain(oversight::served()).collect();
    let statement = json!({
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": "2026-11-26",
        "kind": "instance",
        "software": { "name": "Caregate clinician-feed", "version": env!("CARGO_PKG_VERSION") },
        "implementation": { "description": "What patients share with this hospital, as long as it is held in memory" },
        "fhirVersion": "4.0.1",
        "format": ["json", FHIR_JSON],
        "rest": [{
            "mode": "server",
            "security": {
                "service": [{ "coding": [{
                    "system": "http://terminology.hl7.org/CodeSystem/restful-security-service", "code": "Basic" }] }],
                "description": "HTTP Basic, or the session cookie of the page",
            },
            "resource": resources,
        }],
    });
    answer(&app, Ok(statement))
}

async fn search(
    State(app): State<Arc<App>>,
    Extension(ConnectInfo(peer)): Peer,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    answer(&app, bundle(&app, peer, &headers, &uri).await)
}

/// Where the client reached us.
pub(super) fn base(app: &App, headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    format!("{}://{host}/fhir", if app.secure { "https" } else { "http" })
}

/// The pairs of a query string.
pub(super) fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, FhirError> {
    let query = Query::<Vec<(String, String)>>::try_from_uri(uri);
    query.map(|Query(pairs)| pairs).map_err(|_rejection| FhirError::Query)
}

/// This page of a search at `url`, and the next.
pub(super) fn links(url: &str, uri: &Uri, next: Option<impl Display>) -> Vec<BundleLink> {
    let query = uri.query().unwrap_or_default();
    let this = if query.is_empty() { String::new() } else { format!("?{query}") };
    let mut link = vec![BundleLink { relation: "self", url: format!("{url}{this}") }];
    if let Some(next) = next {
        let others = query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("_cursor="));
        let query: Vec<_> = others.map(str::to_owned).chain([format!("_cursor={next}")]).collect();
        link.push(BundleLink { relation: "next", url: format!("{url}?{}", query.join("&")) });
    }
    link
}

async fn bundle(
    app: &App,
    peer: SocketAddr,
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<Bundle<Match>, FhirError> {
    let access = app.access(headers, peer).await?;
    let search = Search::parse(&pairs(uri)?)?;
    let asked = search.patients.clone();
    let Found { total, items, next } = walk(app, move |app| select::search(&app, &search)).await?;
    let spans = spans_of(items.iter().flat_map(Item::entries));
    app.oversight.recorder.looked(&access.user, looks(app, &spans)).await;
    let base = base(app, headers);
    let link = links(&format!("{base}/Observation"), uri, next);
    let found = items.iter().filter_map(|item| item.observation()).map(|observation| BundleEntry {
        full_url: Some(format!("{base}/Observation/{}", observation.id)),
        resource: Match::Observation(Box::new(observation)),
        search: BundleSearch { mode: "match" },
    });
    let of: BTreeSet<_> = spans.keys().map(|(patient, _)| *patient).chain(asked).collect();
    let entry = found.chain(stale_policies(app, &of)).collect();
    Ok(Bundle { resource_type: "Bundle", kind: "searchset", total, link, entry })
}

/// Whose gateway seals by a policy that it can't hold against the ledger: what this hospital may see may have changed.
fn stale_policies(app: &App, of: &BTreeSet<PatientId>) -> Vec<BundleEntry<Match>> {
    let told = |clock_unknown: bool, text: &str| {
        let is_so = |patient: &&PatientId| {
            let policy = app.feed.bedside().policy(patient);
            policy.is_some_and(|policy| policy.stale && policy.clock_unknown == clock_unknown)
        };
        let patients: Vec<_> = of.iter().filter(is_so).map(PatientId::to_string).collect();
        (!patients.is_empty()).then(|| {
            let diagnostics = format!("{text}. Patients: {}", patients.join(", "));
            BundleEntry {
                full_url: None,
                resource: Match::Outcome(OperationOutcome::warning("incomplete", diagnostics)),
                search: BundleSearch { mode: "outcome" },
            }
        })
    };
    let old = "the gateway has not heard of the ledger for too long: nobody new comes in, and grants end by their own bounds";
    let unknown = "the gateway's clock was set back: nothing opens until it hears of the ledger";
    told(false, old).into_iter().chain(told(true, unknown)).collect()
}

/// Walks the readings on a blocking thread, a few at once.
pub(super) async fn walk<T: Send + 'static>(
    app: &App,
    query: impl FnOnce(Arc<crate::feed::Feed>) -> T + Send + 'static,
) -> Result<T, FhirError> {
    let places = Arc::clone(&app.searches);
    let place = timeout(PLACE_TIMEOUT, places.acquire_owned()).await.map_err(|_elapsed| FhirError::Busy)?;
    let place = place.map_err(|_closed| FhirError::Internal)?;
    let feed = Arc::clone(&app.feed);
    let walking = tokio::task::spawn_blocking(move || {
        let result = query(feed);
        drop(place);
        result
    });
    walking.await.map_err(|_aborted| FhirError::Internal)
}

async fn read(
    State(app): State<Arc<App>>,
    Extension(ConnectInfo(peer)): Peer,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    let observation = async {
        let access = app.access(&headers, peer).await?;
        let Path(id) = id.map_err(|_rejection| FhirError::NotHeld)?;
        let item = walk(&app, move |feed| select::read(&feed, &id)).await?;
        let spans = spans_of(item.iter().flat_map(Item::entries));
        app.oversight.recorder.looked(&access.user, looks(&app, &spans)).await;
        item.and_then(|item| item.observation()).ok_or(FhirError::NotHeld)
    };
    answer(&app, observation.await)
}
