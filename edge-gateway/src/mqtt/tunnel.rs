//! TLS towards an existing broker: a Unix socket in the gateway's own folder, behind which each connection is TLS to the broker.
//!
//! rumqttc's own TLS would bring an older webpki beside ours; its connection to a Unix socket brings nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use thiserror::Error;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::limits::DRAIN_TIMEOUT;

/// Pause after a failed accept: it fails for want of descriptors, and those come back when something ends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection is carried on at shutdown: the client's own drain, and a second for its last words.
const DRAIN: Duration = DRAIN_TIMEOUT.saturating_add(Duration::from_secs(1));
/// Time to reach the broker and shake hands.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at once: the one that is used, and one that is being let go.
const CONNECTIONS_MAX: usize = 2;
/// Longest path of a Unix socket (`sun_path` of unix(7), with its end).
const PATH_BYTES_MAX: usize = 107;

/// How to trust a broker, and how to prove oneself to it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsEntry {
    /// CAs that its certificate may come from (PEM).
    pub ca: PathBuf,
    /// The name in its certificate, where that is not `host`.
    pub name: Option<String>,
    /// Our certificate (PEM), where it asks for one.
    pub certificate: Option<PathBuf>,
    /// Its key (PEM, mode 0600).
    pub key: Option<PathBuf>,
}

/// TLS towards a broker can't be had as configured.
#[derive(Debug, Error)]
pub enum TunnelError {
    /// A file.
    #[error("{}: {problem}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// One of certificate and key without the other.
    #[error("broker.tls: certificate and key go together")]
    Half,
    /// No name that TLS could ask for.
    #[error("broker.tls: {name:?} is no server's name: {source}")]
    Name {
        /// Which.
        name: String,
        /// Why.
        source: InvalidDnsNameError,
    },
    /// rustls refuses certificate and key.
    #[error("broker.tls: {0}")]
    Tls(#[from] rustls::Error),
    /// The socket.
    #[error("{}: {source}", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn file(path: &Path, problem: impl std::fmt::Display) -> TunnelError {
    TunnelError::File { path: path.to_owned(), problem: problem.to_string() }
}

/// The way to one broker.
pub struct Tunnel {
    listener: UnixListener,
    path: PathBuf,
    host: String,
    port: u16,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

impl Tunnel {
    /// Reads the files and makes the socket, in a folder that nobody else may enter. One left by a killed process is replaced.
    ///
    /// # Errors
    /// [`TunnelError`].
    pub fn open(path: PathBuf, host: &str, port: u16, entry: &TlsEntry) -> Result<Self, TunnelError> {
        let config = Arc::new(client_config(entry)?);
        let name = entry.name.as_deref().unwrap_or(host).to_owned();
        let server =
            ServerName::try_from(name.clone()).map_err(|source| TunnelError::Name { name, source })?;
        let failed = |source| TunnelError::Socket { path: path.clone(), source };
        if path.as_os_str().len() > PATH_BYTES_MAX {
            return Err(failed(io::Error::new(
                io::ErrorKind::InvalidInput,
                "longer than a Unix socket's path may be",
            )));
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&path).map_err(failed)?;
        Ok(Self { listener, path, host: host.to_owned(), port, name: server, config })
    }

    /// Where to connect to.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Carries connections until `shutdown`, and those that are up to their end, or as long as anything may still be answered.
    pub async fn run(self, shutdown: CancellationToken) {
        let tunnel = Arc::new(self);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let carried = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = tunnel.listener.accept() => accepted,
                () = shutdown.cancelled() => break,
            };
            let near = match accepted {
                Ok((near, _)) => near,
                Err(error) => {
                    tracing::warn!(%error, "the tunnel to the broker can't accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let (tunnel, shutdown) = (Arc::clone(&tunnel), shutdown.clone());
            carried.spawn(async move {
                tokio::select! {
                    carried = tunnel.carry(near) => {
                        if let Err(error) = carried {
                            tracing::warn!(host = tunnel.host, %error, "no TLS to the broker");
                        }
                    }
                    // What is outstanding may still be answered.
                    () = async { shutdown.cancelled().await; tokio::time::sleep(DRAIN).await } => {}
                }
                drop(place);
            });
        }
        carried.close();
        carried.wait().await;
    }

    async fn carry(&self, mut near: UnixStream) -> io::Result<()> {
        let handshake = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            stream.set_nodelay(true)?;
            TlsConnector::from(Arc::clone(&self.config)).connect(self.name.clone(), stream).await
        };
        let mut far = timeout(HANDSHAKE_TIMEOUT, handshake).await.map_err(io::Error::other)??;
        // How it ends is the client's to notice.
        drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
        Ok(())
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.path));
    }
}

/// TLS 1.2 or 1.3: brokers in homes are old.
fn client_config(entry: &TlsEntry) -> Result<ClientConfig, TunnelError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&entry.ca)? {
        roots.add(certificate).map_err(|error| file(&entry.ca, error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    match (&entry.certificate, &entry.key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(certificate), Some(key)) => {
            let bytes = caregate_host::key_file::read(key).map_err(|error| file(key, error))?;
            let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| file(key, error))?;
            Ok(builder.with_client_auth_cert(certificates(certificate)?, key)?)
        }
        (Some(_), None) | (None, Some(_)) => Err(TunnelError::Half),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TunnelError> {
    let read = CertificateDer::pem_file_iter(path).and_then(|all| all.collect::<Result<Vec<_>, _>>());
    let certificates: Vec<_> = read.map_err(|error| file(path, error))?;
    if certificates.is_empty() { Err(file(path, "no certificate in it")) } else { Ok(certificates) }
}
