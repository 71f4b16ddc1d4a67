use proptest::prelude::*;

use super::*;

/// A field, its value and its mask.
type Entry<'a> = (Field, &'a [u8], Option<&'a [u8]>);

fn with(fields: &[Entry<'_>]) -> Result<Pattern, BadMatch> {
    fields.iter().try_fold(Pattern::any(), |pattern, (field, value, mask)| pattern.with(*field, value, *mask))
}

#[test]
fn the_fields_fill_the_key_without_gaps() {
    let mut covered = [0; KEY_BYTES];
    for field in Field::ALL {
        let (at, bytes) = field.place();
        covered[at..at + bytes].iter_mut().for_each(|n| *n += 1);
        assert_eq!(Field::of_oxm(field.oxm()), Ok(*field));
    }
    assert!(covered.iter().all(|n| *n > 0));
    // vlan_pcp, ip_ecn, sctp_src, arp_spa, metadata
    for number in [7, 9, 17, 22, 2, 40, 255] {
        assert_eq!(Field::of_oxm(number), Err(BadMatch::BadField));
    }
}

#[test]
fn prerequisites_stand_before_what_needs_them() {
    let (ipv4, tcp): (&[u8], &[u8]) = (&[8, 0], &[6]);
    assert!(
        with(&[
            (Field::EthType, ipv4, None),
            (Field::IpProto, tcp, None),
            (Field::TcpDst, &[7, 91], None),
            (Field::Ipv4Src, &[10, 0, 0, 0], Some(&[255, 0, 0, 0])),
        ])
        .is_ok()
    );
    for fields in [
        &[(Field::IpProto, tcp, None), (Field::EthType, ipv4, None)][..],
        &[(Field::EthType, ipv4, None), (Field::TcpDst, &[7, 91], None)],
        &[(Field::EthType, ipv4, None), (Field::IpProto, tcp, None), (Field::UdpDst, &[0, 53], None)],
        &[(Field::EthType, ipv4, None), (Field::Ipv6Src, &[1; 16], None)],
        &[(Field::EthType, &[8, 6], None), (Field::IpDscp, &[46], None)],
    ] {
        assert_eq!(with(fields), Err(BadMatch::BadPrereq), "{fields:?}");
    }
}

#[test]
fn faults_have_the_standards_codes() {
    let one = |field, value: &[u8], mask: Option<&[u8]>| with(&[(field, value, mask)]).unwrap_err();
    assert_eq!(one(Field::EthSrc, &[2; 5], None), BadMatch::BadLen);
    assert_eq!(one(Field::EthSrc, &[2; 6], Some(&[255; 5])), BadMatch::BadLen);
    assert_eq!(one(Field::InPort, &[0, 0, 0, 1], Some(&[0, 0, 0, 1])), BadMatch::BadMask);
    assert_eq!(one(Field::EthSrc, &[3; 6], Some(&[2; 6])), BadMatch::BadWildcards);
    assert_eq!(one(Field::InPort, &[0; 4], None), BadMatch::BadValue);
    assert_eq!(one(Field::InPort, &[0xff, 0xff, 0xff, 0xfd], None), BadMatch::BadValue);
    assert_eq!(one(Field::VlanVid, &[0, 5], None), BadMatch::BadValue);
    let twice: (Field, &[u8], Option<&[u8]>) = (Field::EthType, &[8, 0], None);
    assert_eq!(with(&[twice, twice]), Err(BadMatch::DupField));
    let dscp = with(&[twice, (Field::IpDscp, &[64], None)]);
    assert_eq!(dscp, Err(BadMatch::BadValue));
}

#[test]
fn a_mask_of_zeros_is_no_field_and_a_mask_of_ones_no_mask() {
    assert_eq!(with(&[(Field::EthSrc, &[0; 6], Some(&[0; 6]))]), Ok(Pattern::any()));
    let full = with(&[(Field::EthSrc, &[2; 6], Some(&[255; 6]))]);
    assert_eq!(full, with(&[(Field::EthSrc, &[2; 6], None)]));
    assert!(with(&[(Field::InPort, &[0, 0, 0, 1], Some(&[255; 4]))]).is_ok());
}

/// Few values, so that patterns meet.
fn any_pattern() -> impl Strategy<Value = Pattern> {
    let ethernet = (proptest::option::of(0..3u8), proptest::option::of((0..4u8, 0..4u8)), 0..4u8);
    let rest = (proptest::option::of(0..3u8), proptest::option::of(0..3u8), proptest::option::of(0..2u8));
    (ethernet, rest).prop_map(|((port, source, kind), (proto, tcp, address))| {
        let mut pattern = Pattern::any();
        let mut add = |field, value: &[u8], mask: Option<&[u8]>| {
            pattern = pattern.with(field, value, mask).unwrap();
        };
        if let Some(port) = port {
            add(Field::InPort, &[0, 0, 0, port + 1], None);
        }
        if let Some((value, mask)) = source {
            add(Field::EthSrc, &[0, 0, 0, 0, 0, value & mask], Some(&[0, 0, 0, 0, 0, mask]));
        }
        let (ip, address_field, bytes) = match kind {
            0 => (&[0x08, 0x00], Field::Ipv4Dst, 4),
            1 => (&[0x86, 0xdd], Field::Ipv6Dst, 16),
            _ => return pattern,
        };
        add(Field::EthType, ip, None);
        if let Some(address) = address {
            add(address_field, &[address; 16][..bytes], None);
        }
        if let Some(proto) = proto {
            let (number, field) = if proto == 0 { (6, Field::TcpDst) } else { (17, Field::UdpDst) };
            add(Field::IpProto, &[number], None);
            if let Some(tcp) = tcp {
                add(field, &[0, tcp], None);
            }
        }
        pattern
    })
}

/// A frame that `pattern` matches: its value, and `noise` wherever it does not look.
fn frame_of(pattern: &Pattern, noise: u8) -> [u8; KEY_BYTES] {
    let (value, mask) = pattern.key();
    std::array::from_fn(|i| value[i] | (noise & !mask[i]))
}

/// Field by field, as the standard has it, and with no arithmetic on whole keys.
fn matches_naively(pattern: &Pattern, frame: &[u8; KEY_BYTES]) -> bool {
    let (value, mask) = pattern.key();
    Field::ALL.iter().all(|field| {
        let (at, bytes) = field.place();
        (at..at + bytes)
            .all(|i| (0..8).all(|bit| mask[i] >> bit & 1 == 0 || value[i] >> bit & 1 == frame[i] >> bit & 1))
    })
}

proptest! {
    #[test]
    fn matching_is_what_the_fields_say(pattern in any_pattern(), other in any_pattern(), noise: u8) {
        prop_assert!(pattern.matches(&frame_of(&pattern, noise)));
        let frame = frame_of(&other, noise);
        prop_assert_eq!(pattern.matches(&frame), matches_naively(&pattern, &frame));
    }

    #[test]
    fn overlap_and_part_are_what_frames_show(a in any_pattern(), b in any_pattern(), noise: u8) {
        // The frame that both would match, if there is one: the bits of each where it looks.
        let ((value_a, mask_a), (value_b, mask_b)) = (a.key(), b.key());
        let both: [u8; KEY_BYTES] =
            std::array::from_fn(|i| value_a[i] | value_b[i] | (noise & !mask_a[i] & !mask_b[i]));
        prop_assert_eq!(a.overlaps(&b), a.matches(&both) && b.matches(&both));
        prop_assert_eq!(a.overlaps(&b), b.overlaps(&a));
        // A part matches `b` whatever stands where it does not look; what is no part has a frame that shows it.
        let (low, high) = (frame_of(&a, 0), frame_of(&a, 0xff));
        prop_assert_eq!(a.is_part_of(&b), b.matches(&low) && b.matches(&high));
    }
}
