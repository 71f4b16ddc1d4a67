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
//!
//! All that is pure of it is a crate of its own, `caregate-switch`; here are its connections, its disk and its clock.

mod dial;
pub mod helper;
mod line;
pub mod metrics;
pub mod start;
pub mod store;
pub mod switch;
mod worker;

pub use caregate_protocol::openflow::port;
pub use caregate_switch::{
    agent, flow, groups, meters, pattern, ports, quarantine, slow, table, tables, translate,
};
