//! From where on a log is not held against the others.

use std::collections::BTreeMap;

use super::reach::SLACK_MS;
use super::{Compared, Looked, Search, Side, deliveries, last_of};
use crate::audit::Line;
use crate::id::{PatientId, RecipientId};

/// Patients who are named of each log. More than somebody reads have one cause: a gateway's log was fetched too early.
const NAMED_MAX: usize = 32;

/// From where on a log is not held against the others, since it may be younger than they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uncovered {
    /// Whose log.
    pub whose: &'static str,
    /// What is not looked for: `deliveries` in the other end's log, or `keys` in the gateways'.
    pub what: &'static str,
    /// Whose keys; none of deliveries, and where it stands for `others`.
    pub patient: Option<PatientId>,
    /// For how many patients it stands who are not named; 0 but in the last one of keys, where there are too many to name them all.
    pub others: usize,
    /// The first entry of which it is not.
    pub n: u64,
    /// The log's last one.
    pub last: u64,
    /// How many entries behind it tell a time that the others have: a clock was wrong, or somebody hides what stands there. For `others` the most of
    /// any of them.
    pub older: usize,
}

/// From where on [`agree`](super::agree) looks for nothing, of each log, and of each patient's keys apart; none where it looks for all. Who
/// hands in a log in which an entry tells a time that is far ahead hides what stands behind it, and shows that here.
#[must_use]
pub fn uncovered(
    recipient: RecipientId,
    feed: &[Line],
    core: &[Line],
    gateways: &[&[Line]],
) -> Vec<Uncovered> {
    let compared = Compared::of(feed, core);
    let looked = Looked::of(recipient, &compared, gateways);
    let mut found = Vec::new();
    for side in [compared.core, compared.feed] {
        let search = Search::new(recipient, side, &looked);
        let beyond = deliveries(recipient, side.log).find(|(line, _)| line.n > search.last);
        found.extend(beyond.map(|(line, _)| side.uncovered("deliveries", line.n, compared.until_ms)));
        if !gateways.is_empty() {
            found.extend(of_keys(recipient, side, &search, compared.until_ms));
        }
    }
    found
}

/// Of each patient's keys, in the order of the entries. A patient's are counted by the logs of this patient's gateways, or where none are by
/// `until_ms`.
fn of_keys(recipient: RecipientId, side: Side<'_>, search: &Search<'_>, until_ms: i64) -> Vec<Uncovered> {
    let mut firsts = BTreeMap::new();
    for (line, new) in deliveries(recipient, side.log) {
        let is_left_out =
            || search.since(line.n, new.patient).is_none() || search.is_cut(line.n, new.patient);
        if !new.wraps.is_empty() && is_left_out() {
            firsts.entry(new.patient).or_insert(line.n);
        }
    }
    let mut firsts: Vec<(PatientId, u64)> = firsts.into_iter().collect();
    firsts.sort_by_key(|(_, n)| *n);
    let told = |(patient, n): &(PatientId, u64)| {
        let until_ms = search.until_ms(*patient).unwrap_or(until_ms);
        Uncovered { patient: Some(*patient), ..side.uncovered("keys", *n, until_ms) }
    };
    let (named, rest) = firsts.split_at(firsts.len().min(NAMED_MAX));
    let mut found: Vec<Uncovered> = named.iter().map(told).collect();
    let first = rest.first().map(told);
    // Of the rest the one behind whom most is older: who looks for what is hidden must not miss it.
    let older = rest.iter().map(|next| told(next).older).max().unwrap_or(0);
    found.extend(first.map(|first| Uncovered { patient: None, others: rest.len(), older, ..first }));
    found
}

impl Side<'_> {
    /// Where the others are known up to this time.
    fn uncovered(&self, what: &'static str, n: u64, until_ms: i64) -> Uncovered {
        let settled_ms = until_ms.saturating_sub(SLACK_MS);
        let behind = self.log.iter().filter(|line| line.n > n);
        let older = behind.filter(|line| line.entry.at_ms <= settled_ms).count();
        let (whose, last) = (self.whose, last_of(self.log));
        Uncovered { whose, what, patient: None, others: 0, n, last, older }
    }
}
