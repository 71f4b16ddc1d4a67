//! Power cuts of the spool on a real file system: ext4 in Debian's kernel under QEMU, below it dm-log-writes, which keeps every write and
//! flush; what of them a disk may have at a point is mounted and opened (`tests/power`). Once as it is, once with the syncs taken out.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::machine::Machine;
use super::{Arch, Name, archive, folder, initramfs};
use crate::{build, say, setup};

const KERNEL: Name = Name::V6_1;
const PACKAGE: &str = "caregate-power-guest";
/// Of the cloud kernel the rest is no module.
const MODULES: [&str; 6] = ["virtio_pci", "virtio_blk", "crc32c_generic", "ext4", "dm_mod", "dm_log_writes"];
/// What the guest's line begins with (`tests/power/src/main.rs`).
const MARK: &str = "caregate-power: ";
/// Where all is busy a run of 250 points takes some minutes.
const DEADLINE: Duration = Duration::from_secs(1800);
/// Of ext4 with a journal of 4 MiB and the spool's files of 16 KiB. Each point writes all of it.
const DISK_BYTES: u64 = 32 << 20;
/// Of the log of writes; a run makes some 30 MB.
const LOG_BYTES: u64 = 512 << 20;
/// Group commits of a run: some dozens of files made, filled and let go.
const COMMITS: u64 = 600;

/// What the guest says at its end (`tests/power/src/main.rs`).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Report {
    version: String,
    acked: u64,
    points: u64,
    lost: u64,
    losing_points: u64,
    duplicated: u64,
    undetected_corruptions: u64,
    false_alarms: u64,
    entries: usize,
    flushes: usize,
    error: Option<String>,
}

/// Cuts the power at `points` points of a run's writes, and as many of the same run without syncs. What it came to, by the names of
/// `cargo xtask chaos`.
///
/// # Errors
/// What keeps it from running, and a false alarm.
pub(crate) fn power_cuts(points: u64, seed: u64) -> anyhow::Result<Map<String, Value>> {
    setup::ensure_tools(&[setup::KERNELS, setup::POWER])?;
    let kernel = archive::fetch(KERNEL, &folder(KERNEL)?)?;
    build::cargo(&[PACKAGE])?;
    let guest = build::binaries()?.join(PACKAGE);
    let place = build::root()?.join("target/kernels/power");
    std::fs::create_dir_all(&place).with_context(|| place.display().to_string())?;
    let image = place.join("initramfs");
    let packed = initramfs::pack(&kernel, &guest, &libraries(&guest)?, &MODULES)?;
    std::fs::write(&image, packed).with_context(|| image.display().to_string())?;
    let run = |syncs: &str| -> anyhow::Result<Report> {
        say(&format!("{points} power cuts of ext4 under {}, syncs: {syncs}", kernel.version));
        let told = format!(
            "caregate.syncs={syncs} caregate.points={points} caregate.commits={COMMITS} caregate.seed={seed}"
        );
        let disks = disks(&place)?;
        let (kernel, initramfs) = (kernel.image.as_path(), image.as_path());
        let machine = Machine { arch: Arch::Amd64, kernel, initramfs, disks: &disks, told: &told };
        let ended = machine.run(MARK, DEADLINE, &place.join(format!("console-{syncs}.log")))?;
        let report: Report = serde_json::from_str(&ended.line).context("what the guest said")?;
        tell(&report, ended.seconds);
        ensure!(report.error.is_none(), "syncs {syncs}: {}", report.error.unwrap_or_default());
        ensure!(report.points == points && report.acked > 0, "syncs {syncs}: only {} points", report.points);
        Ok(report)
    };
    let (real, without) = (run("real")?, run("out")?);
    ensure!(real.false_alarms == 0, "{} false alarms of damage", real.false_alarms);
    let figures = json!({
        "acked": real.acked,
        "lost": real.lost,
        "duplicated": real.duplicated,
        "undetected_corruptions": real.undetected_corruptions,
        "power_cuts": real.points,
        "lost_without_sync": without.lost,
    });
    Ok(figures.as_object().cloned().unwrap_or_default())
}

fn tell(report: &Report, seconds: f64) {
    say(&format!(
        "  {}: {} readings acknowledged, {} entries with {} flushes; {} points, {} of them lost acknowledged readings ({} in all), {:.1} s",
        report.version,
        report.acked,
        report.entries,
        report.flushes,
        report.points,
        report.losing_points,
        report.lost,
        seconds
    ));
}

/// The disk that the spool is on, the log of its writes, and the one that the power cuts are tried on.
fn disks(place: &Path) -> anyhow::Result<[PathBuf; 3]> {
    let disks = ["data.img", "log.img", "cut.img"].map(|name| place.join(name));
    for (disk, bytes) in disks.iter().zip([DISK_BYTES, LOG_BYTES, DISK_BYTES]) {
        let made = File::create(disk).and_then(|file| file.set_len(bytes));
        made.with_context(|| disk.display().to_string())?;
    }
    let mut format = Command::new("mkfs.ext4");
    // Nothing is left for the kernel to write later by itself.
    format.args(["-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0"]).arg(&disks[0]);
    build::run(&mut format)?;
    Ok(disks)
}

/// What the program is linked with: the guest has nothing else.
fn libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("ldd")?;
    ensure!(output.status.success(), "ldd: {}", String::from_utf8_lossy(&output.stderr));
    Ok(linked(&String::from_utf8_lossy(&output.stdout)))
}

/// `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f…)`, `/lib64/ld-linux-x86-64.so.2 (0x00007f…)`
fn linked(told: &str) -> Vec<PathBuf> {
    told.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_libraries_are_found_in_what_ldd_says() {
        let told = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(linked(told), expected);
        assert!(linked("\tstatically linked\n").is_empty());
    }
}
