//! Our switch with one rule set, in maps of its own, loaded and filled by the helper's own code.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, ensure};
use caregate_datapathd::kernel::Kernel;
use caregate_datapathd::switch::check::Guard;
use caregate_datapathd::switch::{Series, Switch};
use caregate_datapathd::{object, stages};
use caregate_ebpf_common::map::port_word;
use caregate_protocol::datapath::switch::{CHANGES_MAX, Change};
use caregate_tests::bpf;
use caregate_tests::rules::{self, FRAME, Flow, IN_PORT, Kind, OUT_PORT};

/// The kernel runs a program on a frame as if it came by the loopback.
const LOOPBACK: u32 = 1;
/// The controller's first table, table 0 being the policy's.
const TABLE: u8 = 1;
const SESSION: u64 = 1;

/// The switch.
pub(super) struct Ours {
    /// The XDP program of switch ports.
    pub(super) enter: OwnedFd,
    /// Of all its maps.
    pub(super) map_mib: f64,
    switch: Switch,
    kernel: RefCell<Kernel>,
    /// The last flow's name.
    last: u64,
    // The kernel empties it when nobody has it.
    _stages: stages::Stages,
    _ebpf: aya::Ebpf,
}

impl Ours {
    /// With so many flows of a set in force.
    pub(super) fn load(kind: Kind, size: usize) -> anyhow::Result<Self> {
        Self::with(&rules::generate(kind, size, rules::SEED))
    }

    /// With these flows in force.
    pub(super) fn with(flows: &[Flow]) -> anyhow::Result<Self> {
        let before = maps()?;
        let mut ebpf = object::load(None)?;
        let map_bytes: u64 =
            maps()?.iter().filter(|(id, _)| !before.contains_key(*id)).map(|(_, of)| of).sum();
        let stages = stages::load(&mut ebpf)?;
        let enter = stages::enter(&mut ebpf)?.fd()?.as_fd().try_clone_to_owned()?;
        let mut kernel = Kernel::open(&mut ebpf)?;
        kernel.set_ports(&[(LOOPBACK, [port_word(IN_PORT, false), 0, 0, 0])], &[])?;
        let mut switch = Switch::open(&mut ebpf, Guard { sensor_ports: 0, is_on: true })?;
        switch.set_live(1 << IN_PORT | 1 << OUT_PORT)?;
        let changes: Vec<Change> =
            (1..).zip(flows).map(|(id, flow)| Change::PutFlow(flow.entry(id, TABLE))).collect();
        let mut series = Series::default();
        let frames = changes.len().div_ceil(CHANGES_MAX);
        for (number, changes) in (1..).zip(changes.chunks(CHANGES_MAX)) {
            let is_in_force = switch.change(&mut series, changes.to_vec(), number < frames, SESSION)?;
            ensure!(is_in_force == (number == frames), "the switch waits for more changes");
        }
        let last = u64::try_from(flows.len())?;
        let map_mib = map_bytes as f64 / 1024.0 / 1024.0;
        let kernel = RefCell::new(kernel);
        Ok(Self { enter, map_mib, switch, kernel, last, _stages: stages, _ebpf: ebpf })
    }

    /// Frames by an interface are of the switch's first port too.
    pub(super) fn take_port(&self, interface: u32) -> anyhow::Result<()> {
        let words = [port_word(IN_PORT, false), 0, 0, 0];
        Ok(self.kernel.borrow_mut().set_ports(&[(LOOPBACK, words), (interface, words)], &[])?)
    }

    /// Nanoseconds of a program that leads to `enter`; every run of it has met the last flow.
    pub(super) fn time(&self, program: &impl std::os::fd::AsRawFd, repeat: u32) -> anyhow::Result<f64> {
        let before = self.met()?;
        let run = bpf::time(program, &FRAME, repeat)?;
        ensure!(run.verdict == bpf::DROP, "the verdict was {}", run.verdict);
        let met = self.met()? - before;
        ensure!(met == u64::from(repeat), "{met} of {repeat} frames met the last flow");
        Ok(run.ns.into())
    }

    /// What `run` says, where frames have met the last flow meanwhile and no other.
    pub(super) fn counted(&self, run: impl Fn() -> anyhow::Result<f64>) -> anyhow::Result<f64> {
        let (before, all_before) = (self.met()?, self.looked_up()?);
        let figure = run()?;
        let (met, all) = (self.met()? - before, self.looked_up()? - all_before);
        ensure!(met > 0 && met == all, "{met} of {all} frames met the last flow");
        Ok(figure)
    }

    fn met(&self) -> anyhow::Result<u64> {
        let flows = self.switch.counters()?.flows;
        Ok(flows.iter().find(|flow| flow.id == self.last).map_or(0, |flow| flow.traffic.frames))
    }

    fn looked_up(&self) -> anyhow::Result<u64> {
        let tables = self.switch.counters()?.tables;
        Ok(tables.get(usize::from(TABLE)).context("no such table")?.lookups)
    }
}

/// The maps that this process has, and the bytes of each (`/proc/PID/fdinfo`).
fn maps() -> anyhow::Result<BTreeMap<u32, u64>> {
    let mut maps = BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/fdinfo")? {
        // A descriptor may have been closed meanwhile, as that of this listing.
        let Ok(text) = std::fs::read_to_string(entry?.path()) else { continue };
        let number = |key: &str| -> Option<u64> {
            text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
        };
        if let (Some(id), Some(bytes)) = (number("map_id:"), number("memlock:")) {
            maps.insert(u32::try_from(id)?, bytes);
        }
    }
    Ok(maps)
}
