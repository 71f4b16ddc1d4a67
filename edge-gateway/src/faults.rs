//! What tests make of the disk: calls that fail, and a disk that loses power (`caregate-crash`) and is told of every step.

use std::io;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caregate_crash::Disk;
use redb::StorageBackend;
use rustix::io::Errno;

/// How many of the next calls fail, each with EIO or (room, writes) ENOSPC.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) syncs: AtomicU32,
    pub(crate) room: AtomicU32,
    /// Of group commits, as on a file system that can't reserve room; and of whatever else is written.
    pub(crate) writes: AtomicU32,
    /// Who holds it holds up every sync.
    pub(crate) stalls: Mutex<()>,
    /// As on a file system without direct writes.
    pub(crate) buffered: AtomicBool,
    /// The disk that loses power, if there is one.
    pub(crate) model: Mutex<Option<Disk>>,
}

impl Faults {
    fn disk(&self) -> MutexGuard<'_, Option<Disk>> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn model(&self, step: impl FnOnce(&mut Disk)) {
        if let Some(model) = self.disk().as_mut() {
            step(model);
        }
    }

    /// Whether the power has not failed yet.
    pub(crate) fn has_power(&self) -> bool {
        self.disk().as_ref().is_some_and(|model| model.cut().is_none())
    }

    /// A sync, which may have to fail; the disk is told.
    pub(crate) fn sync(&self, name: &str) -> io::Result<()> {
        drop(self.stalls.lock().unwrap_or_else(PoisonError::into_inner));
        fail(&self.syncs, Errno::IO).inspect_err(|_| self.model(|model| model.fail_sync(name)))
    }

    pub(crate) fn write(&self) -> io::Result<()> {
        fail(&self.writes, Errno::NOSPC)
    }

    pub(crate) fn room(&self) -> io::Result<()> {
        fail(&self.room, Errno::NOSPC)
    }
}

fn fail(faults: &AtomicU32, errno: Errno) -> io::Result<()> {
    match faults.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)) {
        Ok(_) => Err(errno.into()),
        Err(_) => Ok(()),
    }
}

/// redb's file on the disk that loses power.
#[derive(Debug, Clone)]
pub(crate) struct Backend(pub(crate) Arc<Faults>, pub(crate) &'static str);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.disk().as_ref().map_or(0, |model| model.len(self.1)))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.model(|model| model.read(self.1, offset, out));
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.room()?;
        self.0.model(|model| model.set_len(self.1, len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync(self.1)?;
        self.0.model(|model| model.sync(self.1));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write()?;
        self.0.model(|model| model.write(self.1, offset, data));
        Ok(())
    }
}
