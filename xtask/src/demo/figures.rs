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

use super::story::Seen;

/// Between two probes of the disk: some hundred in a story, and little load.
const PROBE_EVERY: Duration = Duration::from_millis(100);
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
        failures
    }

    /// Prints them: for a person to standard error, as JSON to standard output.
    pub(super) fn print(&self, as_json: bool) -> anyhow::Result<()> {
        let (r, s) = (&self.report, &self.seen);
        let figures = json!({
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
            "root": self.root,
        });
        if as_json {
            return writeln!(std::io::stdout(), "{figures}").context("standard output");
        }
        for (name, value) in figures.as_object().into_iter().flatten() {
            crate::say(&format!("  {name}: {value}"));
        }
        Ok(())
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
