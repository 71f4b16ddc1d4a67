//! Policy at the gateway: from bundles and revocations, by whatever path they come, to who may open what.
//!
//! ```text
//! link (controller, QUIC) ─┐                      ┌─▶ commit thread: seals for whom it names, closes epochs
//! local door ──────────────┤
//! core (uplink) ─▶ offers ─┼▶ handle: verifies ─▶ decide: floors, disk, trail ─▶ watchers: datapath, page, link
//! disk (at start) ─────────┘                      └─▶ answer: the verdict
//! ```
//! A bundle is verified off the commit thread, against a copy of the floors; [`Decider`] holds it against the floors once more, keeps
//! what has risen, and only then puts it in force. Nothing else puts a policy in force.

pub mod clock;
mod decide;
pub mod enrolment;
mod handle;
mod link;
mod metrics;
pub mod offers;
mod pace;
mod store;
pub mod trail;

pub use clock::Now;
pub use decide::{Change, DIRECT_MAX, Decider, DecisionError, Outputs, Proposal};
pub use handle::PolicyHandle;
pub use link::{ControllerLink, LinkError};
pub use metrics::PolicyMetrics;
pub use store::{Changes, PolicyStore, REFUSALS_MAX, TRAIL_MAX};
