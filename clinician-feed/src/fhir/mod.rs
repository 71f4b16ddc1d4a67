//! FHIR R4 (4.0.1): the readings that are held, as Observations.

use std::sync::Arc;

use axum::Router;

use crate::server::App;

/// The routes below `/fhir`.
pub fn router() -> Router<Arc<App>> {
    Router::new()
}
