//! A gateway's pipeline on a real spool, key store and quarantine, and the ends that look at what it made: the disk, opened
//! with the patient's root, and recipients with their own keys.

#![allow(dead_code, clippy::unwrap_used, reason = "a test's own helpers, of which each file uses its part")]

pub(crate) mod commits;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use caregate_protocol::id::{DataClass, DeviceId, Lane, PatientId, RecipientId};
use caregate_protocol::key::{EpochKey, TreeNode};
use caregate_protocol::policy::{
    Authentic, BoundDevice, Classes, Freshness, Grant, Purpose, RecipientEntry, RecipientKind,
    RecipientStatus, RelationshipId, Revocation, VerifiedPolicy, class_bit,
};
use caregate_protocol::reading::{self, Reading};
use caregate_protocol::record::Record;
use caregate_protocol::segment::{Cipher, Header, Segment, SegmentHash};
use caregate_protocol::wrap::{HpkePrivateKey, Wrap, generate_keypair};
use ed25519_dalek::SigningKey;
use edge_gateway::hints::Hints;
use edge_gateway::ingest::{Inbound, Verdict};
use edge_gateway::keys::KeyStore;
use edge_gateway::metrics::Metrics;
use edge_gateway::pipeline::commit::{Committer, Spooled};
use edge_gateway::pipeline::leaves::Leaves;
use edge_gateway::pipeline::recover;
use edge_gateway::pipeline::seal::Sealer;
use edge_gateway::policy::{Decider, Now};
use edge_gateway::spool::{Limits, Position, Recovery};
use edge_gateway::watch::Tap;
use ledger_client::fixture;
use ledger_client::verify::Pins;
use prometheus::{IntCounter, Registry};
use ring::rand::SystemRandom;
use tempfile::TempDir;
use tokio::sync::oneshot;

pub(crate) const NOW_US: i64 = 1_790_000_000_000_000;
pub(crate) const MINUTE_US: i64 = 60_000_000;
pub(crate) const PATIENT: PatientId = PatientId([1; 16]);
pub(crate) const HEART_RATE: &str = "num/heart-rate";

pub(crate) fn device_key() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

/// A hospital domain with its key.
pub(crate) struct Hospital {
    pub(crate) id: RecipientId,
    pub(crate) private: HpkePrivateKey,
    public: [u8; 32],
}

impl Hospital {
    pub(crate) fn new(n: u8) -> Self {
        let (private, public) = generate_keypair();
        Self { id: RecipientId([n; 20]), private, public: public.0 }
    }

    /// A hospital as the ledger knows it, and its other half.
    pub(crate) fn on_ledger(n: u8) -> (fixture::Hospital, Self) {
        let (private, public) = generate_keypair();
        let ledger = fixture::Hospital::new(n, public.0);
        let half = Self { id: ledger.id(), private, public: public.0 };
        (ledger, half)
    }

    pub(crate) fn public_key(&self) -> [u8; 32] {
        self.public
    }

    /// What a patient grants to it: classes, from, until (Unix seconds).
    pub(crate) fn grant(&self, classes: &[DataClass], from: u64, until: u64) -> Grant {
        Grant {
            relationship: RelationshipId([self.id.0[0]; 32]),
            grantee: self.id,
            classes: classes.iter().fold(0, |mask, class| mask | class_bit(*class)),
            purposes: Purpose::Treatment.bit(),
            from,
            until,
            stale_bound_s: 0,
            version: 1,
        }
    }

    pub(crate) fn whole(&self) -> Grant {
        self.grant(&DataClass::ALL, 0, u64::MAX)
    }
}

/// A policy with these grants of [`PATIENT`], who wears `monitor-1` and `belt-1`. The signatures are `ledger-client`'s to
/// check and not looked at here.
pub(crate) fn policy(hospitals: &[&Hospital], grants: &[Grant], revoked: &[Revocation]) -> VerifiedPolicy {
    classed(hospitals, grants, revoked, &Classes::default())
}

/// The same, with the patient's rules for `monitor-1`.
pub(crate) fn classed(
    hospitals: &[&Hospital],
    grants: &[Grant],
    revoked: &[Revocation],
    rules: &Classes,
) -> VerifiedPolicy {
    VerifiedPolicy::new(Authentic {
        epoch: 1,
        freshness: Freshness::Unproven,
        recipients: hospitals
            .iter()
            .map(|h| RecipientEntry {
                id: h.id,
                hpke_public_key: h.public,
                status: RecipientStatus::Active,
                kind: RecipientKind::Treating,
                emergency: false,
            })
            .collect(),
        devices: [("monitor-1", rules.clone()), ("belt-1", Classes::default())]
            .into_iter()
            .map(|(name, classes)| BoundDevice {
                device: DeviceId::new(name).unwrap(),
                patient: PATIENT,
                classes,
                station: None,
            })
            .collect(),
        grants: grants.iter().map(|grant| (PATIENT, grant.clone())).collect(),
        revocations: revoked.to_vec(),
        emergencies: Vec::new(),
    })
}

/// Files of 64 KiB, so that rotation is cheap to reach.
pub(crate) fn small() -> Limits {
    Limits::new(64 << 10, 2 << 20, 4 << 10)
}

/// A PUBLISH on its way in.
#[derive(Clone)]
pub(crate) struct Publish {
    pub(crate) device: DeviceId,
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
}

impl Publish {
    pub(crate) fn new(device: &str, leaf: &str, payload: impl AsRef<[u8]>) -> Self {
        Self {
            device: DeviceId::new(device).unwrap(),
            topic: format!("vitals/v1/{device}/{leaf}"),
            payload: payload.as_ref().to_vec(),
        }
    }

    /// A heart rate with its sequence number.
    pub(crate) fn beat(seq: u64) -> Self {
        let t = 1_790_000_000_000 + seq;
        Self::new("monitor-1", HEART_RATE, format!(r#"{{"v":{},"seq":{seq},"t":{t}}}"#, 60 + seq % 60))
    }

    /// An ECG chunk of `samples` samples.
    pub(crate) fn ecg(seq: u64, samples: usize) -> Self {
        let mut map = minicbor::Encoder::new(Vec::new());
        map.map(6).unwrap();
        map.str("t0").unwrap().u64(1_790_000_000_000_000 + seq).unwrap();
        map.str("period").unwrap().u32(2_777_778).unwrap();
        map.str("seq").unwrap().u64(seq).unwrap();
        map.str("scale").unwrap().f64(0.005).unwrap();
        map.str("unit").unwrap().str("mV").unwrap();
        map.str("data").unwrap().bytes(&vec![7; 2 * samples]).unwrap();
        Self::new("monitor-1", "wave/ecg-ii", map.into_writer())
    }
}

/// A gateway between two restarts.
pub(crate) struct Gateway {
    pub(crate) committer: Committer,
    pub(crate) recovery: Recovery,
    /// All that was handed to the uplink since the start, which must be all that the log took.
    pub(crate) spooled: Vec<Spooled>,
}

impl Gateway {
    /// Opens what is in `dir`, as the daemon does. The policy is given with each commit.
    pub(crate) fn open(dir: &Path, limits: Limits) -> Self {
        Self::open_with(dir, limits, None, 0)
    }

    /// With pins: the policy is what [`Committer::decide`] put in force, or what was kept of it.
    pub(crate) fn open_with(dir: &Path, limits: Limits, pins: Option<Arc<Pins>>, now_s: u64) -> Self {
        let mut keys = KeyStore::open(dir).unwrap();
        let (log, state, recovery) = recover::open(&dir.join("spool"), limits, &mut keys).unwrap();
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let now = Now { unix_s: now_s, at: caregate_host::clock::monotonic() };
        let policy = Decider::open(&keys, pins, metrics.clone(), now).unwrap();
        let committer = Committer {
            log,
            state,
            sealer: Sealer { device: device_key(), cipher: Cipher::Aes256Gcm, leaves: Leaves::default() },
            keys,
            policy,
            hints: Hints::open(&dir.join("hints"), &[7; 32]).unwrap(),
            metrics,
            random: SystemRandom::new(),
            heads: edge_gateway::pipeline::heads::Heads::default(),
            said: BTreeMap::new(),
            noted: BTreeMap::new(),
            tap: Tap::new(IntCounter::new("dropped", "dropped").unwrap()).0,
            expiry: None,
            walk: None,
            giving: None,
        };
        Self { committer, recovery, spooled: Vec::new() }
    }

    /// What the doors hand over, and where the verdicts come.
    pub(crate) fn inbound(
        publishes: &[Publish],
        received_us: i64,
    ) -> (Vec<Inbound>, Vec<oneshot::Receiver<Verdict>>) {
        let pairs = publishes.iter().map(|p| {
            let (verdict, answered) = oneshot::channel();
            let (device, topic, payload) = (p.device.clone(), p.topic.clone(), p.payload.clone().into());
            (Inbound { device, topic, payload, received_us, verdict }, answered)
        });
        pairs.unzip()
    }

    /// One group commit.
    pub(crate) fn commit_at(
        &mut self,
        publishes: &[Publish],
        policy: &VerifiedPolicy,
        now_us: i64,
    ) -> Vec<Verdict> {
        let (batch, verdicts) = Self::inbound(publishes, now_us);
        let first = self.committer.log.stats().next.0;
        let spooled = self.committer.commit(batch, policy, now_us).unwrap();
        let positions: Vec<_> = spooled.iter().map(|s| s.position).collect();
        let all: Vec<_> = (first..self.committer.log.stats().next.0).collect();
        assert_eq!(
            positions, all,
            "what is in the log and was not handed to the uplink stays there for ever"
        );
        self.spooled.extend(spooled);
        verdicts.into_iter().map(|mut verdict| verdict.try_recv().unwrap()).collect()
    }

    pub(crate) fn commit(&mut self, publishes: &[Publish], policy: &VerifiedPolicy) -> Vec<Verdict> {
        self.commit_at(publishes, policy, NOW_US)
    }

    /// Commits one PUBLISH.
    pub(crate) fn put(&mut self, publish: &Publish, policy: &VerifiedPolicy) -> Verdict {
        self.commit(std::slice::from_ref(publish), policy)[0]
    }

    pub(crate) fn quarantined(&self, reason: &str) -> u64 {
        self.committer.metrics.quarantined.with_label_values(&[reason]).get()
    }

    pub(crate) fn refused(&self, reason: &str) -> u64 {
        self.committer.metrics.refused.with_label_values(&[reason]).get()
    }

    /// Every record on disk that can be read, by position.
    pub(crate) fn records(&self) -> Vec<(u64, Lane, Vec<u8>)> {
        let reader = self.committer.log.reader();
        (1..self.committer.log.stats().next.0)
            .filter_map(|position| {
                let (lane, bytes) = reader.read(Position(position)).unwrap()?;
                Some((position, lane, bytes))
            })
            .collect()
    }

    /// Every segment on disk, opened with the patient's root.
    pub(crate) fn opened(&mut self) -> Vec<Opened> {
        let records = self.records();
        let mut opened = Vec::new();
        for (position, lane, bytes) in &records {
            if let Record::Segment(segment) = Record::decode(bytes).unwrap() {
                let h = &segment.header;
                let root = self.committer.keys.existing_root(h.patient).unwrap().unwrap();
                let key = root.class_key(h.class, h.generation).epoch_key(h.epoch).unwrap();
                opened.push(Opened::new(*position, *lane, &segment, &key));
            }
        }
        opened
    }

    /// The readings on disk of one class, in order.
    pub(crate) fn readings(&mut self, class: DataClass) -> Vec<Reading> {
        let opened = self.opened().into_iter().filter(|o| o.header.class == class);
        opened.flat_map(|o| o.readings).collect()
    }

    /// The sequence numbers of one stream's readings on disk.
    pub(crate) fn seqs(&mut self, class: DataClass) -> Vec<u64> {
        self.readings(class).iter().map(|r| r.seq.unwrap()).collect()
    }

    /// What a hospital opens of the records on disk, with nothing but its private key.
    pub(crate) fn opened_by(&self, hospital: &Hospital) -> Vec<Opened> {
        let records = self.records();
        let mut nodes: Vec<(Wrap, TreeNode)> = Vec::new();
        for (_, _, bytes) in &records {
            if let Record::Wrap(wrap) = Record::decode(bytes).unwrap() {
                wrap.verify(&device_key().verifying_key()).unwrap();
                match wrap.open(&hospital.private, &device_key().verifying_key()) {
                    Ok(node) => {
                        assert_eq!(wrap.recipient, hospital.id);
                        nodes.push((wrap, node));
                    }
                    Err(_) => assert_ne!(wrap.recipient, hospital.id),
                }
            }
        }
        let mut opened = Vec::new();
        for (position, lane, bytes) in &records {
            if let Record::Segment(segment) = Record::decode(bytes).unwrap() {
                // Every key that it holds is tried, not just those that claim to fit.
                let key = nodes.iter().find_map(|(_, node)| {
                    let key = node.epoch_key(segment.header.epoch)?;
                    segment.open(&key).is_ok().then_some(key)
                });
                opened.extend(key.map(|key| Opened::new(*position, *lane, &segment, &key)));
            }
        }
        opened
    }

    /// The sequence numbers that a private key opens, also where some of its hospital's wraps are to another key.
    pub(crate) fn opened_with(&self, key: &Hospital) -> Vec<u64> {
        let records = self.records();
        let nodes: Vec<TreeNode> = records
            .iter()
            .filter_map(|(_, _, bytes)| match Record::decode(bytes).unwrap() {
                Record::Wrap(wrap) => wrap.open(&key.private, &device_key().verifying_key()).ok(),
                Record::Segment(_) | Record::Head(_) | Record::Gap(_) | Record::Tokens(_) => None,
            })
            .collect();
        let mut seqs = Vec::new();
        for (_, _, bytes) in &records {
            let Record::Segment(segment) = Record::decode(bytes).unwrap() else { continue };
            let keys = nodes.iter().filter_map(|node| node.epoch_key(segment.header.epoch));
            if let Some(plain) = keys.into_iter().find_map(|key| segment.open(&key).ok()) {
                seqs.extend(reading::decode(&plain).unwrap().iter().filter_map(|r| r.seq));
            }
        }
        seqs
    }

    /// Acknowledges everything, as the core does.
    pub(crate) fn ack_all(&mut self) {
        self.committer.log.ack(1..=u64::MAX).unwrap();
    }
}

/// A segment that opened.
pub(crate) struct Opened {
    pub(crate) position: u64,
    pub(crate) lane: Lane,
    pub(crate) header: Header,
    pub(crate) hash: SegmentHash,
    pub(crate) readings: Vec<Reading>,
}

impl Opened {
    fn new(position: u64, lane: Lane, segment: &Segment<'_>, key: &EpochKey) -> Self {
        let hash = segment.verify(&device_key().verifying_key()).unwrap();
        let readings = reading::decode(&segment.open(key).unwrap()).unwrap();
        assert_eq!(readings.len(), segment.header.readings as usize);
        assert_eq!(lane, segment.header.class.lane());
        Self { position, lane, header: segment.header.clone(), hash, readings }
    }
}

/// Checks that the segments of each class are numbered without a gap from `first` and linked by hash.
pub(crate) fn assert_whole(opened: &[Opened]) {
    let mut heads: BTreeMap<(PatientId, DataClass), (u64, SegmentHash)> = BTreeMap::new();
    for o in opened {
        let head = heads.entry((o.header.patient, o.header.class)).or_insert((0, SegmentHash::NONE));
        assert_eq!((o.header.sequence, o.header.prev), *head, "{:?}", o.header.class);
        *head = (o.header.sequence + 1, o.hash);
    }
}

/// Changes one byte in the middle of a record's bytes, wherever in the spool they are.
pub(crate) fn damage(dir: &Path, record: &[u8]) {
    for file in std::fs::read_dir(dir.join("spool")).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(record.len()).position(|window| window == record) {
            bytes[at + record.len() / 2] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            return;
        }
    }
    panic!("the record is in no file of the spool");
}

/// A folder that several gateways use one after the other.
pub(crate) struct Home {
    pub(crate) dir: TempDir,
    pub(crate) limits: Limits,
}

impl Home {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), limits }
    }

    pub(crate) fn start(&self) -> Gateway {
        Gateway::open(self.dir.path(), self.limits)
    }

    /// As after kill -9: nothing is closed in good order that a drop does not close anyway.
    pub(crate) fn restart(&self, gateway: Gateway) -> Gateway {
        drop(gateway);
        self.start()
    }
}
