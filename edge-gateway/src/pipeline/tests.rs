//! The pipeline on a disk that loses power, or stalls.

mod past;
mod power;
mod stall;
#[path = "../../tests/pipeline_support/mod.rs"]
mod support;
