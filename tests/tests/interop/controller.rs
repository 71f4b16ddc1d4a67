//! The controllers, in environments of their own (`cargo xtask interop` makes them), listening in the switch's namespace.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use caregate_host::identity::{IdentityFiles, Role};

use crate::ground::{Ground, Process, target, wait_for};
use crate::pki::Pki;
use crate::{DATAPATH_ID, ground};

/// OpenFlow's port; each namespace has its own.
pub(crate) const PORT: u16 = 6653;

/// One of them, and what it said.
pub(crate) struct Controller {
    _process: Process,
    said: PathBuf,
    log: PathBuf,
}

/// A program of an environment.
fn program(environment: &str, name: &str) -> PathBuf {
    let path = target().join("interop").join(environment).join("bin").join(name);
    assert!(path.exists(), "{} is not there; run: cargo xtask interop", path.display());
    path
}

impl Controller {
    /// os-ken's learning switch.
    pub(crate) fn learning_switch(ground: &Ground, pki: &Pki) -> Self {
        let IdentityFiles { certificate, key, ca } = pki.issue(Role::Controller, "controller-1");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/interop/learning_switch.py");
        let mut command = ground.command(program("os-ken", "python3"));
        command.arg(script).arg(PORT.to_string()).args([key, certificate, ca]);
        Self::start(ground, command, ground.folder().join("complaints"))
    }

    /// Faucet.
    pub(crate) fn faucet(ground: &Ground, pki: &Pki) -> Self {
        let IdentityFiles { certificate, key, ca } = pki.issue(Role::Controller, "controller-1");
        let template = concat!(env!("CARGO_MANIFEST_DIR"), "/interop/faucet.yaml");
        let text = fs::read_to_string(template).unwrap().replace("DATAPATH_ID", &format!("{DATAPATH_ID:#x}"));
        let path = |name: &str| ground.folder().join(name);
        fs::write(path("faucet.yaml"), text).unwrap();
        let faucet = program("faucet", "faucet");
        let mut command = ground.command(&faucet);
        // It starts os-ken's launcher by name.
        command.env("PATH", format!("{}:/usr/bin:/bin", faucet.parent().unwrap().display()));
        command.env("FAUCET_CONFIG", path("faucet.yaml")).env("FAUCET_LOG", path("faucet.log"));
        command.env("FAUCET_EXCEPTION_LOG", path("exceptions")).env("FAUCET_PROMETHEUS_ADDR", "127.0.0.1");
        command.env("FAUCET_EVENT_SOCK", "0").current_dir(ground.folder());
        command.arg(format!("--ryu-ofp-ssl-listen-port={PORT}")).arg("--ryu-ofp-listen-host=127.0.0.1");
        command.arg("--ryu-ctl-privkey").arg(key).arg("--ryu-ctl-cert").arg(certificate);
        command.arg("--ryu-ca-certs").arg(ca);
        Self::start(ground, command, path("faucet.log"))
    }

    fn start(ground: &Ground, mut command: Command, log: PathBuf) -> Self {
        let said = ground.folder().join("said");
        let file = File::create(&said).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file).stdin(Stdio::null());
        let process = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut process = Process(process);
        wait_for("the controller to listen", || {
            let ended = process.0.try_wait().unwrap();
            assert!(ended.is_none(), "the controller ended: {}", fs::read_to_string(&said).unwrap());
            let listening = ground::run(ground.command("ss").args(["-Hltn", &format!("sport = :{PORT}")]));
            (!listening.is_empty()).then_some(())
        });
        Self { _process: process, said, log }
    }

    /// How often the learning switch has told of this.
    pub(crate) fn count(&self, event: &str) -> usize {
        let said = fs::read_to_string(&self.said).unwrap();
        said.matches(&format!("\"event\": \"{event}\"")).count()
    }

    /// Faucet logs what a switch refuses.
    pub(crate) fn assert_no_complaint(&self) {
        let log = fs::read_to_string(&self.log).unwrap();
        assert!(log.contains("Cold start configuring DP"), "{log}");
        let complaints: Vec<_> = log.lines().filter(|line| line.contains("OFError")).collect();
        assert!(complaints.is_empty(), "{complaints:#?}");
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for file in [&self.said, &self.log] {
                let text = fs::read_to_string(file).unwrap_or_default();
                println!("--- {}", file.display());
                let lines: Vec<_> = text.lines().collect();
                lines.iter().skip(lines.len().saturating_sub(40)).for_each(|line| println!("{line}"));
            }
        }
    }
}
