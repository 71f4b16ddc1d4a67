//! Alarms: limits, technical alarms and NEWS2, with everything else down (ADR 20, docs/alarms.md).
//!
//! ```text
//! commit thread ─tap─▶ ┌────────┐ ─▶ local page    ─▶ MQTT (retained)    ─▶ webhook
//! staff's commands ──▶ │ engine │ ─▶ commit thread: sealed, class alarm, at once
//!          the clock ─▶ └────────┘ ─▶ heartbeat, on the alarm lane's connection
//! ```
//! The engine is pure; [`thread`] is the shell around it, on a thread of its own, and [`writer`] puts on disk what it must remember.

pub mod command;
pub mod config;
pub mod engine;
mod metrics;
pub mod start;
pub mod store;
pub mod tap;
pub mod thread;
mod topic;
pub mod webhook;
pub mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;

use caregate_protocol::alarm::Standing;
use caregate_protocol::id::PatientId;

pub use config::WatchEntry;
pub use metrics::WatchMetrics;
pub use start::Unheard;
pub use tap::{Events, Tap};
pub use topic::{Publish, TOPIC};

/// The newest standing of each patient.
pub type Standings = BTreeMap<PatientId, Arc<Standing>>;
