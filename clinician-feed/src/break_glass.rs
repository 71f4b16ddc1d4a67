//! `POST /api/emergency`: break-glass by who is logged in.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use caregate_host::clock;
use tracing::info;

use crate::emergency::{Checked, EmergencyError, Opened, Request};
use crate::offer::PolicyError;
use crate::server::{App, Peer, asked, problem};

/// The route.
pub(crate) async fn open(
    State(app): State<Arc<App>>,
    Extension(ConnectInfo(peer)): Peer,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let (access, request) = match asked::<Request>(&app, peer, &headers, body).await {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    let metrics = app.metrics.clone();
    // Runs to its end also when the request is dropped: what was sent is noted.
    let opening = tokio::spawn(async move { try_open(&app, &access.user, request).await });
    let opened = match opening.await {
        Ok(opened) => opened,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    };
    let outcome = opened.as_ref().map_or_else(EmergencyError::reason, |_| "opened");
    metrics.emergencies.with_label_values(&[outcome]).inc();
    match opened {
        Ok(Opened { number, from, until, block }) => {
            info!(?block, "an emergency is open");
            let answer = serde_json::json!({"number": number, "from": from, "until": until, "block": block});
            Json(answer).into_response()
        }
        Err(error) => problem(status(&error), error),
    }
}

async fn try_open(app: &App, user: &str, request: Request) -> Result<Opened, EmergencyError> {
    let break_glass = app.oversight.break_glass.as_ref().ok_or(EmergencyError::NoKey)?;
    let gateway = request.gateway.clone();
    let checked = Checked::try_from(request)?;
    if let Some(gateway) = gateway {
        let offerer = app.offerer.as_ref().ok_or(PolicyError::NoCore)?;
        let (now_ms, recorder) = (clock::now_ms(), &app.oversight.recorder);
        return break_glass.open_at(user, &checked, now_ms, recorder, (offerer, &gateway)).await;
    }
    break_glass.open(user, &checked, clock::now_ms(), &app.oversight.recorder).await
}

fn status(error: &EmergencyError) -> StatusCode {
    match error {
        EmergencyError::Invalid { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        EmergencyError::NoKey => StatusCode::NOT_FOUND,
        EmergencyError::Refused(_) | EmergencyError::GatewayRefused(_) => StatusCode::CONFLICT,
        EmergencyError::Gateway(error) => error.status(),
        EmergencyError::Random => StatusCode::INTERNAL_SERVER_ERROR,
        EmergencyError::Journal(_) | EmergencyError::Unreachable(_) => StatusCode::SERVICE_UNAVAILABLE,
        EmergencyError::Unknown(_) => StatusCode::GATEWAY_TIMEOUT,
    }
}
