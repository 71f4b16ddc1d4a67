//! The readings that were opened last, numbered, bounded by bytes. Pure.

use std::collections::VecDeque;
use std::mem::size_of;
use std::sync::Arc;

use caregate_protocol::id::{DataClass, PatientId};
use caregate_protocol::reading::{Reading, Value};
use thiserror::Error;

use crate::opener::Opened;

/// Bytes kept unless configured: some 25 minutes of 50 patients with two ECG leads each in chunks of 250 ms, or an hour of six
/// numerics a second of each; a page that lost its connection resumes well within it.
pub const BYTES_MAX_DEFAULT: usize = 256 << 20;
/// Beside the reading itself: the reference counts of its `Arc` and its slot, which a deque may hold twice.
const OVERHEAD_BYTES: usize = 32;

/// An opened reading and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The feed's own number, growing by one.
    pub n: u64,
    /// Whose.
    pub patient: PatientId,
    /// Of which class.
    pub class: DataClass,
    /// The sequence of its segment in the chain of patient and class.
    pub segment: u64,
    /// Its place in the segment.
    pub index: usize,
    /// Unix time in milliseconds by the feed's clock when the segment was opened.
    pub opened_ms: i64,
    /// What was measured.
    pub reading: Reading,
}

impl Entry {
    fn bytes(&self) -> usize {
        let samples = match &self.reading.value {
            Value::Waveform { samples, .. } => samples.len() * size_of::<i16>(),
            Value::Numeric { .. } | Value::Event { .. } | Value::Standing(_) => 0,
        };
        let names = self.reading.device.as_str().len() + self.reading.stream.as_str().len();
        size_of::<Self>() + OVERHEAD_BYTES + names + samples
    }

    /// Unix time in microseconds at which it was measured: by the sensor's clock, else by the gateway's.
    #[must_use]
    pub fn measured_us(&self) -> i64 {
        match (&self.reading.value, self.reading.sensor_time_us) {
            (Value::Waveform { t0_us, .. }, _) => *t0_us,
            (Value::Numeric { .. } | Value::Event { .. } | Value::Standing(_), Some(us)) => us,
            (Value::Numeric { .. } | Value::Event { .. } | Value::Standing(_), None) => {
                self.reading.gateway_time_us
            }
        }
    }

    /// The quantity's number in the code table.
    #[must_use]
    pub fn quantity(&self) -> u16 {
        self.reading.value.quantity()
    }
}

/// The readings of an opened segment, numbered from `first`.
pub fn entries(opened: Opened, first: u64, opened_ms: i64) -> impl Iterator<Item = Entry> {
    let Opened { patient, class, sequence, readings, .. } = opened;
    (first..).zip(readings).enumerate().map(move |(index, (n, reading))| Entry {
        n,
        patient,
        class,
        segment: sequence,
        index,
        opened_ms,
        reading,
    })
}

/// The number asked for is no longer held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("readings before {tail} are no longer held")]
pub struct Fallen {
    /// The lowest number that is.
    pub tail: u64,
}

/// The readings that were opened last.
#[derive(Debug)]
pub struct Ring {
    /// Numbers rise, without a gap but where a patient was forgotten; the last is below `next`.
    entries: VecDeque<Arc<Entry>>,
    next: u64,
    bytes: usize,
    bytes_max: usize,
}

impl Ring {
    /// Keeps about `bytes_max`; the newest reading always.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { entries: VecDeque::new(), next: 0, bytes: 0, bytes_max }
    }

    /// Appends the readings of a segment; the oldest make room.
    pub fn append(&mut self, opened: Opened, opened_ms: i64) {
        for entry in entries(opened, self.next, opened_ms) {
            self.bytes += entry.bytes();
            self.next += 1;
            self.entries.push_back(Arc::new(entry));
        }
        while self.bytes > self.bytes_max
            && self.entries.len() > 1
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes -= oldest.bytes();
        }
    }

    /// Drops what is held of a patient. Answers with how many readings that were, and their bytes.
    pub fn forget(&mut self, patient: PatientId) -> (u64, u64) {
        let (count, bytes) = (self.entries.len(), self.bytes);
        self.entries.retain(|entry| entry.patient != patient);
        self.bytes = self.entries.iter().map(|entry| entry.bytes()).sum();
        let gone = |before: usize, after: usize| u64::try_from(before - after).unwrap_or(u64::MAX);
        (gone(count, self.entries.len()), gone(bytes, self.bytes))
    }

    /// The number of the next reading.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The lowest number held; [`Ring::next`] when none is.
    #[must_use]
    pub fn tail(&self) -> u64 {
        self.entries.front().map_or(self.next, |oldest| oldest.n)
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Up to `count` readings from number `from` on; none when `from` is yet to come.
    ///
    /// # Errors
    /// [`Fallen`] when `from` has been dropped.
    pub fn read(&self, from: u64, count: usize) -> Result<Vec<Arc<Entry>>, Fallen> {
        let tail = self.tail();
        if from < tail {
            return Err(Fallen { tail });
        }
        let skip = self.entries.partition_point(|entry| entry.n < from);
        Ok(self.entries.range(skip..).take(count).cloned().collect())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use caregate_protocol::id::{DeviceId, SignerId, StreamName};
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn numeric(stream: &str, quantity: u16, value: f64, sensor_time_us: Option<i64>) -> Reading {
        Reading {
            device: DeviceId::new("monitor-1").unwrap(),
            stream: StreamName::new(stream).unwrap(),
            seq: Some(7),
            sensor_time_us,
            gateway_time_us: 1_790_000_000_001_000,
            flags: 0,
            value: Value::Numeric { quantity, value },
        }
    }

    pub(crate) fn segment(sequence: u64, readings: Vec<Reading>) -> Opened {
        Opened {
            patient: PatientId([1; 16]),
            class: DataClass::Vitals,
            sequence,
            readings,
            standings: Vec::new(),
            signer: SignerId([6; 8]),
            sealed_us: 1_790_000_000_002_000,
        }
    }

    fn one(value: f64) -> Opened {
        segment(0, vec![numeric("heart-rate", 1, value, None)])
    }

    #[test]
    fn reads_by_number_and_says_what_is_gone() {
        let mut ring = Ring::new(usize::MAX);
        assert_eq!(ring.read(0, 9).unwrap(), []);
        ring.append(one(1.0), 5);
        let size = ring.bytes();
        let mut ring = Ring::new(3 * size);
        for n in 0..5 {
            ring.append(one(f64::from(n)), 5);
        }
        assert_eq!((ring.tail(), ring.next(), ring.bytes()), (2, 5, 3 * size));
        assert_eq!(ring.read(1, 9), Err(Fallen { tail: 2 }));
        let numbers = |from, count| ring.read(from, count).unwrap().iter().map(|e| e.n).collect::<Vec<_>>();
        assert_eq!(numbers(2, 2), [2, 3]);
        assert_eq!(numbers(4, 9), [4]);
        assert!(numbers(5, 9).is_empty() && numbers(u64::MAX, 9).is_empty());
    }

    #[test]
    fn one_reading_is_held_whatever_its_size() {
        let mut ring = Ring::new(0);
        ring.append(one(1.0), 5);
        ring.append(one(2.0), 5);
        assert_eq!((ring.tail(), ring.next()), (1, 2));
    }

    proptest! {
        #[test]
        fn numbers_have_no_gap_and_bytes_add_up(sizes in prop::collection::vec(0_usize..9, 1..60), max in 0_usize..9000) {
            let mut ring = Ring::new(max);
            for size in sizes {
                ring.append(segment(0, vec![numeric("heart-rate", 1, 60.0, None); size]), 5);
                let held = ring.read(ring.tail(), usize::MAX).unwrap();
                prop_assert!(held.iter().map(|e| e.n).eq(ring.tail()..ring.next()));
                prop_assert_eq!(held.iter().map(|e| e.bytes()).sum::<usize>(), ring.bytes());
                prop_assert!(ring.bytes() <= max || held.len() <= 1);
            }
        }
    }
}
