//! Which case runs next and against whom, and what its verdicts add up to. No input or output.
//!
//! Cases of one frame run several at once. Those that send at a rate for half a minute are judged by what arrives, so they come
//! after, slow ones first, as many at once as leave the machine idle enough; the fastest run alone.

use std::collections::VecDeque;
use std::fmt;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Of a case of the group `group`, whose verdict hangs on timing: the best of so many tries counts, for both sides.
const GROUP_TRIES: usize = 3;
/// Frames per second that cases which run at once may send together: less than half of what two cores can, which is some 20,000.
/// A case that sends more runs alone.
const PKTPS_MAX: u32 = 8_000;
/// What a case of one frame takes before any was measured: every fifth waits a second for counters.
const ONE_SECONDS: f64 = 0.3;
/// The same for a case that sends at a rate.
const RATE_SECONDS: f64 = 31.0;

/// Of the suite's 991, so many or more are to be passed.
const PASSED_MIN: u64 = 740;

/// Whose switch is tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Side {
    Ours,
    Ovs,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "ours",
            Self::Ovs => "ovs",
        })
    }
}

/// The folders of the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[expect(clippy::enum_variant_names, reason = "the suite's own names")]
pub(super) enum Group {
    Action,
    Match,
    Meter,
    Group,
}

impl Group {
    const ALL: [Self; 4] = [Self::Action, Self::Match, Self::Meter, Self::Group];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::Match => "match",
            Self::Meter => "meter",
            Self::Group => "group",
        }
    }
}

/// One case of the suite, as its list has it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Case {
    pub(super) group: Group,
    /// Relative to the suite's folder.
    pub(super) file: String,
    /// Its description; with the file it is unique.
    pub(super) name: String,
    /// Frames per second that are sent for half a minute; 0 where it is one frame.
    pub(super) pktps: u32,
}

impl Case {
    /// As results name it.
    pub(super) fn title(&self) -> String {
        format!("{}: {}", self.file.trim_end_matches(".json"), self.name)
    }

    fn tries(&self) -> usize {
        if self.group == Group::Group { GROUP_TRIES } else { 1 }
    }
}

/// What a worker is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Run this case.
    Run(usize),
    /// Nothing for it now; ask again after the next verdict.
    Wait,
    /// Nothing ever again.
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Task {
    side: Side,
    case: usize,
}

/// The verdicts of one case for one side: runs, each of one or more tries of which the best counts.
#[derive(Debug, Clone, Default)]
struct Book {
    runs: Vec<Vec<bool>>,
}

impl Book {
    /// Runs that are decided, and how.
    fn decided(&self, tries: usize) -> impl Iterator<Item = bool> {
        self.runs.iter().filter_map(move |run| match run.contains(&true) {
            true => Some(true),
            false if run.len() >= tries => Some(false),
            false => None,
        })
    }

    fn is_open(&self, tries: usize) -> bool {
        self.decided(tries).count() < self.runs.len()
    }

    fn first(&self, tries: usize) -> Option<bool> {
        self.decided(tries).next()
    }
}

/// The whole of it.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) cases: Vec<Case>,
    sides: Vec<Side>,
    runs: usize,
    labs: usize,
    pending: VecDeque<Task>,
    running: Vec<Task>,
    ours: Vec<Book>,
    ovs: Vec<Book>,
    /// How long cases took: side, group, seconds.
    took: Vec<(Side, Group, f64)>,
}

impl Plan {
    /// Each case against each side. `runs` is how often a case runs where one side alone is asked; with both, how many runs Open
    /// vSwitch must pass for a case that fails for us to count against us (more than the first only where that is in question).
    pub(super) fn new(cases: Vec<Case>, sides: &[Side], runs: usize, labs: usize) -> Self {
        let books = vec![Book::default(); cases.len()];
        let pending =
            (0..cases.len()).flat_map(|case| sides.iter().map(move |&side| Task { side, case })).collect();
        let sides = sides.to_vec();
        let (running, took) = (Vec::new(), Vec::new());
        Self { cases, sides, runs, labs, pending, running, ours: books.clone(), ovs: books, took }
    }

    fn book(&self, side: Side, case: usize) -> &Book {
        match side {
            Side::Ours => &self.ours[case],
            Side::Ovs => &self.ovs[case],
        }
    }

    fn pktps(&self, task: &Task) -> u32 {
        self.cases[task.case].pktps
    }

    /// The next case for a worker of this side.
    pub(super) fn take(&mut self, side: Side) -> Turn {
        if self.is_done() {
            return Turn::Done;
        }
        let mine = self.pending.iter().enumerate().filter(|(_, task)| task.side == side);
        let Some((at, task)) = mine.min_by_key(|(at, task)| (self.pktps(task), *at)) else {
            return Turn::Wait;
        };
        if !self.has_room(self.pktps(task)) {
            return Turn::Wait;
        }
        let task = *task;
        self.pending.remove(at);
        self.running.push(task);
        Turn::Run(task.case)
    }

    /// Whether a case that sends this much can begin.
    fn has_room(&self, pktps: u32) -> bool {
        let sent: u32 = self.running.iter().map(|task| self.pktps(task)).sum();
        let singles = self.running.iter().chain(&self.pending).any(|task| self.pktps(task) == 0);
        match pktps {
            // Second runs come up while others send.
            0 => sent <= PKTPS_MAX,
            _ => !singles && (self.running.is_empty() || sent + pktps <= PKTPS_MAX),
        }
    }

    /// Takes a verdict, and how long it took.
    pub(super) fn give(&mut self, side: Side, case: usize, passed: bool, seconds: f64) {
        self.took.push((side, self.cases[case].group, seconds));
        self.running.retain(|task| *task != Task { side, case });
        let tries = self.cases[case].tries();
        let book = match side {
            Side::Ours => &mut self.ours[case],
            Side::Ovs => &mut self.ovs[case],
        };
        let is_open = book.is_open(tries);
        match book.runs.last_mut() {
            Some(run) if is_open => run.push(passed),
            Some(_) | None => book.runs.push(vec![passed]),
        }
        for side in self.sides.clone() {
            let task = Task { side, case };
            if self.wants(task) && !self.running.contains(&task) && !self.pending.contains(&task) {
                self.pending.push_back(task);
            }
        }
    }

    fn wants(&self, Task { side, case }: Task) -> bool {
        let tries = self.cases[case].tries();
        let book = self.book(side, case);
        book.is_open(tries) || book.runs.len() < self.runs_for(side, case)
    }

    fn runs_for(&self, side: Side, case: usize) -> usize {
        let tries = self.cases[case].tries();
        match (self.sides.as_slice(), side) {
            ([_], _) => self.runs,
            (_, Side::Ours) => 1,
            (_, Side::Ovs) => {
                let in_question = self.ours[case].first(tries) == Some(false)
                    && !self.ovs[case].runs.is_empty()
                    && self.ovs[case].decided(tries).all(|passed| passed);
                if in_question { self.runs } else { 1 }
            }
        }
    }

    /// Whether nothing runs or waits.
    pub(super) fn is_done(&self) -> bool {
        self.pending.is_empty() && self.running.is_empty()
    }

    /// How long the rest takes, in seconds, with so much between two cases, if cases go on as they went.
    pub(super) fn seconds_left(&self, interval: f64) -> f64 {
        let each = 1.0 / f64::from(u32::try_from(self.labs).unwrap_or(1).max(1));
        let tasks = self.pending.iter().chain(&self.running);
        tasks
            .map(|task| {
                let share = f64::from(self.pktps(task)) / f64::from(PKTPS_MAX);
                (self.seconds_each(task) + interval) * share.clamp(each, 1.0)
            })
            .sum()
    }

    fn seconds_each(&self, task: &Task) -> f64 {
        let group = self.cases[task.case].group;
        let alike = self.took.iter().filter(|took| (took.0, took.1) == (task.side, group));
        let (sum, count) = alike.fold((0.0, 0_u32), |(sum, count), took| (sum + took.2, count + 1));
        match (count, self.pktps(task)) {
            (0, 0) => ONE_SECONDS,
            (0, _) => RATE_SECONDS,
            (_, _) => sum / f64::from(count),
        }
    }

    /// The groups of what runs now.
    pub(super) fn groups_running(&self) -> Vec<Group> {
        let is_running =
            |group: &Group| self.running.iter().any(|task| self.cases[task.case].group == *group);
        Group::ALL.into_iter().filter(is_running).collect()
    }

    /// Verdicts so far of a side: decided, and passed.
    pub(super) fn so_far(&self, side: Side) -> (usize, usize) {
        let first = |case: usize| self.book(side, case).first(self.cases[case].tries());
        let decided: Vec<bool> = (0..self.cases.len()).filter_map(first).collect();
        (decided.len(), decided.iter().filter(|passed| **passed).count())
    }

    /// Cases whose runs did not agree.
    pub(super) fn unsteady(&self) -> Vec<String> {
        let disagrees = |case: usize| {
            self.sides.iter().any(|&side| {
                let runs: Vec<bool> = self.book(side, case).decided(self.cases[case].tries()).collect();
                runs.contains(&true) && runs.contains(&false)
            })
        };
        (0..self.cases.len()).filter(|&case| disagrees(case)).map(|case| self.cases[case].title()).collect()
    }

    fn passed(&self, side: Side, group: Option<Group>) -> Value {
        if !self.sides.contains(&side) {
            return Value::Null;
        }
        let is_passed = |case: &usize| {
            group.is_none_or(|group| self.cases[*case].group == group)
                && self.book(side, *case).first(self.cases[*case].tries()) == Some(true)
        };
        json!((0..self.cases.len()).filter(is_passed).count())
    }

    fn ovs_only(&self) -> Vec<String> {
        let is_only_theirs = |case: usize| {
            let tries = self.cases[case].tries();
            let theirs = &self.ovs[case];
            self.ours[case].first(tries) == Some(false)
                && theirs.decided(tries).count() >= self.runs
                && theirs.decided(tries).all(|passed| passed)
        };
        (0..self.cases.len())
            .filter(|&case| is_only_theirs(case))
            .map(|case| self.cases[case].title())
            .collect()
    }

    /// The result. A side that was not asked is null.
    pub(super) fn summary(&self) -> Value {
        let count = |group: Group| self.cases.iter().filter(|case| case.group == group).count();
        let groups = Group::ALL.iter().map(|&group| {
            let result = json!({
                "total": count(group),
                "passed": self.passed(Side::Ours, Some(group)),
                "ovs_passed": self.passed(Side::Ovs, Some(group)),
            });
            (group.name().to_owned(), result)
        });
        json!({
            "total": self.cases.len(),
            "passed": self.passed(Side::Ours, None),
            "ovs_passed": self.passed(Side::Ovs, None),
            "groups": groups.collect::<serde_json::Map<_, _>>(),
            "ovs_only": self.ovs_only(),
        })
    }
}

/// Whether our switch does as well as it must. The number in all is asked for only where all ran.
///
/// # Errors
/// What it falls short of.
pub(super) fn shortfall(summary: &Value, is_whole: bool) -> anyhow::Result<()> {
    let passed = summary["passed"].as_u64().context("our switch was not asked")?;
    ensure!(!is_whole || passed >= PASSED_MIN, "our switch passes {passed} cases, fewer than {PASSED_MIN}");
    for group in [Group::Meter, Group::Group] {
        let result = &summary["groups"][group.name()];
        ensure!(result["passed"] == result["total"], "cases of {} fail: {result}", group.name());
    }
    let only = &summary["ovs_only"];
    ensure!(only.as_array().is_some_and(Vec::is_empty), "only Open vSwitch passes {only}");
    Ok(())
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
