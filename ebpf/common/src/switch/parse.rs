//! A frame's match fields, and where its headers lie: Ethernet with VLAN tags, MPLS, ARP, IPv4, IPv6 with extension headers, TCP,
//! UDP, SCTP, ICMP, neighbour discovery.
//!
//! A header that is cut off, or is not what the one before it says, leaves its fields 0; a frame is never refused. `eth_type` is
//! what is behind all VLAN tags (two are looked behind), `vlan_vid` and `vlan_pcp` the outer one's. Fragments have no transport fields.

use super::key::Key;
use super::op::layer;
use crate::frame::Frame;

/// Where layers begin, in bytes from the frame's first; what is not there is 0.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Layers {
    /// Bits of [`layer`].
    pub has: u32,
    /// IPv4 or IPv6 behind one last MPLS label, by its version; bits of [`layer`].
    pub hidden: u32,
    /// VLAN tags, two where there are more.
    pub tags: u32,
    /// The EtherType behind all VLAN tags.
    pub ether_type_at: u32,
    /// The network header; behind labels too.
    pub network_at: u32,
    /// The byte that names the transport protocol.
    pub protocol_at: u32,
    /// The transport header.
    pub transport_at: u32,
    /// Neighbour discovery's option with the source's link-layer address.
    pub sll_at: u32,
    /// The one with the target's.
    pub tll_at: u32,
    /// The transport's checksum, of first fragments too; 0 where there is none.
    pub sum_at: u32,
    /// One of [`sum`].
    pub sum: u32,
    /// MPLS labels, two where there are more.
    pub labels: u32,
}

impl Layers {
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "0")]
    const fn all(zero: u64) -> Self {
        let zero = zero as u32;
        Self {
            has: zero,
            hidden: zero,
            tags: zero,
            ether_type_at: zero,
            network_at: zero,
            protocol_at: zero,
            transport_at: zero,
            sll_at: zero,
            tll_at: zero,
            sum_at: zero,
            sum: zero,
            labels: zero,
        }
    }
}

/// What a transport's checksum is over.
pub mod sum {
    /// Its own header and payload (ICMP).
    pub const PLAIN: u32 = 1;
    /// A pseudo header too (TCP, ICMPv6).
    pub const PSEUDO: u32 = 2;
    /// The same, and 0 means none (UDP).
    pub const UDP: u32 = 3;
}

/// What was read of a frame.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Parsed {
    /// Its match fields.
    pub key: Key,
    /// Its headers.
    pub layers: Layers,
    /// The walk along IPv6's extension headers.
    pub way: Way,
}

/// How far a walk along extension headers has come. It is put down at each of them: the verifier would follow each order of them
/// otherwise.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Way {
    /// Bits of `ipv6_exthdr`.
    seen: u64,
    /// What is next.
    next: u32,
    /// Where that was said.
    next_at: u32,
    /// Where it is.
    at: u32,
    /// The last one's place in the order of RFC 8200 §4.1.
    rank: u32,
    /// Whether there is no transport header behind it.
    is_end: u32,
    is_fragment: u32,
}

/// EtherTypes.
pub mod ether_type {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// IEEE 802.1Q.
    pub const VLAN: u16 = 0x8100;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// MPLS.
    pub const MPLS: u16 = 0x8847;
    /// MPLS with an upstream label (RFC 5332).
    pub const MPLS_MULTICAST: u16 = 0x8848;
    /// IEEE 802.1ad.
    pub const SERVICE_VLAN: u16 = 0x88a8;
    /// Below it the field is a length (IEEE 802.3 §3.2.6).
    pub const MIN: u16 = 0x0600;
    /// Stands for such a frame.
    pub const NONE: u16 = 0x05ff;
}

const PROTOCOL_ICMP: u32 = 1;
const PROTOCOL_TCP: u32 = 6;
const PROTOCOL_UDP: u32 = 17;
const PROTOCOL_ICMPV6: u32 = 58;
const PROTOCOL_SCTP: u32 = 132;
/// `OFPVID_PRESENT`
const VID_PRESENT: u16 = 0x1000;
const ETHER_TYPE_AT: usize = 12;
const TAG_BYTES: usize = 4;
const IPV6_BYTES: usize = 40;
/// Extension headers that are looked behind: one of each kind that RFC 8200 §4.1 orders, destination options twice.
const EXTENSIONS_MAX: usize = 6;
/// Options of a neighbour discovery message that are looked at (RFC 4861 §4.6 has one of each; some to spare).
const OPTIONS_MAX: usize = 4;

/// As far as any header begins: the longest way is six extension headers of 2,048 bytes and four options.
const AT_MASK: usize = 0x7fff;

/// A place that the verifier knows to be bounded, which a number from a stack is not to older ones.
#[inline(always)]
fn bounded(at: usize) -> usize {
    core::hint::black_box(at) & AT_MASK
}

/// Whether it is a VLAN tag's.
#[must_use]
#[inline(always)]
pub const fn is_vlan(ether_type: u16) -> bool {
    ether_type == ether_type::VLAN || ether_type == ether_type::SERVICE_VLAN
}

/// Whether it is MPLS.
#[must_use]
#[inline(always)]
pub const fn is_mpls(ether_type: u16) -> bool {
    ether_type == ether_type::MPLS || ether_type == ether_type::MPLS_MULTICAST
}

/// Reads `frame`'s headers. What no frame says is kept: `in_port`, metadata and tunnel.
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F, parsed: &mut Parsed) {
    let (in_port, metadata, tunnel) = (parsed.key[0] >> 32, parsed.key[1], parsed.key[13]);
    // What zeroes it must not know: it would call a function for it, which BPF has not.
    let zero: u64 = core::hint::black_box(0);
    for word in &mut parsed.key {
        *word = zero;
    }
    parsed.layers = Layers::all(zero);
    parsed.key[0] = in_port << 32;
    parsed.key[1] = metadata;
    parsed.key[13] = tunnel;
    let _ = ethernet(frame, parsed);
}

#[inline(always)]
fn ethernet<F: Frame + ?Sized>(frame: &F, parsed: &mut Parsed) -> Option<()> {
    let mut ether_type = frame.u16(ETHER_TYPE_AT)?;
    let destination = u64::from(frame.u32(0)?) << 16 | u64::from(frame.u16(4)?);
    let source = u64::from(frame.u16(6)?) << 32 | u64::from(frame.u32(8)?);
    parsed.key[2] = destination << 16;
    parsed.key[3] = source << 16;
    let (mut at, mut tag, mut tags) = (ETHER_TYPE_AT, 0, 0);
    if is_vlan(ether_type)
        && let (Some(outer), Some(inner)) = (frame.u16(14), frame.u16(16))
    {
        tag = outer | VID_PRESENT;
        (at, ether_type, tags) = (at + TAG_BYTES, inner, 1);
        parsed.layers.has = u32::from(layer::VLAN);
        if is_vlan(inner)
            && let Some(innermost) = frame.u16(20)
        {
            (at, ether_type, tags) = (at + TAG_BYTES, innermost, 2);
        }
    }
    if ether_type < ether_type::MIN {
        ether_type = ether_type::NONE;
    }
    parsed.key[0] |= u64::from(ether_type) << 16 | u64::from(tag);
    parsed.layers.tags = tags;
    parsed.layers.ether_type_at = word(at);
    let at = bounded(at + 2);
    let packet = frame.rest(at);
    match ether_type {
        ether_type::IPV4 => ipv4(&packet, at, parsed),
        ether_type::IPV6 => ipv6(&packet, at, parsed),
        ether_type::ARP => arp(&packet, at, parsed),
        ether_type::MPLS | ether_type::MPLS_MULTICAST => mpls(&packet, at, parsed),
        _ => None,
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "an offset, below 32768")]
const fn word(at: usize) -> u32 {
    at as u32
}

/// Up to three labels; behind the last of them the version tells what is there.
#[inline(always)]
fn mpls<F: Frame>(packet: &F, at: usize, parsed: &mut Parsed) -> Option<()> {
    const BOTTOM: u32 = 0x100;
    let first = packet.u32(0)?;
    parsed.layers.has |= u32::from(layer::MPLS);
    parsed.key[12] = u64::from(first >> 8) << 32;
    parsed.layers.labels = 1;
    let mut labels = 1;
    if first & BOTTOM == 0 {
        labels = 2;
        let second = packet.u32(4)?;
        parsed.layers.labels = 2;
        if second & BOTTOM == 0 {
            labels = 3;
            if packet.u32(8)? & BOTTOM == 0 {
                return None;
            }
        }
    }
    parsed.layers.network_at = word(at + 4 * labels);
    // The shortest header whose TTL is written; it is there in whole.
    let first = packet.u8(4 * labels)?;
    if matches!(first, 0x45..=0x4f) && packet.u8(4 * labels + 19).is_some() {
        parsed.layers.hidden = u32::from(layer::IPV4);
    } else if first >> 4 == 6 && packet.u8(4 * labels + 39).is_some() {
        parsed.layers.hidden = u32::from(layer::IPV6);
    }
    None
}

#[inline(always)]
fn arp<F: Frame>(packet: &F, at: usize, parsed: &mut Parsed) -> Option<()> {
    packet.u8(27)?;
    let is_ipv4 = packet.u16(0)? == 1 && packet.u16(2)? == ether_type::IPV4 && packet.u16(4)? == 0x0604;
    if !is_ipv4 {
        return None;
    }
    parsed.layers.has |= u32::from(layer::ARP);
    parsed.layers.network_at = word(at);
    parsed.key[3] |= u64::from(packet.u16(6)?);
    parsed.key[5] = mac(packet, 8)? << 16;
    parsed.key[6] = u64::from(packet.u32(14)?) << 32;
    parsed.key[4] = mac(packet, 18)? << 16;
    parsed.key[8] = u64::from(packet.u32(24)?) << 32;
    None
}

#[inline(always)]
fn mac<F: Frame>(packet: &F, at: usize) -> Option<u64> {
    Some(u64::from(packet.u16(at)?) << 32 | u64::from(packet.u32(at + 2)?))
}

/// A transport protocol's number, where it begins, how many bytes the packet has for it, and whether its fields are to be matched.
struct Transport {
    protocol: u32,
    at: usize,
    bytes: usize,
    is_fragment: bool,
}

#[inline(always)]
fn ipv4<F: Frame>(packet: &F, at: usize, parsed: &mut Parsed) -> Option<()> {
    packet.u8(19)?;
    let first = packet.u8(0)?;
    let header_bytes = usize::from(first & 0x0f) * 4;
    let total_bytes = usize::from(packet.u16(2)?);
    if first >> 4 != 4 || header_bytes < 20 || total_bytes < header_bytes {
        return None;
    }
    let protocol = u32::from(packet.u8(9)?);
    parsed.layers.has |= u32::from(layer::IPV4 | layer::PROTOCOL);
    parsed.layers.network_at = word(at);
    parsed.layers.protocol_at = word(at + 9);
    parsed.key[2] |= u64::from(protocol) << 8 | u64::from(packet.u8(1)?);
    parsed.key[6] = u64::from(packet.u32(12)?) << 32;
    parsed.key[8] = u64::from(packet.u32(16)?) << 32;
    // More fragments follow, or this one isn't the first (RFC 791 §3.1).
    let fragment = packet.u16(6)?;
    if fragment & 0x1fff != 0 {
        return None;
    }
    let is_fragment = fragment & 0x2000 != 0;
    let payload = bounded(header_bytes);
    let next = Transport { protocol, at: at + payload, bytes: total_bytes - header_bytes, is_fragment };
    transport(&packet.rest(payload), &next, false, parsed)
}

/// Bits of `ipv6_exthdr` (OpenFlow 1.3.5 §7.2.3.8).
mod extension {
    pub(super) const NO_NEXT: u64 = 1;
    pub(super) const ESP: u64 = 1 << 1;
    pub(super) const AUTHENTICATION: u64 = 1 << 2;
    pub(super) const DESTINATION: u64 = 1 << 3;
    pub(super) const FRAGMENT: u64 = 1 << 4;
    pub(super) const ROUTER: u64 = 1 << 5;
    pub(super) const HOP_BY_HOP: u64 = 1 << 6;
    pub(super) const REPEATED: u64 = 1 << 7;
    pub(super) const DISORDERED: u64 = 1 << 8;
}

#[inline(always)]
fn ipv6<F: Frame>(packet: &F, at: usize, parsed: &mut Parsed) -> Option<()> {
    packet.u8(IPV6_BYTES - 1)?;
    let first = packet.u32(0)?;
    if first >> 28 != 6 {
        return None;
    }
    parsed.layers.has |= u32::from(layer::IPV6 | layer::PROTOCOL);
    parsed.layers.network_at = word(at);
    parsed.key[2] |= u64::from(first >> 20 & 0xff);
    parsed.key[6] = u64::from(packet.u32(8)?) << 32 | u64::from(packet.u32(12)?);
    parsed.key[7] = u64::from(packet.u32(16)?) << 32 | u64::from(packet.u32(20)?);
    parsed.key[8] = u64::from(packet.u32(24)?) << 32 | u64::from(packet.u32(28)?);
    parsed.key[9] = u64::from(packet.u32(32)?) << 32 | u64::from(packet.u32(36)?);
    parsed.key[12] = u64::from(first & 0x000f_ffff) << 32;
    let packet_bytes = IPV6_BYTES + usize::from(packet.u16(4)?);
    parsed.way = Way {
        next: u32::from(packet.u8(6)?),
        next_at: 6,
        at: word(IPV6_BYTES),
        seen: 0,
        rank: 0,
        is_end: 0,
        is_fragment: 0,
    };
    for _ in 0..EXTENSIONS_MAX {
        let way = core::hint::black_box(&mut parsed.way);
        if !extension(packet, way) {
            break;
        }
    }
    let way = *core::hint::black_box(&mut parsed.way);
    parsed.key[5] |= way.seen;
    parsed.key[2] |= u64::from(way.next) << 8;
    parsed.layers.protocol_at = word(at) + way.next_at;
    let payload = bounded(way.at as usize);
    // Behind more than are looked at it is not known what is.
    if way.is_end != 0 || rank(way.next, 0).is_some() || packet_bytes < payload {
        return None;
    }
    let next = Transport {
        protocol: way.next,
        at: at + payload,
        bytes: packet_bytes - payload,
        is_fragment: way.is_fragment != 0,
    };
    transport(&packet.rest(payload), &next, true, parsed)
}

/// The bit and the rank of an extension header, behind those that were seen.
#[inline(always)]
fn rank(next: u32, seen: u64) -> Option<(u64, u32)> {
    let is_routed = seen & (extension::ROUTER | extension::FRAGMENT) != 0;
    Some(match next {
        0 => (extension::HOP_BY_HOP, 1),
        60 if !is_routed => (extension::DESTINATION, 2),
        43 => (extension::ROUTER, 3),
        44 => (extension::FRAGMENT, 4),
        51 => (extension::AUTHENTICATION, 5),
        50 => (extension::ESP, 6),
        60 => (extension::DESTINATION, 7),
        59 => (extension::NO_NEXT, 8),
        _ => return None,
    })
}

/// Walks over one extension header; false where there is none.
#[inline(always)]
fn extension<F: Frame>(packet: &F, way: &mut Way) -> bool {
    let Some((bit, rank)) = rank(way.next, way.seen) else { return false };
    // Destination options are allowed twice: before routing and last.
    if way.seen & bit != 0 && (bit != extension::DESTINATION || way.rank == rank) {
        way.seen |= extension::REPEATED;
    }
    if rank < way.rank {
        way.seen |= extension::DISORDERED;
    }
    way.seen |= bit;
    way.rank = rank;
    if bit == extension::NO_NEXT || bit == extension::ESP {
        way.is_end = 1;
        return false;
    }
    let at = bounded(way.at as usize);
    let header = packet.rest(at);
    let (Some(second), Some(next)) = (header.u16(2), header.u16(0)) else {
        way.is_end = 1;
        return false;
    };
    let units = u32::from(next & 0xff);
    way.next_at = word(at);
    way.next = u32::from(next >> 8);
    way.at = word(at)
        + match bit {
            extension::AUTHENTICATION => (units + 2) * 4,
            extension::FRAGMENT => 8,
            _ => (units + 1) * 8,
        };
    if bit == extension::FRAGMENT {
        way.is_fragment = u32::from(second & 0xfff9 != 0);
        way.is_end = u32::from(second & 0xfff8 != 0);
    }
    way.is_end == 0
}

#[inline(always)]
fn transport<F: Frame>(packet: &F, next: &Transport, is_v6: bool, parsed: &mut Parsed) -> Option<()> {
    let (header_bytes, has, sum_at, kind) = match (next.protocol, is_v6) {
        (PROTOCOL_TCP, _) => (20, layer::TCP, 16, sum::PSEUDO),
        (PROTOCOL_UDP, _) => (8, layer::UDP, 6, sum::UDP),
        (PROTOCOL_SCTP, _) => (12, layer::SCTP, 0, 0),
        (PROTOCOL_ICMP, false) => (4, layer::ICMPV4, 2, sum::PLAIN),
        (PROTOCOL_ICMPV6, true) => (4, layer::ICMPV6, 2, sum::PSEUDO),
        _ => return None,
    };
    if next.bytes < header_bytes || !reaches(packet, header_bytes) {
        return None;
    }
    if kind != 0 {
        parsed.layers.sum_at = word(next.at + sum_at);
        parsed.layers.sum = kind;
    }
    parsed.layers.transport_at = word(next.at);
    if next.is_fragment {
        return None;
    }
    parsed.layers.has |= u32::from(has);
    if has == layer::ICMPV4 || has == layer::ICMPV6 {
        let kind = packet.u8(0)?;
        parsed.key[3] |= u64::from(kind);
        parsed.key[4] |= u64::from(packet.u8(1)?);
        if has == layer::ICMPV6 && (kind == 135 || kind == 136) && next.bytes >= 24 {
            return neighbour(packet, next, kind, parsed);
        }
        return None;
    }
    parsed.key[3] |= u64::from(packet.u16(0)?);
    parsed.key[4] |= u64::from(packet.u16(2)?);
    None
}

/// Whether a header of so many bytes is there: the places are written out, since a check of an unknown place helps no verifier.
#[inline(always)]
fn reaches<F: Frame>(packet: &F, bytes: usize) -> bool {
    let last = match bytes {
        20 => packet.u8(19),
        12 => packet.u8(11),
        8 => packet.u8(7),
        _ => packet.u8(3),
    };
    last.is_some()
}

/// Neighbour solicitation and advertisement (RFC 4861 §4.3, §4.4).
#[inline(always)]
fn neighbour<F: Frame>(packet: &F, next: &Transport, kind: u8, parsed: &mut Parsed) -> Option<()> {
    packet.u8(23)?;
    parsed.layers.has |= u32::from(layer::ND_TARGET);
    parsed.key[10] = u64::from(packet.u32(8)?) << 32 | u64::from(packet.u32(12)?);
    parsed.key[11] = u64::from(packet.u32(16)?) << 32 | u64::from(packet.u32(20)?);
    let wanted = if kind == 135 { 1 } else { 2 };
    let mut at = 24;
    for _ in 0..OPTIONS_MAX {
        at = bounded(at);
        let option = packet.rest(at);
        let option_head = option.u16(0)?;
        let (option_kind, units) = (option_head >> 8, usize::from(option_head & 0xff));
        if units == 0 || at + 8 * units > next.bytes {
            return None;
        }
        if option_kind == wanted && units == 1 {
            let address = mac(&option, 2)?;
            if kind == 135 {
                parsed.layers.has |= u32::from(layer::ND_SLL);
                parsed.layers.sll_at = word(next.at + at);
                parsed.key[5] |= address << 16;
            } else {
                parsed.layers.has |= u32::from(layer::ND_TLL);
                parsed.layers.tll_at = word(next.at + at);
                parsed.key[4] |= address << 16;
            }
            return None;
        }
        at += 8 * units;
    }
    None
}

#[cfg(test)]
mod tests;
