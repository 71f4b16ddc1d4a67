//! The MQTT doors.
