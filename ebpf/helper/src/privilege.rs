//! Keeps the four capabilities that the datapath needs and gives up the rest, root or not.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// BPF and PERFMON load programs, NET_ADMIN attaches them, NET_RAW opens packet sockets.
const KEPT: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::NET_RAW);

/// Before Linux 5.11 maps count as locked memory; afterwards this does nothing.
pub fn allow_locked_memory() {
    let unlimited = Rlimit { current: None, maximum: None };
    if let Err(error) = setrlimit(Resource::Memlock, unlimited) {
        tracing::debug!(%error, "the limit of locked memory stays; it matters before Linux 5.11 alone");
    }
}

/// Gives up every capability of this thread, and of all that it starts, but those of the datapath. Has to come before there is a
/// second thread.
///
/// # Errors
/// The operating system's.
pub fn reduce() -> io::Result<()> {
    let now = capabilities(None)?;
    let kept = now.permitted & KEPT;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}
