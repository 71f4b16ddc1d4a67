//! The suite of the os-ken wheel: installed, listed, and run a case at a time by `tests/conform/openflow_suite.py`.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, bail};
use caregate_host::clock;
use serde::Deserialize;
use serde_json::json;

use super::network::Namespace;
use super::plan::Case;
use super::process::Process;
use crate::pki::Issued;
use crate::{build, say, stop};

/// Debian's, built for speed: sending 20,000 frames a second keeps it busy.
const PYTHON: &str = "/usr/bin/python3";
/// OpenFlow 1.3's cases within the wheel.
const CASES: &str = "os_ken/tests/switch/of13";
/// Both switches connect within this, or not at all: the launcher itself gives up after 60 s.
const READY_TIMEOUT: Duration = Duration::from_secs(90);
/// The longest case sends for 30 s; each of its about 20 other steps ends after 3 s at most, and the launcher waits 60 s for a
/// switch that is gone.
const CASE_TIMEOUT: Duration = Duration::from_secs(180);
/// Between two looks at whether we are to stop.
const POLL: Duration = Duration::from_millis(200);

/// Where it lies.
#[derive(Debug)]
pub(super) struct Suite {
    /// Installed packages.
    packages: PathBuf,
    launcher: PathBuf,
    /// Seconds between cases.
    interval: f64,
}

impl Suite {
    /// Installs the suite under `target/conform`, if what is pinned has changed since it was.
    pub(super) fn install(interval: f64) -> anyhow::Result<Self> {
        let root = build::root()?;
        let pinned = root.join("tests/conform/requirements.txt");
        let content = std::fs::read(&pinned).with_context(|| pinned.display().to_string())?;
        let packages = root.join("target/conform/packages");
        let stamp = packages.join(".requirements");
        if std::fs::read(&stamp).ok().as_deref() != Some(&content) {
            say("conform: installing the suite (os-ken from PyPI) under target/conform");
            if packages.exists() {
                std::fs::remove_dir_all(&packages).with_context(|| packages.display().to_string())?;
            }
            let mut pip = Command::new(PYTHON);
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
            pip.args(["--root-user-action", "ignore", "--require-hashes", "--target"]).arg(&packages);
            build::run(pip.arg("--requirement").arg(&pinned))?;
            std::fs::write(&stamp, &content)?;
        }
        Ok(Self { packages, launcher: root.join("tests/conform/openflow_suite.py"), interval })
    }

    fn python(&self, mut command: Command) -> Command {
        // Warnings: eventlet says at each start that it is deprecated.
        command.args(["-W", "ignore"]).arg(&self.launcher).env("PYTHONPATH", &self.packages);
        command
    }

    fn directory(&self) -> PathBuf {
        self.packages.join(CASES)
    }

    /// All its cases.
    pub(super) fn cases(&self) -> anyhow::Result<Vec<Case>> {
        let mut command = self.python(Command::new(PYTHON));
        let output = command.arg("list").arg(self.directory()).output().context(PYTHON)?;
        if !output.status.success() {
            bail!("the suite can't be listed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let text = String::from_utf8(output.stdout).context("the suite's list")?;
        let cases: Vec<Case> = text
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
            .collect::<anyhow::Result<_>>()?;
        if cases.is_empty() {
            bail!("{}: no cases there", self.directory().display());
        }
        Ok(cases)
    }
}

/// Of one case.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Verdict {
    pub(super) passed: bool,
    /// Why it failed, in the suite's words.
    pub(super) reason: String,
    /// Whether both switches were there at the end.
    pub(super) connected: bool,
    pub(super) seconds: f64,
}

/// The datapath ids that the two switches have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ids {
    pub(super) target: &'static str,
    pub(super) tester: &'static str,
}

/// The suite's process, to which both switches connect.
#[derive(Debug)]
pub(super) struct Running {
    process: Process,
    input: ChildStdin,
    lines: Receiver<String>,
    interval: f64,
}

impl Running {
    /// Starts it, listening on loopback within the namespace with TLS as `controller`.
    pub(super) fn start(
        suite: &Suite,
        namespace: &Namespace,
        controller: &Issued,
        ids: Ids,
        logs: &Path,
    ) -> anyhow::Result<Self> {
        let mut command = suite.python(namespace.command(PYTHON));
        command.arg("run").arg(suite.directory());
        command.args([&controller.key, &controller.certificate, &controller.ca]);
        command.args([ids.target, ids.tester]);
        let mut process = Process::start("suite", command, logs, true)?;
        let (input, output) = process.pipes().context("the suite has no pipes")?;
        Ok(Self { process, input, lines: read(output), interval: suite.interval })
    }

    /// Waits until both switches are connected.
    pub(super) fn ready(&mut self) -> anyhow::Result<()> {
        #[derive(Deserialize)]
        struct Ready {
            ready: bool,
            reason: Option<String>,
        }
        let line = self.line(READY_TIMEOUT)?;
        let Ready { ready, reason } = serde_json::from_str(&line).with_context(|| line.clone())?;
        if !ready {
            bail!("{}", reason.unwrap_or(line));
        }
        Ok(())
    }

    /// Runs one case.
    pub(super) fn ask(&mut self, case: &Case) -> anyhow::Result<Verdict> {
        let asked = json!({"file": case.file, "name": case.name, "interval": self.interval});
        writeln!(self.input, "{asked}").context("the suite takes no case")?;
        self.input.flush()?;
        let line = self.line(CASE_TIMEOUT)?;
        serde_json::from_str(&line).with_context(|| line.clone())
    }

    fn line(&mut self, timeout: Duration) -> anyhow::Result<String> {
        let start = clock::monotonic();
        loop {
            match self.lines.recv_timeout(POLL) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Disconnected) => {
                    self.process.alive()?;
                    bail!("the suite closed its output");
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if stop::requested() {
                bail!("stopped");
            }
            if start.elapsed() > timeout {
                bail!("the suite said nothing for {} s", timeout.as_secs());
            }
        }
    }
}

/// Its lines of JSON. While it sends at a rate it also prints dots, which come before them.
fn read(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some(at) = line.find('{')
                && sender.send(line[at..].to_owned()).is_err()
            {
                return;
            }
        }
    });
    receiver
}
