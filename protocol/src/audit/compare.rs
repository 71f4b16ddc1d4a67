//! Whether the logs of gateway, core and feed agree.

mod not_covered;
mod reach;
mod told;

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::{Delivered, Line, What, WrapRun};
use crate::id::{DataClass, PatientId, RecipientId};
use crate::key::epoch_of;
pub use not_covered::{Uncovered, uncovered};
use reach::{Reach, covered, end, until};
pub use reach::{SLACK_MS, ahead};
use told::{Span, Told, told_of};

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

/// A key whose epoch is later than all logs' ends by more was wrapped ahead of its time: so far behind is no clock.
const BEHIND_EPOCHS: u32 = 24 * 60;

/// Which keys are looked for in gateways' logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// Those of this epoch and later; 0 where the logs are here from their first entries on. Of a patient who had another gateway before,
    /// earlier ones are looked for as well that were delivered before that one's log ends, as far as all gateways' logs of this patient go back.
    pub from: u32,
    /// Those that were delivered up to this time, Unix milliseconds.
    pub until_ms: i64,
}

/// Holds the log of `recipient`'s feed against the core's, and the keys of both against the logs of the gateways. Where no gateway's log is
/// given, keys are not looked at; which are looked for says [`keys`]. Answers with the time, Unix milliseconds, up to which they were compared.
///
/// A log ends with its last entry's time. What the others may not have yet is not looked for, and that is from the first entry on which may be
/// younger than their ends: what stands behind was written later, whatever time it tells. So an entry of a wrong time accuses nobody; what it
/// hides says [`uncovered`]. What was shown is looked for up to the last entry that is old enough.
///
/// What was delivered must have been received at some time, and the other way round: that it was delivered once more and this was not noted is
/// not found, since a connection that breaks makes the same difference.
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
    for Side { whose, log, .. } in [compared.core, compared.feed] {
        let settled = until(log, end(log).saturating_sub(2 * SLACK_MS));
        if deliveries(recipient, until(log, compared.until_ms)).next().is_none()
            && let Some((line, _)) = deliveries(recipient, settled).next()
        {
            return Err(Disagreement::Apart { whose, n: line.n });
        }
    }
    let (received, fetched) = (segments(recipient, feed), segments(recipient, core));
    let looked = Looked::of(recipient, &compared, gateways);
    let of_core = Search::new(recipient, compared.core, &looked);
    for (line, delivered) in deliveries(recipient, compared.core.compared) {
        if let Some(segment) = not_in(&received, delivered) {
            let (n, patient, class) = (line.n, delivered.patient, delivered.class);
            return Err(Disagreement::Unreceived { n, patient, class, segment });
        }
        of_core.check(line, delivered)?;
    }
    let of_feed = Search::new(recipient, compared.feed, &looked);
    for line in until(feed, compared.until_ms) {
        explained(recipient, line, &received, &fetched, &of_feed)?;
    }
    Ok(compared.until_ms)
}

/// Which keys [`agree`] looks for, of each patient of whom core or feed has some: none where no gateway's log is given, or no key was
/// delivered.
///
/// A patient's are looked for up to the end of the log that began last to wrap for this patient, or of one that has wrapped for the patient
/// since that began, if it ends before; or up to the first key that may have been wrapped after that end, whatever time the host tells. They
/// are looked for from the first epoch on of which all keys are here. An epoch's key is wrapped in its minute or later, so a log of which older
/// entries are not here has those of all epochs after its beginning. A gateway whose clock was ahead wrapped keys of later epochs: those of
/// the first one that is here.
#[must_use]
pub fn keys(recipient: RecipientId, feed: &[Line], core: &[Line], gateways: &[&[Line]]) -> Option<Keys> {
    let compared = Compared::of(feed, core);
    let looked = Looked::of(recipient, &compared, gateways);
    let [of_core, of_feed] = [compared.core, compared.feed].map(|side| Search::new(recipient, side, &looked));
    // What the last gateway tells, and what is cut of those before.
    let ends = |parts: &[Part]| {
        let (last, before) = parts.split_last()?;
        let cut = before.iter().filter(|part| part.is_cut()).map(|part| part.until_ms);
        Some(Keys { until_ms: cut.fold(last.until_ms, i64::min), ..last.span.keys })
    };
    let keys = of_core.of.values().chain(of_feed.of.values()).filter_map(|parts| ends(parts));
    keys.reduce(|one, other| {
        let (from, until_ms) = (one.from.max(other.from), one.until_ms.min(other.until_ms));
        Keys { from, until_ms }
    })
}

/// One end's log.
#[derive(Clone, Copy)]
struct Side<'l> {
    whose: &'static str,
    log: &'l [Line],
    /// What of it was written by the time up to which they are compared, for certain.
    compared: &'l [Line],
}

/// What of feed's and core's logs is compared.
struct Compared<'l> {
    /// Up to this time.
    until_ms: i64,
    core: Side<'l>,
    feed: Side<'l>,
}

impl<'l> Compared<'l> {
    fn of(feed: &'l [Line], core: &'l [Line]) -> Self {
        let until_ms = end(feed).min(end(core)).saturating_sub(SLACK_MS);
        let side = |whose, log| Side { whose, log, compared: covered(log, until_ms) };
        Self { until_ms, core: side("core", core), feed: side("feed", feed) }
    }
}

fn last_of(log: &[Line]) -> u64 {
    log.last().map_or(0, |line| line.n)
}

/// Of each patient of whom core or feed has keys, which of them are looked for.
fn looked_for(
    recipient: RecipientId,
    compared: &Compared<'_>,
    gateways: &[&[Line]],
) -> BTreeMap<PatientId, Vec<Span>> {
    if gateways.is_empty() {
        return BTreeMap::new();
    }
    let told: Vec<Told> = gateways.iter().map(|log| Told::by(log)).collect();
    let (core, feed) = (compared.core.compared, compared.feed.compared);
    let both = deliveries(recipient, core).chain(deliveries(recipient, feed));
    let with_keys = both.filter(|(_, delivered)| !delivered.wraps.is_empty());
    let patients: BTreeSet<PatientId> = with_keys.map(|(_, delivered)| delivered.patient).collect();
    let spans = |patient| {
        let mut spans = told_of(patient, &told);
        for span in &mut spans {
            span.keys.until_ms = span.keys.until_ms.min(compared.until_ms);
        }
        spans
    };
    patients.into_iter().map(|patient| (patient, spans(patient))).collect()
}

/// The keys that are looked for, and those that are found.
struct Looked {
    of: BTreeMap<PatientId, Vec<Span>>,
    wrapped: Wrapped,
    /// The last epoch that a key may be of because its minute has come, whoever's clock is behind.
    latest: u32,
}

impl Looked {
    fn of(recipient: RecipientId, compared: &Compared<'_>, gateways: &[&[Line]]) -> Self {
        let logs = [compared.core.log, compared.feed.log];
        let newest_ms = logs.iter().chain(gateways).map(|log| end(log)).max().unwrap_or(i64::MIN);
        let latest = epoch_of(newest_ms.saturating_mul(1000)).saturating_add(BEHIND_EPOCHS);
        let wrapped = wrapped(recipient, gateways);
        Self { of: looked_for(recipient, compared, gateways), wrapped, latest }
    }

    /// Whether a key was delivered that may have been wrapped after the end of the gateway's log: its minute came later. The host's clock is
    /// behind the gateway's then. One that no clock explains is looked for all the same, also where it came with others.
    fn is_later(&self, delivered: &Delivered, ends: u32) -> bool {
        let from = |epoch| not_wrapped(&self.wrapped, delivered, epoch);
        from(ends).is_some() && from(self.latest.saturating_add(1)).is_none()
    }
}

/// Keys of one patient, as far as they are looked for in one end's log.
struct Part {
    span: Span,
    /// Up to this entry. By its place and not by its time: that may be wrong.
    last: u64,
    /// Up to which entry they would be, had none brought a key that may have been wrapped after the gateway's log.
    full: u64,
    /// Up to when those were delivered, Unix milliseconds.
    until_ms: i64,
}

impl Part {
    /// Looks for no key in this entry of a log, nor behind it.
    fn cut_before(&mut self, line: &Line, log: &[Line]) {
        self.last = line.n.saturating_sub(1);
        // This entry's time may be the wrong one.
        let before = log.iter().take_while(|before| before.n < line.n).map(|before| before.entry.at_ms);
        let newest_ms = before.fold(line.entry.at_ms.saturating_sub(1), i64::max);
        self.until_ms = self.until_ms.min(newest_ms);
    }

    fn is_cut(&self) -> bool {
        self.last < self.full
    }
}

/// Looks for the keys in one end's log.
struct Search<'l> {
    whose: &'static str,
    looked: &'l Looked,
    /// The last entry that is compared.
    last: u64,
    /// Of each patient.
    of: BTreeMap<PatientId, Vec<Part>>,
}

impl<'l> Search<'l> {
    fn new(recipient: RecipientId, side: Side<'_>, looked: &'l Looked) -> Self {
        let reach = Reach::of(side.compared);
        let part = |span: &Span| {
            let until_ms = span.keys.until_ms;
            let last = reach.until(until_ms);
            Part { span: *span, last, full: last, until_ms }
        };
        let parts = |spans: &Vec<Span>| spans.iter().map(part).collect::<Vec<_>>();
        let mut of: BTreeMap<PatientId, Vec<Part>> =
            looked.of.iter().map(|(patient, spans)| (*patient, parts(spans))).collect();
        for (line, delivered) in deliveries(recipient, side.compared) {
            for part in of.get_mut(&delivered.patient).into_iter().flatten() {
                if line.n <= part.last && looked.is_later(delivered, part.span.ends) {
                    part.cut_before(line, side.compared);
                }
            }
        }
        Self { whose: side.whose, looked, last: last_of(side.compared), of }
    }

    /// The first epoch of which this patient's keys are looked for in an entry; none where they are not.
    fn since(&self, n: u64, patient: PatientId) -> Option<u32> {
        let parts = self.of.get(&patient).into_iter().flatten();
        parts.filter(|part| n <= part.last).map(|part| part.span.keys.from).min()
    }

    /// Whether some of this patient's keys are not looked for in an entry, since one before it may have been wrapped after its gateway's log.
    fn is_cut(&self, n: u64, patient: PatientId) -> bool {
        let parts = self.of.get(&patient).into_iter().flatten();
        parts.filter(|part| part.is_cut()).any(|part| part.last < n && n <= part.full)
    }

    /// The time up to which this patient's keys are known, by the gateways' logs.
    fn until_ms(&self, patient: PatientId) -> Option<i64> {
        self.of.get(&patient)?.last().map(|part| part.span.keys.until_ms)
    }

    fn check(&self, line: &Line, delivered: &Delivered) -> Result<(), Disagreement> {
        let (whose, n, patient, class) = (self.whose, line.n, delivered.patient, delivered.class);
        let from = self.since(n, patient);
        match from.and_then(|from| not_wrapped(&self.looked.wrapped, delivered, from)) {
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
        What::Received { recipient: who, delivered } if *who == recipient && n <= keys.last => {
            match not_in(fetched, delivered) {
                Some(segment) => {
                    let (patient, class) = (delivered.patient, delivered.class);
                    Err(Disagreement::Undelivered { n, patient, class, segment })
                }
                None => keys.check(line, delivered),
            }
        }
        What::Look { patient, class, .. } | What::Exported { patient, class, .. }
            if !received.contains_key(&(*patient, *class)) =>
        {
            Err(Disagreement::Unexplained { n, patient: *patient, class: *class })
        }
        _ => Ok(()),
    }
}
