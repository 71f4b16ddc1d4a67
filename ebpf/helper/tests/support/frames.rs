//! Frames, from pnet's packet builders where it has one, so that the expectation isn't the parser's own opinion.

use std::net::{Ipv4Addr, Ipv6Addr};

use pnet::packet::arp::{ArpHardwareTypes, ArpOperations, MutableArpPacket};
use pnet::packet::ethernet::{EtherType, EtherTypes, MutableEthernetPacket};
use pnet::packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet::packet::ipv4::{self, Ipv4Flags, MutableIpv4Packet};
use pnet::packet::ipv6::MutableIpv6Packet;
use pnet::packet::tcp::MutableTcpPacket;
use pnet::packet::udp::MutableUdpPacket;
use pnet::packet::vlan::MutableVlanPacket;
use pnet::util::MacAddr;

pub(crate) type Mac = [u8; 6];

pub(crate) const GATEWAY: Mac = [2, 0, 0, 0, 0, 0xff];
pub(crate) const GATEWAY_TEXT: &str = "02:00:00:00:00:ff";
pub(crate) const SENSOR: Mac = [2, 0, 0, 0, 0, 1];
pub(crate) const STRANGER: Mac = [2, 0, 0, 0, 0, 0x66];
pub(crate) const BROADCAST: Mac = [0xff; 6];
pub(crate) const OWN: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub(crate) const OTHER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
pub(crate) const OWN6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1);
pub(crate) const V4: EtherType = EtherTypes::Ipv4;
pub(crate) const V6: EtherType = EtherTypes::Ipv6;

pub(crate) fn ethernet(source: Mac, destination: Mac, ethertype: EtherType, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 14];
    let mut packet = MutableEthernetPacket::new(&mut frame).unwrap();
    packet.set_source(MacAddr::from(source));
    packet.set_destination(MacAddr::from(destination));
    packet.set_ethertype(ethertype);
    [frame, body.to_vec()].concat()
}

pub(crate) fn vlan(ethertype: EtherType, body: &[u8]) -> Vec<u8> {
    let mut tag = vec![0; 4];
    let mut packet = MutableVlanPacket::new(&mut tag).unwrap();
    packet.set_vlan_identifier(42);
    packet.set_ethertype(ethertype);
    [tag, body.to_vec()].concat()
}

pub(crate) fn ipv4(destination: Ipv4Addr, protocol: IpNextHeaderProtocol, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 20];
    let mut packet = MutableIpv4Packet::new(&mut header).unwrap();
    packet.set_version(4);
    packet.set_header_length(5);
    packet.set_ttl(64);
    packet.set_total_length(u16::try_from(20 + payload.len()).unwrap());
    packet.set_flags(Ipv4Flags::DontFragment);
    packet.set_next_level_protocol(protocol);
    packet.set_source(OTHER);
    packet.set_destination(destination);
    packet.set_checksum(ipv4::checksum(&packet.to_immutable()));
    [header, payload.to_vec()].concat()
}

pub(crate) fn ipv6(destination: Ipv6Addr, next: IpNextHeaderProtocol, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 40];
    let mut packet = MutableIpv6Packet::new(&mut header).unwrap();
    packet.set_version(6);
    packet.set_hop_limit(64);
    packet.set_payload_length(u16::try_from(payload.len()).unwrap());
    packet.set_next_header(next);
    packet.set_destination(destination);
    [header, payload.to_vec()].concat()
}

pub(crate) fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 8];
    let mut packet = MutableUdpPacket::new(&mut header).unwrap();
    packet.set_source(source);
    packet.set_destination(destination);
    packet.set_length(u16::try_from(8 + payload.len()).unwrap());
    [header, payload.to_vec()].concat()
}

pub(crate) fn tcp(destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 20];
    let mut packet = MutableTcpPacket::new(&mut header).unwrap();
    packet.set_source(40_000);
    packet.set_destination(destination);
    packet.set_data_offset(5);
    [header, payload.to_vec()].concat()
}

pub(crate) fn arp(source: Mac) -> Vec<u8> {
    let mut packet = vec![0; 28];
    let mut arp = MutableArpPacket::new(&mut packet).unwrap();
    arp.set_hardware_type(ArpHardwareTypes::Ethernet);
    arp.set_protocol_type(EtherTypes::Ipv4);
    arp.set_hw_addr_len(6);
    arp.set_proto_addr_len(4);
    // A reply that nobody asked for: the kernel answers none, so what is counted is what the test sends.
    arp.set_operation(ArpOperations::Reply);
    arp.set_sender_hw_addr(MacAddr::from(source));
    ethernet(source, BROADCAST, EtherTypes::Arp, &packet)
}

/// A segment of a bound sensor's MQTT connection.
pub(crate) fn publish(source: Mac) -> Vec<u8> {
    publish_to(source, GATEWAY, OWN, 1883)
}

pub(crate) fn publish_to(source: Mac, destination: Mac, address: Ipv4Addr, port: u16) -> Vec<u8> {
    ethernet(source, destination, V4, &ipv4(address, IpNextHeaderProtocols::Tcp, &tcp(port, b"reading")))
}

/// Frames of every part of the parser, from and to whom given.
pub(crate) fn crafted(source: Mac, destination: Mac) -> Vec<Vec<u8>> {
    use IpNextHeaderProtocols as Protocol;
    let frame = |ethertype, body: &[u8]| ethernet(source, destination, ethertype, body);
    let v4 = |protocol, payload: &[u8]| frame(V4, &ipv4(OWN, protocol, payload));
    let v6 = |next, payload: &[u8]| frame(V6, &ipv6(OWN6, next, payload));
    let mut fragment = ipv4(OWN, Protocol::Udp, &udp(1, 1883, b"part"));
    MutableIpv4Packet::new(&mut fragment).unwrap().set_flags(Ipv4Flags::MoreFragments);
    let mut long = ipv4(OWN, Protocol::Udp, &udp(1, 2, b"x"));
    MutableIpv4Packet::new(&mut long).unwrap().set_total_length(1000);
    let mut low = tcp(1883, b"x");
    low[12] = 0x40;
    let mut stretched = ipv6(OWN6, Protocol::Udp, &udp(1, 2, b"x"));
    stretched[40 + 5] = 10;
    vec![
        arp(source),
        arp(source)[..14 + 27].to_vec(),
        v4(Protocol::Tcp, &tcp(1883, b"publish")),
        v4(Protocol::Tcp, &tcp(22, b"knock")),
        v4(Protocol::Udp, &udp(68, 67, b"discover")),
        v4(Protocol::Udp, &udp(5353, 5353, b"query")),
        v4(Protocol::Udp, &udp(1, 2, b"reading")),
        frame(EtherTypes::Vlan, &vlan(V4, &ipv4(OWN, Protocol::Tcp, &tcp(1883, b"tagged")))),
        v4(Protocol::Icmp, &[8, 0, 0, 0]),
        v4(Protocol::Gre, &[]),
        frame(V4, &fragment),
        frame(V4, &long),
        v4(Protocol::Tcp, &low),
        v4(Protocol::Udp, &[0; 7]),
        frame(V4, &ipv6(OWN6, Protocol::Udp, &udp(1, 2, b""))),
        frame(V4, &[0x45; 19]),
        v6(Protocol::Tcp, &tcp(1883, b"publish")),
        v6(Protocol::Udp, &udp(546, 547, b"solicit")),
        frame(
            EtherTypes::PBridge,
            &vlan(EtherTypes::Vlan, &vlan(V6, &ipv6(OWN6, Protocol::Tcp, &tcp(1883, b"x")))),
        ),
        v6(Protocol::Icmpv6, &[135, 0, 0, 0]),
        v6(Protocol::Icmpv6, &[134, 0, 0, 0]),
        v6(Protocol::Hopopt, &[58, 0, 5, 2, 0, 0, 0, 0]),
        frame(V6, &stretched),
        frame(V6, &[0x60; 39]),
        frame(EtherTypes::Lldp, &[0, 0]),
        frame(EtherType(0x888e), &[1, 1, 0, 0]),
        frame(EtherType(0x88b5), b"local experiment"),
        frame(EtherType(38), &[0x42, 0x42, 3]),
    ]
}
