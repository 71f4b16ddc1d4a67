//! Who takes part and who governs: what governors sign is sent, and what became of it is asked.

use alloy::primitives::B256;
use caregate_protocol::id::RecipientId;
use caregate_protocol::policy::{EcdsaSignature, Pseudonym};
use ledger_client::verify::{Address, CouncilChange, ParticipantChange, kind_number, status_number};

use crate::client::Chain;
use crate::contract::Caregate;
use crate::convert::{address, bytes, word20};
use crate::error::ChainError;
use crate::send::{Mined, RelayKey, SendError};

/// Who governs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Council {
    /// In the order of their seats.
    pub governors: Vec<Address>,
    /// How many of them a change needs.
    pub threshold: u8,
    /// Seconds that a change waits which widens.
    pub delay_s: u64,
    /// Rises by one with each change.
    pub version: u64,
}

/// A change on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingChange {
    /// How many governors are for it.
    pub approvals: u32,
    /// How many are against it.
    pub objections: u32,
    /// Unix time from which it may be applied; 0 while approvals are missing.
    pub ready_at: u64,
    /// Applied, or stopped.
    pub closed: bool,
}

fn participant_change(change: &ParticipantChange) -> Caregate::ParticipantChange {
    Caregate::ParticipantChange {
        participant: change.participant.0.into(),
        status: status_number(change.status),
        kind: kind_number(change.kind),
        emergency: change.emergency,
        version: change.version,
    }
}

fn council_change(change: &CouncilChange) -> Caregate::CouncilChange {
    Caregate::CouncilChange {
        governors: change.governors.iter().map(word20).collect(),
        threshold: change.threshold,
        delayS: change.delay_s,
        version: change.version,
    }
}

impl Chain {
    /// Who governs.
    ///
    /// # Errors
    /// No answer.
    pub async fn council(&self) -> Result<Council, ChainError> {
        let council = self.view(Caregate::councilCall {}).await?;
        let governors = self.view(Caregate::governorsCall {}).await?;
        Ok(Council {
            governors: governors.into_iter().map(address).collect(),
            threshold: council.threshold,
            delay_s: council.delayS,
            version: council.version,
        })
    }

    /// How often the governors changed a participant.
    ///
    /// # Errors
    /// No answer.
    pub async fn participant_version(&self, id: &RecipientId) -> Result<u64, ChainError> {
        self.view(Caregate::participantVersionsCall(id.0.into())).await
    }

    /// What became of a change, which is named by its digest.
    ///
    /// # Errors
    /// No answer.
    pub async fn pending_change(&self, change: &[u8; 32]) -> Result<PendingChange, ChainError> {
        let key = self.view(Caregate::changeKeyCall { change: B256::from(*change) }).await?;
        let state = self.view(Caregate::pendingChangesCall(key)).await?;
        Ok(PendingChange {
            approvals: state.approvals.count_ones(),
            objections: state.objections.count_ones(),
            ready_at: state.readyAt,
            closed: state.closed,
        })
    }

    /// Hands in a governor's approval of who takes part. The last one that is needed puts it in force, or has it wait.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn approve_participant(
        &self,
        change: &ParticipantChange,
        approval: &EcdsaSignature,
        relay: &RelayKey,
    ) -> Result<Mined, SendError> {
        let call =
            Caregate::approveParticipantCall { c: participant_change(change), signature: bytes(approval) };
        self.send(&call, relay).await
    }

    /// Puts a change in force that has waited.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn apply_participant(
        &self,
        change: &ParticipantChange,
        relay: &RelayKey,
    ) -> Result<Mined, SendError> {
        self.send(&Caregate::applyParticipantCall { c: participant_change(change) }, relay).await
    }

    /// Hands in a governor's approval of who governs.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn approve_council(
        &self,
        change: &CouncilChange,
        approval: &EcdsaSignature,
        relay: &RelayKey,
    ) -> Result<Mined, SendError> {
        let call = Caregate::approveCouncilCall { c: council_change(change), signature: bytes(approval) };
        self.send(&call, relay).await
    }

    /// Puts a change of who governs in force that has waited.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn apply_council(&self, change: &CouncilChange, relay: &RelayKey) -> Result<Mined, SendError> {
        self.send(&Caregate::applyCouncilCall { c: council_change(change) }, relay).await
    }

    /// Hands in a governor's word against a change.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn oppose(
        &self,
        change: &[u8; 32],
        objection: &EcdsaSignature,
        relay: &RelayKey,
    ) -> Result<Mined, SendError> {
        let o = Caregate::Objection { change: B256::from(*change) };
        self.send(&Caregate::opposeCall { o, signature: bytes(objection) }, relay).await
    }

    /// Hands in a governor's word that an emergency was looked at.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn review_emergency(
        &self,
        whose: &Pseudonym,
        by: &RecipientId,
        nth: u64,
        review: &EcdsaSignature,
        relay: &RelayKey,
    ) -> Result<Mined, SendError> {
        let r = Caregate::EmergencyReview { pseudonym: whose.0.into(), domain: by.0.into(), number: nth };
        self.send(&Caregate::reviewEmergencyCall { r, signature: bytes(review) }, relay).await
    }
}
