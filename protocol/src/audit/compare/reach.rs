//! How far a log goes for certain. An entry's time may be wrong; its place is not.

use crate::audit::Line;

/// Feed and core note what they delivered and received once a minute, and their clocks may differ by as much: what is younger than
/// this before the end of one of the logs may not be in the other yet.
pub const SLACK_MS: i64 = 120_000;

/// The time up to which a log goes: what its last entry tells. One before it that tells a later time shows that a clock was wrong, and not that
/// the log goes so far.
pub(super) fn end(log: &[Line]) -> i64 {
    log.last().map_or(i64::MIN, |line| line.entry.at_ms)
}

/// The first entry that tells a time after its log's end, clocks allowed for: one of the two is wrong, and the log counts up to its end's.
#[must_use]
pub fn ahead(log: &[Line]) -> Option<u64> {
    let end = end(log).saturating_add(SLACK_MS);
    log.iter().find(|line| line.entry.at_ms > end).map(|line| line.n)
}

/// The entries up to the last one that is no younger than this. Those before it may be younger, where that one's time is wrong.
pub(super) fn until(log: &[Line], until_ms: i64) -> &[Line] {
    let last = log.iter().rposition(|line| line.entry.at_ms <= until_ms);
    last.and_then(|last| log.get(..=last)).unwrap_or_default()
}

/// The entries of a log that are no older than any before them: their times and numbers.
pub(super) struct Reach(Vec<(i64, u64)>);

impl Reach {
    pub(super) fn of(log: &[Line]) -> Self {
        let (mut newest, mut rising) = (i64::MIN, Vec::new());
        for line in log {
            if line.entry.at_ms >= newest {
                newest = line.entry.at_ms;
                rising.push((newest, line.n));
            }
        }
        Self(rising)
    }

    /// The last entry that was written by this time for certain; 0 where none was. What stands behind the first one that is younger was
    /// written after it, whatever time it tells. An entry that is older than one before it shows nothing either: its clock may have gone back
    /// after a time in which nothing was written.
    pub(super) fn until(&self, until_ms: i64) -> u64 {
        let count = self.0.partition_point(|(at_ms, _)| *at_ms <= until_ms);
        count.checked_sub(1).and_then(|last| self.0.get(last)).map_or(0, |(_, n)| *n)
    }
}

/// The entries that were written by this time for certain.
pub(super) fn covered(log: &[Line], until_ms: i64) -> &[Line] {
    let last = Reach::of(log).until(until_ms);
    log.get(..log.partition_point(|line| line.n <= last)).unwrap_or_default()
}
