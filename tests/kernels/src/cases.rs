//! The frames, and what becomes of each. Flows, groups and meters that they meet are in [`flows`]. A new program's go in here: its name, a frame, the program's return value, and the verdict
//! under which it is counted.

pub(crate) mod flows;
mod switch_ports;

use caregate_ebpf_common::{SENSOR_PROGRAM, UPLINK_PROGRAM};
use caregate_protocol::datapath::{Device, OpenPort, Policy};
use pnet::packet::ethernet::EtherTypes;
use pnet::packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols as Protocol};
use pnet::packet::ipv4::{Ipv4Flags, MutableIpv4Packet};

use crate::frames::{
    BROADCAST, GATEWAY, OTHER, OWN, OWN6, SENSOR, STRANGER, V4, V6, arp, ethernet, ipv4, ipv6, publish,
    publish_to, tcp, udp, vlan,
};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const TC_UNSPEC: u32 = u32::MAX;
const TC_SHOT: u32 = 2;

/// A sensor port; where frames of [`Case`]s come in that are no switch port's.
pub(crate) const PORT_GUARDED: u32 = 1;
/// A sensor port on a veth.
pub(crate) const PORT_SENSOR: u32 = 2;
/// An uplink on a veth.
pub(crate) const PORT_UPLINK: u32 = 3;
/// A switch port.
pub(crate) const PORT_SWITCH: u32 = 4;

/// One frame through one program, and those that it goes on to.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) program: &'static str,
    pub(crate) what: &'static str,
    pub(crate) frame: Vec<u8>,
    pub(crate) action: u32,
    pub(crate) verdict: &'static str,
    /// The frame behind the program, where it is another.
    pub(crate) changed: Option<Vec<u8>>,
    /// The port that the frame comes in by.
    pub(crate) port: u32,
}

/// One bound sensor, MQTT's port open.
pub(crate) fn policy() -> Policy {
    Policy {
        devices: vec![Device { index: 4, mac: SENSOR }],
        ports: vec![OpenPort { protocol: 6, port: 1883 }],
        floor: vec![],
    }
}

/// All cases: those of sensor ports and uplinks, then those of switch ports.
pub(crate) fn all() -> Vec<Case> {
    [sensor_drops(), sensor_passes(), uplink(), switch_ports::all()].concat()
}

fn case(
    program: &'static str,
    action: u32,
    (what, verdict): (&'static str, &'static str),
    frame: Vec<u8>,
) -> Case {
    Case { program, what, frame, action, verdict, changed: None, port: PORT_GUARDED }
}

fn from_stranger(next: IpNextHeaderProtocol, payload: &[u8]) -> Vec<u8> {
    ethernet(STRANGER, GATEWAY, V4, &ipv4(OWN, next, payload))
}

/// Table 0, what it refuses.
fn sensor_drops() -> Vec<Case> {
    let mut fragment = ipv4(OWN, Protocol::Tcp, &tcp(1883, b"part"));
    if let Some(mut packet) = MutableIpv4Packet::new(&mut fragment) {
        packet.set_flags(Ipv4Flags::MoreFragments);
    }
    let ip6 = |next, payload: &[u8]| ethernet(SENSOR, GATEWAY, V6, &ipv6(OWN6, next, payload));
    let twice = vlan(EtherTypes::Vlan, &vlan(V4, &ipv4(OWN, Protocol::Tcp, &tcp(1883, b"t"))));
    let dropped: Vec<((&str, &str), Vec<u8>)> = vec![
        (("an IPv4 header cut short", "malformed"), ethernet(SENSOR, GATEWAY, V4, &[0x45; 19])),
        (("an IPv4 fragment", "fragment"), ethernet(SENSOR, GATEWAY, V4, &fragment)),
        (("an IPv6 extension header", "fragment"), ip6(Protocol::Hopopt, &[58, 0, 5, 2, 0, 0, 0, 0])),
        (("two tags", "vlans"), ethernet(SENSOR, GATEWAY, EtherTypes::Vlan, &twice)),
        (("a closed port", "closed_port"), publish_to(SENSOR, GATEWAY, OWN, 22)),
        (
            ("UDP to an open TCP port", "closed_port"),
            ethernet(SENSOR, GATEWAY, V4, &ipv4(OWN, Protocol::Udp, &udp(1, 1883, b"u"))),
        ),
        (("another address", "other_destination"), publish_to(SENSOR, GATEWAY, OTHER, 1883)),
        (("another device", "other_destination"), publish_to(SENSOR, STRANGER, OWN, 1883)),
        (("to all", "other_destination"), publish_to(SENSOR, BROADCAST, OWN, 1883)),
        (("the gateway's own address", "bad_source"), publish(GATEWAY)),
        (("a group address", "bad_source"), publish(BROADCAST)),
        (("a stranger's reading", "unbound_source"), publish(STRANGER)),
        (
            ("a stranger's DHCP server", "unbound_source"),
            from_stranger(Protocol::Udp, &udp(67, 68, b"offer")),
        ),
        (("a rule takes IPv6 away", "rule"), ip6(Protocol::Tcp, &tcp(1883, b"reading"))),
    ];
    dropped.into_iter().map(|(names, frame)| case(SENSOR_PROGRAM, XDP_DROP, names, frame)).collect()
}

/// Table 0, what it admits.
fn sensor_passes() -> Vec<Case> {
    let tagged = vlan(V4, &ipv4(OWN, Protocol::Tcp, &tcp(1883, b"tagged")));
    let passed: Vec<((&str, &str), Vec<u8>)> = vec![
        (("a bound sensor's reading", "admitted"), publish(SENSOR)),
        (("the same with a tag", "admitted"), ethernet(SENSOR, GATEWAY, EtherTypes::Vlan, &tagged)),
        (("a stranger's ARP", "discovery"), arp(STRANGER)),
        (("a stranger's DHCP", "discovery"), from_stranger(Protocol::Udp, &udp(68, 67, b"discover"))),
        (("a stranger's mDNS", "discovery"), from_stranger(Protocol::Udp, &udp(5353, 5353, b"query"))),
        (("a stranger's LLDP", "discovery"), ethernet(STRANGER, GATEWAY, EtherTypes::Lldp, &[0, 0])),
        (("a bound sensor's ARP", "discovery"), arp(SENSOR)),
    ];
    passed.into_iter().map(|(names, frame)| case(SENSOR_PROGRAM, XDP_PASS, names, frame)).collect()
}

/// What the gateway itself sends.
fn uplink() -> Vec<Case> {
    let datagram = ethernet(GATEWAY, STRANGER, V4, &ipv4(OTHER, Protocol::Udp, &udp(1, 2, b"x")));
    vec![
        case(UPLINK_PROGRAM, TC_UNSPEC, ("no rule", "sent"), publish_to(GATEWAY, STRANGER, OTHER, 4433)),
        case(UPLINK_PROGRAM, TC_UNSPEC, ("what keeps the link up", "sent"), arp(GATEWAY)),
        case(UPLINK_PROGRAM, TC_SHOT, ("a rule", "send_dropped"), datagram),
    ]
}
