//! The contract, on the embedded node and on anvil: the same cases, through JSON-RPC.

use std::collections::BTreeMap;

use crate::support::ledger::{Ledger, address, key};
use crate::support::process::{Site, anvil, free_port};
use crate::support::{Rpc, cases};

#[test]
fn the_contract_on_the_embedded_node() {
    let governor = key(1);
    let site = Site::new(&address(&governor).to_string());
    let _node = site.start();
    let contract = site.deployment()["contract"].as_str().unwrap().parse().unwrap();
    cases::all(&Ledger { rpc: Rpc(site.rpc), contract, chain_id: 4711, governor, relay: key(2) });
}

#[test]
fn the_contract_on_anvil() {
    let (_anvil, rpc) = anvil(free_port());
    cases::all(&Ledger::deploy(rpc, 31337, key(1), key(2)));
}

/// The committed artifact is of this source: `cargo xtask contracts` was not forgotten.
#[test]
fn the_artifact_is_of_the_source() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../contracts");
    let artifact = ledger_node::contract::Artifact::embedded().unwrap();
    let files = std::fs::read_dir(folder.join("src")).unwrap().count();
    assert_eq!(artifact.sources.len(), files, "{:?}", artifact.sources.keys());
    for (name, hash) in artifact.sources {
        assert_eq!(hash, alloy_primitives::keccak256(std::fs::read(folder.join(&name)).unwrap()), "{name}");
    }
}

/// What docs/contract.md tells of gas and bytes is what forge measured.
#[test]
fn the_documented_gas_is_the_measured() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let told = std::fs::read_to_string(root.join("docs/contract.md")).unwrap();
    let measured = std::fs::read(root.join("ledger-client/contracts/snapshots/GasTest.json")).unwrap();
    let measured: BTreeMap<String, String> = serde_json::from_slice(&measured).unwrap();
    let calls: Vec<_> = measured.keys().filter(|name| !name.ends_with(", bytes")).collect();
    assert!(calls.len() >= 19, "{calls:?}");
    for call in calls {
        let (name, rest) = call.split_at(call.find(',').unwrap_or(call.len()));
        let [gas, bytes] = [&measured[call], &measured[&format!("{call}, bytes")]].map(|n| thousands(n));
        let row = format!("| `{name}`{rest} | {gas} | {bytes} |");
        assert!(told.lines().any(|line| line == row), "docs/contract.md lacks: {row}");
    }
}

/// A number with a comma at each thousand.
fn thousands(digits: &str) -> String {
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
