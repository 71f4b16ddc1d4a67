//! A group's bucket (OpenFlow 1.3.5 §5.6).

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use caregate_ebpf_common::Verdict;
use caregate_ebpf_common::switch::blob::{BUCKET_PLACES, BUCKETS_AT, Blob, GROUP_PLACES, GROUPS_AT};
use caregate_ebpf_common::switch::key::{KEY_WORDS, Key};
use caregate_ebpf_common::switch::map as layout;
use caregate_ebpf_common::switch::record::{
    BUCKET_BELOW, BUCKET_LIST, BUCKET_WATCH, BUCKET_WORDS, GROUP_ALL, GROUP_FAST_FAILOVER, GROUP_SELECT,
    GROUP_WORDS,
};
use caregate_ebpf_common::switch::stage;

use super::act::GROUPS_MAX;
use super::maps::{self, STAGES};
use super::work::{INGRESS, Work, mode};

/// Buckets of a group (`protocol::datapath::switch::BUCKETS_MAX`).
const BUCKETS_MAX: usize = 32;

/// No bucket.
const NONE: u32 = u32::MAX;

/// Finds the bucket that a frame takes.
#[xdp]
#[inline(always)]
pub fn choose(context: XdpContext) -> u32 {
    let Some(work) = Work::get(INGRESS) else { return xdp_action::XDP_DROP };
    let next = match maps::blob(work.epoch) {
        Some(blob) => bucket(work, blob),
        None => stage::LEAVE,
    };
    // SAFETY: nothing is to be dropped.
    unsafe { STAGES.tail_call(&context, next) };
    crate::maps::count_verdict(work.in_port, Verdict::SwitchDropped, work.bytes);
    xdp_action::XDP_DROP
}

#[inline(always)]
fn bucket(work: &mut Work, blob: &Blob) -> u32 {
    let group = work.group.wrapping_sub(1);
    work.group = 0;
    work.groups += 1;
    if work.groups > GROUPS_MAX {
        return stage::LEAVE;
    }
    maps::count_group(group, work.bytes);
    let words = blob[GROUPS_AT + (group as usize & GROUP_PLACES - 1) * GROUP_WORDS];
    let (kind, count, first) = (words as u8, words >> 8 & 0xff, (words >> 16 & 0xffff) as usize);
    if kind == GROUP_ALL && count > 1 {
        count_all(first, count, work.bytes);
        work.punt();
        // Of these the stack's copy alone is made here.
        let to_stack = words >> 32 & 0xffff;
        return if to_stack == 0 { stage::LEAVE } else { take(work, blob, to_stack as usize - 1) };
    }
    work.wanted = u64::from(spread(&work.parsed.key));
    work.bucket = NONE;
    pick(core::hint::black_box(work), blob, kind, first, count);
    // Which one it is the verifier is not to follow.
    let work = core::hint::black_box(work);
    if work.bucket == NONE {
        return stage::LEAVE;
    }
    maps::count_bucket(work.bucket, work.bytes);
    let place = work.bucket as usize;
    take(work, blob, place)
}

/// Has a bucket's actions done.
#[inline(always)]
fn take(work: &mut Work, blob: &Blob, place: usize) -> u32 {
    work.list = blob[BUCKETS_AT + (place & BUCKET_PLACES - 1) * BUCKET_WORDS + BUCKET_LIST];
    work.mode = mode::BUCKET;
    work.done = 0;
    stage::ACT
}

#[inline(always)]
fn count_all(first: usize, count: u64, bytes: u64) {
    let mut number = 0;
    while number < BUCKETS_MAX {
        if number as u64 >= count {
            break;
        }
        maps::count_bucket((first + number) as u32, bytes);
        number += 1;
    }
}

/// The first live bucket of those that may be taken: of a select group the one whose share the hash falls in, or, where that is
/// dead, the next one that is not, around the end.
#[inline(always)]
fn pick(work: &mut Work, blob: &Blob, kind: u8, first: usize, count: u64) {
    let live = maps::state(layout::STATE_LIVE);
    let asks_for_life = kind == GROUP_SELECT || kind == GROUP_FAST_FAILOVER;
    let mut number = 0;
    while number < BUCKETS_MAX {
        if number as u64 >= count {
            return;
        }
        let place = first + number;
        let at = BUCKETS_AT + (place & BUCKET_PLACES - 1) * BUCKET_WORDS;
        let (watch, below) = (blob[at + BUCKET_WATCH], blob[at + BUCKET_BELOW]);
        let is_taken = kind != GROUP_SELECT || work.wanted < below;
        if !asks_for_life || watch == u64::MAX || watch & live != 0 {
            if is_taken || work.bucket == NONE {
                work.bucket = place as u32;
            }
            if is_taken {
                return;
            }
        }
        number += 1;
    }
}

/// A hash of the headers, the same on all processors and in all lives of the gateway: what belongs together takes one way.
#[inline(always)]
fn spread(key: &Key) -> u32 {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash: u64 = 0;
    let mut word = 0;
    while word < KEY_WORDS {
        // Metadata and tunnel are no part of the frame.
        if word != 1 && word != 13 {
            hash = (hash ^ key[word]).wrapping_mul(MULTIPLIER);
            hash ^= hash >> 32;
        }
        word += 1;
    }
    (hash.wrapping_mul(MULTIPLIER) >> 32) as u32
}
