//! The store in one redb file.

use std::path::Path;

use caregate_host::{clock, kill_point};
use caregate_protocol::erasure::{Receipt, SignedErasure};
use caregate_protocol::id::{DataClass, PatientId, RecipientId, SignerId};
use caregate_protocol::uplink::{Question, Timing, Used};
use redb::Database;

use super::erase::{self, Begun};
use super::index::{self, CACHE_BYTES, Keep, Tables};
use super::{Erased, Expired, Outcome, Page, Past, Span, Store, StoreError, failed, history, retain};

#[cfg(feature = "kill-points")]
mod kill;

/// The store of a core that has its disk to itself.
#[derive(Debug)]
pub struct Embedded {
    db: Database,
}

impl Embedded {
    /// Opens or makes the store in `dir`.
    ///
    /// # Errors
    /// [`StoreError`], also where the file is damaged or another process holds it.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("core.redb");
        if !path.exists() {
            Self::make(dir, &path)?;
        }
        let db = create(&path).map_err(failed("open core.redb"))?;
        kill_point::pass("store.opened");
        Self::prepare(db, || std::fs::File::open(dir)?.sync_all())
    }

    /// Makes the file under another name and gives it its own once it is whole and on disk: one whose making was cut off is no database,
    /// and would be refused ever after.
    fn make(dir: &Path, path: &Path) -> Result<(), StoreError> {
        let unfinished = dir.join("core.redb.new");
        if unfinished.exists() {
            std::fs::remove_file(&unfinished).map_err(failed("remove core.redb.new"))?;
        }
        let db = create(&unfinished).map_err(failed("make core.redb"))?;
        drop(Self::prepare(db, || Ok(()))?);
        std::fs::rename(&unfinished, path).map_err(failed("name core.redb"))
    }

    /// The same on a disk of the tests.
    #[cfg(test)]
    pub(super) fn open_on(
        backend: impl redb::StorageBackend,
        sync_names: impl FnOnce() -> std::io::Result<()>,
    ) -> Result<Self, StoreError> {
        let db = redb::Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend);
        Self::prepare(db.map_err(failed("open core.redb"))?, sync_names)
    }

    /// Makes the tables that are not there, and the file's name durable: what is acknowledged must not vanish with it.
    fn prepare(db: Database, sync_names: impl FnOnce() -> std::io::Result<()>) -> Result<Self, StoreError> {
        let txn = db.begin_write().map_err(failed("begin"))?;
        index::make_tables(&txn)?;
        index::name_owners(&txn, Keep::Here)?;
        kill_point::pass("store.tables-made");
        txn.commit().map_err(failed("commit"))?;
        kill_point::pass("store.prepared");
        sync_names().map_err(failed("sync the folder"))?;
        kill_point::pass("store.name-synced");
        for (patient, is_done) in erase::all(&db)? {
            if !is_done {
                erase::carry_out(&db, Keep::Here, patient, clock::now_us())?;
            }
        }
        Ok(Self { db })
    }
}

fn create(path: &Path) -> Result<Database, redb::DatabaseError> {
    let mut builder = redb::Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    #[cfg(not(feature = "kill-points"))]
    let db = builder.create(path);
    #[cfg(feature = "kill-points")]
    let db = kill::create(&builder, path);
    db
}

impl Store for Embedded {
    /// In one durable commit.
    fn put_as(&self, batch: &[Vec<u8>], as_of: Timing) -> Result<Vec<Outcome>, StoreError> {
        let txn = self.db.begin_write().map_err(failed("begin"))?;
        kill_point::pass("store.begun");
        let outcomes = {
            let mut tables = Tables::open(&txn, Keep::Here)?;
            tables.as_of = as_of;
            let outcomes = batch.iter().map(|bytes| tables.put(bytes)).collect::<Result<Vec<_>, _>>()?;
            tables.settle()?;
            outcomes
        };
        kill_point::pass("store.batch-put");
        if outcomes.contains(&Outcome::Stored) {
            txn.commit().map_err(failed("commit"))?;
            kill_point::pass("store.committed");
        } else {
            txn.abort().map_err(failed("abort"))?;
        }
        Ok(outcomes)
    }

    fn next_number(&self, recipient: RecipientId) -> Result<u64, StoreError> {
        index::next(&self.db, recipient)
    }

    fn segment(
        &self,
        patient: PatientId,
        class: DataClass,
        sequence: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        index::segment(&self.db, (patient, class, sequence), |record| Ok(Some(record.to_vec())))
    }

    fn page_of(&self, recipient: RecipientId, span: Span, bytes_max: usize) -> Result<Page, StoreError> {
        index::page(&self.db, recipient, span, bytes_max, |record| Ok(Some(record.to_vec())))
    }

    fn erase(&self, request: &SignedErasure, own: &[SignerId], now_us: i64) -> Result<Erased, StoreError> {
        let txn = self.db.begin_write().map_err(failed("begin"))?;
        let begun = Tables::open(&txn, Keep::Here)?.begin_erasure(request, own)?;
        txn.commit().map_err(failed("commit"))?;
        match begun {
            Begun::Stranger => Ok(Erased::Stranger),
            Begun::Now | Begun::Already => {
                erase::carry_out(&self.db, Keep::Here, request.erasure.patient, now_us)
            }
        }
    }

    fn usage(&self) -> Result<Vec<(PatientId, SignerId, u64)>, StoreError> {
        index::usage(&self.db)
    }

    fn owners(&self) -> Result<Vec<(PatientId, SignerId)>, StoreError> {
        index::owners(&self.db)
    }

    fn expire(&self, patient: PatientId, before: u32) -> Result<Expired, StoreError> {
        retain::expire(&self.db, patient, before)
    }

    fn history(&self, question: &Question, bytes_max: usize) -> Result<Past, StoreError> {
        history::history(&self.db, question, bytes_max, |record| Ok(Some(record.to_vec())))
    }

    fn generations(
        &self,
        patient: PatientId,
        class: DataClass,
        from: u32,
        most: usize,
    ) -> Result<Vec<Used>, StoreError> {
        history::generations(&self.db, (patient, class), from, most)
    }

    fn keep_receipt(&self, receipt: &Receipt, key: [u8; 32], bytes: &[u8]) -> Result<bool, StoreError> {
        erase::keep_receipt(&self.db, receipt, key, bytes)
    }

    fn receipts(&self, patient: PatientId) -> Result<Vec<Vec<u8>>, StoreError> {
        erase::receipts(&self.db, patient)
    }

    fn erased(&self) -> Result<Vec<PatientId>, StoreError> {
        Ok(erase::all(&self.db)?.into_iter().map(|(patient, _)| patient).collect())
    }
}
