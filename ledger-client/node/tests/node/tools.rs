//! Other people's tools on the embedded node: foundry's `cast` reads it and sends to it, and `forge script` deploys the contract.

use std::process::{Command, Output, Stdio};

use alloy_primitives::{Address, keccak256};
use serde_json::{Value, json};

use crate::support::ledger::{Ledger, address, key, key_call};
use crate::support::process::{Process, Site, contracts, foundry};
use crate::support::{Rpc, bytes, number};

/// A key that holds nothing and is nobody's.
const THROWAWAY: u64 = 77;

struct Tools {
    site: Site,
    ledger: Ledger,
    _node: Process,
}

impl Tools {
    fn new() -> Self {
        let site = Site::new(&address(&key(1)).to_string());
        let node = site.start();
        let contract = site.deployment()["contract"].as_str().unwrap().parse().unwrap();
        let ledger = Ledger { rpc: Rpc(site.rpc), contract, chain_id: 4711, governor: key(1), relay: key(2) };
        Self { site, ledger, _node: node }
    }

    /// A program of foundry's, with the node's address, and without anything of whoever runs this.
    fn program(&self, name: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(foundry(name));
        let folder = self.site.dir.path();
        command.args(arguments).args(["--rpc-url", &format!("http://{}", self.site.rpc)]);
        command.env("HOME", folder).current_dir(contracts()).stdin(Stdio::null());
        for (name, folder_name) in
            [("FOUNDRY_OUT", "out"), ("FOUNDRY_CACHE_PATH", "cache"), ("FOUNDRY_BROADCAST", "broadcast")]
        {
            command.env(name, folder.join(folder_name));
        }
        let governor = address(&self.ledger.governor).to_string();
        command.env("CAREGATE_GOVERNORS", governor);
        command.env("CAREGATE_THRESHOLD", "1").env("CAREGATE_DELAY_S", "60");
        command.output().unwrap()
    }

    #[track_caller]
    fn cast(&self, arguments: &[&str]) -> String {
        let output = self.program("cast", arguments);
        assert!(output.status.success(), "cast {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[track_caller]
    fn cast_json(&self, arguments: &[&str]) -> Value {
        let text = self.cast(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    #[track_caller]
    fn cast_fails(&self, arguments: &[&str]) -> String {
        let output = self.program("cast", arguments);
        assert!(!output.status.success(), "cast {arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

fn secret() -> String {
    format!("{}", keccak256(THROWAWAY.to_be_bytes()))
}

const FREE: [&str; 4] = ["--gas-price", "0", "--priority-gas-price", "0"];

#[test]
fn cast_reads_and_sends() {
    let tools = Tools::new();
    let contract = tools.ledger.contract.to_string();
    assert_eq!(tools.cast(&["chain-id"]), "4711");
    assert!(tools.cast(&["client"]).ends_with("/one-party-seals"));
    let first = tools.cast_json(&["block", "0"]);
    assert_eq!(first["hash"], tools.site.deployment()["genesis"]);
    let governors = tools.cast(&["call", &contract, "governors()(address[])"]);
    assert_eq!(governors, format!("[{}]", address(&tools.ledger.governor)));
    assert_eq!(tools.cast(&["call", &contract, "epoch()(uint64)"]), "0");

    // Signed by cast, and its gas estimated.
    let data = format!("0x{}", hex::encode(key_call(&tools.ledger.domain(), 10_000, 1)));
    let secret = secret();
    let send = [&["send", "--private-key", &secret][..], &FREE, &[&contract, &data]].concat();
    let sent = tools.cast_json(&send);
    let sender: Address = sent["from"].as_str().unwrap().parse().unwrap();
    assert_eq!((number(&sent["status"]), sender), (1, address(&key(THROWAWAY))));
    let hash = sent["transactionHash"].as_str().unwrap();
    let receipt = tools.cast_json(&["receipt", hash]);
    assert_eq!((&receipt["blockHash"], &receipt["logs"]), (&sent["blockHash"], &sent["logs"]));
    assert_eq!(tools.cast_json(&["tx", hash])["input"], data);
    assert_eq!(tools.cast(&["call", &contract, "epoch()(uint64)"]), "1");
    assert_eq!(tools.cast(&["nonce", &sender.to_string()]), "1");
    let logs = tools.cast_json(&["logs", "--from-block", "0", "--address", &contract]);
    assert_eq!(logs, receipt["logs"]);
    let proof = tools.cast_json(&["proof", &contract, "0"]);
    let root = |nodes: &Value| json!(keccak256(bytes(&nodes[0])));
    assert_eq!(root(&proof["storageProof"][0]["proof"]), proof["storageHash"]);
    assert_eq!(proof["storageProof"][0]["value"], "0x1");
    // What is sealed meanwhile changes nothing of the state.
    assert_eq!(root(&proof["accountProof"]), tools.cast_json(&["block", "latest"])["stateRoot"]);
    tools_say_what_is_wrong(&tools, &contract, &data);
}

fn tools_say_what_is_wrong(tools: &Tools, contract: &str, data: &str) {
    let secret = secret();
    let again = [&["send", "--private-key", &secret][..], &FREE, &[contract, data]].concat();
    let error = tools.cast_fails(&again);
    assert!(error.contains("VersionNotRaised"), "{error}");
    // cast offers a price of its own where it is told none, and nobody here has any ether.
    let error = tools.cast_fails(&["send", "--private-key", &secret, contract, data]);
    assert!(error.contains("send with gas price 0"), "{error}");
}

#[test]
fn forge_deploys_the_contract() {
    let tools = Tools::new();
    let secret = secret();
    let script = ["script", "script/Deploy.s.sol:Deploy", "--broadcast", "--private-key", &secret];
    let output = tools.program("forge", &[&script[..], &["--legacy", "--with-gas-price", "0"]].concat());
    assert!(output.status.success(), "{output:?}");
    let written = tools.site.dir.path().join("broadcast/Deploy.s.sol/4711/run-latest.json");
    let written: Value = serde_json::from_slice(&std::fs::read(written).unwrap()).unwrap();
    let receipt = &written["receipts"][0];
    assert_eq!(number(&receipt["status"]), 1);
    let contract = receipt["contractAddress"].as_str().unwrap();
    assert_eq!(contract.parse(), Ok(address(&key(THROWAWAY)).create(0)));
    let artifact: Value = serde_json::from_str(ledger_node::contract::ARTIFACT).unwrap();
    let code = bytes(&tools.ledger.rpc.ask("eth_getCode", json!([contract, "latest"])));
    let compiled = bytes(&artifact["deployedBytecode"]);
    // What the constructor puts in, chain id and domain separator, is zero in the artifact; all else is as it was compiled.
    assert_eq!(code.len(), compiled.len());
    assert!(code.iter().zip(&compiled).all(|(byte, compiled)| byte == compiled || *compiled == 0));
    assert_eq!(tools.cast(&["call", contract, "council()(uint64,uint64,uint8)"]), "1\n60\n1");
}
