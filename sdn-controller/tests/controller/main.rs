//! The controller's own binary, over mutual TLS: switches, operators, gateways.
//!
//! The tests with Open vSwitch need root and the packages openvswitch-switch and iproute2; without them they fail and say so.

#![expect(clippy::unwrap_used, reason = "what a test can't set up fails it")]

mod gateway_switch;
mod interface;
mod open_vswitch;
mod policy;
mod support;
