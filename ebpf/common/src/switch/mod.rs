//! The OpenFlow switch: what a frame's key is, how rules are found by it, and what actions do to its headers (ADR 17).
//!
//! Shared by the eBPF programs, the helper that builds what they read, and the daemon's slow path.

pub mod blob;
pub mod edit;
pub mod key;
pub mod map;
pub mod microflow;
pub mod op;
pub mod parse;
pub mod record;
pub mod stage;

pub use key::{KEY_BYTES, KEY_WORDS, Key, Place, place};
pub use op::{Op, set_field};
