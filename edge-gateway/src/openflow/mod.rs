//! The gateway as an OpenFlow 1.3.5 switch (ADR 17; docs/control-path.md, "The datapath").
//!
//! ```text
//!   controller ═TLS═ switch ── agent (pure) ── tables: flows, groups, meters, ports
//!                      └─ worker ── store (disk), helper (the kernel's tables)
//! ```
//! A flow-mod goes in with `now`, the standard's error or what follows from it comes out. The tables hold what the kernel is to do;
//! the helper is told what changes in them, and its counters come back.
//!
//! What makes it other than a common switch: table 0 is policy's, and the controller may only *narrow* what a sensor may do. A flow
//! that covers a sensor port's frames drops them or leaves them to `LOCAL`, and nothing else, so that no controller can mirror,
//! redirect or rewrite a patient's traffic.

pub mod agent;
mod check;
mod dial;
pub mod flow;
pub mod groups;
pub mod helper;
mod line;
pub mod meters;
pub mod metrics;
pub mod pattern;
pub mod ports;
pub mod quarantine;
pub mod slow;
pub mod start;
pub mod store;
pub mod switch;
pub mod table;
pub mod tables;
pub mod translate;
mod worker;

pub use caregate_protocol::openflow::port;
