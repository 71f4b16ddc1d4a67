//! The committed eBPF object in the running kernel. Needs root; without it each test fails and says so.
//!
//! Frames come from pnet's packet builders where it has one, so that the expectation isn't the parser's own opinion.

#![expect(clippy::unwrap_used, reason = "what a test can't set up fails it")]

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::process::{Command, id};
use std::time::Duration;

use aya::programs::{TestRun, TestRunOptions};
use caregate_ebpf_common::frame::classify;
use caregate_ebpf_common::{Counter, Kind};
use edge_gateway::datapath::{self, DatapathError, Mode, Observer, ObserverMetrics};
use pnet::datalink::{self, Channel, DataLinkReceiver, DataLinkSender};
use pnet::packet::arp::{ArpHardwareTypes, ArpOperations, MutableArpPacket};
use pnet::packet::ethernet::{EtherType, EtherTypes, MutableEthernetPacket};
use pnet::packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet::packet::ipv4::{Ipv4Flags, MutableIpv4Packet};
use pnet::packet::ipv6::MutableIpv6Packet;
use pnet::packet::tcp::MutableTcpPacket;
use pnet::packet::udp::MutableUdpPacket;
use pnet::packet::vlan::MutableVlanPacket;
use pnet::util::MacAddr;
use prometheus::core::Collector;
use proptest::test_runner::{Config, TestRunner};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Set in the child of a test that runs itself again without capabilities.
const UNPRIVILEGED: &str = "CAREGATE_TEST_UNPRIVILEGED";

/// `XDP_PASS` of the kernel's `enum xdp_action`.
const XDP_PASS: u32 = 2;

fn run(program: &str, arguments: &[&str]) {
    let output =
        Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{program} {}` needs root and iproute2: {said}", arguments.join(" "));
}

/// A network namespace with two veth ends, `sensor` and `port`; this thread is in it. Removed on drop.
struct Namespace {
    name: String,
    home: File,
}

impl Namespace {
    fn new(test: &str) -> Self {
        let name = format!("caregate-{test}-{}", id());
        let home = File::open("/proc/thread-self/ns/net").unwrap();
        run("ip", &["netns", "add", &name]);
        let namespace = Self { home, name };
        let inside = File::open(format!("/run/netns/{}", namespace.name)).unwrap();
        move_into_link_name_space(inside.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        // Else the kernel's own neighbour discovery and multicast reports would be counted too.
        fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        run("ip", &["link", "add", "sensor", "type", "veth", "peer", "name", "port"]);
        run("ip", &["link", "set", "sensor", "up"]);
        run("ip", &["link", "set", "port", "up"]);
        namespace
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let back = move_into_link_name_space(self.home.as_fd(), Some(LinkNameSpaceType::Network));
        let removed = Command::new("ip").args(["netns", "del", &self.name]).status();
        if !std::thread::panicking() {
            assert!(
                back.is_ok() && removed.is_ok_and(|status| status.success()),
                "{} is left behind",
                self.name
            );
        }
    }
}

fn ethernet(ethertype: EtherType, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 14];
    let mut packet = MutableEthernetPacket::new(&mut frame).unwrap();
    packet.set_source(MacAddr::new(2, 0, 0, 0, 0, 1));
    packet.set_destination(MacAddr::new(2, 0, 0, 0, 0, 2));
    packet.set_ethertype(ethertype);
    [frame, body.to_vec()].concat()
}

fn vlan(ethertype: EtherType, body: &[u8]) -> Vec<u8> {
    let mut tag = vec![0; 4];
    let mut packet = MutableVlanPacket::new(&mut tag).unwrap();
    packet.set_vlan_identifier(42);
    packet.set_ethertype(ethertype);
    [tag, body.to_vec()].concat()
}

fn ipv4(protocol: IpNextHeaderProtocol, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 20];
    let mut packet = MutableIpv4Packet::new(&mut header).unwrap();
    packet.set_version(4);
    packet.set_header_length(5);
    packet.set_total_length(u16::try_from(20 + payload.len()).unwrap());
    packet.set_flags(Ipv4Flags::DontFragment);
    packet.set_next_level_protocol(protocol);
    [header, payload.to_vec()].concat()
}

fn ipv6(next: IpNextHeaderProtocol, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 40];
    let mut packet = MutableIpv6Packet::new(&mut header).unwrap();
    packet.set_version(6);
    packet.set_payload_length(u16::try_from(payload.len()).unwrap());
    packet.set_next_header(next);
    [header, payload.to_vec()].concat()
}

fn udp(payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 8];
    let mut packet = MutableUdpPacket::new(&mut header).unwrap();
    packet.set_length(u16::try_from(8 + payload.len()).unwrap());
    [header, payload.to_vec()].concat()
}

fn tcp(payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 20];
    MutableTcpPacket::new(&mut header).unwrap().set_data_offset(5);
    [header, payload.to_vec()].concat()
}

fn arp() -> Vec<u8> {
    let mut packet = vec![0; 28];
    let mut arp = MutableArpPacket::new(&mut packet).unwrap();
    arp.set_hardware_type(ArpHardwareTypes::Ethernet);
    arp.set_protocol_type(EtherTypes::Ipv4);
    arp.set_hw_addr_len(6);
    arp.set_proto_addr_len(4);
    arp.set_operation(ArpOperations::Request);
    packet
}

/// Frames and what each is, by whoever built it.
fn crafted() -> Vec<(Kind, Vec<u8>)> {
    use IpNextHeaderProtocols as Protocol;
    let (v4, v6) = (EtherTypes::Ipv4, EtherTypes::Ipv6);
    let mut fragment = ipv4(Protocol::Udp, &udp(b"part"));
    MutableIpv4Packet::new(&mut fragment).unwrap().set_flags(Ipv4Flags::MoreFragments);
    let mut long = ipv4(Protocol::Udp, &udp(b"x"));
    MutableIpv4Packet::new(&mut long).unwrap().set_total_length(1000);
    let mut low = ipv4(Protocol::Tcp, &tcp(b"x"));
    low[20 + 12] = 0x40;
    let mut stretched = ipv6(Protocol::Udp, &udp(b"x"));
    stretched[40 + 5] = 10;
    vec![
        (Kind::Arp, ethernet(EtherTypes::Arp, &arp())),
        (Kind::ShortArp, ethernet(EtherTypes::Arp, &arp()[..27])),
        (Kind::Ipv4Udp, ethernet(v4, &ipv4(Protocol::Udp, &udp(b"reading")))),
        (Kind::Ipv4Udp, ethernet(EtherTypes::Vlan, &vlan(v4, &ipv4(Protocol::Udp, &udp(b"tagged"))))),
        (Kind::Ipv4Tcp, ethernet(v4, &ipv4(Protocol::Tcp, &tcp(b"publish")))),
        (Kind::Ipv4Icmp, ethernet(v4, &ipv4(Protocol::Icmp, &[8, 0, 0, 0]))),
        (Kind::Ipv4Other, ethernet(v4, &ipv4(Protocol::Gre, &[]))),
        (Kind::Ipv4Fragment, ethernet(v4, &fragment)),
        (Kind::BadIpv4TotalLength, ethernet(v4, &long)),
        (Kind::BadTcpOffset, ethernet(v4, &low)),
        (Kind::ShortUdp, ethernet(v4, &ipv4(Protocol::Udp, &[0; 7]))),
        (Kind::BadIpv4Version, ethernet(v4, &ipv6(Protocol::Udp, &udp(b"")))),
        (Kind::ShortIpv4, ethernet(v4, &[0x45; 19])),
        (Kind::Ipv6Udp, ethernet(v6, &ipv6(Protocol::Udp, &udp(b"reading")))),
        (
            Kind::Ipv6Tcp,
            ethernet(
                EtherTypes::PBridge,
                &vlan(EtherTypes::Vlan, &vlan(v6, &ipv6(Protocol::Tcp, &tcp(b"two tags")))),
            ),
        ),
        (Kind::Ipv6Icmp, ethernet(v6, &ipv6(Protocol::Icmpv6, &[135, 0, 0, 0]))),
        (Kind::Ipv6Extension, ethernet(v6, &ipv6(Protocol::Hopopt, &[58, 0, 5, 2, 0, 0, 0, 0]))),
        (Kind::BadUdpLength, ethernet(v6, &stretched)),
        (Kind::ShortIpv6, ethernet(v6, &[0x60; 39])),
        (Kind::Lldp, ethernet(EtherTypes::Lldp, &[0, 0])),
        (Kind::Eapol, ethernet(EtherType(0x888e), &[1, 1, 0, 0])),
        (Kind::OtherEtherType, ethernet(EtherType(0x88b5), b"local experiment")),
        (Kind::Llc, ethernet(EtherType(38), &[0x42, 0x42, 3])),
        (
            Kind::ManyVlans,
            ethernet(
                EtherTypes::PBridge,
                &vlan(EtherTypes::Vlan, &vlan(EtherTypes::Vlan, &vlan(v4, b"three"))),
            ),
        ),
    ]
}

fn tally(frames: &[(Kind, Vec<u8>)]) -> Vec<(Kind, Counter)> {
    let count = |kind: &Kind| {
        let of_kind = frames.iter().filter(|(other, _)| other == kind).map(|(_, frame)| frame.len() as u64);
        (*kind, Counter { frames: of_kind.clone().count() as u64, bytes: of_kind.sum() })
    };
    Kind::ALL.iter().map(count).collect()
}

type Wire = (Box<dyn DataLinkSender>, Box<dyn DataLinkReceiver>);

/// A packet socket on `interface`; a read that finds nothing for ten seconds fails.
fn open(interface: &str) -> Wire {
    let interface = datalink::interfaces().into_iter().find(|other| other.name == interface).unwrap();
    let config =
        datalink::Config { read_timeout: Some(Duration::from_secs(10)), ..datalink::Config::default() };
    match datalink::channel(&interface, config) {
        Ok(Channel::Ethernet(sender, receiver)) => (sender, receiver),
        Ok(_) => panic!("{interface} is no Ethernet interface"),
        Err(error) => panic!("no packet socket on {interface}: needs CAP_NET_RAW: {error}"),
    }
}

fn total(counts: &[(Kind, Counter)]) -> u64 {
    counts.iter().map(|(_, counter)| counter.frames).sum()
}

#[test]
fn frames_on_a_veth_are_counted_exactly_and_passed() {
    let _namespace = Namespace::new("count");
    let observer = Observer::attach("port").unwrap();
    assert_eq!((observer.mode(), observer.interface()), (Mode::Native, "port"));
    // Each is sent as often as its place says, so that no two counters can be mistaken for one another.
    let frames: Vec<_> =
        (1..).zip(crafted()).flat_map(|(times, frame)| std::iter::repeat_n(frame, times)).collect();
    let ((mut sender, _), (_, mut receiver)) = (open("sensor"), open("port"));
    for (kind, frame) in &frames {
        sender.send_to(frame, None).unwrap().unwrap();
        let passed = receiver.next().unwrap_or_else(|error| panic!("{kind:?} did not pass: {error}"));
        // The kernel takes the outermost VLAN tag off before it shows a frame to a packet socket.
        assert!(frame.starts_with(&passed[..12]) && frame.ends_with(&passed[12..]), "{kind:?} was changed");
    }
    assert_eq!(observer.counts().unwrap(), tally(&frames));

    let metrics = ObserverMetrics::new(vec![observer]).unwrap();
    let collected = metrics.collect();
    let frames_metric: f64 =
        collected[0].get_metric().iter().map(|metric| metric.get_counter().get_value()).sum();
    assert_eq!(frames_metric, f64::from(u32::try_from(frames.len()).unwrap()));
    drop(metrics);
    // Detached with its observer: another may attach.
    assert_eq!(total(&Observer::attach("port").unwrap().counts().unwrap()), 0);
}

#[test]
fn arbitrary_frames_are_judged_in_the_kernel_as_in_user_space() {
    let mut ebpf = datapath::load().unwrap();
    datapath::program(&mut ebpf).unwrap();
    let seeds = crafted();
    let mut seen = Vec::new();
    // Random bytes put into, or cut from, frames that get far into the parser.
    let strategy =
        (0..seeds.len(), proptest::collection::vec((0usize..64, proptest::num::u8::ANY), 0..4), 14usize..200);
    let mut runner = TestRunner::new(Config { cases: 4000, failure_persistence: None, ..Config::default() });
    let outcome = std::cell::RefCell::new((&mut ebpf, &mut seen));
    runner
        .run(&strategy, |(seed, changes, length)| {
            let mut frame = seeds[seed].1.clone();
            for (at, byte) in changes {
                if let Some(place) = frame.get_mut(at) {
                    *place = byte;
                }
            }
            frame.truncate(length);
            let (ebpf, seen) = &mut *outcome.borrow_mut();
            let program: &mut aya::programs::Xdp = ebpf.program_mut("observe").unwrap().try_into().unwrap();
            let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::default() };
            assert_eq!(program.test_run(options).unwrap().return_value, XDP_PASS);
            seen.push((classify(frame.as_slice()), frame));
            Ok(())
        })
        .unwrap();
    assert_eq!(datapath::counts(&ebpf).unwrap(), tally(&seen));
    let kinds = Kind::ALL.iter().filter(|kind| seen.iter().any(|(other, _)| other == *kind)).count();
    assert!(kinds >= 28, "only {kinds} of {} kinds were reached", Kind::ALL.len());
}

#[test]
fn an_absent_interface_is_named() {
    let _namespace = Namespace::new("absent");
    let error = Observer::attach("nowhere").unwrap_err();
    assert!(matches!(&error, DatapathError::Interface(name) if name == "nowhere"), "{error}");
}

/// Runs itself again without capabilities.
#[test]
fn a_missing_privilege_is_named() {
    if std::env::var_os(UNPRIVILEGED).is_none() {
        let mut child = Command::new("setpriv");
        child.args(["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"]);
        child.arg(std::env::current_exe().unwrap()).args([
            "--exact",
            "a_missing_privilege_is_named",
            "--nocapture",
        ]);
        let output = child.env(UNPRIVILEGED, "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let error = Observer::attach("lo").unwrap_err();
    assert!(matches!(error, DatapathError::Privilege { .. }), "{error}");
    let said = error.to_string();
    assert!(said.contains("CAP_BPF") && said.contains("datapath = \"off\""), "{said}");
}
