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

/// Entries of the log, by their numbers: which somebody is shown or may page to, and where the log's end that is served begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The oldest that they may see.
    pub first: u64,
    /// The newest.
    pub last: u64,
    /// The oldest that is served at all.
    pub oldest: u64,
    /// The newest there was.
    pub newest: u64,
}

impl Extent {
    /// Whether somebody of whom this was noted is shown nothing more by `asked` than what came since.
    fn covers(&self, asked: &Self) -> bool {
        let goes_on = self.last == self.newest;
        asked.first > self.newest || asked.first >= self.first && (asked.last <= self.last || goes_on)
    }
}

/// When each user was last noted to read the log, and what of it.
type Readers = BTreeMap<Arc<str>, (i64, Extent)>;

/// Which entries are to be noted as read, oldest and newest; none where that was noted a while ago. The first reading within
/// [`LOOK_AGAIN_MS`] is noted as it is, with all of its pages; one beyond it as a reading of all that is served, and then
/// none more. So reading makes the log grow by two entries of each user in that time, however it is done.
fn due_reading(readers: &mut Readers, user: &Arc<str>, asked: Extent, now_ms: i64) -> Option<(u64, u64)> {
    let recent = readers.get(user).filter(|(then_ms, _)| now_ms.saturating_sub(*then_ms) < LOOK_AGAIN_MS);
    let noted = match recent {
        Some((_, noted)) if noted.covers(&asked) => return None,
        Some(_) => Extent { first: asked.oldest, last: asked.newest, ..asked },
        None => asked,
    };
    if readers.len() >= LOOKS_MAX {
        readers.clear();
    }
    readers.insert(Arc::clone(user), (now_ms, noted));
    Some((noted.first, noted.last))
}

/// Keeps the journal and the pages' list. Clones share both.
#[derive(Debug, Clone)]
pub struct Recorder {
    journal: Option<Arc<Journal>>,
    trail: Arc<Trail>,
    looks: Arc<Mutex<Looks>>,
    readers: Arc<Mutex<Readers>>,
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
        let journal = journal.map(Arc::new);
        Self { journal, trail: Arc::new(trail), looks: Arc::default(), readers: Arc::default(), metrics }
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

    /// Notes that somebody is about to be shown entries of the log, unless it was noted a while ago.
    ///
    /// # Errors
    /// [`JournalError`]: then they are not to be shown. Nobody's care waits for it.
    pub async fn read_log(
        &self,
        user: &Arc<str>,
        asked: Extent,
        reason: Option<String>,
    ) -> Result<(), JournalError> {
        let due = {
            let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
            due_reading(&mut readers, user, asked, clock::now_ms())
        };
        let Some((first, last)) = due else { return Ok(()) };
        let noted = self.note(vec![What::LogRead { user: user.to_string(), first, last, reason }]).await;
        if noted.is_err() {
            self.readers.lock().unwrap_or_else(PoisonError::into_inner).remove(user);
        }
        noted
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
    fn who_reads_the_log_is_noted_twice_at_most_however_it_is_read() {
        let mut readers = Readers::new();
        let (nurse, doctor): (Arc<str>, Arc<str>) = ("nurse".into(), "doctor".into());
        let of = |first, last, newest| Extent { first, last, oldest: 5, newest };
        let mut due = |user: &Arc<str>, asked, now_ms| due_reading(&mut readers, user, asked, now_ms);
        assert_eq!(due(&nurse, of(50, 60, 60), 0), Some((50, 60)));
        assert_eq!(due(&nurse, of(50, 60, 60), 1), None, "the next page");
        assert_eq!(due(&nurse, of(55, 70, 70), 1), None, "what came since");
        assert_eq!(due(&doctor, of(50, 60, 60), 1), Some((50, 60)));
        assert_eq!(due(&nurse, of(49, 60, 70), 2), Some((5, 70)), "further back: all of it");
        for n in 5..200 {
            assert_eq!(due(&nurse, of(n, n, 200), 3), None, "one by one");
        }
        // What was there and not asked for is not what came since.
        assert_eq!(due(&doctor, of(20, 20, 60), LOOK_AGAIN_MS + 1), Some((20, 20)));
        assert_eq!(due(&doctor, of(21, 21, 60), LOOK_AGAIN_MS + 2), Some((5, 60)));
        assert_eq!(due(&nurse, of(100, 200, 200), LOOK_AGAIN_MS + 2), Some((100, 200)));
        assert_eq!(due(&nurse, of(201, 201, 201), LOOK_AGAIN_MS + 3), None);
        for n in 0..2 * LOOKS_MAX {
            due_reading(&mut readers, &n.to_string().into(), of(5, 5, 5), LOOK_AGAIN_MS);
        }
        assert!(readers.len() <= LOOKS_MAX);
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
