//! The policy bundle: which ledger it is of, one header of it, trie nodes, and the signed messages that they prove. All policy reaches a gateway in it,
//! whoever carries it. Nothing in a bundle counts by itself; `ledger-client`'s `verify` decides.
//!
//! ```text
//! bundle      [3, chain, contract(20), header, [node, …], claims]                  where no keys and no validators were handed on
//!             [4, chain, contract(20), header, [node, …], claims, [header, …]]     the last list: each first header that other
//!                                                                                  validators sealed
//! claims      [epoch, [participant, …], [consent, …], [revocation, …], [binding, …], [emergency, …]]
//!             in version 4 also [succession, …]
//! participant [id(20), hpke key(32), key version, status, kind, emergency, signature(65)]
//! consent     [relationship(32), grantee(20), classes, purposes, from, until, stale bound, version, signature(65)]
//! revocation  [relationship(32), version, signature(65)]
//! binding     [commitment(32), bound, version, signature(65)]
//! emergency   [pseudonym(32), domain(20), clinician(32), reason(32), from, until, number, signature(65)]
//! ```

use minicbor::Encoder;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::grant::{
    EcdsaSignature, Grant, RelationshipId, Revocation, SignedGrant, SignedRevocation, hex_bytes,
};
use super::recipient::{RecipientKind, RecipientStatus};
use super::succession::Succession;
use crate::cbor::{CborError, Cursor};
use crate::id::RecipientId;

/// The format without what was handed on, which is the usual one.
pub const BUNDLE_VERSION: u8 = 3;
/// The format with it.
pub const BUNDLE_VERSION_HANDED_ON: u8 = 4;
/// Largest bundle: a ward of 256 patients with two grants each, whose proofs take some 1.2 kB apiece beyond the shared nodes.
pub const BUNDLE_BYTES_MAX: usize = 1 << 20;
/// Longest header: 64 validators and seals need 6 KiB.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Most trie nodes; more than fit [`BUNDLE_BYTES_MAX`] at their usual size.
pub const NODES_MAX: usize = 8192;
/// Largest trie node: a branch of 16 hashes has 532 bytes.
pub const NODE_BYTES_MAX: usize = 640;
/// Most participants, consents, revocations, bindings: each of 256 patients with four.
pub const CLAIMS_MAX: usize = 1024;
/// Most changes of validators that one bundle leads through. A gateway keeps where it has got to.
pub const HANDOVERS_MAX: usize = 16;
/// Most emergencies at once: more than a region has emergency domains that treat one gateway's patients.
pub const EMERGENCIES_MAX: usize = 64;

/// A patient's pseudonym for break-glass: random, known to whom the patient gives it (a card, a tag).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pseudonym(#[serde(with = "hex_bytes")] pub [u8; 32]);

/// A salted hash on the ledger that says nothing without its salt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Commitment(#[serde(with = "hex_bytes")] pub [u8; 32]);

/// A registered domain, its HPKE key and its signature on that key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParticipantClaim {
    /// Its ledger address.
    pub id: RecipientId,
    /// X25519.
    pub hpke_public_key: [u8; 32],
    /// Rises with each key.
    pub key_version: u64,
    /// By the governors.
    pub status: RecipientStatus,
    /// By the governors.
    pub kind: RecipientKind,
    /// Whether it may break the glass; by the governors.
    pub emergency: bool,
    /// By [`Self::id`], on `ParticipantKey(participant, hpkeKey, version)`.
    pub signature: EcdsaSignature,
}

/// The patient's word that a device is theirs, or no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedBinding {
    /// `keccak256(salt ‖ MAC ‖ device id)`.
    pub commitment: Commitment,
    /// Bound or no more.
    pub bound: bool,
    /// Rises with each change.
    pub version: u64,
    /// By the patient's home key.
    pub signature: EcdsaSignature,
}

/// Break-glass: a domain's signed, bounded access to a pseudonym.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emergency {
    /// Whose.
    pub pseudonym: Pseudonym,
    /// Which domain.
    pub domain: RecipientId,
    /// Who in it.
    pub clinician: Commitment,
    /// Why.
    pub reason: Commitment,
    /// First second, Unix time.
    pub from: u64,
    /// First second at which it holds no more.
    pub until: u64,
    /// Rises with each emergency of this domain and pseudonym.
    pub number: u64,
}

impl Emergency {
    /// Whether it says who breaks the glass and why: neither commitment is zero.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.clinician.0 != [0; 32] && self.reason.0 != [0; 32]
    }
}

/// An emergency and the domain's signature on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedEmergency {
    /// What was signed.
    pub emergency: Emergency,
    /// By [`Emergency::domain`].
    pub signature: EcdsaSignature,
}

/// What the proofs are about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claims {
    /// The ledger's policy epoch.
    pub epoch: u64,
    /// At most [`CLAIMS_MAX`].
    pub participants: Vec<ParticipantClaim>,
    /// At most [`CLAIMS_MAX`].
    pub consents: Vec<SignedGrant>,
    /// At most [`CLAIMS_MAX`]. They need no proof: the patient's signature is enough.
    pub revocations: Vec<SignedRevocation>,
    /// At most [`CLAIMS_MAX`].
    pub bindings: Vec<SignedBinding>,
    /// At most [`EMERGENCIES_MAX`].
    pub emergencies: Vec<SignedEmergency>,
    /// At most [`CLAIMS_MAX`], of each relationship in the order of their versions.
    pub successions: Vec<Succession>,
}

/// A ledger's name, a header of it, nodes and claims.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicyBundle {
    /// Of which chain it says it is (EIP-155): so that another one's is refused by its own reason. The signatures show it.
    pub chain_id: u64,
    /// Of which contract it says it is; the account's proof shows it.
    pub contract: [u8; 20],
    /// RLP, seals included.
    pub header: Vec<u8>,
    /// In any order, each once.
    pub nodes: Vec<Vec<u8>>,
    /// What they prove.
    pub claims: Claims,
    /// Of each change of validators the first header that the next ones sealed, oldest first; at most [`HANDOVERS_MAX`].
    pub handovers: Vec<Vec<u8>>,
}

/// Why bytes are no bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BundleError {
    /// Larger than [`BUNDLE_BYTES_MAX`].
    #[error("bundle has {0} bytes, allowed are {BUNDLE_BYTES_MAX}")]
    TooLarge(usize),
    /// Another format version.
    #[error("bundle version {0} is neither {BUNDLE_VERSION} nor {BUNDLE_VERSION_HANDED_ON}")]
    Version(u8),
    /// Malformed.
    #[error("bundle: {0}")]
    Cbor(#[from] CborError),
}

impl BundleError {
    /// A word for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "too_large",
            Self::Version(_) => "version",
            Self::Cbor(source) => source.reason(),
        }
    }
}

type Out<'o> = Encoder<&'o mut Vec<u8>>;
type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

fn put_list<T>(out: &mut Out<'_>, entries: &[T], put: impl Fn(&mut Out<'_>, &T) -> Written) -> Written {
    out.array(entries.len() as u64)?;
    entries.iter().try_for_each(|entry| put(out, entry))
}

impl ParticipantClaim {
    fn put(out: &mut Out<'_>, claim: &Self) -> Written {
        out.array(7)?.bytes(&claim.id.0)?.bytes(&claim.hpke_public_key)?.u64(claim.key_version)?;
        out.u8(match claim.status {
            RecipientStatus::Active => 1,
            RecipientStatus::Suspended => 2,
        })?;
        out.u8(match claim.kind {
            RecipientKind::Other => 0,
            RecipientKind::Treating => 1,
        })?;
        out.bool(claim.emergency)?.bytes(&claim.signature.0)?;
        Ok(())
    }

    fn take(cursor: &mut Cursor<'_>) -> Result<Self, CborError> {
        cursor.array_of("participant", 7)?;
        Ok(Self {
            id: RecipientId(cursor.fixed("participant.id")?),
            hpke_public_key: cursor.fixed("participant.hpke_public_key")?,
            key_version: cursor.u64("participant.key_version")?,
            status: cursor.item("participant.status", |decoder| match decoder.u8()? {
                1 => Ok(RecipientStatus::Active),
                2 => Ok(RecipientStatus::Suspended),
                _ => Err(minicbor::decode::Error::message("no status")),
            })?,
            kind: cursor.item("participant.kind", |decoder| match decoder.u8()? {
                0 => Ok(RecipientKind::Other),
                1 => Ok(RecipientKind::Treating),
                _ => Err(minicbor::decode::Error::message("no kind")),
            })?,
            emergency: cursor.bool("participant.emergency")?,
            signature: EcdsaSignature(cursor.fixed("participant.signature")?),
        })
    }
}

fn put_grant(out: &mut Out<'_>, signed: &SignedGrant) -> Written {
    let grant = &signed.grant;
    out.array(9)?
        .bytes(&grant.relationship.0)?
        .bytes(&grant.grantee.0)?
        .u32(grant.classes)?
        .u32(grant.purposes)?;
    out.u64(grant.from)?.u64(grant.until)?.u32(grant.stale_bound_s)?.u64(grant.version)?;
    out.bytes(&signed.signature.0)?;
    Ok(())
}

fn take_grant(cursor: &mut Cursor<'_>) -> Result<SignedGrant, CborError> {
    cursor.array_of("consent", 9)?;
    let grant = Grant {
        relationship: RelationshipId(cursor.fixed("consent.relationship")?),
        grantee: RecipientId(cursor.fixed("consent.grantee")?),
        classes: cursor.u32("consent.classes")?,
        purposes: cursor.u32("consent.purposes")?,
        from: cursor.u64("consent.from")?,
        until: cursor.u64("consent.until")?,
        stale_bound_s: cursor.u32("consent.stale_bound")?,
        version: cursor.u64("consent.version")?,
    };
    Ok(SignedGrant { grant, signature: EcdsaSignature(cursor.fixed("consent.signature")?) })
}

impl SignedRevocation {
    fn put(out: &mut Out<'_>, signed: &Self) -> Written {
        let Revocation { relationship, version } = &signed.revocation;
        out.array(3)?.bytes(&relationship.0)?.u64(*version)?.bytes(&signed.signature.0)?;
        Ok(())
    }

    fn take(cursor: &mut Cursor<'_>) -> Result<Self, CborError> {
        cursor.array_of("revocation", 3)?;
        let revocation = Revocation {
            relationship: RelationshipId(cursor.fixed("revocation.relationship")?),
            version: cursor.u64("revocation.version")?,
        };
        Ok(Self { revocation, signature: EcdsaSignature(cursor.fixed("revocation.signature")?) })
    }

    /// One alone, as CBOR: what is handed straight to a gateway.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encoded(|out| Self::put(out, self))
    }

    /// Reads one alone.
    ///
    /// # Errors
    /// [`CborError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let mut cursor = Cursor::new(bytes);
        let signed = Self::take(&mut cursor)?;
        cursor.finish()?;
        Ok(signed)
    }
}

fn put_binding(out: &mut Out<'_>, signed: &SignedBinding) -> Written {
    out.array(4)?
        .bytes(&signed.commitment.0)?
        .bool(signed.bound)?
        .u64(signed.version)?
        .bytes(&signed.signature.0)?;
    Ok(())
}

fn take_binding(cursor: &mut Cursor<'_>) -> Result<SignedBinding, CborError> {
    cursor.array_of("binding", 4)?;
    Ok(SignedBinding {
        commitment: Commitment(cursor.fixed("binding.commitment")?),
        bound: cursor.bool("binding.bound")?,
        version: cursor.u64("binding.version")?,
        signature: EcdsaSignature(cursor.fixed("binding.signature")?),
    })
}

fn put_emergency(out: &mut Out<'_>, signed: &SignedEmergency) -> Written {
    let emergency = &signed.emergency;
    out.array(8)?.bytes(&emergency.pseudonym.0)?.bytes(&emergency.domain.0)?;
    out.bytes(&emergency.clinician.0)?.bytes(&emergency.reason.0)?;
    out.u64(emergency.from)?.u64(emergency.until)?.u64(emergency.number)?.bytes(&signed.signature.0)?;
    Ok(())
}

fn take_emergency(cursor: &mut Cursor<'_>) -> Result<SignedEmergency, CborError> {
    cursor.array_of("emergency", 8)?;
    let emergency = Emergency {
        pseudonym: Pseudonym(cursor.fixed("emergency.pseudonym")?),
        domain: RecipientId(cursor.fixed("emergency.domain")?),
        clinician: Commitment(cursor.fixed("emergency.clinician")?),
        reason: Commitment(cursor.fixed("emergency.reason")?),
        from: cursor.u64("emergency.from")?,
        until: cursor.u64("emergency.until")?,
        number: cursor.u64("emergency.number")?,
    };
    Ok(SignedEmergency { emergency, signature: EcdsaSignature(cursor.fixed("emergency.signature")?) })
}

impl SignedEmergency {
    /// One alone, as CBOR: what is handed straight to a gateway.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encoded(|out| put_emergency(out, self))
    }

    /// Reads one alone.
    ///
    /// # Errors
    /// [`CborError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let mut cursor = Cursor::new(bytes);
        let signed = take_emergency(&mut cursor)?;
        cursor.finish()?;
        Ok(signed)
    }
}

fn encoded(put: impl FnOnce(&mut Out<'_>) -> Written) -> Vec<u8> {
    let mut bytes = Vec::new();
    match put(&mut Encoder::new(&mut bytes)) {
        // Writing to memory can't fail.
        Ok(()) | Err(_) => bytes,
    }
}

impl PolicyBundle {
    /// The bundle's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let claims = &self.claims;
        let is_usual = claims.successions.is_empty() && self.handovers.is_empty();
        encoded(|out| {
            let (version, fields, lists) =
                if is_usual { (BUNDLE_VERSION, 6, 6) } else { (BUNDLE_VERSION_HANDED_ON, 7, 7) };
            out.array(fields)?.u8(version)?.u64(self.chain_id)?.bytes(&self.contract)?.bytes(&self.header)?;
            put_list(out, &self.nodes, |out, node| out.bytes(node).map(|_| ()))?;
            out.array(lists)?.u64(claims.epoch)?;
            put_list(out, &claims.participants, ParticipantClaim::put)?;
            put_list(out, &claims.consents, put_grant)?;
            put_list(out, &claims.revocations, SignedRevocation::put)?;
            put_list(out, &claims.bindings, put_binding)?;
            put_list(out, &claims.emergencies, put_emergency)?;
            if is_usual {
                return Ok(());
            }
            put_list(out, &claims.successions, Succession::put)?;
            put_list(out, &self.handovers, |out, header| out.bytes(header).map(|_| ()))
        })
    }

    /// Reads a bundle. Nothing in it has been verified.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BundleError> {
        if bytes.len() > BUNDLE_BYTES_MAX {
            return Err(BundleError::TooLarge(bytes.len()));
        }
        let mut cursor = Cursor::new(bytes);
        let fields = cursor.array("bundle", 7)?;
        let version = cursor.u8("version")?;
        let is_usual = match (version, fields) {
            (BUNDLE_VERSION, 6) => true,
            (BUNDLE_VERSION_HANDED_ON, 7) => false,
            (BUNDLE_VERSION | BUNDLE_VERSION_HANDED_ON, _) => {
                return Err(CborError::Malformed { field: "bundle", at: 0 }.into());
            }
            (other, _) => return Err(BundleError::Version(other)),
        };
        let (chain_id, contract) = (cursor.u64("chain_id")?, cursor.fixed("contract")?);
        let header = cursor.bytes("header", HEADER_BYTES_MAX)?.to_vec();
        let nodes =
            cursor.list("nodes", NODES_MAX, |cursor| Ok(cursor.bytes("node", NODE_BYTES_MAX)?.to_vec()))?;
        cursor.array_of("claims", if is_usual { 6 } else { 7 })?;
        let mut claims = Claims {
            epoch: cursor.u64("epoch")?,
            participants: cursor.list("participants", CLAIMS_MAX, ParticipantClaim::take)?,
            consents: cursor.list("consents", CLAIMS_MAX, take_grant)?,
            revocations: cursor.list("revocations", CLAIMS_MAX, SignedRevocation::take)?,
            bindings: cursor.list("bindings", CLAIMS_MAX, take_binding)?,
            emergencies: cursor.list("emergencies", EMERGENCIES_MAX, take_emergency)?,
            successions: Vec::new(),
        };
        let mut handovers = Vec::new();
        if !is_usual {
            claims.successions = cursor.list("successions", CLAIMS_MAX, Succession::take)?;
            handovers = cursor.list("handovers", HANDOVERS_MAX, |cursor| {
                Ok(cursor.bytes("handover", HEADER_BYTES_MAX)?.to_vec())
            })?;
            // One spelling for each bundle.
            if claims.successions.is_empty() && handovers.is_empty() {
                return Err(BundleError::Version(version));
            }
        }
        cursor.finish()?;
        Ok(Self { chain_id, contract, header, nodes, claims, handovers })
    }
}

#[cfg(test)]
mod tests;
