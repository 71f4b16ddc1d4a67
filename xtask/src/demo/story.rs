//! The story without a person: sensors publish; the uplink is cut for a while and returns; the gateway is killed and
//! restarted in the middle; the page is open throughout; then everything is counted.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use caregate_host::clock;

use super::deployment::USER;
use super::figures::{Figures, Report, Sync, mib};
use super::network::Network;
use super::process::{Process, Start, wait_until};
use super::stop;
use super::system::{System, is_ready};
use crate::{build, say};

/// Shortest cut: the gateway notices a dead path after 5 s.
const CUT_MIN: Duration = Duration::from_secs(8);
/// Time for the backlog to drain after the cut, and for everything to arrive at the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(120);
/// Time for the browser to show the first reading.
const BROWSER_TIMEOUT: Duration = Duration::from_secs(90);
/// Time for sensors to get their last PUBACKs: as long as they wait by default, and a little more.
const SENSORS_TIMEOUT: Duration = Duration::from_secs(150);

/// What was seen to happen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) cut: bool,
    pub(super) returned: bool,
    pub(super) killed: bool,
    pub(super) recovered: bool,
    pub(super) backlog_s: f64,
    pub(super) peak_rss_mib: f64,
    exclude: Vec<(i64, i64)>,
}

/// Plays it. `seconds` counts from the first reading on the page.
pub(super) fn play(
    system: &mut System<'_>,
    network: &Network,
    seconds: u64,
    records: &[PathBuf],
    screenshot: Option<&Path>,
    root: bool,
) -> anyhow::Result<Figures> {
    let sync = Sync::start(&system.deployment.dir)?;
    let mut reader = reader(system)?;
    let mut browser = browser(system, network, screenshot)?;
    system.start_sensors()?;
    say("story: sensors publish; waiting for the page to show it");
    wait_until("the page shows a reading", BROWSER_TIMEOUT, &mut [&mut browser, &mut reader], || {
        browser_ready(system)
    })?;
    let start = clock::monotonic();
    let at = |part: f64| Duration::from_secs(seconds).mul_f64(part);
    let mut seen = Seen::default();
    pause_until(system, start + at(0.25))?;
    if screenshot.is_some() {
        // Now, while traces run; the script takes one at its end otherwise.
        browser.signal("-USR1")?;
    }
    cut(system, network, at(0.15).max(CUT_MIN), &mut seen)?;
    pause_until(system, start + at(0.65))?;
    if system.sensors_done()? {
        bail!("the records ended before the story did: fewer --seconds, or less --speed");
    }
    kill(system, &mut seen)?;
    pause_until(system, start + at(1.0))?;
    say("story: sensors stop and wait for their last PUBACKs");
    finish_sensors(system)?;
    settle(system)?;
    seen.peak_rss_mib = seen.peak_rss_mib.max(system.gateway.peak_rss_mib().unwrap_or(0.0));
    say("story: reading the core's store again, with the hospital's key");
    export(system)?;
    wait_for_reader(system, &mut [&mut reader, &mut browser])?;
    reader.end(None)?;
    browser.end(None)?;
    say("story: comparing");
    let report = compare(system, records, &seen)?;
    let binary_mib = mib(std::fs::metadata(system.program("edge-gateway"))?.len());
    Ok(Figures { report, seen, fdatasync_ms_p99: sync.stop()?, gateway_binary_mib: binary_mib, root })
}

fn reader(system: &System<'_>) -> anyhow::Result<Process> {
    let arguments = vec![
        "--url".into(),
        system.page_url(),
        "--user".into(),
        USER.into(),
        "--password-file".into(),
        system.deployment.password_file.display().to_string(),
        "--out".into(),
        system.file("feed.jsonl").display().to_string(),
        "--from".into(),
        "0".into(),
    ];
    system.tool("feed-reader", None, arguments)
}

fn browser(system: &System<'_>, network: &Network, screenshot: Option<&Path>) -> anyhow::Result<Process> {
    let script = build::root()?.join("clinician-feed/web/e2e/trace.mjs");
    let mut arguments = vec![
        script.display().to_string(),
        "--url".into(),
        system.page_url(),
        "--user".into(),
        USER.into(),
        "--password-file".into(),
        system.deployment.password_file.display().to_string(),
        "--out".into(),
        system.file("browser.jsonl").display().to_string(),
    ];
    if let Some(file) = screenshot {
        arguments.extend(["--screenshot".into(), std::path::absolute(file)?.display().to_string()]);
    }
    let (program, logs) = (which("node")?, system.file("logs"));
    Process::start(
        network,
        Start { name: "browser", place: None, program: &program, arguments, listeners: &[], logs: &logs },
    )
}

fn which(program: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.exists())
        .with_context(|| format!("{program} is not on PATH"))
}

fn browser_ready(system: &System<'_>) -> bool {
    std::fs::read_to_string(system.file("logs/browser.log"))
        .is_ok_and(|log| log.lines().any(|line| line == "ready"))
}

fn pause_until(system: &mut System<'_>, moment: std::time::Instant) -> anyhow::Result<()> {
    while clock::monotonic() < moment {
        // The sensors may end by themselves: a record has an end.
        system.daemons_alive()?;
        if stop::requested() {
            bail!("stopped");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn cut(system: &mut System<'_>, network: &Network, length: Duration, seen: &mut Seen) -> anyhow::Result<()> {
    let admin = system.gateway_admin()?;
    say(&format!("story: the uplink is cut for {} s", length.as_secs()));
    let from_ms = clock::now_ms();
    let back = clock::monotonic() + length;
    network.set_uplink(false)?;
    while clock::monotonic() < back {
        pause_until(system, clock::monotonic() + Duration::from_millis(200))?;
        seen.cut |= !is_ready(admin);
    }
    let waiting = system.waiting().unwrap_or(0.0);
    network.set_uplink(true)?;
    say(&format!("story: the uplink is back; {waiting} records wait"));
    let returned = clock::monotonic();
    // Everything that was behind is at the core when, once, nothing waits that is older than a moment.
    let target = sent_target(system);
    let processes = &mut [&mut system.gateway, &mut system.core, &mut system.feed];
    wait_until("the backlog has drained", DRAIN_TIMEOUT, processes, || {
        is_ready(admin) && drained(admin, target)
    })?;
    seen.backlog_s = returned.elapsed().as_secs_f64();
    seen.returned = true;
    seen.exclude.push((from_ms, clock::now_ms()));
    say(&format!("story: the backlog drained in {:.1} s", seen.backlog_s));
    Ok(())
}

/// The next position at the moment the uplink returns: the backlog is below it.
fn sent_target(system: &System<'_>) -> f64 {
    system
        .gateway_admin()
        .ok()
        .and_then(|a| super::process::metric(a, "caregate_gateway_spool_next"))
        .unwrap_or(f64::MAX)
}

fn drained(admin: std::net::SocketAddr, target: f64) -> bool {
    super::process::metric(admin, "caregate_gateway_spool_oldest_waiting")
        .is_some_and(|oldest| oldest >= target)
}

fn kill(system: &mut System<'_>, seen: &mut Seen) -> anyhow::Result<()> {
    let admin = system.gateway_admin()?;
    say("story: the gateway is killed (-9)");
    seen.peak_rss_mib = seen.peak_rss_mib.max(system.gateway.peak_rss_mib().unwrap_or(0.0));
    let at = clock::monotonic();
    seen.killed = system.gateway.kill()?;
    system.restart_gateway()?;
    system.wait_ready("edge-gateway", admin)?;
    let before = super::process::metric(admin, "caregate_gateway_commits_total").unwrap_or(0.0);
    let processes = &mut [&mut system.gateway, &mut system.core, &mut system.feed];
    wait_until("readings are stored again", DRAIN_TIMEOUT, processes, || {
        super::process::metric(admin, "caregate_gateway_commits_total").is_some_and(|now| now > before)
    })?;
    seen.recovered = true;
    say(&format!("story: readings are stored again {} ms after the kill", at.elapsed().as_millis()));
    Ok(())
}

fn finish_sensors(system: &mut System<'_>) -> anyhow::Result<()> {
    if system.sensors_done()? {
        return Ok(());
    }
    let Some(mut sensors) = system.sensors.take() else { bail!("the sensors were not started") };
    let status = sensors.end(Some(SENSORS_TIMEOUT))?;
    if !status.success() {
        bail!("sensor-sim ended with {status}: a PUBACK never came; see its log");
    }
    Ok(())
}

fn settle(system: &mut System<'_>) -> anyhow::Result<()> {
    let admin = system.gateway_admin()?;
    let processes = &mut [&mut system.gateway, &mut system.core, &mut system.feed];
    wait_until("the core has everything", DRAIN_TIMEOUT, processes, || {
        super::process::metric(admin, "caregate_gateway_spool_waiting") == Some(0.0)
    })?;
    Ok(())
}

/// Opens the core's store from outside, with the hospital's key, into `core.jsonl`.
fn export(system: &System<'_>) -> anyhow::Result<()> {
    let prefix = system.in_hospital();
    let mut words = prefix.into_iter().chain([system.program("clinician-feed").display().to_string()]);
    let first = words.next().context("no program")?;
    let status = Command::new(first)
        .args(words)
        .args(["--config", &system.deployment.config("clinician-feed").display().to_string(), "export"])
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(system.file("core.jsonl"))?)
        .stderr(std::fs::File::create(system.file("logs/export.log"))?)
        .status()?;
    if !status.success() {
        bail!("clinician-feed export: {status}; see logs/export.log");
    }
    Ok(())
}

/// Waits until the reader has what the core has; a reading that never comes is then counted as lost, not waited for. The
/// browser joined later and drains when it is told to end.
fn wait_for_reader(system: &System<'_>, processes: &mut [&mut Process]) -> anyhow::Result<()> {
    let lines = |name: &str| {
        let text = std::fs::read_to_string(system.file(name)).unwrap_or_default();
        text.lines().filter(|line| line.contains("\"stream\"")).count()
    };
    let want = lines("core.jsonl");
    let waited = wait_until("the reader has everything", Duration::from_secs(20), processes, || {
        lines("feed.jsonl") >= want
    });
    if let Err(error) = waited {
        say(&format!("story: {error:#}"));
    }
    Ok(())
}

fn compare(system: &System<'_>, records: &[PathBuf], seen: &Seen) -> anyhow::Result<Report> {
    let mut command = Command::new(system.program("story-check"));
    command.arg("--json");
    for (flag, file) in [
        ("--config", system.deployment.config("sensors")),
        ("--journal", system.file("sensors.jsonl")),
        ("--feed", system.file("feed.jsonl")),
        ("--core", system.file("core.jsonl")),
        ("--browser", system.file("browser.jsonl")),
    ] {
        command.arg(flag).arg(file);
    }
    for record in records {
        command.arg("--record").arg(record);
    }
    for (from, to) in &seen.exclude {
        command.args(["--exclude", &format!("{from}:{to}")]);
    }
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().with_context(|| {
        format!("story-check said nothing ({}): {}", output.status, String::from_utf8_lossy(&output.stderr))
    })?;
    serde_json::from_str(last).with_context(|| format!("story-check said: {last}"))
}
