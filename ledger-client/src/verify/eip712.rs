//! What is signed: typed structured data (EIP-712), so that a wallet can show the patient what it says.
//!
//! ```text
//! digest     = keccak256(0x19 ‖ 0x01 ‖ domain separator ‖ struct hash)
//! struct     = keccak256(keccak256(type text) ‖ word ‖ word ‖ …)      each field one 32-byte word
//! Grant(bytes32 relationship,address grantee,uint32 classes,uint32 purposes,
//!       uint64 from,uint64 until,uint32 staleBoundS,uint64 version)
//! Revocation(bytes32 relationship,uint64 version)
//! DeviceBinding(bytes32 commitment,bool bound,uint64 version)
//! ParticipantKey(address participant,bytes32 hpkeKey,uint64 version)
//! Emergency(bytes32 pseudonym,address domain,bytes32 clinician,bytes32 reason,
//!           uint64 from,uint64 until,uint64 number)
//! StaffCommand(bytes16 patient,address domain,uint64 sequence,uint64 issuedMs,uint64 expiresMs,
//!              bytes content)
//! ```
//! The patient's pseudonym is not signed: the relationship stands for it, and the gateway's pins tie the two.

use caregate_protocol::command::Command;
use caregate_protocol::id::{PatientId, RecipientId};
use caregate_protocol::policy::{Commitment, Emergency, Grant, Revocation};
use serde::{Deserialize, Serialize};
use sha3::{Digest, Keccak256};

use super::address::Address;

/// The domain's `name`.
pub const DOMAIN_NAME: &str = "Caregate";
/// The domain's `version`; it changes when a signed struct changes.
pub const DOMAIN_VERSION: &str = "1";

const DOMAIN_TYPE: &str =
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";
const GRANT_TYPE: &str = "Grant(bytes32 relationship,address grantee,uint32 classes,uint32 purposes,\
uint64 from,uint64 until,uint32 staleBoundS,uint64 version)";
const REVOCATION_TYPE: &str = "Revocation(bytes32 relationship,uint64 version)";
const ERASURE_TYPE: &str = "Erasure(bytes16 patient,uint64 madeUs)";
const BINDING_TYPE: &str = "DeviceBinding(bytes32 commitment,bool bound,uint64 version)";
const PARTICIPANT_KEY_TYPE: &str = "ParticipantKey(address participant,bytes32 hpkeKey,uint64 version)";
const EMERGENCY_TYPE: &str = "Emergency(bytes32 pseudonym,address domain,bytes32 clinician,bytes32 reason,\
uint64 from,uint64 until,uint64 number)";

const COMMAND_TYPE: &str = "StaffCommand(bytes16 patient,address domain,uint64 sequence,uint64 issuedMs,\
uint64 expiresMs,bytes content)";

pub(super) type Word = [u8; 32];

/// The ledger and contract for which a signature is meant; a grant signed for another one is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Domain {
    /// The chain's number (EIP-155).
    pub chain_id: u64,
    /// The consent contract.
    pub verifying_contract: Address,
}

pub(crate) fn keccak256(parts: &[&[u8]]) -> Word {
    let mut hash = Keccak256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

pub(super) fn number(value: u64) -> Word {
    let mut word = [0; 32];
    word[24..].copy_from_slice(&value.to_be_bytes());
    word
}

pub(super) fn address(value: &[u8; 20]) -> Word {
    let mut word = [0; 32];
    word[12..].copy_from_slice(value);
    word
}

pub(super) fn struct_hash(type_text: &str, words: &[Word]) -> Word {
    let type_hash = keccak256(&[type_text.as_bytes()]);
    keccak256(&[&type_hash, words.as_flattened()])
}

impl Domain {
    fn separator(&self) -> Word {
        struct_hash(
            DOMAIN_TYPE,
            &[
                keccak256(&[DOMAIN_NAME.as_bytes()]),
                keccak256(&[DOMAIN_VERSION.as_bytes()]),
                number(self.chain_id),
                address(&self.verifying_contract.0),
            ],
        )
    }

    pub(super) fn digest(&self, struct_hash: &Word) -> Word {
        keccak256(&[&[0x19, 0x01], &self.separator(), struct_hash])
    }
}

/// The 32 bytes that a grant key signs.
#[must_use]
pub fn grant_digest(grant: &Grant, domain: &Domain) -> [u8; 32] {
    domain.digest(&struct_hash(
        GRANT_TYPE,
        &[
            grant.relationship.0,
            address(&grant.grantee.0),
            number(grant.classes.into()),
            number(grant.purposes.into()),
            number(grant.from),
            number(grant.until),
            number(grant.stale_bound_s.into()),
            number(grant.version),
        ],
    ))
}

/// The 32 bytes that a grant key or a revoke-only key signs.
#[must_use]
pub fn revocation_digest(revocation: &Revocation, domain: &Domain) -> [u8; 32] {
    domain.digest(&struct_hash(REVOCATION_TYPE, &[revocation.relationship.0, number(revocation.version)]))
}

/// The 32 bytes that a home key signs.
#[must_use]
pub fn binding_digest(commitment: &Commitment, bound: bool, version: u64, domain: &Domain) -> [u8; 32] {
    let words = [commitment.0, number(bound.into()), number(version)];
    domain.digest(&struct_hash(BINDING_TYPE, &words))
}

/// The 32 bytes that a home key signs: nothing of this pseudonym is to stay, at this Unix time in microseconds.
#[must_use]
pub fn erasure_digest(patient: &PatientId, made_us: i64, domain: &Domain) -> [u8; 32] {
    // `bytes16` stands at the beginning of its word (EIP-712, "encodeData").
    let mut word = [0; 32];
    word[..16].copy_from_slice(&patient.0);
    let made = number(u64::try_from(made_us).unwrap_or(0));
    domain.digest(&struct_hash(ERASURE_TYPE, &[word, made]))
}

/// The 32 bytes that a participant signs: its own HPKE key.
#[must_use]
pub fn participant_key_digest(
    participant: &RecipientId,
    hpke_public_key: &[u8; 32],
    version: u64,
    domain: &Domain,
) -> [u8; 32] {
    let words = [address(&participant.0), *hpke_public_key, number(version)];
    domain.digest(&struct_hash(PARTICIPANT_KEY_TYPE, &words))
}

/// The 32 bytes that an emergency domain signs.
#[must_use]
pub fn emergency_digest(emergency: &Emergency, domain: &Domain) -> [u8; 32] {
    domain.digest(&struct_hash(
        EMERGENCY_TYPE,
        &[
            emergency.pseudonym.0,
            address(&emergency.domain.0),
            emergency.clinician.0,
            emergency.reason.0,
            number(emergency.from),
            number(emergency.until),
            number(emergency.number),
        ],
    ))
}

/// The 32 bytes that a domain signs when its staff act on a gateway's watch.
#[must_use]
pub fn command_digest(command: &Command, domain: &Domain) -> [u8; 32] {
    let mut patient = [0; 32];
    patient[..16].copy_from_slice(&command.patient.0);
    domain.digest(&struct_hash(
        COMMAND_TYPE,
        &[
            patient,
            address(&command.domain.0),
            number(command.sequence),
            number(command.issued_ms),
            number(command.expires_ms),
            keccak256(&[&command.content]),
        ],
    ))
}
