//! The syncs taken out of a program that is otherwise as it is: a filter of system calls (seccomp(2)) that answers fsync and fdatasync
//! with success and does nothing.

#![expect(unsafe_code, reason = "seccomp filters have no safe wrapper")]

use std::io;

use anyhow::Context;

/// Of `struct seccomp_data`: the call's number is its first word.
const NUMBER: u32 = 0;

fn code(code: u32) -> u16 {
    u16::try_from(code).unwrap_or(u16::MAX)
}

fn step(instruction: u32, if_true: u8, if_false: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code(instruction), jt: if_true, jf: if_false, k }
}

/// For the calling thread, for as long as it lives.
pub(crate) fn take_out() -> anyhow::Result<()> {
    let is = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let number = |call: libc::c_long| u32::try_from(call).unwrap_or(u32::MAX);
    let mut filter = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, NUMBER),
        step(is, 2, 0, number(libc::SYS_fsync)),
        step(is, 1, 0, number(libc::SYS_fdatasync)),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        // With error number 0.
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO),
    ];
    let program = libc::sock_fprog { len: 5, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel copies the program, whose length is the array's.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()).context("seccomp") }
}

/// Whether a sync of nothing succeeds in this thread.
pub(crate) fn are_taken_out() -> bool {
    // SAFETY: no memory is touched; -1 is no file.
    unsafe { libc::fsync(-1) == 0 && libc::fdatasync(-1) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_taken_out_of_one_thread_only() {
        assert!(!are_taken_out());
        // As root, or where no new rights can be had.
        // SAFETY: no memory is touched.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
        let taken_out = std::thread::spawn(|| take_out().map(|()| are_taken_out()));
        assert!(taken_out.join().unwrap().unwrap());
        assert!(!are_taken_out());
    }
}
