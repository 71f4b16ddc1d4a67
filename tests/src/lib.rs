//! Simulated body sensors, an independent reader of the feed, and tests of several crates at once.
//!
//! `wfdb`, `ecg` and `numerics` say what a sensor measures, `sensor` sends it, `feed` reads what arrives at the other end,
//! and `story` compares the two. `rules` makes rule sets for measurements, `bpf` sends frames at the speed of a wire. Nothing here is linked
//! into the product.

pub mod audit;
pub mod bpf;
pub mod ecg;
pub mod feed;
pub mod heart;
pub mod numerics;
pub mod packet;
pub mod round;
pub mod rules;
pub mod sensor;
pub mod story;
pub mod wfdb;
