//! The operator's port: `/metrics` (Prometheus text 0.0.4), `/healthz` (the process answers), `/readyz` (it can do its work).
//!
//! It carries no reading, key or pseudonym, and needs no login; it belongs on loopback or a management network.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::http::{self, Options};
use crate::process::Process;

/// Scrapers, load balancers and a person or two at once.
const CONNECTIONS_MAX: usize = 32;

/// A fresh registry that already collects the process's own figures (resident bytes, descriptors, threads, CPU, start).
///
/// # Errors
/// Never in practice: the names are constant and the registry is empty.
pub fn registry() -> Result<Registry, prometheus::Error> {
    let registry = Registry::new();
    registry.register(Box::new(Process::new()?))?;
    Ok(registry)
}

/// What must hold before a daemon is ready: named conditions, all of them false at first.
#[derive(Debug, Clone, Default)]
pub struct Health {
    conditions: Arc<Mutex<Vec<Condition>>>,
}

/// One named condition of a daemon's readiness. Clones share the state.
#[derive(Debug, Clone)]
pub struct Condition {
    name: &'static str,
    holds: Arc<AtomicBool>,
}

impl Condition {
    /// Says whether the condition holds now; a change is logged.
    pub fn set(&self, holds: bool) {
        if self.holds.swap(holds, Ordering::Relaxed) != holds {
            tracing::info!(condition = self.name, holds, "readiness changed");
        }
    }

    /// Whether it holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.holds.load(Ordering::Relaxed)
    }
}

impl Health {
    /// No condition yet: ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition that does not hold yet; with a name that is there already, that one.
    #[must_use]
    pub fn condition(&self, name: &'static str) -> Condition {
        let mut conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(condition) = conditions.iter().find(|condition| condition.name == name) {
            return condition.clone();
        }
        let condition = Condition { name, holds: Arc::default() };
        conditions.push(condition.clone());
        condition
    }

    /// The conditions that do not hold, in the order in which they were added.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        conditions.iter().filter(|condition| !condition.holds()).map(|condition| condition.name).collect()
    }
}

/// The three routes, for daemons that serve them together with other pages.
pub fn router(registry: Registry, health: Health) -> Router {
    Router::new()
        .route("/metrics", get(move || std::future::ready(metrics(&registry))))
        .route("/healthz", get(|| std::future::ready("ok\n")))
        .route("/readyz", get(move || std::future::ready(readiness(&health))))
}

/// Serves the three routes and `extra` until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    health: Health,
    extra: Router,
    shutdown: CancellationToken,
) {
    let options = Options { connections_max: CONNECTIONS_MAX, tls: None };
    http::serve(listener, router(registry, health).merge(extra), options, shutdown).await;
}

fn metrics(registry: &Registry) -> Response {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn readiness(health: &Health) -> Response {
    let missing = health.missing();
    match missing.is_empty() {
        true => "ready\n".into_response(),
        false => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", missing.join(", "))).into_response()
        }
    }
}

#[cfg(test)]
mod tests;
