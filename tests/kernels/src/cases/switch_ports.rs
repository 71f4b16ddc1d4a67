//! Frames on a switch port: `enter`, and by its tail calls `walk`, `act`, `choose` and `leave`.

use caregate_ebpf_common::switch::stage::ENTER_PROGRAM;
use pnet::packet::ethernet::EtherTypes;
use pnet::packet::ip::IpNextHeaderProtocols as Protocol;

use super::flows::{VLAN, to};
use super::{Case, PORT_SWITCH, XDP_DROP, XDP_PASS};
use crate::frames::{BROADCAST, Mac, OTHER, OWN, STRANGER, V4, arp, ethernet, ipv4, udp};

const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;
const NEIGHBOUR: Mac = [2, 0, 0, 0, 0, 0x77];

/// Without a checksum (0), so that what is set changes IPv4's alone.
fn datagram(port: u16) -> Vec<u8> {
    ethernet(STRANGER, NEIGHBOUR, V4, &ipv4(OTHER, Protocol::Udp, &udp(4000, port, b"datagram")))
}

/// All of them, in the order in which they are sent: a meter remembers.
pub(super) fn all() -> Vec<Case> {
    let case = |what, frame: Vec<u8>, action, verdict| Case {
        program: ENTER_PROGRAM,
        what,
        frame,
        action,
        verdict,
        changed: None,
        port: PORT_SWITCH,
    };
    let changed = |what, port, frame| Case {
        changed: Some(frame),
        ..case(what, datagram(port), XDP_REDIRECT, "redirected")
    };
    let plain = datagram(to::TAGGED);
    let tag = [0x8100u16.to_be_bytes(), VLAN.to_be_bytes()].concat();
    let tagged = [&plain[..12], &tag, &plain[12..]].concat();
    let second = udp(4000, to::SECOND_TABLE, b"datagram");
    let failed_over = udp(4000, to::FAILOVER, b"datagram");
    vec![
        case("to a port", datagram(to::FORWARDED), XDP_REDIRECT, "redirected"),
        case("the same again, from the flow cache", datagram(to::FORWARDED), XDP_REDIRECT, "redirected"),
        case("a third time, put down as a microflow", datagram(to::FORWARDED), XDP_REDIRECT, "redirected"),
        case("a fourth time, as one that is known", datagram(to::FORWARDED), XDP_REDIRECT, "redirected"),
        changed("a tag is pushed", to::TAGGED, tagged),
        changed(
            "a second table sets an address",
            to::SECOND_TABLE,
            ethernet(STRANGER, NEIGHBOUR, V4, &ipv4(OWN, Protocol::Udp, &second)),
        ),
        changed(
            "a group's live bucket",
            to::FAILOVER,
            ethernet(STRANGER, BROADCAST, V4, &ipv4(OTHER, Protocol::Udp, &failed_over)),
        ),
        case("an action set", datagram(to::ACTION_SET), XDP_TX, "redirected"),
        case("two copies are the slow path's", datagram(to::COPIED), XDP_DROP, "punted"),
        case("within a meter", datagram(to::METERED), XDP_REDIRECT, "redirected"),
        case("again within a meter", datagram(to::METERED), XDP_REDIRECT, "redirected"),
        case("above a meter", datagram(to::METERED), XDP_DROP, "metered"),
        case("a flow without instructions", datagram(to::DROPPED), XDP_DROP, "switch_dropped"),
        case("the same, put down as a microflow", datagram(to::DROPPED), XDP_DROP, "switch_dropped"),
        case("as one that is known", datagram(to::DROPPED), XDP_DROP, "switch_dropped"),
        case("no flow", datagram(to::UNKNOWN), XDP_DROP, "table_miss"),
        case("no flow, put down as a microflow", datagram(to::UNKNOWN), XDP_DROP, "table_miss"),
        case("no flow, as one that is known", datagram(to::UNKNOWN), XDP_DROP, "table_miss"),
        case(
            "no flow, another type",
            ethernet(STRANGER, NEIGHBOUR, EtherTypes::Lldp, &[0; 46]),
            XDP_DROP,
            "table_miss",
        ),
        case("to the gateway", arp(STRANGER), XDP_PASS, "delivered"),
    ]
}
