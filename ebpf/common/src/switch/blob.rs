//! A blob: all that rules say, in words, and how a rule is found in it (ADR 17, "Lookup").
//!
//! ```text
//! word  0        head: [`WORD_EPOCH`] and on
//!      64        LOWEST     where the lowest bit of a word is, by a product with a de Bruijn number: BPF has no such instruction
//!     128        TABLES     8 of 32 words: [`table`], then up to 16 of [`chunk`]
//!     384        GROUPS     by place: [`super::record::group`]
//!     896        GROUP_IDS  by place: OpenFlow's number and [`USED`]
//!    1408        METERS     by place, 16 words
//!    9600        METER_IDS  by place: OpenFlow's number and [`USED`]
//!   10240        BUCKETS    by place, 4 words
//!   26624        OPS        actions, 4 words
//!   92160        RULES      by place, 36 words
//!  239616        VECTORS    rows
//! ```
//! A table's rules lie one after another, those that are alike side by side, in groups of 64. For each of its chunks (a byte of the
//! key) there are 256 rows, one for each value; a row's word 0 says which of the others are not 0, and bit *r* of word 1 + *g*
//! says that rule 64 *g* + *r* of the table may match a key with that value. An odd number of chunks is made even by one whose
//! only row is all ones. The rows of all chunks together leave few rules;
//! each is compared in full, and of those that match the one of the lowest rank is the table's answer.

use super::key::{KEY_WORDS, Key};
use super::op::OP_WORDS;
use super::record::{BUCKET_WORDS, GROUP_WORDS, METER_WORDS, RULE_MASK, RULE_METER, RULE_VALUE, RULE_WORDS};

/// Words of a blob: 2.8 MiB. The kernel's arrays hold values of 4 MiB at most (`KMALLOC_MAX_SIZE`).
pub const BLOB_WORDS: usize = VECTORS_AT + VECTOR_WORDS;
/// A blob.
pub type Blob = [u64; BLOB_WORDS];

/// Counted up at each change; the copy in force has the selector's.
pub const WORD_EPOCH: usize = 1;
/// Of the daemon that sent the flows.
pub const WORD_SESSION: usize = 2;
/// Rules of all tables.
pub const WORD_RULES: usize = 3;

/// Tables.
pub const TABLES: usize = 8;
/// Chunks of a table, at most.
pub const CHUNKS_MAX: usize = 16;
/// Rules of all tables.
pub const RULES_MAX: usize = 4096;
/// Rules whose bits are one word.
pub const GROUP_RULES: usize = 64;
/// Places of groups: those in force, and as many that take their place in one change.
pub const GROUP_PLACES: usize = 512;
/// Places of meters, likewise.
pub const METER_PLACES: usize = 512;
/// Places of buckets, likewise: two for each group and as many again.
pub const BUCKET_PLACES: usize = 4096;
/// Actions of all lists that differ: four for each flow.
pub const OPS_MAX: usize = 16 * 1024;
/// Set where a place has a number.
pub const USED: u64 = 1 << 32;

/// A rule's word that says which comes first of several that match: the lowest.
pub const RULE_RANK: usize = RULE_METER + 1;
/// A rule's word with the daemon's name for it, for the helper alone.
pub const RULE_ID: usize = RULE_METER + 2;
const _: () = assert!(RULE_ID < RULE_WORDS);

/// Words of a table's head and chunks.
pub const TABLE_WORDS: usize = 32;

/// First word of each part.
pub const LOWEST_AT: usize = 64;
/// Tables, by number.
pub const TABLES_AT: usize = 128;
/// Groups, by place.
pub const GROUPS_AT: usize = TABLES_AT + TABLES * TABLE_WORDS;
/// Numbers of groups, by place.
pub const GROUP_IDS_AT: usize = GROUPS_AT + GROUP_PLACES * GROUP_WORDS;
/// Meters, by place.
pub const METERS_AT: usize = GROUP_IDS_AT + GROUP_PLACES;
/// Numbers of meters, by place.
pub const METER_IDS_AT: usize = METERS_AT + METER_PLACES * METER_WORDS;
/// Buckets, by place.
pub const BUCKETS_AT: usize = 10_240;
/// Actions.
pub const OPS_AT: usize = BUCKETS_AT + BUCKET_PLACES * BUCKET_WORDS;
/// Rules, by place.
pub const RULES_AT: usize = OPS_AT + OPS_MAX * OP_WORDS;
/// Rows.
pub const VECTORS_AT: usize = RULES_AT + RULES_MAX * RULE_WORDS;

const _: () = assert!(METER_IDS_AT + METER_PLACES <= BUCKETS_AT && BUCKETS_AT < OPS_AT);
const _: () = assert!(VECTORS_AT == 239_616 && RULES_AT == 92_160);
/// Words of all rows: seven chunks of a full table, and the row of ones. A power of two.
pub const VECTOR_WORDS: usize = 128 * 1024;
/// The row of ones, in the vectors: what leaves all rules.
pub const ROW_OF_ONES: usize = VECTOR_WORDS - (1 + RULES_MAX / GROUP_RULES);
const _: () =
    assert!(7 * 256 * (1 + RULES_MAX / GROUP_RULES) <= ROW_OF_ONES && VECTOR_WORDS.is_power_of_two());
/// A table's word behind its last chunk.
pub const NO_CHUNK: u64 = 0;
/// No row has it.
const NO_ROW: usize = VECTOR_WORDS;

/// Packs a table's head: its chunks, an even number, none where it has no rules; and its first rule.
#[must_use]
pub const fn table(chunks: u8, first_rule: u32) -> u64 {
    chunks as u64 | (first_rule as u64) << 32
}

/// Packs a chunk, not [`NO_CHUNK`]: the place of its row for value 0 in the vectors, the byte of the key ([`KEY_WORDS`] words, and bits below the byte in its word),
/// and the words of a row, 0 where one is all rows.
#[must_use]
pub const fn chunk(row: u32, key_word: u8, shift: u8, row_words: u16) -> u64 {
    row as u64 | (key_word as u64) << 32 | (shift as u64) << 40 | (row_words as u64) << 48
}

/// Its products with powers of two have six highest bits that are all different.
const DE_BRUIJN: u64 = 0x03f7_9d71_b4cb_0a89;

/// What lies at [`LOWEST_AT`].
#[must_use]
pub const fn lowest_words() -> [u64; 64] {
    let mut words = [0; 64];
    let mut bit = 0;
    while bit < 64 {
        let at = (DE_BRUIJN << bit) >> 58;
        words[at as usize] = bit;
        bit += 1;
    }
    words
}

/// The word at `at`; 0 beyond the end.
#[inline(always)]
#[must_use]
pub fn word(blob: &Blob, at: usize) -> u64 {
    if at < BLOB_WORDS { blob[at] } else { 0 }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "what is no place is found to be none where it is used")]
fn place(word: u64) -> usize {
    word as usize
}

/// Which is the lowest bit of a word that is not 0.
#[inline(always)]
fn lowest(blob: &Blob, bits: u64) -> usize {
    let product = (bits & bits.wrapping_neg()).wrapping_mul(DE_BRUIJN) >> 58;
    place(blob[LOWEST_AT + place(product)])
}

/// What a table says to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// No rule matches.
    Miss,
    /// The rule that comes first, by its place.
    Rule(usize),
    /// There was more to compare than was allowed.
    Long,
}

/// Where the rows of a key begin in the vectors, one for each chunk; [`NO_ROW`] behind the last.
type Rows = [usize; CHUNKS_MAX];

/// Room for a search, in the program's own memory: what is read from there the verifier does not know, so that the many ways through
/// one step of the search are one to it before the next.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Search {
    rows: Rows,
    /// First rule of the group that is looked at.
    base: usize,
    /// Of the best rule yet.
    rank: u64,
    /// It.
    found: usize,
    /// Groups that are still to be looked at.
    groups: u64,
    /// Rules of this group that are.
    bits: u64,
    first: usize,
}

/// The rule of a table that a key meets first. It looks at no more than `STEPS` groups and rules.
#[inline(always)]
pub fn find<const STEPS: usize>(blob: &Blob, number: usize, key: &Key, search: &mut Search) -> Lookup {
    if number >= TABLES {
        return Lookup::Miss;
    }
    let table_at = TABLES_AT + number * TABLE_WORDS;
    let head = word(blob, table_at);
    if head == 0 {
        return Lookup::Miss;
    }
    search.groups = rows_of(blob, table_at, key, &mut search.rows);
    search.first = place(head >> 32);
    // Two words that are known to be all ones the compiler would fill by a function, which BPF has not.
    (search.rank, search.found, search.bits) = (u64::MAX, core::hint::black_box(usize::MAX), 0);
    let mut search = search;
    for _ in 0..STEPS {
        search = core::hint::black_box(search);
        let (groups, bits) = (search.groups, search.bits);
        if bits != 0 {
            search.bits = bits & (bits - 1);
            let rule = (search.base + lowest(blob, bits)) & (RULES_MAX - 1);
            let rank = blob[RULES_AT + rule * RULE_WORDS + RULE_RANK];
            if rank < search.rank && matches(blob, rule, key) {
                (search.rank, search.found) = (rank, rule);
            }
        } else if groups != 0 {
            search.groups = groups & (groups - 1);
            let group = lowest(blob, groups);
            search.base = search.first + group * GROUP_RULES;
            search.bits = candidates(blob, &search.rows, 1 + group);
        } else {
            let found = search.found;
            return if found < RULES_MAX { Lookup::Rule(found) } else { Lookup::Miss };
        }
    }
    Lookup::Long
}

/// Notes each chunk's row for the key; the groups that all of them leave. Two at a time, as there is always an even number.
#[inline(always)]
fn rows_of(blob: &Blob, table_at: usize, key: &Key, rows: &mut Rows) -> u64 {
    let mut groups = u64::MAX;
    let mut number = 0;
    while number < CHUNKS_MAX {
        let (one, other) = (word(blob, table_at + 1 + number), word(blob, table_at + 2 + number));
        if one == NO_CHUNK {
            rows[number] = NO_ROW;
            break;
        }
        rows[number] = row_of(one, key);
        rows[number + 1] = row_of(other, key);
        groups &= row_word(blob, rows[number]) & row_word(blob, rows[number + 1]);
        number += 2;
    }
    groups
}

#[inline(always)]
fn row_of(chunk: u64, key: &Key) -> usize {
    let key_word = place(chunk >> 32 & 0x0f);
    let byte = if key_word < KEY_WORDS { key[key_word] >> (chunk >> 40 & 63) & 0xff } else { 0 };
    place((chunk & 0xffff_ffff) + byte * (chunk >> 48))
}

/// The word at `at` of the vectors. A mask and no comparison: the verifier gives up on a program with too many of these.
#[inline(always)]
fn row_word(blob: &Blob, at: usize) -> u64 {
    blob[VECTORS_AT + (at & (VECTOR_WORDS - 1))]
}

/// The rules of a group that all rows leave.
#[inline(always)]
fn candidates(blob: &Blob, rows: &Rows, at: usize) -> u64 {
    let mut bits = u64::MAX;
    let mut number = 0;
    while number < CHUNKS_MAX {
        let row = rows[number];
        if row == NO_ROW {
            break;
        }
        bits &= row_word(blob, row + at) & row_word(blob, rows[number + 1] + at);
        number += 2;
    }
    bits
}

/// Whether the key's masked bits are the rule's.
#[inline(always)]
#[must_use]
pub fn matches(blob: &Blob, rule: usize, key: &Key) -> bool {
    let at = RULES_AT + (rule & (RULES_MAX - 1)) * RULE_WORDS;
    let mut differs = 0;
    let mut number = 0;
    while number < KEY_WORDS {
        let (value, mask) = (blob[at + RULE_VALUE + number], blob[at + RULE_MASK + number]);
        differs |= key[number] & mask ^ value;
        number += 1;
    }
    differs == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bit_has_its_number() {
        let words = lowest_words();
        for bit in 0..64u64 {
            let product = (1u64 << bit).wrapping_mul(DE_BRUIJN) >> 58;
            assert_eq!(words[usize::try_from(product).unwrap()], bit);
        }
    }

    #[test]
    fn heads_and_chunks_are_taken_apart_as_they_were_packed() {
        assert_eq!(table(3, 4095), 3 | 4095 << 32);
        let chunk = chunk(131_071, 12, 56, 65);
        assert_eq!(
            (chunk & 0xffff_ffff, chunk >> 32 & 0x0f, chunk >> 40 & 63, chunk >> 48),
            (131_071, 12, 56, 65)
        );
    }
}
