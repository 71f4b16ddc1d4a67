//! What must never be lost, in redb with its default (immediate) durability: patient roots. What must never go back lies in the same
//! file: [`PolicyStore`].
//!
//! Where the gateway has a TPM, roots are encrypted under a key that the TPM has sealed; else the file's mode is what protects them. A
//! root that is gone, or whose TPM is, comes again from shares ([`crate::root`], ADR 28).

mod at_rest;
mod database;
pub mod elsewhere;
mod envelope;
mod erase;
pub mod erasures;
pub mod given;
mod past;
mod root_key;
mod scrub;
mod tpm;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caregate_protocol::id::{DataClass, PatientId};
use caregate_protocol::key::PatientRoot;
use caregate_protocol::policy::RelationshipId;
use elsewhere::Elsewhere;
use envelope::{RootKey, Stored};
use erasures::Erasures;
use given::{Given, Pasts};
use past::Past;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use scrub::Needles;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::audit::Audit;
use crate::pipeline::chains::Beginning;
use crate::policy::PolicyStore;
use crate::watch::store::WatchStore;

pub use at_rest::AtRest;
pub(crate) use envelope::{Vault, is_plain};
pub use tpm::TpmFailure;

const ROOTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("roots");
/// Where chains of a restored root begin: sequence 8, generation 4.
const BEGINNINGS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("beginnings");
/// Patients whose roots were destroyed, and when, Unix seconds.
pub(crate) const ERASED: TableDefinition<'_, &[u8], u64> = TableDefinition::new("erased");
/// The key under which roots are encrypted, as the TPM has sealed it.
const SEALED: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("sealed");
const ROOT_KEY: &str = "root key";
/// Keys of the gateway's own files, by name; as roots are kept.
const FILES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("files");
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
    /// Another process has it open.
    #[error("keys.redb is in use: stop the gateway first")]
    InUse,
    /// A stored value has the wrong shape: the file was changed from outside.
    #[error("stored {0} has the wrong shape")]
    Shape(&'static str),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// The TPM does not open the key of the roots: another TPM, a cleared or a broken one.
    #[error(
        "the patients' roots are sealed, and this TPM does not open them ({0}); on another board, or after its TPM was cleared, bring them \
         back from the patients' shares: edge-gateway root restore"
    )]
    Tpm(#[from] TpmFailure),
    /// Roots are sealed, and there is no TPM.
    #[error(
        "the patients' roots are sealed to a TPM, and there is none (`[keys] tpm`); bring them back from the patients' shares: \
         edge-gateway root restore"
    )]
    NoTpm,
    /// One root is under another TPM's key.
    #[error(
        "a patient's root is sealed to another TPM than this one; bring it back from the patient's shares: edge-gateway root restore"
    )]
    Elsewhere,
    /// The patient's root was destroyed here.
    #[error("that patient's root was erased on this gateway, for good; enrol another pseudonym")]
    Erased,
    /// What was erased may still be in freed pages of the file.
    #[error("keys.redb could not be scrubbed: {0}")]
    Scrub(std::io::Error),
    /// There is another root of this patient.
    #[error(
        "this gateway holds another root of that patient, and has sealed under it; restore into a gateway that has not begun (an empty `data`)"
    )]
    OtherRoot,
}

pub(crate) fn failed<E: Into<redb::Error>>(doing: &'static str) -> impl FnOnce(E) -> KeyStoreError {
    move |source| KeyStoreError::Database { doing, source: Box::new(source.into()) }
}

/// What to do where the TPM does not open the roots' key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unopened {
    Refuse,
    /// Roots come from shares now, and what is sealed here is for nobody any more.
    MakeAnew,
    /// Roots only go: it takes no TPM to destroy what one has sealed.
    Leave,
}

/// Patient roots.
pub struct KeyStore {
    db: Arc<Database>,
    audit: Audit,
    key: Option<Arc<RootKey>>,
    cache: HashMap<PatientId, PatientRoot>,
    erased: BTreeSet<PatientId>,
    past: Past,
    given: Pasts,
    elsewhere: Elsewhere,
    erasures: Erasures,
    dir: PathBuf,
    random: SystemRandom,
}

impl std::fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyStore").field("patients", &self.cache.len()).finish_non_exhaustive()
    }
}

impl KeyStore {
    /// Opens or makes `keys.redb` in `dir`, readable by its owner alone, of a gateway without a TPM.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn open(dir: &Path) -> Result<Self, KeyStoreError> {
        Self::open_with(dir, None)
    }

    /// As [`Self::open`], where roots are sealed to the TPM behind this device. Those that were not yet, are.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn open_with(dir: &Path, tpm: Option<&Path>) -> Result<Self, KeyStoreError> {
        Self::open_or(dir, tpm, Unopened::Refuse)
    }

    /// As [`Self::open_with`], to take roots from shares: where the TPM does not open what is sealed, roots are sealed to it anew.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn open_to_restore(dir: &Path, tpm: Option<&Path>) -> Result<Self, KeyStoreError> {
        Self::open_or(dir, tpm, Unopened::MakeAnew)
    }

    /// Only to destroy roots, without asking a TPM: what one has sealed stays sealed, and nothing is made or read.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn open_to_erase(dir: &Path) -> Result<Self, KeyStoreError> {
        Self::open_or(dir, None, Unopened::Leave)
    }

    fn open_or(dir: &Path, tpm: Option<&Path>, unopened: Unopened) -> Result<Self, KeyStoreError> {
        let sync_names = || std::fs::File::open(dir)?.sync_all();
        Self::prepare(database::open(dir)?, dir, (tpm, unopened), sync_names)
    }

    /// On a disk of the tests; only the audit log lies in `dir`.
    #[cfg(test)]
    pub(crate) fn open_on(
        dir: &Path,
        faults: &Arc<crate::faults::Faults>,
        folder: &'static str,
    ) -> Result<Self, KeyStoreError> {
        let sync_names = || {
            faults.model(|model| model.sync_names_in(folder));
            Ok(())
        };
        Self::prepare(database::open_on(faults)?, dir, (None, Unopened::Refuse), sync_names)
    }

    fn prepare(
        db: Database,
        dir: &Path,
        (tpm, unopened): (Option<&Path>, Unopened),
        sync_names: impl FnOnce() -> std::io::Result<()>,
    ) -> Result<Self, KeyStoreError> {
        let db = Arc::new(db);
        let txn = db.begin_write().map_err(failed("begin"))?;
        txn.open_table(ROOTS).map_err(failed("open roots"))?;
        txn.open_table(BEGINNINGS).map_err(failed("open beginnings"))?;
        txn.open_table(FILES).map_err(failed("open files"))?;
        let erased = erased(&txn.open_table(ERASED).map_err(failed("open erased"))?)?;
        let (past, given) = (Past::read(&txn)?, Pasts::read(&txn)?);
        let erasures = Erasures::open(Arc::clone(&db), &txn)?;
        let elsewhere = Elsewhere::open(Arc::clone(&db), &txn)?;
        PolicyStore::make_tables(&txn)?;
        WatchStore::make_tables(&txn)?;
        let random = SystemRandom::new();
        let key = root_key::open(&txn, tpm, unopened, &random)?;
        let open_rows = WatchStore::encrypt_open_rows(&txn, &Vault(key.clone()))?;
        let in_a_piece = open_rows.iter().filter(|row| row.len() <= scrub::CHUNK_BYTES);
        in_a_piece.into_iter().try_for_each(|row| scrub::note(&txn, row))?;
        let left = scrub::left(&txn)?;
        txn.commit().map_err(failed("commit"))?;
        // The name too: a root that vanished in a power cut would be made anew, under segments that name the old one.
        sync_names().map_err(|e| failed("sync the folder of keys.redb")(redb::StorageError::Io(e)))?;
        // Of a root that was being destroyed, or sealed to a TPM for the first time.
        if !left.is_empty() {
            erase::scrub_now(&db, dir, Needles::Hashes(&left), &left)?;
        }
        let audit = Audit::new(dir).map_err(|_name| KeyStoreError::Shape("name of a counter"))?;
        Ok(Self {
            db,
            audit,
            key,
            cache: HashMap::new(),
            erased,
            past,
            given,
            elsewhere,
            erasures,
            dir: dir.to_owned(),
            random,
        })
    }

    /// Whether roots are sealed to a TPM.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.key.is_some()
    }

    /// What is kept of policy.
    #[must_use]
    pub fn policy(&self) -> PolicyStore {
        PolicyStore::new(Arc::clone(&self.db), self.audit.clone())
    }

    /// The audit log beside it.
    #[must_use]
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// What the core is asked to erase.
    #[must_use]
    pub fn erasures(&self) -> Erasures {
        self.erasures.clone()
    }

    /// What other gateways have sealed under roots that were restored here.
    #[must_use]
    pub fn elsewhere(&self) -> Elsewhere {
        self.elsewhere.clone()
    }

    /// What a connection asks the core, of erasures and of restored roots.
    #[must_use]
    pub fn questions(&self) -> (Erasures, Elsewhere) {
        (self.erasures(), self.elsewhere())
    }

    /// What the watch keeps.
    #[must_use]
    pub fn watch(&self) -> WatchStore {
        WatchStore::new(Arc::clone(&self.db), Vault(self.key.clone()))
    }

    /// The key of one of the gateway's own files; made, and durable before it is returned, where there was none or another TPM has it: what
    /// such a file holds can be done without.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn file_key(&self, name: &str) -> Result<Zeroizing<[u8; 32]>, KeyStoreError> {
        let mut id = PatientId([0; 16]);
        id.0.copy_from_slice(&digest(&SHA256, name.as_bytes()).as_ref()[..16]);
        let txn = self.db.begin_write().map_err(failed("begin"))?;
        let mut key = Zeroizing::new([0; 32]);
        let mut plain = Vec::new();
        {
            let mut files = txn.open_table(FILES).map_err(failed("open files"))?;
            let stored =
                files.get(name).map_err(failed("read a file's key"))?.map(|key| key.value().to_vec());
            let stored = stored.map(Zeroizing::new);
            let opened = stored.as_ref().map(|stored| envelope::open(self.key.as_deref(), id, stored));
            match opened.transpose()? {
                Some(Stored::Root(known)) => key.copy_from_slice(known.as_bytes()),
                Some(Stored::Elsewhere) | None => {
                    self.random.fill(key.as_mut_slice()).map_err(|_unspecified| KeyStoreError::Random)?;
                }
            }
            // Also one that was plain before there was a TPM, which leaves the pages in which it lay.
            let sealed = envelope::seal(self.key.as_deref(), id, &PatientRoot::from_bytes(*key))?;
            files.insert(name, sealed.as_slice()).map_err(failed("write a file's key"))?;
            if self.key.is_some() {
                plain.extend(stored.filter(|stored| is_plain(stored)));
            }
            plain.iter().try_for_each(|needle| scrub::note(&txn, needle))?;
        }
        txn.commit().map_err(failed("commit"))?;
        if !plain.is_empty() {
            erase::scrub_now(&self.db, &self.dir, Needles::Bytes(&plain), &scrub::of(&plain))?;
        }
        Ok(key)
    }

    /// The patient's root, if there is one.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn existing_root(&mut self, patient: PatientId) -> Result<Option<PatientRoot>, KeyStoreError> {
        if let Some(root) = self.cache.get(&patient) {
            return Ok(Some(root.clone()));
        }
        match self.stored(patient)? {
            None => Ok(None),
            Some(Stored::Elsewhere) => Err(KeyStoreError::Elsewhere),
            Some(Stored::Root(root)) => {
                self.cache.insert(patient, root.clone());
                Ok(Some(root))
            }
        }
    }

    fn stored(&self, patient: PatientId) -> Result<Option<Stored>, KeyStoreError> {
        let txn = self.db.begin_read().map_err(failed("begin"))?;
        let roots = txn.open_table(ROOTS).map_err(failed("open roots"))?;
        let stored = roots.get(patient.0.as_slice()).map_err(failed("read a root"))?;
        stored.map(|stored| envelope::open(self.key.as_deref(), patient, stored.value())).transpose()
    }

    /// The patient's root; made, and durable before it is returned, where there was none.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn root(&mut self, patient: PatientId) -> Result<PatientRoot, KeyStoreError> {
        if self.is_erased(patient) {
            return Err(KeyStoreError::Erased);
        }
        if let Some(root) = self.existing_root(patient)? {
            return Ok(root);
        }
        let mut bytes = Zeroizing::new([0; 32]);
        self.random.fill(bytes.as_mut_slice()).map_err(|_unspecified| KeyStoreError::Random)?;
        let root = PatientRoot::from_bytes(*bytes);
        self.keep(patient, &root, None)?;
        Ok(root)
    }

    /// Takes a root that was put together from shares; false where it is here already. On a gateway that has sealed nothing for the
    /// patient yet, its chains begin at `beginning`.
    ///
    /// # Errors
    /// [`KeyStoreError::OtherRoot`], or another [`KeyStoreError`].
    pub fn restore(
        &mut self,
        patient: PatientId,
        root: &PatientRoot,
        beginning: Beginning,
    ) -> Result<bool, KeyStoreError> {
        if self.is_erased(patient) {
            return Err(KeyStoreError::Erased);
        }
        match self.stored(patient)? {
            Some(Stored::Root(known)) if known.as_bytes() == root.as_bytes() => Ok(false),
            Some(Stored::Root(_)) => Err(KeyStoreError::OtherRoot),
            // Of this gateway on another board: its own spool says where the chains are.
            Some(Stored::Elsewhere) => self.keep(patient, root, None).map(|()| true),
            None => self.keep(patient, root, Some(beginning)).map(|()| true),
        }
    }

    fn keep(
        &mut self,
        patient: PatientId,
        root: &PatientRoot,
        beginning: Option<Beginning>,
    ) -> Result<(), KeyStoreError> {
        let sealed = envelope::seal(self.key.as_deref(), patient, root)?;
        let txn = self.db.begin_write().map_err(failed("begin"))?;
        {
            let mut roots = txn.open_table(ROOTS).map_err(failed("open roots"))?;
            roots.insert(patient.0.as_slice(), sealed.as_slice()).map_err(failed("write a root"))?;
            if let Some(Beginning { next, generation }) = beginning {
                let mut table = txn.open_table(BEGINNINGS).map_err(failed("open beginnings"))?;
                let value = [next.to_be_bytes().as_slice(), &generation.to_be_bytes()].concat();
                table.insert(patient.0.as_slice(), value.as_slice()).map_err(failed("write a beginning"))?;
            }
        }
        txn.commit().map_err(failed("commit"))?;
        self.cache.insert(patient, root.clone());
        if let Some(beginning) = beginning {
            self.elsewhere.began(patient, beginning);
        }
        Ok(())
    }

    /// Whether the patient's root was destroyed here.
    #[must_use]
    pub fn is_erased(&self, patient: PatientId) -> bool {
        self.erased.contains(&patient)
    }

    /// Writes down, where it is new, that a generation of a chain's keys seals from `epoch` on; call before it does.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn note_generation(
        &mut self,
        key: (PatientId, DataClass),
        generation: u32,
        epoch: u32,
    ) -> Result<(), KeyStoreError> {
        if self.past.knows(key, generation) {
            return Ok(());
        }
        self.past.note(&self.db, key, [(generation, epoch)])
    }

    /// Takes the generations of a chain for used, from `base` to `generation`, where none of it was written down.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn adopt_generations(
        &mut self,
        key: (PatientId, DataClass),
        base: u32,
        generation: u32,
    ) -> Result<(), KeyStoreError> {
        self.past.adopt(&self.db, key, base, generation)
    }

    /// The generations of a chain that may have sealed, the lowest first, each with its first epoch; 0 where that is not known.
    #[must_use]
    pub fn generations(&self, key: (PatientId, DataClass)) -> Vec<(u32, u32)> {
        self.past.generations(key)
    }

    /// What was given of a relationship's past last.
    #[must_use]
    pub fn past_given(&self, relationship: &RelationshipId) -> Option<&Given> {
        self.given.of(relationship)
    }

    /// Of whose past the wrap at a position of the spool is; none where it is one of the live path.
    #[must_use]
    pub fn past_at(&self, position: u64) -> Option<(RelationshipId, &Given)> {
        self.given.at(position)
    }

    /// Writes down that the past of a grant was given; call when its wraps are durable.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn note_past_given(
        &mut self,
        relationship: RelationshipId,
        given: Given,
    ) -> Result<(), KeyStoreError> {
        self.given.note(&self.db, relationship, given)
    }

    /// Forgets the pasts that were given and are lost on their way, so that they are given anew; call before what is left of them goes.
    /// Returns how many.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn lose_pasts(
        &mut self,
        is_lost: impl Fn(&RelationshipId, &Given) -> bool,
    ) -> Result<usize, KeyStoreError> {
        self.given.lose(&self.db, is_lost)
    }

    /// Where chains of restored roots begin.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn beginnings(&self) -> Result<BTreeMap<PatientId, Beginning>, KeyStoreError> {
        let txn = self.db.begin_read().map_err(failed("begin"))?;
        let table = txn.open_table(BEGINNINGS).map_err(failed("open beginnings"))?;
        let mut beginnings = BTreeMap::new();
        for entry in table.iter().map_err(failed("read beginnings"))? {
            let (patient, value) = entry.map_err(failed("read beginnings"))?;
            let (patient, beginning) = beginning(patient.value(), value.value())?;
            beginnings.insert(patient, beginning);
        }
        Ok(beginnings)
    }

    /// The patients whose roots are here, and whether each can be opened.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn patients(&self) -> Result<Vec<(PatientId, bool)>, KeyStoreError> {
        let txn = self.db.begin_read().map_err(failed("begin"))?;
        let roots = txn.open_table(ROOTS).map_err(failed("open roots"))?;
        let mut patients = Vec::new();
        for entry in roots.iter().map_err(failed("read roots"))? {
            let (patient, stored) = entry.map_err(failed("read roots"))?;
            let shape = |_length| KeyStoreError::Shape("patient");
            let patient = PatientId(patient.value().try_into().map_err(shape)?);
            let opened = envelope::open(self.key.as_deref(), patient, stored.value())?;
            patients.push((patient, matches!(opened, Stored::Root(_))));
        }
        Ok(patients)
    }
}

/// A row of the beginnings.
fn beginning(patient: &[u8], value: &[u8]) -> Result<(PatientId, Beginning), KeyStoreError> {
    let shape = || KeyStoreError::Shape("beginning");
    let patient = patient.try_into().map_err(|_length| shape())?;
    let (next, generation) = value.split_first_chunk::<8>().ok_or_else(shape)?;
    let generation = generation.try_into().map_err(|_length| shape())?;
    let (next, generation) = (u64::from_be_bytes(*next), u32::from_be_bytes(generation));
    Ok((PatientId(patient), Beginning { next, generation }))
}

fn erased(table: &impl ReadableTable<&'static [u8], u64>) -> Result<BTreeSet<PatientId>, KeyStoreError> {
    let mut erased = BTreeSet::new();
    for entry in table.iter().map_err(failed("read erased"))? {
        let (patient, _) = entry.map_err(failed("read erased"))?;
        let patient = patient.value().try_into().map_err(|_length| KeyStoreError::Shape("patient"))?;
        erased.insert(PatientId(patient));
    }
    Ok(erased)
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
        let key = again.file_key("mqtt").unwrap();
        assert_ne!(*key, *again.file_key("other").unwrap());
        drop(again);
        assert_eq!(*key, *KeyStore::open(dir.path()).unwrap().file_key("mqtt").unwrap());
        let mode = std::fs::metadata(dir.path().join("keys.redb")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
