//! When a chain's head is signed (`caregate_protocol::head`). Pure.

use std::collections::BTreeMap;

use caregate_protocol::head::Head;
use caregate_protocol::id::{DataClass, PatientId};

use super::chains::Chain;

/// So soon a reader knows that a tail was cut off; 150 bytes for each chain in this time are nothing beside what they speak of.
const EVERY_US: i64 = 10_000_000;
/// A chain that has been silent for so long is told of no more until it goes on: its last head stands, and an idle gateway's flash has rest.
const SILENT_US: i64 = 3_600_000_000;

/// What was told of a chain last.
#[derive(Debug, Clone, Copy)]
struct Told {
    next: u64,
    told_us: i64,
    changed_us: i64,
}

/// What was told of each chain. Bounded as the chains are.
#[derive(Debug, Default)]
pub struct Heads {
    told: BTreeMap<(PatientId, DataClass), Told>,
}

impl Heads {
    /// The heads to be signed at `now_us`, of chains that somebody can open.
    pub fn due(&mut self, chains: &BTreeMap<(PatientId, DataClass), Chain>, now_us: i64) -> Vec<Head> {
        let mut heads = Vec::new();
        for ((patient, class), chain) in chains {
            // An epoch without a segment has nobody who could open the last one.
            if chain.next == 0 || !chain.used || chain.holders.is_empty() {
                continue;
            }
            let begun = Told { next: 0, told_us: now_us, changed_us: now_us };
            let told = self.told.entry((*patient, *class)).or_insert(begun);
            // A clock that was set back must not silence it.
            let is_time = now_us < told.told_us || now_us - told.told_us >= EVERY_US;
            let changed_us = if told.next == chain.next { told.changed_us } else { now_us };
            if !is_time || now_us - changed_us > SILENT_US {
                continue;
            }
            *told = Told { next: chain.next, told_us: now_us, changed_us };
            heads.push(Head {
                class: *class,
                patient: *patient,
                generation: chain.generation,
                epoch: chain.epoch,
                made_us: now_us,
                next: chain.next,
                last: chain.prev,
            });
        }
        heads
    }
}

#[cfg(test)]
mod tests {
    use caregate_protocol::id::RecipientId;
    use caregate_protocol::segment::SegmentHash;

    use super::*;

    const NOW_US: i64 = 1_790_000_000_000_000;
    const KEY: (PatientId, DataClass) = (PatientId([1; 16]), DataClass::Vitals);

    fn chains(next: u64) -> BTreeMap<(PatientId, DataClass), Chain> {
        let holders = [RecipientId([5; 20])].into();
        BTreeMap::from([(
            KEY,
            Chain { next, prev: SegmentHash([3; 32]), holders, used: true, ..Chain::default() },
        )])
    }

    #[test]
    fn a_head_every_ten_seconds_until_an_hour_of_silence() {
        let mut heads = Heads::default();
        assert!(heads.due(&chains(7), NOW_US).is_empty());
        assert!(heads.due(&chains(7), NOW_US + EVERY_US - 1).is_empty());
        let head = heads.due(&chains(7), NOW_US + EVERY_US)[0];
        assert_eq!((head.next, head.last, head.made_us), (7, SegmentHash([3; 32]), NOW_US + EVERY_US));
        let mut count = 0;
        for second in 20..7200 {
            count += heads.due(&chains(8), NOW_US + second * 1_000_000).len();
        }
        assert_eq!(count, 361, "once with what is new, and for an hour after");
        assert_eq!(heads.due(&chains(9), NOW_US + 7200 * 1_000_000).len(), 1);
    }

    #[test]
    fn nobody_is_told_of_what_nobody_can_open_and_a_clock_set_back_silences_nothing() {
        let mut heads = Heads::default();
        assert!(heads.due(&chains(0), NOW_US).is_empty());
        let mut closed = chains(7);
        closed.values_mut().for_each(Chain::renew);
        for later in [0, EVERY_US] {
            assert!(heads.due(&closed, NOW_US + later).is_empty());
        }
        assert!(heads.due(&chains(7), NOW_US).is_empty());
        assert_eq!(heads.due(&chains(7), NOW_US + EVERY_US).len(), 1);
        assert_eq!(heads.due(&chains(8), NOW_US - 86_400_000_000).len(), 1);
    }
}
