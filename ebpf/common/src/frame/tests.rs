extern crate std;
use std::vec;
use std::vec::Vec;

use super::*;

fn ethernet(tags: &[u16], ethertype: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 7]);
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(body);
    frame
}

fn ipv4_packet(options: usize, fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options;
    let total = u16::try_from(header + payload.len()).unwrap().to_be_bytes();
    let [high, low] = fragment.to_be_bytes();
    let first = 0x40 | u8::try_from(header / 4).unwrap();
    let mut packet =
        vec![first, 0, total[0], total[1], 0, 1, high, low, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    packet.resize(header, 1);
    packet.extend(payload);
    packet
}

fn ipv6_packet(next: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, high, low, next, 64];
    packet.resize(40, 1);
    packet.extend(payload);
    packet
}

fn tcp_segment(offset: u8, bytes: usize) -> Vec<u8> {
    let mut segment = vec![0; bytes];
    segment[12] = offset << 4;
    segment
}

fn udp_datagram(length: u16, bytes: usize) -> Vec<u8> {
    let mut datagram = vec![0; bytes];
    datagram[4..6].copy_from_slice(&length.to_be_bytes());
    datagram
}

fn arp_packet() -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1];
    packet.resize(28, 3);
    packet
}

/// One frame of each kind, under each number of tags where it may have any.
fn samples() -> Vec<(Kind, Vec<u8>)> {
    let v4 = |packet: &[u8]| (ETHERTYPE_IPV4, packet.to_vec());
    let v6 = |packet: &[u8]| (ETHERTYPE_IPV6, packet.to_vec());
    let mut bad_arp = arp_packet();
    bad_arp[4] = 8;
    let mut tall = ipv4_packet(0, 0, 17, &udp_datagram(8, 8));
    tall[2..4].copy_from_slice(&29u16.to_be_bytes());
    let mut flat = ipv4_packet(4, 0, 17, &udp_datagram(8, 8));
    flat[2..4].copy_from_slice(&23u16.to_be_bytes());
    let mut narrow = ipv4_packet(0, 0, 17, &udp_datagram(8, 8));
    narrow[0] = 0x44;
    let mut long6 = ipv6_packet(17, &udp_datagram(8, 8));
    long6[5] = 9;
    let six = ipv6_packet(6, &tcp_segment(5, 20));
    let bodies = [
        (Kind::Arp, (ETHERTYPE_ARP, arp_packet())),
        (Kind::ShortArp, (ETHERTYPE_ARP, arp_packet()[..27].to_vec())),
        (Kind::BadArp, (ETHERTYPE_ARP, bad_arp)),
        (Kind::Ipv4Tcp, v4(&ipv4_packet(0, 0x4000, 6, &tcp_segment(5, 20)))),
        (Kind::Ipv4Tcp, v4(&ipv4_packet(40, 0, 6, &tcp_segment(15, 61)))),
        (Kind::ShortTcp, v4(&ipv4_packet(0, 0, 6, &tcp_segment(5, 19)))),
        (Kind::BadTcpOffset, v4(&ipv4_packet(0, 0, 6, &tcp_segment(4, 20)))),
        (Kind::BadTcpOffset, v4(&ipv4_packet(0, 0, 6, &tcp_segment(6, 20)))),
        (Kind::Ipv4Udp, v4(&ipv4_packet(4, 0, 17, &udp_datagram(9, 9)))),
        (Kind::ShortUdp, v4(&ipv4_packet(0, 0, 17, &udp_datagram(8, 7)))),
        (Kind::BadUdpLength, v4(&ipv4_packet(0, 0, 17, &udp_datagram(7, 8)))),
        (Kind::BadUdpLength, v4(&ipv4_packet(0, 0, 17, &udp_datagram(9, 8)))),
        (Kind::Ipv4Icmp, v4(&ipv4_packet(0, 0, 1, &[8, 0]))),
        (Kind::Ipv4Other, v4(&ipv4_packet(0, 0, 47, &[]))),
        (Kind::Ipv4Fragment, v4(&ipv4_packet(0, 0x2000, 17, &[]))),
        (Kind::Ipv4Fragment, v4(&ipv4_packet(0, 0x0001, 6, &[]))),
        (Kind::ShortIpv4, v4(&ipv4_packet(0, 0, 1, &[])[..19])),
        (Kind::ShortIpv4, v4(&ipv4_packet(4, 0, 1, &[])[..23])),
        (Kind::BadIpv4Version, v4(&six)),
        (Kind::BadIpv4HeaderLength, v4(&narrow)),
        (Kind::BadIpv4TotalLength, v4(&tall)),
        (Kind::BadIpv4TotalLength, v4(&flat)),
        (Kind::Ipv6Tcp, v6(&six)),
        (Kind::Ipv6Udp, v6(&ipv6_packet(17, &udp_datagram(8, 8)))),
        (Kind::Ipv6Icmp, v6(&ipv6_packet(58, &[135]))),
        (Kind::Ipv6Extension, v6(&ipv6_packet(0, &[58, 0]))),
        (Kind::Ipv6Other, v6(&ipv6_packet(89, &[]))),
        (Kind::ShortIpv6, v6(&six[..39])),
        (Kind::BadIpv6Version, v6(&ipv4_packet(20, 0, 1, &[]))),
        (Kind::BadIpv6PayloadLength, v6(&long6)),
        (Kind::Eapol, (ETHERTYPE_EAPOL, vec![])),
        (Kind::Lldp, (ETHERTYPE_LLDP, vec![2])),
        (Kind::Llc, (0x05ff, vec![0x42])),
        (Kind::OtherEtherType, (0x0600, vec![])),
    ];
    let mut samples = vec![
        (Kind::ShortEthernet, vec![2; 13]),
        (Kind::ShortVlan, ethernet(&[], ETHERTYPE_VLAN, &[0, 7, 8])),
        (Kind::ManyVlans, ethernet(&[ETHERTYPE_SERVICE_VLAN], ETHERTYPE_VLAN, &[0, 7, 8])),
        (Kind::ManyVlans, ethernet(&[ETHERTYPE_VLAN], ETHERTYPE_VLAN, &[])),
    ];
    for tags in [&[][..], &[ETHERTYPE_VLAN], &[ETHERTYPE_SERVICE_VLAN]] {
        samples
            .extend(bodies.iter().map(|(kind, (ethertype, body))| (*kind, ethernet(tags, *ethertype, body))));
    }
    samples
}

#[test]
fn each_kind_is_told() {
    for (kind, frame) in samples() {
        assert_eq!(classify(frame.as_slice()), kind, "{frame:x?}");
    }
    for kind in Kind::ALL {
        assert!(samples().iter().any(|(sample, _)| sample == kind), "{kind:?} has no sample");
    }
}

#[test]
fn padding_after_the_packet_changes_nothing() {
    for (kind, mut frame) in samples() {
        let is_cut = matches!(
            kind,
            Kind::ShortEthernet
                | Kind::ShortVlan
                | Kind::ShortArp
                | Kind::ShortIpv4
                | Kind::ShortIpv6
                | Kind::BadIpv4TotalLength
                | Kind::BadIpv6PayloadLength
        );
        if !is_cut {
            frame.resize(frame.len() + 46, 0);
            assert_eq!(classify(frame.as_slice()), kind, "{frame:x?}");
        }
    }
}

#[test]
fn every_cut_of_a_good_packet_is_malformed() {
    for (_, frame) in samples().iter().filter(|(kind, _)| {
        matches!(
            kind,
            Kind::Arp | Kind::Ipv4Tcp | Kind::Ipv4Udp | Kind::Ipv6Tcp | Kind::Ipv6Udp | Kind::Ipv4Icmp
        )
    }) {
        for end in 0..frame.len() {
            assert!(classify(&frame[..end]).is_malformed(), "{:x?}", &frame[..end]);
        }
    }
}

#[test]
fn addresses_ports_and_tags_are_read() {
    let mut datagram = udp_datagram(8, 8);
    datagram[..4].copy_from_slice(&[0, 68, 0, 67]);
    let mut packet = ipv4_packet(4, 0, 17, &datagram);
    packet[1] = 0xb9;
    let mut frame = ethernet(&[ETHERTYPE_VLAN], ETHERTYPE_IPV4, &packet);
    frame[..12].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 3, 4, 5, 6, 7]);
    frame[14] = 0xe1;
    let headers = parse(frame.as_slice());
    assert_eq!((headers.destination, headers.source), (0xffff_ffff_ffff, 0x0203_0405_0607));
    assert_eq!((headers.ether_type, headers.vlan_vid), (ETHERTYPE_IPV4, 0x1107));
    assert_eq!((headers.network_at, headers.protocol, headers.dscp), (18, 17, 46));
    assert_eq!(headers.source_address, Address::v4(0x0a00_0001));
    assert_eq!(headers.destination_address, Address::v4(0x0a00_0002));
    assert_eq!((headers.source_port, headers.destination_port), (68, 67));
}

#[test]
fn what_any_device_may_say_and_what_only_a_router_says() {
    let udp4 = |source: u16, destination: u16| {
        let mut datagram = udp_datagram(8, 8);
        datagram[..2].copy_from_slice(&source.to_be_bytes());
        datagram[2..4].copy_from_slice(&destination.to_be_bytes());
        datagram
    };
    let v4 = |source, destination| {
        ethernet(&[], ETHERTYPE_IPV4, &ipv4_packet(0, 0, 17, &udp4(source, destination)))
    };
    let v6 =
        |source, destination| ethernet(&[], ETHERTYPE_IPV6, &ipv6_packet(17, &udp4(source, destination)));
    let icmp = |kind: u8| ethernet(&[], ETHERTYPE_IPV6, &ipv6_packet(58, &[kind, 0, 0, 0]));
    let arp = ethernet(&[], ETHERTYPE_ARP, &arp_packet());
    // A frame, whether it is discovery, whether the gateway's own link needs it.
    let cases = [
        (arp, true, true),
        (ethernet(&[], ETHERTYPE_LLDP, &[2]), true, false),
        (ethernet(&[], ETHERTYPE_EAPOL, &[]), true, false),
        (v4(68, 67), true, true),
        (v4(67, 68), false, false),
        (v4(5353, 5353), true, false),
        (v4(5353, 53), false, false),
        (v6(546, 547), true, true),
        (v6(547, 546), false, false),
        (v6(40_000, 5353), true, false),
        (v6(68, 67), false, false),
        (icmp(133), true, true),
        (icmp(135), true, true),
        (icmp(136), true, true),
        // Router advertisement, redirect, echo.
        (icmp(134), false, false),
        (icmp(137), false, false),
        (icmp(128), false, false),
        (ethernet(&[], ETHERTYPE_IPV6, &ipv6_packet(58, &[])), false, false),
    ];
    for (frame, discovery, upkeep) in cases {
        let headers = parse(frame.as_slice());
        assert!(!headers.kind.is_malformed());
        assert_eq!((headers.is_discovery(), headers.is_link_upkeep()), (discovery, upkeep), "{frame:x?}");
    }
}
