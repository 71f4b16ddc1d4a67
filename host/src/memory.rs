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

/// Has `bytes` of the heap there before they are wanted, and keeps them there: what has to be quick when much comes at once does not
/// wait for the kernel to find page after page, nor can it fail for want of them then.
pub fn reserve(bytes: usize) {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "the C library's only way")]
    // SAFETY: numbers in, a number out.
    unsafe {
        let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        // Given back is what is free beyond twice that; and what is as large as a quarter has to come from it, too.
        libc::mallopt(libc::M_TRIM_THRESHOLD, bytes.saturating_mul(2));
        libc::mallopt(libc::M_MMAP_THRESHOLD, bytes / 4);
    }
    // Pieces, so that each is the heap's and no mapping of its own.
    let pieces: Vec<Vec<u8>> = (0..bytes / PIECE_BYTES).map(|_| vec![1; PIECE_BYTES]).collect();
    drop(std::hint::black_box(pieces));
}

/// Below what any C library maps by itself.
const PIECE_BYTES: usize = 64 * 1024;
