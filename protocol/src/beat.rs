//! The heartbeat: a gateway's signed word that its watch lives, and of how the policy stands by which it seals. Carried, never stored
//! (ADR 20).
//!
//! ```text
//!   0        4  5  6    8               16        24        32           96
//!   +--------+--+--+----+---------------+---------+---------+------------+
//!   | "CGHB" |v |p |0 0 | signer        | counter | at      | signature  |
//!   +--------+--+--+----+---------------+---------+---------+------------+
//! v: version 2   counter: from 0 at each start   at: Unix µs at the gateway's start, and what its monotonic clock counted since
//! p: the policy's state: bit 0 stale, bit 1 the clock is not known, bit 2 one party seals the ledger; the others 0
//! ```
//! The signature covers "caregate heartbeat 2\0" and bytes 0..32.

use std::time::Duration;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::Serialize;
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
const VERSION: u8 = 2;
const SIGNED_PREFIX: &[u8] = b"caregate heartbeat 2\0";
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
    /// A reserved byte or bit is not 0.
    #[error("heartbeat: a reserved byte or bit is not 0")]
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

/// How the policy stands by which a gateway seals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PolicyState {
    /// Too old for anybody new to come in, of no known age, or not there yet.
    pub stale: bool,
    /// The gateway's clock was set back, and no newer header has come.
    pub clock_unknown: bool,
    /// One party seals the ledger that it follows.
    pub one_sealer: bool,
}

impl PolicyState {
    fn to_byte(self) -> u8 {
        let Self { stale, clock_unknown, one_sealer } = self;
        u8::from(stale) | u8::from(clock_unknown) << 1 | u8::from(one_sealer) << 2
    }

    fn of_byte(byte: u8) -> Option<Self> {
        let has = |bit: u8| byte & 1 << bit != 0;
        (byte < 8).then(|| Self { stale: has(0), clock_unknown: has(1), one_sealer: has(2) })
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
    /// As the gateway says.
    pub policy: PolicyState,
    bytes: Box<[u8; BEAT_BYTES]>,
}

impl Beat {
    /// Signs one.
    #[must_use]
    pub fn sign(counter: u64, at_us: u64, policy: PolicyState, device: &SigningKey) -> [u8; BEAT_BYTES] {
        let mut out = [0; BEAT_BYTES];
        out[..4].copy_from_slice(&MAGIC);
        out[4] = VERSION;
        out[5] = policy.to_byte();
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
        let policy = PolicyState::of_byte(r.u8("policy")?).ok_or(BeatError::Reserved)?;
        if r.array("reserved")? != [0; 2] {
            return Err(BeatError::Reserved);
        }
        let signer = SignerId(r.array("signer")?);
        let (counter, at_us) = (r.u64("counter")?, r.u64("at")?);
        r.take("signature", BEAT_BYTES - SIGNED_BYTES)?;
        r.finish()?;
        let mut copy = Box::new([0; BEAT_BYTES]);
        copy.copy_from_slice(bytes);
        Ok(Self { signer, counter, at_us, policy, bytes: copy })
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
        let policy = PolicyState { stale: true, clock_unknown: false, one_sealer: true };
        let bytes = Beat::sign(7, 1_790_000_000_000_000, policy, &device);
        let beat = Beat::decode(&bytes).unwrap();
        assert_eq!((beat.counter, beat.at_us, beat.policy), (7, 1_790_000_000_000_000, policy));
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

    #[test]
    fn each_state_of_the_policy_comes_back_and_no_other_bit_is_taken() {
        let device = SigningKey::from_bytes(&[3; 32]);
        for byte in 0..8 {
            let policy = PolicyState::of_byte(byte).unwrap();
            assert_eq!(policy.to_byte(), byte);
            let beat = Beat::decode(&Beat::sign(0, 0, policy, &device)).unwrap();
            assert_eq!(beat.policy, policy);
        }
        let mut bytes = Beat::sign(0, 0, PolicyState::default(), &device);
        for byte in 8..=u8::MAX {
            bytes[5] = byte;
            assert_eq!(Beat::decode(&bytes), Err(BeatError::Reserved));
        }
    }
}
