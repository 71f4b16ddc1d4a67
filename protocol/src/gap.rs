//! A gap in a chain, told: the gateway's signed word that segments of these numbers may be missing, and why.
//!
//! ```text
//!   0        4  5  6   7  8               24      32   36   40     48      56     64     72     80                    112            176
//!   +--------+--+--+---+--+---------------+-------+----+----+------+-------+------+------+------+---------------------+--------------+
//!   | "CGGP" |v |cl|why|0 | patient       |signer |gen |epo | made | first | last | from | to   | hash of the last    | signature    |
//!   +--------+--+--+---+--+---------------+-------+----+----+------+-------+------+------+------+---------------------+--------------+
//! v: version 1   cl: data class   why: 1 expired, 2 damaged   gen, epo: whose holders are to hear of it   made: Unix µs, gateway clock
//! first, last: numbers of segments, inclusive   from, to: when they were sealed, Unix µs, 0 where that isn't known
//! hash: of the segment `last`, which the one behind it names; zeroes where that isn't known
//! ```
//! All numbers are big-endian. The signature is Ed25519 over "caregate gap 1\0" ‖ bytes 0..112. What is missing without such a word was
//! taken away on the way.

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use thiserror::Error;

use crate::id::{DataClass, PatientId, SignerId};
use crate::segment::{SegmentHash, signer_id};
use crate::signed::{self, Unsigned};
use crate::wire::{Reader, WireError};

/// Length of a gap record.
pub const GAP_BYTES: usize = 176;
/// First bytes of every gap record.
pub const MAGIC: [u8; 4] = *b"CGGP";
const VERSION: u8 = 1;
const SIGNED_BYTES: usize = 112;
const SIGNED_PREFIX: &[u8] = b"caregate gap 1\0";

/// Why bytes are no gap record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GapError {
    /// A field is missing or bytes follow the end.
    #[error("gap: {0}")]
    Wire(#[from] WireError),
    /// Does not begin with [`MAGIC`] and version 1.
    #[error("gap: magic or version is not known")]
    Version,
    /// No such data class.
    #[error("gap: class {0} is not known")]
    Class(u8),
    /// No such reason.
    #[error("gap: reason {0} is not known")]
    Why(u8),
    /// A reserved byte is not zero.
    #[error("gap: reserved bytes must be 0")]
    Reserved,
    /// The last number is below the first, or the last that there is.
    #[error("gap: its numbers are no range")]
    Range,
    /// The signer is another key than the one given.
    #[error("gap: signed by another key")]
    Signer,
    /// The signature does not hold.
    #[error("gap: signature does not verify")]
    Signature,
}

impl GapError {
    /// A label for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Wire(_) => "truncated",
            Self::Version => "version",
            Self::Class(_) => "class",
            Self::Why(_) => "gap_reason",
            Self::Reserved => "reserved",
            Self::Range => "range",
            Self::Signer => "signer",
            Self::Signature => "signature",
        }
    }
}

/// Why segments are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Why {
    /// They waited for the core for longer than the operator's age limit.
    Expired = 1,
    /// The gateway's disk gave back other bytes than were written.
    Damaged = 2,
}

impl Why {
    /// The reason with this number, if there is one.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        [Self::Expired, Self::Damaged].into_iter().find(|why| *why as u8 == number)
    }

    /// A label for counters, logs and pages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Damaged => "damaged",
        }
    }
}

/// Segments that may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// Why.
    pub why: Why,
    /// The lowest number.
    pub first: u64,
    /// The highest; not below `first`, and below `u64::MAX`.
    pub last: u64,
    /// When the first was sealed, Unix time in microseconds by the gateway's clock; 0 where that isn't known.
    pub from_us: i64,
    /// When the last was sealed; 0 where that isn't known.
    pub to_us: i64,
    /// Hash of the last; [`SegmentHash::NONE`] where that isn't known.
    pub hash: SegmentHash,
}

/// What a gap record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The data class.
    pub class: DataClass,
    /// Whose readings.
    pub patient: PatientId,
    /// With the epoch it says who is to hear of it: whoever holds a wrap of both.
    pub generation: u32,
    /// The chain's epoch when it was told.
    pub epoch: u32,
    /// When it was made, Unix time in microseconds by the gateway's clock.
    pub made_us: i64,
    /// What is missing.
    pub missing: Missing,
}

impl Gap {
    /// The signed bytes.
    #[must_use]
    pub fn sign(&self, device: &SigningKey) -> [u8; GAP_BYTES] {
        let Missing { why, first, last, from_us, to_us, hash } = self.missing;
        let mut out = [0; GAP_BYTES];
        out[0..4].copy_from_slice(&MAGIC);
        out[4..8].copy_from_slice(&[VERSION, self.class as u8, why as u8, 0]);
        out[8..24].copy_from_slice(&self.patient.0);
        out[24..32].copy_from_slice(&signer_id(&device.verifying_key()).0);
        out[32..36].copy_from_slice(&self.generation.to_be_bytes());
        out[36..40].copy_from_slice(&self.epoch.to_be_bytes());
        out[40..48].copy_from_slice(&self.made_us.to_be_bytes());
        out[48..56].copy_from_slice(&first.to_be_bytes());
        out[56..64].copy_from_slice(&last.to_be_bytes());
        out[64..72].copy_from_slice(&from_us.to_be_bytes());
        out[72..80].copy_from_slice(&to_us.to_be_bytes());
        out[80..112].copy_from_slice(&hash.0);
        let signature = device.sign(&[SIGNED_PREFIX, &out[..SIGNED_BYTES]].concat());
        out[112..].copy_from_slice(&signature.to_bytes());
        out
    }
}

/// A gap record as received: parsed, not yet trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedGap {
    /// What it says.
    pub gap: Gap,
    /// Whose device key signed.
    pub signer: SignerId,
    bytes: Box<[u8; GAP_BYTES]>,
}

impl SignedGap {
    /// Parses exactly one gap record.
    ///
    /// # Errors
    /// Any [`GapError`] of form; nothing is verified yet.
    pub fn decode(bytes: &[u8]) -> Result<Self, GapError> {
        let mut r = Reader::new(bytes);
        if r.array("magic")? != MAGIC || r.u8("version")? != VERSION {
            return Err(GapError::Version);
        }
        let class = r.u8("class")?;
        let why = r.u8("reason")?;
        let reserved = r.u8("reserved")?;
        let patient = PatientId(r.array("patient")?);
        let signer = SignerId(r.array("signer")?);
        let generation = r.u32("generation")?;
        let epoch = r.u32("epoch")?;
        let made_us = i64::from_be_bytes(r.array("made")?);
        let first = r.u64("first")?;
        let last = r.u64("last")?;
        let from_us = i64::from_be_bytes(r.array("from")?);
        let to_us = i64::from_be_bytes(r.array("to")?);
        let hash = SegmentHash(r.array("hash")?);
        r.take("signature", GAP_BYTES - SIGNED_BYTES)?;
        r.finish()?;
        if reserved != 0 {
            return Err(GapError::Reserved);
        }
        if first > last || last == u64::MAX {
            return Err(GapError::Range);
        }
        let class = DataClass::from_u8(class).ok_or(GapError::Class(class))?;
        let why = Why::from_u8(why).ok_or(GapError::Why(why))?;
        let mut copy = Box::new([0; GAP_BYTES]);
        copy.copy_from_slice(bytes);
        let missing = Missing { why, first, last, from_us, to_us, hash };
        let gap = Gap { class, patient, generation, epoch, made_us, missing };
        Ok(Self { gap, signer, bytes: copy })
    }

    /// Checks that `device` signed this record (RFC 8032, strict).
    ///
    /// # Errors
    /// [`GapError::Signer`] or [`GapError::Signature`].
    pub fn verify(&self, device: &VerifyingKey) -> Result<(), GapError> {
        signed::verify(&self.bytes[..], SIGNED_PREFIX, self.signer, device).map_err(|why| match why {
            Unsigned::Signer => GapError::Signer,
            Unsigned::Signature => GapError::Signature,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gap() -> Gap {
        let missing = Missing {
            why: Why::Expired,
            first: 7,
            last: 9,
            from_us: 1_789_000_000_000_000,
            to_us: 1_789_000_060_000_000,
            hash: SegmentHash([3; 32]),
        };
        Gap {
            class: DataClass::Waveform,
            patient: PatientId([1; 16]),
            generation: 2,
            epoch: 29_000_000,
            made_us: 1_790_000_000_000_000,
            missing,
        }
    }

    fn device() -> SigningKey {
        SigningKey::from_bytes(&[3; 32])
    }

    #[test]
    fn a_gap_comes_back_and_only_its_signers_key_verifies() {
        let bytes = gap().sign(&device());
        let signed = SignedGap::decode(&bytes).unwrap();
        assert_eq!((signed.gap, signed.verify(&device().verifying_key())), (gap(), Ok(())));
        let other = SigningKey::from_bytes(&[4; 32]).verifying_key();
        assert_eq!(signed.verify(&other), Err(GapError::Signer));
    }

    #[test]
    fn the_layout_is_the_one_that_is_drawn() {
        let bytes = gap().sign(&device());
        assert_eq!(bytes[..8], [b'C', b'G', b'G', b'P', 1, DataClass::Waveform as u8, 1, 0]);
        assert_eq!(bytes[48..64], [0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9]);
        assert_eq!(bytes[72..80], 1_789_000_060_000_000_i64.to_be_bytes());
        assert_eq!(bytes[80..112], [3; 32]);
    }

    #[test]
    fn what_is_no_gap_is_told_by_reason() {
        let bytes = gap().sign(&device());
        let changed = |at: usize, to: u8| {
            let mut bytes = bytes;
            bytes[at] = to;
            SignedGap::decode(&bytes).map(|signed| signed.verify(&device().verifying_key()))
        };
        assert_eq!(changed(0, b'X'), Err(GapError::Version));
        assert_eq!(changed(4, 2), Err(GapError::Version));
        assert_eq!(changed(5, 99), Err(GapError::Class(99)));
        assert_eq!(changed(6, 3), Err(GapError::Why(3)));
        assert_eq!(changed(7, 1), Err(GapError::Reserved));
        assert_eq!(changed(63, 6), Err(GapError::Range));
        assert_eq!(changed(63, 10), Ok(Err(GapError::Signature)));
        assert_eq!(changed(160, 0), Ok(Err(GapError::Signature)));
        let mut endless = gap();
        endless.missing.last = u64::MAX;
        assert_eq!(SignedGap::decode(&endless.sign(&device())), Err(GapError::Range));
    }

    proptest! {
        #[test]
        fn every_flip_is_refused_and_no_bytes_panic(at in 0..GAP_BYTES * 8, other in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = gap().sign(&device());
            bytes[at / 8] ^= 1 << (at % 8);
            let verified = SignedGap::decode(&bytes).and_then(|signed| signed.verify(&device().verifying_key()));
            prop_assert!(verified.is_err());
            drop(SignedGap::decode(&other));
        }
    }
}
