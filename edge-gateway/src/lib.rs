//! The Caregate appliance: MQTT ingest, sealing, spool and uplink.

// So that tests in here can use what tests from outside use.
#[cfg(test)]
extern crate self as edge_gateway;

pub mod audit;
pub mod config;
pub mod daemon;
pub mod datapath;
#[cfg(test)]
mod faults;
pub mod hints;
pub mod ingest;
pub mod inventory;
pub mod keys;
pub mod local;
pub mod metrics;
pub mod mqtt;
pub mod network;
pub mod openflow;
pub mod pipeline;
pub mod policy;
pub mod root;
pub mod sockets;
pub mod spool;
pub mod switch;
pub mod uplink;
pub mod watch;

pub use caregate_switch::GUARDED;

/// The version; of a build without guard, or of one that can be told to die, it says so, so that it can be refused by name.
pub const VERSION: &str = if !GUARDED {
    concat!(env!("CARGO_PKG_VERSION"), "+conformance")
} else if caregate_host::kill_point::ARMABLE {
    concat!(env!("CARGO_PKG_VERSION"), "+kill-points")
} else {
    env!("CARGO_PKG_VERSION")
};
