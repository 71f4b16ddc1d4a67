//! Changing a trie.

use std::collections::BTreeMap;

use alloy_primitives::{B256, keccak256};

use super::node::{Child, Node};
use super::{EMPTY_ROOT, NodeSource, TrieError, load, nibbles};

/// What became of the nodes: by path, the new encoding, or `None` where there is none any more.
pub type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A trie that is open for changes.
pub struct Trie<'s, S> {
    source: &'s S,
    root: Child,
    /// What was read, as it is in the store.
    loaded: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl<'s, S: NodeSource> Trie<'s, S> {
    /// Opens the trie under a root. Nothing is read yet.
    pub fn open(source: &'s S, root: B256) -> Self {
        let root = if root == EMPTY_ROOT { Child::Empty } else { Child::Hash(root) };
        Self { source, root, loaded: BTreeMap::new() }
    }

    /// Sets a key's value; an empty one removes it.
    ///
    /// # Errors
    /// [`TrieError`]; then the trie must be given up.
    pub fn set(&mut self, key: &B256, value: Vec<u8>) -> Result<(), TrieError> {
        let key = nibbles(key);
        let root = std::mem::take(&mut self.root);
        self.root = match value.is_empty() {
            true => self.remove(root, &key, 0)?,
            false => Child::Node(Box::new(self.insert(root, &key, 0, value)?)),
        };
        Ok(())
    }

    /// The new root, and what has to be written for it.
    ///
    /// # Errors
    /// Never in practice; the signature is that of the walk.
    pub fn finish(self) -> Result<(B256, Writes), TrieError> {
        let mut writes = Writes::new();
        let root = match &self.root {
            Child::Empty => EMPTY_ROOT,
            Child::Hash(hash) => *hash,
            Child::Node(node) => {
                let encoded = encode(node, &mut Vec::new(), &mut writes)?;
                let root = keccak256(&encoded);
                // The root has its place, however short it is.
                writes.insert(Vec::new(), Some(encoded));
                root
            }
        };
        for (path, before) in self.loaded {
            match writes.get(&path) {
                Some(Some(now)) if *now == before => drop(writes.remove(&path)),
                Some(_) => {}
                None => drop(writes.insert(path, None)),
            }
        }
        Ok((root, writes))
    }

    /// The child as a node, read where it isn't.
    fn opened(&mut self, child: Child, path: &[u8]) -> Result<Option<Node>, TrieError> {
        match child {
            Child::Empty => Ok(None),
            Child::Node(node) => Ok(Some(*node)),
            Child::Hash(hash) => {
                let (node, bytes) = load(self.source, path, &hash)?;
                self.loaded.insert(path.to_vec(), bytes);
                Ok(Some(node))
            }
        }
    }

    fn insert(&mut self, at: Child, key: &[u8; 64], depth: usize, value: Vec<u8>) -> Result<Node, TrieError> {
        let rest = &key[depth..];
        match self.opened(at, &key[..depth])? {
            None => Ok(Node::Leaf { path: rest.to_vec(), value }),
            Some(Node::Leaf { path, value: _ }) if path == rest => Ok(Node::Leaf { path, value }),
            Some(Node::Leaf { path, value: other }) => {
                let shared = shared(&path, rest);
                let mut children = Box::<[Child; 16]>::default();
                put(
                    &mut children,
                    path[shared],
                    Node::Leaf { path: path[shared + 1..].to_vec(), value: other },
                );
                put(&mut children, rest[shared], Node::Leaf { path: rest[shared + 1..].to_vec(), value });
                Ok(behind(&rest[..shared], Node::Branch(children)))
            }
            Some(Node::Extension { path, child }) => {
                let shared = shared(&path, rest);
                if shared == path.len() {
                    let below = self.insert(child, key, depth + shared, value)?;
                    return Ok(Node::Extension { path, child: Child::Node(Box::new(below)) });
                }
                let mut children = Box::<[Child; 16]>::default();
                // What was below the extension stays at its place; only the way there is divided.
                let tail = &path[shared + 1..];
                children[usize::from(path[shared])] = match tail {
                    [] => child,
                    _ => Child::Node(Box::new(Node::Extension { path: tail.to_vec(), child })),
                };
                put(&mut children, rest[shared], Node::Leaf { path: rest[shared + 1..].to_vec(), value });
                Ok(behind(&path[..shared], Node::Branch(children)))
            }
            Some(Node::Branch(mut children)) => {
                let place = usize::from(rest[0]);
                let below = std::mem::take(&mut children[place]);
                children[place] = Child::Node(Box::new(self.insert(below, key, depth + 1, value)?));
                Ok(Node::Branch(children))
            }
        }
    }

    fn remove(&mut self, at: Child, key: &[u8; 64], depth: usize) -> Result<Child, TrieError> {
        let rest = &key[depth..];
        let Some(node) = self.opened(at, &key[..depth])? else { return Ok(Child::Empty) };
        let left = match node {
            Node::Leaf { path, .. } if path == rest => return Ok(Child::Empty),
            Node::Extension { path, child } if rest.starts_with(&path) => {
                let below = self.remove(child, key, depth + path.len())?;
                match below {
                    Child::Node(node) => joined(&path, *node),
                    below @ (Child::Empty | Child::Hash(_)) => Node::Extension { path, child: below },
                }
            }
            Node::Branch(mut children) => {
                let place = usize::from(rest[0]);
                let below = std::mem::take(&mut children[place]);
                children[place] = self.remove(below, key, depth + 1)?;
                self.collapsed(children, &key[..depth])?
            }
            other @ (Node::Leaf { .. } | Node::Extension { .. }) => other,
        };
        Ok(Child::Node(Box::new(left)))
    }

    /// A branch with one child left is no branch any more.
    fn collapsed(&mut self, mut children: Box<[Child; 16]>, path: &[u8]) -> Result<Node, TrieError> {
        let mut left = (0..16_u8).filter(|nibble| children[usize::from(*nibble)] != Child::Empty);
        let (Some(nibble), None) = (left.next(), left.next()) else { return Ok(Node::Branch(children)) };
        let child = std::mem::take(&mut children[usize::from(nibble)]);
        let place = [path, &[nibble]].concat();
        let node = self.opened(child, &place)?.ok_or(TrieError::Damaged { depth: place.len() })?;
        Ok(joined(&[nibble], node))
    }
}

/// A node behind nibbles that lead to nothing else.
fn joined(before: &[u8], node: Node) -> Node {
    match node {
        Node::Leaf { path, value } => Node::Leaf { path: [before, &path].concat(), value },
        Node::Extension { path, child } => Node::Extension { path: [before, &path].concat(), child },
        branch @ Node::Branch(_) => behind(before, branch),
    }
}

fn behind(path: &[u8], branch: Node) -> Node {
    match path {
        [] => branch,
        _ => Node::Extension { path: path.to_vec(), child: Child::Node(Box::new(branch)) },
    }
}

fn shared(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn put(children: &mut [Child; 16], nibble: u8, node: Node) {
    children[usize::from(nibble)] = Child::Node(Box::new(node));
}

/// Encodes an open node and all open ones below it; those with a place of their own go into `writes`.
fn encode(node: &Node, path: &mut Vec<u8>, writes: &mut Writes) -> Result<Vec<u8>, TrieError> {
    let encoded = node.encode(|nibbles, below| {
        path.extend_from_slice(nibbles);
        let encoded = encode(below, path, writes)?;
        path.truncate(path.len() - nibbles.len());
        Ok::<_, TrieError>(encoded)
    })?;
    if encoded.len() >= 32 {
        writes.insert(path.clone(), Some(encoded.clone()));
    }
    Ok(encoded)
}
