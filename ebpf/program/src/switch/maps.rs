//! The switch's maps, and how they are asked. Names and layouts are `caregate_ebpf_common::switch`'s.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, DevMap, PerCpuArray, ProgramArray, RingBuf};
use caregate_ebpf_common::Counter;
use caregate_ebpf_common::switch::blob::{self, Blob, Lookup, METER_PLACES, METERS_AT, RULES_AT, RULES_MAX};
use caregate_ebpf_common::switch::key::Key;
use caregate_ebpf_common::switch::map as layout;
use caregate_ebpf_common::switch::record::{
    BAND_WORDS, BANDS_MAX, Band, METER_BANDS, METER_FIRST, METER_WORDS, RULE_WORDS, meter_bucket,
    meter_counter,
};

use super::work::{NOT_ASKED, Work};
use crate::maps::add;

#[map]
static BLOBS: Array<Blob> = Array::with_max_entries(2, BPF_F_MMAPABLE);
#[map]
static STATE: Array<u64> = Array::with_max_entries(layout::STATE_WORDS, 0);
#[map]
static TABLE_COUNTERS: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(layout::TABLE_ENTRIES, 0);
#[map]
static FLOW_COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(layout::FLOW_ENTRIES, 0);
#[map]
static GROUP_COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(layout::GROUP_ENTRIES, 0);
#[map]
static BUCKET_COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(layout::BUCKET_ENTRIES, 0);
#[map]
static METER_COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(layout::METER_ENTRIES, 0);
#[map]
static METER_BUCKETS: Array<u64> = Array::with_max_entries(layout::METER_BUCKET_ENTRIES, 0);
#[map]
pub(crate) static DEVICES_OUT: DevMap = DevMap::with_max_entries(layout::DEVICE_OUT_ENTRIES, 0);
#[map]
static QUEUE_COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(layout::QUEUE_ENTRIES, 0);
#[map]
pub(crate) static PUNTS: RingBuf = RingBuf::with_byte_size(layout::PUNT_RING_BYTES, 0);
#[map]
pub(crate) static DEPARTURES: ProgramArray = ProgramArray::with_max_entries(1, 0);
#[map]
pub(crate) static STAGES: ProgramArray = ProgramArray::with_max_entries(8, 0);

/// What a key met in a table, by the hash of both.
#[repr(C)]
struct Cached {
    key: Key,
    /// Epoch and table; 0 where nothing was put here yet.
    tag: u64,
    /// The rule's place, or [`MISS`].
    rule: u64,
}

/// Places of the cache: 128 kB for each processor.
const CACHE_ENTRIES: u32 = 1024;
const CACHE_SHIFT: u32 = 64 - 10;
const _: () = assert!(CACHE_ENTRIES == 1 << 10);
/// No rule matches.
const MISS: u64 = u64::MAX;

#[map]
static CACHE: PerCpuArray<Cached> = PerCpuArray::with_max_entries(CACHE_ENTRIES, 0);

#[inline(always)]
pub(crate) fn state(which: u32) -> u64 {
    STATE.get(which).map_or(0, |word| *word)
}

/// The mark of the controller's own frames.
#[inline(always)]
pub(crate) fn own_mark() -> u64 {
    state(layout::STATE_OWN_MARK)
}

/// The copy that a frame sees.
#[inline(always)]
pub(crate) fn blob(epoch: u64) -> Option<&'static Blob> {
    BLOBS.get((epoch & 1) as u32)
}

/// Whether a frame's first table has any.
#[inline(always)]
pub(crate) fn has_rules(tables: u64) -> bool {
    let at = blob::TABLES_AT + (layout::first_table(tables) as usize & blob::TABLES - 1) * blob::TABLE_WORDS;
    blob(layout::epoch(tables)).is_some_and(|blob| blob[at] != 0)
}

#[inline(always)]
pub(crate) fn count_table(table: u32, is_match: bool) {
    if let Some(counter) = TABLE_COUNTERS.get_ptr_mut(table) {
        // SAFETY: as in `add`.
        unsafe {
            (*counter)[0] += 1;
            (*counter)[1] += u64::from(is_match);
        }
    }
}

#[inline(always)]
pub(crate) fn count_flow(slot: u32, bytes: u64) {
    add(FLOW_COUNTERS.get_ptr_mut(slot), bytes);
}

#[inline(always)]
pub(crate) fn count_group(place: u32, bytes: u64) {
    add(GROUP_COUNTERS.get_ptr_mut(place), bytes);
}

#[inline(always)]
pub(crate) fn count_bucket(place: u32, bytes: u64) {
    add(BUCKET_COUNTERS.get_ptr_mut(place), bytes);
}

/// Counts what goes out of a port by a queue.
#[inline(always)]
pub(crate) fn count_queue(port: u32, queue: u32, bytes: u64) {
    if queue < layout::QUEUES {
        add(QUEUE_COUNTERS.get_ptr_mut(layout::queue_counter(port, queue)), bytes);
    }
}

/// What the cache says.
pub(crate) enum Cache {
    /// A rule's place.
    Rule(usize),
    /// No rule matches.
    Miss,
    /// Nothing.
    Unknown,
}

#[inline(always)]
fn tag(work: &Work) -> u64 {
    (work.epoch << 8 | u64::from(work.table & 0xff)) + 1
}

/// Asks the cache; where it knows nothing the place for the answer is noted.
#[inline(always)]
pub(crate) fn cached(work: &mut Work) -> Cache {
    let at = (work.hash(work.table) >> CACHE_SHIFT) as u32;
    let Some(entry) = CACHE.get_ptr(at) else { return Cache::Unknown };
    // SAFETY: this CPU's own value.
    let entry = unsafe { &*entry };
    let mut differs = entry.tag ^ tag(work);
    let mut word = 0;
    while word < work.parsed.key.len() {
        differs |= entry.key[word] ^ work.parsed.key[word];
        word += 1;
    }
    if differs != 0 {
        work.cache_at = at;
        return Cache::Unknown;
    }
    if entry.rule == MISS { Cache::Miss } else { Cache::Rule(entry.rule as usize) }
}

/// Puts an answer into the cache.
#[inline(always)]
pub(crate) fn remember(work: &mut Work, rule: Option<usize>) {
    if work.cache_at == NOT_ASKED {
        return;
    }
    let Some(entry) = CACHE.get_ptr_mut(work.cache_at) else { return };
    // SAFETY: this CPU's own value.
    unsafe {
        (*entry).tag = tag(work);
        (*entry).rule = rule.map_or(MISS, |place| place as u64);
        core::ptr::copy_nonoverlapping(&raw const work.parsed.key, &raw mut (*entry).key, 1);
    }
    work.cache_at = NOT_ASKED;
}

/// Groups and rules that one lookup looks at: more than rules of any sense need, and what a verifier takes.
const STEPS: usize = 64;

/// Looks a key up, without cache.
#[inline(always)]
pub(crate) fn find(work: &mut Work, blob: &Blob) -> Lookup {
    blob::find::<STEPS>(blob, work.table as usize, &work.parsed.key, &mut work.search)
}

/// A word of a rule. Places are what the helper wrote; the mask is for the verifier, here and elsewhere.
#[inline(always)]
pub(crate) fn rule_word(blob: &Blob, place: usize, word: usize) -> u64 {
    blob[RULES_AT + (place & RULES_MAX - 1) * RULE_WORDS + word]
}

/// What a meter says to a frame.
pub(crate) enum Metered {
    Passes,
    Drop,
    /// So many steps.
    Remark(u8),
}

/// Asks a meter: of the bands that the frame exceeds, the one with the highest rate acts (OpenFlow 1.3.5 §5.7.1).
#[inline(always)]
pub(crate) fn meter(blob: &Blob, place: u32, bytes: u64) -> Metered {
    let at = METERS_AT + (place as usize & METER_PLACES - 1) * METER_WORDS;
    let bands = blob::word(blob, at + METER_BANDS);
    add(METER_COUNTERS.get_ptr_mut(meter_counter(place)), bytes);
    // SAFETY: no argument, no effect.
    let now = unsafe { bpf_ktime_get_ns() };
    let mut metered = Metered::Passes;
    let mut is_first = true;
    let mut number = 0;
    while number < BANDS_MAX {
        if number as u64 >= bands {
            break;
        }
        let words = at + METER_FIRST + number * BAND_WORDS;
        let band = Band::unpack([0, 1, 2].map(|word| blob::word(blob, words + word)));
        let Some(bucket) = METER_BUCKETS.get_ptr_mut(meter_bucket(place, number as u32)) else { break };
        // SAFETY: eight aligned bytes of a map; another CPU may write them at the same time, which costs a frame.
        let state = unsafe { bucket.read_volatile() };
        if let Some(next) = band.take(state, now, bytes) {
            // SAFETY: as above.
            unsafe { bucket.write_volatile(next) };
        } else if is_first {
            is_first = false;
            add(METER_COUNTERS.get_ptr_mut(meter_counter(place) + 1 + number as u32), bytes);
            metered = match band.remark {
                Some(steps) => Metered::Remark(steps),
                None => Metered::Drop,
            };
        }
        number += 1;
    }
    metered
}
