//! The embedded ledger: the contract in it, its JSON-RPC and subscriptions, what is proven, kept, damaged and asked by other people's tools.

#![expect(clippy::unwrap_used, reason = "a test's own helpers")]

mod contract;
mod damage;
mod fuzz_regressions;
mod history;
mod restart;
mod rpc;
mod subscribe;
#[path = "../support/mod.rs"]
mod support;
mod tools;
mod verify;
