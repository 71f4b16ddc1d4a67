//! Interfaces (rtnetlink, RFC 3549): there is no `ip` in a guest.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

const RTM_NEWLINK: u16 = 16;
const NLMSG_ERROR: u16 = 2;
/// `NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL`
const FLAGS_CREATE: u16 = 0x605;
/// `NLM_F_REQUEST | NLM_F_ACK`
const FLAGS_CHANGE: u16 = 0x5;
const IFLA_IFNAME: u16 = 3;
const IFF_UP: u32 = 1;
const HEADER_BYTES: usize = 16;

/// Makes an interface of these attributes.
///
/// # Errors
/// The kernel's.
pub fn make(attributes: &[u8]) -> io::Result<()> {
    request(&message(FLAGS_CREATE, &[link(0).as_slice(), attributes].concat()))
}

/// Switches an interface on.
///
/// # Errors
/// The kernel's.
pub fn switch_on(name: &str) -> io::Result<()> {
    request(&message(FLAGS_CHANGE, &[link(IFF_UP), text(IFLA_IFNAME, name)].concat()))
}

fn message(flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// `struct ifinfomsg`, with these flags and no others changed.
#[must_use]
pub fn link(flags: u32) -> Vec<u8> {
    let mut link = vec![0; 8];
    link.extend(flags.to_ne_bytes());
    link.extend(flags.to_ne_bytes());
    link
}

/// An attribute that is text.
#[must_use]
pub fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, format!("{value}\0").as_bytes())
}

/// An attribute, padded to four bytes.
#[must_use]
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut attribute = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

fn request(message: &[u8]) -> io::Result<()> {
    // The protocol of number 0 is NETLINK_ROUTE.
    let socket: OwnedFd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    send(&socket, message, SendFlags::empty())?;
    let mut answer = [0; 4096];
    let (length, _) = recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
    let answer = answer.get(..length).unwrap_or_default();
    let (kind, code) = (answer.get(4..6), answer.get(HEADER_BYTES..HEADER_BYTES + 4));
    match (kind, code.and_then(|code| code.first_chunk())) {
        (Some(kind), Some(code)) if kind == NLMSG_ERROR.to_ne_bytes() => match i32::from_ne_bytes(*code) {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        },
        _ => Err(io::Error::other("the kernel's answer is no acknowledgement")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_can_be_switched_on_and_what_is_not_there_is_refused() {
        // Anybody may ask; without rights it is refused by number, which is an answer too.
        let asked = switch_on("no-such-link").unwrap_err();
        assert!(asked.raw_os_error().is_some(), "{asked}");
        assert_eq!(attribute(3, b"lo\0"), [7, 0, 3, 0, b'l', b'o', 0, 0]);
    }
}
