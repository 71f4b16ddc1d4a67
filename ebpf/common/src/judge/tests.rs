extern crate std;
use std::vec::Vec;

use super::*;
use crate::frame::parse;

const OWN: u64 = 0x0200_0000_00ff;
const SENSOR: u64 = 0x0200_0000_0001;
const STRANGER: u64 = 0x0200_0000_0066;

#[derive(Default)]
struct Known {
    device_tokens: u32,
    stranger: Option<Verdict>,
}

impl World for Known {
    fn is_own_mac(&mut self, mac: u64) -> bool {
        mac == OWN
    }
    fn device(&mut self, mac: u64) -> Option<u32> {
        (mac == SENSOR).then_some(3)
    }
    fn is_open(&mut self, protocol: u8, port: u16) -> bool {
        (protocol, port) == (6, 1883)
    }
    fn is_own_address(&mut self, is_v6: bool, address: Address) -> bool {
        !is_v6 && address == Address::v4(0x0a00_0002)
    }
    fn meter_device(&mut self, device: u32) -> bool {
        assert_eq!(device, 3);
        let left = self.device_tokens.checked_sub(1);
        self.device_tokens = left.unwrap_or(0);
        left.is_some()
    }
    fn meter_stranger(&mut self, _mac: u64) -> Verdict {
        self.stranger.unwrap_or(Verdict::Discovery)
    }
}

/// TCP to 10.0.0.2, port 1883.
fn publish() -> Headers {
    let mut frame: Vec<u8> = std::vec![0; 12];
    frame.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0x9c, 0x40, 7, 91, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0]);
    Headers { source: SENSOR, destination: OWN, ..parse(frame.as_slice()) }
}

fn arp(source: u64) -> Headers {
    Headers { kind: Kind::Arp, source, destination: 0xffff_ffff_ffff, ..publish() }
}

fn verdict(headers: &Headers, world: &mut Known) -> Verdict {
    ingress(headers, world).verdict
}

#[test]
fn a_bound_sensor_reaches_the_open_port_and_no_other() {
    let world = &mut Known::default();
    assert_eq!(ingress(&publish(), world), Judgement { verdict: Verdict::Admitted, device: Some(3) });
    let at = |change: fn(&mut Headers)| {
        let mut headers = publish();
        change(&mut headers);
        verdict(&headers, &mut Known::default())
    };
    assert_eq!(at(|h| h.destination_port = 22), Verdict::ClosedPort);
    assert_eq!(at(|h| (h.kind, h.protocol) = (Kind::Ipv4Udp, 17)), Verdict::ClosedPort);
    assert_eq!(at(|h| h.kind = Kind::Ipv4Icmp), Verdict::ClosedPort);
    assert_eq!(at(|h| h.kind = Kind::OtherEtherType), Verdict::ClosedPort);
    assert_eq!(at(|h| h.destination = STRANGER), Verdict::OtherDestination);
    assert_eq!(at(|h| h.destination = 0xffff_ffff_ffff), Verdict::OtherDestination);
    assert_eq!(at(|h| h.destination_address = Address::v4(0x0a00_0003)), Verdict::OtherDestination);
    // The same bytes as an address of the other family.
    assert_eq!(at(|h| h.kind = Kind::Ipv6Tcp), Verdict::OtherDestination);
    assert_eq!(at(|h| h.source = STRANGER), Verdict::UnboundSource);
    assert_eq!(at(|h| h.source = OWN), Verdict::BadSource);
    assert_eq!(at(|h| h.source = SENSOR | GROUP_BIT), Verdict::BadSource);
}

#[test]
fn what_cannot_be_judged_is_dropped_whoever_sends_it() {
    for source in [SENSOR, STRANGER] {
        for kind in Kind::ALL {
            let wanted = if *kind == Kind::ManyVlans {
                Verdict::Vlans
            } else if [Kind::Ipv4Fragment, Kind::Ipv6Extension].contains(kind) {
                Verdict::Fragment
            } else if kind.is_malformed() {
                Verdict::Malformed
            } else {
                continue;
            };
            let headers = Headers { kind: *kind, source, ..publish() };
            let judgement = ingress(&headers, &mut Known::default());
            assert_eq!(judgement, Judgement { verdict: wanted, device: None });
        }
    }
}

#[test]
fn strangers_and_bound_sensors_have_meters_of_their_own() {
    let mut world = Known { device_tokens: 2, stranger: Some(Verdict::MeterTotal) };
    assert_eq!(verdict(&arp(STRANGER), &mut world), Verdict::MeterTotal);
    assert_eq!(verdict(&arp(SENSOR), &mut world), Verdict::Discovery);
    assert_eq!(verdict(&arp(SENSOR), &mut world), Verdict::Discovery);
    assert_eq!(verdict(&arp(SENSOR), &mut world), Verdict::MeterDevice);
    world.stranger = None;
    assert_eq!(verdict(&arp(STRANGER), &mut world), Verdict::Discovery);
}

fn treatment(output: Output) -> Treatment {
    Treatment { output, dscp: Some(46), queue: Some(1), max_len: 128 }
}

#[test]
fn the_gateways_own_frames_are_marked_dropped_or_shown() {
    let never = || -> bool { panic!("the floor is asked only where a rule would drop") };
    let sent = Egress { verdict: Verdict::Sent, dscp: None, queue: None, copy: None };
    assert_eq!(egress(0, None, never), sent);
    let normal = egress(0, Some(treatment(Output::Normal)), never);
    assert_eq!(normal, Egress { verdict: Verdict::SentByRule, dscp: Some(46), queue: Some(1), copy: None });
    assert_eq!(egress(46, Some(treatment(Output::Normal)), never).dscp, None);
    let dropped = egress(0, Some(treatment(Output::Drop)), || false);
    assert_eq!(dropped, Egress { verdict: Verdict::SendDropped, ..sent });
    let kept = egress(0, Some(treatment(Output::Drop)), || true);
    assert_eq!(kept, Egress { verdict: Verdict::Floor, dscp: Some(46), queue: Some(1), copy: None });
    let shown = egress(0, Some(treatment(Output::Controller)), || false);
    assert_eq!(shown, Egress { verdict: Verdict::ToController, copy: Some(128), ..sent });
    let shown = egress(0, Some(treatment(Output::Controller)), || true);
    assert_eq!((shown.verdict, shown.copy), (Verdict::Floor, Some(128)));
}

#[test]
fn numbers_and_labels_are_unique() {
    for (number, verdict) in (0u32..).zip(Verdict::ALL) {
        assert_eq!(*verdict as u32, number);
        assert_eq!(Verdict::ALL.iter().filter(|other| other.as_str() == verdict.as_str()).count(), 1);
    }
}
