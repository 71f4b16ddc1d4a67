//! A gateway with a kernel of its own as far as frames go: a namespace with veth pairs, the real helper's process, and the switch
//! in this one.
//!
//! ```text
//!   s0 ─── sen0 (port 1)  gateway  (port 2) up0 ─── p0
//! ```

use std::fs::{self, File};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio, id};
use std::time::Duration;

use caregate_host::clock;
use caregate_host::identity::Role;
use caregate_protocol::datapath::Policy;
use edge_gateway::datapath::Datapath;
use edge_gateway::openflow::agent::Settings;
use edge_gateway::openflow::metrics::Metrics;
use edge_gateway::openflow::ports::Guard;
use edge_gateway::openflow::store::FlowStore;
use edge_gateway::openflow::switch::Switch;
use pnet::datalink::{self, Channel, DataLinkReceiver, DataLinkSender};
use prometheus::Registry;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::pki::Pki;
use super::{PATIENCE, wait_for};

/// Of both of the gateway's ports.
pub(crate) const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 9, 1];
/// Beyond the uplink.
pub(crate) const NEIGHBOUR_MAC: [u8; 6] = [2, 0, 0, 0, 9, 9];
/// Bound by policy.
pub(crate) const SENSOR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn run(program: &str, arguments: &[&str]) {
    let output =
        Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{program} {}` needs root and iproute2: {said}", arguments.join(" "));
}

/// The namespace; this thread, and what it starts, is in it. Removed on drop.
struct Namespace {
    name: String,
    home: File,
}

impl Namespace {
    fn new(test: &str) -> Self {
        let name = format!("caregate-switch-{test}-{}", id());
        let home = File::open("/proc/thread-self/ns/net").unwrap();
        run("ip", &["netns", "add", &name]);
        let namespace = Self { home, name };
        let inside = File::open(format!("/run/netns/{}", namespace.name)).unwrap();
        move_into_link_name_space(inside.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        // Else the kernel's own neighbour discovery would be counted too.
        fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        namespace
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let back = move_into_link_name_space(self.home.as_fd(), Some(LinkNameSpaceType::Network));
        let removed = Command::new("ip").args(["netns", "del", &self.name]).status();
        if !std::thread::panicking() {
            let is_removed = removed.is_ok_and(|status| status.success());
            assert!(back.is_ok() && is_removed, "{} is left behind", self.name);
        }
    }
}

/// A BPF file system, for the pins. Taken off on drop.
struct Pins(PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        let off = Command::new("umount").arg(&self.0).status();
        assert!(
            std::thread::panicking() || off.is_ok_and(|status| status.success()),
            "{} is left behind",
            self.0.display()
        );
    }
}

struct Daemon {
    runtime: Runtime,
    datapath: Datapath,
    stop: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
}

/// All of it. Fields are dropped in their order: processes before pins before the namespace.
pub(crate) struct Gateway {
    daemon: Option<Daemon>,
    helper: Option<Child>,
    _pins: Pins,
    folder: TempDir,
    _namespace: Namespace,
}

impl Gateway {
    /// Ports and neighbours, and nobody who uses them.
    pub(crate) fn new(test: &str) -> Self {
        let namespace = Namespace::new(test);
        let folder = tempfile::tempdir().unwrap();
        let pins = folder.path().join("bpf");
        fs::create_dir(&pins).unwrap();
        run("mount", &["-t", "bpf", "bpf", pins.to_str().unwrap()]);
        run("ip", &["link", "set", "lo", "up"]);
        for (port, peer, address) in [("sen0", "s0", "10.77.1.1/24"), ("up0", "p0", "10.77.2.1/24")] {
            run("ip", &["link", "add", port, "type", "veth", "peer", "name", peer]);
            run("ip", &["link", "set", port, "address", "02:00:00:00:09:01"]);
            run("ip", &["addr", "add", address, "dev", port]);
            run("ip", &["link", "set", port, "up"]);
            run("ip", &["link", "set", peer, "up"]);
        }
        run("ip", &["neigh", "add", "10.77.2.2", "lladdr", "02:00:00:00:09:09", "dev", "up0"]);
        Self { daemon: None, helper: None, _pins: Pins(pins), folder, _namespace: namespace }
    }

    /// The far end of a pair.
    pub(crate) fn wire(&self, peer: &str) -> Wire {
        let interface = datalink::interfaces().into_iter().find(|interface| interface.name == peer).unwrap();
        let config = datalink::Config { read_timeout: Some(Duration::from_millis(50)), ..Default::default() };
        let Ok(Channel::Ethernet(sender, receiver)) = datalink::channel(&interface, config) else {
            panic!("a packet socket on {peer} needs root");
        };
        Wire { sender, receiver }
    }

    /// The helper's.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path("datapath.sock")
    }

    /// A file of this gateway's.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the helper with a sensor port and an uplink, and waits until it listens.
    pub(crate) fn start_helper(&mut self) {
        self.start_helper_with("sensor_ports = [\"sen0\"]\nuplinks = [\"up0\"]");
    }

    /// The same with other ports.
    pub(crate) fn start_helper_with(&mut self, ports: &str) {
        let test = std::env::current_exe().unwrap();
        let program = test.parent().and_then(Path::parent).unwrap().join("caregate-datapathd");
        assert!(
            program.is_file(),
            "{} is not there; build first: cargo build --release -p caregate-datapathd",
            program.display()
        );
        let config = self.path("datapathd.toml");
        let text = format!(
            "socket = {:?}\nuser = \"0\"\n{ports}\npin = {:?}\nadmin = \"127.0.0.1:0\"\n",
            self.socket(),
            self.path("bpf/caregate"),
        );
        fs::write(&config, text).unwrap();
        let child = Command::new(program).arg("--config").arg(config).stdin(Stdio::null()).spawn().unwrap();
        self.helper = Some(child);
        wait_for("the helper to listen", || std::os::unix::net::UnixStream::connect(self.socket()).ok());
    }

    /// As the kernel's memory killer would.
    pub(crate) fn kill_helper(&mut self) {
        let mut helper = self.helper.take().unwrap();
        helper.kill().unwrap();
        helper.wait().unwrap();
        // What it left would look like one that listens.
        drop(fs::remove_file(self.socket()));
    }

    /// Starts the daemon's part: client of the helper, kept flows, policy, then the controller.
    pub(crate) fn start_daemon(&mut self, pki: &Pki, controller: SocketAddr, policy: Policy) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let stop = CancellationToken::new();
        let session = clock::now_us().unsigned_abs();
        let (store, kept) = FlowStore::open(self.folder.path()).unwrap();
        let identity = pki.identity(Role::Gateway, "gateway-1");
        let socket = self.socket();
        let (datapath, running) = runtime.block_on(async {
            let datapath = Datapath::connect(&socket, session, stop.clone()).await.unwrap();
            let switch = Switch {
                controller,
                controller_name: Some("controller-1".to_owned()),
                settings: Settings {
                    datapath_id: 0xc0ffee,
                    name: "gateway-1".to_owned(),
                    version: "test",
                    guard: Guard::On,
                },
                identity,
                store,
                kept,
                helper: datapath.clone(),
                events: datapath.events(),
                metrics: Metrics::register(&Registry::new()).unwrap(),
                quarantined: tokio::sync::watch::Sender::default(),
            };
            let installed = switch.install().await.unwrap();
            datapath.set_policy(policy).await.unwrap();
            (datapath, tokio::spawn(installed.run(stop.clone())))
        });
        self.daemon = Some(Daemon { runtime, datapath, stop, running });
    }

    /// Ends it in order.
    pub(crate) fn stop_daemon(&mut self) {
        let Daemon { runtime, stop, running, .. } = self.daemon.take().unwrap();
        stop.cancel();
        runtime.block_on(running).unwrap().unwrap();
    }

    /// Frames of a verdict on a port, by the running daemon's helper.
    pub(crate) fn verdict(&self, port: u32, verdict: &str) -> u64 {
        let daemon = self.daemon.as_ref().unwrap();
        count(&daemon.runtime, &daemon.datapath, port, verdict)
    }

    /// The same of port 1, while no daemon runs.
    pub(crate) fn ask_helper(&self, verdict: &str) -> u64 {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let stop = CancellationToken::new();
        let datapath = runtime.block_on(Datapath::connect(&self.socket(), 1, stop.clone())).unwrap();
        let counted = count(&runtime, &datapath, 1, verdict);
        stop.cancel();
        counted
    }

    /// A socket with a lane's port.
    pub(crate) fn lane_socket(&self, port: u16) -> UdpSocket {
        UdpSocket::bind(("10.77.2.1", port)).unwrap()
    }

    /// Where lanes go.
    pub(crate) fn core(&self) -> SocketAddr {
        "10.77.2.2:4433".parse().unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(helper) = &mut self.helper {
            drop(helper.kill());
            drop(helper.wait());
        }
    }
}

fn count(runtime: &Runtime, datapath: &Datapath, port: u32, verdict: &str) -> u64 {
    let counters = runtime.block_on(datapath.counters()).unwrap();
    let port = counters.ports.iter().find(|counted| counted.number == port);
    let counted = port.and_then(|port| port.verdicts.iter().find(|counted| counted.word == verdict));
    counted.map_or(0, |counted| counted.traffic.frames)
}

/// Frames in and out at the far end of a pair.
pub(crate) struct Wire {
    sender: Box<dyn DataLinkSender>,
    receiver: Box<dyn DataLinkReceiver>,
}

/// What of a datagram's frame matters here.
pub(crate) struct Datagram {
    pub(crate) destination: [u8; 6],
    pub(crate) dscp: u8,
}

impl Wire {
    /// Puts a frame on the wire.
    pub(crate) fn send(&mut self, frame: &[u8]) {
        self.sender.send_to(frame, None).unwrap().unwrap();
    }

    fn find<T>(&mut self, what: &str, mut wanted: impl FnMut(&[u8]) -> Option<T>) -> T {
        let begun = clock::monotonic();
        loop {
            match self.receiver.next() {
                Ok(frame) => {
                    if let Some(found) = wanted(frame) {
                        return found;
                    }
                }
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::TimedOut),
            }
            assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        }
    }

    /// Waits for an IPv4 datagram that ends so.
    pub(crate) fn datagram(&mut self, payload: &[u8]) -> Datagram {
        self.find("a datagram", |frame| {
            let is_it = frame.get(12..14) == Some(&[8, 0]) && frame.ends_with(payload);
            is_it.then(|| Datagram { destination: frame[..6].try_into().unwrap(), dscp: frame[15] >> 2 })
        })
    }

    /// Waits for the first datagram that ends in one of these.
    pub(crate) fn datagram_of<'a>(&mut self, payloads: &[&'a [u8]]) -> &'a [u8] {
        let found = |frame: &[u8]| payloads.iter().copied().find(|payload| frame.ends_with(payload));
        self.find("one of the datagrams", found)
    }

    /// The next frame that `wanted` takes; none where it has not come after so long.
    pub(crate) fn next(&mut self, within: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let begun = clock::monotonic();
        while begun.elapsed() < within {
            match self.receiver.next() {
                Ok(frame) if wanted(frame) => return Some(frame.to_vec()),
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::TimedOut),
            }
        }
        None
    }

    /// Waits for exactly this frame.
    pub(crate) fn frame(&mut self, wanted: &[u8]) {
        self.find("the frame", |frame| (frame == wanted).then_some(()));
    }
}

/// A TCP segment from `source` to the gateway.
pub(crate) fn tcp_from(source: [u8; 6], destination_port: u16) -> Vec<u8> {
    let mut frame = [&GATEWAY_MAC[..], &source, &[8, 0]].concat();
    frame.extend([0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 77, 1, 5, 10, 77, 1, 1]);
    frame.extend(40_000u16.to_be_bytes());
    frame.extend(destination_port.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    frame.extend([0; 6]);
    frame
}
