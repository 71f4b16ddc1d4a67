//! The core as its gateways and feeds meet it: on real QUIC, TCP and disks. One program, since each would compile and link all of it anew.

#![expect(clippy::unwrap_used, reason = "tests")]

mod erasure;
mod feed;
mod gateway;
mod history;
mod live;
mod offers;
mod preview;
mod relay;
#[path = "../support/mod.rs"]
mod support;
mod takeover;
mod tcp;
mod tenants;
