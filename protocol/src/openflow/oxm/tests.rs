use super::super::error::ErrorKind;
use super::*;

#[test]
fn fields_are_numbered_in_order_and_named_once() {
    for (number, field) in (0..).zip(MatchField::ALL) {
        assert_eq!((*field as u8, MatchField::from_u8(number)), (number, Some(*field)));
        assert_eq!(MatchField::from_name(field.as_str()), Some(*field));
        assert!(2 * field.bytes() <= PAYLOAD_BYTES_MAX);
    }
    assert_eq!(
        (MatchField::ALL.len(), MatchField::from_u8(40), MatchField::from_name("dl_src")),
        (40, None, None)
    );
}

#[test]
fn a_field_has_its_length() {
    let error = Oxm::new(MatchField::EthSrc, &[1; 5], None).unwrap_err();
    assert_eq!(error.to_string(), "eth_src has 6 bytes, not 5");
    assert!(Oxm::new(MatchField::EthSrc, &[1; 6], Some(&[1; 7])).is_err());
}

#[test]
fn what_means_the_same_has_one_canonical_form() {
    let masked = |field, value: &[u8], mask: &[u8]| Oxm::new(field, value, Some(mask)).unwrap();
    let one = Match::any().in_port(1).eth_type(0x0800).ip_proto(17).udp_src(7400);
    let other = Match::any()
        .and(masked(MatchField::EthDst, &[1; 6], &[0; 6]))
        .and(masked(MatchField::InPort, &[0, 0, 0, 1], &[0xff; 4]))
        .udp_src(7400)
        .ip_proto(17)
        .eth_type(0x0800);
    assert_ne!(one, other);
    assert_eq!(one.canonical(), other.canonical());
    let dirty = Match::any().and(masked(MatchField::Ipv4Dst, &[10, 1, 2, 3], &[255, 0, 0, 0]));
    let clean = Match::any().and(masked(MatchField::Ipv4Dst, &[10, 0, 0, 0], &[255, 0, 0, 0]));
    assert_eq!(dirty.canonical(), clean);
}

#[test]
fn a_match_reads_like_an_operators() {
    let pattern =
        Match::any().in_port(1).and(Oxm::new(MatchField::VlanVid, &[0x10, 0], Some(&[0x10, 0])).unwrap());
    assert_eq!(pattern.to_string(), "in_port=00000001,vlan_vid=1000/1000");
    assert_eq!(Match::any().to_string(), "any");
    let field = Oxm { class: 1, number: 9, value: vec![7].into(), mask: None };
    assert_eq!(field.to_string(), "oxm(0x0001,9)=07");
    assert_eq!(
        (pattern.field(MatchField::InPort).unwrap().value(), field.field()),
        (&[0, 0, 0, 1][..], None)
    );
}

/// Table 12, written out once more: bits, bytes, and whether a mask is allowed.
#[test]
fn fields_are_as_wide_as_the_standard_says() {
    let table = "in_port 32 no, in_phy_port 32 no, metadata 64 yes, eth_dst 48 yes, eth_src 48 yes, eth_type 16 no, \
        vlan_vid 13 yes, vlan_pcp 3 no, ip_dscp 6 no, ip_ecn 2 no, ip_proto 8 no, ipv4_src 32 yes, ipv4_dst 32 yes, \
        tcp_src 16 no, tcp_dst 16 no, udp_src 16 no, udp_dst 16 no, sctp_src 16 no, sctp_dst 16 no, icmpv4_type 8 no, \
        icmpv4_code 8 no, arp_op 16 no, arp_spa 32 yes, arp_tpa 32 yes, arp_sha 48 yes, arp_tha 48 yes, \
        ipv6_src 128 yes, ipv6_dst 128 yes, ipv6_flabel 20 yes, icmpv6_type 8 no, icmpv6_code 8 no, \
        ipv6_nd_target 128 no, ipv6_nd_sll 48 no, ipv6_nd_tll 48 no, mpls_label 20 no, mpls_tc 3 no, mpls_bos 1 no, \
        pbb_isid 24 yes, tunnel_id 64 yes, ipv6_exthdr 9 yes";
    let mask = |field: &MatchField| if field.is_maskable() { "yes" } else { "no" };
    let ours =
        MatchField::ALL.iter().map(|field| format!("{} {} {}", field.as_str(), field.bits(), mask(field)));
    assert_eq!(ours.collect::<Vec<_>>().join(", "), table);
    for field in MatchField::ALL {
        assert_eq!(field.ones().count_ones(), field.bits());
        assert!(field.bits() <= u32::try_from(8 * field.bytes()).unwrap());
    }
}

fn code(pattern: &Match) -> &'static str {
    pattern.check().map_or_else(|code| ErrorKind::BadMatch(code).as_str(), |()| "ok")
}

/// The match of these TLVs.
fn parsed(text: &str) -> Match {
    let fields = hex::decode(text.replace(' ', "")).unwrap();
    let length = u16::try_from(4 + fields.len()).unwrap();
    let mut bytes = [&[0, 1][..], &length.to_be_bytes(), &fields].concat();
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let Ok(pattern) = Match::decode(&mut Reader::new(&bytes)) else { panic!("{text}") };
    pattern
}

const IPV4: &str = "80000a02 0800";
const IPV6: &str = "80000a02 86dd";

#[test]
fn each_wrong_field_has_its_error() {
    for (text, wanted) in [
        ("00010204 00000001".to_owned(), "OFPBMC_BAD_FIELD"), // a field of others
        ("80005001 00".to_owned(), "OFPBMC_BAD_FIELD"),       // 40
        ("ffff0004 4f4e4600".to_owned(), "OFPBMC_BAD_FIELD"),
        ("80000003 000001".to_owned(), "OFPBMC_BAD_LEN"),
        ("80000005 0000000001".to_owned(), "OFPBMC_BAD_LEN"),
        ("8000070a 0100000000 0100000000".to_owned(), "OFPBMC_BAD_LEN"),
        ("80000108 00000001 0000ffff".to_owned(), "OFPBMC_BAD_MASK"), // in_port
        ("80000108 00000001 ffffffff".to_owned(), "ok"),              // a mask of ones is none
        ("80000108 00000000 00000000".to_owned(), "OFPBMC_BAD_MASK"),
        (format!("{IPV4} 80001102 2e 0f"), "OFPBMC_BAD_MASK"),
        (format!("{IPV4} 80001102 2e 3f"), "ok"), // all of its six bits
        (format!("{IPV4} 80001908 0a000001 ffffff00"), "OFPBMC_BAD_WILDCARDS"),
        (format!("{IPV4} 80001908 0a000000 ffffff00"), "ok"),
        (format!("{IPV4} 80001908 00000000 00000000"), "ok"),
        (format!("{IPV4} 80001001 40"), "OFPBMC_BAD_VALUE"),
        (format!("{IPV4} 80001201 04"), "OFPBMC_BAD_VALUE"),
        (format!("{IPV6} 80003804 00100000"), "OFPBMC_BAD_VALUE"),
        (format!("{IPV6} 80003908 000f0000 ffffffff"), "ok"),
        (format!("{IPV6} 80004e02 0200"), "OFPBMC_BAD_VALUE"),
        ("80000c02 0005".to_owned(), "OFPBMC_BAD_VALUE"), // a tag, but not present
        ("80000c02 0000".to_owned(), "ok"),
        ("80000c02 1005".to_owned(), "ok"),
        ("80000c02 2005".to_owned(), "OFPBMC_BAD_VALUE"),
        ("80000d04 1000 1000".to_owned(), "ok"),
        ("80000d04 0005 0fff".to_owned(), "ok"),
        ("80000d04 1005 0fff".to_owned(), "OFPBMC_BAD_WILDCARDS"),
        ("80000004 fffffffe".to_owned(), "ok"),               // LOCAL
        ("80000004 fffffffd".to_owned(), "ok"),               // CONTROLLER
        ("80000004 fffffff8".to_owned(), "OFPBMC_BAD_VALUE"), // IN_PORT
        ("80000004 ffffffff".to_owned(), "OFPBMC_BAD_VALUE"),
        ("80000004 00000001 80000004 00000001".to_owned(), "OFPBMC_DUP_FIELD"),
        (format!("{IPV4} 80001804 0a000001 80001908 0a000000 ff000000"), "OFPBMC_DUP_FIELD"),
        (format!("80001401 06 {IPV4}"), "OFPBMC_BAD_PREREQ"), // behind what needs it
        ("80000204 00000001".to_owned(), "OFPBMC_BAD_PREREQ"),
        ("80000004 00000001 80000204 00000001".to_owned(), "ok"),
        ("80000c02 0000 80000e01 03".to_owned(), "OFPBMC_BAD_PREREQ"), // vlan_pcp without a tag
        ("80000d04 0005 0fff 80000e01 03".to_owned(), "OFPBMC_BAD_PREREQ"),
        ("80000d04 1000 1000 80000e01 03".to_owned(), "ok"),
        (format!("{IPV4} 80001401 3a 80003a01 87"), "ok"), // the table asks for the protocol alone
    ] {
        assert_eq!(code(&parsed(&text)), wanted, "{text}");
    }
}

/// Each field is refused alone, and taken behind each value that it may stand behind, and no other.
#[test]
fn prerequisites_are_those_of_the_table() {
    let one = |field| if field == MatchField::VlanVid { 0x1001 } else { 1 };
    let chain = |field| {
        if field == MatchField::IpProto {
            Match::any().eth_type(eth_type::IPV6)
        } else if field == MatchField::Icmpv6Type {
            Match::any().eth_type(eth_type::IPV6).ip_proto(ip_proto::ICMPV6)
        } else {
            Match::any()
        }
    };
    for field in MatchField::ALL.iter().copied() {
        let alone = code(&Match::any().with(field, one(field)).unwrap());
        let Some(prerequisite) = field.prerequisite() else {
            assert_eq!(alone, "ok", "{}", field.as_str());
            continue;
        };
        assert_eq!(alone, "OFPBMC_BAD_PREREQ", "{}", field.as_str());
        let Prerequisite::OneOf(needed, values) = prerequisite else { continue };
        for value in 0..=needed.ones() {
            let behind = chain(needed).with(needed, value).unwrap().with(field, one(field)).unwrap();
            let wanted = if values.contains(&value) { "ok" } else { "OFPBMC_BAD_PREREQ" };
            assert_eq!(code(&behind), wanted, "{} {value:#x}", field.as_str());
        }
    }
}

#[test]
fn values_must_fit_the_field() {
    assert_eq!(Oxm::exact(MatchField::IpDscp, 0xff).unwrap().value(), [0xff]);
    let error = Oxm::exact(MatchField::IpDscp, 0x1_0000).unwrap_err();
    assert_eq!(error.to_string(), "ip_dscp has 1 bytes, not 3");
    assert!(Oxm::masked(MatchField::EthType, 1, 0x1_0000).is_err());
    assert_eq!(Oxm::exact(MatchField::Ipv6Src, u128::MAX).unwrap().value_number(), Some(u128::MAX));
    let long = Oxm { class: 1, number: 9, value: vec![0; 17].into(), mask: None };
    assert_eq!((long.value_number(), long.masked_value()), (None, None));
}
