//! All segments of a power cut, at the core and in the spool, by chain and number.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, bail};
use caregate_protocol::id::{DataClass, Lane, PatientId};
use caregate_protocol::reading;
use caregate_protocol::record::Record;
use caregate_protocol::segment::SegmentHash;
use core_cloud::store::{Embedded, Store};
use ed25519_dalek::VerifyingKey;
use edge_gateway::keys::KeyStore;
use edge_gateway::pipeline::chains::Chain;
use edge_gateway::spool::{Log, Position};

use crate::pipeline::Times;
use crate::publisher::Name;

/// Numbers behind a chain's end that are looked for: more than a group commit gives out.
const BEHIND: u64 = 64;
const STREAMS: [&str; 4] = ["heart-rate", "ecg-ii", "fall", "walk"];

/// A record, and whether it counts as there: in the spool only until the core has acknowledged it.
type Held = (Vec<u8>, bool);

pub(crate) type ChainKey = (PatientId, DataClass);

/// All that the core has of these chains, also behind their ends.
pub(crate) fn at_core(folder: &Path, heads: &BTreeMap<ChainKey, Chain>) -> anyhow::Result<Vec<Held>> {
    caregate_host::dir::create_private(folder)?;
    let store = Embedded::open(folder).context("core.redb")?;
    let mut all = Vec::new();
    for ((patient, class), head) in heads {
        for number in 0..head.next + BEHIND {
            let found = store.segment(*patient, *class, number).context("a segment")?;
            all.extend(found.map(|record| (record, true)));
        }
    }
    Ok(all)
}

/// All that the spool can read.
pub(crate) fn in_spool(log: &Log) -> anyhow::Result<Vec<Held>> {
    let reader = log.reader();
    let mut waiting = BTreeSet::new();
    for lane in Lane::ALL {
        let mut from = Position(0);
        while let Some(position) = reader.next_unacked(lane, from) {
            waiting.insert(position);
            from = Position(position.0 + 1);
        }
    }
    let first = reader.oldest().unwrap_or(Position(1));
    let mut all = Vec::new();
    for position in (first.0..log.stats().next.0).map(Position) {
        if let Some((_, record)) = reader.read(position).with_context(|| format!("{position:?}"))? {
            all.push((record, waiting.contains(&position)));
        }
    }
    Ok(all)
}

/// One segment, opened.
#[derive(Debug)]
struct One {
    hash: SegmentHash,
    prev: SegmentHash,
    salt: [u8; 16],
    names: Vec<Name>,
    counts: bool,
}

/// By chain and number.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    chains: BTreeMap<ChainKey, BTreeMap<u64, One>>,
    /// Numbers under which there are two.
    forks: u64,
}

impl Segments {
    /// Verifies and opens all, with the patients' roots.
    ///
    /// # Errors
    /// A record that does not parse, or that does not open.
    pub(crate) fn open(
        core: Vec<Held>,
        spool: Vec<Held>,
        device: &VerifyingKey,
        keys: &mut KeyStore,
    ) -> anyhow::Result<Self> {
        let mut segments = Self::default();
        for (bytes, counts) in core.into_iter().chain(spool) {
            let Record::Segment(segment) = Record::decode(&bytes)? else { continue };
            let (hash, header) = (segment.verify(device)?, &segment.header);
            let chain = segments.chains.entry((header.patient, header.class)).or_default();
            if let Some(known) = chain.get_mut(&header.sequence) {
                segments.forks += u64::from(known.hash != hash);
                known.counts |= counts;
                continue;
            }
            let root = keys.existing_root(header.patient)?.context("a patient without a root")?;
            let key = root.class_key(header.class, header.generation).epoch_key(header.epoch);
            let plaintext = segment.open(&key.context("an epoch outside the tree")?)?;
            let names = names(&plaintext)?;
            let one = One { hash, prev: header.prev, salt: header.salt, names, counts };
            chain.insert(header.sequence, one);
        }
        Ok(segments)
    }

    /// Numbers that were given out twice, links that do not hold, salts that two share, and ends that the gateway would write over.
    pub(crate) fn faults(&self, heads: &BTreeMap<ChainKey, Chain>) -> u64 {
        let mut salts = BTreeSet::new();
        let mut faults = self.forks;
        for (key, chain) in &self.chains {
            let mut expected = (0, SegmentHash::NONE);
            for (number, one) in chain {
                faults += u64::from((*number, one.prev) != expected);
                faults += u64::from(!salts.insert(one.salt));
                expected = (number + 1, one.hash);
            }
            let next = heads.get(key).map(|head| (head.next, head.prev));
            faults += u64::from(next != Some(expected));
        }
        faults
    }

    /// The readings of all that counts as there.
    pub(crate) fn readings(&self) -> Times {
        let mut times = Times::new();
        let there = self.chains.values().flat_map(BTreeMap::values).filter(|one| one.counts);
        for name in there.flat_map(|one| &one.names) {
            *times.entry(name.clone()).or_default() += 1;
        }
        times
    }

    /// Readings that are in more than one segment.
    pub(crate) fn twice(&self) -> u64 {
        let mut seen = BTreeSet::new();
        let all = self.chains.values().flat_map(BTreeMap::values).flat_map(|one| &one.names);
        all.filter(|name| !seen.insert(*name)).count() as u64
    }
}

/// What the sensors here have published, of a segment's readings; the gateway's watch speaks among them.
fn names(plaintext: &[u8]) -> anyhow::Result<Vec<Name>> {
    let mut names = Vec::new();
    for reading in reading::decode(plaintext)? {
        if matches!(reading.value, reading::Value::Standing(_)) {
            continue;
        }
        let stream = STREAMS.into_iter().find(|name| *name == reading.stream.as_str());
        let (Some(stream), Some(seq)) = (stream, reading.seq) else {
            bail!("a reading of {}, which nobody has published", reading.stream);
        };
        names.push((reading.device.as_str().to_owned(), stream, seq));
    }
    Ok(names)
}
