//! What one session has still to be sent: a queue that is bounded, and what was sent and not yet acknowledged.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::mqtt::limits::{
    OUTBOX_BYTES_MAX, OUTBOX_MESSAGES_MAX, SENT_BYTES_MAX, SENT_MAX, TOPIC_ALIASES_MAX,
};
use crate::mqtt::wire::{Ack, Packet, PacketId, Publish, QoS, Reason, Version, encoded_len};

use super::Counts;
use super::kept::Queued;
use super::message::{Delivery, Message};

/// What the client said in CONNECT of what it takes.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// Its protocol.
    pub version: Version,
    /// Receive Maximum (§3.1.2.11.3).
    pub receive_max: u16,
    /// Topic Alias Maximum (§3.1.2.11.5).
    pub topic_alias_max: u16,
    /// Maximum Packet Size (§3.1.2.11.4).
    pub packet_size_max: Option<u32>,
}

impl Capacity {
    /// Whether a packet is no longer than the client takes (MQTT-3.1.2-24).
    #[must_use]
    pub fn takes(&self, packet: &Packet) -> bool {
        let max = self.packet_size_max.filter(|_| self.version == Version::V5);
        max.is_none_or(|max| encoded_len(packet, self.version) <= usize::try_from(max).unwrap_or(usize::MAX))
    }
}

#[derive(Debug)]
enum Step {
    /// Waits for PUBACK or PUBREC.
    Published(Delivery),
    /// The same of one that the client may not have any more: its identifier stays taken until the client has answered.
    Withdrawn,
    /// Waits for PUBCOMP.
    Released,
}

impl Step {
    fn bytes(&self) -> usize {
        match self {
            Self::Published(delivery) => delivery.message.cost(),
            Self::Withdrawn | Self::Released => 0,
        }
    }
}

#[derive(Debug)]
struct Sent {
    packet_id: PacketId,
    step: Step,
    /// On this connection; what was sent on the one before is sent again (MQTT-4.4.0-1).
    here: bool,
}

/// Queue and unacknowledged packets of one session.
#[derive(Debug)]
pub(super) struct Outbox {
    waiting: VecDeque<Delivery>,
    /// Always the sum over `waiting`.
    waiting_bytes: usize,
    /// In the order of sending (MQTT-4.6.0-5).
    sent: VecDeque<Sent>,
    /// Always the sum over `sent`.
    sent_bytes: usize,
    last_id: u16,
    capacity: Option<Capacity>,
    /// Aliases that this connection's client has been told.
    aliases: HashMap<String, u16>,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            sent: VecDeque::new(),
            sent_bytes: 0,
            last_id: 0,
            capacity: None,
            aliases: HashMap::new(),
        }
    }

    /// What is kept of it: nothing at QoS 0 (§4.1).
    pub(super) fn queued(&self) -> Queued {
        let kept = self.waiting.iter().filter(|delivery| delivery.qos != QoS::AtMostOnce);
        let sent = self.sent.iter().filter_map(|sent| match &sent.step {
            Step::Published(delivery) => Some((sent.packet_id, Some(delivery.clone()))),
            Step::Withdrawn => None,
            Step::Released => Some((sent.packet_id, None)),
        });
        Queued { waiting: kept.cloned().collect(), sent: sent.collect(), last_id: self.last_id }
    }

    /// As before the process; for an outbox that is empty.
    pub(super) fn restore(&mut self, queued: Queued) {
        let step = |delivery: Option<Delivery>| delivery.map_or(Step::Released, Step::Published);
        let sent = queued.sent.into_iter();
        self.sent = sent.map(|(packet_id, what)| Sent { packet_id, step: step(what), here: false }).collect();
        self.waiting = queued.waiting.into();
        self.last_id = queued.last_id;
        self.sum_up();
    }

    /// A connection has come: what is unacknowledged goes first, again.
    pub(super) fn open(&mut self, capacity: Capacity) {
        self.capacity = Some(capacity);
        self.aliases.clear();
        self.sent.retain(|sent| !matches!(sent.step, Step::Withdrawn));
        self.sent.iter_mut().for_each(|sent| sent.here = false);
    }

    /// The connection has gone: QoS 0 isn't kept for the next (§4.1).
    pub(super) fn close(&mut self) {
        self.capacity = None;
        self.aliases.clear();
        self.waiting.retain(|delivery| delivery.qos != QoS::AtMostOnce);
        self.sum_up();
    }

    /// Drops what is not to be kept, be it waiting or sent and not yet acknowledged.
    pub(super) fn retain(&mut self, keep: impl Fn(&Message) -> bool) {
        self.waiting.retain(|delivery| keep(&delivery.message));
        let is_up = self.capacity.is_some();
        self.sent.retain_mut(|sent| match &sent.step {
            Step::Published(delivery) if !keep(&delivery.message) => {
                let awaits_answer = is_up && sent.here;
                if awaits_answer {
                    sent.step = Step::Withdrawn;
                }
                awaits_answer
            }
            Step::Published(_) | Step::Withdrawn | Step::Released => true,
        });
        self.sum_up();
    }

    fn sum_up(&mut self) {
        self.waiting_bytes = self.waiting.iter().map(|delivery| delivery.message.cost()).sum();
        self.sum_up_sent();
    }

    fn sum_up_sent(&mut self) {
        self.sent_bytes = self.sent.iter().map(|sent| sent.step.bytes()).sum();
    }

    /// Of what waits and of what was sent and not acknowledged.
    pub(super) fn bytes(&self) -> usize {
        self.waiting_bytes + self.sent_bytes
    }

    /// Whether another message fits without one having to go.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < OUTBOX_MESSAGES_MAX && self.bytes() < OUTBOX_BYTES_MAX
    }

    /// Queues a message; where that is more than `bytes_max`, or than one session may have, the oldest go: a display shows the present.
    pub(super) fn push(&mut self, delivery: Delivery, bytes_max: usize, counts: &mut Counts) {
        let bytes_max = bytes_max.min(OUTBOX_BYTES_MAX);
        if self.capacity.is_none() && delivery.qos == QoS::AtMostOnce {
            return;
        }
        self.waiting_bytes += delivery.message.cost();
        self.waiting.push_back(delivery);
        while self.waiting.len() > OUTBOX_MESSAGES_MAX || self.bytes() > bytes_max {
            if self.pop_waiting().is_none() {
                return;
            }
            counts.queue_full += 1;
        }
    }

    fn pop_waiting(&mut self) -> Option<Delivery> {
        let delivery = self.waiting.pop_front()?;
        self.waiting_bytes -= delivery.message.cost();
        Some(delivery)
    }

    /// The next packet for the client, if there is one and it may be sent.
    pub(super) fn next(&mut self, now: Duration, counts: &mut Counts) -> Option<Packet> {
        let capacity = self.capacity?;
        if let Some(again) = self.next_again(&capacity, now, counts) {
            return Some(again);
        }
        loop {
            let front = self.waiting.front()?;
            let expired = front.message.has_expired(now);
            let packet_id = if front.qos == QoS::AtMostOnce || expired {
                None
            } else if self.may_send(&capacity) && self.may_hold(front.message.cost()) {
                Some(self.free_id())
            } else {
                return None;
            };
            let delivery = self.pop_waiting()?;
            if expired {
                counts.expired += 1;
                continue;
            }
            let publish = delivery.publish(packet_id, false, now);
            let Some(packet) = self.fit(publish, &capacity) else {
                counts.too_large += 1;
                continue;
            };
            if let Some(packet_id) = packet_id {
                self.sent_bytes += delivery.message.cost();
                self.sent.push_back(Sent { packet_id, step: Step::Published(delivery), here: true });
            }
            return Some(packet);
        }
    }

    /// What the connection before had sent.
    fn next_again(&mut self, capacity: &Capacity, now: Duration, counts: &mut Counts) -> Option<Packet> {
        // This connection's client may take less than the one's before it.
        let before = self.sent.len();
        self.sent.retain(|sent| match &sent.step {
            Step::Published(delivery) if !sent.here => {
                let publish = delivery.publish(Some(sent.packet_id), true, now);
                capacity.takes(&Packet::Publish(publish))
            }
            Step::Published(_) | Step::Withdrawn | Step::Released => true,
        });
        counts.too_large += (before - self.sent.len()) as u64;
        self.sum_up_sent();
        let may_send = self.may_send(capacity);
        let sent = self.sent.iter_mut().find(|sent| !sent.here)?;
        let packet = match &sent.step {
            Step::Published(_) if !may_send => return None,
            Step::Published(delivery) => Packet::Publish(delivery.publish(Some(sent.packet_id), true, now)),
            // None is left of the connection before: see `open`.
            Step::Withdrawn => return None,
            Step::Released => Packet::PubRel(Ack::new(sent.packet_id, Reason::SUCCESS)),
        };
        sent.here = true;
        Some(packet)
    }

    fn may_send(&self, capacity: &Capacity) -> bool {
        let here = self.sent.iter().filter(|sent| sent.here).count();
        here < usize::from(capacity.receive_max).min(SENT_MAX) && self.sent.len() < 2 * SENT_MAX
    }

    /// Whether so many more bytes may be on their way: what is longer than all of them together goes alone.
    fn may_hold(&self, bytes: usize) -> bool {
        self.sent_bytes == 0 || self.sent_bytes + bytes <= SENT_BYTES_MAX
    }

    /// Puts an alias for the topic where the client takes some, and sees that the packet isn't longer than it takes.
    fn fit(&mut self, mut publish: Publish, capacity: &Capacity) -> Option<Packet> {
        let alias_max = usize::from(capacity.topic_alias_max.min(TOPIC_ALIASES_MAX));
        let mut fresh = None;
        if let Some(alias) = self.aliases.get(&publish.topic) {
            publish.properties.topic_alias = Some(*alias);
            publish.topic = String::new();
        } else if self.aliases.len() < alias_max {
            let alias = u16::try_from(self.aliases.len() + 1).unwrap_or(1);
            publish.properties.topic_alias = Some(alias);
            fresh = Some((publish.topic.clone(), alias));
        }
        let packet = Packet::Publish(publish);
        if !capacity.takes(&packet) {
            return None;
        }
        self.aliases.extend(fresh);
        Some(packet)
    }

    /// An identifier that no packet has.
    fn free_id(&mut self) -> PacketId {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if let Some(packet_id) = PacketId::new(self.last_id)
                && self.sent.iter().all(|sent| sent.packet_id != packet_id)
            {
                return packet_id;
            }
        }
    }

    fn position(&self, packet_id: PacketId) -> Option<usize> {
        self.sent.iter().position(|sent| sent.packet_id == packet_id)
    }

    /// PUBACK or PUBCOMP: it is done.
    pub(super) fn done(&mut self, packet_id: PacketId) {
        if let Some(at) = self.position(packet_id) {
            self.sent.remove(at);
            self.sum_up_sent();
        }
    }

    /// PUBREC: PUBREL is the answer, unless the client refused the message (§4.3.3).
    pub(super) fn received(&mut self, packet_id: PacketId, reason: Reason) -> Option<Ack> {
        let Some(at) = self.position(packet_id) else {
            return (!reason.is_failure()).then(|| Ack::new(packet_id, Reason::PACKET_IDENTIFIER_NOT_FOUND));
        };
        if reason.is_failure() {
            self.sent.remove(at);
            self.sum_up_sent();
            return None;
        }
        self.sent[at].step = Step::Released;
        self.sent[at].here = true;
        self.sum_up_sent();
        Some(Ack::new(packet_id, Reason::SUCCESS))
    }
}
