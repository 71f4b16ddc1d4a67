//! The shell around each daemon: configuration, identities, metrics, logs, shutdown.
//!
//! Logic lives in the daemons' own crates and is given its time, its keys and its sockets; what fetches those from the
//! operating system is here, once. So this crate needs tokio and rustls, which `caregate-protocol` must not have (ADR 1).

pub mod admin;
#[cfg(test)]
mod child;
pub mod clock;
pub mod config;
pub mod dir;
pub mod exit;
pub mod http;
pub mod identity;
pub mod journal;
pub mod key_file;
pub mod kill_point;
pub mod log;
pub mod memory;
pub mod net;
pub mod origin;
mod process;
pub mod shutdown;
