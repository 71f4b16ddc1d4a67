//! What both doors (the embedded MQTT server and the client of an existing broker) hand to the pipeline, and the queue between
//! them, in which alarms have places of their own (ADR 49).

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;
use caregate_protocol::code::{self, Kind};
use caregate_protocol::id::{DeviceId, Lane};
use caregate_protocol::payload::PAYLOAD_BYTES_MAX;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

/// PUBLISHes other than alarms waiting for the next commit; beyond it the doors stop reading. Twice what one commit takes.
pub const INBOUND_MAX: usize = 2048;
/// Alarms waiting for the next commit: a fall, a call or a lead that is off comes from few sensors at once.
pub const ALARMS_MAX: usize = 256;
/// Alarms that are taken in a row while others wait: who floods with alarms delays the others by a ninth and no more.
const ALARMS_IN_A_ROW: u8 = 8;

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
    /// Kept in quarantine because it could not be decoded or admitted: acknowledge, the sender can't mend it by repeating. Who can be told
    /// why is told.
    Quarantined(Fault),
    /// No room or no disk: do not acknowledge.
    Refused,
}

/// Why a PUBLISH is in quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It can't be understood.
    Payload,
    /// It is understood, and policy takes no readings from this device.
    Device,
}

/// In whose lane so many bytes are that are published to `topic`, `vitals/v1/{device}/{kind}/{name}`: that of the code table's class, as far
/// as the topic says it. What the patient's rules make of it, and what is in a pack, shows when it is decoded. What is too large to be read
/// is of the lowest.
///
/// Where more comes in than is committed, the lowest lane is refused first, and alarms never for want of a place.
#[must_use]
pub fn lane_of(topic: &str, bytes: usize) -> Lane {
    if bytes > PAYLOAD_BYTES_MAX {
        return Lane::Activity;
    }
    let mut levels = topic.split('/').skip(3);
    let (kind, name) = (levels.next().unwrap_or_default(), levels.next().unwrap_or_default());
    match code::by_name(name).filter(|row| topic_level(row.kind) == kind) {
        Some(row) => row.class.lane(),
        None if kind == topic_level(Kind::Waveform) => Lane::Waveform,
        None => Lane::Vitals,
    }
}

/// The level of a topic below the device.
fn topic_level(kind: Kind) -> &'static str {
    match kind {
        Kind::Numeric => "num",
        Kind::Waveform => "wave",
        Kind::Event => "event",
    }
}

/// The doors' end of the queue. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Inlet {
    alarms: mpsc::Sender<Inbound>,
    others: mpsc::Sender<Inbound>,
}

impl Inlet {
    /// Where a PUBLISH of this lane finds its place.
    #[must_use]
    pub fn of(&self, lane: Lane) -> &mpsc::Sender<Inbound> {
        if lane == Lane::Alarm { &self.alarms } else { &self.others }
    }
}

/// The pipeline's end.
#[derive(Debug)]
pub struct Intake {
    alarms: mpsc::Receiver<Inbound>,
    others: mpsc::Receiver<Inbound>,
    /// Alarms taken since another was.
    in_a_row: u8,
}

impl Intake {
    /// The next PUBLISH, alarms first; `None` when all doors are closed and the last was taken. May be dropped and called again.
    pub async fn recv(&mut self) -> Option<Inbound> {
        poll_fn(|context| self.poll_recv(context)).await
    }

    /// As [`Self::recv`], once.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<Inbound>> {
        if let Ok(next) = self.try_recv() {
            return Poll::Ready(Some(next));
        }
        // One after the other: what is taken must not be dropped.
        let alarm = self.alarms.poll_recv(context);
        if let Poll::Ready(Some(_)) = alarm {
            return alarm;
        }
        let other = self.others.poll_recv(context);
        if let Poll::Ready(None) = other { alarm } else { other }
    }

    /// The next alarm that is there already, whatever else waits.
    pub fn try_alarm(&mut self) -> Option<Inbound> {
        self.alarms.try_recv().ok()
    }

    /// The next PUBLISH that is there already.
    ///
    /// # Errors
    /// Where there is none.
    pub fn try_recv(&mut self) -> Result<Inbound, TryRecvError> {
        if self.in_a_row < ALARMS_IN_A_ROW
            && let Ok(alarm) = self.alarms.try_recv()
        {
            self.in_a_row += 1;
            return Ok(alarm);
        }
        self.in_a_row = 0;
        self.others.try_recv().or_else(|_| self.alarms.try_recv())
    }
}

/// The queue between the doors and the pipeline, with the places of its constants.
#[must_use]
pub fn queue() -> (Inlet, Intake) {
    queue_of(ALARMS_MAX, INBOUND_MAX)
}

/// One with so many places for alarms, and so many for all else.
#[must_use]
pub fn queue_of(alarms: usize, others: usize) -> (Inlet, Intake) {
    let ((alarms, alarms_in), (others, others_in)) = (mpsc::channel(alarms), mpsc::channel(others));
    (Inlet { alarms, others }, Intake { alarms: alarms_in, others: others_in, in_a_row: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbound(topic: &str) -> Inbound {
        Inbound {
            device: DeviceId::new("a").unwrap(),
            topic: topic.to_owned(),
            payload: Bytes::new(),
            received_us: 0,
            verdict: oneshot::channel().0,
        }
    }

    fn put(inlet: &Inlet, topic: &str) -> bool {
        inlet.of(lane_of(topic, 1)).try_send(inbound(topic)).is_ok()
    }

    const ALARM: &str = "vitals/v1/a/event/fall";
    const NUMBER: &str = "vitals/v1/a/num/heart-rate";

    #[test]
    fn the_topic_says_who_is_refused_first() {
        let of_lane = [
            (Lane::Alarm, &["event/fall", "event/leads-off"][..]),
            (
                Lane::Vitals,
                &["num/heart-rate", "num/senml", "num/omh", "num/fall", "event/unheard-of", "status"],
            ),
            (Lane::Waveform, &["wave/ecg-ii", "wave/unheard-of"]),
            (Lane::Activity, &["num/steps", "event/walk"]),
        ];
        for (lane, leaves) in of_lane {
            for leaf in leaves {
                assert_eq!(lane_of(&format!("vitals/v1/a/{leaf}"), 100), lane, "{leaf}");
            }
        }
        for topic in ["vitals/v1/event/num/spo2", "", "event", "vitals/v1/a/"] {
            assert_eq!(lane_of(topic, 0), Lane::Vitals, "{topic}");
        }
        assert_eq!(lane_of(ALARM, PAYLOAD_BYTES_MAX + 1), Lane::Activity, "nobody reads it");
    }

    #[test]
    fn a_queue_that_is_full_of_numbers_has_places_for_alarms() {
        let (inlet, mut intake) = queue_of(2, 2);
        assert!(put(&inlet, NUMBER) && put(&inlet, NUMBER) && !put(&inlet, NUMBER));
        assert!(put(&inlet, ALARM) && put(&inlet, ALARM) && !put(&inlet, ALARM));
        let taken: Vec<_> = std::iter::from_fn(|| intake.try_recv().ok()).map(|next| next.topic).collect();
        assert_eq!(taken, [ALARM, ALARM, NUMBER, NUMBER]);
    }

    #[test]
    fn a_flood_of_alarms_leaves_the_others_their_turn() {
        let (inlet, mut intake) = queue_of(64, 64);
        for _ in 0..64 {
            assert!(put(&inlet, ALARM) && put(&inlet, NUMBER));
        }
        let first: Vec<_> = (0..36).map(|_| intake.try_recv().unwrap().topic).collect();
        assert_eq!(first.iter().filter(|topic| *topic == NUMBER).count(), 4);
        assert_eq!(std::iter::from_fn(|| intake.try_recv().ok()).count(), 128 - 36, "none is left behind");
    }

    #[tokio::test]
    async fn it_ends_when_all_doors_are_closed_and_the_last_was_taken() {
        let (inlet, mut intake) = queue_of(1, 1);
        assert!(put(&inlet, ALARM) && put(&inlet, NUMBER));
        drop(inlet);
        let topic = |next: Option<Inbound>| next.map(|inbound| inbound.topic);
        assert_eq!(topic(intake.recv().await).as_deref(), Some(ALARM));
        assert_eq!(topic(intake.recv().await).as_deref(), Some(NUMBER));
        assert!(intake.recv().await.is_none());
    }
}
