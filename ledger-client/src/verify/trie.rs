//! Proofs of Ethereum's state: from a root, by hash, through a pool of Merkle-Patricia nodes (Yellow Paper, appendix D) to a
//! value, or to the place where it would be.
//!
//! The pool is not trusted: a node counts only where a hash that is already believed names it. Keys are hashed, so they have 64
//! nibbles, a walk has at most 64 steps, and no branch has a value of its own.

use std::collections::HashMap;

use thiserror::Error;

use super::eip712::keccak256;
use super::rlp::{Item, Items, RlpError};

/// Most nodes of one pool: 1,024 grants of two slots in a ledger of a million, whose paths share all but their last two nodes.
pub const NODES_MAX: usize = 8192;
/// Largest node: a branch of 16 hashes has 532 bytes; a leaf has a value of at most 33 in storage and 110 for an account.
pub const NODE_BYTES_MAX: usize = 640;

/// `keccak256(0x80)`: the root of a trie with nothing in it.
pub const EMPTY_ROOT: [u8; 32] = [
    0x56, 0xe8, 0x1f, 0x17, 0x1b, 0xcc, 0x55, 0xa6, 0xff, 0x83, 0x45, 0xe6, 0x92, 0xc0, 0xf8, 0x6e, 0x5b,
    0x48, 0xe0, 0x1b, 0x99, 0x6c, 0xad, 0xc0, 0x01, 0x62, 0x2f, 0xb5, 0xe3, 0x63, 0xb4, 0x21,
];

/// Why a proof shows nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TrieError {
    /// More than [`NODES_MAX`].
    #[error("{0} trie nodes, allowed are {NODES_MAX}")]
    TooMany(usize),
    /// Larger than [`NODE_BYTES_MAX`].
    #[error("a trie node has {0} bytes, allowed are {NODE_BYTES_MAX}")]
    TooLarge(usize),
    /// A node on the way is not in the pool, or was changed.
    #[error("a trie node is missing at depth {depth}")]
    Missing {
        /// Nibbles of the key behind it.
        depth: usize,
    },
    /// A node is no RLP.
    #[error("a trie node at depth {depth}: {source}")]
    Rlp {
        /// Nibbles of the key behind it.
        depth: usize,
        /// What is wrong with it.
        source: RlpError,
    },
    /// A node is RLP, and no trie node.
    #[error("what stands for a trie node at depth {depth} is none")]
    Shape {
        /// Nibbles of the key behind it.
        depth: usize,
    },
}

/// Nodes by their hash.
#[derive(Debug, Clone, Default)]
pub struct NodePool<'a> {
    nodes: HashMap<[u8; 32], &'a [u8]>,
}

enum Child<'a> {
    Nothing,
    Hash([u8; 32]),
    Inline(Items<'a>),
}

impl<'a> NodePool<'a> {
    /// Hashes the nodes; their order does not matter.
    ///
    /// # Errors
    /// [`TrieError::TooMany`] and [`TrieError::TooLarge`].
    pub fn new<T: AsRef<[u8]> + 'a>(nodes: &'a [T]) -> Result<Self, TrieError> {
        if nodes.len() > NODES_MAX {
            return Err(TrieError::TooMany(nodes.len()));
        }
        let mut pool = Self { nodes: HashMap::with_capacity(nodes.len()) };
        for node in nodes {
            let node = node.as_ref();
            if node.len() > NODE_BYTES_MAX {
                return Err(TrieError::TooLarge(node.len()));
            }
            pool.nodes.insert(keccak256(&[node]), node);
        }
        Ok(pool)
    }

    /// The value under `root` whose key hashes to `key`; `None` where the proof shows that there is none.
    ///
    /// # Errors
    /// [`TrieError`]: the pool shows neither.
    pub fn value(&self, root: &[u8; 32], key: &[u8; 32]) -> Result<Option<&'a [u8]>, TrieError> {
        if *root == EMPTY_ROOT {
            return Ok(None);
        }
        let mut depth = 0;
        let mut child = Child::Hash(*root);
        loop {
            let node = match child {
                Child::Nothing => return Ok(None),
                Child::Hash(hash) => self.node(&hash, depth)?,
                Child::Inline(items) => items,
            };
            match step(node, key, &mut depth)? {
                Step::Child(next) => child = next,
                Step::Value(value) => return Ok(Some(value)),
                Step::Elsewhere => return Ok(None),
            }
        }
    }

    fn node(&self, hash: &[u8; 32], depth: usize) -> Result<Items<'a>, TrieError> {
        let node = self.nodes.get(hash).ok_or(TrieError::Missing { depth })?;
        Items::of_list(node).map_err(|source| TrieError::Rlp { depth, source })
    }
}

enum Step<'a> {
    Child(Child<'a>),
    Value(&'a [u8]),
    /// The node is on another key's way.
    Elsewhere,
}

/// The nibble of a key at a depth.
fn nibble(key: &[u8; 32], depth: usize) -> Option<u8> {
    let byte = key.get(depth / 2)?;
    Some(if depth.is_multiple_of(2) { byte >> 4 } else { byte & 15 })
}

/// Passes one node. `depth` is moved beyond the nibbles that it consumed.
fn step<'a>(node: Items<'a>, key: &[u8; 32], depth: &mut usize) -> Result<Step<'a>, TrieError> {
    let at = *depth;
    let mut items = [Item::Bytes(&[]); 17];
    let (mut node, mut count) = (node, 0);
    while !node.is_empty() {
        let place = items.get_mut(count).ok_or(TrieError::Shape { depth: at })?;
        *place = node.item().map_err(|source| TrieError::Rlp { depth: at, source })?;
        count += 1;
    }
    match (count, items) {
        (17, items) => {
            let index = nibble(key, at).ok_or(TrieError::Shape { depth: at })?;
            if items[16] != Item::Bytes(&[]) {
                return Err(TrieError::Shape { depth: at });
            }
            *depth += 1;
            Ok(Step::Child(child(items[usize::from(index)], at)?))
        }
        (2, [Item::Bytes(path), target, ..]) => {
            let Some((leaf, matches)) = follow(path, key, depth) else {
                return Err(TrieError::Shape { depth: at });
            };
            match (leaf, matches, target) {
                (_, false, _) => Ok(Step::Elsewhere),
                (true, true, Item::Bytes(value)) => Ok(Step::Value(value)),
                (false, true, target) => match child(target, at)? {
                    Child::Nothing => Err(TrieError::Shape { depth: at }),
                    found @ (Child::Hash(_) | Child::Inline(_)) => Ok(Step::Child(found)),
                },
                (true, true, Item::List(_)) => Err(TrieError::Shape { depth: at }),
            }
        }
        _ => Err(TrieError::Shape { depth: at }),
    }
}

fn child(item: Item<'_>, depth: usize) -> Result<Child<'_>, TrieError> {
    match item {
        Item::Bytes([]) => Ok(Child::Nothing),
        Item::Bytes(bytes) => {
            let hash = bytes.try_into().map_err(|_source| TrieError::Shape { depth })?;
            Ok(Child::Hash(hash))
        }
        // A node of 32 bytes or more is named by its hash; its payload is one byte shorter than the node.
        Item::List(payload) if payload.len() < 31 => Ok(Child::Inline(Items::new(payload))),
        Item::List(_) => Err(TrieError::Shape { depth }),
    }
}

/// Follows a hex-prefix path (appendix C): whether it is a leaf's, and whether the key goes that way to its end. `None` where it is
/// no such path.
fn follow(path: &[u8], key: &[u8; 32], depth: &mut usize) -> Option<(bool, bool)> {
    let (first, rest) = path.split_first()?;
    let (flags, low) = (first >> 4, first & 15);
    let (leaf, odd) = (flags & 2 != 0, flags & 1 != 0);
    if flags > 3 || (!odd && low != 0) || (!leaf && !odd && rest.is_empty()) {
        return None;
    }
    let nibbles = odd.then_some(low).into_iter().chain(rest.iter().flat_map(|byte| [byte >> 4, byte & 15]));
    for wanted in nibbles {
        match nibble(key, *depth) {
            None => return None,
            Some(has) if has != wanted => return Some((leaf, false)),
            Some(_) => *depth += 1,
        }
    }
    // A leaf ends the key, an extension never does.
    ((*depth == 64) == leaf).then_some((leaf, true))
}

#[cfg(test)]
mod tests;
