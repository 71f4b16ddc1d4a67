//! Ours as the switch: `edge-gateway switch` with its helper, built without guard.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use caregate_host::identity::{IdentityFiles, Role};
use tempfile::TempDir;

use crate::controller::PORT;
use crate::ground::{Ground, Process, run, target, wait_for};
use crate::pki::Pki;
use crate::{DATAPATH_ID, Switch};

/// Of its `/metrics`; each namespace has its own.
const ADMIN: &str = "127.0.0.1:9101";

/// A BPF file system for the pins, taken off on drop.
struct Pins(TempDir);

impl Pins {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        run(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(folder.path()));
        Self(folder)
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let off = Command::new("umount").arg(self.0.path()).status();
        let is_off = off.is_ok_and(|status| status.success());
        assert!(is_off || std::thread::panicking(), "{} is left behind", self.0.path().display());
    }
}

/// Its two processes. Dropped in this order.
pub(crate) struct Caregate {
    switch: Process,
    _helper: Process,
    _pins: Pins,
    logs: [PathBuf; 2],
}

impl Caregate {
    /// How many flows the daemon has.
    pub(crate) fn flows(&self, ground: &Ground) -> u32 {
        let text = metrics(ground);
        let line = text.lines().find_map(|line| line.strip_prefix("caregate_gateway_openflow_flows "));
        line.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no flows in {text}"))
    }

    /// Ends the daemon as an operator would; the helper and what it has told the kernel stay.
    pub(crate) fn stop(&mut self) {
        run(Command::new("kill").args(["-TERM", &self.switch.0.id().to_string()]));
        let status = wait_for("the daemon to end", || self.switch.0.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }
}

/// A program of the builds without guard.
fn program(name: &str) -> PathBuf {
    let path = target().join("release/conformance").join(name);
    assert!(path.is_file(), "{} is not there; run: cargo xtask interop", path.display());
    let version = run(Command::new(&path).arg("--version"));
    assert!(version.contains("+conformance"), "{}: {version}", path.display());
    path
}

fn start(ground: &Ground, name: &str, more: &[&str], config: &Path) -> (Process, PathBuf) {
    let log = ground.folder().join(format!("{name}.log"));
    let mut command = ground.command(program(name));
    command.args(more).arg("--config").arg(config).stderr(File::create(&log).unwrap());
    (Process(command.spawn().unwrap()), log)
}

impl Switch for Caregate {
    fn start(ground: &Ground, pki: &Pki) -> Self {
        let path = |name: &str| ground.folder().join(name);
        let (pins, socket) = (Pins::new(), path("datapath.sock"));
        let helper = format!(
            "socket = {socket:?}\nuser = \"0\"\nswitch_ports = {:?}\npin = {:?}\nadmin = \"127.0.0.1:0\"\n",
            ground.ports(),
            pins.0.path().join("caregate"),
        );
        fs::write(path("datapathd.toml"), helper).unwrap();
        let (helper, helper_log) = start(ground, "caregate-datapathd", &[], &path("datapathd.toml"));
        let tail = |log: &Path| fs::read_to_string(log).unwrap_or_default();
        let mut helper = helper;
        wait_for("the helper to listen", || {
            let ended = helper.0.try_wait().unwrap();
            assert!(ended.is_none(), "the helper ended: {}", tail(&helper_log));
            // Its socket is there before the kernel has checked its programs.
            tail(&helper_log).contains("listening").then_some(())
        });
        let IdentityFiles { certificate, key, ca } = pki.issue(Role::Gateway, "switch-1");
        let switch = format!(
            "data = {:?}\nadmin = \"{ADMIN}\"\nidentity = {{ certificate = {certificate:?}, key = {key:?}, ca = {ca:?} }}\n\
             [datapath]\nhelper = {socket:?}\n\
             [controller]\naddress = \"127.0.0.1:{PORT}\"\nname = \"controller-1\"\ndatapath_id = \"{DATAPATH_ID:016x}\"\n",
            path("data"),
        );
        fs::write(path("switch.toml"), switch).unwrap();
        let (mut switch, switch_log) = start(ground, "edge-gateway", &["switch"], &path("switch.toml"));
        wait_for("the switch's controller", || {
            let ended = switch.0.try_wait().unwrap();
            assert!(ended.is_none(), "the switch ended: {}", tail(&switch_log));
            metrics(ground).contains("caregate_gateway_openflow_connected 1").then_some(())
        });
        assert!(metrics(ground).contains("caregate_switch_guard 0"), "this build says that it has a guard");
        Self { switch, _helper: helper, _pins: pins, logs: [switch_log, helper_log] }
    }
}

/// `/metrics`, from inside the namespace; nothing while nobody listens.
fn metrics(ground: &Ground) -> String {
    let mut command = ground.command("/usr/bin/python3");
    let script =
        "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())";
    command.args(["-c", script, &format!("http://{ADMIN}/metrics")]);
    String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned()
}

impl Drop for Caregate {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in &self.logs {
                println!("--- {}\n{}", log.display(), fs::read_to_string(log).unwrap_or_default());
            }
        }
    }
}
