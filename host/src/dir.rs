//! A daemon's data folder: for its own user alone, since what lies in it tells who is treated where, sealed or not.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Read, write and search, for the owner.
const MODE_PRIVATE: u32 = 0o700;

/// A folder that could not be made.
#[derive(Debug, Error)]
#[error("create {path}: {source}", path = .path.display())]
pub struct DirError {
    /// The folder.
    pub path: PathBuf,
    /// The operating system's reason.
    pub source: io::Error,
}

/// Makes `path`, and what is missing above it, at mode 0700, and syncs the names: what is later promised of a file in it holds only if the
/// folder itself outlives a power cut. A folder that is there keeps the mode that it was given.
///
/// # Errors
/// [`DirError`] with what the operating system says, also where `path` is there and is no folder.
pub fn create_private(path: &Path) -> Result<(), DirError> {
    let failed = |path: &Path, source| DirError { path: path.to_owned(), source };
    let is_there = path.is_dir();
    let above = path
        .ancestors()
        .skip(1)
        .map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    let missing = above.clone().take_while(|folder| !folder.is_dir()).count();
    let names_in: Vec<_> = above.take(missing + 1).collect();
    DirBuilder::new()
        .recursive(true)
        .mode(MODE_PRIVATE)
        .create(path)
        .map_err(|source| failed(path, source))?;
    for folder in names_in {
        match File::open(folder).and_then(|folder| folder.sync_all()) {
            // Another has made it, in a folder that is not for this user to read.
            Err(error) if is_there && error.kind() == io::ErrorKind::PermissionDenied => {}
            synced => synced.map_err(|source| failed(folder, source))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn what_is_made_is_private_and_what_is_there_is_kept() {
        let home = tempfile::tempdir().unwrap();
        let (above, data) = (home.path().join("a"), home.path().join("a/data"));
        create_private(&data).unwrap();
        assert_eq!((mode(&above), mode(&data)), (0o700, 0o700));
        fs::set_permissions(&data, fs::Permissions::from_mode(0o750)).unwrap();
        create_private(&data).unwrap();
        assert_eq!(mode(&data), 0o750, "the operator's choice");
    }

    #[test]
    fn a_file_in_its_place_is_named() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("data");
        fs::write(&path, b"").unwrap();
        let error = create_private(&path).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}
