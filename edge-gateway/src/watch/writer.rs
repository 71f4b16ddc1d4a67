//! Writes what the watch must remember on another thread: a disk that hangs holds up no alarm.

use std::time::Duration;

use caregate_protocol::id::PatientId;
use tokio::task::JoinHandle;

use super::engine::Kept;
use super::store::WatchStore;
use crate::keys::KeyStoreError;
use crate::policy::trail::Event;
use crate::policy::{Changes, PolicyStore};

/// What is to be remembered.
#[derive(Debug)]
pub struct Work {
    /// Of patients of whom it has changed.
    pub changed: Vec<(PatientId, Kept)>,
    /// Below which position of the spool all events are in it.
    pub below: u64,
    /// For the trail, before the rest: what staff said, with its Unix time in seconds.
    pub events: Vec<(u64, Event)>,
}

/// What has become of it.
#[derive(Debug)]
pub struct Written {
    /// What it was.
    pub work: Work,
    /// Whether the trail has its events.
    pub noted: Result<(), KeyStoreError>,
    /// Whether the rest is kept, durably.
    pub kept: Result<(), KeyStoreError>,
}

/// One piece of work at a time.
#[derive(Debug)]
pub struct Writer {
    store: WatchStore,
    trail: PolicyStore,
    writing: Option<JoinHandle<Written>>,
}

impl Writer {
    /// To where what is to be remembered goes.
    #[must_use]
    pub fn new(store: WatchStore, trail: PolicyStore) -> Self {
        Self { store, trail, writing: None }
    }

    /// Whether nothing is being written.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.writing.is_none()
    }

    /// Begins to write. Only where nothing is being written, and inside a tokio runtime.
    pub fn begin(&mut self, work: Work) {
        debug_assert!(self.is_idle(), "one at a time");
        let (store, trail) = (self.store.clone(), self.trail.clone());
        self.writing = Some(tokio::task::spawn_blocking(move || {
            let changes = Changes { events: &work.events, ..Changes::default() };
            let noted = if work.events.is_empty() { Ok(()) } else { trail.keep(&changes) };
            let kept = store.keep(&work.changed, work.below);
            Written { work, noted, kept }
        }));
    }

    /// What has become of what was begun, waited for so long; `None` where it is being written still, or nothing was begun.
    ///
    /// # Panics
    /// Where writing did: a gateway whose watch has failed ends, and is started again.
    pub async fn written(&mut self, patience: Duration) -> Option<Written> {
        let writing = self.writing.as_mut()?;
        let ended = tokio::time::timeout(patience, writing).await.ok()?;
        self.writing = None;
        match ended {
            Ok(written) => Some(written),
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Cancelled: the runtime is ending, and with it the watch.
                Err(_cancelled) => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::KeyStore;

    const PATIENT: PatientId = PatientId([4; 16]);

    fn work(below: u64) -> Work {
        Work { changed: vec![(PATIENT, Kept::default())], below, events: Vec::new() }
    }

    #[tokio::test]
    async fn who_waits_for_a_disk_that_hangs_waits_no_longer_than_it_has_patience() {
        let dir = tempfile::tempdir().unwrap();
        let keys = KeyStore::open(dir.path()).unwrap();
        let mut writer = Writer::new(keys.watch(), keys.policy());
        assert!(writer.is_idle() && writer.written(Duration::ZERO).await.is_none());
        // Whoever writes holds up all others, as a sync that hangs does.
        let hangs = keys.watch().hold();
        writer.begin(work(7));
        assert!(writer.written(Duration::from_millis(5)).await.is_none());
        assert!(!writer.is_idle());
        drop(hangs);
        let written = writer.written(Duration::from_secs(30)).await.unwrap();
        assert!(written.kept.is_ok() && written.noted.is_ok() && writer.is_idle());
        assert_eq!((written.work.below, keys.watch().heard().unwrap()), (7, Some(7)));
    }
}
