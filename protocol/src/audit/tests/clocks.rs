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

/// One key of a patient's, and nothing else.
fn key_of(patient: PatientId, epoch: u32) -> What {
    let delivered = Delivered { patient, ..delivered(&[], &[(0, epoch, epoch)]) };
    What::Fetched { recipient: HOSPITAL, feed: "feed".into(), delivered }
}

/// Of the core's log, of which nothing else is left out.
fn keys_from(n: u64, last: u64, older: usize) -> [Uncovered; 1] {
    [keys_of(PATIENT, n, last, older)]
}

fn keys_of(patient: PatientId, n: u64, last: u64, older: usize) -> Uncovered {
    Uncovered { whose: "core", what: "keys", patient: Some(patient), others: 0, n, last, older }
}

/// What comes of one key that the core delivered in this minute, after the one of minute 1: who is accused, and from where on keys are not
/// looked for. All logs but the gateways' end at minute 200.
fn judged(gateways: &[&[Line]], delivered: i64, epoch: u32) -> (Option<Disagreement>, Vec<Uncovered>) {
    let (feed, core) = hosts(vec![(1, key(1)), (delivered, key(epoch)), (200, What::PolicyFresh)]);
    let found = agree(HOSPITAL, &feed, &core, gateways).err();
    (found, uncovered(HOSPITAL, &feed, &core, gateways))
}

/// Up to which minute keys are looked for, and from which epoch on, as [`judged`] is called.
fn looked_for(gateways: &[&[Line]], delivered: i64, epoch: u32) -> (i64, u32) {
    let (feed, core) = hosts(vec![(1, key(1)), (delivered, key(epoch)), (200, What::PolicyFresh)]);
    let Keys { from, until_ms } = keys(HOSPITAL, &feed, &core, gateways).unwrap();
    (until_ms / MINUTE_MS, from)
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
    let (whose, what, patient) = ("core", "deliveries", None);
    let younger = Uncovered { whose, what, patient, others: 0, n: 2, last: 3, older: 0 };
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

/// A key that was wrapped ahead of its time, or a core's clock that is behind, ends the comparison of a lost gateway's time too, which is told.
#[test]
fn what_is_not_looked_for_of_a_lost_gateways_time_is_told() {
    let lost = at_minutes(vec![(1, wrapped(1)), (40, wrapped(40))]);
    let next = at_minutes(vec![(100, wrapped(100)), (200, What::PolicyFresh)]);
    let gateways = [&lost[..], &next[..]];
    let of = |second: u32| {
        let (feed, core) =
            hosts(vec![(1, key(1)), (2, key(second)), (30, key(29)), (200, What::PolicyFresh)]);
        let found = agree(HOSPITAL, &feed, &core, &gateways).err();
        let keys = keys(HOSPITAL, &feed, &core, &gateways).unwrap();
        (found, uncovered(HOSPITAL, &feed, &core, &gateways), keys.until_ms)
    };
    assert_eq!(of(1), (Some(unwrapped("core", 3, 29)), Vec::new(), 198 * MINUTE_MS));
    assert_eq!(of(50), (None, keys_from(2, 4, 1).to_vec(), 2 * MINUTE_MS - 1));
}

/// A gateway that took another's place began when it did, whatever epoch its first key is of.
#[test]
fn a_first_key_of_an_epoch_that_never_comes_hides_a_day_and_no_more() {
    let lost = at_minutes(vec![(1, wrapped(1)), (40, wrapped(40))]);
    let next = at_minutes(vec![(100, wrapped(u32::MAX)), (9_000, What::PolicyFresh)]);
    let of = |epoch: u32| {
        let (feed, core) = hosts(vec![(1, key(1)), (8_000, key(epoch)), (9_000, What::PolicyFresh)]);
        agree(HOSPITAL, &feed, &core, &[&lost, &next]).err()
    };
    assert_eq!(of(100 + 24 * 60), None);
    assert_eq!(of(7_999), Some(unwrapped("core", 2, 7_999)));
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

    // One that lost a patient and lives on, with another or without, may have taken a third after its log was fetched.
    let (feed, core) = hosts(vec![(40, key(40)), (60, What::PolicyFresh)]);
    for wraps in [vec![(1, OTHER, 1), (1, third, 1), (30, third, 30)], vec![(1, OTHER, 1)]] {
        let lives = of(wraps, 32);
        assert_eq!(agree(HOSPITAL, &feed, &core, &[&lives, &newer]).err(), None);
        assert_eq!(uncovered(HOSPITAL, &feed, &core, &[&lives, &newer]), keys_from(1, 2, 0));
        // What was delivered before its log's end is looked for.
        let (feed, core) = hosts(vec![(29, key(29)), (60, What::PolicyFresh)]);
        assert_eq!(agree(HOSPITAL, &feed, &core, &[&lives, &newer]), Err(unwrapped("core", 1, 29)));
    }
    // Where all that its log tells was before, it was lost, also with a patient whom nobody took.
    let lost = of(vec![(1, OTHER, 1), (1, third, 1)], 2);
    assert_eq!(agree(HOSPITAL, &feed, &core, &[&lost, &newer]), Err(unwrapped("core", 1, 40)));
}

/// The patient went from one gateway to another and back to the first. The second one's log was fetched last.
#[test]
fn what_a_gateway_wrapped_to_which_the_patient_went_back_accuses_nobody() {
    let fresh = |minute| (minute, What::PolicyFresh);
    let first = at_minutes(vec![(1, wrapped(1)), (80, wrapped(80)), fresh(90)]);
    let second = at_minutes(vec![(40, wrapped(40)), (60, wrapped(60)), fresh(200)]);
    for gateways in [[&first[..], &second[..]], [&second[..], &first[..]]] {
        // As long as the first one's log goes, all of them; then what it wrapped is not known, and that is told.
        assert_eq!(judged(&gateways, 85, 84), (Some(unwrapped("core", 2, 84)), Vec::new()));
        assert_eq!(judged(&gateways, 120, 119), (None, keys_from(2, 3, 0).to_vec()));
        assert_eq!(looked_for(&gateways, 120, 119), (88, 0));
    }
    // A third one before them that was lost: between its log's end and the next one's beginning no key is looked for.
    let lost = at_minutes(vec![(1, wrapped(1)), (20, wrapped(20))]);
    let first = at_minutes(vec![(40, wrapped(40)), (80, wrapped(80)), fresh(90)]);
    let second = at_minutes(vec![(60, wrapped(60)), fresh(200)]);
    let gateways = [&second[..], &first[..], &lost[..]];
    assert_eq!(judged(&gateways, 15, 14), (Some(unwrapped("core", 2, 14)), Vec::new()));
    assert_eq!((judged(&gateways, 30, 30), judged(&gateways, 85, 39)), ((None, vec![]), (None, vec![])));
    assert_eq!(judged(&gateways, 85, 84), (Some(unwrapped("core", 2, 84)), Vec::new()));
    assert_eq!(judged(&gateways, 120, 119), (None, keys_from(2, 3, 0).to_vec()));
    assert_eq!(looked_for(&gateways, 120, 119), (88, 43));
    // Where the newer log is the one to which the patient went back, the other's end counts as it did.
    let first = at_minutes(vec![(1, wrapped(1)), (80, wrapped(80)), fresh(200)]);
    let second = at_minutes(vec![(40, wrapped(40)), (60, wrapped(60)), fresh(70)]);
    assert_eq!(looked_for(&[&first, &second], 120, 119), (68, 0));
}

/// The patient's root was restored on a second gateway, which wrapped before the core took anything from it. The core goes on delivering what
/// the first one sends.
#[test]
fn a_gateway_that_wraps_before_the_core_takes_from_it_accuses_nobody() {
    let first = at_minutes(vec![(1, wrapped(1)), (50, wrapped(50)), (60, What::PolicyFresh)]);
    let second = vec![(30, wrapped(30)), (100, wrapped(100)), (200, What::PolicyFresh)];
    let second = at_minutes(second);
    let gateways = [&first[..], &second[..]];
    assert_eq!(judged(&gateways, 55, 54), (Some(unwrapped("core", 2, 54)), Vec::new()));
    assert_eq!(judged(&gateways, 70, 69), (None, keys_from(2, 3, 0).to_vec()));
    // Who claims falsely to have begun so early hides as much, and that is told just so.
    assert_eq!(judged(&gateways, 150, 149), (None, keys_from(2, 3, 0).to_vec()));
    assert_eq!(looked_for(&gateways, 150, 149), (58, 0));
    // A first one whose clock is behind at its end has not stopped before.
    let first =
        at_minutes(vec![(1, wrapped(1)), (50, wrapped(50)), (20, wrapped(51)), (21, What::PolicyFresh)]);
    assert_eq!(judged(&[&first, &second], 70, 69), (None, keys_from(2, 3, 0).to_vec()));
}

/// A later gateway's log whose older entries are gone may have told of the patient before.
#[test]
fn a_part_of_a_later_gateways_log_accuses_nobody_of_what_it_wrapped_before() {
    let first = at_minutes(vec![(1, wrapped(1)), (40, wrapped(40)), (105, What::PolicyFresh)]);
    let gone = (50, wrapped(50));
    let later = at_minutes(vec![gone, (100, wrapped(100)), (200, What::PolicyFresh)]);
    let gateways = [&first[..], &later[1..]];
    assert_eq!(judged(&gateways, 70, 50), (None, Vec::new()));
    assert_eq!(judged(&gateways, 150, 103), (Some(unwrapped("core", 2, 103)), Vec::new()));
    assert_eq!(looked_for(&gateways, 70, 50), (198, 103));
}

#[test]
fn of_each_patient_is_told_from_where_on_keys_are_not_looked_for() {
    let fresh = |minute| (minute, What::PolicyFresh);
    let one = at_minutes(vec![(1, wrapped(1)), fresh(20)]);
    let other = at_minutes(vec![(2, wrapped_of(OTHER, 2)), fresh(40)]);
    let (feed, core) = hosts(vec![
        (1, key(1)),
        (2, key_of(OTHER, 2)),
        (30, key(30)),
        (50, key_of(OTHER, 50)),
        fresh(35),
        fresh(60),
    ]);
    assert_eq!(agree(HOSPITAL, &feed, &core, &[&one, &other]).err(), None);
    // What is behind is counted by the log of each patient's own gateway.
    let told = [keys_of(PATIENT, 3, 6, 0), keys_of(OTHER, 4, 6, 1)];
    assert_eq!(uncovered(HOSPITAL, &feed, &core, &[&one, &other]), told);

    // Of many the first are named, and the others told together.
    let many = (10..50).map(|id| (30, key_of(PatientId([id; 16]), 30)));
    let (feed, core) = hosts([(1, key(1))].into_iter().chain(many).chain([fresh(60)]).collect());
    let told = uncovered(HOSPITAL, &feed, &core, &[&one]);
    assert_eq!((told.len(), told[0]), (33, keys_of(PatientId([10; 16]), 2, 42, 0)));
    let rest = Uncovered { patient: None, others: 8, ..keys_of(PATIENT, 34, 42, 0) };
    assert_eq!((told[31], told[32]), (keys_of(PatientId([41; 16]), 33, 42, 0), rest));
}

/// A key of a minute after the gateway's log's end shows that the core's clock is behind: keys are looked for up to it, and that is told.
#[test]
fn up_to_when_keys_are_looked_for_is_told_where_a_hosts_clock_is_behind() {
    let gateway = at_minutes(vec![(1, wrapped(7)), (60, What::PolicyFresh)]);
    let until = |later: u32| {
        let (feed, core) = hosts(vec![(1, key(7)), (45, key(later)), (55, key(7)), (90, What::PolicyFresh)]);
        assert_eq!(agree(HOSPITAL, &feed, &core, &[&gateway]).err(), None);
        keys(HOSPITAL, &feed, &core, &[&gateway]).unwrap().until_ms
    };
    assert_eq!((until(7), until(60)), (58 * MINUTE_MS, 45 * MINUTE_MS - 1));
}
