//! The gateway's own frames on their way out (`LOCAL`): of a rule's actions, a mark, a queue and where to count; others do nothing,
//! since tc has the frame with checksums that are not computed yet.

use aya_ebpf::bindings::TC_ACT_SHOT;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use caregate_ebpf_common::Verdict;
use caregate_ebpf_common::frame::Frame;
use caregate_ebpf_common::switch::blob::{Blob, Lookup, OPS_AT, OPS_MAX, RULE_ID};
use caregate_ebpf_common::switch::map as layout;
use caregate_ebpf_common::switch::op::{OP_WORDS, code, port, slot};
use caregate_ebpf_common::switch::parse::parse;
use caregate_ebpf_common::switch::record::{
    RULE_APPLY, RULE_CLEAR, RULE_HEAD, RULE_METADATA, RULE_METADATA_MASK, RULE_METER, RULE_WRITE,
};

use super::maps::{DEPARTURES, Metered, blob, count_flow, has_rules, meter, rule_word, state};
use super::walk::{ACTIONS_MAX, look_up};
use super::work::{Departure, EGRESS, NO_TABLE, Work};
use crate::maps;
use crate::uplink::leave;

/// What a set-field of `ip_dscp` says.
const SET_DSCP: u8 = slot::SET_FIELD + 8;
/// What was applied, in [`Work::departure`].
const APPLIED: usize = 0;
/// What is to be done at the end.
const WRITTEN: usize = 1;

/// Has a frame of the gateway's meet the tables; returns where there are no rules.
#[inline(always)]
pub(crate) fn begin<F: Frame>(context: &TcContext, frame: &F, tag: Option<u16>, uplink: u32, bytes: u64) {
    let tables = state(layout::STATE_TABLES);
    if !has_rules(tables) {
        return;
    }
    let Some(work) = Work::get(EGRESS) else { return };
    work.begin(port::LOCAL, bytes, tables);
    work.set_out();
    work.uplink = uplink;
    work.departure = [nothing(), nothing()];
    parse(frame, &mut work.parsed);
    if let Some(tag) = tag {
        // OFPVID_PRESENT, where the drop eligible bit is in the frame.
        work.parsed.key[0] = work.parsed.key[0] & !0xffff | u64::from(tag | 0x1000);
    }
    // SAFETY: nothing is to be dropped.
    unsafe { DEPARTURES.tail_call(context, 0) };
}

#[inline(always)]
fn nothing() -> Departure {
    let zero: u32 = core::hint::black_box(0);
    Departure { dscp: zero, queue: zero, is_sent: zero, copy: zero }
}

/// One table.
#[classifier]
#[inline(always)]
pub fn depart(context: TcContext) -> i32 {
    let Some(work) = Work::get(EGRESS) else { return TC_ACT_SHOT };
    let Some(blob) = blob(work.epoch) else { return TC_ACT_SHOT };
    let place = match look_up(work, blob) {
        Lookup::Rule(place) => core::hint::black_box(place),
        Lookup::Miss => {
            // Without a rule in the first table it goes as ever; in another one it is dropped (OpenFlow 1.3.5 §5.4).
            if work.met != 0 {
                work.departure[WRITTEN] = nothing();
            }
            return leave(&context, work);
        }
        Lookup::Long => {
            maps::count_verdict(work.uplink, Verdict::SendDropped, work.bytes);
            return TC_ACT_SHOT;
        }
    };
    work.rule = rule_word(blob, place, RULE_ID);
    if !instructions(work, blob, place) {
        maps::count_verdict(work.uplink, Verdict::Metered, work.bytes);
        return TC_ACT_SHOT;
    }
    if work.table != NO_TABLE {
        // SAFETY: nothing is to be dropped.
        unsafe { DEPARTURES.tail_call(&context, 0) };
    }
    leave(&context, work)
}

/// False where a meter drops the frame.
#[inline(always)]
fn instructions(work: &mut Work, blob: &Blob, place: usize) -> bool {
    let head = rule_word(blob, place, RULE_HEAD);
    count_flow(head as u32, work.bytes);
    let place_of_meter = rule_word(blob, place, RULE_METER) as u32;
    // What remarks is for switch ports.
    if place_of_meter != 0 && matches!(meter(blob, place_of_meter - 1, work.bytes), Metered::Drop) {
        return false;
    }
    list(work, blob, rule_word(blob, place, RULE_APPLY), APPLIED);
    if (head >> 32) as u16 & RULE_CLEAR != 0 {
        work.departure[WRITTEN] = nothing();
    }
    list(work, blob, rule_word(blob, place, RULE_WRITE), WRITTEN);
    let mask = rule_word(blob, place, RULE_METADATA_MASK);
    work.parsed.key[1] = work.parsed.key[1] & !mask | rule_word(blob, place, RULE_METADATA);
    work.table = (head >> 48) as u32 & 0xff;
    true
}

#[inline(always)]
fn list(work: &mut Work, blob: &Blob, list: u64, which: usize) {
    let (first, count) = (list as u32 as usize, list >> 32 & 0xffff);
    let mut number = 0;
    while number < ACTIONS_MAX {
        if number as u64 >= count {
            break;
        }
        let at = OPS_AT + (first + number & OPS_MAX - 1) * OP_WORDS;
        let (head, argument, value) = (blob[at], blob[at + 1], blob[at + 2]);
        let (code, slot) = (head as u8, (head >> 56) as u8);
        let to = &mut work.departure[which];
        if code == code::OUTPUT {
            let port = argument as u32;
            if port == port::CONTROLLER {
                to.copy = (argument >> 32) as u32 + 1;
            } else if port == port::NORMAL || port == work.uplink {
                to.is_sent = 1;
            }
        } else if code == code::SET_QUEUE {
            to.queue = argument as u32 + 1;
        } else if code == code::WRITE_CLASS && slot == SET_DSCP {
            let dscp = value >> 58;
            to.dscp = dscp as u32 + 1;
            if which == APPLIED {
                work.parsed.key[2] = work.parsed.key[2] & !0xfc | dscp << 2;
            }
        }
        number += 1;
    }
}
