//! Which bytes of the key a table keeps rows for, in which order its rules lie, and the rows (ADR 17, "Lookup"). Pure.

use caregate_ebpf_common::switch::blob::{self, CHUNKS_MAX, GROUP_RULES};
use caregate_ebpf_common::switch::{KEY_BYTES, KEY_WORDS, Key};

/// Keys that chunks are chosen by: as many as a table's traffic has kinds.
const KEYS_SAMPLED: usize = 64;
/// Rules that each of them is held against.
const RULES_SAMPLED: usize = 256;
/// One rule that a key has to be compared with takes as long as so many tenths of a chunk more in all that the key asks.
const TENTHS_OF_A_RULE: usize = 30;
/// Rows of a chunk: a byte's values.
pub(super) const ROWS: usize = 256;

/// What a rule's key must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern {
    /// The masked bits, 0 outside.
    pub value: Key,
    /// The bits that count.
    pub mask: Key,
}

/// A byte of the key, by its number.
pub(super) type Chunk = usize;

/// Its word, and the bits below it in that.
pub(super) fn place(chunk: Chunk) -> (u8, u8) {
    let small = |number: usize| u8::try_from(number).unwrap_or_default();
    (small(chunk / 8), small(56 - chunk % 8 * 8))
}

fn byte(key: &Key, chunk: Chunk) -> u8 {
    key.get(chunk / 8).map_or(0, |word| word.to_be_bytes()[chunk % 8])
}

impl Pattern {
    /// Whether a key meets it.
    #[must_use]
    pub fn matches(&self, key: &Key) -> bool {
        (0..KEY_WORDS).all(|word| (key[word] ^ self.value[word]) & self.mask[word] == 0)
    }

    /// A key that meets it, and elsewhere is like another one.
    fn key_like(&self, other: &Self) -> Key {
        let mut key = other.value;
        for (word, (value, mask)) in key.iter_mut().zip(self.value.iter().zip(&self.mask)) {
            *word = value | *word & !mask;
        }
        key
    }
}

/// The chunks of a table, the best first: those that leave the fewest rules for keys that meet rules of the table. None where
/// comparing all rules is as fast.
#[must_use]
pub(super) fn choose(rules: &[&Pattern]) -> Vec<Chunk> {
    // Not at even distances: what is by turns in a table would be missed.
    let spread = |count: usize, of: usize| {
        let count = count.min(of).max(1);
        let apart = (of / count).max(1);
        let aside = move |number: usize| (number.wrapping_mul(0x9e37_79b9) >> 8) % apart;
        (0..count).map(move |number| number * of / count + aside(number))
    };
    let sampled: Vec<&Pattern> =
        spread(RULES_SAMPLED, rules.len()).filter_map(|at| rules.get(at).copied()).collect();
    let keys: Vec<Key> = spread(KEYS_SAMPLED, rules.len())
        .filter_map(|at| Some(rules.get(at)?.key_like(rules.get((at * 7 + 13) % rules.len())?)))
        .collect();
    let mut told_apart = Pairs::new(&keys, &sampled);
    let mut chosen = Vec::new();
    while chosen.len() < CHUNKS_MAX {
        let Some((chunk, pairs)) = told_apart.best() else { break };
        // Rules that it spares a key, in tenths, were all of the table looked at.
        let spared = pairs * rules.len() * 10 / (keys.len() * sampled.len()).max(1);
        if spared * TENTHS_OF_A_RULE < 100 {
            break;
        }
        told_apart.take(chunk);
        chosen.push(chunk);
    }
    chosen
}

/// Pairs of a key and a rule that no chosen chunk tells apart, and those that each chunk does.
struct Pairs {
    left: Vec<u64>,
    by_chunk: Vec<(Chunk, Vec<u64>)>,
}

impl Pairs {
    fn new(keys: &[Key], rules: &[&Pattern]) -> Self {
        let words = (keys.len() * rules.len()).div_ceil(64);
        let used = |chunk: &Chunk| rules.iter().any(|rule| byte(&rule.mask, *chunk) != 0);
        let mut by_chunk: Vec<_> = (0..KEY_BYTES).filter(used).map(|chunk| (chunk, vec![0; words])).collect();
        let pairs = keys.iter().flat_map(|key| rules.iter().map(move |rule| (key, rule)));
        for (pair, (key, rule)) in pairs.enumerate() {
            for (chunk, bits) in &mut by_chunk {
                let (word, (_, shift)) = (*chunk / 8, place(*chunk));
                let differs = (key[word] ^ rule.value[word]) & rule.mask[word];
                bits[pair / 64] |= u64::from(differs >> shift & 0xff != 0) << (pair % 64);
            }
        }
        Self { left: vec![u64::MAX; words], by_chunk }
    }

    fn best(&self) -> Option<(Chunk, usize)> {
        let count = |bits: &Vec<u64>| {
            let both = bits.iter().zip(&self.left).map(|(bits, left)| (bits & left).count_ones());
            usize::try_from(both.sum::<u32>()).unwrap_or(usize::MAX)
        };
        self.by_chunk.iter().map(|(chunk, bits)| (*chunk, count(bits))).max_by_key(|(_, count)| *count)
    }

    fn take(&mut self, chunk: Chunk) {
        let taken = self.by_chunk.iter().find(|(other, _)| *other == chunk);
        for (left, bits) in self.left.iter_mut().zip(taken.map(|(_, bits)| bits).into_iter().flatten()) {
            *left &= !bits;
        }
    }
}

/// The order in which rules lie, so that those that the same keys meet are side by side and a key finds them in few groups.
#[must_use]
pub(super) fn arrange(rules: &[&Pattern], chunks: &[Chunk]) -> Vec<usize> {
    let mut order: Vec<([u8; 2 * CHUNKS_MAX], usize)> = rules
        .iter()
        .enumerate()
        .map(|(at, rule)| {
            let mut like = [0; 2 * CHUNKS_MAX];
            for (pair, chunk) in like.chunks_exact_mut(2).zip(chunks) {
                pair.copy_from_slice(&[byte(&rule.mask, *chunk), byte(&rule.value, *chunk)]);
            }
            (like, at)
        })
        .collect();
    order.sort_unstable();
    order.into_iter().map(|(_, at)| at).collect()
}

/// Words of a row for so many rules.
pub(super) const fn row_words(rules: usize) -> usize {
    1 + rules.div_ceil(GROUP_RULES)
}

/// Fills a chunk's rows for rules in the order in which they lie.
pub(super) fn fill(rules: &[&Pattern], chunk: Chunk, words: usize, rows: &mut [u64]) {
    for (group, rules) in rules.chunks(GROUP_RULES).enumerate() {
        let (mut all, mut of_value) = (0, [0u64; ROWS]);
        for (bit, rule) in rules.iter().enumerate() {
            let (value, mask) = (byte(&rule.value, chunk), byte(&rule.mask, chunk));
            match mask {
                0 => all |= 1 << bit,
                0xff => of_value[usize::from(value)] |= 1 << bit,
                _ => {
                    for (may_match, bits) in (0..=u8::MAX).zip(&mut of_value) {
                        *bits |= u64::from(may_match & mask == value) << bit;
                    }
                }
            }
        }
        for (row, bits) in rows.chunks_exact_mut(words).zip(of_value) {
            // What a blob before had there.
            let before = if group == 0 { 0 } else { row[0] };
            row[0] = before | u64::from(bits | all != 0) << group;
            row[1 + group] = bits | all;
        }
    }
}

/// The one row of a table without chunks.
pub(super) fn fill_all(rules: usize, row: &mut [u64]) {
    row[0] = 0;
    for group in 0..rules.div_ceil(GROUP_RULES) {
        let left = rules - group * GROUP_RULES;
        row[0] |= 1 << group;
        row[1 + group] = if left < GROUP_RULES { (1 << left) - 1 } else { u64::MAX };
    }
}

/// A chunk's word in the table's head.
pub(super) fn word(row: usize, chunk: Option<Chunk>, words: usize) -> u64 {
    let (key_word, shift) = place(chunk.unwrap_or_default());
    // A table without chunks has one row for all values.
    let words = if chunk.is_some() { u16::try_from(words).unwrap_or_default() } else { 0 };
    blob::chunk(u32::try_from(row).unwrap_or_default(), key_word, shift, words)
}
