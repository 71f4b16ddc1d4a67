//! The OpenFlow 1.3 controller of a fleet of gateways and switches, first cut.
//!
//! It takes switches over mutual TLS, agrees on the version, asks what each one is, keeps the session alive by echo, and
//! lists who is there. **It installs no flow, sends no packet-out and changes no configuration**: a switch under it
//! forwards as it would without it. Desired state, intents and policy delivery come on top of these sessions.
//!
//! [`caregate_protocol::openflow::session`] decides; this crate is the I/O around it.

pub mod api;
pub mod config;
pub mod connection;
pub mod metrics;
pub mod server;
pub mod switches;
