//! Namespaces: one for switch and controller, one for each host, and the cables between them.
//!
//! ```text
//!   host N: eth0 10.77.0.N ─── pN  switch and controller
//! ```

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio, id};
use std::time::Duration;

use caregate_host::clock;
use serde_json::Value;

/// For anything that has to happen: a controller in Python starts in seconds, and Open vSwitch tries again after up to eight.
const PATIENCE: Duration = Duration::from_secs(60);
/// Hosts.
const HOSTS: u8 = 4;
/// How long a stream of iperf3 lasts: long enough for a meter's bucket to matter little.
const STREAM_SECONDS: &str = "3";

/// Looks again and again, until there is something.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = clock::monotonic();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Runs a program to its end; what it said.
pub(crate) fn run(command: &mut Command) -> String {
    let described = format!("{command:?}");
    let output = command.output().unwrap_or_else(|error| panic!("{described}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{described} (needs root): {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn ip(arguments: &str) {
    run(Command::new("ip").args(arguments.split(' ')));
}

/// Where cargo puts what it builds: this test is in `release/deps`.
pub(crate) fn target() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(3).unwrap().to_owned()
}

/// A process that ends with the test.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A network namespace, removed on drop.
struct Namespace(String);

impl Namespace {
    fn new(name: String) -> Self {
        ip(&format!("netns add {name}"));
        let namespace = Self(name);
        let quiet = ["net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"];
        run(namespace.command("sysctl").arg("-qw").args(quiet));
        run(namespace.command("ip").args(["link", "set", "lo", "up"]));
        namespace
    }

    /// Not `ip netns exec`, which hides the BPF file system.
    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.0)).arg("--").arg(program.as_ref());
        command.stdin(Stdio::null());
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let removed = Command::new("ip").args(["netns", "del", &self.0]).status();
        let is_removed = removed.is_ok_and(|status| status.success());
        assert!(is_removed || std::thread::panicking(), "{} is left behind", self.0);
    }
}

/// All of it.
pub(crate) struct Ground {
    hosts: Vec<Host>,
    inside: Namespace,
    folder: tempfile::TempDir,
}

impl Ground {
    /// Hosts with their cables, and nobody in between.
    pub(crate) fn new(test: &str) -> Self {
        let name = |what: &str| format!("cg-{}-{test}-{what}", id());
        let inside = Namespace::new(name("sw"));
        let mut hosts = Vec::new();
        for number in 1..=HOSTS {
            let outside = Namespace::new(name(&format!("h{number}")));
            let (here, there) = (&inside.0, &outside.0);
            ip(&format!("link add p{number} netns {here} type veth peer name eth0 netns {there}"));
            run(inside.command("ip").args(["link", "set", &format!("p{number}"), "up"]));
            let mac = format!("02:00:00:00:00:0{number}");
            run(outside.command("ip").args(["link", "set", "eth0", "address", &mac, "up"]));
            run(outside.command("ip").args(["addr", "add", &address(number), "dev", "eth0"]));
            // Checksums and segments as a real cable has them; and a veth takes redirected frames only where it polls.
            run(outside.command("ethtool").args(["-K", "eth0", "tx", "off", "tso", "off", "gro", "on"]));
            hosts.push(Host { number, namespace: outside });
        }
        Self { hosts, inside, folder: tempfile::tempdir().unwrap() }
    }

    /// For whatever is the switch, and for its controller.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        self.inside.command(program)
    }

    /// A place for files, removed with the ground.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Names of the switch's interfaces, port 1 first.
    pub(crate) fn ports(&self) -> Vec<String> {
        self.hosts.iter().map(|host| format!("p{}", host.number)).collect()
    }

    pub(crate) fn host(&self, number: u8) -> &Host {
        self.hosts.iter().find(|host| host.number == number).unwrap()
    }
}

fn address(number: u8) -> String {
    format!("10.77.0.{number}/24")
}

fn bare_address(number: u8) -> String {
    format!("10.77.0.{number}")
}

/// What a UDP stream came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream {
    /// Part of the datagrams that did not arrive.
    pub(crate) lost: f64,
}

/// A host.
pub(crate) struct Host {
    number: u8,
    namespace: Namespace,
}

impl Host {
    /// Whether another answers one ping within a second.
    pub(crate) fn pings(&self, other: u8) -> bool {
        let mut ping = self.namespace.command("ping");
        ping.args(["-c", "1", "-W", "1", &bare_address(other)]);
        let output = ping.output().unwrap_or_else(|error| panic!("`ping` (iputils-ping) is needed: {error}"));
        output.status.success()
    }

    /// Asks for a host's address in a tagged frame; in which VLAN the answer came, or `silence`.
    pub(crate) fn asks_in_vlan(&self, vlan: u16, host: u8) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/trunk.py");
        let mut trunk = self.namespace.command("/usr/bin/python3");
        trunk.arg(script).args(["eth0", &vlan.to_string(), &bare_address(host)]);
        run(&mut trunk).trim().to_owned()
    }

    /// Mbit/s that another host took by TCP; an error where there was no connection.
    pub(crate) fn tcp(&self, other: &Self, port: u16) -> Result<f64, String> {
        let report = self.iperf(other, port, &["--connect-timeout", "3000"])?;
        let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
        bits.map(|bits| bits / 1e6).ok_or_else(|| report.to_string())
    }

    /// A UDP stream to another host; how it is to go is told by TCP on port 5201 of the same server, as iperf3 does it.
    pub(crate) fn udp(&self, other: &Self, port: u16, mbits: u32) -> Stream {
        let rate = format!("{mbits}M");
        let report = self.iperf(other, port, &["-u", "-b", &rate, "-l", "1000"]).unwrap();
        let lost = report["end"]["sum"]["lost_percent"].as_f64().unwrap_or_else(|| panic!("{report}"));
        Stream { lost: lost / 100.0 }
    }

    fn iperf(&self, other: &Self, port: u16, more: &[&str]) -> Result<Value, String> {
        let port = port.to_string();
        let mut server = other.namespace.command("iperf3");
        server.args(["-s", "-1", "-p", &port]).stdout(Stdio::null()).stderr(Stdio::null());
        let server = server.spawn().unwrap_or_else(|error| panic!("`iperf3` is needed: {error}"));
        let _server = Process(server);
        wait_for("iperf3 to listen", || {
            let listening = run(other.namespace.command("ss").args(["-Hltn", &format!("sport = :{port}")]));
            (!listening.is_empty()).then_some(())
        });
        let mut client = self.namespace.command("iperf3");
        client.args(["-c", &bare_address(other.number), "-p", &port, "-t", STREAM_SECONDS, "-J"]).args(more);
        let output = client.output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
        match report["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(report),
        }
    }
}
