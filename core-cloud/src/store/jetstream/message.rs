//! Batches as messages of the stream: one for each patient and class, so that either can be taken out by its subject. What outlives its
//! epoch (heads, wraps of more than one) has a message of its own, so that the others can go when they are too old.

use std::collections::BTreeMap;

use bytes::Bytes;
use caregate_protocol::entry::{self, Floor, Queued};
use caregate_protocol::id::{DataClass, PatientId, SignerId};
use caregate_protocol::key::TREE_DEPTH;
use caregate_protocol::record::Record;

use crate::store::index::{Noted, owner_entry};
use crate::store::rows::{OwnerRow, Place};

/// Places of queues in one entry: 295 kB, so that an entry with the largest record fits the smallest message that is let be.
const QUEUED_MAX: usize = 8192;

/// A message that is to be published.
#[derive(Debug)]
pub(super) struct Message {
    /// Below the stream's name.
    pub(super) subject: String,
    pub(super) payload: Bytes,
    /// Of each record.
    pub(super) records: Vec<Held>,
}

/// A record in a message: its index at the core, who signed it, and where it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) index: u64,
    signer: SignerId,
    offset: usize,
    length: usize,
}

impl Held {
    pub(super) fn of(index: u64, record: &[u8], offset: usize) -> Self {
        // A request for erasure is of no signer whose bytes are counted.
        let signer = Record::decode(record).map_or(SignerId([0; 8]), |record| record.signer());
        Self { index, signer, offset, length: record.len() }
    }

    /// Its place in the message of this sequence.
    pub(super) fn place(&self, sequence: u64) -> Place {
        let short = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Place { sequence, signer: self.signer, offset: short(self.offset), length: short(self.length) }
    }
}

/// Subject of one patient's records of one class, below the stream's name.
pub(super) fn subject(class: DataClass, patient: PatientId) -> String {
    format!("records.{}.{}", class.as_str(), hex::encode(patient.0))
}

/// Subjects of all of a patient's records, below the stream's name.
pub(super) fn subjects_of(patient: PatientId) -> String {
    format!("records.*.{}", hex::encode(patient.0))
}

/// Subject of what retention leaves of a patient.
pub(super) fn subject_of_floors(patient: PatientId) -> String {
    format!("floors.{}", hex::encode(patient.0))
}

/// What retention leaves of a patient: its chains' floors, of each queue the last place, and whose the pseudonym is.
pub(super) fn floors(
    patient: PatientId,
    floors: &[Floor],
    last: &[Queued],
    owner: Option<OwnerRow>,
) -> Message {
    let mut bytes = entry::message();
    for part in last.chunks(QUEUED_MAX) {
        entry::encode(&mut bytes, 0, part, &[]);
    }
    for floor in floors {
        entry::encode(&mut bytes, 0, &[], &floor.encode());
    }
    if let Some(owner) = owner {
        entry::encode(&mut bytes, 0, &[], &owner_entry(patient, owner));
    }
    Message { subject: subject_of_floors(patient), payload: bytes.into(), records: Vec::new() }
}

#[derive(Default)]
struct Open {
    bytes: Vec<u8>,
    records: Vec<Held>,
}

/// Whether it goes with its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lasts {
    /// A wrap of more than one epoch, or a head. First, as a wrap goes before what it opens.
    Longer,
    /// All else.
    AnEpoch,
}

/// Records with what they queued, in messages of at most `bytes_max`. Of one patient and class the order is kept.
pub(super) fn gather<'a>(stored: impl Iterator<Item = (&'a [u8], Noted)>, bytes_max: usize) -> Vec<Message> {
    let subjects = |bytes: &[u8]| {
        // It was decoded when it was stored.
        let record = Record::decode(bytes).ok()?;
        let lasts = match &record {
            Record::Wrap(wrap) if wrap.depth < TREE_DEPTH => Lasts::Longer,
            Record::Head(_) => Lasts::Longer,
            Record::Wrap(_) | Record::Segment(_) | Record::Gap(_) | Record::Tokens(_) => Lasts::AnEpoch,
        };
        Some((lasts, subject(record.class(), record.patient())))
    };
    gather_by(stored, bytes_max, subjects)
}

/// The request for an erasure: under a subject of its own, so that it stays when the patient's records go.
pub(super) fn erasure<'a>(
    noted: impl Iterator<Item = (&'a [u8], Noted)>,
    patient: PatientId,
) -> Vec<Message> {
    gather_by(noted, usize::MAX, |_| Some((Lasts::Longer, format!("erased.{}", hex::encode(patient.0)))))
}

fn gather_by<'a>(
    stored: impl Iterator<Item = (&'a [u8], Noted)>,
    bytes_max: usize,
    subject_of: impl Fn(&[u8]) -> Option<(Lasts, String)>,
) -> Vec<Message> {
    let mut done = Vec::new();
    let mut open: BTreeMap<(Lasts, String), Open> = BTreeMap::new();
    for (bytes, noted) in stored {
        let Some(subject) = subject_of(bytes) else { continue };
        let parts = noted.queued.chunks(QUEUED_MAX);
        let parts: Vec<&[Queued]> = if noted.queued.is_empty() { vec![&[]] } else { parts.collect() };
        for (nth, queued) in parts.into_iter().enumerate() {
            let record = if nth == 0 { bytes } else { &[] };
            let needs = entry::ENTRY_HEAD_BYTES + queued.len() * entry::QUEUED_BYTES + record.len();
            let at = open.entry(subject.clone()).or_default();
            if !at.bytes.is_empty() && at.bytes.len() + needs > bytes_max {
                done.push(finish(&subject.1, std::mem::take(at)));
            }
            if at.bytes.is_empty() {
                at.bytes = entry::message();
            }
            let offset = entry::encode(&mut at.bytes, noted.index, queued, record);
            if nth == 0 {
                at.records.push(Held::of(noted.index, record, offset));
            }
        }
    }
    done.extend(open.into_iter().map(|((_, subject), open)| finish(&subject, open)));
    done
}

fn finish(subject: &str, open: Open) -> Message {
    Message { subject: subject.to_owned(), payload: open.bytes.into(), records: open.records }
}
