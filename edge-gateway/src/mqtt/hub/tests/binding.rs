//! Who is bound, what the others read, and what of the others is kept.

use super::*;

fn bind(home: &mut Home, names: &[&str]) {
    bind_to(home, names, 1);
}

fn bind_to(home: &mut Home, names: &[&str], patient: u8) {
    let patient = PatientId([patient; 16]);
    home.hub.bind(names.iter().map(|name| (DeviceId::new(name).unwrap(), patient)).collect());
}

#[test]
fn who_is_not_bound_any_more_reads_only_its_own() {
    let (mut home, display) = (Home::new(), key("d", "x"));
    let (number, _) = home.join(&display, true, HOUR, T0);
    bind(&mut home, &[]);
    assert_eq!(home.subscribe(&display, filter("vitals/v1/#", QoS::AtLeastOnce)), Reason::NOT_AUTHORIZED);
    bind(&mut home, &["a", "d"]);
    for path in ["vitals/v1/#", "local/v1/d/#", "$share/g/vitals/v1/#"] {
        assert!(!home.subscribe(&display, filter(path, QoS::AtLeastOnce)).is_failure());
    }
    home.publish(message("vitals/v1/a/num/x", QoS::AtLeastOnce));
    assert!(home.next(&display, number).is_some(), "sent, and not acknowledged");
    home.publish(message("vitals/v1/a/num/x", QoS::AtLeastOnce));
    bind(&mut home, &["a"]);
    home.publish(message("vitals/v1/a/num/x", QoS::AtLeastOnce));
    assert_eq!(home.next(&display, number), None, "neither what waited nor what came after");
    assert_eq!(home.hub.sizes().2, 0);
    home.publish(message("local/v1/d/x", QoS::AtLeastOnce));
    assert!(home.next(&display, number).is_some());
    home.hub.leave(&display, number, false, None, T0);
    let (number, _) = home.join(&display, false, HOUR, T0);
    let again: Vec<_> =
        std::iter::from_fn(|| home.next(&display, number)).map(|p| (p.topic, p.dup)).collect();
    assert_eq!(again, [("local/v1/d/x".to_owned(), true)], "nor what had been sent");
}

#[test]
fn what_is_withdrawn_keeps_its_identifier_until_the_client_answers() {
    let (mut home, display) = (Home::new(), key("d", "x"));
    bind(&mut home, &["a", "d"]);
    let capacity = Capacity { receive_max: 2, ..capacity() };
    let (number, _) = home.join_with(&display, true, HOUR, None, capacity, T0);
    assert!(!home.subscribe(&display, filter("vitals/v1/#", QoS::ExactlyOnce)).is_failure());
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        home.publish(message("vitals/v1/a/num/x", qos));
    }
    let ids = [(); 2].map(|()| home.next(&display, number).unwrap().packet_id.unwrap());
    bind(&mut home, &["d"]);
    for _ in 0..3 {
        home.publish(Message { publisher: None, ..message("vitals/v1/b/num/x", QoS::AtLeastOnce) });
    }
    assert_eq!(home.next(&display, number), None, "the client has two on their way, as many as it takes");
    home.hub.done(&display, ids[0]);
    let third = home.next(&display, number).unwrap().packet_id.unwrap();
    assert!(!ids.contains(&third));
    let release = home.hub.received(&display, ids[1], Reason::SUCCESS).unwrap();
    assert_eq!((release.packet_id, release.reason), (ids[1], Reason::SUCCESS));
    assert_eq!(home.next(&display, number), None);
    home.hub.done(&display, ids[1]);
    assert!(home.next(&display, number).is_some());
}

#[test]
fn what_a_device_said_that_is_nobodys_any_more_is_not_kept() {
    let (mut home, display) = (Home::new(), key("d", "x"));
    bind(&mut home, &["a", "b", "d"]);
    let (number, _) = home.join(&display, true, HOUR, T0);
    assert!(!home.subscribe(&display, filter("vitals/v1/#", QoS::AtLeastOnce)).is_failure());
    // Two are sent and not acknowledged; the others wait.
    home.publish(message("vitals/v1/a/num/sent", QoS::AtLeastOnce));
    home.publish(Message { publisher: None, ..message("vitals/v1/own/num/sent", QoS::AtLeastOnce) });
    assert_eq!(std::iter::from_fn(|| home.next(&display, number)).count(), 2);
    home.hub.leave(&display, number, false, None, T0);
    let of = |device: &str, publisher| Message {
        retain: true,
        publisher,
        ..message(&format!("vitals/v1/{device}/num/x"), QoS::AtLeastOnce)
    };
    home.publish(of("a", Some(key("a", "sensor"))));
    home.publish(of("b", Some(key("b", "sensor"))));
    home.publish(of("own", None));
    assert_eq!(home.hub.sizes().1, 3);
    let before = home.hub.changes();
    let kept = home.hub.snapshot(T0).encode(UNIX_S, true);
    bind(&mut home, &["b", "d"]);
    assert_eq!(home.hub.sizes().1, 2, "of the gateway and of who is bound");
    assert_ne!(home.hub.changes(), before, "and the file is written anew");
    let says = |bytes: &[u8]| bytes.windows(12).any(|window| window == b"vitals/v1/a/");
    assert!(says(&kept) && !says(&home.hub.snapshot(T0).encode(UNIX_S, true)));
    came_back(&mut home, &display);
    // And where the file is of before, as after a power cut.
    let mut home = Home::new();
    bind(&mut home, &["b", "d"]);
    home.hub.restore(&kept, T0, UNIX_S, &access()).unwrap();
    assert_eq!(home.hub.sizes().1, 2);
    assert!(!says(&home.hub.snapshot(T0).encode(UNIX_S, true)));
    came_back(&mut home, &display);
}

/// The display of the test above is sent what it may read.
fn came_back(home: &mut Home, display: &SessionKey) {
    let (number, is_present) = home.join(display, false, HOUR, T0);
    assert!(is_present);
    let topics: Vec<_> =
        std::iter::from_fn(|| home.next(display, number)).map(|publish| publish.topic).collect();
    assert_eq!(topics, ["vitals/v1/own/num/sent", "vitals/v1/b/num/x", "vitals/v1/own/num/x"]);
}

#[test]
fn what_an_unbound_device_says_is_for_its_own_sessions() {
    let (mut home, display, own) = (Home::new(), key("d", "x"), key("a", "display"));
    bind(&mut home, &["d"]);
    let (display_number, _) = home.join(&display, true, HOUR, T0);
    let (own_number, _) = home.join(&own, true, HOUR, T0);
    for path in ["vitals/v1/#", "$share/g/vitals/v1/#"] {
        assert!(!home.subscribe(&display, filter(path, QoS::AtLeastOnce)).is_failure());
    }
    assert!(!home.subscribe(&own, filter("vitals/v1/a/#", QoS::AtLeastOnce)).is_failure());
    let said = || {
        let publisher = Some(key("a", "sensor"));
        Message { retain: true, publisher, ..message("vitals/v1/a/num/x", QoS::AtLeastOnce) }
    };
    home.publish(said());
    assert_eq!((home.next(&display, display_number), home.hub.sizes().1), (None, 0));
    assert!(home.next(&own, own_number).is_some());
    bind(&mut home, &["a", "d"]);
    home.publish(said());
    assert!(home.next(&display, display_number).is_some());
    assert_eq!(home.hub.sizes().1, 1);
}

#[test]
fn what_a_display_reads_of_others_is_told_from_when_to_when() {
    let (mut home, display) = (Home::new(), key("d", "x"));
    let told = |home: &mut Home| -> Vec<_> {
        home.hub.take_reads().into_iter().map(|read| (read.patient.0[0], read.filter, read.begins)).collect()
    };
    let all = |begins| (1, "vitals/v1/#".to_owned(), begins);
    bind(&mut home, &["a", "d"]);
    let (number, _) = home.join(&display, false, HOUR, T0);
    home.subscribe(&display, filter("vitals/v1/d/#", QoS::AtMostOnce));
    assert!(told(&mut home).is_empty(), "its own");
    home.subscribe(&display, filter("vitals/v1/#", QoS::AtMostOnce));
    home.subscribe(&display, filter("vitals/v1/#", QoS::AtLeastOnce));
    home.subscribe(&display, filter("$share/g/vitals/v1/#", QoS::AtLeastOnce));
    assert_eq!(told(&mut home), [all(true)], "once");
    // It is away, comes back to its session, and gives the subscription up.
    home.hub.leave(&display, number, false, None, T0);
    assert_eq!(told(&mut home), [all(false)]);
    let (number, present) = home.join(&display, false, HOUR, T0);
    assert!(present);
    assert_eq!(told(&mut home), [all(true)]);
    home.hub.unsubscribe(&display, &["vitals/v1/#".to_owned()]);
    assert!(told(&mut home).is_empty(), "the shared one reads the same");
    home.hub.unsubscribe(&display, &["$share/g/vitals/v1/#".to_owned()]);
    assert_eq!(told(&mut home), [all(false)]);
    // It becomes another patient's; it is released; and one whose session ends with its connection.
    home.subscribe(&display, filter("vitals/v1/#", QoS::AtMostOnce));
    bind_to(&mut home, &["a", "d"], 2);
    let other = |begins| (2, "vitals/v1/#".to_owned(), begins);
    assert_eq!(told(&mut home), [all(true), all(false), other(true)]);
    bind(&mut home, &["a"]);
    assert_eq!(told(&mut home), [other(false)]);
    bind(&mut home, &["a", "d"]);
    home.subscribe(&display, filter("vitals/v1/#", QoS::AtMostOnce));
    home.hub.leave(&display, number, false, Some(Duration::ZERO), T0);
    assert_eq!(told(&mut home), [all(true), all(false)]);
    assert!(!home.hub.has_session(&display));
}
