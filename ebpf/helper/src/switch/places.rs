//! Where counters are: the slot of each flow, the places of groups, buckets and meters. What stays in force keeps its place, and with
//! it what it counted; what is new gets a place that nothing in force has, since frames still meet that one. Pure.

use std::collections::BTreeMap;

use caregate_ebpf_common::switch::blob::{self, BUCKET_PLACES, GROUP_PLACES, METER_PLACES, USED};
use caregate_ebpf_common::switch::map::FLOW_ENTRIES;
use caregate_ebpf_common::switch::record::{GROUP_WORDS, RULE_HEAD, RULE_WORDS};

use rustc_hash::{FxBuildHasher, FxHashMap};

use super::check::ChangeError;
use super::mirror::Mirror;

/// Places of a group and of its buckets, which lie one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupPlace {
    /// Of the group.
    pub group: u32,
    /// Of its first bucket.
    pub first: u32,
    /// How many buckets.
    pub buckets: u32,
}

/// The places of all that is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// Of the daemon that asked for it.
    pub session: u64,
    /// Slots of flows by their ids.
    pub flows: FxHashMap<u64, u32>,
    /// By number.
    pub groups: BTreeMap<u32, GroupPlace>,
    /// By number.
    pub meters: BTreeMap<u32, u32>,
}

/// Places that were others' once: their counters are cleared before they are in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fresh {
    /// Slots of flows.
    pub flows: Vec<u32>,
    /// Places of groups.
    pub groups: Vec<u32>,
    /// Places of buckets.
    pub buckets: Vec<u32>,
    /// Places of meters; their buckets are full, too.
    pub meters: Vec<u32>,
}

/// Small numbers, a bit for each: of a full switch's flows 1 kB.
#[derive(Debug, Default)]
pub struct Numbers {
    words: Vec<u64>,
}

impl Numbers {
    fn at(number: u32) -> (usize, u64) {
        (usize::try_from(number / u64::BITS).unwrap_or(usize::MAX), 1 << (number % u64::BITS))
    }

    /// Adds one, which is below what maps have entries.
    fn insert(&mut self, number: u32) {
        let (word, bit) = Self::at(number);
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= bit;
    }

    /// Whether it is among them.
    #[must_use]
    pub fn contains(&self, number: u32) -> bool {
        let (word, bit) = Self::at(number);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }
}

impl FromIterator<u32> for Numbers {
    fn from_iter<I: IntoIterator<Item = u32>>(numbers: I) -> Self {
        let mut all = Self::default();
        numbers.into_iter().for_each(|number| all.insert(number));
        all
    }
}

/// Numbers that are taken, and the next one that may be free.
struct Free {
    taken: Numbers,
    next: u32,
    most: u32,
}

impl Free {
    fn new(taken: impl Iterator<Item = u32>, most: usize) -> Self {
        Self { taken: taken.collect(), next: 0, most: u32::try_from(most).unwrap_or(u32::MAX) }
    }

    /// The first of `count` free numbers in a row.
    fn take(&mut self, count: u32, what: &'static str) -> Result<u32, ChangeError> {
        let mut first = if count == 1 { self.next } else { 0 };
        let mut end = first;
        while end - first < count {
            if end >= self.most {
                return Err(ChangeError::TooMany(what));
            }
            if self.taken.contains(end) {
                first = end + 1;
            }
            end += 1;
        }
        (first..end).for_each(|number| self.taken.insert(number));
        if count == 1 {
            self.next = end;
        }
        Ok(first)
    }
}

fn range(place: &GroupPlace) -> std::ops::Range<u32> {
    place.first..place.first + place.buckets
}

impl Places {
    /// Places for what the mirror holds, beside what is in force.
    ///
    /// # Errors
    /// [`ChangeError::TooMany`].
    pub fn next(&self, mirror: &Mirror) -> Result<(Self, Fresh), ChangeError> {
        let nothing = Self::default();
        let known = if self.session == mirror.session() { self } else { &nothing };
        let mut next = Self { session: mirror.session(), ..Self::default() };
        let mut fresh = Fresh::default();
        self.place_flows(mirror, known, &mut next, &mut fresh)?;
        self.place_groups(mirror, known, &mut next, &mut fresh)?;
        let mut free = Free::new(self.meters.values().copied(), METER_PLACES);
        for meter in mirror.meters() {
            let place = match known.meters.get(&meter.id) {
                Some(place) => *place,
                None => {
                    let place = free.take(1, "meters")?;
                    fresh.meters.push(place);
                    place
                }
            };
            next.meters.insert(meter.id, place);
        }
        Ok((next, fresh))
    }

    fn place_flows(
        &self,
        mirror: &Mirror,
        known: &Self,
        next: &mut Self,
        fresh: &mut Fresh,
    ) -> Result<(), ChangeError> {
        let most = usize::try_from(FLOW_ENTRIES).unwrap_or(usize::MAX);
        let mut free = Free::new(self.flows.values().copied(), most);
        // A daemon that chose ids that collide would wait for itself, and for no more steps than there are flows.
        next.flows = FxHashMap::with_capacity_and_hasher(mirror.sizes().0, FxBuildHasher);
        for flow in mirror.flows() {
            let slot = match known.flows.get(&flow.entry.id) {
                Some(slot) => *slot,
                None => {
                    let slot = free.take(1, "flows")?;
                    fresh.flows.push(slot);
                    slot
                }
            };
            next.flows.insert(flow.entry.id, slot);
        }
        Ok(())
    }

    fn place_groups(
        &self,
        mirror: &Mirror,
        known: &Self,
        next: &mut Self,
        fresh: &mut Fresh,
    ) -> Result<(), ChangeError> {
        let mut groups = Free::new(self.groups.values().map(|place| place.group), GROUP_PLACES);
        let mut buckets = Free::new(self.groups.values().flat_map(range), BUCKET_PLACES);
        for group in mirror.groups() {
            let count = u32::try_from(group.buckets.len()).unwrap_or(u32::MAX);
            let old = known.groups.get(&group.id);
            let place = match old {
                Some(place) if place.buckets == count => *place,
                _ => {
                    let group = match old {
                        Some(place) => place.group,
                        None => {
                            let place = groups.take(1, "groups")?;
                            fresh.groups.push(place);
                            place
                        }
                    };
                    let first = if count == 0 { 0 } else { buckets.take(count, "buckets")? };
                    let place = GroupPlace { group, first, buckets: count };
                    fresh.buckets.extend(range(&place));
                    place
                }
            };
            next.groups.insert(group.id, place);
        }
        Ok(())
    }

    /// Reads back what a blob says.
    #[must_use]
    pub fn read(words: &[u64]) -> Self {
        let word = |at: usize| words.get(at).copied().unwrap_or_default();
        let low = |word: u64| u32::try_from(word & 0xffff_ffff).unwrap_or_default();
        let mut places = Self { session: word(blob::WORD_SESSION), ..Self::default() };
        let rules = usize::try_from(word(blob::WORD_RULES)).unwrap_or_default().min(blob::RULES_MAX);
        for rule in 0..rules {
            let at = blob::RULES_AT + rule * RULE_WORDS;
            places.flows.insert(word(at + blob::RULE_ID), low(word(at + RULE_HEAD)));
        }
        for (place, number) in (0..GROUP_PLACES).zip(0..) {
            let id = word(blob::GROUP_IDS_AT + place);
            if id & USED != 0 {
                let group = word(blob::GROUPS_AT + place * GROUP_WORDS);
                let (first, buckets) = (low(group >> 16 & 0xffff), low(group >> 8 & 0xff));
                places.groups.insert(low(id), GroupPlace { group: number, first, buckets });
            }
        }
        for (place, number) in (0..METER_PLACES).zip(0..) {
            let id = word(blob::METER_IDS_AT + place);
            if id & USED != 0 {
                places.meters.insert(low(id), number);
            }
        }
        places
    }
}
