//! Builds what the demo and the tests run: the page, then the release binaries.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::say;

/// The checkout that this xtask was built in.
pub(crate) fn root() -> anyhow::Result<PathBuf> {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(xtask.parent().context("xtask has no parent folder")?.to_owned())
}

/// Where cargo puts release binaries: beside this one.
pub(crate) fn binaries() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.parent().context("this binary has no folder")?.to_owned())
}

/// Runs a command to its end, its output passed on to standard error.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    use std::os::fd::AsFd;
    let described = format!("{command:?}");
    // Standard output is for results alone.
    let stderr = std::io::stderr().as_fd().try_clone_to_owned()?;
    let status = command.stdout(stderr).status().with_context(|| described.clone())?;
    if !status.success() {
        bail!("{described}: {status}");
    }
    Ok(())
}

/// Runs a command to its end, its output passed on to standard error a line at a time and shown to `see` as well.
pub(crate) fn run_seen(command: &mut Command, mut see: impl FnMut(&str)) -> anyhow::Result<()> {
    use std::io::{BufRead, BufReader, Write};
    let described = format!("{command:?}");
    let (reader, writer) = std::io::pipe()?;
    let mut child =
        command.stdout(writer.try_clone()?).stderr(writer).spawn().with_context(|| described.clone())?;
    // The command holds both writing ends until it is given others.
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut lines = BufReader::new(reader);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        std::io::stderr().write_all(&line)?;
        see(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{described}: {status}");
    }
    Ok(())
}

/// Installs a folder's packages where its lock file has changed since they were.
pub(crate) fn npm_packages(folder: &str) -> anyhow::Result<PathBuf> {
    let dir = root()?.join(folder);
    let lock = std::fs::read(dir.join("package-lock.json"))
        .with_context(|| format!("{folder}/package-lock.json"))?;
    let stamp = dir.join("node_modules/.caregate-lock");
    if std::fs::read(&stamp).ok().as_deref() != Some(&lock) {
        say(&format!("{folder}: installing packages (npm ci)"));
        run(Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&dir))?;
        std::fs::write(&stamp, &lock)?;
    }
    Ok(dir)
}

/// Builds the page.
pub(crate) fn page() -> anyhow::Result<()> {
    let web = npm_packages("clinician-feed/web")?;
    say("page: building");
    run(Command::new("npm").args(["run", "--silent", "build"]).current_dir(&web))
}

/// Builds release binaries of these packages.
pub(crate) fn cargo(packages: &[&str]) -> anyhow::Result<()> {
    say(&format!("cargo: building {} (release; minutes from clean)", packages.join(", ")));
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--release", "--bins"]).current_dir(root()?);
    for package in packages {
        command.args(["--package", package]);
    }
    run(&mut command)
}

/// Builds one package's release binaries with a cargo feature that usual builds leave out.
pub(crate) fn cargo_with(package: &str, feature: &str) -> anyhow::Result<()> {
    say(&format!("cargo: building {package} with {feature} (release)"));
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--release", "--bins", "--package", package, "--features", feature]);
    run(command.current_dir(root()?))
}
