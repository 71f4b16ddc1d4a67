//! The story's figures: what `story-check` counted, what was seen to happen, and what this machine's disk does.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use caregate_host::clock;
use serde::Deserialize;
use serde_json::json;

use super::story::{ControlSeen, Seen};

/// Between two probes of the disk: some hundred in a story, and little load.
const PROBE_EVERY: Duration = Duration::from_millis(100);
/// Kinds of forged policy that a story must have seen refused.
const FORGERIES_MIN: u64 = 8;
/// Bytes of a probe: about a group commit.
const PROBE_BYTES: usize = 4096;

/// What `story-check --json` says.
#[derive(Debug, Deserialize)]
pub(super) struct Report {
    readings_published: u64,
    readings_acked: u64,
    readings_at_core: Option<u64>,
    readings_at_feed: u64,
    readings_at_browser: Option<u64>,
    readings_withheld: u64,
    lost: u64,
    duplicated: u64,
    unknown_at_feed: u64,
    sample_mismatches: u64,
    samples_compared: u64,
    first_mismatch: Option<String>,
    e2e_ms_p50: Option<f64>,
    e2e_ms_p99: Option<f64>,
    puback_ms_p99: Option<f64>,
}

/// All figures of one story.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) report: Report,
    pub(super) seen: Seen,
    pub(super) fdatasync_ms_p99: f64,
    pub(super) gateway_binary_mib: f64,
    pub(super) root: bool,
}

/// Bytes as MiB.
pub(super) fn mib(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 1024).unwrap_or(u32::MAX)) / 1024.0
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

impl Figures {
    /// Why the story does not count, if it does not.
    pub(super) fn failures(&self) -> Vec<String> {
        let (r, s) = (&self.report, &self.seen);
        let mut failures = Vec::new();
        for (what, count) in [
            ("lost", r.lost),
            ("duplicated", r.duplicated),
            ("sample_mismatches", r.sample_mismatches),
            ("unknown_at_feed", r.unknown_at_feed),
        ] {
            if count > 0 {
                failures.push(format!("{what} is {count}"));
            }
        }
        if let Some(first) = &r.first_mismatch {
            failures.push(format!("first mismatch: {first}"));
        }
        for (what, seen) in [
            ("readings acknowledged", r.readings_acked > 0),
            ("samples compared", r.samples_compared > 0),
            ("readings at the core", r.readings_at_core.is_some_and(|n| n > 0)),
            ("readings in the browser", r.readings_at_browser.is_some_and(|n| n > 0)),
            ("the cut", s.cut),
            ("the uplink's return", s.returned),
            ("the kill", s.killed),
            ("the recovery", s.recovered),
        ] {
            if !seen {
                failures.push(format!("not seen: {what}"));
            }
        }
        if let Some(watch) = &s.watch {
            for (what, seen) in [
                ("the alarm on the ward's page", watch.alarm_ms.is_some()),
                ("the alarm on the gateway's own page", watch.at_home),
                ("the alarm acknowledged", watch.acknowledged),
            ] {
                if !seen {
                    failures.push(format!("not seen: {what}"));
                }
            }
        }
        failures.extend(self.control_failures());
        failures
    }

    /// The same for the control path's steps.
    fn control_failures(&self) -> Vec<String> {
        let ControlSeen { wire, .. } = &self.seen.control;
        let control = &self.seen.control;
        let mut steps = vec![
            ("the revocation", control.revocation_ms.is_some()),
            ("nothing openable after the revocation", control.openable_after_revocation == Some(0)),
            ("the new grant", control.grant_ms.is_some()),
            ("the broken glass", control.break_glass_ms.is_some() && control.emergency_readings > 0),
            ("nothing openable outside the emergency", control.emergency_outside == 0),
            ("readings without the controller", control.alone),
            ("at least eight forgeries", control.forged_tried >= FORGERIES_MIN),
            ("every forgery refused for its own reason", control.forged_refused == control.forged_tried),
        ];
        if self.root {
            steps.extend([
                ("an XDP mode", wire.xdp_mode.is_some()),
                ("the flood's frames dropped in XDP", wire.xdp_dropped > 0.0),
                ("readings under the flood", wire.acked_ratio.is_some_and(|ratio| ratio > 0.0)),
                ("the quarantine", wire.quarantined),
                ("the release", wire.released),
                ("the mirror refused", wire.mirror_refused),
                ("table 0 refused", wire.table0_refused),
                ("packets of alarms, vitals and waveforms marked", wire.lanes_marked >= 3),
            ]);
        }
        let unseen = steps.into_iter().filter(|(_, seen)| !seen);
        unseen.map(|(what, _)| format!("not seen: {what}")).collect()
    }

    /// What this machine could not show.
    pub(super) fn not_shown(&self) -> &[&'static str] {
        &self.seen.control.not_shown
    }

    /// Prints them: for a person to standard error, as JSON to standard output.
    pub(super) fn print(&self, as_json: bool) -> anyhow::Result<()> {
        let (r, s) = (&self.report, &self.seen);
        let mut figures = json!({
            "readings_published": r.readings_published,
            "readings_acked": r.readings_acked,
            "readings_at_core": r.readings_at_core,
            "readings_at_feed": r.readings_at_feed,
            "readings_at_browser": r.readings_at_browser,
            "lost": r.lost,
            "duplicated": r.duplicated,
            "sample_mismatches": r.sample_mismatches,
            "samples_compared": r.samples_compared,
            "e2e_ms_p50": r.e2e_ms_p50.map(tenths),
            "e2e_ms_p99": r.e2e_ms_p99.map(tenths),
            "backlog_s": tenths(s.backlog_s),
            "puback_ms_p99": r.puback_ms_p99.map(tenths),
            "fdatasync_ms_p99": tenths(self.fdatasync_ms_p99),
            "gateway_rss_mib": tenths(s.peak_rss_mib),
            "gateway_binary_mib": tenths(self.gateway_binary_mib),
            "cut_seen": s.cut && s.returned,
            "kill_seen": s.killed,
            "recovery_seen": s.recovered,
            "alarm_ms": s.watch.as_ref().and_then(|watch| watch.alarm_ms).map(tenths),
            "alarm_acknowledged": s.watch.as_ref().map(|watch| watch.acknowledged),
            "readings_withheld": r.readings_withheld,
            "root": self.root,
        });
        if let (Some(all), serde_json::Value::Object(control)) = (figures.as_object_mut(), self.control()) {
            all.extend(control);
        }
        if as_json {
            return writeln!(std::io::stdout(), "{figures}").context("standard output");
        }
        for (name, value) in figures.as_object().into_iter().flatten() {
            crate::say(&format!("  {name}: {value}"));
        }
        Ok(())
    }
}

impl Figures {
    fn control(&self) -> serde_json::Value {
        let control = &self.seen.control;
        let wire = &control.wire;
        json!({
            "xdp_mode": wire.xdp_mode.as_deref().unwrap_or("off"),
            "xdp_dropped": wire.xdp_dropped,
            "flood_pps": wire.flood_pps.round(),
            "readings_acked_under_flood_ratio": wire.acked_ratio.map(|ratio| (ratio * 1000.0).round() / 1000.0),
            "quarantine_ms": wire.quarantine_ms.map(tenths),
            "mirror_refused": wire.mirror_refused,
            "table0_refused": wire.table0_refused,
            "lanes_marked": wire.lanes_marked,
            "revocation_ms": control.revocation_ms.map(tenths),
            "revocation_in_force_ms": control.revocation_in_force_ms().map(tenths),
            "openable_after_revocation": control.openable_after_revocation,
            "grant_ms": control.grant_ms.map(tenths),
            "break_glass_ms": control.break_glass_ms.map(tenths),
            "emergency_readings": control.emergency_readings,
            "emergency_readings_outside": control.emergency_outside,
            "forged_policies_tried": control.forged_tried,
            "forged_policies_refused": control.forged_refused,
            "policy_age_ms": control.policy_age_ms.map(f64::round),
        })
    }
}

/// Measures fdatasync on the disk of the run, while the run goes on.
#[derive(Debug)]
pub(super) struct Sync {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<Vec<f64>>>,
}

impl Sync {
    pub(super) fn start(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("fdatasync.probe");
        let mut file = File::create(&path).with_context(|| path.display().to_string())?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut times_ms = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                file.write_all(&[0; PROBE_BYTES])?;
                let start = clock::monotonic();
                file.sync_data()?;
                times_ms.push(start.elapsed().as_secs_f64() * 1000.0);
                std::thread::sleep(PROBE_EVERY);
            }
            Ok(times_ms)
        });
        Ok(Self { stop, thread })
    }

    /// The 99th percentile in milliseconds.
    pub(super) fn stop(self) -> anyhow::Result<f64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut times_ms =
            self.thread.join().map_err(|_panic| anyhow::anyhow!("the disk probe panicked"))??;
        times_ms.sort_by(f64::total_cmp);
        let rank = (times_ms.len() * 99).div_ceil(100).saturating_sub(1);
        times_ms.get(rank).copied().context("the disk was never probed")
    }
}
