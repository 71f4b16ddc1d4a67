//! XDP on a sensor port: counts each frame by kind and passes it.
//!
//! It observes. Nothing is dropped, changed or redirected here yet; what judges a frame comes with the flow tables.
//! Counters are per CPU, so there is no atomic, which armv7's JIT can't do; everything is inlined, because it doesn't
//! do calls between BPF functions either. No type information of the running kernel is needed (`docs/adr/0005-*`).

#![no_std]
#![no_main]

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::XdpContext;
use caregate_ebpf_common::frame::{Frame, classify};
use caregate_ebpf_common::{Abi, Counter, Kind};

/// Read by user space before it attaches anything.
#[unsafe(link_section = ".rodata.abi")]
#[unsafe(no_mangle)]
static ABI: Abi = Abi::CURRENT;

/// The kernel offers some functions to GPL programs alone; none of them is needed here.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";

#[map]
static COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(Kind::COUNT, 0);

/// The frame between the context's two pointers.
struct XdpFrame {
    start: usize,
    end: usize,
    /// `end - start`, which the compiler must not know: from a length that was compared it would conclude that a read needs no
    /// comparison with `end`, and the verifier, which doesn't follow lengths, would refuse the read.
    bytes: usize,
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn len(&self) -> usize {
        self.bytes
    }

    #[inline(always)]
    fn u8(&self, at: usize) -> Option<u8> {
        let place = self.start + at;
        if place + 1 > self.end {
            return None;
        }
        // SAFETY: the byte lies within the frame; the verifier checks the comparison above.
        Some(unsafe { *(place as *const u8) })
    }

    #[inline(always)]
    fn u16(&self, at: usize) -> Option<u16> {
        let place = self.start + at;
        if place + 2 > self.end {
            return None;
        }
        // SAFETY: both bytes lie within the frame; the verifier checks the comparison above.
        Some(u16::from_be(unsafe { (place as *const u16).read_unaligned() }))
    }
}

/// Counts and passes.
#[xdp]
pub fn observe(context: XdpContext) -> u32 {
    let (start, end) = (context.data(), context.data_end());
    let frame = XdpFrame { start, end, bytes: core::hint::black_box(end - start) };
    count(classify(&frame), frame.len() as u64);
    xdp_action::XDP_PASS
}

#[inline(always)]
fn count(kind: Kind, bytes: u64) {
    if let Some(counter) = COUNTERS.get_ptr_mut(kind as u32) {
        // SAFETY: the pointer is to this CPU's own value, and XDP on one CPU doesn't preempt itself.
        unsafe {
            (*counter).frames += 1;
            (*counter).bytes += bytes;
        }
    }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
