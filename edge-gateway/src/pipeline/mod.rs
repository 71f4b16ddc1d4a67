//! From a PUBLISH to the spool: decode, admit, seal, append, sync, and only then answer.
//!
//! One thread owns the spool and everything that must agree with it: chains, duplicates, keys. What arrives while it syncs
//! is the next group commit, so the cost of a sync is shared by all that wait for it.

pub mod admit;
pub mod chains;
pub mod commit;
pub mod duplicates;
pub mod erase;
pub mod expiry;
pub mod front;
pub mod gaps;
pub mod heads;
pub mod leaves;
pub mod losses;
pub mod past;
pub mod recover;
pub mod seal;
pub mod thread;
pub mod unheard;
pub mod waiting;

#[cfg(test)]
mod tests;
