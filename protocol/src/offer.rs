//! Policy by way of the core: what a feed hands to a gateway through a core that can neither read nor change it, and the gateway's signed
//! word on it (ADR 44).
//!
//! An offer is an envelope ([`crate::envelope`]) with magic "CGOF" and info "caregate offer 1"; in it, a byte for the kind and the message
//! as the local door takes it. Its name is the SHA-256 of the envelope's bytes. The verdict:
//! ```text
//!   0        4  5     8         16              48       56       64                128                    192
//!   +--------+--+-----+---------+---------------+--------+--------+-----------------+----------------------+
//!   | "CGVD" |v |0 0 0| signer  | offer         | number | epoch  | refused, 0 …    | Ed25519 signature    |
//!   +--------+--+-----+---------+---------------+--------+--------+-----------------+----------------------+
//! v: version 1   number: of the newest verified header, or of the bundle's   epoch: in force now
//! refused: the reason's name, of a-z 0-9 _, filled up with zeroes; empty where it is in force
//! ```
//! All numbers are big-endian. The gateway signs with its device key over "caregate verdict 1\0" ‖ bytes 0..128: a core can withhold a
//! verdict, and give neither another one nor that of another offer.

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use ring::digest::{SHA256, digest};
use thiserror::Error;

use crate::envelope::{ENVELOPE_BYTES, EnvelopeError, Kind as Envelope};
use crate::id::SignerId;
use crate::policy::BUNDLE_BYTES_MAX;
use crate::policy::delivery::{EMERGENCY_BYTES_MAX, REASON_BYTES_MAX, Verdict};
use crate::segment::signer_id;
use crate::signed::{self, Unsigned};
use crate::wire::{Reader, WireError};

/// First bytes of every offer.
pub const MAGIC: [u8; 4] = *b"CGOF";
/// Longest offer: a bundle, sealed.
pub const OFFER_BYTES_MAX: usize = ENVELOPE_BYTES + 1 + BUNDLE_BYTES_MAX;
/// Longest offer of a message alone, sealed. What is longer is a bundle.
pub const MESSAGE_OFFER_BYTES_MAX: usize = ENVELOPE_BYTES + 1 + EMERGENCY_BYTES_MAX;
/// First bytes of every verdict.
pub const VERDICT_MAGIC: [u8; 4] = *b"CGVD";
/// Length of a verdict.
pub const VERDICT_BYTES: usize = 192;
const ENVELOPE: Envelope = Envelope { magic: MAGIC, info: b"caregate offer 1" };
const VERSION: u8 = 1;
const SIGNED_BYTES: usize = 128;
const SIGNED_PREFIX: &[u8] = b"caregate verdict 1\0";

/// What is handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A policy bundle.
    Bundle = 1,
    /// A patient-signed revocation, as CBOR.
    Revocation = 2,
    /// A domain's signed emergency, as CBOR.
    Emergency = 3,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bundle, Self::Revocation, Self::Emergency];

    /// The kind with this number, if there is one.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// Its name, in URLs and for counters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bundle => "bundle",
            Self::Revocation => "revocation",
            Self::Emergency => "emergency",
        }
    }

    /// The kind with this name, if there is one.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Longest message of this kind, in bytes.
    #[must_use]
    pub fn bytes_max(self) -> usize {
        match self {
            Self::Bundle => BUNDLE_BYTES_MAX,
            Self::Revocation | Self::Emergency => EMERGENCY_BYTES_MAX,
        }
    }
}

/// Why the core did not carry an offer, or has no verdict on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// Names no gateway in its head.
    Malformed = 1,
    /// The gateway that it is for is not connected, or does not take offers. Nothing is kept for it: whoever offers takes another path.
    NotConnected = 2,
    /// More offers than a feed may make; try again later.
    TooOften = 3,
    /// As many as may be are on their way; try again.
    Busy = 4,
    /// It was carried, and the gateway has not answered. It may be in force.
    NoAnswer = 5,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Malformed, Self::NotConnected, Self::TooOften, Self::Busy, Self::NoAnswer];

    /// The refusal with this number, if there is one.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| *refusal as u8 == number)
    }

    /// A label for counters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NotConnected => "not_connected",
            Self::TooOften => "too_often",
            Self::Busy => "busy",
            Self::NoAnswer => "no_answer",
        }
    }
}

/// Why bytes are no offer, or no verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OfferError {
    /// More than there may be of this kind.
    #[error("offer has {0} bytes, which is too many")]
    TooLong(usize),
    /// Not sealed to this gateway, or not whole.
    #[error("offer: {0}")]
    Envelope(#[from] EnvelopeError),
    /// Neither bundle, nor revocation, nor emergency.
    #[error("offer: kind is not known")]
    Kind,
    /// A field of a verdict is missing or bytes follow the end.
    #[error("verdict: {0}")]
    Wire(#[from] WireError),
    /// Does not begin with the magic and version 1.
    #[error("verdict: magic or version is not known")]
    Version,
    /// A reserved byte is not zero.
    #[error("verdict: reserved bytes must be 0")]
    Reserved,
    /// Not a reason's name with zeroes after it.
    #[error("verdict: the reason is no name")]
    Reason,
    /// On another offer.
    #[error("verdict: on another offer")]
    Offer,
    /// Of another gateway.
    #[error("verdict: signed by another gateway")]
    Signer,
    /// The signature does not hold.
    #[error("verdict: the signature does not hold")]
    Signature,
}

impl OfferError {
    /// A word for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLong(_) => "too_long",
            Self::Envelope(source) => source.reason(),
            Self::Kind => "kind",
            Self::Wire(_) => "truncated",
            Self::Version => "version",
            Self::Reserved => "reserved",
            Self::Reason => "reason",
            Self::Offer => "offer",
            Self::Signer => "signer",
            Self::Signature => "signature",
        }
    }
}

impl From<Unsigned> for OfferError {
    fn from(why: Unsigned) -> Self {
        match why {
            Unsigned::Signer => Self::Signer,
            Unsigned::Signature => Self::Signature,
        }
    }
}

/// SHA-256 of a sealed offer: each sealing gives another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OfferHash(pub [u8; 32]);

impl OfferHash {
    /// Of these bytes.
    #[must_use]
    pub fn of(sealed: &[u8]) -> Self {
        let mut out = [0; 32];
        out.copy_from_slice(digest(&SHA256, sealed).as_ref());
        Self(out)
    }
}

/// What was handed in, opened. It carries its own authority: who sealed it does not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// What it is.
    pub kind: Kind,
    /// At most [`Kind::bytes_max`]; not yet looked at.
    pub message: Vec<u8>,
}

/// The gateway that a sealed offer is for.
///
/// # Errors
/// [`OfferError`] of form.
pub fn addressee(sealed: &[u8]) -> Result<SignerId, OfferError> {
    if sealed.len() > OFFER_BYTES_MAX {
        return Err(OfferError::TooLong(sealed.len()));
    }
    Ok(ENVELOPE.addressee(sealed)?)
}

impl Offer {
    /// Seals it to a gateway.
    ///
    /// # Errors
    /// [`OfferError::TooLong`]; [`OfferError::Envelope`] where the device key is none.
    pub fn seal(&self, gateway: &VerifyingKey) -> Result<Vec<u8>, OfferError> {
        self.check()?;
        Ok(ENVELOPE.seal(&[&[self.kind as u8], self.message.as_slice()].concat(), gateway)?)
    }

    fn check(&self) -> Result<(), OfferError> {
        let bytes = self.message.len();
        if bytes > self.kind.bytes_max() { Err(OfferError::TooLong(bytes)) } else { Ok(()) }
    }

    /// Opens one that is for this gateway. Nothing is verified yet but that it came whole.
    ///
    /// # Errors
    /// [`OfferError`].
    pub fn open(sealed: &[u8], device: &SigningKey) -> Result<Self, OfferError> {
        if sealed.len() > OFFER_BYTES_MAX {
            return Err(OfferError::TooLong(sealed.len()));
        }
        Self::decode_plain(&ENVELOPE.open(sealed, device)?)
    }

    /// Reads what was sealed.
    ///
    /// # Errors
    /// [`OfferError`].
    pub fn decode_plain(plain: &[u8]) -> Result<Self, OfferError> {
        let (kind, message) = plain.split_first().ok_or(OfferError::Kind)?;
        let kind = Kind::from_u8(*kind).ok_or(OfferError::Kind)?;
        let offer = Self { kind, message: message.to_vec() };
        offer.check()?;
        Ok(offer)
    }
}

/// A gateway's word on an offer, as received: parsed, not yet trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedVerdict {
    /// Whose device key signed.
    pub signer: SignerId,
    /// On which offer.
    pub offer: OfferHash,
    /// What it says.
    pub verdict: Verdict,
    bytes: Box<[u8; VERDICT_BYTES]>,
}

impl SignedVerdict {
    /// The signed bytes. A reason that is longer than there is room is cut.
    #[must_use]
    pub fn sign(verdict: &Verdict, offer: OfferHash, device: &SigningKey) -> [u8; VERDICT_BYTES] {
        let mut out = [0; VERDICT_BYTES];
        out[0..4].copy_from_slice(&VERDICT_MAGIC);
        out[4] = VERSION;
        out[8..16].copy_from_slice(&signer_id(&device.verifying_key()).0);
        out[16..48].copy_from_slice(&offer.0);
        out[48..56].copy_from_slice(&verdict.number.to_be_bytes());
        out[56..64].copy_from_slice(&verdict.epoch.to_be_bytes());
        let reason = verdict.refused.as_deref().unwrap_or_default().bytes().filter(|byte| is_reason(*byte));
        out[64..SIGNED_BYTES].iter_mut().zip(reason).for_each(|(to, byte)| *to = byte);
        let signature = device.sign(&[SIGNED_PREFIX, &out[..SIGNED_BYTES]].concat());
        out[SIGNED_BYTES..].copy_from_slice(&signature.to_bytes());
        out
    }

    /// Parses exactly one verdict.
    ///
    /// # Errors
    /// [`OfferError`] of form; nothing is verified yet.
    pub fn decode(bytes: &[u8]) -> Result<Self, OfferError> {
        let mut r = Reader::new(bytes);
        if r.array("magic")? != VERDICT_MAGIC || r.u8("version")? != VERSION {
            return Err(OfferError::Version);
        }
        if r.array("reserved")? != [0; 3] {
            return Err(OfferError::Reserved);
        }
        let (signer, offer) = (SignerId(r.array("signer")?), OfferHash(r.array("offer")?));
        let (number, epoch) = (r.u64("number")?, r.u64("epoch")?);
        let reason: [u8; REASON_BYTES_MAX] = r.array("refused")?;
        let length = reason.iter().position(|byte| *byte == 0).unwrap_or(reason.len());
        let (reason, rest) = reason.split_at(length);
        if !reason.iter().all(|byte| is_reason(*byte)) || rest.iter().any(|byte| *byte != 0) {
            return Err(OfferError::Reason);
        }
        let reason = String::from_utf8_lossy(reason).into_owned();
        r.take("signature", VERDICT_BYTES - SIGNED_BYTES)?;
        r.finish()?;
        let mut copy = Box::new([0; VERDICT_BYTES]);
        copy.copy_from_slice(bytes);
        let verdict = Verdict { number, epoch, refused: Some(reason).filter(|reason| !reason.is_empty()) };
        Ok(Self { signer, offer, verdict, bytes: copy })
    }

    /// Checks that it is on this offer, and that `device` signed it (RFC 8032, strict).
    ///
    /// # Errors
    /// [`OfferError::Offer`], [`OfferError::Signer`] or [`OfferError::Signature`].
    pub fn verify(self, offer: OfferHash, device: &VerifyingKey) -> Result<Verdict, OfferError> {
        if self.offer != offer {
            return Err(OfferError::Offer);
        }
        signed::verify(&*self.bytes, SIGNED_PREFIX, self.signer, device)?;
        Ok(self.verdict)
    }
}

fn is_reason(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> SigningKey {
        SigningKey::from_bytes(&[3; 32])
    }

    fn verdict(refused: Option<&str>) -> Verdict {
        Verdict { number: 7, epoch: 2, refused: refused.map(str::to_owned) }
    }

    #[test]
    fn only_the_gateway_that_it_is_for_opens_it_and_only_whole() {
        for kind in Kind::ALL {
            let offer = Offer { kind, message: vec![kind as u8; 200] };
            let sealed = offer.seal(&device().verifying_key()).unwrap();
            assert_eq!(addressee(&sealed), Ok(signer_id(&device().verifying_key())));
            assert_eq!(Offer::open(&sealed, &device()).as_ref(), Ok(&offer));
            assert!(!sealed.windows(50).any(|part| part == [kind as u8; 50]), "it can be read");
            let other = SigningKey::from_bytes(&[4; 32]);
            let refused = Offer::open(&sealed, &other).unwrap_err();
            assert_eq!(refused.reason(), "signer");
            for at in 0..sealed.len() {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert!(Offer::open(&changed, &device()).is_err(), "byte {at}");
                assert!(Offer::open(&sealed[..at], &device()).is_err(), "length {at}");
            }
            let again = offer.seal(&device().verifying_key()).unwrap();
            assert_ne!(OfferHash::of(&sealed), OfferHash::of(&again));
        }
    }

    #[test]
    fn each_kind_is_bounded_and_the_largest_fits() {
        for (kind, most) in [(Kind::Bundle, OFFER_BYTES_MAX), (Kind::Emergency, MESSAGE_OFFER_BYTES_MAX)] {
            let offer = Offer { kind, message: vec![0; kind.bytes_max()] };
            let sealed = offer.seal(&device().verifying_key()).unwrap();
            assert_eq!(sealed.len(), most);
            assert_eq!(Offer::open(&sealed, &device()), Ok(offer));
            let long = Offer { kind, message: vec![0; kind.bytes_max() + 1] };
            assert_eq!(long.seal(&device().verifying_key()).unwrap_err().reason(), "too_long");
            assert_eq!(Kind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(addressee(&vec![0; OFFER_BYTES_MAX + 1]).unwrap_err().reason(), "too_long");
        assert_eq!(Offer::decode_plain(&[]), Err(OfferError::Kind));
        assert_eq!(Offer::decode_plain(&[4, 0]), Err(OfferError::Kind));
    }

    #[test]
    fn a_verdict_is_of_one_gateway_on_one_offer() {
        let (offer, key) = (OfferHash([9; 32]), device().verifying_key());
        for refused in [
            None,
            Some("not_pinned"),
            Some("a_reason_of_64_characters_which_is_as_long_as_any_reason_can_be0"),
        ] {
            let bytes = SignedVerdict::sign(&verdict(refused), offer, &device());
            let read = SignedVerdict::decode(&bytes).unwrap();
            assert_eq!(read.clone().verify(offer, &key), Ok(verdict(refused)));
            assert_eq!(read.clone().verify(OfferHash([8; 32]), &key), Err(OfferError::Offer));
            let other = SigningKey::from_bytes(&[4; 32]).verifying_key();
            assert_eq!(read.verify(offer, &other), Err(OfferError::Signer));
            for at in 0..bytes.len() {
                let mut changed = bytes;
                changed[at] ^= 1;
                let verified = SignedVerdict::decode(&changed).and_then(|read| read.verify(offer, &key));
                assert!(verified.is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn golden_bytes() {
        let bytes = SignedVerdict::sign(&verdict(Some("not_pinned")), OfferHash([9; 32]), &device());
        let head = format!("4347564401000000{}", hex::encode(signer_id(&device().verifying_key()).0));
        let rest = format!("{}00000000000000070000000000000002", "09".repeat(32));
        let reason = format!("{}{}", hex::encode("not_pinned"), "00".repeat(54));
        assert_eq!(hex::encode(&bytes[..SIGNED_BYTES]), head + &rest + &reason);
        let mut planted = bytes;
        planted[64 + 20] = b'x';
        assert_eq!(SignedVerdict::decode(&planted), Err(OfferError::Reason));
        assert_eq!(SignedVerdict::decode(&bytes[..191]).unwrap_err().reason(), "truncated");
        assert_eq!(
            SignedVerdict::decode(&[bytes.as_slice(), &[0]].concat()).unwrap_err().reason(),
            "truncated"
        );
    }
}
