//! Sessions, delivery, retained messages, wills and QoS 2, with the time given by hand.

mod binding;
mod bounds;
mod kept;

use std::sync::Arc;

use bytes::Bytes;
use caregate_protocol::id::{DeviceId, PatientId};
use proptest::prelude::*;

use super::*;
use crate::ingest::Verdict;
use crate::mqtt::access::{Access, Reader};
use crate::mqtt::limits::{
    OUTBOX_MESSAGES_MAX, OUTBOXES_BYTES_MAX, RETAINED_PER_DEVICE, SENT_BYTES_MAX, SENT_MAX,
};
use crate::mqtt::wire::{Filter, PacketId, Properties, Publish, QoS, RetainHandling, Version};

const T0: Duration = Duration::from_secs(100);
const HOUR: Duration = Duration::from_secs(3600);

fn key(device: &str, client_id: &str) -> SessionKey {
    SessionKey { device: DeviceId::new(device).unwrap(), client_id: client_id.to_owned() }
}

fn capacity() -> Capacity {
    Capacity { version: Version::V5, receive_max: 100, topic_alias_max: 0, packet_size_max: None }
}

fn access() -> Access {
    let display = |name: &str| Reader {
        device: DeviceId::new(name).unwrap(),
        filters: vec!["vitals/v1/#".to_owned(), "gateway/v1/#".to_owned()],
    };
    Access::new([display("d"), display("e")]).unwrap()
}

fn filter(path: &str, qos: QoS) -> Filter {
    Filter {
        path: path.to_owned(),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    }
}

fn will(delay: Option<u32>) -> Will {
    let mut properties = Properties::default();
    properties.will_delay = delay;
    let (topic, payload) = ("vitals/v1/a/status".to_owned(), Bytes::from_static(b"gone"));
    Will { topic, payload, qos: QoS::AtLeastOnce, retain: false, properties }
}

fn message(topic: &str, qos: QoS) -> Message {
    Message {
        topic: topic.to_owned(),
        payload: Bytes::from_static(b"72"),
        qos,
        retain: false,
        properties: Properties::default(),
        expires: None,
        publisher: Some(key("a", "sensor")),
    }
}

/// A hub, and the numbers of its connections.
struct Home {
    hub: Hub,
    numbers: ConnectionNumber,
}

impl Home {
    fn new() -> Self {
        Self { hub: Hub::new(64), numbers: 0 }
    }

    fn join(&mut self, key: &SessionKey, clean_start: bool, expiry: Duration, now: Duration) -> (u64, bool) {
        self.join_with(key, clean_start, expiry, None, capacity(), now)
    }

    fn join_with(
        &mut self,
        key: &SessionKey,
        clean_start: bool,
        expiry: Duration,
        will: Option<Will>,
        capacity: Capacity,
        now: Duration,
    ) -> (u64, bool) {
        self.numbers += 1;
        let join = Join { key: key.clone(), clean_start, expiry, will, capacity };
        let present = self.hub.join(join, self.numbers, now).unwrap();
        (self.numbers, present)
    }

    fn subscribe(&mut self, key: &SessionKey, filter: Filter) -> Reason {
        self.hub.subscribe(key, &[filter], None, &access(), T0)[0]
    }

    fn publish(&mut self, message: Message) {
        self.hub.publish(&Arc::new(message), T0);
    }

    fn next(&mut self, key: &SessionKey, number: u64) -> Option<Publish> {
        self.next_at(key, number, T0)
    }

    fn next_at(&mut self, key: &SessionKey, number: u64, now: Duration) -> Option<Publish> {
        let packet = self.hub.next_packet(key, number, now)?;
        let Packet::Publish(publish) = packet else { panic!("expected a PUBLISH, got {packet:?}") };
        Some(publish)
    }

    fn wills(&mut self) -> Vec<SessionKey> {
        let effects = self.hub.take_effects().into_iter();
        effects
            .filter_map(|effect| if let Effect::Will(key, _) = effect { Some(key) } else { None })
            .collect()
    }
}

#[test]
fn a_session_outlives_its_connection_as_long_as_it_asked() {
    let (mut home, display) = (Home::new(), key("d", "x"));
    let (number, present) = home.join(&display, false, HOUR, T0);
    assert!(!present);
    assert_eq!(home.subscribe(&display, filter("vitals/v1/#", QoS::ExactlyOnce)), Reason(2));
    home.hub.leave(&display, number, false, None, T0);
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        home.publish(message("vitals/v1/a/num/x", qos));
    }
    let (number, present) = home.join(&display, false, HOUR, T0 + HOUR - Duration::from_millis(1));
    assert!(present);
    let kept: Vec<QoS> = std::iter::from_fn(|| home.next(&display, number)).map(|p| p.qos).collect();
    assert_eq!(kept, [QoS::AtLeastOnce, QoS::ExactlyOnce], "QoS 0 is not kept");
    home.hub.leave(&display, number, false, None, T0);
    assert!(!home.join(&display, false, HOUR, T0 + HOUR).1, "its time is over");
    let (number, _) = home.join(&display, true, HOUR, T0 + HOUR);
    assert_eq!(home.next(&display, number), None, "nothing is left of it");
    home.hub.leave(&display, number, false, Some(Duration::ZERO), T0 + HOUR);
    assert!(!home.hub.has_session(&display), "DISCONNECT changed its mind");
    let (number, _) = home.join(&display, true, Duration::from_secs(u64::MAX / 2), T0);
    home.hub.leave(&display, number, false, None, T0);
    assert_eq!(home.hub.next_deadline(), Some(T0 + SESSION_EXPIRY_MAX), "for ever is a night");
    home.hub.tick(T0 + SESSION_EXPIRY_MAX);
    assert_eq!(home.hub.sizes().0, 0);
}

#[test]
fn what_was_not_acknowledged_comes_again_in_its_order() {
    let (mut home, display) = (Home::new(), key("d", "x"));
    let (number, _) = home.join(&display, false, HOUR, T0);
    home.subscribe(&display, filter("vitals/v1/#", QoS::ExactlyOnce));
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::ExactlyOnce, QoS::AtLeastOnce] {
        home.publish(message("vitals/v1/a/num/x", qos));
    }
    let ids: Vec<_> =
        std::iter::from_fn(|| home.next(&display, number)).map(|p| p.packet_id.unwrap()).collect();
    assert_eq!(ids.iter().map(|id| id.get()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    home.hub.done(&display, ids[0]);
    let release = home.hub.received(&display, ids[1], Reason::SUCCESS).unwrap();
    assert_eq!((release.packet_id, release.reason), (ids[1], Reason::SUCCESS));
    home.hub.leave(&display, number, false, None, T0);

    let (number, _) = home.join(&display, false, HOUR, T0);
    assert!(
        matches!(home.hub.next_packet(&display, number, T0), Some(Packet::PubRel(ack)) if ack.packet_id == ids[1])
    );
    for id in &ids[2..] {
        let again = home.next(&display, number).unwrap();
        assert!(again.dup && again.packet_id == Some(*id));
    }
    assert_eq!(home.hub.next_packet(&display, number, T0), None);
    home.hub.done(&display, ids[1]);
    assert_eq!(home.hub.received(&display, ids[2], Reason::UNSPECIFIED_ERROR), None, "the client refuses it");
    home.hub.done(&display, ids[3]);
    let unknown = home.hub.received(&display, ids[0], Reason::SUCCESS).unwrap();
    assert_eq!(unknown.reason, Reason::PACKET_IDENTIFIER_NOT_FOUND);
    home.hub.leave(&display, number, false, None, T0);
    let (number, _) = home.join(&display, false, HOUR, T0);
    assert_eq!(home.hub.next_packet(&display, number, T0), None, "all is done");
}

#[test]
fn receive_maximum_holds_back_and_each_acknowledgement_lets_one_go() {
    let (mut home, display) = (Home::new(), key("d", "x"));
    let capacity = Capacity { receive_max: 2, ..capacity() };
    let (number, _) = home.join_with(&display, true, HOUR, None, capacity, T0);
    home.subscribe(&display, filter("vitals/v1/#", QoS::AtLeastOnce));
    for _ in 0..4 {
        home.publish(message("vitals/v1/a/num/x", QoS::AtLeastOnce));
    }
    let first = home.next(&display, number).unwrap().packet_id.unwrap();
    assert!(home.next(&display, number).is_some());
    assert_eq!(home.next(&display, number), None);
    home.hub.done(&display, first);
    assert!(home.next(&display, number).is_some());
    assert_eq!(home.next(&display, number), None);
    // A session that had more on its way than the next connection takes.
    home.hub.leave(&display, number, false, None, T0);
    let (number, _) =
        home.join_with(&display, false, HOUR, None, Capacity { receive_max: 1, ..capacity }, T0);
    assert!(home.next(&display, number).unwrap().dup);
    assert_eq!(home.next(&display, number), None);
}

#[test]
fn one_copy_for_overlapping_subscriptions_at_the_highest_qos() {
    let (mut home, display, access) = (Home::new(), key("d", "x"), access());
    let (number, _) = home.join(&display, true, HOUR, T0);
    for (path, qos, id) in [
        ("vitals/v1/#", QoS::AtMostOnce, 1),
        ("vitals/v1/+/num/x", QoS::AtLeastOnce, 2),
        ("vitals/v1/b/#", QoS::ExactlyOnce, 3),
    ] {
        home.hub.subscribe(&display, &[filter(path, qos)], Some(id), &access, T0);
    }
    home.publish(message("vitals/v1/a/num/x", QoS::ExactlyOnce));
    let publish = home.next(&display, number).unwrap();
    assert_eq!((publish.qos, &publish.properties.subscription_ids[..]), (QoS::AtLeastOnce, &[1, 2][..]));
    assert_eq!(home.next(&display, number), None);
    assert_eq!(
        home.hub.unsubscribe(&display, &["vitals/v1/#".to_owned(), "x".to_owned()]),
        [Reason::SUCCESS, Reason::NO_SUBSCRIPTION_EXISTED]
    );
    home.publish(message("vitals/v1/a/num/y", QoS::ExactlyOnce));
    assert_eq!(home.next(&display, number), None, "unsubscribed");
}

#[test]
fn no_local_retain_as_published_and_what_may_be_read() {
    let (mut home, display) = (Home::new(), key("d", "x"));
    let (number, _) = home.join(&display, true, HOUR, T0);
    let path = "local/v1/d/x";
    home.subscribe(&display, Filter { no_local: true, ..filter(path, QoS::AtMostOnce) });
    home.publish(Message { publisher: Some(display.clone()), ..message(path, QoS::AtMostOnce) });
    assert_eq!(home.next(&display, number), None, "its own");
    home.publish(Message { publisher: Some(key("d", "other")), ..message(path, QoS::AtMostOnce) });
    assert!(home.next(&display, number).is_some());

    home.subscribe(
        &display,
        Filter { retain_as_published: true, ..filter("vitals/v1/a/+", QoS::AtMostOnce) },
    );
    home.subscribe(&display, filter("vitals/v1/b/+", QoS::AtMostOnce));
    for (topic, flag) in [("vitals/v1/a/x", true), ("vitals/v1/b/x", false)] {
        home.publish(Message { retain: true, ..message(topic, QoS::AtMostOnce) });
        assert_eq!(home.next(&display, number).unwrap().retain, flag, "{topic}");
    }
    for foreign in ["local/v1/a/#", "#", "$share/g/local/v1/a/#", "+/v1/a/num/x"] {
        assert_eq!(
            home.subscribe(&display, filter(foreign, QoS::AtMostOnce)),
            Reason::NOT_AUTHORIZED,
            "{foreign}"
        );
    }
}

#[test]
fn retained_messages_come_by_retain_handling_and_an_empty_one_forgets() {
    let (mut home, display) = (Home::new(), key("d", "x"));
    let (number, _) = home.join(&display, true, HOUR, T0);
    let retained = |topic: &str| Message { retain: true, ..message(topic, QoS::AtLeastOnce) };
    home.publish(retained("vitals/v1/a/status"));
    home.publish(Message { payload: Bytes::from_static(b"73"), ..retained("vitals/v1/a/status") });
    home.publish(Message { expires: Some(T0), ..retained("vitals/v1/a/meta") });
    let all = |handling| Filter { retain_handling: handling, ..filter("vitals/v1/#", QoS::AtLeastOnce) };
    home.subscribe(&display, all(RetainHandling::SendIfNew));
    let publish = home.next(&display, number).unwrap();
    assert!(publish.retain && &publish.payload[..] == b"73", "the last one");
    assert_eq!(home.next(&display, number), None, "the other has expired");
    home.subscribe(&display, all(RetainHandling::SendIfNew));
    assert_eq!(home.next(&display, number), None, "not new");
    home.subscribe(&display, all(RetainHandling::DontSend));
    assert_eq!(home.next(&display, number), None);
    home.subscribe(&display, all(RetainHandling::Send));
    assert!(home.next(&display, number).is_some());
    home.subscribe(&display, filter("$share/g/vitals/v1/#", QoS::AtLeastOnce));
    assert_eq!(home.next(&display, number), None, "none for shared ones");
    home.publish(Message { payload: Bytes::new(), ..retained("vitals/v1/a/status") });
    assert_eq!(home.hub.sizes().1, 0);
}

#[test]
fn a_devices_oldest_retained_message_makes_room_for_its_own() {
    let mut home = Home::new();
    home.publish(Message {
        retain: true,
        publisher: Some(key("b", "x")),
        ..message("vitals/v1/b/status", QoS::AtLeastOnce)
    });
    for number in 0..=RETAINED_PER_DEVICE {
        home.publish(Message {
            retain: true,
            ..message(&format!("vitals/v1/a/num/{number}"), QoS::AtLeastOnce)
        });
    }
    assert_eq!(home.hub.sizes().1, RETAINED_PER_DEVICE + 1);
    assert_eq!(home.hub.take_counts().retained, 1);
    let display = key("d", "x");
    let (number, _) = home.join(&display, true, HOUR, T0);
    home.subscribe(&display, filter("vitals/v1/a/num/0", QoS::AtLeastOnce));
    assert_eq!(home.next(&display, number), None, "the oldest");
    home.subscribe(&display, filter("vitals/v1/b/status", QoS::AtLeastOnce));
    assert!(home.next(&display, number).is_some(), "another device's stays");
    let large = Message {
        payload: vec![0; 100_000].into(),
        retain: true,
        ..message("vitals/v1/a/large", QoS::AtLeastOnce)
    };
    home.publish(large);
    assert_eq!((home.hub.sizes().1, home.hub.take_counts().retained), (RETAINED_PER_DEVICE + 1, 1));
}

#[test]
fn shared_subscriptions_take_turns_among_those_who_are_there() {
    let (mut home, one, two) = (Home::new(), key("d", "1"), key("e", "2"));
    let (first, _) = home.join(&one, true, HOUR, T0);
    let (second, _) = home.join(&two, true, HOUR, T0);
    for member in [&one, &two] {
        home.subscribe(member, filter("$share/g/vitals/v1/#", QoS::AtLeastOnce));
    }
    home.subscribe(&two, filter("$share/other/vitals/v1/#", QoS::AtLeastOnce));
    let drain =
        |home: &mut Home, key: &SessionKey, number| std::iter::from_fn(|| home.next(key, number)).count();
    for _ in 0..10 {
        home.publish(message("vitals/v1/a/num/x", QoS::AtLeastOnce));
    }
    assert_eq!(
        (drain(&mut home, &one, first), drain(&mut home, &two, second)),
        (5, 15),
        "and ten of the other group"
    );
    home.hub.leave(&one, first, false, None, T0);
    home.hub.unsubscribe(&two, &["$share/other/vitals/v1/#".to_owned()]);
    for _ in 0..10 {
        home.publish(message("vitals/v1/a/num/x", QoS::AtLeastOnce));
    }
    assert_eq!(drain(&mut home, &two, second), 10, "only who is connected");
    home.hub.leave(&two, second, false, None, T0);
    home.publish(message("vitals/v1/a/num/x", QoS::AtLeastOnce));
    let (first, _) = home.join(&one, false, HOUR, T0);
    let (second, _) = home.join(&two, false, HOUR, T0);
    let kept = std::iter::from_fn(|| home.next(&one, first)).filter(|p| !p.dup).count()
        + std::iter::from_fn(|| home.next(&two, second)).filter(|p| !p.dup).count();
    assert_eq!(kept, 1, "kept for one of them");
}

#[test]
fn wills_wait_for_their_delay_or_the_sessions_end_and_not_for_one_who_came_back() {
    let (mut home, sensor) = (Home::new(), key("a", "x"));
    let at = |seconds| T0 + Duration::from_secs(seconds);
    let lose = |home: &mut Home, delay, expiry| {
        let (number, _) =
            home.join_with(&sensor, true, Duration::from_secs(expiry), Some(will(delay)), capacity(), T0);
        home.wills();
        home.hub.leave(&sensor, number, true, None, T0);
        number
    };
    lose(&mut home, None, 60);
    assert_eq!(home.wills(), std::slice::from_ref(&sensor), "at once");
    lose(&mut home, Some(10), 0);
    assert_eq!(home.wills(), std::slice::from_ref(&sensor), "the session has ended");
    lose(&mut home, Some(10), 60);
    assert_eq!((home.wills(), home.hub.next_deadline()), (vec![], Some(at(10))));
    home.hub.tick(at(9));
    assert_eq!(home.wills(), []);
    home.hub.tick(at(10));
    assert_eq!(home.wills(), std::slice::from_ref(&sensor));
    home.hub.tick(at(60));
    assert_eq!(home.wills(), [], "once");
    lose(&mut home, Some(100), 60);
    home.hub.tick(at(60));
    assert_eq!(home.wills(), std::slice::from_ref(&sensor), "with the session's end");
    lose(&mut home, Some(10), 60);
    home.join(&sensor, false, HOUR, at(5));
    home.hub.tick(at(100));
    assert_eq!(home.wills(), [], "it came back");
    home.hub.leave(&sensor, home.numbers, true, None, at(5));
    lose(&mut home, Some(10), 60);
    home.join(&sensor, true, HOUR, at(5));
    assert_eq!(home.wills(), std::slice::from_ref(&sensor), "a clean start ends the session");
    let (number, _) = home.join_with(&sensor, true, HOUR, Some(will(None)), capacity(), T0);
    home.wills();
    home.hub.leave(&sensor, number, false, None, T0);
    assert_eq!(home.wills(), [], "DISCONNECT");
}

#[test]
fn expired_and_oversized_messages_are_not_sent_and_the_rest_of_their_time_is_told() {
    let (mut home, display) = (Home::new(), key("d", "x"));
    let capacity = Capacity { packet_size_max: Some(40), topic_alias_max: 1, ..capacity() };
    let (number, _) = home.join_with(&display, true, HOUR, None, capacity, T0);
    home.subscribe(&display, filter("vitals/v1/#", QoS::AtLeastOnce));
    let at = |seconds| Some(T0 + Duration::from_secs(seconds));
    home.publish(Message { expires: at(3), ..message("vitals/v1/a/x", QoS::AtLeastOnce) });
    home.publish(Message { expires: at(9), ..message("vitals/v1/a/x", QoS::AtLeastOnce) });
    home.publish(Message { payload: vec![0; 40].into(), ..message("vitals/v1/a/x", QoS::AtLeastOnce) });
    home.publish(message("vitals/v1/a/x", QoS::AtLeastOnce));
    home.publish(message("vitals/v1/a/y", QoS::AtLeastOnce));
    let now = T0 + Duration::from_secs(4);
    let publish = home.next_at(&display, number, now).unwrap();
    assert_eq!((publish.properties.message_expiry, publish.properties.topic_alias), (Some(5), Some(1)));
    assert_eq!(publish.topic, "vitals/v1/a/x");
    let publish = home.next_at(&display, number, now).unwrap();
    assert_eq!((&publish.topic[..], publish.properties.topic_alias), ("", Some(1)), "by its alias");
    let publish = home.next_at(&display, number, now).unwrap();
    assert_eq!(
        (&publish.topic[..], publish.properties.topic_alias),
        ("vitals/v1/a/y", None),
        "no more aliases"
    );
    let counts = home.hub.take_counts();
    assert_eq!((counts.expired, counts.too_large), (1, 1));
}

#[test]
fn exactly_once_survives_the_connection() {
    let (mut home, sensor) = (Home::new(), key("a", "x"));
    let id = |value| PacketId::new(value).unwrap();
    let (first, _) = home.join(&sensor, false, HOUR, T0);
    assert_eq!(home.hub.begin_exact(&sensor, id(1), first), Exact::New);
    assert_eq!(home.hub.begin_exact(&sensor, id(1), first), Exact::OnItsWay);
    let stored = Some(Verdict::Stored);
    home.hub.settle_exact(&sensor, id(1), first, stored, true);
    assert_eq!(home.hub.begin_exact(&sensor, id(1), first), Exact::Again);
    assert_eq!(home.hub.begin_exact(&sensor, id(2), first), Exact::New);
    home.hub.leave(&sensor, first, false, None, T0);
    let (second, present) = home.join(&sensor, false, HOUR, T0);
    assert!(present);
    assert_eq!(home.hub.begin_exact(&sensor, id(1), second), Exact::Again);
    assert_eq!(home.hub.begin_exact(&sensor, id(2), second), Exact::Elsewhere, "its verdict has not come");
    assert_eq!(home.hub.begin_exact(&sensor, id(2), second), Exact::OnItsWay);
    assert_eq!(home.hub.verdict_elsewhere(&sensor, id(2), second), None);
    // Its client comes a third time, and the verdict meanwhile.
    let (third, _) = home.join(&sensor, false, HOUR, T0);
    home.hub.take_effects();
    assert_eq!(home.hub.begin_exact(&sensor, id(2), third), Exact::Elsewhere);
    home.hub.settle_exact(&sensor, id(2), first, stored, true);
    assert_eq!(home.hub.take_effects(), [Effect::Wake(third)]);
    assert_eq!(
        home.hub.verdict_elsewhere(&sensor, id(2), second),
        Some(None),
        "no longer the session's connection"
    );
    let (second, _) = home.join(&sensor, false, HOUR, T0);
    assert_eq!(home.hub.begin_exact(&sensor, id(2), second), Exact::Elsewhere, "nobody has been told yet");
    assert_eq!(home.hub.verdict_elsewhere(&sensor, id(2), second), Some(stored));
    assert_eq!(home.hub.unreleased(&sensor), 1);
    home.hub.settle_exact(&sensor, id(2), second, stored, true);
    assert_eq!(home.hub.unreleased(&sensor), 2);
    assert_eq!(home.hub.release_exact(&sensor, id(1)), Reason::SUCCESS);
    assert_eq!(home.hub.release_exact(&sensor, id(1)), Reason::PACKET_IDENTIFIER_NOT_FOUND);
    assert_eq!(home.hub.begin_exact(&sensor, id(1), second), Exact::New, "the identifier is free");
    home.hub.settle_exact(&sensor, id(1), second, Some(Verdict::Refused), false);
    assert_eq!(home.hub.begin_exact(&sensor, id(1), second), Exact::New, "refused: it may come again");
}

proptest! {
    /// Whatever comes and goes in whatever order: bounds hold, a client is sent no more than it takes, identifiers on their way differ, and
    /// at QoS 1 and above a client that acknowledges gets everything that its queue had room for, in order.
    #[test]
    fn any_order_of_events_keeps_the_promises(events in prop::collection::vec((0..7u8, 0..3u8), 1..300)) {
        let (mut home, display) = (Home::new(), key("d", "x"));
        let capacity = Capacity { receive_max: 3, ..capacity() };
        let mut up = None;
        let mut on_their_way: Vec<(PacketId, bool)> = Vec::new();
        let (mut published, mut seen) = (0u32, Vec::new());
        home.join_with(&display, true, HOUR, None, capacity, T0);
        home.subscribe(&display, filter("vitals/v1/#", QoS::ExactlyOnce));
        home.hub.leave(&display, home.numbers, false, None, T0);
        for (event, choice) in events {
            match (event, up) {
                (0, None) => {
                    let (number, present) = home.join_with(&display, false, HOUR, None, capacity, T0);
                    prop_assert!(present);
                    up = Some(number);
                    on_their_way.clear();
                }
                (0, Some(number)) if choice == 0 => {
                    home.hub.leave(&display, number, false, None, T0);
                    up = None;
                }
                (1 | 2, _) => {
                    let qos = if choice == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
                    let payload = Bytes::from(published.to_be_bytes().to_vec());
                    home.publish(Message { payload, ..message("vitals/v1/a/num/x", qos) });
                    published += 1;
                }
                (3 | 4, Some(number)) => match home.hub.next_packet(&display, number, T0) {
                    Some(Packet::Publish(publish)) => {
                        let id = publish.packet_id.unwrap();
                        prop_assert!(on_their_way.iter().all(|(other, _)| *other != id));
                        on_their_way.push((id, publish.qos == QoS::ExactlyOnce));
                        prop_assert!(on_their_way.len() <= 3);
                        let value = u32::from_be_bytes(publish.payload[..].try_into().unwrap());
                        if !publish.dup {
                            seen.push(value);
                        }
                    }
                    Some(Packet::PubRel(ack)) => on_their_way.push((ack.packet_id, false)),
                    Some(other) => prop_assert!(false, "{:?}", other),
                    None => {}
                },
                (5 | 6, Some(_)) if !on_their_way.is_empty() => {
                    let at = usize::from(choice) % on_their_way.len();
                    let (id, exact) = on_their_way.remove(at);
                    if exact {
                        let release = home.hub.received(&display, id, Reason::SUCCESS).unwrap();
                        prop_assert_eq!(release.reason, Reason::SUCCESS);
                        on_their_way.push((id, false));
                    } else {
                        home.hub.done(&display, id);
                    }
                }
                _ => {}
            }
            home.hub.take_effects();
        }
        let expected: Vec<u32> = (0..u32::try_from(seen.len()).unwrap()).collect();
        prop_assert_eq!(seen, expected);
    }
}

const UNIX_S: u64 = 1_790_000_000;
