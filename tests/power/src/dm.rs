//! The kernel's device mapper (`linux/dm-ioctl.h`): a `log-writes` device over a disk (`admin-guide/device-mapper/log-writes.rst`).

#![expect(unsafe_code, reason = "the device mapper's ioctls have no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use anyhow::Context;

const CONTROL: &str = "/dev/mapper/control";
/// `struct dm_ioctl`.
const HEADER: usize = 312;
/// Where its name is; 128 bytes.
const NAME: usize = 48;
const NAME_BYTES_MAX: usize = 127;
/// `struct dm_target_spec`.
const SPEC: usize = 40;
/// The interface's version that is asked for: any kernel's of today is compatible.
const VERSION: u32 = 4;

/// What is asked of the device mapper, by its number.
#[derive(Debug, Clone, Copy)]
enum Command {
    Create = 3,
    Remove = 4,
    /// Without a flag: resume, which makes the table that was loaded the one in use.
    Suspend = 6,
    Load = 9,
    Message = 14,
}

impl Command {
    /// `_IOWR(0xfd, number, struct dm_ioctl)`
    fn request(self) -> u64 {
        3 << 30 | (HEADER as u64) << 16 | 0xfd << 8 | self as u64
    }
}

/// The request's bytes: header, and what follows it.
fn bytes(name: &str, targets: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    let size = u32::try_from(HEADER + data.len()).unwrap_or(u32::MAX);
    let fields = [VERSION, 0, 0, size, u32::try_from(HEADER).unwrap_or(u32::MAX), targets];
    for (at, field) in fields.into_iter().enumerate() {
        bytes[4 * at..4 * at + 4].copy_from_slice(&field.to_ne_bytes());
    }
    let name = &name.as_bytes()[..name.len().min(NAME_BYTES_MAX)];
    bytes[NAME..NAME + name.len()].copy_from_slice(name);
    bytes.extend(data);
    bytes
}

/// One target over the whole device.
fn table(sectors: u64, kind: &str, parameters: &str) -> Vec<u8> {
    let mut table = vec![0; SPEC];
    table[8..16].copy_from_slice(&sectors.to_ne_bytes());
    table[24..24 + kind.len()].copy_from_slice(kind.as_bytes());
    table.extend(parameters.as_bytes());
    table.push(0);
    table.resize(table.len().next_multiple_of(8), 0);
    table
}

/// A device of the mapper's.
#[derive(Debug)]
pub(crate) struct Device {
    control: File,
    name: &'static str,
    path: String,
}

impl Device {
    /// Everything that is written to it goes to `disk`, and with each flush into `log`.
    pub(crate) fn log_writes(
        name: &'static str,
        disk: &str,
        log: &str,
        sectors: u64,
    ) -> anyhow::Result<Self> {
        let control = File::options().read(true).write(true).open(CONTROL).context(CONTROL)?;
        let mut device = Self { control, name, path: String::new() };
        let made = device.ask(Command::Create, 0, &[]).context("making a device")?;
        // `dev`: the minor number's low byte, and the rest of it from bit 20 on.
        let number = u64::from_ne_bytes(made[40..48].try_into()?);
        device.path = format!("/dev/dm-{}", number & 0xff | number >> 12 & !0xff);
        let table = table(sectors, "log-writes", &format!("{disk} {log}"));
        device.ask(Command::Load, 1, &table).context("loading log-writes")?;
        device.ask(Command::Suspend, 0, &[]).context("resuming log-writes")?;
        Ok(device)
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Says so in the log, behind everything that was flushed before.
    pub(crate) fn mark(&self, text: &str) -> anyhow::Result<()> {
        let mut message = vec![0; 8];
        message.extend(format!("mark {text}\0").bytes());
        message.resize(message.len().next_multiple_of(8), 0);
        self.ask(Command::Message, 0, &message).context("a mark in the log of writes").map(drop)
    }

    /// Returns once the log is written.
    pub(crate) fn remove(self) -> anyhow::Result<()> {
        self.ask(Command::Remove, 0, &[]).context("removing log-writes").map(drop)
    }

    fn ask(&self, command: Command, targets: u32, data: &[u8]) -> io::Result<Vec<u8>> {
        let mut bytes = bytes(self.name, targets, data);
        // SAFETY: the kernel reads and writes at most `data_size` bytes, which is the buffer's length.
        let result = unsafe { libc::ioctl(self.control.as_raw_fd(), command.request(), bytes.as_mut_ptr()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_as_the_kernels_header_says() {
        // DM_DEV_CREATE and DM_TARGET_MSG of `dmsetup` under strace.
        assert_eq!(Command::Create.request(), 0xc138_fd03);
        assert_eq!(Command::Message.request(), 0xc138_fd0e);
        let bytes = bytes("watched", 1, &table(8, "log-writes", "/dev/a /dev/b"));
        assert_eq!(bytes[12..16], u32::try_from(bytes.len()).unwrap().to_ne_bytes());
        assert_eq!(&bytes[NAME..NAME + 8], b"watched\0");
        assert_eq!(&bytes[HEADER + 24..HEADER + 35], b"log-writes\0");
        assert_eq!(&bytes[HEADER + SPEC..HEADER + SPEC + 14], b"/dev/a /dev/b\0");
    }
}
