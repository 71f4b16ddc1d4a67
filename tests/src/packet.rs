//! Whole frames in and out of an interface (`AF_PACKET`, packet(7)).

#![expect(unsafe_code, reason = "packet sockets have no safe wrapper in the standard library")]

use std::io::{self, Read as _, Write as _};
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Duration;

use crate::bpf;

/// `ETH_P_ALL` in network order.
const ALL: u16 = 0x0003_u16.to_be();

/// A socket of one interface. Needs `CAP_NET_RAW`.
#[derive(Debug)]
pub struct PacketSocket(std::fs::File);

impl PacketSocket {
    /// On the interface of that name; [`next`](Self::next) waits so long.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(interface: &str, wait: Duration) -> io::Result<Self> {
        // SAFETY: no memory.
        let socket =
            unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, ALL.into()) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else has.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let number = std::os::fd::AsRawFd::as_raw_fd(&socket);
        // SAFETY: zeroes are an address, and a time.
        let (mut address, mut time): (libc::sockaddr_ll, libc::timeval) = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
        address.sll_protocol = ALL;
        address.sll_ifindex = i32::try_from(bpf::index(interface)?).map_err(io::Error::other)?;
        time.tv_usec = i64::from(wait.subsec_micros());
        time.tv_sec = i64::try_from(wait.as_secs()).map_err(io::Error::other)?;
        let length = |bytes: usize| libc::socklen_t::try_from(bytes).map_err(io::Error::other);
        // SAFETY: the address outlives the call and is as long as is said.
        let bound = unsafe {
            libc::bind(number, (&raw const address).cast(), length(size_of::<libc::sockaddr_ll>())?)
        };
        // SAFETY: the time outlives the call and is as long as is said.
        let timed = unsafe {
            libc::setsockopt(
                number,
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const time).cast(),
                length(size_of::<libc::timeval>())?,
            )
        };
        if bound < 0 || timed < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(socket.into())) }
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The operating system's.
    pub fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.0.write_all(frame)
    }

    /// The next frame's bytes; none where none came in time.
    ///
    /// # Errors
    /// The operating system's.
    pub fn next<'b>(&mut self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        match self.0.read(buffer) {
            Ok(bytes) => Ok(buffer.get(..bytes)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}
