//! Processes of a run: each logs to a file and is ended by its own id.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use caregate_host::clock;

/// Between two looks at a condition that is waited for.
const POLL: Duration = Duration::from_millis(20);
/// Time for a process to end after SIGTERM, before it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Lines of a log shown when its process failed.
const LOG_LINES: usize = 12;

/// One process; ended when dropped.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command. Standard output goes to the log too, unless `piped`, which pipes standard input as well.
    pub(super) fn start(name: &str, mut command: Command, logs: &Path, piped: bool) -> anyhow::Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| log.display().to_string())?;
        if piped {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        } else {
            command.stdin(Stdio::null()).stdout(file.try_clone()?);
        }
        let child = command.stderr(file).spawn().with_context(|| format!("start {name}"))?;
        Ok(Self { name: name.into(), child, log })
    }

    /// Its pipes, once.
    pub(super) fn pipes(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        self.child.stdin.take().zip(self.child.stdout.take())
    }

    /// Fails, with the end of its log, where the process has ended.
    pub(super) fn alive(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended ({status}); its log ends:\n{}", self.name, self.log_tail());
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// Waits until `holds`, while the process lives.
    pub(super) fn wait_until(
        &mut self,
        what: &str,
        timeout: Duration,
        holds: impl Fn() -> bool,
    ) -> anyhow::Result<()> {
        let start = clock::monotonic();
        while !holds() {
            self.alive()?;
            if start.elapsed() > timeout {
                bail!(
                    "gave up after {} s waiting until {what}; the log of {} ends:\n{}",
                    timeout.as_secs(),
                    self.name,
                    self.log_tail()
                );
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn end(&mut self) -> std::io::Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        let start = clock::monotonic();
        while self.child.try_wait()?.is_none() {
            if start.elapsed() > END_TIMEOUT {
                self.child.kill()?;
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // What can't be ended dies with us (`setpriv --pdeathsig`).
        drop(self.end());
    }
}
