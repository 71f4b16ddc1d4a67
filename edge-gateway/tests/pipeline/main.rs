//! The pipeline on a real spool: what goes in, who may open it, what room, age, damage and erasure leave of it, and the watch behind it.

#![expect(clippy::unwrap_used, reason = "tests")]

mod access;
mod classes;
mod commit;
mod erasure;
mod faults;
mod gaps;
mod past;
#[path = "../pipeline_support/mod.rs"]
mod pipeline_support;
mod watch;
