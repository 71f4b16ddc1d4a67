//! tc egress on an uplink.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::bpf_skb_load_bytes;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use caregate_ebpf_common::frame::{Address, parse};
use caregate_ebpf_common::judge::{Output, Treatment};
use caregate_ebpf_common::map::{PACKET_BYTES_MAX, PacketIn};
use caregate_ebpf_common::{Verdict, judge};

use crate::maps::{self, Seen};
use crate::switch::Work;
use crate::{KernelFrame, switch};

/// As far as headers go: Ethernet, a tag, IPv4 with all its options, TCP without.
const HEADER_BYTES: u32 = 14 + 4 + 60 + 20;
/// `VLAN_VID_MASK`
const VID_MASK: u32 = 0x0fff;
/// `OFPVID_PRESENT`
const VID_PRESENT: u16 = 0x1000;

/// Judges a frame that is about to leave: it goes on, perhaps marked, or nowhere.
#[classifier]
pub fn uplink(context: TcContext) -> i32 {
    let skb: *mut __sk_buff = context.skb.skb;
    let bytes = u64::from(context.len());
    // SAFETY: the kernel's own context; the verifier checks which fields are read.
    let (interface, came_in_by) = unsafe { ((*skb).ifindex, (*skb).ingress_ifindex) };
    let number = maps::port(interface).map_or(0, |port| port.number);
    if came_in_by != 0 {
        return forwarded(number, came_in_by, bytes);
    }
    // The headers lie in one piece then; where that fails the parser finds them cut off.
    let length = if context.len() < HEADER_BYTES { context.len() } else { HEADER_BYTES };
    if context.data() + HEADER_BYTES as usize > context.data_end() && context.skb.pull_data(length).is_err() {
        maps::count_verdict(number, Verdict::Sent, bytes);
        return TC_ACT_UNSPEC;
    }
    let (start, end) = (context.data(), context.data_end());
    let frame = KernelFrame { start, end, bytes: core::hint::black_box(context.len() as usize) };
    let mut headers = parse(&frame);
    // SAFETY: as above. A tag that the driver is to insert is not in the frame yet.
    let (has_tag, tag) = unsafe { ((*skb).vlan_present, (*skb).vlan_tci) };
    if has_tag != 0 && headers.vlan_vid == 0 {
        headers.vlan_vid = (tag & VID_MASK) as u16 | VID_PRESENT;
    }
    maps::count_kind(number, headers.kind, bytes);
    if is_own(skb) {
        // SAFETY: as above.
        return send(number, unsafe { (*skb).priority }, skb, bytes);
    }
    maps::see(&headers);
    switch::depart(&context, &frame, (has_tag != 0).then_some(tag as u16), number, bytes);
    maps::count_verdict(number, Verdict::Sent, bytes);
    switch::count_queue(number, 0, bytes);
    TC_ACT_UNSPEC
}

/// Whether it is a frame of the controller's, which the helper sends: no table is to see it.
#[inline(always)]
fn is_own(skb: *const __sk_buff) -> bool {
    // SAFETY: the kernel's own context; the verifier checks which fields are read.
    let mark = unsafe { (*skb).mark };
    mark != 0 && u64::from(mark) == switch::own_mark()
}

/// Sends a frame of the controller's by the queue that its priority says.
#[inline(always)]
fn send(number: u32, queue: u32, skb: *mut __sk_buff, bytes: u64) -> i32 {
    // SAFETY: the kernel's own context; the verifier checks which fields are written.
    unsafe {
        (*skb).mark = 0;
        (*skb).queue_mapping = queue;
    }
    maps::count_verdict(number, Verdict::Sent, bytes);
    switch::count_queue(number, queue, bytes);
    TC_ACT_UNSPEC
}

/// Nothing of a sensor goes out here, whatever the gateway's routing says; what is of others is not this table's.
#[inline(always)]
fn forwarded(number: u32, came_in_by: u32, bytes: u64) -> i32 {
    let is_sensors = maps::port(came_in_by).is_some_and(|port| port.is_sensor);
    let verdict = if is_sensors { Verdict::SensorForwarded } else { Verdict::Forwarded };
    maps::count_verdict(number, verdict, bytes);
    if is_sensors { TC_ACT_SHOT } else { TC_ACT_UNSPEC }
}

/// What a frame's rules made of it.
#[inline(always)]
pub(crate) fn leave(context: &TcContext, work: &Work) -> i32 {
    let (number, bytes) = (work.uplink, work.bytes);
    let Some(seen) = maps::seen() else { return TC_ACT_SHOT };
    let treatment = (work.met != 0).then(|| treatment(work));
    let fate = judge::egress(seen.dscp as u8, treatment, || seen.is_link_upkeep != 0 || is_floor(seen));
    let mut verdict = fate.verdict;
    let copy = match treatment {
        // It may be sent and shown.
        Some(Treatment { output: Output::Normal, max_len, .. }) if max_len != 0 => Some(max_len),
        _ => fate.copy,
    };
    if let Some(max_len) = copy
        && !show(context, number, work.rule, max_len)
        && !verdict.passes()
    {
        verdict = Verdict::ToControllerLost;
    }
    maps::count_verdict(number, verdict, bytes);
    if !verdict.passes() {
        return TC_ACT_SHOT;
    }
    switch::count_queue(number, fate.queue.map_or(0, u32::from), bytes);
    if let Some(queue) = fate.queue {
        let skb: *mut __sk_buff = context.skb.skb;
        // SAFETY: the kernel's own context; the verifier checks which fields are written.
        unsafe {
            (*skb).priority = u32::from(queue);
            (*skb).queue_mapping = u32::from(queue);
        }
    }
    if let Some(dscp) = fate.dscp {
        mark(context, seen.network_at as usize, dscp);
    }
    TC_ACT_UNSPEC
}

/// What was applied, and then what the action set says.
#[inline(always)]
fn treatment(work: &Work) -> Treatment {
    let [applied, written] = &work.departure;
    let last = |written: u32, applied: u32| if written != 0 { written } else { applied };
    let dscp = last(written.dscp, applied.dscp);
    let queue = last(written.queue, applied.queue);
    let copy = last(written.copy, applied.copy);
    let output = if applied.is_sent | written.is_sent != 0 {
        Output::Normal
    } else if copy != 0 {
        Output::Controller
    } else {
        Output::Drop
    };
    Treatment {
        output,
        dscp: (dscp != 0).then_some((dscp - 1) as u8),
        queue: (queue != 0).then_some((queue - 1) as u16),
        max_len: copy.saturating_sub(1) as u16,
    }
}

#[inline(always)]
fn is_floor(seen: &Seen) -> bool {
    let address = Address { high: seen.address_high, low: seen.address_low };
    seen.family != 0 && maps::is_floor(seen.protocol as u8, seen.family == 6, address, seen.port as u16)
}

/// Writes six bits of the traffic class, and IPv4's checksum with it (RFC 2474, RFC 1624). Where the kernel can't, the frame goes
/// as it is: a wrong mark costs less than a lost reading.
#[inline(always)]
fn mark(context: &TcContext, at: usize, dscp: u8) {
    let Ok(old) = context.load::<u16>(at) else { return };
    let word = u16::from_be(old);
    if word >> 12 == 4 {
        let new = (word & 0xff03 | u16::from(dscp) << 2).to_be();
        if context.l3_csum_replace(at + 10, u64::from(old), u64::from(new), 2).is_ok() {
            let _ = context.store(at, &new, 0);
        }
    } else if word >> 12 == 6 {
        let new = (word & 0xf03f | u16::from(dscp) << 6).to_be();
        let _ = context.store(at, &new, 0);
    }
}

/// Puts a frame's first bytes into the ring. False where the meter or the ring is at its end.
#[inline(always)]
fn show(context: &TcContext, number: u32, rule: u64, max_len: u16) -> bool {
    if !maps::take_packet_in() {
        return false;
    }
    let Some(mut entry) = maps::PACKETS.reserve::<PacketIn>(0) else { return false };
    let total_len = context.len();
    let mut len = u32::from(max_len);
    if len > total_len {
        len = total_len;
    }
    if len > PACKET_BYTES_MAX as u32 {
        len = PACKET_BYTES_MAX as u32;
    }
    // The compiler must not know that it may be replaced by what it was compared with: the verifier follows this register. Before
    // 6.3 it learns nothing from a comparison with 0, so what is compared, and read, is one less than the length.
    let last = core::hint::black_box(len.wrapping_sub(1));
    let packet = entry.as_mut_ptr();
    // SAFETY: the entry is as long as a `PacketIn`, and at most so many bytes are read into it.
    let read = unsafe {
        (*packet).rule = rule;
        (*packet).uplink = number;
        (*packet).total_len = total_len;
        (*packet).len = len;
        (*packet).padding = 0;
        if last >= PACKET_BYTES_MAX as u32 {
            0
        } else {
            bpf_skb_load_bytes(context.as_ptr(), 0, (&raw mut (*packet).frame).cast(), last + 1)
        }
    };
    if read < 0 {
        entry.discard(0);
        return false;
    }
    entry.submit(0);
    true
}
