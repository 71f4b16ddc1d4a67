//! The MQTT doors: an embedded MQTT 3.1.1 and 5.0 server for sensors and for displays in the home ([`server`]), and a client of a
//! broker that the home already has ([`broker`]). Both hand every PUBLISH to the pipeline as an `Inbound` and acknowledge it only after the pipeline's
//! verdict, in the order of receipt.
//!
//! ```text
//! socket ─▶ wire ─▶ conversation (pure: packets, verdicts, now ─▶ actions) ─▶ connection ─▶ Inbound ─▶ pipeline
//!   ▲                 │    ▲     one client's protocol                           │
//!   │                 ▼    │                                                     │
//!   │                hub (pure: sessions, subscriptions, retained, wills) ◀── publisher (the gateway's own messages)
//!   └── PUBACK, PUBREC ────┴──────────────────── verdict ◀───────────────────────┘
//! ```
//!
//! Why a server and a codec of our own: ADR 3 and ADR 18.

pub mod access;
pub mod broker;
mod connection;
pub mod conversation;
pub mod credentials;
pub mod filter;
mod handshakes;
pub mod hub;
pub mod kept;
pub mod limits;
pub mod metrics;
pub mod publisher;
mod reason;
pub mod server;
mod stall;
pub mod topic;
pub mod tunnel;
pub mod websocket;
mod window;
pub mod wire;
