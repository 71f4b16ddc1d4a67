//! Which bytes of the key a table keeps rows for, in which order its rules lie, and the rows (ADR 17, "Lookup"). Pure.

use caregate_ebpf_common::switch::blob::{self, CHUNKS_MAX, GROUP_RULES};
use caregate_ebpf_common::switch::{KEY_BYTES, KEY_WORDS, Key};

/// Keys that chunks are chosen by: as many as a table's traffic has kinds.
const KEYS_SAMPLED: usize = 64;
/// Rules that each of them is held against.
const RULES_SAMPLED: usize = 256;
/// One rule that a key has to be compared with takes as long as so many tenths of a chunk more in all that the key asks.
const TENTHS_OF_A_RULE: usize = 30;
/// Chunks whose mask and value a word has, when rules are put in order.
const CHUNKS_OF_A_WORD: usize = 4;
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
        let Some((chunk, pairs)) = told_apart.take_best() else { break };
        // Rules that it spares a key, in tenths, were all of the table looked at.
        let spared = pairs * rules.len() * 10 / (keys.len() * sampled.len()).max(1);
        if spared * TENTHS_OF_A_RULE < 100 {
            break;
        }
        chosen.push(chunk);
    }
    chosen
}

/// Pairs of a key and a rule that no chosen chunk tells apart, and those that each chunk does.
struct Pairs {
    left: Vec<u64>,
    by_chunk: Vec<Candidate>,
}

struct Candidate {
    chunk: Chunk,
    /// A bit for each pair.
    told_apart: Vec<u64>,
    /// Of the pairs that are left it tells so many apart at most: as many as when it was counted last, and what is left gets less.
    most: usize,
}

/// A byte in each of a word's eight.
const EACH: u64 = 0x0101_0101_0101_0101;
/// All bits of each byte but the highest.
const LOW: u64 = 0x7f * EACH;

/// A bit for each of a word's bytes that is not 0, the lowest byte's lowest.
fn bytes_set(word: u64) -> u64 {
    let highest = (((word & LOW) + LOW) | word) & !LOW;
    // Each byte's bit is moved to the highest byte, each to another place of it.
    (highest >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

impl Pairs {
    fn new(keys: &[Key], rules: &[&Pattern]) -> Self {
        let used = |chunk: &Chunk| rules.iter().any(|rule| byte(&rule.mask, *chunk) != 0);
        let by_chunk: Vec<Candidate> =
            (0..KEY_BYTES).filter(used).map(|chunk| Candidate::new(chunk, keys, rules)).collect();
        let words = by_chunk.first().map_or(0, |first| first.told_apart.len());
        Self { left: vec![u64::MAX; words], by_chunk }
    }

    /// The chunk that tells most of the pairs apart that are left, and how many.
    fn take_best(&mut self) -> Option<(Chunk, usize)> {
        loop {
            let best = (0..self.by_chunk.len()).max_by_key(|at| self.by_chunk[*at].most)?;
            let candidate = &mut self.by_chunk[best];
            let pairs = candidate.count(&self.left);
            if pairs < candidate.most {
                candidate.most = pairs;
                continue;
            }
            for (left, bits) in self.left.iter_mut().zip(&candidate.told_apart) {
                *left &= !bits;
            }
            return Some((self.by_chunk.swap_remove(best).chunk, pairs));
        }
    }
}

impl Candidate {
    fn new(chunk: Chunk, keys: &[Key], rules: &[&Pattern]) -> Self {
        // Eight rules to a word; those that fill up the last one match everything.
        let packed = |of: fn(&Pattern) -> &Key| -> Vec<u64> {
            let word = |rules: &[&Pattern]| {
                let bytes = rules.iter().rev().map(|rule| byte(of(rule), chunk));
                bytes.fold(0, |word, byte| word << 8 | u64::from(byte))
            };
            rules.chunks(8).map(word).collect()
        };
        let (values, masks) = (packed(|rule| &rule.value), packed(|rule| &rule.mask));
        let of_byte = |byte: u8| {
            let byte = u64::from(byte) * EACH;
            let words = values.chunks(8).zip(masks.chunks(8)).map(move |(values, masks)| {
                let words = values.iter().zip(masks).rev();
                words.fold(0, |bits, (value, mask)| bits << 8 | bytes_set((byte ^ value) & mask))
            });
            words.collect::<Vec<u64>>()
        };
        // Most bytes have few values.
        let mut known = [const { None }; ROWS];
        let mut told_apart = Vec::with_capacity(keys.len() * values.len().div_ceil(8));
        for key in keys {
            let byte = byte(key, chunk);
            told_apart.extend_from_slice(known[usize::from(byte)].get_or_insert_with(|| of_byte(byte)));
        }
        let most = told_apart.iter().map(|bits| bits.count_ones() as usize).sum();
        Self { chunk, told_apart, most }
    }

    fn count(&self, left: &[u64]) -> usize {
        self.told_apart.iter().zip(left).map(|(bits, left)| (bits & left).count_ones() as usize).sum()
    }
}

/// The order in which rules lie, so that those that the same keys meet are side by side and a key finds them in few groups.
#[must_use]
pub(super) fn arrange(rules: &[&Pattern], chunks: &[Chunk]) -> Vec<usize> {
    let mut order: Vec<([u64; CHUNKS_MAX / CHUNKS_OF_A_WORD], usize)> = rules
        .iter()
        .enumerate()
        .map(|(at, rule)| {
            let mut like = [0; CHUNKS_MAX / CHUNKS_OF_A_WORD];
            for (place, chunk) in chunks.iter().enumerate() {
                let pair = u64::from(byte(&rule.mask, *chunk)) << 8 | u64::from(byte(&rule.value, *chunk));
                let above = 48 - place % CHUNKS_OF_A_WORD * 16;
                like[place / CHUNKS_OF_A_WORD] |= pair << above;
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
                // Each value that agrees where the mask counts: the bits that it leaves open take all their combinations.
                _ => {
                    let open = !mask;
                    let mut rest = open;
                    loop {
                        of_value[usize::from(value | rest)] |= 1 << bit;
                        if rest == 0 {
                            break;
                        }
                        rest = (rest - 1) & open;
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
