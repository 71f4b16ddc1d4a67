//! Table 0 and the meters, on a veth, with the real helper. Needs root; without it each test fails and says so.

use pnet::packet::ethernet::{EtherType, EtherTypes};
use pnet::packet::ip::IpNextHeaderProtocols as Protocol;
use pnet::packet::ipv4::{Ipv4Flags, MutableIpv4Packet};

use crate::support::frames::*;
use crate::support::{Client, Place, Wire, policy};

/// A frame, its verdict, and whether it passes.
fn cases() -> Vec<(&'static str, bool, Vec<u8>)> {
    let v4 = |source, payload: &[u8]| ethernet(source, GATEWAY, V4, &ipv4(OWN, Protocol::Udp, payload));
    let v6 = |source, next, payload: &[u8]| ethernet(source, GATEWAY, V6, &ipv6(OWN6, next, payload));
    let mut fragment = ipv4(OWN, Protocol::Tcp, &tcp(1883, b"part"));
    MutableIpv4Packet::new(&mut fragment).unwrap().set_flags(Ipv4Flags::MoreFragments);
    let tagged =
        ethernet(SENSOR, GATEWAY, EtherTypes::Vlan, &vlan(V4, &ipv4(OWN, Protocol::Tcp, &tcp(1883, b"t"))));
    let twice = vlan(EtherTypes::Vlan, &vlan(V4, &ipv4(OWN, Protocol::Tcp, &tcp(1883, b"t"))));
    vec![
        ("malformed", false, ethernet(SENSOR, GATEWAY, V4, &[0x45; 19])),
        ("fragment", false, ethernet(SENSOR, GATEWAY, V4, &fragment)),
        ("fragment", false, v6(SENSOR, Protocol::Hopopt, &[58, 0, 5, 2, 0, 0, 0, 0])),
        ("vlans", false, ethernet(SENSOR, GATEWAY, EtherTypes::Vlan, &twice)),
        ("admitted", true, publish(SENSOR)),
        ("admitted", true, v6(SENSOR, Protocol::Tcp, &tcp(1883, b"reading"))),
        ("admitted", true, tagged),
        ("closed_port", false, publish_to(SENSOR, GATEWAY, OWN, 22)),
        ("closed_port", false, v4(SENSOR, &udp(1, 1883, b"udp"))),
        ("closed_port", false, ethernet(SENSOR, GATEWAY, V4, &ipv4(OWN, Protocol::Icmp, &[8, 0, 0, 0]))),
        ("closed_port", false, ethernet(SENSOR, GATEWAY, EtherType(0x88b5), b"experiment")),
        ("other_destination", false, publish_to(SENSOR, GATEWAY, OTHER, 1883)),
        ("other_destination", false, publish_to(SENSOR, STRANGER, OWN, 1883)),
        ("other_destination", false, publish_to(SENSOR, BROADCAST, OWN, 1883)),
        ("bad_source", false, publish(GATEWAY)),
        ("bad_source", false, publish(BROADCAST)),
        ("unbound_source", false, publish(STRANGER)),
        ("unbound_source", false, v4(STRANGER, &udp(67, 68, b"a DHCP server of its own"))),
        ("unbound_source", false, v6(STRANGER, Protocol::Icmpv6, &[134, 0, 0, 0])),
        ("discovery", true, arp(STRANGER)),
        ("discovery", true, v6(STRANGER, Protocol::Icmpv6, &[135, 0, 0, 0])),
        ("discovery", true, v4(STRANGER, &udp(68, 67, b"discover"))),
        ("discovery", true, v6(STRANGER, Protocol::Udp, &udp(546, 547, b"solicit"))),
        ("discovery", true, v4(STRANGER, &udp(5353, 5353, b"mdns"))),
        ("discovery", true, ethernet([2, 0, 0, 0, 0, 7], GATEWAY, EtherTypes::Lldp, &[0, 0])),
        ("discovery", true, ethernet([2, 0, 0, 0, 0, 7], GATEWAY, EtherType(0x888e), &[1, 1, 0, 0])),
        ("discovery", true, arp(SENSOR)),
        ("discovery", true, v4(SENSOR, &udp(68, 67, b"discover"))),
    ]
}

#[test]
fn each_clause_judges_as_the_design_says() {
    let place = Place::new();
    let _helper = place.helper();
    let mut client = place.connect();
    assert_eq!(client.welcome.ports.len(), 2);
    client.set_policy(policy());
    let (mut sensor, mut port) = (Wire::open("sensor"), Wire::open("port"));
    for (number, (verdict, passes, frame)) in (1..).zip(cases()) {
        let before = client.verdict(1, verdict);
        sensor.send(&frame);
        client.judged(1, number);
        assert_eq!(client.verdict(1, verdict), before + 1, "frame {number}: {:?}", client.verdicts(1));
        // The kernel takes a VLAN tag off before it shows a frame to a packet socket.
        let heard = |other: &[u8]| frame.starts_with(&other[..12]) && frame.ends_with(&other[14..]);
        assert_eq!(port.next(heard).is_some(), passes, "frame {number}: {verdict}");
    }
    let counters = client.counters();
    let device = counters.devices.iter().find(|device| device.index == 4).unwrap();
    // 3 readings, ARP and DHCP; 4 to closed ports and 3 elsewhere. What can't be judged is nobody's.
    assert_eq!((device.passed.frames, device.dropped.frames), (5, 7));
    let metrics = place.metrics("/metrics");
    for line in [
        "caregate_datapathd_verdicts_total{interface=\"port\",verdict=\"admitted\"} 3",
        "caregate_datapathd_port_mode{interface=\"port\",mode=\"native\"} 1",
        "caregate_datapathd_port_mode{interface=\"uplink\",mode=\"egress\"} 1",
        "caregate_datapathd_entries{table=\"devices\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    assert!(place.metrics("/readyz").contains("200 OK"));
}

#[test]
fn a_flood_of_strangers_starves_no_bound_sensor() {
    let place = Place::new();
    let _helper = place.helper();
    let mut client = place.connect();
    client.set_policy(policy());
    let mut sensor = Wire::open("sensor");
    // One stranger: its own five at once.
    for _ in 0..40 {
        sensor.send(&arp(STRANGER));
    }
    client.judged(1, 40);
    let passed = client.verdict(1, "discovery");
    assert!((5..=10).contains(&passed), "{passed} in well under a second");
    assert_eq!(client.verdict(1, "meter_source"), 40 - passed);
    // Ever new strangers: a hundred of all.
    for number in 0..1000u16 {
        let [high, low] = number.to_be_bytes();
        sensor.send(&arp([2, 1, 0, 0, high, low]));
    }
    client.judged(1, 1040);
    let passed = client.verdict(1, "discovery");
    assert!((95..=400).contains(&passed), "{passed} within a few seconds at most");
    assert!(client.verdict(1, "meter_total") >= 600);
    // A bound sensor has its own, whatever strangers do.
    let before = client.verdict(1, "discovery");
    for _ in 0..10 {
        sensor.send(&arp(SENSOR));
    }
    client.judged(1, 1050);
    let of_sensor = 10 - client.verdict(1, "meter_device");
    assert!((5..=8).contains(&of_sensor), "{of_sensor}");
    assert_eq!(client.verdict(1, "discovery"), before + of_sensor);
    for _ in 0..50 {
        sensor.send(&publish(SENSOR));
    }
    client.judged(1, 1100);
    assert_eq!(client.verdict(1, "admitted"), 50, "readings have no meter");
}

#[test]
fn a_policy_is_replaced_in_one_step_and_a_wrong_one_not_at_all() {
    use caregate_protocol::datapath::{Device, Reason, Request};
    let place = Place::new();
    let _helper = place.helper();
    let mut client = place.connect();
    let mut sensor = Wire::open("sensor");
    let mut send = |client: &mut Client, source, total| {
        sensor.send(&publish(source));
        client.judged(1, total);
    };
    send(&mut client, SENSOR, 1);
    assert_eq!(client.verdict(1, "unbound_source"), 1, "nobody is bound at first");
    client.set_policy(policy());
    send(&mut client, SENSOR, 2);
    assert_eq!(client.verdict(1, "admitted"), 1);
    let mut wrong = policy();
    wrong.devices.push(Device { index: 5, mac: SENSOR });
    let refused = client.call(Request::SetPolicy(wrong)).unwrap_err();
    assert_eq!(refused.reason, Reason::Policy);
    assert!(refused.detail.contains("device 5"), "{refused}");
    send(&mut client, SENSOR, 3);
    assert_eq!(client.verdict(1, "admitted"), 2);
    let mut other = policy();
    other.devices[0].mac = STRANGER;
    client.set_policy(other);
    send(&mut client, SENSOR, 4);
    send(&mut client, STRANGER, 5);
    assert_eq!((client.verdict(1, "admitted"), client.verdict(1, "unbound_source")), (3, 2));
    let mut closed = policy();
    closed.ports.clear();
    client.set_policy(closed);
    send(&mut client, SENSOR, 6);
    assert_eq!(client.verdict(1, "closed_port"), 1);
}
