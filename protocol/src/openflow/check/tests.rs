use super::super::Band;
use super::*;

fn tcp() -> Match {
    Match::any().eth_type(eth_type::IPV4).ip_proto(ip_proto::TCP)
}

fn of_type(eth_type: u16) -> Match {
    Match::any().eth_type(eth_type)
}

fn set(field: MatchField, value: u128) -> Action {
    Action::SetField(Oxm::exact(field, value).unwrap())
}

fn apply(pattern: &Match, actions: &[Action]) -> &'static str {
    match check_instructions(&[Instruction::ApplyActions(actions.to_vec())], pattern) {
        Ok(()) => "ok",
        Err(kind) => kind.as_str(),
    }
}

#[test]
fn ports_and_groups_have_numbers() {
    for number in [1, port::MAX, port::IN_PORT, port::TABLE, port::NORMAL, port::CONTROLLER, port::LOCAL] {
        assert_eq!(apply(&Match::any(), &[Action::output(number)]), "ok", "{number:#x}");
    }
    for number in [0, port::MAX + 1, port::IN_PORT - 1, port::ANY] {
        assert_eq!(apply(&Match::any(), &[Action::output(number)]), "OFPBAC_BAD_OUT_PORT", "{number:#x}");
    }
    assert_eq!(apply(&Match::any(), &[Action::Group(group::MAX)]), "ok");
    assert_eq!(apply(&Match::any(), &[Action::Group(group::ALL)]), "OFPBAC_BAD_OUT_GROUP");
}

#[test]
fn actions_of_others_have_errors_of_their_own() {
    let foreign = Action::Experimenter { experimenter: 0x2320, data: vec![] };
    let unknown = Action::Other { action_type: 28, body: vec![0; 4] };
    assert_eq!(apply(&Match::any(), &[foreign]), "OFPBAC_BAD_EXPERIMENTER");
    assert_eq!(apply(&Match::any(), &[unknown]), "OFPBAC_BAD_TYPE");
}

#[test]
fn only_tags_can_be_pushed() {
    for action in [
        Action::PushVlan(eth_type::IPV4),
        Action::PushVlan(eth_type::MPLS),
        Action::PushMpls(eth_type::VLAN),
        Action::PushPbb(eth_type::SERVICE_VLAN),
    ] {
        assert_eq!(apply(&tcp(), std::slice::from_ref(&action)), "OFPBAC_BAD_ARGUMENT", "{action:?}");
    }
    for action in [
        Action::PushVlan(eth_type::VLAN),
        Action::PushVlan(eth_type::SERVICE_VLAN),
        Action::PushMpls(eth_type::MPLS),
        Action::PushMpls(eth_type::MPLS_MULTICAST),
        Action::PushPbb(eth_type::PBB),
        Action::CopyTtlIn,
        Action::CopyTtlOut,
        Action::SetQueue(9),
    ] {
        assert_eq!(apply(&Match::any(), std::slice::from_ref(&action)), "ok", "{action:?}");
    }
}

#[test]
fn what_an_action_needs_must_be_there() {
    let tagged = Match::any().vlan_vid(VLAN_VID_PRESENT | 5);
    let mpls = of_type(eth_type::MPLS);
    let pbb = of_type(eth_type::PBB);
    let cases = [
        (Action::PopVlan, vec![&tagged], vec![&mpls, &pbb]),
        (Action::PopMpls(eth_type::IPV4), vec![&mpls], vec![&tagged, &pbb]),
        (Action::SetMplsTtl(1), vec![&mpls], vec![&tagged, &pbb]),
        (Action::DecMplsTtl, vec![&mpls], vec![&tagged, &pbb]),
        (Action::PopPbb, vec![&pbb], vec![&tagged, &mpls]),
        (set(MatchField::PbbIsid, 7), vec![&pbb], vec![&mpls]),
        (set(MatchField::VlanPcp, 7), vec![&tagged], vec![&mpls]),
        (set(MatchField::VlanVid, 0x1007), vec![&tagged], vec![&mpls]),
        (set(MatchField::MplsLabel, 7), vec![&mpls], vec![&tagged]),
        (set(MatchField::MplsBos, 1), vec![&mpls], vec![&tagged]),
    ];
    for (action, fitting, other) in cases {
        for pattern in fitting {
            assert_eq!(apply(pattern, std::slice::from_ref(&action)), "ok", "{action:?} {pattern}");
        }
        for pattern in other.into_iter().chain([&tcp(), &Match::any()]) {
            let code = apply(pattern, std::slice::from_ref(&action));
            assert_eq!(code, "OFPBAC_MATCH_INCONSISTENT", "{action:?} {pattern}");
        }
    }
    for ip in [eth_type::IPV4, eth_type::IPV6] {
        assert_eq!(apply(&of_type(ip), &[Action::DecNwTtl, Action::SetNwTtl(3)]), "ok");
    }
    for pattern in [mpls, pbb, of_type(eth_type::ARP), Match::any()] {
        assert_eq!(apply(&pattern, &[Action::DecNwTtl]), "OFPBAC_MATCH_INCONSISTENT");
        assert_eq!(apply(&pattern, &[Action::SetNwTtl(3)]), "OFPBAC_MATCH_INCONSISTENT");
    }
}

#[test]
fn actions_change_what_may_follow() {
    let vid = || set(MatchField::VlanVid, 0x1005);
    let label = || set(MatchField::MplsLabel, 9);
    let tcp_dst = || set(MatchField::TcpDst, 80);
    assert_eq!(apply(&tcp(), &[Action::PushVlan(0x8100), vid(), Action::PopVlan, tcp_dst()]), "ok");
    assert_eq!(
        apply(&tcp(), &[Action::PushVlan(0x8100), Action::PopVlan, vid()]),
        "OFPBAC_MATCH_INCONSISTENT"
    );
    assert_eq!(apply(&tcp(), &[Action::PushMpls(0x8847), label(), Action::DecMplsTtl]), "ok");
    assert_eq!(apply(&tcp(), &[Action::PushMpls(0x8847), tcp_dst()]), "OFPBAC_MATCH_INCONSISTENT");
    assert_eq!(apply(&tcp(), &[Action::PushMpls(0x8847), Action::DecNwTtl]), "OFPBAC_MATCH_INCONSISTENT");
    let popped = [Action::PopMpls(0x0800), Action::DecNwTtl, set(MatchField::Ipv4Src, 1)];
    assert_eq!(apply(&of_type(0x8847), &popped), "ok");
    assert_eq!(apply(&of_type(0x8847), &[Action::PopMpls(0x8847), label()]), "ok");
    // What lies under a label is not known, not even to those who put it there.
    assert_eq!(apply(&of_type(0x8847), &[Action::PopMpls(0x0800), tcp_dst()]), "OFPBAC_MATCH_INCONSISTENT");
    let known = [Action::PopMpls(0x0800), set(MatchField::IpProto, 6), tcp_dst()];
    assert_eq!(apply(&of_type(0x8847), &known), "ok");
    assert_eq!(apply(&of_type(0x88e7), &[Action::PopPbb, Action::DecNwTtl]), "OFPBAC_MATCH_INCONSISTENT");
    assert_eq!(apply(&tcp(), &[Action::PushPbb(0x88e7), set(MatchField::PbbIsid, 1), Action::PopPbb]), "ok");
    assert_eq!(apply(&Match::any(), &[set(MatchField::EthType, 0x0800), Action::DecNwTtl]), "ok");
}

#[test]
fn set_field_needs_a_header_field_its_length_and_a_value_that_fits() {
    let every: Vec<_> = MatchField::ALL.iter().filter(|field| !field.is_settable()).collect();
    assert_eq!(
        every,
        [&MatchField::InPort, &MatchField::InPhyPort, &MatchField::Metadata, &MatchField::Ipv6Exthdr]
    );
    for field in every {
        assert_eq!(apply(&of_type(0x86dd), &[set(*field, 1)]), "OFPBAC_BAD_SET_TYPE");
    }
    let raw = |text: &str| {
        let mut bytes = hex::decode(text.replace(' ', "")).unwrap();
        bytes.resize(bytes.len().next_multiple_of(8) + 4, 0);
        let oxm =
            Oxm::decode(&mut crate::wire::Reader::new(&bytes), ErrorKind::BadAction(BadAction::BadSetLen));
        let Ok(oxm) = oxm else { panic!("{text}") };
        Action::SetField(oxm)
    };
    for (text, code) in [
        ("00010204 00000000", "OFPBAC_BAD_SET_TYPE"), // a field of others
        ("80005001 00", "OFPBAC_BAD_SET_TYPE"),       // no field
        ("8000190800000000 ffffffff", "OFPBAC_BAD_SET_TYPE"), // a mask
        ("80001803 000000", "OFPBAC_BAD_SET_LEN"),
        ("80001805 0000000000", "OFPBAC_BAD_SET_LEN"),
        ("80001001 40", "OFPBAC_BAD_SET_ARGUMENT"), // ip_dscp has six bits
        ("80001201 04", "OFPBAC_BAD_SET_ARGUMENT"),
        ("80001001 3f", "ok"),
        ("80001804 ffffffff", "ok"),
    ] {
        assert_eq!(apply(&tcp(), &[raw(text)]), code, "{text}");
    }
    let tagged = Match::any().vlan_vid(VLAN_VID_PRESENT);
    assert_eq!(apply(&tagged, &[set(MatchField::VlanVid, 5)]), "OFPBAC_BAD_SET_ARGUMENT");
    assert_eq!(apply(&tagged, &[set(MatchField::VlanVid, 0x2005)]), "OFPBAC_BAD_SET_ARGUMENT");
}

/// Each field that can be set, on a match that meets its prerequisites and on one that doesn't.
#[test]
fn set_field_needs_the_fields_prerequisites() {
    let any_tag = Match::any().with_mask(MatchField::VlanVid, 0x1000, 0x1000).unwrap();
    for field in MatchField::ALL.iter().copied().filter(|field| field.is_settable()) {
        let fitting = match field.prerequisite() {
            None if field == MatchField::VlanVid => any_tag.clone(),
            None => Match::any(),
            Some(Prerequisite::Tagged) => any_tag.clone(),
            Some(Prerequisite::OneOf(MatchField::EthType, values)) => {
                Match::any().with(MatchField::EthType, values[0]).unwrap()
            }
            Some(Prerequisite::OneOf(MatchField::IpProto, values)) => {
                of_type(eth_type::IPV6).with(MatchField::IpProto, values[0]).unwrap()
            }
            Some(Prerequisite::OneOf(needed, values)) => {
                of_type(eth_type::IPV6).ip_proto(ip_proto::ICMPV6).with(needed, values[0]).unwrap()
            }
            Some(Prerequisite::Present(needed)) => panic!("{} needs {}", field.as_str(), needed.as_str()),
        };
        fitting.check().unwrap();
        let value = if field == MatchField::VlanVid { 0x1001 } else { 1 };
        assert_eq!(apply(&fitting, &[set(field, value)]), "ok", "{}", field.as_str());
        let needs = field.prerequisite().is_some() || field == MatchField::VlanVid;
        let code = if needs { "OFPBAC_MATCH_INCONSISTENT" } else { "ok" };
        assert_eq!(apply(&Match::any(), &[set(field, value)]), code, "{}", field.as_str());
    }
}

#[test]
fn an_action_set_is_carried_out_in_its_own_order() {
    let listed = vec![
        Action::output(1),
        set(MatchField::MplsLabel, 5),
        Action::SetQueue(1),
        Action::PushMpls(eth_type::MPLS),
        Action::CopyTtlIn,
        Action::DecMplsTtl,
    ];
    let check =
        |actions: &[Action]| check_instructions(&[Instruction::WriteActions(actions.to_vec())], &tcp());
    assert_eq!(check(&listed), Ok(()));
    let mut ordered = listed;
    ordered.sort_by_key(set_order);
    let order: Vec<_> = ordered.iter().map(Action::number).collect();
    assert_eq!(order, [12, 19, 16, 25, 21, 0]);
    let inconsistent = ErrorKind::BadAction(BadAction::MatchInconsistent);
    assert_eq!(check(&[set(MatchField::MplsLabel, 5)]), Err(inconsistent));
    // The set is carried out after what is applied at once.
    let both = [
        Instruction::WriteActions(vec![set(MatchField::MplsLabel, 5)]),
        Instruction::ApplyActions(vec![Action::PushMpls(eth_type::MPLS)]),
    ];
    assert_eq!(check_instructions(&both, &tcp()), Ok(()));
}

#[test]
fn instructions_are_known_and_one_of_each() {
    let check = |instructions: &[Instruction]| match check_instructions(instructions, &Match::any()) {
        Ok(()) => "ok",
        Err(kind) => kind.as_str(),
    };
    let each = [
        Instruction::Meter(1),
        Instruction::ApplyActions(vec![]),
        Instruction::ClearActions,
        Instruction::WriteActions(vec![]),
        Instruction::WriteMetadata { metadata: 1, mask: 1 },
        Instruction::GotoTable(1),
    ];
    assert_eq!(check(&each), "ok");
    for instruction in &each {
        assert_eq!(check(&[instruction.clone(), instruction.clone()]), "OFPBIC_UNSUP_INST");
    }
    let unknown = Instruction::Other { instruction_type: 7, body: vec![0; 4] };
    let foreign = Instruction::Experimenter { experimenter: 1, data: vec![] };
    for (instruction, code) in [
        (unknown, "OFPBIC_UNKNOWN_INST"),
        (foreign, "OFPBIC_BAD_EXPERIMENTER"),
        (Instruction::GotoTable(255), "OFPBIC_BAD_TABLE_ID"),
        (Instruction::Meter(0), "OFPMMFC_INVALID_METER"),
        (Instruction::Meter(meter::CONTROLLER), "OFPMMFC_INVALID_METER"),
        (Instruction::Meter(meter::MAX), "ok"),
        (Instruction::GotoTable(254), "ok"),
    ] {
        assert_eq!(check(&[instruction]), code);
    }
}

#[test]
fn flow_mods() {
    let code = |flow: &FlowMod| flow.check().map_or_else(ErrorKind::as_str, |()| "ok");
    let bad = || FlowMod {
        instructions: vec![Instruction::ApplyActions(vec![Action::output(0)])],
        ..FlowMod::new(Command::Add, 0, 1)
    };
    assert_eq!(code(&bad()), "OFPBAC_BAD_OUT_PORT");
    assert_eq!(code(&FlowMod { command: Command::Modify, ..bad() }), "OFPBAC_BAD_OUT_PORT");
    for command in [Command::Delete, Command::DeleteStrict] {
        assert_eq!(code(&FlowMod { command, ..bad() }), "ok");
        assert_eq!(code(&FlowMod::new(command, super::super::TABLE_ALL, 0)), "ok");
    }
    assert_eq!(code(&FlowMod::new(Command::Add, super::super::TABLE_ALL, 0)), "OFPFMFC_BAD_TABLE_ID");
    assert_eq!(code(&FlowMod { flags: 0x20, ..FlowMod::new(Command::Add, 0, 0) }), "OFPFMFC_BAD_FLAGS");
    let pattern = Match::any().ip_proto(6);
    assert_eq!(code(&FlowMod { pattern, ..FlowMod::new(Command::Delete, 0, 0) }), "OFPBMC_BAD_PREREQ");
}

#[test]
fn group_mods() {
    let code = |group: &GroupMod| group.check().map_or_else(ErrorKind::as_str, |()| "ok");
    let of = |group_type, buckets| GroupMod { command: GroupCommand::Add, group_type, group_id: 1, buckets };
    let out = || Bucket::new(vec![Action::output(1)]);
    let watching = || Bucket { watch_port: 1, ..out() };
    let weighted = || Bucket { weight: 2, ..out() };
    for (group, wanted) in [
        (of(GroupType::All, vec![]), "ok"),
        (of(GroupType::All, vec![out(), out()]), "ok"),
        (of(GroupType::Indirect, vec![out()]), "ok"),
        (of(GroupType::Indirect, vec![]), "OFPGMFC_INVALID_GROUP"),
        (of(GroupType::Indirect, vec![out(), out()]), "OFPGMFC_INVALID_GROUP"),
        (of(GroupType::Select, vec![weighted(), watching()]), "ok"),
        (of(GroupType::All, vec![weighted()]), "OFPGMFC_INVALID_GROUP"),
        (of(GroupType::All, vec![watching()]), "OFPGMFC_WATCH_UNSUPPORTED"),
        (of(GroupType::Indirect, vec![watching()]), "OFPGMFC_WATCH_UNSUPPORTED"),
        (of(GroupType::FastFailover, vec![watching(), watching()]), "ok"),
        (of(GroupType::FastFailover, vec![watching(), out()]), "OFPGMFC_INVALID_GROUP"),
        (of(GroupType::All, vec![Bucket::new(vec![Action::output(0)])]), "OFPBAC_BAD_OUT_PORT"),
        (of(GroupType::All, vec![Bucket::new(vec![Action::PushVlan(1)])]), "OFPBAC_BAD_ARGUMENT"),
        // Which frames come to a group is not known.
        (of(GroupType::All, vec![Bucket::new(vec![Action::PopVlan, set(MatchField::TcpDst, 1)])]), "ok"),
        (GroupMod { group_id: group::ALL, ..of(GroupType::All, vec![]) }, "OFPGMFC_INVALID_GROUP"),
        (GroupMod { group_id: group::MAX, ..of(GroupType::All, vec![]) }, "ok"),
        (
            GroupMod { command: GroupCommand::Delete, group_id: group::ALL, ..of(GroupType::All, vec![]) },
            "ok",
        ),
        (GroupMod { command: GroupCommand::Delete, ..of(GroupType::Indirect, vec![]) }, "ok"),
        (
            GroupMod { command: GroupCommand::Delete, group_id: group::ANY, ..of(GroupType::All, vec![]) },
            "OFPGMFC_INVALID_GROUP",
        ),
    ] {
        assert_eq!(code(&group), wanted, "{group:?}");
    }
}

#[test]
fn meter_mods() {
    let code = |meter: &MeterMod| meter.check().map_or_else(ErrorKind::as_str, |()| "ok");
    let band = |action| Band { rate: 1, burst_size: 0, action };
    let of = |flags, action| MeterMod {
        command: MeterCommand::Add,
        flags,
        meter_id: 1,
        bands: vec![band(action)],
    };
    let foreign = BandAction::Experimenter { experimenter: 1, data: vec![] };
    let unknown = BandAction::Other { band_type: 3, body: vec![] };
    let numbered = |meter_id| MeterMod { meter_id, ..of(meter::flags::KBPS, BandAction::Drop) };
    let delete = |meter_id| MeterMod { command: MeterCommand::Delete, ..numbered(meter_id) };
    for (meter, wanted) in [
        (of(0, BandAction::Drop), "ok"),
        (of(0x0d, BandAction::DscpRemark { prec_level: 1 }), "ok"),
        (of(0x0e, BandAction::Drop), "ok"),
        (of(0x03, BandAction::Drop), "OFPMMFC_BAD_FLAGS"),
        (of(0x11, BandAction::Drop), "OFPMMFC_BAD_FLAGS"),
        (of(1, foreign), "OFPMMFC_BAD_BAND"),
        (of(1, unknown), "OFPMMFC_BAD_BAND"),
        (numbered(0), "OFPMMFC_INVALID_METER"),
        (numbered(meter::MAX), "ok"),
        (numbered(meter::MAX + 1), "OFPMMFC_INVALID_METER"),
        (numbered(meter::CONTROLLER), "ok"),
        (numbered(meter::SLOWPATH), "ok"),
        (numbered(meter::ALL), "OFPMMFC_INVALID_METER"),
        (delete(meter::ALL), "ok"),
        (delete(0), "OFPMMFC_INVALID_METER"),
    ] {
        assert_eq!(code(&meter), wanted, "{meter:?}");
    }
}
