//! Which publication a PUBACK is for.
//!
//! rumqttc gives packet ids out itself and tells them only by events: `Outgoing::Publish(id)` when a packet leaves,
//! `PubAck(id)` when it is acknowledged. Publications leave in the order in which they were handed over, so the first
//! event with an id that isn't outstanding is for the oldest one that hasn't left yet; an id that is outstanding is a
//! redelivery.

use std::collections::{HashMap, VecDeque};

/// Publications between hand-over and PUBACK, by the caller's own key.
#[derive(Debug)]
pub struct Tracker<K> {
    handed_over: VecDeque<K>,
    sent: HashMap<u16, (u64, K)>,
    order: u64,
}

impl<K> Default for Tracker<K> {
    fn default() -> Self {
        Self { handed_over: VecDeque::new(), sent: HashMap::new(), order: 0 }
    }
}

impl<K> Tracker<K> {
    /// The client has been given a publication.
    pub fn handle_hand_over(&mut self, key: K) {
        self.handed_over.push_back(key);
    }

    /// A publication left with this packet id. False when nobody handed one over.
    pub fn handle_sent(&mut self, packet_id: u16) -> bool {
        if self.sent.contains_key(&packet_id) {
            return true;
        }
        let Some(key) = self.handed_over.pop_front() else { return false };
        self.sent.insert(packet_id, (self.order, key));
        self.order += 1;
        true
    }

    /// A PUBACK came in; the key of what it is for, once.
    pub fn handle_puback(&mut self, packet_id: u16) -> Option<K> {
        self.sent.remove(&packet_id).map(|(_, key)| key)
    }

    /// The place of an outstanding packet id in the order of first leaving: redelivery keeps that order (MQTT 3.1.1 §4.6).
    #[must_use]
    pub fn order(&self, packet_id: u16) -> Option<u64> {
        self.sent.get(&packet_id).map(|(order, _)| *order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pubacks_find_their_publication_in_any_order() {
        let mut tracker = Tracker::default();
        ["a", "b", "c"].into_iter().for_each(|key| tracker.handle_hand_over(key));
        assert!(tracker.handle_sent(1) && tracker.handle_sent(2));
        assert_eq!(tracker.handle_puback(2), Some("b"));
        assert!(tracker.handle_sent(2), "an id may be used again");
        assert_eq!(tracker.handle_puback(2), Some("c"));
        assert_eq!(tracker.handle_puback(2), None);
        assert_eq!(tracker.handle_puback(1), Some("a"));
        assert!(!tracker.handle_sent(3));
    }

    #[test]
    fn redelivery_is_no_new_publication() {
        let mut tracker = Tracker::default();
        ["a", "b"].into_iter().for_each(|key| tracker.handle_hand_over(key));
        assert!(tracker.handle_sent(7) && tracker.handle_sent(7) && tracker.handle_sent(8));
        assert!(tracker.order(7) < tracker.order(8));
        assert_eq!((tracker.handle_puback(7), tracker.handle_puback(8)), (Some("a"), Some("b")));
    }
}
