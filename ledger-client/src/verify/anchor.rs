//! An audit log's batches on the ledger (EIP-712): from which entry to which, and their Merkle root.
//!
//! ```text
//! Anchor(address log,uint64 first,uint64 last,bytes32 root)       signed by the log's own key
//! ```
//! The contract takes a batch only where it begins after the last one, so what is anchored has no gap. How far a log is anchored can be
//! proven against a sealed header, as policy is ([`verify_log`]): each entry names the hash of the one before, so the newest root
//! vouches for all of the log before it.

use caregate_protocol::policy::EcdsaSignature;

use super::address::Address;
use super::bundle::Storage;
use super::eip712::{Domain, address, number, struct_hash};
use super::header::verify_header;
use super::refusal::{BundleRefusal, ClaimPath};
use super::{slots, words};

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

/// How far a log is anchored, as a sealed header proves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProvenLog {
    /// Root of the newest batch; zeroes for none.
    pub root: [u8; 32],
    /// Its last entry.
    pub last: u64,
    /// How many batches there are.
    pub anchors: u64,
    /// The header's number.
    pub header: u64,
    /// Its time, Unix seconds.
    pub time_s: u64,
}

const LOG: ClaimPath = ClaimPath { list: "audit log", index: None };

/// Proves how far `log` is anchored, from a header's RLP with its seals and the trie's nodes.
///
/// # Errors
/// [`BundleRefusal`], as for a bundle.
pub fn verify_log(
    header: &[u8],
    nodes: &[Vec<u8>],
    contract: &Address,
    validators: &[Address],
    log: &Address,
) -> Result<ProvenLog, BundleRefusal> {
    let header = verify_header(header, validators)?;
    let storage = Storage::of(nodes, &header, contract)?;
    let word = |slot| storage.word(slot).map_err(|source| BundleRefusal::StorageProof { path: LOG, source });
    let [first, second] = slots::audit_log(log);
    let (root, (last, anchors)) = (word(&first)?, words::audit_log(&word(&second)?));
    Ok(ProvenLog { root, last, anchors, header: header.number, time_s: header.time_s })
}
