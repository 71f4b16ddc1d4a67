//! Erasure of a pseudonym: the patient's order, a gateway's signed request, and the signed receipts of those that have erased.
//!
//! ```text
//!   0        4  5     8               24       32                        97
//!   +--------+--+-----+---------------+--------+-------------------------+
//!   | "CGEO" |v |0 0 0| patient       | made   | ECDSA signature         |      the patient's order
//!   +--------+--+-----+---------------+--------+-------------------------+
//!
//!   0        4  5     8               24      32       40                        104
//!   +--------+--+-----+---------------+-------+--------+-------------------------+
//!   | "CGER" |v |0 0 0| patient       |signer | made   | Ed25519 signature       |      the request
//!   +--------+--+-----+---------------+-------+--------+-------------------------+
//!
//!   0        4  5  6   8          24        56       64      72       80          100            132         196
//!   +--------+--+--+---+----------+---------+--------+-------+--------+-----------+--------------+-----------+
//!   | "CGRC" |v |by|0 0| patient  | request |records | bytes | erased | recipient | issuer's key | signature |  the receipt
//!   +--------+--+--+---+----------+---------+--------+-------+--------+-----------+--------------+-----------+
//! v: version, 1; of a receipt 2   made, erased: Unix µs   by: 1 a core, 2 a feed, 3 a gateway   request: SHA-256 of the request's 104 bytes
//! ```
//! All numbers are big-endian. The order is what a patient's wallet hands to the gateway, signed with the home key (EIP-712,
//! `ledger-client`); it is of its time, so that one that was seen can't be handed in again. The request is signed with the device key of
//! the gateway that sealed what is to go, over "caregate erasure 1\0" ‖ bytes 0..40; it says the same however often it is made: what it
//! names stays erased. The receipt is signed with its issuer's own key (Ed25519), over "caregate receipt 2\0" ‖ bytes 0..132; a feed says
//! whose it is (`recipient`), the others have zeroes there.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use ring::digest::{SHA256, digest};
use thiserror::Error;

use crate::id::{PatientId, RecipientId, SignerId};
use crate::policy::EcdsaSignature;
use crate::segment::signer_id;
use crate::signed::{self, Unsigned};
use crate::wire::{Reader, WireError};

/// Length of a request.
pub const ERASURE_BYTES: usize = 104;
/// Length of a receipt.
pub const RECEIPT_BYTES: usize = 196;
/// Length of an order.
pub const ORDER_BYTES: usize = 97;
/// First bytes of every order.
pub const ORDER_MAGIC: [u8; 4] = *b"CGEO";
/// First bytes of every request.
pub const MAGIC: [u8; 4] = *b"CGER";
/// First bytes of every receipt.
pub const RECEIPT_MAGIC: [u8; 4] = *b"CGRC";
const VERSION: u8 = 1;
const RECEIPT_VERSION: u8 = 2;
const SIGNED_BYTES: usize = 40;
const SIGNED_PREFIX: &[u8] = b"caregate erasure 1\0";
const RECEIPT_SIGNED_BYTES: usize = 132;
const RECEIPT_SIGNED_PREFIX: &[u8] = b"caregate receipt 2\0";

/// Why bytes are no order, no request, or no receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ErasureError {
    /// A field is missing or bytes follow the end.
    #[error("erasure: {0}")]
    Wire(#[from] WireError),
    /// Does not begin with the magic and the version.
    #[error("erasure: magic or version is not known")]
    Version,
    /// A reserved byte is not zero.
    #[error("erasure: reserved bytes must be 0")]
    Reserved,
    /// Neither a core nor a feed nor a gateway.
    #[error("erasure: issuer of kind {0} is not known")]
    Issuer(u8),
    /// No Ed25519 public key.
    #[error("erasure: the issuer's key is none")]
    Key,
    /// The signer is another key than the one given.
    #[error("erasure: signed by another key")]
    Signer,
    /// The signature does not hold.
    #[error("erasure: signature does not verify")]
    Signature,
}

impl ErasureError {
    /// A label for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Wire(_) => "truncated",
            Self::Version => "version",
            Self::Reserved => "reserved",
            Self::Issuer(_) => "issuer",
            Self::Key => "key",
            Self::Signer => "signer",
            Self::Signature => "signature",
        }
    }
}

/// SHA-256 of a request's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestHash(pub [u8; 32]);

impl RequestHash {
    /// Of these bytes.
    #[must_use]
    pub fn of(request: &[u8]) -> Self {
        let mut out = [0; 32];
        out.copy_from_slice(digest(&SHA256, request).as_ref());
        Self(out)
    }
}

/// The patient's word to a gateway that nothing of the pseudonym is to stay: parsed, not yet trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedOrder {
    /// The pseudonym there.
    pub patient: PatientId,
    /// When it was signed, Unix time in microseconds by the wallet's clock.
    pub made_us: i64,
    /// By the patient's home key.
    pub signature: EcdsaSignature,
}

impl SignedOrder {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; ORDER_BYTES] {
        let mut out = [0; ORDER_BYTES];
        out[0..4].copy_from_slice(&ORDER_MAGIC);
        out[4] = VERSION;
        out[8..24].copy_from_slice(&self.patient.0);
        out[24..32].copy_from_slice(&self.made_us.to_be_bytes());
        out[32..].copy_from_slice(&self.signature.0);
        out
    }

    /// Parses exactly one order.
    ///
    /// # Errors
    /// Any [`ErasureError`] of form; nothing is verified yet.
    pub fn decode(bytes: &[u8]) -> Result<Self, ErasureError> {
        let mut r = Reader::new(bytes);
        if r.array("magic")? != ORDER_MAGIC || r.u8("version")? != VERSION {
            return Err(ErasureError::Version);
        }
        let reserved: [u8; 3] = r.array("reserved")?;
        let patient = PatientId(r.array("patient")?);
        let made_us = i64::from_be_bytes(r.array("made")?);
        let signature = EcdsaSignature(r.array("signature")?);
        r.finish()?;
        if reserved == [0; 3] {
            Ok(Self { patient, made_us, signature })
        } else {
            Err(ErasureError::Reserved)
        }
    }
}

/// What is asked for: that nothing of a pseudonym stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erasure {
    /// Whose readings go.
    pub patient: PatientId,
    /// When it was made, Unix time in microseconds by the gateway's clock.
    pub made_us: i64,
}

impl Erasure {
    /// The signed bytes.
    #[must_use]
    pub fn sign(&self, device: &SigningKey) -> [u8; ERASURE_BYTES] {
        let mut out = [0; ERASURE_BYTES];
        out[0..4].copy_from_slice(&MAGIC);
        out[4] = VERSION;
        out[8..24].copy_from_slice(&self.patient.0);
        out[24..32].copy_from_slice(&signer_id(&device.verifying_key()).0);
        out[32..40].copy_from_slice(&self.made_us.to_be_bytes());
        let signature = device.sign(&[SIGNED_PREFIX, &out[..SIGNED_BYTES]].concat());
        out[40..].copy_from_slice(&signature.to_bytes());
        out
    }
}

/// A request as received: parsed, not yet trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedErasure {
    /// What it says.
    pub erasure: Erasure,
    /// Whose device key signed.
    pub signer: SignerId,
    bytes: [u8; ERASURE_BYTES],
}

impl SignedErasure {
    /// Parses exactly one request.
    ///
    /// # Errors
    /// Any [`ErasureError`] of form; nothing is verified yet.
    pub fn decode(bytes: &[u8]) -> Result<Self, ErasureError> {
        let mut r = Reader::new(bytes);
        if r.array("magic")? != MAGIC || r.u8("version")? != VERSION {
            return Err(ErasureError::Version);
        }
        let reserved: [u8; 3] = r.array("reserved")?;
        let patient = PatientId(r.array("patient")?);
        let signer = SignerId(r.array("signer")?);
        let made_us = i64::from_be_bytes(r.array("made")?);
        r.take("signature", ERASURE_BYTES - SIGNED_BYTES)?;
        r.finish()?;
        if reserved != [0; 3] {
            return Err(ErasureError::Reserved);
        }
        let mut copy = [0; ERASURE_BYTES];
        copy.copy_from_slice(bytes);
        Ok(Self { erasure: Erasure { patient, made_us }, signer, bytes: copy })
    }

    /// Checks that `device` signed this request (RFC 8032, strict).
    ///
    /// # Errors
    /// [`ErasureError::Signer`] or [`ErasureError::Signature`].
    pub fn verify(&self, device: &VerifyingKey) -> Result<(), ErasureError> {
        signed::verify(&self.bytes, SIGNED_PREFIX, self.signer, device).map_err(|why| match why {
            Unsigned::Signer => ErasureError::Signer,
            Unsigned::Signature => ErasureError::Signature,
        })
    }

    /// The bytes as they were received.
    #[must_use]
    pub fn bytes(&self) -> &[u8; ERASURE_BYTES] {
        &self.bytes
    }

    /// What a receipt names.
    #[must_use]
    pub fn hash(&self) -> RequestHash {
        RequestHash::of(&self.bytes)
    }
}

/// Who has erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Issuer {
    /// A core: ciphertext, wraps and heads, on its disk.
    Core = 1,
    /// A feed: what it had opened and kept in memory.
    Feed = 2,
    /// A gateway: the root, and what waited for the core.
    Gateway = 3,
}

impl Issuer {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Feed => "feed",
            Self::Gateway => "gateway",
        }
    }

    fn from_u8(number: u8) -> Option<Self> {
        [Self::Core, Self::Feed, Self::Gateway].into_iter().find(|issuer| *issuer as u8 == number)
    }
}

/// What a receipt says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// What kind of part erased.
    pub issuer: Issuer,
    /// Whose readings went.
    pub patient: PatientId,
    /// Which request was carried out.
    pub request: RequestHash,
    /// Records that went.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When, Unix time in microseconds by the issuer's clock.
    pub erased_us: i64,
    /// Whose feed it is; [`NOBODY`] of a core or a gateway.
    pub recipient: RecipientId,
}

/// No recipient.
pub const NOBODY: RecipientId = RecipientId([0; 20]);

impl Receipt {
    /// The signed bytes.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> [u8; RECEIPT_BYTES] {
        let mut out = [0; RECEIPT_BYTES];
        out[0..4].copy_from_slice(&RECEIPT_MAGIC);
        out[4..6].copy_from_slice(&[RECEIPT_VERSION, self.issuer as u8]);
        out[8..24].copy_from_slice(&self.patient.0);
        out[24..56].copy_from_slice(&self.request.0);
        out[56..64].copy_from_slice(&self.records.to_be_bytes());
        out[64..72].copy_from_slice(&self.bytes.to_be_bytes());
        out[72..80].copy_from_slice(&self.erased_us.to_be_bytes());
        out[80..100].copy_from_slice(&self.recipient.0);
        out[100..132].copy_from_slice(key.verifying_key().as_bytes());
        let signature = key.sign(&[RECEIPT_SIGNED_PREFIX, &out[..RECEIPT_SIGNED_BYTES]].concat());
        out[132..].copy_from_slice(&signature.to_bytes());
        out
    }

    /// Parses exactly one receipt and checks its signature against the key that it names. Whether that key is the issuer's is for the
    /// caller to say: it is returned.
    ///
    /// # Errors
    /// Any [`ErasureError`].
    pub fn verify(bytes: &[u8]) -> Result<(Self, VerifyingKey), ErasureError> {
        let mut r = Reader::new(bytes);
        if r.array("magic")? != RECEIPT_MAGIC || r.u8("version")? != RECEIPT_VERSION {
            return Err(ErasureError::Version);
        }
        let issuer = r.u8("issuer")?;
        let reserved = r.u16("reserved")?;
        let patient = PatientId(r.array("patient")?);
        let request = RequestHash(r.array("request")?);
        let (records, size) = (r.u64("records")?, r.u64("bytes")?);
        let erased_us = i64::from_be_bytes(r.array("erased")?);
        let recipient = RecipientId(r.array("recipient")?);
        let key: [u8; 32] = r.array("key")?;
        let signature: [u8; 64] = r.array("signature")?;
        r.finish()?;
        if reserved != 0 {
            return Err(ErasureError::Reserved);
        }
        let issuer = Issuer::from_u8(issuer).ok_or(ErasureError::Issuer(issuer))?;
        let key = VerifyingKey::from_bytes(&key).map_err(|_source| ErasureError::Key)?;
        let signed = [RECEIPT_SIGNED_PREFIX, bytes.get(..RECEIPT_SIGNED_BYTES).unwrap_or_default()].concat();
        key.verify_strict(&signed, &Signature::from_bytes(&signature))
            .map_err(|_source| ErasureError::Signature)?;
        Ok((Self { issuer, patient, request, records, bytes: size, erased_us, recipient }, key))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn device() -> SigningKey {
        SigningKey::from_bytes(&[3; 32])
    }

    fn request() -> [u8; ERASURE_BYTES] {
        Erasure { patient: PatientId([1; 16]), made_us: 7 }.sign(&device())
    }

    fn receipt() -> Receipt {
        Receipt {
            issuer: Issuer::Core,
            patient: PatientId([1; 16]),
            request: RequestHash::of(&request()),
            records: 5,
            bytes: 6,
            erased_us: 8,
            recipient: RecipientId([9; 20]),
        }
    }

    #[test]
    fn a_request_comes_back_and_only_its_signers_key_verifies() {
        let signed = SignedErasure::decode(&request()).unwrap();
        assert_eq!((signed.erasure.patient, signed.erasure.made_us), (PatientId([1; 16]), 7));
        assert_eq!((signed.bytes(), signed.hash()), (&request(), RequestHash::of(&request())));
        assert_eq!(signed.verify(&device().verifying_key()), Ok(()));
        let other = SigningKey::from_bytes(&[4; 32]).verifying_key();
        assert_eq!(signed.verify(&other), Err(ErasureError::Signer));
    }

    #[test]
    fn an_order_comes_back_whole_or_not_at_all() {
        let order =
            SignedOrder { patient: PatientId([1; 16]), made_us: 7, signature: EcdsaSignature([2; 65]) };
        let bytes = order.encode();
        assert_eq!(SignedOrder::decode(&bytes), Ok(order));
        for at in [0, 4, 6] {
            let mut changed = bytes;
            changed[at] ^= 1;
            assert!(SignedOrder::decode(&changed).is_err(), "{at}");
        }
        assert_eq!((&bytes[8..24], &bytes[24..32]), (&[1; 16][..], &7_u64.to_be_bytes()[..]));
        assert!(
            SignedOrder::decode(&bytes[..96]).is_err()
                && SignedOrder::decode(&[bytes.as_slice(), &[0]].concat()).is_err()
        );
    }

    #[test]
    fn a_receipt_comes_back_with_its_issuers_key() {
        let bytes = receipt().sign(&device());
        assert_eq!(Receipt::verify(&bytes), Ok((receipt(), device().verifying_key())));
    }

    #[test]
    fn the_layouts_are_those_that_are_drawn() {
        let request = request();
        assert_eq!(request[..8], *b"CGER\x01\0\0\0");
        assert_eq!((&request[8..24], &request[32..40]), (&[1; 16][..], &7_u64.to_be_bytes()[..]));
        let receipt = receipt().sign(&device());
        assert_eq!(receipt[..8], *b"CGRC\x02\x01\0\0");
        assert_eq!(receipt[24..56], RequestHash::of(&request).0);
        assert_eq!(receipt[56..80], [0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 8]);
        assert_eq!(receipt[80..100], [9; 20]);
        assert_eq!(receipt[100..132], *device().verifying_key().as_bytes());
    }

    #[test]
    fn what_is_neither_is_told_by_reason() {
        let changed = |at: usize, to: u8| {
            let mut bytes = request();
            bytes[at] = to;
            SignedErasure::decode(&bytes).map(|signed| signed.verify(&device().verifying_key()))
        };
        assert_eq!(changed(0, b'X'), Err(ErasureError::Version));
        assert_eq!(changed(4, 2), Err(ErasureError::Version));
        assert_eq!(changed(6, 1), Err(ErasureError::Reserved));
        assert_eq!(changed(9, 2), Ok(Err(ErasureError::Signature)));
        let changed = |at: usize, to: u8| {
            let mut bytes = receipt().sign(&device());
            bytes[at] = to;
            Receipt::verify(&bytes).map(drop)
        };
        assert_eq!(changed(4, 1), Err(ErasureError::Version));
        assert_eq!(changed(5, 4), Err(ErasureError::Issuer(4)));
        assert_eq!(changed(7, 3), Err(ErasureError::Reserved));
        assert_eq!(changed(60, 3), Err(ErasureError::Signature));
    }

    proptest! {
        #[test]
        fn every_flip_is_refused_and_no_bytes_panic(
            at in 0..ERASURE_BYTES * 8,
            of_receipt in 0..RECEIPT_BYTES * 8,
            other in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut bytes = request();
            bytes[at / 8] ^= 1 << (at % 8);
            let verified = SignedErasure::decode(&bytes).and_then(|signed| signed.verify(&device().verifying_key()));
            prop_assert!(verified.is_err());
            let mut bytes = receipt().sign(&device());
            bytes[of_receipt / 8] ^= 1 << (of_receipt % 8);
            prop_assert!(Receipt::verify(&bytes).is_err());
            prop_assert!(SignedErasure::decode(&other).is_err() && Receipt::verify(&other).is_err());
            prop_assert!(SignedOrder::decode(&other).is_err());
        }
    }
}
