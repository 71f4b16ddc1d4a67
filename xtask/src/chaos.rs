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

/// Beside the usual binaries, where the daemons are that die when told to.
const FOLDER: &str = "kill-points";
/// Those daemons.
const PROGRAMS: [&str; 2] = ["edge-gateway", "core-cloud"];
/// What makes them so.
const FEATURES: [&str; 2] = ["edge-gateway/kill-points", "core-cloud/kill-points"];
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
    /// Also cut the power of the spool, of gateway and core, and of the core alone on ext4, each at so many points (`--points`) of
    /// what dm-log-writes kept, in a machine of QEMU's (half an hour)
    #[arg(long)]
    long: bool,
    /// Points of each of those
    #[arg(long, value_name = "N", default_value_t = 250, value_parser = clap::value_parser!(u64).range(10..=10_000))]
    points: u64,
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
    let tests = build::test_programs()?;
    let mut sections = Map::new();
    let mut take = |name: &str, figures: &Map<String, Value>, outcome: anyhow::Result<()>| {
        sections.insert(name.to_owned(), Value::Object(figures.clone()));
        for (field, sum) in &mut total {
            *sum += figures.get(*field).and_then(Value::as_u64).unwrap_or(0);
        }
        failed.extend(outcome.err().map(|error| format!("{name}: {error:#}")));
        failed.extend(unproven(name, figures).map(|what| format!("{name}: {what}")));
    };
    let is_wanted = |name: &str| args.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    for (name, program, tests_of) in PARTS.into_iter().filter(|(name, ..)| is_wanted(name)) {
        say(&format!("chaos: {name}"));
        let program = tests.get(program).with_context(|| format!("cargo built no tests of {program}"))?;
        let (figures, outcome) = part(program.command().arg(tests_of), args.rounds, &programs);
        take(name, &figures, outcome);
    }
    for work in kernels::WORKS.into_iter().filter(|work| args.long && is_wanted(work.name)) {
        say(&format!("chaos: {}", work.name));
        match kernels::power_cuts(work, args.points, seed(), &programs) {
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

/// Why a part's figures prove nothing, where they don't.
fn unproven(name: &str, figures: &Map<String, Value>) -> Option<&'static str> {
    match figures.get("lost_without_sync").map(Value::as_u64) {
        _ if figures.is_empty() => Some("told no figures"),
        // A kill takes no page cache.
        None if name == KILLS => None,
        None | Some(None) => Some("did not tell what is lost without syncs"),
        Some(Some(0)) => Some("nothing was lost without syncs, so it proves nothing"),
        Some(Some(_)) => None,
    }
}

/// The part that cuts no power.
const KILLS: &str = "kills";
/// Name, test program and what the tests' names have in them.
const PARTS: [(&str, &str, &str); 4] = [
    ("power cuts of the spool", "edge_gateway", "spool::tests::power"),
    ("power cuts of the pipeline", "edge_gateway", "pipeline::tests::power"),
    ("power cuts of the core's store", "core_cloud", "store::tests::power"),
    (KILLS, "chaos", ""),
];

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

/// Runs one part's tests.
fn part(test: &mut Command, rounds: u64, programs: &Path) -> Told {
    test.args(["--test-threads=1", "--nocapture"]);
    test.env("CAREGATE_CHAOS_ROUNDS", rounds.to_string()).env("CAREGATE_BINARIES", programs);
    test.env("CAREGATE_CHAOS_KILLS", rounds.div_ceil(CUTS_PER_KILL).to_string());
    let mut told = Map::new();
    let outcome = build::run_seen(test, |line| {
        // The test's harness may have begun the line.
        if let Some((_, figures)) = line.split_once(MARK) {
            told = serde_json::from_str(figures).unwrap_or_default();
        }
    });
    (told, outcome)
}

/// The daemons that die when told to, built first if so asked: into `kill-points/` beside the usual ones, which are put back, so that none is
/// taken for one.
fn programs(is_to_build: bool) -> anyhow::Result<PathBuf> {
    let beside = build::binaries()?;
    let folder = beside.join(FOLDER);
    if !is_to_build {
        return Ok(folder);
    }
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let usual = folder.join("usual");
    std::fs::create_dir_all(&usual).with_context(|| usual.display().to_string())?;
    for program in PROGRAMS.iter().filter(|program| beside.join(program).exists()) {
        moved(&beside.join(program), &usual.join(program))?;
    }
    say("chaos: building gateway and core with kill points");
    let built = build::workspace_binaries(&PROGRAMS, &FEATURES);
    for program in PROGRAMS {
        if built.is_ok() {
            moved(&beside.join(program), &folder.join(program))?;
        }
        if usual.join(program).exists() {
            moved(&usual.join(program), &beside.join(program))?;
        }
    }
    built.map(|()| folder)
}

fn moved(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::rename(from, to).with_context(|| format!("{} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_cut_must_say_what_is_lost_without_syncs() {
        let of = |name, figures: Value| unproven(name, figures.as_object().unwrap());
        let cuts = PARTS.into_iter().map(|(name, ..)| name).filter(|name| *name != KILLS);
        for name in cuts.chain(kernels::WORKS.map(|work| work.name)) {
            assert_eq!(of(name, json!({ "acked": 1, "lost_without_sync": 2 })), None);
            for none in [json!({}), json!({ "acked": 1 }), json!({ "lost_without_sync": 0 })] {
                assert!(of(name, none).is_some(), "{name}");
            }
            assert!(of(name, json!({ "lost_without_sync": "2" })).is_some(), "no number");
        }
        assert_eq!(of(KILLS, json!({ "acked": 1 })), None);
        assert!(of(KILLS, json!({})).is_some());
    }
}
