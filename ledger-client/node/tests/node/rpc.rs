//! JSON-RPC as strangers use it: the standard's errors, bounds, transaction types, order, events, filters.

use std::io::{Read, Write};

use alloy_consensus::{SignableTransaction as _, TxEip4844, TxLegacy};
use alloy_eips::Encodable2718 as _;
use alloy_primitives::{Address, Bytes, Signature, TxKind, U256};
use serde_json::{Value, json};

use crate::support::ledger::{GAS, Ledger, address, key, key_call, receipt, signed};
use crate::support::process::{Process, Site};
use crate::support::{PATIENCE, Rpc, bytes, number};

fn start() -> (Site, Process, Ledger) {
    let governor = key(1);
    let site = Site::new(&address(&governor).to_string());
    let node = site.start();
    let contract = site.deployment()["contract"].as_str().unwrap().parse().unwrap();
    let ledger = Ledger { rpc: Rpc(site.rpc), contract, chain_id: 4711, governor, relay: key(2) };
    (site, node, ledger)
}

fn set(ledger: &Ledger, number: u64) -> Vec<u8> {
    key_call(&ledger.domain(), 20_000 + number, 1)
}

fn send(ledger: &Ledger, raw: Vec<u8>) -> Result<Value, Value> {
    ledger.rpc.try_call("eth_sendRawTransaction", json!([Bytes::from(raw)])).unwrap()
}

#[test]
fn errors_are_the_standards_and_are_counted() {
    let (site, _node, ledger) = start();
    let rpc = &ledger.rpc;
    let cases: [(&[u8], i64, Value, &str); 10] = [
        (b"", -32700, Value::Null, "parse"),
        (b"{\"jsonrpc\":", -32700, Value::Null, "parse"),
        (b"\xff\xfe", -32700, Value::Null, "parse"),
        (b"[]", -32600, Value::Null, "invalid_request"),
        (b"7", -32600, Value::Null, "invalid_request"),
        (br#"{"id":4,"method":"eth_chainId"}"#, -32600, json!(4), "invalid_request"),
        (br#"{"jsonrpc":"1.0","id":"a","method":"eth_chainId"}"#, -32600, json!("a"), "invalid_request"),
        (br#"{"jsonrpc":"2.0","id":[1],"method":"eth_chainId"}"#, -32600, Value::Null, "invalid_request"),
        (br#"{"jsonrpc":"2.0","id":5,"method":"debug_traceCall"}"#, -32601, json!(5), "method_not_found"),
        (
            br#"{"jsonrpc":"2.0","id":6,"method":"eth_getCode","params":["0x12"]}"#,
            -32602,
            json!(6),
            "invalid_params",
        ),
    ];
    for (body, code, id, reason) in cases {
        let name = format!("caregate_ledger_refused_total{{reason=\"{reason}\"}}");
        let before = site.metric(&name);
        let answer = rpc.post(body);
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(code), &id), "{answer}");
        assert_eq!(site.metric(&name) - before, 1.0, "{answer}");
    }
    let error = rpc.error("eth_getCode", json!(["0x12"]));
    assert!(error["message"].as_str().unwrap().contains("argument 0 (address)"), "{error}");
    assert_eq!(rpc.error("eth_getBalance", json!([]))["code"], -32602);
    assert_eq!(rpc.error("eth_chainId", json!([1]))["code"], -32602);
    assert_eq!(rpc.error("eth_getBalance", json!([ledger.contract, "0xffffff"]))["code"], -32001);
    assert_eq!(rpc.ask("eth_getBlockByNumber", json!(["0xffffff", false])), Value::Null);
    // A made-up method is no label of the metrics.
    assert!(
        site.metrics().contains("requests_total{method=\"other\"} 1") && !site.metrics().contains("debug_")
    );
}

#[test]
fn batches_and_notifications_follow_the_standard() {
    let (_site, _node, ledger) = start();
    let rpc = &ledger.rpc;
    let batch = br#"[{"jsonrpc":"2.0","id":1,"method":"eth_chainId"},
        {"jsonrpc":"2.0","method":"eth_chainId"}, 3, {"jsonrpc":"2.0","id":null,"method":"net_version"}]"#;
    let answers = rpc.post(batch);
    assert_eq!(answers[0], json!({ "jsonrpc": "2.0", "id": 1, "result": "0x1267" }));
    assert_eq!(answers[1]["error"]["code"], -32600);
    assert_eq!(answers[2], json!({ "jsonrpc": "2.0", "id": null, "result": "4711" }));
    assert_eq!(answers.as_array().unwrap().len(), 3);
    let notification = br#"{"jsonrpc":"2.0","method":"eth_chainId"}"#;
    assert_eq!(rpc.post_as("application/json", notification).unwrap(), (204, Vec::new()));
    let many = vec![json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_chainId" }); 101];
    assert_eq!(rpc.post(Value::from(many).to_string().as_bytes())["error"]["code"], -32005);
    assert_eq!(rpc.ask("web3_clientVersion", json!([])), "caregate-ledger-node/v0.1.0/one-party-seals");
    assert_eq!(rpc.ask("eth_syncing", json!([])), false);
}

#[test]
fn a_request_is_bounded() {
    let (_site, _node, ledger) = start();
    let rpc = &ledger.rpc;
    let call = br#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}"#;
    assert_eq!(rpc.post_as("text/plain", call).unwrap().0, 415, "a page's form is no client");
    assert_eq!(rpc.post_as("application/json; charset=utf-8", call).unwrap().0, 200);
    let long = [call.as_slice(), &vec![b' '; 600 * 1024]].concat();
    assert_eq!(rpc.post_as("application/json", &long).unwrap().0, 413);
    let deep =
        format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"eth_call\",\"params\":{}", "[".repeat(100_000));
    assert_eq!(rpc.post(deep.as_bytes())["error"]["code"], -32700);
    // One that never ends its request holds nobody else up.
    let mut slow = std::net::TcpStream::connect(rpc.0).unwrap();
    slow.write_all(
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
    )
    .unwrap();
    assert_eq!(rpc.ask("net_version", json!([])), "4711");
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("-32002"), "{answer}");
    let slots = vec!["0x0"; 1025];
    assert_eq!(rpc.error("eth_getProof", json!([ledger.contract, slots, "latest"]))["code"], -32005);
    let topics = vec![format!("0x{}", "11".repeat(32)); 1001];
    let distinct: Vec<_> =
        topics.iter().enumerate().map(|(n, topic)| format!("{}{n:04x}", &topic[..62])).collect();
    assert_eq!(rpc.error("eth_getLogs", json!([{ "topics": [distinct] }]))["code"], -32005);
}

#[test]
fn all_three_kinds_of_transactions_run() {
    let (_site, _node, ledger) = start();
    let kinds = [
        signed(ledger.legacy(0, set(&ledger, 0)), &ledger.governor),
        signed(ledger.eip2930(1, set(&ledger, 1)), &ledger.governor),
        signed(ledger.eip1559(2, set(&ledger, 2)), &ledger.governor),
    ];
    for (kind, raw) in (0..).zip(kinds) {
        let hash = send(&ledger, raw).unwrap();
        // When the hash is answered, the block is there.
        let receipt = ledger.rpc.ask("eth_getTransactionReceipt", json!([hash]));
        assert_eq!((number(&receipt["type"]), number(&receipt["status"])), (kind, 1));
        assert_eq!(number(&receipt["effectiveGasPrice"]), 0);
    }
    assert_eq!(ledger.epoch(), 3);
}

#[test]
fn transactions_that_this_chain_does_not_take() {
    let (site, _node, ledger) = start();
    let by = &ledger.governor;
    let base = ledger.legacy(0, set(&ledger, 0));
    let blob = TxEip4844 { chain_id: 4711, gas_limit: GAS, to: ledger.contract, ..TxEip4844::default() };
    let blob = blob.into_signed(Signature::new(U256::ONE, U256::ONE, false));
    let mut twisted = signed(base.clone(), by);
    let last = twisted.len() - 1;
    twisted[last] ^= 1;
    let cases: [(Vec<u8>, &str); 10] = [
        (alloy_consensus::TxEnvelope::from(blob).encoded_2718(), "transaction type not supported: 3"),
        (
            signed(TxLegacy { chain_id: Some(1), ..base.clone() }, by),
            "invalid chain id for signer: have 1 want 4711",
        ),
        (signed(TxLegacy { chain_id: None, ..base.clone() }, by), "only replay-protected"),
        (signed(TxLegacy { gas_limit: 30_000_001, ..base.clone() }, by), "exceeds block gas limit"),
        (signed(TxLegacy { gas_limit: 20_000, ..base.clone() }, by), "gas"),
        (signed(TxLegacy { gas_price: 1, ..base.clone() }, by), "send with gas price 0"),
        (signed(TxLegacy { value: U256::ONE, ..base.clone() }, by), "insufficient funds"),
        (signed(TxLegacy { input: vec![0; 131_072].into(), ..base.clone() }, by), "oversized data"),
        (b"\x02\xc0".to_vec(), "decode"),
        ([signed(base, by), vec![0]].concat(), "decode"),
    ];
    for (raw, text) in cases {
        let error = send(&ledger, raw).unwrap_err();
        assert_eq!(error["code"], -32000);
        assert!(error["message"].as_str().unwrap().contains(text), "{error} should say {text}");
    }
    // Another signature is another sender.
    if let Ok(hash) = send(&ledger, twisted) {
        assert_ne!(receipt(&ledger.rpc, &hash).0["from"], json!(address(by)));
    }
    assert_eq!(ledger.nonce(by), 0);
    assert!(site.metric("caregate_ledger_refused_total{reason=\"transaction\"}") >= 5.0);
    assert_eq!(site.metric("caregate_ledger_refused_total{reason=\"invalid_transaction\"}"), 3.0);
}

#[test]
fn transactions_run_in_the_order_of_their_nonces() {
    let (_site, _node, ledger) = start();
    let raw = |nonce| signed(ledger.legacy(nonce, set(&ledger, nonce)), &ledger.governor);
    let hashes: Vec<_> = [2, 1].map(|nonce| send(&ledger, raw(nonce)).unwrap()).into();
    for hash in &hashes {
        assert_eq!(ledger.rpc.ask("eth_getTransactionReceipt", json!([hash])), Value::Null, "it waits");
        assert_eq!(ledger.rpc.ask("eth_getTransactionByHash", json!([hash]))["blockNumber"], Value::Null);
    }
    assert!(send(&ledger, raw(1)).unwrap_err()["message"].as_str().unwrap().contains("already known"));
    let other = signed(ledger.legacy(1, set(&ledger, 9)), &ledger.governor);
    assert!(send(&ledger, other).unwrap_err()["message"].as_str().unwrap().contains("replacement"));
    let of = |tag| ledger.rpc.number("eth_getTransactionCount", json!([address(&ledger.governor), tag]));
    assert_eq!((of("latest"), of("pending")), (0, 0));
    let first = send(&ledger, raw(0)).unwrap();
    let blocks: Vec<_> = [&first, &hashes[1], &hashes[0]]
        .map(|hash| {
            let receipt = receipt(&ledger.rpc, hash).0;
            (
                number(&receipt["blockNumber"]),
                number(&receipt["transactionIndex"]),
                number(&receipt["cumulativeGasUsed"]),
            )
        })
        .into();
    assert!(blocks.is_sorted() && blocks[0].2 < blocks[2].2, "{blocks:?}");
    assert_eq!((of("latest"), of("pending"), ledger.epoch()), (3, 3, 3));
    let error = send(&ledger, raw(0)).unwrap_err();
    assert!(error["message"].as_str().unwrap().contains("nonce too low"), "{error}");
}

#[test]
fn events_are_found_by_range_address_and_topic() {
    let (_site, _node, ledger) = start();
    let rpc = &ledger.rpc;
    let filter = rpc.ask("eth_newFilter", json!([{ "address": ledger.contract }]));
    let blocks = rpc.ask("eth_newBlockFilter", json!([]));
    for number in 0..3 {
        assert!(ledger.send(&ledger.governor, set(&ledger, number)).success());
    }
    let participant = |number: u64| format!("0x{:0>64}", hex::encode(address(&key(20_000 + number))));
    let signature = format!(
        "{:#x}",
        alloy_primitives::keccak256("ParticipantKeySet(address,(address,bytes32,uint64),bytes)")
    );
    let found = |filter: Value| rpc.ask("eth_getLogs", json!([filter])).as_array().unwrap().len();
    assert_eq!(found(json!({ "fromBlock": "earliest" })), 3);
    assert_eq!(found(json!({ "fromBlock": "0x0", "topics": [signature] })), 3);
    assert_eq!(found(json!({ "fromBlock": "0x0", "topics": [null, participant(1)] })), 1);
    assert_eq!(
        found(json!({ "fromBlock": "0x0", "topics": [[signature], [participant(0), participant(2)]] })),
        2
    );
    assert_eq!(found(json!({ "fromBlock": "0x0", "address": Address::ZERO })), 0);
    assert_eq!(found(json!({ "fromBlock": "0x0", "toBlock": "0x0" })), 0);
    assert_eq!(found(json!({ "fromBlock": "0xffffff" })), 0);
    assert_eq!(
        rpc.error("eth_getLogs", json!([{ "fromBlock": "latest", "toBlock": "0x0" }]))["code"],
        -32602
    );
    assert_eq!(rpc.error("eth_getLogs", json!([{ "blockHash": participant(1) }]))["code"], -32001);
    // A filter is read once.
    let poll = |id: &Value| rpc.ask("eth_getFilterChanges", json!([id])).as_array().unwrap().clone();
    assert_eq!((poll(&filter).len(), poll(&filter).len()), (3, 0));
    let ids = poll(&blocks);
    assert!(ids.len() >= 3 && poll(&blocks).len() <= 1, "{ids:?}");
    assert_eq!(rpc.ask("eth_getBlockByHash", json!([ids[0], false]))["hash"], ids[0]);
    assert_eq!(rpc.ask("eth_uninstallFilter", json!([filter])), true);
    assert_eq!(rpc.error("eth_getFilterChanges", json!([filter]))["code"], -32001);
}

#[test]
fn an_estimate_is_enough_and_not_much_more() {
    let (_site, _node, ledger) = start();
    let request = json!({ "from": address(&ledger.governor), "to": ledger.contract, "data": Bytes::from(set(&ledger, 0)) });
    let gas = ledger.rpc.number("eth_estimateGas", json!([request]));
    let tx = TxLegacy { gas_limit: gas, ..ledger.legacy(0, set(&ledger, 0)) };
    let hash = send(&ledger, signed(tx, &ledger.governor)).unwrap();
    let receipt = receipt(&ledger.rpc, &hash);
    assert!(receipt.success(), "{gas} were not enough: {}", receipt.0);
    assert!(gas < number(&receipt.0["gasUsed"]) * 11 / 10, "{gas} of {}", receipt.0["gasUsed"]);
    // What would revert has no estimate; the error is named.
    let request = json!({ "to": ledger.contract, "data": Bytes::from(set(&ledger, 0)) });
    let error = ledger.rpc.error("eth_estimateGas", json!([request]));
    assert_eq!(
        (&error["code"], &error["message"]),
        (&json!(3), &json!("execution reverted: VersionNotRaised"))
    );
    assert_eq!(ledger.rpc.error("eth_call", json!([request, "latest", { "0x": {} }]))["code"], -32602);
}

/// Contracts of others run too, with current compilers' instructions; one that never ends is ended.
#[test]
fn any_contract_may_be_deployed() {
    let (_site, _node, ledger) = start();
    // Runtime: PUSH0 SLOAD, add 1, store and return it. Creation: return these 14 bytes.
    let runtime = hex::decode("5f54600101805f555f5260205ff3").unwrap();
    let creation = [hex::decode("600e600b5f39600e5ff300").unwrap(), runtime.clone()].concat();
    let tx = TxLegacy { to: TxKind::Create, input: creation.into(), ..ledger.legacy(0, Vec::new()) };
    let receipt_of = |hash: &Value| receipt(&ledger.rpc, hash).0;
    let made = receipt_of(&send(&ledger, signed(tx, &ledger.relay)).unwrap());
    let contract: Address = made["contractAddress"].as_str().unwrap().parse().unwrap();
    assert_eq!(contract, address(&ledger.relay).create(0));
    assert_eq!(bytes(&ledger.rpc.ask("eth_getCode", json!([contract, "latest"]))), runtime);
    for nonce in [1, 2] {
        let tx = TxLegacy { to: TxKind::Call(contract), ..ledger.legacy(nonce, Vec::new()) };
        assert_eq!(number(&receipt_of(&send(&ledger, signed(tx, &ledger.relay)).unwrap())["status"]), 1);
    }
    assert_eq!(ledger.rpc.number("eth_getStorageAt", json!([contract, "0x0", "latest"])), 2);
    let forever = json!({ "data": "0x5b5f56" });
    let error = ledger.rpc.error("eth_call", json!([forever, "latest"]));
    assert_eq!(error["code"], -32000, "{error}");
}
