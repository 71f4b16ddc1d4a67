//! What both doors (the embedded MQTT server and the client of an existing broker) hand to the pipeline, and the queue between
//! them, in which events have places of their own (ADR 49).

use bytes::Bytes;
use caregate_protocol::id::DeviceId;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

/// PUBLISHes other than events waiting for the next commit; beyond it the doors stop reading. Twice what one commit takes.
pub const INBOUND_MAX: usize = 2048;
/// Events waiting for the next commit: a fall, a call or a lead that is off comes from few sensors at once.
pub const EVENTS_MAX: usize = 256;
/// Events that are taken in a row while others wait: who floods with events delays the others by a ninth and no more.
const EVENTS_IN_A_ROW: u8 = 8;

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

/// Who is refused first where more comes in than is committed, by the topic alone: what a payload is worth shows when it is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// `…/wave/…`: most of the bytes, and the first to go.
    Waveform,
    /// Numbers, and what a device says of itself.
    Number,
    /// `…/event/…`, which may be an alarm: never refused for want of a place.
    Event,
}

impl Rank {
    /// The rank of what is published to `topic`, `vitals/v1/{device}/{kind}/…`.
    #[must_use]
    pub fn of(topic: &str) -> Self {
        match topic.split('/').nth(3) {
            Some("event") => Self::Event,
            Some("wave") => Self::Waveform,
            _ => Self::Number,
        }
    }

    /// Its name as a label of counters.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Waveform => "waveform",
            Self::Number => "number",
            Self::Event => "event",
        }
    }
}

/// The doors' end of the queue. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Inlet {
    events: mpsc::Sender<Inbound>,
    others: mpsc::Sender<Inbound>,
}

impl Inlet {
    /// Where a PUBLISH of this rank finds its place.
    #[must_use]
    pub fn of(&self, rank: Rank) -> &mpsc::Sender<Inbound> {
        if rank == Rank::Event { &self.events } else { &self.others }
    }
}

/// The pipeline's end.
#[derive(Debug)]
pub struct Intake {
    events: mpsc::Receiver<Inbound>,
    others: mpsc::Receiver<Inbound>,
    /// Events taken since another was.
    in_a_row: u8,
}

impl Intake {
    /// The next PUBLISH, events first; `None` when all doors are closed and the last was taken. May be dropped and called again.
    pub async fn recv(&mut self) -> Option<Inbound> {
        if let Ok(next) = self.try_recv() {
            return Some(next);
        }
        tokio::select! {
            biased;
            Some(event) = self.events.recv() => Some(event),
            Some(other) = self.others.recv() => Some(other),
            else => None,
        }
    }

    /// The next PUBLISH that is there already.
    ///
    /// # Errors
    /// Where there is none.
    pub fn try_recv(&mut self) -> Result<Inbound, TryRecvError> {
        if self.in_a_row < EVENTS_IN_A_ROW
            && let Ok(event) = self.events.try_recv()
        {
            self.in_a_row += 1;
            return Ok(event);
        }
        self.in_a_row = 0;
        self.others.try_recv().or_else(|_| self.events.try_recv())
    }
}

/// The queue between the doors and the pipeline, with the places of its constants.
#[must_use]
pub fn queue() -> (Inlet, Intake) {
    queue_of(EVENTS_MAX, INBOUND_MAX)
}

/// One with so many places for events, and so many for all else.
#[must_use]
pub fn queue_of(events: usize, others: usize) -> (Inlet, Intake) {
    let ((events, events_in), (others, others_in)) = (mpsc::channel(events), mpsc::channel(others));
    (Inlet { events, others }, Intake { events: events_in, others: others_in, in_a_row: 0 })
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
        inlet.of(Rank::of(topic)).try_send(inbound(topic)).is_ok()
    }

    const EVENT: &str = "vitals/v1/a/event/fall";
    const NUMBER: &str = "vitals/v1/a/num/heart-rate";

    #[test]
    fn the_topic_says_who_is_refused_first() {
        assert_eq!(Rank::of(EVENT), Rank::Event);
        assert_eq!(Rank::of("vitals/v1/a/wave/ecg-ii"), Rank::Waveform);
        for topic in [NUMBER, "vitals/v1/event/num/spo2", "vitals/v1/a/status", "", "event"] {
            assert_eq!(Rank::of(topic), Rank::Number, "{topic}");
        }
        assert!(Rank::Waveform < Rank::Number && Rank::Number < Rank::Event);
    }

    #[test]
    fn a_queue_that_is_full_of_numbers_has_places_for_events() {
        let (inlet, mut intake) = queue_of(2, 2);
        assert!(put(&inlet, NUMBER) && put(&inlet, NUMBER) && !put(&inlet, NUMBER));
        assert!(put(&inlet, EVENT) && put(&inlet, EVENT) && !put(&inlet, EVENT));
        let taken: Vec<_> = std::iter::from_fn(|| intake.try_recv().ok()).map(|next| next.topic).collect();
        assert_eq!(taken, [EVENT, EVENT, NUMBER, NUMBER]);
    }

    #[test]
    fn a_flood_of_events_leaves_the_others_their_turn() {
        let (inlet, mut intake) = queue_of(64, 64);
        for _ in 0..64 {
            assert!(put(&inlet, EVENT) && put(&inlet, NUMBER));
        }
        let first: Vec<_> = (0..36).map(|_| intake.try_recv().unwrap().topic).collect();
        assert_eq!(first.iter().filter(|topic| *topic == NUMBER).count(), 4);
        assert_eq!(std::iter::from_fn(|| intake.try_recv().ok()).count(), 128 - 36, "none is left behind");
    }

    #[tokio::test]
    async fn it_ends_when_all_doors_are_closed_and_the_last_was_taken() {
        let (inlet, mut intake) = queue_of(1, 1);
        assert!(put(&inlet, EVENT) && put(&inlet, NUMBER));
        drop(inlet);
        let topic = |next: Option<Inbound>| next.map(|inbound| inbound.topic);
        assert_eq!(topic(intake.recv().await).as_deref(), Some(EVENT));
        assert_eq!(topic(intake.recv().await).as_deref(), Some(NUMBER));
        assert!(intake.recv().await.is_none());
    }
}
