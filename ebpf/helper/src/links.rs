//! The network interfaces and their addresses, from the kernel (rtnetlink, RFC 3549).
//!
//! Read whole at each change: there are a few, and a list that is read whole can't go wrong by a message that was missed.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use caregate_protocol::datapath::{LinkCounters, Traffic};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

use crate::error::DatapathError;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
pub(crate) const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const FLAGS_DUMP: u16 = 0x301;
pub(crate) const HEADER_BYTES: usize = 16;
const LINK_BYTES: usize = 16;
const ADDRESS_BYTES: usize = 8;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
/// `struct rtnl_link_stats64`
const IFLA_STATS64: u16 = 23;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFF_UP: u32 = 1;
/// Switched on, and with a carrier.
const IFF_RUNNING: u32 = 0x40;
/// `RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR`
const GROUPS: u32 = 0x111;
/// More than the kernel puts into one piece of a dump (32 kB).
const PIECE_BYTES: usize = 64 * 1024;
/// A dump of a thousand interfaces; what goes on beyond is no dump.
const PIECES_MAX: usize = 1024;

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC address; zeroes where it has none of six bytes.
    pub mac: [u8; 6],
    /// The bridge or bond that it is a port of.
    pub master: Option<u32>,
    /// Switched on and with a carrier.
    pub up: bool,
}

/// All interfaces and addresses at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// All interfaces.
    pub interfaces: Vec<Interface>,
    /// Addresses by interface.
    pub addresses: Vec<(u32, IpAddr)>,
}

impl Snapshot {
    /// As it is now, in this process's network namespace.
    ///
    /// # Errors
    /// [`DatapathError::Links`].
    pub fn read() -> Result<Self, DatapathError> {
        let mut snapshot = Self::default();
        let socket = socket(0).map_err(DatapathError::Links)?;
        for kind in [RTM_GETLINK, RTM_GETADDR] {
            let take = |kind: u16, body: &[u8]| snapshot.take(kind, body);
            dump(&socket, kind, take).map_err(DatapathError::Links)?;
        }
        Ok(snapshot)
    }

    /// The interface with this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }

    /// The interface with this index.
    #[must_use]
    pub fn indexed(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.index == index)
    }

    /// The addresses at which an interface is reached: its own, and those of the bridge that it is a port of.
    pub fn addresses_of(&self, interface: &Interface) -> impl Iterator<Item = IpAddr> {
        let places = [Some(interface.index), interface.master];
        self.addresses
            .iter()
            .filter(move |(index, _)| places.contains(&Some(*index)))
            .map(|(_, address)| *address)
    }

    fn take(&mut self, kind: u16, body: &[u8]) {
        match kind {
            RTM_NEWLINK => self.interfaces.extend(interface(body)),
            RTM_NEWADDR => self.addresses.extend(address(body)),
            _ => {}
        }
    }
}

/// What the kernel has counted on each interface, by its index.
///
/// # Errors
/// [`DatapathError::Links`].
pub fn counters() -> Result<Vec<(u32, LinkCounters)>, DatapathError> {
    let mut all = Vec::new();
    let socket = socket(0).map_err(DatapathError::Links)?;
    let take = |kind: u16, body: &[u8]| {
        if kind == RTM_NEWLINK {
            all.extend(link_counters(body));
        }
    };
    dump(&socket, RTM_GETLINK, take).map_err(DatapathError::Links)?;
    Ok(all)
}

/// A socket on which something can be read whenever an interface or an address changes; what it is, is read anew.
///
/// # Errors
/// The operating system's.
pub fn changes() -> io::Result<OwnedFd> {
    let socket = socket(GROUPS)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

/// Reads away what [`changes`] has to say. An overflow says the same as a message: something changed.
pub fn drain(socket: impl AsFd) {
    let mut buffer = vec![0; PIECE_BYTES];
    for _ in 0..PIECES_MAX {
        match recv(&socket, buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
            Ok(_) | Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

fn socket(groups: u32) -> io::Result<OwnedFd> {
    // The protocol of number 0 is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

fn dump(socket: &OwnedFd, kind: u16, mut take: impl FnMut(u16, &[u8])) -> io::Result<()> {
    let mut request = [0; HEADER_BYTES + LINK_BYTES];
    let length = u32::try_from(request.len()).unwrap_or_default();
    request[..4].copy_from_slice(&length.to_ne_bytes());
    request[4..6].copy_from_slice(&kind.to_ne_bytes());
    request[6..8].copy_from_slice(&FLAGS_DUMP.to_ne_bytes());
    send(socket, &request, SendFlags::empty())?;
    let mut buffer = vec![0; PIECE_BYTES];
    for _ in 0..PIECES_MAX {
        let (length, _) =
            rustix::io::retry_on_intr(|| recv(socket, buffer.as_mut_slice(), RecvFlags::empty()))?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Some((kind, body, after)) = message(rest) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    let code = body.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                    return Err(io::Error::from_raw_os_error(code.saturating_neg()));
                }
                _ => take(kind, body),
            }
            rest = after;
        }
    }
    Err(io::Error::other("the kernel's list has no end"))
}

/// Type, body and what follows; none at the end.
pub(crate) fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let kind = u16_at(bytes, 4)?;
    let body = bytes.get(HEADER_BYTES..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// Attributes: type and value.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let value = bytes.get(4..length)?;
        let kind = u16_at(bytes, 2)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn interface(body: &[u8]) -> Option<Interface> {
    let (index, flags) = (u32_at(body, 4)?, u32_at(body, 8)?);
    let up = flags & IFF_UP != 0 && flags & IFF_RUNNING != 0;
    let mut interface = Interface { index, name: String::new(), mac: [0; 6], master: None, up };
    for (kind, value) in attributes(body.get(LINK_BYTES..)?) {
        match kind {
            IFLA_IFNAME => {
                let name = value.split(|byte| *byte == 0).next().unwrap_or_default();
                interface.name = String::from_utf8_lossy(name).into_owned();
            }
            IFLA_ADDRESS => interface.mac = value.try_into().unwrap_or_default(),
            IFLA_MASTER => interface.master = u32_at(value, 0),
            _ => {}
        }
    }
    Some(interface)
}

fn link_counters(body: &[u8]) -> Option<(u32, LinkCounters)> {
    let index = u32_at(body, 4)?;
    let (_, words) = attributes(body.get(LINK_BYTES..)?).find(|(attribute, _)| *attribute == IFLA_STATS64)?;
    let word = |at: usize| u64_at(words, 8 * at);
    // Multicast, at 8, and errors by length, at 10, have no place in OpenFlow.
    let counters = LinkCounters {
        rx: Traffic { frames: word(0)?, bytes: word(2)? },
        tx: Traffic { frames: word(1)?, bytes: word(3)? },
        rx_errors: word(4)?,
        tx_errors: word(5)?,
        rx_dropped: word(6)?,
        tx_dropped: word(7)?,
        collisions: word(9)?,
        rx_over_errors: word(11)?,
        rx_crc_errors: word(12)?,
        rx_frame_errors: word(13)?,
    };
    Some((index, counters))
}

fn address(body: &[u8]) -> Option<(u32, IpAddr)> {
    let index = u32_at(body, 4)?;
    let (mut local, mut peer) = (None, None);
    for (kind, value) in attributes(body.get(ADDRESS_BYTES..)?) {
        let v4 = || <[u8; 4]>::try_from(value).ok().map(IpAddr::from);
        let v6 = || <[u8; 16]>::try_from(value).ok().map(IpAddr::from);
        match kind {
            // On a point-to-point interface the other one is the peer's.
            IFA_LOCAL => local = v4().or_else(v6),
            IFA_ADDRESS => peer = v4().or_else(v6),
            _ => {}
        }
    }
    Some((index, local.or(peer)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_there_with_its_address() {
        let snapshot = Snapshot::read().unwrap();
        let loopback = snapshot.named("lo").unwrap();
        assert_eq!(snapshot.indexed(loopback.index), Some(loopback));
        assert_eq!((loopback.mac, loopback.master), ([0; 6], None));
        assert!(snapshot.addresses_of(loopback).any(|address| address == IpAddr::from([127, 0, 0, 1])));
        assert_eq!(snapshot.named("nowhere"), None);
    }

    #[test]
    fn the_loopback_receives_what_it_sends() {
        let of_loopback = || {
            let index = Snapshot::read().unwrap().named("lo").unwrap().index;
            counters().unwrap().into_iter().find(|(of, _)| *of == index).unwrap().1
        };
        let before = of_loopback();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(&[0; 100], socket.local_addr().unwrap()).unwrap();
        socket.recv_from(&mut [0; 100]).unwrap();
        let after = of_loopback();
        assert!(after.tx.frames > before.tx.frames && after.tx.bytes >= before.tx.bytes + 128, "{after:?}");
        assert!(after.rx.frames > before.rx.frames && after.rx_crc_errors == 0, "{after:?}");
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_nothing_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let mut snapshot = Snapshot::default();
            snapshot.take(RTM_NEWLINK, &bytes);
            snapshot.take(RTM_NEWADDR, &bytes);
            proptest::prop_assert!(link_counters(&bytes).is_none_or(|_| bytes.len() >= 100));
            let mut rest = bytes.as_slice();
            while let Some((_, _, after)) = message(rest) {
                proptest::prop_assert!(after.len() < rest.len());
                rest = after;
            }
        }
    }
}
