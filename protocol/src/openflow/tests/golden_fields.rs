//! A flow-mod with every match field, one with every field's mask, and one with every action and instruction.

use super::super::*;

/// Of each field a value that differs in all of its bytes, as the standard's table 12 has number and width.
const FIELDS: [(MatchField, u128, &str); 40] = [
    (MatchField::InPort, 0x0102_0304, "80000004 01020304"),
    (MatchField::InPhyPort, 0x0506_0708, "80000204 05060708"),
    (MatchField::Metadata, 0x1112_1314_1516_1718, "80000408 1112131415161718"),
    (MatchField::EthDst, 0x0200_0000_0001, "80000606 020000000001"),
    (MatchField::EthSrc, 0x0200_0000_0002, "80000806 020000000002"),
    (MatchField::EthType, 0x86dd, "80000a02 86dd"),
    (MatchField::VlanVid, 0x1064, "80000c02 1064"),
    (MatchField::VlanPcp, 5, "80000e01 05"),
    (MatchField::IpDscp, 46, "80001001 2e"),
    (MatchField::IpEcn, 3, "80001201 03"),
    (MatchField::IpProto, 58, "80001401 3a"),
    (MatchField::Ipv4Src, 0x0a00_0001, "80001604 0a000001"),
    (MatchField::Ipv4Dst, 0x0a00_0002, "80001804 0a000002"),
    (MatchField::TcpSrc, 0x1f90, "80001a02 1f90"),
    (MatchField::TcpDst, 0x01bb, "80001c02 01bb"),
    (MatchField::UdpSrc, 0x1ce8, "80001e02 1ce8"),
    (MatchField::UdpDst, 0x0035, "80002002 0035"),
    (MatchField::SctpSrc, 0x0b59, "80002202 0b59"),
    (MatchField::SctpDst, 0x8e3c, "80002402 8e3c"),
    (MatchField::Icmpv4Type, 8, "80002601 08"),
    (MatchField::Icmpv4Code, 1, "80002801 01"),
    (MatchField::ArpOp, 2, "80002a02 0002"),
    (MatchField::ArpSpa, 0xc0a8_0001, "80002c04 c0a80001"),
    (MatchField::ArpTpa, 0xc0a8_0002, "80002e04 c0a80002"),
    (MatchField::ArpSha, 0x0200_0000_0003, "80003006 020000000003"),
    (MatchField::ArpTha, 0x0200_0000_0004, "80003206 020000000004"),
    (MatchField::Ipv6Src, 0x2001_0db8 << 96 | 1, "80003410 20010db8000000000000000000000001"),
    (MatchField::Ipv6Dst, 0x2001_0db8 << 96 | 2, "80003610 20010db8000000000000000000000002"),
    (MatchField::Ipv6Flabel, 0xf_1234, "80003804 000f1234"),
    (MatchField::Icmpv6Type, 135, "80003a01 87"),
    (MatchField::Icmpv6Code, 4, "80003c01 04"),
    (MatchField::Ipv6NdTarget, 0xfe80 << 112 | 3, "80003e10 fe800000000000000000000000000003"),
    (MatchField::Ipv6NdSll, 0x0200_0000_0005, "80004006 020000000005"),
    (MatchField::Ipv6NdTll, 0x0200_0000_0006, "80004206 020000000006"),
    (MatchField::MplsLabel, 0xa_bcde, "80004404 000abcde"),
    (MatchField::MplsTc, 7, "80004601 07"),
    (MatchField::MplsBos, 1, "80004801 01"),
    (MatchField::PbbIsid, 0xab_cdef, "80004a03 abcdef"),
    (MatchField::TunnelId, 0x2122_2324_2526_2728, "80004c08 2122232425262728"),
    (MatchField::Ipv6Exthdr, 0x1f4, "80004e02 01f4"),
];

/// The fields that may have a mask, with one.
const MASKED: [(MatchField, u128, u128, &str); 16] = [
    (MatchField::Metadata, 0x1100, 0xff00, "80000510 0000000000001100 000000000000ff00"),
    (MatchField::EthDst, 0x0100_0000_0000, 0x0100_0000_0000, "8000070c 010000000000 010000000000"),
    (MatchField::EthSrc, 0x0200_0000_0000, 0xffff_ff00_0000, "8000090c 020000000000 ffffff000000"),
    (MatchField::VlanVid, 0x1000, 0x1000, "80000d04 1000 1000"),
    (MatchField::Ipv4Src, 0x0a00_0000, 0xff00_0000, "80001708 0a000000 ff000000"),
    (MatchField::Ipv4Dst, 0x0000_0001, 0x0000_00ff, "80001908 00000001 000000ff"),
    (MatchField::ArpSpa, 0xc0a8_0000, 0xffff_0000, "80002d08 c0a80000 ffff0000"),
    (MatchField::ArpTpa, 0xc0a8_0100, 0xffff_ff00, "80002f08 c0a80100 ffffff00"),
    (MatchField::ArpSha, 0x0200_0000_0000, 0xff00_0000_0000, "8000310c 020000000000 ff0000000000"),
    (MatchField::ArpTha, 0x0000_0000_0007, 0x0000_0000_00ff, "8000330c 000000000007 0000000000ff"),
    (
        MatchField::Ipv6Src,
        0x2001_0db8 << 96,
        0xffff_ffff << 96,
        "80003520 20010db8000000000000000000000000 ffffffff000000000000000000000000",
    ),
    (
        MatchField::Ipv6Dst,
        9,
        0xffff,
        "80003720 00000000000000000000000000000009 0000000000000000000000000000ffff",
    ),
    (MatchField::Ipv6Flabel, 0xf_0000, 0xf_0000, "80003908 000f0000 000f0000"),
    (MatchField::PbbIsid, 0xab_0000, 0xff_0000, "80004b06 ab0000 ff0000"),
    (MatchField::TunnelId, 0x21 << 56, 0xff << 56, "80004d10 2100000000000000 ff00000000000000"),
    (MatchField::Ipv6Exthdr, 0x100, 0x100, "80004f04 0100 0100"),
];

const HEAD: &str =
    "0000000000000000 0000000000000000 01 00 0000 0000 0005 ffffffff ffffffff ffffffff 0000 0000";

fn every_field() -> (String, Message) {
    let texts: String = FIELDS.iter().map(|(_, _, text)| *text).collect();
    let add =
        |pattern: Match, (field, value, _): &(MatchField, u128, &str)| pattern.with(*field, *value).unwrap();
    let pattern = FIELDS.iter().fold(Match::any(), add);
    let flow = FlowMod { pattern, ..FlowMod::new(Command::Add, 1, 5) };
    (format!("040e018000000011 {HEAD} 0001 0149 {texts} 00000000000000"), Message::FlowMod(flow))
}

fn every_mask() -> (String, Message) {
    let texts: String = MASKED.iter().map(|(_, _, _, text)| *text).collect();
    let add = |pattern: Match, (field, value, mask, _): &(MatchField, u128, u128, &str)| {
        pattern.with_mask(*field, *value, *mask).unwrap()
    };
    let pattern = MASKED.iter().fold(Match::any(), add);
    let flow = FlowMod { pattern, ..FlowMod::new(Command::Add, 1, 5) };
    (format!("040e014000000011 {HEAD} 0001 010a {texts} 000000000000"), Message::FlowMod(flow))
}

/// Each action with its bytes.
fn actions() -> Vec<(&'static str, Action)> {
    let source = Oxm::exact(MatchField::Ipv6Src, 0x2001_0db8 << 96 | 1).unwrap();
    vec![
        ("0000 0010 fffffffd ffff 000000000000", Action::Output { port: port::CONTROLLER, max_len: 0xffff }),
        ("000b 0008 00000000", Action::CopyTtlOut),
        ("000c 0008 00000000", Action::CopyTtlIn),
        ("000f 0008 40 000000", Action::SetMplsTtl(64)),
        ("0010 0008 00000000", Action::DecMplsTtl),
        ("0011 0008 88a8 0000", Action::PushVlan(eth_type::SERVICE_VLAN)),
        ("0012 0008 00000000", Action::PopVlan),
        ("0013 0008 8847 0000", Action::PushMpls(eth_type::MPLS)),
        ("0014 0008 0800 0000", Action::PopMpls(eth_type::IPV4)),
        ("0015 0008 00000003", Action::SetQueue(3)),
        ("0016 0008 00000005", Action::Group(5)),
        ("0017 0008 3f 000000", Action::SetNwTtl(63)),
        ("0018 0008 00000000", Action::DecNwTtl),
        ("0019 0018 80003410 20010db8000000000000000000000001", Action::SetField(source)),
        ("001a 0008 88e7 0000", Action::PushPbb(eth_type::PBB)),
        ("001b 0008 00000000", Action::PopPbb),
        (
            "ffff 0010 00002320 1122334455667788",
            Action::Experimenter {
                experimenter: 0x2320,
                data: vec![0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88],
            },
        ),
        ("001c 0008 aabbccdd", Action::Other { action_type: 28, body: vec![0xaa, 0xbb, 0xcc, 0xdd] }),
    ]
}

fn every_action() -> (String, Message) {
    let texts: String = actions().iter().map(|(text, _)| *text).collect();
    let instructions = vec![
        Instruction::ApplyActions(actions().into_iter().map(|(_, action)| action).collect()),
        Instruction::Experimenter { experimenter: 0x2320, data: vec![0, 1, 2, 3, 4, 5, 6, 7] },
        Instruction::Other { instruction_type: 7, body: vec![0; 4] },
    ];
    let flow = FlowMod { instructions, ..FlowMod::new(Command::Add, 1, 5) };
    let rest = "ffff 0010 00002320 0001020304050607 0007 0008 00000000";
    let text = format!("040e010800000011 {HEAD} 0001 0004 00000000 0004 00b8 00000000 {texts} {rest}");
    (text, Message::FlowMod(flow))
}

pub(super) fn all() -> Vec<(String, Message)> {
    vec![every_field(), every_mask(), every_action()]
}

#[test]
fn every_field_mask_action_and_instruction_is_there() {
    let fields: Vec<_> = FIELDS.iter().map(|(field, _, _)| *field).collect();
    assert_eq!(fields, MatchField::ALL);
    let maskable: Vec<_> = MatchField::ALL.iter().filter(|field| field.is_maskable()).copied().collect();
    assert_eq!(MASKED.map(|(field, ..)| field).to_vec(), maskable);
    let types: Vec<_> = actions().iter().filter_map(|(_, action)| action.action_type()).collect();
    assert_eq!(types, ActionType::ALL);
}

/// What was put in comes out right-aligned, after the wire too.
#[test]
fn values_come_out_as_they_were_put_in() {
    let (_, message) = every_field();
    let Message::FlowMod(flow) = Message::decode(&message.encode(1).unwrap()).unwrap().1 else { panic!() };
    for (field, value, _) in FIELDS {
        assert_eq!(flow.pattern.get(field), Some(Masked { value, mask: field.ones() }), "{}", field.as_str());
        assert_eq!(flow.pattern.exact(field), Some(value));
    }
    assert_eq!(flow.pattern.iter().count(), 40);
    let (_, message) = every_mask();
    let Message::FlowMod(flow) = Message::decode(&message.encode(1).unwrap()).unwrap().1 else { panic!() };
    for (field, value, mask, _) in MASKED {
        assert_eq!(flow.pattern.get(field), Some(Masked { value, mask }), "{}", field.as_str());
        assert_eq!(flow.pattern.exact(field), None);
    }
    assert_eq!(flow.pattern.get(MatchField::InPort), None);
}
