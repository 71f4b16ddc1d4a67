//! redb's file with kill points between its writes and syncs. Only in builds with the cargo feature `kill-points`.

use std::fs::OpenOptions;
use std::io;
use std::ops::Bound;
use std::path::Path;

use caregate_host::kill_point;
use redb::backends::FileBackend;
use redb::{BackendError, Database, DatabaseError, StorageBackend};

#[derive(Debug)]
struct Backend(FileBackend);

pub(super) fn create(builder: &redb::Builder, path: &Path) -> Result<Database, DatabaseError> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let file = file.map_err(|error| DatabaseError::Storage(redb::StorageError::Io(error)))?;
    builder.create_with_backend(Backend(FileBackend::new(file)?))
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)?;
        kill_point::pass("file.lengthened");
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        kill_point::pass("file.syncing");
        self.0.sync_data()?;
        kill_point::pass("file.synced");
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)?;
        kill_point::pass("file.written");
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }
}
