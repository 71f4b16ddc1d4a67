//! The Caregate appliance: MQTT ingest, sealing, spool and uplink.

pub mod ingest;
pub mod mqtt;
pub mod spool;
