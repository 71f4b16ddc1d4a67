//! The gateway's switch: over TLS, under controllers of others, with helper and kernel, and as a program that is killed.

#![expect(clippy::unwrap_used, reason = "a test's own helpers may panic")]

mod command;
mod foreign;
mod kernel;
mod kill;
#[path = "../openflow_support/mod.rs"]
mod openflow_support;
mod tls;
