//! A relationship's keys hand on: the grant key names the next ones, or so many of the custodians do whom it named before.
//!
//! ```text
//! succession  [relationship(32), grant key(20), revoke key(20), version, signature(65) or empty, [] or [custodians]]
//! custodians  [custody version, custody signature(65), threshold, delay, salt(32), [key(20), …], [signature(65) or empty, …]]
//! ```
//! Exactly one of the two says so: a signature of the grant key so far, or the custodians.

use minicbor::Encoder;

use super::grant::{EcdsaSignature, RelationshipId};
use crate::cbor::{CborError, Cursor};

/// Most successions of one relationship that a gateway follows: a key a year, for as long as anybody has one relationship.
pub const SUCCESSIONS_MAX: usize = 16;
/// Most custodians, as in the contract.
pub const CUSTODIANS_MAX: usize = 8;

/// Other keys for a relationship.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Succession {
    /// Whose.
    pub relationship: RelationshipId,
    /// May grant from then on.
    pub grant_key: [u8; 20],
    /// May revoke from then on.
    pub revoke_key: [u8; 20],
    /// 1 for the first, then rising by one.
    pub version: u64,
    /// Who says so.
    pub by: SuccessionAuthority,
}

/// Who may hand on a relationship's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SuccessionAuthority {
    /// The grant key so far, on `KeyRotation`.
    GrantKey(EcdsaSignature),
    /// Custodians, on `KeyRecovery`.
    Custodians(Box<CustodianWord>),
}

/// What shows that custodians were named and have signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustodianWord {
    /// Of the `Custody` by which the grant key named them.
    pub custody_version: u64,
    /// By a grant key, on that `Custody`.
    pub custody_signature: EcdsaSignature,
    /// Opens the commitment: how many have to sign.
    pub threshold: u8,
    /// Opens the commitment: seconds that a recovery waits.
    pub delay_s: u64,
    /// Opens the commitment.
    pub salt: [u8; 32],
    /// Opens the commitment: rising; at most [`CUSTODIANS_MAX`].
    pub keys: Vec<[u8; 20]>,
    /// As many as keys; none where it is missing.
    pub signatures: Vec<Option<EcdsaSignature>>,
}

type Out<'o> = Encoder<&'o mut Vec<u8>>;
type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

fn put_signature(out: &mut Out<'_>, signature: Option<&EcdsaSignature>) -> Written {
    out.bytes(signature.map_or(&[], |signature| &signature.0)).map(|_| ())
}

fn take_signature(cursor: &mut Cursor<'_>, field: &'static str) -> Result<Option<EcdsaSignature>, CborError> {
    cursor.item(field, |decoder| {
        let bytes = decoder.bytes()?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let bytes = bytes.try_into().map_err(|_source| minicbor::decode::Error::message("not 65 bytes"))?;
        Ok(Some(EcdsaSignature(bytes)))
    })
}

impl CustodianWord {
    fn put(&self, out: &mut Out<'_>) -> Written {
        out.array(7)?.u64(self.custody_version)?.bytes(&self.custody_signature.0)?.u8(self.threshold)?;
        out.u64(self.delay_s)?.bytes(&self.salt)?.array(self.keys.len() as u64)?;
        for key in &self.keys {
            out.bytes(key)?;
        }
        out.array(self.signatures.len() as u64)?;
        self.signatures.iter().try_for_each(|signature| put_signature(out, signature.as_ref()))
    }

    fn take(cursor: &mut Cursor<'_>) -> Result<Self, CborError> {
        cursor.array_of("succession.custodians", 7)?;
        Ok(Self {
            custody_version: cursor.u64("custodians.version")?,
            custody_signature: EcdsaSignature(cursor.fixed("custodians.signature")?),
            threshold: cursor.u8("custodians.threshold")?,
            delay_s: cursor.u64("custodians.delay")?,
            salt: cursor.fixed("custodians.salt")?,
            keys: cursor.list("custodians.keys", CUSTODIANS_MAX, |cursor| cursor.fixed("custodians.key"))?,
            signatures: cursor.list("custodians.signatures", CUSTODIANS_MAX, |cursor| {
                take_signature(cursor, "custodians.signature")
            })?,
        })
    }
}

impl Succession {
    pub(super) fn put(out: &mut Out<'_>, one: &Self) -> Written {
        out.array(6)?.bytes(&one.relationship.0)?.bytes(&one.grant_key)?.bytes(&one.revoke_key)?;
        out.u64(one.version)?;
        match &one.by {
            SuccessionAuthority::GrantKey(signature) => {
                put_signature(out, Some(signature))?;
                out.array(0).map(|_| ())
            }
            SuccessionAuthority::Custodians(word) => {
                put_signature(out, None)?;
                out.array(1)?;
                word.put(out)
            }
        }
    }

    pub(super) fn take(cursor: &mut Cursor<'_>) -> Result<Self, CborError> {
        cursor.array_of("succession", 6)?;
        let relationship = RelationshipId(cursor.fixed("succession.relationship")?);
        let grant_key = cursor.fixed("succession.grant_key")?;
        let revoke_key = cursor.fixed("succession.revoke_key")?;
        let version = cursor.u64("succession.version")?;
        let signature = take_signature(cursor, "succession.signature")?;
        // Beside a signature there is no word of custodians; without one there is one.
        let words = usize::from(signature.is_none());
        cursor.array_of("succession.by", words)?;
        let by = match signature {
            Some(signature) => SuccessionAuthority::GrantKey(signature),
            None => SuccessionAuthority::Custodians(Box::new(CustodianWord::take(cursor)?)),
        };
        Ok(Self { relationship, grant_key, revoke_key, version, by })
    }
}
