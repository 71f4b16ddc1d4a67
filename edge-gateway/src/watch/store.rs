//! What the watch must find again after a restart, in `keys.redb`: what staff set, what latched, and which commands were handled.

use std::sync::Arc;

use caregate_protocol::id::PatientId;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::engine::Kept;
use crate::keys::{KeyStoreError, failed};

const WATCH: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("watch");

/// The store; cheap to clone.
#[derive(Debug, Clone)]
pub struct WatchStore {
    db: Arc<Database>,
}

impl WatchStore {
    pub(crate) fn new(db: Arc<Database>) -> Self {
        Self { db }
    }

    pub(crate) fn make_table(txn: &WriteTransaction) -> Result<(), KeyStoreError> {
        txn.open_table(WATCH).map(drop).map_err(failed("open watch"))
    }

    /// Nothing of this patient stays.
    pub(crate) fn erase(txn: &WriteTransaction, patient: PatientId) -> Result<(), KeyStoreError> {
        let mut table = txn.open_table(WATCH).map_err(failed("open watch"))?;
        table.remove(patient.0.as_slice()).map(drop).map_err(failed("remove a patient's watch"))
    }

    /// The same, durable when it returns: of a patient who was erased meanwhile.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn forget(&self, patient: PatientId) -> Result<(), KeyStoreError> {
        let txn = self.db.begin_write().map_err(failed("begin"))?;
        Self::erase(&txn, patient)?;
        txn.commit().map_err(failed("commit"))
    }

    /// What was kept of every patient.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn all(&self) -> Result<Vec<(PatientId, Kept)>, KeyStoreError> {
        let txn = self.db.begin_read().map_err(failed("begin"))?;
        let table = txn.open_table(WATCH).map_err(failed("open watch"))?;
        let mut all = Vec::new();
        for entry in table.iter().map_err(failed("read watch"))? {
            let (patient, kept) = entry.map_err(failed("read watch"))?;
            let patient = patient.value().try_into().map_err(|_length| KeyStoreError::Shape("patient"))?;
            let kept = serde_json::from_slice(kept.value()).map_err(|_json| KeyStoreError::Shape("watch"))?;
            all.push((PatientId(patient), kept));
        }
        Ok(all)
    }

    /// Keeps one patient's; durable when it returns.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn keep(&self, patient: PatientId, kept: &Kept) -> Result<(), KeyStoreError> {
        let Ok(bytes) = serde_json::to_vec(kept).map_err(|_source| unreachable!("numbers are finite"));
        let txn = self.db.begin_write().map_err(failed("begin"))?;
        {
            let mut table = txn.open_table(WATCH).map_err(failed("open watch"))?;
            table.insert(patient.0.as_slice(), bytes.as_slice()).map_err(failed("write watch"))?;
        }
        txn.commit().map_err(failed("commit"))
    }
}

#[cfg(test)]
mod tests {
    use caregate_protocol::alarm::{Handled, Limits, Settings};
    use caregate_protocol::id::RecipientId;

    use super::*;
    use crate::keys::KeyStore;

    #[test]
    fn what_was_kept_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { low: Some(88.5), delay_s: 10, ..Limits::default() };
        let kept = Kept {
            settings: Settings { limits: [(3, limits)].into(), ..Settings::default() },
            handled: vec![Handled { domain: RecipientId([1; 20]), sequence: 7, refused: None }],
            next_alarm: 9,
            latched: Vec::new(),
        };
        let store = KeyStore::open(dir.path()).unwrap().watch();
        assert!(store.all().unwrap().is_empty());
        store.keep(PatientId([4; 16]), &Kept::default()).unwrap();
        store.keep(PatientId([4; 16]), &kept).unwrap();
        drop(store);
        let again = KeyStore::open(dir.path()).unwrap().watch();
        assert_eq!(again.all().unwrap(), [(PatientId([4; 16]), kept)]);
    }
}
