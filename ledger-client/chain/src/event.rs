//! What the contract tells: its events, in the protocol's types.

use alloy::rpc::types::Log;
use alloy::sol_types::SolEventInterface as _;
use caregate_protocol::id::RecipientId;
use caregate_protocol::policy::{
    Commitment, Pseudonym, RecipientKind, RecipientStatus, SignedBinding, SignedEmergency, SignedGrant,
    SignedRevocation, Succession,
};
use ledger_client::verify::{Address, NextKeys, SignedAnchor};

use crate::contract::Caregate::CaregateEvents;
use crate::convert::{
    SignedParticipantKey, address, kind, signed_anchor, signed_binding, signed_emergency, signed_grant,
    signed_participant_key, signed_revocation, status,
};
use crate::error::ChainError;
use crate::govern::Council;
use crate::succession::{Recovery, SignedCustody, next_keys, recovery, rotation, signed_custody};

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
    /// The governors say who takes part.
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
    /// A governor noted that somebody looked at an emergency.
    EmergencyReviewed {
        /// Whose.
        pseudonym: Pseudonym,
        /// By which domain.
        domain: RecipientId,
        /// Which one.
        number: u64,
    },
    /// A patient gave a relationship other keys.
    KeysRotated(Succession),
    /// A patient said who may recover a relationship.
    CustodiansSet(SignedCustody),
    /// Custodians ask for other keys.
    RecoveryBegun(Recovery),
    /// A relationship has the keys that its custodians asked for.
    KeysRecovered(NextKeys),
    /// A batch of an audit log is anchored.
    Anchored(SignedAnchor),
    /// A governor is for a change.
    ChangeApproved {
        /// Its name.
        change: [u8; 32],
        /// Who.
        governor: Address,
        /// Unix time from which it may be applied; 0 while approvals are missing.
        ready_at: u64,
    },
    /// A governor is against a change.
    ChangeOpposed {
        /// Its name.
        change: [u8; 32],
        /// Who.
        governor: Address,
        /// It can't come any more.
        stopped: bool,
    },
    /// Who governs has changed.
    CouncilSet(Council),
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
            Self::KeysRotated(_) => "KeysRotated",
            Self::KeysRecovered(_) => "KeysRecovered",
            Self::CustodiansSet(_) => "CustodiansSet",
            Self::RecoveryBegun(_) => "RecoveryBegun",
            Self::Anchored(_) => "Anchored",
            Self::ChangeApproved { .. } => "ChangeApproved",
            Self::ChangeOpposed { .. } => "ChangeOpposed",
            Self::CouncilSet(_) => "CouncilSet",
        }
    }

    /// None where a signature has not 65 bytes.
    fn of(decoded: &CaregateEvents) -> Option<Self> {
        Some(match decoded {
            CaregateEvents::Granted(event) => Self::Granted(signed_grant(&event.g, &event.signature)?),
            CaregateEvents::Revoked(event) => Self::Revoked(signed_revocation(&event.r, &event.signature)?),
            CaregateEvents::DeviceBound(event) => Self::DeviceBound {
                key: Commitment(event.key.0),
                binding: signed_binding(&event.b, &event.signature)?,
            },
            CaregateEvents::ParticipantKeySet(event) => {
                Self::ParticipantKeySet(signed_participant_key(&event.k, &event.signature)?)
            }
            CaregateEvents::EmergencyOpened(event) => {
                Self::EmergencyOpened(signed_emergency(&event.e, &event.signature)?)
            }
            CaregateEvents::KeysRotated(event) => Self::KeysRotated(rotation(&event.r, &event.signature)?),
            CaregateEvents::CustodiansSet(event) => {
                Self::CustodiansSet(signed_custody(&event.c, &event.signature)?)
            }
            CaregateEvents::RecoveryBegun(event) => Self::RecoveryBegun(recovery(event)?),
            CaregateEvents::KeysRecovered(event) => Self::KeysRecovered(next_keys(&event.r)),
            CaregateEvents::Anchored(event) => Self::Anchored(signed_anchor(&event.a, &event.signature)?),
            unsigned @ (CaregateEvents::ParticipantSet(_)
            | CaregateEvents::EmergencyReviewed(_)
            | CaregateEvents::ChangeApproved(_)
            | CaregateEvents::ChangeOpposed(_)
            | CaregateEvents::CouncilSet(_)) => Self::of_unsigned(unsigned)?,
        })
    }

    /// What needs no signature here: who signed is in the event, or nobody did.
    #[expect(clippy::wildcard_enum_match_arm, reason = "`of` has the others")]
    fn of_unsigned(decoded: &CaregateEvents) -> Option<Self> {
        Some(match decoded {
            CaregateEvents::ParticipantSet(event) => Self::ParticipantSet {
                participant: RecipientId(event.participant.into_array()),
                status: status(event.status),
                kind: kind(event.kind),
                emergency: event.emergency,
            },
            CaregateEvents::EmergencyReviewed(event) => Self::EmergencyReviewed {
                pseudonym: Pseudonym(event.pseudonym.0),
                domain: RecipientId(event.domain.into_array()),
                number: event.number,
            },
            CaregateEvents::ChangeApproved(event) => Self::ChangeApproved {
                change: event.change.0,
                governor: address(event.governor),
                ready_at: event.readyAt,
            },
            CaregateEvents::ChangeOpposed(event) => Self::ChangeOpposed {
                change: event.change.0,
                governor: address(event.governor),
                stopped: event.stopped,
            },
            CaregateEvents::CouncilSet(event) => Self::CouncilSet(Council {
                governors: event.governors.iter().copied().map(address).collect(),
                threshold: event.threshold,
                delay_s: event.delayS,
                version: event.version,
            }),
            _ => return None,
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
