//! The heartbeat: a gateway's signed word that its watch lives. Carried, never stored (ADR 20).
//!
//! ```text
//!   0        4  5       8               16        24        32           96
//!   +--------+--+-------+---------------+---------+---------+------------+
//!   | "CGHB" |v | 0 0 0 | signer        | counter | at      | signature  |
//!   +--------+--+-------+---------------+---------+---------+------------+
//! v: version 1   counter: from 0 at each start   at: Unix µs at the gateway's start, and what its monotonic clock counted since
//! ```
//! The signature covers "caregate heartbeat 1\0" and bytes 0..32.

use std::time::Duration;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use thiserror::Error;

use crate::id::SignerId;
use crate::segment::signer_id;
use crate::signed::{self, Unsigned};
use crate::wire::{Reader, WireError};

/// Length of every heartbeat.
pub const BEAT_BYTES: usize = 96;
/// How often one is sent.
pub const BEAT_EVERY: Duration = Duration::from_secs(2);
/// First bytes of every heartbeat.
pub const MAGIC: [u8; 4] = *b"CGHB";
const VERSION: u8 = 1;
const SIGNED_PREFIX: &[u8] = b"caregate heartbeat 1\0";
const SIGNED_BYTES: usize = 32;

/// Why bytes are no heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BeatError {
    /// A field is missing or bytes follow the end.
    #[error("heartbeat: {0}")]
    Wire(#[from] WireError),
    /// Does not begin with [`MAGIC`], or another version.
    #[error("heartbeat: magic or version is not known")]
    Version,
    /// A reserved byte is not 0.
    #[error("heartbeat: a reserved byte is not 0")]
    Reserved,
    /// Of another key.
    #[error("heartbeat: signed by another gateway")]
    Signer,
    /// The signature does not hold.
    #[error("heartbeat: the signature does not hold")]
    Signature,
}

impl BeatError {
    /// A word for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Wire(_) => "truncated",
            Self::Version => "version",
            Self::Reserved => "reserved",
            Self::Signer => "signer",
            Self::Signature => "signature",
        }
    }
}

/// A heartbeat as received: parsed, not yet trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// Whose device key signed.
    pub signer: SignerId,
    /// From 0 at each start of the gateway.
    pub counter: u64,
    /// Unix microseconds at the gateway's start, and what its monotonic clock counted since.
    pub at_us: u64,
    bytes: Box<[u8; BEAT_BYTES]>,
}

impl Beat {
    /// Signs one.
    #[must_use]
    pub fn sign(counter: u64, at_us: u64, device: &SigningKey) -> [u8; BEAT_BYTES] {
        let mut out = [0; BEAT_BYTES];
        out[..4].copy_from_slice(&MAGIC);
        out[4] = VERSION;
        out[8..16].copy_from_slice(&signer_id(&device.verifying_key()).0);
        out[16..24].copy_from_slice(&counter.to_be_bytes());
        out[24..32].copy_from_slice(&at_us.to_be_bytes());
        let signature = device.sign(&[SIGNED_PREFIX, &out[..SIGNED_BYTES]].concat());
        out[SIGNED_BYTES..].copy_from_slice(&signature.to_bytes());
        out
    }

    /// Parses exactly one.
    ///
    /// # Errors
    /// [`BeatError`] of form; nothing is verified yet.
    pub fn decode(bytes: &[u8]) -> Result<Self, BeatError> {
        let mut r = Reader::new(bytes);
        if r.array("magic")? != MAGIC || r.u8("version")? != VERSION {
            return Err(BeatError::Version);
        }
        if r.array("reserved")? != [0; 3] {
            return Err(BeatError::Reserved);
        }
        let signer = SignerId(r.array("signer")?);
        let (counter, at_us) = (r.u64("counter")?, r.u64("at")?);
        r.take("signature", BEAT_BYTES - SIGNED_BYTES)?;
        r.finish()?;
        let mut copy = Box::new([0; BEAT_BYTES]);
        copy.copy_from_slice(bytes);
        Ok(Self { signer, counter, at_us, bytes: copy })
    }

    /// Checks that `device` signed this heartbeat (RFC 8032, strict).
    ///
    /// # Errors
    /// [`BeatError::Signer`] or [`BeatError::Signature`].
    pub fn verify(&self, device: &VerifyingKey) -> Result<(), BeatError> {
        signed::verify(&self.bytes[..], SIGNED_PREFIX, self.signer, device).map_err(|why| match why {
            Unsigned::Signer => BeatError::Signer,
            Unsigned::Signature => BeatError::Signature,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_comes_back_and_each_flipped_byte_is_seen() {
        let device = SigningKey::from_bytes(&[3; 32]);
        let bytes = Beat::sign(7, 1_790_000_000_000_000, &device);
        let beat = Beat::decode(&bytes).unwrap();
        assert_eq!((beat.counter, beat.at_us), (7, 1_790_000_000_000_000));
        assert_eq!(beat.verify(&device.verifying_key()), Ok(()));
        let other = SigningKey::from_bytes(&[4; 32]).verifying_key();
        assert_eq!(beat.verify(&other), Err(BeatError::Signer));
        for at in 0..BEAT_BYTES {
            let mut bytes = bytes;
            bytes[at] ^= 1;
            let seen = Beat::decode(&bytes).and_then(|beat| beat.verify(&device.verifying_key()));
            assert!(seen.is_err(), "byte {at}");
        }
        for end in 0..BEAT_BYTES {
            assert!(matches!(Beat::decode(&bytes[..end]), Err(BeatError::Wire(_) | BeatError::Version)));
        }
        assert!(Beat::decode(&[&bytes[..], &[0]].concat()).is_err());
    }
}
