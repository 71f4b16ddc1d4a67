//! Actions on a copy of a frame's first bytes (OpenFlow 1.3.5 §5.12), with room in front for tags that are pushed.
//!
//! Plain Rust over an array. Places are masked to the array's size, which a verifier follows; that they lie within the headers is
//! checked before. Checksums are mended by what changes (RFC 1624). A new MPLS label stands behind VLAN tags, where
//! receivers look for it.

use super::op::{Op, base, code, effect, layer};
use super::parse::{Layers, sum};
use crate::frame::Frame;

/// Bytes of the buffer that can be addressed.
pub const BUFFER_BYTES: usize = 256;
/// Bytes behind them, so that a whole word can be read and written at any place.
const SPARE_BYTES: usize = 24;
/// Bytes in front of the frame at first: eight tags.
pub const ROOM_BYTES: usize = 32;
/// Bytes of a frame that are copied: tags, IPv6 with an extension header, and what neighbour discovery says.
pub const COPY_BYTES: usize = 192;
/// As far as the frame's first byte moves back: eight tags popped. Copied bytes end before the buffer does.
const START_MAX: u32 = 64;
/// Ethernet's shortest frame without its checksum (IEEE 802.3 §4.4.2): what tags off make shorter gets zeroes at its end.
pub const FRAME_BYTES_MIN: u32 = 60;
/// Bytes of a tag or label.
const TAG_BYTES: u32 = 4;
/// Bytes before the first EtherType.
const ADDRESS_BYTES: u32 = 12;
/// An MPLS label's bit that says that it is the last (RFC 3032 §2.1).
const BOTTOM: u32 = 0x100;

/// Eight bytes' alignment, so that it can be filled by words.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy)]
pub struct Buffer(pub [u8; BUFFER_BYTES + SPARE_BYTES]);

/// A frame's first bytes and what is known of them.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Headers {
    /// The bytes.
    pub buffer: Buffer,
    /// Where the frame begins: a multiple of four.
    pub start: u32,
    /// How many of its bytes are here.
    pub len: u32,
    /// Where in the buffer changes end; 0 without.
    pub changed_to: u32,
    /// Layers are not where `layers` says: to be parsed again.
    pub is_stale: u32,
    /// Where they are, counted from `start`.
    pub layers: Layers,
}

/// What became of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edited {
    /// It is done, or there was nothing that it could be done to.
    Done,
    /// The headers have to be parsed before it can be done.
    Stale,
    /// The bytes that are here do not suffice; what could be done is.
    Beyond,
    /// A TTL is at its end (§5.12.1): the frame is not to go on.
    InvalidTtl,
}

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

impl Frame for Headers {
    type Rest<'a> = From<'a>;

    #[inline(always)]
    fn rest(&self, at: usize) -> From<'_> {
        From { headers: self, at: number(at) }
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.len as usize
    }

    #[inline(always)]
    fn u8(&self, at: usize) -> Option<u8> {
        self.rest(0).u8(at)
    }

    #[inline(always)]
    fn u16(&self, at: usize) -> Option<u16> {
        self.rest(0).u16(at)
    }

    #[inline(always)]
    fn u32(&self, at: usize) -> Option<u32> {
        self.rest(0).u32(at)
    }
}

/// The headers from a place on.
#[derive(Debug, Clone, Copy)]
pub struct From<'h> {
    headers: &'h Headers,
    at: u32,
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "an offset, below 32768")]
const fn number(at: usize) -> u32 {
    at as u32
}

impl From<'_> {
    #[inline(always)]
    fn has(&self, at: usize, bytes: u32) -> bool {
        self.at + number(at) + bytes <= self.headers.len
    }

    #[inline(always)]
    fn place(&self, at: usize) -> u32 {
        self.at + number(at)
    }
}

impl Frame for From<'_> {
    type Rest<'a>
        = From<'a>
    where
        Self: 'a;

    #[inline(always)]
    fn rest(&self, at: usize) -> From<'_> {
        From { headers: self.headers, at: self.at + number(at) }
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.headers.len.saturating_sub(self.at) as usize
    }

    #[inline(always)]
    fn u8(&self, at: usize) -> Option<u8> {
        self.has(at, 1).then(|| self.headers.byte(self.place(at)))
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "two bytes")]
    fn u16(&self, at: usize) -> Option<u16> {
        self.has(at, 2).then(|| self.headers.u16_at(self.place(at)) as u16)
    }

    #[inline(always)]
    fn u32(&self, at: usize) -> Option<u32> {
        self.has(at, 4).then(|| self.headers.u32_at(self.place(at)))
    }
}

impl Headers {
    /// The first bytes of a frame, which is yet to be parsed.
    #[must_use]
    pub fn new(frame: &[u8]) -> Self {
        let mut buffer = Buffer([0; BUFFER_BYTES + SPARE_BYTES]);
        let len = frame.len().min(COPY_BYTES);
        for (to, from) in buffer.0.iter_mut().skip(ROOM_BYTES).zip(frame.iter().take(len)) {
            *to = *from;
        }
        let (start, len) = (number(ROOM_BYTES), number(len));
        Self { buffer, start, len, changed_to: 0, is_stale: 1, layers: Layers::default() }
    }

    /// The headers as they are now.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let (start, len) = (self.start as usize, self.len as usize);
        self.buffer.0.get(start..start + len).unwrap_or_default()
    }

    /// Where in the buffer `at` is.
    #[inline(always)]
    fn index(&self, at: u32) -> usize {
        (self.start + at) as usize % BUFFER_BYTES
    }

    #[inline(always)]
    fn chunk<const N: usize>(&self, at: u32) -> [u8; N] {
        let mut chunk = [0; N];
        let index = self.index(at);
        chunk.copy_from_slice(&self.buffer.0[index..index + N]);
        chunk
    }

    #[inline(always)]
    fn put_chunk<const N: usize>(&mut self, at: u32, chunk: [u8; N]) {
        let index = self.index(at);
        self.buffer.0[index..index + N].copy_from_slice(&chunk);
    }

    /// Changes end here, or behind.
    #[inline(always)]
    fn changed(&mut self, end: u32) {
        if self.changed_to < self.start + end {
            self.changed_to = self.start + end;
        }
    }

    #[inline(always)]
    fn byte(&self, at: u32) -> u8 {
        self.buffer.0[self.index(at)]
    }

    #[inline(always)]
    fn u16_at(&self, at: u32) -> u32 {
        u32::from(u16::from_be_bytes(self.chunk(at)))
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "two bytes")]
    fn put_u16(&mut self, at: u32, value: u32) {
        self.put_chunk(at, (value as u16).to_be_bytes());
        self.changed(at + 2);
    }

    #[inline(always)]
    fn u32_at(&self, at: u32) -> u32 {
        u32::from_be_bytes(self.chunk(at))
    }

    #[inline(always)]
    fn put_u32(&mut self, at: u32, value: u32) {
        self.put_chunk(at, value.to_be_bytes());
        self.changed(at + 4);
    }

    #[inline(always)]
    fn has(&self, layers: u16) -> bool {
        self.layers.has & u32::from(layers) != 0
    }

    /// Does one action on headers; what is none does nothing.
    #[inline(always)]
    pub fn edit(&mut self, op: &Op) -> Edited {
        let is_write = op.code() == code::WRITE;
        if self.is_stale != 0 && !(is_write && op.base() == base::FRAME) {
            return Edited::Stale;
        }
        if is_write {
            return self.write(op);
        }
        match op.code() {
            code::WRITE_CLASS => self.write_class(op.0[2] >> 56, u64::from(op.mask() >> 24)),
            code::PUSH_VLAN => self.push_vlan(op.argument()),
            code::POP_VLAN => self.pop_vlan(),
            code::PUSH_MPLS => self.push_mpls(op.argument()),
            code::POP_MPLS => self.pop_mpls(op.argument()),
            _ => self.edit_ttl(op),
        }
    }

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
    fn write(&mut self, op: &Op) -> Edited {
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
    fn mend_at(&mut self, at: u32, difference: u32, is_udp: bool) {
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
    fn write_class(&mut self, value: u64, mask: u64) -> Edited {
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

    #[inline(always)]
    fn edit_ttl(&mut self, op: &Op) -> Edited {
        let ttl = op.argument() & 0xff;
        match op.code() {
            code::SET_MPLS_TTL if self.has(layer::MPLS) => self.put_label_ttl(ttl),
            code::DEC_MPLS_TTL if self.has(layer::MPLS) => {
                let old = self.label() & 0xff;
                if old <= 1 {
                    return Edited::InvalidTtl;
                }
                self.put_label_ttl(old - 1);
            }
            code::SET_NW_TTL if self.has(layer::IPV4 | layer::IPV6) => {
                return self.put_network_ttl(self.layers.has, ttl);
            }
            code::DEC_NW_TTL if self.has(layer::IPV4 | layer::IPV6) => {
                let old = self.network_ttl(self.layers.has);
                if old <= 1 {
                    return Edited::InvalidTtl;
                }
                return self.put_network_ttl(self.layers.has, old - 1);
            }
            code::COPY_TTL_OUT if self.has(layer::MPLS) => return self.copy_ttl_out(),
            code::COPY_TTL_IN if self.has(layer::MPLS) => return self.copy_ttl_in(),
            _ => {}
        }
        Edited::Done
    }

    /// The outer label's word (RFC 3032 §2.1).
    #[inline(always)]
    fn label(&self) -> u32 {
        self.u32_at(self.layers.ether_type_at + 2)
    }

    #[inline(always)]
    fn put_label_ttl(&mut self, ttl: u32) {
        let at = self.layers.ether_type_at + 2;
        self.put_u32(at, self.label() & 0xffff_ff00 | ttl);
    }

    #[inline(always)]
    fn network_ttl(&self, has: u32) -> u32 {
        let offset = if has & u32::from(layer::IPV4) != 0 { 8 } else { 7 };
        u32::from(self.byte(self.layers.network_at + offset))
    }

    #[inline(always)]
    fn put_network_ttl(&mut self, has: u32, ttl: u32) -> Edited {
        let at = self.layers.network_at;
        if at + 12 > self.len {
            return Edited::Beyond;
        }
        if has & u32::from(layer::IPV4) != 0 {
            let old = self.u16_at(at + 8);
            let new = old & 0xff | ttl << 8;
            self.put_u16(at + 8, new);
            if old != new {
                self.mend_at(at + 10, 0xffff + new - old, false);
            }
        } else {
            let old = self.u16_at(at + 6);
            self.put_u16(at + 6, old & 0xff00 | ttl);
        }
        Edited::Done
    }

    /// From the second outermost header with a TTL to the outermost.
    #[inline(always)]
    fn copy_ttl_out(&mut self) -> Edited {
        if self.label() & BOTTOM == 0 {
            if self.layers.labels < 2 {
                return Edited::Done;
            }
            let ttl = self.byte(self.layers.ether_type_at + 9);
            self.put_label_ttl(u32::from(ttl));
        } else if self.layers.hidden != 0 {
            let ttl = self.network_ttl(self.layers.hidden);
            self.put_label_ttl(ttl);
        }
        Edited::Done
    }

    #[inline(always)]
    fn copy_ttl_in(&mut self) -> Edited {
        let ttl = self.label() & 0xff;
        if self.label() & BOTTOM == 0 {
            if self.layers.labels < 2 {
                return Edited::Done;
            }
            let at = self.layers.ether_type_at + 8;
            self.put_u16(at, self.u16_at(at) & 0xff00 | ttl);
            Edited::Done
        } else if self.layers.hidden != 0 {
            self.put_network_ttl(self.layers.hidden, ttl)
        } else {
            Edited::Done
        }
    }

    /// Moves the first `bytes` four to the front: there is room for a tag behind them.
    #[inline(always)]
    fn make_room(&mut self, bytes: u32) -> bool {
        if self.start < TAG_BYTES {
            return false;
        }
        self.start -= TAG_BYTES;
        self.len += TAG_BYTES;
        // Twelve bytes at once the compiler would move by a function, which BPF has not.
        let (first, last) = (u64::from_ne_bytes(self.chunk(4)), u32::from_ne_bytes(self.chunk(12)));
        let tags: [u8; 8] = self.chunk(TAG_BYTES + ADDRESS_BYTES);
        self.put_chunk(0, first.to_ne_bytes());
        self.put_chunk(8, last.to_ne_bytes());
        if bytes > ADDRESS_BYTES + TAG_BYTES {
            self.put_chunk(ADDRESS_BYTES, tags);
        } else if bytes > ADDRESS_BYTES {
            self.put_chunk(ADDRESS_BYTES, [tags[0], tags[1], tags[2], tags[3]]);
        }
        self.moved(TAG_BYTES);
        true
    }

    /// Moves the first `bytes` over the four behind them.
    #[inline(always)]
    fn close(&mut self, bytes: u32) -> bool {
        if self.start >= START_MAX || self.len < bytes + TAG_BYTES {
            return false;
        }
        let (first, last) = (u64::from_ne_bytes(self.chunk(0)), u32::from_ne_bytes(self.chunk(8)));
        let tags: [u8; 8] = self.chunk(ADDRESS_BYTES);
        self.put_chunk(4, first.to_ne_bytes());
        self.put_chunk(12, last.to_ne_bytes());
        if bytes > ADDRESS_BYTES + TAG_BYTES {
            self.put_chunk(TAG_BYTES + ADDRESS_BYTES, tags);
        } else if bytes > ADDRESS_BYTES {
            self.put_chunk(TAG_BYTES + ADDRESS_BYTES, [tags[0], tags[1], tags[2], tags[3]]);
        }
        self.start += TAG_BYTES;
        self.len -= TAG_BYTES;
        self.moved(0u32.wrapping_sub(TAG_BYTES));
        true
    }

    /// What lay behind the tag lies elsewhere.
    #[inline(always)]
    fn moved(&mut self, by: u32) {
        let layers = &mut self.layers;
        layers.network_at = layers.network_at.wrapping_add(by);
        layers.protocol_at = layers.protocol_at.wrapping_add(by);
        layers.transport_at = layers.transport_at.wrapping_add(by);
        layers.sll_at = layers.sll_at.wrapping_add(by);
        layers.tll_at = layers.tll_at.wrapping_add(by);
        layers.sum_at = layers.sum_at.wrapping_add(by);
    }

    #[inline(always)]
    fn push_vlan(&mut self, ether_type: u32) -> Edited {
        // Priority and number of the tag that was there (§5.12.1, table 7), without its drop eligibility.
        let tag = if self.has(layer::VLAN) { self.u16_at(ADDRESS_BYTES + 2) & 0xefff } else { 0 };
        if self.len < ADDRESS_BYTES + 2 || !self.make_room(ADDRESS_BYTES) {
            return Edited::Beyond;
        }
        self.put_u32(ADDRESS_BYTES, ether_type << 16 | tag);
        // Behind two tags is as far as is looked.
        if self.layers.tags == 2 {
            self.is_stale = 1;
        } else {
            self.layers.tags += 1;
        }
        self.layers.ether_type_at += TAG_BYTES;
        self.layers.has |= u32::from(layer::VLAN);
        Edited::Done
    }

    #[inline(always)]
    fn pop_vlan(&mut self) -> Edited {
        if !self.has(layer::VLAN) {
            return Edited::Done;
        }
        if !self.close(ADDRESS_BYTES) {
            return Edited::Beyond;
        }
        self.changed(ADDRESS_BYTES);
        if self.layers.tags == 2 {
            self.is_stale = 1;
        } else {
            self.layers.tags = 0;
            self.layers.has &= !u32::from(layer::VLAN);
        }
        self.layers.ether_type_at -= TAG_BYTES;
        Edited::Done
    }

    #[inline(always)]
    fn push_mpls(&mut self, ether_type: u32) -> Edited {
        let at = self.layers.ether_type_at;
        // What the label is by default (§5.12.1, table 7).
        let label = if self.has(layer::MPLS) {
            self.label() & !BOTTOM
        } else if self.has(layer::IPV4 | layer::IPV6) {
            BOTTOM | self.network_ttl(self.layers.has)
        } else {
            BOTTOM
        };
        if at == 0 || !self.make_room(at) {
            return Edited::Beyond;
        }
        self.put_u16(at, ether_type);
        self.put_u32(at + 2, label);
        let layers = &mut self.layers;
        if layers.has & u32::from(layer::MPLS) == 0 {
            layers.hidden = layers.has & u32::from(layer::IPV4 | layer::IPV6);
            // Behind a label it is the version that tells, whatever the EtherType was.
            if layers.hidden == 0 {
                self.is_stale = 1;
            }
        }
        let layers = &mut self.layers;
        layers.has = layers.has & u32::from(layer::VLAN) | u32::from(layer::MPLS);
        layers.labels = if layers.labels == 0 { 1 } else { 2 };
        layers.sum = 0;
        Edited::Done
    }

    #[inline(always)]
    fn pop_mpls(&mut self, ether_type: u32) -> Edited {
        if !self.has(layer::MPLS) {
            return Edited::Done;
        }
        let at = self.layers.ether_type_at;
        if !self.close(at) {
            return Edited::Beyond;
        }
        self.put_u16(at, ether_type);
        self.is_stale = 1;
        Edited::Done
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "one byte of a word")]
const fn byte(word: u64) -> u8 {
    word as u8
}

#[cfg(test)]
mod tests;
