//! Simulated body sensors: what they measure ([`source`]), how it travels ([`payload`]) and what became of it
//! ([`journal`]).
//!
//! What a device will send is a pure function of its configuration, so that `story-check` can work it out again from the
//! file or the seed and compare. Only [`device`] has a socket and a clock.

pub mod config;
pub mod device;
pub mod journal;
mod names;
pub mod payload;
pub mod source;
pub mod tracker;

pub use config::{Config, DeviceConfig, PayloadFormat, SourceConfig};
pub use device::{Outcome, run};
pub use source::{Body, Item, Source, SourceError};
