//! Whether a log is whole and as it was anchored, and whether the logs of gateway, core and feed agree. Pure; whose anchors
//! they are (signature, ledger) is the caller's to check.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::merkle::Tree;
use super::{Delivered, Hash, Head, Line, LineError, What, WrapRun, leaf_hash};
use crate::id::{DataClass, PatientId, RecipientId};
use crate::key::{TREE_DEPTH, epoch_of};

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

/// Where the logs of gateway, core and feed don't agree.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Disagreement {
    /// The core delivered what the feed's log does not have.
    #[error("core's entry {n}: segment {segment} of {class} of patient {patient} was delivered, and the feed's log has not received it", class = .class.as_str())]
    Unreceived {
        /// The core's entry.
        n: u64,
        /// Whose.
        patient: PatientId,
        /// Of which class.
        class: DataClass,
        /// The first such segment.
        segment: u64,
    },
    /// The feed received what the core's log has not delivered.
    #[error("feed's entry {n}: segment {segment} of {class} of patient {patient} was received, and the core's log has not delivered it", class = .class.as_str())]
    Undelivered {
        /// The feed's entry.
        n: u64,
        /// Whose.
        patient: PatientId,
        /// Of which class.
        class: DataClass,
        /// The first such segment.
        segment: u64,
    },
    /// The core delivered a key that no gateway's log has wrapped.
    #[error("core's entry {n}: a key of {class} of patient {patient}, generation {generation}, epoch {epoch}, was delivered, and no gateway's log has wrapped it", class = .class.as_str())]
    Unwrapped {
        /// The core's entry.
        n: u64,
        /// Whose.
        patient: PatientId,
        /// Of which class.
        class: DataClass,
        /// Of the key.
        generation: u32,
        /// The first such epoch.
        epoch: u32,
    },
    /// Somebody was shown what the feed never received, or it was written out.
    #[error("feed's entry {n}: {class} of patient {patient} was shown or written out, and nothing of it was received", class = .class.as_str())]
    Unexplained {
        /// The feed's entry.
        n: u64,
        /// Whose.
        patient: PatientId,
        /// Of which class.
        class: DataClass,
    },
    /// Nothing of a log could be compared, although it has long told of deliveries: the other is none, or a clock was wrong all the time.
    #[error(
        "{whose}'s entry {n}: something was delivered then, and the other log has nothing that is as old or older; one of their clocks is wrong, or they belong to different times"
    )]
    Apart {
        /// Which log.
        whose: &'static str,
        /// Its first such entry.
        n: u64,
    },
}

impl Disagreement {
    /// A word for programs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreceived { .. } => "unreceived",
            Self::Undelivered { .. } => "undelivered",
            Self::Unwrapped { .. } => "unwrapped",
            Self::Unexplained { .. } => "unexplained",
            Self::Apart { .. } => "apart",
        }
    }

    /// The first entry that does not agree, and whose log it is in.
    #[must_use]
    pub fn entry(&self) -> (&'static str, u64) {
        match self {
            Self::Unreceived { n, .. } | Self::Unwrapped { n, .. } => ("core", *n),
            Self::Undelivered { n, .. } | Self::Unexplained { n, .. } => ("feed", *n),
            Self::Apart { whose, n } => (whose, *n),
        }
    }
}

/// Segments of each chain, in runs that don't touch.
type Runs = BTreeMap<(PatientId, DataClass), Vec<(u64, u64)>>;

/// What was delivered, by chain.
#[derive(Debug, Default)]
struct Sum {
    segments: BTreeMap<(PatientId, DataClass), BTreeSet<(u64, u64)>>,
}

/// Keys of each chain and generation, by epoch, in runs that don't touch.
type Wrapped = BTreeMap<(PatientId, DataClass, u32), Vec<(u64, u64)>>;

/// What gateways' logs say was wrapped for `recipient`.
fn wrapped(recipient: RecipientId, gateways: &[&[Line]]) -> Wrapped {
    let mut nodes: BTreeMap<_, BTreeSet<(u64, u64)>> = BTreeMap::new();
    for line in gateways.iter().copied().flatten() {
        if let What::Wrapped { patient, class, generation, epoch, depth, recipients } = &line.entry.what
            && recipients.contains(&recipient)
        {
            let last = epoch | u32::MAX.checked_shr(u32::from(*depth)).unwrap_or(0);
            let of = nodes.entry((*patient, *class, *generation)).or_default();
            of.insert((u64::from(*epoch), u64::from(last)));
        }
    }
    nodes.iter().map(|(of, nodes)| (*of, joined(nodes))).collect()
}

/// Runs joined where they touch.
fn joined(runs: &BTreeSet<(u64, u64)>) -> Vec<(u64, u64)> {
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (first, last) in runs {
        match joined.last_mut() {
            Some(run) if *first <= run.1.saturating_add(1) => run.1 = run.1.max(*last),
            Some(_) | None => joined.push((*first, *last)),
        }
    }
    joined
}

/// The first epoch whose keys are looked for in these gateways' logs: 0 where each log is here from its first entry on. An epoch's key is
/// wrapped in its minute or later, so a log of which older entries are not here has those of all epochs after its beginning. A gateway whose
/// clock was ahead wrapped keys of later epochs: those of the first one that is here.
#[must_use]
pub fn keys_from(gateways: &[&[Line]]) -> u32 {
    let of = |log: &&[Line]| {
        let begins = log.first().filter(|line| line.n > 1)?.entry.at_ms;
        let by_clock = epoch_of(begins.saturating_add(SLACK_MS).saturating_mul(1000));
        let by_key = log.iter().find_map(|line| own_epoch(&line.entry.what)).unwrap_or(0);
        Some(by_clock.max(by_key).saturating_add(1))
    };
    gateways.iter().filter_map(of).max().unwrap_or(0)
}

/// The epoch of which a key was wrapped, where it is none of the past.
fn own_epoch(what: &What) -> Option<u32> {
    if let What::Wrapped { epoch, depth: TREE_DEPTH, .. } = what { Some(*epoch) } else { None }
}

impl Sum {
    fn add(&mut self, delivered: &Delivered) {
        let chain = self.segments.entry((delivered.patient, delivered.class)).or_default();
        chain.extend(delivered.segments.iter().map(|run| (run.0, run.1)));
    }

    fn joined(&self) -> Runs {
        self.segments.iter().map(|(chain, runs)| (*chain, joined(runs))).collect()
    }
}

/// The first segment of `run` that is in none of `runs`.
fn outside(runs: Option<&Vec<(u64, u64)>>, run: (u64, u64)) -> Option<u64> {
    let holds = runs.and_then(|runs| runs.iter().find(|known| (known.0..=known.1).contains(&run.0)));
    match holds {
        None => Some(run.0),
        Some(known) if known.1 < run.1 => Some(known.1 + 1),
        Some(_) => None,
    }
}

/// Feed and core note what they delivered and received once a minute, and their clocks may differ by as much: what is younger than
/// this before the end of one of the logs may not be in the other yet.
pub const SLACK_MS: i64 = 120_000;

/// Holds the log of `recipient`'s feed against the core's, and the core's against those of the gateways. Where no gateway's log is
/// given, keys are not looked at; those of epochs before [`keys_from`] neither, nor a patient's that were delivered after the end of the logs
/// that wrap for this patient. Answers with the time, Unix milliseconds, up to which they were compared.
///
/// A log ends with its latest time, whichever entry has it, and an entry is as old as the oldest behind it: an entry with a time that is wrong
/// switches nothing off.
///
/// # Errors
/// [`Disagreement`], the first one in the core's log, then in the feed's; [`Disagreement::Apart`] where nothing could be compared.
pub fn agree(
    recipient: RecipientId,
    feed: &[Line],
    core: &[Line],
    gateways: &[&[Line]],
) -> Result<i64, Disagreement> {
    let until_ms = end(feed).min(end(core)).saturating_sub(SLACK_MS);
    let keys_until = KeysUntil::of(gateways);
    let (mut received, mut fetched) = (Sum::default(), Sum::default());
    deliveries(recipient, feed).for_each(|(_, delivered)| received.add(delivered));
    deliveries(recipient, core).for_each(|(_, delivered)| fetched.add(delivered));
    let (wrapped, keys_from) = (wrapped(recipient, gateways), keys_from(gateways));
    let (received, fetched) = (received.joined(), fetched.joined());
    let (of_core, of_feed) = (until(core, until_ms), until(feed, until_ms));
    for (whose, log, compared) in [("core", core, of_core), ("feed", feed, of_feed)] {
        let settled = until(log, end(log).saturating_sub(2 * SLACK_MS));
        if deliveries(recipient, compared).next().is_none()
            && let Some((line, _)) = deliveries(recipient, settled).next()
        {
            return Err(Disagreement::Apart { whose, n: line.n });
        }
    }
    for (line, delivered) in deliveries(recipient, of_core) {
        let (n, patient, class) = (line.n, delivered.patient, delivered.class);
        if let Some(segment) = not_in(&received, delivered) {
            return Err(Disagreement::Unreceived { n, patient, class, segment });
        }
        if line.entry.at_ms <= keys_until.of_patient(patient)
            && let Some((generation, epoch)) = not_wrapped(&wrapped, delivered, keys_from)
        {
            return Err(Disagreement::Unwrapped { n, patient, class, generation, epoch });
        }
    }
    for line in of_feed {
        explained(recipient, line, &received, &fetched)?;
    }
    Ok(until_ms)
}

/// The latest time in a log.
fn end(log: &[Line]) -> i64 {
    log.iter().map(|line| line.entry.at_ms).max().unwrap_or(i64::MIN)
}

/// The entries up to the last one that is no younger than this.
fn until(log: &[Line], until_ms: i64) -> &[Line] {
    let last = log.iter().rposition(|line| line.entry.at_ms <= until_ms);
    last.and_then(|last| log.get(..=last)).unwrap_or_default()
}

/// Up to when gateways' logs tell of keys.
struct KeysUntil {
    /// Of each patient for whom they wrap: the newest end of those that do. One that was lost tells nothing any more of a patient who has
    /// another gateway now.
    of: BTreeMap<PatientId, i64>,
    /// The newest end of all.
    all: i64,
}

impl KeysUntil {
    fn of(gateways: &[&[Line]]) -> Self {
        let mut until = Self { of: BTreeMap::new(), all: i64::MIN };
        for log in gateways {
            let ends = end(log).saturating_sub(SLACK_MS);
            until.all = until.all.max(ends);
            for line in *log {
                if let What::Wrapped { patient, .. } = &line.entry.what {
                    let known = until.of.entry(*patient).or_insert(ends);
                    *known = ends.max(*known);
                }
            }
        }
        until
    }

    fn of_patient(&self, patient: PatientId) -> i64 {
        self.of.get(&patient).copied().unwrap_or(self.all)
    }
}

/// What an entry says was delivered to `recipient`, at either end.
#[expect(clippy::wildcard_enum_match_arm, reason = "no other entry says what was delivered")]
fn deliveries(recipient: RecipientId, log: &[Line]) -> impl Iterator<Item = (&Line, &Delivered)> {
    log.iter().filter_map(move |line| match &line.entry.what {
        What::Received { recipient: who, delivered } | What::Fetched { recipient: who, delivered, .. }
            if *who == recipient =>
        {
            Some((line, delivered))
        }
        _ => None,
    })
}

/// The first segment that is not among `known`.
fn not_in(known: &Runs, delivered: &Delivered) -> Option<u64> {
    let runs = known.get(&(delivered.patient, delivered.class));
    delivered.segments.iter().find_map(|run| outside(runs, (run.0, run.1)))
}

/// The first key of `from` or later that was not wrapped.
fn not_wrapped(wrapped: &Wrapped, delivered: &Delivered, from: u32) -> Option<(u32, u32)> {
    let (patient, class) = (delivered.patient, delivered.class);
    let mut looked_at = delivered.wraps.iter().filter(|run| run.2 >= from);
    looked_at.find_map(|WrapRun(generation, first, last)| {
        let runs = wrapped.get(&(patient, class, *generation));
        let epoch = outside(runs, (u64::from(*first.max(&from)), u64::from(*last)))?;
        Some((*generation, u32::try_from(epoch).unwrap_or(u32::MAX)))
    })
}

/// What was received was delivered, and what was shown or written out was received.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "no other entry says what was received, shown or written out"
)]
fn explained(
    recipient: RecipientId,
    line: &Line,
    received: &Runs,
    fetched: &Runs,
) -> Result<(), Disagreement> {
    let n = line.n;
    match &line.entry.what {
        What::Received { recipient: who, delivered } if *who == recipient => match not_in(fetched, delivered)
        {
            Some(segment) => {
                let (patient, class) = (delivered.patient, delivered.class);
                Err(Disagreement::Undelivered { n, patient, class, segment })
            }
            None => Ok(()),
        },
        What::Look { patient, class, .. } | What::Exported { patient, class, .. }
            if !received.contains_key(&(*patient, *class)) =>
        {
            Err(Disagreement::Unexplained { n, patient: *patient, class: *class })
        }
        _ => Ok(()),
    }
}
