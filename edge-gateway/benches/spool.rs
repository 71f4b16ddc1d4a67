//! Measured figures for ADR 2.
fn main() {}
