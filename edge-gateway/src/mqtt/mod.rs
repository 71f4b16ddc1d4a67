//! The MQTT doors: an embedded MQTT 3.1.1 server for sensors ([`server`]), and a client of a broker that the home already
//! has ([`broker`]). Both hand every PUBLISH to the pipeline as an `Inbound` and acknowledge it only after the pipeline's
//! verdict, in the order of receipt.
//!
//! ```text
//! socket ─▶ codec ─▶ session (pure: packets, verdicts, now ─▶ actions) ─▶ server ─▶ Inbound ─▶ pipeline
//!   ▲                   ▲        credentials, registry (pure)               │
//!   └──── PUBACK ───────┴───────────────── verdict ◀────────────────────────┘
//! ```
//!
//! Why a server of our own on rumqttc's packet codec: ADR 3.

pub mod access;
pub mod broker;
pub mod codec;
mod connection;
pub mod credentials;
pub mod filter;
pub mod hub;
pub mod limits;
pub mod metrics;
pub(crate) mod rate;
mod reason;
mod registry;
pub mod server;
pub mod session;
pub mod topic;
mod window;
pub mod wire;
