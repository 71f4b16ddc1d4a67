//! Power cuts: gateways that send until they are told that it is durable, on a disk that loses whatever no sync has covered.
//!
//! As `edge-gateway/src/spool/tests/power.rs` does for the spool: the same environment variables, and a last line for
//! `cargo xtask chaos`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};

use caregate_crash::{Disk, Image, Random, Syncs};
use redb::StorageBackend;

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

/// A gateway's records in the order in which it made them: of each ten the first is the wrap of an epoch, the others are its segments.
fn record(nth: u64) -> Vec<u8> {
    static MADE: Mutex<BTreeMap<u64, Vec<u8>>> = Mutex::new(BTreeMap::new());
    let make = || {
        let epoch = EPOCH + u32::try_from(nth / 10).unwrap();
        if nth.is_multiple_of(10) {
            return wrap(epoch, 1);
        }
        let name = Name { generation: 0, epoch, sequence: nth };
        segment_of(1, DataClass::Vitals, name, &vec![7; usize::try_from(nth * 97 % 3000).unwrap()])
    };
    MADE.lock().unwrap().entry(nth).or_insert_with(make).clone()
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

#[derive(Debug, Default)]
struct Tally {
    acked: u64,
    lost: u64,
    duplicated: u64,
    undetected_corruptions: u64,
    power_cuts: u64,
}

struct World {
    random: Random,
    syncs: Syncs,
    disk: Image,
    /// By number: whether the core has acknowledged it.
    sent: BTreeMap<u64, bool>,
    tally: Tally,
}

impl World {
    fn new(syncs: Syncs, seed: u64) -> Self {
        let disk = Image { files: BTreeMap::new() };
        Self { random: Random::new(seed), syncs, disk, sent: BTreeMap::new(), tally: Tally::default() }
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
            self.check(&[]);
            self.disk = Image { files: BTreeMap::new() };
            return;
        };
        self.check(&queue(&store));
        while has_power() {
            self.commit(&store, has_power);
        }
        self.tally.power_cuts += 1;
        self.disk = disk.lock().unwrap().cut_now();
    }

    fn commit(&mut self, store: &Embedded, has_power: impl Fn() -> bool) {
        let mut batch: Vec<u64> =
            self.sent.iter().filter(|(_, acked)| !**acked).map(|(nth, _)| *nth).take(20).collect();
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
            assert!(
                matches!(outcome, Outcome::Stored | Outcome::Known) || self.syncs == Syncs::TakenOut,
                "{outcome:?}"
            );
            let acked = self.sent.entry(*nth).or_default();
            self.tally.acked += u64::from(!*acked);
            *acked = true;
        }
    }

    /// The recipient's queue after a power cut.
    fn check(&mut self, queue: &[Vec<u8>]) {
        let mut times: BTreeMap<&[u8], u32> = BTreeMap::new();
        queue.iter().for_each(|bytes| *times.entry(bytes.as_slice()).or_default() += 1);
        self.tally.duplicated += times.values().filter(|times| **times > 1).count() as u64;
        let known: BTreeSet<Vec<u8>> = self.sent.keys().map(|nth| record(*nth)).collect();
        let strange = times.keys().filter(|bytes| !known.contains(**bytes)).count() as u64;
        self.tally.undetected_corruptions += strange;
        for (nth, acked) in self.sent.iter_mut().filter(|(_, acked)| **acked) {
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
        if page.records.is_empty() {
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
        total.acked += world.tally.acked;
        total.lost += world.tally.lost;
        total.duplicated += world.tally.duplicated;
        total.undetected_corruptions += world.tally.undetected_corruptions;
        total.power_cuts += world.tally.power_cuts;
    }
    total
}

#[test]
fn power_cuts_lose_nothing_that_was_acknowledged_and_without_syncs_they_do() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("CAREGATE_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let rounds = number("CAREGATE_CHAOS_ROUNDS").unwrap_or(ROUNDS);
    println!("CAREGATE_SEED={seed}");
    let tally = run(Syncs::Real, seed, rounds);
    let without = run(Syncs::TakenOut, seed, rounds);
    println!(
        "chaos: {{\"part\":\"core\",\"acked\":{},\"lost\":{},\"duplicated\":{},\"undetected_corruptions\":{},\"power_cuts\":{},\
         \"lost_without_sync\":{}}}",
        tally.acked,
        tally.lost,
        tally.duplicated,
        tally.undetected_corruptions,
        tally.power_cuts,
        without.lost
    );
    assert_eq!((tally.lost, tally.duplicated, tally.undetected_corruptions), (0, 0, 0), "{tally:?}");
    assert!(tally.acked > 0 && without.lost > 0, "the test proves nothing: {tally:?}, {without:?}");
}
