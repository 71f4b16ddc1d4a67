//! Notes what happens: in the journal, then on the pages.

mod looks;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caregate_host::clock;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::error;

use self::looks::{Due, Looks};
use crate::journal::{Entry, Journal, JournalError, What};
use crate::look::Look;
use crate::metrics::Metrics;
use crate::trail::Trail;

/// A program that polls is noted once in so many milliseconds for each patient and class that it reads, and then as far as it
/// read on; at once where it reads what is older.
const LOOK_AGAIN_MS: i64 = 15 * 60 * 1000;
/// How often those are looked for whose time is over.
const SETTLE_INTERVAL_MS: u32 = 60 * 1000;
/// Looks of programs that are remembered for that; when they are full it begins anew, and notes more, not less.
const LOOKS_MAX: usize = 4096;

/// Less than [`LOOK_AGAIN_MS`] ago; and not in the future, as where the clock was set back.
fn is_recent(then_ms: i64, now_ms: i64) -> bool {
    (0..LOOK_AGAIN_MS).contains(&now_ms.saturating_sub(then_ms))
}

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
    let recent = readers.get(user).filter(|(then_ms, _)| is_recent(*then_ms, now_ms));
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
    journal: Arc<Journal>,
    trail: Arc<Trail>,
    looks: Arc<Mutex<Looks>>,
    readers: Arc<Mutex<Readers>>,
    metrics: Metrics,
}

impl Recorder {
    /// `before` is what the journal has, for the pages.
    #[must_use]
    pub fn new(journal: Journal, before: &[Entry], metrics: Metrics) -> Self {
        let trail = Trail::default();
        trail.add_entries(before);
        Self {
            journal: Arc::new(journal),
            trail: Arc::new(trail),
            looks: Arc::default(),
            readers: Arc::default(),
            metrics,
        }
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> Arc<Journal> {
        Arc::clone(&self.journal)
    }

    /// The pages' list.
    #[must_use]
    pub fn trail(&self) -> &Arc<Trail> {
        &self.trail
    }

    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a program is about to be given these readings. What goes on from a look that was noted is noted when its time is over.
    pub async fn looked(&self, user: &Arc<str>, given: Vec<Look>) {
        let due = looks::due(&mut self.looks(), user, given, clock::now_ms(), LOOKS_MAX);
        self.note_looks(due).await;
    }

    /// Notes what programs read on, when its time is over; until `stop`.
    pub async fn settle(self, stop: CancellationToken) {
        let mut ticks = interval(Duration::from_millis(SETTLE_INTERVAL_MS.into()));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            // What would be over at the next tick is noted at this one, so that none waits for longer.
            let next_ms = clock::now_ms().saturating_add(SETTLE_INTERVAL_MS.into());
            let due = looks::settle(&mut self.looks(), next_ms);
            self.note_looks(due).await;
        }
    }

    /// Notes all that programs read on, for the end.
    pub async fn settle_all(&self) {
        let due = looks::settle_all(&mut self.looks());
        self.note_looks(due).await;
    }

    /// That they can't be noted is logged and counted, and keeps nobody from a patient; they are due again at the next look.
    async fn note_looks(&self, due: Vec<Due>) {
        if due.is_empty() {
            return;
        }
        let recorder = self.clone();
        let noting = async move {
            if recorder.note(due.iter().map(Due::noted).collect()).await.is_err() {
                looks::failed(&mut recorder.looks(), due, LOOKS_MAX);
            }
        };
        // To its end, also where whoever asked has gone.
        drop(tokio::spawn(noting).await);
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

    /// Notes what happened now; it is on disk when this returns.
    ///
    /// # Errors
    /// [`JournalError`], which is logged and counted.
    pub async fn note(&self, happened: Vec<What>) -> Result<(), JournalError> {
        let at_ms = clock::now_ms();
        let entries: Vec<_> = happened.into_iter().map(|what| Entry { at_ms, what }).collect();
        let journal = self.journal();
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
}
