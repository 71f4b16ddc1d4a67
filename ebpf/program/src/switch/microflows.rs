//! Where frames go that are alike in all that a match asks for: known before they are parsed (`caregate_ebpf_common::switch::microflow`).

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use caregate_ebpf_common::Counter;
use caregate_ebpf_common::switch::map as layout;
use caregate_ebpf_common::switch::map::AtOnce;
use caregate_ebpf_common::switch::microflow::{HEAD_BYTES, Microflow, fate, hash, microflow, way};
use caregate_ebpf_common::switch::op::port;

use super::maps::{DEVICES_OUT, count_flow};
use super::work::Work;
use crate::KernelFrame;

/// Where a microflow goes; a line of a processor's cache.
#[repr(C)]
struct Known {
    key: Microflow,
    /// What it was found in: [`layout::tables_word`].
    tables: u64,
    /// [`fate`]
    fate: u64,
    _rest: [u64; 2],
}

/// Places: 64 kB for each processor.
const ENTRIES: u32 = 1024;
const SHIFT: u32 = 64 - 10;
const _: () = assert!(ENTRIES == 1 << 10);

#[map]
static MICROFLOWS: PerCpuArray<Known> = PerCpuArray::with_max_entries(ENTRIES, 0);
#[map]
static AT_ONCE: PerCpuArray<AtOnce> = PerCpuArray::with_max_entries(layout::AT_ONCE_ENTRIES, 0);

#[inline(always)]
fn key(frame: &KernelFrame, in_port: u32) -> Option<Microflow> {
    let end = frame.start + HEAD_BYTES;
    if end > frame.end {
        return None;
    }
    // SAFETY: so many bytes lie within the frame; the verifier checks the comparison above.
    let head = unsafe { &*(frame.start as *const [u8; HEAD_BYTES]) };
    microflow(head, frame.bytes, in_port)
}

#[inline(always)]
fn at_once(in_port: u32, tables: u64) -> Option<&'static mut AtOnce> {
    let at_once = AT_ONCE.get_ptr_mut(layout::at_once(layout::first_table(tables), in_port))?;
    // SAFETY: this CPU's own value, which nobody else writes while these programs run.
    Some(unsafe { &mut *at_once })
}

#[inline(always)]
fn place(key: &Microflow, at_once: &AtOnce) -> Option<*mut Known> {
    MICROFLOWS.get_ptr_mut((hash(key, &at_once.seeds) >> SHIFT) as u32)
}

#[inline(always)]
fn count(counter: &mut Counter, bytes: u64) {
    counter.frames += 1;
    counter.bytes += bytes;
}

/// What is done with a frame whose microflow is known.
#[inline(always)]
pub(crate) fn at_once_known(frame: &KernelFrame, in_port: u32, tables: u64) -> Option<u32> {
    let key = key(frame, in_port)?;
    let at_once = at_once(in_port, tables)?;
    // SAFETY: this CPU's own value.
    let known = unsafe { &*place(&key, at_once)? };
    let mut differs = known.tables ^ tables;
    let mut word = 0;
    while word < key.len() {
        differs |= known.key[word] ^ key[word];
        word += 1;
    }
    if differs != 0 {
        return None;
    }
    let (fate, bytes) = (known.fate, frame.bytes as u64);
    // Of what missed there is no such slot.
    count_flow(fate as u32, bytes);
    let (counter, action) = match (fate >> 32) as u32 & 0xff {
        way::DROPPED => (&mut at_once.dropped, xdp_action::XDP_DROP),
        way::MISSED => (&mut at_once.missed, xdp_action::XDP_DROP),
        way::DELIVERED => (&mut at_once.delivered, xdp_action::XDP_PASS),
        way::RETURNED => (&mut at_once.redirected, xdp_action::XDP_TX),
        _ => match DEVICES_OUT.redirect((fate >> 48) as u32, xdp_action::XDP_DROP as u64) {
            Ok(action) => (&mut at_once.redirected, action),
            Err(action) => (&mut at_once.dropped, action),
        },
    };
    count(counter, bytes);
    Some(action)
}

/// Puts down where a frame's microflow goes: it met no rule, or one that says nothing but where to.
#[inline(always)]
pub(crate) fn remember(frame: &KernelFrame, work: &Work, tables: u64, rule: Option<(u32, u32)>) {
    let Some(key) = key(frame, work.in_port) else { return };
    let Some(at_once) = at_once(work.in_port, tables) else { return };
    if at_once.seeds[0] == 0 {
        // From now on they are found where these say.
        let mut word = 0;
        while word < at_once.seeds.len() {
            at_once.seeds[word] = work.seeds[word];
            word += 1;
        }
        return;
    }
    let Some(known) = place(&key, at_once) else { return };
    let fate = match rule {
        None => fate(u32::MAX, way::MISSED, 0),
        Some((slot, to)) if to == work.in_port => fate(slot, way::DROPPED, 0),
        Some((slot, to)) if to < port::MAX => fate(slot, way::REDIRECTED, to),
        Some((slot, port::IN_PORT)) => fate(slot, way::RETURNED, 0),
        Some((slot, port::LOCAL | port::NORMAL)) => fate(slot, way::DELIVERED, 0),
        Some((slot, _)) => fate(slot, way::DROPPED, 0),
    };
    // SAFETY: this CPU's own value.
    unsafe {
        (*known).key = key;
        (*known).tables = tables;
        (*known).fate = fate;
    }
}
