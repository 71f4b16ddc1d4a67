//! The kernel side: XDP on sensor ports, tc egress on uplinks.
//!
//! What a frame is and what is done with it is `caregate-ebpf-common`; here are the maps that it asks, and what a verdict does.
//! Counters are per CPU, so there is no atomic, which armv7's JIT can't do; everything is inlined, because it doesn't
//! do calls between BPF functions either. No type information of the running kernel is needed (`docs/adr/0009-datapath.md`).

#![no_std]
#![no_main]

mod maps;
mod sensor;
mod switch;
mod uplink;

use caregate_ebpf_common::Abi;
use caregate_ebpf_common::frame::Frame;

/// Read by user space before it attaches anything.
#[unsafe(link_section = ".rodata.abi")]
#[unsafe(no_mangle)]
static ABI: Abi = Abi::CURRENT;

/// The kernel offers some functions to GPL programs alone; none of them is needed here.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";

/// The frame between the context's two pointers.
struct KernelFrame {
    start: usize,
    end: usize,
    /// How long the frame is, which the compiler must not know to be `end - start`: from a length that was compared it would
    /// conclude that a read needs no comparison with `end`, and the verifier, which doesn't follow lengths, would refuse the read.
    bytes: usize,
}

impl Frame for KernelFrame {
    type Rest<'a> = Self;

    /// The compiler must not know where it begins: it would compare one sum of the same parts and read by another, which are two
    /// pointers to the verifier.
    #[inline(always)]
    fn rest(&self, at: usize) -> Self {
        Self { start: core::hint::black_box(self.start + at), end: self.end, bytes: self.bytes - at }
    }

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

    #[inline(always)]
    fn u32(&self, at: usize) -> Option<u32> {
        let place = self.start + at;
        if place + 4 > self.end {
            return None;
        }
        // SAFETY: the four bytes lie within the frame; the verifier checks the comparison above.
        Some(u32::from_be(unsafe { (place as *const u32).read_unaligned() }))
    }
}

/// 1, which the compiler must not know: of a byte's check it would make that the pointer is below the end, and from that no verifier
/// knows a byte.
#[inline(always)]
fn one() -> usize {
    core::hint::black_box(1)
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
