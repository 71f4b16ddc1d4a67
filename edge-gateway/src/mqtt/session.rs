//! One client's connection as a pure state machine: packets, verdicts and the time in, [`Action`]s out.
//!
//! ```text
//!  AwaitConnect ──CONNECT──▶ Admitting ──admitted──▶ Up ──refusal, shutdown──▶ Draining ──▶ Closed
//!       │ timeout, other packet   │ refused          │ DISCONNECT, error, keep-alive          ▲
//!       └─────────────────────────┴──────────────────┴────────────────────────────────────────┘
//! ```
//!
//! A PUBLISH is handed on as [`Action::Forward`] and answered only when its verdict comes, oldest first, so PUBACKs leave
//! in the order of receipt (MQTT-4.6.0-2). MQTT 3.1.1 has no word for "refused": a refused QoS 1 PUBLISH stays without PUBACK,
//! nothing more is read, what came after it is still answered, and the connection closes; the client sends it again (§4.4).
//!
//! The server keeps no session: it sends nothing but answers, so there is no outgoing state to resume. `CleanSession` 0 is
//! taken and answered with Session Present 0 (§3.2.2.2), which tells a client to send again what was not acknowledged.

use std::time::Duration;

use caregate_protocol::id::DeviceId;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{
    ConnAck, Connect, ConnectReturnCode, LastWill, Packet, PubAck, Publish, SubAck, Subscribe,
    SubscribeReasonCode, UnsubAck,
};

use super::codec::DecodeError;
use super::limits::{CLIENT_ID_BYTES_MAX, CONNECT_TIMEOUT, DRAIN_TIMEOUT, Limits, TOPIC_BYTES_MAX};
use super::rate::TokenBucket;
pub use super::reason::{CloseReason, ConnectRefusal};
use super::topic;
use super::window::{Window, cost};
use crate::ingest::Verdict;

/// What the shell must do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write this packet.
    Send(Packet),
    /// Find out who this is ([`Client::new`]) and whether there is a slot, then call [`Session::handle_admission`].
    Admit(Box<Connect>),
    /// Hand to the pipeline; the verdicts come back through [`Session::handle_verdict`] in the same order.
    Forward(Publish),
    /// Write what is left, then close. Nothing follows it.
    Close(CloseReason),
}

/// A client whose CONNECT was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    device: DeviceId,
    will: Option<LastWill>,
    /// One and a half times the keep-alive (MQTT-3.1.2-24); `None` where the client asked for none (§3.1.2.10).
    silence_max: Option<Duration>,
}

impl Client {
    /// The client that has shown itself to be `device`.
    ///
    /// # Errors
    /// [`ConnectRefusal::ForeignWill`] where its will is not for its own topics.
    pub fn new(device: DeviceId, connect: &Connect) -> Result<Self, ConnectRefusal> {
        let will = connect.last_will.clone();
        let own =
            |will: &LastWill| topic::is_own(&device, &will.topic) && will.topic.len() <= TOPIC_BYTES_MAX;
        if !will.as_ref().is_none_or(own) {
            return Err(ConnectRefusal::ForeignWill);
        }
        let silence_max = Duration::from_millis(u64::from(connect.keep_alive) * 1500);
        Ok(Self { device, will, silence_max: Some(silence_max).filter(|time| !time.is_zero()) })
    }
}

#[derive(Debug)]
enum Phase {
    AwaitConnect { until: Duration },
    Admitting,
    Up { client: Client, heard: Duration },
    Draining { client: Client, reason: CloseReason, until: Duration },
    Closed { client: Option<Client>, reason: CloseReason },
}

/// The state machine. All times are since one origin that the shell chooses, and never run back.
#[derive(Debug)]
pub struct Session {
    limits: Limits,
    phase: Phase,
    /// The packet identifiers to acknowledge, `None` for QoS 0.
    outstanding: Window<Option<u16>>,
    rate: TokenBucket,
    /// Reading has stopped: the client can't be blamed for silence.
    paused: bool,
}

impl Session {
    /// A connection that was accepted at `opened`.
    #[must_use]
    pub fn new(limits: Limits, opened: Duration) -> Self {
        Self {
            limits,
            phase: Phase::AwaitConnect { until: opened + CONNECT_TIMEOUT },
            outstanding: Window::new(limits.inflight_max, limits.inflight_bytes_max),
            rate: TokenBucket::new(limits.publishes_per_s, limits.publishes_burst, opened),
            paused: false,
        }
    }

    /// The limit for the next packet, in bytes after its fixed header.
    #[must_use]
    pub fn packet_bytes_max(&self) -> usize {
        self.limits.packet_bytes_max
    }

    /// The device, once it is admitted.
    #[must_use]
    pub fn device(&self) -> Option<&DeviceId> {
        self.client().map(|client| &client.device)
    }

    /// Why it has closed, if it has.
    #[must_use]
    pub fn closed(&self) -> Option<CloseReason> {
        match &self.phase {
            Phase::Closed { reason, .. } => Some(*reason),
            Phase::AwaitConnect { .. } | Phase::Admitting | Phase::Up { .. } | Phase::Draining { .. } => None,
        }
    }

    /// The will to publish now that the connection is closed: none after DISCONNECT (MQTT-3.1.2-10), none at shutdown (§3.1.2.5
    /// lets a server defer it then: a gateway that restarts is no reason to report every sensor lost).
    #[must_use]
    pub fn into_will(self) -> Option<(DeviceId, LastWill)> {
        match self.phase {
            Phase::Closed { client: Some(client), reason }
                if !matches!(reason, CloseReason::Disconnect | CloseReason::Shutdown) =>
            {
                client.will.map(|will| (client.device, will))
            }
            Phase::Closed { .. }
            | Phase::AwaitConnect { .. }
            | Phase::Admitting
            | Phase::Up { .. }
            | Phase::Draining { .. } => None,
        }
    }

    fn client(&self) -> Option<&Client> {
        match &self.phase {
            Phase::Up { client, .. } | Phase::Draining { client, .. } => Some(client),
            Phase::Closed { client, .. } => client.as_ref(),
            Phase::AwaitConnect { .. } | Phase::Admitting => None,
        }
    }

    /// Whether the next packet may be taken in: not while the window is full, the rate is used up, or the shell itself is
    /// `blocked` (the pipeline's queue or the socket is full). What is not taken in stays in the socket: that is the
    /// back-pressure. While it lasts the keep-alive does not count, since the client's packets are not being read.
    pub fn wants_packet(&mut self, now: Duration, blocked: bool) -> bool {
        let full = self.outstanding.is_full();
        let in_rate = self.rate.is_ready(now);
        let ready = match &mut self.phase {
            Phase::AwaitConnect { .. } => !blocked,
            Phase::Up { heard, .. } => {
                let ready = !blocked && !full && in_rate;
                if ready && self.paused {
                    *heard = now;
                }
                ready
            }
            Phase::Admitting | Phase::Draining { .. } | Phase::Closed { .. } => false,
        };
        self.paused = !ready;
        ready
    }

    /// When [`Self::handle_tick`] is due, if ever.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        match &self.phase {
            Phase::AwaitConnect { until } | Phase::Draining { until, .. } => Some(*until),
            Phase::Up { .. } if self.paused => self.rate.ready_at(),
            Phase::Up { client, heard } => client.silence_max.map(|silence| *heard + silence),
            Phase::Admitting | Phase::Closed { .. } => None,
        }
    }

    /// Looks at the clock.
    pub fn handle_tick(&mut self, now: Duration, out: &mut Vec<Action>) {
        match &self.phase {
            Phase::AwaitConnect { until } if now >= *until => self.close(CloseReason::ConnectTimeout, out),
            Phase::Draining { until, reason, .. } if now >= *until => self.close(*reason, out),
            Phase::Up { client, heard } if !self.paused => {
                if client.silence_max.is_some_and(|silence| now >= *heard + silence) {
                    self.close(CloseReason::KeepAlive, out);
                }
            }
            Phase::AwaitConnect { .. }
            | Phase::Admitting
            | Phase::Up { .. }
            | Phase::Draining { .. }
            | Phase::Closed { .. } => {}
        }
    }

    /// Takes in one packet as [`decode`](super::codec::decode) gave it.
    pub fn handle_packet(&mut self, packet: Packet, now: Duration, out: &mut Vec<Action>) {
        match (&mut self.phase, packet) {
            (Phase::AwaitConnect { .. }, Packet::Connect(connect)) => self.handle_connect(connect, out),
            (Phase::Up { heard, .. }, packet) => {
                *heard = now;
                self.handle_packet_up(packet, now, out);
            }
            (Phase::AwaitConnect { .. } | Phase::Admitting, _) => self.close(CloseReason::OutOfTurn, out),
            (Phase::Draining { .. } | Phase::Closed { .. }, _) => {}
        }
    }

    fn handle_connect(&mut self, connect: Connect, out: &mut Vec<Action>) {
        let len = connect.client_id.len();
        if (len == 0 && !connect.clean_session) || len > CLIENT_ID_BYTES_MAX {
            return self.refuse(ConnectRefusal::ClientId, out);
        }
        self.phase = Phase::Admitting;
        out.push(Action::Admit(Box::new(connect)));
    }

    /// Takes in the answer to [`Action::Admit`].
    pub fn handle_admission(
        &mut self,
        admission: Result<Client, ConnectRefusal>,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        match (&self.phase, admission) {
            (Phase::Admitting, Ok(client)) => {
                self.phase = Phase::Up { client, heard: now };
                out.push(Action::Send(Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false))));
            }
            (Phase::Admitting, Err(refusal)) => self.refuse(refusal, out),
            (
                Phase::AwaitConnect { .. } | Phase::Up { .. } | Phase::Draining { .. } | Phase::Closed { .. },
                _,
            ) => {}
        }
    }

    fn handle_packet_up(&mut self, packet: Packet, now: Duration, out: &mut Vec<Action>) {
        match packet {
            Packet::Publish(publish) => self.handle_publish(publish, now, out),
            Packet::Subscribe(subscribe) => out.push(Action::Send(refuse_all(&subscribe))),
            Packet::Unsubscribe(unsubscribe) => {
                out.push(Action::Send(Packet::UnsubAck(UnsubAck::new(unsubscribe.pkid))));
            }
            Packet::PingReq => out.push(Action::Send(Packet::PingResp)),
            Packet::Disconnect => self.close(CloseReason::Disconnect, out),
            Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::PubAck(_)
            | Packet::PubRec(_)
            | Packet::PubRel(_)
            | Packet::PubComp(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp => self.close(CloseReason::OutOfTurn, out),
        }
    }

    fn handle_publish(&mut self, publish: Publish, now: Duration, out: &mut Vec<Action>) {
        if publish.qos == QoS::ExactlyOnce {
            return self.close(CloseReason::Qos2, out);
        }
        if publish.topic.len() > TOPIC_BYTES_MAX {
            return self.close(CloseReason::TopicTooLong, out);
        }
        if !self.device().is_some_and(|device| topic::is_own(device, &publish.topic)) {
            return self.close(CloseReason::ForeignTopic, out);
        }
        self.rate.take(now);
        let packet_id = Some(publish.pkid).filter(|_| publish.qos == QoS::AtLeastOnce);
        self.outstanding.push(cost(&publish.topic, &publish.payload), packet_id);
        out.push(Action::Forward(publish));
    }

    /// Takes in the verdict on the oldest outstanding PUBLISH; `None` where the pipeline went away without one, which counts as
    /// refused. A refused QoS 0 PUBLISH is only lost, as QoS 0 allows (§4.3.1).
    pub fn handle_verdict(&mut self, verdict: Option<Verdict>, now: Duration, out: &mut Vec<Action>) {
        let Some(packet_id) = self.outstanding.pop() else { return };
        match (verdict, packet_id) {
            (Some(Verdict::Stored | Verdict::Quarantined), Some(packet_id)) => {
                out.push(Action::Send(Packet::PubAck(PubAck::new(packet_id))));
            }
            (Some(Verdict::Stored | Verdict::Quarantined), None) | (Some(Verdict::Refused) | None, None) => {}
            (Some(Verdict::Refused) | None, Some(_)) => self.drain(CloseReason::Refused, now),
        }
        self.close_if_drained(out);
    }

    /// The gateway shuts down: read nothing more, answer what is outstanding.
    pub fn handle_shutdown(&mut self, now: Duration, out: &mut Vec<Action>) {
        match &self.phase {
            Phase::Up { .. } => {
                self.drain(CloseReason::Shutdown, now);
                self.close_if_drained(out);
            }
            Phase::AwaitConnect { .. } | Phase::Admitting => self.close(CloseReason::Shutdown, out),
            Phase::Draining { .. } | Phase::Closed { .. } => {}
        }
    }

    /// Bytes that are no packet. A client of another protocol level is told so before it is closed (MQTT-3.1.2-2).
    pub fn handle_decode_error(&mut self, error: &DecodeError, out: &mut Vec<Action>) {
        match (&self.phase, error) {
            (Phase::AwaitConnect { .. }, DecodeError::ProtocolLevel(_)) => {
                self.refuse(ConnectRefusal::ProtocolLevel, out);
            }
            _ => self.close(CloseReason::Malformed(error.label()), out),
        }
    }

    /// The connection is gone or must go: socket closed or failed, taken over.
    pub fn close(&mut self, reason: CloseReason, out: &mut Vec<Action>) {
        let closed = Phase::Closed { client: None, reason };
        let client = match std::mem::replace(&mut self.phase, closed) {
            Phase::AwaitConnect { .. } | Phase::Admitting => None,
            Phase::Up { client, .. } | Phase::Draining { client, .. } => Some(client),
            before @ Phase::Closed { .. } => {
                self.phase = before;
                return;
            }
        };
        self.phase = Phase::Closed { client, reason };
        out.push(Action::Close(reason));
    }

    fn refuse(&mut self, refusal: ConnectRefusal, out: &mut Vec<Action>) {
        out.push(Action::Send(Packet::ConnAck(ConnAck::new(refusal.return_code(), false))));
        self.close(CloseReason::ConnectRefused(refusal), out);
    }

    fn drain(&mut self, reason: CloseReason, now: Duration) {
        if let Phase::Up { client, .. } = &self.phase {
            self.phase = Phase::Draining { client: client.clone(), reason, until: now + DRAIN_TIMEOUT };
        }
    }

    fn close_if_drained(&mut self, out: &mut Vec<Action>) {
        if let Phase::Draining { reason, .. } = self.phase
            && self.outstanding.is_empty()
        {
            self.close(reason, out);
        }
    }
}

/// The gateway publishes nothing, so every filter is answered with failure (§3.9.3).
fn refuse_all(subscribe: &Subscribe) -> Packet {
    let codes = vec![SubscribeReasonCode::Failure; subscribe.filters.len()];
    Packet::SubAck(SubAck::new(subscribe.pkid, codes))
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
