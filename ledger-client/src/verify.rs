//! From a policy document to the policy that counts.
//!
//! A grant counts if the EIP-712 signature on it is the grant key's that was pinned for its relationship and its
//! patient. What fails is refused alone, by path and reason; the others hold. Nothing here trusts the document's
//! source. Signatures have one form only (65 bytes, low s as in EIP-2, v 27 or 28), so none has a second spelling.

mod address;
mod document;
mod eip712;
mod file_pins;
mod header;
mod pins;
pub mod rlp;
mod signature;
pub mod slots;
mod trie;

pub use address::{Address, AddressError};
pub use document::{RefusalReason, RefusedGrant, verify_document};
pub use eip712::{DOMAIN_NAME, DOMAIN_VERSION, Domain, grant_digest, revocation_digest};
pub use header::{HEADER_BYTES_MAX, HeaderError, VALIDATORS_MAX, VerifiedHeader, quorum, verify_header};
pub use file_pins::{FileEnrolment, FilePinError, PatientPin, PatientPins, RelationshipPin};
pub use pins::{
    EnrolledDevice, EnrolledPatient, EnrolledRelationship, Enrolment, LABEL_BYTES_MAX, LedgerPin, PinError, PinnedDevice,
    PinnedRelationship, Pins, STALENESS_BOUNDS_S, STALENESS_MAX_S, Salt, SaltError,
};
pub use signature::{SignatureError, signer};
pub use trie::{EMPTY_ROOT, NODE_BYTES_MAX, NODES_MAX, NodePool, TrieError};

#[cfg(any(test, feature = "revoke", feature = "wallet"))]
pub(crate) use {eip712::keccak256, signature::address_of};

#[cfg(test)]
mod tests;
