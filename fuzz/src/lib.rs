//! What the fuzz targets do, as plain functions: libFuzzer calls them with new bytes, the plain tests with kept ones.

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "controller")]
pub mod controller;
#[cfg(feature = "core")]
pub mod core;
#[cfg(feature = "feed")]
pub mod feed;
#[cfg(feature = "gateway")]
pub mod gateway;
#[cfg(feature = "ledger")]
pub mod ledger;
#[cfg(feature = "node")]
pub mod node;
pub mod protocol;
#[cfg(feature = "recordings")]
pub mod recordings;

/// A name, which is that of the folders and of the file in `fuzz_targets/`; and what takes the bytes.
pub type Target = (&'static str, fn(&[u8]));
