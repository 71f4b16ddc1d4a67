//! The switch's maps: names and sizes. What is pinned outlives helper and programs.

use super::blob::{BUCKET_PLACES, GROUP_PLACES, METER_PLACES, RULES_MAX, TABLES};
use super::microflow::Microflow;
use super::record::BANDS_MAX;
use super::stage::{CACHE, DEPARTURES, MICROFLOWS, SEEN, STAGES, WORK};
use crate::Counter;
use crate::map::PORT_SLOTS;

/// Array of two [`super::blob::Blob`], `BPF_F_MMAPABLE`.
pub const BLOBS: &str = "BLOBS";
/// Array of [`STATE_WORDS`] words (u64).
pub const STATE: &str = "STATE";
/// Per-CPU array of two words (u64), lookups and matches, by table.
pub const TABLE_COUNTERS: &str = "TABLE_COUNTERS";
/// Per-CPU array of [`AT_ONCE_WORDS`] words (u64), by [`at_once`]: what else a port's frames are counted by, beside [`TABLE_COUNTERS`] and
/// [`crate::map::VERDICTS`], where they are sent at once.
pub const AT_ONCE: &str = "AT_ONCE";
/// Per-CPU array of [`crate::Counter`], by a rule's slot.
pub const FLOW_COUNTERS: &str = "FLOW_COUNTERS";
/// Per-CPU array of [`crate::Counter`], by a group's place.
pub const GROUP_COUNTERS: &str = "GROUP_COUNTERS";
/// Per-CPU array of [`crate::Counter`], by a bucket's place.
pub const BUCKET_COUNTERS: &str = "BUCKET_COUNTERS";
/// Per-CPU array of [`crate::Counter`], by [`super::record::meter_counter`].
pub const METER_COUNTERS: &str = "METER_COUNTERS";
/// Array of token buckets (u64), by [`super::record::meter_bucket`].
pub const METER_BUCKETS: &str = "METER_BUCKETS";
/// Devmap: a port's number to its interface's index.
pub const DEVICES_OUT: &str = "DEVICES_OUT";
/// Per-CPU array of [`crate::Counter`], what went out, by [`queue_counter`].
pub const QUEUE_COUNTERS: &str = "QUEUE_COUNTERS";
/// Ring of [`Punt`].
pub const PUNTS: &str = "PUNTS";

/// All that are pinned. Stages, scratch memory and cache among them: until a new version's first program is attached, the old one
/// goes on with the new stages, so a change of what they share is another [`crate::ABI_VERSION`].
pub const ALL: [&str; 18] = [
    STAGES,
    DEPARTURES,
    SEEN,
    WORK,
    CACHE,
    MICROFLOWS,
    BLOBS,
    STATE,
    TABLE_COUNTERS,
    AT_ONCE,
    FLOW_COUNTERS,
    GROUP_COUNTERS,
    BUCKET_COUNTERS,
    METER_COUNTERS,
    METER_BUCKETS,
    DEVICES_OUT,
    QUEUE_COUNTERS,
    PUNTS,
];

/// Queues of an uplink (`protocol::datapath::QUEUES`).
pub const QUEUES: u32 = 8;

/// The place of a port's queue in [`QUEUE_COUNTERS`].
#[must_use]
#[inline(always)]
pub const fn queue_counter(port: u32, queue: u32) -> u32 {
    port * QUEUES + queue
}

/// Words of [`STATE`].
pub const STATE_WORDS: u32 = 3;
/// In [`STATE`]: which tables a frame meets ([`tables_word`]), in one word, since each frame asks.
pub const STATE_TABLES: u32 = 0;
/// In [`STATE`]: bit *n* is set while port *n* is live.
pub const STATE_LIVE: u32 = 1;
/// In [`STATE`]: the mark (`SO_MARK`) of the controller's own frames, which no table is to see on their way out; drawn anew
/// by each helper, never 0.
pub const STATE_OWN_MARK: u32 = 2;

/// The epoch, counted up at each change, whose lowest bit is the copy in force; and the first table of a frame below it (8 bits).
#[must_use]
#[inline(always)]
pub const fn tables_word(epoch: u64, first_table: u8) -> u64 {
    epoch << 8 | first_table as u64
}

/// The epoch of such a word.
#[must_use]
#[inline(always)]
pub const fn epoch(tables: u64) -> u64 {
    tables >> 8
}

/// The first table of such a word.
#[must_use]
#[inline(always)]
pub const fn first_table(tables: u64) -> u32 {
    (tables & 0xff) as u32
}

/// Tables that may be a frame's first: the guard's, and the one behind it.
pub const FIRST_TABLES: u32 = 2;
/// Places of a table's ports in [`AT_ONCE`], a power of two.
const AT_ONCE_PORTS: u32 = 32;
const _: () = assert!(PORT_SLOTS <= AT_ONCE_PORTS && AT_ONCE_PORTS.is_power_of_two());
/// Entries of [`AT_ONCE`].
pub const AT_ONCE_ENTRIES: u32 = FIRST_TABLES * AT_ONCE_PORTS;
/// Words of an entry: four counters, of frames dropped, without a rule, delivered and redirected, in the order of [`AtOnce`]; the hash's
/// seeds of this processor.
pub const AT_ONCE_WORDS: usize = 12;

/// The place of a port's frames in [`AT_ONCE`] while this is the first table.
#[must_use]
#[inline(always)]
pub const fn at_once(first_table: u32, port: u32) -> u32 {
    first_table * AT_ONCE_PORTS + port
}

/// An entry of [`AT_ONCE`].
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct AtOnce {
    /// [`crate::Verdict::SwitchDropped`], by a rule of the first table.
    pub dropped: Counter,
    /// [`crate::Verdict::TableMiss`], in the first table.
    pub missed: Counter,
    /// [`crate::Verdict::Delivered`]
    pub delivered: Counter,
    /// [`crate::Verdict::Redirected`]
    pub redirected: Counter,
    /// What the microflows' hash adds; 0 until they are drawn.
    pub seeds: Microflow,
}
const _: () = assert!(size_of::<AtOnce>() == 8 * AT_ONCE_WORDS);

#[expect(clippy::cast_possible_truncation, reason = "some thousands, and try_from isn't const")]
mod entries {
    use super::{BANDS_MAX, BUCKET_PLACES, GROUP_PLACES, METER_PLACES, RULES_MAX, TABLES};

    /// Entries of [`super::TABLE_COUNTERS`].
    pub const TABLE_ENTRIES: u32 = TABLES as u32;
    /// Entries of [`super::FLOW_COUNTERS`]: rules in force, and as many that take their place in one change.
    pub const FLOW_ENTRIES: u32 = 2 * RULES_MAX as u32;
    /// Entries of [`super::GROUP_COUNTERS`].
    pub const GROUP_ENTRIES: u32 = GROUP_PLACES as u32;
    /// Entries of [`super::BUCKET_COUNTERS`].
    pub const BUCKET_ENTRIES: u32 = BUCKET_PLACES as u32;
    /// Entries of [`super::METER_COUNTERS`].
    pub const METER_ENTRIES: u32 = (METER_PLACES * (BANDS_MAX + 1)) as u32;
    /// Entries of [`super::METER_BUCKETS`].
    pub const METER_BUCKET_ENTRIES: u32 = (METER_PLACES * BANDS_MAX) as u32;
}
pub use entries::{
    BUCKET_ENTRIES, FLOW_ENTRIES, GROUP_ENTRIES, METER_BUCKET_ENTRIES, METER_ENTRIES, TABLE_ENTRIES,
};
/// Entries of [`DEVICES_OUT`].
pub const DEVICE_OUT_ENTRIES: u32 = PORT_SLOTS;
/// Entries of [`QUEUE_COUNTERS`].
pub const QUEUE_ENTRIES: u32 = PORT_SLOTS * QUEUES;
/// Bytes of [`PUNTS`]: 160 of the longest frames.
pub const PUNT_RING_BYTES: u32 = 256 * 1024;
/// Bytes of a frame in [`PUNTS`] at most.
pub const PUNT_BYTES_MAX: usize = 1536;

/// One frame for the slow path, as it lies in the ring.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Punt {
    /// Where it came in.
    pub in_port: u32,
    /// Tables from this one on did not see it.
    pub before: u32,
    /// Bytes of the whole frame.
    pub total_len: u32,
    /// How many of them are here.
    pub len: u32,
    /// What meters added to its drop precedence ([`super::record::remark_of`]).
    pub remarks: u32,
    /// 1 where the gateway's stack has its copy.
    pub is_handed: u32,
    /// The first bytes of it.
    pub frame: [u8; PUNT_BYTES_MAX],
}

/// A [`Punt`] as it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Punted<'a> {
    /// Where it came in.
    pub in_port: u32,
    /// Tables from this one on did not see it.
    pub before: u32,
    /// Bytes of the whole frame.
    pub total_len: u32,
    /// What meters added to its drop precedence ([`super::record::remark_in`]).
    pub remarks: u32,
    /// Whether the gateway's stack has its copy.
    pub is_handed: bool,
    /// Its first bytes.
    pub frame: &'a [u8],
}

/// Where [`Punt::frame`] begins.
pub const PUNT_HEAD_BYTES: usize = 24;
const _: () = assert!(core::mem::offset_of!(Punt, frame) == PUNT_HEAD_BYTES);
const _: () = assert!(size_of::<Punt>() == PUNT_HEAD_BYTES + PUNT_BYTES_MAX);

impl Punt {
    /// What a ring's entry says; none where it is none.
    #[must_use]
    pub fn read(entry: &[u8]) -> Option<Punted<'_>> {
        let word = |at: usize| entry.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
        let len = usize::try_from(word(12)?).ok()?;
        let frame = entry.get(PUNT_HEAD_BYTES..)?.get(..len)?;
        Some(Punted {
            in_port: word(0)?,
            before: word(4)?,
            total_len: word(8)?,
            remarks: word(16)?,
            is_handed: word(20)? != 0,
            frame,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rings_entry_is_read_back_and_a_short_one_refused() {
        let mut entry = [0; PUNT_HEAD_BYTES + 8];
        for (at, word) in [(0, 3u32), (4, 8), (8, 1514), (12, 3), (16, 9), (20, 1)] {
            entry[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        entry[24..27].copy_from_slice(b"abc");
        let punted =
            Punted { in_port: 3, before: 8, total_len: 1514, remarks: 9, is_handed: true, frame: b"abc" };
        assert_eq!(Punt::read(&entry), Some(punted));
        entry[12..16].copy_from_slice(&9u32.to_ne_bytes());
        assert_eq!(Punt::read(&entry), None);
        assert_eq!(Punt::read(&entry[..12]), None);
    }
}
