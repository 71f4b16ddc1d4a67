//! A machine of QEMU's that boots a kernel with an initramfs and ends by itself.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, bail};
use caregate_host::clock;

use super::Arch;
use crate::stop;

/// How often it is asked whether we are to stop.
const TICK: Duration = Duration::from_millis(200);
/// Of a console, at most: a kernel that prints without end is broken.
const CONSOLE_BYTES_MAX: u64 = 4 << 20;
/// Lines of a console that are shown where the guest said nothing.
const CONSOLE_LINES_SHOWN: usize = 25;

/// How it ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// The guest's line, without its mark.
    pub(super) line: String,
    /// From QEMU's start to its end.
    pub(super) seconds: f64,
}

/// What boots.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    pub(super) arch: Arch,
    pub(super) kernel: &'a Path,
    pub(super) initramfs: &'a Path,
    /// As QEMU writes it.
    pub(super) memory: &'a str,
    /// Files that are its disks, by virtio.
    pub(super) disks: &'a [PathBuf],
    /// For the guest's program, on the kernel's command line.
    pub(super) told: &'a str,
}

/// Ends QEMU where we end before it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// QEMU, and what the kernel is told.
fn command(arch: Arch) -> (Command, &'static str) {
    let (program, arguments, kernel): (_, &[&str], _) = match arch {
        // Emulated on a busy machine a timer may be late, which the kernel would take for a broken one.
        Arch::Amd64 => ("qemu-system-x86_64", &["-machine", "pc"], "console=ttyS0 no_timer_check"),
        Arch::Arm64 => {
            ("qemu-system-aarch64", &["-machine", "virt", "-cpu", "cortex-a57"], "console=ttyAMA0")
        }
        Arch::Armhf => {
            ("qemu-system-arm", &["-machine", "virt,highmem=off", "-cpu", "cortex-a15"], "console=ttyAMA0")
        }
    };
    let mut command = Command::new(program);
    command.args(arguments);
    (command, kernel)
}

impl Machine<'_> {
    fn command(&self) -> Command {
        let (mut command, console) = command(self.arch);
        command.args(["-accel", "tcg", "-smp", "1", "-m", self.memory]);
        command.args(["-no-reboot", "-nodefaults", "-no-user-config"]);
        command.args(["-display", "none", "-monitor", "none", "-serial", "stdio"]);
        command.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.initramfs);
        for disk in self.disks {
            // What reaches the file when is of no interest: the guest itself keeps what it wrote in which order.
            command.arg("-drive").arg(format!("if=virtio,format=raw,cache=unsafe,file={}", disk.display()));
        }
        // A panic is an end: no reboot, so QEMU exits.
        command.arg("-append").arg(format!("{console} panic=-1 loglevel=4 {}", self.told));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        command
    }

    /// Boots, and waits until the machine is off. What it prints goes into a file; the guest's line is returned.
    ///
    /// # Errors
    /// Where the guest did not say how it went, with the console's last lines.
    pub(super) fn run(&self, deadline: Duration, log: &Path) -> anyhow::Result<Ended> {
        let mut command = self.command();
        let begun = clock::monotonic();
        let mut running = Running(command.spawn().with_context(|| format!("{command:?}"))?);
        let output = running.0.stdout.take().context("QEMU has no output")?;
        let (sender, lines) = mpsc::channel();
        let reader = std::thread::spawn(move || read(output, &sender));
        let mut console = Vec::new();
        let ended = loop {
            match lines.recv_timeout(TICK) {
                Ok(line) => console.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break true,
                Err(mpsc::RecvTimeoutError::Timeout) if stop::requested() => bail!("stopped before the end"),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            if begun.elapsed() > deadline {
                break false;
            }
        };
        let seconds = begun.elapsed().as_secs_f64();
        drop(running);
        drop(reader.join());
        std::fs::write(log, console.join("\n")).with_context(|| log.display().to_string())?;
        match console.iter().find_map(|line| line.strip_prefix(caregate_guest::MARK)) {
            Some(line) if ended => {
                Ok(Ended { line: line.to_owned(), seconds: (seconds * 10.0).round() / 10.0 })
            }
            _ => {
                let from = console.len().saturating_sub(CONSOLE_LINES_SHOWN);
                let what = if ended { "ended without a word" } else { "was not done in time" };
                bail!("the machine {what}; its console ({}):\n{}", log.display(), console[from..].join("\n"))
            }
        }
    }
}

/// Line by line, until there is no more or nobody listens.
fn read(output: ChildStdout, to: &mpsc::Sender<String>) {
    let mut output = BufReader::new(output.take(CONSOLE_BYTES_MAX));
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        if to.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
            return;
        }
        line.clear();
    }
}
