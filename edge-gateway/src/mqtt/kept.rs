//! The file of sessions and retained messages: sealed, bounded, replaced as a whole.
//!
//! ```text
//!   0          8           20
//!   +----------+-----------+------------------------------+
//!   | CGMQTT1\n| nonce     | AES-256-GCM of the snapshot  |      associated data: bytes 0..8
//!   +----------+-----------+------------------------------+
//! ```
//! Messages in it are readings, so they lie on the flash as ciphertext, as in the spool; the key is in `keys.redb`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::keys::AtRest;

const MAGIC: [u8; 8] = *b"CGMQTT1\n";
const NAME: &str = "mqtt.sessions";
/// All queues, all retained messages, and a third more for what stands around them.
const BYTES_MAX: u64 = 8 << 20;
/// Longest snapshot: what the magic, the nonce and the tag leave of it, and a little.
pub const SNAPSHOT_BYTES_MAX: usize = (8 << 20) - 64;

/// Why there is nothing to take in, or nothing was kept.
#[derive(Debug, Error)]
pub enum FileError {
    /// The file system.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Longer than any that is written here.
    #[error("{} is longer than {BYTES_MAX} bytes", .0.display())]
    TooLong(PathBuf),
    /// Not of this program, or sealed with another key, or changed.
    #[error("{} can't be opened with this gateway's key", .0.display())]
    Sealed(PathBuf),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

/// The file, and the key to it.
pub struct SessionFile {
    path: PathBuf,
    at_rest: AtRest,
    #[cfg(test)]
    pub(crate) faults: std::sync::Arc<crate::faults::Faults>,
}

/// A step that was done: the tests' disk is told.
macro_rules! step {
    ($file:ident, $($call:tt)+) => {
        #[cfg(test)]
        $file.faults.model(|model| model.$($call)+);
    };
}

impl std::fmt::Debug for SessionFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SessionFile {
    /// `mqtt.sessions` in `dir`.
    #[must_use]
    pub fn new(dir: &Path, key: &[u8; 32]) -> Self {
        Self {
            path: dir.join(NAME),
            at_rest: AtRest::new(key),
            #[cfg(test)]
            faults: std::sync::Arc::default(),
        }
    }

    fn failed(&self) -> impl FnOnce(io::Error) -> FileError {
        let path = self.path.clone();
        move |source| FileError::Io { path, source }
    }

    /// What was kept last; none where there is no file.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn read(&self) -> Result<Option<Vec<u8>>, FileError> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed()(error)),
        };
        let mut bytes = Vec::new();
        file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(self.failed())?;
        if bytes.len() as u64 > BYTES_MAX {
            return Err(FileError::TooLong(self.path.clone()));
        }
        let sealed = || FileError::Sealed(self.path.clone());
        let rest = bytes.strip_prefix(&MAGIC).ok_or_else(sealed)?;
        self.at_rest
            .open(&MAGIC, rest)
            .ok_or_else(sealed)
            .map(|mut opened| Some(std::mem::take(&mut *opened)))
    }

    /// Keeps a snapshot in place of the one before; durable when it returns. After a power cut there is the one or the other.
    ///
    /// # Errors
    /// [`FileError`]; the one before stays.
    pub fn write(&self, snapshot: &[u8]) -> Result<(), FileError> {
        let sealed = self.at_rest.seal(&MAGIC, snapshot).map_err(|_unspecified| FileError::Random)?;
        let bytes = [&MAGIC[..], &sealed].concat();
        if bytes.len() as u64 > BYTES_MAX {
            return Err(FileError::TooLong(self.path.clone()));
        }
        self.replace(&bytes).map_err(self.failed())
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let fresh = self.path.with_extension("tmp");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        step!(self, create("data/mqtt.tmp"));
        step!(self, set_len("data/mqtt.tmp", 0));
        #[cfg(test)]
        self.faults.write()?;
        file.write_all(bytes)?;
        step!(self, write("data/mqtt.tmp", 0, bytes));
        #[cfg(test)]
        self.faults.sync("data/mqtt.tmp")?;
        file.sync_all()?;
        step!(self, sync("data/mqtt.tmp"));
        fs::rename(&fresh, &self.path)?;
        step!(self, rename("data/mqtt.tmp", "data/mqtt.sessions"));
        if let Some(dir) = self.path.parent() {
            File::open(dir)?.sync_all()?;
            step!(self, sync_names_in("data"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_lies_on_the_disk_as_ciphertext() {
        let dir = tempfile::tempdir().unwrap();
        let file = SessionFile::new(dir.path(), &[7; 32]);
        assert!(file.read().unwrap().is_none());
        let snapshot = b"heart-rate 72 of a patient".repeat(100);
        file.write(&snapshot).unwrap();
        assert_eq!(file.read().unwrap().unwrap(), snapshot);
        file.write(b"newer").unwrap();
        assert_eq!(file.read().unwrap().unwrap(), b"newer");
        file.write(&snapshot).unwrap();
        let path = dir.path().join("mqtt.sessions");
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(10).any(|window| window == b"heart-rate"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left behind");
    }

    #[test]
    fn where_the_disk_is_full_or_does_not_sync_the_one_before_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = SessionFile::new(dir.path(), &[7; 32]);
        file.write(b"before").unwrap();
        for failing in [&file.faults.writes, &file.faults.syncs] {
            failing.store(1, std::sync::atomic::Ordering::SeqCst);
            assert!(matches!(file.write(b"after"), Err(FileError::Io { .. })));
            assert_eq!(file.read().unwrap().unwrap(), b"before");
        }
        file.write(b"after").unwrap();
        assert_eq!(file.read().unwrap().unwrap(), b"after");
    }

    #[test]
    fn every_flip_and_every_length_is_refused_and_so_is_another_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = SessionFile::new(dir.path(), &[7; 32]);
        file.write(b"snapshot").unwrap();
        let path = dir.path().join("mqtt.sessions");
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert!(matches!(file.read(), Err(FileError::Sealed(_))), "byte {at}");
            fs::write(&path, &good[..at]).unwrap();
            assert!(matches!(file.read(), Err(FileError::Sealed(_))), "length {at}");
        }
        fs::write(&path, &good).unwrap();
        let other = SessionFile::new(dir.path(), &[8; 32]);
        assert!(matches!(other.read(), Err(FileError::Sealed(_))));
        file.write(&vec![0; SNAPSHOT_BYTES_MAX]).unwrap();
        assert_eq!(file.read().unwrap().unwrap().len(), SNAPSHOT_BYTES_MAX);
        fs::write(&path, vec![0; 9 << 20]).unwrap();
        assert!(matches!(file.read(), Err(FileError::TooLong(_))));
        assert!(matches!(file.write(&vec![0; 9 << 20]), Err(FileError::TooLong(_))));
    }
}
