//! What comes of power cuts.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// Kept of what is said in words: the first tell what it is about.
const NOTES_MAX: usize = 8;

/// Over all points at which the power was cut.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// What was promised at the run's end.
    pub acked: u64,
    /// Points that were tried.
    pub points: u64,
    /// Promised, and not there; it counts at each point.
    pub lost: u64,
    /// Points at which anything is.
    pub losing_points: u64,
    /// There more than once.
    pub duplicated: u64,
    /// There, and nobody made it so: bytes that were never written, a chain that does not hold, a number that was given out twice.
    pub undetected_corruptions: u64,
    /// Damage that is told of, where a disk only lost power.
    pub false_alarms: u64,
    /// Points at which the daemons were started on what was left, and went on.
    pub resumed: u64,
    /// Writes, flushes and marks of the run.
    pub entries: usize,
    /// Flushes among them.
    pub flushes: usize,
    /// In words, what of the first losses was lost.
    pub notes: Vec<String>,
}

impl AddAssign for Report {
    /// Adds what was found at points; what the run itself was stays.
    fn add_assign(&mut self, other: Self) {
        self.points += other.points;
        self.lost += other.lost;
        self.losing_points += other.losing_points;
        self.duplicated += other.duplicated;
        self.undetected_corruptions += other.undetected_corruptions;
        self.false_alarms += other.false_alarms;
        self.resumed += other.resumed;
        let room = NOTES_MAX.saturating_sub(self.notes.len());
        self.notes.extend(other.notes.into_iter().take(room));
    }
}
