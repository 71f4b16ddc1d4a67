//! Power cuts: gateways that send until they are told that it is durable, have pseudonyms erased, and feeds that tell of theirs, on a disk
//! that loses whatever no sync has covered.
//!
//! As `edge-gateway/src/spool/tests/power.rs` does for the spool: the same environment variables, and a last line for
//! `cargo xtask chaos`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};

use caregate_crash::{Disk, Image, Random, Syncs, Tally};
use caregate_protocol::erasure::{Issuer, Receipt, RequestHash};
use redb::StorageBackend;

use super::erasure::{own, request};
use super::*;

/// Of the gate; a few seconds.
const ROUNDS: u64 = 150;
/// Steps of a round at most: opening takes some dozens, a commit some ten.
const STEPS_MAX: u64 = 260;
pub(super) const FILE: &str = "core.redb";
/// Its name until it is whole.
const UNFINISHED: &str = "core.redb.new";

/// redb on the disk that loses power.
#[derive(Debug, Clone)]
pub(super) struct Backend(pub(super) Arc<Mutex<Disk>>, pub(super) &'static str);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len(self.1))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.lock().unwrap().read(self.1, offset, out);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().set_len(self.1, len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.lock().unwrap().sync(self.1);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().write(self.1, offset, data);
        Ok(())
    }
}

/// A gateway's records in the order in which it made them: of each ten the first is the wrap of an epoch, the others are its segments;
/// of forty each a patient's.
fn record(nth: u64) -> Vec<u8> {
    static MADE: Mutex<BTreeMap<u64, Vec<u8>>> = Mutex::new(BTreeMap::new());
    let make = || {
        let (patient, epoch) = (patient_of(nth), EPOCH + u32::try_from(nth / 10).unwrap());
        if nth.is_multiple_of(10) {
            return wrap_of(patient, DataClass::Vitals, 0, (epoch, TREE_DEPTH), 1);
        }
        let name = Name { generation: 0, epoch, sequence: nth };
        segment_of(patient, DataClass::Vitals, name, &vec![7; usize::try_from(nth * 97 % 3000).unwrap()])
    };
    MADE.lock().unwrap().entry(nth).or_insert_with(make).clone()
}

fn patient_of(nth: u64) -> u8 {
    u8::try_from(1 + nth / 40 % 250).unwrap()
}

/// A feed's word that it has erased a patient too.
fn told(patient: u8) -> (Receipt, Vec<u8>) {
    let request = RequestHash::of(request(patient).bytes());
    let patient = PatientId([patient; 16]);
    let recipient = caregate_protocol::erasure::NOBODY;
    let receipt =
        Receipt { issuer: Issuer::Feed, patient, request, records: 3, bytes: 9, erased_us: 7, recipient };
    let bytes = receipt.sign(&device()).to_vec();
    (receipt, bytes)
}

/// What was said of an erasure that was asked for.
#[derive(Debug, Clone, Copy, Default)]
struct Erasing {
    is_received: bool,
    /// A feed's receipt is kept.
    is_told: bool,
}

/// As [`Embedded::open`].
fn open(disk: &Arc<Mutex<Disk>>, is_made: bool) -> Result<Embedded, StoreError> {
    if !is_made {
        disk.lock().unwrap().remove(UNFINISHED);
        disk.lock().unwrap().create(UNFINISHED);
        drop(Embedded::open_on(Backend(Arc::clone(disk), UNFINISHED), || Ok(()))?);
        disk.lock().unwrap().rename(UNFINISHED, FILE);
    }
    Embedded::open_on(Backend(Arc::clone(disk), FILE), || {
        disk.lock().unwrap().sync_names();
        Ok(())
    })
}

struct World {
    random: Random,
    syncs: Syncs,
    disk: Image,
    /// By number: whether the core has acknowledged it.
    sent: BTreeMap<u64, bool>,
    erasures: BTreeMap<u8, Erasing>,
    tally: Tally,
}

impl World {
    fn new(syncs: Syncs, seed: u64) -> Self {
        let disk = Image { files: BTreeMap::new() };
        let (sent, erasures) = (BTreeMap::new(), BTreeMap::new());
        Self { random: Random::new(seed), syncs, disk, sent, erasures, tally: Tally::default() }
    }

    fn round(&mut self) {
        let cut_at = self.random.below(STEPS_MAX);
        let disk = Disk::new(&self.disk.files, self.syncs, cut_at, self.random.clone());
        self.random.bits();
        let disk = Arc::new(Mutex::new(disk));
        let has_power = || disk.lock().unwrap().cut().is_none();
        // A store without syncs may be so broken that redb does not survive looking at it.
        let is_made = self.disk.files.contains_key(FILE);
        let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| open(&disk, is_made)));
        let Ok(Ok(store)) = opened else {
            assert_eq!(self.syncs, Syncs::TakenOut, "the store does not open");
            let received = self.erasures.values().filter(|erasing| erasing.is_received).count();
            self.tally.lost += received as u64 + self.sent.values().filter(|acked| **acked).count() as u64;
            (self.sent, self.erasures) = (BTreeMap::new(), BTreeMap::new());
            self.disk = Image { files: BTreeMap::new() };
            return;
        };
        self.check_erasures(&store);
        self.check(&queue(&store));
        while has_power() {
            match self.random.below(12) {
                0 => self.erase(&store, has_power),
                1 => self.tell(&store, has_power),
                _ => self.commit(&store, has_power),
            }
        }
        self.tally.power_cuts += 1;
        self.disk = disk.lock().unwrap().cut_now();
    }

    fn commit(&mut self, store: &Embedded, has_power: impl Fn() -> bool) {
        let open = self.sent.iter().filter(|(nth, acked)| !**acked && !self.is_asked(**nth));
        let mut batch: Vec<u64> = open.map(|(nth, _)| *nth).take(20).collect();
        let next = self.sent.last_key_value().map_or(0, |(nth, _)| nth + 1);
        batch.extend(next..next + 1 + self.random.below(6));
        // One that was acknowledged comes again, as after a connection that was lost before the ack.
        batch.push(self.random.below(next.max(1)));
        for nth in &batch {
            self.sent.entry(*nth).or_default();
        }
        let records: Vec<Vec<u8>> = batch.iter().map(|nth| record(*nth)).collect();
        let Ok(outcomes) = store.put(&records) else { return };
        if !has_power() {
            return;
        }
        for (nth, outcome) in batch.iter().zip(outcomes) {
            if self.is_asked(*nth) && outcome == Outcome::Refused(Refusal::Erased) {
                continue;
            }
            assert!(
                matches!(outcome, Outcome::Stored | Outcome::Known) || self.syncs == Syncs::TakenOut,
                "{outcome:?}"
            );
            let acked = self.sent.entry(*nth).or_default();
            self.tally.acked += u64::from(!*acked);
            *acked = true;
        }
    }

    fn is_asked(&self, nth: u64) -> bool {
        self.erasures.contains_key(&patient_of(nth))
    }

    /// One of the patients is erased.
    fn erase(&mut self, store: &Embedded, has_power: impl Fn() -> bool) {
        let Some((last, _)) = self.sent.last_key_value() else { return };
        let patient = patient_of(self.random.below(last + 1));
        let erasing = self.erasures.entry(patient).or_default();
        let erased = store.erase(&request(patient), &own(), 99);
        if matches!(erased, Ok(Erased::Done { .. })) && has_power() && !erasing.is_received {
            erasing.is_received = true;
            self.tally.acked += 1;
        }
    }

    /// A feed tells that it has done the same.
    fn tell(&mut self, store: &Embedded, has_power: impl Fn() -> bool) {
        let Some((patient, erasing)) = self.erasures.iter_mut().find(|(_, e)| e.is_received && !e.is_told)
        else {
            return;
        };
        let (receipt, bytes) = told(*patient);
        let kept = store.keep_receipt(&receipt, device().verifying_key().to_bytes(), &bytes);
        if matches!(kept, Ok(true)) && has_power() {
            erasing.is_told = true;
            self.tally.acked += 1;
        }
    }

    /// What was erased stays so, and receipts are there. What was only asked for was begun, and is carried out by now, or was not.
    fn check_erasures(&mut self, store: &Embedded) {
        let erased = store.erased().unwrap_or_default();
        let mut lost = 0;
        self.erasures.retain(|patient, erasing| {
            let is_erased = erased.contains(&PatientId([*patient; 16]));
            let receipts = store.receipts(PatientId([*patient; 16])).unwrap_or_default();
            let is_told = receipts.contains(&told(*patient).1);
            lost += u64::from(erasing.is_received && !is_erased) + u64::from(erasing.is_told && !is_told);
            *erasing = Erasing { is_received: is_erased, is_told };
            is_erased
        });
        self.tally.lost += lost;
    }

    /// The recipient's queue after a power cut.
    fn check(&mut self, queue: &[Vec<u8>]) {
        let mut times: BTreeMap<&[u8], u32> = BTreeMap::new();
        queue.iter().for_each(|bytes| *times.entry(bytes.as_slice()).or_default() += 1);
        self.tally.duplicated += times.values().filter(|times| **times > 1).count() as u64;
        let requests = self.erasures.keys().map(|patient| request(*patient).bytes().to_vec());
        let known: BTreeSet<Vec<u8>> = self.sent.keys().map(|nth| record(*nth)).chain(requests).collect();
        let strange = times.keys().filter(|bytes| !known.contains(**bytes)).count() as u64;
        self.tally.undetected_corruptions += strange;
        let erased = |nth: u64| self.erasures.contains_key(&patient_of(nth));
        let back =
            self.sent.keys().filter(|nth| erased(**nth) && times.contains_key(record(**nth).as_slice()));
        self.tally.undetected_corruptions += back.count() as u64;
        let due = |(nth, acked): &(&u64, &mut bool)| **acked && !erased(**nth);
        for (nth, acked) in self.sent.iter_mut().filter(due) {
            if !times.contains_key(record(*nth).as_slice()) {
                self.tally.lost += 1;
                *acked = false;
            }
        }
    }
}

fn queue(store: &Embedded) -> Vec<Vec<u8>> {
    let (mut at, mut all) = (0, Vec::new());
    while let Ok(page) = store.page(recipient(1), at, u64::MAX, PAGE_BYTES) {
        // What was erased has left its number behind, and no record.
        if page.next == at {
            break;
        }
        all.extend(page.records.into_iter().map(|(_, record)| record));
        at = page.next;
    }
    all
}

fn run(syncs: Syncs, seed: u64, rounds: u64) -> Tally {
    let mut total = Tally::default();
    // Each store lives through thirty power cuts; then another.
    for life in 0..rounds.div_ceil(30) {
        let mut world = World::new(syncs, seed + life);
        (life * 30..rounds.min(life * 30 + 30)).for_each(|_| world.round());
        total.add(&world.tally);
    }
    total
}

#[test]
fn power_cuts_lose_nothing_that_was_acknowledged_and_without_syncs_they_do() {
    caregate_crash::prove("core", ROUNDS, run);
}
