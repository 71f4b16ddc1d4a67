//! Power cuts on a real file system: ext4 in Debian's kernel under QEMU, below it dm-log-writes, which keeps every write and flush; what of
//! them a disk may have at a point is mounted and opened (`tests/power`). Once as it is, once with the syncs taken out.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use caregate_guest::Told;
use caregate_guest::power::Report;
use serde_json::{Map, Value, json};

use super::machine::Machine;
use super::{Arch, Name, archive, folder, initramfs};
use crate::{build, say, setup};

const KERNEL: Name = Name::V6_1;
const PACKAGE: &str = "caregate-power-guest";
/// Of the cloud kernel the rest is no module.
const MODULES: [&str; 6] = ["virtio_pci", "virtio_blk", "crc32c_generic", "ext4", "dm_mod", "dm_log_writes"];
/// Where all is busy a run of 250 points takes some minutes; those that start daemons again and again, a quarter of an hour.
const DEADLINE: Duration = Duration::from_secs(5400);
/// The daemons, all that was written in a run, and the disk twice.
const MEMORY: &str = "1G";
/// Of the log of writes, which is sparse; a run makes some 30 to 200 MB.
const LOG_BYTES: u64 = 1 << 30;

/// What is tried on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Work {
    /// As `cargo xtask chaos` calls it.
    pub(crate) name: &'static str,
    /// As the guest does.
    work: &'static str,
    /// Of ext4 with a journal of 4 MiB. Each point writes all of it.
    disk_bytes: u64,
    /// Group commits, readings or records of a run.
    amount: u64,
}

/// All that is: the spool with its files of 16 KiB, some dozens of which are made, filled and let go; gateway and core, with the gateway's
/// files of 256 KiB; the core with some hundred patients.
pub(crate) const WORKS: [Work; 3] = [
    Work { name: "power cuts of the spool on ext4", work: "spool", disk_bytes: 32 << 20, amount: 600 },
    Work {
        name: "power cuts of gateway and core on ext4",
        work: "pipeline",
        disk_bytes: 64 << 20,
        amount: 2400,
    },
    Work {
        name: "power cuts of the core's store on ext4",
        work: "store",
        disk_bytes: 48 << 20,
        amount: 1200,
    },
];

/// Cuts the power at `points` points of a run's writes, and as many of the same run without syncs. `programs`: the folder of gateway and
/// core with kill points. What it came to, by the names of `cargo xtask chaos`.
///
/// # Errors
/// What keeps it from running, and a false alarm.
pub(crate) fn power_cuts(
    work: Work,
    points: u64,
    seed: u64,
    programs: &Path,
) -> anyhow::Result<Map<String, Value>> {
    setup::ensure_tools(&[setup::KERNELS, setup::POWER])?;
    let kernel = archive::fetch(KERNEL, &folder(KERNEL)?)?;
    build::workspace_binaries(&[PACKAGE], &[])?;
    let place = build::root()?.join("target/kernels/power");
    std::fs::create_dir_all(&place).with_context(|| place.display().to_string())?;
    let image = place.join("initramfs");
    std::fs::write(&image, packed(&kernel, programs)?).with_context(|| image.display().to_string())?;
    let run = |syncs: &str| -> anyhow::Result<Report> {
        say(&format!("{points} {} under {}, syncs: {syncs}", work.name, kernel.version));
        let Work { work: kind, amount, .. } = work;
        // The kernel hands to its first process what it does not know itself, as an environment variable.
        let told = format!(
            "caregate.work={kind} caregate.syncs={syncs} caregate.points={points} caregate.amount={amount} \
             caregate.seed={seed} CAREGATE_BINARIES={}",
            programs.display()
        );
        let disks = disks(&place, work.disk_bytes)?;
        let (kernel, initramfs) = (kernel.image.as_path(), image.as_path());
        let (memory, disks, told) = (MEMORY, &disks, told.as_str());
        let machine = Machine { arch: Arch::Amd64, kernel, initramfs, memory, disks, told };
        let ended = machine.run(DEADLINE, &place.join(format!("console-{kind}-{syncs}.log")))?;
        let Told { version, error, report } = Told::<Report>::parse(&ended.line)?;
        tell(&version, &report, ended.seconds);
        ensure!(error.is_none(), "syncs {syncs}: {}", error.unwrap_or_default());
        ensure!(report.points == points && report.acked > 0, "syncs {syncs}: only {} points", report.points);
        Ok(report)
    };
    let (real, without) = (run("real")?, run("out")?);
    ensure!(real.false_alarms == 0, "{} false alarms of damage", real.false_alarms);
    ensure!(real.resumed > 0, "nothing was started on what the power cuts left");
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

/// The guest with the daemons beside it, and what any of them is linked with: it has nothing else.
fn packed(kernel: &archive::Kernel, programs: &Path) -> anyhow::Result<Vec<u8>> {
    let guest = build::binaries()?.join(PACKAGE);
    let daemons = ["edge-gateway", "core-cloud"].map(|name| programs.join(name));
    let mut beside = BTreeSet::from(daemons.clone());
    for program in daemons.iter().chain([&guest]) {
        beside.extend(libraries(program)?);
    }
    initramfs::pack(kernel, &guest, &Vec::from_iter(beside), &MODULES)
}

fn tell(version: &str, report: &Report, seconds: f64) {
    say(&format!(
        "  {version}: {} promises, {} entries with {} flushes; {} points, at {} of them all went on; {} points lost what was promised ({} in \
         all), {seconds:.1} s",
        report.acked,
        report.entries,
        report.flushes,
        report.points,
        report.resumed,
        report.losing_points,
        report.lost,
    ));
    for note in &report.notes {
        say(&format!("    lost: {note}"));
    }
}

/// The disk that is worked on, the log of its writes, and the one that the power cuts are tried on.
fn disks(place: &Path, bytes: u64) -> anyhow::Result<[PathBuf; 3]> {
    let disks = ["data.img", "log.img", "cut.img"].map(|name| place.join(name));
    for (disk, bytes) in disks.iter().zip([bytes, LOG_BYTES, bytes]) {
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
