//! `cargo xtask conform SUITE`: conformance suites that others wrote, against our switch and, in the same run, against Open vSwitch.
//!
//! Labs ([`lab`]) run in parallel, each a namespace with a pair of switches and a process of the suite; [`plan`] says what runs next.

pub(crate) mod flow_mods;
mod lab;
mod network;
mod openvswitch;
mod ours;
mod plan;
mod process;
mod suite;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use caregate_host::clock;
use caregate_host::identity::Role;
use caregate_host::key_file::Existing;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use self::lab::{CONTROLLER_NAME, Common, Lab};
use self::plan::{Case, Group, Plan, Side, Turn};
use self::suite::{Suite, Verdict};
use crate::pki::{Authority, Issued, Request};
use crate::{build, say, setup, stop};

/// A lab that lost a switch is made again. Each case that makes a switch end costs one, so the bound is what a broken switch may
/// cost in time before the run ends.
const REPAIRS_MAX: usize = 40;
/// Certificates of a run: it lasts minutes.
const CERTIFICATE_DAYS: u32 = 2;
/// Between two lines about how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Run a conformance suite that others wrote.
///
/// Writes every verdict with the suite's reason, and the logs of all processes.
#[derive(Debug, Args)]
pub(crate) struct ConformArgs {
    /// The suite.
    suite: Name,
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
    /// Whose switch.
    #[arg(long, value_enum, default_value_t = Target::Both)]
    target: Target,
    /// Only one group (action, match, meter, group), or cases that have this in file or name.
    #[arg(long, value_name = "GROUP|TEXT")]
    only: Option<String>,
    /// Seconds between two cases of a lab.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5)]
    interval: f64,
    /// With one target: how often each case runs. With both: in how many runs Open vSwitch must pass a case that fails for us to
    /// be listed in `ovs_only`. [default: 1; with both 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=20))]
    runs: Option<u8>,
    /// Labs at once.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    labs: u8,
    /// Folder for verdicts and logs, which take the place of those there; runs at the same time need one each.
    #[arg(long, value_name = "FOLDER", default_value = "target/conform/openflow")]
    results: PathBuf,
    /// Fail where our switch falls short: a case in `ovs_only`, a meter or group that fails, or fewer than 740 in all.
    #[arg(long)]
    check: bool,
    /// Run what was built for it before.
    #[arg(long)]
    no_build: bool,
    /// Say every case that fails, and why.
    #[arg(long)]
    failures: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Name {
    /// The switch suite in the wheel of os-ken: OpenFlow 1.3, 991 cases.
    Openflow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    Ours,
    Ovs,
    Both,
}

impl Target {
    fn sides(self) -> &'static [Side] {
        match self {
            Self::Ours => &[Side::Ours],
            Self::Ovs => &[Side::Ovs],
            Self::Both => &[Side::Ours, Side::Ovs],
        }
    }
}

/// Runs the suite.
///
/// # Errors
/// What keeps it from running. A case that fails is a result and no error.
pub(crate) fn run(args: &ConformArgs) -> anyhow::Result<()> {
    let Name::Openflow = args.suite;
    if !setup::is_root() || !setup::can_make_namespaces() {
        bail!("the suite needs root and network namespaces; run it as root");
    }
    setup::ensure_tools(&[setup::DEMO, setup::CONFORM])?;
    stop::watch()?;
    let common = prepare(args)?;
    let cases = select(common.suite.cases()?, args.only.as_deref())?;
    let sides = args.target.sides();
    let runs = args.runs.map_or(sides.len(), usize::from);
    let labs = usize::from(args.labs).max(sides.len());
    let results = results_folder(args)?.join("verdicts.jsonl");
    let run = Run {
        plan: Mutex::new(Plan::new(cases, sides, runs, labs)),
        changed: Condvar::new(),
        failure: Mutex::new(None),
        results: Mutex::new(File::create(&results).with_context(|| results.display().to_string())?),
        says_failures: args.failures,
        common,
    };
    let outcome = run.play(sides, labs, args.interval);
    drop(std::fs::remove_dir_all(&run.common.folder));
    outcome?;
    let summary = run.report(args.json, sides, &results)?;
    if args.check { plan::shortfall(&summary, args.only.is_none()) } else { Ok(()) }
}

/// Builds our switch without guard, where `tests/tests/interop` finds it too.
///
/// # Errors
/// If it can't be built.
pub(crate) fn build_ours() -> anyhow::Result<()> {
    ours::programs(true).map(drop)
}

/// From the checkout's folder, if relative.
fn results_folder(args: &ConformArgs) -> anyhow::Result<PathBuf> {
    Ok(build::root()?.join(&args.results))
}

fn prepare(args: &ConformArgs) -> anyhow::Result<Common> {
    let runs = std::env::temp_dir().join("caregate-conform");
    network::remove_leftovers()?;
    ours::remove_leftovers(&runs)?;
    let programs = if args.target == Target::Ovs { None } else { Some(ours::programs(!args.no_build)?) };
    let suite = Suite::install(args.interval)?;
    // Not under the checkout: a socket's path has 108 bytes at most.
    let folder = runs.join(std::process::id().to_string());
    let logs = results_folder(args)?.join("logs");
    if logs.exists() {
        std::fs::remove_dir_all(&logs).with_context(|| logs.display().to_string())?;
    }
    std::fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
    let (controller, switch) = certificates(&folder.join("pki"))?;
    Ok(Common { suite, controller, switch, programs, folder, logs })
}

/// Of the suite as a controller, and of all switches.
fn certificates(folder: &Path) -> anyhow::Result<(Issued, Issued)> {
    let now_s = clock::now_ms().div_euclid(1000);
    let authority = Authority::init(&folder.join("ca"), "conform.example", now_s, Existing::Replace)?;
    let issue = |role: Role, name: &str| {
        let request =
            Request { role, name: name.into(), dns: Vec::new(), ip: Vec::new(), days: CERTIFICATE_DAYS };
        authority.issue(&request, &folder.join(name), now_s, Existing::Replace)
    };
    Ok((issue(Role::Controller, CONTROLLER_NAME)?, issue(Role::Gateway, "switch")?))
}

/// The cases of a group, or those that have a text in them.
fn select(cases: Vec<Case>, only: Option<&str>) -> anyhow::Result<Vec<Case>> {
    let Some(only) = only else { return Ok(cases) };
    let group = Group::from_str(only, false).ok();
    let is_meant = |case: &Case| match group {
        Some(group) => case.group == group,
        None => case.title().contains(only),
    };
    let chosen: Vec<Case> = cases.into_iter().filter(is_meant).collect();
    if chosen.is_empty() {
        bail!("no case has {only:?} in its file or name");
    }
    Ok(chosen)
}

/// A run: the plan, shared by the workers.
struct Run {
    plan: Mutex<Plan>,
    /// The plan has changed, or all is to end.
    changed: Condvar,
    /// Why a worker can't go on.
    failure: Mutex<Option<anyhow::Error>>,
    results: Mutex<File>,
    says_failures: bool,
    common: Common,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Run {
    /// All of the plan, or until something fails or we are to stop.
    fn play(&self, sides: &[Side], labs: usize, interval: f64) -> anyhow::Result<()> {
        let started = clock::monotonic();
        std::thread::scope(|scope| {
            for number in 0..labs {
                let side = sides[number % sides.len()];
                scope.spawn(move || {
                    if let Err(error) = self.work(side, number) {
                        lock(&self.failure).get_or_insert(error);
                    }
                    self.changed.notify_all();
                });
            }
            self.watch(sides, interval, started);
        });
        if stop::requested() {
            bail!("stopped before the end");
        }
        match lock(&self.failure).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn is_over(&self) -> bool {
        stop::requested() || lock(&self.failure).is_some()
    }

    /// One worker: takes cases for its side as long as there are any.
    fn work(&self, side: Side, number: usize) -> anyhow::Result<()> {
        let mut lab: Option<Lab> = None;
        let mut repairs = 0;
        while let Some(at) = self.next(side) {
            let case = lock(&self.plan).cases[at].clone();
            let here = match &mut lab {
                Some(lab) => lab,
                None => lab.insert(Lab::make(side, number, &self.common)?),
            };
            let (verdict, goes_on) = here.verdict(&case);
            if self.is_over() {
                break;
            }
            self.note(side, &case, &verdict)?;
            if self.says_failures && !verdict.passed {
                say(&format!("failed for {side}: {}: {}", case.title(), verdict.reason));
            }
            lock(&self.plan).give(side, at, verdict.passed, verdict.seconds);
            self.changed.notify_all();
            if !goes_on {
                lab = None;
                repairs += 1;
                if repairs > REPAIRS_MAX {
                    bail!("a lab of {side} lost its switches {repairs} times; the last: {}", verdict.reason);
                }
            }
        }
        Ok(())
    }

    /// Waits for a case.
    fn next(&self, side: Side) -> Option<usize> {
        let mut plan = lock(&self.plan);
        loop {
            if self.is_over() {
                return None;
            }
            match plan.take(side) {
                Turn::Run(case) => return Some(case),
                Turn::Done => return None,
                Turn::Wait => {
                    let waited = self.changed.wait_timeout(plan, Duration::from_secs(1));
                    plan = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    fn note(&self, side: Side, case: &Case, verdict: &Verdict) -> anyhow::Result<()> {
        let line = json!({
            "side": side,
            "group": case.group,
            "file": case.file,
            "name": case.name,
            "passed": verdict.passed,
            "reason": verdict.reason,
            "seconds": verdict.seconds,
        });
        Ok(writeln!(lock(&self.results), "{line}")?)
    }

    /// Says how far it is, until all is done.
    fn watch(&self, sides: &[Side], interval: f64, started: std::time::Instant) {
        let mut plan = lock(&self.plan);
        while !plan.is_done() && !self.is_over() {
            let told = clock::monotonic();
            while told.elapsed() < PROGRESS_EVERY && !plan.is_done() && !self.is_over() {
                let waited = self.changed.wait_timeout(plan, Duration::from_millis(500));
                plan = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            say(&progress(&plan, sides, interval, started.elapsed()));
        }
    }

    fn report(&self, json: bool, sides: &[Side], results: &Path) -> anyhow::Result<Value> {
        let plan = lock(&self.plan);
        for title in plan.unsteady() {
            say(&format!("not the same in all runs: {title}"));
        }
        for side in sides {
            let (decided, passed) = plan.so_far(*side);
            say(&format!("{side}: {passed} of {decided} passed"));
        }
        say(&format!("every verdict: {}", results.display()));
        let summary = plan.summary();
        let text = if json { summary.to_string() } else { serde_json::to_string_pretty(&summary)? };
        writeln!(std::io::stdout().lock(), "{text}")?;
        Ok(summary)
    }
}

/// `[120/1982] match · ours 50 of 60, ovs 51 of 60 passed · 0:40, about 5:10 left`
fn progress(plan: &Plan, sides: &[Side], interval: f64, elapsed: Duration) -> String {
    let total = plan.cases.len() * sides.len();
    let done: usize = sides.iter().map(|&side| plan.so_far(side).0).sum();
    let count = |&side: &Side| {
        let (decided, passed) = plan.so_far(side);
        format!("{side} {passed} of {decided}")
    };
    let counts: Vec<String> = sides.iter().map(count).collect();
    let minutes = |time: Duration| format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60);
    let running = plan.groups_running().iter().map(|group| group.name()).collect::<Vec<_>>().join("+");
    format!(
        "[{done}/{total}] {running} · {} passed · {}, about {} left",
        counts.join(", "),
        minutes(elapsed),
        minutes(Duration::try_from_secs_f64(plan.seconds_left(interval)).unwrap_or_default())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases() -> Vec<Case> {
        let case = |group: Group, file: &str, name: &str| Case {
            group,
            file: file.into(),
            name: name.into(),
            pktps: 0,
        };
        vec![
            case(Group::Match, "match/00_IN_PORT.json", "ethernet-->'in_port=1,actions=group:1'"),
            case(Group::Group, "group/00_ALL.json", "2Mbps"),
        ]
    }

    #[test]
    fn a_groups_name_means_the_group_and_other_text_what_has_it() {
        let files = |only: Option<&str>| -> Vec<String> {
            select(cases(), only).unwrap().into_iter().map(|case| case.file).collect()
        };
        assert_eq!(files(None).len(), 2);
        assert_eq!(files(Some("group")), ["group/00_ALL.json"]);
        assert_eq!(files(Some("in_port=1")), ["match/00_IN_PORT.json"]);
        assert_eq!(files(Some("00_ALL")), ["group/00_ALL.json"]);
        let none = select(cases(), Some("nothing has this")).unwrap_err().to_string();
        assert!(none.contains("nothing has this"), "{none}");
    }

    #[test]
    fn progress_says_what_runs_and_how_long_it_takes() {
        let mut plan = Plan::new(cases(), &[Side::Ours], 1, 2);
        assert_eq!(plan.take(Side::Ours), Turn::Run(0));
        plan.give(Side::Ours, 0, true, 0.1);
        assert_eq!(plan.take(Side::Ours), Turn::Run(1));
        let line = progress(&plan, &[Side::Ours], 1.7, Duration::from_secs(65));
        assert_eq!(line, "[1/2] group · ours 1 of 1 passed · 1:05, about 0:01 left");
    }
}
