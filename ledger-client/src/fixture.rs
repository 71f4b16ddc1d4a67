//! A ledger in memory that seals what it is told, for tests of what verifies (feature `fixture`): the contract's storage is set slot
//! by slot, there is no EVM. What a real chain makes is tested with the node.
//!
//! [`Site`] is a gateway's patient, the hospitals and their ledger, and makes bundles. [`forgeries`] takes a good bundle, also one of a
//! real chain, and makes what somebody would who holds no key of it.

pub mod header;
pub mod trie;

mod forge;
mod sign;
mod site;

pub use forge::{Forgery, Stranger, forgeries};
pub use sign::Signer;
pub use site::{Hospital, Site};
