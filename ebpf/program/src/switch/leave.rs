//! A frame's way out: to a port, to the gateway's stack, to the slow path, or nowhere.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use caregate_ebpf_common::Verdict;
use caregate_ebpf_common::switch::blob::Blob;
use caregate_ebpf_common::switch::edit::{BUFFER_BYTES, FRAME_BYTES_MIN, ROOM_BYTES};
use caregate_ebpf_common::switch::map::{PUNT_BYTES_MAX, Punt};
use caregate_ebpf_common::switch::op::port;
use caregate_ebpf_common::switch::record::{NO_TABLE, RULE_APPLY, RULE_METER, RULE_ONLY_OUTPUT, RULE_WRITE};

use super::maps::{DEVICES_OUT, PUNTS, rule_word};
use super::work::{INGRESS, Work, role};
use crate::maps;

/// Writes the headers back and sends the frame.
#[xdp]
#[inline(always)]
pub fn leave(context: XdpContext) -> u32 {
    let Some(work) = Work::get(INGRESS) else { return xdp_action::XDP_DROP };
    if work.role == role::SENSOR {
        return narrow(work);
    }
    // XDP goes past queues; what asks for one takes the way that has them.
    if work.queue != 0 && work.output < port::MAX {
        work.punt();
    }
    if work.is_punted != 0
        || work.output != port::ANY
            && work.headers.changed_to != 0
            && !(pad(&context, work) && put_back(&context, work))
    {
        return punt(&context, work);
    }
    if work.output == port::ANY {
        maps::count_verdict_number(work.in_port, work.verdict, work.bytes);
        return xdp_action::XDP_DROP;
    }
    send(work.in_port, work.output, work.bytes)
}

/// A sensor's frame goes to the gateway as it came, or nowhere, whatever its rules say.
#[inline(always)]
fn narrow(work: &Work) -> u32 {
    let passes = work.is_punted == 0 && (work.output == port::LOCAL || work.output == port::NORMAL);
    let verdict = if passes { Verdict::Admitted } else { Verdict::Rule };
    maps::count_verdict(work.in_port, verdict, work.bytes);
    maps::count_device(work.device, passes, work.bytes);
    if passes { xdp_action::XDP_PASS } else { xdp_action::XDP_DROP }
}

/// Whether XDP can send there: others ask for several copies, or for the controller's.
#[inline(always)]
pub(crate) fn is_one_place(to: u32) -> bool {
    to < port::MAX || to == port::IN_PORT || to == port::LOCAL || to == port::NORMAL
}

/// Where a rule sends a frame, where it says nothing else; `OFPP_ANY` for nowhere.
#[inline(always)]
pub(crate) fn only_way(blob: &Blob, place: usize, head: u64) -> Option<u32> {
    if head >> 48 & 0xff != u64::from(NO_TABLE) {
        return None;
    }
    let meter = rule_word(blob, place, RULE_METER);
    if head >> 32 & u64::from(RULE_ONLY_OUTPUT) != 0 {
        let to = (meter >> 32) as u32;
        return is_one_place(to).then_some(to);
    }
    let lists = rule_word(blob, place, RULE_APPLY) | rule_word(blob, place, RULE_WRITE);
    (lists == 0 && meter as u32 == 0).then_some(port::ANY)
}

/// Sends a frame to one place.
#[inline(always)]
pub(crate) fn send(in_port: u32, to: u32, bytes: u64) -> u32 {
    let (verdict, action) = if to == in_port {
        (Verdict::SwitchDropped, xdp_action::XDP_DROP)
    } else if to < port::MAX {
        match DEVICES_OUT.redirect(to, xdp_action::XDP_DROP as u64) {
            Ok(action) => (Verdict::Redirected, action),
            Err(action) => (Verdict::SwitchDropped, action),
        }
    } else if to == port::IN_PORT {
        (Verdict::Redirected, xdp_action::XDP_TX)
    } else if to == port::LOCAL || to == port::NORMAL {
        (Verdict::Delivered, xdp_action::XDP_PASS)
    } else {
        (Verdict::SwitchDropped, xdp_action::XDP_DROP)
    };
    maps::count_verdict(in_port, verdict, bytes);
    action
}

/// Makes room at the end of a frame that becomes too short for Ethernet, by zeroes; the gateway's stack wants none. False where there
/// is no room; the frame is as it was.
#[inline(always)]
fn pad(context: &XdpContext, work: &Work) -> bool {
    let start = work.headers.start;
    if start <= ROOM_BYTES as u32 || work.output == port::LOCAL || work.output == port::NORMAL {
        return true;
    }
    let bytes = work.bytes as u32 - (start - ROOM_BYTES as u32);
    if bytes >= FRAME_BYTES_MIN {
        return true;
    }
    // SAFETY: the kernel's own context; the frame's pointers are read again where they are used.
    unsafe { bpf_xdp_adjust_tail(context.ctx, (FRAME_BYTES_MIN - bytes) as i32) == 0 }
}

/// Writes the headers into the frame, which grows or shrinks at its front. False where there is no room; the frame is as it was.
#[inline(always)]
fn put_back(context: &XdpContext, work: &Work) -> bool {
    let headers = &work.headers;
    let from = headers.start;
    let by = from as i32 - ROOM_BYTES as i32;
    // SAFETY: the kernel's own context; the frame's pointers are read again below.
    if by != 0 && unsafe { bpf_xdp_adjust_head(context.ctx, by) } != 0 {
        return false;
    }
    let (start, end) = (context.data(), context.data_end());
    let one = crate::one();
    let count = core::hint::black_box(headers.changed_to.wrapping_sub(from)) as usize;
    let mut at = 0;
    while at < BUFFER_BYTES {
        let place = start + at;
        if at >= count || place + one > end {
            break;
        }
        let byte = headers.buffer.0[(from as usize + at) % BUFFER_BYTES];
        // SAFETY: the byte lies within the frame, as the verifier sees above.
        unsafe { (place as *mut u8).write(byte) };
        at += 1;
    }
    true
}

/// Hands a frame to the slow path as it came. The copy that the gateway's stack is to have goes there from here, whether the slow
/// path has room or not; whether that worked the ring isn't told, since its entry can't be held so long on 5.10, and drivers leave
/// more room in front (`XDP_PACKET_HEADROOM`) than tags take.
#[inline(always)]
fn punt(context: &XdpContext, work: &mut Work) -> u32 {
    let is_handed = work.take_noted();
    let work = core::hint::black_box(work);
    let is_kept = show(context, work, is_handed);
    let verdict = if is_kept { Verdict::Punted } else { Verdict::PuntLost };
    maps::count_verdict(work.in_port, verdict, work.bytes);
    if is_handed && (work.headers.changed_to == 0 || put_back(context, work)) {
        xdp_action::XDP_PASS
    } else {
        xdp_action::XDP_DROP
    }
}

/// Copies a frame into the ring. False where there is no room.
#[inline(always)]
fn show(context: &XdpContext, work: &Work, is_handed: bool) -> bool {
    let Some(mut entry) = PUNTS.reserve::<Punt>(0) else { return false };
    let (start, end) = (context.data(), context.data_end());
    let to = entry.as_mut_ptr();
    // SAFETY: the entry is as long as a `Punt`.
    let frame = unsafe {
        (*to).in_port = work.in_port;
        (*to).before = work.before;
        (*to).total_len = work.bytes as u32;
        (*to).remarks = work.remarks;
        (*to).is_handed = u32::from(is_handed);
        (&raw mut (*to).frame).cast::<u8>()
    };
    let mut at = 0;
    while at < PUNT_BYTES_MAX {
        let place = start + at;
        if place + 8 > end {
            break;
        }
        // SAFETY: the eight bytes lie within the frame, as the verifier sees above, and within the entry.
        unsafe { frame.add(at).cast::<u64>().write((place as *const u64).read_unaligned()) };
        at += 8;
    }
    let one = crate::one();
    let mut rest = 0;
    while rest < 8 && at < PUNT_BYTES_MAX {
        let place = start + at;
        if place + one > end {
            break;
        }
        // SAFETY: as above.
        unsafe { frame.add(at).write(*(place as *const u8)) };
        at += 1;
        rest += 1;
    }
    // SAFETY: as above.
    unsafe { (*to).len = at as u32 };
    entry.submit(0);
    true
}
