//! How a root is destroyed: out of its table, then out of the pages that the database has freed.

use std::path::Path;

use caregate_protocol::id::PatientId;
use redb::Database;
use zeroize::Zeroizing;

use super::elsewhere::Elsewhere;
use super::envelope::{self, Stored};
use super::erasures::{Erasures, Ordered};
use super::given::Pasts;
use super::past::Past;
use super::scrub::{self, Needles, Scrubs};
use super::{BEGINNINGS, ERASED, KeyStore, KeyStoreError, ROOTS, failed};

/// What is to be scrubbed, each in a piece.
type Bytes = Vec<Zeroizing<Vec<u8>>>;

impl KeyStore {
    /// Destroys a patient's root, for good: it leaves the table, in one transaction with what the erasure rests on; then the freed pages in
    /// which it lay, also after a kill in between. False where there was none. No root of this patient is made or taken here again, and the
    /// core is asked to erase what it has.
    ///
    /// # Errors
    /// [`KeyStoreError`]; after [`KeyStoreError::Scrub`] it is erased, and the next start looks for its bytes again.
    pub fn erase(
        &mut self,
        patient: PatientId,
        ordered: &Ordered,
        now_s: u64,
    ) -> Result<bool, KeyStoreError> {
        let (was_there, needles) = self.take_out(patient, ordered, now_s)?;
        if !needles.is_empty() {
            scrub_now(&self.db, &self.dir, Needles::Bytes(&needles), &scrub::of(&needles))?;
        }
        Ok(was_there)
    }

    /// The durable part. Whether there was a root; and what is to be scrubbed: what was stored, the root itself, which may have lain open
    /// before there was a TPM, and the key of what the watch has kept.
    fn take_out(
        &mut self,
        patient: PatientId,
        ordered: &Ordered,
        now_s: u64,
    ) -> Result<(bool, Bytes), KeyStoreError> {
        let mut needles = Vec::new();
        let was_there;
        let txn = self.db.begin_write().map_err(failed("begin"))?;
        {
            let mut roots = txn.open_table(ROOTS).map_err(failed("open roots"))?;
            let mut beginnings = txn.open_table(BEGINNINGS).map_err(failed("open beginnings"))?;
            let mut erased = txn.open_table(ERASED).map_err(failed("open erased"))?;
            Past::erase(&txn, patient)?;
            Pasts::erase(&txn, patient)?;
            Elsewhere::erase(&txn, patient)?;
            needles.extend(self.watch().erase(&txn, patient)?);
            Erasures::put(&txn, patient, ordered)?;
            beginnings.remove(patient.0.as_slice()).map_err(failed("remove a beginning"))?;
            erased.insert(patient.0.as_slice(), now_s).map_err(failed("write erased"))?;
            let stored = roots.remove(patient.0.as_slice()).map_err(failed("remove a root"))?;
            was_there = stored.is_some();
            if let Some(stored) = stored {
                let stored = Zeroizing::new(stored.value().to_vec());
                if let Ok(Stored::Root(root)) = envelope::open(self.key.as_deref(), patient, &stored)
                    && stored.as_slice() != root.as_bytes()
                {
                    needles.push(Zeroizing::new(root.as_bytes().to_vec()));
                }
                needles.push(stored);
            }
            needles.iter().try_for_each(|needle| scrub::note(&txn, needle))?;
        }
        txn.commit().map_err(failed("commit"))?;
        self.cache.remove(&patient);
        self.erased.insert(patient);
        self.past.forget(patient);
        self.given.forget(patient);
        self.elsewhere.forget(patient);
        self.erasures.made(patient, *ordered);
        Ok((was_there, needles))
    }
}

/// Takes bytes out of the file that no table has any more. `scrubs` is what is written down of them.
pub(super) fn scrub_now(
    db: &Database,
    dir: &Path,
    needles: Needles<'_>,
    scrubs: &Scrubs,
) -> Result<(), KeyStoreError> {
    // redb keeps the state before the last one; two more commits, and no state that it could go back to has them.
    for _ in 0..2 {
        db.begin_write().map_err(failed("begin"))?.commit().map_err(failed("commit"))?;
    }
    // Nobody else writes meanwhile, so that the pages in which they lay stay free.
    let alone = db.begin_write().map_err(failed("begin"))?;
    let scrubbed = scrub::scrub(&dir.join("keys.redb"), needles).map_err(KeyStoreError::Scrub);
    alone.abort().map_err(failed("abort"))?;
    scrubbed?;
    let txn = db.begin_write().map_err(failed("begin"))?;
    scrub::done(&txn, scrubs)?;
    txn.commit().map_err(failed("commit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_between_the_order_and_the_scrub_leaves_no_root_after_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let patient = PatientId([4; 16]);
        let ordered = Ordered { request: [7; 104], by: None };
        let mut keys = KeyStore::open(dir.path()).unwrap();
        let root = keys.root(patient).unwrap();
        let lies = || {
            let bytes = std::fs::read(dir.path().join("keys.redb")).unwrap();
            bytes.windows(32).any(|window| window == root.as_bytes())
        };
        let (was_there, needles) = keys.take_out(patient, &ordered, 9).unwrap();
        assert!(was_there && needles.len() == 1);
        assert!(lies(), "its pages are free and not overwritten");
        drop(keys);
        let mut keys = KeyStore::open(dir.path()).unwrap();
        assert!(!lies(), "the start has finished it");
        assert!(keys.is_erased(patient) && keys.existing_root(patient).unwrap().is_none());
        assert_eq!(keys.erasures().ordered(&patient), Some(ordered), "the core is asked");
        let txn = keys.db.begin_write().unwrap();
        assert!(scrub::left(&txn).unwrap().is_empty());
    }
}
