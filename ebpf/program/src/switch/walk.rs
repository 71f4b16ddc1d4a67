//! One table: the rule that a frame meets there, and the rule's instructions (OpenFlow 1.3.5 §5.9).

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use caregate_ebpf_common::Verdict;
use caregate_ebpf_common::switch::blob::{Blob, Lookup, OPS_AT, OPS_MAX};
use caregate_ebpf_common::switch::op::{OP_WORDS, port};
use caregate_ebpf_common::switch::record::{
    RULE_APPLY, RULE_CLEAR, RULE_HEAD, RULE_METADATA, RULE_METADATA_MASK, RULE_METER, RULE_WRITE, remark_of,
};
use caregate_ebpf_common::switch::stage;

use super::leave::{only_way, send};
use super::maps::{self, Cache, Metered, STAGES};
use super::work::{INGRESS, NO_TABLE, NOT_ASKED, SET_PLACES, Work, mode, role};

/// Actions of a list, at most (`protocol::datapath::switch::ACTIONS_MAX`).
pub(crate) const ACTIONS_MAX: usize = 32;

/// Looks a frame up in its next table.
#[xdp]
#[inline(always)]
pub fn walk(context: XdpContext) -> u32 {
    let Some(work) = Work::get(INGRESS) else { return xdp_action::XDP_DROP };
    let next = match one_table(work) {
        Some(Next::Stage(next)) => next,
        Some(Next::Action(action)) => return action,
        None => stage::LEAVE,
    };
    // SAFETY: nothing is to be dropped.
    unsafe { STAGES.tail_call(&context, next) };
    crate::maps::count_verdict(work.in_port, Verdict::SwitchDropped, work.bytes);
    xdp_action::XDP_DROP
}

/// What comes next.
enum Next {
    Stage(u32),
    /// The frame's way ends here.
    Action(u32),
}

#[inline(always)]
fn one_table(work: &mut Work) -> Option<Next> {
    let blob = maps::blob(work.epoch)?;
    let place = match look_up(work, blob) {
        // What follows is the same to the verifier whichever rule it is.
        Lookup::Rule(place) => core::hint::black_box(place),
        Lookup::Miss => return Some(Next::Stage(missed(work))),
        Lookup::Long => {
            // Too many rules are alike; the slow path has the time, and meets all tables.
            work.punt();
            return Some(Next::Stage(stage::LEAVE));
        }
    };
    if work.met == 1 && work.role == role::SWITCH {
        // In its first table nothing is to be done yet but what the rule says.
        let head = maps::rule_word(blob, place, RULE_HEAD);
        if let Some(to) = only_way(blob, place, head) {
            maps::count_flow(head as u32, work.bytes);
            return Some(Next::Action(send(work.in_port, to, work.bytes)));
        }
    }
    Some(Next::Stage(instructions(work, blob, place)))
}

/// What the frame's table says to its key, counted.
#[inline(always)]
pub(crate) fn look_up(work: &mut Work, blob: &Blob) -> Lookup {
    let found = if work.cache_at == NOT_ASKED { maps::cached(work) } else { Cache::Unknown };
    let found = match found {
        Cache::Rule(place) => Lookup::Rule(place),
        Cache::Miss => Lookup::Miss,
        Cache::Unknown => maps::find(work, blob),
    };
    match found {
        Lookup::Rule(place) => {
            maps::remember(work, Some(place));
            maps::count_table(work.table, true);
            work.met += 1;
        }
        Lookup::Miss => {
            maps::remember(work, None);
            maps::count_table(work.table, false);
        }
        Lookup::Long => work.cache_at = NOT_ASKED,
    }
    found
}

/// Without a rule for it a frame is dropped (§5.4); what was applied before is done all the same. On sensor ports rules only take
/// away: what none of the first table is about passes.
#[inline(always)]
fn missed(work: &mut Work) -> u32 {
    if work.role == role::SENSOR && work.met == 0 {
        work.output = port::LOCAL;
        return stage::LEAVE;
    }
    work.verdict = Verdict::TableMiss as u32;
    work.table = NO_TABLE;
    work.set_bits = 0;
    end(work)
}

/// What is done when no table is left.
#[inline(always)]
pub(crate) fn end(work: &mut Work) -> u32 {
    if work.set_bits != 0 {
        work.mode = mode::SET;
        work.done = 0;
        return stage::ACT;
    }
    // A punted frame's group is counted, too, and may have a bucket for the stack.
    if work.group != 0 && work.is_unfit == 0 { stage::CHOOSE } else { stage::LEAVE }
}

#[inline(always)]
fn instructions(work: &mut Work, blob: &Blob, place: usize) -> u32 {
    let head = maps::rule_word(blob, place, RULE_HEAD);
    maps::count_flow(head as u32, work.bytes);
    let meter = maps::rule_word(blob, place, RULE_METER) as u32;
    if meter != 0 {
        match maps::meter(blob, meter - 1, work.bytes) {
            Metered::Passes => {}
            Metered::Drop => {
                work.verdict = Verdict::Metered as u32;
                // What was sent before stays sent; the slow path ends here too.
                work.before = work.table;
                work.table = NO_TABLE;
                work.set_bits = 0;
                return end(work);
            }
            Metered::Remark(steps) => {
                work.remark = u32::from(steps) + 1;
                work.remarks |= remark_of(work.table, u32::from(steps));
            }
        }
    }
    let flags = (head >> 32) as u16;
    if flags & RULE_CLEAR != 0 {
        work.set_bits = 0;
    }
    write(work, blob, maps::rule_word(blob, place, RULE_WRITE));
    let mask = maps::rule_word(blob, place, RULE_METADATA_MASK);
    work.parsed.key[1] = work.parsed.key[1] & !mask | maps::rule_word(blob, place, RULE_METADATA);
    work.table = (head >> 48) as u32 & 0xff;
    work.list = maps::rule_word(blob, place, RULE_APPLY);
    if work.list >> 32 & 0xffff != 0 || work.remark != 0 {
        work.mode = mode::APPLY;
        work.done = 0;
        return stage::ACT;
    }
    if work.table == NO_TABLE { end(work) } else { stage::WALK }
}

/// Puts a list's actions into the set; one of the same kind goes.
#[inline(always)]
fn write(work: &mut Work, blob: &Blob, list: u64) {
    let (first, count) = (list as u32 as usize, list >> 32 & 0xffff);
    let mut number = 0;
    while number < ACTIONS_MAX {
        if number as u64 >= count {
            break;
        }
        let place = first + number & OPS_MAX - 1;
        let slot = (blob[OPS_AT + place * OP_WORDS] >> 56) as usize % SET_PLACES;
        work.set[slot] = place as u32;
        work.set_bits |= 1 << slot;
        number += 1;
    }
}
