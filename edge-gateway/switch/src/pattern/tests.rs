use proptest::prelude::*;

use super::*;

fn oxm(field: MatchField, value: &[u8], mask: Option<&[u8]>) -> Oxm {
    Oxm::new(field, value, mask).unwrap()
}

fn refused(pattern: Match) -> BadMatch {
    Pattern::of(&pattern).unwrap_err()
}

#[test]
fn each_field_has_a_place_or_is_refused() {
    for field in MatchField::ALL {
        let mut pattern = Match::any();
        for needed in prerequisites(*field) {
            pattern = pattern.and(needed);
        }
        let wanted = pattern.and(Oxm::exact(*field, field.ones().min(1)).unwrap());
        let wanted = if *field == MatchField::VlanVid { Match::any().vlan_vid(0x1001) } else { wanted };
        if matches!(field, MatchField::InPhyPort | MatchField::PbbIsid) {
            assert_eq!(refused(wanted), BadMatch::BadField);
        } else {
            let key = Pattern::of(&wanted).unwrap_or_else(|code| panic!("{field:?} {code:?}"));
            assert_eq!(key.to_match(), wanted.canonical(), "{field:?}");
        }
    }
    let unknown = "0001000c 80005404 00000000 00000000";
    let bytes = hex::decode(unknown.replace(' ', "")).unwrap();
    let flow =
        [&[4, 14, 0, 64, 0, 0, 0, 1][..], &[0; 16], &[1, 0, 0, 0, 0, 0, 0, 1], &[0xff; 12], &[0; 4], &bytes]
            .concat();
    let Ok((_, caregate_protocol::openflow::Message::FlowMod(flow))) =
        caregate_protocol::openflow::Message::decode(&flow)
    else {
        panic!()
    };
    assert_eq!(refused(flow.pattern), BadMatch::BadField, "a number that 1.3 doesn't have");
}

/// What has to stand before a field.
fn prerequisites(field: MatchField) -> Vec<Oxm> {
    match field.prerequisite() {
        None => Vec::new(),
        Some(Prerequisite::Present(needed)) => vec![Oxm::exact(needed, 1).unwrap()],
        Some(Prerequisite::Tagged) => vec![Oxm::exact(MatchField::VlanVid, 0x1005).unwrap()],
        Some(Prerequisite::OneOf(needed, values)) => {
            let mut all = prerequisites(needed);
            // ICMPv6 is IPv6's.
            if matches!(field, MatchField::Icmpv6Type | MatchField::Icmpv6Code) {
                all = vec![Oxm::exact(MatchField::EthType, 0x86dd).unwrap()];
            }
            all.push(Oxm::exact(needed, values[0]).unwrap());
            all
        }
    }
}

#[test]
fn faults_have_the_standards_codes() {
    let one = |field, value: &[u8], mask: Option<&[u8]>| refused(Match::any().and(oxm(field, value, mask)));
    assert_eq!(one(MatchField::InPort, &[0, 0, 0, 1], Some(&[0, 0, 0, 1])), BadMatch::BadMask);
    assert_eq!(one(MatchField::EthSrc, &[3; 6], Some(&[2; 6])), BadMatch::BadWildcards);
    assert_eq!(one(MatchField::InPort, &[0; 4], None), BadMatch::BadValue);
    assert_eq!(one(MatchField::VlanVid, &[0, 5], None), BadMatch::BadValue);
    assert_eq!(one(MatchField::IpProto, &[6], None), BadMatch::BadPrereq);
    let twice = Match::any().eth_type(0x0800).eth_type(0x0800);
    assert_eq!(refused(twice), BadMatch::DupField);
}

#[test]
fn a_mask_of_zeros_is_no_field_and_a_mask_of_ones_no_mask() {
    let zeros = Match::any().and(oxm(MatchField::EthSrc, &[0; 6], Some(&[0; 6])));
    assert_eq!(Pattern::of(&zeros), Ok(Pattern::any()));
    let full = Match::any().and(oxm(MatchField::EthSrc, &[2; 6], Some(&[255; 6])));
    assert_eq!(Pattern::of(&full), Pattern::of(&Match::any().eth_src([2; 6])));
}

#[test]
fn a_key_is_in_network_order() {
    let pattern =
        Match::any().in_port(0x0102_0304).vlan_vid(0x1abc).eth_type(0x0800).ip_dscp(0x2e).ip_proto(17);
    let (value, mask) = Pattern::of(&pattern.udp_dst(0x0506)).unwrap().bytes();
    assert_eq!(
        (&value[..8], &mask[..8]),
        (&[1, 2, 3, 4, 8, 0, 0x1a, 0xbc][..], &[255, 255, 255, 255, 255, 255, 0x1f, 255][..])
    );
    assert_eq!((value[22], value[23], mask[23], &value[38..40]), (17, 0x2e << 2, 0xfc, &[5, 6][..]));
}

/// Few values, so that patterns meet.
fn any_pattern() -> impl Strategy<Value = Pattern> {
    let ethernet = (proptest::option::of(0..3u32), proptest::option::of((0..4u8, 0..4u8)), 0..4u8);
    let rest = (proptest::option::of(0..3u8), proptest::option::of(0..3u16), proptest::option::of(0..2u8));
    (ethernet, rest).prop_map(|((port, source, kind), (proto, number, address))| {
        let mut pattern = port.map_or_else(Match::any, |port| Match::any().in_port(port + 1));
        if let Some((value, mask)) = source {
            let (value, mask) = ([0, 0, 0, 0, 0, value & mask], [0, 0, 0, 0, 0, mask]);
            pattern = pattern.and(oxm(MatchField::EthSrc, &value, Some(&mask)));
        }
        let (ip, field, bytes) = match kind {
            0 => (0x0800, MatchField::Ipv4Dst, 4),
            1 => (0x86dd, MatchField::Ipv6Dst, 16),
            _ => return Pattern::of(&pattern).unwrap(),
        };
        pattern = pattern.eth_type(ip);
        if let Some(address) = address {
            pattern = pattern.and(oxm(field, &[address; 16][..bytes], None));
        }
        pattern = match (proto, number) {
            (None, _) => pattern,
            (Some(0), None) => pattern.ip_proto(6),
            (Some(_), None) => pattern.ip_proto(17),
            (Some(0), Some(number)) => pattern.ip_proto(6).tcp_dst(number),
            (Some(_), Some(number)) => pattern.ip_proto(17).udp_dst(number),
        };
        Pattern::of(&pattern).unwrap()
    })
}

/// A frame that `pattern` matches: its value, and `noise` wherever it does not look.
fn frame_of(pattern: &Pattern, noise: u64) -> Key {
    let (value, mask) = pattern.key();
    std::array::from_fn(|at| value[at] | (noise & !mask[at]))
}

/// Bit by bit.
fn matches_naively(pattern: &Pattern, frame: &Key) -> bool {
    let (value, mask) = pattern.key();
    (0..KEY_WORDS)
        .all(|at| (0..64).all(|bit| mask[at] >> bit & 1 == 0 || value[at] >> bit & 1 == frame[at] >> bit & 1))
}

proptest! {
    #[test]
    fn matching_is_what_the_bits_say(pattern in any_pattern(), other in any_pattern(), noise: u64) {
        prop_assert!(pattern.matches(&frame_of(&pattern, noise)));
        let frame = frame_of(&other, noise);
        prop_assert_eq!(pattern.matches(&frame), matches_naively(&pattern, &frame));
    }

    #[test]
    fn overlap_and_part_are_what_frames_show(a in any_pattern(), b in any_pattern(), noise: u64) {
        // The frame that both would match, if there is one: the bits of each where it looks.
        let ((value_a, mask_a), (value_b, mask_b)) = (a.key(), b.key());
        let both: Key =
            std::array::from_fn(|at| value_a[at] | value_b[at] | (noise & !mask_a[at] & !mask_b[at]));
        prop_assert_eq!(a.overlaps(&b), a.matches(&both) && b.matches(&both));
        prop_assert_eq!(a.overlaps(&b), b.overlaps(&a));
        // A part matches `b` whatever stands where it does not look; what is no part has a frame that shows it.
        let (low, high) = (frame_of(&a, 0), frame_of(&a, u64::MAX));
        prop_assert_eq!(a.is_part_of(&b), b.matches(&low) && b.matches(&high));
    }

    #[test]
    fn matches_come_back(pattern in any_pattern()) {
        prop_assert_eq!(Pattern::of(&pattern.to_match()), Ok(pattern));
    }
}
