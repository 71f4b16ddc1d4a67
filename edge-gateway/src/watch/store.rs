//! What the watch must find again after a restart, in `keys.redb`: what staff set, what latched, which commands were handled, and how far it has
//! heard what lies in the spool.

use std::sync::Arc;

use caregate_protocol::id::PatientId;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use ring::rand::{SecureRandom as _, SystemRandom};
use tracing::{error, warn};
use zeroize::Zeroizing;

use super::engine::Kept;
use crate::keys::{AtRest, ERASED, KeyStoreError, Vault, failed, is_plain};

/// Of each patient, what is kept (JSON), encrypted under the patient's key in [`KEYS`].
const WATCH: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("watch");
/// Those keys, as roots are kept. A row is written anew with each change and leaves what it was in pages that the database has freed;
/// whose key is destroyed, of them nothing is left.
const KEYS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("watch keys");

/// Below which position of the spool every event is in what is kept.
const HEARD: TableDefinition<'_, (), u64> = TableDefinition::new("watch heard");

/// The store; cheap to clone.
#[derive(Debug, Clone)]
pub struct WatchStore {
    db: Arc<Database>,
    vault: Vault,
}

impl WatchStore {
    pub(crate) fn new(db: Arc<Database>, vault: Vault) -> Self {
        Self { db, vault }
    }

    /// Lets nobody write until it is dropped, as a disk does that hangs.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> WriteTransaction {
        self.db.begin_write().unwrap()
    }

    pub(crate) fn make_tables(txn: &WriteTransaction) -> Result<(), KeyStoreError> {
        txn.open_table(WATCH).map(drop).map_err(failed("open watch"))?;
        txn.open_table(HEARD).map(drop).map_err(failed("open watch heard"))?;
        txn.open_table(KEYS).map(drop).map_err(failed("open watch keys"))
    }

    /// Seals the keys that lie as they are, since there was no TPM. What is to be scrubbed.
    pub(crate) fn seal_open_keys(
        txn: &WriteTransaction,
        vault: &Vault,
    ) -> Result<Vec<Zeroizing<Vec<u8>>>, KeyStoreError> {
        let mut keys = txn.open_table(KEYS).map_err(failed("open watch keys"))?;
        let mut plain = Vec::new();
        for entry in keys.iter().map_err(failed("read watch keys"))? {
            let (patient, stored) = entry.map_err(failed("read watch keys"))?;
            if is_plain(stored.value()) {
                plain.push((patient_of(patient.value())?, Zeroizing::new(stored.value().to_vec())));
            }
        }
        for (patient, stored) in &plain {
            let Some(key) = vault.open(*patient, stored)? else { continue };
            let sealed = vault.seal(*patient, &key)?;
            keys.insert(patient.0.as_slice(), sealed.as_slice()).map_err(failed("write a watch key"))?;
        }
        Ok(plain.into_iter().map(|(_, stored)| stored).collect())
    }

    /// Encrypts rows of a build that kept them as they are, and returns those for scrubbing; one that can't be read goes, and so does one of
    /// a patient who was erased, which is said in the log.
    pub(crate) fn encrypt_open_rows(
        txn: &WriteTransaction,
        vault: &Vault,
    ) -> Result<Vec<Zeroizing<Vec<u8>>>, KeyStoreError> {
        let mut plain = Vec::new();
        {
            let table = txn.open_table(WATCH).map_err(failed("open watch"))?;
            let keys = txn.open_table(KEYS).map_err(failed("open watch keys"))?;
            for entry in table.iter().map_err(failed("read watch"))? {
                let (patient, kept) = entry.map_err(failed("read watch"))?;
                if keys.get(patient.value()).map_err(failed("read watch keys"))?.is_none() {
                    plain.push((patient_of(patient.value())?, Zeroizing::new(kept.value().to_vec())));
                }
            }
        }
        for (patient, row) in &plain {
            // It gets no key any more, and a row without one lets nothing be read.
            if is_erased(txn, *patient)? {
                warn!(
                    "what staff had set at the watch of a patient who was erased was still there; it is gone now"
                );
                remove(txn, *patient)?;
                continue;
            }
            match serde_json::from_slice(row) {
                Ok(kept) => put(txn, vault, *patient, &kept)?,
                Err(error) => {
                    error!(%error, "what staff have set at a patient's watch can't be read; it must be set again");
                    remove(txn, *patient)?;
                }
            }
        }
        Ok(plain.into_iter().map(|(_, row)| row).filter(|row| !row.is_empty()).collect())
    }

    /// Nothing of this patient stays, once what comes back is scrubbed: the key, as it lies and as it is.
    pub(crate) fn erase(
        &self,
        txn: &WriteTransaction,
        patient: PatientId,
    ) -> Result<Vec<Zeroizing<Vec<u8>>>, KeyStoreError> {
        remove(txn, patient)?;
        let mut keys = txn.open_table(KEYS).map_err(failed("open watch keys"))?;
        let removed = keys.remove(patient.0.as_slice()).map_err(failed("remove a watch key"))?;
        let Some(stored) = removed.map(|stored| Zeroizing::new(stored.value().to_vec())) else {
            return Ok(Vec::new());
        };
        let sealed = Some(&stored).filter(|stored| !is_plain(stored));
        // It may have lain open before there was a TPM.
        let key = sealed.map(|stored| self.vault.open(patient, stored)).transpose()?.flatten();
        Ok(key.map(|key| Zeroizing::new(key.to_vec())).into_iter().chain([stored]).collect())
    }

    /// What was kept of every patient, but for those whose keys another TPM has: that is said in the log.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn all(&self) -> Result<Vec<(PatientId, Kept)>, KeyStoreError> {
        let txn = self.db.begin_read().map_err(failed("begin"))?;
        let table = txn.open_table(WATCH).map_err(failed("open watch"))?;
        let keys = txn.open_table(KEYS).map_err(failed("open watch keys"))?;
        let mut all = Vec::new();
        for entry in table.iter().map_err(failed("read watch"))? {
            let (patient, kept) = entry.map_err(failed("read watch"))?;
            let patient = patient_of(patient.value())?;
            let stored = keys.get(patient.0.as_slice()).map_err(failed("read watch keys"))?;
            let stored = stored.ok_or(KeyStoreError::Shape("watch"))?;
            let Some(key) = self.vault.open(patient, stored.value())? else {
                error!(
                    "what staff have set at a patient's watch is sealed to another TPM; it must be set again"
                );
                continue;
            };
            let opened = AtRest::new(&key).open(&patient.0, kept.value());
            let kept = opened.and_then(|json| serde_json::from_slice(&json).ok());
            all.push((patient, kept.ok_or(KeyStoreError::Shape("watch"))?));
        }
        Ok(all)
    }

    /// Below which position of the spool every event is in what is kept; `None` before the first start that notes it.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn heard(&self) -> Result<Option<u64>, KeyStoreError> {
        let txn = self.db.begin_read().map_err(failed("begin"))?;
        let table = txn.open_table(HEARD).map_err(failed("open watch heard"))?;
        Ok(table.get(()).map_err(failed("read watch heard"))?.map(|below| below.value()))
    }

    /// Keeps some patients', and below which position of the spool all events are in what is kept now, in one; durable when it returns.
    /// Nothing of who was erased meanwhile.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn keep(&self, all: &[(PatientId, Kept)], heard: u64) -> Result<(), KeyStoreError> {
        let txn = self.db.begin_write().map_err(failed("begin"))?;
        for (patient, kept) in all {
            put(&txn, &self.vault, *patient, kept)?;
        }
        {
            let mut table = txn.open_table(HEARD).map_err(failed("open watch heard"))?;
            table.insert((), heard).map_err(failed("write watch heard"))?;
        }
        txn.commit().map_err(failed("commit"))
    }
}

fn put(txn: &WriteTransaction, vault: &Vault, patient: PatientId, kept: &Kept) -> Result<(), KeyStoreError> {
    let Ok(json) = serde_json::to_vec(kept).map_err(|_source| unreachable!("numbers are finite"));
    let json = Zeroizing::new(json);
    if is_erased(txn, patient)? {
        return Ok(());
    }
    let key = key(txn, vault, patient)?;
    let sealed = AtRest::new(&key).seal(&patient.0, &json);
    let sealed = sealed.map_err(|_unspecified| KeyStoreError::Random)?;
    let mut table = txn.open_table(WATCH).map_err(failed("open watch"))?;
    table.insert(patient.0.as_slice(), sealed.as_slice()).map(drop).map_err(failed("write watch"))
}

fn remove(txn: &WriteTransaction, patient: PatientId) -> Result<(), KeyStoreError> {
    let mut table = txn.open_table(WATCH).map_err(failed("open watch"))?;
    table.remove(patient.0.as_slice()).map(drop).map_err(failed("remove a patient's watch"))
}

fn is_erased(txn: &WriteTransaction, patient: PatientId) -> Result<bool, KeyStoreError> {
    let erased = txn.open_table(ERASED).map_err(failed("open erased"))?;
    Ok(erased.get(patient.0.as_slice()).map_err(failed("read erased"))?.is_some())
}

/// The patient's key; made where there is none that this TPM opens.
fn key(
    txn: &WriteTransaction,
    vault: &Vault,
    patient: PatientId,
) -> Result<Zeroizing<[u8; 32]>, KeyStoreError> {
    let mut keys = txn.open_table(KEYS).map_err(failed("open watch keys"))?;
    let stored = keys.get(patient.0.as_slice()).map_err(failed("read watch keys"))?;
    let known = stored.map(|stored| vault.open(patient, stored.value())).transpose()?.flatten();
    if let Some(known) = known {
        return Ok(known);
    }
    let mut key = Zeroizing::new([0; 32]);
    SystemRandom::new().fill(key.as_mut_slice()).map_err(|_unspecified| KeyStoreError::Random)?;
    let sealed = vault.seal(patient, &key)?;
    keys.insert(patient.0.as_slice(), sealed.as_slice()).map_err(failed("write a watch key"))?;
    Ok(key)
}

fn patient_of(key: &[u8]) -> Result<PatientId, KeyStoreError> {
    key.try_into().map(PatientId).map_err(|_length| KeyStoreError::Shape("patient"))
}

#[cfg(test)]
mod tests {
    use caregate_protocol::alarm::{Handled, Limits, Settings};
    use caregate_protocol::id::RecipientId;

    use super::*;
    use crate::keys::KeyStore;
    use crate::keys::erasures::Ordered;

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
        assert_eq!(store.heard().unwrap(), None);
        store.keep(&[(PatientId([4; 16]), Kept::default())], 70).unwrap();
        store.keep(&[(PatientId([4; 16]), kept.clone())], 7).unwrap();
        drop(store);
        let again = KeyStore::open(dir.path()).unwrap().watch();
        assert_eq!(again.all().unwrap(), [(PatientId([4; 16]), kept)]);
        assert_eq!(again.heard().unwrap(), Some(7), "a spool that was made anew begins at 1 again");
    }

    /// A row as a build wrote it that encrypted none.
    fn lay_open(store: &WatchStore, patient: PatientId, row: &[u8]) {
        let txn = store.db.begin_write().unwrap();
        txn.open_table(WATCH).unwrap().insert(patient.0.as_slice(), row).unwrap();
        txn.commit().unwrap();
    }

    /// A gateway that was updated goes on with what staff had set, and what lay open is gone.
    #[test]
    fn rows_of_a_build_that_encrypted_none_are_taken_over_and_scrubbed() {
        let (dir, patient, spoilt) = (tempfile::tempdir().unwrap(), PatientId([4; 16]), PatientId([5; 16]));
        let limits = Limits { low: Some(86.5), ..Limits::default() };
        let settings = Settings { limits: [(3, limits)].into(), ..Settings::default() };
        let kept = Kept { settings, ..Kept::default() };
        {
            let store = KeyStore::open(dir.path()).unwrap().watch();
            lay_open(&store, patient, &serde_json::to_vec(&kept).unwrap());
            lay_open(&store, spoilt, b"{\"settings\": 7}");
        }
        for _ in 0..2 {
            let store = KeyStore::open(dir.path()).unwrap().watch();
            assert_eq!(store.all().unwrap(), [(patient, kept.clone())]);
        }
        let file = std::fs::read(dir.path().join("keys.redb")).unwrap();
        for open in [b"86.5".as_slice(), b"settings"] {
            assert!(!file.windows(open.len()).any(|window| window == open));
        }
    }

    /// Nothing is encrypted of who was erased, and while it lay open nobody's was read.
    #[test]
    fn a_row_that_was_left_open_of_an_erased_patient_goes_and_is_scrubbed() {
        let (dir, erased, other) = (tempfile::tempdir().unwrap(), PatientId([4; 16]), PatientId([5; 16]));
        let limits = Limits { low: Some(86.5), ..Limits::default() };
        let settings = Settings { limits: [(3, limits)].into(), ..Settings::default() };
        let kept = Kept { settings, ..Kept::default() };
        {
            let mut keys = KeyStore::open(dir.path()).unwrap();
            keys.erase(erased, &Ordered { request: [7; 104], by: None }, 9).unwrap();
            let store = keys.watch();
            store.keep(&[(other, kept.clone())], 1).unwrap();
            lay_open(&store, erased, &serde_json::to_vec(&kept).unwrap());
        }
        for _ in 0..2 {
            let store = KeyStore::open(dir.path()).unwrap().watch();
            assert_eq!(store.all().unwrap(), [(other, kept.clone())]);
        }
        let file = std::fs::read(dir.path().join("keys.redb")).unwrap();
        assert!(!file.windows(4).any(|window| window == b"86.5"));
    }

    /// Also of rows that were written over: redb leaves them in pages that it has freed.
    #[test]
    fn nothing_readable_of_an_erased_patient_is_left_in_the_file() {
        let (dir, patient) = (tempfile::tempdir().unwrap(), PatientId([4; 16]));
        let mut keys = KeyStore::open(dir.path()).unwrap();
        let store = keys.watch();
        for low in [88.5, 87.5, 86.5] {
            let limits = Limits { low: Some(low), ..Limits::default() };
            let settings = Settings { limits: [(3, limits)].into(), ..Settings::default() };
            store.keep(&[(patient, Kept { settings, ..Kept::default() })], 1).unwrap();
        }
        let holds = |needle: &[u8]| {
            let file = std::fs::read(dir.path().join("keys.redb")).unwrap();
            file.windows(needle.len()).any(|window| window == needle)
        };
        let key = {
            let txn = store.db.begin_write().unwrap();
            key(&txn, &store.vault, patient).unwrap()
        };
        assert!(holds(key.as_slice()), "there is no TPM");
        assert!(!holds(b"limits") && !holds(b"86.5"), "rows are encrypted");
        assert!(!keys.erase(patient, &Ordered { request: [7; 104], by: None }, 9).unwrap(), "it had no root");
        assert!(!holds(key.as_slice()), "what was kept opens no more");
        store.keep(&[(patient, Kept::default())], 1).unwrap();
        assert!(store.all().unwrap().is_empty(), "nothing is kept of who was erased");
    }
}
