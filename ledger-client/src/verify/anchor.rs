//! An audit log's batches on the ledger (EIP-712): from which entry to which, and their Merkle root.
//!
//! ```text
//! Anchor(address log,uint64 first,uint64 last,bytes32 root)       signed by the log's own key
//! ```
//! The contract takes a batch only where it begins after the last one, so what is anchored has no gap.

use caregate_protocol::policy::EcdsaSignature;

use super::address::Address;
use super::eip712::{Domain, address, number, struct_hash};

const ANCHOR_TYPE: &str = "Anchor(address log,uint64 first,uint64 last,bytes32 root)";

/// A batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// The address of the log's key.
    pub log: Address,
    /// Sequence number of the first entry; entries are numbered from 1.
    pub first: u64,
    /// Of the last one.
    pub last: u64,
    /// Of the batch's entries.
    pub root: [u8; 32],
}

/// A batch and the log's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedAnchor {
    /// What was signed.
    pub anchor: Anchor,
    /// By [`Anchor::log`].
    pub signature: EcdsaSignature,
}

impl Anchor {
    /// The 32 bytes that a log's key signs.
    #[must_use]
    pub fn digest(&self, domain: &Domain) -> [u8; 32] {
        let Self { log, first, last, root } = self;
        domain.digest(&struct_hash(ANCHOR_TYPE, &[address(&log.0), number(*first), number(*last), *root]))
    }
}
