//! Secrets in files: refused when others may read them, written at 0600 in one step.
//!
//! The mode is checked on the open file, so the file that was judged is the file that is read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

/// Largest key file. An RSA-16384 key in PEM has 13 kB; whatever is larger is another file.
pub const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;
/// Mode bits that must be clear: group and other.
const MODE_FORBIDDEN: u32 = 0o077;
const MODE_PRIVATE: u32 = 0o600;

/// Why a secret was not read or written.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// The operating system refused.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
    /// Group or others have rights on it.
    #[error("{path}: mode {mode:04o} lets others use this secret; run chmod 600", path = .path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A directory, a device, or more bytes than such a file may have.
    #[error("{path}: not a regular file of at most {bytes_max} bytes", path = .path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// How many bytes it may have.
        bytes_max: u64,
    },
    /// Not the hexadecimal text of the number of bytes that the key has.
    #[error("{path}: must hold {bytes} bytes in hexadecimal", path = .path.display())]
    Hex {
        /// The file.
        path: PathBuf,
        /// How many bytes were expected.
        bytes: usize,
    },
    /// There is a file and the caller did not ask to replace it.
    #[error("{path}: exists already", path = .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
}

/// What to do with a file of that name that is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Refuse with [`KeyFileError::Exists`].
    Keep,
    /// Put the new one in its place, in one step.
    Replace,
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> KeyFileError {
    move |source| KeyFileError::Io { path: path.to_owned(), source }
}

/// The bytes of a secret file.
///
/// # Errors
/// When it can't be read, when group or others have any right on it, or when it is no plain file of
/// at most [`KEY_FILE_BYTES_MAX`].
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    read_up_to(path, KEY_FILE_BYTES_MAX)
}

/// As [`read`], of a file that holds many secrets and may have `bytes_max` bytes.
///
/// # Errors
/// As [`read`].
pub fn read_up_to(path: &Path, bytes_max: u64) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let shape = || KeyFileError::Shape { path: path.to_owned(), bytes_max };
    let file = File::open(path).map_err(io_error(path))?;
    let metadata = file.metadata().map_err(io_error(path))?;
    if !metadata.is_file() || metadata.len() > bytes_max {
        return Err(shape());
    }
    let mode = metadata.mode() & 0o7777;
    if mode & MODE_FORBIDDEN != 0 {
        return Err(KeyFileError::Mode { path: path.to_owned(), mode });
    }
    let mut bytes = Zeroizing::new(Vec::new());
    let read = file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(io_error(path))?;
    if read as u64 > bytes_max {
        return Err(shape());
    }
    Ok(bytes)
}

/// A key of `N` bytes from a file with its hexadecimal text; white space around it is allowed.
///
/// # Errors
/// As [`read`], and when the text is not `2 * N` hexadecimal digits.
pub fn read_hex<const N: usize>(path: &Path) -> Result<Zeroizing<[u8; N]>, KeyFileError> {
    let text = read(path)?;
    let mut key = Zeroizing::new([0; N]);
    hex::decode_to_slice(text.trim_ascii(), key.as_mut_slice())
        .map_err(|_source| KeyFileError::Hex { path: path.to_owned(), bytes: N })?;
    Ok(key)
}

/// Writes a secret at mode 0600, synced, in one step: a reader finds the old file or the whole new one.
///
/// # Errors
/// [`KeyFileError::Exists`] when the file is there and `existing` is [`Existing::Keep`]; else what the operating system says.
pub fn write(path: &Path, bytes: &[u8], existing: Existing) -> Result<(), KeyFileError> {
    write_mode(path, bytes, existing, MODE_PRIVATE)
}

/// As [`write()`], for what is public (certificates, public keys): mode 0644.
///
/// # Errors
/// As [`write()`].
pub fn write_public(path: &Path, bytes: &[u8], existing: Existing) -> Result<(), KeyFileError> {
    write_mode(path, bytes, existing, 0o644)
}

/// Replaces a file in one step, at the mode that it has, and overwrites what was in it: it had a secret that nobody is to have. What a
/// flash or a file system keeps of blocks that it has replaced is beyond reach.
///
/// # Errors
/// As [`write()`]; where only the overwriting failed, the new file is there.
pub fn replace_wiping(path: &Path, bytes: &[u8]) -> Result<(), KeyFileError> {
    let mut old = OpenOptions::new().write(true).open(path).map_err(io_error(path))?;
    let metadata = old.metadata().map_err(io_error(path))?;
    write_mode(path, bytes, Existing::Replace, metadata.mode() & 0o777)?;
    wipe(&mut old, metadata.len()).map_err(io_error(path))
}

/// Overwrites a secret file and removes it. What a flash or a file system keeps of blocks that it has replaced is beyond reach.
///
/// # Errors
/// [`KeyFileError`]; a file with more than [`KEY_FILE_BYTES_MAX`] is no key and stays.
pub fn destroy(path: &Path) -> Result<(), KeyFileError> {
    let mut file = OpenOptions::new().write(true).open(path).map_err(io_error(path))?;
    let metadata = file.metadata().map_err(io_error(path))?;
    if !metadata.is_file() || metadata.len() > KEY_FILE_BYTES_MAX {
        return Err(KeyFileError::Shape { path: path.to_owned(), bytes_max: KEY_FILE_BYTES_MAX });
    }
    wipe(&mut file, metadata.len()).and_then(|()| fs::remove_file(path)).map_err(io_error(path))?;
    let directory = folder(path);
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io_error(directory))
}

fn wipe(file: &mut File, bytes: u64) -> io::Result<()> {
    io::copy(&mut io::repeat(0).take(bytes), file)?;
    file.sync_all()
}

/// Writes a key as one line of hexadecimal text; otherwise as [`write()`].
///
/// # Errors
/// As [`write()`].
pub fn write_hex(path: &Path, key: &[u8], existing: Existing) -> Result<(), KeyFileError> {
    let mut text = Zeroizing::new(hex::encode(key));
    text.push('\n');
    write(path, text.as_bytes(), existing)
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

fn write_mode(path: &Path, bytes: &[u8], existing: Existing, mode: u32) -> Result<(), KeyFileError> {
    let directory = folder(path);
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.new", std::process::id()));
    let draft = PathBuf::from(draft);
    let result = write_draft(&draft, bytes, mode).map_err(io_error(&draft)).and_then(|()| match existing {
        Existing::Replace => fs::rename(&draft, path).map_err(io_error(path)),
        // A hard link fails when the name is taken, where a rename would replace it.
        Existing::Keep => fs::hard_link(&draft, path).map_err(|source| {
            match source.kind() == io::ErrorKind::AlreadyExists {
                true => KeyFileError::Exists { path: path.to_owned() },
                false => io_error(path)(source),
            }
        }),
    });
    // After a rename the draft is gone; in every other case it must go.
    if let Err(error) = fs::remove_file(&draft)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(io_error(&draft)(error));
    }
    result?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io_error(directory))
}

fn write_draft(draft: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    // A draft of that name is left from a crash of a process with our id.
    if let Err(error) = fs::remove_file(draft)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(draft)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn writes_0600_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device.key");
        write_hex(&path, &[7; 32], Existing::Keep).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(*read_hex::<32>(&path).unwrap(), [7; 32]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn keeps_or_replaces_as_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        write(&path, b"old", Existing::Keep).unwrap();
        assert!(matches!(write(&path, b"new", Existing::Keep), Err(KeyFileError::Exists { .. })));
        assert_eq!(read(&path).unwrap().as_slice(), b"old");
        write(&path, b"new", Existing::Replace).unwrap();
        assert_eq!(read(&path).unwrap().as_slice(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_replaced_or_destroyed_is_overwritten_also_where_it_has_another_name() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("k"), dir.path().join("other name"));
        for destroyed in [false, true] {
            write(&path, b"secret", Existing::Keep).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            // The old blocks, as a backup by link would see them.
            fs::hard_link(&path, &other).unwrap();
            if destroyed {
                destroy(&path).unwrap();
                assert!(!path.exists() && destroy(&path).is_err());
            } else {
                replace_wiping(&path, b"new").unwrap();
                assert_eq!((fs::read(&path).unwrap().as_slice(), mode(&path)), (&b"new"[..], 0o640));
                fs::remove_file(&path).unwrap();
            }
            assert_eq!(fs::read(&other).unwrap(), [0; 6]);
            fs::remove_file(&other).unwrap();
        }
        assert!(matches!(destroy(dir.path()), Err(KeyFileError::Io { .. })));
    }

    #[test]
    fn every_bit_of_group_and_other_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        write(&path, b"secret", Existing::Keep).unwrap();
        for bit in [0o040, 0o020, 0o010, 0o004, 0o002, 0o001] {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600 | bit)).unwrap();
            let error = read(&path).unwrap_err();
            assert!(matches!(error, KeyFileError::Mode { mode, .. } if mode == 0o600 | bit), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        read(&path).unwrap();
    }

    #[test]
    fn what_is_no_key_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        for text in ["", "00", "zz", &"0".repeat(63), &"0".repeat(66)] {
            write(&path, text.as_bytes(), Existing::Replace).unwrap();
            let error = read_hex::<32>(&path).unwrap_err();
            assert!(matches!(error, KeyFileError::Hex { bytes: 32, .. }), "{text}: {error}");
            assert!(error.to_string().contains(path.to_str().unwrap()));
        }
        assert!(matches!(read(dir.path()), Err(KeyFileError::Shape { .. })));
        assert!(matches!(read(&dir.path().join("none")), Err(KeyFileError::Io { .. })));
        let large = vec![b'0'; usize::try_from(KEY_FILE_BYTES_MAX).unwrap() + 1];
        write(&path, &large, Existing::Replace).unwrap();
        assert!(matches!(read(&path), Err(KeyFileError::Shape { .. })));
    }
}
