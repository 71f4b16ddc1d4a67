//! Bytes that are sealed to a gateway's device key, so that the core, which carries them, can neither read nor change them.
//!
//! ```text
//!   0        4  5       8               16               48
//!   +--------+--+-------+---------------+----------------+-----------------+
//!   | magic  |v | 0 0 0 | signer        | enc            | sealed          |
//!   +--------+--+-------+---------------+----------------+-----------------+
//! v: version 1   signer: of the gateway that it is for
//! sealed = HPKE (RFC 9180, base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305) to the gateway's device key
//!          (`kem.rs`); info as the kind says, associated data bytes 0..16
//! ```
//! Base mode names no sender: what is in it carries its own authority.

use ed25519_dalek::{SigningKey, VerifyingKey};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable, single_shot_open, single_shot_seal};
use thiserror::Error;

use crate::id::SignerId;
use crate::kem::{self, Suite};
use crate::segment::signer_id;
use crate::wire::{Reader, WireError};

const VERSION: u8 = 1;
const AAD_BYTES: usize = 16;
const ENC_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
/// What an envelope adds to what is in it.
pub(crate) const ENVELOPE_BYTES: usize = AAD_BYTES + ENC_BYTES + TAG_BYTES;

/// Why bytes are no envelope for this gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EnvelopeError {
    /// A field is missing.
    #[error("envelope: {0}")]
    Wire(#[from] WireError),
    /// Does not begin with the kind's magic, or another version.
    #[error("envelope: magic or version is not known")]
    Version,
    /// A reserved byte is not 0.
    #[error("envelope: a reserved byte is not 0")]
    Reserved,
    /// For another gateway.
    #[error("envelope: for another gateway")]
    Signer,
    /// Was changed on its way, or sealed to another key.
    #[error("envelope: can't be opened")]
    Open,
    /// The device key can't be sealed to.
    #[error("envelope: the gateway's key is none")]
    Key,
}

impl EnvelopeError {
    /// A word for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Wire(_) => "truncated",
            Self::Version => "version",
            Self::Reserved => "reserved",
            Self::Signer => "signer",
            Self::Open => "open",
            Self::Key => "key",
        }
    }
}

/// What kind of thing is sealed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) magic: [u8; 4],
    pub(crate) info: &'static [u8],
}

impl Kind {
    /// The gateway that an envelope is for.
    pub(crate) fn addressee(self, bytes: &[u8]) -> Result<SignerId, EnvelopeError> {
        let mut r = Reader::new(bytes);
        if r.array("magic")? != self.magic || r.u8("version")? != VERSION {
            return Err(EnvelopeError::Version);
        }
        if r.array("reserved")? != [0; 3] {
            return Err(EnvelopeError::Reserved);
        }
        Ok(SignerId(r.array("signer")?))
    }

    /// Seals to a gateway.
    pub(crate) fn seal(self, plain: &[u8], gateway: &VerifyingKey) -> Result<Vec<u8>, EnvelopeError> {
        let mut out = Vec::with_capacity(ENVELOPE_BYTES + plain.len());
        out.extend_from_slice(&self.magic);
        out.extend_from_slice(&[VERSION, 0, 0, 0]);
        out.extend_from_slice(&signer_id(gateway).0);
        let to = kem::public(gateway).map_err(|_source| EnvelopeError::Key)?;
        let (enc, sealed) = single_shot_seal::<ChaCha20Poly1305, HkdfSha256, Suite>(
            &OpModeS::Base,
            &to,
            self.info,
            plain,
            &out,
        )
        .map_err(|_source| EnvelopeError::Key)?;
        out.extend_from_slice(&enc.to_bytes());
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// Opens one that is for this gateway.
    pub(crate) fn open(self, bytes: &[u8], device: &SigningKey) -> Result<Vec<u8>, EnvelopeError> {
        if self.addressee(bytes)? != signer_id(&device.verifying_key()) {
            return Err(EnvelopeError::Signer);
        }
        let mut r = Reader::new(bytes);
        let aad = r.take("header", AAD_BYTES)?;
        let enc = r.take("encapsulation", ENC_BYTES)?;
        let sealed = r.rest();
        let key = kem::private(device).map_err(|_source| EnvelopeError::Key)?;
        let enc = <Suite as Kem>::EncappedKey::from_bytes(enc).map_err(|_source| EnvelopeError::Open)?;
        single_shot_open::<ChaCha20Poly1305, HkdfSha256, Suite>(
            &OpModeR::Base,
            &key,
            &enc,
            self.info,
            sealed,
            aad,
        )
        .map_err(|_source| EnvelopeError::Open)
    }
}
