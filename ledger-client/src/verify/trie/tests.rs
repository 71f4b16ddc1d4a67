use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::fixture::trie::build;
use crate::verify::rlp::put_bytes;

fn value(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, text.as_bytes());
    out
}

#[test]
fn the_empty_root_is_the_hash_of_an_empty_string() {
    assert_eq!(keccak256(&[&[0x80]]), EMPTY_ROOT);
    let pool = NodePool::new::<Vec<u8>>(&[]).unwrap();
    assert_eq!(pool.value(&EMPTY_ROOT, &[7; 32]), Ok(None));
}

/// `ethereum/tests`, `TrieTests/trieanyorder_secureTrie.json`: keys are hashed, values stand as they are.
#[test]
fn roots_are_those_of_the_published_secure_tries() {
    let cases: [(&[(&str, &str)], &str); 3] = [
        (
            &[("A", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")],
            "e9e2935138352776cad724d31c9fa5266a5c593bb97726dd2a908fe6d53284df",
        ),
        (
            &[("doe", "reindeer"), ("dog", "puppy"), ("dogglesworth", "cat")],
            "d4cd937e4a4368d7931a9cf51686b7e10abb3dce38a39000fd7902a092b64585",
        ),
        (
            &[("do", "verb"), ("horse", "stallion"), ("doge", "coin"), ("dog", "puppy")],
            "29b235a58c3c25ab83010c327d5932bcf05324b7d6b1185e650798034783ca9d",
        ),
    ];
    for (entries, root) in cases {
        let values: BTreeMap<_, _> = entries
            .iter()
            .map(|(key, value)| (keccak256(&[key.as_bytes()]), value.as_bytes().to_vec()))
            .collect();
        let (built, nodes) = build(&values);
        assert_eq!(hex::encode(built), root);
        let pool = NodePool::new(&nodes).unwrap();
        for (key, value) in &values {
            assert_eq!(pool.value(&built, key), Ok(Some(value.as_slice())));
        }
        assert_eq!(pool.value(&built, &keccak256(&[b"absent"])), Ok(None));
    }
}

#[test]
fn a_missing_node_shows_nothing() {
    let values: BTreeMap<_, _> =
        (0..40_u8).map(|n| (keccak256(&[&[n]]), value("a value that is long enough"))).collect();
    let (root, nodes) = build(&values);
    let key = keccak256(&[&[3]]);
    let whole = NodePool::new(&nodes).unwrap();
    assert!(whole.value(&root, &key).unwrap().is_some());
    let on_the_way = nodes
        .iter()
        .enumerate()
        .filter(|(without, _)| {
            let fewer: Vec<_> = nodes
                .iter()
                .enumerate()
                .filter(|(at, _)| at != without)
                .map(|(_, node)| node.clone())
                .collect();
            matches!(NodePool::new(&fewer).unwrap().value(&root, &key), Err(TrieError::Missing { .. }))
        })
        .count();
    assert!((2..=4).contains(&on_the_way), "{on_the_way} nodes are on the way");
    assert_eq!(NodePool::new(&nodes).unwrap().value(&[9; 32], &key), Err(TrieError::Missing { depth: 0 }));
}

#[test]
fn pools_are_bounded() {
    assert_eq!(
        NodePool::new(&[vec![0; NODE_BYTES_MAX + 1]]).err(),
        Some(TrieError::TooLarge(NODE_BYTES_MAX + 1))
    );
    let many = vec![Vec::new(); NODES_MAX + 1];
    assert_eq!(NodePool::new::<Vec<u8>>(&many).err(), Some(TrieError::TooMany(NODES_MAX + 1)));
}

#[test]
fn what_only_looks_like_a_node_is_refused() {
    use crate::verify::rlp::put_list;
    let list = |items: &[&[u8]]| {
        let mut payload = Vec::new();
        items.iter().for_each(|item| put_bytes(&mut payload, item));
        let mut out = Vec::new();
        put_list(&mut out, &payload);
        out
    };
    let key = [0x12; 32];
    let shapes = [
        list(&[b"one", b"two", b"three"]),
        // A leaf that ends too early, an extension to nowhere, an odd flag, a child of 31 bytes, padding that is not zero.
        list(&[&[0x31], b"value"]),
        list(&[&[0x11], b""]),
        list(&[&[0x41], b"value"]),
        list(&[&[0x11], &[5; 31]]),
        list(&[&[0x01, 0x12], &[5; 32]]),
        list(&[&[0x00], &[5; 32]]),
    ];
    for node in shapes {
        let root = keccak256(&[&node]);
        let nodes = [node];
        let found = NodePool::new(&nodes).unwrap().value(&root, &key);
        assert!(matches!(found, Err(TrieError::Shape { .. })), "{found:?}");
    }
    let nodes = [vec![0x83, 1, 2, 3]];
    let found = NodePool::new(&nodes).unwrap().value(&keccak256(&[&nodes[0]]), &key);
    assert!(matches!(found, Err(TrieError::Rlp { .. })), "{found:?}");
}

proptest! {
    #[test]
    fn every_value_is_found_and_nothing_else(
        numbers in prop::collection::btree_map(any::<u16>(), prop::collection::vec(any::<u8>(), 1..34), 1..60),
        absent in any::<u32>(),
    ) {
        let values: BTreeMap<_, _> =
            numbers.iter().map(|(number, value)| (keccak256(&[&number.to_be_bytes()]), value.clone())).collect();
        let (root, nodes) = build(&values);
        let pool = NodePool::new(&nodes).unwrap();
        for (key, value) in &values {
            prop_assert_eq!(pool.value(&root, key), Ok(Some(value.as_slice())));
        }
        prop_assert_eq!(pool.value(&root, &keccak256(&[&absent.to_be_bytes()])), Ok(None));
    }

    #[test]
    fn a_changed_node_shows_nothing_or_the_truth(
        count in 1..30_u8, which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), bit in 0..8_u8,
    ) {
        let values: BTreeMap<_, _> = (0..count).map(|n| (keccak256(&[&[n]]), vec![n; 33])).collect();
        let (root, mut nodes) = build(&values);
        let node = which.get_mut(&mut nodes);
        let place = at.index(node.len());
        node[place] ^= 1 << bit;
        let pool = NodePool::new(&nodes).unwrap();
        for (key, value) in &values {
            let found = pool.value(&root, key);
            let missing = matches!(found, Err(TrieError::Missing { .. }));
            prop_assert!(missing || found == Ok(Some(value.as_slice())));
        }
    }

    #[test]
    fn arbitrary_nodes_never_panic(nodes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 1..8), key: [u8; 32]) {
        let pool = NodePool::new(&nodes).unwrap();
        for node in &nodes {
            // Whatever it says, it ends.
            let _outcome = pool.value(&keccak256(&[node]), &key);
        }
    }
}
