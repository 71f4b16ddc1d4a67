//! Reads recordings in the WFDB format of PhysioNet, so that real ones can be replayed and compared sample by sample.
//!
//! `header`, `signal` and `annotation` are pure decoders; [`Record::open`] reads the files around them and joins the
//! segments of a multi-segment record into one timeline, where gaps are [`MISSING`].

pub mod annotation;
pub mod header;
mod record;
mod segments;
pub mod signal;

pub use annotation::parse_annotations;
pub use header::parse_header;
pub use record::{Calibration, MISSING, Record, Signal, WfdbError};
pub use signal::decode_signal;

#[cfg(test)]
pub(crate) mod tests;
