//! What went from core to feed, summed up: at both ends the same, so that their logs can be held against each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{DataClass, PatientId};
use crate::record::Record;

/// Most runs before a tally is to be noted: an entry of one chain stays below 2 kB when segments come in any order.
pub const RUNS_MAX: usize = 48;

/// Segments that follow each other, by their sequence in the chain; both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Run(pub u64, pub u64);

/// Wraps: generation, first and last epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WrapRun(pub u32, pub u32, pub u32);

/// What was delivered of one chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// Whose.
    pub patient: PatientId,
    /// Of which class.
    pub class: DataClass,
    /// Segments.
    pub segments: Vec<Run>,
    /// Keys.
    pub wraps: Vec<WrapRun>,
}

#[derive(Debug, Clone, Default)]
struct Chain {
    segments: Vec<Run>,
    wraps: Vec<WrapRun>,
}

/// Sums up records until it is taken.
#[derive(Debug, Default)]
pub struct Tally {
    chains: BTreeMap<(PatientId, DataClass), Chain>,
    runs: usize,
}

impl Tally {
    /// Counts a record in; bytes that are none, heads, gaps and tokens, which open nothing, are left out. Answers whether the tally should be
    /// taken, because it has grown to [`RUNS_MAX`].
    pub fn add(&mut self, record: &[u8]) -> bool {
        match Record::decode(record) {
            Ok(Record::Segment(segment)) => {
                let header = &segment.header;
                let chain = self.chains.entry((header.patient, header.class)).or_default();
                self.runs += chain.segment(header.sequence);
            }
            Ok(Record::Wrap(wrap)) => {
                let chain = self.chains.entry((wrap.patient, wrap.class)).or_default();
                self.runs += chain.wrap(WrapRun(wrap.generation, wrap.epoch, wrap.last()));
            }
            Ok(Record::Head(_) | Record::Gap(_) | Record::Tokens(_)) | Err(_) => {}
        }
        self.runs >= RUNS_MAX
    }

    /// Whether nothing was counted since it was taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }

    /// What was delivered since the last time, in parts of at most [`RUNS_MAX`] runs.
    pub fn take(&mut self) -> Vec<Delivered> {
        self.runs = 0;
        let mut parts = Vec::new();
        for ((patient, class), Chain { segments, wraps }) in std::mem::take(&mut self.chains) {
            let part = |segments: &[Run], wraps: &[WrapRun]| {
                let (segments, wraps) = (segments.to_vec(), wraps.to_vec());
                Delivered { patient, class, segments, wraps }
            };
            if segments.len() + wraps.len() <= RUNS_MAX {
                parts.push(part(&segments, &wraps));
            } else {
                parts.extend(segments.chunks(RUNS_MAX).map(|runs| part(runs, &[])));
                parts.extend(wraps.chunks(RUNS_MAX).map(|runs| part(&[], runs)));
            }
        }
        parts
    }
}

impl Chain {
    /// Answers with how many runs it has more.
    fn segment(&mut self, sequence: u64) -> usize {
        match self.segments.last_mut() {
            Some(run) if (run.0..=run.1).contains(&sequence) => 0,
            Some(run) if run.1.checked_add(1) == Some(sequence) => {
                run.1 = sequence;
                0
            }
            Some(_) | None => {
                self.segments.push(Run(sequence, sequence));
                1
            }
        }
    }

    fn wrap(&mut self, wrap: WrapRun) -> usize {
        match self.wraps.last_mut() {
            Some(run) if run.0 == wrap.0 && run.1 <= wrap.1 && wrap.2 <= run.2 => 0,
            Some(run) if run.0 == wrap.0 && run.2.checked_add(1) == Some(wrap.1) => {
                run.2 = wrap.2;
                0
            }
            Some(_) | None => {
                self.wraps.push(wrap);
                1
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::id::RecipientId;
    use crate::key::{PatientRoot, TREE_DEPTH};
    use crate::reading;
    use crate::segment::{Cipher, Header, SegmentHash, signer_id};
    use crate::wrap::{WrapScope, generate_keypair};

    const EPOCH: u32 = 29_833_333;

    fn device() -> SigningKey {
        SigningKey::from_bytes(&[3; 32])
    }

    fn segment(sequence: u64) -> Vec<u8> {
        let root = PatientRoot::from_bytes([7; 32]).class_key(DataClass::Vitals, 0);
        let key = root.descend(EPOCH, TREE_DEPTH).unwrap().epoch_key(EPOCH).unwrap();
        let header = Header {
            class: DataClass::Vitals,
            cipher: Cipher::Aes256Gcm,
            patient: PatientId([1; 16]),
            signer: signer_id(&device().verifying_key()),
            generation: 0,
            epoch: EPOCH,
            sequence,
            prev: SegmentHash::NONE,
            salt: [9; 16],
            sealed_us: i64::from(EPOCH) * 60_000_000,
            readings: 0,
        };
        header.seal(&reading::encode(&[]), &key, &device()).unwrap().0
    }

    fn wrap(epoch: u32, generation: u32) -> Vec<u8> {
        let root = PatientRoot::from_bytes([7; 32]).class_key(DataClass::Vitals, generation);
        let leaf = root.descend(epoch, TREE_DEPTH).unwrap();
        let (patient, recipient) = (PatientId([1; 16]), RecipientId([5; 20]));
        let scope = WrapScope { class: DataClass::Vitals, patient, generation, recipient };
        scope.seal(&leaf, &generate_keypair().1, &device()).unwrap().to_vec()
    }

    #[test]
    fn what_follows_is_one_run() {
        let mut tally = Tally::default();
        for record in
            [wrap(EPOCH, 0), wrap(EPOCH + 1, 0), wrap(EPOCH + 1, 1), segment(4), segment(5), segment(5)]
        {
            assert!(!tally.add(&record));
        }
        tally.add(&segment(2));
        tally.add(b"no record");
        let expected = Delivered {
            patient: PatientId([1; 16]),
            class: DataClass::Vitals,
            segments: vec![Run(4, 5), Run(2, 2)],
            wraps: vec![WrapRun(0, EPOCH, EPOCH + 1), WrapRun(1, EPOCH + 1, EPOCH + 1)],
        };
        assert_eq!(tally.take(), [expected]);
        assert!(tally.is_empty() && tally.take().is_empty());
    }

    #[test]
    fn a_tally_that_grows_asks_to_be_taken() {
        let mut tally = Tally::default();
        let full = (0..100_u64).position(|n| tally.add(&segment(2 * n))).unwrap();
        assert_eq!(full + 1, RUNS_MAX);
        let parts = tally.take();
        assert_eq!(parts.iter().map(|part| part.segments.len()).collect::<Vec<_>>(), [RUNS_MAX]);
        assert_eq!((0..100_u64).filter(|n| tally.add(&segment(2 * n))).count(), 100 - RUNS_MAX + 1);
        assert_eq!(tally.take().iter().map(|part| part.segments.len()).collect::<Vec<_>>(), [48, 48, 4]);
    }
}
