//! Says what a frame is: Ethernet II with up to two VLAN tags, ARP, IPv4, IPv6, TCP, UDP.
//!
//! Headers are checked as far as they decide where the next one is and whether a receiver would take it; checksums and
//! payloads are not looked at.

use crate::Kind;

/// Bytes of a frame from its Ethernet header on.
///
/// In the kernel every read needs its own bounds check before it; that check is the `Option`.
pub trait Frame {
    /// How many bytes there are.
    fn len(&self) -> usize;

    /// The byte at `at`, or none beyond the end.
    fn u8(&self, at: usize) -> Option<u8>;

    /// The two bytes at `at` in network order, or none where they don't fit.
    fn u16(&self, at: usize) -> Option<u16>;

    /// True where there is no byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Frame for [u8] {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn u8(&self, at: usize) -> Option<u8> {
        self.get(at).copied()
    }

    fn u16(&self, at: usize) -> Option<u16> {
        Some(u16::from_be_bytes([*self.get(at)?, *self.get(at.checked_add(1)?)?]))
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

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMPV6: u8 = 58;

/// What `frame` is.
#[inline(always)]
pub fn classify<F: Frame + ?Sized>(frame: &F) -> Kind {
    let Some(ethertype) = frame.u16(ETHERTYPE_AT) else { return Kind::ShortEthernet };
    if !is_vlan(ethertype) {
        return network(frame, ethertype, ETHERNET_BYTES);
    }
    let Some(ethertype) = frame.u16(ETHERTYPE_AT + VLAN_BYTES) else { return Kind::ShortVlan };
    if !is_vlan(ethertype) {
        return network(frame, ethertype, ETHERNET_BYTES + VLAN_BYTES);
    }
    let Some(ethertype) = frame.u16(ETHERTYPE_AT + 2 * VLAN_BYTES) else { return Kind::ShortVlan };
    if is_vlan(ethertype) {
        return Kind::ManyVlans;
    }
    network(frame, ethertype, ETHERNET_BYTES + 2 * VLAN_BYTES)
}

#[inline(always)]
fn is_vlan(ethertype: u16) -> bool {
    ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_SERVICE_VLAN
}

#[inline(always)]
fn network<F: Frame + ?Sized>(frame: &F, ethertype: u16, at: usize) -> Kind {
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, at).unwrap_or(Kind::ShortIpv4),
        ETHERTYPE_IPV6 => ipv6(frame, at).unwrap_or(Kind::ShortIpv6),
        ETHERTYPE_ARP => arp(frame, at).unwrap_or(Kind::ShortArp),
        ETHERTYPE_EAPOL => Kind::Eapol,
        ETHERTYPE_LLDP => Kind::Lldp,
        0..ETHERTYPE_MIN => Kind::Llc,
        _ => Kind::OtherEtherType,
    }
}

#[inline(always)]
fn arp<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Kind> {
    frame.u8(at + ARP_BYTES - 1)?;
    let ethernet_and_ipv4 =
        frame.u16(at)? == 1 && frame.u16(at + 2)? == ETHERTYPE_IPV4 && frame.u16(at + 4)? == 0x0604;
    Some(if ethernet_and_ipv4 { Kind::Arp } else { Kind::BadArp })
}

#[inline(always)]
fn ipv4<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Kind> {
    frame.u8(at + IPV4_BYTES - 1)?;
    let first = frame.u8(at)?;
    if first >> 4 != 4 {
        return Some(Kind::BadIpv4Version);
    }
    let header_bytes = usize::from(first & 0x0f) * 4;
    if header_bytes < IPV4_BYTES {
        return Some(Kind::BadIpv4HeaderLength);
    }
    if frame.len() < at + header_bytes {
        return None;
    }
    let total_bytes = usize::from(frame.u16(at + 2)?);
    if total_bytes < header_bytes || frame.len() < at + total_bytes {
        return Some(Kind::BadIpv4TotalLength);
    }
    // More fragments follow, or this one isn't the first (RFC 791 §3.1); the bit before them is reserved.
    if frame.u16(at + 6)? & 0x3fff != 0 {
        return Some(Kind::Ipv4Fragment);
    }
    let payload = Payload { at: at + header_bytes, bytes: total_bytes - header_bytes };
    Some(match frame.u8(at + 9)? {
        PROTOCOL_TCP => tcp(frame, &payload).unwrap_or(Kind::Ipv4Tcp),
        PROTOCOL_UDP => udp(frame, &payload).unwrap_or(Kind::Ipv4Udp),
        PROTOCOL_ICMP => Kind::Ipv4Icmp,
        _ => Kind::Ipv4Other,
    })
}

#[inline(always)]
fn ipv6<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Kind> {
    frame.u8(at + IPV6_BYTES - 1)?;
    if frame.u8(at)? >> 4 != 6 {
        return Some(Kind::BadIpv6Version);
    }
    let payload = Payload { at: at + IPV6_BYTES, bytes: usize::from(frame.u16(at + 4)?) };
    if frame.len() < payload.at + payload.bytes {
        return Some(Kind::BadIpv6PayloadLength);
    }
    Some(match frame.u8(at + 6)? {
        PROTOCOL_TCP => tcp(frame, &payload).unwrap_or(Kind::Ipv6Tcp),
        PROTOCOL_UDP => udp(frame, &payload).unwrap_or(Kind::Ipv6Udp),
        PROTOCOL_ICMPV6 => Kind::Ipv6Icmp,
        // Hop-by-hop, routing, fragment, ESP, authentication, destination, mobility, HIP, Shim6 (IANA's registry of RFC 7045).
        0 | 43 | 44 | 50 | 51 | 60 | 135 | 139 | 140 => Kind::Ipv6Extension,
        _ => Kind::Ipv6Other,
    })
}

/// Where the transport header begins, and how many bytes IP says there are from it on.
struct Payload {
    at: usize,
    bytes: usize,
}

/// What is wrong with TCP, if anything.
#[inline(always)]
fn tcp<F: Frame + ?Sized>(frame: &F, payload: &Payload) -> Option<Kind> {
    if payload.bytes < TCP_BYTES {
        return Some(Kind::ShortTcp);
    }
    // IP's length was checked against the frame's; the verifier wants to see it at each read.
    let Some(offset) = frame.u8(payload.at + 12) else { return Some(Kind::ShortTcp) };
    let header_bytes = usize::from(offset >> 4) * 4;
    (header_bytes < TCP_BYTES || payload.bytes < header_bytes).then_some(Kind::BadTcpOffset)
}

/// What is wrong with UDP, if anything.
#[inline(always)]
fn udp<F: Frame + ?Sized>(frame: &F, payload: &Payload) -> Option<Kind> {
    if payload.bytes < UDP_BYTES {
        return Some(Kind::ShortUdp);
    }
    let Some(length) = frame.u16(payload.at + 4) else { return Some(Kind::ShortUdp) };
    let length = usize::from(length);
    (length < UDP_BYTES || payload.bytes < length).then_some(Kind::BadUdpLength)
}

#[cfg(test)]
mod tests;
