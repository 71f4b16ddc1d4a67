//! `cargo xtask bench flood`: what sensors feel of a flood on their port. The demo's own system runs; between rounds only what filters
//! the port changes.
//!
//! ```text
//!             filter on the sensor port     the generator floods
//!  quiet      ours (XDP)                    an unrelated wire
//!  ours       ours (XDP)                    the sensors' wire
//!  nft        nftables, netdev ingress      the sensors' wire
//!  none       none                          the sensors' wire
//! ```

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use caregate_host::clock;
use serde::Deserialize;
use serde_json::{Value, json};

use super::PACKAGES;
use super::network::{HOME_PORT, Network, Place, SENSOR_PORT, SPARE_PORT, Service, mac};
use super::process::get;
use super::system::{self, Daemon, System, Wish};
use crate::{build, say, setup, stop};

/// Readings are published so many times faster than by people: then there are some hundreds a second, which a gateway carries with
/// ease while nothing disturbs it.
const SPEED: f64 = 40.0;
/// Of a phase, the part that is left out: generator and congestion windows settle.
const SETTLE: Duration = Duration::from_millis(1000);
/// How long a filter may take to be in force, or gone.
const SWITCH_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for the first readings to be acknowledged.
const FIRST_TIMEOUT: Duration = Duration::from_secs(60);

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Rounds; a round has each of the four once.
    pub(crate) rounds: u32,
    /// Seconds of each flood.
    pub(crate) seconds: u64,
    /// Frames per second that are offered.
    pub(crate) pps: u64,
    /// Or the binaries that are there are used.
    pub(crate) is_to_build: bool,
}

/// What filters the sensor port, and what is flooded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Quiet,
    Ours,
    Nft,
    Unfiltered,
}

impl Phase {
    const ALL: [Self; 4] = [Self::Quiet, Self::Ours, Self::Nft, Self::Unfiltered];

    fn name(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Ours => "ours",
            Self::Nft => "nft",
            Self::Unfiltered => "none",
        }
    }
}

/// What one phase gave.
#[derive(Debug, Clone, Copy)]
struct Figures {
    readings_s: f64,
    p99_ms: f64,
    pps: f64,
}

/// Runs the bench.
///
/// # Errors
/// What could not be built, started or switched.
pub(crate) fn bench(plan: Plan) -> anyhow::Result<Value> {
    if !setup::can_make_namespaces() {
        bail!("the flood needs root and network namespaces; run it as root");
    }
    setup::ensure(&[setup::DEMO, setup::PEERS])?;
    if plan.is_to_build {
        build::page()?;
        build::cargo(PACKAGES)?;
    }
    stop::watch()?;
    let dir = build::root()?.join(format!("target/demo/{}", std::process::id()));
    std::fs::create_dir_all(dir.join("logs")).with_context(|| dir.display().to_string())?;
    let outcome = measure(plan, &dir);
    if outcome.is_ok() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    } else {
        say(&format!("flood: configuration, logs and journals are in {}", dir.display()));
    }
    outcome
}

fn measure(plan: Plan, dir: &Path) -> anyhow::Result<Value> {
    let sensors = system::sensors(&[]);
    let network = Network::make(true, sensors.len())?;
    let mut system = System::start(&network, dir, &sensors, Wish { speed: SPEED, port: 0, nats: None })?;
    system.start_sensors()?;
    let mut bench = Bench { plan, journal: Journal::new(&system), system: &mut system };
    bench.wait_for_readings()?;
    let mut figures: HashMap<Phase, Vec<Figures>> = HashMap::new();
    for round in 1..=plan.rounds {
        for phase in Phase::ALL {
            let of = bench.phase(phase)?;
            say(&format!(
                "flood: round {round}, {}: {:.1} readings/s, p99 {:.1} ms, {:.0} frames/s",
                phase.name(),
                of.readings_s,
                of.p99_ms,
                of.pps
            ));
            figures.entry(phase).or_default().push(of);
        }
        bench.put_back()?;
    }
    Ok(report(plan, &figures))
}

fn report(plan: Plan, figures: &HashMap<Phase, Vec<Figures>>) -> Value {
    let of = |phase: Phase, pick: fn(&Figures) -> f64| {
        let values: Vec<f64> = figures.get(&phase).into_iter().flatten().map(pick).collect();
        median(values)
    };
    let mut out = json!({ "rounds": plan.rounds, "seconds": plan.seconds, "offered_pps": plan.pps });
    for phase in Phase::ALL {
        out[format!("readings_s_{}", phase.name())] = rounded(of(phase, |f| f.readings_s), 10.0);
        out[format!("p99_ms_{}", phase.name())] = rounded(of(phase, |f| f.p99_ms), 100.0);
        out[format!("flood_pps_{}", phase.name())] = rounded(of(phase, |f| f.pps), 1.0);
    }
    out["flood_pps"] = out["flood_pps_ours"].clone();
    out
}

fn rounded(value: Option<f64>, parts: f64) -> Value {
    value.map_or(Value::Null, |value| json!((value * parts).round() / parts))
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { upper } else { f64::midpoint(values[middle - 1], upper) })
}

/// `numerator / denominator` of the values lie at or below the result.
fn quantile(mut values: Vec<f64>, numerator: usize, denominator: usize) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let at = (values.len() * numerator).div_ceil(denominator).checked_sub(1)?;
    values.get(at).copied()
}

struct Bench<'b, 'n> {
    plan: Plan,
    journal: Journal,
    system: &'b mut System<'n>,
}

impl Bench<'_, '_> {
    fn wait_for_readings(&mut self) -> anyhow::Result<()> {
        let journal = self.system.file("sensors.jsonl");
        let acked = || std::fs::read_to_string(&journal).is_ok_and(|text| text.contains("\"acked_ms\""));
        self.system.wait_until("readings are acknowledged", FIRST_TIMEOUT, acked).map(drop)
    }

    fn phase(&mut self, phase: Phase) -> anyhow::Result<Figures> {
        match phase {
            Phase::Quiet | Phase::Ours => {}
            Phase::Nft => {
                self.detach()?;
                self.nft(&nft_rules(self.system))?;
            }
            Phase::Unfiltered => self.nft("delete table netdev caregate_bench\n")?,
        }
        let interface = if phase == Phase::Quiet { SPARE_PORT } else { HOME_PORT };
        self.flooded(interface)
    }

    /// Takes our filter away: the helper ends and its link on the port goes with its pin.
    fn detach(&mut self) -> anyhow::Result<()> {
        self.system.kill(Daemon::Helper)?;
        let pins = self.system.file("bpf/caregate");
        for entry in std::fs::read_dir(&pins).with_context(|| pins.display().to_string())? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("xdp-")) {
                std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
            }
        }
        if has_xdp(self.system)? {
            bail!("{SENSOR_PORT} still has an XDP program");
        }
        // Frames from XDP reach an interface without a program of its own only so.
        self.at_gateway("ethtool", &["-K", SENSOR_PORT, "gro", "on"], "")
    }

    /// Our filter again, in force.
    fn put_back(&mut self) -> anyhow::Result<()> {
        self.system.restart(Daemon::Helper)?;
        self.system.wait_ready(Daemon::Helper)?;
        let admin = self.system.admin(Daemon::Gateway)?;
        let is_there = || {
            get(admin, "/metrics").is_ok_and(|(_, body)| {
                let on = |line: &str| {
                    line.starts_with("caregate_gateway_datapath_port_mode")
                        && line.contains("mode=\"native\"")
                        && line.ends_with(" 1")
                };
                body.lines().any(on)
            })
        };
        self.system.wait_until("our filter is back", SWITCH_TIMEOUT, is_there)?;
        if !has_xdp(self.system)? {
            bail!("{SENSOR_PORT} has no XDP program");
        }
        Ok(())
    }

    fn nft(&self, rules: &str) -> anyhow::Result<()> {
        self.at_gateway("nft", &["-f", "-"], rules)
    }

    /// Runs a command where the gateway is.
    fn at_gateway(&self, program: &str, arguments: &[&str], input: &str) -> anyhow::Result<()> {
        at_gateway(self.system, program, arguments, input).map(drop)
    }

    /// Floods an interface, and says what the sensors felt.
    fn flooded(&mut self, interface: &str) -> anyhow::Result<Figures> {
        let log = self.system.file("logs/flood.log");
        let said_before = std::fs::metadata(&log).map_or(0, |of| of.len());
        let (pps, seconds) = (self.plan.pps.to_string(), self.plan.seconds.to_string());
        let words = ["--interface", interface, "--pps", &pps, "--seconds", &seconds, "--json"];
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        let begun_ms = clock::now_ms() as f64;
        let mut tool = self.system.tool("flood", "flood", Some(Place::Home), words)?;
        let length = Duration::from_secs(self.plan.seconds);
        self.system
            .wait_until("the flood ends", length + SWITCH_TIMEOUT, || !matches!(tool.ended(), Ok(None)))?;
        let ended_ms = clock::now_ms() as f64;
        let Flooded { pps } = said(&log, said_before)?;
        // What began in it may be acknowledged a little later; the window ends with the flood all the same.
        let from_ms = begun_ms + SETTLE.as_secs_f64() * 1000.0;
        let to_ms = ended_ms.min(begun_ms + length.as_secs_f64() * 1000.0);
        let latencies_ms = self.journal.acknowledged(from_ms, to_ms)?;
        let readings_s = latencies_ms.len() as f64 * 1000.0 / (to_ms - from_ms);
        let p99_ms = quantile(latencies_ms, 99, 100).unwrap_or(f64::NAN);
        Ok(Figures { readings_s, p99_ms, pps })
    }
}

/// What `flood` says.
#[derive(Debug, Deserialize)]
struct Flooded {
    pps: f64,
}

fn said(log: &Path, from: u64) -> anyhow::Result<Flooded> {
    let text = std::fs::read(log).with_context(|| log.display().to_string())?;
    let new = text.get(usize::try_from(from)?..).unwrap_or_default();
    let new = String::from_utf8_lossy(new);
    let flooded = new.lines().rev().find_map(|line| serde_json::from_str(line).ok());
    flooded.with_context(|| format!("the flood ended without a figure: {}", new.trim()))
}

fn at_gateway(system: &System<'_>, program: &str, arguments: &[&str], input: &str) -> anyhow::Result<String> {
    let words = system.prefix(Daemon::Gateway);
    let mut command = Command::new(words.first().context("no namespace")?);
    command.args(words.iter().skip(1)).arg(program).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| program.to_owned())?;
    child.stdin.take().context("no standard input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn has_xdp(system: &System<'_>) -> anyhow::Result<bool> {
    Ok(at_gateway(system, "ip", &["link", "show", "dev", SENSOR_PORT], "")?.contains("xdp"))
}

/// The same policy as ours: bound sensors reach the gateway's MQTT port; ARP is let through at our meter's rate; no more.
fn nft_rules(system: &System<'_>) -> String {
    let macs: Vec<String> = (0..system.deployment.sensors.len()).map(mac).collect();
    let mqtt = system.network.listen(Service::Mqtt);
    format!(
        "table netdev caregate_bench {{\n\
           set bound {{ type ether_addr; elements = {{ {} }} }}\n\
           chain ingress {{\n\
             type filter hook ingress device \"{SENSOR_PORT}\" priority 0; policy drop;\n\
             ether saddr @bound ip daddr {} tcp dport {} accept\n\
             ether type arp limit rate 100/second accept\n\
           }}\n\
         }}\n",
        macs.join(", "),
        mqtt.ip(),
        mqtt.port()
    )
}

#[derive(Debug, Deserialize)]
struct JournalLine {
    device: String,
    stream: String,
    seq: u64,
    published_ms: Option<f64>,
    acked_ms: Option<f64>,
}

/// The simulator's journal, read as it grows.
struct Journal {
    file: std::path::PathBuf,
    at: u64,
    published: HashMap<(String, String, u64), f64>,
    /// When and after how long, both in milliseconds.
    acked: Vec<(f64, f64)>,
}

impl Journal {
    fn new(system: &System<'_>) -> Self {
        Self { file: system.file("sensors.jsonl"), at: 0, published: HashMap::new(), acked: Vec::new() }
    }

    /// How long the readings took that were acknowledged within this span.
    fn acknowledged(&mut self, from_ms: f64, to_ms: f64) -> anyhow::Result<Vec<f64>> {
        // Lines of the span may be on their way still: what comes after it shows that they are there.
        let deadline = clock::monotonic() + SWITCH_TIMEOUT;
        loop {
            self.read()?;
            if self.acked.last().is_some_and(|(at, _)| *at >= to_ms) || clock::monotonic() > deadline {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let within = self.acked.iter().filter(|(at, _)| (from_ms..to_ms).contains(at));
        let latencies = within.map(|(_, took)| *took).collect();
        self.acked.clear();
        Ok(latencies)
    }

    fn read(&mut self) -> anyhow::Result<()> {
        let mut reader = BufReader::new(std::fs::File::open(&self.file)?);
        reader.seek(SeekFrom::Start(self.at))?;
        let mut line = String::new();
        loop {
            line.clear();
            let bytes = reader.read_line(&mut line)?;
            if !line.ends_with('\n') {
                return Ok(());
            }
            self.at += bytes as u64;
            let JournalLine { device, stream, seq, published_ms, acked_ms } = serde_json::from_str(&line)?;
            let name = (device, stream, seq);
            match (published_ms, acked_ms) {
                (Some(published), _) => drop(self.published.insert(name, published)),
                (None, Some(acked)) => {
                    if let Some(published) = self.published.remove(&name) {
                        self.acked.push((acked, acked - published));
                    }
                }
                (None, None) => bail!("{}: a line of neither kind: {line}", self.file.display()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quantiles() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(hundred, 99, 100), Some(99.0));
        assert_eq!(quantile(vec![7.0], 99, 100), Some(7.0));
        assert_eq!(quantile(vec![], 99, 100), None);
    }

    #[test]
    fn every_field_of_the_flood_is_there() {
        let figures: HashMap<Phase, Vec<Figures>> = Phase::ALL
            .into_iter()
            .map(|phase| (phase, vec![Figures { readings_s: 800.04, p99_ms: 12.345, pps: 5e5 }]))
            .collect();
        let out = report(Plan { rounds: 1, seconds: 2, pps: 3, is_to_build: false }, &figures);
        for phase in ["quiet", "ours", "nft", "none"] {
            assert_eq!(out[format!("readings_s_{phase}")], 800.0);
            assert_eq!(out[format!("p99_ms_{phase}")], 12.35);
        }
        assert_eq!(out["flood_pps"], 500_000.0);
    }
}
