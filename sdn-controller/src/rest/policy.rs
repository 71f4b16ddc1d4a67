//! Policy connections, revocations, and the last events.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use caregate_host::identity::PeerId;
use caregate_protocol::policy::delivery::Anchor;
use caregate_protocol::policy::{EcdsaSignature, RelationshipId, Revocation, SignedRevocation};
use ledger_client::verify::Address;
use serde::Deserialize;
use serde_json::json;
use tracing::info;

use super::{App, Problem, operator};
use crate::policy::{Policy, RelayError};

fn none() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "policy delivery is not configured")
}

pub(super) async fn gateways(State(app): State<App>) -> Response {
    let policy = app.policy.as_ref().map(Policy::shown);
    super::json(StatusCode::OK, &policy.unwrap_or_else(|| json!({ "gateways": [], "ledger": null })))
}

pub(super) async fn bundle(State(app): State<App>, Path(name): Path<String>) -> Result<Response, Problem> {
    let policy = app.policy.as_ref().ok_or_else(none)?;
    let missing = || Problem::new(StatusCode::NOT_FOUND, "no bundle was sent to a gateway of this name");
    let bundle = policy.last_bundle(&name).ok_or_else(missing)?;
    Ok(([(header::CONTENT_TYPE, "application/cbor")], bundle.to_vec()).into_response())
}

/// A revocation as a wallet hands it over.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RevocationFile {
    relationship: RelationshipId,
    version: u64,
    signature: EcdsaSignature,
    /// The relationship's key that did not sign.
    other_key: Address,
}

pub(super) async fn revoke(
    State(app): State<App>,
    peer: Option<Extension<PeerId>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    let policy = app.policy.as_ref().ok_or_else(none)?;
    let bad = |error| Problem::new(StatusCode::BAD_REQUEST, format!("body: {error}"));
    let file: RevocationFile = serde_json::from_slice(&body).map_err(bad)?;
    let revocation = Revocation { relationship: file.relationship, version: file.version };
    let revocation = SignedRevocation { revocation, signature: file.signature };
    let anchor = Anchor { revocation, other_key: file.other_key.0 };
    let relayed = policy.relay(anchor).await.map_err(|error| match error {
        RelayError::Signature => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error),
        RelayError::Store => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error),
        RelayError::Busy => Problem::new(StatusCode::SERVICE_UNAVAILABLE, error),
    })?;
    info!(operator = operator(peer.as_deref()), gateways = relayed, "a revocation was relayed");
    Ok(super::json(StatusCode::ACCEPTED, &json!({ "gateways": relayed, "ledger": "queued" })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct After {
    #[serde(default)]
    after: u64,
}

pub(super) async fn events(
    State(app): State<App>,
    query: Result<Query<After>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(After { after }) =
        query.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    Ok(super::json(StatusCode::OK, &json!({ "events": app.shared.events.after(after) })))
}
