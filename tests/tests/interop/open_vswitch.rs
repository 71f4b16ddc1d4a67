//! Open vSwitch as the switch, by which the test itself is checked.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use caregate_host::identity::{IdentityFiles, Role};

use crate::controller::PORT;
use crate::ground::{Ground, Process, run, wait_for};
use crate::pki::Pki;
use crate::{DATAPATH_ID, Switch};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// Its two processes.
pub(crate) struct OpenVswitch {
    _switch: Process,
    _database: Process,
}

fn start(ground: &Ground, program: &str, arguments: &[&str]) -> Process {
    let mut command = ground.command(program);
    command.args(arguments).env("OVS_RUNDIR", ground.folder()).env("OVS_LOGDIR", ground.folder());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let process = command.spawn().unwrap_or_else(|error| {
        panic!("`{program}` is needed by this test (apt-get install openvswitch-switch): {error}")
    });
    Process(process)
}

impl Switch for OpenVswitch {
    fn start(ground: &Ground, pki: &Pki) -> Self {
        let path = |name: &str| -> PathBuf { ground.folder().join(name) };
        run(Command::new("ovsdb-tool").arg("create").arg(path("conf.db")).arg(SCHEMA));
        let socket = format!("unix:{}", path("db.sock").display());
        let remote = format!("--remote=p{socket}");
        let database =
            start(ground, "ovsdb-server", &[path("conf.db").to_str().unwrap(), &remote, "-vconsole:off"]);
        wait_for("ovsdb-server's socket", || path("db.sock").exists().then_some(()));
        let database_option = format!("--db={socket}");
        let configure = |arguments: &[&str]| {
            run(ground.command("ovs-vsctl").args(["--timeout=60", &database_option]).args(arguments))
        };
        configure(&["--no-wait", "init"]);
        let switch = start(ground, "ovs-vswitchd", &[&socket, "-vconsole:off"]);
        let IdentityFiles { certificate, key, ca } = pki.issue(Role::Gateway, "switch-1");
        let [certificate, key, ca] = [&certificate, &key, &ca].map(|path| path.to_str().unwrap());
        configure(&["--no-wait", "set-ssl", key, certificate, ca]);
        let id = format!("other-config:datapath-id={DATAPATH_ID:016x}");
        let mut arguments = vec!["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"];
        arguments.extend(["protocols=OpenFlow13", "fail-mode=secure", &id]);
        configure(&arguments);
        for (number, port) in (1..).zip(ground.ports()) {
            let number = format!("ofport_request={number}");
            configure(&["add-port", "br0", &port, "--", "set", "interface", &port, &number]);
        }
        let target = format!("ssl:127.0.0.1:{PORT}");
        configure(&[
            "set-controller",
            "br0",
            &target,
            "--",
            "set",
            "controller",
            "br0",
            "connection_mode=out-of-band",
        ]);
        let connected = || configure(&["get", "controller", "br0", "is_connected"]).trim() == "true";
        wait_for("Open vSwitch's controller", || connected().then_some(()));
        Self { _switch: switch, _database: database }
    }
}
