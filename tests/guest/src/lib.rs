//! Process 1 of a machine that boots to test one thing (`cargo xtask kernels`, `cargo xtask chaos --long`), and its only one at first.
//!
//! ```text
//!  mounts, modules ─▶ the test ─▶ one line of JSON on the console ─▶ power off
//! ```
//! Everything that can be wrong is in the line; a panic ends the process, thereby the kernel, and the console says why. Guest and host
//! share the line's types: [`kernels`], [`power`].

use std::io::Write;

use anyhow::Context;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub mod kernels;
pub mod machine;
pub mod netlink;
pub mod power;

/// Tells the line from the kernel's own.
pub const MARK: &str = "caregate-guest: ";

/// What a guest says at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told<R> {
    /// The kernel's release, as `uname -r` has it.
    pub version: String,
    /// What kept the test from going on.
    pub error: Option<String>,
    /// How far it came.
    pub report: R,
}

impl<R: DeserializeOwned> Told<R> {
    /// Reads a line without its mark.
    ///
    /// # Errors
    /// That it is not of this kind.
    pub fn parse(line: &str) -> anyhow::Result<Self> {
        serde_json::from_str(line).context("what the guest said")
    }
}

/// Runs a test as process 1, says how it went, and ends the machine. `mounts`: type and place of each file system.
///
/// # Errors
/// Where the console or the machine's end can't be had.
pub fn process_1<R: Default + Serialize>(
    mounts: &[(&str, &str)],
    test: impl FnOnce(&mut R) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut report = R::default();
    let outcome = machine::set_up(mounts).and_then(|()| test(&mut report));
    let error = outcome.err().map(|error| format!("{error:#}"));
    let told = Told { version: machine::version(), error, report };
    // The kernel may have left a line of its own unfinished.
    let line = format!("\n{MARK}{}\n", serde_json::to_string(&told)?);
    std::io::stdout().lock().write_all(line.as_bytes())?;
    machine::power_off()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guest_says_the_host_reads() {
        let report = power::Report { acked: 7, lost: 1, ..power::Report::default() };
        let told = Told { version: "6.1.0".to_owned(), error: Some("why".to_owned()), report };
        let line = serde_json::to_string(&told).unwrap();
        assert_eq!(Told::<power::Report>::parse(&line).unwrap(), told);
        assert!(Told::<kernels::Report>::parse(&line).is_err(), "of another test");
    }
}
