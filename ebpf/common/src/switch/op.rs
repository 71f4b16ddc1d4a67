//! Actions as the kernel has them (OpenFlow 1.3.5 §5.12): four words each.
//!
//! ```text
//! 0  code (8), base (8), offset (8), bytes (8), needs (16), effects (8), slot (8)     lowest first
//! 1  argument (32): port, group's place, queue, EtherType, TTL;  mask (32)
//! 2  the first eight bytes of a value, 3 the other eight: the value's first byte is the highest of 2
//! ```
//! Setting a field writes `bytes` bytes at `offset` behind the place that `base` names, under the mask where they are four at most
//! (its first byte is the highest). It does nothing where a layer of `needs` is not there.

/// Words of an action.
pub const OP_WORDS: usize = 4;

/// One action.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op(pub [u64; OP_WORDS]);

/// What an action does.
pub mod code {
    /// Nothing.
    pub const NOTHING: u8 = 0;
    /// `OFPAT_OUTPUT`: argument is the port, the mask's place holds `max_len`.
    pub const OUTPUT: u8 = 1;
    /// `OFPAT_GROUP`: argument is the group's place in the blob.
    pub const GROUP: u8 = 2;
    /// `OFPAT_SET_QUEUE`
    pub const SET_QUEUE: u8 = 3;
    /// `OFPAT_PUSH_VLAN`
    pub const PUSH_VLAN: u8 = 4;
    /// `OFPAT_POP_VLAN`
    pub const POP_VLAN: u8 = 5;
    /// `OFPAT_PUSH_MPLS`
    pub const PUSH_MPLS: u8 = 6;
    /// `OFPAT_POP_MPLS`
    pub const POP_MPLS: u8 = 7;
    /// `OFPAT_COPY_TTL_OUT`
    pub const COPY_TTL_OUT: u8 = 8;
    /// `OFPAT_COPY_TTL_IN`
    pub const COPY_TTL_IN: u8 = 9;
    /// `OFPAT_SET_MPLS_TTL`
    pub const SET_MPLS_TTL: u8 = 10;
    /// `OFPAT_DEC_MPLS_TTL`
    pub const DEC_MPLS_TTL: u8 = 11;
    /// `OFPAT_SET_NW_TTL`
    pub const SET_NW_TTL: u8 = 12;
    /// `OFPAT_DEC_NW_TTL`
    pub const DEC_NW_TTL: u8 = 13;
    /// `OFPAT_SET_FIELD` of bytes in the frame.
    pub const WRITE: u8 = 14;
    /// `OFPAT_SET_FIELD` of the traffic class: IPv4 and IPv6 have it at other places. The mask says which bits of it.
    pub const WRITE_CLASS: u8 = 15;
    /// `OFPAT_SET_FIELD` of `tunnel_id`: word 3 is the value.
    pub const SET_TUNNEL: u8 = 16;
}

/// Where an offset counts from.
pub mod base {
    /// The frame.
    pub const FRAME: u8 = 0;
    /// The outer VLAN tag's EtherType.
    pub const VLAN: u8 = 1;
    /// The EtherType behind all VLAN tags.
    pub const ETHER_TYPE: u8 = 2;
    /// The outer MPLS label.
    pub const MPLS: u8 = 3;
    /// The network header.
    pub const NETWORK: u8 = 4;
    /// The byte that names the transport protocol.
    pub const PROTOCOL: u8 = 5;
    /// The transport header.
    pub const TRANSPORT: u8 = 6;
    /// Neighbour discovery's option with the source's link-layer address.
    pub const ND_SLL: u8 = 7;
    /// The one with the target's.
    pub const ND_TLL: u8 = 8;
}

/// Layers that are there; bits.
pub mod layer {
    /// A VLAN tag.
    pub const VLAN: u16 = 1;
    /// An MPLS label.
    pub const MPLS: u16 = 1 << 1;
    /// ARP for IPv4 over Ethernet.
    pub const ARP: u16 = 1 << 2;
    /// IPv4.
    pub const IPV4: u16 = 1 << 3;
    /// IPv6.
    pub const IPV6: u16 = 1 << 4;
    /// The byte that names the transport protocol was reached.
    pub const PROTOCOL: u16 = 1 << 5;
    /// TCP.
    pub const TCP: u16 = 1 << 6;
    /// UDP.
    pub const UDP: u16 = 1 << 7;
    /// SCTP.
    pub const SCTP: u16 = 1 << 8;
    /// ICMP in IPv4.
    pub const ICMPV4: u16 = 1 << 9;
    /// ICMPv6.
    pub const ICMPV6: u16 = 1 << 10;
    /// Neighbour discovery's target.
    pub const ND_TARGET: u16 = 1 << 11;
    /// [`super::base::ND_SLL`]
    pub const ND_SLL: u16 = 1 << 12;
    /// [`super::base::ND_TLL`]
    pub const ND_TLL: u16 = 1 << 13;
}

/// What has to be done beside writing; bits.
pub mod effect {
    /// Mend IPv4's header checksum.
    pub const IPV4_SUM: u8 = 1;
    /// Mend the checksum of TCP, UDP or ICMPv6, whose pseudo header has the field.
    pub const PSEUDO_SUM: u8 = 1 << 1;
    /// Mend the transport's own checksum.
    pub const OWN_SUM: u8 = 1 << 2;
    /// Compute SCTP's anew, from the whole packet.
    pub const SCTP_SUM: u8 = 1 << 3;
    /// What is behind it may be another header now.
    pub const STRUCTURE: u8 = 1 << 4;
}

/// Places in an action set, in the order of §5.10; each holds one action.
pub mod slot {
    /// Copy TTL inwards.
    pub const COPY_TTL_IN: u8 = 0;
    /// Pop VLAN.
    pub const POP_VLAN: u8 = 1;
    /// Pop MPLS.
    pub const POP_MPLS: u8 = 2;
    /// Push MPLS.
    pub const PUSH_MPLS: u8 = 3;
    /// Push VLAN.
    pub const PUSH_VLAN: u8 = 4;
    /// Copy TTL outwards.
    pub const COPY_TTL_OUT: u8 = 5;
    /// Decrement MPLS TTL.
    pub const DEC_MPLS_TTL: u8 = 6;
    /// Decrement IP TTL.
    pub const DEC_NW_TTL: u8 = 7;
    /// Set MPLS TTL.
    pub const SET_MPLS_TTL: u8 = 8;
    /// Set IP TTL.
    pub const SET_NW_TTL: u8 = 9;
    /// Set field 0; the others follow by their number.
    pub const SET_FIELD: u8 = 10;
    /// Queue.
    pub const QUEUE: u8 = 50;
    /// Group.
    pub const GROUP: u8 = 51;
    /// Output; not done where there is a group.
    pub const OUTPUT: u8 = 52;
    /// How many there are.
    pub const COUNT: usize = 53;
}

/// Bytes that a set-field writes.
struct Bytes {
    base: u8,
    offset: u8,
    bytes: u8,
    /// Of the value as it is written; all ones above four bytes.
    mask: u32,
    /// How far the value is moved up in them.
    shift: u32,
    needs: u16,
    effects: u8,
}

const ALL: u32 = u32::MAX;

const fn bytes(base: u8, offset: u8, bytes: u8, needs: u16, effects: u8) -> Bytes {
    Bytes { base, offset, bytes, mask: ALL, shift: 0, needs, effects }
}

const fn bits(base: u8, offset: u8, bytes: u8, mask: u32, shift: u32, needs: u16) -> Bytes {
    Bytes { base, offset, bytes, mask, shift, needs, effects: 0 }
}

/// The bytes of the OXM field with this number.
const fn field(oxm: u8) -> Option<Bytes> {
    use self::effect::{IPV4_SUM, OWN_SUM, PSEUDO_SUM, SCTP_SUM, STRUCTURE};
    Some(match oxm {
        3 => bytes(base::FRAME, 0, 6, 0, 0),
        4 => bytes(base::FRAME, 6, 6, 0, 0),
        5 => bytes(base::ETHER_TYPE, 0, 2, 0, STRUCTURE),
        6 => bits(base::VLAN, 2, 2, 0x0fff, 0, layer::VLAN),
        7 => bits(base::VLAN, 2, 1, 0xe0, 5, layer::VLAN),
        10 => bytes(base::PROTOCOL, 0, 1, layer::PROTOCOL, IPV4_SUM | PSEUDO_SUM | STRUCTURE),
        11 => bytes(base::NETWORK, 12, 4, layer::IPV4, IPV4_SUM | PSEUDO_SUM),
        12 => bytes(base::NETWORK, 16, 4, layer::IPV4, IPV4_SUM | PSEUDO_SUM),
        13 => bytes(base::TRANSPORT, 0, 2, layer::TCP, OWN_SUM),
        14 => bytes(base::TRANSPORT, 2, 2, layer::TCP, OWN_SUM),
        15 => bytes(base::TRANSPORT, 0, 2, layer::UDP, OWN_SUM),
        16 => bytes(base::TRANSPORT, 2, 2, layer::UDP, OWN_SUM),
        17 => bytes(base::TRANSPORT, 0, 2, layer::SCTP, SCTP_SUM),
        18 => bytes(base::TRANSPORT, 2, 2, layer::SCTP, SCTP_SUM),
        19 => bytes(base::TRANSPORT, 0, 1, layer::ICMPV4, OWN_SUM),
        20 => bytes(base::TRANSPORT, 1, 1, layer::ICMPV4, OWN_SUM),
        21 => bytes(base::NETWORK, 6, 2, layer::ARP, 0),
        22 => bytes(base::NETWORK, 14, 4, layer::ARP, 0),
        23 => bytes(base::NETWORK, 24, 4, layer::ARP, 0),
        24 => bytes(base::NETWORK, 8, 6, layer::ARP, 0),
        25 => bytes(base::NETWORK, 18, 6, layer::ARP, 0),
        26 => bytes(base::NETWORK, 8, 16, layer::IPV6, PSEUDO_SUM),
        27 => bytes(base::NETWORK, 24, 16, layer::IPV6, PSEUDO_SUM),
        28 => bits(base::NETWORK, 0, 4, 0x000f_ffff, 0, layer::IPV6),
        29 => bytes(base::TRANSPORT, 0, 1, layer::ICMPV6, OWN_SUM | STRUCTURE),
        30 => bytes(base::TRANSPORT, 1, 1, layer::ICMPV6, OWN_SUM),
        31 => bytes(base::TRANSPORT, 8, 16, layer::ND_TARGET, OWN_SUM),
        32 => bytes(base::ND_SLL, 2, 6, layer::ND_SLL, OWN_SUM),
        33 => bytes(base::ND_TLL, 2, 6, layer::ND_TLL, OWN_SUM),
        34 => bits(base::MPLS, 0, 4, 0xffff_f000, 12, layer::MPLS),
        35 => bits(base::MPLS, 2, 1, 0x0e, 1, layer::MPLS),
        36 => Bytes { effects: STRUCTURE, ..bits(base::MPLS, 2, 1, 0x01, 0, layer::MPLS) },
        _ => return None,
    })
}

const CLASS_FIELDS: [(u8, u32, u32); 2] = [(8, 0xfc, 2), (9, 0x03, 0)];
const TUNNEL_ID: u8 = 38;

/// The action that sets the OXM field with this number; none for what can't be set: `in_port`, `in_phy_port`, `metadata`,
/// `pbb_isid`, `ipv6_exthdr`.
///
/// Bits of `value` that the field has not are left out: of `vlan_vid`, `OFPVID_PRESENT`.
#[must_use]
pub const fn set_field(oxm: u8, value: u128) -> Option<Op> {
    let slot = slot::SET_FIELD + oxm;
    let mut class = 0;
    while class < CLASS_FIELDS.len() {
        let (number, mask, shift) = CLASS_FIELDS[class];
        if oxm == number {
            let bytes = Bytes { effects: effect::IPV4_SUM, ..bits(base::NETWORK, 0, 1, mask, shift, 0) };
            return Some(Op::write(code::WRITE_CLASS, slot, &bytes, value));
        }
        class += 1;
    }
    if oxm == TUNNEL_ID {
        #[expect(clippy::cast_possible_truncation, reason = "64 bits wide")]
        return Some(Op([code::SET_TUNNEL as u64 | (slot as u64) << 56, 0, 0, value as u64]));
    }
    match field(oxm) {
        Some(bytes) => Some(Op::write(code::WRITE, slot, &bytes, value)),
        None => None,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "fields of words, each cut to its width")]
impl Op {
    /// Does nothing.
    pub const NOTHING: Self = Self([0; OP_WORDS]);

    const fn write(code: u8, slot: u8, bytes: &Bytes, value: u128) -> Self {
        let unused = 128 - 8 * bytes.bytes as u32;
        let value = value << bytes.shift << unused;
        let mask = if bytes.bytes < 4 { bytes.mask << (32 - 8 * bytes.bytes as u32) } else { bytes.mask };
        let value = if bytes.bytes <= 4 { value & (mask as u128) << 96 } else { value };
        let head = code as u64
            | (bytes.base as u64) << 8
            | (bytes.offset as u64) << 16
            | (bytes.bytes as u64) << 24
            | (bytes.needs as u64) << 32
            | (bytes.effects as u64) << 48
            | (slot as u64) << 56;
        Self([head, (mask as u64) << 32, (value >> 64) as u64, value as u64])
    }

    const fn plain(code: u8, slot: u8, argument: u32) -> Self {
        Self([code as u64 | (slot as u64) << 56, argument as u64, 0, 0])
    }

    /// `OFPAT_OUTPUT`
    #[must_use]
    pub const fn output(port: u32, max_len: u16) -> Self {
        let Self([head, argument, ..]) = Self::plain(code::OUTPUT, slot::OUTPUT, port);
        Self([head, argument | (max_len as u64) << 32, 0, 0])
    }

    /// `OFPAT_GROUP`: the group at this place in the blob.
    #[must_use]
    pub const fn group(place: u32) -> Self {
        Self::plain(code::GROUP, slot::GROUP, place)
    }

    /// `OFPAT_SET_QUEUE`
    #[must_use]
    pub const fn set_queue(queue: u32) -> Self {
        Self::plain(code::SET_QUEUE, slot::QUEUE, queue)
    }

    /// `OFPAT_PUSH_VLAN`
    #[must_use]
    pub const fn push_vlan(ether_type: u16) -> Self {
        Self::plain(code::PUSH_VLAN, slot::PUSH_VLAN, ether_type as u32)
    }

    /// `OFPAT_POP_VLAN`
    #[must_use]
    pub const fn pop_vlan() -> Self {
        Self::plain(code::POP_VLAN, slot::POP_VLAN, 0)
    }

    /// `OFPAT_PUSH_MPLS`
    #[must_use]
    pub const fn push_mpls(ether_type: u16) -> Self {
        Self::plain(code::PUSH_MPLS, slot::PUSH_MPLS, ether_type as u32)
    }

    /// `OFPAT_POP_MPLS`
    #[must_use]
    pub const fn pop_mpls(ether_type: u16) -> Self {
        Self::plain(code::POP_MPLS, slot::POP_MPLS, ether_type as u32)
    }

    /// `OFPAT_COPY_TTL_OUT`
    #[must_use]
    pub const fn copy_ttl_out() -> Self {
        Self::plain(code::COPY_TTL_OUT, slot::COPY_TTL_OUT, 0)
    }

    /// `OFPAT_COPY_TTL_IN`
    #[must_use]
    pub const fn copy_ttl_in() -> Self {
        Self::plain(code::COPY_TTL_IN, slot::COPY_TTL_IN, 0)
    }

    /// `OFPAT_SET_MPLS_TTL`
    #[must_use]
    pub const fn set_mpls_ttl(ttl: u8) -> Self {
        Self::plain(code::SET_MPLS_TTL, slot::SET_MPLS_TTL, ttl as u32)
    }

    /// `OFPAT_DEC_MPLS_TTL`
    #[must_use]
    pub const fn dec_mpls_ttl() -> Self {
        Self::plain(code::DEC_MPLS_TTL, slot::DEC_MPLS_TTL, 0)
    }

    /// `OFPAT_SET_NW_TTL`
    #[must_use]
    pub const fn set_nw_ttl(ttl: u8) -> Self {
        Self::plain(code::SET_NW_TTL, slot::SET_NW_TTL, ttl as u32)
    }

    /// `OFPAT_DEC_NW_TTL`
    #[must_use]
    pub const fn dec_nw_ttl() -> Self {
        Self::plain(code::DEC_NW_TTL, slot::DEC_NW_TTL, 0)
    }

    /// One of [`code`].
    #[must_use]
    #[inline(always)]
    pub const fn code(&self) -> u8 {
        self.0[0] as u8
    }

    /// One of [`base`].
    #[must_use]
    #[inline(always)]
    pub const fn base(&self) -> u8 {
        (self.0[0] >> 8) as u8
    }

    /// Bytes behind the base.
    #[must_use]
    #[inline(always)]
    pub const fn offset(&self) -> u8 {
        (self.0[0] >> 16) as u8
    }

    /// How many are written.
    #[must_use]
    #[inline(always)]
    pub const fn bytes(&self) -> u8 {
        (self.0[0] >> 24) as u8
    }

    /// Bits of [`layer`], all of which must be there.
    #[must_use]
    #[inline(always)]
    pub const fn needs(&self) -> u16 {
        (self.0[0] >> 32) as u16
    }

    /// Bits of [`effect`].
    #[must_use]
    #[inline(always)]
    pub const fn effects(&self) -> u8 {
        (self.0[0] >> 48) as u8
    }

    /// Its place in an action set, one of [`slot`].
    #[must_use]
    #[inline(always)]
    pub const fn slot(&self) -> u8 {
        (self.0[0] >> 56) as u8
    }

    /// Port, group's place, queue, EtherType or TTL.
    #[must_use]
    #[inline(always)]
    pub const fn argument(&self) -> u32 {
        self.0[1] as u32
    }

    /// Of the first four bytes.
    #[must_use]
    #[inline(always)]
    pub const fn mask(&self) -> u32 {
        (self.0[1] >> 32) as u32
    }

    /// Bytes for the controller, of an output.
    #[must_use]
    #[inline(always)]
    pub const fn max_len(&self) -> u16 {
        (self.0[1] >> 32) as u16
    }
}

/// Reserved ports (§7.2.1).
pub mod port {
    /// `OFPP_MAX`
    pub const MAX: u32 = 0xffff_ff00;
    /// `OFPP_IN_PORT`
    pub const IN_PORT: u32 = 0xffff_fff8;
    /// `OFPP_TABLE`
    pub const TABLE: u32 = 0xffff_fff9;
    /// `OFPP_NORMAL`
    pub const NORMAL: u32 = 0xffff_fffa;
    /// `OFPP_FLOOD`
    pub const FLOOD: u32 = 0xffff_fffb;
    /// `OFPP_ALL`
    pub const ALL: u32 = 0xffff_fffc;
    /// `OFPP_CONTROLLER`
    pub const CONTROLLER: u32 = 0xffff_fffd;
    /// `OFPP_LOCAL`
    pub const LOCAL: u32 = 0xffff_fffe;
    /// `OFPP_ANY`
    pub const ANY: u32 = 0xffff_ffff;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_left_aligned_under_its_mask() {
        let vid = set_field(6, 0x1000 | 203).unwrap();
        assert_eq!(vid.0, [0x1000_0001_0202_010e, 0x0fff_0000 << 32, 203 << 48, 0]);
        let pcp = set_field(7, 5).unwrap();
        assert_eq!((pcp.mask(), pcp.0[2] >> 56, pcp.bytes()), (0xe000_0000, 0xa0, 1));
        let v6 = set_field(26, 0x2001_0db8_0000_0000_0000_0000_0000_00ff).unwrap();
        assert_eq!(v6.0[2..], [0x2001_0db8_0000_0000, 0xff]);
        let mac = set_field(4, 0x0102_0304_0506).unwrap();
        assert_eq!((mac.0[2], mac.0[3], mac.mask()), (0x0102_0304_0506_0000, 0, u32::MAX));
        let label = set_field(34, 0xfffff).unwrap();
        assert_eq!(label.0[2], 0xffff_f000 << 32);
    }

    #[test]
    fn fields_have_their_own_places_and_some_cant_be_set() {
        for oxm in 0..=39 {
            let op = set_field(oxm, u128::MAX);
            assert_eq!(op.is_none(), matches!(oxm, 0 | 1 | 2 | 37 | 39), "{oxm}");
            assert!(op.is_none_or(|op| op.slot() == 10 + oxm && op.slot() < slot::QUEUE), "{oxm}");
        }
    }

    #[test]
    fn plain_actions_say_what_they_were_given() {
        let output = Op::output(0xffff_fffd, 0xffe5);
        assert_eq!((output.code(), output.argument(), output.max_len()), (code::OUTPUT, 0xffff_fffd, 0xffe5));
        assert_eq!(Op::push_vlan(0x88a8).argument(), 0x88a8);
        assert_eq!(Op::group(255).slot(), 51);
        assert_eq!(Op::NOTHING.code(), code::NOTHING);
    }
}
