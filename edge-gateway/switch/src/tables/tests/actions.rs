//! What flows may do: the standard's errors, and the guard.

use caregate_protocol::openflow::Prerequisite;

use super::*;

fn set(field: MatchField, value: u128) -> Action {
    Action::SetField(Oxm::exact(field, value).unwrap())
}

fn of_port_4() -> Match {
    Match::any().in_port(4)
}

fn answer(tables: &mut Tables, pattern: Match, instructions: Vec<Instruction>) -> &'static str {
    let wanted = FlowMod { instructions, ..add(1, pattern) };
    match tables.flow_mod(&wanted, NOW) {
        Ok(_) => "",
        Err(kind) => kind.as_str(),
    }
}

#[test]
fn of_a_sensors_frames_fewer_come_through_and_nothing_else() {
    let mut tables = guarded();
    groups::add_all(&mut tables);
    meters::add_all(&mut tables);
    let sensors = [
        Match::any(),
        Match::any().in_port(1),
        from_source(1),
        Match::any().with(MatchField::Metadata, 7).unwrap(),
        Match::any().eth_type(0x0800).ip_proto(17),
    ];
    let own = Action::output(port::LOCAL);
    let allowed = [
        vec![],
        to(port::LOCAL),
        vec![Instruction::WriteActions(vec![own.clone()])],
        vec![Instruction::GotoTable(2), Instruction::WriteMetadata { metadata: 7, mask: 15 }],
        // It drops.
        [vec![Instruction::Meter(1)], to(port::LOCAL)].concat(),
    ];
    let bare = [
        Action::output(1),
        Action::output(2),
        Action::output(3),
        Action::output(4),
        Action::output(9),
        Action::output(port::NORMAL),
        Action::output(port::CONTROLLER),
        Action::output(port::FLOOD),
        Action::output(port::ALL),
        Action::output(port::IN_PORT),
        Action::output(port::TABLE),
        Action::Group(9),
        Action::Group(77),
        Action::SetQueue(0),
        Action::PushVlan(0x8100),
        Action::PopVlan,
        Action::DecNwTtl,
        set(MatchField::EthSrc, 1),
        set(MatchField::EthDst, 1),
        set(MatchField::IpDscp, 1),
    ];
    for pattern in &sensors {
        for instructions in &allowed {
            assert_eq!(answer(&mut tables, pattern.clone(), instructions.clone()), "", "{instructions:?}");
        }
        for action in &bare {
            for instructions in [
                applying(std::slice::from_ref(action)),
                applying(&[own.clone(), action.clone()]),
                vec![Instruction::WriteActions(vec![action.clone(), own.clone()])],
                [to(port::LOCAL), vec![Instruction::WriteActions(vec![action.clone()])]].concat(),
            ] {
                let told = answer(&mut tables, pattern.clone(), instructions);
                assert_eq!(told, "OFPBAC_EPERM", "{pattern} {action:?}");
            }
        }
        // It writes into frames.
        let remark = [vec![Instruction::Meter(2)], to(port::LOCAL)].concat();
        assert_eq!(answer(&mut tables, pattern.clone(), remark), "OFPBAC_EPERM", "{pattern}");
    }
}

#[test]
fn to_sensors_nothing_goes() {
    let mut tables = guarded();
    for pattern in [of_port_4(), Match::any().in_port(port::LOCAL), Match::any().in_port(port::CONTROLLER)] {
        for number in [1, 2] {
            assert_eq!(answer(&mut tables, pattern.clone(), to(number)), "OFPBAC_EPERM", "{pattern}");
        }
        for number in [3, 4, 5, port::NORMAL, port::CONTROLLER, port::FLOOD, port::ALL, port::IN_PORT] {
            assert_eq!(answer(&mut tables, pattern.clone(), to(number)), "", "{pattern} {number:#x}");
        }
    }
    assert_eq!(answer(&mut open(), Match::any(), to(1)), "", "without guard it is a port like others");
}

#[test]
fn without_sensors_a_flow_for_all_ports_covers_none() {
    let mut ports = welcome();
    ports.ports.drain(..2);
    let mut tables = Tables::new(Ports::new(Guard::On, &ports, NOW));
    assert_eq!(answer(&mut tables, Match::any(), to(port::CONTROLLER)), "");
    assert!(!tables.touches_sensors());
    // A helper that has one after all.
    tables.ports_mut().add(welcome().ports.remove(0), NOW);
    assert!(tables.recheck(NOW).changed && tables.flows().is_empty());
}

#[test]
fn what_is_named_has_to_be_there() {
    let mut tables = guarded();
    let mut told = |instructions| answer(&mut tables, of_port_4(), instructions);
    for number in [0, 6, port::ANY, port::TABLE, port::MAX] {
        assert_eq!(told(to(number)), "OFPBAC_BAD_OUT_PORT", "{number:#x}");
    }
    assert_eq!(told(applying(&[Action::Group(9)])), "OFPBAC_BAD_OUT_GROUP");
    assert_eq!(told(applying(&[Action::SetQueue(3)])), "");
    assert_eq!(told(applying(&[Action::SetQueue(4)])), "OFPBAC_BAD_QUEUE");
    assert_eq!(told(vec![Instruction::Meter(1)]), "OFPMMFC_INVALID_METER");
    for table in [0, 1, 8, 255] {
        assert_eq!(told(vec![Instruction::GotoTable(table)]), "OFPBIC_BAD_TABLE_ID", "{table}");
    }
    assert_eq!(told(vec![Instruction::GotoTable(7)]), "");
}

#[test]
fn an_action_needs_the_header_that_it_is_about() {
    let mut tables = guarded();
    let mut told = |pattern: Match, actions: &[Action]| answer(&mut tables, pattern, applying(actions));
    let (ipv4, mpls) = (of_port_4().eth_type(0x0800), of_port_4().eth_type(0x8847));
    let tagged = of_port_4().vlan_vid(0x1005);
    let inconsistent = "OFPBAC_MATCH_INCONSISTENT";
    let udp = ipv4.clone().ip_proto(17);
    for (pattern, action) in [
        (of_port_4(), set(MatchField::IpDscp, 46)),
        (ipv4.clone(), set(MatchField::Ipv6Src, 46)),
        (ipv4.clone(), set(MatchField::UdpDst, 46)),
        (udp.clone(), set(MatchField::TcpDst, 46)),
        (ipv4.clone(), set(MatchField::MplsLabel, 46)),
        (of_port_4(), set(MatchField::VlanPcp, 1)),
        (of_port_4().vlan_vid(0), set(MatchField::VlanVid, 0x1005)),
        (of_port_4().vlan_vid(0), Action::PopVlan),
        (ipv4.clone(), Action::PopMpls(0x0800)),
        (ipv4.clone(), Action::DecMplsTtl),
        (ipv4.clone(), Action::CopyTtlOut),
        (mpls.clone(), Action::DecNwTtl),
        (of_port_4(), Action::SetNwTtl(9)),
    ] {
        assert_eq!(
            told(pattern.clone(), std::slice::from_ref(&action)),
            inconsistent,
            "{pattern} {action:?}"
        );
    }
    let ttl = [Action::CopyTtlIn, Action::SetMplsTtl(9), Action::DecMplsTtl, Action::CopyTtlOut];
    for (pattern, actions) in [
        (udp, vec![set(MatchField::UdpDst, 46), set(MatchField::IpDscp, 46), Action::DecNwTtl]),
        (mpls.clone(), ttl.to_vec()),
        (mpls, vec![Action::PopMpls(0x0800), set(MatchField::Ipv4Dst, 1), Action::SetNwTtl(9)]),
        (ipv4.clone(), vec![Action::PushMpls(0x8847), set(MatchField::MplsLabel, 46), Action::DecMplsTtl]),
        (of_port_4(), vec![Action::PushVlan(0x88a8), set(MatchField::VlanVid, 0x1fff)]),
        (of_port_4(), vec![Action::PushVlan(0x8100), set(MatchField::VlanPcp, 7)]),
        (tagged, vec![set(MatchField::VlanPcp, 7), Action::PopVlan]),
        (of_port_4(), vec![set(MatchField::EthType, 0x0800), set(MatchField::IpEcn, 1)]),
    ] {
        assert_eq!(told(pattern.clone(), &actions), "", "{pattern} {actions:?}");
    }
    // A set is carried out in its own order, after what is applied.
    let written = |actions: &[Action]| vec![Instruction::WriteActions(actions.to_vec())];
    let label = set(MatchField::MplsTc, 1);
    let in_order = written(&[label.clone(), Action::output(5), Action::PushMpls(0x8847)]);
    assert_eq!(answer(&mut tables, ipv4.clone(), in_order), "");
    assert_eq!(answer(&mut tables, ipv4.clone(), written(std::slice::from_ref(&label))), inconsistent);
    let after = [applying(&[Action::PushMpls(0x8847)]), written(&[label])].concat();
    assert_eq!(answer(&mut tables, ipv4, after), "");
}

/// What is known of the headers changes with each action.
#[test]
fn an_action_builds_on_those_before_it() {
    let mut tables = guarded();
    let mut told =
        |pattern: &Match, actions: &[Action]| answer(&mut tables, pattern.clone(), applying(actions));
    let inconsistent = "OFPBAC_MATCH_INCONSISTENT";
    let tcp_dst = || set(MatchField::TcpDst, 80);
    let (tcp, mpls) = (of_port_4().eth_type(0x0800).ip_proto(6), of_port_4().eth_type(0x8847));
    let (push, pop) = (Action::PushMpls(0x8847), Action::PopMpls(0x0800));
    let tagged = [Action::PushVlan(0x8100), set(MatchField::VlanVid, 0x1005), Action::PopVlan, tcp_dst()];
    assert_eq!(told(&tcp, &tagged), "");
    assert_eq!(told(&tcp, &[push.clone(), tcp_dst()]), inconsistent);
    assert_eq!(told(&tcp, &[push.clone(), Action::DecNwTtl]), inconsistent);
    assert_eq!(told(&mpls, &[Action::PopMpls(0x8847), set(MatchField::MplsLabel, 9)]), "");
    // What lies under a label is not known, not even to those who put it there.
    assert_eq!(told(&tcp, &[push, pop.clone(), tcp_dst()]), inconsistent);
    assert_eq!(told(&mpls, &[pop.clone(), tcp_dst()]), inconsistent);
    assert_eq!(told(&mpls, &[pop, set(MatchField::IpProto, 6), tcp_dst()]), "");
}

/// Each field that can be set, on a match that has what it needs and on one that hasn't.
#[test]
fn a_field_is_set_where_the_match_has_what_it_needs() {
    let mut tables = guarded();
    for field in MatchField::ALL.iter().copied() {
        if !field.is_settable() || caregate_ebpf_common::switch::place(field.number()).is_none() {
            continue;
        }
        let fitting = match field.prerequisite() {
            None => of_port_4(),
            Some(Prerequisite::Tagged) => of_port_4().vlan_vid(0x1001),
            Some(Prerequisite::OneOf(MatchField::EthType, values)) => {
                of_port_4().with(MatchField::EthType, values[0]).unwrap()
            }
            Some(Prerequisite::OneOf(MatchField::IpProto, values)) => {
                of_port_4().eth_type(0x86dd).with(MatchField::IpProto, values[0]).unwrap()
            }
            Some(Prerequisite::OneOf(needed, values)) => {
                of_port_4().eth_type(0x86dd).ip_proto(58).with(needed, values[0]).unwrap()
            }
            Some(Prerequisite::Present(needed)) => panic!("{} needs {}", field.as_str(), needed.as_str()),
        };
        let value = if field == MatchField::VlanVid { 0x1001 } else { 1 };
        let mut told = |pattern| answer(&mut tables, pattern, applying(&[set(field, value)]));
        assert_eq!(told(fitting), "", "{}", field.as_str());
        let without = if field.prerequisite().is_some() { "OFPBAC_MATCH_INCONSISTENT" } else { "" };
        assert_eq!(told(of_port_4()), without, "{}", field.as_str());
    }
}

#[test]
fn a_full_table_is_written_fast_enough() {
    let wanted: Vec<FlowMod> = (0..4096u32)
        .map(|n| {
            let [a, b, ..] = n.to_le_bytes();
            let pattern = Match::any().in_port(4).eth_src([2, 0, 0, 0, a, b]).eth_type(0x0800).ip_proto(17);
            FlowMod { instructions: to(5), ..add((n % 64).try_into().unwrap(), pattern.udp_dst(7)) }
        })
        .collect();
    let mut tables = guarded();
    let begun = caregate_host::clock::monotonic();
    wanted.iter().for_each(|flow| drop(apply(&mut tables, flow)));
    assert_eq!(tables.changes().len(), 4096);
    let took = begun.elapsed();
    println!("4,096 flow-mods: {took:?}, {:.0} a second", 4096.0 / took.as_secs_f64());
    // Ten times what it takes here, and a tenth of what a look at all flows for each would.
    assert!(took < Duration::from_millis(200), "{took:?}");
    tables.roll_back();
    assert!(tables.flows().is_empty());
}
