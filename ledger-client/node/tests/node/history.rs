//! The chain without a process around it: how far back its states stay readable, what bounds a block, and what one change writes.

use std::sync::Arc;

use alloy_consensus::TxLegacy;
use alloy_consensus::transaction::Recovered;
use alloy_primitives::{Address, U256};
use ledger_client::verify::{self, Domain};
use ledger_node::block::Refused;
use ledger_node::chain::{Chain, SealedHeader, Wanted};
use ledger_node::evm::GAS_LIMIT;
use ledger_node::metrics::Metrics;
use ledger_node::rpc::Rpc;
use ledger_node::seal::Sealer;
use ledger_node::state::{State, StateError};
use ledger_node::store::HISTORY_BLOCKS;
use ledger_node::{producer, request};
use serde_json::{Value, json};

use crate::support::ledger::{council, key, key_call, signed};
use crate::support::number;

const CHAIN_ID: u64 = 4711;

fn chain() -> Chain {
    let wanted = Wanted { chain_id: CHAIN_ID, council: council(&[&key(1)], 1, 0) };
    Chain::in_memory(Sealer::from_bytes(&[7; 32]).unwrap(), wanted, 1_800_000_000).unwrap()
}

fn set(chain: &Chain, nonce: u64, number: u64) -> Recovered<alloy_consensus::TxEnvelope> {
    let contract = chain.deployment().contract;
    let domain = Domain { chain_id: CHAIN_ID, verifying_contract: verify::Address(contract.into_array()) };
    let data = key_call(&domain, number, nonce + 1);
    let tx = TxLegacy {
        chain_id: Some(CHAIN_ID),
        nonce,
        gas_limit: 500_000,
        to: alloy_primitives::TxKind::Call(contract),
        input: data.into(),
        ..TxLegacy::default()
    };
    request::transaction(&signed(tx, &key(1)), CHAIN_ID).unwrap()
}

fn commit(
    chain: &Chain,
    transactions: impl IntoIterator<Item = Recovered<alloy_consensus::TxEnvelope>>,
) -> SealedHeader {
    let reader = chain.read().unwrap();
    let mut building = chain.begin(&reader, 1_800_000_000);
    for tx in transactions {
        building.push(tx).unwrap();
    }
    chain.commit(building).unwrap()
}

fn epoch(chain: &Chain, block: &SealedHeader) -> Result<U256, StateError> {
    let reader = chain.read().unwrap();
    let state = State::new(&reader, block.header.number, block.header.state_root);
    let contract = chain.deployment().contract;
    let account = state.account(&contract)?.value.unwrap();
    Ok(state.slot(&contract, &account.storage_root, &U256::ZERO)?.value.unwrap_or_default())
}

#[test]
fn the_last_512_states_stay_readable_and_no_more() {
    let chain = chain();
    let mut blocks = vec![chain.head()];
    let mut sizes = Vec::new();
    for nonce in 0..2 * HISTORY_BLOCKS + 100 {
        blocks.push(commit(&chain, [set(&chain, nonce, nonce % 7)]));
        if nonce % HISTORY_BLOCKS == 50 {
            sizes.push(chain.read().unwrap().nodes_len().unwrap());
        }
    }
    let head = chain.head().header.number;
    let begins = Chain::history_begins(head);
    for block in &blocks[usize::try_from(begins).unwrap()..] {
        assert_eq!(epoch(&chain, block).unwrap(), U256::from(block.header.number));
    }
    // What is older is gone, and is not mistaken for something else.
    for block in &blocks[..usize::try_from(begins).unwrap()] {
        assert!(epoch(&chain, block).is_err(), "block {}", block.header.number);
    }
    assert!(sizes[2] < sizes[1] + sizes[1] / 20, "{sizes:?}: nothing piles up");
    answers(chain, head, begins);
}

fn answers(chain: Chain, head: u64, begins: u64) {
    let contract = chain.deployment().contract;
    let registry = prometheus::Registry::new();
    let (queue, _incoming) = producer::queue();
    let rpc = Rpc::new(Arc::new(chain), queue, Metrics::register(&registry).unwrap());
    let ask = |at: u64| {
        let params = json!([contract, "0x0", format!("{at:#x}")]);
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_getStorageAt", "params": params });
        serde_json::from_slice::<Value>(&rpc.serve(call.to_string().as_bytes())).unwrap()
    };
    for at in [begins, head] {
        assert_eq!(number(&ask(at)["result"]), at);
    }
    let error = ask(begins - 1)["error"].take();
    assert_eq!(error["code"], -32001);
    assert!(error["message"].as_str().unwrap().contains("is gone; the first that is kept is"), "{error}");
}

#[test]
fn a_block_is_bounded_by_its_gas() {
    let chain = chain();
    let reader = chain.read().unwrap();
    let mut building = chain.begin(&reader, 1_800_000_000);
    let mut nonce = 0;
    let refused = loop {
        match building.push(set(&chain, nonce, 100 + nonce)) {
            Ok(()) => nonce += 1,
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, Refused::Full), "{refused:?}");
    assert_eq!(building.len() as u64, nonce);
    let first = chain.commit(building).unwrap().header;
    assert!(nonce > 300 && first.gas_used <= GAS_LIMIT && first.gas_used > GAS_LIMIT - 600_000, "{first:?}");
    // What did not fit is in the next.
    let second = commit(&chain, [set(&chain, nonce, 100 + nonce)]);
    assert_eq!(epoch(&chain, &second).unwrap(), U256::from(nonce + 1));
}

/// Sets as many participants' keys as one block takes; how many.
fn fill(chain: &Chain, first: u64) -> u64 {
    let reader = chain.read().unwrap();
    let mut building = chain.begin(&reader, 1_800_000_000);
    let mut nonce = first;
    loop {
        match building.push(set(chain, nonce, 30_000 + nonce)) {
            Ok(()) => nonce += 1,
            Err(Refused::Full) => break,
            Err(refused) => panic!("{refused:?}"),
        }
    }
    chain.commit(building).unwrap();
    assert!(nonce > first, "a block takes at least one");
    nonce - first
}

/// 10,000 participants are 20,000 slots, of which a change writes its own way and no more. What it reads, the trie's own tests count.
#[test]
fn a_large_state_costs_a_change_no_more() {
    let chain = chain();
    let nodes = || chain.read().unwrap().nodes_len().unwrap();
    // Versions stay readable, so each block adds as many nodes as it writes. The most of 30 blocks of one change.
    let written = |first: u64| {
        let each = (first..first + 30).map(|nonce| {
            let before = nodes();
            commit(&chain, [set(&chain, nonce, 30_000 + nonce)]);
            nodes() - before
        });
        each.max().unwrap()
    };
    let small = written(0);
    let mut nonce = 30;
    while nonce < 10_000 {
        nonce += fill(&chain, nonce);
    }
    let large = written(nonce);
    // log16(20,000) is 3.6 and log16(60) 1.5, for each of three slots; the accounts are as many as before.
    assert!(large <= 3 * small, "{small} nodes on an empty chain, {large} on {nonce} participants");
    assert!(chain.head().header.number < HISTORY_BLOCKS, "nothing was pruned meanwhile");
}

#[test]
fn what_may_not_run_leaves_nothing_behind() {
    let chain = chain();
    let reader = chain.read().unwrap();
    let mut building = chain.begin(&reader, 1_800_000_000);
    for nonce in [1, 7] {
        let refused = building.push(set(&chain, nonce, 1)).unwrap_err();
        assert!(matches!(refused, Refused::Invalid(_)), "{refused:?}");
    }
    let before = chain.head();
    let block = chain.commit(building).unwrap();
    assert_eq!(block.header.state_root, before.header.state_root);
    assert_eq!((block.header.parent_hash, block.header.gas_used), (before.id, 0));
    let nobody = State::new(&chain.read().unwrap(), block.header.number, block.header.state_root)
        .account(&Address::repeat_byte(9))
        .unwrap();
    assert!(nobody.value.is_none() && !nobody.proof.is_empty());
}
