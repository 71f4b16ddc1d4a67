//! The edge to the file system: every call that can fail, named with its path. Tests inject failures here, and tell a disk that
//! loses power (`caregate-crash`) of every step.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
#[cfg(test)]
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};

use caregate_host::kill_point;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::SpoolError;
use super::direct::Led;
#[cfg(test)]
use crate::faults::Faults;

/// A step that was done: a kill point, and the tests' disk is told.
macro_rules! step {
    ($disk:ident, $point:literal, $($call:tt)+) => {
        #[cfg(test)]
        $disk.faults.model(|model| model.$($call)+);
        kill_point::pass(concat!("spool.", $point));
    };
    // One that is met only after an error or a change of limits.
    ($disk:ident, _, $($call:tt)+) => {
        #[cfg(test)]
        $disk.faults.model(|model| model.$($call)+);
    };
}

#[cfg(test)]
fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// A file that was made.
#[derive(Debug)]
pub(super) struct Created {
    pub(super) file: File,
    /// Whether its room is physically reserved.
    pub(super) reserved: bool,
    /// Bytes of which every block was written before.
    pub(super) written: u64,
}

/// What is written to a new spare before it is synced: a group commit that comes meanwhile waits for no more, 13 ms on flash at 20 MB/s.
const SPARE_PIECE: usize = 256 << 10;

/// The spool's directory, locked against a second process.
#[derive(Debug)]
pub(super) struct Disk {
    dir: PathBuf,
    handle: File,
    _lock: File,
    /// Held by who takes the spare or puts one there.
    spare: Mutex<()>,
    #[cfg(test)]
    pub(super) faults: Arc<Faults>,
}

fn at<T>(op: &'static str, path: &Path, result: io::Result<T>) -> Result<T, SpoolError> {
    result.map_err(|source| {
        let path = path.to_path_buf();
        if source.kind() == io::ErrorKind::StorageFull || source.kind() == io::ErrorKind::QuotaExceeded {
            SpoolError::NoSpace { path, source }
        } else {
            SpoolError::Io { op, path, source }
        }
    })
}

impl Disk {
    /// Creates the directory where it is missing, locks it, removes what an interrupted creation left.
    pub(super) fn open(dir: &Path) -> Result<Self, SpoolError> {
        Self::open_with(
            dir,
            #[cfg(test)]
            Arc::default(),
        )
    }

    /// The same, with what tests make fail.
    pub(super) fn open_with(dir: &Path, #[cfg(test)] faults: Arc<Faults>) -> Result<Self, SpoolError> {
        at("create", dir, fs::create_dir_all(dir))?;
        if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
            at("sync", parent, File::open(parent).and_then(|p| p.sync_all()))?;
        }
        let path = dir.join("lock");
        let lock =
            at("open", &path, OpenOptions::new().create(true).truncate(false).write(true).open(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SpoolError::Locked { dir: dir.to_path_buf() }),
            Err(TryLockError::Error(source)) => return at("lock", &path, Err(source)),
        }
        let handle = at("open", dir, File::open(dir))?;
        let disk = Self {
            dir: dir.to_path_buf(),
            handle,
            _lock: lock,
            spare: Mutex::default(),
            #[cfg(test)]
            faults,
        };
        for name in disk.names()?.iter().filter(|n| n.ends_with(".tmp")) {
            let path = disk.dir.join(name);
            at("remove", &path, fs::remove_file(&path))?;
            step!(disk, _, remove(name));
        }
        Ok(disk)
    }

    fn names(&self) -> Result<Vec<String>, SpoolError> {
        let mut names = Vec::new();
        for entry in at("list", &self.dir, fs::read_dir(&self.dir))? {
            names.extend(at("list", &self.dir, entry)?.file_name().into_string());
        }
        Ok(names)
    }

    /// The numbers of all log files, ascending. Names that are not ours are left alone.
    pub(super) fn serials(&self) -> Result<Vec<u64>, SpoolError> {
        let serial = |name: &String| {
            let stem = name.strip_suffix(".log").filter(|s| s.len() == 16)?;
            u64::from_str_radix(stem, 16).ok()
        };
        let mut serials: Vec<u64> = self.names()?.iter().filter_map(serial).collect();
        serials.sort_unstable();
        Ok(serials)
    }

    pub(super) fn path(&self, serial: u64) -> PathBuf {
        self.dir.join(format!("{serial:016x}.log"))
    }

    /// Opens an existing file and reads all of it into `bytes`, in place of what they held.
    pub(super) fn read(&self, serial: u64, bytes_max: u64, bytes: &mut Vec<u8>) -> Result<File, SpoolError> {
        let path = self.path(serial);
        let mut file = at("open", &path, OpenOptions::new().read(true).write(true).open(&path))?;
        let len = at("stat", &path, file.metadata())?.len();
        if len > bytes_max {
            return Err(SpoolError::FileTooLarge { path, len, max: bytes_max });
        }
        bytes.clear();
        bytes.reserve_exact(usize::try_from(len).unwrap_or(0));
        at("read", &path, file.read_to_end(bytes))?;
        Ok(file)
    }

    /// Makes a file of `capacity` bytes that begins with `head`, synced, under its name only when it is whole.
    pub(super) fn create(&self, serial: u64, head: &[u8], capacity: u64) -> Result<Created, SpoolError> {
        let tmp = self.dir.join(format!("{serial:016x}.tmp"));
        let made = self.fill(&tmp, head, capacity).and_then(|made| {
            let path = self.path(serial);
            at("rename", &path, fs::rename(&tmp, &path))?;
            step!(self, "renamed", rename(name(&tmp), name(&path)));
            self.sync_dir()?;
            Ok(made)
        });
        if made.is_err() && tmp.exists() {
            at("remove", &tmp, fs::remove_file(&tmp))?;
            step!(self, _, remove(name(&tmp)));
        }
        made
    }

    fn fill(&self, tmp: &Path, head: &[u8], capacity: u64) -> Result<Created, SpoolError> {
        self.take_spare(tmp)?;
        let mut options = OpenOptions::new();
        let file = at("create", tmp, options.read(true).write(true).create(true).truncate(false).open(tmp))?;
        step!(self, "made", create(name(tmp)));
        let before = at("stat", tmp, file.metadata())?.len();
        if before > capacity {
            at("truncate", tmp, file.set_len(capacity))?;
            step!(self, _, set_len(name(tmp), capacity));
        }
        let reserved = self.allocate(tmp, &file, capacity)?;
        at("write", tmp, file.write_all_at(head, 0))?;
        step!(self, "head-written", write(name(tmp), 0, head));
        self.check_sync(tmp)?;
        // Of a spare that is whole nothing else has changed that a reader needs, so this takes no journal commit.
        at("sync", tmp, file.sync_data())?;
        step!(self, "head-synced", sync(name(tmp)));
        Ok(Created { file, reserved, written: before.min(capacity).max(head.len() as u64) })
    }

    /// For writes past the page cache from `end` on. None where room is not reserved, or the file system has no such writes.
    pub(super) fn direct(&self, serial: u64, file: &File, end: u64, reserved: bool) -> Option<Led> {
        #[cfg(test)]
        if self.faults.buffered.load(std::sync::atomic::Ordering::SeqCst) {
            return None;
        }
        if reserved { Led::open(&self.path(serial), file, end) } else { None }
    }

    /// Reserves room up to `capacity`; false where the file system can't (then the file is sparse).
    pub(super) fn allocate(&self, path: &Path, file: &File, capacity: u64) -> Result<bool, SpoolError> {
        #[cfg(test)]
        at("allocate", path, self.faults.room())?;
        step!(self, "allocating", allocate(name(path), capacity));
        match fallocate(file, FallocateFlags::empty(), 0, capacity) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                at("extend", path, file.set_len(capacity)).map(|()| false)
            }
            Err(errno) => at("allocate", path, Err(errno.into())),
        }
    }

    #[cfg_attr(
        not(test),
        expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "only tests inject")
    )]
    fn check_sync(&self, path: &Path) -> Result<(), SpoolError> {
        #[cfg(test)]
        at("sync", path, self.faults.sync(name(path)))?;
        #[cfg(not(test))]
        let _unused = path;
        Ok(())
    }

    /// As [`Self::write_synced`], past the page cache.
    pub(super) fn write_direct(
        &self,
        serial: u64,
        direct: &Led,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), SpoolError> {
        let (offset, mut blocks) = direct.blocks(offset, bytes);
        self.write_synced(serial, direct.file(), offset, blocks.slice())
    }

    /// Writes `bytes` at `offset` and waits until the device has them.
    pub(super) fn write_synced(
        &self,
        serial: u64,
        file: &File,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), SpoolError> {
        let path = self.path(serial);
        #[cfg(test)]
        at("write", &path, self.faults.write())?;
        at("write", &path, file.write_all_at(bytes, offset))?;
        step!(self, "written", write(name(&path), offset, bytes));
        self.check_sync(&path)?;
        at("sync", &path, file.sync_data())?;
        step!(self, "synced", sync(name(&path)));
        Ok(())
    }

    /// Writes without waiting: for what is only a hint.
    pub(super) fn write(
        &self,
        serial: u64,
        file: &File,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), SpoolError> {
        let path = self.path(serial);
        at("write", &path, file.write_all_at(bytes, offset))?;
        step!(self, "hint-written", write(name(&path), offset, bytes));
        Ok(())
    }

    pub(super) fn set_len(&self, serial: u64, file: &File, len: u64) -> Result<(), SpoolError> {
        let path = self.path(serial);
        at("truncate", &path, file.set_len(len))?;
        step!(self, "room-given-back", set_len(name(&path), len));
        Ok(())
    }

    fn spare(&self) -> PathBuf {
        self.dir.join("spare")
    }

    fn hold_spare(&self) -> MutexGuard<'_, ()> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The spare, if there is one, under another name.
    fn take_spare(&self, tmp: &Path) -> Result<(), SpoolError> {
        let _held = self.hold_spare();
        match fs::rename(self.spare(), tmp) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => {}
            result => {
                at("rename", tmp, result)?;
                step!(self, "spare-taken", rename(name(&self.spare()), name(tmp)));
            }
        }
        Ok(())
    }

    /// Deletes a file, or keeps it as the spare that the next file is made of: writing over blocks that are allocated and written
    /// already needs no journal commit. One spare is enough, since files come and go one at a time when the uplink keeps up. Returns how many bytes were written.
    pub(super) fn recycle(&self, serial: u64, capacity: u64) -> Result<u64, SpoolError> {
        let (path, spare) = (self.path(serial), self.spare());
        let _held = self.hold_spare();
        if spare.exists() {
            return self.remove(serial).map(|()| 0);
        }
        at("rename", &path, fs::rename(&path, &spare))?;
        step!(self, "spare-kept", rename(name(&path), name(&spare)));
        // Under its old name the next file's bytes would look like damage.
        self.sync_dir()?;
        self.make_whole(&spare, capacity)
    }

    /// Makes a spare of `capacity` bytes where there is none. Returns how many were written.
    pub(super) fn make_spare(&self, capacity: u64) -> Result<u64, SpoolError> {
        let (tmp, spare) = (self.dir.join("spare.tmp"), self.spare());
        if spare.exists() {
            return Ok(0);
        }
        let made = self.make_whole(&tmp, capacity);
        if made.is_err() {
            // What is left of it goes at the next start at the latest.
            fs::remove_file(&tmp).ok();
            step!(self, _, remove(name(&tmp)));
            return made;
        }
        let _held = self.hold_spare();
        if spare.exists() {
            at("remove", &tmp, fs::remove_file(&tmp))?;
            step!(self, _, remove(name(&tmp)));
            return made;
        }
        at("rename", &tmp, fs::rename(&tmp, &spare))?;
        step!(self, "spare-made", rename(name(&tmp), name(&spare)));
        made
    }

    /// Brings a file to `capacity` bytes, each block of it written. Returns how many were.
    fn make_whole(&self, path: &Path, capacity: u64) -> Result<u64, SpoolError> {
        let mut options = OpenOptions::new();
        let file =
            at("create", path, options.read(true).write(true).create(true).truncate(false).open(path))?;
        step!(self, _, create(name(path)));
        let from = at("stat", path, file.metadata())?.len();
        // Where room can't be reserved, it is not to be used up either.
        if from >= capacity || !self.allocate(path, &file, capacity)? {
            return Ok(0);
        }
        let zeroes = vec![0; SPARE_PIECE];
        let mut offset = from;
        while offset < capacity {
            let piece = usize::try_from(capacity - offset).map_or(SPARE_PIECE, |left| left.min(SPARE_PIECE));
            at("write", path, file.write_all_at(&zeroes[..piece], offset))?;
            step!(self, _, write(name(path), offset, &zeroes[..piece]));
            at("sync", path, file.sync_data())?;
            step!(self, "spare-written", sync(name(path)));
            offset += piece as u64;
        }
        Ok(capacity - from)
    }

    pub(super) fn remove(&self, serial: u64) -> Result<(), SpoolError> {
        let path = self.path(serial);
        match fs::remove_file(&path) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => {}
            result => at("remove", &path, result)?,
        }
        step!(self, "removed", remove(name(&path)));
        Ok(())
    }

    /// Makes names durable. Never [`SpoolError::NoSpace`]: after a rename nobody may go on as if nothing had happened.
    pub(super) fn sync_dir(&self) -> Result<(), SpoolError> {
        let synced = self.handle.sync_all();
        synced.map_err(|source| SpoolError::Io { op: "sync", path: self.dir.clone(), source })?;
        step!(self, "names-synced", sync_names());
        Ok(())
    }
}
