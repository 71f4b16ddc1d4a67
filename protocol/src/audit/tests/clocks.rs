//! What clocks that were wrong, logs that end before others, and gateways that took others' places do to what is looked for.

use super::*;

/// A feed's log that ends with this one of the core.
fn hosts(core: Vec<(i64, What)>) -> (Vec<Line>, Vec<Line>) {
    let ends = core.last().unwrap().0;
    (at_minutes(vec![(1, received(&[(0, 9)])), (ends, What::PolicyFresh)]), at_minutes(core))
}

fn key(epoch: u32) -> What {
    fetched(&[(0, 9)], &[(0, epoch, epoch)])
}

/// Of the core's log, of which nothing else is left out.
fn keys_from(n: u64, last: u64, older: usize) -> [Uncovered; 1] {
    [Uncovered { whose: "core", what: "keys", n, last, older }]
}

/// The gateway's log was fetched at 60, the others later. None of them did anything wrong.
#[test]
fn nobody_is_accused_of_what_a_gateways_log_is_too_old_for() {
    let gateway = at_minutes(vec![(1, wrapped(7)), (60, What::PolicyFresh)]);
    let (first, fresh) = ((1, key(7)), |minute| (minute, What::PolicyFresh));
    for (core, keys) in [
        // One entry of an old time, behind what is younger.
        (vec![first.clone(), (70, key(70)), (80, key(80)), fresh(30), fresh(90)], keys_from(2, 5, 1)),
        // The same, and nothing was written between.
        (vec![first.clone(), fresh(50), (30, key(70)), (72, key(72)), fresh(90)], keys_from(3, 5, 0)),
        // The clock went back for good, or was behind all the time.
        (
            vec![first.clone(), fresh(50), (30, key(70)), (52, key(92)), fresh(57), fresh(90)],
            keys_from(3, 6, 1),
        ),
        (vec![first, (45, key(60)), (55, key(70)), fresh(90)], keys_from(2, 4, 1)),
    ] {
        let (feed, core) = hosts(core);
        assert_eq!(agree(HOSPITAL, &feed, &core, &[&gateway]).err(), None, "{core:?}");
        assert_eq!(uncovered(HOSPITAL, &feed, &core, &[&gateway]), keys, "{core:?}");
        assert_eq!(ahead(&core), None);
    }
    // What the gateway's log is not too old for is found before such an entry.
    let (feed, core) = hosts(vec![(1, key(8)), fresh(20), (70, key(70)), fresh(30), fresh(90)]);
    assert_eq!(agree(HOSPITAL, &feed, &core, &[&gateway]), Err(unwrapped("core", 1, 8)));
}

/// A key of an epoch that is far ahead of all logs was never wrapped as its minute came; one that is near is found once the gateway's log is newer.
#[test]
fn a_key_that_was_wrapped_in_secret_ahead_of_its_time_is_found_later() {
    let gateway = |ends: i64| at_minutes(vec![(1, wrapped(7)), (ends, What::PolicyFresh)]);
    let of = |epoch: u32| hosts(vec![(1, key(7)), (2, key(epoch)), (90, What::PolicyFresh)]);
    let (feed, core) = of(100);
    assert!(agree(HOSPITAL, &feed, &core, &[&gateway(60)]).is_ok());
    assert_eq!(uncovered(HOSPITAL, &feed, &core, &[&gateway(60)]), keys_from(2, 3, 0));
    assert_eq!(agree(HOSPITAL, &feed, &core, &[&gateway(101)]), Err(unwrapped("core", 2, 100)));
    let (feed, core) = of(9_999);
    assert_eq!(agree(HOSPITAL, &feed, &core, &[&gateway(60)]), Err(unwrapped("core", 2, 9_999)));
}

/// A gateway whose clock was ahead tells later times than that of its end; so may one that hides what it wrapped.
#[test]
fn a_log_goes_no_further_than_its_end_tells() {
    let (feed, core) = hosts(vec![(1, key(7)), (40, key(40)), (60, What::PolicyFresh)]);
    let gateway = at_minutes(vec![(1, wrapped(7)), (61, wrapped(61)), (5, What::PolicyFresh)]);
    assert!(agree(HOSPITAL, &feed, &core, &[&gateway]).is_ok());
    assert_eq!(keys(HOSPITAL, &feed, &core, &[&gateway]).unwrap().until_ms, 3 * MINUTE_MS);
    assert_eq!(uncovered(HOSPITAL, &feed, &core, &[&gateway]), keys_from(2, 3, 0));
    assert_eq!(ahead(&gateway), Some(2));
    // Of feed and core the same: what the other delivered later is not in this one yet.
    let feed = at_minutes(vec![(1, received(&[(0, 9)])), (999, What::PolicyFresh), (20, What::PolicyFresh)]);
    let core = at_minutes(vec![(1, key(7)), (40, fetched(&[(10, 10)], &[])), (60, What::PolicyFresh)]);
    assert_eq!(agree(HOSPITAL, &feed, &core, &[]), Ok(18 * MINUTE_MS));
    let younger = Uncovered { whose: "core", what: "deliveries", n: 2, last: 3, older: 0 };
    assert_eq!((uncovered(HOSPITAL, &feed, &core, &[]), ahead(&feed)), (vec![younger], Some(2)));
}

/// The patient's root was restored onto a new gateway, which gave the past: its nodes end in leaves. The old gateway lives on, and the older
/// entries of its log, in which it wrapped for the patient, are gone.
#[test]
fn a_leaf_of_a_past_that_was_given_is_no_beginning() {
    let fresh = (1_400, What::PolicyFresh);
    let gone = (990, wrapped(985));
    let old = at_minutes(vec![gone, (1_000, wrapped_of(OTHER, 1_000)), fresh.clone()]);
    let new = at_minutes(vec![(1_200, wrapped(980)), (1_201, wrapped(1_201)), fresh.clone()]);
    let gateways: [&[Line]; 2] = [&old[1..], &new];
    let judged = |epoch: u32| {
        let (feed, core) = hosts(vec![(1, key(980)), (1_300, key(epoch)), fresh.clone()]);
        assert_eq!(keys(HOSPITAL, &feed, &core, &gateways).unwrap().from, 1_003);
        agree(HOSPITAL, &feed, &core, &gateways).err()
    };
    assert_eq!((judged(985), judged(1_002)), (None, None));
    assert_eq!(judged(1_003), Some(unwrapped("core", 2, 1_003)));
    assert_eq!(judged(1_201), None);

    // One that gave a past first, after its clock was ahead: what it wrapped before is of epochs that lie ahead.
    let set_back =
        at_minutes(vec![fresh.clone(), (1_000, wrapped(400)), (1_000, wrapped(1_060)), fresh.clone()]);
    let (feed, core) = hosts(vec![(1_000, key(1_050)), fresh]);
    assert_eq!(keys(HOSPITAL, &feed, &core, &[&set_back[1..]]).unwrap().from, 1_061);
    assert!(agree(HOSPITAL, &feed, &core, &[&set_back[1..]]).is_ok());
}

#[test]
fn what_a_lost_gateway_wrapped_after_its_logs_end_accuses_nobody() {
    let lost = at_minutes(vec![(1, wrapped(1)), (40, wrapped(40))]);
    let next = at_minutes(vec![(100, wrapped(100)), (200, What::PolicyFresh)]);
    let judged = |delivered: i64, epoch: u32| {
        let (feed, core) = hosts(vec![(1, key(1)), (delivered, key(epoch)), (200, What::PolicyFresh)]);
        let gateways: [&[Line]; 2] = [&next, &lost];
        assert!(uncovered(HOSPITAL, &feed, &core, &gateways).is_empty());
        agree(HOSPITAL, &feed, &core, &gateways).err()
    };
    // As long as its log goes, all of them; between the two, and of epochs before, none; then all again.
    assert_eq!(judged(30, 29), Some(unwrapped("core", 2, 29)));
    assert_eq!((judged(50, 50), judged(150, 50), judged(150, 99)), (None, None, None));
    assert_eq!(judged(150, 149), Some(unwrapped("core", 2, 149)));
    // Of one that lives on, and lost the patient alone, all of its time is known, and of the next one's what that one tells.
    let lives = at_minutes(vec![(1, wrapped(1)), (40, wrapped(40)), (190, What::PolicyFresh)]);
    let cut = at_minutes(vec![(100, wrapped(100)), (120, What::PolicyFresh)]);
    let judged = |delivered: i64, epoch: u32| {
        let (feed, core) = hosts(vec![(1, key(1)), (delivered, key(epoch)), (200, What::PolicyFresh)]);
        agree(HOSPITAL, &feed, &core, &[&lives, &cut]).err()
    };
    assert_eq!(judged(110, 50), Some(unwrapped("core", 2, 50)));
    assert_eq!((judged(150, 50), judged(150, 149)), (None, None));
}

#[test]
fn a_patient_for_whom_no_log_wraps_may_be_any_gateways_that_is_in_use() {
    let (feed, core) = hosts(vec![(1, key(1)), (30, key(2)), (60, What::PolicyFresh)]);
    let of = |entries: Vec<(i64, PatientId, u32)>, ends: i64| {
        let wraps = entries.into_iter().map(|(at, patient, epoch)| (at, wrapped_of(patient, epoch)));
        at_minutes(wraps.chain([(ends, What::PolicyFresh)]).collect())
    };
    let third = PatientId([3; 16]);
    let newer = of(vec![(20, OTHER, 20)], 60);
    // A gateway may have taken the patient after its log was fetched.
    let older = of(vec![(1, third, 1)], 2);
    assert_eq!(agree(HOSPITAL, &feed, &core, &[&older, &newer]).err(), None);
    assert_eq!(keys(HOSPITAL, &feed, &core, &[&older, &newer]).unwrap().until_ms, 0);
    // One whose patient has another since was revoked.
    let lost = of(vec![(1, OTHER, 1)], 2);
    assert_eq!(agree(HOSPITAL, &feed, &core, &[&lost, &newer]), Err(unwrapped("core", 1, 1)));
}
