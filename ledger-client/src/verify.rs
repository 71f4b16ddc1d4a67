//! From a bundle to the policy that counts: [`verify_bundle`]. Nothing here trusts who handed it over.
//!
//! The ledger's header is sealed by the pinned validators; the proofs lead from it to each value; the patient's own signature, by a key
//! that was pinned at enrolment, makes the value a consent. Signatures have one form only (65 bytes, low s as in EIP-2, v 27 or
//! 28), so none has a second spelling.

mod address;
mod anchor;
mod bundle;
mod eip712;
mod emergency;
mod erasure;
mod governed;
mod header;
mod pins;
mod refusal;
pub mod rlp;
mod signature;
pub mod slots;
mod succession;
mod trie;
pub mod words;

pub use address::{Address, AddressError};
pub use anchor::{Anchor, ProvenLog, SignedAnchor, verify_log};
pub use bundle::{
    EMERGENCY_MAX_S, HEADER_AHEAD_MAX_S, RevocationSigner, RevokedWith, VerifiedBundle, bundle_number,
    emergency_numbers, sealers, verify_bundle, verify_kept_bundle, verify_revocation,
};
pub use eip712::{
    DOMAIN_NAME, DOMAIN_VERSION, Domain, binding_digest, command_digest, emergency_digest, erasure_digest,
    grant_digest, participant_key_digest, revocation_digest,
};
pub use emergency::{EMERGENCY_AHEAD_MAX_S, EmergencyRefusal, verify_emergency};
pub use erasure::{ErasureRefusal, ORDER_AGE_MAX_S, ORDER_AHEAD_MAX_S, verify_erasure};
pub use governed::{
    CouncilChange, GOVERNORS_MAX, ParticipantChange, kind_number, objection_digest, review_digest,
    status_number,
};
pub use header::{
    HEADER_BYTES_MAX, HeaderError, VALIDATORS_MAX, VerifiedHeader, handover, quorum, verify_handover,
    verify_header,
};
pub use pins::{
    EnrolledDevice, EnrolledPatient, EnrolledRelationship, Enrolment, LABEL_BYTES_MAX, LedgerPin, PinError,
    PinnedDevice, PinnedRelationship, Pins, STALENESS_BOUNDS_S, STALENESS_MAX_S, Salt, SaltError,
};
pub use refusal::{BundleRefusal, ClaimPath, ProofError, RevocationRefusal, SignerError};
pub use signature::{SignatureError, signer};
pub use succession::{NewestKeys, NextKeys, custodians_commitment, custody_digest};
pub use trie::{EMPTY_ROOT, NODE_BYTES_MAX, NODES_MAX, NodePool, TrieError};

#[cfg(any(test, feature = "fixture"))]
pub(crate) use bundle::storage_root_of;
#[cfg(any(test, feature = "shares", feature = "wallet"))]
pub(crate) use eip712::keccak256;
#[cfg(any(test, feature = "revoke", feature = "wallet"))]
pub(crate) use signature::address_of;

#[cfg(test)]
mod tests;
