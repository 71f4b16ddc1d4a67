//! Open vSwitch with one bridge: its database server and its switch, in the foreground and in folders of their own.

use std::process::{Child, Command, Stdio};

use caregate_host::identity::Role;
use tempfile::TempDir;

use super::{Pki, run, wait_for};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// One bridge, `br0`, with a certificate of role `gateway` and name `ward-switch`. Both processes are ended on drop.
pub(crate) struct OpenVswitch {
    folder: TempDir,
    database: Child,
    switch: Child,
}

fn start(program: &str, arguments: &[&str], folder: &TempDir) -> Child {
    let mut command = Command::new(program);
    command.args(arguments).env("OVS_RUNDIR", folder.path()).env("OVS_LOGDIR", folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| {
        panic!("`{program}` is needed by this test (apt-get install openvswitch-switch): {error}")
    })
}

impl OpenVswitch {
    pub(crate) fn start(pki: &Pki, datapath_id: &str, controller_port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        run("ovsdb-tool", &["create", &path("conf.db"), SCHEMA]);
        let remote = format!("--remote=punix:{}", path("db.sock"));
        let database = start("ovsdb-server", &[&path("conf.db"), &remote, "-vconsole:off"], &folder);
        let socket = format!("unix:{}", path("db.sock"));
        let switch = start("ovs-vswitchd", &[&socket, "-vconsole:off"], &folder);
        let bridge = Self { folder, database, switch };
        let socket = bridge.folder.path().join("db.sock");
        wait_for("ovsdb-server's socket", || socket.exists().then_some(()));
        bridge.configure(&["--no-wait", "init"]);
        let files = pki.issue(Role::Gateway, "ward-switch");
        let [certificate, key, ca] =
            [&files.certificate, &files.key, &files.ca].map(|path| path.to_str().unwrap());
        bridge.configure(&["--no-wait", "set-ssl", key, certificate, ca]);
        let id = format!("other-config:datapath-id={datapath_id}");
        let mut arguments = vec!["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"];
        arguments.extend(["protocols=OpenFlow13", "fail-mode=secure", &id]);
        let target = format!("ssl:127.0.0.1:{controller_port}");
        arguments.extend(["--", "set-controller", "br0", &target]);
        arguments.extend([
            "--",
            "set",
            "controller",
            "br0",
            "connection_mode=out-of-band",
            "inactivity_probe=5000",
        ]);
        bridge.configure(&arguments);
        bridge
    }

    /// `ovs-vsctl`, which waits until the switch has taken the change.
    fn configure(&self, arguments: &[&str]) -> String {
        let database = format!("--db=unix:{}/db.sock", self.folder.path().display());
        run("ovs-vsctl", &[&["--timeout=60", &database], arguments].concat())
    }

    /// Whether the bridge itself says that it has its controller.
    pub(crate) fn is_connected(&mut self) -> bool {
        self.configure(&["get", "controller", "br0", "is_connected"]).trim() == "true"
    }

    /// `ovs-ofctl` on the bridge's own socket, past the controller.
    pub(crate) fn ofctl(&self, command: &str, arguments: &[&str]) -> String {
        let bridge = format!("unix:{}/br0.mgmt", self.folder.path().display());
        run("ovs-ofctl", &[&["-O", "OpenFlow13", command, &bridge], arguments].concat())
    }

    /// Starts the switch again after [`kill`](Self::kill); its configuration is in its database.
    pub(crate) fn restart(&mut self) {
        let socket = format!("unix:{}", self.folder.path().join("db.sock").display());
        self.switch = start("ovs-vswitchd", &[&socket, "-vconsole:off"], &self.folder);
    }

    /// Sends the switch a signal.
    pub(crate) fn signal(&self, name: &str) {
        run("kill", &[&format!("-{name}"), &self.switch.id().to_string()]);
    }

    /// Ends the switch as a power cut would, as far as a process can.
    pub(crate) fn kill(&mut self) {
        self.switch.kill().unwrap();
        self.switch.wait().unwrap();
    }
}

impl Drop for OpenVswitch {
    fn drop(&mut self) {
        for process in [&mut self.switch, &mut self.database] {
            if process.try_wait().is_ok_and(|ended| ended.is_none()) {
                process.kill().unwrap();
                process.wait().unwrap();
            }
        }
    }
}
