//! The way to the controller: TCP, then mutual TLS.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use caregate_host::identity::{Identity, Role};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// First pause after a lost connection, doubled at each failure up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(250);
/// Longest pause: a controller that returns has its gateways within this time.
const BACKOFF_MAX: Duration = Duration::from_secs(8);
/// For TCP and TLS together.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection whose controller has shown its certificate.
pub(super) type Stream = TlsStream<TcpStream>;
pub(super) type Dialing = Pin<Box<dyn Future<Output = Result<Stream, DialError>> + Send>>;

/// Why there is no connection.
#[derive(Debug, Error)]
pub(super) enum DialError {
    /// Nobody answers there.
    #[error("TCP: {0}")]
    Tcp(std::io::Error),
    /// Not the controller, or it doesn't want us.
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    /// Neither in time.
    #[error("no connection within {} s", DIAL_TIMEOUT.as_secs())]
    Timeout,
}

impl DialError {
    /// A label for counters.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "tcp",
            Self::Tls(_) => "tls",
            Self::Timeout => "timeout",
        }
    }
}

/// Makes connections, with pauses between them.
pub(super) struct Dialer {
    address: SocketAddr,
    /// Rotated certificates are taken by the resolver behind it.
    config: Arc<ClientConfig>,
    random: SystemRandom,
    backoff: Duration,
}

impl Dialer {
    pub(super) fn new(address: SocketAddr, name: Option<&str>, identity: &Identity) -> Self {
        let config = Arc::new(identity.client_config(Role::Controller, name, &[]));
        Self { address, config, random: SystemRandom::new(), backoff: BACKOFF_MIN }
    }

    pub(super) fn dial(&self) -> Dialing {
        let (address, connector) = (self.address, TlsConnector::from(Arc::clone(&self.config)));
        let dial = async move {
            let stream = TcpStream::connect(address).await.map_err(DialError::Tcp)?;
            stream.set_nodelay(true).map_err(DialError::Tcp)?;
            connector.connect(ServerName::from(address.ip()), stream).await.map_err(DialError::Tls)
        };
        Box::pin(async { timeout(DIAL_TIMEOUT, dial).await.map_err(|_elapsed| DialError::Timeout)? })
    }

    /// The controller has said hello: the next pause is the shortest again.
    pub(super) fn succeeded(&mut self) {
        self.backoff = BACKOFF_MIN;
    }

    /// How long to wait before the next connection: between a half and all of the pause, so that the gateways of a controller
    /// that returns don't come at once.
    pub(super) fn pause(&mut self) -> Duration {
        let mut byte = [0];
        // Without random bytes, the whole pause.
        let part = if self.random.fill(&mut byte).is_ok() { u32::from(byte[0]) } else { 255 };
        let pause = self.backoff / 2 + self.backoff / 2 * part / 255;
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        pause
    }
}
