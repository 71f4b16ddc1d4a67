//! The gateway's local door: the patient's page and its interface, and where anybody may hand in policy that carries its own authority.
//!
//! ```text
//! browser ──access code──▶ login ──▶ page, /api/*      ┐
//! wallet, installer, phone ──CBOR──▶ /policy/*         ┘▶ policy side: verify, put in force, answer
//! ```
//! Nothing here decides what counts: a bundle, a revocation or the button's signature is held against the pins by the same code as
//! what comes from the controller (ADR 14).

mod door;
mod login;
mod metrics;
mod offers;
mod pace;
mod page;
mod start;
pub mod view;

pub use door::{
    App, BODY_BYTES_MAX, CONNECTIONS_MAX, ErasureView, PolicySide, SharesView, TrailLine, router,
};
pub use login::{
    AGE_MAX, AccessCodeEntry, AccessCodeError, COOKIE, IDLE_MAX, Login, LoginError, SESSIONS_MAX,
};
pub use metrics::LocalMetrics;
pub use offers::{MESSAGE_BYTES_MAX, OFFERS_MAX, Offers};
pub use start::{Behind, LocalEntry, Material, open};
