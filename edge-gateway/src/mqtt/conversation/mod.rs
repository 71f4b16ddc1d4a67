//! One client's connection as a pure state machine: packets, verdicts and the time in, [`Action`]s out. What outlives it is the
//! [`Hub`]'s, which each step is handed.
//!
//! ```text
//!  AwaitConnect ──CONNECT──▶ Admitting ──admitted──▶ Up ──refusal (3.1.1), shutdown──▶ Draining ──▶ Closed
//!       │ timeout, other packet   │ refused          │ DISCONNECT, error, keep-alive                  ▲
//!       └─────────────────────────┴──────────────────┴────────────────────────────────────────────────┘
//! ```
//!
//! A PUBLISH is handed on as [`Action::Forward`] and answered only when its verdict comes, oldest first, so PUBACKs and PUBRECs
//! leave in the order of receipt (MQTT-4.6.0-2, -3). What had come at QoS 2 over the session's connection before and has no verdict yet
//! is not handed on again: its verdict comes by way of the hub, and others that come meanwhile wait behind it. Refused: 5.0 has reason code 0x97 for it. 3.1.1 has no word: the PUBLISH stays
//! unanswered, nothing more is read, what came after it is still answered, and the connection closes; the client sends it again
//! (§4.4).

mod connect;
mod publish;

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use caregate_protocol::id::DeviceId;
use caregate_protocol::rate::TokenBucket;

use super::access::Access;
use super::hub::{Capacity, ConnectionNumber, Hub, Message, SessionKey};
use super::limits::{CONNECT_TIMEOUT, DRAIN_TIMEOUT, Limits};
pub use super::reason::{CloseReason, ConnectRefusal};
use super::window::Window;
use super::wire::{
    Ack, Connect, DecodeError, Disconnect, Packet, PacketId, QoS, Reason, SubAck, Subscribe, Unsubscribe,
    Version,
};

/// What the shell must do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write this packet.
    Send(Packet),
    /// Find out who this is, then call [`Conversation::handle_admission`].
    Admit(Box<Connect>),
    /// Hand to the pipeline: topic and payload. The verdicts come back through [`Conversation::handle_verdict`] in the same order.
    Forward(String, Bytes),
    /// Write what is left, then close. Nothing follows it.
    Close(CloseReason),
}

/// A client whose CONNECT was accepted.
#[derive(Debug)]
struct Client {
    key: SessionKey,
    number: ConnectionNumber,
    /// One and a half times the keep-alive (MQTT-3.1.2-22); `None` where there is none (§3.1.2.10).
    silence_max: Option<Duration>,
    /// Whether CONNECT asked for the session to be kept.
    keeps_session: bool,
}

#[derive(Debug)]
enum Phase {
    AwaitConnect { until: Duration },
    Admitting(Box<Connect>),
    Up { client: Client, heard: Duration },
    Draining { client: Client, reason: CloseReason, until: Duration },
    Closed { client: Option<Client>, reason: CloseReason },
}

/// A PUBLISH that has not been answered.
#[derive(Debug)]
enum Unanswered {
    /// Its verdict is to come.
    Waits { qos: QoS, packet_id: Option<PacketId>, message: Message },
    /// Its verdict is to come to a connection before this one, over which it came first.
    Elsewhere(PacketId),
    /// Its answer is known, and waits for those before it. `counts`: against Receive Maximum, and not in the hub.
    Known { answer: Answer, counts: bool },
}

/// What a verdict means to the client.
#[derive(Debug)]
enum Answer {
    /// It is told.
    Say(Packet),
    /// 3.1.1 has no word for it: the connection is to end.
    Withhold,
    /// QoS 0.
    Nothing,
}

/// The state machine. All times are since one origin that the shell chooses, and never run back.
#[derive(Debug)]
pub struct Conversation {
    limits: Limits,
    phase: Phase,
    version: Version,
    outstanding: Window<Unanswered>,
    /// Of them, those above QoS 0 that don't count as unreleased in the hub.
    acknowledgeable: usize,
    /// What the client's topic aliases stand for.
    aliases: HashMap<u16, String>,
    rate: TokenBucket,
    /// Reading has stopped: the client can't be blamed for silence.
    paused: bool,
    /// The longest packet that the client takes (§3.1.2.11.4).
    packet_size_max: Option<u32>,
}

impl Conversation {
    /// A connection that was accepted at `opened`.
    #[must_use]
    pub fn new(limits: Limits, opened: Duration) -> Self {
        Self {
            limits,
            phase: Phase::AwaitConnect { until: opened + CONNECT_TIMEOUT },
            version: Version::V4,
            outstanding: Window::new(limits.inflight_max, limits.inflight_bytes_max),
            acknowledgeable: 0,
            aliases: HashMap::new(),
            rate: TokenBucket::new(limits.publishes_per_s, limits.publishes_burst, opened),
            paused: false,
            packet_size_max: None,
        }
    }

    /// The limit for the next packet, in bytes after its fixed header.
    #[must_use]
    pub fn packet_bytes_max(&self) -> usize {
        self.limits.packet_bytes_max
    }

    /// What is spoken: known from CONNECT on.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// An answer as the client takes it (MQTT-3.1.2-24). None where it takes none: what it can't be told ends the connection, since it
    /// would wait for it for ever.
    #[must_use]
    pub fn fit(&self, packet: Packet) -> Option<Packet> {
        let (version, receive_max, topic_alias_max) = (self.version, 0, 0);
        let capacity =
            Capacity { version, receive_max, topic_alias_max, packet_size_max: self.packet_size_max };
        if capacity.takes(&packet) {
            return Some(packet);
        }
        let Packet::ConnAck(mut ack) = packet else { return None };
        // Without it the client may use none, and harms nothing.
        ack.properties.topic_alias_max = None;
        Some(Packet::ConnAck(ack)).filter(|packet| capacity.takes(packet))
    }

    /// The device, once it is admitted.
    #[must_use]
    pub fn device(&self) -> Option<&DeviceId> {
        self.client().map(|client| &client.key.device)
    }

    /// Why it has closed, if it has.
    #[must_use]
    pub fn closed(&self) -> Option<CloseReason> {
        match &self.phase {
            Phase::Closed { reason, .. } => Some(*reason),
            Phase::AwaitConnect { .. } | Phase::Admitting(_) | Phase::Up { .. } | Phase::Draining { .. } => {
                None
            }
        }
    }

    fn client(&self) -> Option<&Client> {
        match &self.phase {
            Phase::Up { client, .. } | Phase::Draining { client, .. } => Some(client),
            Phase::Closed { client, .. } => client.as_ref(),
            Phase::AwaitConnect { .. } | Phase::Admitting(_) => None,
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
            Phase::Admitting(_) | Phase::Draining { .. } | Phase::Closed { .. } => false,
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
            Phase::Admitting(_) | Phase::Closed { .. } => None,
        }
    }

    /// Looks at the clock.
    pub fn handle_tick(&mut self, now: Duration, hub: &mut Hub, out: &mut Vec<Action>) {
        let due = match &self.phase {
            Phase::AwaitConnect { until } if now >= *until => CloseReason::ConnectTimeout,
            Phase::Draining { until, reason, .. } if now >= *until => *reason,
            Phase::Up { client, heard }
                if !self.paused && client.silence_max.is_some_and(|silence| now >= *heard + silence) =>
            {
                CloseReason::KeepAlive
            }
            Phase::AwaitConnect { .. }
            | Phase::Admitting(_)
            | Phase::Up { .. }
            | Phase::Draining { .. }
            | Phase::Closed { .. } => return,
        };
        self.close(due, now, hub, out);
    }

    /// Takes in one packet as [`decode`](super::wire::decode) gave it. `access` says what the client may read.
    pub fn handle_packet(
        &mut self,
        packet: Packet,
        now: Duration,
        access: &Access,
        hub: &mut Hub,
        out: &mut Vec<Action>,
    ) {
        match (&mut self.phase, packet) {
            (Phase::AwaitConnect { .. }, Packet::Connect(connect)) => {
                self.handle_connect(connect, now, hub, out)
            }
            (Phase::Up { heard, .. }, packet) => {
                *heard = now;
                self.handle_packet_up(packet, now, access, hub, out);
            }
            (Phase::AwaitConnect { .. } | Phase::Admitting(_), _) => {
                self.close(CloseReason::OutOfTurn, now, hub, out)
            }
            (Phase::Draining { .. } | Phase::Closed { .. }, _) => {}
        }
    }

    fn handle_packet_up(
        &mut self,
        packet: Packet,
        now: Duration,
        access: &Access,
        hub: &mut Hub,
        out: &mut Vec<Action>,
    ) {
        let Some(key) = self.client().map(|client| client.key.clone()) else { return };
        match packet {
            Packet::Publish(publish) => self.handle_publish(publish, now, hub, out),
            Packet::PubAck(ack) | Packet::PubComp(ack) => hub.done(&key, ack.packet_id),
            Packet::PubRec(ack) => {
                let release = hub.received(&key, ack.packet_id, ack.reason);
                out.extend(release.map(|ack| Action::Send(Packet::PubRel(ack))));
            }
            Packet::PubRel(ack) => {
                let reason = hub.release_exact(&key, ack.packet_id);
                out.push(Action::Send(Packet::PubComp(Ack::new(ack.packet_id, reason))));
            }
            Packet::Subscribe(subscribe) => {
                out.push(Action::Send(self.subscribe(&key, &subscribe, now, access, hub)));
            }
            Packet::Unsubscribe(Unsubscribe { packet_id, filters, .. }) => {
                let reasons = hub.unsubscribe(&key, &filters);
                out.push(Action::Send(Packet::UnsubAck(SubAck { packet_id, reasons })));
            }
            Packet::PingReq => out.push(Action::Send(Packet::PingResp)),
            Packet::Disconnect(disconnect) => self.handle_disconnect(&disconnect, now, hub, out),
            Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp
            | Packet::Auth(_) => self.close(CloseReason::OutOfTurn, now, hub, out),
        }
    }

    fn subscribe(
        &self,
        key: &SessionKey,
        subscribe: &Subscribe,
        now: Duration,
        access: &Access,
        hub: &mut Hub,
    ) -> Packet {
        let id = subscribe.properties.subscription_ids.first().copied();
        let mut reasons = hub.subscribe(key, &subscribe.filters, id, access, now);
        if self.version == Version::V4 {
            // The only failure that 3.1.1 knows (§3.9.3 there).
            reasons.iter_mut().filter(|reason| reason.is_failure()).for_each(|reason| *reason = Reason(0x80));
        }
        Packet::SubAck(SubAck { packet_id: subscribe.packet_id, reasons })
    }

    /// DISCONNECT (§3.14.4): with code 0 it takes the will with it; it may change how long the session is kept.
    fn handle_disconnect(
        &mut self,
        disconnect: &Disconnect,
        now: Duration,
        hub: &mut Hub,
        out: &mut Vec<Action>,
    ) {
        let expiry = disconnect.properties.session_expiry;
        let Phase::Up { client, .. } = &self.phase else { return };
        if !client.keeps_session && expiry.is_some_and(|seconds| seconds > 0) {
            return self.close(CloseReason::SessionExpiry, now, hub, out);
        }
        let expiry = expiry.map(|seconds| Duration::from_secs(u64::from(seconds)));
        let will = disconnect.reason != Reason::SUCCESS;
        hub.leave(&client.key, client.number, will, expiry, now);
        self.close(CloseReason::Disconnect, now, hub, out);
    }

    /// The next packet of what the hub has for this client.
    pub fn next_packet(&mut self, now: Duration, hub: &mut Hub) -> Option<Packet> {
        let Phase::Up { client, .. } = &self.phase else { return None };
        hub.next_packet(&client.key, client.number, now)
    }

    /// The gateway shuts down: read nothing more, answer what is outstanding.
    pub fn handle_shutdown(&mut self, now: Duration, hub: &mut Hub, out: &mut Vec<Action>) {
        match &self.phase {
            Phase::Up { .. } => {
                self.drain(CloseReason::Shutdown, now);
                self.close_if_drained(now, hub, out);
            }
            Phase::AwaitConnect { .. } | Phase::Admitting(_) => {
                self.close(CloseReason::Shutdown, now, hub, out)
            }
            Phase::Draining { .. } | Phase::Closed { .. } => {}
        }
    }

    /// Bytes that are no packet. A client of another protocol level is told so before it is closed (MQTT-3.1.2-2), in the form that it
    /// is likeliest to understand.
    pub fn handle_decode_error(
        &mut self,
        error: &DecodeError,
        now: Duration,
        hub: &mut Hub,
        out: &mut Vec<Action>,
    ) {
        match (&self.phase, error) {
            (Phase::AwaitConnect { .. }, DecodeError::ProtocolLevel(level)) => {
                self.version = if *level > 5 { Version::V5 } else { Version::V4 };
                self.refuse(ConnectRefusal::ProtocolLevel, now, hub, out);
            }
            _ => self.close(CloseReason::malformed(error), now, hub, out),
        }
    }

    /// The connection is gone or must go: socket closed or failed, taken over. At shutdown wills are not published (§3.1.2.5 lets a
    /// server defer it: a gateway that restarts is no reason to report every sensor lost).
    pub fn close(&mut self, reason: CloseReason, now: Duration, hub: &mut Hub, out: &mut Vec<Action>) {
        let closed = Phase::Closed { client: None, reason };
        let client = match std::mem::replace(&mut self.phase, closed) {
            Phase::AwaitConnect { .. } | Phase::Admitting(_) => None,
            Phase::Up { client, .. } | Phase::Draining { client, .. } => Some(client),
            before @ Phase::Closed { .. } => {
                self.phase = before;
                return;
            }
        };
        if let Some(client) = &client {
            hub.leave(&client.key, client.number, reason != CloseReason::Shutdown, None, now);
            if let Some(reason) = reason.reason().filter(|_| self.version == Version::V5) {
                out.push(Action::Send(Packet::Disconnect(Disconnect::new(reason))));
            }
        }
        self.phase = Phase::Closed { client, reason };
        out.push(Action::Close(reason));
    }

    fn drain(&mut self, reason: CloseReason, now: Duration) {
        let before = std::mem::replace(&mut self.phase, Phase::AwaitConnect { until: now });
        self.phase = match before {
            Phase::Up { client, .. } => Phase::Draining { client, reason, until: now + DRAIN_TIMEOUT },
            before @ (Phase::AwaitConnect { .. }
            | Phase::Admitting(_)
            | Phase::Draining { .. }
            | Phase::Closed { .. }) => before,
        };
    }

    fn close_if_drained(&mut self, now: Duration, hub: &mut Hub, out: &mut Vec<Action>) {
        if let Phase::Draining { reason, .. } = self.phase
            && self.outstanding.is_empty()
        {
            self.close(reason, now, hub, out);
        }
    }
}

#[cfg(test)]
mod tests;
