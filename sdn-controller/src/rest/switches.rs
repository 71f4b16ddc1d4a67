//! What switches are and hold, and an expert's rule for one.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use caregate_host::identity::PeerId;
use caregate_protocol::openflow::{FlowMod, port};
use caregate_protocol::policy::Mac;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::info;

use super::{App, CONFIRM_TIMEOUT, Problem, operator};
use crate::connection::{Request, Shared};
use crate::events::Kind;
use crate::exchange::{Answer, Census};
use crate::flow_json::{self, FlowModFile};
use crate::intent::DatapathId;
use crate::rule;
use crate::store::Desired;
use crate::switches::View;

pub(super) async fn list(State(app): State<App>) -> Response {
    let switches = app.shared.lock().list();
    super::json(StatusCode::OK, &json!({ "switches": switches }))
}

fn datapath_id(text: &str) -> Result<DatapathId, Problem> {
    text.parse()
        .map_err(|_source| Problem::new(StatusCode::BAD_REQUEST, "a datapath id has 16 hexadecimal digits"))
}

async fn ask(
    shared: &Shared,
    switch: DatapathId,
    request: impl FnOnce(oneshot::Sender<Answer>) -> Request,
) -> Result<(), Problem> {
    let absent = || Problem::new(StatusCode::NOT_FOUND, format!("switch {switch} is not connected"));
    let late = |_elapsed| Problem::new(StatusCode::GATEWAY_TIMEOUT, "the switch does not answer in time");
    let requests = shared.lock().requests(switch).ok_or_else(absent)?;
    let (answer_out, answer) = oneshot::channel();
    let asked = async {
        requests.send(request(answer_out)).await.ok()?;
        answer.await.ok()
    };
    match timeout(CONFIRM_TIMEOUT + std::time::Duration::from_secs(1), asked).await.map_err(late)? {
        Some(Answer::Done) => Ok(()),
        Some(Answer::Refused(kind)) => Err(Problem::of_switch(kind)),
        Some(Answer::TimedOut) => {
            Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "the switch does not answer in time"))
        }
        Some(Answer::Busy) => {
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too much is asked of this switch at once"))
        }
        None => Err(Problem::new(StatusCode::BAD_GATEWAY, "the switch went away")),
    }
}

/// What the switch holds now.
async fn read(app: &App, dpid: &str) -> Result<(DatapathId, Arc<View>), Problem> {
    let switch = datapath_id(dpid)?;
    ask(&app.shared, switch, Request::Read).await?;
    let gone = || Problem::new(StatusCode::BAD_GATEWAY, "the switch went away");
    let view = app.shared.lock().view(switch).ok_or_else(gone)?;
    Ok((switch, view))
}

pub(super) async fn flows(State(app): State<App>, Path(dpid): Path<String>) -> Result<Response, Problem> {
    let (switch, view) = read(&app, &dpid).await?;
    Ok(super::json(StatusCode::OK, &flows_json(switch, &view, &app.store.desired())))
}

pub(super) async fn ports(State(app): State<App>, Path(dpid): Path<String>) -> Result<Response, Problem> {
    let (switch, view) = read(&app, &dpid).await?;
    let ports = ports_json(&view.census);
    Ok(super::json(StatusCode::OK, &json!({ "switch": switch, "at_ms": view.at_ms, "ports": ports })))
}

pub(super) async fn tables(State(app): State<App>, Path(dpid): Path<String>) -> Result<Response, Problem> {
    let (switch, view) = read(&app, &dpid).await?;
    let tables = tables_json(&view.census);
    Ok(super::json(StatusCode::OK, &json!({ "switch": switch, "at_ms": view.at_ms, "tables": tables })))
}

/// Flows, ports and tables together, as the page shows them.
#[must_use]
pub(crate) fn switch_json(switch: DatapathId, view: &View, desired: &Desired) -> Value {
    let mut object = flows_json(switch, view, desired);
    object["ports"] = json!(ports_json(&view.census));
    object["tables"] = json!(tables_json(&view.census));
    object
}

/// Flows by table and priority, highest first, with the intents that own ones are of.
fn flows_json(switch: DatapathId, view: &View, desired: &Desired) -> Value {
    let names: BTreeMap<u64, &str> =
        desired.entries.keys().map(|name| (rule::cookie(name), name.as_str())).collect();
    let mut kept: Vec<_> = view.flows.kept.iter().collect();
    kept.sort_by_key(|flow| (flow.table_id, std::cmp::Reverse(flow.priority)));
    let flows: Vec<_> =
        kept.into_iter().map(|flow| flow_json::flow(flow, names.get(&flow.cookie).copied())).collect();
    json!({ "switch": switch, "at_ms": view.at_ms, "total": view.flows.total, "flows": flows })
}

/// Ports with their counters.
fn ports_json(census: &Census) -> Vec<Value> {
    let stats: BTreeMap<_, _> = census.port_stats.iter().map(|stats| (stats.port, stats)).collect();
    let entry = |described: &caregate_protocol::openflow::Port| {
        let mut entry = json!({
            "port": if described.number == port::LOCAL { json!("LOCAL") } else { json!(described.number) },
            "name": described.name.as_str(),
            "mac": Mac(described.hw_addr).to_string(),
            "up": (described.config & port::config::PORT_DOWN) == 0
                && (described.state & port::state::LINK_DOWN) == 0,
        });
        if let Some(stats) = stats.get(&described.number) {
            let counters = &stats.counters;
            for (key, value) in [
                ("rx_packets", counters.rx_packets),
                ("tx_packets", counters.tx_packets),
                ("rx_bytes", counters.rx_bytes),
                ("tx_bytes", counters.tx_bytes),
                ("rx_dropped", counters.rx_dropped),
                ("tx_dropped", counters.tx_dropped),
                ("rx_errors", counters.rx_errors),
                ("tx_errors", counters.tx_errors),
            ] {
                // All ones: not counted (§7.3.5.6).
                entry[key] = if value == u64::MAX { Value::Null } else { json!(value) };
            }
        }
        entry
    };
    census.ports.iter().map(entry).collect()
}

/// Tables that hold flows or were looked up.
fn tables_json(census: &Census) -> Vec<Value> {
    let entry = |table: &caregate_protocol::openflow::multipart::TableStats| {
        json!({
            "table": table.table_id,
            "active": table.active,
            "lookups": table.lookups,
            "matched": table.matched,
        })
    };
    census.tables.iter().map(entry).collect()
}

pub(super) async fn flow_mod(
    State(app): State<App>,
    peer: Option<Extension<PeerId>>,
    Path(dpid): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let switch = datapath_id(&dpid)?;
    let body = body.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    let bad = |error: &dyn std::fmt::Display| Problem::new(StatusCode::BAD_REQUEST, format!("body: {error}"));
    let file: FlowModFile = serde_json::from_slice(&body).map_err(|error| bad(&error))?;
    let flow_mod = FlowMod::try_from(file).map_err(|error| bad(&error))?;
    let what = format!("{:?} in table {}: {}", flow_mod.command, flow_mod.table_id, flow_mod.pattern);
    let asked = ask(&app.shared, switch, |answer| Request::Write(Box::new(flow_mod), answer)).await;
    let by = operator(peer.as_deref());
    match asked {
        Ok(()) => {
            info!(%switch, operator = by, what, "a rule was written");
            app.shared.events.push(Kind::RuleWritten, switch, format!("{by}: {what}"));
            Ok(super::json(StatusCode::OK, &json!({ "switch": switch, "applied": true })))
        }
        Err(problem) => {
            info!(%switch, operator = by, what, "a rule was not written");
            app.shared.events.push(Kind::RuleRefused, switch, format!("{by}: {what}: {}", problem.detail()));
            Err(problem)
        }
    }
}
