//! A network namespace with a sensor port and an uplink, a BPF file system of its own, the real helper in it, and a client.

#![expect(clippy::unwrap_used, reason = "what a test can't set up fails it")]
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod frames;

use std::fs::{self, File};
use std::io::{ErrorKind, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio, id};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use caregate_ebpf_common::switch::place;
pub(crate) use caregate_protocol::datapath::switch::FlowEntry as Flow;
use caregate_protocol::datapath::switch::{
    Change, FlowAction, FlowInstructions, MATCH_BYTES, SwitchCounters,
};
use caregate_protocol::datapath::{
    Counters, Device, Event, Framer, FromHelper, OpenPort, Policy, Refused, Reply, Request, ToHelper,
    VERSION, Welcome,
};
use pnet::datalink::{self, Channel, DataLinkReceiver, DataLinkSender};
use rustix::io::retry_on_intr;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// What must happen within it does, or the test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn run(program: &str, arguments: &[&str]) {
    let output =
        Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{program} {}` needs root and iproute2: {said}", arguments.join(" "));
}

/// Asks until the answer is there.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    #[expect(clippy::disallowed_methods, reason = "a test's deadline")]
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < DEADLINE, "{what}");
        std::thread::yield_now();
    }
}

/// A namespace with veth pairs `sensor`–`port` and `beyond`–`uplink`, and a BPF file system. This thread is in the namespace.
/// All of it is removed on drop.
pub(crate) struct Place {
    name: String,
    home: File,
    folder: tempfile::TempDir,
}

static PLACES: AtomicU32 = AtomicU32::new(0);

impl Place {
    pub(crate) fn new() -> Self {
        let name = format!("caregate-dp-{}-{}", id(), PLACES.fetch_add(1, Ordering::Relaxed));
        let home = File::open("/proc/thread-self/ns/net").unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("bpf")).unwrap();
        run("mount", &["-t", "bpf", "bpf", folder.path().join("bpf").to_str().unwrap()]);
        run("ip", &["netns", "add", &name]);
        let place = Self { name, home, folder };
        let inside = File::open(format!("/run/netns/{}", place.name)).unwrap();
        move_into_link_name_space(inside.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        // Else the kernel's own neighbour discovery and multicast reports would be counted too.
        fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        run("ip", &["link", "set", "lo", "up"]);
        run(
            "ip",
            &[
                "link",
                "add",
                "sensor",
                "type",
                "veth",
                "peer",
                "name",
                "port",
                "address",
                frames::GATEWAY_TEXT,
            ],
        );
        run("ip", &["link", "add", "beyond", "type", "veth", "peer", "name", "uplink"]);
        for interface in ["sensor", "port", "beyond", "uplink"] {
            run("ip", &["link", "set", interface, "up"]);
        }
        run("ip", &["address", "add", "10.9.0.1/24", "dev", "port"]);
        run("sh", &["-c", "echo 0 > /proc/sys/net/ipv6/conf/port/disable_ipv6"]);
        run("ip", &["address", "add", "fd09::1/64", "dev", "port", "nodad"]);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The configuration file for these ports.
    pub(crate) fn configure(&self, ports: &str) -> PathBuf {
        self.configure_for("root", ports)
    }

    pub(crate) fn configure_for(&self, user: &str, ports: &str) -> PathBuf {
        let path = self.path("datapathd.toml");
        let text = format!(
            "socket = {:?}\nadmin = \"127.0.0.1:{ADMIN}\"\npin = {:?}\nuser = {user:?}\n{ports}\n",
            self.path("run/datapath.sock"),
            self.path("bpf/caregate"),
        );
        fs::write(&path, text).unwrap();
        path
    }

    /// The helper with the usual ports.
    pub(crate) fn helper(&self) -> Helper {
        Helper::start(&self.configure(PORTS))
    }

    pub(crate) fn connect(&self) -> Client {
        self.try_connect(1).unwrap()
    }

    pub(crate) fn try_connect(&self, session: u64) -> Result<Client, Refused> {
        let path = self.path("run/datapath.sock");
        let stream = until("the helper listens", || UnixStream::connect(&path).ok());
        Client::hello(stream, session)
    }

    /// What the helper's `/metrics` say; each namespace has a loopback of its own.
    pub(crate) fn metrics(&self, path: &str) -> String {
        let mut stream = until("the admin port listens", || TcpStream::connect(("127.0.0.1", ADMIN)).ok());
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }
}

/// The usual ones: 1 and 2.
pub(crate) const PORTS: &str = "sensor_ports = ['port']\nuplinks = ['uplink']";

/// Of the helper, in each namespace.
const ADMIN: u16 = 9105;

impl Drop for Place {
    fn drop(&mut self) {
        // What is pinned holds the interfaces' programs.
        drop(fs::remove_dir_all(self.path("bpf/caregate")));
        let back = move_into_link_name_space(self.home.as_fd(), Some(LinkNameSpaceType::Network));
        let removed = Command::new("ip").args(["netns", "del", &self.name]).status();
        let unmounted = Command::new("umount").arg(self.path("bpf")).status();
        if !std::thread::panicking() {
            let ended =
                [removed, unmounted].into_iter().all(|done| done.is_ok_and(|status| status.success()));
            assert!(back.is_ok() && ended, "{} is left behind", self.name);
        }
    }
}

pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_caregate-datapathd"))
}

/// A running helper; killed on drop, as by SIGKILL.
pub(crate) struct Helper {
    pub(crate) process: Child,
}

impl Helper {
    pub(crate) fn start(config: &Path) -> Self {
        let mut command = Command::new(binary());
        command.arg("--config").arg(config).stdin(Stdio::null());
        Self { process: command.spawn().unwrap() }
    }

    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A daemon's connection, blocking.
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    framer: Framer,
    number: u32,
    pub(crate) welcome: Welcome,
    pub(crate) events: Vec<Event>,
}

impl Client {
    fn hello(stream: UnixStream, session: u64) -> Result<Self, Refused> {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let welcome = Welcome { version: 0, queues: 0, ports: vec![] };
        let mut client = Self { stream, framer: Framer::new(), number: 0, welcome, events: vec![] };
        let reply = client.call(Request::Hello { version: VERSION, session })?;
        let Reply::Welcome(welcome) = reply else { panic!("{reply:?}") };
        client.welcome = welcome;
        Ok(client)
    }

    pub(crate) fn read(&mut self) -> Option<FromHelper> {
        loop {
            if let Some(frame) = self.framer.next_frame().unwrap() {
                return Some(FromHelper::decode(&frame).unwrap());
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(length) => self.framer.push(&buffer[..length]),
                // A read with a time limit isn't begun again by the kernel (signal(7)).
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn call(&mut self, request: Request) -> Result<Reply, Refused> {
        self.number += 1;
        self.stream.write_all(&ToHelper { number: self.number, request }.encode()).unwrap();
        loop {
            match self.read().expect("the helper closed the connection") {
                FromHelper::Event(event) => self.events.push(event),
                FromHelper::Reply { number, result } => {
                    assert_eq!(number, self.number);
                    return result;
                }
            }
        }
    }

    /// Asks for a packet socket; it comes beside the reply.
    pub(crate) fn packet_socket(&mut self, port: u32) -> OwnedFd {
        self.number += 1;
        let request = Request::PacketSocket { port };
        self.stream.write_all(&ToHelper { number: self.number, request }.encode()).unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut buffer = [0; 4096];
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let received = retry_on_intr(|| {
            recvmsg(self.stream.as_fd(), &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        })
        .unwrap();
        let rights = ancillary.drain().find_map(|message| {
            let RecvAncillaryMessage::ScmRights(mut rights) = message else { return None };
            rights.next()
        });
        self.framer.push(&buffer[..received.bytes]);
        let reply = FromHelper::Reply { number: self.number, result: Ok(Reply::Socket) };
        assert_eq!(self.read(), Some(reply));
        rights.unwrap()
    }

    /// The next event that `wanted` takes.
    pub(crate) fn event<T>(&mut self, wanted: impl Fn(&Event) -> Option<T>) -> T {
        loop {
            if let Some(at) = self.events.iter().position(|event| wanted(event).is_some()) {
                return wanted(&self.events.remove(at)).unwrap();
            }
            match self.read().expect("the helper closed the connection") {
                FromHelper::Event(event) => self.events.push(event),
                FromHelper::Reply { .. } => panic!("a reply that nobody asked for"),
            }
        }
    }

    pub(crate) fn set_policy(&mut self, policy: Policy) {
        assert_eq!(self.call(Request::SetPolicy(policy)), Ok(Reply::Done));
    }

    /// These flows and no others, the first before the second.
    pub(crate) fn set_flows(&mut self, flows: Vec<Flow>) {
        let flows = (0..u16::MAX).rev().zip(flows);
        let put = flows.map(|(priority, flow)| Change::PutFlow(Flow { priority, ..flow }));
        let changes = std::iter::once(Change::Clear).chain(put).collect();
        assert_eq!(self.call(Request::Change { changes, more: false }), Ok(Reply::Done));
    }

    pub(crate) fn switch_counters(&mut self) -> SwitchCounters {
        match self.call(Request::SwitchCounters) {
            Ok(Reply::SwitchCounters(counters)) => counters,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn counters(&mut self) -> Counters {
        match self.call(Request::Counters) {
            Ok(Reply::Counters(counters)) => counters,
            other => panic!("{other:?}"),
        }
    }

    /// How many frames of port `number` had this verdict.
    pub(crate) fn verdict(&mut self, number: u32, word: &str) -> u64 {
        let counters = self.counters();
        let port = counters.ports.iter().find(|port| port.number == number).unwrap();
        port.verdicts.iter().find(|counted| counted.word == word).map_or(0, |counted| counted.traffic.frames)
    }

    pub(crate) fn verdicts(&mut self, number: u32) -> Vec<(String, u64)> {
        let counters = self.counters();
        let port = counters.ports.iter().find(|port| port.number == number).unwrap();
        port.verdicts.iter().map(|counted| (counted.word.clone(), counted.traffic.frames)).collect()
    }

    /// Waits until port `number` has judged so many frames in all.
    pub(crate) fn judged(&mut self, number: u32, frames: u64) {
        until("all frames were judged", || {
            let sum: u64 = self.verdicts(number).iter().map(|(_, frames)| frames).sum();
            assert!(sum <= frames, "{sum} of {frames}: somebody else sends");
            (sum == frames).then_some(())
        });
    }
}

/// One bound sensor, MQTT's port open.
pub(crate) fn policy() -> Policy {
    Policy {
        devices: vec![Device { index: 4, mac: frames::SENSOR }],
        ports: vec![OpenPort { protocol: 6, port: 1883 }],
        floor: vec![],
    }
}

/// A packet socket on an interface.
pub(crate) struct Wire {
    sender: Box<dyn DataLinkSender>,
    receiver: Box<dyn DataLinkReceiver>,
    /// With nothing for so long it is quiet.
    quiet: Duration,
}

impl Wire {
    pub(crate) fn open(interface: &str) -> Self {
        Self::open_for(interface, Duration::from_millis(300))
    }

    /// One whose wire is quiet after so long.
    pub(crate) fn open_for(interface: &str, quiet: Duration) -> Self {
        let interface = datalink::interfaces().into_iter().find(|other| other.name == interface).unwrap();
        let config = datalink::Config { read_timeout: Some(quiet), ..datalink::Config::default() };
        match datalink::channel(&interface, config) {
            Ok(Channel::Ethernet(sender, receiver)) => Self { sender, receiver, quiet },
            Ok(_) => panic!("{} is no Ethernet interface", interface.name),
            Err(error) => panic!("no packet socket on {}: needs CAP_NET_RAW: {error}", interface.name),
        }
    }

    pub(crate) fn send(&mut self, frame: &[u8]) {
        match self.sender.send_to(frame, None).unwrap() {
            // What tc drops on its way out is told to the sender so.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {}
            sent => sent.unwrap(),
        }
    }

    /// The next frame that `wanted` takes; none when the wire is quiet.
    pub(crate) fn next(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        #[expect(clippy::disallowed_methods, reason = "a test's deadline")]
        let begun = Instant::now();
        loop {
            match self.receiver.next() {
                Ok(frame) if wanted(frame) => return Some(frame.to_vec()),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::NetworkDown) => {
                    return None;
                }
                // An interface that went down and is up again: the socket's error stays until a frame
                // comes, and pnet, which sees `POLLERR` without `POLLIN`, names it no closer. It waits for
                // nothing then, so that is done here.
                Err(error) if error.kind() == ErrorKind::Other => {
                    if begun.elapsed() > self.quiet {
                        return None;
                    }
                    std::thread::yield_now();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// A flow of the controller's first table on these fields, by their OXM numbers.
pub(crate) fn flow(id: u64, fields: &[(u8, u128)], apply: &[FlowAction]) -> Flow {
    let (mut value, mut mask) = ([0; MATCH_BYTES], [0; MATCH_BYTES]);
    for (oxm, bits) in fields {
        let place = place(*oxm).unwrap();
        let of = u128::MAX >> (128 - place.bits);
        for (into, bits) in [(&mut value, bits & of), (&mut mask, of)] {
            let bytes = (bits << place.shift).to_be_bytes();
            for (to, from) in into[place.byte..].iter_mut().zip(&bytes[16 - place.bytes..]) {
                *to |= from;
            }
        }
    }
    let instructions = FlowInstructions { apply: apply.to_vec(), ..FlowInstructions::default() };
    Flow { id, table: 1, priority: 1, value, mask, instructions: instructions.into() }
}

pub(crate) fn drop_source(id: u64, mac: frames::Mac) -> Flow {
    flow(id, &[(4, mac.iter().fold(0, |word, byte| word << 8 | u128::from(*byte)))], &[])
}
