//! Table 1's keys and rules: all match fields in one key of eight words, so that a comparison is a few bitwise operations.
//!
//! The words are the bytes of a rule's key (`edge-gateway/src/openflow/pattern.rs`) in network order, six bytes of padding
//! behind them:
//! ```text
//! 0 in_port, eth_dst (4)             4 ip_src (last 6), ip_dst (2)
//! 1 eth_dst (2), eth_src             5 ip_dst (8)
//! 2 eth_type, vlan_vid, ip_proto,    6 ip_dst (last 6), source port
//!   ip_dscp, ip_src (2)              7 destination port, padding (6)
//! 3 ip_src (8)
//! ```

use crate::frame::Headers;

/// Words of a key.
pub const KEY_WORDS: usize = 8;
/// Rules of a table.
pub const RULES_MAX: usize = 64;
/// Places for rules' counters: a new table's rules get some that the old one's don't have.
pub const RULE_SLOTS: u32 = 128;

/// A key, a value or a mask.
pub type Key = [u64; KEY_WORDS];

impl Headers {
    /// Its key, as it came in by `in_port`.
    #[must_use]
    #[inline(always)]
    pub fn key(&self, in_port: u32) -> Key {
        let (source, destination) = (self.source_address, self.destination_address);
        [
            u64::from(in_port) << 32 | self.destination >> 16,
            self.destination << 48 | self.source,
            u64::from(self.ether_type) << 48
                | u64::from(self.vlan_vid) << 32
                | u64::from(self.protocol) << 24
                | u64::from(self.dscp) << 16
                | source.high >> 48,
            source.high << 16 | source.low >> 48,
            source.low << 16 | destination.high >> 48,
            destination.high << 16 | destination.low >> 48,
            destination.low << 16 | u64::from(self.source_port),
            u64::from(self.destination_port) << 48,
        ]
    }
}

/// One rule as the kernel has it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// What the masked bits must be.
    pub value: Key,
    /// The bits that count.
    pub mask: Key,
    /// The daemon's name for it.
    pub id: u64,
    /// A packed [`Treatment`].
    pub treatment: u64,
}

/// Words of a rule.
pub const RULE_WORDS: usize = 2 * KEY_WORDS + 2;

/// One copy of table 1. The first rule that matches decides.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// How many of the rules there are.
    pub count: u64,
    /// Of the daemon that wrote it; ids of another session mean other rules.
    pub session: u64,
    /// In the order in which a frame meets them.
    pub rules: [Rule; RULES_MAX],
}

/// Words before a table's rules.
pub const TABLE_HEAD_WORDS: usize = 2;
/// Words of a table.
pub const TABLE_WORDS: usize = TABLE_HEAD_WORDS + RULES_MAX * RULE_WORDS;

// User space writes a table as so many words.
const _: () = assert!(size_of::<Table>() == 8 * TABLE_WORDS && align_of::<Table>() == 8);

impl Rule {
    /// Whether a frame with this key matches.
    #[must_use]
    #[inline(always)]
    pub fn matches(&self, key: &Key) -> bool {
        let difference = |word: usize| (key[word] ^ self.value[word]) & self.mask[word];
        let low = difference(0) | difference(1) | difference(2) | difference(3);
        let high = difference(4) | difference(5) | difference(6) | difference(7);
        low | high == 0
    }
}

/// Where a rule sends a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Output {
    /// Nowhere.
    Drop = 0,
    /// To the gateway itself.
    Local = 1,
    /// On its way out.
    Normal = 2,
    /// To the controller.
    Controller = 3,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Treatment {
    /// Where to.
    pub output: Output,
    /// Six bits.
    pub dscp: Option<u8>,
    /// Of the uplink.
    pub queue: Option<u16>,
    /// Bytes for the controller.
    pub max_len: u16,
    /// Where it is counted, below [`RULE_SLOTS`].
    pub slot: u16,
}

const NO_DSCP: u64 = 0xff;
const NO_QUEUE: u64 = 0xffff;

impl Treatment {
    /// In one word: output (8 bits), dscp (8), queue (16), slot (16), `max_len` (16).
    #[must_use]
    pub fn pack(&self) -> u64 {
        let dscp = self.dscp.map_or(NO_DSCP, u64::from);
        let queue = self.queue.map_or(NO_QUEUE, u64::from);
        self.output as u64
            | dscp << 8
            | queue << 16
            | u64::from(self.slot) << 32
            | u64::from(self.max_len) << 48
    }

    /// Reads a word; an output that is none drops.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "fields of the word, each cut to its width")]
    pub fn unpack(word: u64) -> Self {
        let (dscp, queue) = (word >> 8 & NO_DSCP, word >> 16 & NO_QUEUE);
        Self {
            output: match word & 0xff {
                1 => Output::Local,
                2 => Output::Normal,
                3 => Output::Controller,
                _ => Output::Drop,
            },
            dscp: (dscp != NO_DSCP).then_some(dscp as u8),
            queue: (queue != NO_QUEUE).then_some(queue as u16),
            slot: (word >> 32) as u16,
            max_len: (word >> 48) as u16,
        }
    }
}

/// A key's words from its bytes.
#[must_use]
pub fn words(bytes: &[u8]) -> Key {
    let mut words = [0; KEY_WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks(8)) {
        let mut whole = [0; 8];
        for (to, from) in whole.iter_mut().zip(bytes) {
            *to = *from;
        }
        *word = u64::from_be_bytes(whole);
    }
    words
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;
    use crate::frame::parse;

    /// The fields as `edge-gateway/src/openflow/pattern.rs` places them, written out by hand.
    #[test]
    fn the_key_has_each_field_at_its_place() {
        let mut frame: Vec<u8> = Vec::new();
        frame.extend([0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0x50, 0x51, 0x52, 0x53, 0x54, 0x55]);
        frame.extend([0x81, 0x00, 0xe0, 0x2a, 0x86, 0xdd]);
        frame.extend([0x6b, 0x80, 0, 0, 0, 8, 17, 64]);
        frame.extend(0x10..0x20);
        frame.extend(0x20..0x30);
        frame.extend([0x1c, 0xe8, 0x11, 0x51, 0, 8, 0, 0]);
        let headers = parse(frame.as_slice());
        let mut wanted: Vec<u8> = Vec::new();
        wanted.extend([0xff, 0xff, 0xff, 0xfe]);
        wanted.extend([0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0x50, 0x51, 0x52, 0x53, 0x54, 0x55]);
        wanted.extend([0x86, 0xdd, 0x10, 0x2a, 17, 46]);
        wanted.extend(0x10..0x30);
        wanted.extend([0x1c, 0xe8, 0x11, 0x51]);
        assert_eq!(wanted.len(), 58);
        assert_eq!(headers.key(0xffff_fffe), words(&wanted));
    }

    #[test]
    fn the_key_of_ipv4_leaves_the_rest_of_its_addresses_zero() {
        let mut frame: Vec<u8> = std::vec![2; 12];
        frame.extend([8, 0, 0x45, 0xb8, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 1, 2, 3, 10, 4, 5, 6]);
        frame.extend([7, 91, 0x1f, 0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0]);
        let mut wanted: Vec<u8> = std::vec![0, 0, 0, 1];
        wanted.extend([2; 12]);
        wanted.extend([8, 0, 0, 0, 6, 46, 10, 1, 2, 3]);
        wanted.extend([0; 12]);
        wanted.extend([10, 4, 5, 6]);
        wanted.extend([0; 12]);
        wanted.extend([7, 91, 0x1f, 0x90]);
        assert_eq!(parse(frame.as_slice()).key(1), words(&wanted));
    }

    #[test]
    fn a_rule_matches_by_its_masked_bits_alone() {
        let mut rule = Rule { value: [0; 8], mask: [0; 8], id: 1, treatment: 0 };
        let key: Key = core::array::from_fn(|word| 0x0101_0101_0101_0101 << word);
        assert!(rule.matches(&key));
        for word in 0..KEY_WORDS {
            for bit in [0, 17, 63] {
                rule = Rule { value: [0; 8], mask: [0; 8], id: 1, treatment: 0 };
                rule.mask[word] = 1 << bit;
                rule.value[word] = key[word] & 1 << bit;
                assert!(rule.matches(&key));
                rule.value[word] ^= 1 << bit;
                assert!(!rule.matches(&key), "{word} {bit}");
            }
        }
    }

    #[test]
    fn treatments_survive_packing() {
        for output in [Output::Drop, Output::Local, Output::Normal, Output::Controller] {
            for (dscp, queue) in [(None, None), (Some(0), Some(0)), (Some(63), Some(7)), (None, Some(1))] {
                let treatment = Treatment { output, dscp, queue, max_len: 0xffff, slot: 127 };
                assert_eq!(Treatment::unpack(treatment.pack()), treatment);
            }
        }
        assert_eq!(Treatment::unpack(0xff).output, Output::Drop);
    }
}
