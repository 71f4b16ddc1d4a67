//! The helper as it runs: a process between interfaces of a network namespace that a test has made, told what to do by its socket.

#![expect(clippy::unwrap_used, reason = "what a test can't set up fails it")]

mod forwarding;
mod process;
mod restart;
#[path = "../support/mod.rs"]
mod support;
mod table0;
mod tables;
mod upgrade;
