//! What the switch's tests share: certificates, a scripted controller behind real TLS, and the place of the kernel.

pub(crate) mod controller;
pub(crate) mod gateway;
pub(crate) mod pki;
pub(crate) mod running;

use std::time::{Duration, Instant};

use caregate_host::clock;

/// For anything that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Looks again and again, until there is something.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun: Instant = clock::monotonic();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
