//! `cargo xtask test`: everything that must hold before a change lands, from a clean machine within an hour on two cores.
//! Each step is named; a failed one does not keep the others from running, and the last line counts them.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use caregate_host::clock;
use clap::Args;

use crate::build::TestProgram;
use crate::{build, interop, linked, recordings, say, setup, solidity};

/// Seconds of each story in the gate: long enough for cut, drain, kill and recovery.
const STORY_SECONDS: &str = "60";
/// What is built by itself as well.
const PROGRAMS: &[&str] = &[
    "edge-gateway",
    "caregate-switch",
    "sdn-controller",
    "core-cloud",
    "clinician-feed",
    "ledger-node",
    "caregatectl",
];
/// Seconds of each fuzz target in the long run.
const FUZZ_SECONDS: u32 = 120;
/// Power cuts of each store in the gate, and a kill at each named point: two minutes.
const CHAOS_ROUNDS: &str = "400";
/// The same in the long run: ten kills at each named point.
const LONG_CHAOS_ROUNDS: &str = "10000";
/// Seconds of the long story.
const LONG_STORY_SECONDS: &str = "1800";

/// Run the gate: formatting, lints, documentation, tests of every part, interoperation with what others wrote, and the
/// demo's story on generated and recorded signals.
///
/// As root it installs what it needs; otherwise it names the one command that would. A missing peer fails the run by name.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// What does not fit the hour instead: long stories, soaks, suites and controllers of others, other kernels, fuzzing.
    #[arg(long)]
    long: bool,
    /// Run only the steps whose name has this in it.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// List the steps.
    #[arg(long)]
    list: bool,
}

struct Step {
    name: String,
    work: Box<dyn Fn() -> anyhow::Result<()>>,
}

fn step(name: &str, work: impl Fn() -> anyhow::Result<()> + 'static) -> Step {
    Step { name: name.into(), work: Box::new(work) }
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = build::cargo_command();
    command.args(arguments);
    command
}

fn in_root(mut command: Command) -> anyhow::Result<()> {
    build::run(command.current_dir(build::root()?))
}

fn npm(folder: &str, arguments: &'static [&'static str]) -> anyhow::Result<()> {
    build::run(Command::new("npm").args(arguments).current_dir(build::root()?.join(folder)))
}

/// Runs the gate.
///
/// # Errors
/// If any step failed.
pub(crate) fn run(args: &TestArgs) -> anyhow::Result<()> {
    let steps = if args.long { long_steps() } else { steps() };
    let chosen: Vec<Step> =
        steps.into_iter().filter(|s| args.only.as_ref().is_none_or(|text| s.name.contains(text))).collect();
    if args.list {
        chosen.iter().for_each(|s| say(&s.name));
        return Ok(());
    }
    if chosen.is_empty() {
        bail!("no step has that in its name; --list shows them");
    }
    let start = clock::monotonic();
    let mut failed = Vec::new();
    for (at, step) in chosen.iter().enumerate() {
        say(&format!("==> [{}/{}] {}", at + 1, chosen.len(), step.name));
        let began = clock::monotonic();
        let outcome = (step.work)();
        let took = began.elapsed();
        match outcome {
            Ok(()) => say(&format!("<== {}: passed in {}", step.name, minutes(took))),
            Err(error) => {
                say(&format!("<== {}: FAILED in {}: {error:#}", step.name, minutes(took)));
                failed.push(format!("{}: {error:#}", step.name));
            }
        }
    }
    say(&format!("the gate took {}", minutes(start.elapsed())));
    if let Some(left_out) = recordings::left_out().filter(|_| !args.long) {
        say(&left_out);
    }
    for failure in &failed {
        say(&format!("failed: {failure}"));
    }
    say(&format!("steps: {} passed, {} failed", chosen.len() - failed.len(), failed.len()));
    match failed.len() {
        0 => Ok(()),
        n => bail!("{n} of {} steps failed", chosen.len()),
    }
}

fn minutes(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

fn steps() -> Vec<Step> {
    let mut steps = vec![
        step("setup", || setup::ensure(&[setup::DEMO, setup::STORY, setup::TESTS])),
        step("format", || in_root(cargo(&["fmt", "--all", "--check"]))),
        step("page: types, tests, build", || {
            build::page()?;
            npm("clinician-feed/web", &["run", "--silent", "check"])?;
            npm("clinician-feed/web", &["test", "--silent"])
        }),
        step("FHIR validator: packages", || build::npm_packages("tests/fhir").map(drop)),
        step("MQTT clients: packages", interop::mqtt_clients),
        step("other cryptography: packages", interop::key_peers),
        step("lints", || {
            lints(&[&["--release"], &build::WORKSPACE, &["--all-targets"]])?;
            // Not among all targets, since they are not run unasked; and the core as it is without NATS.
            lints(&[&["--release"], &build::WORKSPACE, &["--test", "interop", "--test", "chaos"]])?;
            // As a workspace: by itself it would choose other features of the crates below, and have them checked again.
            lints(&[&["--release", "--workspace", "--all-targets"]])
        }),
        step("documentation", || {
            let mut doc =
                cargo(&["doc", "--release", "--workspace", "--no-deps", "--document-private-items"]);
            doc.env("RUSTDOCFLAGS", "-D warnings");
            in_root(doc)
        }),
        step("NATS server: packages", || interop::nats().map(drop)),
        step("binaries and tests build", build_all),
        step("tests", run_programs),
        step("licences and bans", licences),
        step("eBPF object is what the source builds", || xtask(&["ebpf", "--check"])),
        step("contract is what the source builds", || xtask(&["contracts", "--check"])),
        step("contract: forge", || solidity::test(false)),
        step("contract: slither", solidity::slither),
    ];
    steps.push(step("chaos: kills and power cuts", || xtask(&["chaos", "--rounds", CHAOS_ROUNDS])));
    steps.push(step("story: generator", || story(&[])));
    for name in recordings::names() {
        steps.push(step(&format!("story: {name}"), move || {
            let recording = recordings::find(name)?;
            let mut more = vec!["--speed".to_owned(), recording.speed.into()];
            for record in recording.records {
                more.extend(["--record".into(), record.display().to_string()]);
            }
            story(&more)
        }));
    }
    steps
}

fn lints(of: &[&[&str]]) -> anyhow::Result<()> {
    in_root(cargo(&[&["clippy"], &*of.concat(), &["--", "-D", "warnings"]].concat()))
}

fn build_all() -> anyhow::Result<()> {
    in_root(cargo(&[&["build", "--release", "--bins", "--tests"], &build::WORKSPACE[..]].concat()))
}

fn all_tests() -> Command {
    cargo(&[&["test", "--release", "--no-fail-fast"], &build::WORKSPACE[..]].concat())
}

/// Runs cargo's tests; the error tells which failed and what they said, for they are thousands of lines before the end.
fn run_tests(mut command: Command) -> anyhow::Result<()> {
    let mut failures = Failures::default();
    let outcome = build::run_seen(command.current_dir(build::root()?), |line| failures.see(line));
    outcome.with_context(|| failures.told())
}

/// Test programs that run at a time: they wait for three fifths of their time, for timers, processes and namespaces, which cargo's one after the
/// other leaves unused.
const AT_A_TIME: usize = 2;
/// Those that take longest, which begin first: else the last of them would run on alone.
const LONGEST: [&str; 6] = ["network", "core_cloud", "mqtt", "mqtt_interop", "gateway_to_core", "http"];

/// Runs what cargo would; each program's lines are told when it has ended.
fn run_programs() -> anyhow::Result<()> {
    let mut programs = build::all_test_programs()?;
    let rank = |program: &TestProgram| LONGEST.iter().position(|name| *name == program.name);
    programs.sort_by_key(|program| rank(program).unwrap_or(LONGEST.len()));
    let programs = Mutex::new(VecDeque::from(programs));
    let outcome = Mutex::new((Failures::default(), Vec::new()));
    let next = || programs.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(program) = next() {
                    run_program(&program, &outcome)
                }
            });
        }
    });
    let (failures, broken) = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    match broken.len() {
        0 => Ok(()),
        n => Err(anyhow::anyhow!("{n} test programs failed: {}", broken.join(", ")).context(failures.told())),
    }
}

fn run_program(program: &TestProgram, outcome: &Mutex<(Failures, Vec<String>)>) {
    let began = clock::monotonic();
    let output = build::run_quietly(&mut program.command());
    let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
    let (failures, broken) = &mut *outcome;
    say(&format!("     Running {} ({})", program.name, minutes(began.elapsed())));
    let (lines, ended) = output.unwrap_or_else(|error| (Vec::new(), Err(error)));
    for line in &lines {
        say(line);
        failures.see(line);
    }
    failures.room = 0;
    if let Err(error) = ended {
        say(&format!("error: {error:#}"));
        broken.push(program.name.clone());
    }
}

/// Lines kept of each failed test's own output: a panic's message with what surrounds it.
const FAILURE_LINES: usize = 30;
/// Lines of a panic: where, what, and how to see more.
const PANIC_LINES: usize = 4;
/// Failed tests whose output is kept: more are of one cause.
const FAILURES_KEPT: usize = 10;

/// What the test harness prints of tests that failed.
#[derive(Default)]
struct Failures {
    names: Vec<String>,
    kept: Vec<String>,
    /// Lines that may still be kept of the failure being printed, if one is.
    room: usize,
    outputs: usize,
}

impl Failures {
    fn see(&mut self, line: &str) {
        if line.starts_with("---- ") && line.ends_with(" ----") {
            self.outputs += 1;
            self.room = if self.outputs <= FAILURES_KEPT { FAILURE_LINES } else { 0 };
        } else if line == "failures:" {
            self.room = 0;
        }
        if line.contains(" panicked at ") && self.outputs <= FAILURES_KEPT {
            // After however much the test printed before it.
            self.room = self.room.max(PANIC_LINES);
        }
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.names.push(name.to_owned());
        } else if line.starts_with("error: ") {
            self.kept.push(line.to_owned());
        }
        if self.room > 0 && !line.is_empty() {
            self.room -= 1;
            self.kept.push(format!("  {line}"));
        }
    }

    fn told(&self) -> String {
        let told = format!("tests that failed ({}): {}", self.names.len(), self.names.join(", "));
        std::iter::once(&told).chain(&self.kept).map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

fn story(more: &[String]) -> anyhow::Result<()> {
    let mut arguments = vec!["demo", "--no-build", "--json", "--port", "0", "--seconds", STORY_SECONDS];
    arguments.extend(more.iter().map(String::as_str));
    xtask(&arguments)
}

fn long_steps() -> Vec<Step> {
    vec![
        step("setup", || setup::ensure(&[setup::DEMO, setup::STORY, setup::TESTS])),
        step("binaries", || {
            build::page()?;
            build::npm_packages("tests/fhir")?;
            interop::mqtt_clients()?;
            interop::nats()?;
            build_all()
        }),
        // What they run the gate's tests run as well, on what was found.
        step("fuzz targets build", || {
            in_root(cargo(&[
                "check",
                "--release",
                "--manifest-path",
                "fuzz/Cargo.toml",
                "--target-dir",
                "target",
            ]))
        }),
        // Together each has features that another asked for.
        step("each program by itself", || {
            PROGRAMS.iter().try_for_each(|name| in_root(cargo(&["check", "--release", "--package", name])))
        }),
        step("tests with their long variants", || {
            let mut command = all_tests();
            command.env("CAREGATE_LONG", "1");
            run_tests(command)
        }),
        step("chaos: kills and power cuts", || xtask(&["chaos", "--long", "--rounds", LONG_CHAOS_ROUNDS])),
        step("story: half an hour", || {
            xtask(&["demo", "--no-build", "--json", "--port", "0", "--seconds", LONG_STORY_SECONDS])
        }),
        step("story: on a NATS server", || story(&["--store".into(), "nats".into()])),
        step("controllers of other people", || xtask(&["interop"])),
        step("switch suite of os-ken", || xtask(&["conform", "openflow", "--check"])),
        step("other kernels", || xtask(&["kernels"])),
        step("contract: forge, long", || solidity::test(true)),
        step("fuzz", fuzz),
    ]
}

/// By its place, not as "this program": building the workspace may have put a fresh one there. Its error is told as the step's.
fn xtask(arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new(build::binaries()?.join("xtask"));
    let mut told: Vec<String> = Vec::new();
    let outcome = build::run_seen(command.args(arguments).current_dir(build::root()?), |line| {
        let is_error = line.starts_with("error: ");
        if is_error {
            // The last is the command's own.
            told.clear();
        }
        if is_error || (1..FAILURE_LINES).contains(&told.len()) {
            told.push(line.to_owned());
        }
    });
    outcome.with_context(|| told.join("\n"))
}

/// Installed into the target folder, so that a machine needs it once.
fn tool(name: &str, version: &str) -> anyhow::Result<PathBuf> {
    let root = build::root()?.join("target/tools");
    let program = root.join("bin").join(name);
    if !program.exists() {
        say(&format!("installing {name} {version} into target/tools (minutes)"));
        // Without optimization or debug information: it is run once for what takes a minute to compile.
        let mut install = cargo(&["install", "--locked", "--debug", "--version", version, name, "--root"]);
        install.arg(&root).env("CARGO_PROFILE_DEV_DEBUG", "0");
        in_root(install)?;
    }
    Ok(program)
}

fn licences() -> anyhow::Result<()> {
    let deny = tool("cargo-deny", DENY_VERSION)?;
    // It reads the manifest of every crate of the lock file, those of other systems too, which no build here fetched.
    in_root(cargo(&["fetch", "--locked"]))?;
    linked::check()?;
    let mut command = Command::new(deny);
    command.args(["--offline", "check", "licenses", "bans", "sources"]);
    in_root(command)
}

/// Pinned, so that a new lint of the tool fails no change that has nothing to do with it.
const DENY_VERSION: &str = "0.20.2";
/// As for cargo-deny.
const FUZZ_VERSION: &str = "0.13.2";

fn fuzz() -> anyhow::Result<()> {
    let fuzz = tool("cargo-fuzz", FUZZ_VERSION)?;
    let folder = build::root()?.join("fuzz/fuzz_targets");
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let target =
            path.file_stem().and_then(|stem| stem.to_str()).context("a target's name is no text")?.to_owned();
        say(&format!("fuzz: {target} for {FUZZ_SECONDS} s"));
        let mut command = Command::new(&fuzz);
        // libFuzzer needs flags that stable keeps for itself; no sanitizer, since no nightly is asked for.
        let (corpus, seeds) = (format!("fuzz/corpus/{target}"), format!("fuzz/seeds/{target}"));
        std::fs::create_dir_all(build::root()?.join(&corpus))?;
        command.env("RUSTC_BOOTSTRAP", "1").args(["run", "-s", "none", &target, &corpus, &seeds, "--"]);
        command.arg(format!("-max_total_time={FUZZ_SECONDS}"));
        in_root(command)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_tests_are_told_by_name_with_what_they_said() {
        let printed = "test a::holds ... ok\ntest a::breaks ... FAILED\n\nfailures:\n\n---- a::breaks stdout ----\n\n\
            thread 'a::breaks' panicked at src/a.rs:3:5:\nleft is not right\n\n\nfailures:\n    a::breaks\n\n\
            test result: FAILED. 1 passed; 1 failed\n\nerror: test failed, to rerun pass `-p a --lib`";
        let mut failures = Failures::default();
        printed.lines().for_each(|line| failures.see(line));
        assert_eq!(
            failures.told(),
            "tests that failed (1): a::breaks\n  ---- a::breaks stdout ----\n  thread 'a::breaks' panicked at src/a.rs:3:5:\n  \
             left is not right\nerror: test failed, to rerun pass `-p a --lib`"
        );
    }
}
