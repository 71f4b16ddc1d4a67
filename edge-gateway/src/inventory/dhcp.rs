//! What a DHCP client says of itself: its name, and what it runs. RFC 2131 and 2132, RFC 8415 and 4704.

use std::net::Ipv4Addr;

use caregate_protocol::policy::Mac;
use pnet::packet::Packet;
use pnet::packet::dhcp::{DhcpHardwareTypes, DhcpOperations, DhcpPacket};

use super::frame::Fault;
use super::text::{self, ABOUT_BYTES_MAX, NAME_BYTES_MAX};

/// RFC 2131 §3: the first four bytes of the options.
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const OPTION_PAD: u8 = 0;
const OPTION_HOST_NAME: u8 = 12;
const OPTION_REQUESTED_ADDRESS: u8 = 50;
const OPTION_VENDOR_CLASS: u8 = 60;
const OPTION_FQDN: u8 = 81;
const OPTION_END: u8 = 255;
/// Options looked at in one message: a client sends some twenty.
const OPTIONS_MAX: usize = 64;

/// RFC 8415 §7.3: the messages that clients send.
const V6_CLIENT_MESSAGES: [u8; 8] = [1, 3, 4, 5, 6, 8, 9, 11];
const V6_OPTION_VENDOR_CLASS: u16 = 16;
const V6_OPTION_FQDN: u16 = 39;

/// What was said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Client {
    /// The address that it has or asks for.
    pub(super) address: Option<Ipv4Addr>,
    /// Its host name.
    pub(super) name: Option<String>,
    /// Its vendor class.
    pub(super) about: Option<String>,
}

/// Reads a DHCPv4 message of a client whose frame came from `source`.
pub(super) fn v4(payload: &[u8], source: Mac) -> Result<Client, Fault> {
    let packet = DhcpPacket::new(payload).ok_or(Fault::Dhcp)?;
    if packet.get_op() != DhcpOperations::Request
        || packet.get_htype() != DhcpHardwareTypes::Ethernet
        || packet.get_hlen() != 6
        || packet.get_chaddr().octets() != source.0
    {
        return Err(Fault::Dhcp);
    }
    let mut client = Client { address: usable(packet.get_ciaddr()), ..Client::default() };
    let mut rest = packet.payload().strip_prefix(&COOKIE).ok_or(Fault::Dhcp)?;
    for _ in 0..OPTIONS_MAX {
        let (code, after) = match rest {
            [] | [OPTION_END, ..] => return Ok(client),
            [OPTION_PAD, after @ ..] => {
                rest = after;
                continue;
            }
            [code, after @ ..] => (*code, after),
        };
        let (length, after) = after.split_first().ok_or(Fault::Dhcp)?;
        let (value, after) = after.split_at_checked(usize::from(*length)).ok_or(Fault::Dhcp)?;
        rest = after;
        client.note_v4(code, value);
    }
    Ok(client)
}

fn usable(address: Ipv4Addr) -> Option<Ipv4Addr> {
    let never = address.is_unspecified() || address.is_broadcast() || address.is_multicast();
    (!never).then_some(address)
}

impl Client {
    fn note_v4(&mut self, code: u8, value: &[u8]) {
        match code {
            OPTION_HOST_NAME => self.name = text::host_name(value),
            // RFC 4702 §2: flags, two codes, then the name; bit 2 of the flags says that it is in DNS's form.
            OPTION_FQDN if self.name.is_none() => {
                self.name = match value {
                    [flags, _, _, name @ ..] if flags & 4 != 0 => labels(name),
                    [_, _, _, name @ ..] => text::host_name(name),
                    _ => None,
                };
            }
            OPTION_VENDOR_CLASS => self.about = text::printable(value, ABOUT_BYTES_MAX),
            OPTION_REQUESTED_ADDRESS => {
                let wanted = value.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets));
                self.address = self.address.or_else(|| wanted.and_then(usable));
            }
            _ => {}
        }
    }
}

/// Reads a DHCPv6 message of a client.
pub(super) fn v6(payload: &[u8]) -> Result<Client, Fault> {
    let (head, mut rest) = payload.split_at_checked(4).ok_or(Fault::Dhcpv6)?;
    if !V6_CLIENT_MESSAGES.contains(&head[0]) {
        return Err(Fault::Dhcpv6);
    }
    let mut client = Client::default();
    for _ in 0..OPTIONS_MAX {
        let Some((head, after)) = rest.split_first_chunk::<4>() else {
            return if rest.is_empty() { Ok(client) } else { Err(Fault::Dhcpv6) };
        };
        let [code_high, code_low, length_high, length_low] = *head;
        let length = usize::from(u16::from_be_bytes([length_high, length_low]));
        let (value, after) = after.split_at_checked(length).ok_or(Fault::Dhcpv6)?;
        rest = after;
        match u16::from_be_bytes([code_high, code_low]) {
            // RFC 4704 §4: flags, then the name in DNS's form.
            V6_OPTION_FQDN => client.name = value.get(1..).and_then(labels),
            // RFC 8415 §21.16: enterprise number, then length and data of the first class.
            V6_OPTION_VENDOR_CLASS => {
                client.about = value.get(6..).and_then(|class| text::printable(class, ABOUT_BYTES_MAX));
            }
            _ => {}
        }
    }
    Ok(client)
}

/// A name in DNS's form, without compression; only its first label says which host.
fn labels(bytes: &[u8]) -> Option<String> {
    let (length, rest) = bytes.split_first()?;
    let label = rest.get(..usize::from(*length)).filter(|label| label.len() <= NAME_BYTES_MAX)?;
    text::host_name(label)
}
