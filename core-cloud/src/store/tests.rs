//! The store's promises, with records as gateways make them.

use caregate_protocol::id::{DataClass, PatientId};
use caregate_protocol::key::{PatientRoot, TreeNode};
use caregate_protocol::segment::{Cipher, signer_id};
use caregate_protocol::wrap::{HpkePrivateKey, HpkePublicKey, WrapScope, generate_keypair};
use ed25519_dalek::SigningKey;
use tempfile::TempDir;

use std::sync::Arc;

use caregate_protocol::gap::{Gap, Missing, Why};
use caregate_protocol::head::Head;
use caregate_protocol::id::RecipientId;
use caregate_protocol::record::Record;
use caregate_protocol::segment::{Header, SegmentHash};

use super::index::TREE_DEPTH;
use super::*;

mod damage;
mod faults;
#[cfg(feature = "nats")]
mod nats;
mod power;
mod property;

const EPOCH: u32 = 29_000_000;
const PAGE_BYTES: usize = 1 << 20;

fn device() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

fn recipient(n: u8) -> RecipientId {
    RecipientId([n; 20])
}

fn public_key() -> HpkePublicKey {
    static KEY: std::sync::LazyLock<HpkePublicKey> = std::sync::LazyLock::new(|| generate_keypair().1);
    *KEY
}

/// What tells the segments of one patient and class apart here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    generation: u32,
    epoch: u32,
    sequence: u64,
}

fn segment_of(patient: u8, class: DataClass, name: Name, plaintext: &[u8]) -> Vec<u8> {
    let header = Header {
        class,
        cipher: Cipher::Aes256Gcm,
        patient: PatientId([patient; 16]),
        signer: signer_id(&device().verifying_key()),
        generation: name.generation,
        epoch: name.epoch,
        sequence: name.sequence,
        prev: SegmentHash::NONE,
        salt: [9; 16],
        sealed_us: 0,
        readings: 0,
    };
    let key =
        PatientRoot::from_bytes([7; 32]).class_key(class, name.generation).epoch_key(name.epoch).unwrap();
    header.seal(plaintext, &key, &device()).unwrap().0
}

fn segment(epoch: u32, sequence: u64) -> Vec<u8> {
    segment_of(1, DataClass::Vitals, Name { generation: 0, epoch, sequence }, b"readings")
}

fn wrap_of(patient: u8, class: DataClass, generation: u32, node: (u32, u8), to: u8) -> Vec<u8> {
    let scope = WrapScope { class, patient: PatientId([patient; 16]), generation, recipient: recipient(to) };
    sealed(scope, node, &public_key())
}

fn sealed(scope: WrapScope, node: (u32, u8), key: &HpkePublicKey) -> Vec<u8> {
    let node = TreeNode::new(node.0, node.1, [0; 32]).unwrap();
    scope.seal(&node, key, &device()).unwrap().to_vec()
}

fn wrap(epoch: u32, to: u8) -> Vec<u8> {
    wrap_of(1, DataClass::Vitals, 0, (epoch, TREE_DEPTH), to)
}

/// Which store a test looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Embedded,
    #[cfg(feature = "nats")]
    JetStream,
}

/// One test for each kind.
macro_rules! of_both {
    ($($name:ident),* $(,)?) => {
        mod on_disk {
            $(#[test] fn $name() { super::$name(super::Kind::Embedded); })*
        }
        #[cfg(feature = "nats")]
        mod on_stream {
            $(#[test] fn $name() { super::$name(super::Kind::JetStream); })*
        }
    };
}

mod erasure;
mod owners;
mod retention;

use retention::question;

of_both! {
    a_record_is_stored_once_also_after_a_restart_and_within_one_batch,
    a_wrap_to_the_recipients_next_key_is_delivered_and_each_wrap_once,
    another_segment_of_the_same_number_is_a_fork_and_the_first_stays,
    chains_of_other_patients_and_classes_have_numbers_of_their_own,
    a_wrap_precedes_its_segments_whichever_came_first,
    a_span_covers_exactly_its_epochs,
    the_root_of_the_tree_covers_every_epoch,
    wraps_that_overlap_bring_a_segment_once,
    nobody_is_offered_what_it_holds_no_wrap_for,
    pages_respect_their_bounds_and_always_make_progress,
    what_came_live_and_what_did_not_have_each_a_reader,
    queues_of_neighbouring_recipients_do_not_run_into_each_other,
    what_does_not_parse_is_refused_and_costs_the_others_nothing,
    a_store_is_held_by_one_process,
    a_newer_head_goes_to_those_that_can_open_its_chain_and_an_older_one_to_nobody,
    a_gap_goes_once_to_those_that_hold_its_epochs_wrap_whenever_that_comes,
}

struct World {
    kind: Kind,
    dir: Arc<TempDir>,
    /// None only while it is opened anew.
    store: Option<Arc<dyn Store>>,
    #[cfg(feature = "nats")]
    stream: Option<Arc<nats::TestStream>>,
}

impl World {
    fn new(kind: Kind) -> Self {
        let mut world = Self {
            kind,
            dir: Arc::new(tempfile::tempdir().unwrap()),
            store: None,
            #[cfg(feature = "nats")]
            stream: (kind == Kind::JetStream).then(|| Arc::new(nats::TestStream::new())),
        };
        world.store = Some(world.open().unwrap());
        world
    }

    fn open(&self) -> Result<Arc<dyn Store>, StoreError> {
        match self.kind {
            Kind::Embedded => Ok(Arc::new(Embedded::open(self.dir.path())?)),
            #[cfg(feature = "nats")]
            Kind::JetStream => {
                let settings = self.stream.as_ref().unwrap().settings();
                Ok(Arc::new(jetstream::JetStream::open(self.dir.path(), &settings)?))
            }
        }
    }

    fn reopened(mut self) -> Self {
        self.store = None;
        self.store = Some(self.open().unwrap());
        self
    }

    fn store(&self) -> &dyn Store {
        self.store.as_deref().unwrap()
    }

    fn put(&self, record: &[u8]) -> Outcome {
        self.store().put(&[record.to_vec()]).unwrap()[0]
    }

    /// The whole queue, page by page; numbers must be without a gap.
    fn queue(&self, to: u8) -> Vec<Vec<u8>> {
        let (mut at, mut all) = (0, Vec::new());
        loop {
            let page = self.store().page(recipient(to), at, u64::MAX, PAGE_BYTES).unwrap();
            if page.records.is_empty() {
                assert_eq!(self.store().next_number(recipient(to)).unwrap(), at);
                return all;
            }
            for (number, record) in page.records {
                assert_eq!(number, at);
                at += 1;
                all.push(record);
            }
            assert_eq!(page.next, at);
        }
    }
}

fn a_record_is_stored_once_also_after_a_restart_and_within_one_batch(kind: Kind) {
    let world = World::new(kind);
    let (wrap, segment) = (wrap(EPOCH, 1), segment(EPOCH, 0));
    assert_eq!(world.put(&wrap), Outcome::Stored);
    let twice = [segment.clone(), segment.clone()];
    assert_eq!(world.store().put(&twice).unwrap(), [Outcome::Stored, Outcome::Known]);
    let world = world.reopened();
    assert_eq!((world.put(&segment), world.put(&wrap)), (Outcome::Known, Outcome::Known));
    assert_eq!(world.queue(1), [wrap, segment]);
}

fn a_wrap_to_the_recipients_next_key_is_delivered_and_each_wrap_once(kind: Kind) {
    let world = World::new(kind);
    let (class, patient) = (DataClass::Vitals, PatientId([1; 16]));
    let scope = WrapScope { class, patient, generation: 0, recipient: recipient(1) };
    let ((old, old_public), (new, new_public)) = (generate_keypair(), generate_keypair());
    // A past of two minutes: what the recipient was given first, and given again when it had another key. Once the same key again, as after
    // a gateway's kill.
    let node = (EPOCH, TREE_DEPTH - 1);
    let wraps = [&old_public, &old_public, &new_public].map(|key| sealed(scope, node, key));
    let segments = [segment(EPOCH, 0), segment(EPOCH + 1, 1), segment(EPOCH + 1, 2)];
    world.store().put(&[wraps[0].clone(), segments[0].clone(), segments[1].clone()]).unwrap();
    let later = [wraps[1].clone(), wraps[2].clone(), wraps[1].clone(), segments[2].clone()];
    let outcomes = [Outcome::Stored, Outcome::Stored, Outcome::Known, Outcome::Stored];
    assert_eq!(world.store().put(&later).unwrap(), outcomes);
    let world = world.reopened();
    // An uplink that was cut sends all again, and in any order.
    assert!(wraps.iter().rev().all(|wrap| world.put(wrap) == Outcome::Known));
    let queue = [&wraps[0], &segments[0], &segments[1], &wraps[1], &wraps[2], &segments[2]];
    assert_eq!(world.queue(1).iter().collect::<Vec<_>>(), queue, "no segment is brought twice");
    let past = world.store().history(&question(1, EPOCH, EPOCH + 2), usize::MAX).unwrap().records;
    assert_eq!(past, [&wraps[..], &segments].concat());
    let opened_by = |key: &HpkePrivateKey| {
        let gateway = device().verifying_key();
        let opens = |record: &Vec<u8>| matches!(Record::decode(record), Ok(Record::Wrap(wrap)) if wrap.open(key, &gateway).is_ok());
        past.iter().filter(|record| opens(record)).count()
    };
    assert_eq!((opened_by(&old), opened_by(&new)), (2, 1));
    // Each counts, and goes with the others.
    let bytes = past.iter().map(|record| record.len() as u64).sum::<u64>();
    assert_eq!(world.store().usage().unwrap()[0].2, bytes);
    world.put(&segment_of(2, class, Name { generation: 0, epoch: EPOCH + 9, sequence: 0 }, b"newest"));
    assert_eq!(retention::expired(world.store(), EPOCH + 2), 6);
    assert_eq!(world.store().usage().unwrap()[0].2, 0);
    assert!(world.store().page(recipient(1), 0, u64::MAX, PAGE_BYTES).unwrap().records.is_empty());
}

fn another_segment_of_the_same_number_is_a_fork_and_the_first_stays(kind: Kind) {
    let world = World::new(kind);
    let name = Name { generation: 0, epoch: EPOCH, sequence: 0 };
    let (first, other) = (segment(EPOCH, 0), segment_of(1, DataClass::Vitals, name, b"others"));
    world.put(&wrap(EPOCH, 1));
    assert_eq!(world.put(&first), Outcome::Stored);
    assert_eq!(world.put(&other), Outcome::Refused(Refusal::Fork));
    // Another epoch or generation makes it no better: the chain's number is taken.
    assert_eq!(world.put(&segment(EPOCH + 1, 0)), Outcome::Refused(Refusal::Fork));
    let world = world.reopened();
    assert_eq!(world.put(&other), Outcome::Refused(Refusal::Fork));
    assert_eq!(world.queue(1)[1..], [first]);
}

fn chains_of_other_patients_and_classes_have_numbers_of_their_own(kind: Kind) {
    let world = World::new(kind);
    let name = Name { generation: 0, epoch: EPOCH, sequence: 0 };
    for (patient, class) in [(1, DataClass::Vitals), (1, DataClass::Alarm), (2, DataClass::Vitals)] {
        assert_eq!(world.put(&segment_of(patient, class, name, b"")), Outcome::Stored);
    }
}

fn a_wrap_precedes_its_segments_whichever_came_first(kind: Kind) {
    let (wrap, early, late) = (wrap(EPOCH, 1), segment(EPOCH, 0), segment(EPOCH, 1));
    for order in [[&wrap, &early, &late], [&early, &wrap, &late], [&early, &late, &wrap]] {
        let world = World::new(kind);
        for record in order {
            assert_eq!(world.put(record), Outcome::Stored);
        }
        assert_eq!(world.queue(1), [wrap.clone(), early.clone(), late.clone()]);
    }
}

fn a_span_covers_exactly_its_epochs(kind: Kind) {
    // Two levels above the leaves: four epochs, of which EPOCH is the first.
    let span = wrap_of(1, DataClass::Vitals, 0, (EPOCH, TREE_DEPTH - 2), 1);
    assert_eq!(EPOCH % 4, 0);
    for span_first in [true, false] {
        let world = World::new(kind);
        if span_first {
            world.put(&span);
        }
        for (sequence, epoch) in (EPOCH - 1..=EPOCH + 4).enumerate() {
            world.put(&segment(epoch, sequence as u64));
        }
        if !span_first {
            world.put(&span);
        }
        let inside = (0..4).map(|n| segment(EPOCH + n, u64::from(n) + 1));
        let expected: Vec<_> = [span.clone()].into_iter().chain(inside).collect();
        assert_eq!(world.queue(1), expected);
    }
}

fn the_root_of_the_tree_covers_every_epoch(kind: Kind) {
    let world = World::new(kind);
    world.put(&segment(0, 0));
    world.put(&wrap_of(1, DataClass::Vitals, 0, (0, 0), 1));
    world.put(&segment(u32::MAX, 1));
    assert_eq!(world.queue(1).len(), 3);
}

fn wraps_that_overlap_bring_a_segment_once(kind: Kind) {
    let world = World::new(kind);
    for record in [
        wrap(EPOCH, 1),
        segment(EPOCH, 0),
        segment(EPOCH + 1, 1),
        wrap_of(1, DataClass::Vitals, 0, (EPOCH, TREE_DEPTH - 4), 1),
        wrap(EPOCH + 1, 1),
        segment(EPOCH, 2),
    ] {
        assert_eq!(world.put(&record), Outcome::Stored);
    }
    let queue = world.queue(1);
    let segments: Vec<_> =
        queue.iter().filter(|r| matches!(Record::decode(r), Ok(Record::Segment(_)))).collect();
    assert_eq!(segments, [&segment(EPOCH, 0), &segment(EPOCH + 1, 1), &segment(EPOCH, 2)]);
}

fn nobody_is_offered_what_it_holds_no_wrap_for(kind: Kind) {
    let world = World::new(kind);
    world.put(&wrap(EPOCH, 1));
    world.put(&wrap_of(1, DataClass::Alarm, 0, (EPOCH, TREE_DEPTH), 2));
    world.put(&wrap_of(1, DataClass::Vitals, 1, (EPOCH, TREE_DEPTH), 3));
    world.put(&wrap_of(2, DataClass::Vitals, 0, (EPOCH, TREE_DEPTH), 4));
    world.put(&wrap(EPOCH + 1, 5));
    world.put(&segment(EPOCH, 0));
    let lengths: Vec<_> = (1..=6).map(|to| world.queue(to).len()).collect();
    assert_eq!(
        lengths,
        [2, 1, 1, 1, 1, 0],
        "class, generation, patient and epoch each keep the segment away"
    );
}

fn what_came_live_and_what_did_not_have_each_a_reader(kind: Kind) {
    const ALL: [Option<Timing>; 3] = [None, Some(Timing::Live), Some(Timing::Backlog)];
    let world = World::new(kind);
    let put = |records: &[Vec<u8>], as_of| world.store().put_as(records, as_of).unwrap();
    put(&[wrap(EPOCH, 1), segment(EPOCH, 0), segment(EPOCH + 1, 1), segment(EPOCH + 4, 9)], Timing::Backlog);
    put(&[segment(EPOCH, 2), segment(EPOCH + 2, 3), head(9, SegmentHash([5; 32]), 1)], Timing::Live);
    put(&[segment(EPOCH, 4), segment(EPOCH, 2)], Timing::Backlog);
    // One of an epoch brings what came a moment before it; one above it, a past.
    put(&[wrap(EPOCH + 1, 1)], Timing::Backlog);
    put(&[wrap_of(1, DataClass::Vitals, 0, (EPOCH, TREE_DEPTH - 2), 1)], Timing::Live);
    let numbers = |world: &World, of, from| -> Vec<u64> {
        let page =
            world.store().page_of(recipient(1), Span { from, until: u64::MAX, of }, PAGE_BYTES).unwrap();
        assert_eq!(page.next, 9, "also what was passed over is behind it");
        page.records.into_iter().map(|(number, _)| number).collect()
    };
    let world = world.reopened();
    assert_eq!(
        ALL.map(|of| numbers(&world, of, 0)),
        [(0..9).collect(), vec![0, 2, 3, 5, 6, 7], vec![1, 4, 8]]
    );
    assert_eq!(ALL.map(|of| numbers(&world, of, 3).len()), [6, 4, 2]);
}

fn pages_respect_their_bounds_and_always_make_progress(kind: Kind) {
    const NONE: [u64; 0] = [];
    let world = World::new(kind);
    let records: Vec<_> =
        [wrap(EPOCH, 1)].into_iter().chain((0..9).map(|sequence| segment(EPOCH, sequence))).collect();
    world.store().put(&records).unwrap();
    let size = records[1].len();
    let numbers = |from, until, bytes| -> Vec<u64> {
        let page = world.store().page(recipient(1), from, until, bytes).unwrap();
        assert_eq!(page.next, page.records.last().map_or(from, |(number, _)| number + 1));
        page.records.into_iter().map(|(number, _)| number).collect()
    };
    assert_eq!(numbers(1, u64::MAX, 3 * size), [1, 2, 3]);
    assert_eq!(numbers(1, u64::MAX, 3 * size - 1), [1, 2]);
    assert_eq!(numbers(1, u64::MAX, 0), [1], "one record always goes");
    assert_eq!(numbers(2, 4, PAGE_BYTES), [2, 3], "until is one past the last");
    assert_eq!(numbers(0, 0, PAGE_BYTES), NONE);
    assert_eq!(numbers(5, 5, PAGE_BYTES), NONE);
    assert_eq!(numbers(7, 3, PAGE_BYTES), NONE);
    assert_eq!(numbers(10, u64::MAX, PAGE_BYTES), NONE);
    assert_eq!(numbers(u64::MAX, u64::MAX, PAGE_BYTES), NONE);
    assert_eq!(world.store().next_number(recipient(1)).unwrap(), 10);
    assert_eq!(world.store().next_number(recipient(2)).unwrap(), 0);
}

fn queues_of_neighbouring_recipients_do_not_run_into_each_other(kind: Kind) {
    let world = World::new(kind);
    for to in [0, 1, 0xff] {
        world.put(&wrap(EPOCH, to));
    }
    world.put(&segment(EPOCH, 0));
    for to in [0, 1, 0xff] {
        assert_eq!(world.queue(to), [world.queue(to)[0].clone(), segment(EPOCH, 0)]);
    }
}

fn what_does_not_parse_is_refused_and_costs_the_others_nothing(kind: Kind) {
    let world = World::new(kind);
    let mut cut = segment(EPOCH, 7);
    cut.pop();
    let batch = [wrap(EPOCH, 1), cut, Vec::new(), b"CGSG".to_vec(), vec![0xff; 300], segment(EPOCH, 0)];
    let refused = Outcome::Refused(Refusal::Malformed);
    let outcomes = [Outcome::Stored, refused, refused, refused, refused, Outcome::Stored];
    assert_eq!(world.store().put(&batch).unwrap(), outcomes);
    assert_eq!(world.reopened().queue(1), [batch[0].clone(), batch[5].clone()]);
}

fn a_store_is_held_by_one_process(kind: Kind) {
    let world = World::new(kind);
    let error = world.open().unwrap_err().to_string();
    assert!(error.starts_with("store: open ") && error.contains(".redb"), "{error}");
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("core.redb");
    std::fs::write(&path, vec![0x5a; 8192]).unwrap();
    assert!(Embedded::open(dir.path()).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), vec![0x5a; 8192]);
}

fn head(next: u64, last: SegmentHash, made_us: i64) -> Vec<u8> {
    let (class, patient) = (DataClass::Vitals, PatientId([1; 16]));
    Head { class, patient, generation: 0, epoch: EPOCH, made_us, next, last }.sign(&device()).to_vec()
}

fn a_newer_head_goes_to_those_that_can_open_its_chain_and_an_older_one_to_nobody(kind: Kind) {
    let world = World::new(kind);
    let segment = segment(EPOCH, 0);
    let Record::Segment(decoded) = Record::decode(&segment).unwrap() else { panic!("a segment") };
    let hash = decoded.hash();
    world.put(&wrap(EPOCH, 1));
    world.put(&wrap(EPOCH + 1, 2));
    world.put(&segment);
    let (older, newer) = (head(1, hash, 5), head(1, hash, 10));
    assert_eq!((world.put(&newer), world.put(&older)), (Outcome::Stored, Outcome::Known));
    let world = world.reopened();
    assert_eq!(world.put(&newer), Outcome::Known);
    assert_eq!(world.put(&head(1, SegmentHash([9; 32]), 20)), Outcome::Refused(Refusal::Fork));
    // One that names a segment which has not come yet: those behind it may be on their way.
    let ahead = head(7, SegmentHash([9; 32]), 15);
    assert_eq!(world.put(&ahead), Outcome::Stored);
    assert_eq!(world.queue(1)[2..], [newer, ahead]);
    assert_eq!(world.queue(2).len(), 1, "who can't open the chain's end hears nothing of it");
}

fn a_gap_goes_once_to_those_that_hold_its_epochs_wrap_whenever_that_comes(kind: Kind) {
    let world = World::new(kind);
    let gap = |epoch, last| {
        let hash = SegmentHash::NONE;
        let missing = Missing { why: Why::Expired, first: 3, last, from_us: 0, to_us: 0, hash };
        let (class, patient) = (DataClass::Vitals, PatientId([1; 16]));
        Gap { class, patient, generation: 0, epoch, made_us: 5, missing }.sign(&device()).to_vec()
    };
    world.put(&wrap(EPOCH, 1));
    world.put(&wrap(EPOCH + 1, 2));
    let told = gap(EPOCH, 7);
    assert_eq!((world.put(&told), world.put(&told)), (Outcome::Stored, Outcome::Known));
    assert_eq!(world.put(&gap(EPOCH + 1, 7)), Outcome::Known, "told again after a kill");
    let world = world.reopened();
    assert_eq!(world.put(&told), Outcome::Known);
    assert_eq!(world.queue(1)[1..], *std::slice::from_ref(&told));
    assert_eq!(world.queue(2).len(), 1, "who can't open the class's present hears nothing of it");
    let late = wrap(EPOCH, 3);
    world.put(&late);
    assert_eq!(world.queue(3), [late, told]);
}

/// A file system that fails from some write on, so that a commit can fail in the middle.
#[derive(Debug)]
struct Failing {
    memory: redb::backends::InMemoryBackend,
    fails: Arc<std::sync::atomic::AtomicBool>,
}

impl Failing {
    fn check(&self) -> std::io::Result<()> {
        if self.fails.load(std::sync::atomic::Ordering::SeqCst) {
            Err(std::io::Error::other("the disk is gone"))
        } else {
            Ok(())
        }
    }
}

impl redb::StorageBackend for Failing {
    fn len(&self) -> std::io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.check()?;
        self.memory.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.check()?;
        self.memory.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.check()?;
        self.memory.write(offset, data)
    }
}

#[test]
fn a_batch_whose_commit_fails_is_an_error_and_none_of_it_counts() {
    let fails = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let backend = Failing { memory: redb::backends::InMemoryBackend::new(), fails: fails.clone() };
    let store = Embedded::open_on(backend, || Ok(())).unwrap();
    store.put(&[wrap(EPOCH, 1), segment(EPOCH, 0)]).unwrap();
    fails.store(true, std::sync::atomic::Ordering::SeqCst);
    let error = store.put(&[segment(EPOCH, 1), segment(EPOCH, 2)]).unwrap_err().to_string();
    assert!(error.starts_with("store: "), "{error}");
    fails.store(false, std::sync::atomic::Ordering::SeqCst);
    // redb goes no further after a failed write; what it does still say must not include the batch.
    if let Ok(page) = store.page(recipient(1), 0, u64::MAX, PAGE_BYTES) {
        assert_eq!(page.records.len(), 2);
    }
    assert!(store.put(&[segment(EPOCH, 1)]).is_err(), "and it takes nothing more in this process");
}
