//! The durable relay and store of sealed segments.
//!
//! It verifies who signed what, stores, acknowledges after its own commit is durable, and delivers to each recipient just
//! the records for which that recipient holds a key. It holds no key that opens anything.

pub mod config;
pub mod erase;
mod fetches;
pub mod gateway;
pub mod metrics;
pub mod offers;
pub mod owners;
mod pace;
pub mod preview;
pub mod relay;
pub mod retention;
pub mod search;
pub mod server;
pub mod store;
pub mod subscriber;
pub mod tcp;
pub mod tenants;
pub mod writer;
