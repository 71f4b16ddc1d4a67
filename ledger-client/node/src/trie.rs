//! Ethereum's Merkle-Patricia trie (Yellow Paper, appendix D), incremental: a change reads and writes the nodes on its own way and
//! no others.
//!
//! A node lies in the store under its path, the nibbles that lead to it, and is read against the hash that its parent has of it. So
//! what is damaged is found at once, and a node that changes has its place already. Nodes whose encoding is shorter than a hash are
//! part of their parent and have no place of their own, except the root.
//!
//! Keys are hashes: 64 nibbles, none the beginning of another, so branches have no value.

mod node;
mod update;

use alloy_primitives::{B256, b256, keccak256};
use thiserror::Error;

use crate::store::StoreError;
use node::{Child, Node};
pub use update::{Trie, Writes};

/// `keccak256(0x80)`: the root of a trie with nothing in it.
pub const EMPTY_ROOT: B256 = b256!("56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421");

/// The trie can't be read.
#[derive(Debug, Error)]
pub enum TrieError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A node that must be there is not, or is not the one that its parent names.
    #[error("ledger.redb: the state's trie node at depth {depth} is missing or damaged")]
    Damaged {
        /// Nibbles from the root.
        depth: usize,
    },
}

/// Where nodes are kept: by path, without those that are part of their parent.
pub trait NodeSource {
    /// The node at a path of nibbles.
    ///
    /// # Errors
    /// [`StoreError`].
    fn node(&self, path: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
}

/// The 64 nibbles of a key.
#[must_use]
pub fn nibbles(key: &B256) -> [u8; 64] {
    let mut out = [0; 64];
    for (pair, byte) in out.chunks_exact_mut(2).zip(key) {
        pair.copy_from_slice(&[byte >> 4, byte & 15]);
    }
    out
}

/// Reads the node that a hash names at a path.
fn load(source: &impl NodeSource, path: &[u8], hash: &B256) -> Result<(Node, Vec<u8>), TrieError> {
    let damaged = || TrieError::Damaged { depth: path.len() };
    let bytes = source.node(path)?.filter(|bytes| keccak256(bytes) == *hash).ok_or_else(damaged)?;
    Ok((Node::decode(&bytes).ok_or_else(damaged)?, bytes))
}

/// A value and its proof.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The value; `None` where there is none.
    pub value: Option<Vec<u8>>,
    /// The nodes from the root to the value, or to where it would be (EIP-1186).
    pub proof: Vec<Vec<u8>>,
}

/// Walks from a root to a key.
///
/// # Errors
/// [`TrieError`].
pub fn find(source: &impl NodeSource, root: &B256, key: &B256) -> Result<Found, TrieError> {
    let mut found = Found::default();
    if *root == EMPTY_ROOT {
        return Ok(found);
    }
    let key = nibbles(key);
    let mut depth = 0;
    let mut child = Child::Hash(*root);
    loop {
        let node = match child {
            Child::Empty => return Ok(found),
            Child::Node(node) => *node,
            Child::Hash(hash) => {
                let (node, bytes) = load(source, &key[..depth], &hash)?;
                found.proof.push(bytes);
                node
            }
        };
        let rest = &key[depth..];
        match node {
            Node::Leaf { path, value } => {
                found.value = (path == rest).then_some(value);
                return Ok(found);
            }
            Node::Extension { path, child: next } => {
                if !rest.starts_with(&path) {
                    return Ok(found);
                }
                depth += path.len();
                child = next;
            }
            Node::Branch(mut children) => {
                let nibble = *rest.first().ok_or(TrieError::Damaged { depth })?;
                depth += 1;
                child = std::mem::take(&mut children[usize::from(nibble)]);
            }
        }
    }
}

#[cfg(test)]
mod tests;
