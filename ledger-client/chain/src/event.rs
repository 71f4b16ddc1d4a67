//! What the contract tells: its events, in the protocol's types.

use alloy::rpc::types::Log;
use alloy::sol_types::SolEventInterface as _;
use caregate_protocol::id::RecipientId;
use caregate_protocol::policy::{
    Commitment, Pseudonym, RecipientKind, RecipientStatus, SignedBinding, SignedEmergency, SignedGrant,
    SignedRevocation,
};

use crate::contract::Caregate::CaregateEvents;
use crate::convert::{
    SignedParticipantKey, kind, signed_binding, signed_emergency, signed_grant, signed_participant_key,
    signed_revocation, status,
};
use crate::error::ChainError;

/// One event and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEvent {
    /// Its block.
    pub block: u64,
    /// Its place among the block's events.
    pub index: u64,
    /// The transaction that made it.
    pub transaction: [u8; 32],
    /// What happened.
    pub event: Event,
}

/// What happened. The signatures have been checked by the contract and by nobody here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A patient granted.
    Granted(SignedGrant),
    /// A patient revoked.
    Revoked(SignedRevocation),
    /// A patient bound a device, or released it.
    DeviceBound {
        /// Of the binding in the contract.
        key: Commitment,
        /// What was signed.
        binding: SignedBinding,
    },
    /// The registrar says who takes part.
    ParticipantSet {
        /// Who.
        participant: RecipientId,
        /// None for one who takes no part.
        status: Option<RecipientStatus>,
        /// What it is to its patients.
        kind: RecipientKind,
        /// Whether it may break the glass.
        emergency: bool,
    },
    /// A participant has a new HPKE key.
    ParticipantKeySet(SignedParticipantKey),
    /// A domain broke the glass.
    EmergencyOpened(SignedEmergency),
    /// The registrar noted that somebody looked at an emergency.
    EmergencyReviewed {
        /// Whose.
        pseudonym: Pseudonym,
        /// By which domain.
        domain: RecipientId,
        /// Which one.
        number: u64,
    },
}

impl Event {
    /// Its name in the contract.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Granted(_) => "Granted",
            Self::Revoked(_) => "Revoked",
            Self::DeviceBound { .. } => "DeviceBound",
            Self::ParticipantSet { .. } => "ParticipantSet",
            Self::ParticipantKeySet(_) => "ParticipantKeySet",
            Self::EmergencyOpened(_) => "EmergencyOpened",
            Self::EmergencyReviewed { .. } => "EmergencyReviewed",
        }
    }

    fn of(decoded: &CaregateEvents) -> Option<Self> {
        Some(match decoded {
            CaregateEvents::Granted(event) => Self::Granted(signed_grant(&event.g, &event.signature)?),
            CaregateEvents::Revoked(event) => Self::Revoked(signed_revocation(&event.r, &event.signature)?),
            CaregateEvents::DeviceBound(event) => Self::DeviceBound {
                key: Commitment(event.key.0),
                binding: signed_binding(&event.b, &event.signature)?,
            },
            CaregateEvents::ParticipantSet(event) => Self::ParticipantSet {
                participant: RecipientId(event.participant.into_array()),
                status: status(event.status),
                kind: kind(event.kind),
                emergency: event.emergency,
            },
            CaregateEvents::ParticipantKeySet(event) => {
                Self::ParticipantKeySet(signed_participant_key(&event.k, &event.signature)?)
            }
            CaregateEvents::EmergencyOpened(event) => {
                Self::EmergencyOpened(signed_emergency(&event.e, &event.signature)?)
            }
            CaregateEvents::EmergencyReviewed(event) => Self::EmergencyReviewed {
                pseudonym: Pseudonym(event.pseudonym.0),
                domain: RecipientId(event.domain.into_array()),
                number: event.number,
            },
        })
    }
}

impl LedgerEvent {
    /// Reads what a node answered.
    pub(crate) fn decode(log: &Log) -> Result<Self, ChainError> {
        let malformed = |what: &str| ChainError::malformed("eth_getLogs", what);
        let decoded = CaregateEvents::decode_raw_log(log.topics(), &log.data().data)
            .map_err(|error| ChainError::malformed("eth_getLogs", error))?;
        Ok(Self {
            block: log.block_number.ok_or_else(|| malformed("an event without block"))?,
            index: log.log_index.ok_or_else(|| malformed("an event without index"))?,
            transaction: log.transaction_hash.ok_or_else(|| malformed("an event without transaction"))?.0,
            event: Event::of(&decoded).ok_or_else(|| malformed("a signature without 65 bytes"))?,
        })
    }
}
