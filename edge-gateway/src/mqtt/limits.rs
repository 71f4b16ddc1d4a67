//! The bounds of the MQTT doors, each with the reason for its number.

use std::time::Duration;

use serde::Deserialize;

use caregate_protocol::id::Lane;

/// Time from accepting a connection (TLS handshake included) to its CONNECT. A sensor on a bad radio link needs two or
/// three retransmissions, about 3 s; longer only serves who wants to hold a slot.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long outstanding publishes may still be answered after a refusal or at shutdown. A group commit takes tens of
/// milliseconds; 5 s is a disk in trouble, and the sensor sends again what was not acknowledged.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a peer may leave our bytes unread. PUBACKs are four bytes: a peer whose window stays shut this long is gone.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Unsent bytes at which a connection's reading stops: 4,096 PUBACKs, sixteen times the default window.
pub const UNSENT_BYTES_MAX: usize = 16 * 1024;

/// Longest client id. MQTT-3.1.3-5 asks for at least 23; 128 fits a UUID with a vendor's prefix and bounds the registry.
pub const CLIENT_ID_BYTES_MAX: usize = 128;

/// Longest topic: `vitals/v1/` with two names of 64 bytes and two more levels.
pub const TOPIC_BYTES_MAX: usize = 256;

/// Most filters in one SUBSCRIBE or UNSUBSCRIBE: all are refused anyway; it bounds the SUBACK.
pub const FILTERS_MAX: usize = 64;

/// What one outstanding PUBLISH costs beyond its topic and payload (queue entry, channel, allocation headers), so that
/// many empty publishes are bounded too.
pub const PUBLISH_OVERHEAD_BYTES: usize = 256;

/// Connections that may be between accept and CONNECT at once. They have a budget of their own so that strangers who
/// hold sockets open can't take the slots of sensors.
pub const HANDSHAKES_MAX: usize = 32;

/// Connections that have ended and still take their last bytes, above those that are up: a second or two each, so half as many as a
/// clinic's sensors that all come anew at once.
pub const CLOSING_MAX: usize = 32;

/// Outstanding bytes over all connections: with sockets and buffers this keeps the door under a third of the gateway's
/// 48 MiB.
pub const OUTSTANDING_BYTES_MAX: u32 = 8 * 1024 * 1024;

/// Outstanding bytes of alarms over all connections, beside those: a full queue of them at 1 KiB each.
pub const OUTSTANDING_ALARM_BYTES_MAX: u32 = 256 * 1024;

/// Connections of one device. A sensor needs one, a hub with a helper two; above it the device's oldest makes room, so
/// that a sensor which lost its link often is never locked out by its own dead connections.
pub const CONNECTIONS_PER_DEVICE: usize = 4;

/// Sessions of one device, with and without connection: as many again as it may have connections.
pub const SESSIONS_PER_DEVICE: usize = 8;

/// Sessions in all: every connection twice over. A kept one costs a few hundred bytes and its queue.
pub const SESSIONS_MAX: usize = 128;

/// How long a session is kept without a connection, also where a client asks for more or for ever: a night, after which a
/// display shows what is now.
pub const SESSION_EXPIRY_MAX: Duration = Duration::from_secs(12 * 3600);

/// Subscriptions of one session: as many as one SUBSCRIBE may have.
pub const SUBSCRIPTIONS_PER_SESSION: usize = 64;

/// Subscriptions in all. Each is held against each message: 1,024 cost some 30 µs.
pub const SUBSCRIPTIONS_MAX: usize = 1_024;

/// Messages that wait for one client: half a minute of a patient's vitals and waveforms.
pub const OUTBOX_MESSAGES_MAX: usize = 1_000;

/// Their bytes, with those of the messages that it was sent and has not acknowledged.
pub const OUTBOX_BYTES_MAX: usize = 512 * 1024;

/// Bytes of the messages that a client was sent and has not acknowledged; a message that is longer goes alone. Half of the above: of a
/// client that acknowledges nothing the other half of the queue goes on to show the present.
pub const SENT_BYTES_MAX: usize = OUTBOX_BYTES_MAX / 2;

/// Bytes that wait or are on their way for all clients together, so that displays that are away or acknowledge nothing can't take the
/// gateway's memory.
pub const OUTBOXES_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Of these, the most for all sessions of one device: two full queues. Eight of them would have all that the others share.
pub const OUTBOXES_BYTES_PER_DEVICE: usize = 2 * OUTBOX_BYTES_MAX;

/// Messages at QoS 1 and 2 that a client is sent without its acknowledgement, also where its Receive Maximum is higher: what a
/// home's network has on its way in 100 ms at 640 a second.
pub const SENT_MAX: usize = 64;

/// Topic aliases a connection may have, in each direction: a device has a dozen topics.
pub const TOPIC_ALIASES_MAX: u16 = 16;

/// Retained topics of one device: its status, its meta, and a metric each.
pub const RETAINED_PER_DEVICE: usize = 64;

/// Their bytes: numerics are a few hundred bytes each.
pub const RETAINED_BYTES_PER_DEVICE: usize = 64 * 1024;

/// Retained bytes in all: thirty devices that use all of theirs.
pub const RETAINED_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Of these, kept free for the gateway's own messages.
pub const RETAINED_BYTES_RESERVED: usize = RETAINED_BYTES_PER_DEVICE;

/// QoS 2 messages of a client of 3.1.1, which knows no Receive Maximum, that may wait for PUBREL: clients have 20 to a few hundred on
/// their way.
pub const UNRELEASED_MAX: usize = 1_024;

/// What an operator may set for the embedded server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Authenticated connections. 64 is a clinic room with a few sensors for each of a dozen patients.
    pub connections_max: usize,
    /// Largest packet without its fixed header, in bytes. 256 KiB is a waveform chunk of 8,192 samples with room to spare.
    pub packet_bytes_max: usize,
    /// Publishes of one connection that await their verdict. 256 fills a group commit of 10 ms at 25,000 per second.
    pub inflight_max: usize,
    /// Their bytes; at this point reading stops until verdicts come in. One packet may reach over it.
    pub inflight_bytes_max: usize,
    /// Publishes per second of one connection, as a long-run mean. A 12-lead monitor sends about 60.
    pub publishes_per_s: u32,
    /// Publishes that may come at once above that mean: a sensor's own backlog after an outage.
    pub publishes_burst: u32,
    /// Longest keep-alive, in seconds, which a client of 5.0 that asks for a longer one or none is told (Server Keep Alive). 0: any. Ten minutes
    /// are what TCP's own probes leave between them and a dead link at worst, many times over.
    pub keep_alive_s_max: u16,
    /// How long a waveform chunk waits for a place in the pipeline's queue before it is refused; activity half as long, vitals twice; see
    /// [`Self::patience`].
    pub overload_after_ms: u32,
}

impl Limits {
    /// How long a connection is not read while a PUBLISH of this lane has no place, before it is refused; `None`: until it has it.
    #[must_use]
    pub fn patience(&self, lane: Lane) -> Option<Duration> {
        let waveform = Duration::from_millis(self.overload_after_ms.into());
        match lane {
            Lane::Activity => Some(waveform / 2),
            Lane::Waveform => Some(waveform),
            Lane::Vitals => Some(waveform * 2),
            Lane::Alarm => None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 64,
            packet_bytes_max: 256 * 1024,
            inflight_max: 256,
            inflight_bytes_max: 1024 * 1024,
            publishes_per_s: 5_000,
            publishes_burst: 20_000,
            keep_alive_s_max: 600,
            // A flash card that clears a block stalls for up to a second or two; a queue that stays full for longer won't be emptied by waiting.
            overload_after_ms: 3_000,
        }
    }
}
