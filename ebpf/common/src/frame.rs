//! Says what a frame is, and what stands in the fields that policy and rules look at: Ethernet II with one VLAN tag, ARP, IPv4,
//! IPv6, TCP, UDP.
//!
//! Headers are checked as far as they decide where the next one is and whether a receiver would take it; checksums and
//! payloads are not looked at.

use crate::Kind;

/// Bytes of a frame from one of its headers on.
///
/// In the kernel every read needs its own bounds check before it; that check is the `Option`. A header that does not begin at
/// a fixed place is read through [`rest`](Self::rest), so that checks and reads are of one pointer, as the verifier wants them.
pub trait Frame {
    /// What [`rest`](Self::rest) gives.
    type Rest<'a>: Frame
    where
        Self: 'a;

    /// The bytes from `at` on, of which there are as many.
    fn rest(&self, at: usize) -> Self::Rest<'_>;

    /// How many bytes there are.
    fn len(&self) -> usize;

    /// The byte at `at`, or none beyond the end.
    fn u8(&self, at: usize) -> Option<u8>;

    /// The two bytes at `at` in network order, or none where they don't fit.
    fn u16(&self, at: usize) -> Option<u16>;

    /// The four bytes at `at` in network order, or none where they don't fit.
    fn u32(&self, at: usize) -> Option<u32>;

    /// True where there is no byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Frame for [u8] {
    type Rest<'a> = &'a [u8];

    fn rest(&self, at: usize) -> &[u8] {
        self.get(at..).unwrap_or_default()
    }

    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn u8(&self, at: usize) -> Option<u8> {
        self.get(at).copied()
    }

    fn u16(&self, at: usize) -> Option<u16> {
        self.get(at..at.checked_add(2)?)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
    }

    fn u32(&self, at: usize) -> Option<u32> {
        self.get(at..at.checked_add(4)?)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }
}

impl Frame for &[u8] {
    type Rest<'a>
        = &'a [u8]
    where
        Self: 'a;

    fn rest(&self, at: usize) -> &[u8] {
        (**self).rest(at)
    }

    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn u8(&self, at: usize) -> Option<u8> {
        (**self).u8(at)
    }

    fn u16(&self, at: usize) -> Option<u16> {
        (**self).u16(at)
    }

    fn u32(&self, at: usize) -> Option<u32> {
        (**self).u32(at)
    }
}

const ETHERNET_BYTES: usize = 14;
const ETHERTYPE_AT: usize = 12;
const VLAN_BYTES: usize = 4;
const ARP_BYTES: usize = 28;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const TCP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_EAPOL: u16 = 0x888e;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
const ETHERTYPE_LLDP: u16 = 0x88cc;
/// Below it the field is a length (IEEE 802.3 §3.2.6).
const ETHERTYPE_MIN: u16 = 0x0600;
/// `OFPVID_PRESENT` (OpenFlow 1.3.5 §7.2.3.7).
const VID_PRESENT: u16 = 0x1000;

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMPV6: u8 = 58;

/// A network address: IPv6's 16 bytes in network order, or IPv4's four in front of zeroes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Address {
    /// The first eight bytes.
    pub high: u64,
    /// The last eight.
    pub low: u64,
}

impl Address {
    /// Of IPv4.
    #[must_use]
    #[inline(always)]
    pub const fn v4(address: u32) -> Self {
        Self { high: (address as u64) << 32, low: 0 }
    }
}

/// What stands in a frame's headers; zero where there is no such field, or where the frame is malformed before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers {
    /// What it is.
    pub kind: Kind,
    /// Whom it is for: 48 bits.
    pub destination: u64,
    /// Whom it says it is from: 48 bits.
    pub source: u64,
    /// The type behind the tag.
    pub ether_type: u16,
    /// With `OFPVID_PRESENT`; zero without tag.
    pub vlan_vid: u16,
    /// Where the network header begins.
    pub network_at: usize,
    /// IPv4's protocol; IPv6's next header, be it an extension.
    pub protocol: u8,
    /// Six bits.
    pub dscp: u8,
    /// Of ICMPv6.
    pub icmp_type: u8,
    /// Of IPv4 or IPv6.
    pub source_address: Address,
    /// Of IPv4 or IPv6.
    pub destination_address: Address,
    /// Of TCP or UDP.
    pub source_port: u16,
    /// Of TCP or UDP.
    pub destination_port: u16,
}

impl Headers {
    const NONE: Self = Self {
        kind: Kind::ShortEthernet,
        destination: 0,
        source: 0,
        ether_type: 0,
        vlan_vid: 0,
        network_at: 0,
        protocol: 0,
        dscp: 0,
        icmp_type: 0,
        source_address: Address { high: 0, low: 0 },
        destination_address: Address { high: 0, low: 0 },
        source_port: 0,
        destination_port: 0,
    };

    /// Whether it is what a device says before anybody knows it: ARP, EAPOL, LLDP; neighbour discovery, without what only a
    /// router says; DHCP and DHCPv6 from a client; mDNS.
    #[must_use]
    #[inline(always)]
    pub fn is_discovery(&self) -> bool {
        let kind = self.kind;
        let is_mdns = self.destination_port == 5353 && matches!(kind, Kind::Ipv4Udp | Kind::Ipv6Udp);
        is_mdns || matches!(kind, Kind::Eapol | Kind::Lldp) || self.is_link_upkeep()
    }

    /// Whether the gateway's own link would break without it: address resolution, and DHCP as a client.
    #[must_use]
    #[inline(always)]
    pub fn is_link_upkeep(&self) -> bool {
        matches!(self.kind, Kind::Arp)
            || matches!(self.kind, Kind::Ipv6Icmp) && self.is_neighbour_discovery()
            || matches!(self.kind, Kind::Ipv4Udp) && self.is_from_client(68, 67)
            || matches!(self.kind, Kind::Ipv6Udp) && self.is_from_client(546, 547)
    }

    /// Router solicitation, neighbour solicitation, neighbour advertisement (RFC 4861 §4).
    #[inline(always)]
    fn is_neighbour_discovery(&self) -> bool {
        matches!(self.icmp_type, 133 | 135 | 136)
    }

    #[inline(always)]
    fn is_from_client(&self, client: u16, server: u16) -> bool {
        self.source_port == client && self.destination_port == server
    }
}

/// Reads `frame`'s headers.
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F) -> Headers {
    let mut headers = Headers::NONE;
    headers.kind = ethernet(frame, &mut headers).unwrap_or(Kind::ShortEthernet);
    headers
}

/// What `frame` is.
pub fn classify<F: Frame + ?Sized>(frame: &F) -> Kind {
    parse(frame).kind
}

#[inline(always)]
fn ethernet<F: Frame + ?Sized>(frame: &F, headers: &mut Headers) -> Option<Kind> {
    let ether_type = frame.u16(ETHERTYPE_AT)?;
    headers.destination = u64::from(frame.u32(0)?) << 16 | u64::from(frame.u16(4)?);
    headers.source = u64::from(frame.u16(6)?) << 32 | u64::from(frame.u32(8)?);
    let (mut ether_type, mut at) = (ether_type, ETHERNET_BYTES);
    if is_vlan(ether_type) {
        let Some(inner) = frame.u16(ETHERTYPE_AT + VLAN_BYTES) else { return Some(Kind::ShortVlan) };
        headers.vlan_vid = frame.u16(ETHERNET_BYTES)? & 0x0fff | VID_PRESENT;
        if is_vlan(inner) {
            return Some(Kind::ManyVlans);
        }
        (ether_type, at) = (inner, ETHERNET_BYTES + VLAN_BYTES);
    }
    headers.ether_type = ether_type;
    headers.network_at = at;
    Some(network(&frame.rest(at), headers))
}

#[inline(always)]
fn is_vlan(ether_type: u16) -> bool {
    ether_type == ETHERTYPE_VLAN || ether_type == ETHERTYPE_SERVICE_VLAN
}

#[inline(always)]
fn network<F: Frame>(packet: &F, headers: &mut Headers) -> Kind {
    match headers.ether_type {
        ETHERTYPE_IPV4 => ipv4(packet, headers).unwrap_or(Kind::ShortIpv4),
        ETHERTYPE_IPV6 => ipv6(packet, headers).unwrap_or(Kind::ShortIpv6),
        ETHERTYPE_ARP => arp(packet).unwrap_or(Kind::ShortArp),
        ETHERTYPE_EAPOL => Kind::Eapol,
        ETHERTYPE_LLDP => Kind::Lldp,
        0..ETHERTYPE_MIN => Kind::Llc,
        _ => Kind::OtherEtherType,
    }
}

#[inline(always)]
fn arp<F: Frame>(packet: &F) -> Option<Kind> {
    packet.u8(ARP_BYTES - 1)?;
    let ethernet_and_ipv4 =
        packet.u16(0)? == 1 && packet.u16(2)? == ETHERTYPE_IPV4 && packet.u16(4)? == 0x0604;
    Some(if ethernet_and_ipv4 { Kind::Arp } else { Kind::BadArp })
}

#[inline(always)]
fn ipv4<F: Frame>(packet: &F, headers: &mut Headers) -> Option<Kind> {
    packet.u8(IPV4_BYTES - 1)?;
    let first = packet.u8(0)?;
    if first >> 4 != 4 {
        return Some(Kind::BadIpv4Version);
    }
    let header_bytes = usize::from(first & 0x0f) * 4;
    if header_bytes < IPV4_BYTES {
        return Some(Kind::BadIpv4HeaderLength);
    }
    if packet.len() < header_bytes {
        return None;
    }
    let total_bytes = usize::from(packet.u16(2)?);
    if total_bytes < header_bytes || packet.len() < total_bytes {
        return Some(Kind::BadIpv4TotalLength);
    }
    headers.dscp = packet.u8(1)? >> 2;
    headers.protocol = packet.u8(9)?;
    headers.source_address = Address::v4(packet.u32(12)?);
    headers.destination_address = Address::v4(packet.u32(16)?);
    // More fragments follow, or this one isn't the first (RFC 791 §3.1); the bit before them is reserved.
    if packet.u16(6)? & 0x3fff != 0 {
        return Some(Kind::Ipv4Fragment);
    }
    let (payload, bytes) = (packet.rest(header_bytes), total_bytes - header_bytes);
    Some(match headers.protocol {
        PROTOCOL_TCP => tcp(&payload, headers, bytes).unwrap_or(Kind::Ipv4Tcp),
        PROTOCOL_UDP => udp(&payload, headers, bytes).unwrap_or(Kind::Ipv4Udp),
        PROTOCOL_ICMP => Kind::Ipv4Icmp,
        _ => Kind::Ipv4Other,
    })
}

#[inline(always)]
fn ipv6<F: Frame>(packet: &F, headers: &mut Headers) -> Option<Kind> {
    packet.u8(IPV6_BYTES - 1)?;
    let first = packet.u16(0)?;
    if first >> 12 != 6 {
        return Some(Kind::BadIpv6Version);
    }
    let bytes = usize::from(packet.u16(4)?);
    if packet.len() < IPV6_BYTES + bytes {
        return Some(Kind::BadIpv6PayloadLength);
    }
    // Six of the traffic class' eight bits, which stand behind four of the version.
    headers.dscp = ((first >> 6) & 0x3f).to_be_bytes()[1];
    headers.protocol = packet.u8(6)?;
    headers.source_address = address6(packet, 8)?;
    headers.destination_address = address6(packet, 24)?;
    let payload = packet.rest(IPV6_BYTES);
    Some(match headers.protocol {
        PROTOCOL_TCP => tcp(&payload, headers, bytes).unwrap_or(Kind::Ipv6Tcp),
        PROTOCOL_UDP => udp(&payload, headers, bytes).unwrap_or(Kind::Ipv6Udp),
        PROTOCOL_ICMPV6 => {
            if bytes > 0 {
                headers.icmp_type = payload.u8(0)?;
            }
            Kind::Ipv6Icmp
        }
        // Hop-by-hop, routing, fragment, ESP, authentication, destination, mobility, HIP, Shim6 (IANA's registry of RFC 7045).
        0 | 43 | 44 | 50 | 51 | 60 | 135 | 139 | 140 => Kind::Ipv6Extension,
        _ => Kind::Ipv6Other,
    })
}

#[inline(always)]
fn address6<F: Frame>(packet: &F, at: usize) -> Option<Address> {
    let high = u64::from(packet.u32(at)?) << 32 | u64::from(packet.u32(at + 4)?);
    let low = u64::from(packet.u32(at + 8)?) << 32 | u64::from(packet.u32(at + 12)?);
    Some(Address { high, low })
}

/// What is wrong with TCP, if anything. IP says that there are `bytes` of it.
#[inline(always)]
fn tcp<F: Frame>(segment: &F, headers: &mut Headers, bytes: usize) -> Option<Kind> {
    if bytes < TCP_BYTES {
        return Some(Kind::ShortTcp);
    }
    // IP's length was checked against the frame's; the verifier wants to see it at each read.
    let Some(offset) = segment.u8(12) else { return Some(Kind::ShortTcp) };
    let header_bytes = usize::from(offset >> 4) * 4;
    if header_bytes < TCP_BYTES || bytes < header_bytes {
        return Some(Kind::BadTcpOffset);
    }
    ports(segment, headers, Kind::ShortTcp)
}

/// What is wrong with UDP, if anything. IP says that there are `bytes` of it.
#[inline(always)]
fn udp<F: Frame>(datagram: &F, headers: &mut Headers, bytes: usize) -> Option<Kind> {
    if bytes < UDP_BYTES {
        return Some(Kind::ShortUdp);
    }
    let Some(length) = datagram.u16(4) else { return Some(Kind::ShortUdp) };
    let length = usize::from(length);
    if length < UDP_BYTES || bytes < length {
        return Some(Kind::BadUdpLength);
    }
    ports(datagram, headers, Kind::ShortUdp)
}

#[inline(always)]
fn ports<F: Frame>(payload: &F, headers: &mut Headers, short: Kind) -> Option<Kind> {
    let Some(source) = payload.u16(0) else { return Some(short) };
    let Some(destination) = payload.u16(2) else { return Some(short) };
    headers.source_port = source;
    headers.destination_port = destination;
    None
}

#[cfg(test)]
mod tests;
