//! `GET /fhir/AuditEvent`, `/fhir/Consent` and `/fhir/Provenance`: who did what here, what patients granted, and whose word that is.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use serde_json::{Value, json};

use super::audit::{self, LOG_BYTES_MAX, LogError};
use super::grants::{Grants, Wanted};
use super::resource::{Bundle, BundleEntry, BundleSearch};
use super::routes::{FhirError, answer, base, links, pairs, walk};
use super::search::{GrantSearch, LogSearch, relationship};
use crate::server::{App, Peer};

/// The header in which a reader of the log says why.
const REASON: &str = "caregate-reason";
/// Longest such reason: a sentence.
const REASON_BYTES_MAX: usize = 200;

/// Each resource beside Observation, for the CapabilityStatement: type, and search parameters with theirs.
pub(super) fn served() -> Vec<Value> {
    let resource = |kind: &str, parameters: &[(&str, &str)]| {
        let parameters: Vec<_> =
            parameters.iter().map(|(name, kind)| json!({ "name": name, "type": kind })).collect();
        json!({
            "type": kind,
            "interaction": [{ "code": "read" }, { "code": "search-type" }],
            "versioning": "no-version",
            "searchParam": parameters,
        })
    };
    let grants = [Wanted::Consent, Wanted::Provenance].map(|wanted| (wanted.as_str(), wanted.parameter()));
    let grants = grants.iter().map(|(kind, parameter)| resource(kind, &[*parameter]));
    std::iter::once(resource("AuditEvent", &LogSearch::PARAMETERS)).chain(grants).collect()
}

fn matched(base: &str, resource: Value) -> BundleEntry<Value> {
    let text = |key: &str| resource[key].as_str().unwrap_or_default();
    let full_url = Some(format!("{base}/{}/{}", text("resourceType"), text("id")));
    BundleEntry { full_url, resource, search: BundleSearch { mode: "match" } }
}

/// Looks into the log's end on a blocking thread, a few at once; and whether there is more before it.
async fn look<T: Send + 'static>(
    app: &App,
    look: impl FnOnce(&[u8], &str) -> Result<T, LogError> + Send + 'static,
) -> Result<(T, bool), FhirError> {
    let journal = app.oversight.recorder.journal();
    let source = app.name.clone();
    walk(app, move |_feed| {
        let (text, is_more) = journal.end(LOG_BYTES_MAX)?;
        Ok((look(&text, &source)?, is_more))
    })
    .await?
}

/// Why somebody reads the log, as they say in [`REASON`].
fn reason(headers: &HeaderMap) -> Result<Option<String>, FhirError> {
    let Some(value) = headers.get(REASON) else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes()).unwrap_or_default().trim();
    let is_good = (1..=REASON_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
    is_good.then(|| Some(text.to_owned())).ok_or(FhirError::Reason)
}

/// `GET /fhir/AuditEvent`. It is noted before it is answered: where it can't be, nothing is shown.
pub(super) async fn events(
    State(app): State<Arc<App>>,
    Extension(ConnectInfo(peer)): Peer,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    answer(&app, found_events(&app, peer, &headers, &uri).await)
}

async fn found_events(
    app: &App,
    peer: SocketAddr,
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<Bundle<Value>, FhirError> {
    let (access, reason) = (app.access(headers, peer).await?, reason(headers)?);
    let search = LogSearch::parse(&pairs(uri)?)?;
    let (found, is_more) = look(app, move |text, source| audit::search(text, source, &search)).await?;
    if let Some(extent) = found.extent {
        app.oversight.recorder.read_log(&access.user, extent, reason).await?;
    }
    let base = base(app, headers);
    let link = links(&format!("{base}/AuditEvent"), uri, found.next);
    let mut entry: Vec<_> = found.events.into_iter().map(|event| matched(&base, event)).collect();
    if is_more {
        let text = "older entries are in the log's files alone: caregatectl audit fhir";
        let issue = json!([{ "severity": "warning", "code": "incomplete", "diagnostics": text }]);
        let resource = json!({ "resourceType": "OperationOutcome", "issue": issue });
        entry.push(BundleEntry { full_url: None, resource, search: BundleSearch { mode: "outcome" } });
    }
    Ok(Bundle { resource_type: "Bundle", kind: "searchset", total: found.total, link, entry })
}

/// `GET /fhir/AuditEvent/{id}`.
pub(super) async fn event(
    State(app): State<Arc<App>>,
    Extension(ConnectInfo(peer)): Peer,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    let event = async {
        let (access, reason) = (app.access(&headers, peer).await?, reason(&headers)?);
        let Path(id) = id.map_err(|_rejection| FhirError::NotHeld)?;
        let (found, _) = look(&app, move |text, source| audit::read(text, source, &id)).await?;
        let (event, extent) = found.ok_or(FhirError::NotHeld)?;
        app.oversight.recorder.read_log(&access.user, extent, reason).await?;
        Ok(event)
    };
    answer(&app, event.await)
}

fn grants(app: &App) -> Result<&Grants, FhirError> {
    app.oversight.grants.as_ref().ok_or(FhirError::NoLedger)
}

async fn found_grants(
    app: &App,
    wanted: Wanted,
    peer: SocketAddr,
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<Bundle<Value>, FhirError> {
    app.access(headers, peer).await?;
    let search = GrantSearch::parse(wanted.parameter().0, &pairs(uri)?)?;
    let page = grants(app)?.page(wanted, &search).await?;
    let base = base(app, headers);
    let link = links(&format!("{base}/{}", wanted.as_str()), uri, page.next);
    let entry = page.resources.into_iter().map(|resource| matched(&base, resource)).collect();
    Ok(Bundle { resource_type: "Bundle", kind: "searchset", total: page.total, link, entry })
}

async fn read_grant(
    app: &App,
    wanted: Wanted,
    peer: SocketAddr,
    headers: &HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Result<Value, FhirError> {
    app.access(headers, peer).await?;
    let Path(id) = id.map_err(|_rejection| FhirError::NotHeld)?;
    let id = relationship(&id).ok_or(FhirError::NotHeld)?;
    grants(app)?.read(wanted, id).await?.ok_or(FhirError::NotHeld)
}

/// `GET /fhir/Consent`.
pub(super) async fn consents(
    State(app): State<Arc<App>>,
    Extension(ConnectInfo(peer)): Peer,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    answer(&app, found_grants(&app, Wanted::Consent, peer, &headers, &uri).await)
}

/// `GET /fhir/Consent/{id}`.
pub(super) async fn consent(
    State(app): State<Arc<App>>,
    Extension(ConnectInfo(peer)): Peer,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    answer(&app, read_grant(&app, Wanted::Consent, peer, &headers, id).await)
}

/// `GET /fhir/Provenance`.
pub(super) async fn provenances(
    State(app): State<Arc<App>>,
    Extension(ConnectInfo(peer)): Peer,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    answer(&app, found_grants(&app, Wanted::Provenance, peer, &headers, &uri).await)
}

/// `GET /fhir/Provenance/{id}`.
pub(super) async fn provenance(
    State(app): State<Arc<App>>,
    Extension(ConnectInfo(peer)): Peer,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    answer(&app, read_grant(&app, Wanted::Provenance, peer, &headers, id).await)
}
