//! What happens on the wire: the flood, the quarantine, and what the controller may not do. It needs XDP, and so root.

use std::time::Duration;

use anyhow::{Context, bail};
use caregate_host::clock;
use serde::Deserialize;
use serde_json::json;

use super::control::PAGE_TIMEOUT;
use super::{Seen as StorySeen, pause};
use crate::demo::deployment::DATAPATH_ID;
use crate::demo::network::{HOME_PORT, Place, SPARE_PORT, mac};
use crate::demo::pages::Pages;
use crate::demo::process::get;
use crate::demo::system::{Daemon, System};
use crate::say;

/// What a story without root can't show.
pub(super) const NEEDS_ROOT: &[&str] = &[
    "an unknown device's flood dropped in XDP",
    "a sensor quarantined in XDP and released",
    "a mirror and a write to table 0 refused by the gateway's switch",
];
/// How long each of the two floods lasts.
const FLOOD_SECONDS: u64 = 5;
/// Frames a second that the flood is to send; what it sent is measured.
const FLOOD_PPS: &str = "250000";
/// How long a sensor stays in quarantine: several of its readings are due in it.
const QUARANTINE: Duration = Duration::from_secs(2);

/// A PUBACK that comes within this time (milliseconds) waited for nothing but the way and the disk.
const CAUGHT_UP_MS: f64 = 100.0;

/// What was seen on the wire.
#[derive(Debug, Default)]
pub(in crate::demo) struct Seen {
    pub(in crate::demo) xdp_mode: Option<String>,
    pub(in crate::demo) xdp_dropped: f64,
    pub(in crate::demo) flood_pps: f64,
    /// Readings acknowledged a second under the flood, by those while the same generator floods an unrelated wire.
    pub(in crate::demo) acked_ratio: Option<f64>,
    pub(in crate::demo) quarantine_ms: Option<f64>,
    /// Its frames were dropped, and none passed.
    pub(in crate::demo) quarantined: bool,
    pub(in crate::demo) released: bool,
    pub(in crate::demo) mirror_refused: bool,
    pub(in crate::demo) table0_refused: bool,
    /// Lanes whose packets a rule has marked (DSCP).
    pub(in crate::demo) lanes_marked: usize,
}

/// What `flood` says.
#[derive(Debug, Deserialize)]
struct Flooded {
    pps: f64,
}

#[derive(Debug, Deserialize)]
struct JournalLine {
    device: String,
    stream: String,
    seq: u64,
    published_ms: Option<f64>,
    acked_ms: Option<f64>,
}

pub(super) fn play(system: &mut System<'_>, pages: &mut Pages, seen: &mut StorySeen) -> anyhow::Result<()> {
    let wire = &mut seen.control.wire;
    wire.xdp_mode = Some(mode(system)?);
    flood(system, pages, wire)?;
    let from_ms = clock::now_ms();
    quarantine(system, pages, wire)?;
    // What its sensor could not send meanwhile comes late by order, not by the way.
    seen.exclude.push((from_ms, clock::now_ms()));
    refused(system, &mut seen.control.wire)?;
    seen.control.wire.lanes_marked = lanes_marked(system)?;
    Ok(())
}

/// How many of the rules that mark lanes have met packets.
fn lanes_marked(system: &System<'_>) -> anyhow::Result<usize> {
    let answer = system.operator(&["flows"], &[DATAPATH_ID])?.done()?;
    let flows = answer["flows"].as_array().with_context(|| format!("no flows in {answer}"))?;
    let marked = flows.iter().filter(|flow| {
        flow["actions"].to_string().contains("ip_dscp") && flow["packets"].as_u64().is_some_and(|n| n > 0)
    });
    Ok(marked.count())
}

/// A sum over a metric's labels that hold `with`.
fn sum(system: &System<'_>, name: &str, with: &str) -> anyhow::Result<f64> {
    let (_, body) = get(system.admin(Daemon::Gateway)?, "/metrics")?;
    let values = body.lines().filter_map(|line| {
        let (labels, value) = line.strip_prefix(name)?.split_once("} ")?;
        labels.contains(with).then(|| value.parse::<f64>().ok())?
    });
    Ok(values.sum())
}

fn mode(system: &System<'_>) -> anyhow::Result<String> {
    let (_, body) = get(system.admin(Daemon::Gateway)?, "/metrics")?;
    for mode in ["native", "generic"] {
        let on = |line: &str| {
            line.starts_with("caregate_gateway_datapath_port_mode")
                && line.contains(&format!("mode=\"{mode}\""))
                && line.ends_with(" 1")
        };
        if body.lines().any(on) {
            return Ok(mode.to_owned());
        }
    }
    bail!("the gateway says no XDP mode")
}

/// Step 1: an unknown device floods the sensor port; readings go on.
fn flood(system: &mut System<'_>, pages: &mut Pages, seen: &mut Seen) -> anyhow::Result<()> {
    say(&format!("story: an unrelated wire is flooded for {FLOOD_SECONDS} s, to compare with"));
    let (aside, _) = flooded(system, SPARE_PORT)?;
    let dropped =
        |system: &System<'_>| sum(system, "caregate_gateway_datapath_verdicts_total{", "unbound_source");
    let before = dropped(system)?;
    say(&format!("story: an unknown device floods the sensors' wire for {FLOOD_SECONDS} s"));
    let (under, pps) = flooded(system, HOME_PORT)?;
    // The helper's counters are read every second.
    pause(system, Duration::from_millis(1500))?;
    seen.xdp_dropped = dropped(system)? - before;
    seen.flood_pps = pps;
    seen.acked_ratio = (aside > 0).then(|| under as f64 / aside as f64);
    // No other port of the demo counts in millions.
    pages.expect("dashboard", r"[1-9],\d{3},\d{3}", PAGE_TIMEOUT)
}

/// Floods an interface; answers with the readings acknowledged meanwhile, and the frames a second that were sent.
fn flooded(system: &mut System<'_>, interface: &str) -> anyhow::Result<(usize, f64)> {
    let (from_ms, log) = (clock::now_ms(), system.file("logs/flood.log"));
    let arguments =
        ["--interface", interface, "--pps", FLOOD_PPS, "--seconds", &FLOOD_SECONDS.to_string(), "--json"];
    let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
    let mut tool = system.tool("flood", "flood", Some(Place::Home), arguments)?;
    while tool.ended()?.is_none() {
        pause(system, Duration::from_millis(50))?;
    }
    let to_ms = clock::now_ms();
    let text = std::fs::read_to_string(&log).with_context(|| log.display().to_string())?;
    let said = text.lines().rev().find_map(|line| serde_json::from_str::<Flooded>(line).ok());
    let Flooded { pps } = said.with_context(|| format!("the flood said nothing; see {}", log.display()))?;
    // The last PUBACKs' lines are on their way to the journal.
    pause(system, Duration::from_millis(300))?;
    let seconds = (to_ms - from_ms) as f64 / 1000.0;
    let acked = acked(system, from_ms as f64, to_ms as f64, None)?;
    say(&format!("story: {pps:.0} frames/s; {:.1} readings/s acknowledged", acked as f64 / seconds));
    Ok((acked, pps))
}

/// The journal's whole lines so far.
fn journal(system: &System<'_>) -> anyhow::Result<Vec<JournalLine>> {
    let text = std::fs::read_to_string(system.file("sensors.jsonl"))?;
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    Ok(whole.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// PUBACKs within a span, of one device or all.
fn acked(system: &System<'_>, from_ms: f64, to_ms: f64, of: Option<&str>) -> anyhow::Result<usize> {
    let lines = journal(system)?;
    let within = lines.iter().filter(|line| {
        line.acked_ms.is_some_and(|ms| ms >= from_ms && ms < to_ms) && of.is_none_or(|of| line.device == of)
    });
    Ok(within.count())
}

/// Whether a device's newest PUBACK is of a reading that was just published: nothing waits at the sensor any more.
fn has_caught_up(system: &System<'_>, device: &str, from_ms: f64) -> anyhow::Result<bool> {
    let lines = journal(system)?;
    let of = |line: &&JournalLine| line.device == device;
    let Some(last) = lines.iter().filter(of).rfind(|line| line.acked_ms.is_some()) else { return Ok(false) };
    let same = |line: &&JournalLine| line.stream == last.stream && line.seq == last.seq;
    let published_ms = lines.iter().filter(of).filter(same).find_map(|line| line.published_ms);
    let late_ms = last.acked_ms.zip(published_ms).map(|(acked, published)| acked - published);
    Ok(published_ms.is_some_and(|ms| ms >= from_ms) && late_ms.is_some_and(|ms| ms < CAUGHT_UP_MS))
}

/// Step 2: the controller quarantines one sensor; its frames stop in XDP; released, they return.
fn quarantine(system: &mut System<'_>, pages: &mut Pages, seen: &mut Seen) -> anyhow::Result<()> {
    let (device, mac) = {
        let at = system.deployment.sensors.len().checked_sub(1).context("no sensors")?;
        (system.deployment.sensors[at].device.clone(), mac(at))
    };
    say(&format!("story: the controller quarantines {device}"));
    let dropped = |system: &System<'_>| sum(system, "caregate_gateway_datapath_verdicts_total{", "rule");
    let (before, asked) = (dropped(system)?, clock::monotonic());
    system.operator(&["quarantine"], &["--switch", DATAPATH_ID, "--mac", &mac])?.done()?;
    seen.quarantine_ms = Some(asked.elapsed().as_secs_f64() * 1000.0);
    let from_ms = clock::now_ms() as f64;
    pause(system, QUARANTINE)?;
    let to_ms = clock::now_ms() as f64;
    let passed = acked(system, from_ms, to_ms, Some(&device))?;
    // TCP sends what it gets no answer to again, so frames are there to be dropped.
    seen.quarantined = passed == 0 && dropped(system)? > before;
    pages.expect("dashboard", r"1\s+quarantines", PAGE_TIMEOUT)?;
    pages.expect("dashboard", r"ledger.s block\s+one party seals the ledger", PAGE_TIMEOUT)?;
    say(&format!("story: {device} is released"));
    system.operator(&["release"], &["--switch", DATAPATH_ID, "--mac", &mac])?.done()?;
    let from_ms = clock::now_ms() as f64;
    let deadline = clock::monotonic() + PAGE_TIMEOUT;
    while !seen.released && clock::monotonic() < deadline {
        pause(system, Duration::from_millis(100))?;
        seen.released = has_caught_up(system, &device, from_ms)?;
    }
    Ok(())
}

/// Step 2: it tries to mirror a sensor's traffic, and to write table 0.
fn refused(system: &System<'_>, seen: &mut Seen) -> anyhow::Result<()> {
    say("story: the controller tries to mirror a sensor's frames, and to write table 0");
    let mirror = json!({
        "command": "add", "table": 1, "priority": 40000, "match": {"in_port": "1"},
        "actions": [{"output": "LOCAL"}, {"output": "2"}],
    });
    let table0 = json!({
        "command": "add", "table": 0, "priority": 40000, "match": {}, "actions": [{"output": "NORMAL"}],
    });
    seen.mirror_refused = flow_mod(system, "mirror.json", &mirror, "OFPBAC_EPERM")?;
    seen.table0_refused = flow_mod(system, "table0.json", &table0, "OFPBRC_EPERM")?;
    Ok(())
}

fn flow_mod(system: &System<'_>, name: &str, rule: &serde_json::Value, error: &str) -> anyhow::Result<bool> {
    let file = system.file(name);
    std::fs::write(&file, rule.to_string())?;
    let path = file.display().to_string();
    let outcome = system.operator(&["flow-mod"], &[DATAPATH_ID, &path])?;
    let named = outcome.json.to_string().contains(error);
    if outcome.status == 0 || !named {
        say(&format!("story: expected {error}, got status {} and {}", outcome.status, outcome.json));
    }
    Ok(outcome.status == 3 && named)
}
