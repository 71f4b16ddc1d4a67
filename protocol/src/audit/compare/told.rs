//! Which keys gateways' logs tell of.

use std::collections::BTreeMap;

use super::reach::{SLACK_MS, end};
use super::{BEHIND_EPOCHS, Keys};
use crate::audit::{Line, What};
use crate::id::PatientId;
use crate::key::{TREE_DEPTH, epoch_of};

/// [`SLACK_MS`], in epochs.
const SLACK_EPOCHS: u32 = 2;

/// Keys of one patient that are looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) keys: Keys,
    /// The epoch in which the log ends: one of it or of a later one may have been wrapped after that.
    pub(super) ends: u32,
}

/// What one gateway's log tells of keys.
pub(super) struct Told {
    /// Its end, Unix milliseconds.
    end_ms: i64,
    /// The epoch in which it begins, clocks allowed for; none where it is here from its first entry on.
    begins: Option<u32>,
    /// The first epoch of which a key was wrapped that was none of the past.
    first: Option<u32>,
    of: BTreeMap<PatientId, Wraps>,
}

/// What it tells of one patient's.
#[derive(Clone, Copy)]
struct Wraps {
    /// When the first key was wrapped, Unix milliseconds.
    first_ms: i64,
    /// The latest time at which one was. One whose clock is behind at the end has not stopped before.
    last_ms: i64,
    /// The epoch in which the first one was, by the later of the entry's time and the key's own epoch.
    began: u32,
    /// The first epoch of which a key was wrapped that was none of the past.
    first: Option<u32>,
}

impl Told {
    pub(super) fn by(log: &[Line]) -> Self {
        let begins_ms = log.first().filter(|line| line.n > 1).map(|line| line.entry.at_ms);
        let begins = begins_ms.map(|ms| minute(ms.saturating_add(SLACK_MS)));
        let mut told = Self { end_ms: end(log), begins, first: None, of: BTreeMap::new() };
        for line in log {
            if let What::Wrapped { patient, epoch, depth, .. } = &line.entry.what {
                let at_ms = line.entry.at_ms;
                let at = minute(at_ms);
                // What is sealed is never dated before the clock, so a leaf of an epoch before is the end of a past that was given.
                let own = (*depth == TREE_DEPTH && *epoch >= at).then_some(*epoch);
                // One that is further ahead than any clock says nothing of when its gateway began.
                let began = at.max((*epoch).min(at.saturating_add(BEHIND_EPOCHS)));
                let new = Wraps { first_ms: at_ms, last_ms: at_ms, began, first: None };
                let wraps = told.of.entry(*patient).or_insert(new);
                wraps.last_ms = wraps.last_ms.max(at_ms);
                wraps.first = wraps.first.or(own);
                told.first = told.first.or(own);
            }
        }
        told
    }

    /// Up to when it tells of what was delivered, Unix milliseconds.
    fn until_ms(&self) -> i64 {
        self.end_ms.saturating_sub(SLACK_MS)
    }

    /// The first epoch of which it has all keys of this patient that its gateway wrapped.
    fn since(&self, patient: PatientId) -> u32 {
        // One that wrapped for others first was no further then.
        let own = self.of.get(&patient).and_then(|wraps| wraps.first);
        let ahead = self.first.into_iter().chain(own).min().unwrap_or(0);
        self.begins.map_or(0, |begins| begins.max(ahead).saturating_add(1))
    }

    /// Whether one of its patients has another gateway since, which began after all that its log tells. The core takes a pseudonym from
    /// another only once the one before is revoked or gone, so this one wraps for nobody any more. One whose log goes on has lost a patient
    /// and lives on, and may have others.
    fn is_succeeded(&self, told: &[Self]) -> bool {
        let ends_ms = self.of.values().map(|wraps| wraps.last_ms).fold(self.end_ms, i64::max);
        let taken = |other: &Self| {
            let since = self.of.keys().filter_map(|patient| other.of.get(patient));
            since.map(|wraps| wraps.first_ms).any(|first_ms| first_ms > ends_ms)
        };
        // Of one whose older entries are not here nobody knows when it began.
        told.iter().filter(|other| other.begins.is_none()).any(taken)
    }

    fn span(&self, from: u32, until_ms: i64) -> Span {
        Span { keys: Keys { from, until_ms }, ends: minute(self.end_ms) }
    }
}

fn minute(ms: i64) -> u32 {
    epoch_of(ms.saturating_mul(1000))
}

/// The first of the patient's gateways that began to wrap after this time.
fn next_after(own: &[(&Told, Wraps)], last_ms: i64) -> Option<Wraps> {
    let later = own.iter().map(|(_, wraps)| *wraps).filter(|wraps| wraps.first_ms > last_ms);
    later.min_by_key(|wraps| wraps.first_ms)
}

/// Which keys of this patient the logs tell of: the further they are looked for, the fewer they are. Those who wrap for the patient tell; where
/// none does, each that is in use may, and what the first of their logs to end has not is not known.
///
/// A gateway took another's place where it began to wrap for the patient after the other's last wrap. What that one wrapped between its log's
/// end and the next one's beginning, as one that was lost has, is not known: of what is delivered after its end, keys are looked for that are
/// later than the next one's beginning. One whose place nobody took may wrap at any time, also where another does, as before the core takes
/// what that one sends, or after the patient went back: nothing is known after the first of their ends.
pub(super) fn told_of(patient: PatientId, told: &[Told]) -> Vec<Span> {
    let wraps = |log: &Told| log.of.get(&patient).copied();
    let others = told.iter().filter(|log| wraps(log).is_none());
    let since_others = others.clone().map(|log| log.since(patient)).max().unwrap_or(0);
    let own: Vec<(&Told, Wraps)> = told.iter().filter_map(|log| Some((log, wraps(log)?))).collect();
    let stays = own.iter().filter(|(_, wraps)| next_after(&own, wraps.last_ms).is_none());
    let Some(stays) = stays.map(|(log, _)| *log).min_by_key(|log| log.end_ms) else {
        let in_use = others.clone().filter(|log| !log.is_succeeded(told));
        let first = in_use.min_by_key(|log| log.end_ms).or_else(|| others.min_by_key(|log| log.end_ms));
        return first.map(|log| log.span(since_others, log.until_ms())).into_iter().collect();
    };
    // Another whose older entries are not here may have wrapped for the patient, before these began to.
    let first = own.iter().min_by_key(|(_, wraps)| wraps.first_ms);
    let before = first.map_or(since_others, |(_, first)| since_others.min(first.began));
    // And so may each of these, before what is here of its log.
    let mut from = own.iter().map(|(log, _)| log.since(patient)).fold(before, u32::max);
    let lost = own.iter().filter_map(|(log, wraps)| {
        let next = next_after(&own, wraps.last_ms)?;
        let is_lost = log.until_ms() < next.first_ms && log.until_ms() < stays.until_ms();
        // The two's clocks may differ.
        is_lost.then_some((*log, next.began.saturating_add(1 + SLACK_EPOCHS)))
    });
    let mut lost: Vec<(&Told, u32)> = lost.collect();
    lost.sort_by_key(|(log, _)| log.end_ms);
    let mut spans = Vec::new();
    for (log, again) in lost {
        spans.push(log.span(from, log.until_ms()));
        from = from.max(again);
    }
    spans.push(stays.span(from, stays.until_ms()));
    spans
}
