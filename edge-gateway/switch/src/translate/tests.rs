use caregate_protocol::openflow::BadAction as Code;

use super::super::port;
use super::*;

fn refused(of: &[Instruction]) -> &'static str {
    instructions(of).unwrap_err().as_str()
}

fn apply(actions: &[Action]) -> Vec<Instruction> {
    vec![Instruction::ApplyActions(actions.to_vec())]
}

fn set(field: MatchField, value: u128) -> Action {
    Action::SetField(Oxm::exact(field, value).unwrap())
}

#[test]
fn instructions_come_back_as_they_were_written() {
    let all = vec![
        Instruction::GotoTable(7),
        Instruction::WriteMetadata { metadata: 0x10, mask: 0xf0 },
        Instruction::WriteActions(vec![Action::output(3), Action::Group(5), Action::output(4)]),
        Instruction::ApplyActions(vec![
            Action::Output { port: port::CONTROLLER, max_len: 65509 },
            Action::CopyTtlOut,
            Action::CopyTtlIn,
            Action::SetMplsTtl(3),
            Action::DecMplsTtl,
            Action::PushVlan(0x8100),
            Action::PushVlan(0x88a8),
            Action::PopVlan,
            Action::PushMpls(0x8847),
            Action::PushMpls(0x8848),
            Action::PopMpls(0x0800),
            Action::SetQueue(2),
            Action::SetNwTtl(4),
            Action::DecNwTtl,
            set(MatchField::Ipv6Dst, u128::MAX),
            set(MatchField::VlanVid, 0x1fff),
            set(MatchField::VlanPcp, 7),
        ]),
        Instruction::ClearActions,
        Instruction::Meter(9),
    ];
    assert_eq!(to_instructions(&instructions(&all).unwrap()), all);
    let mut reversed = all.clone();
    reversed.reverse();
    assert_eq!(instructions(&reversed), instructions(&all), "their order says nothing");
    assert_eq!(to_instructions(&instructions(&[]).unwrap()), []);
}

#[test]
fn what_is_not_supported_has_the_standards_own_error() {
    let other = |action_type| Action::Other { action_type, body: vec![0; 4] };
    assert_eq!(refused(&apply(&[other(28)])), "OFPBAC_BAD_TYPE");
    assert_eq!(refused(&apply(&[Action::PushPbb(0x88e7)])), "OFPBAC_BAD_TYPE");
    assert_eq!(refused(&apply(&[Action::PopPbb])), "OFPBAC_BAD_TYPE");
    let foreign = Action::Experimenter { experimenter: 0x2320, data: vec![] };
    assert_eq!(refused(&apply(&[foreign])), "OFPBAC_BAD_EXPERIMENTER");
    assert_eq!(refused(&apply(&[Action::PushVlan(0x9100)])), "OFPBAC_BAD_ARGUMENT");
    assert_eq!(refused(&apply(&[Action::PushMpls(0x0800)])), "OFPBAC_BAD_ARGUMENT");
    for field in [MatchField::InPort, MatchField::InPhyPort, MatchField::Metadata, MatchField::PbbIsid] {
        assert_eq!(refused(&apply(&[set(field, 1)])), "OFPBAC_BAD_SET_TYPE", "{field:?}");
    }
    for (field, value) in [(MatchField::IpDscp, 64), (MatchField::VlanVid, 5), (MatchField::VlanVid, 0x3005)]
    {
        assert_eq!(refused(&apply(&[set(field, value)])), "OFPBAC_BAD_SET_ARGUMENT", "{field:?}");
    }
    let many = |count| actions(&vec![Action::output(1); count]);
    assert!(many(ACTIONS_MAX).is_ok());
    assert_eq!(many(ACTIONS_MAX + 1), Err(ErrorKind::BadAction(Code::TooMany)));
    assert_eq!(refused(&[apply(&[]), apply(&[])].concat()), "OFPBIC_UNSUP_INST");
    let unknown = |instruction_type| Instruction::Other { instruction_type, body: vec![0; 4] };
    assert_eq!(refused(&[unknown(7)]), "OFPBIC_UNKNOWN_INST");
    let foreign = Instruction::Experimenter { experimenter: 0x2320, data: vec![] };
    assert_eq!(refused(&[foreign]), "OFPBIC_BAD_EXPERIMENTER");
}

#[test]
fn fields_of_others_are_bad_field() {
    let bytes = "040e004000000001000000000000000000000000000000000100000000000001ffffffffffffffffffffffff0000000000010010ffff0208000008b100000001";
    let (_, message) = openflow::Message::decode(&hex::decode(bytes).unwrap()).unwrap();
    let openflow::Message::FlowMod(nicira) = message else { panic!("{message:?}") };
    assert_eq!(pattern(&nicira.pattern).unwrap_err().as_str(), "OFPBMC_BAD_FIELD");
}
