//! A chain's head: the gateway's signed word how far a chain goes, so that a tail that was cut off is seen.
//!
//! ```text
//!   0        4  5  6    8               24      32   36   40       48       56                    88             152
//!   +--------+--+--+----+---------------+-------+----+----+--------+--------+---------------------+--------------+
//!   | "CGHD" |v |cl|0   | patient       |signer |gen |epo | made   | next   | hash of the last    | signature    |
//!   +--------+--+--+----+---------------+-------+----+----+--------+--------+---------------------+--------------+
//! v: version 1   cl: data class   gen, epo: generation and epoch of the last segment   made: Unix µs, gateway clock
//! next: number of the next segment; the last one is `next` − 1
//! ```
//! All numbers are big-endian. The signature is Ed25519 over "caregate head 1\0" ‖ bytes 0..88. Removal, reordering and replay show in the
//! chain itself; only its end has nobody behind it who names its hash.

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use thiserror::Error;

use crate::id::{DataClass, PatientId, SignerId};
use crate::segment::{SegmentHash, signer_id};
use crate::signed::{self, Unsigned};
use crate::wire::{Reader, WireError};

/// Length of a head.
pub const HEAD_BYTES: usize = 152;
/// First bytes of every head.
pub const MAGIC: [u8; 4] = *b"CGHD";
const VERSION: u8 = 1;
const SIGNED_BYTES: usize = 88;
const SIGNED_PREFIX: &[u8] = b"caregate head 1\0";

/// Why bytes are no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeadError {
    /// A field is missing or bytes follow the end.
    #[error("head: {0}")]
    Wire(#[from] WireError),
    /// Does not begin with [`MAGIC`] and version 1.
    #[error("head: magic or version is not known")]
    Version,
    /// No such data class.
    #[error("head: class {0} is not known")]
    Class(u8),
    /// A reserved byte is not zero.
    #[error("head: reserved bytes must be 0")]
    Reserved,
    /// A chain without a segment has no head.
    #[error("head: of an empty chain")]
    Empty,
    /// The signer is another key than the one given.
    #[error("head: signed by another key")]
    Signer,
    /// The signature does not hold.
    #[error("head: signature does not verify")]
    Signature,
}

impl HeadError {
    /// A label for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Wire(_) => "truncated",
            Self::Version => "version",
            Self::Class(_) => "class",
            Self::Reserved => "reserved",
            Self::Empty => "empty",
            Self::Signer => "signer",
            Self::Signature => "signature",
        }
    }
}

/// What a head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The data class.
    pub class: DataClass,
    /// Whose readings.
    pub patient: PatientId,
    /// Generation of the last segment; with the epoch it says who may have it.
    pub generation: u32,
    /// Epoch of the last segment.
    pub epoch: u32,
    /// When it was made, Unix time in microseconds by the gateway's clock.
    pub made_us: i64,
    /// Number of the next segment; never 0.
    pub next: u64,
    /// Hash of the last one.
    pub last: SegmentHash,
}

impl Head {
    /// The signed bytes.
    #[must_use]
    pub fn sign(&self, device: &SigningKey) -> [u8; HEAD_BYTES] {
        let mut out = [0; HEAD_BYTES];
        out[0..4].copy_from_slice(&MAGIC);
        out[4..8].copy_from_slice(&[VERSION, self.class as u8, 0, 0]);
        out[8..24].copy_from_slice(&self.patient.0);
        out[24..32].copy_from_slice(&signer_id(&device.verifying_key()).0);
        out[32..36].copy_from_slice(&self.generation.to_be_bytes());
        out[36..40].copy_from_slice(&self.epoch.to_be_bytes());
        out[40..48].copy_from_slice(&self.made_us.to_be_bytes());
        out[48..56].copy_from_slice(&self.next.to_be_bytes());
        out[56..88].copy_from_slice(&self.last.0);
        let signature = device.sign(&[SIGNED_PREFIX, &out[..SIGNED_BYTES]].concat());
        out[88..].copy_from_slice(&signature.to_bytes());
        out
    }
}

/// A head as received: parsed, not yet trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHead {
    /// What it says.
    pub head: Head,
    /// Whose device key signed.
    pub signer: SignerId,
    bytes: Box<[u8; HEAD_BYTES]>,
}

impl SignedHead {
    /// Parses exactly one head.
    ///
    /// # Errors
    /// Any [`HeadError`] of form; nothing is verified yet.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeadError> {
        let mut r = Reader::new(bytes);
        if r.array("magic")? != MAGIC || r.u8("version")? != VERSION {
            return Err(HeadError::Version);
        }
        let class = r.u8("class")?;
        let reserved = r.u16("reserved")?;
        let patient = PatientId(r.array("patient")?);
        let signer = SignerId(r.array("signer")?);
        let generation = r.u32("generation")?;
        let epoch = r.u32("epoch")?;
        let made_us = i64::from_be_bytes(r.array("made")?);
        let next = r.u64("next")?;
        let last = SegmentHash(r.array("hash")?);
        r.take("signature", HEAD_BYTES - SIGNED_BYTES)?;
        r.finish()?;
        if reserved != 0 {
            return Err(HeadError::Reserved);
        }
        if next == 0 {
            return Err(HeadError::Empty);
        }
        let class = DataClass::from_u8(class).ok_or(HeadError::Class(class))?;
        let mut copy = Box::new([0; HEAD_BYTES]);
        copy.copy_from_slice(bytes);
        let head = Head { class, patient, generation, epoch, made_us, next, last };
        Ok(Self { head, signer, bytes: copy })
    }

    /// Checks that `device` signed this head (RFC 8032, strict).
    ///
    /// # Errors
    /// [`HeadError::Signer`] or [`HeadError::Signature`].
    pub fn verify(&self, device: &VerifyingKey) -> Result<(), HeadError> {
        signed::verify(&self.bytes[..], SIGNED_PREFIX, self.signer, device).map_err(|why| match why {
            Unsigned::Signer => HeadError::Signer,
            Unsigned::Signature => HeadError::Signature,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head() -> Head {
        Head {
            class: DataClass::Waveform,
            patient: PatientId([1; 16]),
            generation: 2,
            epoch: 29_000_000,
            made_us: 1_790_000_000_000_000,
            next: 7,
            last: SegmentHash([3; 32]),
        }
    }

    fn device() -> SigningKey {
        SigningKey::from_bytes(&[3; 32])
    }

    #[test]
    fn a_head_comes_back_and_only_its_signers_key_verifies() {
        let bytes = head().sign(&device());
        let signed = SignedHead::decode(&bytes).unwrap();
        assert_eq!((signed.head, signed.verify(&device().verifying_key())), (head(), Ok(())));
        let other = SigningKey::from_bytes(&[4; 32]).verifying_key();
        assert_eq!(signed.verify(&other), Err(HeadError::Signer));
    }

    #[test]
    fn the_layout_is_the_one_that_is_drawn() {
        let bytes = head().sign(&device());
        assert_eq!(bytes[..8], [b'C', b'G', b'H', b'D', 1, DataClass::Waveform as u8, 0, 0]);
        assert_eq!(
            (bytes[32..40].to_vec(), &bytes[48..56]),
            (vec![0, 0, 0, 2, 1, 186, 129, 64], &[0, 0, 0, 0, 0, 0, 0, 7][..])
        );
        assert_eq!(bytes[56..88], [3; 32]);
    }

    #[test]
    fn what_is_no_head_is_told_by_reason() {
        let bytes = head().sign(&device());
        let changed = |at: usize, to: u8| {
            let mut bytes = bytes;
            bytes[at] = to;
            SignedHead::decode(&bytes).map(|signed| signed.verify(&device().verifying_key()))
        };
        assert_eq!(changed(0, b'X'), Err(HeadError::Version));
        assert_eq!(changed(4, 2), Err(HeadError::Version));
        assert_eq!(changed(5, 99), Err(HeadError::Class(99)));
        assert_eq!(changed(7, 1), Err(HeadError::Reserved));
        assert_eq!(changed(55, 0), Err(HeadError::Empty));
        assert_eq!(changed(60, 0), Ok(Err(HeadError::Signature)));
        assert_eq!(changed(140, 0), Ok(Err(HeadError::Signature)));
    }

    proptest! {
        #[test]
        fn every_flip_is_refused_and_no_bytes_panic(at in 0..HEAD_BYTES * 8, other in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = head().sign(&device());
            bytes[at / 8] ^= 1 << (at % 8);
            let verified = SignedHead::decode(&bytes).and_then(|signed| signed.verify(&device().verifying_key()));
            prop_assert!(verified.is_err());
            drop(SignedHead::decode(&other));
        }
    }
}
