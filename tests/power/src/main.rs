//! Process 1 of a machine whose disk loses power (`cargo xtask chaos --long`, docs/adr/0019-power-cuts-and-kills.md).
//!
//! ```text
//!  /dev/vda, ext4 ◀── dm-log-writes ◀── what is tried, at work               /dev/vdb: every write and flush, and what was promised when
//!        │                                                                       │
//!        └─ as it was before ──▶ /dev/vdc ◀── what of them a power cut leaves ◀──┘        mounted, opened, compared; again and again
//! ```
//! What is tried: the spool alone, in this process; gateway and core, as the processes that they are, with sensors in this one; the core,
//! with a gateway's end of the uplink in this one. Promises are kept in this process's memory, which no power cut reaches.

mod cut;
mod dm;
mod log;
mod pipeline;
mod segments;
mod session;
mod spool;
mod store;
mod syncs;
mod told;
mod uplink;
mod work;

#[allow(clippy::unwrap_used, reason = "of the tests of gateway and core")]
#[path = "../../tests/gateway_to_core/found.rs"]
mod found;
#[path = "../../../core-cloud/tests/support/pki.rs"]
mod pki;
#[allow(dead_code, clippy::unwrap_used, reason = "of the tests of gateway and core")]
#[path = "../../tests/gateway_to_core/publisher.rs"]
mod publisher;
#[path = "../../../core-cloud/tests/support/records.rs"]
mod records;
#[allow(dead_code, clippy::unwrap_used, clippy::print_stdout, reason = "of the tests of gateway and core")]
#[path = "../../tests/gateway_to_core/sensors.rs"]
mod sensors;
#[allow(dead_code, clippy::unwrap_used, clippy::print_stdout, reason = "of the tests of gateway and core")]
#[path = "../../tests/gateway_to_core/site.rs"]
mod site;

use std::fs::File;
use std::io::BufReader;

use anyhow::{Context, anyhow, ensure};
use caregate_crash::Syncs;
use caregate_guest::power::Report;
use caregate_guest::{machine, netlink};

use crate::log::Log;
use crate::told::Told;
use crate::work::Work;

/// devtmpfs has the disks, and the device mapper's control.
const MOUNTS: [(&str, &str); 3] = [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")];
const DATA: &str = "/dev/vda";
const LOG: &str = "/dev/vdb";
const CUT: &str = "/dev/vdc";
/// Where the disk is mounted.
const PLACE: &str = "/disk";

fn main() -> anyhow::Result<()> {
    caregate_guest::process_1(&MOUNTS, test)
}

fn test(report: &mut Report) -> anyhow::Result<()> {
    netlink::switch_on("lo").context("the loopback")?;
    let told = Told::parse(&machine::command_line()?)?;
    let before = std::fs::read(DATA).context(DATA)?;
    let work = lived(&told, before.len() as u64)?;
    let log = Log::read(BufReader::new(File::open(LOG).context(LOG)?)).context("what dm-log-writes wrote")?;
    report.entries = log.entries.len();
    report.flushes = log.entries.iter().filter(|entry| entry.is_flush()).count();
    report.acked = work.promised();
    *report += cut::try_points(before, &log, work.as_ref(), &told)?;
    Ok(())
}

/// At work on a disk of which every write is kept.
fn lived(told: &Told, bytes: u64) -> anyhow::Result<Box<dyn Work>> {
    let device = dm::Device::log_writes("watched", DATA, LOG, bytes / log::SECTOR as u64)?;
    machine::mount_ext4(device.path(), PLACE)?;
    let watched = &device;
    // In a thread of its own: a filter of its system calls stays for as long as the thread and what it starts live.
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
            told.work.live(told, &mark)
        });
        life.join().map_err(|_panic| anyhow!("the work panicked; the console says where"))
    })??;
    machine::unmount(PLACE)?;
    device.remove()?;
    Ok(lived)
}
