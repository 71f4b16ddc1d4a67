//! One network namespace with the cables that the suite asks for:
//!
//! ```text
//!  target    p1   p2   p3
//!            │    │    │      veth pairs
//!  tester    t1   t2   t3
//! ```

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

/// Prefix of every namespace that is made here; the process id follows, so that the left-overs of a run that was killed can be
/// told from those of one that goes on.
const PREFIX: &str = "caregate-conform-";
/// Runs a command before what else the machine does: what a case sends and how much of it comes is measured by the clock. Where
/// the kernel groups processes by session (sched(7), autogroup), it is the group that has to come first.
const PRIORITY: &str =
    r#"[ ! -w /proc/self/autogroup ] || echo -15 >/proc/self/autogroup; exec nice -n -15 "$@""#;
/// The switches' ports, in the order of their numbers.
pub(super) const TARGET_PORTS: [&str; 3] = ["p1", "p2", "p3"];
/// The far ends.
pub(super) const TESTER_PORTS: [&str; 3] = ["t1", "t2", "t3"];

/// A namespace; removed when dropped.
#[derive(Debug)]
pub(super) struct Namespace(String);

impl Namespace {
    /// Makes it, with the cables in it.
    pub(super) fn make(number: usize) -> anyhow::Result<Self> {
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self(name);
        for scope in ["all", "default"] {
            // The kernel's own neighbour discovery would be taken for frames of the switches.
            namespace.run("sysctl", &["-qw", &format!("net.ipv6.conf.{scope}.disable_ipv6=1")])?;
        }
        namespace.run("ip", &["link", "set", "lo", "up"])?;
        for (target, tester) in TARGET_PORTS.iter().zip(TESTER_PORTS) {
            namespace.run("ip", &["link", "add", target, "type", "veth", "peer", "name", tester])?;
            for end in [target, tester] {
                // Checksums that are left to hardware are wrong on the wire. Frames from XDP reach a veth whose other end takes
                // them in its own loop, which GRO makes it do.
                namespace.run("ethtool", &["-K", end, "tx", "off", "gro", "on"])?;
                namespace.run("ip", &["link", "set", end, "up"])?;
            }
        }
        Ok(namespace)
    }

    /// A command that runs in it with priority, ends with us, and isn't reached by Ctrl-C at our terminal.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "setsid", "sh", "-c", PRIORITY, "sh", "nsenter"]);
        command.arg(format!("--net=/run/netns/{}", self.0)).arg("--").arg(program);
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
        run(self.command(program).args(arguments))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // One that stays is found by the next run.
        drop(run(Command::new("ip").args(["netns", "delete", &self.0])));
    }
}

/// Runs a command to its end, and says what it said where it failed.
pub(super) fn run(command: &mut Command) -> anyhow::Result<()> {
    let described = format!("{command:?}");
    let output = command.output().with_context(|| described.clone())?;
    if !output.status.success() {
        bail!("{described}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Deletes the namespaces of runs that are gone.
pub(super) fn remove_leftovers() -> anyhow::Result<()> {
    let listed = Command::new("ip").args(["netns", "list"]).output().context("ip netns list")?;
    for line in String::from_utf8_lossy(&listed.stdout).lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        if owner(name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            run(Command::new("ip").args(["netns", "delete", name]))?;
        }
    }
    Ok(())
}

/// The process id in a namespace's name, where it is one of ours.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_namespaces_are_taken_for_left_overs() {
        assert_eq!(owner("caregate-conform-12-0"), Some(12));
        assert_eq!(owner("caregate-12-home"), None);
        assert_eq!(owner("caregate-conform-x-0"), None);
        assert_eq!(owner("other"), None);
    }
}
