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
    let field = Oxm { class: 1, number: 9, value: vec![7], mask: None };
    assert_eq!(field.to_string(), "oxm(0x0001,9)=07");
    assert_eq!(
        (pattern.field(MatchField::InPort).unwrap().value(), field.field()),
        (&[0, 0, 0, 1][..], None)
    );
}
