//! `cargo xtask chaos`: that what was acknowledged is never lost, doubled or changed, whenever the process or the power dies.
//!
//! Each part is a test of its own: kills (-9) of gateway and core at every named point, with sensors, on real processes
//! (`tests/tests/chaos`); power cuts of the spool, of the gateway's pipeline and of the core's store, on a disk that loses whatever no sync
//! has covered (`tests/crash`), and the same with the syncs taken out, which must lose data or the test proves nothing. In the long form
//! also power cuts of the spool, of both daemons and of the core alone, on ext4 over dm-log-writes in a machine of QEMU's
//! (`kernels/power.rs`).

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::{build, kernels, say};

/// Points at which the power of the machine's disk is cut, in the long form.
const MACHINE_POINTS: u64 = 250;
/// The cargo feature of the daemons that die when told to.
const FEATURE: &str = "kill-points";
/// The daemons that have it.
const PACKAGES: [&str; 2] = ["edge-gateway", "core-cloud"];
/// Power cuts of each store for each kill at every named point: a cut takes milliseconds, a kill a second.
const CUTS_PER_KILL: u64 = 1000;
/// How the tests begin the line with their figures.
const MARK: &str = "chaos: ";

/// Kill the gateway and the core (-9) at every named point, and cut their disks' power at any step: counts what was lost.
#[derive(Debug, Args)]
pub(crate) struct ChaosArgs {
    /// Power cuts of the spool, and as many of the core's store. Every named point is killed at once, and once more for each
    /// further thousand
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    rounds: u64,
    /// Also cut the power of the spool, of gateway and core, and of the core alone on ext4, each at 250 points of what dm-log-writes kept,
    /// in a machine of QEMU's (half an hour)
    #[arg(long)]
    long: bool,
    /// Run only the parts whose name has this in it
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
    /// Use the binaries that are there instead of building them first
    #[arg(long)]
    no_build: bool,
}

/// Runs the parts.
///
/// # Errors
/// That something was lost, doubled or changed, that a named point was not reached, or what could not be run.
pub(crate) fn run(args: &ChaosArgs) -> anyhow::Result<()> {
    let programs = programs(!args.no_build)?;
    let mut failed = Vec::new();
    let mut total: BTreeMap<&str, u64> = FIELDS.map(|field| (field, 0)).into();
    let parts: [(&str, &[&str]); 4] = [
        ("power cuts of the spool", &["--package", "edge-gateway", "--lib", "spool::tests::power"]),
        ("power cuts of the pipeline", &["--package", "edge-gateway", "--lib", "pipeline::tests::power"]),
        ("power cuts of the core's store", &["--package", "core-cloud", "--lib", "store::tests::power"]),
        ("kills", &["--package", "caregate-tests", "--test", "chaos"]),
    ];
    let mut sections = Map::new();
    let mut take = |name: &str, figures: &Map<String, Value>, outcome: anyhow::Result<()>| {
        sections.insert(name.to_owned(), Value::Object(figures.clone()));
        for (field, sum) in &mut total {
            *sum += figures.get(*field).and_then(Value::as_u64).unwrap_or(0);
        }
        failed.extend(outcome.err().map(|error| format!("{name}: {error:#}")));
        if figures.is_empty() {
            failed.push(format!("{name}: told no figures"));
        }
        if figures.get("lost_without_sync").and_then(Value::as_u64) == Some(0) {
            failed.push(format!("{name}: nothing was lost without syncs, so it proves nothing"));
        }
    };
    let is_wanted = |name: &str| args.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    for (name, arguments) in parts.into_iter().filter(|(name, _)| is_wanted(name)) {
        say(&format!("chaos: {name}"));
        let (figures, outcome) = part(arguments, args.rounds, &programs)?;
        take(name, &figures, outcome);
    }
    for work in kernels::WORKS.into_iter().filter(|work| args.long && is_wanted(work.name)) {
        say(&format!("chaos: {}", work.name));
        match kernels::power_cuts(work, MACHINE_POINTS, seed(), &programs) {
            Ok(figures) => take(work.name, &figures, Ok(())),
            Err(error) => take(work.name, &Map::new(), Err(error)),
        }
    }
    let bad = ["lost", "duplicated", "undetected_corruptions"];
    failed.extend(
        bad.iter().filter(|field| total[**field] > 0).map(|field| format!("{field}: {}", total[field])),
    );
    let mut text = json!(total);
    text["parts"] = Value::Object(sections);
    let text = if args.json { text.to_string() } else { serde_json::to_string_pretty(&text)? };
    writeln!(std::io::stdout(), "{text}").context("standard output")?;
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("; ")) }
}

/// That of the tests (`CAREGATE_SEED`), or another each time.
fn seed() -> u64 {
    let told = std::env::var("CAREGATE_SEED").ok().and_then(|text| text.parse().ok());
    let seed = told.unwrap_or_else(|| u64::from(std::process::id()));
    say(&format!("CAREGATE_SEED={seed}"));
    seed
}

/// What is summed over the parts.
const FIELDS: [&str; 7] =
    ["acked", "lost", "duplicated", "undetected_corruptions", "kills", "power_cuts", "lost_without_sync"];

/// The figures that a test told, none where it came to none; and how it ended.
type Told = (Map<String, Value>, anyhow::Result<()>);

/// Runs one test.
fn part(arguments: &[&str], rounds: u64, programs: &Path) -> anyhow::Result<Told> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--release"]).args(arguments).current_dir(build::root()?);
    cargo.args(["--", "--test-threads=1", "--nocapture"]);
    cargo.env("CAREGATE_CHAOS_ROUNDS", rounds.to_string()).env("CAREGATE_BINARIES", programs);
    cargo.env("CAREGATE_CHAOS_KILLS", rounds.div_ceil(CUTS_PER_KILL).to_string());
    let mut told = Map::new();
    let outcome = build::run_seen(&mut cargo, |line| {
        // The test's harness may have begun the line.
        if let Some((_, figures)) = line.split_once(MARK) {
            told = serde_json::from_str(figures).unwrap_or_default();
        }
    });
    Ok((told, outcome))
}

/// The daemons that die when told to, built first if so asked: into `kill-points/` beside the usual ones, which are removed, so that
/// none is taken for one.
fn programs(is_to_build: bool) -> anyhow::Result<PathBuf> {
    let beside = build::binaries()?;
    let folder = beside.join(FEATURE);
    if !is_to_build {
        return Ok(folder);
    }
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    say("chaos: building gateway and core with kill points");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--bins", "--features", FEATURE]).current_dir(build::root()?);
    cargo.args(PACKAGES.iter().flat_map(|package| ["--package", package]));
    build::run(&mut cargo)?;
    for program in PACKAGES {
        let (from, to) = (beside.join(program), folder.join(program));
        std::fs::copy(&from, &to).with_context(|| from.display().to_string())?;
        std::fs::remove_file(&from).with_context(|| from.display().to_string())?;
    }
    // And the usual ones again: the gate goes on with them.
    build::cargo(&PACKAGES)?;
    Ok(folder)
}
