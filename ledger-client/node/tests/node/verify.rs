//! What the node serves, held against the verifier that gateways use.

use alloy_primitives::{B256, keccak256};
use caregate_protocol::policy::{RelationshipId, Revocation};
use ledger_client::verify::{self, NodePool, rlp, slots, verify_header};
use serde_json::{Value, json};

use crate::support::ledger::{Caregate, ICaregate, Ledger, address, header_rlp, key, sign};
use crate::support::process::{Process, Site};
use crate::support::{Rpc, bytes, number};

fn start() -> (Site, Process, Ledger) {
    let governor = key(1);
    let site = Site::new(&address(&governor).to_string());
    let node = site.start();
    let contract = site.deployment()["contract"].as_str().unwrap().parse().unwrap();
    let ledger = Ledger { rpc: Rpc(site.rpc), contract, chain_id: 4711, governor, relay: key(2) };
    (site, node, ledger)
}

fn revoke(ledger: &Ledger, number: u64, version: u64) -> RelationshipId {
    let (grant, revoke) = (key(1000 + number), key(2000 + number));
    let own = |key| verify::Address(address(key).into_array());
    let relationship = slots::relationship(&own(&grant), &own(&revoke));
    let digest = verify::revocation_digest(&Revocation { relationship, version }, &ledger.domain());
    let call = Caregate::revokeCall {
        r: ICaregate::Revocation { relationship: relationship.0.into(), version },
        otherKey: address(&grant),
        byRevokeKey: true,
        signature: sign(&revoke, &digest),
    };
    let _: Caregate::Revoked = ledger.accepted(&ledger.relay, call);
    relationship
}

/// `revoked` of a relationship, proven at a block against its header alone.
fn proven_revoked(ledger: &Ledger, relationship: &RelationshipId, number: u64, root: &[u8; 32]) -> u64 {
    let [_, slot] = slots::consent(relationship);
    let at = format!("{number:#x}");
    let answer = ledger.rpc.ask("eth_getProof", json!([ledger.contract, [B256::from(slot)], at]));
    let storage = &answer["storageProof"][0];
    let nodes: Vec<_> = [&answer["accountProof"], &storage["proof"]]
        .into_iter()
        .flat_map(|nodes| nodes.as_array().unwrap().iter().map(bytes))
        .collect();
    let pool = NodePool::new(&nodes).unwrap();
    let account = pool.value(root, &keccak256(ledger.contract).0).unwrap().expect("the contract's account");
    let mut fields = rlp::Items::of_list(account).unwrap();
    let (_nonce, _balance) = (fields.number().unwrap(), fields.bytes().unwrap());
    let storage_root: [u8; 32] = fields.fixed().unwrap();
    assert_eq!(bytes(&answer["storageHash"]), storage_root);
    let value = pool.value(&storage_root, &keccak256(slot).0).unwrap();
    let mut word = [0; 32];
    if let Some(value) = value {
        let value = rlp_bytes(value);
        word[32 - value.len()..].copy_from_slice(&value);
    }
    assert_eq!(B256::from(word), B256::left_padding_from(&padded(&storage["value"])));
    u64::from_be_bytes(word[..8].try_into().unwrap())
}

fn rlp_bytes(encoded: &[u8]) -> Vec<u8> {
    match encoded {
        [byte @ 0..0x80] => vec![*byte],
        [_, rest @ ..] => rest.to_vec(),
        [] => Vec::new(),
    }
}

/// A quantity may have an odd number of digits.
fn padded(value: &Value) -> Vec<u8> {
    let digits = value.as_str().unwrap().trim_start_matches("0x");
    hex::decode(format!("{digits:0>64}")).unwrap()
}

#[test]
fn headers_and_proofs_hold_before_the_gateways_verifier() {
    let (site, _node, ledger) = start();
    let validators: Vec<verify::Address> =
        serde_json::from_value(site.deployment()["validators"].clone()).unwrap();
    assert_eq!(validators.len(), 1);
    let mut relationships = Vec::new();
    for number in 0..40 {
        relationships.push(revoke(&ledger, number, number + 1));
    }
    let head = ledger.rpc.number("eth_blockNumber", json!([]));
    let mut parent = None;
    let mut roots = Vec::new();
    for number in 0..=head {
        let block = ledger.rpc.ask("eth_getBlockByNumber", json!([format!("{number:#x}"), false]));
        let verified = verify_header(&header_rlp(&block), &validators).unwrap();
        assert_eq!(verified.number, number);
        assert_eq!(verified.hash.to_vec(), bytes(&block["hash"]));
        assert!(parent.is_none_or(|parent| parent == bytes(&block["parentHash"])));
        assert_eq!(ledger.rpc.ask("eth_getBlockByHash", json!([block["hash"], false])), block);
        parent = Some(verified.hash.to_vec());
        roots.push(verified.state_root);
    }
    // At the head all are revoked; at a block of the past, those that were until then, by the same answers' proofs.
    let at_block = |number: u64| {
        let root = &roots[usize::try_from(number).unwrap()];
        relationships.iter().map(|one| proven_revoked(&ledger, one, number, root)).collect::<Vec<_>>()
    };
    assert_eq!(at_block(head), (1..=40).collect::<Vec<_>>());
    let middle = at_block(head / 2);
    assert!(middle.contains(&1) && middle.contains(&0), "{middle:?}");
    assert_eq!(at_block(0), vec![0; 40], "an absent slot is proven absent");
    // Another validator's word is none.
    let block = ledger.rpc.ask("eth_getBlockByNumber", json!(["latest", false]));
    assert!(verify_header(&header_rlp(&block), &[verify::Address([7; 20])]).is_err());
}

#[test]
fn what_a_block_says_of_itself_holds() {
    let (_site, _node, ledger) = start();
    revoke(&ledger, 1, 1);
    let block = ledger.rpc.ask("eth_getBlockByNumber", json!(["latest", true]));
    let tx = &block["transactions"][0];
    assert_eq!(tx["from"].as_str().unwrap().parse(), Ok(address(&ledger.relay)));
    let hash = &tx["hash"];
    let by_hash = ledger.rpc.ask("eth_getTransactionByHash", json!([hash]));
    assert_eq!(&by_hash, tx);
    let at = json!([block["number"], "0x0"]);
    assert_eq!(ledger.rpc.ask("eth_getTransactionByBlockNumberAndIndex", at), by_hash);
    let at = json!([block["hash"], "0x0"]);
    assert_eq!(ledger.rpc.ask("eth_getTransactionByBlockHashAndIndex", at), by_hash);
    let receipts = ledger.rpc.ask("eth_getBlockReceipts", json!([block["number"]]));
    assert_eq!(ledger.rpc.ask("eth_getTransactionReceipt", json!([hash])), receipts[0]);
    assert_eq!(number(&receipts[0]["gasUsed"]), number(&block["gasUsed"]));
    let logs = ledger.rpc.ask("eth_getLogs", json!([{ "blockHash": block["hash"] }]));
    assert_eq!(logs, receipts[0]["logs"]);
    assert_eq!(receipts[0]["logsBloom"], block["logsBloom"]);
    let count = ledger.rpc.number("eth_getBlockTransactionCountByNumber", json!([block["number"]]));
    assert_eq!((count, ledger.nonce(&ledger.relay)), (1, 1));
    let code = bytes(&ledger.rpc.ask("eth_getCode", json!([ledger.contract, "latest"])));
    let proof = ledger.rpc.ask("eth_getProof", json!([ledger.contract, ["0x0", "0x1"], "latest"]));
    assert_eq!(keccak256(code).to_vec(), bytes(&proof["codeHash"]));
    assert_eq!(
        (number(&proof["storageProof"][0]["value"]), number(&proof["storageProof"][1]["value"])),
        (1, 0)
    );
    assert_eq!(ledger.rpc.number("eth_getBalance", json!([ledger.contract, "latest"])), 0);
}

/// The roots that alloy's own ordered tries give, from what the answers hold.
#[test]
fn transactions_and_receipts_have_their_roots() {
    use alloy_consensus::proofs::{calculate_receipt_root, calculate_transaction_root};
    use alloy_consensus::{ReceiptEnvelope, TxEnvelope};
    let (_site, _node, ledger) = start();
    revoke(&ledger, 1, 1);
    let block: alloy_rpc_types_eth::Block =
        serde_json::from_value(ledger.rpc.ask("eth_getBlockByNumber", json!(["latest", true]))).unwrap();
    let transactions: Vec<TxEnvelope> =
        block.transactions.txns().map(|tx| tx.inner.clone().into_inner()).collect();
    assert_eq!(calculate_transaction_root(&transactions), block.header.transactions_root);
    let receipts: Vec<alloy_rpc_types_eth::TransactionReceipt> =
        serde_json::from_value(ledger.rpc.ask("eth_getBlockReceipts", json!(["latest"]))).unwrap();
    let receipts: Vec<ReceiptEnvelope> =
        receipts.into_iter().map(|receipt| receipt.inner.into_primitives_receipt()).collect();
    assert_eq!(calculate_receipt_root(&receipts), block.header.receipts_root);
}
