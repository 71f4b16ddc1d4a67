//! Rows of the store's tables that have a format of their own.

use caregate_protocol::id::SignerId;

/// What stands in `erased`: whether all is gone, when, and how much that was.
///
/// ```text
/// 1 done, else 0 │ when(8), Unix µs │ records(8) │ bytes(8), big-endian
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ErasedRow {
    /// Nothing is left of the patient.
    pub is_done: bool,
    /// Since when, Unix µs.
    pub erased_us: i64,
    /// Records that went.
    pub records: u64,
    /// Bytes of those.
    pub bytes: u64,
}

impl ErasedRow {
    /// The row.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let numbers = [self.erased_us.to_be_bytes(), self.records.to_be_bytes(), self.bytes.to_be_bytes()];
        [&[u8::from(self.is_done)], numbers.concat().as_slice()].concat()
    }

    /// From the row; what it lacks is zero, so that an erasure goes on where it is in doubt.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        let number =
            |at: usize| bytes.get(at..).and_then(<[u8]>::first_chunk::<8>).copied().unwrap_or_default();
        Self {
            is_done: bytes.first() == Some(&1),
            erased_us: i64::from_be_bytes(number(1)),
            records: u64::from_be_bytes(number(9)),
            bytes: u64::from_be_bytes(number(17)),
        }
    }
}

/// Whose a pseudonym is: who signed its records from one on, all that are newer.
///
/// ```text
/// since(8) │ signer(8), big-endian
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerRow {
    /// One of them, by its index: where the store is a stream, the newest.
    pub since: u64,
    /// Who signed it.
    pub signer: SignerId,
}

impl OwnerRow {
    /// The row.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        [self.since.to_be_bytes(), self.signer.0].concat()
    }

    /// From the row; none where that is not one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (since, rest) = bytes.split_first_chunk::<8>()?;
        let signer = <[u8; 8]>::try_from(rest).ok()?;
        Some(Self { since: u64::from_be_bytes(*since), signer: SignerId(signer) })
    }
}

/// Where a record is: which message of a stream, and where in it; and whose bytes it counts among.
///
/// ```text
/// sequence(8) │ signer(8) │ offset(4) │ length(4), big-endian
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Of the message.
    pub sequence: u64,
    /// Who signed the record.
    pub signer: SignerId,
    /// Where in the message it begins.
    pub offset: u32,
    /// Its bytes.
    pub length: u32,
}

impl Place {
    /// The row. The tables read the first two and the last without knowing the rest (`index::placed`).
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let (offset, length) = (self.offset.to_be_bytes(), self.length.to_be_bytes());
        [self.sequence.to_be_bytes().as_slice(), &self.signer.0, &offset, &length].concat()
    }

    /// From the row; none where that is not one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (sequence, rest) = bytes.split_first_chunk::<8>()?;
        let (signer, rest) = rest.split_first_chunk::<8>()?;
        let (offset, rest) = rest.split_first_chunk::<4>()?;
        let length = <[u8; 4]>::try_from(rest).ok()?;
        Some(Self {
            sequence: u64::from_be_bytes(*sequence),
            signer: SignerId(*signer),
            offset: u32::from_be_bytes(*offset),
            length: u32::from_be_bytes(length),
        })
    }

    /// The record in its message; none where it would lie outside.
    #[must_use]
    pub fn cut(self, payload: &[u8]) -> Option<&[u8]> {
        let first = usize::try_from(self.offset).ok()?;
        payload.get(first..first.checked_add(usize::try_from(self.length).ok()?)?)
    }
}
