//! Connections, sessions and queues have bounds, and whom they are at the cost of.

use super::*;
use crate::mqtt::limits::{OUTBOX_BYTES_MAX, OUTBOXES_BYTES_PER_DEVICE};

#[test]
fn connections_are_taken_over_within_a_device_and_bounded() {
    let mut home = Home { hub: Hub::new(CONNECTIONS_PER_DEVICE + 1), numbers: 0 };
    let (first, _) = home.join(&key("a", "same"), true, HOUR, T0);
    home.join(&key("b", "same"), true, HOUR, T0);
    home.hub.take_effects();
    home.join(&key("a", "same"), true, HOUR, T0);
    assert!(home.hub.take_effects().contains(&Effect::TakeOver(first)));
    assert_eq!(home.hub.connections(), 2);
    home.hub.leave(&key("a", "same"), first, true, None, T0);
    assert_eq!(home.hub.connections(), 2, "the displaced one has left already");
    for number in 1..CONNECTIONS_PER_DEVICE {
        home.join(&key("a", &number.to_string()), true, HOUR, T0);
    }
    let full = Join { key: key("c", "x"), clean_start: true, expiry: HOUR, will: None, capacity: capacity() };
    assert_eq!(home.hub.join(full, 99, T0), Err(Full));
    home.hub.take_effects();
    home.join(&key("a", "newest"), true, HOUR, T0);
    let effects = home.hub.take_effects();
    assert!(
        effects.iter().any(|effect| matches!(effect, Effect::TakeOver(_))),
        "the oldest of its own: {effects:?}"
    );
}

#[test]
fn kept_sessions_are_bounded_and_the_one_that_ends_soonest_goes() {
    let mut home = Home::new();
    for number in 0..=SESSIONS_PER_DEVICE {
        let key = key("a", &number.to_string());
        let (connection, _) = home.join(&key, false, HOUR - Duration::from_secs(number as u64), T0);
        home.hub.leave(&key, connection, false, None, T0);
    }
    assert_eq!(home.hub.sizes().0, SESSIONS_PER_DEVICE);
    assert!(
        !home.hub.has_session(&key("a", &(SESSIONS_PER_DEVICE - 1).to_string())),
        "it would have ended soonest"
    );
}

#[test]
fn a_full_queue_loses_the_oldest_and_counts() {
    let (mut home, display) = (Home::new(), key("d", "x"));
    let (number, _) = home.join(&display, true, HOUR, T0);
    home.subscribe(&display, filter("vitals/v1/#", QoS::AtLeastOnce));
    for value in 0..OUTBOX_MESSAGES_MAX + 5 {
        let payload = value.to_string().into_bytes().into();
        home.publish(Message { payload, ..message("vitals/v1/a/num/x", QoS::AtLeastOnce) });
    }
    assert_eq!(home.hub.take_counts().queue_full, 5);
    let sent: Vec<_> = std::iter::from_fn(|| home.next(&display, number)).collect();
    assert_eq!(
        (sent.len(), &sent[0].payload[..]),
        (SENT_MAX, &b"5"[..]),
        "no more than the bound is on its way"
    );
}

/// Messages of 100 KiB and of one that takes the whole window.
#[test]
fn what_was_sent_counts_until_it_is_acknowledged() {
    let (mut home, display) = (Home::new(), key("d", "x"));
    let (number, _) = home.join(&display, false, HOUR, T0);
    home.subscribe(&display, filter("vitals/v1/#", QoS::AtLeastOnce));
    let large = |kib: usize| Message {
        payload: vec![0; kib * 1024].into(),
        ..message("vitals/v1/a/wave/x", QoS::AtLeastOnce)
    };
    let cost = large(100).cost();
    for sent in [2, 0, 0] {
        home.publish(large(100));
        home.publish(large(100));
        let ids = std::iter::from_fn(|| home.next(&display, number)).count();
        assert_eq!(ids, sent, "no more than {SENT_BYTES_MAX} bytes are on their way");
    }
    assert_eq!((home.hub.sizes().2, home.hub.take_counts().queue_full), (5 * cost, 1));
    // Over a new connection the same two, and one more for each that is acknowledged.
    home.hub.leave(&display, number, false, None, T0);
    assert_eq!(home.hub.sizes().2, 5 * cost);
    let (number, _) = home.join(&display, false, HOUR, T0);
    let again: Vec<_> =
        std::iter::from_fn(|| home.next(&display, number)).map(|p| (p.packet_id.unwrap(), p.dup)).collect();
    assert!(again.len() == 2 && again.iter().all(|(_, dup)| *dup));
    home.hub.done(&display, again[0].0);
    assert_eq!(home.hub.sizes().2, 4 * cost);
    let third = home.next(&display, number).unwrap();
    assert!(!third.dup);
    assert_eq!(home.next(&display, number), None);
    for id in [again[1].0, third.packet_id.unwrap()] {
        home.hub.done(&display, id);
    }
    let rest = [(); 2].map(|()| home.next(&display, number).unwrap().packet_id.unwrap());
    home.publish(large(300));
    assert_eq!(home.next(&display, number), None, "it goes alone");
    rest.iter().for_each(|id| home.hub.done(&display, *id));
    assert!(home.next(&display, number).is_some());
    home.publish(large(1));
    assert_eq!(home.next(&display, number), None);
}

#[test]
fn who_acknowledges_nothing_takes_no_more_memory_than_all_may_have() {
    let mut home = Home::new();
    let devices: Vec<_> = (0..8).map(|n| format!("d{n}")).collect();
    let displays: Vec<_> = devices.iter().map(|device| key(device, "x")).collect();
    let readers = devices.iter().map(|device| Reader {
        device: DeviceId::new(device).unwrap(),
        filters: vec!["vitals/v1/#".to_owned()],
    });
    let access = Access::new(readers).unwrap();
    let mut numbers = Vec::new();
    for display in &displays {
        numbers.push(home.join(display, false, HOUR, T0).0);
        home.hub.subscribe(display, &[filter("vitals/v1/#", QoS::AtLeastOnce)], None, &access, T0);
    }
    for _ in 0..100 {
        let payload = vec![0; 60 * 1024].into();
        home.publish(Message { payload, ..message("vitals/v1/a/wave/x", QoS::AtLeastOnce) });
        for (display, number) in displays.iter().zip(&numbers) {
            while home.hub.next_packet(display, *number, T0).is_some() {}
        }
        assert!(home.hub.sizes().2 <= OUTBOXES_BYTES_MAX, "{}", home.hub.sizes().2);
    }
    assert!(home.hub.sizes().2 > OUTBOXES_BYTES_MAX / 2);
}

#[test]
fn one_device_leaves_the_others_their_room() {
    let mut home = Home::new();
    let greedy: Vec<_> = (0..8).map(|n| key("d", &n.to_string())).collect();
    let other = key("e", "x");
    for display in greedy.iter().chain([&other]) {
        let (number, _) = home.join(display, false, HOUR, T0);
        home.subscribe(display, filter("vitals/v1/#", QoS::AtLeastOnce));
        // Kept sessions: what waits for them is all there is.
        home.hub.leave(display, number, false, None, T0);
    }
    let payload = Bytes::from(vec![0; 60 * 1024]);
    for _ in 0..100 {
        let payload = payload.clone();
        home.publish(Message { payload, ..message("vitals/v1/a/wave/x", QoS::AtLeastOnce) });
    }
    let (number, _) = home.join(&other, false, HOUR, T0);
    let mut others = 0;
    while let Some(publish) = home.next(&other, number) {
        others += publish.payload.len();
        home.hub.done(&other, publish.packet_id.unwrap());
    }
    assert!(others > OUTBOX_BYTES_MAX * 3 / 4, "{others}");
    let (_, _, greedy) = home.hub.sizes();
    assert!(greedy <= OUTBOXES_BYTES_PER_DEVICE && greedy > OUTBOXES_BYTES_PER_DEVICE / 2, "{greedy}");
}
