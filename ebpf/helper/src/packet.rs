//! Packet sockets (packet(7)): one to send a controller's frame out of an uplink, and one that the daemon is handed to hear what
//! devices say of themselves.

#![expect(
    unsafe_code,
    reason = "bind and setsockopt of packet sockets have no safe wrapper in the crates at hand"
)]

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::mem::size_of_val;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socket_with};

use crate::error::DatapathError;
use crate::links::Interface;

/// `ETH_P_ALL`: with a port to be bound to and no frame before the filter is there.
const ETH_P_ALL: u16 = 3;
/// So many bytes of each frame: what a device says of itself fits an Ethernet frame.
const SNAP_BYTES: u32 = 1518;

/// Jumps and returns of classic BPF.
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

const fn step(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// ARP, LLDP, EAPOL, UDP and ICMPv6; not TCP, which carries readings.
const FILTER: [libc::sock_filter; 13] = [
    step(LOAD_HALF, 0, 0, 12),
    step(JUMP_EQUAL, 9, 0, 0x0806),
    step(JUMP_EQUAL, 8, 0, 0x88cc),
    step(JUMP_EQUAL, 7, 0, 0x888e),
    step(JUMP_EQUAL, 0, 2, 0x0800),
    step(LOAD_BYTE, 0, 0, 23),
    step(JUMP_EQUAL, 4, 5, 17),
    step(JUMP_EQUAL, 0, 4, 0x86dd),
    step(LOAD_BYTE, 0, 0, 20),
    step(JUMP_EQUAL, 1, 0, 17),
    step(JUMP_EQUAL, 0, 1, 58),
    step(RETURN, 0, 0, SNAP_BYTES),
    step(RETURN, 0, 0, 0),
];

fn option<T>(socket: &OwnedFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(value)).map_err(io::Error::other)?;
    // SAFETY: the pointer is to `length` bytes that outlive the call.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn bind(socket: &OwnedFd, interface: u32, protocol: u16) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
        sll_protocol: protocol.to_be(),
        sll_ifindex: i32::try_from(interface).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: the pointer is to `length` bytes that outlive the call.
    let done = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Bound to no protocol: nothing is received yet.
fn open() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?)
}

fn listening(interface: u32) -> io::Result<OwnedFd> {
    let socket = open()?;
    let mut filter = FILTER;
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(io::Error::other)?,
        filter: filter.as_mut_ptr(),
    };
    // The kernel copies the steps.
    option(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
    option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1i32)?;
    bind(&socket, interface, ETH_P_ALL)?;
    Ok(socket)
}

fn sender(interface: u32, way: Way) -> io::Result<OwnedFd> {
    let socket = open()?;
    match way {
        Way::Past => option(&socket, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, &1i32)?,
        Way::Queued(_) => {}
        Way::Marked { mark, .. } => option(&socket, libc::SOL_SOCKET, libc::SO_MARK, &mark)?,
    }
    let queue = way.queue();
    if queue != 0 {
        // What qdiscs tell queues apart by, as of the gateway's own frames (`ebpf/program/src/uplink.rs`).
        option(&socket, libc::SOL_SOCKET, libc::SO_PRIORITY, &queue)?;
    }
    bind(&socket, interface, 0)?;
    Ok(socket)
}

fn sent(socket: &OwnedFd, frame: &[u8]) -> io::Result<()> {
    match send(socket.as_fd(), frame, SendFlags::empty())? {
        length if length == frame.len() => Ok(()),
        _ => Err(io::Error::other("the frame was cut")),
    }
}

/// A socket that hears what devices on the interface say of themselves, and none of what the gateway says. Which frames it hears
/// can't be changed by whoever holds it.
///
/// # Errors
/// [`DatapathError::Packet`].
pub fn listen(interface: &Interface) -> Result<OwnedFd, DatapathError> {
    let failed = |source| DatapathError::Packet { interface: interface.name.clone(), source };
    listening(interface.index).map_err(failed)
}

/// How a frame leaves by an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// Past qdisc and tc.
    Past,
    /// By this queue.
    Queued(u32),
    /// By a queue, and past the tables of the tc program that is there: what a controller sends is not looked up in its own table.
    Marked {
        /// 0 for the first.
        queue: u32,
        /// What the program knows it by.
        mark: u32,
    },
}

impl Way {
    fn queue(self) -> u32 {
        match self {
            Self::Past => 0,
            Self::Queued(queue) | Self::Marked { queue, .. } => queue,
        }
    }
}

/// The sockets that frames are sent by: one for each interface, by its index, and way. Ports and queues are few.
#[derive(Debug, Default)]
pub struct Senders {
    sockets: HashMap<(u32, Way), OwnedFd>,
}

impl Senders {
    /// Sends a frame as it is.
    ///
    /// # Errors
    /// [`DatapathError::Packet`].
    pub fn transmit(&mut self, interface: &Interface, way: Way, frame: &[u8]) -> Result<(), DatapathError> {
        let failed = |source| DatapathError::Packet { interface: interface.name.clone(), source };
        let socket = match self.sockets.entry((interface.index, way)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(sender(interface.index, way).map_err(failed)?),
        };
        sent(socket, frame).map_err(failed)
    }

    /// Closes those of interfaces that are gone.
    pub fn keep(&mut self, is_there: impl Fn(u32) -> bool) {
        self.sockets.retain(|(index, _), _| is_there(*index));
    }
}
