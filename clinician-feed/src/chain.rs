//! Whether a patient's chain of one class is whole: each segment names the hash of the one before it. Pure.
//!
//! Segments come in any order (live before backlog), so what is known is a set of runs. A gap between two runs is closed
//! by the segments in between; it stays open where the patient's consent did not cover that time. How far the chain goes says the
//! gateway's newest head: what is missing before it is a gap too, else a tail that was cut off would look like a quiet patient. Of what it let go
//! or its disk lost the gateway itself tells (`caregate_protocol::gap`): that is missing too, but nobody took it away.

use std::collections::BTreeMap;

use caregate_protocol::gap::Missing;
use caregate_protocol::segment::SegmentHash;

/// Runs kept of one chain: each outage or pause of consent makes one. The lowest two are joined beyond it.
const RUNS_MAX: usize = 1024;
/// Ranges of one chain that the gateway said are missing; the lowest are forgotten beyond it, and count as not told. A gateway tells one for
/// each outage that outlasted its age limit.
const TOLD_MAX: usize = 256;

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
    /// What the gateway said is missing, by its last number.
    told: BTreeMap<u64, Missing>,
    /// The same numbers, as ranges apart from each other: first and last.
    covered: BTreeMap<u64, u64>,
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
        let fits_told = self.told.get(&sequence).is_none_or(|told| named(told.hash, hash));
        let told_before = sequence.checked_sub(1).and_then(|last| self.told.get(&last));
        let fits_told = fits_told && told_before.is_none_or(|told| named(told.hash, prev));
        if !fits_before || !fits_after || !fits_end || !fits_told {
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

    /// Takes the gateway's word, whose signature holds, that segments may be missing. False where its hash contradicts what is known.
    pub fn tell(&mut self, missing: Missing) -> bool {
        let here = self.runs.values().find(|run| run.last == missing.last);
        let behind = missing.last.checked_add(1).and_then(|next| self.runs.get(&next));
        if here.is_some_and(|run| !named(missing.hash, run.last_hash))
            || behind.is_some_and(|run| !named(missing.hash, run.first_prev))
        {
            return false;
        }
        let known = self.told.get(&missing.last).filter(|known| known.first <= missing.first);
        if known.is_none() {
            self.told.insert(missing.last, missing);
            self.cover(missing.first, missing.last);
        }
        if self.told.len() > TOLD_MAX {
            self.told.pop_first();
        }
        if self.covered.len() > TOLD_MAX {
            self.covered.pop_first();
        }
        true
    }

    /// Joins a range with those that it meets.
    fn cover(&mut self, mut first: u64, mut last: u64) {
        let meets = |(a, b): (&u64, &u64)| {
            (*b >= first.saturating_sub(1) && *a <= last.saturating_add(1)).then_some((*a, *b))
        };
        let met: Vec<_> = self.covered.range(..=last.saturating_add(1)).filter_map(meets).collect();
        for (a, b) in met {
            self.covered.remove(&a);
            (first, last) = (first.min(a), last.max(b));
        }
        self.covered.insert(first, last);
    }

    /// The lowest part of a range of which the gateway has said nothing.
    fn untold(&self, first: u64, last: u64) -> Option<(u64, u64)> {
        let covered_to = self.covered.range(..=first).next_back().map(|(_, to)| *to);
        let first = covered_to.filter(|to| *to >= first).map_or(first, |to| to + 1);
        if first > last {
            return None;
        }
        let next = self.covered.range(first..=last).next().map(|(from, _)| *from);
        Some((first, next.map_or(last, |from| from - 1)))
    }

    /// The newest range that the gateway said is missing, and that is: behind the lowest segment here, and not all of it came after all.
    #[must_use]
    pub fn told(&self) -> Option<Missing> {
        let (lowest, _) = self.runs.first_key_value()?;
        let came = |told: &Missing| {
            let run = self.runs.range(..=told.first).next_back();
            run.is_some_and(|(_, run)| run.last >= told.last)
        };
        self.told.values().rev().find(|told| told.last > *lowest && !came(told)).copied()
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

    /// Whether a segment is here.
    #[must_use]
    pub fn has(&self, sequence: u64) -> bool {
        self.runs.range(..=sequence).next_back().is_some_and(|(_, run)| run.last >= sequence)
    }

    /// The highest sequence that is linked to its neighbours or begins a run.
    #[must_use]
    pub fn verified(&self) -> Option<u64> {
        self.runs.values().next_back().map(|run| run.last)
    }

    /// The lowest missing range of which the gateway has said nothing, inclusive: between two runs, or behind the last one.
    #[must_use]
    pub fn gap(&self) -> Option<(u64, u64)> {
        let begins = self.runs.keys().skip(1).copied();
        let ends = begins.map(Some).chain([self.end.map(|end| end.next)]);
        self.runs.values().zip(ends).find_map(|(run, next)| {
            let next = next.filter(|next| run.last + 1 < *next)?;
            self.untold(run.last + 1, next - 1)
        })
    }
}

/// Whether a hash is the one that the gateway told of, where it told of any.
fn named(told: SegmentHash, hash: SegmentHash) -> bool {
    told == SegmentHash::NONE || told == hash
}

#[cfg(test)]
mod tests {
    use caregate_protocol::gap::Why;
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
        assert!([0, 1, 5].into_iter().all(|n| chain.has(n)) && ![2, 4, 6].into_iter().any(|n| chain.has(n)));
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

    fn missing(first: u64, last: u64) -> Missing {
        Missing { why: Why::Expired, first, last, from_us: 1, to_us: 2, hash: hash(last) }
    }

    #[test]
    fn what_the_gateway_told_of_is_no_gap_and_the_rest_is() {
        let mut chain = Chain::default();
        for n in [0, 1, 9] {
            link(&mut chain, n);
        }
        assert!(chain.tell(missing(2, 5)));
        assert_eq!((chain.gap(), chain.told()), (Some((6, 8)), Some(missing(2, 5))));
        assert!(chain.tell(missing(7, 8)));
        assert_eq!((chain.gap(), chain.told()), (Some((6, 6)), Some(missing(7, 8))));
        assert!(chain.tell(missing(2, 8)), "one that says more, told later");
        assert_eq!((chain.gap(), chain.told()), (None, Some(missing(2, 8))));
        // What comes after all fits like any other, and then nothing is missing.
        for n in 2..9 {
            assert_eq!(link(&mut chain, n), Link::New);
        }
        assert_eq!((chain.gap(), chain.told()), (None, None));
    }

    #[test]
    fn a_tail_that_was_let_go_is_told_and_one_that_was_cut_off_is_not() {
        let mut chain = Chain::default();
        link(&mut chain, 0);
        assert!(chain.end(5, hash(4), 20));
        assert!(chain.tell(missing(1, 2)));
        assert_eq!(chain.gap(), Some((3, 4)));
        assert!(chain.tell(missing(1, 4)));
        assert_eq!(chain.gap(), None);
    }

    #[test]
    fn behind_what_was_let_go_the_chain_goes_on_with_its_hash() {
        let mut chain = Chain::default();
        link(&mut chain, 0);
        chain.tell(missing(1, 3));
        assert_eq!(chain.link(4, hash(9), hash(4)), Link::Broken, "not behind the segment that was let go");
        assert_eq!(chain.link(3, hash(2), hash(9)), Link::Broken, "not the segment that was let go");
        assert_eq!(link(&mut chain, 4), Link::New);
        assert!(
            !chain.tell(Missing { hash: hash(7), ..missing(2, 3) }),
            "nor does a gap fit that names another"
        );
        let unknown = Missing { why: Why::Damaged, hash: SegmentHash::NONE, ..missing(2, 3) };
        assert!(chain.tell(unknown));
    }

    #[test]
    fn gaps_without_end_stay_bounded() {
        let mut chain = Chain::default();
        for n in 0..3 * RUNS_MAX as u64 {
            link(&mut chain, n * 2);
        }
        assert_eq!(chain.runs.len(), RUNS_MAX);
        for n in 0..3 * TOLD_MAX as u64 {
            chain.tell(missing(n * 4 + 1, n * 4 + 1));
        }
        assert_eq!((chain.told.len(), chain.covered.len()), (TOLD_MAX, TOLD_MAX));
    }

    proptest! {
        #[test]
        fn what_is_missing_and_not_told_is_the_gap(
            came in proptest::collection::btree_set(0_u64..40, 1..40),
            told in proptest::collection::vec((0_u64..40, 0_u64..6), 0..8),
            end in 0_u64..44,
        ) {
            let mut chain = Chain::default();
            for n in &came {
                prop_assert_eq!(link(&mut chain, *n), Link::New);
            }
            let mut numbers: std::collections::BTreeSet<u64> = (0..40).collect();
            if end > 0 {
                chain.end(end, hash(end - 1), 1);
            }
            for (first, more) in told {
                prop_assert!(chain.tell(missing(first, first + more)));
                numbers.retain(|n| !(first..=first + more).contains(n));
            }
            let (lowest, highest) = (*came.first().unwrap(), (*came.last().unwrap()).max(end.saturating_sub(1)));
            let gone = |n: &u64| *n > lowest && *n <= highest && !came.contains(n);
            let lowest_gone = numbers.iter().copied().chain(40..46).find(|n| gone(n) && !chain.covered.range(..=n).any(|(_, to)| to >= n));
            prop_assert_eq!(chain.gap().map(|(first, _)| first), lowest_gone);
            if let Some((first, last)) = chain.gap() {
                prop_assert!((first..=last).all(|n| gone(&n)));
            }
        }

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
