//! Named points at which a test kills the process (-9), so that each step between two of them has been the last one.
//!
//! Only in builds with the cargo feature `kill-points`; in all others [`pass`] is nothing at all. Such a build calls itself
//! `+kill-points`, says so when it starts, and is never installed (`deploy/refuse-conformance.sh`).

/// Whether this build can be told to die.
pub const ARMABLE: bool = cfg!(feature = "kill-points");

/// The environment variable that arms one point: `NAME@N` dies at the N-th pass (from 1).
pub const VARIABLE: &str = "CAREGATE_KILL_AT";

/// The process passes the point `name`; it dies here if it was told to.
#[cfg(not(feature = "kill-points"))]
#[inline(always)]
pub const fn pass(_name: &'static str) {}

/// The process passes the point `name`; it dies here if it was told to.
#[cfg(feature = "kill-points")]
pub fn pass(name: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static ARMED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSES: AtomicU64 = AtomicU64::new(0);

    let armed = ARMED.get_or_init(|| {
        let text = std::env::var(VARIABLE).ok()?;
        let (name, nth) = text.split_once('@')?;
        Some((name.to_owned(), nth.parse().ok()?))
    });
    let Some((armed, nth)) = armed else { return };
    if armed == name && PASSES.fetch_add(1, Ordering::Relaxed) + 1 == *nth {
        if rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).is_err() {
            std::process::abort();
        }
        // The signal is on its way; nothing more may happen here.
        loop {
            std::thread::park();
        }
    }
}
