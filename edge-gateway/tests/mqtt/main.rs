//! The embedded MQTT server: against rumqttc's client, bare sockets, mosquitto's clients and garbage, and over its restarts.

#![expect(clippy::unwrap_used, reason = "a test's own helpers may panic")]

mod foreign;
mod fuzz;
#[path = "../mqtt_support/mod.rs"]
mod mqtt_support;
mod restart;
mod server;
