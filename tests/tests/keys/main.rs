//! A patient's root, and what is searched under it, through real processes: ledger, core, controller, and one gateway after the other.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]
#![allow(dead_code, reason = "helpers of other tests, of which this uses its part")]

#[path = "../../../caregatectl/tests/ledger/support.rs"]
mod called;
mod classes;
mod erasure;
mod home;
mod offered;
mod past;
#[path = "../../../core-cloud/tests/support/pki.rs"]
mod pki;
mod recovery;
mod refused;
mod search;
