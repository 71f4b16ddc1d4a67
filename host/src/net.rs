//! Sockets by address, or handed over by systemd (`systemd:0` is the unit's first socket; `fd:0` says the same).
//!
//! A socket that systemd holds survives the daemon's restart: sensors that connect meanwhile wait instead of being refused.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixListener;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use listenfd::ListenFd;
use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};

/// Why there is no socket.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Neither an address nor a socket number.
    #[error("`{0}` is neither ADDRESS:PORT nor systemd:N")]
    Address(String),
    /// Nothing was handed over under that number, or it was taken before.
    #[error(
        "`{address}`: no such socket was handed over (of {count} in LISTEN_FDS), or it is already in use here"
    )]
    NotHandedOver {
        /// As configured.
        address: String,
        /// How many sockets this process was given.
        count: usize,
    },
    /// The operating system refused.
    #[error("can't listen on `{address}`: {source}")]
    Io {
        /// As configured.
        address: String,
        /// Its reason.
        source: io::Error,
    },
}

static HANDED_OVER: LazyLock<Mutex<ListenFd>> = LazyLock::new(|| Mutex::new(ListenFd::from_env()));

enum Place {
    Address(SocketAddr),
    HandedOver(usize),
}

fn place(text: &str) -> Result<Place, ListenError> {
    let wrong = || ListenError::Address(text.to_owned());
    match text.strip_prefix("systemd:").or_else(|| text.strip_prefix("fd:")) {
        Some(number) => number.parse().map(Place::HandedOver).map_err(|_source| wrong()),
        None => text.parse().map(Place::Address).map_err(|_source| wrong()),
    }
}

fn open<S>(
    text: &str,
    bind: impl FnOnce(SocketAddr) -> io::Result<S>,
    take: impl FnOnce(&mut ListenFd, usize) -> io::Result<Option<S>>,
) -> Result<S, ListenError> {
    let failed = |source| ListenError::Io { address: text.to_owned(), source };
    match place(text)? {
        Place::Address(address) => bind(address).map_err(failed),
        Place::HandedOver(index) => {
            let mut sockets = HANDED_OVER.lock().unwrap_or_else(PoisonError::into_inner);
            let count = sockets.len();
            take(&mut sockets, index)
                .map_err(failed)?
                .ok_or_else(|| ListenError::NotHandedOver { address: text.to_owned(), count })
        }
    }
}

/// A TCP listener on `127.0.0.1:8080`, `[::]:1883`, or `systemd:N`. Must be called inside a tokio runtime.
///
/// # Errors
/// [`ListenError`], naming the address.
pub fn listen(address: &str) -> Result<TcpListener, ListenError> {
    let socket = open(address, std::net::TcpListener::bind, ListenFd::take_tcp_listener)?;
    let failed = |source| ListenError::Io { address: address.to_owned(), source };
    socket.set_nonblocking(true).map_err(failed)?;
    TcpListener::from_std(socket).map_err(failed)
}

/// First probe of a silent TCP connection, between probes, how many, and how long what was sent may go without an answer: a dead
/// path shows within 5 s, as with QUIC, and no NAT forgets the connection.
const PROBE_IDLE: Duration = Duration::from_secs(2);
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
const PROBES: u32 = 3;
const UNANSWERED_MAX: Duration = Duration::from_secs(5);

/// Makes a TCP connection send at once, and notice a dead path as QUIC does.
///
/// # Errors
/// What the operating system refuses.
pub fn watched(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let probes = TcpKeepalive::new().with_time(PROBE_IDLE).with_interval(PROBE_INTERVAL).with_retries(PROBES);
    socket.set_tcp_keepalive(&probes)?;
    socket.set_tcp_user_timeout(Some(UNANSWERED_MAX))
}

/// The Unix stream listener that systemd handed over as `systemd:N`; none where `address` is no such number, but a path.
///
/// # Errors
/// [`ListenError`], naming the address.
pub fn unix_handed_over(address: &str) -> Result<Option<UnixListener>, ListenError> {
    let Ok(Place::HandedOver(index)) = place(address) else { return Ok(None) };
    let failed = |source| ListenError::Io { address: address.to_owned(), source };
    let mut sockets = HANDED_OVER.lock().unwrap_or_else(PoisonError::into_inner);
    let count = sockets.len();
    let taken = sockets.take_unix_listener(index).map_err(failed)?;
    taken.map(Some).ok_or_else(|| ListenError::NotHandedOver { address: address.to_owned(), count })
}

/// A UDP socket in the same notation, for QUIC endpoints; non-blocking.
///
/// # Errors
/// [`ListenError`], naming the address.
pub fn udp(address: &str) -> Result<UdpSocket, ListenError> {
    let socket = open(address, UdpSocket::bind, ListenFd::take_udp_socket)?;
    socket.set_nonblocking(true).map_err(|source| ListenError::Io { address: address.to_owned(), source })?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::child;

    #[tokio::test]
    async fn binds_an_address_and_names_it_when_taken() {
        let first = listen("127.0.0.1:0").unwrap();
        let taken = first.local_addr().unwrap().to_string();
        let error = listen(&taken).unwrap_err().to_string();
        assert!(error.contains(&taken), "{error}");
        TcpStream::connect(&taken).await.unwrap();
    }

    #[test]
    fn udp_is_bound() {
        assert_ne!(udp("[::1]:0").unwrap().local_addr().unwrap().port(), 0);
    }

    #[tokio::test]
    async fn refuses_what_is_no_address() {
        for text in ["", "localhost", "127.0.0.1", "systemd:", "systemd:x", "fd:-1", "1883"] {
            assert!(matches!(listen(text), Err(ListenError::Address(_))), "{text}");
        }
        assert!(matches!(listen("systemd:7"), Err(ListenError::NotHandedOver { .. })));
    }
    #[test]
    fn a_socket_is_taken_over_from_systemd() {
        if child::is_child() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = listen("systemd:0").unwrap();
                assert!(matches!(listen("fd:0"), Err(ListenError::NotHandedOver { count: 1, .. })));
                let (stream, _) = listener.accept().await.unwrap();
                stream.try_write(b"here").unwrap();
            });
            return;
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // The connection is made before the daemon runs, and is served all the same.
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let mut child =
            child::Child::start_with_socket("net::tests::a_socket_is_taken_over_from_systemd", listener);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "here");
        assert!(child.status().success());
    }
}
