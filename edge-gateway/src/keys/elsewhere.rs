//! What another gateway has sealed under a root that was restored here: which generations, in which epochs, as the core tells.
//!
//! ```text
//! elsewhere            patient 16 ‖ class 1 ‖ generation 4 → first epoch 4 ‖ last epoch 4
//! elsewhere revisions  patient 16                          → how often any of it changed
//! ```
//! The core's word decides nothing but what a patient's grant of the past is wrapped for: what it leaves out can't be opened, as if it had
//! kept the ciphertext back, and what it invents opens nothing. Only generations below the one with which this gateway began are taken,
//! and no epoch beyond the one in which it did: under those it never seals, so no wrap made for them opens anything that it does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caregate_protocol::id::PatientId;
use caregate_protocol::uplink::Used;
use redb::{Database, ReadableTable, TableDefinition, WriteTransaction};

use super::past::{GENERATIONS_MAX, Key, of_row, row};
use super::{BEGINNINGS, KeyStoreError, beginning, failed};
use crate::pipeline::chains::Beginning;

const ELSEWHERE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("elsewhere");
const REVISIONS: TableDefinition<'_, &[u8], u64> = TableDefinition::new("elsewhere revisions");

#[derive(Debug, Default)]
struct Known {
    restored: BTreeMap<PatientId, Beginning>,
    used: BTreeMap<Key, BTreeMap<u32, (u32, u32)>>,
    revisions: BTreeMap<PatientId, u64>,
}

/// The generations of restored roots; cheap to clone.
#[derive(Debug, Clone)]
pub struct Elsewhere {
    db: Arc<Database>,
    known: Arc<Mutex<Known>>,
}

impl Elsewhere {
    pub(super) fn open(db: Arc<Database>, txn: &WriteTransaction) -> Result<Self, KeyStoreError> {
        let mut known = Known::default();
        let table = txn.open_table(BEGINNINGS).map_err(failed("open beginnings"))?;
        for entry in table.iter().map_err(failed("read beginnings"))? {
            let (patient, value) = entry.map_err(failed("read beginnings"))?;
            let (patient, beginning) = beginning(patient.value(), value.value())?;
            known.restored.insert(patient, beginning);
        }
        let shape = || KeyStoreError::Shape("generation of another gateway");
        let table = txn.open_table(ELSEWHERE).map_err(failed("open elsewhere"))?;
        for entry in table.iter().map_err(failed("read elsewhere"))? {
            let (row, span) = entry.map_err(failed("read elsewhere"))?;
            let (key, generation) = of_row(row.value()).ok_or_else(shape)?;
            let (first, last) = span.value().split_first_chunk::<4>().ok_or_else(shape)?;
            let last = u32::from_be_bytes(last.try_into().map_err(|_length| shape())?);
            known.used.entry(key).or_default().insert(generation, (u32::from_be_bytes(*first), last));
        }
        let table = txn.open_table(REVISIONS).map_err(failed("open elsewhere"))?;
        for entry in table.iter().map_err(failed("read elsewhere"))? {
            let (patient, revision) = entry.map_err(failed("read elsewhere"))?;
            let patient = PatientId(patient.value().try_into().map_err(|_length| shape())?);
            known.revisions.insert(patient, revision.value());
        }
        Ok(Self { db, known: Arc::new(Mutex::new(known)) })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of whom the core is to be asked.
    #[must_use]
    pub fn restored(&self) -> Vec<PatientId> {
        self.known().restored.keys().copied().collect()
    }

    /// How often what is known of a patient has changed. A past that was given before is given again.
    #[must_use]
    pub fn revision(&self, patient: &PatientId) -> u64 {
        self.known().revisions.get(patient).copied().unwrap_or(0)
    }

    /// Of a chain, the lowest first: each generation that another gateway used, with its first and its last epoch.
    #[must_use]
    pub fn used(&self, key: Key) -> Vec<Used> {
        let known = self.known();
        let used = known.used.get(&key).into_iter().flatten();
        used.map(|(generation, (first, last))| Used { generation: *generation, first: *first, last: *last })
            .collect()
    }

    /// Whether generations from this one on may be another gateway's, and there is room for more.
    #[must_use]
    pub fn wants(&self, key: Key, from: u32) -> bool {
        let known = self.known();
        let is_below = known.restored.get(&key.0).is_some_and(|beginning| from < beginning.generation);
        is_below && known.used.get(&key).map_or(0, BTreeMap::len) < GENERATIONS_MAX
    }

    /// Keeps what the core tells of a chain, durably, as far as it is another gateway's. Whether anything of it was new.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn keep(&self, key: Key, told: &[Used]) -> Result<bool, KeyStoreError> {
        // Held until it is on disk: what is erased meanwhile stays so.
        let mut known = self.known();
        let Some(beginning) = known.restored.get(&key.0).copied() else { return Ok(false) };
        let chain = known.used.entry(key).or_default();
        let mut new = BTreeMap::new();
        for used in told {
            // The generation with which a restored chain begins is the epoch of that moment.
            let last = used.last.min(beginning.generation);
            if used.generation >= beginning.generation || used.first > last {
                continue;
            }
            let before = chain.get(&used.generation).copied();
            let span = before.map_or((used.first, last), |(a, b)| (a.min(used.first), b.max(last)));
            let has_room = before.is_some() || chain.len() + new.len() < GENERATIONS_MAX;
            if before != Some(span) && has_room {
                new.insert(used.generation, span);
            }
        }
        if new.is_empty() {
            return Ok(false);
        }
        let revision = known.revisions.get(&key.0).copied().unwrap_or(0) + 1;
        let txn = self.db.begin_write().map_err(failed("begin"))?;
        {
            let mut table = txn.open_table(ELSEWHERE).map_err(failed("open elsewhere"))?;
            for (generation, (first, last)) in &new {
                let span = [first.to_be_bytes(), last.to_be_bytes()].concat();
                let row = row(key, *generation);
                table.insert(row.as_slice(), span.as_slice()).map_err(failed("write elsewhere"))?;
            }
            let mut table = txn.open_table(REVISIONS).map_err(failed("open elsewhere"))?;
            table.insert(key.0.0.as_slice(), revision).map_err(failed("write elsewhere"))?;
        }
        txn.commit().map_err(failed("commit"))?;
        known.used.entry(key).or_default().extend(new);
        known.revisions.insert(key.0, revision);
        Ok(true)
    }

    /// A root was restored while this store was open.
    pub(super) fn began(&self, patient: PatientId, beginning: Beginning) {
        self.known().restored.insert(patient, beginning);
    }

    /// Forgets a patient, on disk.
    pub(super) fn erase(txn: &WriteTransaction, patient: PatientId) -> Result<(), KeyStoreError> {
        let mut table = txn.open_table(ELSEWHERE).map_err(failed("open elsewhere"))?;
        table.retain(|row, _| !row.starts_with(&patient.0)).map_err(failed("remove elsewhere"))?;
        let mut table = txn.open_table(REVISIONS).map_err(failed("open elsewhere"))?;
        table.remove(patient.0.as_slice()).map_err(failed("remove elsewhere"))?;
        Ok(())
    }

    /// The same, of what is in memory.
    pub(super) fn forget(&self, patient: PatientId) {
        let mut known = self.known();
        known.restored.remove(&patient);
        known.revisions.remove(&patient);
        known.used.retain(|(of, _), _| *of != patient);
    }
}

#[cfg(test)]
mod tests {
    use caregate_protocol::id::DataClass;
    use caregate_protocol::key::PatientRoot;

    use super::*;
    use crate::keys::KeyStore;
    use crate::keys::erasures::Ordered;

    const KEY: Key = (PatientId([4; 16]), DataClass::Vitals);
    const BEGAN: u32 = 29_000_000;

    fn used(generation: u32, first: u32, last: u32) -> Used {
        Used { generation, first, last }
    }

    fn restored(dir: &std::path::Path) -> KeyStore {
        let mut keys = KeyStore::open(dir).unwrap();
        let beginning = Beginning { next: 1 << 50, generation: BEGAN };
        assert!(keys.restore(KEY.0, &PatientRoot::from_bytes([7; 32]), beginning).unwrap());
        keys
    }

    #[test]
    fn what_the_core_tells_is_kept_as_far_as_it_is_another_gateways() {
        let dir = tempfile::tempdir().unwrap();
        let keys = restored(dir.path());
        let elsewhere = keys.elsewhere();
        assert_eq!(elsewhere.restored(), [KEY.0]);
        let told = [
            used(0, 100, 200),
            used(3, 200, BEGAN + 9),
            // Nothing with which this gateway seals, nor when it does.
            used(BEGAN, 100, 200),
            used(BEGAN + 1, 100, 200),
            used(4, BEGAN + 1, BEGAN + 2),
        ];
        assert!(elsewhere.keep(KEY, &told).unwrap());
        let kept = [used(0, 100, 200), used(3, 200, BEGAN)];
        assert_eq!((elsewhere.used(KEY), elsewhere.revision(&KEY.0)), (kept.to_vec(), 1));
        assert!(!elsewhere.keep(KEY, &told).unwrap(), "it is known");
        assert!(elsewhere.wants(KEY, 4) && !elsewhere.wants(KEY, BEGAN), "what this one seals is known here");
        assert!(elsewhere.keep(KEY, &[used(0, 150, 210)]).unwrap(), "its spool came later");
        let stranger = (PatientId([5; 16]), DataClass::Vitals);
        assert!(!elsewhere.keep(stranger, &told).unwrap(), "a root that was not restored");
        drop((keys, elsewhere));

        let mut keys = KeyStore::open(dir.path()).unwrap();
        let kept = [used(0, 100, 210), used(3, 200, BEGAN)];
        assert_eq!((keys.elsewhere().used(KEY), keys.elsewhere().revision(&KEY.0)), (kept.to_vec(), 2));
        keys.erase(KEY.0, &Ordered { request: [7; 104], by: None }, 9).unwrap();
        assert!(!keys.elsewhere().keep(KEY, &told).unwrap());
        let is_empty = |known: Elsewhere| known.used(KEY).is_empty() && known.restored().is_empty();
        assert!(is_empty(keys.elsewhere()));
        drop(keys);
        assert!(is_empty(KeyStore::open(dir.path()).unwrap().elsewhere()), "nor after a restart");
    }

    #[test]
    fn a_core_that_invents_generations_fills_no_more_than_there_is_room_for() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = restored(dir.path()).elsewhere();
        for part in 0..3 {
            let told = (0..1000).map(|n| used(part * 1000 + n, 1, 2)).collect::<Vec<_>>();
            elsewhere.keep(KEY, &told).unwrap();
        }
        assert_eq!(elsewhere.used(KEY).len(), GENERATIONS_MAX);
        assert!(!elsewhere.wants(KEY, 3000), "and is asked no more");
    }
}
