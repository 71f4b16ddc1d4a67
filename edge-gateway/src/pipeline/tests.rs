//! The pipeline on a disk that loses power.

mod past;
mod power;
#[path = "../../tests/pipeline_support/mod.rs"]
mod support;
