//! Whether the logs of gateway, core and feed agree.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::{Delivered, Line, What, WrapRun};
use crate::id::{DataClass, PatientId, RecipientId};
use crate::key::{TREE_DEPTH, epoch_of};

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
    /// The core delivered a key, or the feed received one, that no gateway's log has wrapped.
    #[error("{whose}'s entry {n}: a key of {class} of patient {patient}, generation {generation}, epoch {epoch}, was delivered, and no gateway's log has wrapped it", class = .class.as_str())]
    Unwrapped {
        /// Whose log says so.
        whose: &'static str,
        /// Its entry.
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
    /// A gateway's log has no entry. It tells nothing, so no key would be looked for in its name.
    #[error("a gateway's log is empty, so it does not tell for whom keys were wrapped")]
    Empty,
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
            Self::Empty => "empty",
        }
    }

    /// The first entry that does not agree, and whose log it is in; of an empty log the one that is not there.
    #[must_use]
    pub fn entry(&self) -> (&'static str, u64) {
        match self {
            Self::Unreceived { n, .. } => ("core", *n),
            Self::Undelivered { n, .. } | Self::Unexplained { n, .. } => ("feed", *n),
            Self::Unwrapped { whose, n, .. } | Self::Apart { whose, n } => (whose, *n),
            Self::Empty => ("gateway", 1),
        }
    }
}

/// Feed and core note what they delivered and received once a minute, and their clocks may differ by as much: what is younger than
/// this before the end of one of the logs may not be in the other yet.
pub const SLACK_MS: i64 = 120_000;

/// Which keys are looked for in gateways' logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// Those of this epoch and later; 0 where the logs are here from their first entries on.
    pub from: u32,
    /// Those that were delivered up to this time, Unix milliseconds.
    pub until_ms: i64,
}

/// Holds the log of `recipient`'s feed against the core's, and the keys of both against the logs of the gateways. Where no gateway's log is
/// given, keys are not looked at; which are looked for says [`keys`]. Answers with the time, Unix milliseconds, up to which they were compared.
///
/// A log ends with its latest time, whichever entry has it, and an entry is as old as the oldest behind it: an entry with a time that is wrong
/// switches nothing off. What was delivered must have been received at some time, and the other way round: that it was delivered once more and
/// this was not noted is not found, since a connection that breaks makes the same difference.
///
/// # Errors
/// [`Disagreement`], the first one in the core's log, then in the feed's; [`Disagreement::Apart`] where nothing could be compared;
/// [`Disagreement::Empty`] where a gateway's log has no entry.
pub fn agree(
    recipient: RecipientId,
    feed: &[Line],
    core: &[Line],
    gateways: &[&[Line]],
) -> Result<i64, Disagreement> {
    if gateways.iter().any(|log| log.is_empty()) {
        return Err(Disagreement::Empty);
    }
    let compared = Compared::of(feed, core);
    for (whose, log, compared) in [("core", core, compared.core), ("feed", feed, compared.feed)] {
        let settled = until(log, end(log).saturating_sub(2 * SLACK_MS));
        if deliveries(recipient, compared).next().is_none()
            && let Some((line, _)) = deliveries(recipient, settled).next()
        {
            return Err(Disagreement::Apart { whose, n: line.n });
        }
    }
    let (received, fetched) = (segments(recipient, feed), segments(recipient, core));
    let (wrapped, of) = (wrapped(recipient, gateways), looked_for(recipient, &compared, gateways));
    let of_core = Search::new("core", compared.core, &of, &wrapped);
    for (line, delivered) in deliveries(recipient, compared.core) {
        if let Some(segment) = not_in(&received, delivered) {
            let (n, patient, class) = (line.n, delivered.patient, delivered.class);
            return Err(Disagreement::Unreceived { n, patient, class, segment });
        }
        of_core.check(line, delivered)?;
    }
    let of_feed = Search::new("feed", compared.feed, &of, &wrapped);
    for line in compared.feed {
        explained(recipient, line, &received, &fetched, &of_feed)?;
    }
    Ok(compared.until_ms)
}

/// Which keys [`agree`] looks for, of each patient of whom core or feed has some: none where no gateway's log is given, or no key was
/// delivered.
///
/// A patient's are looked for up to the newest end of the logs that wrap for this patient, and from the first epoch on of which all keys are
/// here. An epoch's key is wrapped in its minute or later, so a log of which older entries are not here has those of all epochs after its
/// beginning. A gateway whose clock was ahead wrapped keys of later epochs: those of the first one that is here.
#[must_use]
pub fn keys(recipient: RecipientId, feed: &[Line], core: &[Line], gateways: &[&[Line]]) -> Option<Keys> {
    let of = looked_for(recipient, &Compared::of(feed, core), gateways);
    of.into_values().reduce(|one, other| {
        let (from, until_ms) = (one.from.max(other.from), one.until_ms.min(other.until_ms));
        Keys { from, until_ms }
    })
}

/// What of feed's and core's logs is compared.
struct Compared<'l> {
    /// Up to this time.
    until_ms: i64,
    feed: &'l [Line],
    core: &'l [Line],
}

impl<'l> Compared<'l> {
    fn of(feed: &'l [Line], core: &'l [Line]) -> Self {
        let until_ms = end(feed).min(end(core)).saturating_sub(SLACK_MS);
        Self { until_ms, feed: until(feed, until_ms), core: until(core, until_ms) }
    }
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

/// What one gateway's log tells of keys.
struct Told {
    /// Up to when, Unix milliseconds.
    until_ms: i64,
    /// The epoch in which it begins, clocks allowed for; none where it is here from its first entry on.
    begins: Option<u32>,
    /// The first epoch of which a key was wrapped that was none of the past.
    first: Option<u32>,
    /// The same of each patient for whom it wraps.
    first_of: BTreeMap<PatientId, Option<u32>>,
}

impl Told {
    fn by(log: &[Line]) -> Self {
        let until_ms = end(log).saturating_sub(SLACK_MS);
        let begins_ms = log.first().filter(|line| line.n > 1).map(|line| line.entry.at_ms);
        let begins = begins_ms.map(|ms| epoch_of(ms.saturating_add(SLACK_MS).saturating_mul(1000)));
        let mut told = Self { until_ms, begins, first: None, first_of: BTreeMap::new() };
        for line in log {
            if let What::Wrapped { patient, epoch, depth, .. } = &line.entry.what {
                let own = (*depth == TREE_DEPTH).then_some(*epoch);
                told.first = told.first.or(own);
                let of_patient = told.first_of.entry(*patient).or_default();
                *of_patient = of_patient.or(own);
            }
        }
        told
    }

    fn own(&self, patient: PatientId) -> Option<u32> {
        self.first_of.get(&patient).copied().flatten()
    }

    /// The first epoch of which it has all keys of this patient that its gateway wrapped.
    fn since(&self, patient: PatientId) -> u32 {
        // One that wrapped for others first was no further then.
        let ahead = self.first.into_iter().chain(self.own(patient)).min().unwrap_or(0);
        self.begins.map_or(0, |begins| begins.max(ahead).saturating_add(1))
    }
}

/// Which keys of this patient the logs tell of. Those that wrap for the patient say so, and all where none does: one that was lost tells
/// nothing any more of a patient who has another gateway now.
fn told_of(patient: PatientId, told: &[Told]) -> Keys {
    let (own, others): (Vec<&Told>, Vec<&Told>) =
        told.iter().partition(|log| log.first_of.contains_key(&patient));
    let since = |logs: &[&Told]| logs.iter().map(|log| log.since(patient)).max().unwrap_or(0);
    let ends = |logs: &[&Told]| logs.iter().map(|log| log.until_ms).max();
    let Some(until_ms) = ends(&own) else {
        return Keys { from: since(&others), until_ms: ends(&others).unwrap_or(i64::MIN) };
    };
    // Another whose older entries are not here may have wrapped for the patient, before these began to.
    let began = own.iter().filter_map(|log| log.own(patient)).min().unwrap_or(u32::MAX);
    Keys { from: since(&own).max(since(&others).min(began)), until_ms }
}

/// Of each patient of whom core or feed has keys, which of them are looked for.
fn looked_for(
    recipient: RecipientId,
    compared: &Compared<'_>,
    gateways: &[&[Line]],
) -> BTreeMap<PatientId, Keys> {
    if gateways.is_empty() {
        return BTreeMap::new();
    }
    let told: Vec<Told> = gateways.iter().map(|log| Told::by(log)).collect();
    let both = deliveries(recipient, compared.core).chain(deliveries(recipient, compared.feed));
    let with_keys = both.filter(|(_, delivered)| !delivered.wraps.is_empty());
    let patients: BTreeSet<PatientId> = with_keys.map(|(_, delivered)| delivered.patient).collect();
    let keys = |patient| {
        let Keys { from, until_ms } = told_of(patient, &told);
        Keys { from, until_ms: until_ms.min(compared.until_ms) }
    };
    patients.into_iter().map(|patient| (patient, keys(patient))).collect()
}

/// Looks for the keys in one end's log.
struct Search<'l> {
    whose: &'static str,
    wrapped: &'l Wrapped,
    /// Of each patient those of which epoch and later, and up to which entry. By its place and not by its time: that may be wrong.
    of: BTreeMap<PatientId, (u32, u64)>,
}

impl<'l> Search<'l> {
    fn new(
        whose: &'static str,
        log: &[Line],
        keys: &BTreeMap<PatientId, Keys>,
        wrapped: &'l Wrapped,
    ) -> Self {
        let last = |keys: &Keys| until(log, keys.until_ms).last().map_or(0, |line| line.n);
        let of = keys.iter().map(|(patient, keys)| (*patient, (keys.from, last(keys)))).collect();
        Self { whose, wrapped, of }
    }

    fn check(&self, line: &Line, delivered: &Delivered) -> Result<(), Disagreement> {
        let (whose, n, patient, class) = (self.whose, line.n, delivered.patient, delivered.class);
        let looked_at = self.of.get(&patient).filter(|(_, last)| n <= *last);
        match looked_at.and_then(|(from, _)| not_wrapped(self.wrapped, delivered, *from)) {
            Some((generation, epoch)) => {
                Err(Disagreement::Unwrapped { whose, n, patient, class, generation, epoch })
            }
            None => Ok(()),
        }
    }
}

/// Segments of each chain, in runs that don't touch.
type Runs = BTreeMap<(PatientId, DataClass), Vec<(u64, u64)>>;

/// Keys of each chain and generation, by epoch, in runs that don't touch.
type Wrapped = BTreeMap<(PatientId, DataClass, u32), Vec<(u64, u64)>>;

/// What a log says was delivered to `recipient`.
fn segments(recipient: RecipientId, log: &[Line]) -> Runs {
    let mut chains: BTreeMap<_, BTreeSet<(u64, u64)>> = BTreeMap::new();
    for (_, delivered) in deliveries(recipient, log) {
        let chain = chains.entry((delivered.patient, delivered.class)).or_default();
        chain.extend(delivered.segments.iter().map(|run| (run.0, run.1)));
    }
    chains.iter().map(|(chain, runs)| (*chain, joined(runs))).collect()
}

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

/// The first segment of `run` that is in none of `runs`.
fn outside(runs: Option<&Vec<(u64, u64)>>, run: (u64, u64)) -> Option<u64> {
    let holds = runs.and_then(|runs| runs.iter().find(|known| (known.0..=known.1).contains(&run.0)));
    match holds {
        None => Some(run.0),
        Some(known) if known.1 < run.1 => Some(known.1 + 1),
        Some(_) => None,
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

/// What was received was delivered, its keys were wrapped, and what was shown or written out was received.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "no other entry says what was received, shown or written out"
)]
fn explained(
    recipient: RecipientId,
    line: &Line,
    received: &Runs,
    fetched: &Runs,
    keys: &Search<'_>,
) -> Result<(), Disagreement> {
    let n = line.n;
    match &line.entry.what {
        What::Received { recipient: who, delivered } if *who == recipient => match not_in(fetched, delivered)
        {
            Some(segment) => {
                let (patient, class) = (delivered.patient, delivered.class);
                Err(Disagreement::Undelivered { n, patient, class, segment })
            }
            None => keys.check(line, delivered),
        },
        What::Look { patient, class, .. } | What::Exported { patient, class, .. }
            if !received.contains_key(&(*patient, *class)) =>
        {
            Err(Disagreement::Unexplained { n, patient: *patient, class: *class })
        }
        _ => Ok(()),
    }
}
