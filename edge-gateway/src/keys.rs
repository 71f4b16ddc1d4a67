//! What must never be lost or go back, in redb with its default (immediate) durability: patient roots and policy floors.

use std::collections::HashMap;
use std::path::Path;

use caregate_protocol::id::PatientId;
use caregate_protocol::key::PatientRoot;
use caregate_protocol::policy::Floors;
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, TableDefinition};
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;

const ROOTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("roots");
const POLICY: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("policy");
const FLOORS: &str = "floors";
/// redb's page cache: a few hundred roots fit many times over.
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

fn failed<E: Into<redb::Error>>(doing: &'static str) -> impl FnOnce(E) -> KeyStoreError {
    move |source| KeyStoreError::Database { doing, source: Box::new(source.into()) }
}

/// Patient roots and policy floors.
pub struct KeyStore {
    db: Database,
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
        txn.open_table(POLICY).map_err(failed("open policy"))?;
        txn.commit().map_err(failed("commit"))?;
        // The name too: a root that vanished in a power cut would be made anew, under segments that name the old one.
        std::fs::File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|e| failed("sync the folder of keys.redb")(redb::StorageError::Io(e)))?;
        Ok(Self { db, cache: HashMap::new(), random: SystemRandom::new() })
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

    /// What has been seen of policy so far.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn floors(&self) -> Result<Floors, KeyStoreError> {
        let txn = self.db.begin_read().map_err(failed("begin"))?;
        let policy = txn.open_table(POLICY).map_err(failed("open policy"))?;
        match policy.get(FLOORS).map_err(failed("read floors"))? {
            None => Ok(Floors::default()),
            Some(bytes) => {
                serde_json::from_slice(bytes.value()).map_err(|_json| KeyStoreError::Shape("floors"))
            }
        }
    }

    /// Keeps what has been seen of policy, durably, before it is acted on.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn keep_floors(&self, floors: &Floors) -> Result<(), KeyStoreError> {
        let bytes = serde_json::to_vec(floors).map_err(|_json| KeyStoreError::Shape("floors"))?;
        let txn = self.db.begin_write().map_err(failed("begin"))?;
        {
            let mut policy = txn.open_table(POLICY).map_err(failed("open policy"))?;
            policy.insert(FLOORS, bytes.as_slice()).map_err(failed("write floors"))?;
        }
        txn.commit().map_err(failed("commit"))
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

    #[test]
    fn floors_survive() {
        let dir = tempfile::tempdir().unwrap();
        let floors = Floors { epoch: 9, ..Floors::default() };
        KeyStore::open(dir.path()).unwrap().keep_floors(&floors).unwrap();
        assert_eq!(KeyStore::open(dir.path()).unwrap().floors().unwrap(), floors);
    }
}
