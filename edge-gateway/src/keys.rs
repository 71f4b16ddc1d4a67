//! What must never be lost, in redb with its default (immediate) durability: patient roots. What must never go back lies in the same
//! file: [`PolicyStore`].

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use caregate_protocol::id::PatientId;
use caregate_protocol::key::PatientRoot;
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, TableDefinition};
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;

use crate::policy::PolicyStore;
use crate::watch::store::WatchStore;

const ROOTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("roots");
/// redb's page cache: a few hundred roots fit many times over, and the newest policy bundle of a home.
const CACHE_BYTES: usize = 1 << 20;

/// The key store failed.
#[derive(Debug, Error)]
pub enum KeyStoreError {
    /// The database.
    #[error("{doing}: {source}")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: Box<redb::Error>,
    },
    /// A stored value has the wrong shape: the file was changed from outside.
    #[error("stored {0} has the wrong shape")]
    Shape(&'static str),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

pub(crate) fn failed<E: Into<redb::Error>>(doing: &'static str) -> impl FnOnce(E) -> KeyStoreError {
    move |source| KeyStoreError::Database { doing, source: Box::new(source.into()) }
}

/// Patient roots.
pub struct KeyStore {
    db: Arc<Database>,
    cache: HashMap<PatientId, PatientRoot>,
    random: SystemRandom,
}

impl std::fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyStore").field("patients", &self.cache.len()).finish_non_exhaustive()
    }
}

impl KeyStore {
    /// Opens or makes `keys.redb` in `dir`, readable by its owner alone.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn open(dir: &Path) -> Result<Self, KeyStoreError> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.join("keys.redb"))
            .map_err(|e| failed("open keys.redb")(redb::StorageError::Io(e)))?;
        let db = redb::Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(FileBackend::new(file).map_err(failed("open keys.redb"))?)
            .map_err(failed("open keys.redb"))?;
        let txn = db.begin_write().map_err(failed("begin"))?;
        txn.open_table(ROOTS).map_err(failed("open roots"))?;
        PolicyStore::make_tables(&txn)?;
        WatchStore::make_table(&txn)?;
        txn.commit().map_err(failed("commit"))?;
        // The name too: a root that vanished in a power cut would be made anew, under segments that name the old one.
        std::fs::File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|e| failed("sync the folder of keys.redb")(redb::StorageError::Io(e)))?;
        Ok(Self { db: Arc::new(db), cache: HashMap::new(), random: SystemRandom::new() })
    }

    /// What is kept of policy.
    #[must_use]
    pub fn policy(&self) -> PolicyStore {
        PolicyStore::new(Arc::clone(&self.db))
    }

    /// What the watch keeps.
    #[must_use]
    pub fn watch(&self) -> WatchStore {
        WatchStore::new(Arc::clone(&self.db))
    }

    /// The patient's root, if there is one.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn existing_root(&mut self, patient: PatientId) -> Result<Option<PatientRoot>, KeyStoreError> {
        if let Some(root) = self.cache.get(&patient) {
            return Ok(Some(root.clone()));
        }
        let txn = self.db.begin_read().map_err(failed("begin"))?;
        let roots = txn.open_table(ROOTS).map_err(failed("open roots"))?;
        let Some(stored) = roots.get(patient.0.as_slice()).map_err(failed("read a root"))? else {
            return Ok(None);
        };
        let bytes: [u8; 32] = stored.value().try_into().map_err(|_length| KeyStoreError::Shape("root"))?;
        let root = PatientRoot::from_bytes(bytes);
        self.cache.insert(patient, root.clone());
        Ok(Some(root))
    }

    /// The patient's root; made, and durable before it is returned, where there was none.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn root(&mut self, patient: PatientId) -> Result<PatientRoot, KeyStoreError> {
        if let Some(root) = self.existing_root(patient)? {
            return Ok(root);
        }
        let mut bytes = [0; 32];
        self.random.fill(&mut bytes).map_err(|_unspecified| KeyStoreError::Random)?;
        let root = PatientRoot::from_bytes(bytes);
        let txn = self.db.begin_write().map_err(failed("begin"))?;
        {
            let mut roots = txn.open_table(ROOTS).map_err(failed("open roots"))?;
            roots.insert(patient.0.as_slice(), bytes.as_slice()).map_err(failed("write a root"))?;
        }
        txn.commit().map_err(failed("commit"))?;
        self.cache.insert(patient, root.clone());
        Ok(root)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_root_survives_and_the_file_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let patient = PatientId([4; 16]);
        let made = *KeyStore::open(dir.path()).unwrap().root(patient).unwrap().as_bytes();
        let mut again = KeyStore::open(dir.path()).unwrap();
        assert_eq!(*again.existing_root(patient).unwrap().unwrap().as_bytes(), made);
        assert!(again.existing_root(PatientId([5; 16])).unwrap().is_none());
        let mode = std::fs::metadata(dir.path().join("keys.redb")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
