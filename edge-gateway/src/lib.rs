//! The Caregate appliance: MQTT ingest, sealing, spool and uplink.
