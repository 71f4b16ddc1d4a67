//! Desired state: `quarantine`, `release`, `intents`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use caregate_protocol::policy::Mac;
use clap::{Args, Subcommand};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::switches::{datapath_id, read_json};
use super::{ControllerArgs, segment};
use crate::http::Answer;
use crate::outcome::{Done, Failure, Outcome};
use crate::table::table;

/// Drop whatever a device sends, at its switch
#[derive(Debug, Args)]
pub(crate) struct QuarantineArgs {
    #[command(flatten)]
    controller: ControllerArgs,
    /// The switch's datapath id: 16 hexadecimal digits
    #[arg(long, value_name = "DPID", value_parser = datapath_id)]
    switch: String,
    /// The device's MAC address
    #[arg(long)]
    mac: Mac,
    /// The intent's name [default: one made of switch and address]
    #[arg(long)]
    name: Option<String>,
}

/// End a device's quarantine
#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    controller: ControllerArgs,
    /// The switch's datapath id: 16 hexadecimal digits
    #[arg(long, value_name = "DPID", value_parser = datapath_id, requires = "mac", required_unless_present = "name")]
    switch: Option<String>,
    /// The device's MAC address
    #[arg(long, requires = "switch", required_unless_present = "name")]
    mac: Option<Mac>,
    /// The intent's name, where it was given one
    #[arg(long, conflicts_with_all = ["switch", "mac"])]
    name: Option<String>,
}

/// What operators want of switches: list, look at, set, take away
#[derive(Debug, Args)]
pub(crate) struct IntentsArgs {
    #[command(flatten)]
    controller: ControllerArgs,
    #[command(subcommand)]
    command: Option<IntentsCommand>,
}

#[derive(Debug, Subcommand)]
enum IntentsCommand {
    /// Show one
    Show {
        /// Its name
        name: String,
    },
    /// Set one: {"kind": "quarantine", "switch": DPID, "mac": MAC}, {"kind": "sensor-may-reach-gateway", …} or {"kind": "lane", "lane": "alarm", "dscp": 46, "queue": 1}
    Put {
        /// Its name
        name: String,
        /// File with the intent as JSON; - for standard input
        file: PathBuf,
    },
    /// Take one away
    Delete {
        /// Its name
        name: String,
    },
}

/// The name of a quarantine that was given none.
fn quarantine_name(switch: &str, mac: Mac) -> String {
    format!("quarantine-{switch}-{}", mac.to_string().replace(':', "-"))
}

pub(crate) async fn quarantine(arguments: QuarantineArgs) -> Outcome {
    let QuarantineArgs { controller, switch, mac, name } = arguments;
    let name = name.unwrap_or_else(|| quarantine_name(&switch, mac));
    let intent = json!({ "kind": "quarantine", "switch": switch, "mac": mac });
    set(&controller, &name, Some(&intent), &format!("{mac} is in quarantine at {switch}")).await
}

pub(crate) async fn release(arguments: ReleaseArgs) -> Outcome {
    let name = match (arguments.name, arguments.switch, arguments.mac) {
        (Some(name), ..) => name,
        (None, Some(switch), Some(mac)) => quarantine_name(&switch, mac),
        (None, ..) => return Err(anyhow!("give --switch and --mac, or --name").into()),
    };
    set(&arguments.controller, &name, None, &format!("{name} is released")).await
}

pub(crate) async fn intents(arguments: IntentsArgs) -> Outcome {
    let IntentsArgs { controller, command } = arguments;
    match command {
        None => list(&controller).await,
        Some(IntentsCommand::Show { name }) => {
            let answer = controller.read(&format!("/v1/intents/{}", segment(&name)?)).await?;
            Ok(Done::new(serde_json::to_string_pretty(&answer)?, answer))
        }
        Some(IntentsCommand::Put { name, file }) => put(&controller, &name, &file).await,
        Some(IntentsCommand::Delete { name }) => {
            set(&controller, &name, None, &format!("{name} is taken away")).await
        }
    }
}

async fn put(controller: &ControllerArgs, name: &str, file: &Path) -> Outcome {
    let intent = read_json(file)?;
    set(controller, name, Some(&intent), &format!("{name} is set")).await
}

async fn list(controller: &ControllerArgs) -> Outcome {
    let answer = controller.read("/v1/intents").await?;
    let mut rows = answer["intents"].as_array().cloned().unwrap_or_default();
    for row in &mut rows {
        let states = row["switches"].as_array().into_iter().flatten();
        let states: Vec<Value> = states
            .map(|state| format!("{}={}", plain(state, "switch"), plain(state, "state")).into())
            .collect();
        row["states"] = states.into();
    }
    let columns = [
        ("NAME", "/name"),
        ("KIND", "/intent/kind"),
        ("SWITCH", "/intent/switch"),
        ("MAC", "/intent/mac"),
        ("LANE", "/intent/lane"),
        ("STATES", "/states"),
    ];
    Ok(Done::new(table(&rows, &columns), answer))
}

fn plain<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or("-")
}

/// Sets an intent, or takes it away, and says how far switches follow.
async fn set(controller: &ControllerArgs, name: &str, intent: Option<&Value>, done: &str) -> Outcome {
    let path = format!("/v1/intents/{}", segment(name)?);
    let method = if intent.is_some() { Method::PUT } else { Method::DELETE };
    let answer = controller.send(method, &path, intent).await?;
    settled(&answer, done)
}

/// 202 says that not every switch follows: it refuses, is away, or takes its time. The intent holds all the same.
fn settled(answer: &Answer, done: &str) -> Outcome {
    let body: Value = serde_json::from_slice(&answer.body).context("the controller's answer is no JSON")?;
    if answer.status != StatusCode::ACCEPTED {
        return Ok(Done::new(done, body));
    }
    let states = body["switches"].as_array().cloned().unwrap_or_default();
    if let Some(refused) = states.iter().find(|state| state["state"] == "refused") {
        let reason = refused["error"]["code_name"].as_str().unwrap_or("refused");
        let text = format!("switch {} refuses it: {reason}", plain(refused, "switch"));
        return Err(Failure::refused(text, reason));
    }
    let missing: Vec<_> = states
        .iter()
        .filter(|state| state["state"] != "confirmed")
        .map(|state| format!("{} ({})", plain(state, "switch"), plain(state, "state")))
        .collect();
    Err(anyhow!("kept, but not confirmed by {}; the controller goes on", missing.join(", ")).into())
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;

    use super::*;

    fn answer(status: StatusCode, states: &Value) -> Answer {
        let body = json!({ "name": "x", "switches": states }).to_string().into();
        Answer { status, headers: HeaderMap::new(), body }
    }

    #[test]
    fn done_means_that_the_switches_follow() {
        let confirmed = json!([{ "switch": "a1", "state": "confirmed" }]);
        assert_eq!(settled(&answer(StatusCode::CREATED, &confirmed), "done").unwrap().text, "done");
        let away = json!([{ "switch": "a1", "state": "confirmed" }, { "switch": "a2", "state": "absent" }]);
        match settled(&answer(StatusCode::ACCEPTED, &away), "done").unwrap_err() {
            Failure::Failed(error) => assert!(error.to_string().contains("by a2 (absent);"), "{error}"),
            other @ (Failure::Refused { .. } | Failure::Faulty { .. }) => panic!("{other:?}"),
        }
        let error = json!({ "code_name": "OFPFMFC_TABLE_FULL" });
        let full = json!([{ "switch": "a1", "state": "refused", "error": error }]);
        match settled(&answer(StatusCode::ACCEPTED, &full), "done").unwrap_err() {
            Failure::Refused { reason, .. } => assert_eq!(reason, "OFPFMFC_TABLE_FULL"),
            other @ (Failure::Failed(_) | Failure::Faulty { .. }) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_quarantine_is_named_by_switch_and_address() {
        let name = quarantine_name("00000000000000a1", Mac([2, 0, 0, 0, 0, 1]));
        assert_eq!(name, "quarantine-00000000000000a1-02-00-00-00-00-01");
        assert!(name.len() <= 64 && segment(&name).is_ok());
    }
}
