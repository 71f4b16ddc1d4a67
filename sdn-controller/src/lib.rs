//! The OpenFlow 1.3 controller of a fleet of gateways and switches.
//!
//! ```text
//!  operators ──REST, mutual TLS──▶ rest ─▶ store (redb) ─▶ intent ─▶ reconcile ─▶ exchange ─▶ connection ══▶ switches
//!  ledger ─▶ policy (QUIC) ══▶ gateways            both ─▶ events, dashboard
//! ```
//! It holds sessions over mutual TLS, brings each switch's flows to what the operators' intents ask for and keeps them there, and
//! carries policy from the ledger to the gateways. It holds no key but its own TLS key and can grant nothing: what a gateway makes
//! of a bundle or of a flow-mod is the gateway's to decide. The ledger's absence stops neither OpenFlow nor the interface.
//!
//! Pure: [`intent`], [`rule`], [`reconcile`], [`exchange`]; [`caregate_protocol::openflow::session`] decides on the session. The rest
//! is the I/O around it.

pub mod config;
pub mod connection;
pub mod daemon;
pub mod dashboard;
pub mod events;
pub mod exchange;
pub mod flow_json;
pub mod intent;
pub mod metrics;
pub mod policy;
pub mod reconcile;
pub mod rest;
pub mod rule;
pub mod server;
pub mod store;
pub mod switches;
