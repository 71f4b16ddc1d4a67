//! Every transition, with the time given by hand and a hub that is real.

mod connect;

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::ingest::{Fault, Verdict};
use crate::mqtt::access::Reader;
use crate::mqtt::hub::{Capacity, Effect, Join};
use crate::mqtt::limits::{CLIENT_ID_BYTES_MAX, SESSION_EXPIRY_MAX, TOPIC_ALIASES_MAX, TOPIC_BYTES_MAX};
use crate::mqtt::wire::{ConnAck, Filter, Properties, Publish, RetainHandling, Will};

const T0: Duration = Duration::from_secs(100);
const TOPIC: &str = "vitals/v1/a/num/x";
/// A key's number, for `Pair`s that share a hub.
const NUMBER: ConnectionNumber = 7;

fn connect(version: Version, keep_alive: u16) -> Connect {
    Connect {
        version,
        clean_start: true,
        keep_alive,
        client_id: "client".to_owned(),
        will: None,
        username: None,
        password: None,
        properties: Properties::default(),
    }
}

fn with_will(version: Version, topic: &str) -> Connect {
    let will = Will {
        topic: topic.to_owned(),
        payload: Bytes::from_static(b"offline"),
        qos: QoS::AtLeastOnce,
        retain: true,
        properties: Properties::default(),
    };
    Connect { will: Some(will), ..connect(version, 60) }
}

/// One whose session outlives the connection.
fn kept(version: Version) -> Connect {
    let mut connect = Connect { clean_start: false, ..connect(version, 60) };
    connect.properties.session_expiry = Some(60).filter(|_| version == Version::V5);
    connect
}

fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

fn publish_to(topic: &str, qos: QoS, packet_id: u16) -> Publish {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: topic.to_owned(),
        packet_id: PacketId::new(packet_id),
        payload: Bytes::from_static(b"1"),
        properties: Properties::default(),
    }
}

/// QoS 0 with identifier 0, else QoS 1.
fn publish(packet_id: u16) -> Packet {
    let qos = if packet_id == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
    Packet::Publish(publish_to(TOPIC, qos, packet_id))
}

fn exactly(packet_id: u16) -> Packet {
    Packet::Publish(publish_to(TOPIC, QoS::ExactlyOnce, packet_id))
}

fn with_alias(topic: &str, alias: u16) -> Packet {
    let mut publish = publish_to(topic, QoS::AtMostOnce, 0);
    publish.properties.topic_alias = Some(alias);
    Packet::Publish(publish)
}

fn puback(packet_id: u16, reason: Reason) -> Action {
    Action::Send(Packet::PubAck(Ack::new(id(packet_id), reason)))
}

fn pubrec(packet_id: u16, reason: Reason) -> Action {
    Action::Send(Packet::PubRec(Ack::new(id(packet_id), reason)))
}

fn told(reason: Reason) -> Action {
    Action::Send(Packet::Disconnect(Disconnect::new(reason)))
}

fn subscription(path: &str) -> Filter {
    Filter {
        path: path.to_owned(),
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    }
}

fn device(name: &str) -> DeviceId {
    DeviceId::new(name).unwrap()
}

/// A conversation with its hub, and its actions collected.
struct Pair {
    conversation: Conversation,
    hub: Hub,
    access: Access,
}

impl Pair {
    fn new(limits: Limits) -> Self {
        let reader = Reader { device: device("display"), filters: vec!["vitals/v1/#".to_owned()] };
        let access = Access::new([reader]).unwrap();
        Self { conversation: Conversation::new(limits, T0), hub: Hub::new(64), access }
    }

    fn up(limits: Limits, connect: Connect) -> Self {
        Self::up_with(limits, connect).0
    }

    fn up_with(limits: Limits, connect: Connect) -> (Self, ConnAck) {
        let mut pair = Self::new(limits);
        assert_eq!(
            pair.packet(Packet::Connect(Box::new(connect.clone())), T0),
            [Action::Admit(Box::new(connect))]
        );
        let admission = Ok((device("a"), NUMBER));
        let mut actions = pair.collect(|c, hub, out| c.handle_admission(admission, T0, hub, out));
        match (actions.pop(), actions.len()) {
            (Some(Action::Send(Packet::ConnAck(ack))), 0) => {
                assert_eq!(ack.reason, Reason::SUCCESS);
                (pair, ack)
            }
            other => panic!("expected CONNACK, got {other:?}"),
        }
    }

    /// The same client's next connection, with the hub; [`Self::swap_hub`] gives it back for a while.
    fn followed_by(&mut self, connect: Connect) -> Self {
        let mut next = Self::new(self.conversation.limits);
        self.swap_hub(&mut next);
        next.packet(Packet::Connect(Box::new(connect)), T0);
        let admission = Ok((device("a"), NUMBER + 1));
        let actions = next.collect(|c, hub, out| c.handle_admission(admission, T0, hub, out));
        assert!(
            matches!(&actions[..], [Action::Send(Packet::ConnAck(ack))] if ack.session_present),
            "{actions:?}"
        );
        next
    }

    fn swap_hub(&mut self, other: &mut Self) {
        std::mem::swap(&mut self.hub, &mut other.hub);
    }

    fn collect(&mut self, event: impl FnOnce(&mut Conversation, &mut Hub, &mut Vec<Action>)) -> Vec<Action> {
        let mut out = Vec::new();
        event(&mut self.conversation, &mut self.hub, &mut out);
        out
    }

    fn packet(&mut self, packet: Packet, now: Duration) -> Vec<Action> {
        assert!(self.conversation.wants_packet(now, false), "the shell reads only when asked");
        let access = self.access.clone();
        self.collect(|c, hub, out| c.handle_packet(packet, now, &access, hub, out))
    }

    fn forwards(&mut self, packet: Packet) {
        let actions = self.packet(packet, T0);
        assert!(matches!(&actions[..], [Action::Forward(topic, _)] if topic == TOPIC), "{actions:?}");
    }

    fn verdict(&mut self, verdict: Option<Verdict>) -> Vec<Action> {
        self.collect(|c, hub, out| c.handle_verdict(verdict, T0, hub, out))
    }

    fn tick(&mut self, now: Duration) -> Vec<Action> {
        self.collect(|c, hub, out| c.handle_tick(now, hub, out))
    }

    fn wills(&mut self) -> usize {
        self.hub.take_effects().into_iter().filter(|effect| matches!(effect, Effect::Will(..))).count()
    }

    /// The only thing that this packet does is to close for this reason, which 5.0 is told.
    fn closes(mut self, packet: Packet, reason: CloseReason) {
        let mut expected = vec![Action::Close(reason)];
        if let Some(code) = reason.reason()
            && self.conversation.version() == Version::V5
        {
            expected.insert(0, told(code));
        }
        assert_eq!(self.packet(packet, T0), expected);
        assert_eq!(self.conversation.closed(), Some(reason));
        assert!(!self.conversation.wants_packet(T0, false));
        assert_eq!(self.conversation.next_deadline(), None);
        assert_eq!(self.hub.connections(), 0);
    }
}

fn disconnect() -> Packet {
    Packet::Disconnect(Disconnect::new(Reason::SUCCESS))
}

#[test]
fn acknowledgements_wait_for_verdicts_and_keep_the_order() {
    for version in [Version::V4, Version::V5] {
        let mut pair = Pair::up(Limits::default(), connect(version, 60));
        for packet in [publish(7), publish(0), exactly(8), publish(3)] {
            pair.forwards(packet);
        }
        assert_eq!(pair.verdict(Some(Verdict::Stored)), [puback(7, Reason::SUCCESS)]);
        assert_eq!(pair.verdict(Some(Verdict::Stored)), [], "QoS 0");
        let told = |fault| told_of(version, Some(Verdict::Quarantined(fault))).unwrap();
        let (payload, device) = (told(Fault::Payload), told(Fault::Device));
        assert_eq!(pair.verdict(Some(Verdict::Quarantined(Fault::Payload))), [pubrec(8, payload)]);
        assert_eq!(pair.verdict(Some(Verdict::Quarantined(Fault::Device))), [puback(3, device)]);
        assert_eq!(pair.verdict(Some(Verdict::Stored)), [], "nothing is outstanding");
    }
}

#[test]
fn what_is_answered_without_the_pipeline_waits_for_what_came_before() {
    let mut pair = Pair::up(Limits::default(), connect(Version::V5, 60));
    pair.forwards(publish(1));
    let foreign = Packet::Publish(publish_to("vitals/v1/b/x", QoS::AtLeastOnce, 2));
    assert_eq!(pair.packet(foreign, T0), []);
    let local = Packet::Publish(publish_to("local/v1/a/x", QoS::AtLeastOnce, 3));
    assert_eq!(pair.packet(local, T0), []);
    pair.forwards(publish(4));
    assert_eq!(
        pair.verdict(Some(Verdict::Stored)),
        [puback(1, Reason::SUCCESS), puback(2, Reason::NOT_AUTHORIZED), puback(3, Reason::SUCCESS)]
    );
    assert_eq!(pair.verdict(None), [puback(4, Reason::QUOTA_EXCEEDED)]);
    assert_eq!(pair.packet(Packet::PingReq, T0), [Action::Send(Packet::PingResp)], "the connection stays");
}

#[test]
fn after_a_refusal_3_1_1_answers_the_others_and_closes() {
    for refusal in [Some(Verdict::Refused), None] {
        let mut pair = Pair::up(Limits::default(), with_will(Version::V4, "vitals/v1/a/status"));
        for packet in [publish(1), publish(2), exactly(3), publish(4)] {
            pair.forwards(packet);
        }
        assert_eq!(pair.verdict(Some(Verdict::Stored)), [puback(1, Reason::SUCCESS)]);
        assert_eq!(pair.verdict(refusal), [], "withheld");
        assert!(!pair.conversation.wants_packet(T0, false), "nothing more is read");
        assert_eq!(pair.verdict(refusal), [], "withheld");
        let last = [puback(4, Reason::SUCCESS), Action::Close(CloseReason::Refused)];
        assert_eq!(pair.verdict(Some(Verdict::Stored)), last);
        assert_eq!(pair.wills(), 1);
    }
}

#[test]
fn a_drain_has_an_end() {
    let mut pair = Pair::up(Limits::default(), connect(Version::V4, 60));
    pair.forwards(publish(1));
    pair.forwards(publish(2));
    assert_eq!(pair.verdict(Some(Verdict::Refused)), []);
    assert_eq!(pair.conversation.next_deadline(), Some(T0 + DRAIN_TIMEOUT));
    assert_eq!(pair.tick(T0 + DRAIN_TIMEOUT), [Action::Close(CloseReason::Refused)]);
}

#[test]
fn a_refused_qos_0_publish_is_only_lost() {
    let mut pair = Pair::up(Limits::default(), connect(Version::V4, 60));
    pair.forwards(publish(0));
    assert_eq!(pair.verdict(Some(Verdict::Refused)), []);
    assert_eq!(pair.packet(Packet::PingReq, T0), [Action::Send(Packet::PingResp)]);
}

#[test]
fn shutdown_answers_what_is_outstanding_and_reads_nothing_more() {
    let mut pair = Pair::up(Limits::default(), with_will(Version::V5, "vitals/v1/a/status"));
    pair.forwards(publish(1));
    assert_eq!(pair.collect(|c, hub, out| c.handle_shutdown(T0, hub, out)), []);
    assert!(!pair.conversation.wants_packet(T0, false));
    assert_eq!(
        pair.verdict(Some(Verdict::Stored)),
        [
            puback(1, Reason::SUCCESS),
            told(Reason::SERVER_SHUTTING_DOWN),
            Action::Close(CloseReason::Shutdown)
        ]
    );
    assert_eq!(pair.wills(), 0, "deferred");
    let shutdown = |mut pair: Pair| pair.collect(|c, hub, out| c.handle_shutdown(T0, hub, out));
    let closed = [Action::Close(CloseReason::Shutdown)];
    assert_eq!(shutdown(Pair::new(Limits::default())), closed);
    assert_eq!(shutdown(Pair::up(Limits::default(), connect(Version::V4, 60))), closed);
}

#[test]
fn the_keep_alive_is_one_and_a_half_times_what_was_agreed() {
    let mut pair = Pair::up(Limits::default(), connect(Version::V4, 10));
    assert!(pair.conversation.wants_packet(T0, false));
    let later = T0 + Duration::from_secs(9);
    assert_eq!(pair.packet(Packet::PingReq, later), [Action::Send(Packet::PingResp)]);
    let deadline = later + Duration::from_secs(15);
    assert_eq!(pair.conversation.next_deadline(), Some(deadline));
    assert_eq!(pair.tick(deadline - Duration::from_micros(1)), []);
    assert_eq!(pair.tick(deadline), [Action::Close(CloseReason::KeepAlive)]);

    let deadline = |version, keep_alive| {
        let mut pair = Pair::up(Limits::default(), connect(version, keep_alive));
        assert!(pair.conversation.wants_packet(T0, false));
        pair.conversation.next_deadline()
    };
    assert_eq!(deadline(Version::V4, 0), None);
    assert_eq!(
        deadline(Version::V4, 10_000),
        Some(T0 + Duration::from_secs(15_000)),
        "3.1.1 can't be told another"
    );
    assert_eq!(deadline(Version::V5, 0), Some(T0 + Duration::from_secs(900)), "the server's");
    assert_eq!(deadline(Version::V5, 10_000), Some(T0 + Duration::from_secs(900)));
}

#[test]
fn a_client_that_is_not_read_is_not_blamed_for_silence() {
    let mut pair = Pair::up(Limits { inflight_max: 1, ..Limits::default() }, connect(Version::V4, 10));
    pair.forwards(publish(1));
    assert!(!pair.conversation.wants_packet(T0, false), "the window is full");
    assert_eq!(pair.conversation.next_deadline(), None);
    let long_after = T0 + Duration::from_secs(60);
    assert_eq!(pair.tick(long_after), []);
    assert_eq!(pair.verdict(Some(Verdict::Stored)), [puback(1, Reason::SUCCESS)]);
    assert!(pair.conversation.wants_packet(long_after, false));
    assert_eq!(pair.conversation.next_deadline(), Some(long_after + Duration::from_secs(15)));
}

#[test]
fn the_rate_stops_reading_until_tokens_are_back() {
    let limits = Limits { publishes_per_s: 10, publishes_burst: 2, ..Limits::default() };
    let mut pair = Pair::up(limits, connect(Version::V5, 60));
    pair.forwards(publish(1));
    pair.forwards(publish(2));
    assert!(!pair.conversation.wants_packet(T0, false));
    let ready = T0 + Duration::from_millis(100);
    assert_eq!(pair.conversation.next_deadline(), Some(ready));
    assert!(!pair.conversation.wants_packet(ready, true), "the shell is blocked");
    assert_eq!(pair.conversation.next_deadline(), None, "no deadline that has passed: that would spin");
    assert!(pair.conversation.wants_packet(ready, false));
}

#[test]
fn more_than_receive_maximum_closes() {
    let limits = Limits { inflight_max: 2, ..Limits::default() };
    let mut pair = Pair::up(limits, connect(Version::V5, 60));
    pair.forwards(exactly(1));
    assert_eq!(pair.verdict(Some(Verdict::Stored)), [pubrec(1, Reason::SUCCESS)]);
    pair.forwards(publish(2));
    pair.forwards(publish(0));
    assert!(!pair.conversation.wants_packet(T0, false) || pair.conversation.closed().is_none());
    assert_eq!(pair.verdict(Some(Verdict::Stored)), [puback(2, Reason::SUCCESS)]);
    let release = Packet::PubRel(Ack::new(id(1), Reason::SUCCESS));
    let complete = Action::Send(Packet::PubComp(Ack::new(id(1), Reason::SUCCESS)));
    assert_eq!(pair.packet(release, T0), [complete], "makes room");
    pair.verdict(Some(Verdict::Stored));
    pair.forwards(publish(3));
    pair.forwards(publish(4));
    pair.closes(publish(5), CloseReason::ReceiveMaximum);
}

#[test]
fn a_repetition_is_answered_also_when_receive_maximum_is_reached() {
    let limits = Limits { inflight_max: 2, ..Limits::default() };
    let mut pair = Pair::up(limits, connect(Version::V5, 60));
    for packet_id in [1, 2] {
        pair.forwards(exactly(packet_id));
        assert_eq!(pair.verdict(Some(Verdict::Stored)), [pubrec(packet_id, Reason::SUCCESS)]);
    }
    assert_eq!(pair.packet(exactly(1), T0), [pubrec(1, Reason::SUCCESS)]);
    pair.closes(exactly(3), CloseReason::ReceiveMaximum);
}

#[test]
fn qos_2_is_stored_once_whatever_the_client_repeats() {
    for version in [Version::V4, Version::V5] {
        let mut pair = Pair::up(Limits::default(), connect(version, 60));
        pair.forwards(exactly(1));
        assert_eq!(pair.packet(exactly(1), T0), [], "on its way");
        let mut answers = vec![pubrec(1, Reason::SUCCESS)];
        if version == Version::V5 {
            answers.push(pubrec(1, Reason::PACKET_IDENTIFIER_IN_USE));
        }
        assert_eq!(pair.verdict(Some(Verdict::Stored)), answers);
        assert_eq!(pair.packet(exactly(1), T0), [pubrec(1, Reason::SUCCESS)], "not handed on");
        let release = || Packet::PubRel(Ack::new(id(1), Reason::SUCCESS));
        let complete = |reason| Action::Send(Packet::PubComp(Ack::new(id(1), reason)));
        assert_eq!(pair.packet(release(), T0), [complete(Reason::SUCCESS)]);
        assert_eq!(pair.packet(release(), T0), [complete(Reason::PACKET_IDENTIFIER_NOT_FOUND)]);
        pair.forwards(exactly(1));
    }
}

/// A client whose connection breaks before the verdict comes back and repeats it: it is handed on once, and the new connection answers, in
/// the order of what it was sent.
#[test]
fn qos_2_is_stored_once_also_over_a_new_connection() {
    for version in [Version::V4, Version::V5] {
        for verdict in
            [Some(Verdict::Stored), Some(Verdict::Quarantined(Fault::Payload)), Some(Verdict::Refused), None]
        {
            let mut old = Pair::up(Limits::default(), kept(version));
            old.forwards(exactly(1));
            old.forwards(exactly(2));
            old.collect(|c, hub, out| c.close(CloseReason::Io, T0, hub, out));
            let mut new = old.followed_by(kept(version));
            for packet_id in [1, 1, 2] {
                assert_eq!(new.packet(exactly(packet_id), T0), [], "not handed on");
            }
            new.forwards(publish(3));
            assert_eq!(new.verdict(Some(Verdict::Stored)), [], "behind those two");
            new.hub.take_effects();
            old.swap_hub(&mut new);
            assert_eq!(old.verdict(verdict), []);
            old.swap_hub(&mut new);
            let woken = new.hub.take_effects().into_iter().any(|effect| effect == Effect::Wake(NUMBER + 1));
            assert!(woken);
            let first = new.collect(|c, hub, out| c.handle_wake(T0, hub, out));
            let mut in_use = Vec::new();
            if version == Version::V5 {
                in_use.push(pubrec(1, Reason::PACKET_IDENTIFIER_IN_USE));
            }
            match told_of(version, verdict) {
                Some(reason) => assert_eq!(first, [vec![pubrec(1, reason)], in_use].concat()),
                None => assert_eq!(first, []),
            }
            old.swap_hub(&mut new);
            old.collect(|c, hub, out| c.give_up(T0, hub, out));
            old.swap_hub(&mut new);
            let last = new.collect(|c, hub, out| c.handle_wake(T0, hub, out));
            let mut expected = vec![puback(3, Reason::SUCCESS)];
            if version == Version::V5 {
                expected.insert(0, pubrec(2, Reason::QUOTA_EXCEEDED));
            } else {
                expected.push(Action::Close(CloseReason::Refused));
            }
            assert_eq!(last, expected, "the second never had a verdict");
        }
    }
}

/// What PUBACK and PUBREC say, if anything.
fn told_of(version: Version, verdict: Option<Verdict>) -> Option<Reason> {
    match (verdict, version) {
        (Some(Verdict::Stored), _) | (Some(Verdict::Quarantined(_)), Version::V4) => Some(Reason::SUCCESS),
        (Some(Verdict::Quarantined(Fault::Payload)), Version::V5) => Some(Reason(0x99)),
        (Some(Verdict::Quarantined(Fault::Device)), Version::V5) => Some(Reason(0x87)),
        (Some(Verdict::Refused) | None, Version::V5) => Some(Reason(0x97)),
        (Some(Verdict::Refused) | None, Version::V4) => None,
    }
}

/// All that a client may have on its way, repeated and answered: its Receive Maximum is not exceeded by it.
#[test]
fn a_repetition_over_a_new_connection_counts_once() {
    let limits = Limits { inflight_max: 3, ..Limits::default() };
    let mut old = Pair::up(limits, kept(Version::V5));
    old.forwards(exactly(1));
    old.collect(|c, hub, out| c.close(CloseReason::Io, T0, hub, out));
    let mut new = old.followed_by(kept(Version::V5));
    assert_eq!(new.packet(exactly(1), T0), []);
    new.forwards(exactly(2));
    assert_eq!(new.verdict(Some(Verdict::Stored)), []);
    new.forwards(publish(3));
    old.swap_hub(&mut new);
    old.verdict(Some(Verdict::Stored));
    old.swap_hub(&mut new);
    let told = new.collect(|c, hub, out| c.handle_wake(T0, hub, out));
    assert_eq!(told, [pubrec(1, Reason::SUCCESS), pubrec(2, Reason::SUCCESS)]);
    new.packet(Packet::PubRel(Ack::new(id(1), Reason::SUCCESS)), T0);
    new.forwards(publish(4));
    new.closes(publish(5), CloseReason::ReceiveMaximum);
}

#[test]
fn topic_aliases_stand_for_what_they_were_given() {
    let up = || Pair::up(Limits::default(), connect(Version::V5, 60));
    let mut pair = up();
    pair.forwards(with_alias(TOPIC, 1));
    pair.forwards(with_alias("", 1));
    let other = "vitals/v1/a/num/y";
    let topic_of = |actions: Vec<Action>| match &actions[..] {
        [Action::Forward(topic, _)] => topic.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(topic_of(pair.packet(with_alias(other, 1), T0)), other, "given anew");
    assert_eq!(topic_of(pair.packet(with_alias("", 1), T0)), other);
    pair.closes(with_alias("", 2), CloseReason::TopicAlias);
    up().closes(with_alias(TOPIC, TOPIC_ALIASES_MAX + 1), CloseReason::TopicAlias);
}

#[test]
fn others_see_what_was_stored_and_nothing_else() {
    let mut pair = Pair::up(Limits::default(), connect(Version::V5, 60));
    let key = SessionKey { device: device("display"), client_id: "d".to_owned() };
    let capacity =
        Capacity { version: Version::V5, receive_max: 9, topic_alias_max: 0, packet_size_max: None };
    let join = Join { key: key.clone(), clean_start: true, expiry: Duration::ZERO, will: None, capacity };
    pair.hub.join(join, 99, T0).unwrap();
    let access = pair.access.clone();
    pair.hub.subscribe(&key, &[subscription("vitals/v1/#")], None, &access, T0);
    let seen = |pair: &mut Pair| matches!(pair.hub.next_packet(&key, 99, T0), Some(Packet::Publish(_)));
    pair.forwards(publish(1));
    assert!(!seen(&mut pair), "not before it is stored");
    pair.verdict(Some(Verdict::Stored));
    assert!(seen(&mut pair));
    for verdict in [Some(Verdict::Quarantined(Fault::Payload)), Some(Verdict::Refused), None] {
        pair.forwards(publish(1));
        pair.verdict(verdict);
        assert!(!seen(&mut pair), "{verdict:?}");
    }
    pair.forwards(exactly(2));
    pair.forwards(publish(3));
    assert_eq!(
        pair.collect(|c, hub, out| c.close(CloseReason::Io, T0, hub, out)),
        [Action::Close(CloseReason::Io)]
    );
    for _ in 0..2 {
        assert_eq!(pair.verdict(Some(Verdict::Stored)), [], "nobody to tell");
        assert!(seen(&mut pair), "stored after the connection had gone");
    }
}

#[test]
fn a_will_is_published_unless_disconnect_took_it() {
    let wills_after = |version, end: &dyn Fn(&mut Pair)| {
        let mut pair = Pair::up(Limits::default(), with_will(version, "vitals/v1/a/status"));
        end(&mut pair);
        pair.wills()
    };
    for version in [Version::V4, Version::V5] {
        for reason in
            [CloseReason::PeerClosed, CloseReason::Io, CloseReason::TakenOver, CloseReason::KeepAlive]
        {
            let close = |pair: &mut Pair| drop(pair.collect(|c, hub, out| c.close(reason, T0, hub, out)));
            assert_eq!(wills_after(version, &close), 1, "{reason:?}");
        }
        assert_eq!(wills_after(version, &|pair| drop(pair.packet(disconnect(), T0))), 0);
    }
    let with_will = || Packet::Disconnect(Disconnect::new(Reason::DISCONNECT_WITH_WILL));
    assert_eq!(wills_after(Version::V5, &|pair| drop(pair.packet(with_will(), T0))), 1);
}

#[test]
fn disconnect_may_change_how_long_the_session_is_kept_but_not_from_nothing() {
    let ends = |asked: Option<u32>, then: u32| {
        let mut connect = connect(Version::V5, 60);
        connect.properties.session_expiry = asked;
        let mut pair = Pair::up(Limits::default(), connect);
        let mut disconnect = Disconnect::new(Reason::SUCCESS);
        disconnect.properties.session_expiry = Some(then);
        let actions = pair.packet(Packet::Disconnect(disconnect), T0);
        (actions.last().cloned(), pair.hub.next_deadline())
    };
    let closed = Some(Action::Close(CloseReason::Disconnect));
    assert_eq!(ends(Some(60), 90), (closed.clone(), Some(T0 + Duration::from_secs(90))));
    assert_eq!(ends(Some(60), 0), (closed.clone(), None));
    assert_eq!(ends(None, 0), (closed, None));
    assert_eq!(ends(None, 1), (Some(Action::Close(CloseReason::SessionExpiry)), None));
}

#[test]
fn subscriptions_are_answered_by_filter() {
    for (version, denied) in [(Version::V4, Reason(0x80)), (Version::V5, Reason::NOT_AUTHORIZED)] {
        let mut pair = Pair::up(Limits::default(), connect(version, 60));
        let filters = vec![subscription("vitals/v1/a/#"), subscription("vitals/v1/b/#")];
        let subscribe = Subscribe { packet_id: id(5), filters, properties: Properties::default() };
        let reasons = vec![Reason(1), denied];
        let suback = Action::Send(Packet::SubAck(SubAck { packet_id: id(5), reasons }));
        assert_eq!(pair.packet(Packet::Subscribe(subscribe), T0), [suback]);
        let filters = vec!["vitals/v1/a/#".to_owned(), "x".to_owned()];
        let unsubscribe = Unsubscribe { packet_id: id(6), filters, properties: Properties::default() };
        let reasons = vec![Reason::SUCCESS, Reason::NO_SUBSCRIPTION_EXISTED];
        let unsuback = Action::Send(Packet::UnsubAck(SubAck { packet_id: id(6), reasons }));
        assert_eq!(pair.packet(Packet::Unsubscribe(unsubscribe), T0), [unsuback]);
    }
}

proptest! {
    /// Whatever comes in whatever order: acknowledgements are those that are due, in the order of receipt, each once, the window keeps
    /// its bound, and after Close nothing follows.
    #[test]
    fn any_order_of_events_keeps_the_promises(
        five in any::<bool>(),
        events in prop::collection::vec((0..9u8, 0..2000u64), 1..200),
    ) {
        let version = if five { Version::V5 } else { Version::V4 };
        let limits = Limits { inflight_max: 4, ..Limits::default() };
        let mut pair = Pair::up(limits, connect(version, 2));
        let (mut now, mut next_id, mut outstanding) = (T0, 1u16, VecDeque::new());
        let mut closed = false;
        for (event, pause_ms) in events {
            now += Duration::from_millis(pause_ms);
            let wants = pair.conversation.wants_packet(now, false);
            prop_assert!(!wants || outstanding.len() < 5);
            let mut due = None;
            let access = pair.access.clone();
            let out = match event {
                0..=3 if wants => {
                    let packet = if event == 3 { exactly(next_id) } else { publish(next_id) };
                    let out = pair.collect(|c, hub, out| c.handle_packet(packet, now, &access, hub, out));
                    if out.iter().any(|action| matches!(action, Action::Forward(..))) {
                        outstanding.push_back(next_id);
                    }
                    next_id += 1;
                    out
                }
                4 if wants => pair.collect(|c, hub, out| c.handle_packet(Packet::PingReq, now, &access, hub, out)),
                5 | 6 => {
                    due = outstanding.pop_front();
                    pair.verdict(Some(Verdict::Stored))
                }
                7 if pause_ms < 100 => {
                    let refused = outstanding.pop_front();
                    due = refused.filter(|_| five);
                    pair.verdict(Some(Verdict::Refused))
                }
                _ => pair.tick(now),
            };
            for action in out {
                prop_assert!(!closed, "{action:?} after Close");
                match action {
                    Action::Send(Packet::PubAck(ack) | Packet::PubRec(ack)) => {
                        prop_assert_eq!(Some(ack.packet_id.get()), due.take());
                    }
                    Action::Close(_) => closed = true,
                    Action::Send(_) | Action::Admit(_) | Action::Forward(..) => {}
                }
            }
            prop_assert_eq!(closed, pair.conversation.closed().is_some());
            if closed {
                break;
            }
            prop_assert_eq!(due, None, "a verdict is told");
        }
    }
}
