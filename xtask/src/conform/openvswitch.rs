//! Open vSwitch from Debian, in user space (`datapath_type=netdev`), with a run directory of its own.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::network::{Namespace, run};
use super::process::Process;
use crate::pki::Issued;

/// Its schema, where Debian's package has it.
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// Time for a daemon to make its socket.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Flows in its datapath live this long without traffic and are looked at this often. With the defaults (10 s and 500 ms) counters come late
/// and what an earlier case left behind is still there in the next, so verdicts flake.
const IDLE_MS: &str = "50";

/// A bridge to make.
#[derive(Debug)]
pub(super) struct Bridge<'a> {
    pub(super) name: &'a str,
    /// 16 hexadecimal digits.
    pub(super) datapath_id: &'a str,
    /// Numbered from 1.
    pub(super) ports: [&'a str; 3],
    /// As `ovs-vsctl set-controller` takes it.
    pub(super) controller: &'a str,
}

/// Database and switch. Dropped in this order.
#[derive(Debug)]
pub(super) struct OpenVswitch {
    switch: Process,
    _database: Process,
}

impl OpenVswitch {
    /// Starts it with these bridges; sockets go to `run_dir`.
    pub(super) fn start(
        namespace: &Namespace,
        bridges: &[Bridge<'_>],
        identity: &Issued,
        run_dir: &Path,
        logs: &Path,
    ) -> anyhow::Result<Self> {
        let place = Place { namespace, run_dir };
        let (database, socket) = (run_dir.join("conf.db"), run_dir.join("db.sock"));
        run(place.command("ovsdb-tool").arg("create").arg(&database).arg(SCHEMA))?;
        let mut command = place.command("ovsdb-server");
        command.arg(&database).arg(format!("--remote=punix:{}", socket.display()));
        let mut server = Process::start("ovsdb-server", place.daemon(command, "ovsdb"), logs, false)?;
        server.wait_until("its socket is there", START_TIMEOUT, || socket.exists())?;
        run(&mut place.vsctl(&["--no-wait", "init"]))?;
        let (max_idle, max_revalidator) =
            (format!("other_config:max-idle={IDLE_MS}"), format!("other_config:max-revalidator={IDLE_MS}"));
        run(&mut place.vsctl(&["--no-wait", "set", "Open_vSwitch", ".", &max_idle, &max_revalidator]))?;
        let files =
            [&identity.key, &identity.certificate, &identity.ca].map(|path| path.display().to_string());
        run(&mut place.vsctl(&["--no-wait", "set-ssl", &files[0], &files[1], &files[2]]))?;
        let mut command = place.command("ovs-vswitchd");
        command.arg(format!("unix:{}", socket.display()));
        let mut switch = Process::start("ovs-vswitchd", place.daemon(command, "vswitchd"), logs, false)?;
        let control = run_dir.join("vswitchd.ctl");
        switch.wait_until("its control socket is there", START_TIMEOUT, || control.exists())?;
        for bridge in bridges {
            // Without --no-wait: returns when the switch has made it.
            run(&mut place.vsctl(&bridge_words(bridge).iter().map(String::as_str).collect::<Vec<_>>()))?;
        }
        Ok(Self { switch, _database: server })
    }

    /// Fails where the switch has ended.
    pub(super) fn alive(&mut self) -> anyhow::Result<()> {
        self.switch.alive()
    }
}

fn bridge_words(bridge: &Bridge<'_>) -> Vec<String> {
    let Bridge { name, datapath_id, ports, controller } = bridge;
    let mut words = format!(
        "--timeout=20 add-br {name} -- set bridge {name} datapath_type=netdev fail_mode=secure protocols=OpenFlow13 \
         other_config:datapath-id={datapath_id}"
    );
    for (at, port) in ports.iter().enumerate() {
        words += &format!(" -- add-port {name} {port} -- set interface {port} ofport_request={}", at + 1);
    }
    words += &format!(
        " -- set-controller {name} {controller} -- set controller {name} max_backoff=1000 inactivity_probe=0"
    );
    words.split(' ').map(str::to_owned).collect()
}

/// Where its programs find each other.
struct Place<'a> {
    namespace: &'a Namespace,
    run_dir: &'a Path,
}

impl Place<'_> {
    fn command(&self, program: &str) -> Command {
        let mut command = self.namespace.command(program);
        for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"] {
            command.env(variable, self.run_dir);
        }
        command
    }

    fn daemon(&self, mut command: Command, name: &str) -> Command {
        let control = self.run_dir.join(format!("{name}.ctl"));
        // It writes its log to standard error.
        command.arg("--no-chdir").arg(format!("--unixctl={}", control.display()));
        command
    }

    fn vsctl(&self, words: &[&str]) -> Command {
        let mut command = self.command("ovs-vsctl");
        command.arg(format!("--db=unix:{}", self.run_dir.join("db.sock").display())).args(words);
        command
    }
}
