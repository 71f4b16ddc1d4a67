//! Process 1 of a kernel under test, and its only one (`cargo xtask kernels`, docs/kernels.md).
//!
//! ```text
//!  mounts, modules ─▶ veth pairs ─▶ load, as the helper does ─▶ attach ─▶ frames ─▶ one line of JSON ─▶ power off
//! ```
//! What every such process does is in `caregate_guest`.

mod cases;
mod datapath;
#[allow(dead_code, clippy::unwrap_used, reason = "frames of the helper's tests, of which these are some")]
#[path = "../../../ebpf/helper/tests/support/frames.rs"]
mod frames;
mod machine;
mod verifier;
mod veth;

use caregate_guest::kernels::Report;

/// aya reads the number of CPUs in sysfs, pins lie on bpffs.
const MOUNTS: [(&str, &str); 3] = [("proc", "/proc"), ("sysfs", "/sys"), ("bpf", "/sys/fs/bpf")];

fn main() -> anyhow::Result<()> {
    caregate_guest::process_1(&MOUNTS, test)
}

fn test(report: &mut Report) -> anyhow::Result<()> {
    machine::set_up()?;
    veth::add("sensor", "port", frames::GATEWAY)?;
    veth::add("beyond", "uplink", frames::GATEWAY)?;
    datapath::test(report)
}
