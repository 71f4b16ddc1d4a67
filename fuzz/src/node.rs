//! The embedded ledger's door: JSON-RPC and signed transactions. Included by `ledger-client/node/tests/fuzz_regressions.rs` as well.

use std::sync::{Arc, LazyLock};

use ledger_node::chain::{Chain, Wanted};
use ledger_node::contract::Council;
use ledger_node::metrics::Metrics;
use ledger_node::producer;
use ledger_node::request;
use ledger_node::rpc::Rpc;
use ledger_node::seal::Sealer;

use super::Target;

/// Each target by its name.
pub const TARGETS: &[Target] = &[("json_rpc", json_rpc), ("ledger_transaction", ledger_transaction)];

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
