//! How fast a switch takes flows: ours, with its guard, and Open vSwitch, from the same file. It uses the labs' parts.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;

use super::network::{self, Namespace, TARGET_PORTS, TESTER_PORTS};
use super::openvswitch::{Bridge, OpenVswitch};
use super::ours::{self, Programs};
use super::process::Process;
use super::{CONTROLLER_NAME, certificates};
use crate::pki::Issued;
use crate::{build, say};

const DATAPATH_ID: &str = "0000000000000001";
const CONTROLLER: &str = "127.0.0.1:6653";
const CONTROLLER_TCP: &str = "tcp:127.0.0.1:6653";
/// Flows of the file: as many as our switch has room for.
const FLOWS: &str = "4096";
/// Time for one switch to come and to take them all.
const TIMEOUT: Duration = Duration::from_secs(300);

/// What `flow-mods send` says.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Figures {
    pub(crate) flow_mods_per_s: f64,
    barrier_s: f64,
    in_force_s: f64,
}

/// A round of each, one after the other, so many times: ours and Open vSwitch's.
///
/// # Errors
/// What could not be started, or a flow that was refused.
pub(crate) fn measure(rounds: u32) -> anyhow::Result<Vec<(Figures, Figures)>> {
    network::remove_leftovers()?;
    let runs = std::env::temp_dir().join("caregate-conform");
    ours::remove_leftovers(&runs)?;
    let folder = runs.join(std::process::id().to_string());
    let logs = build::root()?.join("target/bench/flow-mods");
    std::fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
    let outcome = all(rounds, &folder, &logs);
    drop(std::fs::remove_dir_all(&folder));
    outcome.with_context(|| format!("flow-mods (logs in {})", logs.display()))
}

fn all(rounds: u32, folder: &Path, logs: &Path) -> anyhow::Result<Vec<(Figures, Figures)>> {
    let (controller, switch) = certificates(&folder.join("pki"))?;
    let programs = Programs::guarded()?;
    let file = folder.join("flow-mods.bin");
    let mut command = Command::new(build::binaries()?.join("flow-mods"));
    build::run(command.args(["write", "--flows", FLOWS, "--out"]).arg(&file))?;
    let bench = Bench { controller, switch, programs, file: &file, folder, logs };
    let mut figures = Vec::new();
    for round in 1..=rounds {
        let (ours, ovs) = (bench.ours()?, bench.openvswitch()?);
        for (name, of) in [("ours", ours), ("Open vSwitch", ovs)] {
            say(&format!(
                "flow-mods: round {round}, {name}: {:.0}/s (barrier after {:.3} s, in force after {:.3} s)",
                of.flow_mods_per_s, of.barrier_s, of.in_force_s
            ));
        }
        figures.push((ours, ovs));
    }
    Ok(figures)
}

struct Bench<'b> {
    controller: Issued,
    switch: Issued,
    programs: Programs,
    file: &'b Path,
    folder: &'b Path,
    logs: &'b Path,
}

impl Bench<'_> {
    /// A namespace, and the controller that waits in it for a switch.
    fn begin(&self, more: &[&str]) -> anyhow::Result<(Namespace, Process)> {
        let namespace = Namespace::make(0)?;
        let said = self.logs.join("flow-mods.log");
        if said.exists() {
            std::fs::remove_file(&said)?;
        }
        let mut command = namespace.command(&build::binaries()?.join("flow-mods").display().to_string());
        command.arg("send").arg("--file").arg(self.file).args(["--listen", CONTROLLER]).args(more);
        command.args(["--probe-from", TESTER_PORTS[0], "--probe-to", TESTER_PORTS[1]]);
        let controller = Process::start("flow-mods", command, self.logs, false)?;
        Ok((namespace, controller))
    }

    fn end(&self, mut controller: Process) -> anyhow::Result<Figures> {
        let said = self.logs.join("flow-mods.log");
        let figures = || {
            let text = std::fs::read_to_string(&said).ok()?;
            text.lines().rev().find_map(|line| serde_json::from_str::<Figures>(line).ok())
        };
        // It may have ended, and then what it said counts.
        let waited = controller.wait_until("all flows are in force", TIMEOUT, || figures().is_some());
        match figures() {
            Some(figures) => Ok(figures),
            None => bail!("{:#}", waited.err().context("it said nothing")?),
        }
    }

    fn ours(&self) -> anyhow::Result<Figures> {
        let of = &self.controller;
        let files = [&of.certificate, &of.key, &of.ca].map(|path| path.display().to_string());
        let more = ["--certificate", &files[0], "--key", &files[1], "--ca", &files[2]];
        let (namespace, controller) = self.begin(&more)?;
        let folder = self.fresh("ours")?;
        let how = ours::Start {
            programs: &self.programs,
            identity: &self.switch,
            controller: (CONTROLLER, CONTROLLER_NAME),
            datapath_id: DATAPATH_ID,
            folder: &folder,
            logs: self.logs,
        };
        let switch = ours::Switch::start(&namespace, &how)?;
        let figures = self.end(controller);
        drop(switch);
        figures
    }

    fn openvswitch(&self) -> anyhow::Result<Figures> {
        let (namespace, controller) = self.begin(&["--table-0-goes-on"])?;
        let folder = self.fresh("ovs")?;
        let bridge = Bridge {
            name: "target",
            datapath_id: DATAPATH_ID,
            ports: TARGET_PORTS,
            controller: CONTROLLER_TCP,
        };
        let switch = OpenVswitch::start(&namespace, &[bridge], &self.switch, &folder, self.logs)?;
        let figures = self.end(controller);
        drop(switch);
        figures
    }

    fn fresh(&self, name: &str) -> anyhow::Result<std::path::PathBuf> {
        let folder = self.folder.join(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(folder)
    }
}
