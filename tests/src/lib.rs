//! Simulated body sensors, an independent reader of the feed, and tests of several crates at once.
