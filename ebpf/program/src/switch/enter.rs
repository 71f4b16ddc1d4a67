//! XDP on a switch port: a frame's first table.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use caregate_ebpf_common::Verdict;
use caregate_ebpf_common::frame::Frame;
use caregate_ebpf_common::switch::map as layout;
use caregate_ebpf_common::switch::parse::parse;
use caregate_ebpf_common::switch::record::RULE_HEAD;
use caregate_ebpf_common::switch::stage;

use super::leave::{only_way, send};
use super::maps::{Cache, STAGES, blob, cached, count_flow, count_table, has_rules, rule_word, state};
use super::microflows::{at_once_known, remember};
use super::work::{INGRESS, Work, role};
use crate::KernelFrame;
use crate::maps;

/// Reads a frame; sends it where its rule is known and says nothing but where to.
#[xdp]
#[inline(always)]
pub fn enter(context: XdpContext) -> u32 {
    let (start, end) = (context.data(), context.data_end());
    let bytes = core::hint::black_box(end - start);
    let Some(number) = maps::port_number(context.ingress_ifindex() as u32) else {
        maps::count_verdict(0, Verdict::UnknownPort, bytes as u64);
        return xdp_action::XDP_DROP;
    };
    let tables = state(layout::STATE_TABLES);
    let frame = KernelFrame { start, end, bytes };
    if let Some(action) = at_once_known(&frame, number, tables) {
        return action;
    }
    let Some(work) = Work::get(INGRESS) else { return xdp_action::XDP_DROP };
    work.begin(number, bytes as u64, tables);
    parse(&frame, &mut work.parsed);
    let work = core::hint::black_box(work);
    if let Some(action) = at_once(&frame, work, tables) {
        return action;
    }
    work.set_out();
    // SAFETY: nothing is to be dropped.
    unsafe { STAGES.tail_call(&context, stage::WALK) };
    maps::count_verdict(number, Verdict::SwitchDropped, bytes as u64);
    xdp_action::XDP_DROP
}

/// What is done with a frame that the cache knows, and that has no more to go through. The next of its microflow is known sooner.
#[inline(always)]
fn at_once(frame: &KernelFrame, work: &mut Work, tables: u64) -> Option<u32> {
    let blob = blob(work.epoch)?;
    let place = match cached(work) {
        Cache::Unknown => return None,
        Cache::Miss => {
            remember(frame, work, tables, None);
            count_table(work.table, false);
            maps::count_verdict(work.in_port, Verdict::TableMiss, work.bytes);
            return Some(xdp_action::XDP_DROP);
        }
        Cache::Rule(place) => place,
    };
    let head = rule_word(blob, place, RULE_HEAD);
    let to = only_way(blob, place, head)?;
    remember(frame, work, tables, Some((head as u32, to)));
    count_table(work.table, true);
    count_flow(head as u32, work.bytes);
    Some(send(work.in_port, to, work.bytes))
}

/// Has a sensor's frame, which table 0 has admitted, meet the tables; returns where there are no rules.
#[inline(always)]
pub(crate) fn narrow(context: &XdpContext, frame: &KernelFrame, number: u32, device: u32) {
    let tables = state(layout::STATE_TABLES);
    if !has_rules(tables) {
        return;
    }
    let Some(work) = Work::get(INGRESS) else { return };
    work.begin(number, frame.len() as u64, tables);
    work.set_out();
    work.role = role::SENSOR;
    work.device = device;
    parse(frame, &mut work.parsed);
    // SAFETY: nothing is to be dropped.
    unsafe { STAGES.tail_call(context, stage::WALK) };
}
