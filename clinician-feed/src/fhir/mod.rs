//! FHIR R4 (4.0.1): the readings that are held, as Observations to read and to search; and the audit log and patients' grants.
//!
//! Resources are made when they are asked for. A dozen kinds of element as plain structs build in a second, where the
//! generated crates take minutes.

pub mod audit;
pub mod date;
pub mod grants;
pub mod observation;
mod oversight;
pub mod resource;
pub mod routes;
pub mod search;
pub mod select;

pub use routes::router;
