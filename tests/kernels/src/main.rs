//! Process 1 of a kernel under test, and its only one (`cargo xtask kernels`, docs/kernels.md).
//!
//! ```text
//!  mounts, modules ─▶ veth pairs ─▶ load, as the helper does ─▶ attach ─▶ frames ─▶ one line of JSON ─▶ power off
//! ```
//! Everything that can be wrong is in the line; a panic ends the process, thereby the kernel, and the console says why.

mod cases;
mod datapath;
#[allow(dead_code, clippy::unwrap_used, reason = "frames of the helper's tests, of which these are some")]
#[path = "../../../ebpf/helper/tests/support/frames.rs"]
mod frames;
mod machine;
mod report;
mod verifier;
mod veth;

use std::io::Write;

use crate::report::{MARK, Report};

fn main() -> anyhow::Result<()> {
    let mut report = Report { version: machine::version(), ..Report::default() };
    if let Err(error) = test(&mut report) {
        report.error = Some(format!("{error:#}"));
    }
    // The kernel may have left a line of its own unfinished.
    let line = format!("\n{MARK}{}\n", serde_json::to_string(&report)?);
    std::io::stdout().lock().write_all(line.as_bytes())?;
    machine::power_off()
}

fn test(report: &mut Report) -> anyhow::Result<()> {
    machine::set_up()?;
    veth::add("sensor", "port", frames::GATEWAY)?;
    veth::add("beyond", "uplink", frames::GATEWAY)?;
    datapath::test(report)
}
