//! The chain's client: follows the ledger through a node's JSON-RPC, makes policy bundles out of it, sends transactions.
//!
//! ```text
//!  node ──head, every 100 ms──▶ Follower ──▶ Index (events)          ┐
//!       ──eth_getProof────────▶          ──▶ bundle(watch list) ─────┼──▶ controller ──▶ gateway, which verifies
//!       ◀─signed message, relayed by anybody── Chain::grant, revoke … ┘
//! ```
//! Nothing here verifies anything: a node may lie, and what comes of it is a bundle that every gateway refuses. What a bundle
//! needs is exactly what `ledger_client::verify` takes, and both compute storage slots with the same code. A gateway
//! never links this crate.

pub mod answer;
mod audit;
mod bundle;
mod client;
mod config;
mod contract;
mod convert;
mod error;
mod event;
mod follow;
mod gateway;
mod govern;
mod handover;
mod index;
mod send;
mod succession;
mod transport;

pub use audit::{AuditLogState, LogProof};
pub use client::{Chain, ConsentState, Head, LOG_BLOCKS_MAX, ParticipantState};
pub use config::{ChainConfig, ConfigError, POLL_MS};
pub use convert::SignedParticipantKey;
pub use error::{ChainError, Refusal};
pub use event::{Event, LedgerEvent};
pub use follow::{Follower, Status};
pub use gateway::{GatewaySalt, RevokedGateways, gateway_id};
pub use govern::{Council, PendingChange};
pub use index::{Consent, ENTRIES_MAX, Index, PARTICIPANTS_MAX, Participant};
pub use send::{Mined, RelayKey, SendError};
pub use succession::{Custodians, Recovery, SignedCustody};
pub use transport::ANSWER_BYTES_MAX;
