//! The controller's tables, on sensor ports and on the way out, and what the daemon may send and hear. Needs root; without it each
//! test fails and says so.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use caregate_ebpf_common::switch::op::port;
use caregate_protocol::datapath::switch::{Change, FlowAction};
use caregate_protocol::datapath::{Event, Floor, PacketOut, Policy, PortCounters, Reason, Reply, Request};
use pnet::packet::ethernet::EtherType;
use pnet::packet::ip::IpNextHeaderProtocols as Protocol;
use pnet::packet::ipv4::{self, Ipv4Packet, MutableIpv4Packet};
use pnet::packet::ipv6::Ipv6Packet;

use crate::support::frames::*;
use crate::support::{Client, Flow, Place, Wire, drop_source, flow, policy, until};

const CORE: std::net::Ipv4Addr = std::net::Ipv4Addr::new(192, 0, 2, 10);
/// `in_port=LOCAL`
const LOCAL: (u8, u128) = (0, port::LOCAL as u128);
const DROP: &[FlowAction] = &[];
const TO_GATEWAY: FlowAction = FlowAction::Output { port: port::LOCAL, max_len: 0 };
const NORMAL: FlowAction = FlowAction::Output { port: port::NORMAL, max_len: 0 };

const fn shown(max_len: u16) -> FlowAction {
    FlowAction::Output { port: port::CONTROLLER, max_len }
}

fn mac(mac: Mac) -> u128 {
    mac.iter().fold(0, |word, byte| word << 8 | u128::from(*byte))
}

fn matched(client: &mut Client, id: u64) -> u64 {
    client.switch_counters().flows.iter().find(|flow| flow.id == id).map_or(0, |flow| flow.traffic.frames)
}

#[test]
fn a_quarantined_sensor_is_silent_until_it_is_released() {
    let place = Place::new();
    let _helper = place.helper();
    let mut client = place.connect();
    client.set_policy(policy());
    let (mut sensor, mut port) = (Wire::open("sensor"), Wire::open("port"));
    let reading = publish(SENSOR);
    let mut send = |client: &mut Client, total: u64| {
        sensor.send(&reading);
        client.judged(1, total);
        port.next(|frame| frame == publish(SENSOR)).is_some()
    };
    assert!(send(&mut client, 1));
    client.set_flows(vec![drop_source(7, STRANGER), drop_source(8, SENSOR)]);
    assert!(!send(&mut client, 2));
    assert!(!send(&mut client, 3));
    assert_eq!((matched(&mut client, 7), matched(&mut client, 8)), (0, 2));
    assert_eq!(client.verdict(1, "rule"), 2);
    // Another table, and the rule keeps what it counted; in front of it one that leaves the frame to the gateway.
    let first = flow(9, &[(4, mac(SENSOR)), (14, 1883)], &[TO_GATEWAY]);
    client.set_flows(vec![first, drop_source(8, SENSOR)]);
    assert!(send(&mut client, 4), "the first that matches decides");
    assert_eq!((matched(&mut client, 9), matched(&mut client, 8)), (1, 2));
    client.set_flows(vec![]);
    assert!(send(&mut client, 5));
    // A rule opens nothing: what table 0 drops is dropped.
    client.set_flows(vec![flow(10, &[], &[TO_GATEWAY])]);
    let mut stranger = Wire::open("sensor");
    stranger.send(&publish(STRANGER));
    client.judged(1, 6);
    assert_eq!(client.verdict(1, "unbound_source"), 1);
}

/// Raises a flag when it is dropped.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_change_of_the_table_is_one_step() {
    let place = Place::new();
    let _helper = place.helper();
    let mut client = place.connect();
    client.set_policy(policy());
    // In both tables the sensor is shut out, by another rule at another place.
    let crowd: Vec<Flow> =
        (100..150).map(|id| drop_source(id, [2, 9, 9, 9, 9, u8::try_from(id).unwrap()])).collect();
    let tables = [vec![drop_source(1, SENSOR)], [crowd, vec![flow(2, &[(14, 1883)], DROP)]].concat()];
    client.set_flows(tables[0].clone());
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut sensor = Wire::open("sensor");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let reading = publish(SENSOR);
            while !stop.load(Ordering::Relaxed) {
                sensor.send(&reading);
                sent.fetch_add(1, Ordering::Relaxed);
            }
        });
        // Also where a step fails: the sender must not go on for ever.
        let _stops = Stops(&stop);
        for round in 1..60 {
            client.set_flows(tables[round % 2].clone());
            client.set_policy(policy());
        }
    });
    let sent = sent.load(Ordering::Relaxed);
    client.judged(1, sent);
    assert!(sent > 1000, "{sent} frames are too few to meet a change");
    assert_eq!(client.verdicts(1), [("rule".to_owned(), sent)], "no frame saw another table or policy");
}

#[test]
fn what_is_not_allowed_is_refused_and_changes_nothing() {
    let place = Place::new();
    let _helper = place.helper();
    let mut client = place.connect();
    client.set_policy(policy());
    client.set_flows(vec![drop_source(1, SENSOR)]);
    let out = FlowAction::Output { port: 2, max_len: 0 };
    for action in
        [NORMAL, shown(60), out, FlowAction::SetQueue(1), FlowAction::SetField { field: 8, value: 46 }]
    {
        let changes = vec![Change::Clear, Change::PutFlow(flow(2, &[(4, mac(SENSOR))], &[action]))];
        let refused = client.call(Request::Change { changes, more: false }).unwrap_err();
        assert_eq!(refused.reason, Reason::Rule);
    }
    let frame = arp(GATEWAY);
    let packets = [(1, frame.clone()), (9, frame), (2, vec![0; 13])].map(|(port, frame)| PacketOut {
        port,
        queue: 0,
        frame,
    });
    let refused = [Reason::SensorPort, Reason::Port, Reason::Port].map(Some).to_vec();
    assert_eq!(client.call(Request::PacketOuts(packets.to_vec())), Ok(Reply::PacketOuts(refused)));
    assert_eq!(client.call(Request::PacketSocket { port: 9 }).unwrap_err().reason, Reason::Port);
    Wire::open("sensor").send(&publish(SENSOR));
    client.judged(1, 1);
    assert_eq!(matched(&mut client, 1), 1);
}

/// Sends out of the uplink as the gateway does; what comes out at its other end.
fn sent(uplink: &mut Wire, beyond: &mut Wire, frame: &[u8]) -> Option<Vec<u8>> {
    uplink.send(frame);
    beyond.next(|other| other[..14] == frame[..14])
}

fn own(ethertype: EtherType, body: &[u8]) -> Vec<u8> {
    ethernet(GATEWAY, STRANGER, ethertype, body)
}

#[test]
fn lanes_are_marked_on_the_way_out() {
    let place = Place::new();
    let _helper = place.helper();
    let mut client = place.connect();
    let marked = [FlowAction::SetField { field: 8, value: 46 }, FlowAction::SetQueue(3), NORMAL];
    let alarm = (15, 7400);
    client.set_flows(vec![
        flow(1, &[LOCAL, (5, 0x0800), (10, 17), alarm], &marked),
        flow(2, &[LOCAL, (5, 0x86dd), (10, 17), alarm], &marked),
    ]);
    let (mut uplink, mut beyond) = (Wire::open("uplink"), Wire::open("beyond"));
    let mut packet = ipv4(CORE, Protocol::Udp, &udp(7400, 4433, b"sealed"));
    // Congestion marks are not the rule's.
    packet[1] = 0b0000_0010;
    let checksum = ipv4::checksum(&Ipv4Packet::new(&packet).unwrap());
    MutableIpv4Packet::new(&mut packet).unwrap().set_checksum(checksum);
    let out = sent(&mut uplink, &mut beyond, &own(V4, &packet)).unwrap();
    let seen = Ipv4Packet::new(&out[14..]).unwrap();
    assert_eq!((seen.get_dscp(), seen.get_ecn()), (46, 2));
    assert_eq!(seen.get_checksum(), ipv4::checksum(&seen));
    assert_eq!(out[14 + 2..14 + 10], packet[2..10]);
    assert_eq!(out[14 + 12..], packet[12..]);

    let mut packet = ipv6(OWN6, Protocol::Udp, &udp(7400, 4433, b"sealed"));
    packet[..4].copy_from_slice(&[0x60, 0x1a, 0xbc, 0xde]);
    let out = sent(&mut uplink, &mut beyond, &own(V6, &packet)).unwrap();
    let seen = Ipv6Packet::new(&out[14..]).unwrap();
    assert_eq!((seen.get_traffic_class() >> 2, seen.get_traffic_class() & 3), (46, 1));
    assert_eq!(seen.get_flow_label(), 0xabcde);
    assert_eq!(out[14 + 4..], packet[4..]);

    let other = own(V4, &ipv4(CORE, Protocol::Udp, &udp(7401, 4433, b"sealed")));
    assert_eq!(sent(&mut uplink, &mut beyond, &other), Some(other.clone()), "another lane is left alone");
    client.judged(2, 3);
    assert_eq!((client.verdict(2, "sent_by_rule"), client.verdict(2, "sent")), (2, 1));
}

#[test]
fn no_rule_takes_core_and_link_away() {
    let place = Place::new();
    let _helper = place.helper();
    let mut client = place.connect();
    let floor = vec![
        Floor { protocol: 17, address: CORE.into(), port: 4433 },
        Floor { protocol: 6, address: OWN6.into(), port: 6653 },
    ];
    client.set_policy(Policy { floor, ..policy() });
    client.set_flows(vec![flow(1, &[LOCAL], DROP)]);
    let (mut uplink, mut beyond) = (Wire::open("uplink"), Wire::open("beyond"));
    let v4 = |protocol, payload: &[u8]| own(V4, &ipv4(CORE, protocol, payload));
    let kept = [
        v4(Protocol::Udp, &udp(1, 4433, b"core")),
        own(V6, &ipv6(OWN6, Protocol::Tcp, &tcp(6653, b"controller"))),
        arp(GATEWAY),
        own(V6, &ipv6(OWN6, Protocol::Icmpv6, &[135, 0, 0, 0])),
        v4(Protocol::Udp, &udp(68, 67, b"lease")),
    ];
    for frame in &kept {
        assert!(sent(&mut uplink, &mut beyond, frame).is_some(), "{frame:x?}");
    }
    let taken = [
        v4(Protocol::Udp, &udp(1, 53, b"other")),
        v4(Protocol::Tcp, &tcp(4433, b"other")),
        own(V6, &ipv6(OWN6, Protocol::Tcp, &tcp(6654, b"other"))),
        own(EtherType(0x88b5), &[0; 46]),
    ];
    for frame in &taken {
        assert!(sent(&mut uplink, &mut beyond, frame).is_none(), "{frame:x?}");
    }
    assert_eq!((client.verdict(2, "floor"), client.verdict(2, "send_dropped")), (5, 4));
    // A controller's own frame is not looked up in its table.
    let out = own(EtherType(0x88b5), b"sent by the controller, as it is");
    let before = uplinks(&mut client);
    let packets = [0, 5, 7].map(|queue| PacketOut { port: 2, queue, frame: out.clone() });
    assert_eq!(client.call(Request::PacketOuts(packets.to_vec())), Ok(Reply::PacketOuts(vec![None; 3])));
    for _ in &packets {
        assert!(beyond.next(|frame| frame == out).is_some());
    }
    client.judged(2, 12);
    // They are counted by their queues, and by the kernel.
    let after = uplinks(&mut client);
    let sent = |queue: usize| {
        let (before, after) = (before.queues[queue], after.queues[queue]);
        (after.frames - before.frames, after.bytes - before.bytes)
    };
    let bytes = u64::try_from(out.len()).unwrap();
    assert_eq!([0, 1, 5, 7].map(sent), [(1, bytes), (0, 0), (1, bytes), (1, bytes)]);
    let frames = |counters: PortCounters| counters.link.unwrap().tx.frames;
    assert!(frames(after) >= frames(before) + 3);
}

/// What was counted on the uplink.
fn uplinks(client: &mut Client) -> PortCounters {
    match client.call(Request::Counters) {
        Ok(Reply::Counters(counters)) => {
            counters.ports.into_iter().find(|port| port.number == 2).expect("an uplink")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn frames_for_the_controller_come_by_the_daemon_metered() {
    let place = Place::new();
    let _helper = place.helper();
    let mut client = place.connect();
    client.set_flows(vec![flow(5, &[LOCAL, (5, 0x88b5)], &[shown(20)])]);
    let (mut uplink, mut beyond) = (Wire::open("uplink"), Wire::open("beyond"));
    let frame = own(EtherType(0x88b5), &[7; 46]);
    assert_eq!(sent(&mut uplink, &mut beyond, &frame), None);
    let wanted = Event::PacketIn { uplink: 2, rule: 5, total_len: 60, frame: frame[..20].to_vec() };
    let event = client.event(|event| matches!(event, Event::PacketIn { .. }).then(|| event.clone()));
    assert_eq!(event, wanted);
    for _ in 0..400 {
        uplink.send(&frame);
    }
    client.judged(2, 401);
    let (shown, lost) = (client.verdict(2, "to_controller"), client.verdict(2, "to_controller_lost"));
    assert_eq!(shown + lost, 401);
    assert!((95..=250).contains(&shown) && lost > 100, "{shown} {lost}");
}

#[test]
fn the_daemon_hears_devices_and_not_their_readings() {
    let place = Place::new();
    let _helper = place.helper();
    let mut client = place.connect();
    client.set_policy(policy());
    let socket = client.packet_socket(1);
    let mut sensor = Wire::open("sensor");
    sensor.send(&publish(SENSOR));
    sensor.send(&arp(SENSOR));
    client.judged(1, 2);
    let mut heard = [0; 2048];
    let length = until("the announcement is heard", || {
        rustix::net::recv(&socket, &mut heard[..], rustix::net::RecvFlags::empty()).ok()
    });
    assert_eq!(&heard[..length.0], arp(SENSOR));
    let more = rustix::net::recv(&socket, &mut heard[..], rustix::net::RecvFlags::empty());
    assert_eq!(more.err(), Some(rustix::io::Errno::AGAIN), "readings are not heard");
}
