//! What is known of a frame on its way, in per-CPU memory: the stages share nothing else, and to the verifier all of it is unknown.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use caregate_ebpf_common::switch::blob::Search;
use caregate_ebpf_common::switch::edit::Headers;
use caregate_ebpf_common::switch::key::{KEY_WORDS, Key};
use caregate_ebpf_common::switch::map as layout;
use caregate_ebpf_common::switch::op::port;
use caregate_ebpf_common::switch::parse::Parsed;

/// A frame on its way.
#[repr(C)]
pub(crate) struct Work {
    /// Key and layers, of the frame as it is by now.
    pub(crate) parsed: Parsed,
    /// Its first bytes, once an action wants them.
    pub(crate) headers: Headers,
    /// As they were when the stack was to have a copy, where they were edited after that.
    pub(crate) noted: Headers,
    /// For the lookup.
    pub(crate) search: Search,
    /// The actions in the action set, by slot: places in the blob.
    pub(crate) set: [u32; SET_PLACES],
    /// Which slots are used.
    pub(crate) set_bits: u64,
    /// Bytes of the frame as it came.
    pub(crate) bytes: u64,
    /// Which state of the blobs it sees.
    pub(crate) epoch: u64,
    /// The list that is worked on: [`caregate_ebpf_common::switch::record::list`].
    pub(crate) list: u64,
    /// Of this processor: what the cache's hash multiplies by.
    pub(crate) seeds: Key,
    /// Where the cache is to have what is found; [`NOT_ASKED`] where it was not asked.
    pub(crate) cache_at: u32,
    pub(crate) in_port: u32,
    /// The next table.
    pub(crate) table: u32,
    /// One of [`Mode`].
    pub(crate) mode: u32,
    /// Actions of the list that are done.
    pub(crate) done: u32,
    /// How often headers were parsed again in the midst of a list.
    pub(crate) parsed_again: u32,
    /// Whether `headers` are this frame's.
    pub(crate) is_copied: u32,
    /// Whether the key is behind the headers.
    pub(crate) is_edited: u32,
    /// Where to; `OFPP_ANY` for nowhere.
    pub(crate) output: u32,
    /// By which group, and 1; 0 for none.
    pub(crate) group: u32,
    /// Of a select group: the hash that chooses.
    pub(crate) wanted: u64,
    /// The bucket that was chosen.
    pub(crate) bucket: u32,
    /// Groups that sent it to groups.
    pub(crate) groups: u32,
    pub(crate) queue: u32,
    /// To the slow path, as it came.
    pub(crate) is_punted: u32,
    /// One of [`local`]: the stack's copy of a frame that goes elsewhere too.
    pub(crate) local: u32,
    /// Headers are not what they should be: a copy for the stack can't be made of them, and no group be chosen by them.
    pub(crate) is_unfit: u32,
    /// What meters added to its drop precedence: [`caregate_ebpf_common::switch::record::remark_of`].
    pub(crate) remarks: u32,
    /// The table that did not see it, of a punted one.
    pub(crate) before: u32,
    /// Steps of drop precedence that a meter adds, and 1; 0 for none.
    pub(crate) remark: u32,
    /// A [`caregate_ebpf_common::Verdict`] for a frame without output.
    pub(crate) verdict: u32,
    /// One of [`role`].
    pub(crate) role: u32,
    /// Tables that had a rule for it.
    pub(crate) met: u32,
    /// Of a sensor port: the bound device.
    pub(crate) device: u32,
    /// Of the gateway's own frame: where it is going out.
    pub(crate) uplink: u32,
    /// Of the gateway's own frame: what was applied, and what is to be done at the end.
    pub(crate) departure: [Departure; 2],
    /// Of the gateway's own frame: the rule that it met last.
    pub(crate) rule: u64,
}

/// What the gateway's own frame is to have.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Departure {
    /// A mark, and 1; 0 for none.
    pub(crate) dscp: u32,
    /// A queue, and 1.
    pub(crate) queue: u32,
    /// Whether it goes on.
    pub(crate) is_sent: u32,
    /// Bytes for the controller, and 1.
    pub(crate) copy: u32,
}

/// The copy of the gateway's stack.
pub(crate) mod local {
    /// None was asked for.
    pub(crate) const NONE: u32 = 0;
    /// It is the headers as they are.
    pub(crate) const NOTED: u32 = 1;
    /// The headers are about to be edited; they are to be kept as they are.
    pub(crate) const WANTED: u32 = 2;
    /// It is in [`super::Work::noted`].
    pub(crate) const KEPT: u32 = 3;
}

/// Whose frame it is.
pub(crate) mod role {
    /// A switch port's.
    pub(crate) const SWITCH: u32 = 0;
    /// A sensor port's: it passes or is dropped.
    pub(crate) const SENSOR: u32 = 1;
}

const _: () = assert!(KEY_WORDS.is_multiple_of(2), "the hash takes words by twos");

/// Place of [`Work`] for XDP.
pub(crate) const INGRESS: u32 = 0;
/// Place of [`Work`] for tc, which may interrupt the other on a CPU.
pub(crate) const EGRESS: u32 = 1;

/// Places of a set, so many that a number of six bits is one.
pub(crate) const SET_PLACES: usize = 64;
/// No place of the cache.
pub(crate) const NOT_ASKED: u32 = u32::MAX;
/// No table is left.
pub(crate) const NO_TABLE: u32 = caregate_ebpf_common::switch::record::NO_TABLE as u32;

/// What a list of actions is.
pub(crate) mod mode {
    /// A rule's, to apply.
    pub(crate) const APPLY: u32 = 0;
    /// The action set.
    pub(crate) const SET: u32 = 1;
    /// A bucket's.
    pub(crate) const BUCKET: u32 = 2;
}

#[map]
static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(2, 0);

impl Work {
    /// This processor's, of XDP or of tc.
    #[inline(always)]
    pub(crate) fn get(place: u32) -> Option<&'static mut Self> {
        let work = WORK.get_ptr_mut(place)?;
        // SAFETY: this CPU's own value, which nobody else writes while these programs run: a driver's poll is not interrupted by
        // another's on its CPU.
        Some(unsafe { &mut *work })
    }

    /// Ready for another frame's key, and for the cache to be asked.
    #[inline(always)]
    pub(crate) fn begin(&mut self, in_port: u32, bytes: u64, tables: u64) {
        // What is zeroed must not be known to be: a function would be called for it.
        let none: u64 = core::hint::black_box(0);
        self.parsed.key[0] = u64::from(in_port) << 32;
        self.parsed.key[1] = none;
        self.parsed.key[13] = none;
        self.bytes = bytes;
        self.epoch = layout::epoch(tables);
        self.in_port = in_port;
        self.table = layout::first_table(tables);
        self.cache_at = NOT_ASKED;
    }

    /// Ready for its way through tables and actions.
    #[inline(always)]
    pub(crate) fn set_out(&mut self) {
        let none: u64 = core::hint::black_box(0);
        let zero = none as u32;
        self.headers.changed_to = zero;
        self.set_bits = none;
        self.parsed_again = zero;
        self.is_copied = zero;
        self.is_edited = zero;
        self.output = port::ANY;
        self.group = zero;
        self.groups = zero;
        self.queue = zero;
        self.is_punted = zero;
        self.local = zero;
        self.is_unfit = zero;
        self.remarks = zero;
        self.before = NO_TABLE;
        self.remark = zero;
        self.verdict = caregate_ebpf_common::Verdict::SwitchDropped as u32;
        self.role = role::SWITCH;
        self.met = zero;
    }

    /// A hash of the key that nobody outside can foresee: a sum of products of pairs of words, each with a number added that is drawn once.
    /// Its highest bits are those to use: all bits of a word reach them.
    #[inline(always)]
    pub(crate) fn hash(&mut self, table: u32) -> u64 {
        if self.seeds[0] == 0 {
            for seed in &mut self.seeds {
                // SAFETY: no argument, no effect.
                let (high, low) = unsafe { (bpf_get_prandom_u32(), bpf_get_prandom_u32()) };
                *seed = u64::from(high) << 32 | u64::from(low) | 1;
            }
        }
        let mut sum = u64::from(table) << 60;
        let mut word = 0;
        while word < KEY_WORDS {
            let first = self.parsed.key[word].wrapping_add(self.seeds[word]);
            let second = self.parsed.key[word + 1].wrapping_add(self.seeds[word + 1]);
            sum = sum.wrapping_add(first.wrapping_mul(second));
            word += 2;
        }
        sum
    }

    /// A copy is to go to the gateway's stack: the first one does.
    #[inline(always)]
    pub(crate) fn note(&mut self) {
        if self.local == local::NONE && self.is_unfit == 0 {
            self.local = local::NOTED;
        }
    }

    /// Keeps the headers for the stack's copy.
    #[inline(always)]
    pub(crate) fn keep(&mut self) {
        copy(&raw const self.headers, &raw mut self.noted);
        self.local = local::KEPT;
    }

    /// Makes the stack's copy of the headers. False where there is none.
    #[inline(always)]
    pub(crate) fn take_noted(&mut self) -> bool {
        if self.local == local::NONE {
            return false;
        }
        if self.local == local::KEPT {
            copy(&raw const self.noted, &raw mut self.headers);
        }
        true
    }

    /// To the slow path, whatever else is decided.
    #[inline(always)]
    pub(crate) fn punt(&mut self) {
        self.is_punted = 1;
    }
}

/// Word by word: a compiler that knew what it does would call a function for it, which BPF has not.
#[inline(always)]
fn copy(from: *const Headers, to: *mut Headers) {
    const WORDS: usize = size_of::<Headers>() / 8;
    const _: () = assert!(WORDS * 8 == size_of::<Headers>() && align_of::<Headers>() == 8);
    let mut word = 0;
    while word < WORDS {
        // SAFETY: within both, which are this CPU's own and aligned to words.
        unsafe { to.cast::<u64>().add(word).write_volatile(from.cast::<u64>().add(word).read_volatile()) };
        word += 1;
    }
}
