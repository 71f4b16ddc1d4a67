//! Notes what happens: in the journal, then on the pages.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use caregate_host::clock;
use caregate_protocol::id::{DataClass, PatientId};
use tracing::error;

use crate::journal::{Entry, Journal, JournalError, What};
use crate::look::{Look, Span};
use crate::metrics::Metrics;
use crate::trail::Trail;

/// A program that polls is noted once in so many milliseconds for each patient and class that it reads; at once where it reads
/// what is older.
const LOOK_AGAIN_MS: i64 = 15 * 60 * 1000;
/// Looks of programs that are remembered for that; when they are full it begins anew, and notes more, not less.
const LOOKS_MAX: usize = 4096;

/// When each user's programs were last noted to read a patient's class, and the oldest reading that was noted.
type Looks = BTreeMap<(Arc<str>, PatientId, DataClass), (i64, i64)>;

/// Keeps the journal and the pages' list. Clones share both.
#[derive(Debug, Clone)]
pub struct Recorder {
    journal: Option<Arc<Journal>>,
    trail: Arc<Trail>,
    looks: Arc<Mutex<Looks>>,
    metrics: Metrics,
}

/// Those of `looks` that are to be noted now.
fn due(noted: &mut Looks, user: &Arc<str>, looks: Vec<Look>, now_ms: i64) -> Vec<Look> {
    let is_due = |look: &Look| {
        let key = (Arc::clone(user), look.patient, look.class);
        let Span { from_us, .. } = look.span;
        let due = noted.get(&key).is_none_or(|(then_ms, oldest_us)| {
            now_ms.saturating_sub(*then_ms) >= LOOK_AGAIN_MS || from_us < *oldest_us
        });
        if due {
            if noted.len() >= LOOKS_MAX {
                noted.clear();
            }
            noted.insert(key, (now_ms, from_us));
        }
        due
    };
    looks.into_iter().filter(is_due).collect()
}

impl Recorder {
    /// Without a journal nothing is noted, except on the pages.
    #[must_use]
    pub fn new(journal: Option<Journal>, before: &[Entry], metrics: Metrics) -> Self {
        let trail = Trail::default();
        trail.add_entries(before);
        Self { journal: journal.map(Arc::new), trail: Arc::new(trail), looks: Arc::default(), metrics }
    }

    /// The journal, where there is one.
    #[must_use]
    pub fn journal(&self) -> Option<Arc<Journal>> {
        self.journal.clone()
    }

    /// The pages' list.
    #[must_use]
    pub fn trail(&self) -> &Arc<Trail> {
        &self.trail
    }

    /// Notes that a program was given these readings, unless it was noted a while ago. That it can't be noted is
    /// logged and counted, and keeps nobody from a patient.
    pub async fn looked(&self, user: &Arc<str>, looks: Vec<Look>) {
        if self.journal.is_none() {
            return;
        }
        let due = {
            let mut noted = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
            due(&mut noted, user, looks, clock::now_ms())
        };
        if !due.is_empty() {
            let what = |look: Look| look.noted(user, Some(look.span.until_us));
            drop(self.note(due.into_iter().map(what).collect()).await);
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
    use crate::journal::AccessBasis;

    fn look(patient: u8, from_us: i64) -> Look {
        let span = Span { from_us, until_us: from_us + 5 };
        let (patient, class) = (PatientId([patient; 16]), DataClass::Vitals);
        Look { patient, class, span, basis: AccessBasis::Consent }
    }

    #[test]
    fn a_program_that_polls_is_noted_once_in_a_while_for_each_patient_and_class() {
        let mut looks = Looks::new();
        let (nurse, doctor): (Arc<str>, Arc<str>) = ("nurse".into(), "doctor".into());
        let both = || vec![look(1, 10), look(2, 10)];
        let one = || vec![look(1, 10)];
        assert_eq!(due(&mut looks, &nurse, one(), 0).len(), 1);
        assert_eq!(due(&mut looks, &nurse, both(), 1), [look(2, 10)]);
        assert_eq!(due(&mut looks, &nurse, vec![look(1, 11)], 2), [], "newer ones are what polling brings");
        assert_eq!(due(&mut looks, &nurse, vec![look(1, 9)], 2), [look(1, 9)], "who looks further back");
        let alarms = Look { class: DataClass::Alarm, ..look(1, 10) };
        assert_eq!(due(&mut looks, &nurse, vec![alarms], 2), [alarms]);
        assert_eq!(due(&mut looks, &doctor, both(), 2).len(), 2);
        assert_eq!(due(&mut looks, &nurse, both(), LOOK_AGAIN_MS + 1), [look(2, 10)]);
        for n in 0..2 * u32::try_from(LOOKS_MAX).unwrap() {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&n.to_be_bytes());
            due(&mut looks, &nurse, vec![Look { patient: PatientId(id), ..look(1, 0) }], LOOK_AGAIN_MS);
        }
        assert!(looks.len() <= LOOKS_MAX);
    }
}
