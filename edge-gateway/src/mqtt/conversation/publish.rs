//! What a client publishes: where it may go, in which order it is answered, and when others see it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Action, Answer, CloseReason, Conversation, Phase, Unanswered};
use crate::ingest::{Fault, Verdict};
use crate::mqtt::access::{Tree, own_tree};
use crate::mqtt::hub::{Exact, Hub, Message, SessionKey};
use crate::mqtt::limits::{PUBLISH_OVERHEAD_BYTES, TOPIC_ALIASES_MAX, TOPIC_BYTES_MAX, UNRELEASED_MAX};
use crate::mqtt::window::cost;
use crate::mqtt::wire::{Ack, Packet, PacketId, Publish, QoS, Reason, Version};

impl Conversation {
    pub(super) fn handle_publish(
        &mut self,
        mut publish: Publish,
        now: Duration,
        hub: &mut Hub,
        out: &mut Vec<Action>,
    ) {
        if let Err(reason) = self.resolve_alias(&mut publish) {
            return self.close(reason, now, hub, out);
        }
        self.rate.take(now);
        let Some(key) = self.client().map(|client| client.key.clone()) else { return };
        let tree = own_tree(&key.device, &publish.topic);
        let refusal = if publish.topic.len() > TOPIC_BYTES_MAX {
            Some(CloseReason::TopicTooLong)
        } else if tree.is_none() {
            Some(CloseReason::ForeignTopic)
        } else {
            None
        };
        if let Some(reason) = refusal {
            return self.refuse_publish(&publish, reason, now, hub, out);
        }
        if let (QoS::ExactlyOnce, Some(packet_id)) = (publish.qos, publish.packet_id)
            && !self.is_new(packet_id, now, hub, out)
        {
            return;
        }
        if publish.qos != QoS::AtMostOnce && self.is_beyond_quota(&key, hub) {
            if let (QoS::ExactlyOnce, Some(packet_id), Some(client)) =
                (publish.qos, publish.packet_id, self.client())
            {
                hub.settle_exact(&key, packet_id, client.number, None, false);
            }
            return self.close(CloseReason::ReceiveMaximum, now, hub, out);
        }
        // A slice of the read buffer would keep the whole buffer for as long as the verdict takes.
        publish.payload = Bytes::copy_from_slice(&publish.payload);
        let (qos, packet_id) = (publish.qos, publish.packet_id);
        let size = cost(&publish.topic, &publish.payload);
        let message = Message::of_publish(publish, &key, now);
        if tree == Some(Tree::Local) {
            return self.deliver_at_once(qos, packet_id, message, now, hub, out);
        }
        out.push(Action::Forward(message.topic.clone(), message.payload.clone()));
        self.acknowledgeable += usize::from(packet_id.is_some());
        self.outstanding.push(size, Unanswered::Waits { qos, packet_id, message });
    }

    /// Whether the client has as many on their way as it may (§3.3.4): those without acknowledgement, and QoS 2 until PUBREL.
    fn is_beyond_quota(&self, key: &SessionKey, hub: &Hub) -> bool {
        let unreleased = hub.unreleased(key);
        match self.version {
            Version::V5 => self.acknowledgeable + unreleased >= self.limits.inflight_max,
            Version::V4 => unreleased >= UNRELEASED_MAX,
        }
    }

    /// Puts the topic for its alias, and notes a new one (§3.3.2.3.4).
    fn resolve_alias(&mut self, publish: &mut Publish) -> Result<(), CloseReason> {
        let Some(alias) = publish.properties.topic_alias else { return Ok(()) };
        if alias > TOPIC_ALIASES_MAX {
            return Err(CloseReason::TopicAlias);
        }
        if publish.topic.is_empty() {
            publish.topic.clone_from(self.aliases.get(&alias).ok_or(CloseReason::TopicAlias)?);
        } else if publish.topic.len() <= TOPIC_BYTES_MAX {
            self.aliases.insert(alias, publish.topic.clone());
        }
        Ok(())
    }

    /// To a topic that is not the client's: 5.0 says so in the acknowledgement, otherwise the connection closes.
    fn refuse_publish(
        &mut self,
        publish: &Publish,
        reason: CloseReason,
        now: Duration,
        hub: &mut Hub,
        out: &mut Vec<Action>,
    ) {
        match (self.version, publish.packet_id, reason.reason()) {
            (Version::V5, Some(packet_id), Some(code)) => {
                self.answer(acknowledgement(publish.qos, packet_id, code), out);
            }
            _ => self.close(reason, now, hub, out),
        }
    }

    /// Whether a QoS 2 PUBLISH is to be handed on; if not, it is answered here (MQTT-4.3.3-10).
    fn is_new(&mut self, packet_id: PacketId, now: Duration, hub: &mut Hub, out: &mut Vec<Action>) -> bool {
        let Some(client) = self.client() else { return false };
        match (hub.begin_exact(&client.key, packet_id, client.number), self.version) {
            (Exact::New, _) => return true,
            (Exact::Again, _) => self.answer(Packet::PubRec(Ack::new(packet_id, Reason::SUCCESS)), out),
            (Exact::OnItsWay, Version::V5) => {
                let ack = Ack::new(packet_id, Reason::PACKET_IDENTIFIER_IN_USE);
                self.answer(Packet::PubRec(ack), out);
            }
            // The one PUBREC that is to come is for both.
            (Exact::OnItsWay, Version::V4) => {}
            (Exact::Elsewhere, _) => {
                self.acknowledgeable += 1;
                self.outstanding.push(PUBLISH_OVERHEAD_BYTES, Unanswered::Elsewhere(packet_id));
                self.handle_wake(now, hub, out);
            }
        }
        false
    }

    /// Between clients in the home: nothing to store.
    fn deliver_at_once(
        &mut self,
        qos: QoS,
        packet_id: Option<PacketId>,
        message: Message,
        now: Duration,
        hub: &mut Hub,
        out: &mut Vec<Action>,
    ) {
        self.settle((qos, packet_id, message), Some(Verdict::Stored), now, hub);
        if let Some(packet_id) = packet_id {
            self.answer(acknowledgement(qos, packet_id, Reason::SUCCESS), out);
        }
    }

    /// Sends an answer that is known, behind those that are not.
    fn answer(&mut self, packet: Packet, out: &mut Vec<Action>) {
        if self.outstanding.is_empty() {
            return out.push(Action::Send(packet));
        }
        self.acknowledgeable += 1;
        let known = Unanswered::Known { answer: Answer::Say(packet), counts: true };
        self.outstanding.push(PUBLISH_OVERHEAD_BYTES, known);
    }

    /// Takes in the verdict on the oldest PUBLISH that waits for one; `None` where the pipeline went away without one, which counts as
    /// refused. A refused QoS 0 PUBLISH is only lost, as QoS 0 allows (§4.3.1). Also after the connection has closed: others still
    /// see what was stored.
    pub fn handle_verdict(
        &mut self,
        verdict: Option<Verdict>,
        now: Duration,
        hub: &mut Hub,
        out: &mut Vec<Action>,
    ) {
        let known = |answer, counts| Unanswered::Known { answer, counts };
        if let Some(at) = self.next_waiting()
            && let Some(Unanswered::Waits { qos, packet_id, message }) =
                self.outstanding.replace(at, known(Answer::Nothing, false))
        {
            let acknowledged = self.settle((qos, packet_id, message), verdict, now, hub);
            if let Some(packet_id) = packet_id {
                // From here on the hub counts it, until PUBREL.
                let counts = qos != QoS::ExactlyOnce || !acknowledged;
                self.acknowledgeable -= usize::from(!counts);
                self.outstanding.replace(at, known(self.answer_to(qos, packet_id, verdict), counts));
            }
        }
        self.handle_wake(now, hub, out);
    }

    /// Tells the client the answers that are known and have nothing before them; some may have become known by what came to another
    /// connection.
    pub fn handle_wake(&mut self, now: Duration, hub: &mut Hub, out: &mut Vec<Action>) {
        loop {
            let answer = match self.outstanding.oldest_mut() {
                Some(Unanswered::Elsewhere(packet_id)) => {
                    let packet_id = *packet_id;
                    let Some(answer) = self.answer_elsewhere(packet_id, hub) else { break };
                    answer
                }
                Some(Unanswered::Known { answer, .. }) => std::mem::replace(answer, Answer::Nothing),
                Some(Unanswered::Waits { .. }) | None => break,
            };
            let counts = !matches!(self.outstanding.pop(), Some(Unanswered::Known { counts: false, .. }));
            self.acknowledgeable -= usize::from(counts);
            match answer {
                Answer::Say(packet) => self.say(packet, out),
                Answer::Withhold => self.drain(CloseReason::Refused, now),
                Answer::Nothing => {}
            }
        }
        self.close_if_drained(now, hub, out);
    }

    /// No more verdicts will come: what still waits for one has none, so that its repetition is not told to wait for it.
    pub fn give_up(&mut self, now: Duration, hub: &mut Hub, out: &mut Vec<Action>) {
        while self.next_waiting().is_some() {
            self.handle_verdict(None, now, hub, out);
        }
    }

    fn next_waiting(&self) -> Option<usize> {
        self.outstanding.position(|unanswered| matches!(unanswered, Unanswered::Waits { .. }))
    }

    /// The answer to a PUBLISH whose verdict comes to a connection before this one, if it is there and this one is still up to give it.
    fn answer_elsewhere(&self, packet_id: PacketId, hub: &mut Hub) -> Option<Answer> {
        let client = self.client().filter(|_| self.closed().is_none())?;
        let verdict = hub.verdict_elsewhere(&client.key, packet_id, client.number)?;
        hub.settle_exact(&client.key, packet_id, client.number, verdict, self.acknowledges(verdict));
        Some(self.answer_to(QoS::ExactlyOnce, packet_id, verdict))
    }

    /// A PUBLISH has its verdict: those who subscribed see it if it was stored. Returns whether it is acknowledged.
    fn settle(
        &self,
        (qos, packet_id, message): (QoS, Option<PacketId>, Message),
        verdict: Option<Verdict>,
        now: Duration,
        hub: &mut Hub,
    ) -> bool {
        let acknowledged = self.acknowledges(verdict);
        if let (QoS::ExactlyOnce, Some(packet_id), Some(client)) = (qos, packet_id, self.client()) {
            hub.settle_exact(&client.key, packet_id, client.number, verdict, acknowledged);
        }
        if verdict == Some(Verdict::Stored) {
            hub.publish(&Arc::new(message), now);
        }
        acknowledged
    }

    /// Whether the client is told that all is well: in 3.1.1 also of what is in quarantine, since it would repeat it for ever.
    fn acknowledges(&self, verdict: Option<Verdict>) -> bool {
        match (verdict, self.version) {
            (Some(Verdict::Stored), _) | (Some(Verdict::Quarantined(_)), Version::V4) => true,
            (Some(Verdict::Quarantined(_)), Version::V5) | (Some(Verdict::Refused) | None, _) => false,
        }
    }

    fn answer_to(&self, qos: QoS, packet_id: PacketId, verdict: Option<Verdict>) -> Answer {
        let reason = match verdict {
            _ if self.acknowledges(verdict) => Reason::SUCCESS,
            Some(Verdict::Quarantined(Fault::Payload)) => Reason::PAYLOAD_FORMAT_INVALID,
            Some(Verdict::Quarantined(Fault::Device)) => Reason::NOT_AUTHORIZED,
            Some(Verdict::Stored | Verdict::Refused) | None if self.version == Version::V5 => {
                Reason::QUOTA_EXCEEDED
            }
            Some(Verdict::Stored | Verdict::Refused) | None => return Answer::Withhold,
        };
        Answer::Say(acknowledgement(qos, packet_id, reason))
    }

    fn say(&self, packet: Packet, out: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Up { .. } | Phase::Draining { .. }) {
            out.push(Action::Send(packet));
        }
    }
}

fn acknowledgement(qos: QoS, packet_id: PacketId, reason: Reason) -> Packet {
    let ack = Ack::new(packet_id, reason);
    if qos == QoS::ExactlyOnce { Packet::PubRec(ack) } else { Packet::PubAck(ack) }
}
