//! The contract's own tests: forge (unit, fuzz, invariants, gas) and slither. Both run npm's pinned compiler through
//! `ledger-client/contracts/tools/solc`, so that what they look at is what is deployed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::{build, say, setup};

const FOLDER: &str = "ledger-client/contracts";
/// What pip installs, with hashes.
const PINNED: &str = "slither.txt";
/// Places in the contract where slither is told to look away.
const PASSED_OVER: usize = 7;

/// The folder with its packages, and the folder of forge's binary.
fn folder() -> anyhow::Result<(PathBuf, PathBuf)> {
    let folder = build::npm_packages(FOLDER)?;
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let binaries = folder.join(format!("node_modules/@foundry-rs/forge-linux-{arch}/bin"));
    ensure!(binaries.join("forge").is_file(), "npm has put no forge into {}", binaries.display());
    Ok((folder, binaries))
}

/// Unit, fuzz and invariant tests; then what each call takes, held against what is committed.
///
/// # Errors
/// A test that failed, or gas that is not what `snapshots/` says.
pub(crate) fn test(long: bool) -> anyhow::Result<()> {
    let (folder, binaries) = folder()?;
    let forge = |profile: &str| {
        let mut command = Command::new(binaries.join("forge"));
        command.arg("test").env("FOUNDRY_PROFILE", profile).current_dir(&folder);
        build::run(&mut command)
    };
    forge(if long { "long" } else { "default" })?;
    forge("gas")
}

/// Slither, which may find nothing above informational.
///
/// # Errors
/// What it found.
pub(crate) fn slither() -> anyhow::Result<()> {
    let (folder, binaries) = folder()?;
    let passed_over = passed_over(&folder.join("src"))?;
    ensure!(
        passed_over == PASSED_OVER,
        "slither is told to pass over {passed_over} places, {PASSED_OVER} are known; docs/contract.md says why each"
    );
    let slither = environment(&folder)?.join("bin/slither");
    let path = std::env::join_paths(
        [binaries].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )?;
    let mut command = Command::new(slither);
    command.args([".", "--compile-force-framework", "foundry", "--exclude-informational"]);
    command.args(["--exclude-optimization", "--fail-low"]);
    build::run(command.env("PATH", path).current_dir(&folder))
}

/// In how many places slither is told to look away.
fn passed_over(sources: &Path) -> anyhow::Result<usize> {
    let mut count = 0;
    for file in std::fs::read_dir(sources)? {
        let text = std::fs::read_to_string(file?.path())?;
        count +=
            text.matches("slither-disable-next-line").count() + text.matches("slither-disable-start").count();
    }
    Ok(count)
}

/// A Python environment of its own, made anew where what is pinned has changed since.
fn environment(folder: &Path) -> anyhow::Result<PathBuf> {
    setup::ensure_tools(&[setup::PYTHON])?;
    let pinned = folder.join(PINNED);
    let content = std::fs::read(&pinned).with_context(|| pinned.display().to_string())?;
    let environment = build::root()?.join("target/slither");
    let stamp = environment.join(".requirements");
    if std::fs::read(&stamp).ok().as_deref() == Some(&content) {
        return Ok(environment);
    }
    say("slither: installing (PyPI) under target/slither");
    build::run(Command::new("/usr/bin/python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
    let mut pip = Command::new(environment.join("bin/python3"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    build::run(pip.args(["--require-hashes", "--requirement"]).arg(&pinned))?;
    std::fs::write(&stamp, &content).with_context(|| stamp.display().to_string())?;
    Ok(environment)
}
