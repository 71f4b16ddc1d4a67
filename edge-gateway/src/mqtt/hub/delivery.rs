//! Who is sent what: subscriptions, and messages to all that match.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use caregate_protocol::id::{DeviceId, PatientId};

use super::message::{Delivery, Message, SessionKey};
use super::session::{Match, Session};
use super::{Effect, Hub};
use crate::mqtt::access::{Access, is_own};
use crate::mqtt::filter;
use crate::mqtt::limits::{
    OUTBOXES_BYTES_MAX, OUTBOXES_BYTES_PER_DEVICE, SUBSCRIPTIONS_MAX, SUBSCRIPTIONS_PER_SESSION,
};
use crate::mqtt::wire::{Filter, QoS, Reason};

impl Hub {
    /// SUBSCRIBE (§3.8.4): a code for each filter, and retained messages on their way.
    pub fn subscribe(
        &mut self,
        key: &SessionKey,
        filters: &[Filter],
        id: Option<u32>,
        access: &Access,
        now: Duration,
    ) -> Vec<Reason> {
        let reasons = filters.iter().map(|filter| self.subscribe_one(key, filter, id, access, now)).collect();
        self.tell_reads(key);
        reasons
    }

    fn subscribe_one(
        &mut self,
        key: &SessionKey,
        filter: &Filter,
        id: Option<u32>,
        access: &Access,
        now: Duration,
    ) -> Reason {
        let path = filter::shared(&filter.path).filter(|_| filter::is_shared(&filter.path));
        let path = path.map_or(filter.path.as_str(), |(_, path)| path);
        let bound = self.bound.as_ref().is_none_or(|bound| bound.contains_key(&key.device));
        if !access.may_read(&key.device, path) || !(bound || is_own(&key.device, path)) {
            return Reason::NOT_AUTHORIZED;
        }
        let all: usize = self.sessions.values().map(|session| session.subscriptions.len()).sum();
        let Some(session) = self.sessions.get_mut(key) else { return Reason::UNSPECIFIED_ERROR };
        let is_known = session.subscriptions.iter().any(|old| old.is(&filter.path));
        let full = all >= SUBSCRIPTIONS_MAX || session.subscriptions.len() >= SUBSCRIPTIONS_PER_SESSION;
        if full && !is_known {
            return Reason::QUOTA_EXCEEDED;
        }
        let is_new = session.subscribe(filter, id);
        if !session.expiry.is_zero() {
            self.changes.sessions += 1;
        }
        if Session::wants_retained(filter, is_new) {
            for message in self.retained.matching(path, now) {
                let how = Match {
                    qos: Some(filter.qos.min(message.qos)),
                    retain: true,
                    ids: id.into_iter().collect(),
                };
                self.enqueue(key, &message, how);
            }
        }
        Reason(filter.qos.bits())
    }

    /// Only these devices may read more than their own from now on; the others lose it at once. And what the others have said is not kept
    /// any more, neither retained nor for displays, be it that it waits or that it was sent and would be sent again: a device that was
    /// released, or whose patient was erased, is nobody's.
    pub fn bind(&mut self, bound: BTreeMap<DeviceId, PatientId>) {
        self.bound = Some(bound);
        self.drop_unbound();
        let keys: Vec<_> = self.sessions.keys().cloned().collect();
        keys.iter().for_each(|key| self.tell_reads(key));
        self.changes.sessions += 1;
        self.changes.messages += 1;
    }

    /// Drops what who is bound no longer allows; where nobody says who is, nothing.
    pub(super) fn drop_unbound(&mut self) {
        let Some(bound) = &self.bound else { return };
        let stays =
            |message: &Message| message.publisher.as_ref().is_none_or(|key| bound.contains_key(&key.device));
        self.retained.retain(stays);
        self.sessions.values_mut().for_each(|session| session.outbox.retain(stays));
        for (key, session) in self.sessions.iter_mut().filter(|(key, _)| !bound.contains_key(&key.device)) {
            session.subscriptions.retain(|subscription| is_own(&key.device, &subscription.path));
            session.outbox.retain(|message| is_own(&key.device, &message.topic));
        }
    }

    /// UNSUBSCRIBE (§3.10.4): a code for each filter.
    pub fn unsubscribe(&mut self, key: &SessionKey, filters: &[String]) -> Vec<Reason> {
        let Some(session) = self.sessions.get_mut(key) else { return Vec::new() };
        self.changes.sessions += 1;
        let mut remove = |filter: &String| match session.subscriptions.iter().position(|old| old.is(filter)) {
            Some(at) => {
                session.subscriptions.remove(at);
                Reason::SUCCESS
            }
            None => Reason::NO_SUBSCRIPTION_EXISTED,
        };
        let reasons = filters.iter().map(&mut remove).collect();
        self.tell_reads(key);
        reasons
    }

    /// Delivers a message to all who subscribed, and keeps it where it is to be retained. What a device says that nobody has bound is for its
    /// own sessions.
    pub fn publish(&mut self, message: &Arc<Message>, now: Duration) {
        let publisher = message.publisher.as_ref().map(|key| &key.device);
        let unbound =
            publisher.filter(|device| self.bound.as_ref().is_some_and(|bound| !bound.contains_key(device)));
        if message.retain && unbound.is_none() {
            self.counts.retained += self.retained.set(message, now);
            self.changes.messages += 1;
        }
        let mut shares: BTreeMap<(String, String), Vec<(SessionKey, Match)>> = BTreeMap::new();
        let mut own = Vec::new();
        let hears = |key: &SessionKey| unbound.is_none_or(|device| key.device == *device);
        let listening = self.sessions.iter().filter(|(_, session)| !session.subscriptions.is_empty());
        for (key, session) in listening.filter(|(key, _)| hears(key)) {
            let how = session.match_of(key, message);
            if how.qos.is_some() {
                own.push((key.clone(), how));
            }
            for (share, path, how) in session.shares_of(key, message) {
                shares.entry((share.to_owned(), path.to_owned())).or_default().push((key.clone(), how));
            }
        }
        for (key, how) in own {
            self.enqueue(&key, message, how);
        }
        for (share, members) in shares {
            if let Some((key, how)) = self.turn(&share, members) {
                self.enqueue(&key, message, how);
                self.turns.insert(share, key);
            }
        }
    }

    /// The member after the last one that is connected and has room; else the next at all.
    fn turn(
        &self,
        share: &(String, String),
        mut members: Vec<(SessionKey, Match)>,
    ) -> Option<(SessionKey, Match)> {
        if let Some(last) = self.turns.get(share) {
            let after = members.partition_point(|(key, _)| key <= last);
            let count = members.len().max(1);
            members.rotate_left(after % count);
        }
        let is_ready = |key: &SessionKey| {
            self.sessions
                .get(key)
                .is_some_and(|session| session.connection.is_some() && session.outbox.has_room())
        };
        let at = members.iter().position(|(key, _)| is_ready(key)).unwrap_or(0);
        (at < members.len()).then(|| members.swap_remove(at))
    }

    /// What the others leave this session, of what its device and all may have.
    fn outbox_room(&self, key: &SessionKey) -> usize {
        let others = self.sessions.iter().filter(|(other, _)| *other != key);
        let (mut all, mut own) = (0, 0);
        for (other, session) in others {
            let bytes = session.outbox.bytes();
            all += bytes;
            own += if other.device == key.device { bytes } else { 0 };
        }
        OUTBOXES_BYTES_MAX.saturating_sub(all).min(OUTBOXES_BYTES_PER_DEVICE.saturating_sub(own))
    }

    fn enqueue(&mut self, key: &SessionKey, message: &Arc<Message>, how: Match) {
        let bytes_max = self.outbox_room(key);
        let Some(session) = self.sessions.get_mut(key) else { return };
        let delivery = Delivery {
            message: Arc::clone(message),
            qos: how.qos.unwrap_or(QoS::AtMostOnce),
            retain: how.retain,
            subscription_ids: how.ids,
        };
        if delivery.qos != QoS::AtMostOnce && !session.expiry.is_zero() {
            self.changes.messages += 1;
        }
        session.outbox.push(delivery, bytes_max, &mut self.counts);
        if let Some(number) = session.connection
            && self.effects.last() != Some(&Effect::Wake(number))
        {
            self.effects.push(Effect::Wake(number));
        }
    }
}
