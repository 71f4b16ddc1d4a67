//! FHIR R4 (4.0.1): the readings that are held, as Observations to read and to search.
//!
//! Resources are made when they are asked for. A dozen kinds of element as plain structs build in a second, where the
//! generated crates take minutes.

pub mod date;
pub mod observation;
pub mod resource;
pub mod routes;
pub mod search;
pub mod select;

pub use routes::router;
