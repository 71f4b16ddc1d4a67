//! Frames as other software builds them: with `pnet`'s own builders, and cut, changed and made up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use caregate_protocol::policy::Mac;
use pnet::packet::arp::{ArpHardwareTypes, ArpOperations, MutableArpPacket};
use pnet::packet::dhcp::{DhcpHardwareTypes, DhcpOperations, MutableDhcpPacket};
use pnet::packet::ethernet::{EtherType, EtherTypes, MutableEthernetPacket};
use pnet::packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet::packet::ipv4::MutableIpv4Packet;
use pnet::packet::ipv6::MutableIpv6Packet;
use pnet::packet::udp::MutableUdpPacket;
use pnet::util::MacAddr;
use proptest::prelude::*;

use super::frame::{Fault, Means, Sighting, read};

const SENSOR: Mac = Mac([0x02, 0, 0, 0, 0, 0x11]);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 8, 20);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11);

fn ethernet(kind: EtherType, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 14 + payload.len()];
    let mut frame = MutableEthernetPacket::new(&mut bytes).unwrap();
    frame.set_source(SENSOR.0.into());
    frame.set_destination(MacAddr::broadcast());
    frame.set_ethertype(kind);
    frame.set_payload(payload);
    bytes
}

fn arp(sender: Mac, address: Ipv4Addr) -> Vec<u8> {
    let mut bytes = vec![0; 28];
    let mut arp = MutableArpPacket::new(&mut bytes).unwrap();
    arp.set_hardware_type(ArpHardwareTypes::Ethernet);
    arp.set_protocol_type(EtherTypes::Ipv4);
    arp.set_hw_addr_len(6);
    arp.set_proto_addr_len(4);
    arp.set_operation(ArpOperations::Request);
    arp.set_sender_hw_addr(sender.0.into());
    arp.set_sender_proto_addr(address);
    bytes
}

fn udp(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 8 + payload.len()];
    let length = u16::try_from(bytes.len()).unwrap();
    let mut udp = MutableUdpPacket::new(&mut bytes).unwrap();
    udp.set_source(ports.0);
    udp.set_destination(ports.1);
    udp.set_length(length);
    udp.set_payload(payload);
    bytes
}

fn ipv4(source: Ipv4Addr, protocol: IpNextHeaderProtocol, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 20 + payload.len()];
    let total = u16::try_from(bytes.len()).unwrap();
    let mut ip = MutableIpv4Packet::new(&mut bytes).unwrap();
    ip.set_version(4);
    ip.set_header_length(5);
    ip.set_total_length(total);
    ip.set_next_level_protocol(protocol);
    ip.set_source(source);
    ip.set_payload(payload);
    bytes
}

fn ipv6(next: IpNextHeaderProtocol, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 40 + payload.len()];
    let mut ip = MutableIpv6Packet::new(&mut bytes).unwrap();
    ip.set_version(6);
    ip.set_payload_length(u16::try_from(payload.len()).unwrap());
    ip.set_next_header(next);
    ip.set_source(LINK_LOCAL);
    ip.set_payload(payload);
    bytes
}

fn dhcp(client: Mac, options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 236];
    let mut dhcp = MutableDhcpPacket::new(&mut bytes).unwrap();
    dhcp.set_op(DhcpOperations::Request);
    dhcp.set_htype(DhcpHardwareTypes::Ethernet);
    dhcp.set_hlen(6);
    dhcp.set_chaddr(client.0.into());
    bytes.extend([99, 130, 83, 99]);
    bytes.extend(options);
    bytes
}

fn dhcp_frame(client: Mac, options: &[u8]) -> Vec<u8> {
    let message = udp((68, 67), &dhcp(client, options));
    ethernet(EtherTypes::Ipv4, &ipv4(Ipv4Addr::UNSPECIFIED, IpNextHeaderProtocols::Udp, &message))
}

fn mdns(host: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    bytes.push(u8::try_from(host.len()).unwrap());
    bytes.extend(host);
    bytes.extend(b"\x05local\0\0\x01\x80\x01\0\0\0\x78\0\x04");
    bytes.extend(ADDRESS.octets());
    bytes
}

fn mdns_frame(host: &[u8]) -> Vec<u8> {
    let message = udp((5353, 5353), &mdns(host));
    ethernet(EtherTypes::Ipv4, &ipv4(ADDRESS, IpNextHeaderProtocols::Udp, &message))
}

fn lldp_frame() -> Vec<u8> {
    ethernet(EtherTypes::Lldp, b"\x02\x07\x04\x02\0\0\0\0\x11\x0a\x04ap-1\x0c\x06Switch\0\0")
}

fn seen(means: Means) -> Sighting {
    Sighting { mac: SENSOR, means, address: None, name: None, about: None, fault: None }
}

#[test]
fn arp_tells_of_its_sender_alone() {
    let frame = ethernet(EtherTypes::Arp, &arp(SENSOR, ADDRESS));
    assert_eq!(read(&frame), Ok(Sighting { address: Some(ADDRESS.into()), ..seen(Means::Arp) }));
    // A probe (RFC 5227) has no address yet.
    let probe = ethernet(EtherTypes::Arp, &arp(SENSOR, Ipv4Addr::UNSPECIFIED));
    assert_eq!(read(&probe), Ok(seen(Means::Arp)));
    let spoofed = ethernet(EtherTypes::Arp, &arp(Mac([2, 0, 0, 0, 0, 0x22]), ADDRESS));
    assert_eq!(read(&spoofed), Ok(Sighting { fault: Some(Fault::Arp), ..seen(Means::Arp) }));
}

#[test]
fn a_dhcp_client_names_itself() {
    let options = b"\x35\x01\x03\x0c\x07bp-cuff\x3c\x0cudhcp 1.36.1\x32\x04\xc0\xa8\x08\x14\xff";
    let expected = Sighting {
        address: Some(ADDRESS.into()),
        name: Some("bp-cuff".into()),
        about: Some("udhcp 1.36.1".into()),
        ..seen(Means::Dhcp)
    };
    assert_eq!(read(&dhcp_frame(SENSOR, options)), Ok(expected));
    let other = dhcp_frame(Mac([2, 0, 0, 0, 0, 0x22]), options);
    assert_eq!(read(&other), Ok(Sighting { fault: Some(Fault::Dhcp), ..seen(Means::Dhcp) }));
    let fqdn = dhcp_frame(SENSOR, b"\x51\x0b\x04\0\0\x05scale\x01x\xff");
    assert_eq!(read(&fqdn).unwrap().name.as_deref(), Some("scale"));
    let cut = dhcp_frame(SENSOR, b"\x0c\x20short");
    assert_eq!(read(&cut).unwrap().fault, Some(Fault::Dhcp));
}

#[test]
fn a_dhcpv6_client_names_itself() {
    let mut message = b"\x01abc".to_vec();
    message.extend(b"\0\x10\0\x0a\0\0\x01\x37\0\x04MSFT");
    message.extend(b"\0\x27\0\x07\0\x05scale");
    let frame = ethernet(EtherTypes::Ipv6, &ipv6(IpNextHeaderProtocols::Udp, &udp((546, 547), &message)));
    let sighting = read(&frame).unwrap();
    assert_eq!((sighting.means, sighting.address), (Means::Dhcpv6, Some(IpAddr::V6(LINK_LOCAL))));
    assert_eq!((sighting.name.as_deref(), sighting.about.as_deref()), (Some("scale"), Some("MSFT")));
}

#[test]
fn mdns_and_lldp_name_their_host() {
    let expected =
        Sighting { address: Some(ADDRESS.into()), name: Some("scale".into()), ..seen(Means::Mdns) };
    assert_eq!(read(&mdns_frame(b"scale")), Ok(expected));
    let expected = Sighting { name: Some("ap-1".into()), about: Some("Switch".into()), ..seen(Means::Lldp) };
    assert_eq!(read(&lldp_frame()), Ok(expected));
}

#[test]
fn other_frames_tell_that_somebody_is_there() {
    let solicitation = ethernet(EtherTypes::Ipv6, &ipv6(IpNextHeaderProtocols::Icmpv6, &[135, 0, 0, 0]));
    assert_eq!(read(&solicitation), Ok(Sighting { address: Some(LINK_LOCAL.into()), ..seen(Means::Nd) }));
    assert_eq!(read(&ethernet(EtherType(0x888e), &[1, 1, 0, 0])), Ok(seen(Means::Eapol)));
    assert_eq!(read(&ethernet(EtherType(0x88b5), b"experiment")), Ok(seen(Means::Other)));
    let reading = ethernet(EtherTypes::Ipv4, &ipv4(ADDRESS, IpNextHeaderProtocols::Tcp, &[0; 20]));
    assert_eq!(read(&reading), Ok(Sighting { address: Some(ADDRESS.into()), ..seen(Means::Ip) }));
    let tagged = ethernet(EtherTypes::Vlan, &[&[0, 5, 8, 6][..], &arp(SENSOR, ADDRESS)].concat());
    assert_eq!(read(&tagged).unwrap().address, Some(ADDRESS.into()));
}

#[test]
fn what_can_not_be_told_is_refused() {
    assert_eq!(read(&[0; 13]), Err(Fault::Short));
    let mut from_group = ethernet(EtherTypes::Arp, &arp(SENSOR, ADDRESS));
    from_group[6] = 1;
    assert_eq!(read(&from_group), Err(Fault::Source));
    assert_eq!(read(&ethernet(EtherTypes::Vlan, &[0, 5, 0x81, 0, 0, 6, 8, 6])), Err(Fault::Vlan));
    assert_eq!(read(&ethernet(EtherTypes::PBridge, &[0])), Err(Fault::Vlan));
    let mut long = ethernet(EtherTypes::Ipv4, &ipv4(ADDRESS, IpNextHeaderProtocols::Udp, &udp((1, 2), b"")));
    long[14 + 3] = 0xff;
    assert_eq!(read(&long).unwrap().fault, Some(Fault::Ipv4));
}

fn seeds() -> Vec<Vec<u8>> {
    vec![
        ethernet(EtherTypes::Arp, &arp(SENSOR, ADDRESS)),
        dhcp_frame(SENSOR, b"\x35\x01\x03\x0c\x07bp-cuff\xff"),
        mdns_frame(b"scale"),
        lldp_frame(),
        ethernet(
            EtherTypes::Ipv6,
            &ipv6(IpNextHeaderProtocols::Udp, &udp((546, 547), b"\x01abc\0\x27\0\x07\0\x05scale")),
        ),
        ethernet(EtherTypes::Ipv6, &ipv6(IpNextHeaderProtocols::Icmpv6, &[135, 0, 0, 0])),
    ]
}

#[test]
fn seeds_are_frames_without_a_fault() {
    for (at, frame) in seeds().into_iter().enumerate() {
        assert_eq!(read(&frame).unwrap().fault, None, "{at}");
    }
}

proptest! {
    #[test]
    fn whatever_a_frame_holds_the_answer_is_bounded(
        seed in 0..6usize,
        changes in prop::collection::vec((0..400usize, any::<u8>()), 0..8),
        length in 0..420usize,
    ) {
        let mut frame = seeds()[seed].clone();
        for (at, byte) in changes {
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
        }
        frame.truncate(length);
        if let Ok(sighting) = read(&frame) {
            prop_assert!(sighting.mac.is_unicast());
            prop_assert!(sighting.name.is_none_or(|name| name.len() <= 63 && !name.contains(char::is_control)));
            prop_assert!(sighting.about.is_none_or(|about| about.len() <= 96));
            prop_assert!(!sighting.address.is_some_and(|address| address.is_multicast()));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        if let Err(fault) = read(&bytes) {
            prop_assert!(!fault.reason().is_empty());
        }
    }
}
