//! Power cuts through the whole pipeline: from a PUBLISH to its verdict, with key store, spool, checkpoint and the file of MQTT sessions on
//! a disk that loses whatever no sync has covered, and a core that takes what is durable.
//!
//! As `spool/tests/power.rs` does for the spool alone: a round opens what the last power cut left, checks it, and works until the power
//! fails again. The same environment variables, and a last line for `cargo xtask chaos`.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use caregate_crash::{Disk, Image, Random, Syncs, Tally};
use caregate_host::clock::monotonic;
use caregate_protocol::id::{DataClass, Lane};
use caregate_protocol::policy::VerifiedPolicy;
use caregate_protocol::reading;
use caregate_protocol::record::Record;
use caregate_protocol::segment::{Cipher, Segment, SegmentHash};
use prometheus::{IntCounter, Registry};
use ring::rand::SystemRandom;
use tempfile::TempDir;

use super::support::{Gateway, Hospital, NOW_US, PATIENT, Publish, device_key, policy, small};
use crate::faults::Faults;
use crate::hints::Hints;
use crate::ingest::Verdict;
use crate::keys::KeyStore;
use crate::metrics::Metrics;
use crate::mqtt::kept::SessionFile;
use crate::pipeline::commit::Committer;
use crate::pipeline::heads::Heads;
use crate::pipeline::leaves::Leaves;
use crate::pipeline::recover;
use crate::pipeline::seal::Sealer;
use crate::policy::{Decider, Now};
use crate::spool::{Log, Position};
use crate::watch::Tap;

/// Of the gate; some seconds.
const ROUNDS: u64 = 100;
/// Steps of a round at most: the first start takes some dozens, a commit in a new minute some ten.
const STEPS_MAX: u64 = 320;
/// Power cuts of one gateway; then another.
const LIFE: u64 = 25;
/// Between two things that a gateway does, so that a round meets some minutes.
const STEP_US: i64 = 7_000_000;
/// What ends a snapshot of the sessions, so that its length changes with it.
const SNAPSHOT_BYTES: usize = 3000;

/// What is found of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    hash: SegmentHash,
    prev: SegmentHash,
    readings: Vec<u64>,
}

type Chains = BTreeMap<DataClass, BTreeMap<u64, Found>>;

/// Sensors, gateway and core over all rounds.
struct World {
    random: Random,
    syncs: Syncs,
    policy: VerifiedPolicy,
    /// What the last power cut left.
    disk: Image,
    now_us: i64,
    next: u64,
    /// Published and not acknowledged: sent again first.
    open: Vec<u64>,
    acknowledged: BTreeSet<u64>,
    core: Chains,
    /// Of every segment that ever was on the disk.
    salts: BTreeMap<[u8; 16], SegmentHash>,
    /// The number of the newest snapshot of the sessions that was written, and of the newest that is durable.
    snapshots: (u64, u64),
    tally: Tally,
}

/// A gateway between two power cuts.
pub(super) struct Life {
    pub(super) gateway: Gateway,
    sessions: SessionFile,
    faults: Arc<Faults>,
    _dir: TempDir,
}

fn publish(reading: u64) -> Publish {
    if reading.is_multiple_of(4) { Publish::ecg(reading, 60) } else { Publish::beat(reading) }
}

fn snapshot(number: u64) -> Vec<u8> {
    let bytes = usize::try_from(number * 97).unwrap() % SNAPSHOT_BYTES;
    number.to_be_bytes().into_iter().chain(std::iter::repeat_n(7, bytes)).collect()
}

impl Life {
    /// As the daemon does.
    pub(super) fn open(disk: &Image, faults: Arc<Faults>) -> anyhow::Result<Self> {
        let dir = crate::spool::tests::directory();
        disk.write_to(dir.path())?;
        let data = dir.path().join("data");
        std::fs::create_dir_all(&data)?;
        let mut keys = KeyStore::open_on(&data, &faults, "data")?;
        let (log, recovery) = Log::open_with(dir.path(), small(), Arc::clone(&faults))?;
        let (log, state, recovery) = recover::rebuild(log, recovery, &mut keys)?;
        let mut sessions = SessionFile::new(&data, &*keys.file_key("mqtt.sessions")?);
        sessions.faults = Arc::clone(&faults);
        let metrics = Metrics::register(&Registry::new())?;
        let committer = Committer {
            log,
            state,
            sealer: Sealer { device: device_key(), cipher: Cipher::Aes256Gcm, leaves: Leaves::default() },
            policy: Decider::open(&keys, None, metrics.clone(), Now { unix_s: 0, at: monotonic() })?,
            keys,
            hints: Hints::open(&dir.path().join("hints"), &[7; 32])?,
            metrics,
            random: SystemRandom::new(),
            heads: Heads::default(),
            said: BTreeMap::new(),
            noted: BTreeMap::new(),
            tap: Tap::new(IntCounter::new("dropped", "dropped")?).0,
            expiry: None,
            walk: None,
            giving: None,
        };
        let gateway = Gateway { committer, recovery, spooled: Vec::new() };
        Ok(Self { gateway, sessions, faults, _dir: dir })
    }

    fn has_power(&self) -> bool {
        self.faults.has_power()
    }

    /// A segment of its own, verified and opened.
    fn found(&mut self, segment: &Segment<'_>) -> Option<Found> {
        let header = &segment.header;
        let hash = segment.verify(&device_key().verifying_key()).ok()?;
        let root = self.gateway.committer.keys.existing_root(PATIENT).ok()??;
        let key = root.class_key(header.class, header.generation).epoch_key(header.epoch)?;
        let readings = reading::decode(&segment.open(&key).ok()?).ok()?;
        let readings = readings.iter().map(|reading| reading.seq).collect::<Option<_>>()?;
        Some(Found { hash, prev: header.prev, readings })
    }
}

impl World {
    fn new(syncs: Syncs, seed: u64, policy: VerifiedPolicy) -> Self {
        Self {
            random: Random::new(seed),
            syncs,
            policy,
            disk: Image { files: BTreeMap::new() },
            now_us: NOW_US,
            next: 0,
            open: Vec::new(),
            acknowledged: BTreeSet::new(),
            core: Chains::new(),
            salts: BTreeMap::new(),
            snapshots: (0, 0),
            tally: Tally::default(),
        }
    }

    /// One life of the gateway, from the last power cut to the next.
    fn round(&mut self) {
        let cut_at = self.random.below(STEPS_MAX);
        let model = Disk::new(&self.disk.files, self.syncs, cut_at, self.random.clone());
        self.random.bits();
        let faults = Arc::new(Faults::default());
        *faults.model.lock().unwrap() = Some(model);
        // A key store without syncs may be so broken that redb does not survive looking at it.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let mut life =
                Life::open(&self.disk, Arc::clone(&faults)).map_err(|error| format!("{error:#}"))?;
            self.check(&mut life);
            Ok::<_, String>(life)
        }));
        match opened.unwrap_or_else(|_panic| Err("it panics".to_owned())) {
            Ok(mut life) => while life.has_power() && self.work(&mut life).is_some() {},
            Err(error) => {
                assert_eq!(self.syncs, Syncs::TakenOut, "the gateway does not start: {error}");
                self.all_is_lost();
                return;
            }
        }
        self.disk = faults.model.lock().unwrap().as_mut().unwrap().cut_now();
        self.tally.power_cuts += 1;
    }

    /// Only without syncs: the gateway begins anew, and so does its core.
    fn all_is_lost(&mut self) {
        self.tally.lost += self.acknowledged.len() as u64 + u64::from(self.snapshots.1 > 0);
        self.disk = Image { files: BTreeMap::new() };
        (self.acknowledged, self.core, self.snapshots) = (BTreeSet::new(), Chains::new(), (0, 0));
    }

    /// Holds what recovery found against what was promised.
    fn check(&mut self, life: &mut Life) {
        let damaged = &life.gateway.recovery.damaged;
        self.tally.false_alarms += damaged.iter().filter(|d| !d.positions.is_empty()).count() as u64;
        let mut chains = self.core.clone();
        for (_, _, bytes) in life.gateway.records() {
            let Ok(Record::Segment(segment)) = Record::decode(&bytes) else { continue };
            self.take(life, &segment, &mut chains);
        }
        self.check_chains(life, &chains);
        let mut times: BTreeMap<u64, u32> = BTreeMap::new();
        for reading in chains.values().flat_map(BTreeMap::values).flat_map(|found| &found.readings) {
            *times.entry(*reading).or_default() += 1;
        }
        self.tally.duplicated += times.values().filter(|times| **times > 1).count() as u64;
        let lost: Vec<u64> =
            self.acknowledged.iter().copied().filter(|reading| !times.contains_key(reading)).collect();
        assert!(lost.is_empty() || self.syncs == Syncs::TakenOut, "lost {lost:?}");
        self.tally.lost += lost.len() as u64;
        self.acknowledged.retain(|reading| !lost.contains(reading));
        self.check_sessions(life);
    }

    /// Takes a segment among those that are known. Another of the same number, or with the same salt, is none that may be.
    fn take(&mut self, life: &mut Life, segment: &Segment<'_>, chains: &mut Chains) {
        let Some(found) = life.found(segment) else {
            self.tally.undetected_corruptions += 1;
            return;
        };
        let header = &segment.header;
        let salted = *self.salts.entry(header.salt).or_insert(found.hash);
        let known =
            chains.entry(header.class).or_default().entry(header.sequence).or_insert_with(|| found.clone());
        self.tally.undetected_corruptions += u64::from(salted != found.hash || *known != found);
    }

    /// From the first segment on, each with the hash of the one before it; and where the gateway goes on is behind the last.
    fn check_chains(&mut self, life: &Life, chains: &Chains) {
        for (class, chain) in chains {
            let mut expected = (0, SegmentHash::NONE);
            for (number, found) in chain {
                self.tally.undetected_corruptions += u64::from((*number, found.prev) != expected);
                expected = (number + 1, found.hash);
            }
            let head = life.gateway.committer.state.chains.get(&(PATIENT, *class));
            let next = head.map(|head| (head.next, head.prev));
            self.tally.undetected_corruptions += u64::from(next != Some(expected));
        }
    }

    /// The sessions are those of the newest snapshot that is durable, or of a later one.
    fn check_sessions(&mut self, life: &Life) {
        let (written, durable) = self.snapshots;
        let number = match life.sessions.read() {
            Ok(None) => 0,
            Ok(Some(bytes)) => {
                let number = u64::from_be_bytes(*bytes.first_chunk().unwrap());
                self.tally.undetected_corruptions += u64::from(bytes != snapshot(number));
                number
            }
            Err(error) => {
                assert_eq!(self.syncs, Syncs::TakenOut, "{error}");
                0
            }
        };
        self.tally.lost += u64::from(number < durable);
        self.tally.undetected_corruptions += u64::from(number > written);
        self.snapshots.1 = number;
    }

    /// One thing that a gateway does; `None` when it must start again.
    fn work(&mut self, life: &mut Life) -> Option<()> {
        self.now_us += STEP_US;
        match self.random.below(14) {
            0 => self.deliver(life),
            1 => {
                let number = self.snapshots.0 + 1;
                self.snapshots.0 = number;
                if life.sessions.write(&snapshot(number)).is_ok() && life.has_power() {
                    self.snapshots.1 = number;
                    self.tally.acked += 1;
                }
                Some(())
            }
            2 => life.gateway.committer.commit_heads(self.now_us).ok().map(drop),
            3 if self.random.one_in(3) => {
                // Of whichever file is synced next.
                life.faults.syncs.store(1, Ordering::SeqCst);
                self.commit(life)
            }
            _ => self.commit(life),
        }
    }

    /// A group commit, and the PUBACKs.
    fn commit(&mut self, life: &mut Life) -> Option<()> {
        let mut batch: Vec<u64> = self.open.drain(..self.open.len().min(4)).collect();
        for _ in 0..=self.random.below(3) {
            batch.push(self.next);
            self.next += 1;
        }
        // One that was acknowledged comes again, as where the PUBACK was lost.
        if let Some(last) = self.acknowledged.last().filter(|_| self.random.one_in(4)) {
            batch.push(*last);
        }
        let publishes: Vec<Publish> = batch.iter().map(|reading| publish(*reading)).collect();
        let (inbound, verdicts) = Gateway::inbound(&publishes, self.now_us);
        let committed = life.gateway.committer.commit(inbound, &self.policy, self.now_us);
        for (reading, mut verdict) in batch.into_iter().zip(verdicts) {
            if verdict.try_recv() == Ok(Verdict::Stored) && life.has_power() {
                self.tally.acked += u64::from(self.acknowledged.insert(reading));
            } else if !self.acknowledged.contains(&reading) {
                self.open.push(reading);
            }
        }
        committed.ok().map(drop)
    }

    /// The core takes some, and acknowledges them. Its own durability is proven elsewhere: what it has, it has.
    fn deliver(&mut self, life: &mut Life) -> Option<()> {
        let reader = life.gateway.committer.log.reader();
        for lane in Lane::ALL {
            let mut from = Position(0);
            for _ in 0..self.random.below(30) {
                let Some(position) = reader.next_unacked(lane, from) else { break };
                from = Position(position.0 + 1);
                let Ok(Some((_, bytes))) = reader.read(position) else {
                    assert_eq!(self.syncs, Syncs::TakenOut, "{position:?} can't be read");
                    continue;
                };
                if !life.has_power() {
                    return None;
                }
                if let Ok(Record::Segment(segment)) = Record::decode(&bytes) {
                    let mut core = std::mem::take(&mut self.core);
                    self.take(life, &segment, &mut core);
                    self.core = core;
                }
                life.gateway.committer.log.ack(position.0..=position.0).ok()?;
            }
        }
        Some(())
    }
}

fn run(syncs: Syncs, seed: u64, rounds: u64) -> Tally {
    let hospital = Hospital::new(1);
    let policy = policy(&[&hospital], &[hospital.whole()], &[]);
    let mut total = Tally::default();
    for life in 0..rounds.div_ceil(LIFE) {
        let mut world = World::new(syncs, seed + life, policy.clone());
        (life * LIFE..rounds.min((life + 1) * LIFE)).for_each(|_| world.round());
        total.add(&world.tally);
    }
    total
}

#[test]
fn power_cuts_lose_nothing_that_was_acknowledged_and_without_syncs_they_do() {
    caregate_crash::prove("pipeline", ROUNDS, run);
}

/// What a power cut leaves of a first start is a key store that opens, or none.
#[test]
fn a_key_store_whose_making_is_cut_off_is_made_again() {
    let mut made = 0;
    for cut_at in 0..60 {
        let faults = Arc::new(Faults::default());
        let model = Disk::new(&BTreeMap::new(), Syncs::Real, cut_at, Random::new(cut_at));
        *faults.model.lock().unwrap() = Some(model);
        let dir = crate::spool::tests::directory();
        let open = |faults: &Arc<Faults>| KeyStore::open_on(Path::new(dir.path()), faults, "data");
        let root = open(&faults).unwrap().root(PATIENT).unwrap();
        let is_durable = faults.has_power();
        let image = faults.model.lock().unwrap().as_mut().unwrap().cut_now();
        let model = Disk::new(&image.files, Syncs::Real, u64::MAX, Random::new(1));
        *faults.model.lock().unwrap() = Some(model);
        let found = open(&faults).unwrap().existing_root(PATIENT).unwrap();
        let is_same = found.is_some_and(|found| found.as_bytes() == root.as_bytes());
        assert!(is_same || !is_durable, "cut at step {cut_at}");
        made += u32::from(is_durable);
    }
    assert!((1..60).contains(&made), "{made} of 60 were made before the power failed");
}

/// No root is handed out that is not on the disk: under it readings would be sealed that nobody opens.
#[test]
fn a_root_is_not_handed_out_where_the_disk_is_full_or_does_not_sync() {
    for is_full in [false, true] {
        let faults = Arc::new(Faults::default());
        let model = Disk::new(&BTreeMap::new(), Syncs::Real, u64::MAX, Random::new(1));
        *faults.model.lock().unwrap() = Some(model);
        let dir = crate::spool::tests::directory();
        let mut keys = KeyStore::open_on(dir.path(), &faults, "data").unwrap();
        let failing = if is_full { &faults.writes } else { &faults.syncs };
        failing.store(1, Ordering::SeqCst);
        assert!(keys.root(PATIENT).is_err());
        assert!(keys.root(PATIENT).is_err(), "nothing more is promised after that");
        drop(keys);
        let image = faults.model.lock().unwrap().as_mut().unwrap().cut_now();
        let model = Disk::new(&image.files, Syncs::Real, u64::MAX, Random::new(1));
        *faults.model.lock().unwrap() = Some(model);
        let mut keys = KeyStore::open_on(dir.path(), &faults, "data").unwrap();
        keys.root(PATIENT).expect("after a start it goes on");
    }
}
