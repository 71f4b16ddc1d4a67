//! One node: its encoding and back.

use alloy_primitives::{B256, keccak256};
use alloy_rlp::{Encodable, Header, PayloadView};

/// Below what a node is seen from its parent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Child {
    #[default]
    Empty,
    /// Stored under its own path.
    Hash(B256),
    /// Part of the parent, or open for changes.
    Node(Box<Node>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Leaf { path: Vec<u8>, value: Vec<u8> },
    Extension { path: Vec<u8>, child: Child },
    Branch(Box<[Child; 16]>),
}

/// Nibbles as bytes, with whether they end at a leaf (Yellow Paper, appendix C).
fn hex_prefix(nibbles: &[u8], leaf: bool) -> Vec<u8> {
    let flag = if leaf { 0x20 } else { 0 };
    let (mut out, rest) = match nibbles {
        [first, rest @ ..] if nibbles.len() % 2 == 1 => (vec![flag | 0x10 | first], rest),
        _ => (vec![flag], nibbles),
    };
    out.extend(rest.chunks(2).map(|pair| pair[0] << 4 | pair[1]));
    out
}

fn from_hex_prefix(bytes: &[u8]) -> Option<(Vec<u8>, bool)> {
    let (first, rest) = bytes.split_first()?;
    let mut nibbles = Vec::with_capacity(bytes.len() * 2);
    if first & 0x10 != 0 {
        nibbles.push(first & 15);
    }
    nibbles.extend(rest.iter().flat_map(|byte| [byte >> 4, byte & 15]));
    Some((nibbles, first & 0x20 != 0))
}

/// How a parent names a child of this encoding: by hash, or as it is where it is shorter than one.
pub(super) fn put_child(payload: &mut Vec<u8>, encoded: &[u8]) {
    if encoded.len() < 32 {
        payload.extend_from_slice(encoded);
    } else {
        keccak256(encoded).encode(payload);
    }
}

fn list(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 4);
    Header { list: true, payload_length: payload.len() }.encode(&mut out);
    out.extend_from_slice(payload);
    out
}

impl Node {
    /// Encodes this node; `child` gives the encoding of each open child by the nibbles that lead there from here.
    pub(super) fn encode<E>(
        &self,
        mut child: impl FnMut(&[u8], &Self) -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        let mut payload = Vec::new();
        let mut put = |payload: &mut Vec<u8>, nibbles: &[u8], below: &Child| {
            match below {
                Child::Empty => payload.push(alloy_rlp::EMPTY_STRING_CODE),
                Child::Hash(hash) => hash.encode(payload),
                Child::Node(node) => put_child(payload, &child(nibbles, node)?),
            }
            Ok(())
        };
        match self {
            Self::Leaf { path, value } => {
                hex_prefix(path, true).as_slice().encode(&mut payload);
                value.as_slice().encode(&mut payload);
            }
            Self::Extension { path, child } => {
                hex_prefix(path, false).as_slice().encode(&mut payload);
                put(&mut payload, path, child)?;
            }
            Self::Branch(children) => {
                for (nibble, child) in (0..16).zip(children.iter()) {
                    put(&mut payload, &[nibble], child)?;
                }
                payload.push(alloy_rlp::EMPTY_STRING_CODE);
            }
        }
        Ok(list(&payload))
    }

    /// Reads a node. `None` where it is none; a store of our own, whose hashes were checked, holds no such thing.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut bytes = bytes;
        let PayloadView::List(items) = Header::decode_raw(&mut bytes).ok()? else { return None };
        match items.as_slice() {
            [path, target] => {
                let (path, leaf) = from_hex_prefix(Header::decode_bytes(&mut &**path, false).ok()?)?;
                if leaf {
                    let value = Header::decode_bytes(&mut &**target, false).ok()?.to_vec();
                    return Some(Self::Leaf { path, value });
                }
                Some(Self::Extension { path, child: child(target)? })
            }
            items if items.len() == 17 => {
                let mut children = Box::<[Child; 16]>::default();
                for (place, item) in children.iter_mut().zip(items) {
                    *place = child(item)?;
                }
                Some(Self::Branch(children))
            }
            _ => None,
        }
    }
}

fn child(item: &[u8]) -> Option<Child> {
    match item {
        [alloy_rlp::EMPTY_STRING_CODE] => Some(Child::Empty),
        [first, ..] if *first >= alloy_rlp::EMPTY_LIST_CODE => {
            Some(Child::Node(Box::new(Node::decode(item)?)))
        }
        [_, hash @ ..] => Some(Child::Hash(B256::try_from(hash).ok()?)),
        [] => None,
    }
}
