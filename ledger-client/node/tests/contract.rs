//! The contract, on the embedded node and on anvil: the same cases, through JSON-RPC.

mod support;

use support::ledger::{Ledger, address, key};
use support::process::{Site, anvil, free_port};
use support::{Rpc, cases};

#[test]
fn the_contract_on_the_embedded_node() {
    let registrar = key(1);
    let site = Site::new(&address(&registrar).to_string());
    let _node = site.start();
    let contract = site.deployment()["contract"].as_str().unwrap().parse().unwrap();
    cases::all(&Ledger { rpc: Rpc(site.rpc), contract, chain_id: 4711, registrar, relay: key(2) });
}

#[test]
fn the_contract_on_anvil() {
    let (_anvil, rpc) = anvil(free_port());
    cases::all(&Ledger::deploy(rpc, 31337, key(1), key(2)));
}

/// The committed artifact is of this source: `cargo xtask contracts` was not forgotten.
#[test]
fn the_artifact_is_of_the_source() {
    let source = include_bytes!("../../contracts/Caregate.sol");
    let artifact = ledger_node::contract::Artifact::embedded().unwrap();
    assert_eq!(artifact.source_keccak256, alloy_primitives::keccak256(source));
}
