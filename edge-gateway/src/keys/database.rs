//! The file of all that must not be lost: made whole under another name, then named. One whose making a power cut had interrupted would
//! be no database, and refused ever after.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use redb::backends::FileBackend;
use redb::{Builder, Database, StorageBackend, StorageError};

use super::{CACHE_BYTES, KeyStoreError, failed};

const NAME: &str = "keys.redb";
/// Until it is whole.
const UNFINISHED: &str = "keys.redb.new";

/// Opens `keys.redb` in `dir`, readable by its owner alone; makes it where there is none. Its name is not durable yet.
pub(super) fn open(dir: &Path) -> Result<Database, KeyStoreError> {
    let (path, unfinished) = (dir.join(NAME), dir.join(UNFINISHED));
    if !path.exists() {
        if let Err(error) = fs::remove_file(&unfinished)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(failed("remove keys.redb.new")(StorageError::Io(error)));
        }
        drop(whole(create(&unfinished)?)?);
        fs::rename(&unfinished, &path).map_err(|error| failed("name keys.redb")(StorageError::Io(error)))?;
    }
    create(&path)
}

/// Commits once, which puts all of a new file on the disk.
fn whole(db: Database) -> Result<Database, KeyStoreError> {
    db.begin_write().map_err(failed("begin"))?.commit().map_err(failed("commit"))?;
    Ok(db)
}

fn create(path: &Path) -> Result<Database, KeyStoreError> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(|error| failed("open keys.redb")(StorageError::Io(error)))?;
    on(FileBackend::new(file).map_err(in_use)?)
}

fn on(backend: impl StorageBackend) -> Result<Database, KeyStoreError> {
    Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend).map_err(in_use)
}

fn in_use(error: redb::DatabaseError) -> KeyStoreError {
    let is_in_use = matches!(error, redb::DatabaseError::DatabaseAlreadyOpen);
    if is_in_use { KeyStoreError::InUse } else { failed("open keys.redb")(error) }
}

/// As [`open`], on a disk of the tests.
#[cfg(test)]
pub(super) fn open_on(faults: &std::sync::Arc<crate::faults::Faults>) -> Result<Database, KeyStoreError> {
    use crate::faults::Backend;
    const NAME: &str = "data/keys.redb";
    const UNFINISHED: &str = "data/keys.redb.new";
    let mut is_there = false;
    faults.model(|model| is_there = !model.is_empty(NAME));
    if !is_there {
        faults.model(|model| {
            model.remove(UNFINISHED);
            model.create(UNFINISHED);
        });
        drop(whole(on(Backend(std::sync::Arc::clone(faults), UNFINISHED))?)?);
        faults.model(|model| model.rename(UNFINISHED, NAME));
    }
    on(Backend(std::sync::Arc::clone(faults), NAME))
}
