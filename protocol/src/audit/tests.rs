mod clocks;

use proptest::prelude::*;

use super::merkle;
use super::verify::{
    Batch, Disagreement, Fault, Keys, SLACK_MS, Uncovered, agree, ahead, chain, keys, log, newer, part,
    uncovered,
};
use super::*;
use crate::id::{DataClass, PatientId, RecipientId};
use crate::key::TREE_DEPTH;
use crate::policy::Pseudonym;

const PATIENT: PatientId = PatientId([1; 16]);
const OTHER: PatientId = PatientId([2; 16]);
const HOSPITAL: RecipientId = RecipientId([5; 20]);
const MINUTE_MS: i64 = 60_000;
/// Up to when logs of [`lines`] are compared: later than the epochs of which they tell keys.
const UNTIL_MS: i64 = 20 * MINUTE_MS;

fn entry(n: i64) -> Entry {
    Entry { at_ms: n, what: What::Login { user: format!("nurse-{n}") } }
}

fn whole(count: i64) -> Vec<Vec<u8>> {
    let (mut head, mut lines) = (Head::default(), Vec::new());
    for n in 1..=count {
        let mut line = Vec::new();
        head.append(&entry(n), &mut line).unwrap();
        lines.push(line);
    }
    lines
}

fn batches(lines: &[Vec<u8>], size: usize) -> Vec<Batch> {
    let mut first = 1;
    let batch = |chunk: &[Vec<u8>]| {
        let leaves = chunk.iter().map(|line| leaf_hash(&line[..line.len() - 1]));
        let (from, last) = (first, first + chunk.len() as u64 - 1);
        first = last + 1;
        Batch { first: from, last, root: merkle::root(leaves).unwrap() }
    };
    lines.chunks(size).map(batch).collect()
}

fn check(lines: &[Vec<u8>], batches: &[Batch]) -> Result<(u64, u64), Fault> {
    log(&lines.concat(), batches).map(|log| (log.head.n, log.anchored))
}

/// An entry is changed and everything behind it written anew, as who holds the file could.
fn rewritten(from: usize) -> Vec<Vec<u8>> {
    let mut lines = whole(9);
    let mut head = Head { n: from as u64, hash: leaf_hash(&lines[from - 1][..lines[from - 1].len() - 1]) };
    for (at, line) in lines.iter_mut().enumerate().skip(from) {
        let forged = || Entry { at_ms: 0, what: What::Login { user: "nobody".into() } };
        let written = if at == from { forged() } else { entry(i64::try_from(at).unwrap() + 1) };
        line.clear();
        head.append(&written, line).unwrap();
    }
    lines
}

#[test]
fn a_whole_log_is_whole_with_and_without_anchors() {
    let lines = whole(9);
    assert_eq!(check(&lines, &[]), Ok((9, 0)));
    assert_eq!(check(&lines, &batches(&lines, 4)), Ok((9, 9)));
    assert_eq!(check(&lines, &batches(&lines, 4)[..2]), Ok((9, 8)));
    assert_eq!(check(&[], &[]), Ok((0, 0)));
}

#[test]
fn an_altered_entry_is_named() {
    let (good, anchors) = (whole(9), batches(&whole(9), 4));
    for at in 0..8 {
        let mut lines = good.clone();
        let changed = String::from_utf8(lines[at].clone()).unwrap().replace("nurse", "nobody");
        lines[at] = changed.into_bytes();
        let n = at as u64 + 1;
        assert_eq!(check(&lines, &[]), Err(Fault::Altered { n }), "without anchors");
        let found = check(&lines, &anchors).unwrap_err();
        // Of the last entry of a batch its anchor speaks first.
        assert!(
            found == Fault::Altered { n } || matches!(found, Fault::Root { last, .. } if last == n),
            "{found}"
        );
    }
    let mut last = good;
    last[8] = String::from_utf8(last[8].clone()).unwrap().replace("nurse", "nobody").into_bytes();
    assert_eq!(check(&last, &anchors), Err(Fault::Root { first: 9, last: 9 }));
}

#[test]
fn an_entry_whose_link_was_altered_is_named_and_not_the_one_before() {
    let mut lines = whole(9);
    let text = String::from_utf8(lines[4].clone()).unwrap();
    let line = Line::decode(text.trim_end().as_bytes()).unwrap();
    lines[4] = text.replace(&line.prev.to_string(), &"ab".repeat(32)).into_bytes();
    assert_eq!(check(&lines, &[]), Err(Fault::Altered { n: 5 }));
}

#[test]
fn a_dropped_entry_is_named() {
    let mut lines = whole(9);
    lines.remove(4);
    let found = check(&lines, &[]).unwrap_err();
    assert_eq!((found.entry(), found), (5, Fault::Missing { n: 5, next: 6 }));
    assert_eq!(check(&whole(9)[2..], &[]), Err(Fault::Missing { n: 1, next: 3 }));
}

#[test]
fn reordered_entries_are_named() {
    let mut lines = whole(9);
    lines.swap(4, 6);
    assert_eq!(check(&lines, &[]), Err(Fault::Reordered { n: 5, found: 7 }));
    let mut twice = whole(9);
    twice.insert(5, twice[4].clone());
    assert_eq!(check(&twice, &[]), Err(Fault::Reordered { n: 6, found: 5 }));
}

#[test]
fn a_tail_that_was_cut_shows_by_its_anchor() {
    let lines = whole(9);
    let anchors = batches(&lines, 4);
    assert_eq!(check(&lines[..6], &anchors), Err(Fault::CutOff { n: 7, anchored: 9 }));
    assert_eq!(check(&lines[..6], &anchors[..1]), Ok((6, 4)), "what no anchor covers does not");
}

#[test]
fn the_newer_part_of_a_log_is_held_against_its_anchors() {
    let (lines, anchors) = (whole(9), batches(&whole(9), 4));
    let part = |lines: &[Vec<u8>], anchors: &[Batch]| {
        part(&lines.concat(), anchors).map(|log| (log.lines.len(), log.head.n, log.anchored))
    };
    // From within a batch, from a batch's beginning, and of one batch that is not whole.
    assert_eq!(part(&lines[2..], &anchors), Ok((7, 9, 9)));
    assert_eq!(part(&lines[4..], &anchors), Ok((5, 9, 9)));
    assert_eq!(part(&lines[6..], &anchors[..2]), Ok((3, 9, 0)), "nothing here shows what was anchored");
    assert_eq!(part(&lines, &anchors), Ok((9, 9, 9)));
    // What was never anchored must be here.
    assert_eq!(part(&lines[5..], &anchors[..1]), Err(Fault::Missing { n: 5, next: 6 }));
    assert_eq!(part(&lines[4..], &anchors[..1]), Ok((5, 9, 0)));
    // An entry that was altered shows by the chain, also one of the batch that is not whole, and a log that was written anew by its root.
    for at in 2..8 {
        let mut lines = lines[2..].to_vec();
        let changed = String::from_utf8(lines[at - 2].clone()).unwrap().replace("nurse", "nobody");
        lines[at - 2] = changed.into_bytes();
        let entry = part(&lines, &anchors).unwrap_err().entry();
        assert!(entry == at as u64 + 1 || entry == 5, "{at}: {entry}");
    }
    assert_eq!(part(&rewritten(5)[2..], &anchors), Err(Fault::Root { first: 5, last: 8 }));
    let chain = |lines: &[Vec<u8>], anchored| chain(&lines.concat(), anchored).map(|log| log.head.n);
    assert_eq!((chain(&lines[6..], 8), chain(&lines[8..], 8)), (Ok(9), Ok(9)));
    assert_eq!(chain(&lines[8..], 7), Err(Fault::Missing { n: 8, next: 9 }));
    assert_eq!(chain(&lines[..6], 8), Err(Fault::CutOff { n: 7, anchored: 8 }));
}

#[test]
fn a_log_that_was_written_anew_is_not_what_was_anchored() {
    let anchors = batches(&whole(9), 4);
    let found = check(&rewritten(5), &anchors).unwrap_err();
    assert_eq!((found.entry(), found.reason()), (5, "root"));
    assert_eq!(check(&rewritten(5), &[]), Ok((9, 0)), "that is what anchors are for");
}

#[test]
fn forged_and_missing_anchors_are_named() {
    let lines = whole(9);
    let mut anchors = batches(&lines, 4);
    anchors[1].root = Hash([9; 32]);
    assert_eq!(check(&lines, &anchors), Err(Fault::Root { first: 5, last: 8 }));
    let mut anchors = batches(&lines, 4);
    anchors.remove(1);
    assert_eq!(check(&lines, &anchors), Err(Fault::AnchorGap { n: 5, first: 9 }));
    anchors.remove(0);
    assert_eq!(check(&lines, &anchors), Err(Fault::AnchorGap { n: 1, first: 9 }));
}

#[test]
fn what_is_no_line_is_told() {
    let mut lines = whole(3);
    lines[1] = b"{\"n\":2}\n".to_vec();
    assert!(matches!(
        check(&lines, &[]),
        Err(Fault::Malformed { n: 2, line: 2, error: LineError::Shape(_) })
    ));
    let text = String::from_utf8(whole(1).concat()).unwrap();
    let spaced = text.trim_end().replace(":1,", ": 1,");
    assert_eq!(Line::decode(spaced.as_bytes()), Err(LineError::Form));
    let more = text.trim_end().replace("}", ",\"more\":1}");
    assert_eq!(Line::decode(more.as_bytes()), Err(LineError::Form));
    assert_eq!(Line::decode(&vec![b' '; LINE_BYTES_MAX + 1]), Err(LineError::Long(LINE_BYTES_MAX + 1)));
    let mut head = Head { n: u64::MAX, hash: Hash::NONE };
    assert_eq!(head.append(&entry(1), &mut Vec::new()), Err(LineError::Full));
    let long = Entry { at_ms: 0, what: What::Login { user: "x".repeat(LINE_BYTES_MAX) } };
    let mut out = Vec::new();
    assert!(matches!(Head::default().append(&long, &mut out), Err(LineError::Long(_))) && out.is_empty());
}

fn delivered(segments: &[(u64, u64)], wraps: &[(u32, u32, u32)]) -> Delivered {
    Delivered {
        patient: PATIENT,
        class: DataClass::Vitals,
        segments: segments.iter().map(|(first, last)| Run(*first, *last)).collect(),
        wraps: wraps.iter().map(|(generation, first, last)| WrapRun(*generation, *first, *last)).collect(),
    }
}

fn lines(entries: Vec<What>) -> Vec<Line> {
    let (mut head, mut text) = (Head::default(), Vec::new());
    for what in entries {
        head.append(&Entry { at_ms: 1_000, what }, &mut text).unwrap();
    }
    let end = Entry { at_ms: UNTIL_MS + SLACK_MS, what: What::PolicyFresh };
    head.append(&end, &mut text).unwrap();
    log(&text, &[]).unwrap().lines
}

/// Of this minute each, and no other at the end.
fn at_minutes(entries: Vec<(i64, What)>) -> Vec<Line> {
    let (mut head, mut text) = (Head::default(), Vec::new());
    for (minute, what) in entries {
        head.append(&Entry { at_ms: minute * MINUTE_MS, what }, &mut text).unwrap();
    }
    log(&text, &[]).unwrap().lines
}

fn received(segments: &[(u64, u64)]) -> What {
    received_with(segments, &[])
}

fn received_with(segments: &[(u64, u64)], wraps: &[(u32, u32, u32)]) -> What {
    What::Received { recipient: HOSPITAL, delivered: delivered(segments, wraps) }
}

fn fetched(segments: &[(u64, u64)], wraps: &[(u32, u32, u32)]) -> What {
    What::Fetched { recipient: HOSPITAL, feed: "feed".into(), delivered: delivered(segments, wraps) }
}

fn wrapped(epoch: u32) -> What {
    wrapped_of(PATIENT, epoch)
}

fn wrapped_of(patient: PatientId, epoch: u32) -> What {
    let (class, recipients) = (DataClass::Vitals, vec![HOSPITAL]);
    What::Wrapped { patient, class, generation: 0, epoch, depth: TREE_DEPTH, recipients }
}

/// A key of [`DataClass::Vitals`] that no gateway wrapped.
fn unwrapped(whose: &'static str, n: u64, epoch: u32) -> Disagreement {
    let (patient, class, generation) = (PATIENT, DataClass::Vitals, 0);
    Disagreement::Unwrapped { whose, n, patient, class, generation, epoch }
}

fn look(class: DataClass) -> What {
    let basis = AccessBasis::Consent;
    What::Look { user: "nurse".into(), patient: PATIENT, class, from_us: 0, until_us: None, basis }
}

fn exported(class: DataClass) -> What {
    let basis = AccessBasis::Emergency;
    What::Exported { uid: 1000, patient: PATIENT, class, from_us: 5, until_us: Some(9), basis }
}

fn part_of(us: i64) -> Part {
    Part { patient: PATIENT, class: DataClass::Vitals, from_us: us, until_us: us }
}

#[test]
fn logs_that_tell_the_same_agree() {
    let feed = lines(vec![look(DataClass::Vitals), received(&[(0, 4)]), received(&[(5, 9)])]);
    let core = lines(vec![fetched(&[(3, 9)], &[(0, 7, 8)]), fetched(&[(0, 2)], &[])]);
    let gateway = lines(vec![wrapped(8), wrapped(7)]);
    assert_eq!(agree(HOSPITAL, &feed, &core, &[&gateway]), Ok(UNTIL_MS));
    assert_eq!(agree(HOSPITAL, &feed, &core, &[]), Ok(UNTIL_MS));
    assert_eq!(agree(RecipientId([6; 20]), &[], &core, &[]), Ok(i64::MIN.saturating_sub(SLACK_MS)));
}

#[test]
fn a_node_of_the_past_is_as_good_as_its_epochs_and_a_leaf_is_written_as_ever() {
    let (class, recipients) = (DataClass::Vitals, vec![HOSPITAL]);
    let node = What::Wrapped { patient: PATIENT, class, generation: 0, epoch: 8, depth: 30, recipients };
    let feed = lines(vec![received(&[(0, 4)])]);
    let core = lines(vec![fetched(&[(0, 4)], &[(0, 7, 11)])]);
    let gateway = lines(vec![node.clone(), wrapped(7)]);
    assert!(agree(HOSPITAL, &feed, &core, &[&gateway]).is_ok());
    let beyond = lines(vec![fetched(&[(0, 4)], &[(0, 7, 12)]), fetched(&[], &[])]);
    assert_eq!(agree(HOSPITAL, &feed, &beyond, &[&gateway]), Err(unwrapped("core", 1, 12)));
    let json = |what: &What| serde_json::to_string(what).unwrap();
    assert!(!json(&wrapped(7)).contains("depth") && json(&node).contains("\"depth\":30"));
    assert_eq!(serde_json::from_str::<What>(&json(&wrapped(7))).unwrap(), wrapped(7));
}

#[test]
fn what_one_log_hides_another_shows() {
    let (patient, class) = (PATIENT, DataClass::Vitals);
    let core = lines(vec![fetched(&[(0, 3)], &[]), fetched(&[(4, 9)], &[(0, 7, 9)])]);
    let hides = lines(vec![received(&[(0, 5)]), received(&[(7, 9)])]);
    let gateway = lines(vec![wrapped(7), wrapped(9)]);
    let all = lines(vec![received(&[(0, 9)])]);
    assert_eq!(
        agree(HOSPITAL, &hides, &core, &[]),
        Err(Disagreement::Unreceived { n: 2, patient, class, segment: 6 })
    );
    assert_eq!(agree(HOSPITAL, &all, &core, &[&gateway]), Err(unwrapped("core", 2, 8)));
    let more = lines(vec![received(&[(0, 10)])]);
    assert_eq!(
        agree(HOSPITAL, &more, &core, &[]),
        Err(Disagreement::Undelivered { n: 1, patient, class, segment: 10 })
    );
    let shown = lines(vec![received(&[(0, 9)]), look(DataClass::Alarm)]);
    let written = lines(vec![received(&[(0, 9)]), exported(DataClass::Vitals), exported(DataClass::Alarm)]);
    let class = DataClass::Alarm;
    for (n, feed) in [(2, shown), (3, written)] {
        let unexplained = Disagreement::Unexplained { n, patient, class };
        assert_eq!(agree(HOSPITAL, &feed, &core, &[]), Err(unexplained));
    }
}

/// One minute an entry, as the others have it; the last one of each is at a time of its own.
#[test]
fn no_entry_with_a_wrong_time_switches_the_comparison_off() {
    let at = at_minutes;
    let (patient, class) = (PATIENT, DataClass::Vitals);
    let core = at(vec![
        (1, fetched(&[(0, 4)], &[(0, 7, 7)])),
        (2, fetched(&[(5, 9)], &[(0, 8, 8)])),
        (60, What::PolicyFresh),
    ]);
    let hides = Err(Disagreement::Unreceived { n: 2, patient, class, segment: 5 });
    // A log goes up to what its end tells, so that with an old time there nothing can be compared.
    let apart = Err(Disagreement::Apart { whose: "core", n: 1 });
    for (last, found, tells_later) in
        [(60, &hides, None), (0, &apart, Some(2)), (-1_000_000, &apart, Some(1))]
    {
        let feed = at(vec![(1, received(&[(0, 4)])), (60, What::PolicyFresh), (last, What::PolicyFresh)]);
        assert_eq!(agree(HOSPITAL, &feed, &core, &[]), *found, "an entry of minute {last} at the end");
        assert_eq!(ahead(&feed), tells_later);
    }
    // What was shown is looked for, whatever time its entry tells.
    let (shown, ends) = ((9_999, look(DataClass::Alarm)), (60, What::PolicyFresh));
    let feed = at(vec![(1, received(&[(0, 9)])), shown, (10, What::PolicyFresh), ends]);
    let unexplained = Disagreement::Unexplained { n: 2, patient, class: DataClass::Alarm };
    assert_eq!(agree(HOSPITAL, &feed, &core, &[]), Err(unexplained));
    // A feed without a log, or whose clock never was right.
    for feed in [at(Vec::new()), at(vec![(-900, received(&[(0, 9)])), (-800, What::PolicyFresh)])] {
        assert_eq!(agree(HOSPITAL, &feed, &core, &[]), apart);
    }

    // A gateway that was lost ends early, and another wraps for the patient. What it wrapped between the two is not known.
    let feed = at(vec![(1, received(&[(0, 9)])), (60, What::PolicyFresh)]);
    let next = |began: u32| at(vec![(2, wrapped(began)), (60, What::PolicyFresh)]);
    let lost = at(vec![(1, wrapped(7))]);
    assert_eq!(agree(HOSPITAL, &feed, &core, &[&lost, &next(5)]), Err(unwrapped("core", 2, 8)));
    assert!(agree(HOSPITAL, &feed, &core, &[&lost, &next(9)]).is_ok(), "the lost one may have wrapped it");
    assert_eq!(keys(HOSPITAL, &feed, &core, &[&lost, &next(9)]).unwrap().from, 12);
    assert!(agree(HOSPITAL, &feed, &core, &[&lost]).is_ok(), "its log tells nothing of later keys");
}

#[test]
fn a_gateways_log_whose_older_entries_are_gone_tells_of_keys_from_its_beginning_on() {
    /// Minutes of the entries' times.
    const BEGINS: u32 = 1_000;
    let at_ms = |minute: u32| i64::from(minute) * MINUTE_MS;
    let newer_part = |gone: usize, entries: &[(u32, What)]| {
        let (mut head, mut lines) = (Head::default(), Vec::new());
        for (minute, what) in entries {
            let mut line = Vec::new();
            head.append(&Entry { at_ms: at_ms(*minute), what: what.clone() }, &mut line).unwrap();
            lines.push(line);
        }
        newer(&lines[gone..].concat()).unwrap().lines
    };
    let ending = |what: What| vec![(BEGINS, what), (BEGINS + 100, What::PolicyFresh)];
    let gateway = |first: u32, next: u32| {
        let entries =
            [(BEGINS - 5, wrapped(first - 1)), (BEGINS, wrapped(first)), (BEGINS + 9, wrapped(next))];
        [&entries[..], &[(BEGINS + 100, What::PolicyFresh)]].concat()
    };
    let of = |first: u32, last: u32| vec![(0, first, last)];
    let feed = newer_part(0, &ending(received(&[(0, 9)])));
    let judged = |log: &[Line], keys: &[(u32, u32, u32)]| {
        let core = newer_part(0, &ending(fetched(&[(0, 9)], keys)));
        agree(HOSPITAL, &feed, &core, &[log]).map(|_until| ()).map_err(|found| {
            let Disagreement::Unwrapped { epoch, .. } = found else { panic!("{found}") };
            epoch
        })
    };
    // With its beginning it has all; without it those of two minutes after its first entry and later.
    let all = newer_part(0, &gateway(BEGINS, BEGINS + 9));
    let later = newer_part(1, &gateway(BEGINS, BEGINS + 9));
    let from = |gateways: &[&[Line]]| {
        let core = newer_part(0, &ending(fetched(&[(0, 9)], &of(BEGINS, BEGINS))));
        keys(HOSPITAL, &feed, &core, gateways).unwrap().from
    };
    assert_eq!((from(&[&all]), from(&[&all, &later])), (0, BEGINS + 3));
    for (keys, of_all, of_later) in [
        (of(BEGINS - 1, BEGINS), Ok(()), Ok(())),
        (of(BEGINS - 2, BEGINS), Err(BEGINS - 2), Ok(())),
        (of(BEGINS - 9, BEGINS + 2), Err(BEGINS - 9), Ok(())),
        (of(BEGINS, BEGINS + 3), Err(BEGINS + 1), Err(BEGINS + 3)),
        (of(BEGINS + 9, BEGINS + 9), Ok(()), Ok(())),
        (of(BEGINS + 9, BEGINS + 10), Err(BEGINS + 10), Err(BEGINS + 10)),
    ] {
        assert_eq!((judged(&all, &keys), judged(&later, &keys)), (of_all, of_later), "{keys:?}");
    }
    // A clock that was set back by an hour: what was wrapped before is of epochs that lie ahead.
    let set_back = newer_part(1, &gateway(BEGINS + 60, BEGINS + 60));
    assert_eq!(from(&[&set_back]), BEGINS + 61);
    assert_eq!(judged(&set_back, &of(BEGINS + 59, BEGINS + 61)), Err(BEGINS + 61));
    // What is here is chained all the same.
    let lines = whole(9);
    let gap = [&lines[2..4], &lines[5..]].concat().concat();
    assert_eq!(newer(&gap).map(drop), Err(Fault::Missing { n: 5, next: 6 }));
}

/// What stands behind an entry of a time that is far ahead may be as late, so nobody is accused; and nothing is hidden without a word.
#[test]
fn what_an_entry_with_a_wrong_time_hides_is_told() {
    let feed = at_minutes(vec![(1, received(&[(0, 4)])), (60, What::PolicyFresh)]);
    let gateway = at_minutes(vec![(1, wrapped(7)), (60, What::PolicyFresh)]);
    let core = at_minutes(vec![
        (1, fetched(&[(0, 4)], &[(0, 7, 7)])),
        (9_999, fetched(&[(5, 9)], &[(0, 8, 8)])),
        (50, What::PolicyFresh),
        (60, What::PolicyFresh),
    ]);
    assert_eq!(agree(HOSPITAL, &feed, &core, &[&gateway]), Ok(58 * MINUTE_MS));
    let hidden =
        |what, patient| Uncovered { whose: "core", what, patient, others: 0, n: 2, last: 4, older: 1 };
    let (deliveries, of_keys) = (hidden("deliveries", None), hidden("keys", Some(PATIENT)));
    assert_eq!(uncovered(HOSPITAL, &feed, &core, &[&gateway]), [deliveries, of_keys]);
    assert_eq!(uncovered(HOSPITAL, &feed, &core, &[]), [deliveries]);
    assert_eq!((ahead(&core), ahead(&feed)), (Some(2), None));
}

#[test]
fn a_key_that_the_core_leaves_out_is_found_in_the_feeds_log() {
    let feed = lines(vec![received(&[(0, 4)]), received_with(&[(5, 9)], &[(0, 7, 8)])]);
    let core = lines(vec![fetched(&[(0, 9)], &[])]);
    let secret = lines(vec![wrapped(7)]);
    let found = agree(HOSPITAL, &feed, &core, &[&secret]).unwrap_err();
    assert_eq!((found.entry(), found), (("feed", 2), unwrapped("feed", 2, 8)));
    let honest = lines(vec![wrapped(7), wrapped(8)]);
    assert_eq!(agree(HOSPITAL, &feed, &core, &[&honest]), Ok(UNTIL_MS));
}

#[test]
fn up_to_when_keys_are_compared_is_told_and_a_gateways_empty_log_is_none() {
    let at = at_minutes;
    let of_other = Delivered { patient: OTHER, ..delivered(&[], &[(0, 5, 5)]) };
    let other = What::Fetched { recipient: HOSPITAL, feed: "feed".into(), delivered: of_other };
    let feed = at(vec![(1, received(&[(0, 9)])), (60, What::PolicyFresh)]);
    let first = (1, fetched(&[(0, 9)], &[(0, 7, 7)]));
    let core = at(vec![first.clone(), (30, fetched(&[], &[(0, 8, 8)])), (60, What::PolicyFresh)]);
    let both = at(vec![first, (2, other), (60, What::PolicyFresh)]);
    let ends = |minute: i64, what: What| at(vec![(1, what), (minute, What::PolicyFresh)]);
    let (cut, whole, others) = (ends(20, wrapped(7)), ends(90, wrapped(7)), ends(40, wrapped_of(OTHER, 5)));
    let until = |core: &[Line], gateways: &[&[Line]]| {
        let found = keys(HOSPITAL, &feed, core, gateways)?;
        assert_eq!(found.from, 0);
        Some(found.until_ms / MINUTE_MS)
    };
    // What was wrapped in secret after the end of a log that was cut off is not found, and that is told.
    assert_eq!(agree(HOSPITAL, &feed, &core, &[&cut]), Ok(58 * MINUTE_MS));
    assert_eq!(until(&core, &[&cut]), Some(18));
    assert_eq!(agree(HOSPITAL, &feed, &core, &[&whole]), Err(unwrapped("core", 2, 8)));
    assert_eq!(until(&core, &[&whole]), Some(58), "no later than the others");
    // Of several patients the one whose gateway ends first counts.
    assert_eq!(until(&both, &[&whole, &others]), Some(38));
    assert_eq!(until(&core, &[&whole, &others]), Some(58));
    let without_keys = at(vec![(1, fetched(&[(0, 9)], &[])), (60, What::PolicyFresh)]);
    assert_eq!((until(&core, &[]), until(&without_keys, &[&whole])), (None, None));
    let empty = log(b"", &[]).unwrap().lines;
    let found = agree(HOSPITAL, &feed, &core, &[&whole, &empty]).unwrap_err();
    assert_eq!((found.reason(), found.entry()), ("empty", ("gateway", 1)));
}

#[test]
fn a_part_of_one_gateways_log_leaves_other_gateways_patients_looked_at() {
    let at = at_minutes;
    let feed = at(vec![(1_000, received(&[(0, 9)])), (1_100, What::PolicyFresh)]);
    let whole = at(vec![(990, wrapped(990)), (992, wrapped(992)), (1_100, What::PolicyFresh)]);
    let (gone, begins) = ((1, wrapped_of(OTHER, 1)), (1_000, wrapped_of(OTHER, 5_000)));
    let other = at(vec![gone, begins, (1_100, What::PolicyFresh)]);
    let with_part: [&[Line]; 2] = [&whole, &other[1..]];
    let judged = |gateways: &[&[Line]], first: u32, last: u32| {
        let core = at(vec![(1_000, fetched(&[(0, 9)], &[(0, first, last)])), (1_100, What::PolicyFresh)]);
        (agree(HOSPITAL, &feed, &core, gateways).err(), keys(HOSPITAL, &feed, &core, gateways))
    };
    let told = |from: u32| Some(Keys { from, until_ms: 1_098 * MINUTE_MS });
    assert_eq!(judged(&with_part, 990, 992), (Some(unwrapped("core", 1, 991)), told(990)));
    // The patient may have been at the other gateway before.
    assert_eq!(judged(&with_part, 980, 990), (None, told(990)));
    assert_eq!(judged(&with_part[..1], 980, 990), (Some(unwrapped("core", 1, 980)), told(0)));
    // Where no log wraps for the patient, each may have.
    assert_eq!(judged(&with_part[1..], 980, 5_000), (None, told(5_001)));
    assert_eq!(judged(&with_part[1..], 980, 5_001), (Some(unwrapped("core", 1, 5_001)), told(5_001)));
}

proptest! {
    #[test]
    fn lines_come_back_and_no_bytes_panic(at_ms in any::<i64>(), user in ".{0,40}", number in any::<u64>(), other in proptest::collection::vec(any::<u8>(), 0..300)) {
        let whats = [
            What::Frequent { user: user.clone(), count: number },
            What::CommandDone { user: user.clone(), patient: PATIENT, action: user.clone(), sequence: number, why: Some(user.clone()) },
            What::Offered { user: user.clone(), gateway: user.clone(), kind: user.clone() },
            What::OfferDone { user: user.clone(), gateway: user.clone(), kind: user.clone(), why: Some(user.clone()) },
            What::EmergencyOpened { user, pseudonym: Pseudonym([7; 32]), number, until: number, block: number },
            fetched(&[(0, number)], &[(1, 2, 3)]),
            look(DataClass::Sensitive),
            What::Export { uid: 0, of: None },
            What::Export { uid: 1000, of: Some(part_of(at_ms)) },
            exported(DataClass::Waveform),
        ];
        let (mut head, mut text) = (Head::default(), Vec::new());
        for what in whats.clone() {
            head.append(&Entry { at_ms, what }, &mut text).unwrap();
        }
        let lines = log(&text, &[]).unwrap().lines;
        prop_assert_eq!(lines.iter().map(|line| line.entry.what.clone()).collect::<Vec<_>>(), whats);
        drop(Line::decode(&other));
        drop(log(&other, &[]));
    }
}
