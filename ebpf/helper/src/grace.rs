//! Waits until no frame is looked at by what was replaced.

#![expect(unsafe_code, reason = "membarrier has no safe wrapper in the crates at hand")]

/// `MEMBARRIER_CMD_GLOBAL`
const GLOBAL: libc::c_int = 1;

/// Returns when every processor has left what it did when the call began (an RCU grace period): no frame still meets the copy of
/// a table or policy that a store has just put out of force, so it may be written again.
pub fn wait() {
    // SAFETY: two numbers, and no memory of this process.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if done != 0 {
        // A kernel without it, or with processors set aside (nohz_full). A look-up takes a microsecond, this many.
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
