//! Batches as messages of the stream: one for each patient and class, so that either can be taken out by its subject.

use std::collections::HashMap;

use bytes::Bytes;
use caregate_protocol::entry::{self, Queued};
use caregate_protocol::id::{DataClass, PatientId};
use caregate_protocol::record::Record;

use crate::store::index::Noted;

/// Places of queues in one entry: 295 kB, so that an entry with the largest record fits the smallest message that is let be.
const QUEUED_MAX: usize = 8192;

/// A message that is to be published.
#[derive(Debug)]
pub(super) struct Message {
    /// Below the stream's name.
    pub(super) subject: String,
    pub(super) payload: Bytes,
    /// Index, offset and length of each record.
    pub(super) records: Vec<(u64, usize, usize)>,
}

/// Where a record is: which message of the stream, and where in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) sequence: u64,
    offset: u32,
    length: u32,
}

impl Place {
    pub(super) fn of(sequence: u64, offset: usize, length: usize) -> Self {
        let short = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { sequence, offset: short(offset), length: short(length) }
    }

    pub(super) fn encode(self) -> [u8; 16] {
        let low = u64::from(self.offset) << 32 | u64::from(self.length);
        (u128::from(self.sequence) << 64 | u128::from(low)).to_be_bytes()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (sequence, rest) = bytes.split_first_chunk::<8>()?;
        let (offset, rest) = rest.split_first_chunk::<4>()?;
        let length = <[u8; 4]>::try_from(rest).ok()?;
        Some(Self {
            sequence: u64::from_be_bytes(*sequence),
            offset: u32::from_be_bytes(*offset),
            length: u32::from_be_bytes(length),
        })
    }

    /// The record in its message.
    pub(super) fn cut(self, payload: &[u8]) -> Option<&[u8]> {
        let first = usize::try_from(self.offset).ok()?;
        payload.get(first..first.checked_add(usize::try_from(self.length).ok()?)?)
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

#[derive(Default)]
struct Open {
    bytes: Vec<u8>,
    records: Vec<(u64, usize, usize)>,
}

/// Records with what they queued, in messages of at most `bytes_max`. Of one patient and class the order is kept.
pub(super) fn gather<'a>(stored: impl Iterator<Item = (&'a [u8], Noted)>, bytes_max: usize) -> Vec<Message> {
    let subjects = |bytes: &[u8]| {
        // It was decoded when it was stored.
        Record::decode(bytes).ok().map(|record| subject(record.class(), record.patient()))
    };
    gather_by(stored, bytes_max, subjects)
}

/// The request for an erasure: under a subject of its own, so that it stays when the patient's records go.
pub(super) fn erasure<'a>(
    noted: impl Iterator<Item = (&'a [u8], Noted)>,
    patient: PatientId,
) -> Vec<Message> {
    gather_by(noted, usize::MAX, |_| Some(format!("erased.{}", hex::encode(patient.0))))
}

fn gather_by<'a>(
    stored: impl Iterator<Item = (&'a [u8], Noted)>,
    bytes_max: usize,
    subject_of: impl Fn(&[u8]) -> Option<String>,
) -> Vec<Message> {
    let mut done = Vec::new();
    let mut open: HashMap<String, Open> = HashMap::new();
    for (bytes, noted) in stored {
        let Some(subject) = subject_of(bytes) else { continue };
        let parts = noted.queued.chunks(QUEUED_MAX);
        let parts: Vec<&[Queued]> = if noted.queued.is_empty() { vec![&[]] } else { parts.collect() };
        for (nth, queued) in parts.into_iter().enumerate() {
            let record = if nth == 0 { bytes } else { &[] };
            let needs = entry::ENTRY_HEAD_BYTES + queued.len() * entry::QUEUED_BYTES + record.len();
            let at = open.entry(subject.clone()).or_default();
            if !at.bytes.is_empty() && at.bytes.len() + needs > bytes_max {
                done.push(finish(&subject, std::mem::take(at)));
            }
            if at.bytes.is_empty() {
                at.bytes = entry::message();
            }
            let offset = entry::encode(&mut at.bytes, noted.index, queued, record);
            if nth == 0 {
                at.records.push((noted.index, offset, record.len()));
            }
        }
    }
    done.extend(open.into_iter().map(|(subject, open)| finish(&subject, open)));
    done
}

fn finish(subject: &str, open: Open) -> Message {
    Message { subject: subject.to_owned(), payload: open.bytes.into(), records: open.records }
}
