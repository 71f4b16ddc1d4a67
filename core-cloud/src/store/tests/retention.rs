//! What grows too old goes, and what is asked of history by time.

use caregate_protocol::uplink::{HistoryPlace, Question};

use super::*;

of_both! {
    a_chain_is_known_by_its_generations_and_their_epochs,
    history_is_what_a_recipient_can_open_of_a_time_in_pages,
    of_a_nodes_wraps_history_tells_the_newest,
    what_is_stored_is_counted_by_patient_and_signer,
    what_is_older_goes_whole_and_is_not_taken_again,
    the_newest_record_stays_so_that_no_index_is_given_twice,
}

fn of(patient: u8, epoch: u32, sequence: u64) -> Vec<u8> {
    segment_of(patient, DataClass::Vitals, Name { generation: 0, epoch, sequence }, b"readings")
}

pub(super) fn question(to: u8, from: u32, until: u32) -> Question {
    let (patient, class) = (PatientId([1; 16]), DataClass::Vitals);
    Question { recipient: recipient(to), patient, class, from, until, at: HistoryPlace::FIRST }
}

/// All of it, in pages of `bytes_max`; each record once, but for wraps.
fn all(store: &dyn Store, mut question: Question, bytes_max: usize) -> (Vec<Vec<u8>>, u32) {
    let (mut records, mut pages) = (Vec::new(), 0);
    loop {
        let past = store.history(&question, bytes_max).unwrap();
        pages += 1;
        for record in past.records {
            if !records.contains(&record) {
                records.push(record);
            }
        }
        match past.next {
            Some(next) => question.at = next,
            None => return (records, pages),
        }
    }
}

fn a_chain_is_known_by_its_generations_and_their_epochs(kind: Kind) {
    let world = World::new(kind);
    let of = |patient, class, generation, epoch, sequence| {
        segment_of(patient, class, Name { generation, epoch, sequence }, b"readings")
    };
    let vitals = DataClass::Vitals;
    let records = [
        of(1, vitals, 0, EPOCH, 0),
        of(1, vitals, 0, EPOCH + 9, 1),
        of(1, vitals, 0, EPOCH + 4, 2),
        of(1, vitals, 7, EPOCH + 9, 3),
        of(1, vitals, u32::MAX, EPOCH + 20, 4),
        of(1, DataClass::Alarm, 3, EPOCH + 1, 0),
        of(2, vitals, 5, EPOCH + 2, 0),
    ];
    world.store().put(&records).unwrap();
    let world = world.reopened();
    let asked = |patient: u8, class, from, most| {
        let used = world.store().generations(PatientId([patient; 16]), class, from, most).unwrap();
        used.into_iter().map(|used| (used.generation, used.first, used.last)).collect::<Vec<_>>()
    };
    let all = [(0, EPOCH, EPOCH + 9), (7, EPOCH + 9, EPOCH + 9), (u32::MAX, EPOCH + 20, EPOCH + 20)];
    assert_eq!(asked(1, vitals, 0, 9), all);
    assert_eq!((asked(1, vitals, 0, 2), asked(1, vitals, 8, 9)), (all[..2].to_vec(), all[2..].to_vec()));
    assert_eq!(asked(1, DataClass::Alarm, 0, 9), [(3, EPOCH + 1, EPOCH + 1)]);
    assert!(asked(1, DataClass::Waveform, 0, 9).is_empty() && asked(3, vitals, 0, 9).is_empty());
}

fn history_is_what_a_recipient_can_open_of_a_time_in_pages(kind: Kind) {
    let world = World::new(kind);
    // Recipient 1 holds the first two epochs, by a leaf each; recipient 2 the third and fourth, by one node above both.
    let wraps = [
        wrap_of(1, DataClass::Vitals, 0, (EPOCH, TREE_DEPTH), 1),
        wrap_of(1, DataClass::Vitals, 0, (EPOCH + 1, TREE_DEPTH), 1),
        wrap_of(1, DataClass::Vitals, 0, (EPOCH + 2, TREE_DEPTH - 1), 2),
    ];
    world.store().put(&wraps).unwrap();
    let segments: Vec<_> = (0..4_u32)
        .flat_map(|epoch| (0..5).map(move |n| of(1, EPOCH + epoch, u64::from(epoch) * 5 + n)))
        .collect();
    // In another order than they were sealed in.
    let mut shuffled = segments.clone();
    shuffled.reverse();
    world.store().put(&shuffled).unwrap();
    world.put(&of(2, EPOCH, 0));
    let later = Name { generation: 1, epoch: EPOCH + 3, sequence: 20 };
    let next_generation = segment_of(1, DataClass::Vitals, later, b"readings");
    let its_wrap = wrap_of(1, DataClass::Vitals, 1, (EPOCH + 3, TREE_DEPTH), 1);
    world.store().put(&[its_wrap.clone(), next_generation.clone()]).unwrap();
    let world = world.reopened();
    for bytes_max in [usize::MAX, 1000, 1] {
        let (records, pages) = all(world.store(), question(1, 0, u32::MAX), bytes_max);
        let mut expected = vec![wraps[0].clone()];
        expected.extend_from_slice(&segments[..5]);
        expected.push(wraps[1].clone());
        expected.extend_from_slice(&segments[5..10]);
        expected.extend([its_wrap.clone(), next_generation.clone()]);
        assert!(records == expected, "{bytes_max}: {} records", records.len());
        assert!(if bytes_max == 1 { pages >= 11 } else { pages <= 11 });
    }
    let (records, _) = all(world.store(), question(2, EPOCH + 3, EPOCH + 4), usize::MAX);
    assert!(records[0] == wraps[2] && records[1..] == segments[15..]);
    assert_eq!(all(world.store(), question(1, EPOCH + 1, EPOCH + 1), usize::MAX).0.len(), 0);
    assert_eq!(all(world.store(), question(3, 0, u32::MAX), usize::MAX).0.len(), 0);
    let beyond = HistoryPlace { generation: u32::MAX, epoch: u32::MAX, sequence: u64::MAX };
    let past = world.store().history(&Question { at: beyond, ..question(1, 0, u32::MAX) }, 1).unwrap();
    assert!(past.records.is_empty() && past.next.is_none());
}

fn what_is_stored_is_counted_by_patient_and_signer(kind: Kind) {
    let world = World::new(kind);
    let (one, other) = (of(1, EPOCH, 0), of(2, EPOCH, 0));
    world.store().put(&[one.clone(), one.clone(), other.clone()]).unwrap();
    world.put(&one);
    world.put(&of(1, EPOCH, 1));
    let world = world.reopened();
    let signer = signer_id(&device().verifying_key());
    let bytes = (one.len() + of(1, EPOCH, 1).len()) as u64;
    let expected = [(PatientId([1; 16]), signer, bytes), (PatientId([2; 16]), signer, other.len() as u64)];
    assert_eq!(world.store().usage().unwrap(), expected);
}

pub(super) fn expired(store: &dyn Store, before: u32) -> u64 {
    let mut records = 0;
    loop {
        let step = store.expire(PatientId([1; 16]), before).unwrap();
        records += step.records;
        if !step.more {
            return records;
        }
    }
}

fn of_a_nodes_wraps_history_tells_the_newest(kind: Kind) {
    let world = World::new(kind);
    let wraps: Vec<_> = (0..10).map(|_| wrap(EPOCH, 1)).collect();
    world.store().put(&wraps).unwrap();
    world.put(&of(1, EPOCH, 0));
    let past = world.store().history(&question(1, EPOCH, EPOCH + 1), usize::MAX).unwrap().records;
    assert_eq!(past, [&wraps[2..], &[of(1, EPOCH, 0)]].concat());
    assert_eq!(world.queue(1).len(), 11, "its queue has all");
}

fn what_is_older_goes_whole_and_is_not_taken_again(kind: Kind) {
    let world = World::new(kind);
    let wraps = [wrap(EPOCH, 1), wrap_of(1, DataClass::Vitals, 0, (EPOCH + 2, TREE_DEPTH - 1), 1)];
    world.store().put(&wraps).unwrap();
    // More than a step takes, and another patient's between them.
    let segments: Vec<_> = (0..5000).map(|n| of(1, EPOCH + u32::from(n >= 4000) * 2, n)).collect();
    for chunk in segments.chunks(1000) {
        world.store().put(chunk).unwrap();
        world.put(&of(2, EPOCH, chunk.len() as u64));
    }
    let heads = [10, 20].map(|made| head(5, hash_of(&segments[4]), made));
    assert!(heads.iter().all(|head| world.put(head) == Outcome::Stored));
    let next = world.store().next_number(recipient(1)).unwrap();
    assert_eq!(expired(world.store(), EPOCH), 1, "the head that a newer one has replaced");
    assert_eq!(expired(world.store(), EPOCH + 1), 4001, "4,000 segments and their wrap");
    assert_eq!(expired(world.store(), EPOCH + 3), 1000, "the wrap opens another epoch as well");
    let world = world.reopened();
    assert_eq!(expired(world.store(), EPOCH + 3), 0);
    assert_eq!(world.put(&segments[7]), Outcome::Known, "it is as old as what went");
    assert_eq!(world.put(&of(1, EPOCH + 9, 5000)), Outcome::Stored);
    assert_eq!(world.put(&of(2, EPOCH, 1000)), Outcome::Known, "another patient's stay");
    // Numbers go on, and a reader from the beginning gets what is left.
    assert_eq!(world.store().next_number(recipient(1)).unwrap(), next);
    let page = world.store().page(recipient(1), 0, u64::MAX, usize::MAX).unwrap();
    let kinds: Vec<_> = page.records.iter().map(|(_, record)| record.clone()).collect();
    assert_eq!(kinds, [wraps[1].clone(), heads[1].clone()]);
    let (records, _) = all(world.store(), question(1, 0, EPOCH + 3), usize::MAX);
    assert!(records.is_empty());
    let left = world.store().usage().unwrap()[0].2;
    let kept = wraps[1].len() + heads[1].len() + of(1, EPOCH + 9, 5000).len();
    assert_eq!(left, kept as u64);
}

fn the_newest_record_stays_so_that_no_index_is_given_twice(kind: Kind) {
    let world = World::new(kind);
    world.put(&wrap(EPOCH, 1));
    world.put(&of(1, EPOCH, 0));
    assert_eq!(expired(world.store(), u32::MAX), 1);
    assert_eq!(world.put(&wrap(EPOCH + 5, 2)), Outcome::Stored);
    assert_eq!(expired(world.store(), EPOCH + 1), 1, "once there is a newer one");
    // The place in the queue of recipient 1 does not lead to another's record.
    assert!(world.store().page(recipient(1), 0, u64::MAX, usize::MAX).unwrap().records.is_empty());
    let next = world.store().next_number(recipient(1)).unwrap();
    assert_eq!(next, 2);
}

pub(super) fn hash_of(segment: &[u8]) -> SegmentHash {
    let Record::Segment(decoded) = Record::decode(segment).unwrap() else { panic!("a segment") };
    decoded.hash()
}
