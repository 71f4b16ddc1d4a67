//! Switches and what they hold, an expert's rule, and the last events.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use hyper::Method;
use serde_json::{Value, json};

use super::ControllerArgs;
use crate::args::utc;
use crate::outcome::{Done, Outcome};

/// Largest rule or intent: what the controller takes.
const FILE_BYTES_MAX: u64 = 16 * 1024;
/// Pause between two looks for events.
const FOLLOW_POLL: Duration = Duration::from_millis(500);

pub(super) fn datapath_id(text: &str) -> Result<String, String> {
    let good = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    good.then(|| text.to_ascii_lowercase())
        .ok_or_else(|| "a datapath id has 16 hexadecimal digits".to_owned())
}

/// One switch.
#[derive(Debug, Args)]
pub(crate) struct SwitchArgs {
    #[command(flatten)]
    controller: ControllerArgs,
    /// The switch's datapath id: 16 hexadecimal digits
    #[arg(value_name = "DPID", value_parser = datapath_id)]
    switch: String,
}

/// Write one rule as it is, for experts
///
/// {"table": 1, "priority": 9, "match": {"eth_src": "02:00:00:00:00:01"}, "actions": [{"output": "LOCAL"}]}; fields have OpenFlow's
/// names. The switch's own error comes back, and the status is 3.
#[derive(Debug, Args)]
pub(crate) struct FlowModArgs {
    #[command(flatten)]
    switch: SwitchArgs,
    /// File with the rule as JSON; - for standard input
    #[arg(value_name = "FILE")]
    rule: PathBuf,
}

/// Show the controller's last events
///
/// With --json and --follow each event is one line.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    #[command(flatten)]
    controller: ControllerArgs,
    /// Only those after this number
    #[arg(long, value_name = "N", default_value_t = 0)]
    after: u64,
    /// Go on with new events until interrupted
    #[arg(long)]
    follow: bool,
}

/// Hand a signed revocation to the controller, which relays it to the ledger and to the gateways
#[derive(Debug, Args)]
pub(crate) struct RevocationArgs {
    #[command(flatten)]
    controller: ControllerArgs,
    /// File that `wallet sign-revocation --format json` wrote; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn read_json(path: &Path) -> anyhow::Result<Value> {
    let name = || path.display().to_string();
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).with_context(name)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)
    };
    if read.with_context(name)? as u64 > FILE_BYTES_MAX {
        anyhow::bail!("{}: longer than {FILE_BYTES_MAX} bytes", path.display());
    }
    serde_json::from_str(&text).with_context(name)
}

pub(crate) async fn switches(controller: &ControllerArgs) -> Outcome {
    let columns = [
        ("SWITCH", "/datapath_id"),
        ("PEER", "/peer"),
        ("FLOWS", "/flows"),
        ("PORTS", "/ports"),
        ("INTENTS", "/reconcile/state"),
        ("ECHO_US", "/last_echo_rtt_us"),
    ];
    controller.list("/v1/switches", "switches", &columns).await
}

pub(crate) async fn flows(arguments: SwitchArgs) -> Outcome {
    let columns = [
        ("TABLE", "/table"),
        ("PRIORITY", "/priority"),
        ("MATCH", "/match"),
        ("ACTIONS", "/actions"),
        ("INTENT", "/intent"),
        ("PACKETS", "/packets"),
        ("BYTES", "/bytes"),
    ];
    let path = format!("/v1/switches/{}/flows", arguments.switch);
    arguments.controller.list(&path, "flows", &columns).await
}

pub(crate) async fn ports(arguments: SwitchArgs) -> Outcome {
    let columns = [
        ("PORT", "/port"),
        ("NAME", "/name"),
        ("MAC", "/mac"),
        ("UP", "/up"),
        ("RX_PACKETS", "/rx_packets"),
        ("RX_DROPPED", "/rx_dropped"),
        ("TX_PACKETS", "/tx_packets"),
        ("TX_DROPPED", "/tx_dropped"),
    ];
    let path = format!("/v1/switches/{}/ports", arguments.switch);
    arguments.controller.list(&path, "ports", &columns).await
}

pub(crate) async fn tables(arguments: SwitchArgs) -> Outcome {
    let columns =
        [("TABLE", "/table"), ("ACTIVE", "/active"), ("LOOKUPS", "/lookups"), ("MATCHED", "/matched")];
    let path = format!("/v1/switches/{}/tables", arguments.switch);
    arguments.controller.list(&path, "tables", &columns).await
}

pub(crate) async fn flow_mod(arguments: FlowModArgs) -> Outcome {
    let SwitchArgs { controller, switch } = arguments.switch;
    let rule = read_json(&arguments.rule)?;
    let path = format!("/v1/switches/{switch}/flow-mods");
    let answer = controller.send(Method::POST, &path, Some(&rule)).await?;
    Ok(Done::new(format!("{switch} has taken the rule"), answer.json()))
}

pub(crate) async fn events(arguments: EventsArgs, as_json: bool) -> Outcome {
    let mut after = arguments.after;
    loop {
        let answer = arguments.controller.read(&format!("/v1/events?after={after}")).await?;
        let events = answer["events"].as_array().cloned().unwrap_or_default();
        after = events.iter().filter_map(|event| event["number"].as_u64()).max().unwrap_or(after);
        if !arguments.follow {
            let text = events.iter().map(sentence).collect::<Vec<_>>().join("\n");
            return Ok(Done::new(text, answer));
        }
        for event in &events {
            let line = if as_json { event.to_string() } else { sentence(event) };
            writeln!(std::io::stdout().lock(), "{line}")?;
        }
        tokio::select! {
            () = tokio::time::sleep(FOLLOW_POLL) => {}
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                return Ok(Done::new(format!("up to event {after}"), json!({ "after": after })));
            }
        }
    }
}

fn sentence(event: &Value) -> String {
    let text = |key: &str| {
        event[key].as_str().unwrap_or("-").chars().filter(|c| !c.is_control()).collect::<String>()
    };
    let at = event["at_ms"].as_i64().and_then(|ms| u64::try_from(ms.div_euclid(1000)).ok()).map(utc);
    format!("{} {} {}: {}", at.unwrap_or_default(), text("kind"), text("subject"), text("detail"))
}

pub(crate) async fn revocation(arguments: RevocationArgs) -> Outcome {
    let signed = read_json(&arguments.file)?;
    let answer = arguments.controller.send(Method::POST, "/v1/revocations", Some(&signed)).await?.json();
    let text = format!("handed to {} gateways, and queued for the ledger", answer["gateways"]);
    Ok(Done::new(text, answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datapath_ids_have_sixteen_digits() {
        assert_eq!(datapath_id("00000000000000A1").unwrap(), "00000000000000a1");
        for text in ["", "a1", "00000000000000g1", "0x000000000000a1", "000000000000000a1"] {
            assert!(datapath_id(text).is_err(), "{text}");
        }
    }

    #[test]
    fn files_are_bounded_json() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rule.json");
        std::fs::write(&path, r#"{"table": 1}"#).unwrap();
        assert_eq!(read_json(&path).unwrap(), json!({ "table": 1 }));
        std::fs::write(&path, "{").unwrap();
        assert!(format!("{:#}", read_json(&path).unwrap_err()).contains("rule.json"));
        std::fs::write(&path, " ".repeat(usize::try_from(FILE_BYTES_MAX).unwrap() + 1)).unwrap();
        assert!(read_json(&path).unwrap_err().to_string().contains("longer than"));
    }
}
