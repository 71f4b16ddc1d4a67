//! Why a bundle or a revocation does not count: one reason each, with a name for counters and for the verdict.

use std::fmt;

use caregate_protocol::policy::{AdmissionError, BundleError};
use thiserror::Error;

use super::address::Address;
use super::header::HeaderError;
use super::rlp::RlpError;
use super::signature::SignatureError;
use super::trie::TrieError;

/// Which claim of a bundle, as `consents[2]`; no pseudonym in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimPath {
    /// The list's name.
    pub list: &'static str,
    /// The place in it; none for `epoch`.
    pub index: Option<usize>,
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "{}[{index}]", self.list),
            None => f.write_str(self.list),
        }
    }
}

/// Why a storage proof shows no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProofError {
    /// The nodes lead nowhere.
    #[error(transparent)]
    Trie(#[from] TrieError),
    /// The value is none.
    #[error("the value: {0}")]
    Value(RlpError),
    /// There is no account at the contract's address.
    #[error("there is no such account")]
    Absent,
}

/// Why a signature is not its owner's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SignerError {
    /// Not a signature in its one allowed form.
    #[error(transparent)]
    Form(#[from] SignatureError),
    /// Signed by another key, for another ledger, or changed after it was signed.
    #[error("not signed by the key that it needs")]
    Other,
}

/// Why a bundle was refused as a whole; the policy before stays in force. In the order of the checks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BundleRefusal {
    /// No bundle.
    #[error(transparent)]
    Format(#[from] BundleError),
    /// It names another chain than the pinned one.
    #[error("the bundle is of chain {named}, not of chain {pinned}")]
    OtherChain {
        /// The bundle's.
        named: u64,
        /// The enrolment's.
        pinned: u64,
    },
    /// It names another contract than the pinned one.
    #[error("the bundle is of contract {named}, not of contract {pinned}")]
    OtherContract {
        /// The bundle's.
        named: Address,
        /// The enrolment's.
        pinned: Address,
    },
    /// The header or its seals.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// Below a block that was verified before, or another one with its number.
    #[error("block {number} is behind block {floor}, or not the same")]
    HeaderOlder {
        /// The header's number.
        number: u64,
        /// The newest verified one.
        floor: u64,
    },
    /// More than [`super::HEADER_AHEAD_MAX_S`] ahead.
    #[error("the header is {ahead_s} s ahead of this clock")]
    HeaderFuture {
        /// By how much.
        ahead_s: u64,
    },
    /// The contract's account is not proven.
    #[error("the contract's account: {0}")]
    AccountProof(ProofError),
    /// A value is not proven.
    #[error("{path}: {source}")]
    StorageProof {
        /// Which claim's.
        path: ClaimPath,
        /// What is wrong with the proof.
        source: ProofError,
    },
    /// The ledger's epoch is below one that was in force.
    #[error("policy epoch {epoch} is behind epoch {floor}, which was already in force")]
    EpochWentBack {
        /// The slot's.
        epoch: u64,
        /// The highest one in force before.
        floor: u64,
    },
    /// A claim is not what its slot holds.
    #[error("{0} differs from its slot")]
    SlotMismatch(ClaimPath),
    /// A participant's key is not the participant's word.
    #[error("{path}: {source}")]
    ParticipantSignature {
        /// Which claim.
        path: ClaimPath,
        /// Why.
        source: SignerError,
    },
    /// A grant is not the grant key's.
    #[error("{path}: {source}")]
    GrantSignature {
        /// Which claim.
        path: ClaimPath,
        /// Why.
        source: SignerError,
    },
    /// A revocation is of neither of the relationship's keys.
    #[error("{path}: {source}")]
    RevocationSignature {
        /// Which claim.
        path: ClaimPath,
        /// Why.
        source: SignerError,
    },
    /// Keys that follow others are not the word of those before, nor of custodians whom they named.
    #[error("{path}: {source}")]
    SuccessionSignature {
        /// Which claim.
        path: ClaimPath,
        /// Why.
        source: SignerError,
    },
    /// Keys that don't follow those before by one, or too many of them.
    #[error("{0} does not follow the keys before it")]
    SuccessionOrder(ClaimPath),
    /// A binding is not the home key's.
    #[error("{path}: {source}")]
    BindingSignature {
        /// Which claim.
        path: ClaimPath,
        /// Why.
        source: SignerError,
    },
    /// An emergency is not its domain's.
    #[error("{path}: {source}")]
    EmergencySignature {
        /// Which claim.
        path: ClaimPath,
        /// Why.
        source: SignerError,
    },
    /// A relationship, device or pseudonym that was not pinned here.
    #[error("{0} was not pinned here")]
    NotPinned(ClaimPath),
    /// The domain takes no part, or may not break the glass.
    #[error("{0} is of a domain that may not break the glass")]
    EmergencyStranger(ClaimPath),
    /// Names no clinician or gives no reason.
    #[error("{0} does not say who breaks the glass and why")]
    EmergencyUnnamed(ClaimPath),
    /// Longer than [`super::EMERGENCY_MAX_S`].
    #[error("{0} lasts longer than four hours")]
    EmergencyTooLong(ClaimPath),
    /// More relationships than are remembered.
    #[error(transparent)]
    Floors(AdmissionError),
}

impl BundleRefusal {
    /// Every reason's name: the labels of a counter, and what a verdict says.
    pub const REASONS: [&str; 37] = [
        "too_large",
        "version",
        "truncated",
        "malformed",
        "too_many",
        "trailing",
        "other_chain",
        "other_contract",
        "header_rlp",
        "qbft_extra",
        "validators_other",
        "validator_unknown",
        "seal_duplicate",
        "seal_signature",
        "quorum",
        "handover",
        "header_older",
        "header_future",
        "account_proof",
        "storage_proof",
        "epoch_went_back",
        "epoch_mismatch",
        "participant_mismatch",
        "emergency_mismatch",
        "slot_mismatch",
        "participant_signature",
        "grant_signature",
        "revocation_signature",
        "succession_signature",
        "succession_order",
        "binding_signature",
        "emergency_signature",
        "not_pinned",
        "emergency_stranger",
        "emergency_unnamed",
        "emergency_too_long",
        "floors_full",
    ];

    /// A word for counters, as docs/control-path.md lists them.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Format(source) => source.reason(),
            Self::OtherChain { .. } => "other_chain",
            Self::OtherContract { .. } => "other_contract",
            Self::Header(source) => source.reason(),
            Self::HeaderOlder { .. } => "header_older",
            Self::HeaderFuture { .. } => "header_future",
            Self::AccountProof(_) => "account_proof",
            Self::StorageProof { .. } => "storage_proof",
            Self::EpochWentBack { .. } => "epoch_went_back",
            Self::SlotMismatch(path) => match path.list {
                "epoch" => "epoch_mismatch",
                "participants" => "participant_mismatch",
                "emergencies" => "emergency_mismatch",
                _ => "slot_mismatch",
            },
            Self::ParticipantSignature { .. } => "participant_signature",
            Self::GrantSignature { .. } => "grant_signature",
            Self::RevocationSignature { .. } => "revocation_signature",
            Self::SuccessionSignature { .. } => "succession_signature",
            Self::SuccessionOrder(_) => "succession_order",
            Self::BindingSignature { .. } => "binding_signature",
            Self::EmergencySignature { .. } => "emergency_signature",
            Self::NotPinned(_) => "not_pinned",
            Self::EmergencyStranger(_) => "emergency_stranger",
            Self::EmergencyUnnamed(_) => "emergency_unnamed",
            Self::EmergencyTooLong(_) => "emergency_too_long",
            Self::Floors(_) => "floors_full",
        }
    }
}

/// Why a revocation that was handed over alone does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RevocationRefusal {
    /// Not a relationship of a patient here.
    #[error("the relationship was not pinned here")]
    NotPinned,
    /// Of neither of the relationship's keys.
    #[error(transparent)]
    Signature(#[from] SignerError),
    /// Versions begin at 1: it revokes nothing, and no ledger would take it.
    #[error("version 0 revokes nothing")]
    Version,
}

impl RevocationRefusal {
    /// A word for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotPinned => "not_pinned",
            Self::Signature(_) => "revocation_signature",
            Self::Version => "revocation_version",
        }
    }
}
