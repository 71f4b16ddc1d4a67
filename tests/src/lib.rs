//! Simulated body sensors, an independent reader of the feed, and tests of several crates at once.
//!
//! `wfdb`, `ecg` and `numerics` say what a sensor measures, `sensor` sends it, `feed` reads what arrives at the other end,
//! and `story` compares the two. Nothing here is linked into the product.

pub mod audit;
pub mod ecg;
pub mod feed;
pub mod heart;
pub mod numerics;
pub mod round;
pub mod sensor;
pub mod story;
pub mod wfdb;
