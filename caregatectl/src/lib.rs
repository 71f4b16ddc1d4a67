//! Of `caregatectl` what reads whole what somebody handed over: FHIR Consents, and JSON of which no part may be passed over. The program is
//! `main.rs`; this is apart from it so that it can be fuzzed.

pub mod fhir;
pub mod files;
