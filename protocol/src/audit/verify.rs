//! Whether a log is whole and as it was anchored, and whether the logs of gateway, core and feed agree ([`agree`]). Pure; whose
//! anchors they are (signature, ledger) is the caller's to check.

use thiserror::Error;

pub use super::compare::{Disagreement, Keys, SLACK_MS, Uncovered, agree, ahead, keys, uncovered};
use super::merkle::Tree;
use super::{Hash, Head, Line, LineError, leaf_hash};

/// A batch of entries, as it is anchored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Number of its first entry.
    pub first: u64,
    /// Of its last one.
    pub last: u64,
    /// Root of the Merkle tree over its lines.
    pub root: Hash,
}

/// What is wrong with a log, at the first place where something is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// A line is none.
    #[error("entry {n}: line {line} {error}")]
    Malformed {
        /// The number that was due.
        n: u64,
        /// Which line, from 1.
        line: usize,
        /// Why.
        error: LineError,
    },
    /// The entry before or after does not fit it.
    #[error("entry {n} was altered: the entries around it name another")]
    Altered {
        /// Which.
        n: u64,
    },
    /// Entries are not there.
    #[error("entry {n} is missing: {next} follows {before}", before = .n - 1)]
    Missing {
        /// The first of them.
        n: u64,
        /// The next that is there.
        next: u64,
    },
    /// Entries come in another order.
    #[error("entry {n} is out of its place: {found} stands there")]
    Reordered {
        /// Whose place it is.
        n: u64,
        /// What stands there.
        found: u64,
    },
    /// The log ends before what is anchored does.
    #[error("entry {n} is missing: the log ends, and entries up to {anchored} are anchored")]
    CutOff {
        /// The first that is not there.
        n: u64,
        /// The last that is anchored.
        anchored: u64,
    },
    /// A batch's entries agree with each other and not with their anchor: they were written anew, or the anchor is forged.
    #[error("entries {first} to {last} are not those that were anchored")]
    Root {
        /// The batch's first entry.
        first: u64,
        /// Its last.
        last: u64,
    },
    /// Anchors don't follow each other.
    #[error("the anchor of entry {n} is missing: the next one begins with {first}")]
    AnchorGap {
        /// The first entry without an anchor.
        n: u64,
        /// Where the next one begins.
        first: u64,
    },
}

impl Fault {
    /// A word for programs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "malformed",
            Self::Altered { .. } => "altered",
            Self::Missing { .. } => "missing",
            Self::Reordered { .. } => "reordered",
            Self::CutOff { .. } => "cut_off",
            Self::Root { .. } => "root",
            Self::AnchorGap { .. } => "anchor_gap",
        }
    }

    /// The first bad entry.
    #[must_use]
    pub fn entry(&self) -> u64 {
        match self {
            Self::Malformed { n, .. }
            | Self::Altered { n }
            | Self::Missing { n, .. }
            | Self::Reordered { n, .. }
            | Self::CutOff { n, .. }
            | Self::AnchorGap { n, .. } => *n,
            Self::Root { first, .. } => *first,
        }
    }
}

/// A log that is whole.
#[derive(Debug, Clone)]
pub struct Log {
    /// Its entries, from number 1, or those that are here ([`part`]).
    pub lines: Vec<Line>,
    /// How many of them are anchored.
    pub anchored: u64,
    /// Its end.
    pub head: Head,
}

/// Checks a log's text against the batches that are anchored, in their order.
///
/// # Errors
/// [`Fault`], the first one by number.
pub fn log(text: &[u8], batches: &[Batch]) -> Result<Log, Fault> {
    check(&lines_of(text), batches, Head::default())
}

/// Checks the newer part of a log whose older files are not here. What is before its first entry must be anchored, and is not looked at.
/// Entries between the first one and the next batch's beginning are those that were anchored: that batch's first line names the last of
/// them, and so on backwards. Where no batch is here whole, nothing is said to be anchored.
///
/// # Errors
/// [`Fault`], the first one by number; [`Fault::Missing`] where entries that were never anchored are not here.
pub fn part(text: &[u8], batches: &[Batch]) -> Result<Log, Fault> {
    let (lines, anchored) = (lines_of(text), contiguous(batches)?);
    let before = before(&lines, anchored)?;
    let log = check(&lines, batches, before)?;
    let is_whole = batches.last().is_some_and(|last| last.first > before.n);
    Ok(Log { anchored: if is_whole { log.anchored } else { 0 }, ..log })
}

/// Checks that the newer part of a log is chained, up to its end, where entries up to `anchored` are anchored already.
///
/// # Errors
/// As [`part`]; [`Fault::CutOff`] where it ends before that.
pub fn chain(text: &[u8], anchored: u64) -> Result<Log, Fault> {
    let lines = lines_of(text);
    let log = check(&lines, &[], before(&lines, anchored)?)?;
    if log.head.n < anchored {
        return Err(Fault::CutOff { n: log.head.n + 1, anchored });
    }
    Ok(Log { anchored, ..log })
}

/// Checks that the newer part of a log is chained, of which nothing older is here and nothing is said of anchors.
///
/// # Errors
/// As [`part`], but for what is before the first entry that is here.
pub fn newer(text: &[u8]) -> Result<Log, Fault> {
    let lines = lines_of(text);
    check(&lines, &[], before(&lines, u64::MAX)?)
}

/// What the first entry that is here says of the one before.
fn before(lines: &[&[u8]], anchored: u64) -> Result<Head, Fault> {
    let first = lines.first().and_then(|bytes| Line::decode(bytes).ok()).filter(|line| line.n > 0);
    let Some(first) = first else { return Ok(Head::default()) };
    let due = anchored.saturating_add(1);
    if first.n > due {
        return Err(Fault::Missing { n: due, next: first.n });
    }
    Ok(Head { n: first.n - 1, hash: first.prev })
}

fn lines_of(text: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    lines.pop_if(|last| last.is_empty());
    lines
}

/// From the entry after `head` on.
fn check(lines: &[&[u8]], batches: &[Batch], mut head: Head) -> Result<Log, Fault> {
    let anchored = contiguous(batches)?;
    // One that begins before is whole in no part.
    let begins = head.n;
    let mut batches = batches.iter().skip_while(|batch| batch.first <= begins).peekable();
    let (mut entries, mut tree) = (Vec::<Line>::new(), Tree::default());
    for (at, bytes) in lines.iter().enumerate() {
        let due = head.n + 1;
        let line = Line::decode(bytes).map_err(|error| Fault::Malformed { n: due, line: at + 1, error })?;
        if line.n != due {
            return Err(misplaced(due, line.n, &lines[at + 1..]));
        }
        let hash = leaf_hash(bytes);
        if line.prev != head.hash {
            return Err(unlinked(due, &hash, lines.get(at + 1)));
        }
        head = Head { n: due, hash };
        entries.push(line);
        if let Some(batch) = batches.peek().filter(|batch| batch.first <= due) {
            tree.push(hash);
            if batch.last == due {
                if tree.root() != Some(batch.root) {
                    return Err(Fault::Root { first: batch.first, last: batch.last });
                }
                tree = Tree::default();
                batches.next();
            }
        }
    }
    if head.n < anchored {
        return Err(Fault::CutOff { n: head.n + 1, anchored });
    }
    Ok(Log { lines: entries, anchored, head })
}

/// The last anchored entry.
fn contiguous(batches: &[Batch]) -> Result<u64, Fault> {
    batches.iter().try_fold(0_u64, |anchored, batch| {
        let n = anchored.saturating_add(1);
        if batch.first == n && batch.last >= n {
            Ok(batch.last)
        } else {
            Err(Fault::AnchorGap { n, first: batch.first })
        }
    })
}

/// Another number stands where `due` should: `due` comes later, or not at all.
fn misplaced(due: u64, found: u64, rest: &[&[u8]]) -> Fault {
    let later = rest.iter().any(|bytes| Line::decode(bytes).is_ok_and(|line| line.n == due));
    if later || found < due {
        Fault::Reordered { n: due, found }
    } else {
        Fault::Missing { n: due, next: found }
    }
}

/// Entry `n` (of this hash) does not name the one before: it was altered itself, if the next one does not name it either;
/// else the one before was.
fn unlinked(n: u64, hash: &Hash, next: Option<&&[u8]>) -> Fault {
    let named = next.and_then(|bytes| Line::decode(bytes).ok()).map(|line| line.prev == *hash);
    match named {
        Some(false) => Fault::Altered { n },
        Some(true) | None => Fault::Altered { n: n.saturating_sub(1).max(1) },
    }
}
