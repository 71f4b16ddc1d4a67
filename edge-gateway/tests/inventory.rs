//! The device inventory on a real wire: frames sent into a veth pair, read from a packet socket behind the kernel's own filter. Needs
//! root; without it each test fails and says so.

#![expect(clippy::unwrap_used, reason = "what a test can't set up fails it")]

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, id};
use std::time::Duration;

use caregate_protocol::id::DeviceId;
use caregate_protocol::policy::Mac;
use edge_gateway::hints::Hints;
use edge_gateway::inventory::frame::Means;
use edge_gateway::inventory::table::{Inventory, Seen};
use edge_gateway::inventory::{InventoryMetrics, Shared, Tap, keep};
use pnet::datalink::{self, Channel, DataLinkSender};
use pnet::packet::arp::{ArpHardwareTypes, ArpOperations, MutableArpPacket};
use pnet::packet::dhcp::{DhcpHardwareTypes, DhcpOperations, MutableDhcpPacket};
use pnet::packet::ethernet::{EtherType, EtherTypes, MutableEthernetPacket};
use pnet::packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet::packet::ipv4::MutableIpv4Packet;
use pnet::packet::tcp::{MutableTcpPacket, TcpFlags};
use pnet::packet::udp::MutableUdpPacket;
use pnet::util::MacAddr;
use prometheus::Registry;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Protocol, Socket, Type};
use tokio_util::sync::CancellationToken;

/// ETH_P_ALL of packet(7), in network order.
const EVERY_PROTOCOL: u16 = 0x0003_u16.to_be();
const PORT: u32 = 1;

fn output(program: &str, arguments: &[&str]) -> String {
    let output =
        Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{program} {}` needs root and iproute2: {said}", arguments.join(" "));
    String::from_utf8(output.stdout).unwrap()
}

fn run(program: &str, arguments: &[&str]) {
    output(program, arguments);
}

/// A network namespace with two veth ends, `sensor` and `port`; this thread is in it. Removed on drop.
struct Namespace {
    name: String,
    home: File,
}

impl Namespace {
    fn new(test: &str) -> Self {
        let name = format!("caregate-inventory-{test}-{}", id());
        let home = File::open("/proc/thread-self/ns/net").unwrap();
        run("ip", &["netns", "add", &name]);
        let namespace = Self { home, name };
        let inside = File::open(format!("/run/netns/{}", namespace.name)).unwrap();
        move_into_link_name_space(inside.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        // Else the kernel's own neighbour discovery would be seen too.
        fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        run("ip", &["link", "add", "sensor", "type", "veth", "peer", "name", "port"]);
        run("ip", &["link", "set", "sensor", "up"]);
        run("ip", &["link", "set", "port", "up"]);
        // The kernel notices the carrier a little later and drops what is sent before.
        while !output("ip", &["-o", "link", "show", "dev", "sensor"]).contains("state UP") {
            std::thread::yield_now();
        }
        namespace
    }

    fn sender(&self) -> Box<dyn DataLinkSender> {
        let interface = datalink::interfaces().into_iter().find(|other| other.name == "sensor").unwrap();
        match datalink::channel(&interface, datalink::Config::default()) {
            Ok(Channel::Ethernet(sender, _)) => sender,
            Ok(_) => panic!("no Ethernet interface"),
            Err(error) => panic!("no packet socket: needs CAP_NET_RAW: {error}"),
        }
    }

    /// Hears every interface of the namespace: what `sensor` sends, it hears as it comes in at `port`.
    fn socket(&self) -> OwnedFd {
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(EVERY_PROTOCOL))));
        socket.unwrap_or_else(|error| panic!("no packet socket: needs CAP_NET_RAW: {error}")).into()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let back = move_into_link_name_space(self.home.as_fd(), Some(LinkNameSpaceType::Network));
        let removed = Command::new("ip").args(["netns", "del", &self.name]).status();
        if !std::thread::panicking() {
            let removed = removed.is_ok_and(|status| status.success());
            assert!(back.is_ok() && removed, "{} is left behind", self.name);
        }
    }
}

fn ethernet(source: Mac, kind: EtherType, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 14 + payload.len()];
    let mut frame = MutableEthernetPacket::new(&mut bytes).unwrap();
    frame.set_source(source.0.into());
    frame.set_destination(MacAddr::broadcast());
    frame.set_ethertype(kind);
    frame.set_payload(payload);
    bytes
}

fn ipv4(source: Mac, address: [u8; 4], protocol: IpNextHeaderProtocol, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 20 + payload.len()];
    let total = u16::try_from(bytes.len()).unwrap();
    let mut ip = MutableIpv4Packet::new(&mut bytes).unwrap();
    ip.set_version(4);
    ip.set_header_length(5);
    ip.set_total_length(total);
    ip.set_next_level_protocol(protocol);
    ip.set_source(address.into());
    ip.set_payload(payload);
    ethernet(source, EtherTypes::Ipv4, &bytes)
}

fn udp(source: Mac, address: [u8; 4], ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 8 + payload.len()];
    let length = u16::try_from(bytes.len()).unwrap();
    let mut udp = MutableUdpPacket::new(&mut bytes).unwrap();
    udp.set_source(ports.0);
    udp.set_destination(ports.1);
    udp.set_length(length);
    udp.set_payload(payload);
    ipv4(source, address, IpNextHeaderProtocols::Udp, &bytes)
}

fn tcp(source: Mac, flags: u8) -> Vec<u8> {
    let mut bytes = vec![0; 20];
    let mut tcp = MutableTcpPacket::new(&mut bytes).unwrap();
    tcp.set_data_offset(5);
    tcp.set_flags(flags);
    ipv4(source, [192, 168, 8, 9], IpNextHeaderProtocols::Tcp, &bytes)
}

fn arp(source: Mac, address: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![0; 28];
    let mut arp = MutableArpPacket::new(&mut bytes).unwrap();
    arp.set_hardware_type(ArpHardwareTypes::Ethernet);
    arp.set_protocol_type(EtherTypes::Ipv4);
    arp.set_hw_addr_len(6);
    arp.set_proto_addr_len(4);
    arp.set_operation(ArpOperations::Request);
    arp.set_sender_hw_addr(source.0.into());
    arp.set_sender_proto_addr(address.into());
    ethernet(source, EtherTypes::Arp, &bytes)
}

fn dhcp(source: Mac) -> Vec<u8> {
    let mut bytes = vec![0; 236];
    let mut dhcp = MutableDhcpPacket::new(&mut bytes).unwrap();
    dhcp.set_op(DhcpOperations::Request);
    dhcp.set_htype(DhcpHardwareTypes::Ethernet);
    dhcp.set_hlen(6);
    dhcp.set_chaddr(source.0.into());
    bytes.extend(b"\x63\x82\x53\x63\x35\x01\x01\x0c\x07bp-cuff\x3c\x0cudhcp 1.36.1\xff");
    udp(source, [0; 4], (68, 67), &bytes)
}

fn mdns(source: Mac) -> Vec<u8> {
    let message =
        b"\0\0\x84\0\0\0\0\x01\0\0\0\0\x05scale\x05local\0\0\x01\x80\x01\0\0\0\x78\0\x04\xc0\xa8\x08\x15";
    udp(source, [192, 168, 8, 21], (5353, 5353), message)
}

fn lldp(source: Mac) -> Vec<u8> {
    ethernet(source, EtherTypes::Lldp, b"\x02\x07\x04\x02\0\0\0\0\x04\x0a\x04ap-1\x0c\x06Switch\0\0")
}

fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

fn shared(inventory: Inventory) -> (Shared, Registry) {
    let registry = Registry::new();
    (Shared::new(inventory, InventoryMetrics::register(&registry).unwrap()), registry)
}

/// Waits until `condition` holds for the inventory.
async fn until(shared: &Shared, condition: impl Fn(&Inventory) -> bool) {
    let seen = async {
        while !condition(&shared.lock()) {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), seen).await;
    assert!(waited.is_ok(), "not seen in time; there are {:?}", shared.lock().devices());
}

fn total(registry: &Registry, name: &str, label: &str) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name).unwrap();
    let labelled =
        |metric: &&prometheus::proto::Metric| metric.get_label().iter().any(|pair| pair.value() == label);
    family.get_metric().iter().filter(labelled).map(|metric| metric.get_counter().get_value()).sum()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn devices_are_seen_on_the_wire_by_what_they_announce() {
    let namespace = Namespace::new("seen");
    let (shared, registry) = shared(Inventory::default());
    let (mut sender, socket, stop) = (namespace.sender(), namespace.socket(), CancellationToken::new());
    runtime().block_on(async {
        let tap = Tap::new(socket, PORT).unwrap();
        let reading = tokio::spawn(tap.run(shared.clone(), stop.clone()));
        for frame in [arp(mac(1), [192, 168, 8, 20]), dhcp(mac(2)), mdns(mac(3)), lldp(mac(4))] {
            sender.send_to(&frame, None).unwrap().unwrap();
        }
        // Of TCP the kernel shows the first segment alone.
        for _ in 0..200 {
            sender.send_to(&tcp(mac(5), TcpFlags::ACK | TcpFlags::PSH), None).unwrap().unwrap();
        }
        sender.send_to(&tcp(mac(6), TcpFlags::SYN), None).unwrap().unwrap();
        // Malformed frames cost a counter and harm nobody.
        sender.send_to(&ethernet(Mac([1, 0, 0, 0, 0, 1]), EtherTypes::Arp, &[0; 28]), None).unwrap().unwrap();
        sender.send_to(&ethernet(mac(7), EtherTypes::Lldp, b"\xff\xff"), None).unwrap().unwrap();
        until(&shared, |inventory| inventory.device(mac(7)).is_some()).await;
        stop.cancel();
        reading.await.unwrap();
    });
    let inventory = shared.lock();
    let told = |n| {
        let Seen { means, name, about, .. } =
            inventory.device(mac(n)).unwrap_or_else(|| panic!("{n}")).clone();
        (means.into_iter().collect::<Vec<_>>(), name.unwrap_or_default(), about.unwrap_or_default())
    };
    assert_eq!(told(1), (vec![Means::Arp], String::new(), String::new()));
    assert_eq!(told(2), (vec![Means::Dhcp], "bp-cuff".into(), "udhcp 1.36.1".into()));
    assert_eq!(told(3), (vec![Means::Mdns], "scale".into(), String::new()));
    assert_eq!(told(4), (vec![Means::Lldp], "ap-1".into(), "Switch".into()));
    assert_eq!(told(6).0, [Means::Ip]);
    assert_eq!(inventory.device(mac(5)), None, "a connection's later segments are left out by the kernel");
    assert!(inventory.devices().iter().all(|(_, seen)| seen.frames == 1 && seen.port == PORT), "once each");
    assert_eq!(inventory.len(), 6);
    let faults = "caregate_gateway_inventory_faults_total";
    assert!((total(&registry, faults, "source"), total(&registry, faults, "lldp")) == (1.0, 1.0));
}

#[test]
fn a_flood_of_made_up_addresses_is_bounded_and_bound_sensors_are_seen() {
    let namespace = Namespace::new("flood");
    let mut inventory = Inventory::default();
    inventory.bind([(mac(9), DeviceId::new("ecg-1").unwrap())].into());
    let (shared, registry) = shared(inventory);
    let (mut sender, socket, stop) = (namespace.sender(), namespace.socket(), CancellationToken::new());
    runtime().block_on(async {
        let tap = Tap::new(socket, PORT).unwrap();
        let reading = tokio::spawn(tap.run(shared.clone(), stop.clone()));
        for n in 0..20_000_u32 {
            let [a, b, c, d] = n.to_be_bytes();
            sender.send_to(&arp(Mac([6, 0, a, b, c, d]), [10, b, c, d]), None).unwrap().unwrap();
        }
        // The kernel's buffer is full of the flood; the sensor repeats itself, as ARP does.
        let seen = until(&shared, |inventory| inventory.device(mac(9)).is_some());
        let repeating = async {
            loop {
                sender.send_to(&arp(mac(9), [192, 168, 8, 9]), None).unwrap().unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = seen => {}
            () = repeating => {}
        }
        stop.cancel();
        reading.await.unwrap();
    });
    let strangers = shared.lock().len() - 1;
    assert!((1..=70).contains(&strangers), "{strangers}");
    assert!(total(&registry, "caregate_gateway_inventory_sightings_total", "too_many_new") > 0.0);
}

#[test]
fn who_was_seen_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hints");
    let (first, _registry) = shared(Inventory::default());
    first.take(PORT, &dhcp(mac(2)), 5_000_000);
    first.take(PORT, &arp(mac(3), [192, 168, 8, 3]), 6_000_000);
    let stop = CancellationToken::new();
    stop.cancel();
    runtime().block_on(keep(first.clone(), Hints::open(&path, &[7; 32]).unwrap(), stop.clone()));
    let hints = Hints::open(&path, &[7; 32]).unwrap();
    let again = Inventory::restored(hints.seen());
    assert_eq!(again.devices(), first.lock().devices());
    assert_eq!(again.device(mac(2)).unwrap().name.as_deref(), Some("bp-cuff"));
    assert!(first.lock().forget(mac(3)));
    runtime().block_on(keep(first, hints.clone(), stop));
    assert_eq!(hints.seen().len(), 1);
}
