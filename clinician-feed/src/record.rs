//! Notes what happens: in the journal, then on the pages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use caregate_host::clock;
use caregate_protocol::id::PatientId;
use tracing::error;

use crate::journal::{Entry, Journal, JournalError, What};
use crate::metrics::Metrics;
use crate::trail::Trail;

/// A program that polls is noted once in so many milliseconds for each patient whom it reads.
const LOOK_AGAIN_MS: i64 = 15 * 60 * 1000;
/// Looks of programs that are remembered for that; when they are full it begins anew, and notes more, not less.
const LOOKS_MAX: usize = 4096;

/// When each user's programs were last noted to read a patient.
type Looks = BTreeMap<(Arc<str>, PatientId), i64>;

/// Keeps the journal and the pages' list. Clones share both.
#[derive(Debug, Clone)]
pub struct Recorder {
    journal: Option<Arc<Journal>>,
    trail: Arc<Trail>,
    looks: Arc<Mutex<Looks>>,
    metrics: Metrics,
}

/// Those of `patients` that are to be noted now.
fn due(looks: &mut Looks, user: &Arc<str>, patients: BTreeSet<PatientId>, now_ms: i64) -> Vec<PatientId> {
    let mut due = Vec::new();
    for patient in patients {
        let key = (Arc::clone(user), patient);
        if looks.get(&key).is_none_or(|then| now_ms.saturating_sub(*then) >= LOOK_AGAIN_MS) {
            if looks.len() >= LOOKS_MAX {
                looks.clear();
            }
            looks.insert(key, now_ms);
            due.push(patient);
        }
    }
    due
}

impl Recorder {
    /// Without a journal nothing is noted, except on the pages.
    #[must_use]
    pub fn new(journal: Option<Journal>, before: &[Entry], metrics: Metrics) -> Self {
        let trail = Trail::default();
        trail.add_entries(before);
        Self { journal: journal.map(Arc::new), trail: Arc::new(trail), looks: Arc::default(), metrics }
    }

    /// The pages' list.
    #[must_use]
    pub fn trail(&self) -> &Arc<Trail> {
        &self.trail
    }

    /// Notes that a program was given readings of these patients, unless it was noted a while ago. That it can't be noted is
    /// logged and counted, and keeps nobody from a patient.
    pub async fn looked(&self, user: &Arc<str>, patients: BTreeSet<PatientId>) {
        if self.journal.is_none() {
            return;
        }
        let due = {
            let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
            due(&mut looks, user, patients, clock::now_ms())
        };
        if !due.is_empty() {
            let look = |patient| What::Look { user: user.to_string(), patient };
            drop(self.note(due.into_iter().map(look).collect()).await);
        }
    }

    /// Notes what happened now; it is on disk when this returns. Nothing is noted where there is no journal.
    ///
    /// # Errors
    /// [`JournalError`], which is logged and counted.
    pub async fn note(&self, happened: Vec<What>) -> Result<(), JournalError> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let at_ms = clock::now_ms();
        let entries: Vec<_> = happened.into_iter().map(|what| Entry { at_ms, what }).collect();
        let journal = Arc::clone(journal);
        let append = move || journal.append(&entries).map(|()| entries);
        let appended = match tokio::task::spawn_blocking(append).await {
            Ok(appended) => appended,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        let entries = appended.inspect_err(|error| {
            self.metrics.journal_failures.inc();
            error!(%error, "what happened could not be noted");
        })?;
        self.trail.add_entries(&entries);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_polls_is_noted_once_in_a_while_for_each_patient() {
        let mut looks = Looks::new();
        let (nurse, doctor): (Arc<str>, Arc<str>) = ("nurse".into(), "doctor".into());
        let both = || BTreeSet::from([PatientId([1; 16]), PatientId([2; 16])]);
        let one = || BTreeSet::from([PatientId([1; 16])]);
        assert_eq!(due(&mut looks, &nurse, one(), 0).len(), 1);
        assert_eq!(due(&mut looks, &nurse, both(), 1), [PatientId([2; 16])]);
        assert_eq!(due(&mut looks, &doctor, both(), 2).len(), 2);
        assert_eq!(due(&mut looks, &nurse, both(), LOOK_AGAIN_MS), [PatientId([1; 16])]);
        for n in 0..2 * u32::try_from(LOOKS_MAX).unwrap() {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&n.to_be_bytes());
            due(&mut looks, &nurse, BTreeSet::from([PatientId(id)]), LOOK_AGAIN_MS);
        }
        assert!(looks.len() <= LOOKS_MAX);
    }
}
