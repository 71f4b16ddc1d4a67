//! Our switch: `caregate-datapathd` and `edge-gateway switch`, built with the cargo feature `conformance`, which leaves the guard of
//! table 0 and sensor ports out.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use caregate_host::key_file::{self, Existing};

use super::network::{Namespace, TARGET_PORTS, run};
use super::process::Process;
use crate::pki::Issued;
use crate::{build, say};

/// The feature without which a controller has no table 0.
const FEATURE: &str = "conformance";
/// The two packages, their folders, and what each is called as a program.
const PACKAGES: [(&str, &str); 2] = [("caregate-datapathd", "ebpf/helper"), ("edge-gateway", "edge-gateway")];
/// Time for the helper to load its programs and make its socket.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Admin ports of helper and switch; each namespace has its own loopback.
const ADMIN: [&str; 2] = ["127.0.0.1:9101", "127.0.0.1:9102"];

/// The programs of the build without guard.
#[derive(Debug)]
pub(super) struct Programs {
    helper: PathBuf,
    gateway: PathBuf,
}

impl Programs {
    /// Those of a build with guard, which lie beside this one.
    pub(super) fn guarded() -> anyhow::Result<Self> {
        let folder = build::binaries()?;
        Ok(Self { helper: folder.join(PACKAGES[0].0), gateway: folder.join(PACKAGES[1].0) })
    }
}

/// The programs, built first if so asked.
pub(super) fn programs(is_to_build: bool) -> anyhow::Result<Programs> {
    let beside = build::binaries()?;
    let folder = beside.join(FEATURE);
    if is_to_build {
        check()?;
        build(&beside, &folder)?;
    }
    let programs = Programs { helper: folder.join(PACKAGES[0].0), gateway: folder.join(PACKAGES[1].0) };
    let asked = run(Command::new(&programs.gateway).args(["switch", "--help"]));
    asked.context(
        "our switch can't run the suite: `edge-gateway switch` (the OpenFlow agent alone) is missing",
    )?;
    Ok(programs)
}

/// Into `conformance/` beside the usual ones, which are removed: a build without guard must not be taken for one.
fn build(beside: &Path, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    say("conform: building our switch with the feature `conformance`");
    let mut cargo = build::cargo_command();
    cargo.args(["build", "--release", "--bins", "--features", FEATURE]).current_dir(build::root()?);
    cargo.args(PACKAGES.iter().flat_map(|(package, _)| ["--package", package]));
    build::run(&mut cargo)?;
    for (program, _) in PACKAGES {
        let (from, to) = (beside.join(program), folder.join(program));
        std::fs::copy(&from, &to).with_context(|| from.display().to_string())?;
        std::fs::remove_file(&from).with_context(|| from.display().to_string())?;
    }
    Ok(())
}

/// Whether this checkout has a switch without guard.
fn check() -> anyhow::Result<()> {
    for (package, folder) in PACKAGES {
        let path = build::root()?.join(folder).join("Cargo.toml");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let manifest: toml::Table = toml::from_str(&text).with_context(|| path.display().to_string())?;
        if manifest.get("features").and_then(|features| features.get(FEATURE)).is_none() {
            bail!(
                "our switch can't run the suite: {package} has no cargo feature `{FEATURE}`, the build without a guard of table 0"
            );
        }
    }
    Ok(())
}

/// A BPF file system for the pins; unmounted when dropped, and what is pinned in it goes.
#[derive(Debug)]
struct Pins(PathBuf);

impl Pins {
    fn mount(folder: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        run(Command::new("mount").args(["-t", "bpf", "-o", "mode=0700", "caregate-conform"]).arg(&folder))?;
        Ok(Self(folder))
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        // One that stays is found by the next run.
        drop(run(Command::new("umount").arg(&self.0)));
    }
}

/// Unmounts what runs left whose process is gone: the folder above all of a run's is named by it.
pub(super) fn remove_leftovers(runs: &Path) -> anyhow::Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
    for at in mounts.lines().filter_map(|line| line.strip_prefix("caregate-conform ")?.split(' ').next()) {
        let owner = Path::new(at).strip_prefix(runs).ok().and_then(|rest| rest.iter().next()?.to_str());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            run(Command::new("umount").arg(at))?;
        }
    }
    Ok(())
}

/// The two processes. Dropped in this order.
#[derive(Debug)]
pub(super) struct Switch {
    gateway: Process,
    helper: Process,
    _pins: Pins,
}

/// How the switch is to be.
#[derive(Debug)]
pub(super) struct Start<'a> {
    pub(super) programs: &'a Programs,
    pub(super) identity: &'a Issued,
    /// Its controller's address and the name in its certificate.
    pub(super) controller: (&'a str, &'a str),
    pub(super) datapath_id: &'a str,
    pub(super) folder: &'a Path,
    pub(super) logs: &'a Path,
}

impl Switch {
    /// Starts it on the target's ports.
    pub(super) fn start(namespace: &Namespace, how: &Start<'_>) -> anyhow::Result<Self> {
        let Start { programs, folder, logs, .. } = how;
        let pins = Pins::mount(folder.join("bpf"))?;
        let socket = folder.join("datapath.sock");
        let helper_file = write(&folder.join("datapathd.toml"), &helper_file(&pins.0, &socket))?;
        let mut command = namespace.command(&programs.helper.display().to_string());
        command.arg("--config").arg(helper_file);
        let mut helper = Process::start("caregate-datapathd", command, logs, false)?;
        helper.wait_until("its socket is there", START_TIMEOUT, || socket.exists())?;
        let gateway_file = write(&folder.join("switch.toml"), &gateway_file(how, &socket))?;
        let mut command = namespace.command(&programs.gateway.display().to_string());
        command.arg("switch").arg("--config").arg(gateway_file);
        let gateway = Process::start("edge-gateway", command, logs, false)?;
        Ok(Self { gateway, helper, _pins: pins })
    }

    /// Fails where one of the two has ended.
    pub(super) fn alive(&mut self) -> anyhow::Result<()> {
        self.helper.alive()?;
        self.gateway.alive()
    }
}

fn write(path: &Path, table: &toml::Table) -> anyhow::Result<PathBuf> {
    key_file::write_public(path, toml::to_string(table)?.as_bytes(), Existing::Replace)?;
    Ok(path.to_owned())
}

fn helper_file(pins: &Path, socket: &Path) -> toml::Table {
    let mut file = toml::Table::new();
    file.insert("socket".into(), socket.display().to_string().into());
    // Root, who this is.
    file.insert("user".into(), "0".into());
    file.insert("switch_ports".into(), TARGET_PORTS.to_vec().into());
    file.insert("pin".into(), pins.join("caregate").display().to_string().into());
    file.insert("admin".into(), ADMIN[0].into());
    file
}

fn gateway_file(how: &Start<'_>, socket: &Path) -> toml::Table {
    let text = |path: &Path| toml::Value::from(path.display().to_string());
    let table = |entries: [(&str, toml::Value); 3]| -> toml::Value {
        entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<toml::Table>().into()
    };
    let mut file = toml::Table::new();
    file.insert("data".into(), text(&how.folder.join("data")));
    file.insert("admin".into(), ADMIN[1].into());
    let Issued { certificate, key, ca, .. } = how.identity;
    let identity = [("certificate", text(certificate)), ("key", text(key)), ("ca", text(ca))];
    file.insert("identity".into(), table(identity));
    file.insert("datapath".into(), toml::Table::from_iter([("helper".to_owned(), text(socket))]).into());
    let (address, name) = how.controller;
    let controller =
        [("address", address.into()), ("name", name.into()), ("datapath_id", how.datapath_id.into())];
    file.insert("controller".into(), table(controller));
    file
}
