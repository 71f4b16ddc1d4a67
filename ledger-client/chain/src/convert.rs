//! Between the contract's structs and the protocol's types.

use alloy::primitives::{Address as Word20, B256, Bytes};
use caregate_protocol::id::RecipientId;
use caregate_protocol::policy::{
    Commitment, EcdsaSignature, Emergency, Grant, Pseudonym, RecipientKind, RecipientStatus, RelationshipId,
    Revocation, SignedBinding, SignedEmergency, SignedGrant, SignedRevocation,
};
use ledger_client::verify::{Address, Anchor, SignedAnchor};

use crate::contract::Caregate;

pub(crate) fn word20(address: &Address) -> Word20 {
    Word20::from(address.0)
}

pub(crate) fn address(word: Word20) -> Address {
    Address(word.into_array())
}

pub(crate) fn bytes(signature: &EcdsaSignature) -> Bytes {
    Bytes::copy_from_slice(&signature.0)
}

/// A signature has 65 bytes; the contract emits no other.
pub(crate) fn signature(bytes: &Bytes) -> Option<EcdsaSignature> {
    bytes.as_ref().try_into().ok().map(EcdsaSignature)
}

pub(crate) fn grant_call(signed: &SignedGrant, revoke_key: &Address) -> Caregate::grantCall {
    let grant = &signed.grant;
    let g = Caregate::Grant {
        relationship: B256::from(grant.relationship.0),
        grantee: Word20::from(grant.grantee.0),
        classes: grant.classes,
        purposes: grant.purposes,
        from: grant.from,
        until: grant.until,
        staleBoundS: grant.stale_bound_s,
        version: grant.version,
    };
    Caregate::grantCall { g, revokeKey: word20(revoke_key), signature: bytes(&signed.signature) }
}

pub(crate) fn signed_grant(g: &Caregate::Grant, signed: &Bytes) -> Option<SignedGrant> {
    let grant = Grant {
        relationship: RelationshipId(g.relationship.0),
        grantee: RecipientId(g.grantee.into_array()),
        classes: g.classes,
        purposes: g.purposes,
        from: g.from,
        until: g.until,
        stale_bound_s: g.staleBoundS,
        version: g.version,
    };
    Some(SignedGrant { grant, signature: signature(signed)? })
}

pub(crate) fn revoke_call(
    signed: &SignedRevocation,
    other_key: &Address,
    by_revoke_key: bool,
) -> Caregate::revokeCall {
    let Revocation { relationship, version } = signed.revocation;
    Caregate::revokeCall {
        r: Caregate::Revocation { relationship: B256::from(relationship.0), version },
        otherKey: word20(other_key),
        byRevokeKey: by_revoke_key,
        signature: bytes(&signed.signature),
    }
}

pub(crate) fn signed_revocation(r: &Caregate::Revocation, signed: &Bytes) -> Option<SignedRevocation> {
    let revocation = Revocation { relationship: RelationshipId(r.relationship.0), version: r.version };
    Some(SignedRevocation { revocation, signature: signature(signed)? })
}

pub(crate) fn bind_call(signed: &SignedBinding) -> Caregate::bindDeviceCall {
    let b = Caregate::DeviceBinding {
        commitment: B256::from(signed.commitment.0),
        bound: signed.bound,
        version: signed.version,
    };
    Caregate::bindDeviceCall { b, signature: bytes(&signed.signature) }
}

pub(crate) fn signed_binding(b: &Caregate::DeviceBinding, signed: &Bytes) -> Option<SignedBinding> {
    Some(SignedBinding {
        commitment: Commitment(b.commitment.0),
        bound: b.bound,
        version: b.version,
        signature: signature(signed)?,
    })
}

/// A participant's HPKE key and its own signature on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedParticipantKey {
    /// Whose.
    pub participant: RecipientId,
    /// X25519.
    pub hpke_public_key: [u8; 32],
    /// Rises with each key.
    pub version: u64,
    /// By the participant.
    pub signature: EcdsaSignature,
}

pub(crate) fn participant_key_call(signed: &SignedParticipantKey) -> Caregate::setParticipantKeyCall {
    let k = Caregate::ParticipantKey {
        participant: Word20::from(signed.participant.0),
        hpkeKey: B256::from(signed.hpke_public_key),
        version: signed.version,
    };
    Caregate::setParticipantKeyCall { k, signature: bytes(&signed.signature) }
}

pub(crate) fn signed_participant_key(
    k: &Caregate::ParticipantKey,
    signed: &Bytes,
) -> Option<SignedParticipantKey> {
    Some(SignedParticipantKey {
        participant: RecipientId(k.participant.into_array()),
        hpke_public_key: k.hpkeKey.0,
        version: k.version,
        signature: signature(signed)?,
    })
}

pub(crate) fn emergency_call(signed: &SignedEmergency) -> Caregate::openEmergencyCall {
    let emergency = &signed.emergency;
    let e = Caregate::Emergency {
        pseudonym: B256::from(emergency.pseudonym.0),
        domain: Word20::from(emergency.domain.0),
        clinician: B256::from(emergency.clinician.0),
        reason: B256::from(emergency.reason.0),
        from: emergency.from,
        until: emergency.until,
        number: emergency.number,
    };
    Caregate::openEmergencyCall { e, signature: bytes(&signed.signature) }
}

pub(crate) fn signed_emergency(e: &Caregate::Emergency, signed: &Bytes) -> Option<SignedEmergency> {
    let emergency = Emergency {
        pseudonym: Pseudonym(e.pseudonym.0),
        domain: RecipientId(e.domain.into_array()),
        clinician: Commitment(e.clinician.0),
        reason: Commitment(e.reason.0),
        from: e.from,
        until: e.until,
        number: e.number,
    };
    Some(SignedEmergency { emergency, signature: signature(signed)? })
}

pub(crate) fn signed_anchor(a: &Caregate::Anchor, signed: &Bytes) -> Option<SignedAnchor> {
    let anchor = Anchor { log: address(a.log), first: a.first, last: a.last, root: a.root.0 };
    Some(SignedAnchor { anchor, signature: signature(signed)? })
}

pub(crate) fn status(number: u8) -> Option<RecipientStatus> {
    match number {
        1 => Some(RecipientStatus::Active),
        2 => Some(RecipientStatus::Suspended),
        _ => None,
    }
}

/// What isn't known to treat, doesn't.
pub(crate) fn kind(number: u8) -> RecipientKind {
    if number == 1 { RecipientKind::Treating } else { RecipientKind::Other }
}
