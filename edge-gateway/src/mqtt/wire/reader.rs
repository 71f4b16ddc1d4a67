//! The data types of §1.5, read from one packet's bytes.

use bytes::{Buf, Bytes};

use super::error::DecodeError;
use super::packet::PacketId;

/// What is left of a packet. Every method takes its field off the front or says that it is not there.
pub(super) struct Reader {
    bytes: Bytes,
    /// The packet, for errors.
    pub(super) packet: &'static str,
}

impl Reader {
    pub(super) fn new(bytes: Bytes, packet: &'static str) -> Self {
        Self { bytes, packet }
    }

    fn short(&self) -> DecodeError {
        DecodeError::Length(self.packet)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn byte(&mut self) -> Result<u8, DecodeError> {
        self.bytes.try_get_u8().map_err(|_short| self.short())
    }

    pub(super) fn two_bytes(&mut self) -> Result<u16, DecodeError> {
        self.bytes.try_get_u16().map_err(|_short| self.short())
    }

    pub(super) fn four_bytes(&mut self) -> Result<u32, DecodeError> {
        self.bytes.try_get_u32().map_err(|_short| self.short())
    }

    /// A variable byte integer (§1.5.5): at most four bytes and no longer than it must be.
    pub(super) fn variable(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0;
        for at in 0..4 {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return if byte == 0 && at > 0 { Err(DecodeError::LengthField) } else { Ok(value) };
            }
        }
        Err(DecodeError::LengthField)
    }

    /// The next `count` bytes as a packet of their own.
    pub(super) fn part(&mut self, count: u32) -> Result<Self, DecodeError> {
        let count = usize::try_from(count).map_err(|_large| self.short())?;
        if count > self.bytes.len() {
            return Err(self.short());
        }
        Ok(Self { bytes: self.bytes.split_to(count), packet: self.packet })
    }

    pub(super) fn binary(&mut self) -> Result<Bytes, DecodeError> {
        let len = self.two_bytes()?;
        Ok(self.part(u32::from(len))?.bytes)
    }

    /// A UTF-8 string without U+0000 (§1.5.4).
    pub(super) fn text(&mut self, what: &'static str) -> Result<String, DecodeError> {
        let bytes = self.binary()?;
        match std::str::from_utf8(&bytes) {
            Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
            _ => Err(DecodeError::Text(what)),
        }
    }

    pub(super) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::new(self.two_bytes()?).ok_or(DecodeError::PacketId)
    }

    /// All that is left.
    pub(super) fn rest(self) -> Bytes {
        self.bytes
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(self.short()) }
    }
}
