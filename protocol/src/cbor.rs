//! Reading CBOR (RFC 8949) that a peer sent: definite lengths, bounds before memory, and errors that name the field.

use minicbor::Decoder;
use minicbor::decode::Error as DecodeError;
use thiserror::Error;

/// Why bytes are not the CBOR that belongs there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CborError {
    /// The bytes end inside the field.
    #[error("{field}: truncated")]
    Truncated {
        /// Which field.
        field: &'static str,
    },
    /// Another type, or a value outside its type.
    #[error("{field} at byte {at} is malformed")]
    Malformed {
        /// Which field.
        field: &'static str,
        /// Where it begins.
        at: usize,
    },
    /// Longer than allowed.
    #[error("{field} has {len} entries or bytes, allowed are {max}")]
    TooMany {
        /// Which field.
        field: &'static str,
        /// How many it has.
        len: u64,
        /// How many it may have.
        max: usize,
    },
    /// Bytes after the end.
    #[error("{extra} bytes follow")]
    Trailing {
        /// How many.
        extra: usize,
    },
}

impl CborError {
    /// A word for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Truncated { .. } => "truncated",
            Self::Malformed { .. } => "malformed",
            Self::TooMany { .. } => "too_many",
            Self::Trailing { .. } => "trailing",
        }
    }
}

/// A place in bytes that are read field by field.
#[derive(Debug)]
pub struct Cursor<'b> {
    decoder: Decoder<'b>,
}

impl<'b> Cursor<'b> {
    /// At the beginning.
    #[must_use]
    pub fn new(bytes: &'b [u8]) -> Self {
        Self { decoder: Decoder::new(bytes) }
    }

    fn malformed(&self, field: &'static str) -> CborError {
        CborError::Malformed { field, at: self.decoder.position() }
    }

    /// The next item, by one of the decoder's own methods.
    ///
    /// # Errors
    /// [`CborError::Truncated`] and [`CborError::Malformed`].
    pub fn item<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Decoder<'b>) -> Result<T, DecodeError>,
    ) -> Result<T, CborError> {
        let at = self.decoder.position();
        read(&mut self.decoder).map_err(|source| match source.is_end_of_input() {
            true => CborError::Truncated { field },
            false => CborError::Malformed { field, at },
        })
    }

    /// The length of an array, at most `max`.
    ///
    /// # Errors
    /// [`CborError`].
    pub fn array(&mut self, field: &'static str, max: usize) -> Result<usize, CborError> {
        let malformed = self.malformed(field);
        let len = self.item(field, Decoder::array)?.ok_or(malformed)?;
        usize::try_from(len).ok().filter(|len| *len <= max).ok_or(CborError::TooMany { field, len, max })
    }

    /// An array of exactly `elements`.
    ///
    /// # Errors
    /// [`CborError`].
    pub fn array_of(&mut self, field: &'static str, elements: usize) -> Result<(), CborError> {
        let malformed = self.malformed(field);
        if self.array(field, elements)? == elements { Ok(()) } else { Err(malformed) }
    }

    /// A list of at most `max` entries. No memory is taken for entries that are announced and not there.
    ///
    /// # Errors
    /// [`CborError`].
    pub fn list<T>(
        &mut self,
        field: &'static str,
        max: usize,
        mut entry: impl FnMut(&mut Self) -> Result<T, CborError>,
    ) -> Result<Vec<T>, CborError> {
        let len = self.array(field, max)?;
        let mut list = Vec::new();
        for _ in 0..len {
            list.push(entry(self)?);
        }
        Ok(list)
    }

    /// A byte string of at most `max` bytes.
    ///
    /// # Errors
    /// [`CborError`].
    pub fn bytes(&mut self, field: &'static str, max: usize) -> Result<&'b [u8], CborError> {
        let bytes = self.item(field, Decoder::bytes)?;
        let len = bytes.len();
        if len <= max { Ok(bytes) } else { Err(CborError::TooMany { field, len: len as u64, max }) }
    }

    /// A byte string of exactly `N` bytes.
    ///
    /// # Errors
    /// [`CborError`].
    pub fn fixed<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], CborError> {
        let malformed = self.malformed(field);
        self.bytes(field, N)?.try_into().map_err(|_source| malformed)
    }

    /// A text of at most `max` bytes.
    ///
    /// # Errors
    /// [`CborError`].
    pub fn text(&mut self, field: &'static str, max: usize) -> Result<&'b str, CborError> {
        let text = self.item(field, Decoder::str)?;
        let len = text.len();
        if len <= max { Ok(text) } else { Err(CborError::TooMany { field, len: len as u64, max }) }
    }

    /// An unsigned number.
    ///
    /// # Errors
    /// [`CborError`].
    pub fn u64(&mut self, field: &'static str) -> Result<u64, CborError> {
        self.item(field, Decoder::u64)
    }

    /// An unsigned number of 32 bits.
    ///
    /// # Errors
    /// [`CborError`].
    pub fn u32(&mut self, field: &'static str) -> Result<u32, CborError> {
        self.item(field, Decoder::u32)
    }

    /// An unsigned number of 8 bits.
    ///
    /// # Errors
    /// [`CborError`].
    pub fn u8(&mut self, field: &'static str) -> Result<u8, CborError> {
        self.item(field, Decoder::u8)
    }

    /// True or false.
    ///
    /// # Errors
    /// [`CborError`].
    pub fn bool(&mut self, field: &'static str) -> Result<bool, CborError> {
        self.item(field, Decoder::bool)
    }

    /// Nothing may follow.
    ///
    /// # Errors
    /// [`CborError::Trailing`].
    pub fn finish(&self) -> Result<(), CborError> {
        match self.decoder.input().len() - self.decoder.position() {
            0 => Ok(()),
            extra => Err(CborError::Trailing { extra }),
        }
    }
}
