//! The embedded ledger's door: JSON-RPC and signed transactions. Included by `ledger-client/node/tests/node/fuzz_regressions.rs` as well.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use alloy_primitives::{B256, keccak256};
use ledger_node::chain::{Chain, Wanted};
use ledger_node::contract::Council;
use ledger_node::metrics::Metrics;
use ledger_node::producer;
use ledger_node::request;
use ledger_node::rpc::Rpc;
use ledger_node::seal::Sealer;
use ledger_node::store::StoreError;
use ledger_node::trie::{NodeSource, find};

use super::Target;

/// Each target by its name.
pub const TARGETS: &[Target] =
    &[("json_rpc", json_rpc), ("ledger_transaction", ledger_transaction), ("node_trie", node_trie)];

const CHAIN_ID: u64 = 4711;

/// A chain of one block, with the contract in it. Nobody seals a second one, so that a transaction is answered at once.
static RPC: LazyLock<Rpc> = LazyLock::new(|| {
    let sealer = Sealer::from_bytes(&[7; 32]).expect("a scalar");
    let wanted = Wanted {
        chain_id: CHAIN_ID,
        council: Council { governors: vec![sealer.address()], threshold: 1, delay_s: 0 },
    };
    let chain = Chain::in_memory(sealer, wanted, 1_800_000_000).expect("a chain");
    let metrics = Metrics::register(&prometheus::Registry::new()).expect("counters");
    let (queue, _nobody) = producer::queue();
    Rpc::new(Arc::new(chain), queue, metrics)
});

/// Every request has an answer in JSON-RPC's form, or none where none is due.
pub fn json_rpc(data: &[u8]) {
    let answer = RPC.serve(data);
    if answer.is_empty() {
        return;
    }
    let answer: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
    let one = [answer.clone()];
    for answer in answer.as_array().map_or(one.as_slice(), Vec::as_slice) {
        assert_eq!(answer["jsonrpc"], "2.0");
        assert!(answer.get("result").is_some() != answer.get("error").is_some(), "{answer}");
        assert!(answer.get("id").is_some());
    }
}

/// A transaction that is taken has one spelling and a sender.
pub fn ledger_transaction(data: &[u8]) {
    use alloy_eips::Encodable2718 as _;
    match request::transaction(data, CHAIN_ID) {
        Ok(tx) => assert_eq!(tx.encoded_2718(), data),
        Err(error) => assert!(!error.message.is_empty()),
    }
}

/// Nodes of a store, by how many nibbles lead to them.
struct Nodes<'a>(BTreeMap<usize, &'a [u8]>);

impl NodeSource for Nodes<'_> {
    fn node(&self, path: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(&path.len()).map(|node| node.to_vec()))
    }
}

/// A key (32 bytes) and nodes (each with its depth in a byte and its length in two), of which the first is the root whatever its depth. What is
/// found is in one of them.
pub fn node_trie(data: &[u8]) {
    let Some((key, mut rest)) = data.split_first_chunk::<32>() else { return };
    let mut nodes = BTreeMap::new();
    while let Some((&[depth, high, low], left)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(left.len());
        let depth = if nodes.is_empty() { 0 } else { usize::from(depth) };
        nodes.insert(depth, &left[..length]);
        rest = &left[length..];
    }
    let Some(root) = nodes.get(&0).map(keccak256) else { return };
    let nodes = Nodes(nodes);
    match find(&nodes, &root, &B256::from(*key)) {
        Ok(found) => {
            assert!(found.proof.iter().all(|node| nodes.0.values().any(|known| known == node)));
            let is_in = |value: &[u8]| {
                value.is_empty()
                    || found.proof.iter().any(|node| node.windows(value.len()).any(|at| at == value))
            };
            assert!(found.value.as_deref().is_none_or(is_in));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
