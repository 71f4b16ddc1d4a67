//! Why an identity or a peer was refused.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::spiffe::Role;
use crate::key_file::KeyFileError;

/// Why our own files, or a peer's certificate, were refused.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The key file can't be read, or others may use it.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// A certificate or CA file can't be read.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
    /// A file holds something else than expected.
    #[error("{path}: {reason}", path = .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The peer sent no certificate.
    #[error("no certificate")]
    NoCertificate,
    /// Bytes that are no X.509 certificate.
    #[error("not an X.509 certificate: {0}")]
    Encoding(String),
    /// A SPIFFE certificate has exactly one URI SAN (X.509-SVID §2).
    #[error("certificate has {0} URI names, must have exactly one")]
    UriNames(usize),
    /// The URI is not `spiffe://<domain>/<role>/<name>`.
    #[error("certificate's URI name is not spiffe://<domain>/<role>/<name>: {0}")]
    Spiffe(&'static str),
    /// A certificate of another deployment under the same CA.
    #[error("peer belongs to another domain than ours")]
    Domain,
    /// The peer's role is none that this connection accepts.
    #[error("peer has the role {found}, accepted here: {accepted}")]
    Role {
        /// From its certificate.
        found: Role,
        /// Comma-separated.
        accepted: String,
    },
    /// The peer is another one of the right role.
    #[error("peer is {found}, expected {expected}")]
    Name {
        /// From its certificate.
        found: String,
        /// As configured.
        expected: String,
    },
}

impl IdentityError {
    /// A short constant word, for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::KeyFile(_) => "key_file",
            Self::Io { .. } => "io",
            Self::Content { .. } => "content",
            Self::NoCertificate => "no_certificate",
            Self::Encoding(_) => "encoding",
            Self::UriNames(_) => "uri_names",
            Self::Spiffe(_) => "spiffe_id",
            Self::Domain => "domain",
            Self::Role { .. } => "role",
            Self::Name { .. } => "name",
        }
    }
}
