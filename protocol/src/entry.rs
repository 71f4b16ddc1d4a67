//! Entries of the core's stream, where its store is a stream server: what was stored, and what that put into recipients' queues. With
//! them alone the core's index can be made anew, number by number.
//!
//! ```text
//!   0        4  5        a message: one or more entries of one patient and class
//!   +--------+--+----------------------------------------------------------------------------+
//!   | "CGEN" |v | entries                                                                    |
//!   +--------+--+----------------------------------------------------------------------------+
//!   an entry
//!   +-------+---------+--------------------------------------+--------+--------+
//!   | index | queued  | queued × (recipient, number, index)  | length | record |
//!   +-------+---------+--------------------------------------+--------+--------+
//!     8       4         20 + 8 + 8 each                        4        a segment, wrap or head; none where an entry only goes on
//! v: version 1
//!
//!   a floor, in the place of a record: what retention has taken out
//!   +--------+---------+-------+----------+
//!   | "CGFL" | patient | class | sequence |      4 + 16 + 1 + 8
//!   +--------+---------+-------+----------+
//!   an owner, likewise: the gateway's key whose records came last, and from which index on
//!   +--------+---------+-------+--------+
//!   | "CGOW" | patient | index | signer |         4 + 16 + 8 + 8
//!   +--------+---------+-------+--------+
//! ```
//! All numbers are big-endian. A wrap that comes late brings many older segments into its recipient's queue; what does not fit one
//! message goes on in the next, with the same index and no record.

use thiserror::Error;

use crate::id::{DataClass, PatientId, RecipientId};
use crate::record::RECORD_BYTES_MAX;
use crate::wire::{Reader, WireError};

/// First bytes of every message.
pub const MAGIC: [u8; 4] = *b"CGEN";
const VERSION: u8 = 1;
/// Bytes of a message before its entries.
pub const MESSAGE_HEAD_BYTES: usize = 5;
/// Bytes of an entry beside its record and what it queued.
pub const ENTRY_HEAD_BYTES: usize = 16;
/// Bytes of one place in a queue.
pub const QUEUED_BYTES: usize = 36;
/// Most places that one entry names: 1.1 MiB, as a large record.
pub const QUEUED_MAX: usize = 32_768;

/// First bytes of a [`Floor`].
pub const FLOOR_MAGIC: [u8; 4] = *b"CGFL";

/// Below it each segment of a chain is expired, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// Whose.
    pub patient: PatientId,
    /// Of which class.
    pub class: DataClass,
    /// The lowest sequence that is not.
    pub sequence: u64,
}

impl Floor {
    /// Its 29 bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let parts: [&[u8]; 4] =
            [&FLOOR_MAGIC, &self.patient.0, &[self.class as u8], &self.sequence.to_be_bytes()];
        parts.concat()
    }

    /// Parses exactly one.
    ///
    /// # Errors
    /// [`EntryError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let mut r = Reader::new(bytes);
        if r.array("magic")? != FLOOR_MAGIC {
            return Err(EntryError::Version);
        }
        let patient = PatientId(r.array("patient")?);
        let class = DataClass::from_u8(r.u8("class")?).ok_or(EntryError::Class)?;
        let floor = Self { patient, class, sequence: r.u64("sequence")? };
        r.finish()?;
        Ok(floor)
    }
}

/// Why bytes are no message of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EntryError {
    /// A field is missing.
    #[error("entry: {0}")]
    Wire(#[from] WireError),
    /// Does not begin with [`MAGIC`] and version 1.
    #[error("entry: magic or version is not known")]
    Version,
    /// A class that is none.
    #[error("entry: class is not known")]
    Class,
    /// More than [`QUEUED_MAX`] places, or a record of more than [`RECORD_BYTES_MAX`].
    #[error("entry: {0} is too large")]
    Large(&'static str),
}

impl EntryError {
    /// A label for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Wire(_) => "truncated",
            Self::Version => "version",
            Self::Class => "class",
            Self::Large(_) => "large",
        }
    }
}

/// A place in a recipient's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued {
    /// Whose queue.
    pub recipient: RecipientId,
    /// The number in it.
    pub number: u64,
    /// Which record is there, by its index.
    pub index: u64,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The record's number at the core.
    pub index: u64,
    /// What it put into queues.
    pub queued: Vec<Queued>,
    /// The record; empty where the entry goes on from an earlier one.
    pub record: &'a [u8],
    /// Where in the message the record begins.
    pub offset: usize,
}

/// An empty message.
#[must_use]
pub fn message() -> Vec<u8> {
    [MAGIC.as_slice(), &[VERSION]].concat()
}

/// Writes one entry behind those of `message`. Returns where in it the record begins.
pub fn encode(message: &mut Vec<u8>, index: u64, queued: &[Queued], record: &[u8]) -> usize {
    message.extend_from_slice(&index.to_be_bytes());
    message.extend_from_slice(&u32::try_from(queued.len()).unwrap_or(u32::MAX).to_be_bytes());
    for place in queued {
        message.extend_from_slice(&place.recipient.0);
        message.extend_from_slice(&place.number.to_be_bytes());
        message.extend_from_slice(&place.index.to_be_bytes());
    }
    message.extend_from_slice(&u32::try_from(record.len()).unwrap_or(u32::MAX).to_be_bytes());
    let offset = message.len();
    message.extend_from_slice(record);
    offset
}

/// Parses exactly one message. The records are not looked at.
///
/// # Errors
/// [`EntryError`].
pub fn decode(bytes: &[u8]) -> Result<Vec<Entry<'_>>, EntryError> {
    let mut r = Reader::new(bytes);
    if r.array("magic")? != MAGIC || r.u8("version")? != VERSION {
        return Err(EntryError::Version);
    }
    let (mut entries, mut rest, mut offset) = (Vec::new(), r.rest(), MESSAGE_HEAD_BYTES);
    while !rest.is_empty() {
        let mut r = Reader::new(rest);
        let (index, count) = (r.u64("index")?, r.u32("queued")?);
        let count = usize::try_from(count).ok().filter(|count| *count <= QUEUED_MAX);
        let count = count.ok_or(EntryError::Large("queued"))?;
        // Only after the bytes are known to be there.
        let mut places = Reader::new(r.take("queued", count * QUEUED_BYTES)?);
        let mut queued = Vec::with_capacity(count);
        for _ in 0..count {
            let recipient = RecipientId(places.array("recipient")?);
            queued.push(Queued { recipient, number: places.u64("number")?, index: places.u64("index")? });
        }
        let length = usize::try_from(r.u32("length")?).ok().filter(|length| *length <= RECORD_BYTES_MAX);
        let record = r.take("record", length.ok_or(EntryError::Large("record"))?)?;
        offset += ENTRY_HEAD_BYTES + count * QUEUED_BYTES;
        entries.push(Entry { index, queued, record, offset });
        offset += record.len();
        rest = r.rest();
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place() -> impl Strategy<Value = Queued> {
        (any::<[u8; 20]>(), any::<u64>(), any::<u64>()).prop_map(|(id, number, index)| Queued {
            recipient: RecipientId(id),
            number,
            index,
        })
    }

    proptest! {
        #[test]
        fn entries_come_back_and_records_lie_where_it_was_said(
            entries in proptest::collection::vec(
                (any::<u64>(), proptest::collection::vec(place(), 0..5), proptest::collection::vec(any::<u8>(), 0..50)), 0..6),
            cut in 0_usize..400,
        ) {
            let mut bytes = message();
            let offsets: Vec<usize> =
                entries.iter().map(|(index, queued, record)| encode(&mut bytes, *index, queued, record)).collect();
            let decoded = decode(&bytes).unwrap();
            prop_assert_eq!(decoded.len(), entries.len());
            for ((entry, (index, queued, record)), offset) in decoded.iter().zip(&entries).zip(offsets) {
                prop_assert_eq!((entry.index, &entry.queued, entry.record), (*index, queued, record.as_slice()));
                prop_assert_eq!((entry.offset, &bytes[offset..offset + record.len()]), (offset, record.as_slice()));
            }
            let cut = cut.min(bytes.len());
            if let Ok(fewer) = decode(&bytes[..cut]) {
                prop_assert!(fewer.len() < entries.len() || cut == bytes.len());
            }
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(decode(&[message(), bytes].concat()));
        }
    }

    #[test]
    fn golden_bytes() {
        let mut bytes = message();
        encode(&mut bytes, 1, &[Queued { recipient: RecipientId([2; 20]), number: 3, index: 4 }], &[5]);
        let places = format!("{}00000000000000030000000000000004", "02".repeat(20));
        assert_eq!(hex::encode(bytes), format!("4347454e01{:016x}00000001{places}0000000105", 1));
    }

    #[test]
    fn a_floor_comes_back_and_nothing_else_is_one() {
        let floor = Floor { patient: PatientId([1; 16]), class: DataClass::Waveform, sequence: 258 };
        let bytes = floor.encode();
        assert_eq!(
            hex::encode(&bytes),
            format!("4347464c{}{:02x}0000000000000102", "01".repeat(16), DataClass::Waveform as u8)
        );
        assert_eq!(Floor::decode(&bytes), Ok(floor));
        assert!((0..bytes.len()).all(|cut| Floor::decode(&bytes[..cut]).is_err()));
        assert!(Floor::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
        let other = |at: usize| {
            let mut bytes = bytes.clone();
            bytes[at] = 0xff;
            Floor::decode(&bytes)
        };
        assert_eq!((other(0), other(20)), (Err(EntryError::Version), Err(EntryError::Class)));
    }

    #[test]
    fn what_is_no_message_is_told_by_reason() {
        assert_eq!(decode(b"CGEN\x02"), Err(EntryError::Version));
        assert_eq!(decode(b"XGEN\x01"), Err(EntryError::Version));
        assert!(matches!(decode(b"CGEN\x01\0"), Err(EntryError::Wire(_))));
        let large = [b"CGEN\x01".as_slice(), &[0; 8], &[0xff; 4]].concat();
        assert_eq!(decode(&large), Err(EntryError::Large("queued")));
        let large = [b"CGEN\x01".as_slice(), &[0; 12], &[0xff; 4]].concat();
        assert_eq!(decode(&large), Err(EntryError::Large("record")));
    }
}
