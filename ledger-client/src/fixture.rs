//! A ledger in memory that seals what it is told, for tests of what verifies (feature `fixture`): the contract's storage is set slot
//! by slot, there is no EVM. What a real chain makes is tested with the node.

pub mod header;
pub mod trie;
