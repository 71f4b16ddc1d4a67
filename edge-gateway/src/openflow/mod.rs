//! The gateway as an OpenFlow 1.3.5 switch: table 1, which belongs to the controller (docs/control-path.md, "The datapath").
//!
//! ```text
//!   controller ═TLS═ switch ── agent (pure) ── table, pattern, treatment
//!                      └─ worker ── store (disk), helper (the kernel's table)
//! ```
//! A flow-mod goes in with `now`, the standard's error or what follows from it comes out. The table holds what the kernel is to do;
//! the helper is given all of it after each change, and its counters come back.
//!
//! What makes it other than a common switch's table: the controller may only *narrow* what a sensor may do. A rule that
//! covers a sensor port's frames drops them or leaves them to `LOCAL`, and nothing else, so that no controller can mirror,
//! redirect or rewrite a patient's traffic.

pub mod agent;
mod dial;
pub mod flow;
pub mod helper;
mod line;
pub mod metrics;
pub mod pattern;
pub mod quarantine;
pub mod start;
pub mod store;
pub mod switch;
pub mod table;
pub mod translate;
pub mod treatment;
mod worker;

pub use caregate_protocol::openflow::port;
