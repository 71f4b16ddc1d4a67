//! The desired state. Who changes it is answered when the switches follow, or when that takes too long.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use caregate_host::clock;
use caregate_host::identity::PeerId;
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::{error, info};

use super::problem::error as error_json;
use super::{App, CONFIRM_TIMEOUT, Problem, operator};
use crate::events::Kind;
use crate::intent::{self, DatapathId, Intent};
use crate::store::{Desired, Entry, StoreError};
use crate::switches::View;

/// How far one switch follows one intent.
fn follows(view: Option<&View>, name: &str, version: u64) -> (&'static str, Option<Value>) {
    match view {
        None => ("absent", None),
        Some(view)
            if view.version < version || view.confirmed.is_none_or(|confirmed| confirmed < version) =>
        {
            ("pending", None)
        }
        Some(view) => match view.refused.get(name) {
            Some(kind) => ("refused", Some(error_json(*kind))),
            None => ("confirmed", None),
        },
    }
}

fn states(
    views: &BTreeMap<DatapathId, Arc<View>>,
    switches: &BTreeSet<DatapathId>,
    name: &str,
    version: u64,
) -> Vec<Value> {
    let state = |switch: &DatapathId| {
        let (state, error) = follows(views.get(switch).map(AsRef::as_ref), name, version);
        let mut entry = json!({ "switch": switch, "state": state });
        if let Some(error) = error {
            entry["error"] = error;
        }
        entry
    };
    switches.iter().map(state).collect()
}

/// The switches that an intent concerns: the one that it names, or all that are there.
fn concerned(views: &BTreeMap<DatapathId, Arc<View>>, intent: &Intent) -> BTreeSet<DatapathId> {
    match intent.switch() {
        Some(switch) => [switch].into(),
        None => views.keys().copied().collect(),
    }
}

/// An intent as it is shown, with how far switches follow it.
#[must_use]
pub(crate) fn entry_json(views: &BTreeMap<DatapathId, Arc<View>>, name: &str, entry: &Entry) -> Value {
    let switches = concerned(views, &entry.intent);
    shown(name, Some(entry), states(views, &switches, name, entry.version))
}

fn shown(name: &str, entry: Option<&Entry>, switches: Vec<Value>) -> Value {
    let mut object = json!({ "name": name, "switches": switches });
    if let Some(entry) = entry {
        object["intent"] = json!(entry.intent);
        object["version"] = json!(entry.version);
        object["changed_ms"] = json!(entry.changed_ms);
    }
    object
}

pub(super) async fn list(State(app): State<App>) -> Response {
    let (views, desired) = (app.shared.lock().views(), app.store.desired());
    let intents: Vec<_> =
        desired.entries.iter().map(|(name, entry)| entry_json(&views, name, entry)).collect();
    super::json(StatusCode::OK, &json!({ "version": desired.version, "intents": intents }))
}

pub(super) async fn show(State(app): State<App>, Path(name): Path<String>) -> Result<Response, Problem> {
    let (views, desired) = (app.shared.lock().views(), app.store.desired());
    let entry = desired.entries.get(&name).ok_or_else(unknown)?;
    Ok(super::json(StatusCode::OK, &entry_json(&views, &name, entry)))
}

fn unknown() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is no intent of this name")
}

pub(super) async fn put(
    State(app): State<App>,
    peer: Option<Extension<PeerId>>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    intent::check_name(&name).map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error))?;
    let bad = |error| Problem::new(StatusCode::BAD_REQUEST, format!("body: {error}"));
    let wanted: Intent = serde_json::from_slice(&body).map_err(bad)?;
    let kind = wanted.kind();
    let (desired, before) = change(&app, &name, Some(wanted)).await?;
    let by = operator(peer.as_deref());
    info!(intent = name, kind, operator = by, version = desired.version, "an intent was set");
    app.shared.events.push(Kind::IntentSet, &name, format!("{kind}, by {by}"));
    let status = if before.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    let entry = desired.entries.get(&name);
    Ok(confirmed(&app, &name, &desired, (entry, before.as_ref()), status).await)
}

pub(super) async fn remove(
    State(app): State<App>,
    peer: Option<Extension<PeerId>>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let (desired, before) = change(&app, &name, None).await?;
    let before = before.ok_or_else(unknown)?;
    let by = operator(peer.as_deref());
    info!(intent = name, operator = by, version = desired.version, "an intent was taken away");
    app.shared.events.push(Kind::IntentRemoved, &name, format!("{}, by {by}", before.intent.kind()));
    Ok(confirmed(&app, &name, &desired, (None, Some(&before)), StatusCode::OK).await)
}

async fn change(
    app: &App,
    name: &str,
    wanted: Option<Intent>,
) -> Result<(Arc<Desired>, Option<Entry>), Problem> {
    let (store, name, now_ms) = (Arc::clone(&app.store), name.to_owned(), clock::now_ms());
    let change = move || match wanted {
        Some(intent) => store.put(&name, intent, now_ms),
        None => store.remove(&name),
    };
    // The disk must not hold up the sessions.
    let changed = tokio::task::spawn_blocking(change).await;
    let changed = changed.map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error))?;
    let (desired, before) = changed.map_err(|failed| match failed {
        StoreError::Intent(error) => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error),
        StoreError::Redb { .. } | StoreError::Content { .. } => {
            error!(%failed, "intents can't be stored");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, failed)
        }
    })?;
    app.shared.metrics.intents.set(i64::try_from(desired.entries.len()).unwrap_or(i64::MAX));
    Ok((desired, before))
}

/// Waits until the switches that the intent concerns, or did, follow; 202 where some don't in time.
async fn confirmed(
    app: &App,
    name: &str,
    desired: &Desired,
    (after, before): (Option<&Entry>, Option<&Entry>),
    status: StatusCode,
) -> Response {
    let mut found = app.shared.found.subscribe();
    let switches: BTreeSet<_> = {
        let views = app.shared.lock().views();
        [after, before].into_iter().flatten().flat_map(|entry| concerned(&views, &entry.intent)).collect()
    };
    let version = desired.version;
    let all = async {
        loop {
            let views = app.shared.lock().views();
            let is_settled = |switch| {
                let (state, _) = follows(views.get(switch).map(AsRef::as_ref), name, version);
                state == "confirmed" || state == "refused"
            };
            if switches.iter().all(is_settled) || found.changed().await.is_err() {
                return;
            }
        }
    };
    // What is missing then is in the answer.
    let _in_time = timeout(CONFIRM_TIMEOUT, all).await;
    let views = app.shared.lock().views();
    let states = states(&views, &switches, name, version);
    let is_whole = states.iter().all(|state| state["state"] == "confirmed");
    let status = if is_whole { status } else { StatusCode::ACCEPTED };
    super::json(status, &shown(name, after, states))
}
