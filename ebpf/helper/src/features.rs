//! What an interface's driver can do with XDP, from the kernel (generic netlink `netdev`, since Linux 6.3).

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

use crate::links::{HEADER_BYTES, NLMSG_ERROR, attributes, message};

/// `GENL_ID_CTRL`
const CONTROL: u16 = 16;
/// `CTRL_CMD_GETFAMILY`
const GET_FAMILY: u8 = 3;
/// `CTRL_ATTR_FAMILY_ID`
const FAMILY_ID: u16 = 1;
/// `CTRL_ATTR_FAMILY_NAME`
const FAMILY_NAME: u16 = 2;
/// `NETDEV_CMD_DEV_GET`
const DEV_GET: u8 = 1;
/// `NETDEV_A_DEV_IFINDEX`
const INTERFACE: u16 = 1;
/// `NETDEV_A_DEV_XDP_FEATURES`
const XDP_FEATURES: u16 = 3;
/// `NETDEV_XDP_ACT_NDO_XMIT`
const TRANSMITS: u64 = 1 << 2;
/// `NLM_F_REQUEST`
const FLAG_REQUEST: u16 = 1;
const GENERIC_BYTES: usize = 4;
/// A family's answer, with all its operations and groups.
const ANSWER_BYTES: usize = 16 * 1024;

/// Whether the interface sends frames that another's XDP program redirects to it; false where the kernel does not say.
///
/// A veth does so only while its peer takes them: with a program of its own, or with GRO.
#[must_use]
pub fn transmits_redirected(interface: u32) -> bool {
    features(interface).is_ok_and(|features| features & TRANSMITS != 0)
}

fn features(interface: u32) -> io::Result<u64> {
    let protocol = Some(netlink::GENERIC);
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    let family = ask(&socket, CONTROL, GET_FAMILY, FAMILY_NAME, b"netdev\0", FAMILY_ID)?;
    let family = family.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes));
    let family = family.ok_or(io::ErrorKind::InvalidData)?;
    let features = ask(&socket, family, DEV_GET, INTERFACE, &interface.to_ne_bytes(), XDP_FEATURES)?;
    let features = features.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes));
    Ok(features.ok_or(io::ErrorKind::InvalidData)?)
}

/// Sends a command with one attribute; the value of the one that is wanted of the answer's.
fn ask(
    socket: &OwnedFd,
    family: u16,
    command: u8,
    attribute: u16,
    value: &[u8],
    wanted: u16,
) -> io::Result<Vec<u8>> {
    let too_long = |_over| io::Error::from(io::ErrorKind::InvalidInput);
    let of_attribute = GENERIC_BYTES + value.len();
    let length = HEADER_BYTES + GENERIC_BYTES + of_attribute.next_multiple_of(4);
    let mut request = Vec::with_capacity(length);
    request.extend(u32::try_from(length).map_err(too_long)?.to_ne_bytes());
    request.extend(family.to_ne_bytes());
    request.extend(FLAG_REQUEST.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([command, 1, 0, 0]);
    request.extend(u16::try_from(of_attribute).map_err(too_long)?.to_ne_bytes());
    request.extend(attribute.to_ne_bytes());
    request.extend(value);
    request.resize(length, 0);
    send(socket, &request, SendFlags::empty())?;
    let mut answer = vec![0; ANSWER_BYTES];
    let (length, _) = rustix::io::retry_on_intr(|| recv(socket, answer.as_mut_slice(), RecvFlags::empty()))?;
    let (kind, body, _) = answer.get(..length).and_then(message).ok_or(io::ErrorKind::InvalidData)?;
    if kind == NLMSG_ERROR {
        let code = body.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        return Err(io::Error::from_raw_os_error(code.saturating_neg()));
    }
    let found = attributes(body.get(GENERIC_BYTES..).unwrap_or_default()).find(|(kind, _)| *kind == wanted);
    Ok(found.map(|(_, value)| value.to_vec()).ok_or(io::ErrorKind::InvalidData)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::Snapshot;

    #[test]
    fn the_loopback_sends_nothing_that_is_redirected_to_it() {
        let loopback = Snapshot::read().unwrap().named("lo").unwrap().index;
        assert!(!transmits_redirected(loopback));
        assert!(!transmits_redirected(u32::MAX));
    }
}
