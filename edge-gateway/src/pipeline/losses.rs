//! Which segments damage may have taken, by what is still there before and behind it. Pure.
//!
//! The disk says which positions are lost, not what was in them. A chain's numbers grow with the positions, so what a damage took of a
//! chain lies between its neighbours there, and is no more than the records that were lost.

use std::collections::BTreeMap;
use std::ops::Range;

use caregate_protocol::id::{DataClass, PatientId};

type Key = (PatientId, DataClass);

/// A run over the spool's records, in the order of positions.
#[derive(Debug)]
pub struct Losses {
    /// Where damage is, ascending, each with how many records were lost up to its end.
    spans: Vec<(Range<u64>, u64)>,
    /// The last segment of each chain: its position and number.
    last: BTreeMap<Key, (u64, u64)>,
    found: Vec<(Key, u64, u64)>,
}

impl Losses {
    /// For damages by positions, with the number of records that each took.
    #[must_use]
    pub fn new(mut damages: Vec<(Range<u64>, u64)>) -> Self {
        damages.sort_unstable_by_key(|(positions, _)| positions.start);
        let mut sum = 0;
        for (_, lost) in &mut damages {
            sum += *lost;
            *lost = sum;
        }
        Self { spans: damages, last: BTreeMap::new(), found: Vec::new() }
    }

    /// A segment that is there.
    pub fn segment(&mut self, position: u64, key: Key, sequence: u64) {
        let before = self.last.insert(key, (position, sequence));
        self.note(key, before, position, sequence);
    }

    /// What may be missing, when all segments were shown: chain, first and last number. `chains` says where each goes on.
    pub fn finish(mut self, chains: impl IntoIterator<Item = (Key, u64)>) -> Vec<(Key, u64, u64)> {
        for (key, next) in chains {
            let before = self.last.get(&key).copied();
            self.note(key, before, u64::MAX, next);
        }
        self.found
    }

    fn note(&mut self, key: Key, before: Option<(u64, u64)>, position: u64, next: u64) {
        let (from, first) = before.map_or((0, 0), |(position, sequence)| (position, sequence + 1));
        let lost = self.lost_below(position) - self.lost_below(from);
        let first = first.max(next.saturating_sub(lost));
        if lost > 0 && first < next {
            self.found.push((key, first, next - 1));
        }
    }

    /// Records lost in damages that begin before `position`.
    fn lost_below(&self, position: u64) -> u64 {
        let before = self.spans.partition_point(|(positions, _)| positions.start < position);
        before.checked_sub(1).map_or(0, |i| self.spans[i].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VITALS: Key = (PatientId([1; 16]), DataClass::Vitals);
    const WAVEFORM: Key = (PatientId([1; 16]), DataClass::Waveform);

    #[test]
    fn what_is_lost_lies_between_its_neighbours_and_is_bounded_by_what_the_disk_lost() {
        // Positions 3 to 5 and 9 are gone.
        let mut losses = Losses::new(vec![(9..10, 1), (3..6, 3)]);
        losses.segment(1, VITALS, 40);
        losses.segment(2, WAVEFORM, 7);
        losses.segment(6, VITALS, 42);
        losses.segment(7, VITALS, 43);
        losses.segment(8, WAVEFORM, 8);
        // Vitals had 41 in the first hole. Behind the second, vitals go on with 45 and waveforms with 9.
        let found = losses.finish([(VITALS, 45), (WAVEFORM, 9)]);
        assert_eq!(found, [(VITALS, 41, 41), (VITALS, 44, 44)]);
    }

    #[test]
    fn a_chain_of_which_nothing_is_left_before_or_behind_lost_no_more_than_the_disk_did() {
        let mut losses = Losses::new(vec![(3..6, 2)]);
        losses.segment(8, VITALS, 100);
        assert_eq!(losses.finish([(VITALS, 101), (WAVEFORM, 50)]), [(VITALS, 98, 99), (WAVEFORM, 48, 49)]);
        let losses = Losses::new(vec![(3..6, 2)]);
        assert_eq!(losses.finish([(VITALS, 1)]), [(VITALS, 0, 0)]);
        assert_eq!(Losses::new(Vec::new()).finish([(VITALS, 1)]), []);
    }
}
