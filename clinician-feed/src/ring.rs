//! The readings that were opened last, numbered, bounded by bytes. Pure.

use std::collections::VecDeque;
use std::mem::size_of;
use std::sync::Arc;

use caregate_protocol::id::{DataClass, PatientId};
use caregate_protocol::reading::{Reading, Value};
use caregate_protocol::uplink::Timing;
use thiserror::Error;

use crate::opener::Opened;

/// Bytes kept unless configured: some 25 minutes of 50 patients with two ECG leads each in chunks of 250 ms, or an hour of six
/// numerics a second of each; a page that lost its connection resumes well within it.
pub const BYTES_MAX_DEFAULT: usize = 256 << 20;
/// Beside the reading itself: the reference counts of its `Arc` and its slot, which a deque may hold twice.
const OVERHEAD_BYTES: usize = 32;
/// Live readings that a reader is sent at once: some 100 kB of JSON, so that a close or an end of session is soon seen.
const LIVE_MAX: usize = 256;
/// Others that it is sent with them: what comes live meanwhile waits for so many, some 80 kB where they are chunks of waveforms.
const BACKLOG_MAX: usize = 32;
/// Readings among which is looked for live ones at once: the opener waits meanwhile, for some 10 µs.
const LOOKED_AT_MAX: usize = 4096;

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
    /// Whether it came live.
    pub timing: Timing,
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

/// The readings of an opened segment that came live, numbered from `first`.
pub fn entries(opened: Opened, first: u64, opened_ms: i64) -> impl Iterator<Item = Entry> {
    entries_of(opened, first, opened_ms, Timing::Live)
}

/// The same of one that came as what `timing` says.
fn entries_of(opened: Opened, first: u64, opened_ms: i64, timing: Timing) -> impl Iterator<Item = Entry> {
    let Opened { patient, class, sequence, readings, .. } = opened;
    (first..).zip(readings).enumerate().map(move |(index, (n, reading))| Entry {
        n,
        patient,
        class,
        segment: sequence,
        index,
        opened_ms,
        timing,
        reading,
    })
}

/// How far a reader is. What is live it is sent first, so that it is in two places at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// All below was sent.
    at: u64,
    /// What came live below was sent, too; never below `at`.
    ahead: u64,
}

impl Place {
    /// At a number, nothing sent beyond it.
    #[must_use]
    pub fn new(at: u64) -> Self {
        Self { at, ahead: at }
    }

    /// All below this number was sent.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.at
    }
}

/// A reading for a reader.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// It.
    pub entry: Arc<Entry>,
    /// It came live, and lower numbers are sent after it.
    pub ahead: bool,
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
    pub fn append(&mut self, opened: Opened, opened_ms: i64, timing: Timing) {
        for entry in entries_of(opened, self.next, opened_ms, timing) {
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
        Ok(self.from(from).take(count).cloned().collect())
    }

    fn from(&self, n: u64) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.range(self.entries.partition_point(|entry| entry.n < n)..)
    }

    /// What a reader is sent next: what came live, then some of what did not, both bounded. Each reading comes once.
    ///
    /// # Errors
    /// [`Fallen`] when what it has not been sent has been dropped.
    pub fn take(&self, place: &mut Place) -> Result<Vec<Sent>, Fallen> {
        let tail = self.tail();
        if place.at < tail {
            return Err(Fallen { tail });
        }
        let mut sent = Vec::new();
        let (mut looked_at, mut is_done) = (0, true);
        for entry in self.from(place.ahead) {
            let is_live = entry.timing == Timing::Live;
            if looked_at == LOOKED_AT_MAX || (is_live && sent.len() == LIVE_MAX) {
                is_done = false;
                break;
            }
            looked_at += 1;
            // Nothing before it waits.
            let in_order = place.at == place.ahead;
            if is_live {
                sent.push(Sent { entry: Arc::clone(entry), ahead: !in_order });
            }
            place.ahead = entry.n + 1;
            if in_order {
                place.at = if is_live { place.ahead } else { entry.n };
            }
        }
        if is_done {
            let in_order = place.at == place.ahead;
            place.ahead = self.next;
            place.at = if in_order { self.next } else { place.at };
        }
        let mut backlog = 0;
        for entry in self.from(place.at).take_while(|entry| entry.n < place.ahead) {
            place.at = entry.n;
            if entry.timing == Timing::Backlog {
                if backlog == BACKLOG_MAX {
                    return Ok(sent);
                }
                backlog += 1;
                sent.push(Sent { entry: Arc::clone(entry), ahead: false });
            }
        }
        place.at = place.ahead;
        Ok(sent)
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
        ring.append(one(1.0), 5, Timing::Live);
        let size = ring.bytes();
        let mut ring = Ring::new(3 * size);
        for n in 0..5 {
            ring.append(one(f64::from(n)), 5, Timing::Live);
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
        ring.append(one(1.0), 5, Timing::Live);
        ring.append(one(2.0), 5, Timing::Live);
        assert_eq!((ring.tail(), ring.next()), (1, 2));
    }

    fn taken(ring: &Ring, place: &mut Place) -> Vec<(u64, bool)> {
        ring.take(place).unwrap().iter().map(|sent| (sent.entry.n, sent.ahead)).collect()
    }

    #[test]
    fn what_is_live_is_next_however_much_backlog_waits() {
        let mut ring = Ring::new(usize::MAX);
        let mut place = Place::new(0);
        ring.append(one(1.0), 5, Timing::Live);
        assert_eq!(taken(&ring, &mut place), [(0, false)], "in its order where nothing waits");
        for _ in 0..3 * BACKLOG_MAX {
            ring.append(one(1.0), 5, Timing::Backlog);
        }
        ring.append(one(1.0), 5, Timing::Live);
        let first = taken(&ring, &mut place);
        assert_eq!((first[0], first[1], first.len()), ((97, true), (1, false), 1 + BACKLOG_MAX));
        assert_eq!(place.at(), 33);
        ring.append(one(1.0), 5, Timing::Live);
        assert_eq!(taken(&ring, &mut place)[..2], [(98, true), (33, false)]);
        assert_eq!(taken(&ring, &mut place)[0], (65, false));
        assert_eq!((place, taken(&ring, &mut place)), (Place::new(99), vec![]));
        ring.append(one(1.0), 5, Timing::Live);
        assert_eq!(taken(&ring, &mut place), [(99, false)]);
        assert_eq!(taken(&ring, &mut Place::new(0)).len(), 4 + BACKLOG_MAX);
    }

    #[test]
    fn who_is_too_slow_for_the_past_is_told() {
        let mut ring = Ring::new(0);
        let mut place = Place::new(0);
        for timing in [Timing::Backlog, Timing::Live] {
            ring.append(one(1.0), 5, timing);
        }
        assert_eq!(ring.take(&mut place), Err(Fallen { tail: 1 }));
        assert_eq!(taken(&ring, &mut Place::new(1)), [(1, false)]);
    }

    proptest! {
        #[test]
        fn each_reading_is_sent_once_and_the_past_in_its_order(
            steps in prop::collection::vec((0_usize..90, prop::bool::ANY, prop::bool::ANY), 1..40),
            gone in 0_u64..200,
        ) {
            let (mut ring, mut place) = (Ring::new(usize::MAX), Place::new(0));
            let (mut seen, mut past) = (std::collections::BTreeSet::new(), Vec::new());
            let mut take = |ring: &Ring, place: &mut Place| {
                for Sent { entry, ahead } in ring.take(place).unwrap() {
                    assert!(seen.insert(entry.n), "{} twice", entry.n);
                    assert!(!ahead || entry.timing == Timing::Live);
                    if !ahead {
                        past.push(entry.n);
                    }
                }
            };
            for (count, is_live, is_read) in steps {
                let timing = if is_live { Timing::Live } else { Timing::Backlog };
                ring.append(segment(0, vec![numeric("heart-rate", 1, 60.0, None); count]), 5, timing);
                if is_read {
                    take(&ring, &mut place);
                }
            }
            while place.at() < ring.next() {
                take(&ring, &mut place);
            }
            prop_assert!(seen.into_iter().eq(0..ring.next()));
            prop_assert!(past.is_sorted());
            ring.entries.retain(|entry| entry.n % 200 != gone);
            // Nor does a reader wait for what was forgotten.
            let mut place = Place::new(ring.tail());
            while !ring.take(&mut place).unwrap().is_empty() {}
            prop_assert_eq!(place.at(), ring.next());
        }

        #[test]
        fn numbers_have_no_gap_and_bytes_add_up(sizes in prop::collection::vec(0_usize..9, 1..60), max in 0_usize..9000) {
            let mut ring = Ring::new(max);
            for size in sizes {
                ring.append(segment(0, vec![numeric("heart-rate", 1, 60.0, None); size]), 5, Timing::Live);
                let held = ring.read(ring.tail(), usize::MAX).unwrap();
                prop_assert!(held.iter().map(|e| e.n).eq(ring.tail()..ring.next()));
                prop_assert_eq!(held.iter().map(|e| e.bytes()).sum::<usize>(), ring.bytes());
                prop_assert!(ring.bytes() <= max || held.len() <= 1);
            }
        }
    }
}
