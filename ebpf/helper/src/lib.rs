//! The datapath's helper process: it holds what needs privilege, and parses nothing that came from a network.
//!
//! ```text
//!  daemon ──Unix socket──▶ connection ──▶ shared ──▶ kernel   maps, selectors, counters
//!                             ▲                └──▶ ports    interfaces, XDP and tc, addresses (netlink)
//!                             └── events ◀── ring of frames to the controller, changes of ports
//! ```
//! Everything in the kernel is pinned, so that a restart of this process or of the daemon changes nothing of what a frame
//! meets; a new version's programs take the old ones' place in one step (`docs/adr/0009-datapath.md`).

pub mod at_once;
pub mod attach;
pub mod config;
pub mod connection;
pub mod daemon;
pub mod error;
pub mod features;
pub mod grace;
pub mod kernel;
pub mod links;
pub mod metrics;
pub mod object;
pub mod packet;
pub mod pin;
pub mod ports;
pub mod privilege;
pub mod shared;
pub mod socket;
pub mod stages;
pub mod switch;
mod watch;

/// Whether table 0 and sensor ports are kept from the controller. False in builds with the cargo feature `conformance` alone, for
/// conformance suites.
pub const GUARDED: bool = !cfg!(feature = "conformance");
/// This build's version.
pub const VERSION: &str =
    if GUARDED { env!("CARGO_PKG_VERSION") } else { concat!(env!("CARGO_PKG_VERSION"), "+conformance") };
