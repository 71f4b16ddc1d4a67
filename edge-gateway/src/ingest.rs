//! What both doors (the embedded MQTT server and the client of an existing broker) hand to the pipeline.

use bytes::Bytes;
use caregate_protocol::id::DeviceId;
use tokio::sync::oneshot;

/// One PUBLISH of an authenticated device.
#[derive(Debug)]
pub struct Inbound {
    /// Whose credentials the connection showed, or whom the broker's topic names.
    pub device: DeviceId,
    /// The topic as sent.
    pub topic: String,
    /// The payload as sent, at most the door's packet limit.
    pub payload: Bytes,
    /// Unix time in microseconds by the gateway's clock, when the packet was complete.
    pub received_us: i64,
    /// Answered once: after the reading is on disk, or when it is refused. The door acknowledges only after this.
    pub verdict: oneshot::Sender<Verdict>,
}

/// What became of a PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// On stable storage, or known to be there already: acknowledge.
    Stored,
    /// Kept in quarantine because it could not be decoded or admitted: acknowledge, the sender can't mend it by repeating.
    Quarantined,
    /// No room or no disk: do not acknowledge.
    Refused,
}
