//! Veth pairs: frames go in at one end as a network card would bring them, and what takes them at the other end is measured.

use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use caregate_host::clock;
use caregate_tests::bpf;
use caregate_tests::rules::{FRAME, VARIED};

/// Frames of one call.
const BURST: u32 = 1 << 16;
/// Of which so many must have been taken for the figure to be the filter's.
const TAKEN_MIN: f64 = 0.5;

/// A pair, and what sends into it.
pub(super) struct Wire {
    sender: String,
    /// The other end, by name.
    pub(super) name: String,
    /// The other end, by number.
    pub(super) receiver: u32,
    same: OwnedFd,
    varied: OwnedFd,
    _attached: Option<OwnedFd>,
}

impl Wire {
    /// A pair with names from this one.
    pub(super) fn make(name: &str) -> anyhow::Result<Self> {
        let (sender, name) = (format!("tx-{name}"), format!("rx-{name}"));
        run("ip", &["link", "add", &sender, "type", "veth", "peer", "name", &name])?;
        for end in [&sender, &name] {
            // The kernel's own neighbour discovery is no part of it.
            let key = format!("net.ipv6.conf.{end}.disable_ipv6=1");
            if std::path::Path::new("/proc/sys/net/ipv6").exists() {
                run("sysctl", &["-qw", &key])?;
            }
            run("ip", &["link", "set", end, "up"])?;
        }
        let out = bpf::index(&sender)?;
        let (same, varied) = (bpf::redirect(out)?, bpf::redirect_varied(out, i16::try_from(VARIED.start)?)?);
        for program in [&same, &varied] {
            bpf::settle(program)?;
        }
        let receiver = bpf::index(&name)?;
        Ok(Self { sender, name, receiver, same, varied, _attached: None })
    }

    /// With a program at the other end.
    pub(super) fn attach(mut self, program: &impl AsRawFd) -> anyhow::Result<Self> {
        self._attached = Some(bpf::attach(program, self.receiver)?);
        Ok(self)
    }

    /// Millions of frames per second that the other end takes. With `varied` each has another source.
    pub(super) fn mpps(&self, frames: u32, varied: bool) -> anyhow::Result<f64> {
        let program = if varied { &self.varied } else { &self.same };
        let (before, begun) = (bpf::taken(&self.sender)?, clock::monotonic());
        let mut sent = 0u32;
        while sent < frames {
            let burst = BURST.min(frames - sent);
            bpf::send(program, &FRAME, burst).context("live frames need Linux 5.18")?;
            sent += burst;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let taken = bpf::taken(&self.sender)? - before;
        ensure!(taken as f64 >= f64::from(sent) * TAKEN_MIN, "{} took {taken} of {sent} frames", self.name);
        Ok(taken as f64 / seconds / 1e6)
    }
}

/// What has reached IP in this network namespace.
pub(super) fn received_by_ip() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Ip: "));
    let (names, values) = lines.next().zip(lines.next()).context("no line of IP")?;
    let at = names.split(' ').position(|name| name == "InReceives").context("no InReceives")?;
    values.split(' ').nth(at).and_then(|value| value.parse().ok()).context("InReceives is no number")
}

/// Runs a command to its end; what it said.
pub(super) fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| program.to_owned())?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
