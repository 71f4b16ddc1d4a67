//! A list of actions, or the action set (OpenFlow 1.3.5 §5.10 to §5.12), on a copy of the headers.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use caregate_ebpf_common::Verdict;
use caregate_ebpf_common::switch::blob::{Blob, GROUP_PLACES, OPS_AT, OPS_MAX};
use caregate_ebpf_common::switch::edit::{COPY_BYTES, Edited, ROOM_BYTES};
use caregate_ebpf_common::switch::op::{OP_WORDS, Op, code, port, slot};
use caregate_ebpf_common::switch::parse::parse;
use caregate_ebpf_common::switch::stage;

use super::leave::is_one_place;
use super::maps::{self, STAGES};
use super::walk::end;
use super::work::{INGRESS, NO_TABLE, SET_PLACES, Work, local, mode};

/// How often one frame's headers are parsed again within a list: 33 tail calls are the kernel's limit, and this leaves what eight
/// tables, set and group take.
const PARSED_AGAIN_MAX: u32 = 8;
/// Actions that one program does: what a verifier takes. A list has as many, a set takes two.
const ACTIONS_AT_ONCE: usize = 32;
/// A group that sends to a group that sends to a group: so many are followed.
pub(crate) const GROUPS_MAX: u32 = 4;

/// Does the actions at hand.
#[xdp]
#[inline(always)]
pub fn act(context: XdpContext) -> u32 {
    let Some(work) = Work::get(INGRESS) else { return xdp_action::XDP_DROP };
    if work.is_copied == 0 {
        copy(&context, work);
    }
    let work = core::hint::black_box(work);
    let next = match maps::blob(work.epoch) {
        Some(blob) => go_on(work, blob),
        None => stage::LEAVE,
    };
    // SAFETY: nothing is to be dropped.
    unsafe { STAGES.tail_call(&context, next) };
    crate::maps::count_verdict(work.in_port, Verdict::SwitchDropped, work.bytes);
    xdp_action::XDP_DROP
}

/// Copies the frame's first bytes.
#[inline(always)]
fn copy(context: &XdpContext, work: &mut Work) {
    let (start, end) = (context.data(), context.data_end());
    let buffer = (&raw mut work.headers.buffer).cast::<u8>();
    let mut at = 0;
    while at < COPY_BYTES {
        let place = start + at;
        if place + 8 > end {
            break;
        }
        // SAFETY: the eight bytes lie within the frame, as the verifier sees above, and within the buffer.
        unsafe { buffer.add(ROOM_BYTES + at).cast::<u64>().write((place as *const u64).read_unaligned()) };
        at += 8;
    }
    let one = crate::one();
    let mut rest = 0;
    while rest < 8 && at < COPY_BYTES {
        let place = start + at;
        if place + one > end {
            break;
        }
        // SAFETY: as above.
        unsafe { buffer.add(ROOM_BYTES + at).write(*(place as *const u8)) };
        at += 1;
        rest += 1;
    }
    work.headers.start = ROOM_BYTES as u32;
    work.headers.len = at as u32;
    work.headers.changed_to = 0;
    work.headers.is_stale = 0;
    work.headers.layers = work.parsed.layers;
    work.is_copied = 1;
}

/// How far a list has come.
#[derive(PartialEq, Eq)]
enum Done {
    /// To its end.
    All,
    /// Headers have to be parsed before the next action.
    Parse,
    /// There is more than is done at once, or something to be done in between.
    More,
}

/// What is to be done next.
enum Step {
    /// The next action.
    Next,
    /// The headers are to be parsed first.
    Parse,
    /// They are to be kept first.
    Keep,
    /// The frame's way ends.
    Stop,
}

#[inline(always)]
fn go_on(work: &mut Work, blob: &Blob) -> u32 {
    if work.remark != 0 {
        edits(work);
    }
    // Here and not where an action is done: there it would be once for each to a verifier.
    if work.local == local::WANTED {
        work.keep();
    }
    if work.remark != 0 {
        let _ = work.headers.remark((work.remark - 1) as u8);
        work.remark = 0;
        work.is_edited = 1;
    }
    let done = each(work, blob);
    if done == Done::More {
        return stage::ACT;
    }
    if work.is_edited != 0 {
        parse(&work.headers, &mut work.parsed);
        work.headers.layers = work.parsed.layers;
        work.headers.is_stale = 0;
        work.is_edited = 0;
    }
    if done == Done::Parse {
        work.parsed_again += 1;
        if work.parsed_again > PARSED_AGAIN_MAX {
            work.punt();
            return stage::LEAVE;
        }
        return stage::ACT;
    }
    if work.mode == mode::APPLY {
        return if work.table == NO_TABLE { end(work) } else { stage::WALK };
    }
    work.set_bits = 0;
    end(work)
}

/// Actions in their order.
#[inline(always)]
fn each(work: &mut Work, blob: &Blob) -> Done {
    let (first, count) = (work.list as u32 as usize, work.list >> 32 & 0xffff);
    let is_set = work.mode == mode::SET;
    let begun = work.done as usize % SET_PLACES;
    let mut number = 0;
    while number < ACTIONS_AT_ONCE {
        let at = begun + number;
        number += 1;
        let place = if is_set {
            if at >= SET_PLACES {
                return Done::All;
            }
            if work.set_bits >> at & 1 == 0 {
                continue;
            }
            work.set[at] as usize
        } else {
            if at as u64 >= count {
                return Done::All;
            }
            first + at
        };
        let words = OPS_AT + (place & OPS_MAX - 1) * OP_WORDS;
        let op = Op([blob[words], blob[words + 1], blob[words + 2], blob[words + 3]]);
        match one(work, &op) {
            Step::Next => {}
            Step::Parse => {
                work.done = at as u32;
                return Done::Parse;
            }
            Step::Keep => {
                work.done = at as u32;
                return Done::More;
            }
            Step::Stop => return Done::All,
        }
    }
    work.done = (begun + ACTIONS_AT_ONCE) as u32;
    if work.done as usize >= SET_PLACES { Done::All } else { Done::More }
}

#[inline(always)]
fn one(work: &mut Work, op: &Op) -> Step {
    let code = op.code();
    if code == code::NOTHING {
        return Step::Next;
    }
    if code == code::OUTPUT {
        // A set's group comes before, and takes its output's place (§5.10).
        if work.mode != mode::SET || work.set_bits >> slot::GROUP & 1 == 0 {
            output(work, op.argument());
        }
        return Step::Next;
    }
    if code == code::GROUP {
        if work.output != port::ANY || work.group != 0 {
            work.punt();
        }
        if work.group == 0 && (op.argument() as usize) < GROUP_PLACES {
            work.group = op.argument() + 1;
        }
        return Step::Next;
    }
    if code == code::SET_QUEUE {
        work.queue = op.argument();
        return Step::Next;
    }
    if code == code::SET_TUNNEL {
        work.parsed.key[13] = op.0[3];
        return Step::Next;
    }
    edits(work);
    if work.local == local::WANTED {
        return Step::Keep;
    }
    match work.headers.edit(op) {
        Edited::Done => work.is_edited = 1,
        Edited::Stale => {
            work.is_edited = 1;
            return Step::Parse;
        }
        Edited::Beyond => {
            work.is_edited = 1;
            work.is_unfit = 1;
            work.punt();
        }
        Edited::InvalidTtl => {
            // The controller may want to see it (§5.12.1).
            work.punt();
            work.table = NO_TABLE;
            work.set_bits = 0;
            work.is_edited = 0;
            return Step::Stop;
        }
    }
    Step::Next
}

/// The headers are about to be edited: what was to be sent is sent as it was until now.
#[inline(always)]
fn edits(work: &mut Work) {
    if work.output != port::ANY || work.group != 0 {
        work.punt();
    }
    if work.group != 0 {
        work.is_unfit = 1;
    }
    if work.local == local::NOTED {
        work.local = local::WANTED;
    }
}

/// Notes where the frame goes, where that is one place.
#[inline(always)]
fn output(work: &mut Work, to: u32) {
    if to == port::LOCAL || to == port::NORMAL {
        work.note();
    }
    // Back to where it came from is for `IN_PORT` alone (§5.12).
    if to == work.in_port || to == port::ANY {
        return;
    }
    if !is_one_place(to) || work.output != port::ANY || work.group != 0 {
        work.punt();
    } else {
        work.output = to;
    }
}
