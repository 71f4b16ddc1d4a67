//! Whether a patient's chain of one class is whole: each segment names the hash of the one before it. Pure.
//!
//! Segments come in any order (live before backlog), so what is known is a set of runs. A gap between two runs is closed
//! by the segments in between; it stays open where the patient's consent did not cover that time. How far the chain goes says the
//! gateway's newest head: what is missing before it is a gap too, else a tail that was cut off would look like a quiet patient.

use std::collections::BTreeMap;

use caregate_protocol::segment::SegmentHash;

/// Runs kept of one chain: each outage or pause of consent makes one. The lowest two are joined beyond it.
const RUNS_MAX: usize = 1024;

/// What a segment is to its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// New, and fits.
    New,
    /// Came before.
    Duplicate,
    /// Its hash or the one it names contradicts a neighbour: the gateway signed two histories, or somebody reordered.
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    last: u64,
    first_prev: SegmentHash,
    last_hash: SegmentHash,
}

/// How far the chain goes, by the gateway's newest head.
#[derive(Debug, Clone, Copy)]
struct End {
    next: u64,
    last: SegmentHash,
    made_us: i64,
}

/// What is known of one chain.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    end: Option<End>,
    runs: BTreeMap<u64, Run>,
}

impl Chain {
    /// Takes one segment whose signature holds.
    pub fn link(&mut self, sequence: u64, prev: SegmentHash, hash: SegmentHash) -> Link {
        let before = self.runs.range(..=sequence).next_back().map(|(first, run)| (*first, *run));
        if before.is_some_and(|(_, run)| run.last >= sequence) {
            return Link::Duplicate;
        }
        let before = before.filter(|(_, run)| run.last + 1 == sequence);
        let after = sequence.checked_add(1).and_then(|next| self.runs.get(&next).copied());
        let fits_before = before.is_none_or(|(_, run)| run.last_hash == prev);
        let fits_after = after.is_none_or(|run| run.first_prev == hash);
        let fits_end = self.end.is_none_or(|end| end.next - 1 != sequence || end.last == hash);
        if !fits_before || !fits_after || !fits_end {
            return Link::Broken;
        }
        let (first, first_prev) = before.map_or((sequence, prev), |(first, run)| (first, run.first_prev));
        let (last, last_hash) = after.map_or((sequence, hash), |run| (run.last, run.last_hash));
        if after.is_some() {
            self.runs.remove(&(sequence + 1));
        }
        self.runs.insert(first, Run { last, first_prev, last_hash });
        self.forget();
        Link::New
    }

    /// Takes a head whose signature holds: `next` segments were sealed when it was made, and `last` is the last one's hash. False where
    /// it contradicts what is known: another hash, or a chain that had been longer before.
    pub fn end(&mut self, next: u64, last: SegmentHash, made_us: i64) -> bool {
        let Some(sequence) = next.checked_sub(1) else { return false };
        let here = self.runs.values().find(|run| run.last == sequence);
        if here.is_some_and(|run| run.last_hash != last) {
            return false;
        }
        match self.end {
            Some(known) if next < known.next => made_us <= known.made_us,
            Some(known) if next == known.next && last != known.last => false,
            known => {
                // The gateway's clock may have been set back.
                let made_us = known.map_or(made_us, |known| known.made_us.max(made_us));
                self.end = Some(End { next, last, made_us });
                true
            }
        }
    }

    fn forget(&mut self) {
        if self.runs.len() <= RUNS_MAX {
            return;
        }
        if let (Some((low, lowest)), Some((high, next))) = (self.runs.pop_first(), self.runs.pop_first()) {
            debug_assert!(low < high, "runs are sorted");
            self.runs.insert(low, Run { first_prev: lowest.first_prev, ..next });
        }
    }

    /// The highest sequence that is linked to its neighbours or begins a run.
    #[must_use]
    pub fn verified(&self) -> Option<u64> {
        self.runs.values().next_back().map(|run| run.last)
    }

    /// The lowest missing range, inclusive: between two runs, or behind the last one.
    #[must_use]
    pub fn gap(&self) -> Option<(u64, u64)> {
        let mut runs = self.runs.iter();
        let (_, lowest) = runs.next()?;
        let end = match runs.next() {
            Some((next, _)) => *next,
            None => self.end?.next,
        };
        (lowest.last + 1 < end).then(|| (lowest.last + 1, end - 1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(n: u64) -> SegmentHash {
        let mut bytes = [1; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        SegmentHash(bytes)
    }

    fn link(chain: &mut Chain, n: u64) -> Link {
        chain.link(n, if n == 0 { SegmentHash::NONE } else { hash(n - 1) }, hash(n))
    }

    #[test]
    fn a_gap_shows_until_it_is_closed() {
        let mut chain = Chain::default();
        for n in [0, 1, 5] {
            assert_eq!(link(&mut chain, n), Link::New);
        }
        assert_eq!((chain.verified(), chain.gap()), (Some(5), Some((2, 4))));
        for n in [3, 2, 4] {
            assert_eq!(link(&mut chain, n), Link::New);
        }
        assert_eq!((chain.verified(), chain.gap()), (Some(5), None));
        assert_eq!(link(&mut chain, 3), Link::Duplicate);
    }

    #[test]
    fn what_contradicts_a_neighbour_is_broken_on_either_side() {
        let mut chain = Chain::default();
        link(&mut chain, 0);
        link(&mut chain, 2);
        assert_eq!(chain.link(1, hash(9), hash(1)), Link::Broken);
        assert_eq!(chain.link(1, hash(0), hash(9)), Link::Broken);
        assert_eq!(chain.link(1, hash(0), hash(1)), Link::New);
        assert_eq!(chain.link(u64::MAX, hash(7), hash(8)), Link::New);
    }

    #[test]
    fn a_tail_that_was_cut_off_is_a_gap() {
        let mut chain = Chain::default();
        link(&mut chain, 0);
        link(&mut chain, 1);
        assert!(chain.end(2, hash(1), 10));
        assert_eq!(chain.gap(), None);
        assert!(chain.end(5, hash(4), 20));
        assert_eq!(chain.gap(), Some((2, 4)));
        assert!(chain.end(2, hash(1), 10), "an old one again says nothing");
        for n in [3, 2, 4] {
            assert_eq!(link(&mut chain, n), Link::New);
        }
        assert_eq!((chain.verified(), chain.gap()), (Some(4), None));
        assert_eq!(link(&mut chain, 5), Link::New);
        assert!(chain.end(5, hash(4), 21), "a head that later segments have overtaken");
        assert_eq!(chain.gap(), None);
    }

    #[test]
    fn a_head_that_contradicts_the_chain_is_told() {
        let mut chain = Chain::default();
        link(&mut chain, 0);
        assert!(!chain.end(1, hash(9), 10), "another hash than the segment has");
        assert!(!chain.end(0, hash(9), 10));
        assert!(chain.end(3, hash(2), 20));
        assert!(!chain.end(3, hash(9), 30), "another hash than the head before");
        assert!(!chain.end(2, hash(1), 30), "the gateway was set back");
        link(&mut chain, 1);
        assert_eq!(chain.link(2, hash(1), hash(9)), Link::Broken, "not the segment that the head names");
        assert_eq!(link(&mut chain, 2), Link::New);
    }

    #[test]
    fn gaps_without_end_stay_bounded() {
        let mut chain = Chain::default();
        for n in 0..3 * RUNS_MAX as u64 {
            link(&mut chain, n * 2);
        }
        assert_eq!(chain.runs.len(), RUNS_MAX);
    }

    proptest! {
        #[test]
        fn any_order_ends_whole(order in Just((0_u64..40).collect::<Vec<_>>()).prop_shuffle()) {
            let mut chain = Chain::default();
            for n in order {
                prop_assert_eq!(link(&mut chain, n), Link::New);
            }
            prop_assert_eq!((chain.verified(), chain.gap(), chain.runs.len()), (Some(39), None, 1));
        }
    }
}
