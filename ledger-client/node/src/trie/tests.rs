//! Held against alloy-trie, which others wrote, and against the verifier that gateways use.

use std::cell::Cell;
use std::collections::BTreeMap;

use alloy_trie::{HashBuilder, Nibbles};
use ledger_client::verify::NodePool;
use proptest::prelude::*;

use super::*;

#[derive(Default)]
struct Memory {
    nodes: BTreeMap<Vec<u8>, Vec<u8>>,
    reads: Cell<usize>,
}

impl NodeSource for Memory {
    fn node(&self, path: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.reads.set(self.reads.get() + 1);
        Ok(self.nodes.get(path).cloned())
    }
}

impl Memory {
    fn apply(&mut self, root: B256, changes: &[(B256, Vec<u8>)]) -> (B256, usize) {
        let mut trie = Trie::open(self, root);
        for (key, value) in changes {
            trie.set(key, value.clone()).unwrap();
        }
        let (root, writes) = trie.finish().unwrap();
        let count = writes.len();
        for (path, node) in writes {
            match node {
                Some(node) => drop(self.nodes.insert(path, node)),
                None => assert!(self.nodes.remove(&path).is_some(), "removes what is there"),
            }
        }
        (root, count)
    }
}

fn reference(values: &BTreeMap<B256, Vec<u8>>) -> B256 {
    let mut builder = HashBuilder::default();
    for (key, value) in values {
        builder.add_leaf(Nibbles::unpack(key), value);
    }
    builder.root()
}

fn check(memory: &Memory, root: B256, values: &BTreeMap<B256, Vec<u8>>, asked: &[B256]) {
    assert_eq!(root, reference(values));
    for key in asked {
        let found = find(memory, &root, key).unwrap();
        assert_eq!(found.value.as_ref(), values.get(key));
        let pool = NodePool::new(&found.proof).unwrap();
        assert_eq!(pool.value(&root.0, &key.0).unwrap(), values.get(key).map(Vec::as_slice));
        let proof: Vec<_> = found.proof.iter().map(|node| node.clone().into()).collect();
        alloy_trie::proof::verify_proof(root, Nibbles::unpack(key), found.value, &proof).unwrap();
    }
}

/// Keys that share long beginnings, as hashes seldom do; values short enough to be part of their parents, and longer ones.
fn change() -> impl Strategy<Value = (B256, Vec<u8>)> {
    let key =
        (0..4_u8, prop::sample::select(vec![0, 1, 15, 16, 31]), any::<u8>()).prop_map(|(first, at, byte)| {
            let mut key = [0x11; 32];
            key[0] = first;
            key[at] ^= byte & 0x33;
            B256::from(key)
        });
    let value = prop_oneof![
        2 => Just(Vec::new()),
        3 => prop::collection::vec(1..0x7f_u8, 1..4),
        2 => prop::collection::vec(any::<u8>(), 30..90),
    ];
    (key, value)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn any_changes_give_the_root_and_the_proofs_of_a_trie_built_anew(
        rounds in prop::collection::vec(prop::collection::vec(change(), 1..12), 1..8)
    ) {
        let (mut memory, mut values, mut root) = (Memory::default(), BTreeMap::new(), EMPTY_ROOT);
        for changes in rounds {
            for (key, value) in &changes {
                match value.is_empty() {
                    true => drop(values.remove(key)),
                    false => drop(values.insert(*key, value.clone())),
                }
            }
            root = memory.apply(root, &changes).0;
            let asked: Vec<_> = changes.iter().map(|(key, _)| *key).chain([B256::ZERO]).collect();
            check(&memory, root, &values, &asked);
        }
        // Nothing is left behind: what is stored is reached from the root.
        let clear: Vec<_> = values.keys().map(|key| (*key, Vec::new())).collect();
        prop_assert_eq!(memory.apply(root, &clear).0, EMPTY_ROOT);
        prop_assert!(memory.nodes.is_empty(), "{:?}", memory.nodes.keys());
    }
}

#[test]
fn a_change_touches_its_own_way_alone() {
    let key = |number: u32| keccak256(number.to_be_bytes());
    let changes: Vec<_> = (0..20_000).map(|n| (key(n), vec![0x82, 1, 2])).collect();
    let mut memory = Memory::default();
    let (root, _) = memory.apply(EMPTY_ROOT, &changes);
    let mut values: BTreeMap<_, _> = changes.into_iter().collect();
    assert_eq!(root, reference(&values));
    memory.reads.set(0);
    values.insert(key(7), vec![5]);
    let (root, written) = memory.apply(root, &[(key(7), vec![5])]);
    assert_eq!(root, reference(&values));
    // log16(20 000) is 3.6, and a leaf.
    assert!(written <= 6 && memory.reads.get() <= 6, "{written} written, {} read", memory.reads.get());
}

#[test]
fn what_is_damaged_is_found() {
    let key = |number: u32| keccak256(number.to_be_bytes());
    let changes: Vec<_> = (0..100).map(|n| (key(n), vec![9; 40])).collect();
    let mut memory = Memory::default();
    let (root, _) = memory.apply(EMPTY_ROOT, &changes);
    let path = memory.nodes.keys().max_by_key(|path| path.len()).unwrap().clone();
    memory.nodes.get_mut(&path).unwrap()[10] ^= 1;
    let found: Vec<_> = (0..100).filter(|n| find(&memory, &root, &key(*n)).is_err()).collect();
    assert_eq!(found.len(), 1);
    memory.nodes.remove(&path);
    let error = find(&memory, &root, &key(found[0])).unwrap_err();
    assert!(matches!(error, TrieError::Damaged { depth } if depth == path.len()), "{error}");
    let mut trie = Trie::open(&memory, root);
    assert!(trie.set(&key(found[0]), Vec::new()).is_err());
}
