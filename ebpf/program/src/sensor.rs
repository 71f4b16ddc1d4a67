//! XDP on a sensor port.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use caregate_ebpf_common::frame::{Frame, parse};
use caregate_ebpf_common::{Verdict, judge};

use crate::maps::{self, Maps};
use crate::{KernelFrame, switch};

/// Judges a frame: it goes to the stack, or nowhere.
#[xdp]
pub fn sensor(context: XdpContext) -> u32 {
    let (start, end) = (context.data(), context.data_end());
    let frame = KernelFrame { start, end, bytes: core::hint::black_box(end - start) };
    let bytes = frame.len() as u64;
    let headers = parse(&frame);
    let interface = context.ingress_ifindex() as u32;
    let Some(port) = maps::port(interface) else {
        maps::count_kind(0, headers.kind, bytes);
        maps::count_verdict(0, Verdict::UnknownPort, bytes);
        return xdp_action::XDP_DROP;
    };
    maps::count_kind(port.number, headers.kind, bytes);
    let judgement = judge::ingress(&headers, &mut Maps { port });
    if let (Verdict::Admitted, Some(device)) = (judgement.verdict, judgement.device) {
        // What has rules to meet goes on from here.
        switch::narrow(&context, &frame, port.number, device);
    }
    let passes = judgement.verdict.passes();
    maps::count_verdict(port.number, judgement.verdict, bytes);
    if let Some(device) = judgement.device {
        maps::count_device(device, passes, bytes);
    }
    if passes { xdp_action::XDP_PASS } else { xdp_action::XDP_DROP }
}
