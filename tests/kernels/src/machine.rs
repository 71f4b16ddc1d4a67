//! What the datapath wants of its machine.

use std::fs;
use std::path::Path;

use anyhow::Context;
use caregate_datapathd::privilege;

const IPV6_OFF: &str = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
const JIT: &str = "/proc/sys/net/core/bpf_jit_enable";

/// Turns the JIT on.
pub(crate) fn set_up() -> anyhow::Result<()> {
    // Off by default on armv7.
    fs::write(JIT, "1").context(JIT)?;
    // The kernel's own neighbour discovery would be counted with the cases.
    if Path::new(IPV6_OFF).exists() {
        fs::write(IPV6_OFF, "1").context(IPV6_OFF)?;
    }
    privilege::allow_locked_memory();
    Ok(())
}
