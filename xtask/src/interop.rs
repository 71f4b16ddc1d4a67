//! `cargo xtask interop`: controllers that others wrote drive our switch (`tests/interop/README.md`).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use clap::Args;

use crate::{build, conform, say, setup};

/// Environments of the controllers, by the file that pins their packages.
const ENVIRONMENTS: [&str; 2] = ["os-ken", "faucet"];

/// Run controllers that others wrote (os-ken, Faucet) against our switch and Open vSwitch, with hosts that talk across it.
///
/// Needs root. Controllers are installed from PyPI under target/interop.
#[derive(Debug, Args)]
pub(crate) struct InteropArgs {
    /// Only cases that have this in their name.
    only: Option<String>,
}

/// Makes what is needed, then runs the test.
///
/// # Errors
/// What is missing, or that a case failed.
pub(crate) fn run(args: &InteropArgs) -> anyhow::Result<()> {
    setup::ensure_tools(&[setup::INTEROP])?;
    let folder = environments()?;
    for name in ENVIRONMENTS {
        install(&folder.join(name), name)?;
    }
    conform::build_ours()?;
    let mut test = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    test.args(["test", "--release", "--package", "caregate-tests", "--test", "interop", "--"]);
    // One case at a time: each has a controller, a switch and streams that are measured.
    test.args(["--test-threads=1", "--nocapture"]).args(&args.only).current_dir(build::root()?);
    build::run(&mut test)
}

/// Beside what cargo builds, where the test looks.
fn environments() -> anyhow::Result<PathBuf> {
    let binaries = build::binaries()?;
    Ok(binaries.parent().context("cargo's folder has none above it")?.join("interop"))
}

/// Makes an environment anew where what is pinned has changed since it was made.
fn install(environment: &Path, name: &str) -> anyhow::Result<()> {
    let pinned = build::root()?.join("tests/interop").join(name).with_extension("txt");
    let content = std::fs::read(&pinned).with_context(|| pinned.display().to_string())?;
    let stamp = environment.join(".requirements");
    if std::fs::read(&stamp).ok().as_deref() == Some(&content) {
        return Ok(());
    }
    say(&format!("interop: installing {name} (PyPI) under {}", environment.display()));
    build::run(Command::new("/usr/bin/python3").args(["-m", "venv", "--clear"]).arg(environment))?;
    let mut pip = Command::new(environment.join("bin/python3"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    build::run(pip.arg("--requirement").arg(&pinned))?;
    std::fs::write(&stamp, &content).with_context(|| stamp.display().to_string())
}
