//! Every byte that crosses a boundary in Caregate: codecs and types, no I/O, no async and no clock. And the pure rules that several of its
//! ends go by.
//!
//! Each decoder takes a bounded slice, rejects trailing bytes, and names what was wrong and where.

pub mod alarm;
pub mod audit;
pub mod beat;
pub mod cbor;
pub mod code;
pub mod command;
pub mod datapath;
pub mod entry;
pub mod envelope;
pub mod erasure;
#[cfg(feature = "fhir")]
pub mod fhir;
pub mod gap;
pub mod head;
pub mod id;
mod kem;
pub mod key;
pub mod offer;
pub mod openflow;
pub mod payload;
pub mod policy;
pub mod rate;
pub mod reading;
pub mod record;
pub mod search;
pub mod segment;
mod signed;
pub mod tpm;
pub mod uplink;
pub mod wire;
pub mod wrap;
