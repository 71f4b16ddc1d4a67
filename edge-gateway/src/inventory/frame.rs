//! From a frame to who sent it. Pure and bounded; nothing in a frame is proof of anything: a MAC address, a name or a vendor
//! class says who somebody claims to be.
//!
//! Fixed headers are read with `pnet`, options and names by the modules beside this one.

use std::net::IpAddr;

use caregate_protocol::policy::Mac;
use pnet::packet::Packet;
use pnet::packet::arp::{ArpHardwareTypes, ArpPacket};
use pnet::packet::ethernet::{EtherType, EtherTypes, EthernetPacket};
use pnet::packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet::packet::ipv4::Ipv4Packet;
use pnet::packet::ipv6::Ipv6Packet;
use pnet::packet::udp::UdpPacket;
use pnet::packet::vlan::VlanPacket;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{dhcp, dns, lldp};

const ETHERTYPE_EAPOL: EtherType = EtherType(0x888e);
const IPV4_HEADER_BYTES: usize = 20;
const IPV6_HEADER_BYTES: usize = 40;
const UDP_HEADER_BYTES: usize = 8;
const PORT_DHCP_CLIENT: u16 = 68;
const PORT_DHCP_SERVER: u16 = 67;
const PORT_DHCPV6_CLIENT: u16 = 546;
const PORT_DHCPV6_SERVER: u16 = 547;
const PORT_MDNS: u16 = 5353;
/// ICMPv6 router and neighbour solicitation and advertisement (RFC 4861 §4).
const NEIGHBOUR_DISCOVERY: std::ops::RangeInclusive<u8> = 133..=136;

/// By what a device was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Means {
    /// ARP (RFC 826).
    Arp,
    /// IPv6 neighbour discovery (RFC 4861).
    Nd,
    /// DHCP (RFC 2131).
    Dhcp,
    /// DHCPv6 (RFC 8415).
    Dhcpv6,
    /// Multicast DNS (RFC 6762).
    Mdns,
    /// LLDP (IEEE 802.1AB).
    Lldp,
    /// EAPOL (IEEE 802.1X).
    Eapol,
    /// Other IP traffic, as a bound sensor's own.
    Ip,
    /// Another EtherType.
    Other,
}

impl Means {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Arp,
        Self::Nd,
        Self::Dhcp,
        Self::Dhcpv6,
        Self::Mdns,
        Self::Lldp,
        Self::Eapol,
        Self::Ip,
        Self::Other,
    ];

    /// Its lower-case name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Arp => "arp",
            Self::Nd => "nd",
            Self::Dhcp => "dhcp",
            Self::Dhcpv6 => "dhcpv6",
            Self::Mdns => "mdns",
            Self::Lldp => "lldp",
            Self::Eapol => "eapol",
            Self::Ip => "ip",
            Self::Other => "other",
        }
    }
}

/// What is wrong with a frame, or with what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Fault {
    /// No whole Ethernet header.
    #[error("no whole Ethernet header")]
    Short,
    /// More than one VLAN tag, or half of one.
    #[error("VLAN tags")]
    Vlan,
    /// The source is a group's address or zero.
    #[error("the source is no station's address")]
    Source,
    /// No ARP for IPv4 on Ethernet, or its sender is not the frame's.
    #[error("ARP")]
    Arp,
    /// No IPv4 header, or lengths that don't fit.
    #[error("IPv4 header")]
    Ipv4,
    /// No IPv6 header, or lengths that don't fit.
    #[error("IPv6 header")]
    Ipv6,
    /// No UDP header, or a length that doesn't fit.
    #[error("UDP header")]
    Udp,
    /// No message of a DHCP client, or of another than the frame's sender.
    #[error("DHCP message")]
    Dhcp,
    /// No message of a DHCPv6 client.
    #[error("DHCPv6 message")]
    Dhcpv6,
    /// No DNS message.
    #[error("mDNS message")]
    Mdns,
    /// No LLDPDU.
    #[error("LLDP")]
    Lldp,
}

impl Fault {
    /// A word for counters.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Vlan => "vlan",
            Self::Source => "source",
            Self::Arp => "arp",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Udp => "udp",
            Self::Dhcp => "dhcp",
            Self::Dhcpv6 => "dhcpv6",
            Self::Mdns => "mdns",
            Self::Lldp => "lldp",
        }
    }
}

/// Somebody was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The frame's source.
    pub mac: Mac,
    /// By what.
    pub means: Means,
    /// The address that it claims.
    pub address: Option<IpAddr>,
    /// The host name that it gives itself.
    pub name: Option<String>,
    /// What it says that it is: a DHCP vendor class or an LLDP system description.
    pub about: Option<String>,
    /// What was wrong further in; the sender was seen all the same, and nothing else was taken from the frame.
    pub fault: Option<Fault>,
}

impl Sighting {
    fn new(mac: Mac, means: Means) -> Self {
        Self { mac, means, address: None, name: None, about: None, fault: None }
    }

    fn with_client(mut self, client: Result<dhcp::Client, Fault>) -> Self {
        match client {
            Ok(client) => {
                self.address = self.address.or_else(|| client.address.map(IpAddr::V4));
                (self.name, self.about) = (client.name, client.about);
            }
            Err(fault) => self.fault = Some(fault),
        }
        self
    }

    fn failed(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }
}

/// Who sent a frame.
///
/// # Errors
/// [`Fault::Short`], [`Fault::Vlan`] or [`Fault::Source`], where that can't be told.
pub fn read(frame: &[u8]) -> Result<Sighting, Fault> {
    let ethernet = EthernetPacket::new(frame).ok_or(Fault::Short)?;
    let mac = Mac(ethernet.get_source().octets());
    if !mac.is_unicast() {
        return Err(Fault::Source);
    }
    if !is_vlan(ethernet.get_ethertype()) {
        return Ok(network(mac, ethernet.get_ethertype(), ethernet.payload()));
    }
    let tag = VlanPacket::new(ethernet.payload()).ok_or(Fault::Vlan)?;
    if is_vlan(tag.get_ethertype()) {
        return Err(Fault::Vlan);
    }
    Ok(network(mac, tag.get_ethertype(), tag.payload()))
}

fn is_vlan(ethertype: EtherType) -> bool {
    ethertype == EtherTypes::Vlan || ethertype == EtherTypes::PBridge
}

fn network(mac: Mac, ethertype: EtherType, payload: &[u8]) -> Sighting {
    match ethertype {
        EtherTypes::Arp => arp(mac, payload),
        EtherTypes::Ipv4 => ipv4(mac, payload),
        EtherTypes::Ipv6 => ipv6(mac, payload),
        EtherTypes::Lldp => {
            let seen = Sighting::new(mac, Means::Lldp);
            match lldp::neighbour(payload) {
                Ok(neighbour) => Sighting { name: neighbour.name, about: neighbour.about, ..seen },
                Err(fault) => seen.failed(fault),
            }
        }
        ETHERTYPE_EAPOL => Sighting::new(mac, Means::Eapol),
        EtherType(_) => Sighting::new(mac, Means::Other),
    }
}

fn arp(mac: Mac, payload: &[u8]) -> Sighting {
    let seen = Sighting::new(mac, Means::Arp);
    let Some(arp) = ArpPacket::new(payload) else { return seen.failed(Fault::Arp) };
    let is_ours = arp.get_hardware_type() == ArpHardwareTypes::Ethernet
        && arp.get_protocol_type() == EtherTypes::Ipv4
        && (arp.get_hw_addr_len(), arp.get_proto_addr_len()) == (6, 4);
    // Who says that another station has an address would put it beside a stranger's name.
    if !is_ours || arp.get_sender_hw_addr().octets() != mac.0 {
        return seen.failed(Fault::Arp);
    }
    Sighting { address: host_address(arp.get_sender_proto_addr().into()), ..seen }
}

/// An address that one host can have.
fn host_address(address: IpAddr) -> Option<IpAddr> {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    let never = address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast;
    (!never).then_some(address)
}

fn ipv4(mac: Mac, payload: &[u8]) -> Sighting {
    let seen = Sighting::new(mac, Means::Ip);
    let Some(packet) = Ipv4Packet::new(payload) else { return seen.failed(Fault::Ipv4) };
    let header = usize::from(packet.get_header_length()) * 4;
    let total = usize::from(packet.get_total_length());
    let body = (packet.get_version() == 4 && header >= IPV4_HEADER_BYTES)
        .then(|| payload.get(header..total))
        .flatten();
    let Some(body) = body else { return seen.failed(Fault::Ipv4) };
    let seen = Sighting { address: host_address(packet.get_source().into()), ..seen };
    // What comes in fragments is no announcement.
    if packet.get_fragment_offset() != 0 || packet.get_flags() & 1 != 0 {
        return seen;
    }
    transport(seen, packet.get_next_level_protocol(), packet.get_source().into(), body)
}

fn ipv6(mac: Mac, payload: &[u8]) -> Sighting {
    let seen = Sighting::new(mac, Means::Ip);
    let Some(packet) = Ipv6Packet::new(payload) else { return seen.failed(Fault::Ipv6) };
    let end = IPV6_HEADER_BYTES + usize::from(packet.get_payload_length());
    let body = (packet.get_version() == 6).then(|| payload.get(IPV6_HEADER_BYTES..end)).flatten();
    let Some(body) = body else { return seen.failed(Fault::Ipv6) };
    let source = IpAddr::from(packet.get_source());
    let seen = Sighting { address: host_address(source), ..seen };
    match (packet.get_next_header(), body.first()) {
        (IpNextHeaderProtocols::Icmpv6, Some(kind)) if NEIGHBOUR_DISCOVERY.contains(kind) => {
            Sighting { means: Means::Nd, ..seen }
        }
        (protocol, _) => transport(seen, protocol, source, body),
    }
}

fn transport(seen: Sighting, protocol: IpNextHeaderProtocol, source: IpAddr, body: &[u8]) -> Sighting {
    if protocol != IpNextHeaderProtocols::Udp {
        return seen;
    }
    let Some(udp) = UdpPacket::new(body) else { return seen.failed(Fault::Udp) };
    let Some(message) = body.get(UDP_HEADER_BYTES..usize::from(udp.get_length())) else {
        return seen.failed(Fault::Udp);
    };
    let mac = seen.mac;
    match (udp.get_source(), udp.get_destination()) {
        (PORT_DHCP_CLIENT, PORT_DHCP_SERVER) => {
            Sighting { means: Means::Dhcp, ..seen }.with_client(dhcp::v4(message, mac))
        }
        (PORT_DHCPV6_CLIENT, PORT_DHCPV6_SERVER) => {
            Sighting { means: Means::Dhcpv6, ..seen }.with_client(dhcp::v6(message))
        }
        (PORT_MDNS, PORT_MDNS) => {
            let seen = Sighting { means: Means::Mdns, ..seen };
            match dns::host_name(message, source) {
                Ok(name) => Sighting { name, ..seen },
                Err(fault) => seen.failed(fault),
            }
        }
        _ => seen,
    }
}
