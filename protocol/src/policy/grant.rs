//! What a patient signs. The signature's encoding (EIP-712) is in `ledger-client`; here are the values alone.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, de::Error as _};

use crate::id::{DataClass, IdError, RecipientId};

/// Fixed-length bytes as hexadecimal text with `0x`, as in Ethereum's JSON; `0x` may be left out when read.
pub(super) mod hex_bytes {
    use serde::{Deserialize, de::Error as _};

    pub(in crate::policy) fn serialize<S: serde::Serializer, const N: usize>(
        bytes: &[u8; N],
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("0x{}", hex::encode(bytes)))
    }

    pub(in crate::policy) fn deserialize<'de, D: serde::Deserializer<'de>, const N: usize>(
        d: D,
    ) -> Result<[u8; N], D::Error> {
        let text = String::deserialize(d)?;
        let mut bytes = [0; N];
        hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(&text), &mut bytes)
            .map_err(|_source| D::Error::custom(format_args!("must be {N} bytes in hexadecimal")))?;
        Ok(bytes)
    }
}

/// One patient's relation to one recipient, by a pseudonym of its own: two relationships of the same patient share
/// no bit, so that nobody who reads the ledger can link them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelationshipId(pub [u8; 32]);

impl fmt::Display for RelationshipId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

impl FromStr for RelationshipId {
    type Err = IdError;

    /// Takes hexadecimal text, with or without `0x`.
    fn from_str(s: &str) -> Result<Self, IdError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(s.strip_prefix("0x").unwrap_or(s), &mut bytes)
            .map_err(|_source| IdError::Hex { what: "relationship", bytes: 32 })?;
        Ok(Self(bytes))
    }
}

impl Serialize for RelationshipId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RelationshipId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

/// A recoverable ECDSA signature on secp256k1: r (32 bytes), s (32 bytes), v (27 or 28), as wallets write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EcdsaSignature(#[serde(with = "hex_bytes")] pub [u8; 65]);

/// The bit of `class` in a grant's class mask.
#[must_use]
pub fn class_bit(class: DataClass) -> u32 {
    1 << u32::from(class as u8)
}

/// What readings may be used for. The number is the bit in a grant's purpose mask; the names are HL7's PurposeOfUse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Purpose {
    /// Care of this patient (`TREAT`). The live path serves this purpose and no other.
    Treatment = 0,
    /// Research (`HRESCH`).
    Research = 1,
    /// The patient's own use, or a relative's in the patient's name (`PATRQT`).
    PatientRequest = 2,
}

impl Purpose {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Treatment, Self::Research, Self::PatientRequest];

    /// Its bit in a grant's purpose mask.
    #[must_use]
    pub fn bit(self) -> u32 {
        1 << u32::from(self as u8)
    }

    /// Its lower-case name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Treatment => "treatment",
            Self::Research => "research",
            Self::PatientRequest => "patient-request",
        }
    }
}

/// The patient's word that a recipient may open. Bits of the masks that this release doesn't know grant nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Which of the patient's relationships.
    pub relationship: RelationshipId,
    /// Who may open.
    pub grantee: RecipientId,
    /// Which data classes, bit `1 << DataClass`.
    pub classes: u32,
    /// For which purposes, bit `1 << Purpose`.
    pub purposes: u32,
    /// First second, Unix time, at which it holds.
    pub from: u64,
    /// First second, Unix time, at which it holds no more. There is no grant without an end.
    pub until: u64,
    /// How many seconds it may go on when the policy can't be refreshed.
    pub stale_bound_s: u32,
    /// Rises with each grant of this relationship; the highest one counts alone.
    pub version: u64,
}

/// The patient's word that no grant of the relationship up to and including `version` holds any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// Which of the patient's relationships.
    pub relationship: RelationshipId,
    /// The highest grant version that it ends.
    pub version: u64,
}

/// A grant and the patient's signature on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedGrant {
    /// What was signed.
    pub grant: Grant,
    /// By the relationship's grant key.
    pub signature: EcdsaSignature,
}

/// A revocation and the signature on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedRevocation {
    /// What was signed.
    pub revocation: Revocation,
    /// By the relationship's grant key or its revoke-only key.
    pub signature: EcdsaSignature,
}
