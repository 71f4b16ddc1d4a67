//! The local topic: each patient's alarms, retained, for displays in the home.

use caregate_protocol::alarm::view::AlarmView;
use serde::Serialize;

/// What the topics begin with; the patient's number in this gateway's enrolment follows, from 1. No pseudonym is in a topic.
pub const TOPIC: &str = "gateway/v1/alarms/";

/// Where messages of the gateway itself go out. It never waits: what does not fit is the publisher's to count.
pub trait Publish: Send + Sync + 'static {
    /// Publishes at QoS 1, retained.
    fn publish(&self, topic: &str, payload: Vec<u8>);
}

/// Alarms in one payload: a message of the gateway's own has at most 8 KiB, and each takes some 250 bytes.
pub(super) const ALARMS_MAX: usize = 24;

/// The payload.
#[derive(Debug, Serialize)]
pub(super) struct Payload<'a> {
    /// Unix milliseconds.
    pub(super) at_ms: i64,
    /// Until when no alarm sounds, Unix milliseconds.
    pub(super) paused_until_ms: Option<i64>,
    /// The most urgent that nobody acknowledged: `high`, `medium`, `low` or null.
    pub(super) loudest: Option<&'static str>,
    /// The most urgent first, at most [`ALARMS_MAX`].
    pub(super) alarms: &'a [AlarmView],
    /// How many there are beside them.
    pub(super) more: usize,
}
