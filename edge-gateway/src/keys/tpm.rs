//! The TPM, where there is one: a character device (`/dev/tpmrm0`), or the Unix socket of one in software.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use caregate_protocol::tpm::{self, HEADER_BYTES, Handle, MESSAGE_BYTES_MAX, Sealed, TpmError};
use thiserror::Error;
use zeroize::Zeroizing;

/// How often a command is sent again to a TPM that says that it is busy. Its self-test after power-on takes up to a second.
const AGAIN_MAX: u32 = 20;
const AGAIN_PAUSE: Duration = Duration::from_millis(100);
/// A TPM in software that says nothing for so long is gone; the kernel bounds a real one's commands itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the TPM did not do it.
#[derive(Debug, Error)]
pub enum TpmFailure {
    /// The device can't be opened, written or read.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What it answered, or that it refused.
    #[error("{path}: {doing}: {source}", path = .path.display())]
    Answer {
        /// Which.
        path: PathBuf,
        /// What was asked of it.
        doing: &'static str,
        /// What it said.
        source: TpmError,
    },
}

trait Device: Read + Write {}
impl Device for File {}
impl Device for UnixStream {}

/// A TPM that is open.
pub(super) struct Tpm {
    path: PathBuf,
    device: Box<dyn Device>,
}

impl Tpm {
    pub(super) fn open(path: &Path) -> Result<Self, TpmFailure> {
        let device = || -> io::Result<Box<dyn Device>> {
            if std::fs::metadata(path)?.file_type().is_socket() {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
                return Ok(Box::new(stream));
            }
            Ok(Box::new(OpenOptions::new().read(true).write(true).open(path)?))
        };
        let device = device().map_err(|source| TpmFailure::Io { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), device })
    }

    /// Seals a secret to this TPM.
    pub(super) fn seal(&mut self, secret: &[u8; 32]) -> Result<Sealed, TpmFailure> {
        self.below_primary(|tpm, primary| {
            let command = tpm::create(primary, secret);
            tpm.ask("seal the key", &command, tpm::created)
        })
    }

    /// Opens what [`Self::seal`] has sealed.
    pub(super) fn unseal(&mut self, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, TpmFailure> {
        self.below_primary(|tpm, primary| {
            let object = tpm.ask("load the sealed key", &tpm::load(primary, sealed), tpm::loaded)?;
            let secret = tpm.ask("unseal the key", &tpm::unseal(object), tpm::unsealed);
            tpm.forget(object);
            secret
        })
    }

    fn below_primary<T>(
        &mut self,
        then: impl FnOnce(&mut Self, Handle) -> Result<T, TpmFailure>,
    ) -> Result<T, TpmFailure> {
        let primary = self.ask("make the storage key", &tpm::create_primary(), tpm::loaded)?;
        let done = then(self, primary);
        self.forget(primary);
        done
    }

    /// The kernel's resource manager does it anyway when the device is closed; others have places for three objects.
    fn forget(&mut self, object: Handle) {
        if let Err(failure) = self.ask("let go of an object", &tpm::flush(object), tpm::flushed) {
            tracing::warn!(%failure, "the TPM keeps an object loaded");
        }
    }

    fn ask<T>(
        &mut self,
        doing: &'static str,
        command: &[u8],
        read: fn(&[u8]) -> Result<T, TpmError>,
    ) -> Result<T, TpmFailure> {
        let mut left = AGAIN_MAX;
        loop {
            let response = self.exchange(command).map_err(|source| self.io(source))?;
            match read(&response) {
                Err(TpmError::Again(_)) if left > 0 => {
                    left -= 1;
                    std::thread::sleep(AGAIN_PAUSE);
                }
                answer => {
                    let path = self.path.clone();
                    return answer.map_err(|source| TpmFailure::Answer { path, doing, source });
                }
            }
        }
    }

    fn io(&self, source: io::Error) -> TpmFailure {
        TpmFailure::Io { path: self.path.clone(), source }
    }

    /// A device gives its response to one read, a socket in pieces.
    fn exchange(&mut self, command: &[u8]) -> io::Result<Zeroizing<Vec<u8>>> {
        self.device.write_all(command)?;
        let mut response = Zeroizing::new(vec![0; MESSAGE_BYTES_MAX]);
        let mut has = 0;
        loop {
            let read = self.device.read(&mut response[has..])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            has += read;
            let Some(header) = response.first_chunk::<HEADER_BYTES>().filter(|_| has >= HEADER_BYTES) else {
                continue;
            };
            let length = tpm::response_length(header).map_err(io::Error::other)?;
            if has >= length {
                response.truncate(has);
                return Ok(response);
            }
        }
    }
}
