//! Builds what the demo and the tests run: the page, then the release binaries.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

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

/// cargo, as from a shell. `cargo xtask` tells this program of its own package by environment variables; handed on they make cargo run build
/// scripts again that look at variables of these names (ring's), and compile all that depends on them.
pub(crate) fn cargo_command() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let is_of_package = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH"].contains(&name)
        });
        if is_of_package {
            command.env_remove(name);
        }
    }
    command
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
    use std::io::Write;
    let described = format!("{command:?}");
    let mut told = Ok(());
    let status = read_lines(command, |line| {
        if told.is_ok() {
            told = std::io::stderr().write_all(line);
        }
        see(String::from_utf8_lossy(line).trim_end());
    })?;
    told?;
    if !status.success() {
        bail!("{described}: {status}");
    }
    Ok(())
}

/// Both outputs, in their order, a line at a time.
fn read_lines(command: &mut Command, mut see: impl FnMut(&[u8])) -> anyhow::Result<std::process::ExitStatus> {
    use std::io::{BufRead, BufReader};
    let described = format!("{command:?}");
    let (reader, writer) = std::io::pipe()?;
    let mut child =
        command.stdout(writer.try_clone()?).stderr(writer).spawn().with_context(|| described.clone())?;
    // The command holds both writing ends until it is given others.
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut lines = BufReader::new(reader);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        see(&line);
        line.clear();
    }
    child.wait().with_context(|| described)
}

/// Runs a command to its end; answers with its lines, and how it ended.
///
/// # Errors
/// Where it could not be started, or read.
pub(crate) fn run_quietly(command: &mut Command) -> anyhow::Result<(Vec<String>, anyhow::Result<()>)> {
    let described = format!("{command:?}");
    let mut lines = Vec::new();
    let ended = read_lines(command, |line| lines.push(String::from_utf8_lossy(line).trim_end().to_owned()))?;
    Ok((lines, if ended.success() { Ok(()) } else { Err(anyhow::anyhow!("{described}: {ended}")) }))
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

/// A test program, and where it is started.
pub(crate) struct TestProgram {
    /// Its target's name: of several packages it may be the same.
    pub(crate) name: String,
    folder: PathBuf,
    program: PathBuf,
}

impl TestProgram {
    /// Starts with what cargo would tell it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder);
        command
    }
}

/// How the gate builds. A command that names packages, builds no test, or has other features, chooses other features of the crates below as
/// well, and cargo compiles nearly all of them once more: minutes on two cores. So all of the gate's commands begin with this.
pub(crate) const WORKSPACE: [&str; 3] = ["--workspace", "--features", "core-cloud/nats"];
/// A small one, for commands that would build none.
const SOME_TEST: [&str; 2] = ["--test", "chaos"];

/// Builds binaries as the gate does, and with more features.
pub(crate) fn workspace_binaries(names: &[&str], features: &[&str]) -> anyhow::Result<()> {
    say(&format!("cargo: building {} (release; minutes from clean)", names.join(", ")));
    let mut command = cargo_command();
    command.args(["build", "--release"]).args(WORKSPACE).args(SOME_TEST).current_dir(root()?);
    command.args(features.iter().flat_map(|feature| ["--features", feature]));
    run(command.args(names.iter().flat_map(|name| ["--bin", name])))
}

/// Builds the tests of the packages' libraries, and those of chaos, as the gate does; answers with the program of each, by its name (a
/// library's with underscores).
///
/// # Errors
/// What cargo says.
pub(crate) fn test_programs() -> anyhow::Result<BTreeMap<String, TestProgram>> {
    say("cargo: building tests (release; minutes from clean)");
    let programs = built_tests(&[&["--lib"], &SOME_TEST[..]].concat())?;
    Ok(programs.into_iter().map(|program| (program.name.clone(), program)).collect())
}

/// Builds all tests that are run unasked.
///
/// # Errors
/// What cargo says.
pub(crate) fn all_test_programs() -> anyhow::Result<Vec<TestProgram>> {
    say("cargo: building tests (release; minutes from clean)");
    built_tests(&[])
}

/// Those among these targets.
fn built_tests(targets: &[&str]) -> anyhow::Result<Vec<TestProgram>> {
    let mut command = cargo_command();
    command.args(["test", "--release", "--no-run"]).args(WORKSPACE).args(targets).current_dir(root()?);
    command.args(["--message-format", "json-render-diagnostics"]).stderr(std::process::Stdio::inherit());
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", output.status);
    }
    let messages = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let programs = messages.filter(|message| message["profile"]["test"] == true).filter_map(|message| {
        let folder = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
        let program = message["executable"].as_str()?.into();
        let name = message["target"]["name"].as_str()?.to_owned();
        Some(TestProgram { name, folder, program })
    });
    Ok(programs.collect())
}

/// Builds release binaries of these packages.
pub(crate) fn cargo(packages: &[&str]) -> anyhow::Result<()> {
    say(&format!("cargo: building {} (release; minutes from clean)", packages.join(", ")));
    let mut command = cargo_command();
    command.args(["build", "--release", "--bins"]).current_dir(root()?);
    for package in packages {
        command.args(["--package", package]);
    }
    run(&mut command)
}

/// Builds one package's release binaries with a cargo feature that usual builds leave out.
pub(crate) fn cargo_with(package: &str, feature: &str) -> anyhow::Result<()> {
    say(&format!("cargo: building {package} with {feature} (release)"));
    let mut command = cargo_command();
    command.args(["build", "--release", "--bins", "--package", package, "--features", feature]);
    run(command.current_dir(root()?))
}
