//! The chain's client.
