//! What governors sign (EIP-712): who takes part, who governs, what was looked at. Their word reaches a gateway only as a value under
//! a proof, so a gateway checks none of these signatures; tools make them.
//!
//! ```text
//! ParticipantChange(address participant,uint8 status,uint8 kind,bool emergency,uint64 version)
//! CouncilChange(address[] governors,uint8 threshold,uint64 delayS,uint64 version)
//! EmergencyReview(bytes32 pseudonym,address domain,uint64 number)
//! Objection(bytes32 change)
//! ```
//! A change is named by its own digest.

use caregate_protocol::id::RecipientId;
use caregate_protocol::policy::{Pseudonym, RecipientKind, RecipientStatus};

use super::address::Address;
use super::eip712::{Domain, Word, address, keccak256, number, struct_hash};

const PARTICIPANT_CHANGE_TYPE: &str =
    "ParticipantChange(address participant,uint8 status,uint8 kind,bool emergency,uint64 version)";
const COUNCIL_CHANGE_TYPE: &str =
    "CouncilChange(address[] governors,uint8 threshold,uint64 delayS,uint64 version)";
const REVIEW_TYPE: &str = "EmergencyReview(bytes32 pseudonym,address domain,uint64 number)";
const OBJECTION_TYPE: &str = "Objection(bytes32 change)";

/// Most governors, as in the contract.
pub const GOVERNORS_MAX: usize = 16;

/// Who takes part, and as what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParticipantChange {
    /// Who.
    pub participant: RecipientId,
    /// None for one who takes no part.
    pub status: Option<RecipientStatus>,
    /// What it is to its patients.
    pub kind: RecipientKind,
    /// Whether it may break the glass.
    pub emergency: bool,
    /// One more than the participant's changes so far.
    pub version: u64,
}

/// Who governs from then on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CouncilChange {
    /// 1 to [`GOVERNORS_MAX`], distinct.
    pub governors: Vec<Address>,
    /// How many of them a change needs.
    pub threshold: u8,
    /// Seconds that a change waits which widens.
    pub delay_s: u64,
    /// One more than the council's.
    pub version: u64,
}

/// A status as the contract has it.
#[must_use]
pub fn status_number(status: Option<RecipientStatus>) -> u8 {
    match status {
        None => 0,
        Some(RecipientStatus::Active) => 1,
        Some(RecipientStatus::Suspended) => 2,
    }
}

/// A kind as the contract has it.
#[must_use]
pub fn kind_number(kind: RecipientKind) -> u8 {
    match kind {
        RecipientKind::Other => 0,
        RecipientKind::Treating => 1,
    }
}

impl ParticipantChange {
    /// The 32 bytes that governors sign; the change's name.
    #[must_use]
    pub fn digest(&self, domain: &Domain) -> [u8; 32] {
        domain.digest(&struct_hash(
            PARTICIPANT_CHANGE_TYPE,
            &[
                address(&self.participant.0),
                number(status_number(self.status).into()),
                number(kind_number(self.kind).into()),
                number(self.emergency.into()),
                number(self.version),
            ],
        ))
    }
}

impl CouncilChange {
    /// The 32 bytes that governors sign; the change's name.
    #[must_use]
    pub fn digest(&self, domain: &Domain) -> [u8; 32] {
        let governors: Vec<Word> = self.governors.iter().map(|one| address(&one.0)).collect();
        domain.digest(&struct_hash(
            COUNCIL_CHANGE_TYPE,
            &[
                keccak256(&[governors.as_flattened()]),
                number(self.threshold.into()),
                number(self.delay_s),
                number(self.version),
            ],
        ))
    }
}

/// The 32 bytes that a governor signs who looked at an emergency.
#[must_use]
pub fn review_digest(whose: &Pseudonym, by: &RecipientId, nth: u64, domain: &Domain) -> [u8; 32] {
    domain.digest(&struct_hash(REVIEW_TYPE, &[whose.0, address(&by.0), number(nth)]))
}

/// The 32 bytes that a governor signs who is against a change.
#[must_use]
pub fn objection_digest(change: &[u8; 32], domain: &Domain) -> [u8; 32] {
    domain.digest(&struct_hash(OBJECTION_TYPE, &[*change]))
}
