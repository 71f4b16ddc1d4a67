//! The BPF programs in the running kernel, frame by frame (`BPF_PROG_TEST_RUN`), against what is said of them in user space.

#![expect(clippy::unwrap_used, reason = "what a test can't set up fails it")]

mod actions;
mod microflows;
mod parity;
mod random;
#[path = "../support/mod.rs"]
mod support;
mod switch;
mod switch_rig;
