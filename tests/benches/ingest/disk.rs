//! What the disk itself takes, in the same run: a block written over in place, then fdatasync. Nothing that keeps a promise can be
//! faster.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use caregate_host::clock;
use tempfile::TempDir;

use crate::site::target;
use crate::{Figures, quantile};

/// Room of a [`Disk`]: the spool's budget, and as much again.
const DISK_BYTES: u64 = 1 << 30;
const BLOCK: usize = 4096;
/// Written over and over, as a file of the spool is written along.
const BLOCKS: u64 = 1024;

pub(crate) fn measure(span: Duration, figures: &mut Figures) -> anyhow::Result<()> {
    let file = tempfile::tempfile_in(target()?)?;
    let block = [7; BLOCK];
    for at in 0..BLOCKS {
        file.write_all_at(&block, at * BLOCK as u64)?;
    }
    file.sync_all()?;
    let (begun, mut times_ms, mut at) = (clock::monotonic(), Vec::new(), 0);
    while begun.elapsed() < span {
        file.write_all_at(&block, at % BLOCKS * BLOCK as u64)?;
        let start = clock::monotonic();
        file.sync_data()?;
        times_ms.push(start.elapsed().as_secs_f64() * 1000.0);
        at += 1;
    }
    figures.put("fdatasync_p50_ms", quantile(&mut times_ms, 1, 2).unwrap_or(0.0));
    figures.put("fdatasync_p99_ms", quantile(&mut times_ms, 99, 100).unwrap_or(0.0));
    Ok(())
}

/// A block device of our own with a file system as `mkfs.ext4` makes it, journal and all: an image in memory, mounted by loop.
pub(crate) struct Disk {
    dir: TempDir,
    is_mounted: bool,
}

impl Disk {
    pub(crate) fn mount() -> anyhow::Result<Self> {
        let mut disk = Self { dir: TempDir::new_in("/dev/shm")?, is_mounted: false };
        let image = disk.dir.path().join("image");
        std::fs::File::create(&image)?.set_len(DISK_BYTES)?;
        std::fs::create_dir(disk.path())?;
        // Nothing is left to be initialized while it is measured.
        let whole = "lazy_itable_init=0,lazy_journal_init=0";
        run(Command::new("mkfs.ext4").args(["-q", "-E", whole]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(disk.path()))?;
        disk.is_mounted = true;
        Ok(disk)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("disk")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted
            && let Err(error) = run(Command::new("umount").arg(self.path()))
        {
            eprintln!("{error:#}");
        }
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
