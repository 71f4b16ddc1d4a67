//! Reading and writing big-endian fields of bounded slices.

use thiserror::Error;

/// A field did not fit the bytes at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// The input ended inside a field.
    #[error("truncated: {field} at byte {at} needs {needs} bytes, {has} are left")]
    Truncated {
        /// Which field.
        field: &'static str,
        /// Its offset.
        at: usize,
        /// Its length.
        needs: usize,
        /// What was left.
        has: usize,
    },
    /// Bytes follow the last field.
    #[error("{extra} bytes follow the end at byte {at}")]
    Trailing {
        /// Where the message should have ended.
        at: usize,
        /// How many follow.
        extra: usize,
    },
}

/// A cursor over a slice.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn take(&mut self, field: &'static str, needs: usize) -> Result<&'a [u8], WireError> {
        let left = self.bytes.get(self.at..).unwrap_or_default();
        let Some(taken) = left.get(..needs) else {
            return Err(WireError::Truncated { field, at: self.at, needs, has: left.len() });
        };
        self.at += needs;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], WireError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(field, N)?);
        Ok(out)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, WireError> {
        Ok(self.array::<1>(field)?[0])
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, WireError> {
        Ok(u16::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, WireError> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, WireError> {
        Ok(u64::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        self.at = self.bytes.len();
        rest
    }

    pub(crate) fn finish(&self) -> Result<(), WireError> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            extra => Err(WireError::Trailing { at: self.at, extra }),
        }
    }
}
