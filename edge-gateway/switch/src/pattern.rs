//! What a flow matches: one value and one mask over all fields of a frame (OpenFlow 1.3.5 §7.2.3).
//!
//! All fields lie in one key (ADR 17, "The key"), so that "matches", "overlaps" and "is part of" are a few bitwise operations, the
//! same that the kernel makes. Fields that can't be there together share a place: which of them is meant follows from the
//! prerequisites, which the standard makes exact.

use std::hash::{Hash, Hasher};

use caregate_ebpf_common::switch::{KEY_BYTES, KEY_WORDS, Key, Place, place};
use caregate_protocol::datapath::switch::MATCH_BYTES;
use caregate_protocol::openflow::{
    BadMatch, Masked, Match, MatchField, Oxm, Prerequisite, VLAN_VID_PRESENT, eth_type,
};

use super::port;

const _: () = assert!(MATCH_BYTES == KEY_BYTES, "daemon, helper and kernel speak of one key");

/// A value and the bits of it that count. A bit outside `mask` is 0 in `value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pattern {
    value: Key,
    mask: Key,
}

/// Of the words that count, which are few, and which they are.
impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut counting = 0_u16;
        for (at, (value, mask)) in self.value.iter().zip(&self.mask).enumerate() {
            if *mask != 0 {
                counting |= 1 << at;
                state.write_u64(*value);
                state.write_u64(*mask);
            }
        }
        state.write_u16(counting);
    }
}

impl Pattern {
    /// Everything.
    #[must_use]
    pub fn any() -> Self {
        Self::default()
    }

    /// Of a match.
    ///
    /// # Errors
    /// `OFPBMC_BAD_FIELD` for a field that this switch doesn't have, else as [`Match::check`].
    pub fn of(wanted: &Match) -> Result<Self, BadMatch> {
        // What this switch doesn't have is told before anything else that may be wrong.
        let is_had = |oxm: &Oxm| oxm.field().is_some_and(|field| place(field.number()).is_some());
        if !wanted.fields.iter().all(is_had) {
            return Err(BadMatch::BadField);
        }
        let mut pattern = Self::any();
        for (field, masked) in wanted.checked()? {
            let place = place(field.number()).ok_or(BadMatch::BadField)?;
            put(&mut pattern.value, place, masked.value);
            put(&mut pattern.mask, place, masked.mask);
        }
        Ok(pattern)
    }

    /// The match that has this pattern: fields by their number, without masks of ones.
    #[must_use]
    pub fn to_match(&self) -> Match {
        let oxm = |(field, masked): (MatchField, Masked)| {
            let exact = masked.mask == field.ones();
            let oxm = if exact {
                Oxm::exact(field, masked.value)
            } else {
                Oxm::masked(field, masked.value, masked.mask)
            };
            // A place is as wide as its field.
            oxm.ok()
        };
        Match { fields: self.fields().filter_map(oxm).collect() }
    }

    /// The fields of which any bit counts, by their number.
    pub fn fields(&self) -> impl Iterator<Item = (MatchField, Masked)> {
        let counts = |field: &MatchField| self.allows(*field);
        let all = MatchField::ALL.iter().copied().filter(counts);
        all.filter_map(|field| Some((field, self.get(field)?))).filter(|(_, masked)| masked.mask != 0)
    }

    /// What lies where the field has its place; whether it is this field that is meant, [`allows`](Self::allows) says.
    fn get(&self, field: MatchField) -> Option<Masked> {
        let place = place(field.number())?;
        Some(Masked { value: take(&self.value, place), mask: take(&self.mask, place) })
    }

    /// The field's value where all its bits count.
    #[must_use]
    pub fn exact(&self, field: MatchField) -> Option<u128> {
        let masked = self.get(field).filter(|masked| masked.mask == field.ones())?;
        self.allows(field).then_some(masked.value)
    }

    /// Whether frames of this pattern have the field (table 12): what it needs is there.
    #[must_use]
    pub fn allows(&self, field: MatchField) -> bool {
        match field.prerequisite() {
            None => true,
            Some(Prerequisite::Present(needed)) => self.get(needed).is_some_and(|masked| masked.mask != 0),
            Some(Prerequisite::OneOf(needed, values)) => {
                self.exact(needed).is_some_and(|value| values.contains(&value))
            }
            Some(Prerequisite::Tagged) => self.is_tagged() == Some(true),
        }
    }

    /// Whether the frames have a VLAN tag; `None` where both may be.
    #[must_use]
    pub fn is_tagged(&self) -> Option<bool> {
        let vid = self.get(MatchField::VlanVid)?;
        let present = u128::from(VLAN_VID_PRESENT);
        (vid.mask & present != 0).then_some(vid.value & present != 0)
    }

    /// Their `eth_type`, where it is one.
    #[must_use]
    pub fn eth_type(&self) -> Option<u16> {
        self.exact(MatchField::EthType).and_then(|value| value.try_into().ok())
    }

    /// The port that frames must have come in by; `None` for any.
    #[must_use]
    pub fn in_port(&self) -> Option<u32> {
        self.exact(MatchField::InPort).and_then(|value| value.try_into().ok())
    }

    /// Whether only what the gateway itself sends matches.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.in_port() == Some(port::LOCAL)
    }

    /// Whether nothing counts but these fields.
    #[must_use]
    pub fn is_about(&self, fields: &[MatchField]) -> bool {
        let mut all = Key::default();
        for place in fields.iter().filter_map(|field| place(field.number())) {
            put(&mut all, place, u128::MAX >> (u128::BITS - place.bits));
        }
        self.mask.iter().zip(all).all(|(mask, all)| mask & !all == 0)
    }

    /// Whether only IP packets match.
    #[must_use]
    pub fn is_ip(&self) -> bool {
        matches!(self.eth_type(), Some(eth_type::IPV4 | eth_type::IPV6))
    }

    /// Value and mask of the whole key.
    #[must_use]
    pub fn key(&self) -> (&Key, &Key) {
        (&self.value, &self.mask)
    }

    /// The same in network order.
    #[must_use]
    pub fn bytes(&self) -> ([u8; MATCH_BYTES], [u8; MATCH_BYTES]) {
        (bytes(&self.value), bytes(&self.mask))
    }

    /// Whether a frame with this key matches.
    #[must_use]
    pub fn matches(&self, frame: &Key) -> bool {
        (0..KEY_WORDS).all(|at| (frame[at] ^ self.value[at]) & self.mask[at] == 0)
    }

    /// Whether one frame could match both (§6.4).
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        (0..KEY_WORDS).all(|at| (self.value[at] ^ other.value[at]) & self.mask[at] & other.mask[at] == 0)
    }

    /// Whether each frame that matches this one matches `other` too: what a non-strict delete or modify with `other` means
    /// (§6.4).
    #[must_use]
    pub fn is_part_of(&self, other: &Self) -> bool {
        (0..KEY_WORDS).all(|at| {
            other.mask[at] & !self.mask[at] == 0 && (self.value[at] ^ other.value[at]) & other.mask[at] == 0
        })
    }
}

fn bytes(key: &Key) -> [u8; MATCH_BYTES] {
    let mut bytes = [0; MATCH_BYTES];
    for (place, word) in bytes.as_chunks_mut().0.iter_mut().zip(key) {
        *place = word.to_be_bytes();
    }
    bytes
}

/// Bytes of a word of a key.
const WORD_BYTES: usize = 8;

/// Adds a number, which is no wider than the place. A place is part of one word, or two whole ones.
fn put(key: &mut Key, place: Place, number: u128) {
    let (word, below) = cell(place);
    if place.bytes > WORD_BYTES {
        let [low, high] = halves(number);
        key[word] |= high;
        key[word + 1] |= low;
    } else {
        let [low, _] = halves(number);
        key[word] |= low << below;
    }
}

fn take(key: &Key, place: Place) -> u128 {
    let (word, below) = cell(place);
    if place.bytes > WORD_BYTES {
        u128::from(key[word]) << u64::BITS | u128::from(key[word + 1])
    } else {
        u128::from(key[word] >> below & u64::MAX >> (u64::BITS - place.bits))
    }
}

/// The word of a place, and the bits below it in that.
fn cell(place: Place) -> (usize, u32) {
    let behind = WORD_BYTES.saturating_sub(place.byte % WORD_BYTES + place.bytes);
    (place.byte / WORD_BYTES, 8 * u32::try_from(behind).unwrap_or_default() + place.shift)
}

/// Low and high.
#[expect(clippy::cast_possible_truncation, reason = "that is what a half is")]
fn halves(number: u128) -> [u64; 2] {
    [number as u64, (number >> u64::BITS) as u64]
}

#[cfg(test)]
mod tests;
