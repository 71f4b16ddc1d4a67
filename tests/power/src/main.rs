//! Process 1 of a machine whose disk loses power, and its only one (`cargo xtask chaos --long`, docs/adr/0019-power-cuts-and-kills.md).
//!
//! ```text
//!  /dev/vda, ext4 ◀── dm-log-writes ◀── the gateway's spool, at work         /dev/vdb: every write and flush, and what was acknowledged when
//!        │                                                                       │
//!        └─ as it was before ──▶ /dev/vdc ◀── what of them a power cut leaves ◀──┘        mounted, opened, compared; again and again
//! ```
//! Everything that can be wrong is in one line of JSON; a panic ends the process, thereby the kernel, and the console says why.

mod cut;
mod dm;
mod log;
mod machine;
mod syncs;
mod work;

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;

use anyhow::{Context, ensure};
use caregate_crash::{Random, Syncs};
use serde::Serialize;

use crate::cut::Tally;
use crate::log::Log;

/// The line begins so (`xtask/src/kernels/power.rs`).
const MARK: &str = "caregate-power: ";
const DATA: &str = "/dev/vda";
const LOG: &str = "/dev/vdb";
const CUT: &str = "/dev/vdc";
/// Where the disk is mounted.
const PLACE: &str = "/disk";

#[derive(Debug, Default, Serialize)]
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

fn main() -> anyhow::Result<()> {
    let mut report = Report::default();
    if let Err(error) = test(&mut report) {
        report.error = Some(format!("{error:#}"));
    }
    // The kernel may have left a line of its own unfinished.
    let line = format!("\n{MARK}{}\n", serde_json::to_string(&report)?);
    std::io::stdout().lock().write_all(line.as_bytes())?;
    machine::power_off()
}

fn test(report: &mut Report) -> anyhow::Result<()> {
    machine::set_up()?;
    report.version = machine::version();
    let told = machine::Told::read()?;
    let before = std::fs::read(DATA).context(DATA)?;
    let lived = lived(&told, before.len() as u64)?;
    let log = Log::read(BufReader::new(File::open(LOG).context(LOG)?)).context("what dm-log-writes wrote")?;
    report.entries = log.entries.len();
    report.flushes = log.entries.iter().filter(|entry| entry.is_flush()).count();
    report.acked = lived.acknowledged();
    let Tally { points, lost, losing_points, duplicated, undetected_corruptions, false_alarms } =
        cut::try_points(before, &log, &lived, &told)?;
    report.points = points;
    report.lost = lost;
    report.losing_points = losing_points;
    report.duplicated = duplicated;
    report.undetected_corruptions = undetected_corruptions;
    report.false_alarms = false_alarms;
    Ok(())
}

/// The spool at work on a disk of which every write is kept.
fn lived(told: &machine::Told, bytes: u64) -> anyhow::Result<work::Lived> {
    let device = dm::Device::log_writes("watched", DATA, LOG, bytes / log::SECTOR as u64)?;
    machine::mount_ext4(device.path(), PLACE)?;
    let (told, watched) = (told.clone(), &device);
    // In a thread of its own: a filter of its system calls stays for as long as the thread lives.
    let lived = std::thread::scope(|scope| {
        let life = scope.spawn(move || {
            if told.syncs == Syncs::TakenOut {
                syncs::take_out()?;
            }
            ensure!(
                syncs::are_taken_out() == (told.syncs == Syncs::TakenOut),
                "syncs are not as they were told to be"
            );
            let mark = |number: usize| watched.mark(&number.to_string());
            work::live(&Path::new(PLACE).join("spool"), told.commits, Random::new(told.seed), &mark)
        });
        life.join().map_err(|_panic| anyhow::anyhow!("the spool's thread panicked"))
    })??;
    machine::unmount(PLACE)?;
    device.remove()?;
    Ok(lived)
}
