//! The Caregate appliance: MQTT ingest, sealing, spool and uplink.

pub mod config;
pub mod daemon;
pub mod datapath;
pub mod hints;
pub mod ingest;
pub mod inventory;
pub mod keys;
pub mod local;
pub mod metrics;
pub mod mqtt;
pub mod openflow;
pub mod pipeline;
pub mod policy;
pub mod spool;
pub mod uplink;
