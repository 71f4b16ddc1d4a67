//! How a daemon's memory is managed.

/// Has all threads take memory from one heap. To be called before there are others.
///
/// Of glibc alone, which else gives each thread a heap of its own that grows by a page at a time, with a system call for each: a gateway that
/// is given 4,096 flows at once spends a third of its time on that. One heap is smaller as well; each thread's own cache of what it
/// freed keeps threads apart. Other C libraries have one heap anyway.
pub fn one_heap() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "the C library's only way")]
    // SAFETY: numbers in, a number out; no other thread is there yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TOP_PAD, GROWTH_BYTES);
    }
}

/// What a heap grows by: a page's faults for each kilobyte cost more than the memory.
#[cfg(target_env = "gnu")]
const GROWTH_BYTES: i32 = 256 * 1024;
