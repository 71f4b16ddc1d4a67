//! What of it needs no broker.

use super::*;

#[test]
fn only_allowed_devices_with_fitting_payloads_are_taken() {
    let devices = BTreeSet::from([DeviceId::new("a").unwrap()]);
    let of = |topic: &str, bytes: usize| device_of(topic, bytes, &devices);
    assert_eq!(of("vitals/v1/a/num/x", 10), Ok(DeviceId::new("a").unwrap()));
    assert_eq!(of("vitals/v1/b/num/x", 10), Err(Unfit::UnknownDevice));
    assert_eq!(of("vitals/v1/a", 10), Err(Unfit::ForeignTopic));
    assert_eq!(of("vitals/v1/a/wave/x", PAYLOAD_BYTES_MAX), Ok(DeviceId::new("a").unwrap()));
    assert_eq!(of("vitals/v1/a/wave/x", PAYLOAD_BYTES_MAX + 1), Err(Unfit::TooLarge));
}

#[test]
fn five_is_tried_first_and_a_session_that_only_fails_is_thrown_away() {
    let (five, three) = (Protocol::V5, Protocol::V4);
    let first = Attempt::FIRST;
    let old = first.next(End::Connection, false, 0);
    assert_eq!((first.protocol, old.protocol), (five, three), "it may know 3.1.1 only");
    assert_eq!(old.next(End::Connection, false, 0), first);
    assert_eq!(first.next(End::Connection, true, 0), first);
    let once = old.next(End::TooLarge, true, 0);
    assert_eq!((once.protocol, once.discards()), (five, false));
    let again = once.next(End::Connection, false, once.too_large);
    assert_eq!((again.protocol, again.discards()), (three, false));
    let twice = again.next(End::TooLarge, true, again.too_large);
    assert!(twice.discards());
    assert!(twice.next(End::Connection, false, twice.too_large).discards(), "until it is done");
    assert_eq!(twice.next(End::SessionDiscarded, true, twice.too_large), first);
    assert_eq!(again.next(End::TooLarge, true, 0).too_large, 1, "something came in between");
    assert!(!again.next(End::TooLargeBehind, true, again.too_large).discards(), "it does not come first");
}

#[test]
fn a_connection_of_5_0_that_owes_nothing_may_be_quiet_for_so_long() {
    let (heard, patience) = (Instant::now(), Patience::new(QUIET));
    assert_eq!(patience.end(Protocol::V5, false, heard), Some(heard + QUIET));
    assert_eq!(patience.end(Protocol::V5, true, heard), None, "it may be the broker that waits");
    assert_eq!(patience.end(Protocol::V4, false, heard), None, "nothing is dropped for its length");
    let once = Attempt { too_large: 1, ..Attempt::FIRST };
    assert_eq!(once.next(End::Quiet, true, once.too_large), once, "again in 5.0");
}

#[test]
fn connections_that_bring_nothing_become_rarer_until_something_comes_above_qos_0() {
    let heard = Instant::now();
    let minutes =
        |patience: Patience| patience.end(Protocol::V5, false, heard).map(|end| (end - heard).as_secs() / 60);
    let mut patience = Patience::new(QUIET);
    for expected in [5, 10, 20, 20] {
        assert_eq!(minutes(patience), Some(expected));
        patience = patience.next();
    }
    patience.hear();
    for _ in 0..3 {
        assert_eq!(minutes(patience), Some(5), "what is rare may be an alarm");
        patience = patience.next();
    }
}

#[test]
fn what_is_too_large_counts_once_nothing_before_it_is_owed() {
    assert_eq!(end_of_too_large(ControlFlow::Continue(())), End::TooLarge);
    assert_eq!(end_of_too_large(ControlFlow::Break(End::Connection)), End::TooLarge);
    assert_eq!(end_of_too_large(ControlFlow::Break(End::PublishRefused)), End::TooLargeBehind);
    assert_eq!(end_of_too_large(ControlFlow::Break(End::PipelineGone)), End::PipelineGone);
}

#[test]
fn pauses_double_up_to_their_bound_and_start_anew_after_success() {
    let mut backoff = Backoff(BACKOFF_MIN);
    let pauses: Vec<u128> = (0..8).map(|_| backoff.next().as_millis()).collect();
    assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
    backoff.reset();
    assert_eq!(backoff.next(), BACKOFF_MIN);
}
