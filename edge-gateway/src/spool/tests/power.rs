//! Power cuts: sensors, the gateway's use of the log, and a core, on a disk that loses whatever no sync has covered.
//!
//! A round opens the log that the last power cut left, checks it, and works until the power fails again, at any step: in a group
//! commit, a rotation, a deletion, or in recovery itself. `CAREGATE_CHAOS_ROUNDS` sets how many, `CAREGATE_SEED` repeats them; the
//! last line is for `cargo xtask chaos`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use caregate_crash::{Disk as Model, Image, Random, Syncs, Tally};
use caregate_protocol::id::Lane;
use tempfile::TempDir;

use super::{directory, limits};
use crate::faults::Faults;
use crate::spool::disk::Disk;
use crate::spool::{Log, Position, Recovery, SpoolError, recover};

/// Of the gate; a few seconds.
const ROUNDS: u64 = 400;
/// Steps of a round at most: some rotations and deletions.
const STEPS_MAX: u64 = 220;

/// A reading by its number: bytes that only it has.
fn payload(reading: u64) -> Vec<u8> {
    let len = 8 + usize::try_from(reading * 37 % 600).unwrap();
    reading.to_le_bytes().into_iter().cycle().take(len).collect()
}

/// The number, if these are a reading's bytes to the last.
fn reading_of(bytes: &[u8]) -> Option<u64> {
    let reading = u64::from_le_bytes(*bytes.first_chunk()?);
    (payload(reading) == bytes).then_some(reading)
}

/// The gateway's state: which readings are stored, for the duplicate filter. As its checkpoint it holds what is not at the core yet.
type Known = BTreeSet<u64>;

fn encode(known: &Known) -> Vec<u8> {
    known.iter().rev().take(900).flat_map(|reading| reading.to_le_bytes()).collect()
}

/// Sensors, gateway and core over all rounds.
struct World {
    random: Random,
    syncs: Syncs,
    /// What the last power cut left.
    disk: Image,
    next: u64,
    /// Published and not acknowledged: sent again first.
    open: Vec<u64>,
    acknowledged: BTreeSet<u64>,
    /// By position, as the core recognises what it has.
    core: BTreeMap<u64, u64>,
    tally: Tally,
}

/// A log on the tests' disk.
struct Gateway {
    log: Log,
    faults: Arc<Faults>,
    known: Known,
}

impl Gateway {
    fn has_power(&self) -> bool {
        self.faults.has_power()
    }
}

impl World {
    fn new(syncs: Syncs, seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            syncs,
            disk: Image { files: BTreeMap::new() },
            next: 0,
            open: Vec::new(),
            acknowledged: BTreeSet::new(),
            core: BTreeMap::new(),
            tally: Tally::default(),
        }
    }

    /// One life of the gateway, from the last power cut to the next.
    fn round(&mut self) {
        let dir = directory();
        self.disk.write_to(dir.path()).unwrap();
        let cut_at = self.random.below(STEPS_MAX);
        let model = Model::new(&self.disk.files, self.syncs, cut_at, self.random.clone());
        self.random.bits();
        let faults = Arc::new(Faults::default());
        faults.buffered.store(self.random.one_in(3), Ordering::SeqCst);
        *faults.model.lock().unwrap() = Some(model);
        match self.open(&dir, &faults) {
            Ok(mut gateway) => while gateway.has_power() && self.work(&mut gateway).is_some() {},
            Err(error) => {
                // Only without syncs; then all is gone, and the gateway begins anew.
                assert_eq!(self.syncs, Syncs::TakenOut, "the spool does not open: {error}");
                self.check(&BTreeMap::new(), "");
                self.disk = Image { files: BTreeMap::new() };
                return;
            }
        }
        self.disk = faults.model.lock().unwrap().as_mut().unwrap().cut_now();
        self.tally.power_cuts += 1;
        if self.random.one_in(4) {
            self.flip();
        }
    }

    /// Recovers, and holds it against what was acknowledged.
    fn open(&mut self, dir: &TempDir, faults: &Arc<Faults>) -> Result<Gateway, SpoolError> {
        let disk = Disk::open_with(dir.path(), Arc::clone(faults))?;
        let (mut log, recovery) = recover::open(disk, limits())?;
        if self.random.one_in(2) {
            log.keeper.later();
        }
        let Recovery { checkpoint, records, damaged, torn } = recovery;
        // Where a failed sync had left frames of the log's own behind, a file may say so as long as it is kept. Never of records.
        self.tally.false_alarms +=
            damaged.iter().filter(|damage| !damage.positions.is_empty()).count() as u64;
        let found =
            readings(&log, |reading| self.tally.undetected_corruptions += u64::from(reading.is_none()));
        self.check(&found, &format!("{damaged:?} {torn:?}"));
        let words = checkpoint.as_deref().unwrap_or_default().chunks_exact(8);
        let mut known: Known = words.map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
        known.extend(records.iter().filter_map(|record| reading_of(&record.payload)));
        Ok(Gateway { log, faults: Arc::clone(faults), known })
    }

    /// `found`: readings by position. What was acknowledged is at the core or here, once.
    fn check(&mut self, found: &BTreeMap<u64, u64>, is_reported: &str) {
        let mut times: BTreeMap<u64, u32> = BTreeMap::new();
        for (_, reading) in self.core.iter().chain(found.iter().filter(|(p, _)| !self.core.contains_key(p))) {
            *times.entry(*reading).or_default() += 1;
        }
        self.tally.duplicated = times.values().filter(|times| **times > 1).count() as u64;
        let lost: Vec<u64> =
            self.acknowledged.iter().copied().filter(|reading| !times.contains_key(reading)).collect();
        self.tally.lost += lost.len() as u64;
        if self.syncs == Syncs::Real {
            assert!(lost.is_empty(), "lost {lost:?}; reported: {is_reported}");
        }
        for reading in lost {
            self.acknowledged.remove(&reading);
        }
    }

    /// One thing that a gateway does; `None` when the log has stopped.
    fn work(&mut self, gateway: &mut Gateway) -> Option<()> {
        // What another thread does may be done now, or not for a long time.
        if self.random.one_in(4) {
            gateway.log.keeper.next();
        }
        match self.random.below(10) {
            0 => self.deliver(gateway),
            1 if self.random.one_in(3) => {
                gateway.faults.syncs.store(1, Ordering::SeqCst);
                self.commit(gateway)
            }
            _ => self.commit(gateway),
        }
    }

    /// A group commit, and the PUBACKs.
    fn commit(&mut self, gateway: &mut Gateway) -> Option<()> {
        if gateway.log.rotation_due() {
            match gateway.log.rotate(&encode(&gateway.known)) {
                Ok(()) | Err(SpoolError::NoSpace { .. }) => {}
                Err(_) => return None,
            }
        }
        let count = 1 + self.random.below(3);
        let mut batch: Vec<u64> = self.open.drain(..self.open.len().min(3)).collect();
        for _ in 0..count {
            batch.push(self.next);
            self.next += 1;
        }
        let (known, new): (Vec<u64>, Vec<u64>) =
            batch.into_iter().partition(|reading| gateway.known.contains(reading));
        let mut refused = Vec::new();
        for reading in new.iter().copied() {
            let lane = Lane::ALL[usize::try_from(reading % 4).unwrap()];
            if gateway.log.append(lane, &payload(reading)).is_err() {
                refused.push(reading);
            }
        }
        let behind = self.behind(gateway);
        let synced = gateway.log.finish_sync().and_then(|()| gateway.log.sync());
        if synced.is_err() || !gateway.has_power() {
            self.open.extend(known.into_iter().chain(new).chain(behind));
            return synced.ok();
        }
        let new: Vec<u64> = new.into_iter().chain(behind).collect();
        let stored: Vec<u64> = new.into_iter().filter(|reading| !refused.contains(reading)).collect();
        gateway.known.extend(&stored);
        for reading in stored.into_iter().chain(known) {
            self.tally.acked += u64::from(self.acknowledged.insert(reading));
        }
        self.open.extend(refused);
        Some(())
    }

    /// Sometimes the batch is synced by another thread, and more is appended meanwhile: a reading that was, is given back.
    fn behind(&mut self, gateway: &mut Gateway) -> Option<u64> {
        if !self.random.one_in(2) || gateway.log.begin_sync().is_err() {
            return None;
        }
        let reading = self.next;
        let lane = Lane::ALL[usize::try_from(reading % 4).unwrap()];
        gateway.log.append(lane, &payload(reading)).ok()?;
        self.next += 1;
        Some(reading)
    }

    /// The core takes some, in any order, and acknowledges them.
    fn deliver(&mut self, gateway: &mut Gateway) -> Option<()> {
        let reader = gateway.log.reader();
        for lane in Lane::ALL {
            let mut from = Position(0);
            for _ in 0..self.random.below(30) {
                let Some(position) = reader.next_unacked(lane, from) else { break };
                let read = reader.read(position);
                from = Position(position.0 + 1);
                let reading = match &read {
                    Ok(Some((_, bytes))) => reading_of(bytes),
                    _ => None,
                };
                let Some(reading) = reading else {
                    assert_eq!(self.syncs, Syncs::TakenOut, "{position:?}: {read:?}");
                    continue;
                };
                // The core's own durability is proven elsewhere: what it has, it has.
                let before = self.core.insert(position.0, reading);
                assert!(
                    before.is_none_or(|before| before == reading) || self.syncs == Syncs::TakenOut,
                    "position {position:?} was used twice"
                );
                if gateway.log.ack(position.0..=position.0).is_err() {
                    return None;
                }
            }
        }
        Some(())
    }

    /// A bit flips in what the power cut left: what is gone is reported, and nothing is read that was not written.
    fn flip(&mut self) {
        let mut image = self.disk.clone();
        let logs: Vec<String> = image.files.keys().filter(|name| name.ends_with(".log")).cloned().collect();
        if logs.is_empty() || self.syncs == Syncs::TakenOut {
            return;
        }
        let bytes = image.files.get_mut(&logs[self.random.index(logs.len())]).unwrap();
        if bytes.is_empty() {
            return;
        }
        let at = self.random.index(bytes.len());
        bytes[at] ^= 1 << self.random.below(8);
        self.tally.flips += 1;
        let dir = directory();
        image.write_to(dir.path()).unwrap();
        let (log, recovery) = Log::open(dir.path(), limits()).unwrap();
        let found = readings(&log, |reading| {
            self.tally.undetected_corruptions += u64::from(reading.is_none());
        });
        let here: BTreeSet<u64> = found.values().chain(self.core.values()).copied().collect();
        let is_gone = self.acknowledged.iter().any(|reading| !here.contains(reading));
        let is_silent = recovery.damaged.is_empty() && recovery.torn.is_none();
        self.tally.undetected_corruptions += u64::from(is_gone && is_silent);
    }
}

/// All that can be read, by position; `seen` hears of each, `None` for bytes that nobody wrote.
fn readings(log: &Log, mut seen: impl FnMut(Option<u64>)) -> BTreeMap<u64, u64> {
    let reader = log.reader();
    let mut found = BTreeMap::new();
    for position in 1..log.stats().next.0 {
        if let Ok(Some((_, bytes))) = reader.read(Position(position)) {
            let reading = reading_of(&bytes);
            seen(reading);
            found.extend(reading.map(|reading| (position, reading)));
        }
    }
    found
}

fn run(syncs: Syncs, seed: u64, rounds: u64) -> Tally {
    let mut world = World::new(syncs, seed);
    let mut total = Tally::default();
    for round in 0..rounds {
        if round % 50 == 49 {
            // A gateway's life of fifty power cuts; then another.
            total.add(&world.tally);
            world = World::new(syncs, seed + round);
        }
        world.round();
    }
    total.add(&world.tally);
    total
}

#[test]
fn power_cuts_lose_nothing_that_was_acknowledged_and_without_syncs_they_do() {
    caregate_crash::prove("spool", ROUNDS, run);
}
