//! `GET /switches` on the operator's port.

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;

use crate::connection::Shared;
use crate::switches::Listed;

/// What `/switches` answers.
#[derive(Debug, Serialize)]
struct Answer {
    /// By datapath id.
    switches: Vec<Listed>,
}

/// The route, to be served beside `/metrics`.
pub fn router(shared: Shared) -> Router {
    Router::new().route("/switches", get(move || std::future::ready(switches(&shared))))
}

fn switches(shared: &Shared) -> Response {
    let answer = Answer { switches: shared.lock().list() };
    match serde_json::to_vec(&answer) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
