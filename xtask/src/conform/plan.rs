//! Which case runs next and against whom, and what its verdicts add up to. No input or output.
//!
//! Cases of one frame run several at once. Those that send at a rate for half a minute are judged by what arrives, so they come
//! after, fewer at once; and the fastest come last, each alone. A later load begins when nothing of the earlier is left.

use std::collections::VecDeque;
use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Of a case of the group `group`, whose verdict hangs on timing: the best of so many tries counts, for both sides.
const GROUP_TRIES: usize = 3;
/// Frames per second from which a case keeps one core busy with sending.
const HEAVY_PKTPS: u32 = 5_000;
/// What a case of one frame takes before any was measured: every fifth waits a second for counters.
const ONE_SECONDS: f64 = 0.3;
/// The same for a case that sends at a rate.
const RATE_SECONDS: f64 = 31.0;

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

    fn load(&self) -> Load {
        match self.pktps {
            0 => Load::One,
            1..HEAVY_PKTPS => Load::Light,
            _ => Load::Heavy,
        }
    }

    fn tries(&self) -> usize {
        if self.group == Group::Group { GROUP_TRIES } else { 1 }
    }
}

/// How much a case keeps the machine busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Load {
    One,
    Light,
    Heavy,
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

/// How many cases of each load run at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct AtOnce {
    pub(super) one: usize,
    pub(super) light: usize,
}

/// The whole of it.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) cases: Vec<Case>,
    sides: Vec<Side>,
    runs: usize,
    at_once: AtOnce,
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
    pub(super) fn new(cases: Vec<Case>, sides: &[Side], runs: usize, at_once: AtOnce) -> Self {
        let books = vec![Book::default(); cases.len()];
        let pending =
            (0..cases.len()).flat_map(|case| sides.iter().map(move |&side| Task { side, case })).collect();
        let sides = sides.to_vec();
        let (running, took) = (Vec::new(), Vec::new());
        Self { cases, sides, runs, at_once, pending, running, ours: books.clone(), ovs: books, took }
    }

    fn book(&self, side: Side, case: usize) -> &Book {
        match side {
            Side::Ours => &self.ours[case],
            Side::Ovs => &self.ovs[case],
        }
    }

    fn at_once(&self, load: Load) -> usize {
        match load {
            Load::One => self.at_once.one,
            Load::Light => self.at_once.light,
            Load::Heavy => 1,
        }
    }

    /// The next case for a worker of this side.
    pub(super) fn take(&mut self, side: Side) -> Turn {
        let load = |task: &Task| self.cases[task.case].load();
        let Some(now) = self.running.iter().chain(&self.pending).map(load).min() else { return Turn::Done };
        if self.running.len() >= self.at_once(now) {
            return Turn::Wait;
        }
        let next = self.pending.iter().position(|task| task.side == side && load(task) == now);
        match next.and_then(|at| self.pending.remove(at)) {
            None => Turn::Wait,
            Some(task) => {
                self.running.push(task);
                Turn::Run(task.case)
            }
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
        let left = |load: Load| {
            let tasks = self.pending.iter().chain(&self.running);
            let mine = tasks.filter(|task| self.cases[task.case].load() == load);
            let all: f64 = mine.map(|task| self.seconds_each(*task, load) + interval).sum();
            all / f64::from(u32::try_from(self.at_once(load)).unwrap_or(1))
        };
        left(Load::One) + left(Load::Light) + left(Load::Heavy)
    }

    fn seconds_each(&self, Task { side, case }: Task, load: Load) -> f64 {
        let group = self.cases[case].group;
        let alike = self.took.iter().filter(|took| (took.0, took.1) == (side, group));
        let (sum, count) = alike.fold((0.0, 0_u32), |(sum, count), took| (sum + took.2, count + 1));
        match (count, load) {
            (0, Load::One) => ONE_SECONDS,
            (0, Load::Light | Load::Heavy) => RATE_SECONDS,
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

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
