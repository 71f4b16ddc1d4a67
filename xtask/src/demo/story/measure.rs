//! What is counted when everything has ended, from files that each part left behind.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;

use super::{Audience, Script, Seen};
use crate::demo::figures::Report;
use crate::demo::process::wait_until;
use crate::demo::system::{Daemon, System};
use crate::say;

/// Time within which a new grant must have brought the hospital back; what is sealed later and absent there is lost.
const GRANT_MS_MAX: f64 = 2000.0;
/// A moment that no run reaches, Unix milliseconds.
const FOR_GOOD_MS: f64 = 4e15;
/// A reader that has not caught up by then never will; what it lacks is counted as lost.
const READER_TIMEOUT: Duration = Duration::from_secs(20);

/// A line of `store-audit`.
#[derive(Debug, Deserialize)]
struct Audited {
    sealed_ms: f64,
    patient: String,
    /// For the hospital's key, and the clinic's.
    openable: Vec<bool>,
}

/// A line of the clinic's reader.
#[derive(Debug, Deserialize)]
struct Arrived {
    #[serde(rename = "type")]
    kind: String,
    arrived_ms: f64,
    #[serde(default)]
    patient: String,
}

/// Waits until both readers have what the core has for them.
pub(super) fn wait_for_readers(system: &System<'_>, audience: &mut Audience) -> anyhow::Result<()> {
    for (daemon, seen, out) in [
        (Daemon::Hospital, "feed.jsonl", "export.jsonl"),
        (Daemon::Clinic, "clinic.jsonl", "clinic-export.jsonl"),
    ] {
        export(system, daemon, out)?;
        let lines = |name: &str| {
            let text = std::fs::read_to_string(system.file(name)).unwrap_or_default();
            text.lines().filter(|line| line.contains("\"stream\"")).count()
        };
        let want = lines(out);
        let processes = &mut [&mut audience.reader, &mut audience.clinic, &mut audience.browser];
        let waited =
            wait_until("the reader has everything", READER_TIMEOUT, processes, || lines(seen) >= want);
        if let Err(error) = waited {
            say(&format!("story: {error:#}"));
        }
    }
    Ok(())
}

/// What the core has for a hospital, opened with its key.
fn export(system: &System<'_>, daemon: Daemon, out: &str) -> anyhow::Result<()> {
    let prefix = system.prefix(daemon);
    let mut words = prefix.into_iter().chain([system.program("clinician-feed").display().to_string()]);
    let first = words.next().context("no program")?;
    let log = system.file(&format!("logs/{out}.log"));
    let status = Command::new(first)
        .args(words)
        .arg("--config")
        .arg(system.config(daemon))
        .arg("export")
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(system.file(out))?)
        .stderr(std::fs::File::create(&log)?)
        .status()?;
    if !status.success() {
        bail!("clinician-feed export: {status}; see {}", log.display());
    }
    Ok(())
}

/// Audits the core's store, and joins everything.
pub(super) fn measure(system: &System<'_>, script: Script<'_>, seen: &mut Seen) -> anyhow::Result<Report> {
    audit(system)?;
    access(system, seen)?;
    say("story: comparing");
    compare(system, script, seen)
}

fn audit(system: &System<'_>) -> anyhow::Result<()> {
    let dir = &system.deployment.dir;
    let ledger = &system.deployment.ledger;
    let on_server = dir.join("nats");
    let core = if on_server.exists() { on_server } else { dir.join("core/core.redb") };
    let output = Command::new(system.program("store-audit"))
        .arg("--core")
        .arg(core)
        .arg("--keys")
        .arg(dir.join("gateway/keys.redb"))
        .arg("--hpke-key")
        .arg(&ledger.hospital.hpke)
        .arg("--hpke-key")
        .arg(&ledger.clinic.hpke)
        .arg("--gateway")
        .arg(&system.deployment.device_key)
        .arg("--out")
        .arg(system.file("core.jsonl"))
        .output()?;
    if !output.status.success() {
        bail!("store-audit: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn each<T: for<'de> Deserialize<'de>>(file: &Path, mut take: impl FnMut(T)) -> anyhow::Result<()> {
    let lines =
        BufReader::new(std::fs::File::open(file).with_context(|| file.display().to_string())?).lines();
    for (at, line) in lines.enumerate() {
        let parsed = serde_json::from_str(&line?);
        take(parsed.with_context(|| format!("{} line {}", file.display(), at + 1))?);
    }
    Ok(())
}

/// How long each change of access took, by what the keys really open.
fn access(system: &System<'_>, seen: &mut Seen) -> anyhow::Result<()> {
    let control = &mut seen.control;
    let patient = system.deployment.patients.first().context("no patient")?.patient.clone();
    let (mut last_open, mut first_again) = (None::<f64>, None::<f64>);
    let mut openable_after = 0;
    let (mut emergency_open_after, mut emergency_opened) = (0, 0);
    each(&system.file("core.jsonl"), |line: Audited| {
        if line.patient != patient {
            return;
        }
        let opens = |at: usize| line.openable.get(at) == Some(&true);
        if let Some(revoked) = &control.revoked
            && line.sealed_ms >= revoked.sent_ms
            && line.sealed_ms < control.granted_from_ms.unwrap_or(f64::MAX)
            && opens(0)
        {
            last_open = Some(last_open.unwrap_or(0.0).max(line.sealed_ms));
            openable_after += u64::from(line.sealed_ms > revoked.in_force_ms);
        }
        if let Some(granted) = &control.granted
            && line.sealed_ms >= granted.sent_ms
            && opens(0)
        {
            first_again = Some(first_again.unwrap_or(f64::MAX).min(line.sealed_ms));
        }
        // After the end, by the gateway's clock, which wraps by the second.
        if let Some(direct) = &control.revoked_directly
            && line.sealed_ms > direct.in_force_ms
            && opens(0)
        {
            openable_after += 1;
        }
        if let Some(emergency) = &control.emergency
            && opens(1)
        {
            emergency_opened += 1;
            let within = line.sealed_ms >= emergency.sent_ms && line.sealed_ms < emergency.until_ms;
            emergency_open_after += u64::from(!within);
        }
    })?;
    control.openable_after_revocation = control.revoked.as_ref().map(|_| openable_after);
    control.revocation_ms =
        control.revoked.as_ref().map(|revoked| last_open.map_or(0.0, |last| last - revoked.sent_ms));
    control.grant_ms =
        control.granted.as_ref().zip(first_again).map(|(granted, first)| first - granted.sent_ms);
    control.emergency_readings = emergency_opened;
    control.emergency_outside = emergency_open_after;
    let mut first_at_clinic = None::<f64>;
    each(&system.file("clinic.jsonl"), |line: Arrived| {
        if line.kind == "reading" && line.patient == patient {
            first_at_clinic = Some(first_at_clinic.unwrap_or(f64::MAX).min(line.arrived_ms));
        }
    })?;
    control.break_glass_ms =
        control.emergency.as_ref().zip(first_at_clinic).map(|(emergency, first)| first - emergency.sent_ms);
    Ok(())
}

fn compare(system: &System<'_>, script: Script<'_>, seen: &Seen) -> anyhow::Result<Report> {
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
    for record in script.records {
        command.arg("--record").arg(record);
    }
    for (from, to) in &seen.exclude {
        command.args(["--exclude", &format!("{from}:{to}")]);
    }
    let patient = &system.deployment.patients.first().context("no patient")?.patient;
    let control = &seen.control;
    let until = control.granted.as_ref().map_or(FOR_GOOD_MS, |granted| granted.sent_ms + GRANT_MS_MAX);
    let spans = [
        control.revoked.as_ref().map(|revoked| (revoked.sent_ms, until)),
        control.revoked_directly.as_ref().map(|revoked| (revoked.sent_ms, FOR_GOOD_MS)),
    ];
    for (from, to) in spans.into_iter().flatten() {
        command.args(["--withheld", &format!("{patient}:{from}:{to}")]);
    }
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().with_context(|| {
        format!("story-check said nothing ({}): {}", output.status, String::from_utf8_lossy(&output.stderr))
    })?;
    serde_json::from_str(last).with_context(|| format!("story-check said: {last}"))
}
