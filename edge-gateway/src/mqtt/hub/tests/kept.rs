//! What of sessions and messages comes back after a restart.

use super::*;
use crate::mqtt::limits::UNRELEASED_MAX;

/// A hub after a restart `passed` seconds later, whose own clock begins anew.
fn restarted(home: &Home, whole: bool, passed: u64) -> Home {
    let bytes = home.hub.snapshot(T0).encode(UNIX_S, whole);
    let mut again = Home::new();
    again.hub.restore(&bytes, T0, UNIX_S + passed, &access()).unwrap();
    again
}

/// A session with all that it may have: subscriptions, messages that wait, such that were sent, and a QoS 2 PUBLISH of its own.
fn busy() -> (Home, SessionKey) {
    let (mut home, display) = (Home::new(), key("d", "x"));
    let (number, _) = home.join(&display, false, HOUR, T0);
    let ids = [filter("vitals/v1/a/#", QoS::ExactlyOnce), filter("$share/g/gateway/v1/#", QoS::AtLeastOnce)];
    assert_eq!(home.hub.subscribe(&display, &ids, Some(9), &access(), T0), [Reason(2), Reason(1)]);
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::ExactlyOnce] {
        home.publish(message("vitals/v1/a/num/x", qos));
    }
    let sent: Vec<_> = (0..3).map(|_| home.next(&display, number).unwrap().packet_id.unwrap()).collect();
    assert!(home.hub.received(&display, sent[2], Reason::SUCCESS).is_some());
    assert_eq!(home.hub.begin_exact(&display, PacketId::new(7).unwrap(), number), Exact::New);
    home.hub.settle_exact(&display, PacketId::new(7).unwrap(), number, Some(Verdict::Stored), true);
    home.hub.leave(&display, number, false, None, T0);
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        home.publish(message("vitals/v1/a/num/y", qos));
    }
    (home, display)
}

#[test]
fn a_restart_in_good_order_forgets_nothing() {
    let (home, display) = busy();
    let mut home = restarted(&home, true, 60);
    let (number, present) = home.join(&display, false, HOUR, T0);
    assert!(present);
    let mut got = Vec::new();
    while let Some(packet) = home.hub.next_packet(&display, number, T0) {
        got.push(if let Packet::Publish(p) = packet {
            (p.topic, p.qos, p.dup, p.properties.subscription_ids.clone())
        } else if let Packet::PubRel(ack) = packet {
            (format!("release {}", ack.packet_id), QoS::AtMostOnce, false, Vec::new())
        } else {
            panic!("{packet:?}")
        });
    }
    let publish = |leaf: &str, qos, dup| (format!("vitals/v1/a/num/{leaf}"), qos, dup, vec![9]);
    assert_eq!(
        got,
        [
            publish("x", QoS::AtLeastOnce, true),
            publish("x", QoS::ExactlyOnce, true),
            ("release 3".to_owned(), QoS::AtMostOnce, false, Vec::new()),
            publish("y", QoS::AtLeastOnce, false),
            publish("y", QoS::ExactlyOnce, false),
        ]
    );
    assert_eq!(home.hub.begin_exact(&display, PacketId::new(7).unwrap(), number), Exact::Again);
    home.publish(message("gateway/v1/alarms/1", QoS::AtLeastOnce));
    assert_eq!(home.next(&display, number).unwrap().topic, "gateway/v1/alarms/1", "the shared subscription");
    let fresh =
        home.hub.unsubscribe(&display, &["vitals/v1/a/#".to_owned(), "$share/g/gateway/v1/#".to_owned()]);
    assert_eq!(fresh, [Reason::SUCCESS; 2]);
}

#[test]
fn after_a_kill_nothing_is_taken_for_what_it_may_not_be() {
    let (home, display) = busy();
    let mut home = restarted(&home, false, 60);
    let (number, present) = home.join(&display, false, HOUR, T0);
    assert!(present);
    let got: Vec<_> = std::iter::from_fn(|| home.next(&display, number)).map(|p| (p.qos, p.dup)).collect();
    // Once more at QoS 1 is allowed, once more at QoS 2 is not.
    assert_eq!(got, [(QoS::AtLeastOnce, true), (QoS::AtLeastOnce, false)]);
    assert_eq!(home.hub.begin_exact(&display, PacketId::new(7).unwrap(), number), Exact::New);
}

#[test]
fn what_has_lapsed_or_is_no_longer_allowed_does_not_come_back() {
    let (home, display) = busy();
    assert!(restarted(&home, true, 3599).hub.has_session(&display));
    assert!(!restarted(&home, true, 3600).hub.has_session(&display));
    // A clock that was set back lets no time pass.
    let bytes = home.hub.snapshot(T0).encode(UNIX_S, true);
    let mut early = Hub::new(64);
    assert_eq!(early.restore(&bytes, T0, 0, &access()).unwrap(), 1);
    // The operator has taken the display's permission back.
    let mut stricter = Home::new();
    let none = Access::new([]).unwrap();
    stricter.hub.restore(&bytes, T0, UNIX_S, &none).unwrap();
    stricter.publish(message("vitals/v1/a/num/z", QoS::AtLeastOnce));
    let (number, _) = stricter.join(&display, false, HOUR, T0);
    let topics: Vec<_> = std::iter::from_fn(|| stricter.hub.next_packet(&display, number, T0)).collect();
    assert!(
        matches!(topics[..], [Packet::PubRel(_)]),
        "neither what waited nor what had been sent: {topics:?}"
    );
    // A session that was not to outlive its connection is not kept.
    let mut home = Home::new();
    home.join(&key("a", "sensor"), true, Duration::ZERO, T0);
    assert_eq!(Hub::new(9).restore(&home.hub.snapshot(T0).encode(0, true), T0, 0, &access()).unwrap(), 0);
}

#[test]
fn retained_messages_come_back_with_what_is_left_of_their_time() {
    let mut home = Home::new();
    let retained = |topic: &str, seconds: Option<u64>| Message {
        retain: true,
        expires: seconds.map(|s| T0 + Duration::from_secs(s)),
        ..message(topic, QoS::AtLeastOnce)
    };
    home.publish(retained("vitals/v1/a/num/x", None));
    home.publish(retained("vitals/v1/a/num/y", Some(100)));
    home.publish(Message { publisher: None, ..retained("gateway/v1/state", Some(30)) });
    let mut home = restarted(&home, false, 60);
    let display = key("d", "x");
    let (number, _) = home.join(&display, true, HOUR, T0);
    for path in ["vitals/v1/a/#", "gateway/v1/#"] {
        home.subscribe(&display, filter(path, QoS::AtLeastOnce));
    }
    let got: Vec<_> = std::iter::from_fn(|| home.next(&display, number)).collect();
    let got: Vec<_> = got.iter().map(|p| (p.topic.as_str(), p.retain, p.properties.message_expiry)).collect();
    assert_eq!(got, [("vitals/v1/a/num/x", true, None), ("vitals/v1/a/num/y", true, Some(40))]);
}

#[test]
fn a_session_that_is_not_kept_does_not_come_in_by_the_file() {
    for (expiry, sessions) in [(5, 1), (0, 0)] {
        let mut e = minicbor::Encoder::new(Vec::new());
        e.array(5).unwrap().u8(1).unwrap().bool(true).unwrap().u64(UNIX_S).unwrap().array(1).unwrap();
        e.array(9).unwrap().str("d").unwrap().str("x").unwrap().u64(9).unwrap().u64(expiry).unwrap();
        for _ in 0..4 {
            e.array(0).unwrap();
        }
        e.u16(0).unwrap().array(0).unwrap();
        assert_eq!(Hub::new(9).restore(&e.into_writer(), T0, UNIX_S, &access()).unwrap(), sessions);
    }
}

/// A client that repeats its PUBLISHes over another connection, and goes before it is told or before the verdicts come; and begins anew each
/// time. What is refused is what the conversation refuses.
#[test]
fn exchanges_that_nobody_ends_are_bounded_and_still_known_after_a_restart() {
    for goes_first in [true, false] {
        let (mut home, sensor) = (Home::new(), key("a", "x"));
        let mut accepted = Vec::new();
        for round in 0..12_u16 {
            let ids: Vec<_> = (1..=256).map(|n| PacketId::new(256 * round + n).unwrap()).collect();
            let (first, _) = home.join(&sensor, false, HOUR, T0);
            let mut on_their_way = Vec::new();
            for id in ids {
                assert_eq!(home.hub.begin_exact(&sensor, id, first), Exact::New);
                if home.hub.unreleased(&sensor) < UNRELEASED_MAX {
                    on_their_way.push(id);
                } else {
                    home.hub.settle_exact(&sensor, id, first, None, false);
                }
            }
            let (second, _) = home.join(&sensor, false, HOUR, T0);
            for id in &on_their_way {
                assert_eq!(home.hub.begin_exact(&sensor, *id, second), Exact::Elsewhere);
            }
            if goes_first {
                home.hub.leave(&sensor, second, false, None, T0);
            }
            for id in &on_their_way {
                home.hub.settle_exact(&sensor, *id, first, Some(Verdict::Stored), true);
            }
            // While its connection is up that counts them itself.
            let unasked = if goes_first { on_their_way.len() } else { 0 };
            assert_eq!(home.hub.unreleased(&sensor), accepted.len() + unasked);
            home.hub.leave(&sensor, second, false, None, T0);
            accepted.extend(on_their_way);
        }
        assert_eq!((accepted.len(), home.hub.unreleased(&sensor)), (UNRELEASED_MAX, UNRELEASED_MAX));
        let mut again = restarted(&home, true, 0);
        for (home, repeated) in [(&mut home, goes_first), (&mut again, true)] {
            let (third, present) = home.join(&sensor, false, HOUR, T0);
            assert!(present);
            for id in &accepted {
                let exact = home.hub.begin_exact(&sensor, *id, third);
                if repeated {
                    assert_eq!(exact, Exact::Again, "it is stored once");
                } else {
                    assert_eq!(exact, Exact::Elsewhere);
                    let verdict = home.hub.verdict_elsewhere(&sensor, *id, third);
                    assert_eq!(verdict, Some(Some(Verdict::Stored)), "it is stored once");
                }
            }
        }
    }
}

/// What a client gave up before its verdict came may be repeated: it is not stored, and so is new.
#[test]
fn what_was_refused_while_nobody_waited_is_new() {
    let (mut home, sensor, id) = (Home::new(), key("a", "x"), PacketId::new(1).unwrap());
    let (first, _) = home.join(&sensor, false, HOUR, T0);
    assert_eq!(home.hub.begin_exact(&sensor, id, first), Exact::New);
    let (second, _) = home.join(&sensor, false, HOUR, T0);
    assert_eq!(home.hub.begin_exact(&sensor, id, second), Exact::Elsewhere);
    home.hub.leave(&sensor, second, false, None, T0);
    home.hub.settle_exact(&sensor, id, first, Some(Verdict::Refused), false);
    assert_eq!(home.hub.unreleased(&sensor), 0);
    let (third, _) = home.join(&sensor, false, HOUR, T0);
    assert_eq!(home.hub.begin_exact(&sensor, id, third), Exact::New);
}

#[test]
fn no_more_received_identifiers_are_written_than_are_read() {
    let (mut home, sensor) = (Home::new(), key("a", "x"));
    let (number, _) = home.join(&sensor, false, HOUR, T0);
    for id in 1..=3 * u16::try_from(UNRELEASED_MAX).unwrap() {
        let id = PacketId::new(id).unwrap();
        assert_eq!(home.hub.begin_exact(&sensor, id, number), Exact::New);
        home.hub.settle_exact(&sensor, id, number, Some(Verdict::Stored), true);
    }
    assert!(restarted(&home, true, 0).hub.has_session(&sensor));
}

/// However much waits for whom, with all that a message may have around it.
#[test]
fn a_snapshot_that_would_be_too_long_leaves_out_the_longest_queues() {
    let mut home = Home::new();
    let (modest, greedy) = (key("d", "modest"), [key("e", "1"), key("e", "2")]);
    for (display, filters) in [(&modest, 1), (&greedy[0], 64), (&greedy[1], 64)] {
        let (number, _) = home.join(display, false, HOUR, T0);
        let path =
            |n| if n == 0 { "vitals/v1/a/#".to_owned() } else { format!("vitals/v1/+/wave/{n:0>120}/#") };
        for n in 0..filters {
            let reason = home.hub.subscribe(
                display,
                &[filter(&path(n), QoS::AtLeastOnce)],
                Some(u32::MAX >> 4),
                &access(),
                T0,
            );
            assert_eq!(reason, [Reason(1)]);
        }
        home.publish(Message { retain: true, ..message("vitals/v1/a/num/x", QoS::AtLeastOnce) });
        assert!(home.next(display, number).is_some(), "sent and not acknowledged");
        home.hub.leave(display, number, false, None, T0);
    }
    home.hub.unsubscribe(&modest, &["vitals/v1/a/#".to_owned()]);
    for n in 0..40 {
        let publisher = Some(key("a", &"x".repeat(128)));
        home.publish(Message {
            publisher,
            payload: vec![n; usize::from(n) * 200].into(),
            ..message("vitals/v1/a/wave/x", QoS::AtLeastOnce)
        });
    }
    let whole = home.hub.snapshot(T0).encode(UNIX_S, false).len();
    let mut seen = BTreeSet::new();
    for bytes_max in (25_000..2 * whole).step_by(4_000) {
        let mut snapshot = home.hub.snapshot(T0);
        let left_out = snapshot.fit(bytes_max);
        let bytes = snapshot.encode(UNIX_S, false);
        assert!(bytes.len() <= bytes_max, "{} of {bytes_max}", bytes.len());
        let mut again = Home::new();
        assert_eq!(again.hub.restore(&bytes, T0, UNIX_S, &access()).unwrap(), 3, "nobody loses the session");
        assert_eq!(again.hub.sizes().1, 1);
        let mut sent_to = |display| {
            let (number, _) = again.join(display, false, HOUR, T0);
            std::iter::from_fn(|| again.next(display, number)).count()
        };
        let counts = [&modest, &greedy[0], &greedy[1]].map(&mut sent_to);
        assert_eq!(counts.iter().filter(|count| **count == 0).count(), left_out);
        assert!(counts[0] > 0, "whose queue is short keeps it: {counts:?}");
        seen.insert(left_out);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn bytes_that_are_no_snapshot_are_refused_and_change_nothing() {
    let (home, _) = busy();
    let bytes = home.hub.snapshot(T0).encode(UNIX_S, true);
    for end in 0..bytes.len() {
        let mut hub = Hub::new(9);
        assert!(hub.restore(&bytes[..end], T0, UNIX_S, &access()).is_err());
        assert_eq!(hub.sizes(), (0, 0, 0));
    }
    assert!(Hub::new(9).restore(&[&bytes[..], &[0]].concat(), T0, UNIX_S, &access()).is_err());
}

#[test]
fn sessions_are_kept_within_a_second_and_readings_within_a_minute() {
    let second = Duration::from_secs(1);
    let mut rhythm = Rhythm::new(Changes::default(), T0);
    let changes = |sessions, messages| Changes { sessions, messages };
    assert!(!rhythm.is_due(changes(0, 0), T0 + HOUR), "an idle server's flash has rest");
    let mut rhythm = Rhythm::new(Changes::default(), T0);
    assert!(!rhythm.is_due(changes(0, 5), T0 + 59 * second));
    assert!(rhythm.is_due(changes(1, 5), T0 + 59 * second));
    assert!(!rhythm.is_due(changes(1, 9), T0 + 118 * second));
    assert!(rhythm.is_due(changes(1, 9), T0 + 119 * second));
    // Of a client that does nothing but subscribe.
    assert!(
        rhythm.is_due(changes(2, 9), T0 + 120 * second) && !rhythm.is_due(changes(3, 9), T0 + 120 * second)
    );
    // What a full disk refused is tried again, although nothing changes any more.
    assert!(rhythm.is_due(changes(3, 9), T0 + 121 * second));
    rhythm.failed();
    assert!(!rhythm.is_due(changes(3, 9), T0 + 180 * second));
    assert!(rhythm.is_due(changes(3, 9), T0 + 181 * second));
    assert!(!rhythm.is_due(changes(3, 9), T0 + HOUR));
}

#[test]
fn what_is_sent_again_is_no_longer_than_the_new_connection_takes() {
    let (home, display) = busy();
    let mut home = restarted(&home, true, 0);
    let small = Capacity { packet_size_max: Some(20), ..capacity() };
    let (number, _) = home.join_with(&display, false, HOUR, None, small, T0);
    let rest = home.hub.next_packet(&display, number, T0);
    assert!(matches!(rest, Some(Packet::PubRel(_))), "{rest:?}");
    assert_eq!(home.hub.next_packet(&display, number, T0), None);
    assert_eq!(home.hub.take_counts().too_large, 4);
}

proptest! {
    #[test]
    fn no_bytes_make_a_hub_panic(at in 0_usize..400, to in any::<u8>(), other in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (home, _) = busy();
        let mut bytes = home.hub.snapshot(T0).encode(UNIX_S, true);
        let at = at % bytes.len();
        bytes[at] = to;
        drop(Hub::new(9).restore(&bytes, T0, UNIX_S, &access()));
        drop(Hub::new(9).restore(&other, T0, UNIX_S, &access()));
    }
}
