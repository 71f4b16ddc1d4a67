//! What is measured, as processes: their start and end, and what the kernel counts of them.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use caregate_host::clock;

/// How long any one condition may take: a disk that is slow and a backlog that is long fit well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(5);
/// Clock ticks a second in `/proc`; Linux has had no other value on any architecture that we build for.
const TICKS: f64 = 100.0;

/// A process that may be stopped, killed and started again.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) log: PathBuf,
    child: Option<Child>,
    /// CPU seconds of the lives before this one.
    spent_s: f64,
}

impl Process {
    pub(crate) fn start(program: &Path, arguments: Vec<String>, log: PathBuf) -> anyhow::Result<Self> {
        let mut process = Self { program: program.to_owned(), arguments, log, child: None, spent_s: 0.0 };
        process.restart()?;
        Ok(process)
    }

    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().with_context(|| self.program.display().to_string())?);
        Ok(())
    }

    fn id(&self) -> anyhow::Result<u32> {
        Ok(self.child.as_ref().context("it does not run")?.id())
    }

    /// CPU seconds so far, user and system.
    pub(crate) fn cpu_s(&self) -> anyhow::Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id()?))?;
        // The name in parentheses may hold spaces; utime and stime are the 12th and 13th after it (proc(5)).
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks =
            |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).context("/proc stat");
        Ok(self.spent_s + (ticks(11)? + ticks(12)?) / TICKS)
    }

    /// Resident memory now, in MiB.
    pub(crate) fn rss_mib(&self) -> anyhow::Result<f64> {
        self.memory_mib("VmRSS:")
    }

    /// The most that was resident in this life, in MiB.
    pub(crate) fn rss_peak_mib(&self) -> anyhow::Result<f64> {
        self.memory_mib("VmHWM:")
    }

    fn memory_mib(&self, field: &'static str) -> anyhow::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)).context(field)?;
        let kib: f64 = line.split_whitespace().next().context(field)?.parse()?;
        Ok(kib / 1024.0)
    }

    pub(crate) fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let sent = Command::new("kill").args([signal, &self.id()?.to_string()]).status()?;
        if !sent.success() {
            bail!("kill {signal} {}: {sent}\n{}", self.program.display(), self.tail());
        }
        Ok(())
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.spent_s = self.cpu_s().unwrap_or(self.spent_s);
        let mut child = self.child.take().context("it does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGTERM, and its end.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        self.spent_s = self.cpu_s().unwrap_or(self.spent_s);
        self.signal("-TERM")?;
        let status = self.child.take().context("it does not run")?.wait()?;
        if !status.success() {
            bail!("{} ended with {status}\n{}", self.program.display(), self.tail());
        }
        Ok(())
    }

    /// The last lines that it logged.
    pub(crate) fn tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(4000)..]).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Waits until `holds`; how long it took.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) -> anyhow::Result<Duration> {
    let begun = clock::monotonic();
    while !holds() {
        if begun.elapsed() > PATIENCE {
            bail!("{what}: did not happen within {PATIENCE:?}");
        }
        std::thread::sleep(POLL);
    }
    Ok(begun.elapsed())
}

/// The sum of a metric's series whose line begins with `series`; `None` while the daemon does not answer.
pub(crate) fn metric(admin: SocketAddr, series: &str) -> Option<f64> {
    let mut stream = TcpStream::connect(admin).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let values: Vec<f64> = text
        .lines()
        .filter(|line| line.starts_with(series))
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

/// An address that was free a moment ago.
pub(crate) fn free_tcp() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

pub(crate) fn free_udp() -> anyhow::Result<SocketAddr> {
    Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?)
}

/// Bytes written to the block device that holds `dir`, by anybody (Documentation/admin-guide/iostats.rst: field 7, in 512 bytes).
pub(crate) fn device_bytes(dir: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let dev = fs::metadata(dir)?.dev();
    let (major, minor) = (dev >> 8 & 0xfff, dev & 0xff | dev >> 12 & 0xfff_ff00);
    let path = format!("/sys/dev/block/{major}:{minor}/stat");
    let text = fs::read_to_string(&path).context(path)?;
    let sectors: u64 = text.split_whitespace().nth(6).context("block device statistics")?.parse()?;
    Ok(sectors * 512)
}
