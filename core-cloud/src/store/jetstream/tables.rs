//! The tables' own file, `index.redb`: which stream they are of, and how far they have seen it.

use std::path::Path;

use async_nats::jetstream::stream::Info;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction};
use tracing::info;

use crate::store::index::{self, CACHE_BYTES, Keep};
use crate::store::{StoreError, failed};

/// What the tables stand on: `stream`, when it was made; `applied`, the last sequence that they have seen.
const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");
/// How the tables are laid out; those of another form are made anew from the stream.
const FORM: [u8; 1] = [3];

/// Opens the tables, or makes them where there are none of this form.
pub(super) fn open_tables(dir: &Path) -> Result<Database, StoreError> {
    let path = dir.join("index.redb");
    let create = || {
        let mut builder = redb::Builder::new();
        builder.set_cache_size(CACHE_BYTES).create(&path).map_err(failed("open index.redb"))
    };
    let mut db = create()?;
    if state(&db, "applied")?.is_some() && state(&db, "form")?.as_deref() != Some(&FORM) {
        info!("index.redb is of an earlier build: it is made anew from the stream");
        drop(db);
        std::fs::remove_file(&path).map_err(failed("remove index.redb"))?;
        db = create()?;
    }
    let txn = db.begin_write().map_err(failed("begin"))?;
    index::make_tables(&txn)?;
    index::name_owners(&txn, Keep::Elsewhere)?;
    let mut state = txn.open_table(STATE).map_err(failed("open state"))?;
    state.insert("form", FORM.as_slice()).map_err(failed("write state"))?;
    drop(state);
    txn.commit().map_err(failed("commit"))?;
    Ok(db)
}

/// The last sequence of the stream that the tables have seen.
pub(super) fn applied(db: &Database) -> Result<u64, StoreError> {
    let applied = state(db, "applied")?;
    Ok(applied.and_then(|bytes| bytes.first_chunk().copied()).map_or(0, u64::from_be_bytes))
}

/// Tables belong to one stream: queues' numbers of another mean something else.
pub(super) fn pair(db: &Database, info: &Info) -> Result<(), StoreError> {
    let made = info.created.unix_timestamp_nanos().to_be_bytes();
    let txn = db.begin_write().map_err(failed("begin"))?;
    {
        let mut state = txn.open_table(STATE).map_err(failed("open state"))?;
        let known = state.get("stream").map_err(failed("read state"))?.map(|made| made.value().to_vec());
        match known {
            Some(known) if known != made => {
                return Err(failed("pair with the stream")(
                    "index.redb is of another stream than the server's; remove it only if that stream is the right one",
                ));
            }
            Some(_) => {}
            None => {
                drop(state.insert("stream", made.as_slice()).map_err(failed("write state"))?);
            }
        }
    }
    txn.commit().map_err(failed("commit"))
}

/// What the tables say of themselves; nothing where they are new.
fn state(db: &Database, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let txn = db.begin_read().map_err(failed("begin"))?;
    let state = match txn.open_table(STATE) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        state => state.map_err(failed("open state"))?,
    };
    let value = state.get(key).map_err(failed("read state"))?;
    Ok(value.map(|value| value.value().to_vec()))
}

/// Says in a write how far the tables have seen the stream.
pub(super) fn mark(txn: &WriteTransaction, applied: u64) -> Result<(), StoreError> {
    let mut state = txn.open_table(STATE).map_err(failed("open state"))?;
    state.insert("applied", applied.to_be_bytes().as_slice()).map_err(failed("write state"))?;
    Ok(())
}
