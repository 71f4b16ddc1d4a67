//! A node that is killed at any moment goes on where it was: what was answered is there, and no block is half there.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use alloy_primitives::Bytes;
use serde_json::{Value, json};

use crate::support::ledger::{Ledger, address, key, key_call, signed};
use crate::support::process::Site;
use crate::support::{Rpc, number, until};

const ROUNDS: u64 = 12;

fn ledger(site: &Site) -> Ledger {
    let contract = site.deployment()["contract"].as_str().unwrap().parse().unwrap();
    Ledger { rpc: Rpc(site.rpc), contract, chain_id: 4711, governor: key(1), relay: key(2) }
}

fn call(ledger: &Ledger, number: u64) -> Vec<u8> {
    key_call(&ledger.domain(), 10_000 + number, 1)
}

/// Sends one after the other until the node is gone; what was answered. The killer's moment is anywhere in this.
fn send_until_gone(ledger: &Ledger, sent: &mut u64, kill: impl FnOnce() + Send) -> Vec<Value> {
    let mut answered = Vec::new();
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            until("some are answered", || enough.load(Ordering::Relaxed).then_some(()));
            kill();
        });
        let mut nonce = ledger.nonce(&ledger.governor);
        loop {
            let raw = Bytes::from(signed(ledger.legacy(nonce, call(ledger, *sent)), &ledger.governor));
            *sent += 1;
            nonce += 1;
            match ledger.rpc.try_call("eth_sendRawTransaction", json!([raw])) {
                Ok(hash) => answered.push(hash.unwrap()),
                Err(_gone) => return,
            }
            if answered.len() >= 5 {
                enough.store(true, Ordering::Relaxed);
            }
        }
    });
    answered
}

/// Walks the chain from its first block: numbers, parents and times.
fn check_chain(rpc: &Rpc) -> (u64, u64) {
    let head = rpc.number("eth_blockNumber", json!([]));
    let (mut parent, mut time_s, mut transactions) = (Value::Null, 0, 0);
    for at in 0..=head {
        let block = rpc.ask("eth_getBlockByNumber", json!([format!("{at:#x}"), false]));
        assert_eq!(number(&block["number"]), at);
        assert!(at == 0 || block["parentHash"] == parent, "block {at} has another parent");
        assert!(number(&block["timestamp"]) >= time_s, "block {at} is older than the one before");
        (parent, time_s) = (block["hash"].clone(), number(&block["timestamp"]));
        let hashes = block["transactions"].as_array().unwrap();
        transactions += hashes.len() as u64;
        for hash in hashes {
            let receipt = rpc.ask("eth_getTransactionReceipt", json!([hash]));
            assert_eq!((&receipt["blockHash"], number(&receipt["status"])), (&block["hash"], 1));
        }
    }
    (head, transactions)
}

#[test]
fn a_killed_node_goes_on_where_it_was() {
    let site = Site::new(&address(&key(1)).to_string());
    let (mut sent, mut answered) = (0, Vec::new());
    for round in 0..ROUNDS {
        let mut node = site.start();
        let ledger = ledger(&site);
        // A little later in each round, so that the kill meets the commit at another place.
        let pause = Duration::from_micros(700 * round);
        let kill = || {
            std::thread::sleep(pause);
            node.kill();
        };
        answered.extend(send_until_gone(&ledger, &mut sent, kill));
    }
    let mut node = site.start();
    let ledger = ledger(&site);
    for hash in &answered {
        assert!(!ledger.rpc.ask("eth_getTransactionReceipt", json!([hash])).is_null(), "{hash} was answered");
    }
    let (head, transactions) = check_chain(&ledger.rpc);
    assert!(transactions >= answered.len() as u64 && head >= transactions);
    // State and chain agree: each transaction raised the epoch by one and the nonce by one.
    assert_eq!((ledger.epoch(), ledger.nonce(&ledger.governor)), (transactions, transactions));
    assert!(ledger.send(&ledger.governor, call(&ledger, sent)).success());
    node.stop();
    assert_eq!(check_chain_after_stop(&site), transactions + 1);
}

fn check_chain_after_stop(site: &Site) -> u64 {
    let _node = site.start();
    check_chain(&Rpc(site.rpc)).1
}

#[test]
fn another_chains_configuration_is_refused() {
    let (governor, other) = (address(&key(1)).to_string(), address(&key(3)).to_string());
    let site = Site::new(&governor);
    drop(site.start());
    let refused = |text: &str| {
        let output = site.command().arg("--check").stderr(Stdio::piped()).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(text), "{error}");
    };
    site.configure(4712, &governor);
    refused("the chain in the data folder has chain_id 4711, the configuration says 4712");
    site.configure(4711, &other);
    refused("the chain in the data folder has council");
    site.configure(4711, &governor);
    assert!(site.command().arg("--check").output().unwrap().status.success());
    let key_file = site.dir.path().join("sealing.key");
    std::fs::write(&key_file, "11".repeat(32)).unwrap();
    refused("the chain in the data folder has sealing key");
    std::fs::remove_file(&key_file).unwrap();
    // A chain is never continued with another key because its own is away.
    let output = site.command().output().unwrap();
    assert!(!output.status.success());
    assert!(!key_file.exists());
}

#[test]
fn the_deployment_is_printed_before_the_node_ever_ran() {
    let site = Site::new(&address(&key(1)).to_string());
    let print = || {
        let output = site.command().arg("--print-deployment").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let printed = print();
    assert_eq!(printed, site.deployment());
    assert_eq!((&printed["chain_id"], printed["validators"].as_array().unwrap().len()), (&json!(4711), 1));
    assert!(printed["notice"].as_str().unwrap().starts_with("one party seals"));
    let mut node = site.start();
    // The store is the running node's; the file is anybody's.
    assert_eq!(print(), printed);
    let mode = std::fs::metadata(site.dir.path().join("sealing.key")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o600);
    node.stop();
}
