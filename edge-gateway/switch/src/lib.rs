//! An OpenFlow 1.3.5 switch without I/O (ADR 17): the gateway's end of a controller's connection, and the tables that it writes.
//!
//! ```text
//!   frames ──▶ agent ──▶ tables: flows, groups, meters, ports ──▶ changes for the helper
//!                └────── slow: what the kernel hands up
//! ```
//! Each call is given `now` and returns what is to be done. What makes it other than a common switch: table 0 is policy's, and the
//! controller may only *narrow* what a sensor may do ([`ports::Guard`]).
//!
//! It is a crate of its own so that it is built for speed, where the gateway around it is built for a router's flash.

pub mod agent;
mod check;
pub mod flow;
pub mod groups;
pub mod kept;
pub mod meters;
pub mod pattern;
pub mod ports;
pub mod quarantine;
pub mod slow;
pub mod table;
pub mod tables;
pub mod translate;

use caregate_protocol::openflow::port;

/// Whether table 0 and sensor ports are kept from the controller. False in builds with the cargo feature `conformance` alone, for
/// suites that need a switch without guard; those run as `edge-gateway switch` and as nothing else.
pub const GUARDED: bool = !cfg!(feature = "conformance");
