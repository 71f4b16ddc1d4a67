//! The demo's processes: started in their place, logging to files, ended by their own id.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use caregate_host::clock;

use super::network::{Network, Place};
use crate::stop;

/// Between two looks at a condition that is waited for.
const POLL: Duration = Duration::from_millis(50);
/// Time for a process to end after SIGTERM, before it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(20);
/// The same where the demo has failed already.
const DROP_TIMEOUT: Duration = Duration::from_secs(5);
/// Lines of a log shown when its process failed.
const LOG_LINES: usize = 15;
/// Largest answer of an admin port.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Hands up to two listeners to a daemon as systemd does: they come in as standard input and output, and are moved to
/// descriptors 3 and 4. Dies with the demo, however that ends.
const START: &str = r#"n=$1; shift
case $n in 0) ;; 1) exec 3<&0 ;; 2) exec 3<&0 4<&1 ;; esac
[ "$n" = 0 ] || export LISTEN_FDS=$n LISTEN_PID=$$
exec 0</dev/null
[ "$n" = 2 ] && exec 1>&2
exec "$@""#;

/// One process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) name: &'static str,
    child: Child,
    log: PathBuf,
}

/// How to start a process.
#[derive(Debug)]
pub(super) struct Start<'a> {
    pub(super) name: &'static str,
    pub(super) place: Option<Place>,
    pub(super) program: &'a Path,
    pub(super) arguments: Vec<String>,
    /// At most two.
    pub(super) listeners: &'a [&'a TcpListener],
    pub(super) logs: &'a Path,
}

impl Process {
    pub(super) fn start(network: &Network, how: Start<'_>) -> anyhow::Result<Self> {
        let log = how.logs.join(format!("{}.log", how.name));
        let stderr = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| log.display().to_string())?;
        let mut words = vec!["setpriv".to_owned(), "--pdeathsig".into(), "KILL".into(), "--".into()];
        words.extend(how.place.map(|place| network.prefix(place)).unwrap_or_default());
        words.push(how.program.display().to_string());
        words.extend(how.arguments);
        let mut command = Command::new("sh");
        command.arg("-c").arg(START).arg(how.name).arg(how.listeners.len().to_string()).args(words);
        let stdio = |at: usize| -> anyhow::Result<Option<Stdio>> {
            how.listeners.get(at).map(|l| Ok(Stdio::from(OwnedFd::from(l.try_clone()?)))).transpose()
        };
        command.stdin(stdio(0)?.unwrap_or_else(Stdio::null));
        command.stdout(match stdio(1)? {
            Some(listener) => listener,
            None => stderr.try_clone()?.into(),
        });
        // A group of its own: Ctrl-C at the terminal reaches the demo alone, which ends the parts in order.
        let child = command.stderr(stderr).process_group(0).spawn().with_context(|| how.name.to_owned())?;
        Ok(Self { name: how.name, child, log })
    }

    /// Fails, with the end of its log, where the process has ended.
    pub(super) fn alive(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended by itself ({status}); its log ends:\n{}", self.name, self.log_tail());
        }
        Ok(())
    }

    /// Its exit status, once it has ended.
    pub(super) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// Sends a signal, as `kill` names it.
    pub(super) fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status()?;
        if !sent.success() {
            bail!("kill {signal} {}: {sent}", self.name);
        }
        Ok(())
    }

    /// SIGTERM, and the exit status once it has ended. Killed after [`END_TIMEOUT`] or `timeout`.
    pub(super) fn end(&mut self, timeout: Option<Duration>) -> anyhow::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal("-TERM")?;
        let deadline = clock::monotonic() + timeout.unwrap_or(END_TIMEOUT);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if clock::monotonic() > deadline {
                self.child.kill()?;
                self.child.wait()?;
                bail!(
                    "{} did not end after SIGTERM and was killed; its log ends:\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            std::thread::sleep(POLL);
        }
    }

    /// SIGKILL. Whether it ended by that signal.
    pub(super) fn kill(&mut self) -> anyhow::Result<bool> {
        self.child.kill()?;
        Ok(self.child.wait()?.signal() == Some(9))
    }

    /// Peak resident memory so far, in MiB.
    pub(super) fn peak_rss_mib(&self) -> Option<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kib / 1024.0)
    }
}

impl Drop for Process {
    /// Asks first: a browser's driver ends its browser only when it is asked.
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) && self.end(Some(DROP_TIMEOUT)).is_err() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// Waits until `holds`, while all `processes` live; gives up after `timeout` or when the demo is to stop.
pub(super) fn wait_until(
    what: &str,
    timeout: Duration,
    processes: &mut [&mut Process],
    mut holds: impl FnMut() -> bool,
) -> anyhow::Result<Duration> {
    let start = clock::monotonic();
    while !holds() {
        for process in processes.iter_mut() {
            process.alive()?;
        }
        if stop::requested() {
            bail!("stopped while waiting until {what}");
        }
        if start.elapsed() > timeout {
            bail!("gave up after {} s waiting until {what}", timeout.as_secs());
        }
        std::thread::sleep(POLL);
    }
    Ok(start.elapsed())
}

/// GET of an admin port: status and body.
pub(super) fn get(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut text)?;
    let status =
        text.split_whitespace().nth(1).and_then(|code| code.parse().ok()).context("no HTTP status")?;
    Ok((status, text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()))
}

/// The value of a metric without labels.
pub(super) fn metric(address: SocketAddr, name: &str) -> Option<f64> {
    let (_, body) = get(address, "/metrics").ok()?;
    body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}
