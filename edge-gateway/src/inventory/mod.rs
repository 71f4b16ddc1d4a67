//! Who is on the sensor network: each device that was seen there, what it says of itself, and whether it is bound.
//!
//! ```text
//! packet socket ─▶ tap ─▶ frame (pure: dhcp, dns, lldp) ─▶ table (pure) ─▶ hints (sled), the patient's page
//! ```
//! It is an aid for people: all of it is claims, and nothing is admitted because of it (ADR 14).

mod dhcp;
mod dns;
pub mod frame;
mod keeper;
mod lldp;
mod metrics;
pub mod oui;
mod ports;
pub mod table;
mod tap;
mod text;

pub use keeper::{follow, keep, start};
pub use metrics::InventoryMetrics;
pub use ports::listen;
pub use tap::{Shared, Tap};

#[cfg(test)]
mod tests;
