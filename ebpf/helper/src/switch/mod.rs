//! The OpenFlow switch's side of the helper (ADR 17): what the daemon asked for, by id, and the blob that the programs read.
//!
//! ```text
//!  Change ──▶ mirror ──▶ places ──▶ build ──▶ blob, the copy that is out of force ──▶ epoch: in force
//!             (check)    counters   (chunks)
//! ```

pub mod build;
pub mod check;
pub mod chunks;
pub mod mirror;
pub mod places;
