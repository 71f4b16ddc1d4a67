use caregate_protocol::gap::{Gap, Why};
use caregate_protocol::head::Head;
use caregate_protocol::key::{PatientRoot, TREE_DEPTH};
use caregate_protocol::segment::{Cipher, SegmentHash};
use caregate_protocol::wrap::{WrapScope, generate_keypair};
use ed25519_dalek::SigningKey;

use super::*;

const EPOCH: u32 = 29_000_000;

struct World {
    device: SigningKey,
    root: PatientRoot,
    opener: Opener,
    wrap: Vec<u8>,
}

fn world() -> World {
    let device = SigningKey::from_bytes(&[3; 32]);
    let root = PatientRoot::from_bytes([7; 32]);
    let (private, public) = generate_keypair();
    let recipient = RecipientId([5; 20]);
    let scope = WrapScope { class: DataClass::Vitals, patient: PatientId([1; 16]), generation: 0, recipient };
    let leaf = root.class_key(DataClass::Vitals, 0).descend(EPOCH, TREE_DEPTH).unwrap();
    let wrap = scope.seal(&leaf, &public, &device).unwrap().to_vec();
    let opener = Opener::new(recipient, private, [device.verifying_key()]);
    World { device, root, opener, wrap }
}

/// A segment of the patient's vitals without readings.
pub(crate) fn segment_of(sequence: u64) -> Vec<u8> {
    world().segment(sequence, SegmentHash::NONE).0
}

impl World {
    fn segment(&self, sequence: u64, prev: SegmentHash) -> (Vec<u8>, SegmentHash) {
        self.sealed(sequence, prev, 0, &reading::encode(&[]))
    }

    fn sealed(
        &self,
        sequence: u64,
        prev: SegmentHash,
        readings: u32,
        plaintext: &[u8],
    ) -> (Vec<u8>, SegmentHash) {
        let header = Header {
            class: DataClass::Vitals,
            cipher: Cipher::Aes256Gcm,
            patient: PatientId([1; 16]),
            signer: signer_id(&self.device.verifying_key()),
            generation: 0,
            epoch: EPOCH,
            sequence,
            prev,
            salt: [9; 16],
            sealed_us: 0,
            readings,
        };
        let key = self.root.class_key(DataClass::Vitals, 0).epoch_key(EPOCH).unwrap();
        header.seal(plaintext, &key, &self.device).unwrap()
    }

    /// What a record opened, none refused.
    fn opened(&mut self, record: &[u8]) -> Vec<Opened> {
        let taken = self.opener.take(record);
        assert!(taken.refused.is_empty(), "{:?}", taken.refused);
        taken.opened
    }

    /// Why a record was refused, none opened.
    fn refused(&mut self, record: &[u8]) -> Vec<&'static str> {
        let taken = self.opener.take(record);
        assert!(taken.opened.is_empty());
        taken.refused.iter().map(OpenError::reason).collect()
    }
}

#[test]
fn an_erased_patient_is_forgotten_and_only_by_a_gateways_word() {
    let mut world = world();
    let patient = PatientId([1; 16]);
    assert_eq!(world.opener.take(&world.wrap).refused.len(), 0);
    let request = erasure::Erasure { patient, made_us: 7 };
    let stranger = request.sign(&SigningKey::from_bytes(&[9; 32]));
    let taken = world.opener.take(&stranger);
    assert_eq!((taken.erased, taken.refused[0].reason()), (None, "signer"));
    assert_eq!(world.opener.nodes.len(), 1);
    let other = erasure::Erasure { patient: PatientId([2; 16]), made_us: 7 }.sign(&world.device);
    assert_eq!(world.opener.take(&other).erased, Some((PatientId([2; 16]), RequestHash::of(&other))));
    assert_eq!(world.opener.nodes.len(), 1, "another's keys stay");
    assert_eq!(world.opener.take(&request.sign(&world.device)).erased.map(|(of, _)| of), Some(patient));
    assert!(world.opener.nodes.is_empty() && world.opener.ages.is_empty() && world.opener.chains.is_empty());
    // What of its past was on its way behind the request.
    let (wrap, (segment, _)) = (world.wrap.clone(), world.segment(0, SegmentHash::NONE));
    assert!(world.opened(&wrap).is_empty() && world.opened(&segment).is_empty());
    assert!(world.opener.nodes.is_empty() && world.opener.chains.is_empty());
    assert_eq!(world.opener.waiting_bytes(), 0);
}

#[test]
fn a_segment_before_its_wrap_waits_and_is_opened_by_it() {
    let mut world = world();
    let (segment, _) = world.segment(0, SegmentHash::NONE);
    assert!(world.opened(&segment).is_empty());
    assert_eq!(world.opener.waiting_bytes(), segment.len());
    let wrap = world.wrap.clone();
    let opened = world.opened(&wrap);
    assert_eq!((opened.len(), opened[0].sequence, world.opener.waiting_bytes()), (1, 0, 0));
    assert!(world.opened(&segment).is_empty(), "a duplicate opens nothing twice");
}

#[test]
fn a_preview_opens_what_has_a_key_and_changes_no_chain() {
    let (mut world, mut early) = (world(), world());
    let (zero, hash) = world.segment(0, SegmentHash::NONE);
    let (one, _) = world.segment(1, hash);
    let (patient, wrap) = (PatientId([1; 16]), world.wrap.clone());
    let preview = |world: &mut World, record: &[u8]| {
        let taken = world.opener.preview(record);
        (taken.provisional.map(|opened| opened.sequence), taken.opened.len(), taken.refused.len())
    };
    assert_eq!(preview(&mut world, &zero), (None, 0, 0), "there is no key yet");
    assert_eq!(world.opener.waiting_bytes(), 0);
    assert_eq!(preview(&mut world, &wrap), (None, 0, 0));
    for _ in 0..2 {
        assert_eq!(preview(&mut world, &zero), (Some(0), 0, 0));
    }
    assert_eq!(world.opener.chain(patient, DataClass::Vitals), None);
    assert_eq!(world.opened(&zero).len(), 1, "by the queue it is new");
    assert_eq!(preview(&mut world, &zero), (None, 0, 0), "and no preview after that");
    // One whose signature does not hold; and a wrap opens what had waited, as by the queue.
    let mut forged = one.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(preview(&mut world, &forged), (None, 0, 1));
    let (waiting, _) = early.segment(0, SegmentHash::NONE);
    assert!(early.opened(&waiting).is_empty());
    let wrap = early.wrap.clone();
    assert_eq!(preview(&mut early, &wrap), (None, 1, 0));
    // Of an erased patient nothing.
    let erased = erasure::Erasure { patient, made_us: 7 }.sign(&world.device);
    assert_eq!(world.opener.take(&erased).erased, Some((patient, RequestHash::of(&erased))));
    let wrap = world.wrap.clone();
    assert_eq!(preview(&mut world, &wrap), (None, 0, 0));
    assert_eq!((preview(&mut world, &one), world.opener.nodes.len()), ((None, 0, 0), 0));
}

#[test]
fn a_gap_and_a_fork_are_told_apart() {
    let mut world = world();
    let wrap = world.wrap.clone();
    world.opened(&wrap);
    let (zero, hash) = world.segment(0, SegmentHash::NONE);
    let (two, _) = world.segment(2, SegmentHash([8; 32]));
    let (fork, _) = world.segment(1, SegmentHash([9; 32]));
    assert_eq!(world.opened(&zero).len() + world.opened(&two).len(), 2);
    let state = world.opener.chain(PatientId([1; 16]), DataClass::Vitals).unwrap();
    assert_eq!(state, ChainState { verified: 2, gap: Some((1, 1)), told: None });
    assert_eq!(world.refused(&fork), ["chain"]);
    let (one, _) = world.segment(1, hash);
    assert_eq!(world.refused(&one), ["chain"], "two names another hash than one has");
}

#[test]
fn a_waiting_segment_that_is_refused_keeps_no_other_back() {
    let mut world = world();
    let empty = reading::encode(&[]);
    let (zero, hash) = world.segment(0, SegmentHash::NONE);
    let (no_readings, _) = world.sealed(1, hash, 0, b"rubbish");
    let (miscounted, _) = world.sealed(1, hash, 1, &empty);
    let (fork, _) = world.segment(1, SegmentHash([9; 32]));
    let (one, _) = world.segment(1, hash);
    for segment in [&zero, &no_readings, &miscounted, &fork, &one] {
        assert!(world.opened(segment).is_empty());
    }
    assert!(world.opener.waiting_bytes() > 0);
    let wrap = world.wrap.clone();
    let taken = world.opener.take(&wrap);
    assert_eq!(taken.opened.iter().map(|o| o.sequence).collect::<Vec<_>>(), [0, 1]);
    let reasons: Vec<_> = taken.refused.iter().map(OpenError::reason).collect();
    assert_eq!(reasons, ["readings", "count", "chain"]);
    assert_eq!(world.opener.waiting_bytes(), 0);
    let state = world.opener.chain(PatientId([1; 16]), DataClass::Vitals).unwrap();
    assert_eq!(state, ChainState { verified: 1, gap: None, told: None });
    assert_eq!(world.refused(&miscounted), ["count"]);
}

#[test]
fn a_head_shows_the_tail_that_is_missing() {
    let mut world = world();
    let wrap = world.wrap.clone();
    world.opened(&wrap);
    let (zero, hash) = world.segment(0, SegmentHash::NONE);
    let (one, last) = world.segment(1, hash);
    world.opened(&zero);
    let head = |next, last, made_us| {
        let (class, patient) = (DataClass::Vitals, PatientId([1; 16]));
        Head { class, patient, generation: 0, epoch: EPOCH, made_us, next, last }
    };
    let device = world.device.clone();
    assert!(world.opened(&head(2, last, 10).sign(&device)).is_empty());
    let state = |world: &World| world.opener.chain(PatientId([1; 16]), DataClass::Vitals).unwrap();
    assert_eq!(state(&world), ChainState { verified: 0, gap: Some((1, 1)), told: None });
    assert_eq!(world.opened(&one).len(), 1);
    assert_eq!(state(&world), ChainState { verified: 1, gap: None, told: None });
    assert_eq!(world.refused(&head(2, hash, 20).sign(&device)), ["chain"]);
    let stranger = SigningKey::from_bytes(&[4; 32]);
    assert_eq!(world.refused(&head(9, last, 20).sign(&stranger)), ["signer"]);
}

#[test]
fn a_gap_that_is_told_is_no_gap_unless_it_contradicts_the_chain() {
    let mut world = world();
    let wrap = world.wrap.clone();
    world.opened(&wrap);
    let (zero, hash) = world.segment(0, SegmentHash::NONE);
    let (one, last) = world.segment(1, hash);
    let (two, _) = world.segment(2, last);
    world.opened(&zero);
    world.opened(&two);
    let told = |hash| {
        let missing = Missing { why: Why::Expired, first: 1, last: 1, from_us: 0, to_us: 0, hash };
        let (class, patient) = (DataClass::Vitals, PatientId([1; 16]));
        Gap { class, patient, generation: 0, epoch: EPOCH, made_us: 9, missing }
    };
    let device = world.device.clone();
    assert_eq!(world.refused(&told(hash).sign(&device)), ["chain"]);
    assert_eq!(world.refused(&told(last).sign(&SigningKey::from_bytes(&[4; 32]))), ["signer"]);
    let state = |world: &World| world.opener.chain(PatientId([1; 16]), DataClass::Vitals).unwrap();
    assert_eq!(state(&world), ChainState { verified: 2, gap: Some((1, 1)), told: None });
    assert!(world.opened(&told(last).sign(&device)).is_empty());
    assert_eq!(state(&world), ChainState { verified: 2, gap: None, told: Some(told(last).missing) });
    assert_eq!(world.opened(&one).len(), 1);
    assert_eq!(state(&world), ChainState { verified: 2, gap: None, told: None });
}

#[test]
fn another_gateways_signature_is_refused() {
    let mut world = world();
    world.device = SigningKey::from_bytes(&[4; 32]);
    let (segment, _) = world.segment(0, SegmentHash::NONE);
    assert_eq!(world.refused(&segment), ["signer"]);
}
