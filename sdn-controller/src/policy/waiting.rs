//! Revocations that patients handed to the controller and that no block shows yet, in one redb file, synced before anybody is told
//! that they were taken. Those that a gateway took are not here: it keeps them itself and repeats them.
//!
//! ```text
//! revocations   relationship ‖ version (big-endian) → the anchor, as a frame of policy delivery
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use caregate_protocol::policy::RelationshipId;
use caregate_protocol::policy::delivery::{Anchor, Frame};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tracing::warn;

use super::relay::PENDING_MAX;
use crate::store::{StoreError, failed};

const REVOCATIONS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("revocations");
/// The file in the data folder.
const FILE: &str = "revocations.redb";
/// redb's page cache: all revocations there can be.
const CACHE_BYTES: usize = 1 << 20;

type Key = (RelationshipId, u64);

fn key(anchor: &Anchor) -> Key {
    let revocation = &anchor.revocation.revocation;
    (revocation.relationship, revocation.version)
}

fn key_bytes((relationship, version): Key) -> Vec<u8> {
    [relationship.0.as_slice(), &version.to_be_bytes()].concat()
}

/// The file, and what is in it.
#[derive(Debug)]
pub struct Waiting {
    database: Database,
    anchors: Mutex<BTreeMap<Key, Anchor>>,
}

/// Why a revocation is not kept.
#[derive(Debug)]
pub(super) enum KeepError {
    /// More than [`PENDING_MAX`].
    Full,
    /// The disk.
    Store(StoreError),
}

impl Waiting {
    /// Opens or makes the file in `data`. What is in it and is no anchor is left out, and said in the log.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(data: &Path) -> Result<Self, StoreError> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(data.join(FILE))
            .map_err(failed("open"))?;
        let begin = database.begin_write().map_err(failed("begin"))?;
        begin.open_table(REVOCATIONS).map_err(failed("make tables"))?;
        begin.commit().map_err(failed("commit"))?;
        let anchors = Mutex::new(load(&database)?);
        Ok(Self { database, anchors })
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Anchor> {
        self.anchors.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Keeps one; when this returns it is on disk.
    pub(super) fn keep(&self, anchor: &Anchor) -> Result<(), KeepError> {
        let mut anchors = self.anchors.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key(anchor);
        if anchors.contains_key(&key) {
            return Ok(());
        }
        if anchors.len() >= PENDING_MAX {
            return Err(KeepError::Full);
        }
        let frame = Frame::Anchor(anchor.clone()).encode();
        self.write(key, Some(&frame)).map_err(KeepError::Store)?;
        anchors.insert(key, anchor.clone());
        Ok(())
    }

    /// It is on the ledger, or never will be. One that can't be taken out of the file is sent once more after a restart, which
    /// changes nothing.
    pub(super) fn forget(&self, key: Key) {
        let mut anchors = self.anchors.lock().unwrap_or_else(PoisonError::into_inner);
        if anchors.remove(&key).is_some()
            && let Err(error) = self.write(key, None)
        {
            warn!(%error, "a revocation that is on the ledger stays in the store");
        }
    }

    fn write(&self, key: Key, frame: Option<&[u8]>) -> Result<(), StoreError> {
        let key = key_bytes(key);
        let write = self.database.begin_write().map_err(failed("begin"))?;
        {
            let mut table = write.open_table(REVOCATIONS).map_err(failed("open table"))?;
            match frame {
                Some(frame) => drop(table.insert(key.as_slice(), frame).map_err(failed("insert"))?),
                None => drop(table.remove(key.as_slice()).map_err(failed("remove"))?),
            }
        }
        write.commit().map_err(failed("commit"))
    }
}

fn load(database: &Database) -> Result<BTreeMap<Key, Anchor>, StoreError> {
    let read = database.begin_read().map_err(failed("begin"))?;
    let table = read.open_table(REVOCATIONS).map_err(failed("open table"))?;
    let mut anchors = BTreeMap::new();
    for row in table.iter().map_err(failed("read"))? {
        let (_, frame) = row.map_err(failed("read"))?;
        match frame.value().get(4..).map(Frame::decode) {
            Some(Ok(Frame::Anchor(anchor))) => {
                anchors.insert(key(&anchor), anchor);
            }
            _ => warn!("an entry of the revocations' store is none; it is left out"),
        }
    }
    Ok(anchors)
}

#[cfg(test)]
mod tests {
    use caregate_protocol::policy::{EcdsaSignature, Revocation, SignedRevocation};

    use super::*;

    fn anchor(version: u64) -> Anchor {
        let revocation = Revocation { relationship: RelationshipId([7; 32]), version };
        let revocation = SignedRevocation { revocation, signature: EcdsaSignature([1; 65]) };
        Anchor { revocation, other_key: [9; 20] }
    }

    #[test]
    fn what_was_taken_is_there_after_a_restart_until_it_is_on_the_ledger() {
        let dir = tempfile::tempdir().unwrap();
        let waiting = Waiting::open(dir.path()).unwrap();
        for version in [1, 2, 2] {
            waiting.keep(&anchor(version)).unwrap();
        }
        drop(waiting);
        let waiting = Waiting::open(dir.path()).unwrap();
        assert_eq!(waiting.all(), [anchor(1), anchor(2)]);
        waiting.forget(key(&anchor(1)));
        waiting.forget(key(&anchor(3)));
        drop(waiting);
        assert_eq!(Waiting::open(dir.path()).unwrap().all(), [anchor(2)]);
    }

    #[test]
    fn it_is_bounded_and_an_entry_that_is_none_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let waiting = Waiting::open(dir.path()).unwrap();
        for version in 0..PENDING_MAX as u64 {
            waiting.keep(&anchor(version)).unwrap();
        }
        assert!(matches!(waiting.keep(&anchor(u64::MAX)), Err(KeepError::Full)));
        waiting.forget(key(&anchor(0)));
        waiting.keep(&anchor(u64::MAX)).unwrap();
        waiting.write((RelationshipId([1; 32]), 1), Some(b"junk")).unwrap();
        drop(waiting);
        assert_eq!(Waiting::open(dir.path()).unwrap().all().len(), PENDING_MAX);
    }
}
