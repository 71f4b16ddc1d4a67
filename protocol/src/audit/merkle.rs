//! The Merkle tree of RFC 9162 §2.1 over a batch's lines: left subtrees are the largest powers of two; nodes are
//! SHA-256 of 0x01 ‖ left ‖ right.

use super::{Hash, hash};

/// The roots of the full subtrees so far, largest first: at most 64 for 2⁶⁴ leaves.
#[derive(Debug, Clone, Default)]
pub struct Tree(Vec<(u32, Hash)>);

fn node(left: &Hash, right: &Hash) -> Hash {
    hash(&[&[1], &left.0, &right.0])
}

impl Tree {
    /// Adds a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut right = (0, leaf);
        while let Some((level, left)) = self.0.last().copied()
            && level == right.0
        {
            self.0.pop();
            right = (level + 1, node(&left, &right.1));
        }
        self.0.push(right);
    }

    /// The root; none of an empty tree.
    #[must_use]
    pub fn root(&self) -> Option<Hash> {
        self.0.iter().rev().map(|(_, hash)| *hash).reduce(|right, left| node(&left, &right))
    }
}

/// The root over leaves.
#[must_use]
pub fn root(leaves: impl IntoIterator<Item = Hash>) -> Option<Hash> {
    let mut tree = Tree::default();
    leaves.into_iter().for_each(|leaf| tree.push(leaf));
    tree.root()
}

/// The neighbours on the way from leaf `at` of `leaves` to the root, lowest first (RFC 9162 §2.1.3.1). None beyond the last leaf.
#[must_use]
pub fn inclusion(leaves: &[Hash], at: usize) -> Option<Vec<Hash>> {
    if at >= leaves.len() {
        return None;
    }
    let mut path = Vec::new();
    let (mut leaves, mut at) = (leaves, at);
    while leaves.len() > 1 {
        let split = leaves.len().next_power_of_two() / 2;
        let (left, right) = leaves.split_at(split);
        let (inside, outside) = if at < split { (left, right) } else { (right, left) };
        path.extend(root(outside.iter().copied()));
        at -= if at < split { 0 } else { split };
        leaves = inside;
    }
    path.reverse();
    Some(path)
}

/// Whether `leaf` is number `at` of `count` leaves under `root` (RFC 9162 §2.1.3.2).
#[must_use]
pub fn is_included(leaf: &Hash, at: u64, count: u64, path: &[Hash], root: &Hash) -> bool {
    if at >= count {
        return false;
    }
    let (mut at, mut last, mut reached) = (at, count - 1, *leaf);
    for neighbour in path {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            reached = node(neighbour, &reached);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            reached = node(&reached, neighbour);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && reached == *root
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audit::leaf_hash;

    /// RFC 9162 §2.1.1 as it is written.
    fn by_definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [only] => *only,
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                let (left, right) = leaves.split_at(split);
                node(&by_definition(left), &by_definition(right))
            }
        }
    }

    fn leaves(count: usize) -> Vec<Hash> {
        (0..count).map(|n| leaf_hash(n.to_string().as_bytes())).collect()
    }

    /// Certificate Transparency's reference trees: seven leaves of known bytes and the root over them.
    #[test]
    fn the_reference_tree_has_its_root() {
        let inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"];
        let leaves: Vec<_> = inputs.iter().map(|text| leaf_hash(&hex::decode(text).unwrap())).collect();
        let known = "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c";
        assert_eq!(root(leaves.clone()).unwrap().to_string(), known);
        let one = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";
        assert_eq!(root([leaves[0]]).unwrap().to_string(), one);
        assert_eq!(root([]), None);
    }

    proptest! {
        #[test]
        fn every_leaf_is_included_and_nothing_else(count in 1_usize..70, at in 0_usize..70, flip in 0_usize..8) {
            let leaves = leaves(count);
            let top = root(leaves.clone()).unwrap();
            prop_assert_eq!(top, by_definition(&leaves));
            let at = at % count;
            let (place, all) = (at as u64, count as u64);
            let path = inclusion(&leaves, at).unwrap();
            prop_assert!(is_included(&leaves[at], place, all, &path, &top));
            prop_assert!(!is_included(&leaf_hash(b"another"), place, all, &path, &top));
            prop_assert!(!is_included(&leaves[at], all, all, &path, &top));
            let mut longer = path.clone();
            longer.push(top);
            prop_assert!(!is_included(&leaves[at], place, all, &longer, &top));
            if let Some(hash) = path.get(flip) {
                let mut wrong = path.clone();
                wrong[flip] = leaf_hash(&hash.0);
                prop_assert!(!is_included(&leaves[at], place, all, &wrong, &top));
            }
            prop_assert_eq!(inclusion(&leaves, count), None);
        }
    }
}
