//! The Unix socket: for one user alone, and checked again at each connection.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};

use caregate_host::net::{self, ListenError};
use rustix::fs::Mode;
use rustix::process::{geteuid, umask};
use thiserror::Error;
use tokio::net::UnixListener;

/// Read and write, for the owner.
const MODE: u32 = 0o600;
/// Longest `/etc/passwd` that is read: a router has a few users, a hospital's server some thousands.
const PASSWD_BYTES_MAX: usize = 1024 * 1024;

/// Why there is no socket.
#[derive(Debug, Error)]
pub enum SocketError {
    /// systemd handed none over.
    #[error(transparent)]
    Handed(#[from] ListenError),
    /// Nobody has that name.
    #[error("`user`: there is no user `{0}`")]
    User(String),
    /// Something else lies there, or another helper listens.
    #[error("`socket`: {path} is in use", path = .0.display())]
    InUse(PathBuf),
    /// The operating system refused.
    #[error("`socket`: {path}: {source}", path = .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
}

/// The number of a user given as number or name.
///
/// # Errors
/// [`SocketError::User`].
pub fn user(text: &str) -> Result<u32, SocketError> {
    let unknown = || SocketError::User(text.to_owned());
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let mut passwd = fs::read_to_string("/etc/passwd").map_err(|_source| unknown())?;
    passwd.truncate(passwd.floor_char_boundary(PASSWD_BYTES_MAX));
    named(&passwd, text).ok_or_else(unknown)
}

/// The user's number in the text of a `passwd` file (passwd(5)).
fn named(passwd: &str, name: &str) -> Option<u32> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// Listens on a path, or on what systemd handed over (`systemd:N`). Must be called inside a tokio runtime.
///
/// # Errors
/// [`SocketError`].
pub fn listen(address: &str, owner: u32) -> Result<UnixListener, SocketError> {
    let path = Path::new(address);
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    let listener = match net::unix_handed_over(address)? {
        Some(listener) => listener,
        None => bind(path, owner)?,
    };
    listener.set_nonblocking(true).map_err(failed)?;
    UnixListener::from_std(listener).map_err(failed)
}

fn bind(path: &Path, owner: u32) -> Result<StdListener, SocketError> {
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        // Who may pass is said by the socket's own mode.
        fs::create_dir_all(folder).map_err(failed)?;
    }
    clear(path)?;
    // From its first moment on nobody else can connect.
    let before = umask(Mode::from_raw_mode(0o177));
    let bound = StdListener::bind(path);
    umask(before);
    let listener = bound.map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(MODE)).map_err(failed)?;
    if owner != geteuid().as_raw() {
        chown(path, Some(owner), None).map_err(failed)?;
    }
    Ok(listener)
}

/// Removes the socket of a helper that is gone.
fn clear(path: &Path) -> Result<(), SocketError> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() || StdStream::connect(path).is_ok() {
        return Err(SocketError::InUse(path.to_owned()));
    }
    fs::remove_file(path).map_err(|source| SocketError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_number_and_name() {
        assert_eq!(user("1234").unwrap(), 1234);
        assert_eq!(user("root").unwrap(), 0);
        assert!(user("nobody-has-this-name").unwrap_err().to_string().contains("nobody-has-this-name"));
        let passwd = "root:x:0:0::/root:/bin/sh\nbroken\ncare:x:77:7::/:/bin/false\n:x:5\n";
        assert_eq!(
            (named(passwd, "care"), named(passwd, "broken"), named(passwd, "ro")),
            (Some(77), None, None)
        );
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/datapath.sock");
        let address = path.to_str().unwrap();
        let me = geteuid().as_raw();
        let first = listen(address, me).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert!(matches!(listen(address, me), Err(SocketError::InUse(_))));
        drop(first);
        listen(address, me).unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "not a socket").unwrap();
        assert!(matches!(listen(file.to_str().unwrap(), me), Err(SocketError::InUse(_))));
        assert_eq!(fs::read_to_string(&file).unwrap(), "not a socket");
    }
}
