//! The operators' page: what the interface shows, to be looked at only. It has a listener of its own, on loopback, because it has
//! no login; whoever wants to see it from afar brings a tunnel or a proxy that has one.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use caregate_host::clock;
use caregate_protocol::openflow::Instruction;
use serde_json::{Value, json};

use crate::intent::{DatapathId, Intent};
use crate::policy::Policy;
use crate::rest::{self, App};
use crate::switches::View;

/// Connections at once: some browsers, six each.
pub const CONNECTIONS_MAX: usize = 32;
/// Events on the page.
const EVENTS_SHOWN: usize = 100;

const PAGE: &str = include_str!("dashboard/index.html");
const SCRIPT: &str = include_str!("dashboard/app.js");
const STYLE: &str = include_str!("dashboard/style.css");
const ICON: &str = include_str!("dashboard/icon.svg");

/// Nothing from elsewhere, nothing inline, nobody may frame it.
const SECURITY_HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
];

/// All routes.
pub fn router(app: App) -> Router {
    let file =
        |kind: &'static str, text: &'static str| get(async move || ([(header::CONTENT_TYPE, kind)], text));
    Router::new()
        .route("/", file("text/html; charset=utf-8", PAGE))
        .route("/app.js", file("text/javascript; charset=utf-8", SCRIPT))
        .route("/style.css", file("text/css; charset=utf-8", STYLE))
        .route("/icon.svg", file("image/svg+xml", ICON))
        .route("/api/state", get(state))
        .route("/api/switches/{dpid}", get(switch))
        .layer(map_response(secured))
        .with_state(app)
}

async fn secured(mut response: Response) -> Response {
    for (name, value) in SECURITY_HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn json_answer(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

/// Frames that own flows without actions took: what quarantines dropped.
fn dropped(view: &View) -> u64 {
    let drops = |flow: &&caregate_protocol::openflow::multipart::FlowStats| {
        flow.instructions.iter().all(
            |instruction| matches!(instruction, Instruction::ApplyActions(actions) if actions.is_empty()),
        )
    };
    view.flows.kept.iter().filter(drops).fold(0, |sum, flow| sum.saturating_add(flow.packets))
}

async fn state(State(app): State<App>) -> Response {
    let (listed, views) = {
        let switches = app.shared.lock();
        (switches.list(), switches.views())
    };
    let desired = app.store.desired();
    let switches: Vec<_> = listed
        .iter()
        .map(|listed| {
            let mut entry = json!(listed);
            let view = listed.datapath_id.parse::<DatapathId>().ok().and_then(|id| views.get(&id));
            entry["dropped_packets"] = json!(view.map_or(0, |view| dropped(view)));
            entry
        })
        .collect();
    let quarantines =
        desired.intents().filter(|(_, intent)| matches!(intent, Intent::Quarantine { .. })).count();
    let intents: Vec<_> =
        desired.entries.iter().map(|(name, entry)| rest::intent_json(&views, name, entry)).collect();
    let mut events = app.shared.events.after(0);
    let shown = events.split_off(events.len().saturating_sub(EVENTS_SHOWN));
    let policy = app.policy.as_ref().map(Policy::shown);
    json_answer(&json!({
        "now_ms": clock::now_ms(),
        "release": env!("CARGO_PKG_VERSION"),
        "switches": switches,
        "intents": intents,
        "quarantines": quarantines,
        "policy": policy,
        "events": shown,
    }))
}

async fn switch(State(app): State<App>, Path(dpid): Path<String>) -> Response {
    let found: Option<(DatapathId, Arc<View>)> = dpid.parse().ok().and_then(|id| {
        let view = app.shared.lock().view(id)?;
        Some((id, view))
    });
    match found {
        Some((id, view)) => json_answer(&rest::switch_json(id, &view, &app.store.desired())),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
