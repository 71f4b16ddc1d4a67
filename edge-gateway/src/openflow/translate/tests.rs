use caregate_protocol::openflow::Command;
use proptest::prelude::*;

use super::super::port;
use super::*;

fn refused(instructions: &[Instruction]) -> &'static str {
    actions(instructions).unwrap_err().as_str()
}

fn apply(actions: &[openflow::Action]) -> Vec<Instruction> {
    vec![Instruction::ApplyActions(actions.to_vec())]
}

#[test]
fn a_lanes_marking_is_understood_both_ways_of_writing_it() {
    let dscp = openflow::Action::SetField(Oxm::ip_dscp(46));
    let (queue, normal) = (openflow::Action::SetQueue(1), openflow::Action::output(port::NORMAL));
    let wanted =
        [Action::SetDscp(46), Action::SetQueue(1), Action::Output { port: port::NORMAL, max_len: 0 }];
    assert_eq!(actions(&apply(&[dscp.clone(), queue.clone(), normal.clone()])).unwrap(), wanted);
    let set = vec![normal, openflow::Action::SetQueue(7), queue, dscp];
    assert_eq!(actions(&[Instruction::ClearActions, Instruction::WriteActions(set)]).unwrap(), wanted);
    assert_eq!(actions(&[]).unwrap(), []);
}

#[test]
fn what_is_not_supported_has_the_standards_own_error() {
    let other = |action_type| openflow::Action::Other { action_type, body: vec![0; 4] };
    assert_eq!(refused(&apply(&[openflow::Action::Group(1)])), "OFPBAC_BAD_TYPE");
    assert_eq!(refused(&apply(&[other(28)])), "OFPBAC_BAD_TYPE");
    assert_eq!(refused(&apply(&[openflow::Action::PopVlan])), "OFPBAC_BAD_TYPE");
    let foreign = openflow::Action::Experimenter { experimenter: 0x2320, data: vec![] };
    assert_eq!(refused(&apply(&[foreign])), "OFPBAC_BAD_EXPERIMENTER");
    let set = |field, value: &[u8]| openflow::Action::SetField(Oxm::new(field, value, None).unwrap());
    assert_eq!(refused(&apply(&[set(MatchField::EthDst, &[2; 6])])), "OFPBAC_BAD_SET_TYPE");
    assert_eq!(refused(&apply(&vec![openflow::Action::SetQueue(0); 17])), "OFPBAC_TOO_MANY");
    assert_eq!(refused(&[Instruction::GotoTable(2)]), "OFPBIC_BAD_TABLE_ID");
    assert_eq!(refused(&[Instruction::Meter(1)]), "OFPBIC_UNSUP_INST");
    assert_eq!(refused(&[Instruction::WriteMetadata { metadata: 0, mask: 0 }]), "OFPBIC_UNSUP_INST");
    assert_eq!(refused(&[apply(&[]), apply(&[])].concat()), "OFPBIC_UNSUP_INST");
    let unknown = |instruction_type| Instruction::Other { instruction_type, body: vec![0; 4] };
    assert_eq!(refused(&[unknown(7)]), "OFPBIC_UNKNOWN_INST");
    let foreign = Instruction::Experimenter { experimenter: 0x2320, data: vec![] };
    assert_eq!(refused(&[foreign]), "OFPBIC_BAD_EXPERIMENTER");
}

#[test]
fn fields_of_others_are_bad_field() {
    let of = |oxm| pattern(&Match::any().and(oxm));
    assert_eq!(of(Oxm::new(MatchField::Metadata, &[0; 8], None).unwrap()), Err(BadMatch::BadField));
    let bytes = "040e004000000001000000000000000000000000000000000100000000000001ffffffffffffffffffffffff0000000000010010ffff0208000008b100000001";
    let (_, message) = openflow::Message::decode(&hex::decode(bytes).unwrap()).unwrap();
    let openflow::Message::FlowMod(nicira) = message else { panic!("{message:?}") };
    assert_eq!(flow_mod(&nicira).unwrap_err().as_str(), "OFPBMC_BAD_FIELD");
}

#[test]
fn a_deletes_instructions_mean_nothing() {
    let delete = openflow::FlowMod {
        instructions: vec![Instruction::GotoTable(9)],
        ..openflow::FlowMod::new(Command::Delete, 1, 0)
    };
    assert_eq!(flow_mod(&delete).unwrap().actions, []);
}

fn a_match() -> impl Strategy<Value = Match> {
    let mask = |field, value: &[u8], mask: &[u8]| {
        let value: Vec<u8> = value.iter().zip(mask).map(|(value, mask)| value & mask).collect();
        Oxm::new(field, &value, Some(mask)).unwrap()
    };
    let ports = prop_oneof![Just(None), (1u32..4).prop_map(Some), Just(Some(port::LOCAL))];
    let macs = proptest::option::of((any::<[u8; 6]>(), any::<[u8; 6]>()));
    let network = prop_oneof![
        Just(Match::any()),
        (any::<[u8; 4]>(), any::<[u8; 4]>(), any::<u16>()).prop_map(move |(address, bits, port)| {
            let ipv4 = Match::any().eth_type(0x0800).ip_dscp(46).ip_proto(17);
            ipv4.and(mask(MatchField::Ipv4Dst, &address, &bits)).udp_src(port).udp_dst(7)
        }),
        (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u16>()).prop_map(move |(address, bits, port)| {
            let ipv6 = Match::any().eth_type(0x86dd).ip_proto(6);
            ipv6.and(mask(MatchField::Ipv6Src, &address, &bits)).tcp_dst(port)
        }),
    ];
    (ports, macs, network).prop_map(move |(port, mac, network)| {
        let mut pattern = port.map_or_else(Match::any, |port| Match::any().in_port(port));
        if let Some((address, bits)) = mac {
            pattern = pattern.and(mask(MatchField::EthSrc, &address, &bits));
        }
        pattern.fields.extend(network.fields);
        pattern
    })
}

proptest! {
    /// What a switch reports of a flow is what was asked for, in its one form.
    #[test]
    fn matches_come_back_canonical(of in a_match()) {
        let key = pattern(&of).unwrap();
        prop_assert_eq!(to_match(&key), of.canonical());
        prop_assert_eq!(pattern(&to_match(&key)), Ok(key));
    }
}
