//! Actions on a copy of a frame's first bytes (OpenFlow 1.3.5 §5.12), with room in front for tags that are pushed.
//!
//! Plain Rust over an array. Places are masked to the array's size, which a verifier follows; that they lie within the headers is
//! checked before. Checksums are mended by what changes (RFC 1624). A new MPLS label stands behind VLAN tags, where
//! receivers look for it.

mod read;
mod tag;
#[cfg(test)]
mod tests;
mod ttl;
mod write;

pub use read::From;

use super::op::{Op, base, code};
use super::parse::Layers;

/// Bytes of the buffer that can be addressed.
pub const BUFFER_BYTES: usize = 256;
/// Bytes behind them, so that a whole word can be read and written at any place.
const SPARE_BYTES: usize = 24;
/// Bytes in front of the frame at first: eight tags.
pub const ROOM_BYTES: usize = 32;
/// Bytes of a frame that are copied: tags, IPv6 with an extension header, and what neighbour discovery says.
pub const COPY_BYTES: usize = 192;
/// Ethernet's shortest frame without its checksum (IEEE 802.3 §4.4.2): what tags off make shorter gets zeroes at its end.
pub const FRAME_BYTES_MIN: u32 = 60;
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

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "an offset, below 32768")]
const fn number(at: usize) -> u32 {
    at as u32
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
}
