//! Desired state that outlives the controller: the intents, in one redb file, synced before anybody is told that they count.
//!
//! ```text
//! intents   name      → JSON {"intent", "version", "changed_ms"}
//! meta      "version" → number, raised by each change
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::watch;

use crate::intent::{INTENTS_MAX, Intent, IntentError};

const INTENTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("intents");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const VERSION: &str = "version";
/// The file in the data folder.
const FILE: &str = "intents.redb";
/// redb's page cache: all intents there can be.
const CACHE_BYTES: usize = 4 << 20;

/// Why the store failed; nothing of the change counts.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file, or the disk.
    #[error("store: {doing}: {source}")]
    Redb {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        source: redb::Error,
    },
    /// The file holds what is no intent.
    #[error("store: intent `{name}`: {source}")]
    Content {
        /// Which intent.
        name: String,
        /// Why not.
        source: serde_json::Error,
    },
    /// It may not be so.
    #[error(transparent)]
    Intent(#[from] IntentError),
}

pub(crate) fn failed<E: Into<redb::Error>>(doing: &'static str) -> impl FnOnce(E) -> StoreError {
    move |source| StoreError::Redb { doing, source: source.into() }
}

/// An intent and when it became so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What is wanted.
    pub intent: Intent,
    /// The version of the whole with which it came.
    pub version: u64,
    /// Unix time in milliseconds.
    pub changed_ms: i64,
}

/// All that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    /// Raised by each change.
    pub version: u64,
    /// By name.
    pub entries: BTreeMap<String, Entry>,
}

impl Desired {
    /// Names and intents, for [`crate::intent::Target::compile`].
    pub fn intents(&self) -> impl Iterator<Item = (&String, &Intent)> {
        self.entries.iter().map(|(name, entry)| (name, &entry.intent))
    }
}

/// The store. Its calls wait for the disk.
#[derive(Debug)]
pub struct Store {
    database: Mutex<Database>,
    current: watch::Sender<Arc<Desired>>,
}

impl Store {
    /// Opens or makes the file in `data`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(data: &Path) -> Result<Self, StoreError> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(data.join(FILE))
            .map_err(failed("open"))?;
        let begin = database.begin_write().map_err(failed("begin"))?;
        begin.open_table(INTENTS).map_err(failed("make tables"))?;
        begin.open_table(META).map_err(failed("make tables"))?;
        begin.commit().map_err(failed("commit"))?;
        let desired = Arc::new(load(&database)?);
        Ok(Self { database: Mutex::new(database), current: watch::Sender::new(desired) })
    }

    /// What is wanted, now and from now on.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Desired>> {
        self.current.subscribe()
    }

    /// What is wanted now.
    #[must_use]
    pub fn desired(&self) -> Arc<Desired> {
        Arc::clone(&self.current.borrow())
    }

    /// Wants this under this name from now on; what was there before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put(
        &self,
        name: &str,
        intent: Intent,
        now_ms: i64,
    ) -> Result<(Arc<Desired>, Option<Entry>), StoreError> {
        intent.check()?;
        crate::intent::check_name(name)?;
        self.change(
            |desired| {
                let before = desired.entries.get(name).cloned();
                if before.is_none() && desired.entries.len() >= INTENTS_MAX {
                    return Err(IntentError::TooMany.into());
                }
                let entry = Entry { intent, version: desired.version, changed_ms: now_ms };
                desired.entries.insert(name.to_owned(), entry.clone());
                Ok((Some(entry), before))
            },
            name,
        )
    }

    /// Wants it no more; what was there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn remove(&self, name: &str) -> Result<(Arc<Desired>, Option<Entry>), StoreError> {
        self.change(|desired| Ok((None, desired.entries.remove(name))), name)
    }

    fn change(
        &self,
        change: impl FnOnce(&mut Desired) -> Result<(Option<Entry>, Option<Entry>), StoreError>,
        name: &str,
    ) -> Result<(Arc<Desired>, Option<Entry>), StoreError> {
        let database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let mut desired = Desired::clone(&self.desired());
        desired.version += 1;
        let (after, before) = change(&mut desired)?;
        if after.is_none() && before.is_none() {
            return Ok((self.desired(), None));
        }
        let write = database.begin_write().map_err(failed("begin"))?;
        {
            let mut intents = write.open_table(INTENTS).map_err(failed("open table"))?;
            match &after {
                Some(entry) => {
                    let content = |source| StoreError::Content { name: name.to_owned(), source };
                    let json = serde_json::to_vec(entry).map_err(content)?;
                    intents.insert(name, json.as_slice()).map_err(failed("insert"))?;
                }
                None => drop(intents.remove(name).map_err(failed("remove"))?),
            }
            let mut meta = write.open_table(META).map_err(failed("open table"))?;
            meta.insert(VERSION, desired.version).map_err(failed("insert"))?;
        }
        write.commit().map_err(failed("commit"))?;
        let desired = Arc::new(desired);
        self.current.send_replace(Arc::clone(&desired));
        Ok((desired, before))
    }
}

fn load(database: &Database) -> Result<Desired, StoreError> {
    let read = database.begin_read().map_err(failed("begin"))?;
    let meta = read.open_table(META).map_err(failed("open table"))?;
    let version = meta.get(VERSION).map_err(failed("read"))?.map_or(0, |version| version.value());
    let mut entries = BTreeMap::new();
    for row in read.open_table(INTENTS).map_err(failed("open table"))?.iter().map_err(failed("read"))? {
        let (name, json) = row.map_err(failed("read"))?;
        let name = name.value().to_owned();
        let entry = serde_json::from_slice(json.value());
        let entry = entry.map_err(|source| StoreError::Content { name: name.clone(), source })?;
        entries.insert(name, entry);
    }
    Ok(Desired { version, entries })
}

#[cfg(test)]
mod tests {
    use caregate_protocol::policy::Mac;

    use super::*;
    use crate::intent::DatapathId;

    fn quarantine(mac: u8) -> Intent {
        Intent::Quarantine { switch: DatapathId(1), mac: Mac([2, 0, 0, 0, 0, mac]) }
    }

    #[test]
    fn what_was_wanted_is_wanted_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(*store.desired(), Desired::default());
        let mut watched = store.subscribe();
        assert_eq!(store.put("a", quarantine(1), 5).unwrap().1, None);
        assert!(watched.has_changed().unwrap());
        assert_eq!(watched.borrow_and_update().version, 1);
        let (_, before) = store.put("a", quarantine(2), 6).unwrap();
        assert_eq!(before, Some(Entry { intent: quarantine(1), version: 1, changed_ms: 5 }));
        store.put("b", quarantine(3), 7).unwrap();
        let (after, removed) = store.remove("b").unwrap();
        assert_eq!((after.version, removed.unwrap().version), (4, 3));
        assert_eq!(store.remove("b").unwrap(), (Arc::clone(&after), None), "nothing changes twice");
        drop(store);
        let again = Store::open(dir.path()).unwrap();
        assert_eq!(again.desired(), after);
        assert_eq!(again.desired().entries["a"].intent, quarantine(2));
    }

    #[test]
    fn what_may_not_be_wanted_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let high = Intent::Lane { lane: crate::intent::LaneName::Alarm, dscp: 64, queue: None, switch: None };
        assert!(matches!(store.put("a", high, 0), Err(StoreError::Intent(IntentError::Dscp(64)))));
        assert!(matches!(store.put("a b", quarantine(1), 0), Err(StoreError::Intent(IntentError::Name))));
        assert_eq!(*store.desired(), Desired::default());
    }

    #[test]
    fn a_file_that_holds_something_else_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let write = store.database.lock().unwrap().begin_write().unwrap();
        write.open_table(INTENTS).unwrap().insert("a", b"{}".as_slice()).unwrap();
        write.commit().unwrap();
        drop(store);
        let error = Store::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("intent `a`"), "{error}");
    }
}
