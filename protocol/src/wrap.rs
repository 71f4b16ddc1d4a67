//! A wrap: one node of the epoch tree, sealed by a gateway to one recipient with HPKE (RFC 9180, auth mode, DHKEM(X25519,
//! HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305; the sender's key is the device key, `kem.rs`) and signed with the device key. The signature is
//! for the core and for auditors, the mode for the recipient (docs/adr/0048-hpke-modes-and-signatures.md).
//!
//! ```text
//!   0        4  5  6     8               24      32   36   40                  60 61   64        96        144        208
//!   +--------+--+--+-----+---------------+-------+----+----+-------------------+--+----+---------+---------+-----------+
//!   | "CGWR" |v |cl|0    | patient       |signer |gen |epo | recipient         |dp|0   | enc     | sealed  | signature |
//!   +--------+--+--+-----+---------------+-------+----+----+-------------------+--+----+---------+---------+-----------+
//! v: version 2   cl: data class   gen: generation   epo: first epoch below the node   dp: the node's depth (32: one epoch)
//! ```
//! Bytes 0..64 are HPKE's associated data; the signature covers "caregate wrap 2\0" and bytes 0..144.

use std::fmt;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable, single_shot_open, single_shot_seal};
use serde::{Deserialize, Serialize, de::Error as _};
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::id::{DataClass, PatientId, RecipientId, SignerId};
use crate::kem::{self, PrivateKey, PublicKey, Suite};
use crate::key::TreeNode;
use crate::segment::signer_id;
use crate::signed::{self, Unsigned};
use crate::wire::{Reader, WireError};

/// Length of every wrap.
pub const WRAP_BYTES: usize = 208;
/// First bytes of every wrap.
pub const MAGIC: [u8; 4] = *b"CGWR";
const VERSION: u8 = 2;
const INFO: &[u8] = b"caregate wrap 2";
const SIGNED_PREFIX: &[u8] = b"caregate wrap 2\0";
const AAD_BYTES: usize = 64;
const SIGNED_BYTES: usize = 144;

/// Why bytes are no wrap, or why it was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WrapError {
    /// A field is missing or bytes follow the end.
    #[error("wrap: {0}")]
    Wire(#[from] WireError),
    /// Does not begin with [`MAGIC`], or a version that this code does not know.
    #[error("wrap: magic or version is not known")]
    Version,
    /// No such data class.
    #[error("wrap: class {0} is not known")]
    Class(u8),
    /// A reserved byte is not zero.
    #[error("wrap: a reserved byte is not 0")]
    Reserved,
    /// Epoch and depth name no node of the tree.
    #[error("wrap: epoch {epoch} at depth {depth} is no node")]
    Node {
        /// First epoch.
        epoch: u32,
        /// Level.
        depth: u8,
    },
    /// The signer is another key than the one given.
    #[error("wrap: signed by another key")]
    Signer,
    /// The signature does not hold.
    #[error("wrap: signature does not verify")]
    Signature,
    /// HPKE refused: another recipient's key, another gateway's, or changed bytes.
    #[error("wrap: does not open under these keys")]
    Open,
    /// A public key that HPKE can't use.
    #[error("wrap: the recipient's public key is invalid")]
    PublicKey,
}

impl WrapError {
    /// A label for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Wire(_) => "truncated",
            Self::Version => "version",
            Self::Class(_) => "class",
            Self::Reserved => "reserved",
            Self::Node { .. } => "node",
            Self::Signer => "signer",
            Self::Signature => "signature",
            Self::Open => "open",
            Self::PublicKey => "public_key",
        }
    }
}

/// A recipient's HPKE public key (X25519, 32 bytes; hexadecimal in text).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HpkePublicKey(pub [u8; 32]);

impl fmt::Debug for HpkePublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Serialize for HpkePublicKey {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for HpkePublicKey {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(String::deserialize(d)?, &mut bytes)
            .map_err(|_source| D::Error::custom("an HPKE public key is 32 bytes in hexadecimal"))?;
        Ok(Self(bytes))
    }
}

/// A recipient's HPKE private key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct HpkePrivateKey([u8; 32]);

impl HpkePrivateKey {
    /// Takes the key's bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key's bytes, for the key file.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public half.
    ///
    /// # Errors
    /// [`WrapError::Open`] if the bytes are no key.
    pub fn public_key(&self) -> Result<HpkePublicKey, WrapError> {
        let key = self.key()?;
        Ok(HpkePublicKey(to_array(&Suite::sk_to_pk(&key).to_bytes())))
    }

    fn key(&self) -> Result<PrivateKey, WrapError> {
        PrivateKey::from_bytes(&self.0).map_err(|_source| WrapError::Open)
    }
}

fn to_array(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(bytes);
    out
}

/// A fresh key pair for a recipient, from the system's random source.
#[must_use]
pub fn generate_keypair() -> (HpkePrivateKey, HpkePublicKey) {
    let (private, public) = Suite::gen_keypair();
    (HpkePrivateKey(to_array(&private.to_bytes())), HpkePublicKey(to_array(&public.to_bytes())))
}

/// A wrap as received: parsed, not yet trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrap {
    /// The data class.
    pub class: DataClass,
    /// Whose readings it opens.
    pub patient: PatientId,
    /// Whose device key signed.
    pub signer: SignerId,
    /// Raised by revocation.
    pub generation: u32,
    /// First epoch below the node.
    pub epoch: u32,
    /// For whom.
    pub recipient: RecipientId,
    /// The node's depth; 32 is one epoch.
    pub depth: u8,
    bytes: Box<[u8; WRAP_BYTES]>,
}

/// What a wrap opens, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WrapScope {
    /// The data class.
    pub class: DataClass,
    /// Whose readings.
    pub patient: PatientId,
    /// Raised by revocation.
    pub generation: u32,
    /// For whom.
    pub recipient: RecipientId,
}

impl WrapScope {
    /// Seals `node` to the recipient's `public_key` as from `device`, and signs the result.
    ///
    /// # Errors
    /// [`WrapError::PublicKey`].
    pub fn seal(
        &self,
        node: &TreeNode,
        public_key: &HpkePublicKey,
        device: &SigningKey,
    ) -> Result<[u8; WRAP_BYTES], WrapError> {
        let mut out = [0; WRAP_BYTES];
        out[0..4].copy_from_slice(&MAGIC);
        out[4..8].copy_from_slice(&[VERSION, self.class as u8, 0, 0]);
        out[8..24].copy_from_slice(&self.patient.0);
        out[24..32].copy_from_slice(&signer_id(&device.verifying_key()).0);
        out[32..36].copy_from_slice(&self.generation.to_be_bytes());
        out[36..40].copy_from_slice(&node.first().to_be_bytes());
        out[40..60].copy_from_slice(&self.recipient.0);
        out[60] = node.depth();
        let (aad, _) = out.split_at(AAD_BYTES);
        let of_key = |_source| WrapError::PublicKey;
        let to = PublicKey::from_bytes(&public_key.0).map_err(of_key)?;
        let from =
            (kem::private(device).map_err(of_key)?, kem::public(&device.verifying_key()).map_err(of_key)?);
        let (enc, sealed) = single_shot_seal::<ChaCha20Poly1305, HkdfSha256, Suite>(
            &OpModeS::Auth(from),
            &to,
            INFO,
            node.key(),
            aad,
        )
        .map_err(of_key)?;
        out[64..96].copy_from_slice(&enc.to_bytes());
        out[96..144].copy_from_slice(&sealed);
        let signature = device.sign(&[SIGNED_PREFIX, &out[..SIGNED_BYTES]].concat());
        out[144..208].copy_from_slice(&signature.to_bytes());
        Ok(out)
    }
}

impl Wrap {
    /// Last epoch below the node.
    #[must_use]
    pub fn last(&self) -> u32 {
        self.epoch | u32::MAX.checked_shr(u32::from(self.depth)).unwrap_or(0)
    }

    /// Parses exactly one wrap.
    ///
    /// # Errors
    /// Any [`WrapError`] of form; nothing is verified yet.
    pub fn decode(bytes: &[u8]) -> Result<Self, WrapError> {
        let mut r = Reader::new(bytes);
        if r.array("magic")? != MAGIC || r.u8("version")? != VERSION {
            return Err(WrapError::Version);
        }
        let class = r.u8("class")?;
        let reserved = r.u16("reserved")?;
        let patient = PatientId(r.array("patient")?);
        let signer = SignerId(r.array("signer")?);
        let generation = r.u32("generation")?;
        let epoch = r.u32("epoch")?;
        let recipient = RecipientId(r.array("recipient")?);
        let depth = r.u8("depth")?;
        if reserved != 0 || r.array("reserved")? != [0; 3] {
            return Err(WrapError::Reserved);
        }
        r.take("enc, sealed key and signature", WRAP_BYTES - AAD_BYTES)?;
        r.finish()?;
        let class = DataClass::from_u8(class).ok_or(WrapError::Class(class))?;
        TreeNode::new(epoch, depth, [0; 32]).ok_or(WrapError::Node { epoch, depth })?;
        let mut copy = Box::new([0; WRAP_BYTES]);
        copy.copy_from_slice(bytes);
        Ok(Self { class, patient, signer, generation, epoch, recipient, depth, bytes: copy })
    }

    /// Checks that `device` signed this wrap (RFC 8032, strict).
    ///
    /// # Errors
    /// [`WrapError::Signer`] or [`WrapError::Signature`].
    pub fn verify(&self, device: &VerifyingKey) -> Result<(), WrapError> {
        signed::verify(&self.bytes[..], SIGNED_PREFIX, self.signer, device).map_err(|why| match why {
            Unsigned::Signer => WrapError::Signer,
            Unsigned::Signature => WrapError::Signature,
        })
    }

    /// Opens the node of the epoch tree, which `device` has sealed; also without [`Wrap::verify`] by nobody else.
    ///
    /// # Errors
    /// [`WrapError::Open`].
    pub fn open(&self, key: &HpkePrivateKey, device: &VerifyingKey) -> Result<TreeNode, WrapError> {
        let from = kem::public(device).map_err(|_source| WrapError::Open)?;
        let enc = <Suite as Kem>::EncappedKey::from_bytes(&self.bytes[64..96])
            .map_err(|_source| WrapError::Open)?;
        let opened = single_shot_open::<ChaCha20Poly1305, HkdfSha256, Suite>(
            &OpModeR::Auth(from),
            &key.key()?,
            &enc,
            INFO,
            &self.bytes[96..144],
            &self.bytes[..AAD_BYTES],
        )
        .map(Zeroizing::new)
        .map_err(|_source| WrapError::Open)?;
        TreeNode::new(self.epoch, self.depth, to_array(&opened)).ok_or(WrapError::Open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{PatientRoot, TREE_DEPTH};

    fn device() -> SigningKey {
        SigningKey::from_bytes(&[3; 32])
    }

    fn leaf() -> TreeNode {
        PatientRoot::from_bytes([7; 32])
            .class_key(DataClass::Alarm, 2)
            .descend(29_000_000, TREE_DEPTH)
            .unwrap()
    }

    fn scope() -> WrapScope {
        WrapScope {
            class: DataClass::Alarm,
            patient: PatientId([2; 16]),
            generation: 2,
            recipient: RecipientId([5; 20]),
        }
    }

    #[test]
    fn the_recipient_opens_the_node_and_nobody_else_does() {
        let (private, public) = generate_keypair();
        let bytes = scope().seal(&leaf(), &public, &device()).unwrap();
        let wrap = Wrap::decode(&bytes).unwrap();
        wrap.verify(&device().verifying_key()).unwrap();
        let node = wrap.open(&private, &device().verifying_key()).unwrap();
        assert_eq!((node.first(), node.depth(), node.key()), (29_000_000, 32, leaf().key()));
        assert_eq!(private.public_key().unwrap(), public);
        let stranger = wrap.open(&generate_keypair().0, &device().verifying_key());
        assert!(matches!(stranger, Err(WrapError::Open)));
    }

    /// RFC 9180 §5.1.3: to the recipient alone, and without a look at the signature.
    #[test]
    fn a_wrap_opens_as_from_the_gateway_that_sealed_it_and_from_no_other() {
        let (private, public) = generate_keypair();
        let mut bytes = scope().seal(&leaf(), &public, &device()).unwrap();
        let other = SigningKey::from_bytes(&[4; 32]);
        let wrap = Wrap::decode(&bytes).unwrap();
        assert!(matches!(wrap.open(&private, &other.verifying_key()), Err(WrapError::Open)));
        // Another gateway that puts its own name and signature on it can't pass it off as its own.
        bytes[24..32].copy_from_slice(&signer_id(&other.verifying_key()).0);
        let signature = other.sign(&[SIGNED_PREFIX, &bytes[..SIGNED_BYTES]].concat());
        bytes[144..].copy_from_slice(&signature.to_bytes());
        let stolen = Wrap::decode(&bytes).unwrap();
        stolen.verify(&other.verifying_key()).unwrap();
        for named in [&other, &device()] {
            assert!(matches!(stolen.open(&private, &named.verifying_key()), Err(WrapError::Open)));
        }
    }

    /// Ten hours of a past, in the wraps of a few nodes: each opens its own epochs, and together exactly those.
    #[test]
    fn a_span_of_time_is_wrapped_in_few_nodes() {
        let (private, public) = generate_keypair();
        let class_key = PatientRoot::from_bytes([7; 32]).class_key(DataClass::Alarm, 2);
        let (first, last) = (29_000_123_u32, 29_000_722_u32);
        let nodes = crate::key::cover(first, last);
        assert!(nodes.len() <= 2 * 9, "2·log₂(600) is above 18: {}", nodes.len());
        let mut opens = std::collections::BTreeSet::new();
        for (epoch, depth) in nodes {
            let node = class_key.descend(epoch, depth).unwrap();
            let wrap = Wrap::decode(&scope().seal(&node, &public, &device()).unwrap()).unwrap();
            let opened = wrap.open(&private, &device().verifying_key()).unwrap();
            for epoch in first - 9..=last + 9 {
                let Some(key) = opened.epoch_key(epoch) else { continue };
                let salt = [1; 16];
                let key_of = |key: crate::key::EpochKey| {
                    *key.segment_key(&salt, PatientId([2; 16]), DataClass::Alarm, 1)
                };
                assert_eq!(key_of(key), key_of(class_key.epoch_key(epoch).unwrap()));
                assert!(opens.insert(epoch), "{epoch} twice");
            }
        }
        assert!(opens.into_iter().eq(first..=last));
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let (_, public) = generate_keypair();
        let bytes = scope().seal(&leaf(), &public, &device()).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes;
            changed[at] ^= 1;
            let noticed = match Wrap::decode(&changed) {
                Err(_) => true,
                Ok(wrap) => wrap.verify(&device().verifying_key()).is_err(),
            };
            assert!(noticed, "a flip at byte {at} went unnoticed");
            assert!(Wrap::decode(&bytes[..at]).is_err());
        }
    }

    #[test]
    fn a_wrap_for_another_recipient_id_does_not_open_even_with_the_right_key() {
        let (private, public) = generate_keypair();
        let mut bytes = scope().seal(&leaf(), &public, &device()).unwrap();
        bytes[45] ^= 1;
        let opened = Wrap::decode(&bytes).unwrap().open(&private, &device().verifying_key());
        assert!(matches!(opened, Err(WrapError::Open)));
    }

    #[test]
    fn a_small_order_public_key_is_refused() {
        assert_eq!(scope().seal(&leaf(), &HpkePublicKey([0; 32]), &device()), Err(WrapError::PublicKey));
    }
}
