//! Set-field: bytes at a layer's offset, the traffic class, and checksums mended by what changes (RFC 1624).

use super::super::op::{Op, base, effect, layer};
use super::super::parse::sum;
use super::{ADDRESS_BYTES, Edited, Headers};

/// The sum of a word's four 16-bit words.
#[inline(always)]
const fn parts(word: u64) -> u64 {
    (word >> 48) + (word >> 32 & 0xffff) + (word >> 16 & 0xffff) + (word & 0xffff)
}

/// A ones' complement sum of 16 bits (RFC 1071 §2), and 0 for 0 alone.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "sixteen bits are left")]
const fn fold(sum: u64) -> u32 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u32
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "one byte of a word")]
const fn byte(word: u64) -> u8 {
    word as u8
}

impl Headers {
    #[inline(always)]
    fn base(&self, op: &Op) -> u32 {
        match op.base() {
            base::VLAN => ADDRESS_BYTES,
            base::ETHER_TYPE => self.layers.ether_type_at,
            base::MPLS => self.layers.ether_type_at + 2,
            base::NETWORK => self.layers.network_at,
            base::PROTOCOL => self.layers.protocol_at,
            base::TRANSPORT => self.layers.transport_at,
            base::ND_SLL => self.layers.sll_at,
            base::ND_TLL => self.layers.tll_at,
            _ => 0,
        }
    }

    #[inline(always)]
    pub(super) fn write(&mut self, op: &Op) -> Edited {
        let needs = u32::from(op.needs());
        if self.layers.has & needs != needs {
            return Edited::Done;
        }
        let at = self.base(op) + u32::from(op.offset());
        let bytes = u32::from(op.bytes());
        if at + bytes > self.len {
            return Edited::Beyond;
        }
        let (high_mask, low_mask) = match bytes {
            0..=4 => (u64::from(op.mask()) << 32, 0),
            5..=6 => (!0xffff, 0),
            7..=8 => (!0, 0),
            _ => (!0, !0),
        };
        let (old_high, old_low) =
            (u64::from_be_bytes(self.chunk(at)), u64::from_be_bytes(self.chunk(at + 8)));
        let (high, low) = (old_high & !high_mask | op.0[2], old_low & !low_mask | op.0[3]);
        self.put_chunk(at, high.to_be_bytes());
        self.put_chunk(at + 8, low.to_be_bytes());
        self.changed(at + bytes);
        let effects = op.effects();
        if effects & effect::STRUCTURE != 0 {
            self.is_stale = 1;
        }
        if high == old_high && low == old_low {
            return Edited::Done;
        }
        let difference = fold(parts(high) + parts(low) + parts(!old_high) + parts(!old_low));
        // Headers with a checksum begin at even places; at an odd one the sum's bytes are the other way round (RFC 1071 §2). In a
        // pseudo header the protocol is at an odd place, wherever it is in the packet.
        let is_odd = at & 1 != 0 || op.base() == base::PROTOCOL;
        self.mend(effects, if is_odd { (difference << 8 | difference >> 8) & 0xffff } else { difference })
    }

    /// Mends the checksums that `effects` names.
    #[inline(always)]
    fn mend(&mut self, effects: u8, difference: u32) -> Edited {
        if effects & effect::IPV4_SUM != 0 && self.has(layer::IPV4) {
            self.mend_at(self.layers.network_at + 10, difference, false);
        }
        let is_pseudo = effects & effect::PSEUDO_SUM != 0 && self.layers.sum >= sum::PSEUDO;
        let is_own = effects & effect::OWN_SUM != 0 && self.layers.sum != 0;
        if is_pseudo || is_own {
            if self.layers.sum_at + 2 > self.len {
                return Edited::Beyond;
            }
            self.mend_at(self.layers.sum_at, difference, self.layers.sum == sum::UDP);
        }
        if effects & effect::SCTP_SUM != 0 { Edited::Beyond } else { Edited::Done }
    }

    #[inline(always)]
    pub(super) fn mend_at(&mut self, at: u32, difference: u32, is_udp: bool) {
        let old = self.u16_at(at);
        if is_udp && old == 0 {
            return;
        }
        let mut total = (old ^ 0xffff) + difference;
        // Twenty bits at most become sixteen.
        total = (total & 0xffff) + (total >> 16);
        total = (total & 0xffff) + (total >> 16);
        let new = total ^ 0xffff;
        self.put_u16(at, if is_udp && new == 0 { 0xffff } else { new & 0xffff });
    }

    /// Writes bits of the traffic class.
    #[inline(always)]
    pub(super) fn write_class(&mut self, value: u64, mask: u64) -> Edited {
        let at = self.layers.network_at;
        let (value, mask) = (u32::from(byte(value & mask)), u32::from(byte(mask)));
        if self.has(layer::IPV4) {
            if at + 20 > self.len {
                return Edited::Beyond;
            }
            let old = self.u16_at(at);
            let new = old & !mask | value;
            self.put_u16(at, new);
            if old != new {
                self.mend_at(at + 10, 0xffff + new - old, false);
            }
        } else if self.has(layer::IPV6) {
            if at + 2 > self.len {
                return Edited::Beyond;
            }
            let old = self.u16_at(at);
            self.put_u16(at, old & !(mask << 4) | value << 4);
        }
        Edited::Done
    }

    /// Adds to the drop precedence of a frame of an assured forwarding class (RFC 2597, RFC 3260): `OFPMBT_DSCP_REMARK`.
    #[inline(always)]
    pub fn remark(&mut self, steps: u8) -> Edited {
        if self.is_stale != 0 {
            return Edited::Stale;
        }
        let at = self.layers.network_at;
        let class = if self.has(layer::IPV4) {
            self.u16_at(at) & 0xff
        } else if self.has(layer::IPV6) {
            self.u16_at(at) >> 4 & 0xff
        } else {
            return Edited::Done;
        };
        let dscp = class >> 2;
        let (forwarding, precedence) = (dscp >> 3, dscp >> 1 & 3);
        if forwarding == 0 || forwarding > 4 || precedence == 0 || dscp & 1 != 0 {
            return Edited::Done;
        }
        let sum = precedence + u32::from(steps);
        let precedence = if sum > 3 { 3 } else { sum };
        self.write_class(u64::from(forwarding << 5 | precedence << 3), 0xfc)
    }
}
