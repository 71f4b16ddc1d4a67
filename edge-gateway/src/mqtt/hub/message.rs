//! What is delivered, whose it is, and what of it a client is sent.

use std::time::Duration;

use bytes::Bytes;
use caregate_protocol::id::DeviceId;

use crate::mqtt::limits::PUBLISH_OVERHEAD_BYTES;
use crate::mqtt::wire::{PacketId, Properties, Publish, QoS, Will};

/// A session's name. A client id is unique per device only: over the whole server any enrolled sensor could end or take over
/// another's session by guessing its client id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    /// Whose credentials were shown.
    pub device: DeviceId,
    /// As sent, or as assigned.
    pub client_id: String,
}

/// An application message as the sessions share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where to.
    pub topic: String,
    /// What.
    pub payload: Bytes,
    /// As published.
    pub qos: QoS,
    /// As published.
    pub retain: bool,
    /// Those that are forwarded unaltered (§3.3.2.3): payload format, content type, response topic, correlation data, user.
    pub properties: Properties,
    /// When it expires.
    pub expires: Option<Duration>,
    /// Who published; none is the gateway itself.
    pub publisher: Option<SessionKey>,
}

impl Message {
    /// What a client published; its alias has been resolved.
    #[must_use]
    pub fn of_publish(publish: Publish, publisher: &SessionKey, now: Duration) -> Self {
        let Publish { qos, retain, topic, payload, properties, .. } = publish;
        Self::new(topic, payload, qos, retain, properties, Some(publisher.clone()), now)
    }

    /// A will as it is published.
    #[must_use]
    pub fn of_will(will: Will, publisher: &SessionKey, now: Duration) -> Self {
        let Will { topic, payload, qos, retain, properties } = will;
        Self::new(topic, payload, qos, retain, properties, Some(publisher.clone()), now)
    }

    /// One that was kept; its time begins with `now`.
    pub(super) fn kept(
        publish: Publish,
        qos: QoS,
        retain: bool,
        publisher: Option<SessionKey>,
        now: Duration,
    ) -> Self {
        let Publish { topic, payload, properties, .. } = publish;
        Self::new(topic, payload, qos, retain, properties, publisher, now)
    }

    fn new(
        topic: String,
        payload: Bytes,
        qos: QoS,
        retain: bool,
        mut properties: Properties,
        publisher: Option<SessionKey>,
        now: Duration,
    ) -> Self {
        let expires = properties.message_expiry.map(|seconds| now + Duration::from_secs(u64::from(seconds)));
        if !properties.is_empty() {
            properties.message_expiry = None;
            properties.topic_alias = None;
            properties.will_delay = None;
        }
        Self { topic, payload, qos, retain, properties, expires, publisher }
    }

    /// Bytes that it counts for.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.cost() + PUBLISH_OVERHEAD_BYTES
    }

    /// Whether its time has passed.
    #[must_use]
    pub fn has_expired(&self, now: Duration) -> bool {
        self.expires.is_some_and(|at| now >= at)
    }
}

/// A message on its way to one session.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) message: std::sync::Arc<Message>,
    pub(super) qos: QoS,
    /// The flag that the client sees.
    pub(super) retain: bool,
    /// Identifiers of the subscriptions that matched.
    pub(super) subscription_ids: Vec<u32>,
}

impl Delivery {
    /// The PUBLISH for it, with what is left of its time (MQTT-3.3.2-6).
    pub(super) fn publish(&self, packet_id: Option<PacketId>, dup: bool, now: Duration) -> Publish {
        let message = &self.message;
        let mut properties = message.properties.clone();
        if let Some(at) = message.expires {
            let left = at.saturating_sub(now).as_secs().max(1);
            properties.message_expiry = Some(u32::try_from(left).unwrap_or(u32::MAX));
        }
        if !self.subscription_ids.is_empty() {
            properties.subscription_ids.clone_from(&self.subscription_ids);
        }
        Publish {
            dup,
            qos: self.qos,
            retain: self.retain,
            topic: message.topic.clone(),
            packet_id,
            payload: message.payload.clone(),
            properties,
        }
    }
}
