//! Retained messages (§3.3.1.3), bounded for each device and in all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use caregate_protocol::id::DeviceId;

use crate::mqtt::filter;
use crate::mqtt::limits::{
    RETAINED_BYTES_MAX, RETAINED_BYTES_PER_DEVICE, RETAINED_BYTES_RESERVED, RETAINED_PER_DEVICE,
};

use super::message::Message;

#[derive(Debug)]
struct Kept {
    message: Arc<Message>,
    /// Rises with each message kept: the smallest is the oldest.
    number: u64,
}

/// The last retained message of each topic.
#[derive(Debug, Default)]
pub(super) struct Retained {
    topics: BTreeMap<String, Kept>,
    /// Always the sum over `topics`.
    bytes: usize,
    numbers: u64,
}

fn owner(message: &Message) -> Option<&DeviceId> {
    message.publisher.as_ref().map(|key| &key.device)
}

impl Retained {
    /// Keeps a message, or for an empty payload forgets the topic's. The device's oldest make room for its own; where all are
    /// full it is not kept. Returns how many were dropped.
    pub(super) fn set(&mut self, message: &Arc<Message>, now: Duration) -> u64 {
        let expired = self.topics.values().filter(|kept| kept.message.has_expired(now));
        let gone: Vec<String> = expired.map(|kept| kept.message.topic.clone()).collect();
        gone.iter().chain([&message.topic]).for_each(|topic| self.forget(topic));
        if message.payload.is_empty() {
            return 0;
        }
        // What the gateway itself says has room of its own, which no device can take.
        let all_max = RETAINED_BYTES_MAX - if owner(message).is_some() { RETAINED_BYTES_RESERVED } else { 0 };
        let (cost, mut dropped) = (message.cost(), 0);
        if cost > RETAINED_BYTES_PER_DEVICE {
            return 1;
        }
        loop {
            let own = || self.topics.values().filter(|kept| owner(&kept.message) == owner(message));
            let own_bytes: usize = own().map(|kept| kept.message.cost()).sum();
            let fits = own().count() < RETAINED_PER_DEVICE && own_bytes + cost <= RETAINED_BYTES_PER_DEVICE;
            if fits && self.bytes + cost <= all_max {
                break;
            }
            let Some(oldest) = own().min_by_key(|kept| kept.number).map(|kept| kept.message.topic.clone())
            else {
                return dropped + 1;
            };
            self.forget(&oldest);
            dropped += 1;
        }
        self.numbers += 1;
        self.bytes += cost;
        let kept = Kept { message: Arc::clone(message), number: self.numbers };
        self.topics.insert(message.topic.clone(), kept);
        dropped
    }

    /// Forgets those that are not to be kept.
    pub(super) fn retain(&mut self, keep: impl Fn(&Message) -> bool) {
        self.topics.retain(|_, kept| keep(&kept.message));
        self.bytes = self.topics.values().map(|kept| kept.message.cost()).sum();
    }

    fn forget(&mut self, topic: &str) {
        if let Some(kept) = self.topics.remove(topic) {
            self.bytes -= kept.message.cost();
        }
    }

    /// Those that a filter matches, by topic.
    pub(super) fn matching(&self, path: &str, now: Duration) -> Vec<Arc<Message>> {
        let alive = self.topics.values().filter(|kept| !kept.message.has_expired(now));
        alive
            .filter(|kept| filter::matches(path, &kept.message.topic))
            .map(|kept| Arc::clone(&kept.message))
            .collect()
    }

    /// All, the oldest first, as [`Self::set`] takes them back.
    pub(super) fn oldest_first(&self) -> Vec<Arc<Message>> {
        let mut kept: Vec<_> = self.topics.values().collect();
        kept.sort_unstable_by_key(|kept| kept.number);
        kept.into_iter().map(|kept| Arc::clone(&kept.message)).collect()
    }

    pub(super) fn count(&self) -> usize {
        self.topics.len()
    }
}
