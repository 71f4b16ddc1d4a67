//! The embedded ledger: the contract in an EVM, Ethereum's JSON-RPC, headers in QBFT's form.
//!
//! It is no consensus engine: **one party seals**, and says so wherever the chain is described. It is for one site and for
//! evaluation; across institutions the same contract runs on Hyperledger Besu, and clients change nothing but their address.
//!
//! ```text
//! HTTP ─▶ request (bytes → calls) ─▶ rpc (reads) ─────────────▶ state ─▶ trie ─▶ store
//!                                     └─ transactions ─▶ producer ─▶ pool ─▶ block ─▶ evm ─▶ seal ─▶ store
//! ```

pub mod block;
pub mod chain;
pub mod config;
pub mod contract;
pub mod error;
pub mod evm;
pub mod http;
pub mod metrics;
pub mod pool;
pub mod producer;
pub mod request;
pub mod rpc;
pub mod seal;
mod socket;
pub mod state;
pub mod store;
pub mod trie;
