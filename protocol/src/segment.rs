//! A segment: readings of one patient and class, sealed and signed together.
//!
//! ```text
//!   0        4  5  6  7  8               24      32   36   40       48            80      96       104  108  112
//!   +--------+--+--+--+--+---------------+-------+----+----+--------+-------------+-------+--------+----+----+
//!   | "CGSG" |v |cl|ci|0 | patient       |signer |gen |epo |sequence| prev        | salt  |sealed  |rea |len |
//!   +--------+--+--+--+--+---------------+-------+----+----+--------+-------------+-------+--------+----+----+
//!   | ciphertext, `len` bytes, the last 16 of them the AEAD tag                                              |
//!   +--------------------------------------------------------------------------------------------------------+
//!   | Ed25519 signature, 64 bytes, over "caregate segment 1\0" ‖ header ‖ SHA-256(ciphertext)                |
//!   +--------------------------------------------------------------------------------------------------------+
//! v: version 1   cl: data class   ci: cipher   gen: generation   epo: epoch   sealed: Unix µs, gateway clock
//! rea: number of readings   prev: hash of the segment before it in the chain, zeroes for the first
//! ```
//! All numbers are big-endian. The header is the AEAD's associated data (RFC 5116); each segment has its own key, so the
//! nonce is fixed at zero. A segment's hash is SHA-256 over the signed bytes.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use thiserror::Error;

use crate::id::{DataClass, PatientId, SignerId};
use crate::key::EpochKey;
use crate::wire::{Reader, WireError};

/// Length of the header.
pub const HEADER_BYTES: usize = 112;
/// Length of the AEAD tag (both ciphers).
pub const TAG_BYTES: usize = 16;
/// Length of the signature.
pub const SIGNATURE_BYTES: usize = 64;
/// Most bytes of one segment: a group commit of a busy gateway is some 100 kB, so 1 MiB is never met by honest traffic.
pub const SEGMENT_BYTES_MAX: usize = 1 << 20;
/// First bytes of every segment.
pub const MAGIC: [u8; 4] = *b"CGSG";
const VERSION: u8 = 1;
const SIGNED_PREFIX: &[u8] = b"caregate segment 1\0";

/// SHA-256 over what a segment's signature covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentHash(pub [u8; 32]);

impl SegmentHash {
    /// `prev` of the first segment of a chain.
    pub const NONE: Self = Self([0; 32]);
}

/// Which AEAD sealed a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cipher {
    /// AES-256-GCM, where there is AES hardware.
    Aes256Gcm = 1,
    /// ChaCha20-Poly1305, where there is none.
    ChaCha20Poly1305 = 2,
}

impl Cipher {
    fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }

    fn key(self, key: &[u8; 32]) -> LessSafeKey {
        let algorithm = match self {
            Self::Aes256Gcm => &AES_256_GCM,
            Self::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let Ok(key) = UnboundKey::new(algorithm, key) else { unreachable!("both ciphers take 32-byte keys") };
        LessSafeKey::new(key)
    }
}

/// Why bytes are no segment, or why it was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SegmentError {
    /// A field is missing or bytes follow the end.
    #[error("segment: {0}")]
    Wire(#[from] WireError),
    /// Does not begin with [`MAGIC`].
    #[error("segment: wrong magic")]
    Magic,
    /// A version that this code does not know.
    #[error("segment: version {0} is not known")]
    Version(u8),
    /// No such data class.
    #[error("segment: class {0} is not known")]
    Class(u8),
    /// No such cipher.
    #[error("segment: cipher {0} is not known")]
    Cipher(u8),
    /// A reserved byte is not zero.
    #[error("segment: reserved byte is {0}, must be 0")]
    Reserved(u8),
    /// Longer than [`SEGMENT_BYTES_MAX`], or shorter than a tag.
    #[error("segment: ciphertext of {0} bytes is out of bounds")]
    Length(usize),
    /// The signer is another key than the one given.
    #[error("segment: signed by another key")]
    Signer,
    /// The signature does not hold.
    #[error("segment: signature does not verify")]
    Signature,
    /// The AEAD refused: another key, or changed bytes.
    #[error("segment: does not open under this key")]
    Open,
}

impl SegmentError {
    /// A label for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Wire(_) => "truncated",
            Self::Magic => "magic",
            Self::Version(_) => "version",
            Self::Class(_) => "class",
            Self::Cipher(_) => "cipher",
            Self::Reserved(_) => "reserved",
            Self::Length(_) => "length",
            Self::Signer => "signer",
            Self::Signature => "signature",
            Self::Open => "open",
        }
    }
}

/// What stands in clear in front of the ciphertext.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The data class.
    pub class: DataClass,
    /// Which AEAD.
    pub cipher: Cipher,
    /// Whose readings.
    pub patient: PatientId,
    /// Whose device key signed.
    pub signer: SignerId,
    /// Raised by revocation.
    pub generation: u32,
    /// Minute of the gateway's clock.
    pub epoch: u32,
    /// Number in the chain, from 0.
    pub sequence: u64,
    /// Hash of the segment before it.
    pub prev: SegmentHash,
    /// Random, for the segment key.
    pub salt: [u8; 16],
    /// Unix time in microseconds by the gateway's clock.
    pub sealed_us: i64,
    /// How many readings are inside.
    pub readings: u32,
}

impl Header {
    fn encode(&self, ciphertext_bytes: u32) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..4].copy_from_slice(&MAGIC);
        out[4..8].copy_from_slice(&[VERSION, self.class as u8, self.cipher as u8, 0]);
        out[8..24].copy_from_slice(&self.patient.0);
        out[24..32].copy_from_slice(&self.signer.0);
        out[32..36].copy_from_slice(&self.generation.to_be_bytes());
        out[36..40].copy_from_slice(&self.epoch.to_be_bytes());
        out[40..48].copy_from_slice(&self.sequence.to_be_bytes());
        out[48..80].copy_from_slice(&self.prev.0);
        out[80..96].copy_from_slice(&self.salt);
        out[96..104].copy_from_slice(&self.sealed_us.to_be_bytes());
        out[104..108].copy_from_slice(&self.readings.to_be_bytes());
        out[108..112].copy_from_slice(&ciphertext_bytes.to_be_bytes());
        out
    }

    /// Seals `plaintext` (the CBOR of the readings) and signs it. Returns the segment's bytes and its hash.
    ///
    /// # Errors
    /// [`SegmentError::Length`] if the result would exceed [`SEGMENT_BYTES_MAX`].
    pub fn seal(
        &self,
        plaintext: &[u8],
        key: &EpochKey,
        device: &SigningKey,
    ) -> Result<(Vec<u8>, SegmentHash), SegmentError> {
        let sealed = plaintext.len() + TAG_BYTES;
        let within = (HEADER_BYTES + sealed + SIGNATURE_BYTES) <= SEGMENT_BYTES_MAX;
        let length = u32::try_from(sealed).ok().filter(|_| within).ok_or(SegmentError::Length(sealed))?;
        let header = self.encode(length);
        let mut bytes = Vec::with_capacity(HEADER_BYTES + sealed + SIGNATURE_BYTES);
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(plaintext);
        let key = self.cipher.key(&key.segment_key(&self.salt, self.patient, self.class, self.sequence));
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let body = bytes.get_mut(HEADER_BYTES..).unwrap_or_default();
        let Ok(tag) = key.seal_in_place_separate_tag(nonce, Aad::from(header), body) else {
            return Err(SegmentError::Length(sealed));
        };
        bytes.extend_from_slice(tag.as_ref());
        let signed = signed_bytes(&header, bytes.get(HEADER_BYTES..).unwrap_or_default());
        bytes.extend_from_slice(&device.sign(&signed).to_bytes());
        Ok((bytes, hash_of(&signed)))
    }
}

fn signed_bytes(header: &[u8], ciphertext: &[u8]) -> Vec<u8> {
    [SIGNED_PREFIX, header, digest(&SHA256, ciphertext).as_ref()].concat()
}

fn hash_of(signed: &[u8]) -> SegmentHash {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, signed).as_ref());
    SegmentHash(out)
}

/// The short name of a device key: the first 8 bytes of SHA-256 over the public key.
#[must_use]
pub fn signer_id(key: &VerifyingKey) -> SignerId {
    let mut out = [0; 8];
    out.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref().get(..8).unwrap_or(&[0; 8]));
    SignerId(out)
}

/// A segment as received: parsed, not yet trusted.
#[derive(Debug, Clone)]
pub struct Segment<'a> {
    /// The fields in clear.
    pub header: Header,
    header_bytes: &'a [u8],
    ciphertext: &'a [u8],
    signature: [u8; SIGNATURE_BYTES],
}

impl<'a> Segment<'a> {
    /// Parses exactly one segment.
    ///
    /// # Errors
    /// Any [`SegmentError`] of form; nothing is verified yet.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, SegmentError> {
        if bytes.len() > SEGMENT_BYTES_MAX {
            return Err(SegmentError::Length(bytes.len()));
        }
        let mut r = Reader::new(bytes);
        let header_bytes = r.clone().take("header", HEADER_BYTES)?;
        if r.array("magic")? != MAGIC {
            return Err(SegmentError::Magic);
        }
        let version = r.u8("version")?;
        if version != VERSION {
            return Err(SegmentError::Version(version));
        }
        let class = r.u8("class")?;
        let cipher = r.u8("cipher")?;
        let reserved = r.u8("reserved")?;
        if reserved != 0 {
            return Err(SegmentError::Reserved(reserved));
        }
        let header = Header {
            class: DataClass::from_u8(class).ok_or(SegmentError::Class(class))?,
            cipher: Cipher::from_u8(cipher).ok_or(SegmentError::Cipher(cipher))?,
            patient: PatientId(r.array("patient")?),
            signer: SignerId(r.array("signer")?),
            generation: r.u32("generation")?,
            epoch: r.u32("epoch")?,
            sequence: r.u64("sequence")?,
            prev: SegmentHash(r.array("prev")?),
            salt: r.array("salt")?,
            sealed_us: i64::from_be_bytes(r.array("sealed")?),
            readings: r.u32("readings")?,
        };
        let length = usize::try_from(r.u32("length")?).unwrap_or(usize::MAX);
        if !(TAG_BYTES..=SEGMENT_BYTES_MAX).contains(&length) {
            return Err(SegmentError::Length(length));
        }
        let ciphertext = r.take("ciphertext", length)?;
        let signature = r.array("signature")?;
        r.finish()?;
        Ok(Self { header, header_bytes, ciphertext, signature })
    }

    /// The segment's hash, which the next of the chain carries as `prev`.
    #[must_use]
    pub fn hash(&self) -> SegmentHash {
        hash_of(&signed_bytes(self.header_bytes, self.ciphertext))
    }

    /// Checks that `device` signed this segment (RFC 8032, strict), and returns its hash.
    ///
    /// # Errors
    /// [`SegmentError::Signer`] or [`SegmentError::Signature`].
    pub fn verify(&self, device: &VerifyingKey) -> Result<SegmentHash, SegmentError> {
        if signer_id(device) != self.header.signer {
            return Err(SegmentError::Signer);
        }
        let signed = signed_bytes(self.header_bytes, self.ciphertext);
        match device.verify_strict(&signed, &Signature::from_bytes(&self.signature)) {
            Ok(()) => Ok(hash_of(&signed)),
            Err(_) => Err(SegmentError::Signature),
        }
    }

    /// Opens the ciphertext: the CBOR of the readings.
    ///
    /// # Errors
    /// [`SegmentError::Open`].
    pub fn open(&self, key: &EpochKey) -> Result<Vec<u8>, SegmentError> {
        let h = &self.header;
        let key = h.cipher.key(&key.segment_key(&h.salt, h.patient, h.class, h.sequence));
        let mut buffer = self.ciphertext.to_vec();
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let opened = match key.open_in_place(nonce, Aad::from(self.header_bytes), &mut buffer) {
            Ok(plaintext) => plaintext.len(),
            Err(_) => return Err(SegmentError::Open),
        };
        buffer.truncate(opened);
        Ok(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PatientRoot;

    fn header(cipher: Cipher) -> Header {
        Header {
            class: DataClass::Vitals,
            cipher,
            patient: PatientId([2; 16]),
            signer: signer_id(&device().verifying_key()),
            generation: 1,
            epoch: 29_000_000,
            sequence: 5,
            prev: SegmentHash([9; 32]),
            salt: [4; 16],
            sealed_us: 1_790_000_000_000_000,
            readings: 2,
        }
    }

    fn device() -> SigningKey {
        SigningKey::from_bytes(&[3; 32])
    }

    fn key() -> EpochKey {
        PatientRoot::from_bytes([7; 32]).class_key(DataClass::Vitals, 1).epoch_key(29_000_000).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_and_verifies_with_both_ciphers() {
        for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
            let (bytes, hash) = header(cipher).seal(b"hello", &key(), &device()).unwrap();
            let segment = Segment::decode(&bytes).unwrap();
            assert_eq!(segment.header, header(cipher));
            assert_eq!(segment.verify(&device().verifying_key()).unwrap(), hash);
            assert_eq!(segment.hash(), hash);
            assert_eq!(segment.open(&key()).unwrap(), b"hello");
        }
    }

    #[test]
    fn every_flipped_byte_is_noticed_and_none_panics() {
        let (bytes, _) = header(Cipher::Aes256Gcm).seal(b"hello", &key(), &device()).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let noticed = match Segment::decode(&changed) {
                Err(_) => true,
                Ok(segment) => segment.verify(&device().verifying_key()).is_err(),
            };
            assert!(noticed, "a flip at byte {at} went unnoticed");
        }
    }

    #[test]
    fn every_truncation_and_trailing_byte_is_refused() {
        let (mut bytes, _) = header(Cipher::Aes256Gcm).seal(b"hello", &key(), &device()).unwrap();
        for end in 0..bytes.len() {
            assert!(Segment::decode(&bytes[..end]).is_err());
        }
        bytes.push(0);
        assert!(matches!(Segment::decode(&bytes), Err(SegmentError::Wire(WireError::Trailing { .. }))));
    }

    #[test]
    fn the_header_is_bound_to_the_ciphertext_also_without_the_signature() {
        let (mut bytes, _) = header(Cipher::Aes256Gcm).seal(b"hello", &key(), &device()).unwrap();
        bytes[103] ^= 1; // sealed_us: enters no key, only the associated data
        assert_eq!(Segment::decode(&bytes).unwrap().open(&key()), Err(SegmentError::Open));
    }

    #[test]
    fn another_generation_opens_nothing() {
        let (bytes, _) = header(Cipher::Aes256Gcm).seal(b"hello", &key(), &device()).unwrap();
        let next =
            PatientRoot::from_bytes([7; 32]).class_key(DataClass::Vitals, 2).epoch_key(29_000_000).unwrap();
        assert_eq!(Segment::decode(&bytes).unwrap().open(&next), Err(SegmentError::Open));
    }

    #[test]
    fn what_would_not_fit_is_refused_before_it_is_sealed() {
        let plaintext = vec![0; SEGMENT_BYTES_MAX];
        assert!(matches!(
            header(Cipher::Aes256Gcm).seal(&plaintext, &key(), &device()),
            Err(SegmentError::Length(_))
        ));
    }

    #[test]
    fn the_layout_is_as_drawn() {
        let (bytes, _) = header(Cipher::Aes256Gcm).seal(b"hello", &key(), &device()).unwrap();
        assert_eq!(bytes.len(), HEADER_BYTES + 5 + TAG_BYTES + SIGNATURE_BYTES);
        assert_eq!(hex::encode(&bytes[..8]), "4347534701010100");
        assert_eq!(&bytes[32..48], hex::decode("0000000101ba81400000000000000005").unwrap());
        assert_eq!(&bytes[104..112], hex::decode("0000000200000015").unwrap());
    }
}
