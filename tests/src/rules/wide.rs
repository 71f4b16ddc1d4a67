//! Flows over all match fields that a frame has: each is of one of the shapes below, which differ in fields and masks.

use caregate_protocol::openflow::{MatchField as F, VLAN_VID_PRESENT, eth_type, ip_proto};

use super::{Field, IN_PORT, Outcome, Random, exact, prefix};

/// What a field of a shape is.
#[derive(Debug, Clone, Copy)]
enum Draw {
    /// This value.
    Is(u128),
    /// Any value.
    Any,
    /// Any below this one.
    Below(u64),
    /// So many bits of it, the others wild.
    Prefix(u32),
    /// These bits of it.
    Bits(u128),
}

use Draw::{Any, Below, Bits, Is, Prefix};

const PORT: (F, Draw) = (F::InPort, Is(IN_PORT as u128));
const IPV4: (F, Draw) = (F::EthType, Is(eth_type::IPV4 as u128));
const IPV6: (F, Draw) = (F::EthType, Is(eth_type::IPV6 as u128));
const ARP: (F, Draw) = (F::EthType, Is(eth_type::ARP as u128));
const MPLS: (F, Draw) = (F::EthType, Is(eth_type::MPLS as u128));
const TCP: (F, Draw) = (F::IpProto, Is(ip_proto::TCP as u128));
const UDP: (F, Draw) = (F::IpProto, Is(ip_proto::UDP as u128));
const SCTP: (F, Draw) = (F::IpProto, Is(ip_proto::SCTP as u128));
const ICMPV4: (F, Draw) = (F::IpProto, Is(ip_proto::ICMPV4 as u128));
const ICMPV6: (F, Draw) = (F::IpProto, Is(ip_proto::ICMPV6 as u128));
const SOLICITATION: (F, Draw) = (F::Icmpv6Type, Is(135));
const ADVERTISEMENT: (F, Draw) = (F::Icmpv6Type, Is(136));
/// The three bytes of an address that say who made the device.
const MAKER: u128 = 0xffff_ff00_0000;

const SHAPES: &[&[(F, Draw)]] = &[
    &[PORT, (F::EthDst, Any)],
    &[PORT, (F::EthSrc, Bits(MAKER))],
    &[(F::EthDst, Bits(MAKER)), (F::EthSrc, Any)],
    &[PORT, (F::VlanVid, Below(4096)), (F::VlanPcp, Any)],
    &[PORT, (F::EthType, Is(eth_type::IPV4 as u128)), (F::VlanVid, Below(4096)), (F::Ipv4Dst, Prefix(24))],
    &[PORT, (F::Metadata, Bits(0xffff)), (F::EthDst, Any)],
    &[IPV4, (F::IpDscp, Any), (F::Ipv4Src, Prefix(16))],
    &[IPV4, (F::IpEcn, Any), (F::Ipv4Dst, Any)],
    &[PORT, IPV4, TCP, (F::Ipv4Src, Prefix(28)), (F::TcpDst, Any)],
    &[PORT, IPV4, TCP, (F::Ipv4Src, Any), (F::Ipv4Dst, Any), (F::TcpSrc, Any), (F::TcpDst, Any)],
    &[PORT, IPV4, UDP, (F::Ipv4Dst, Prefix(20)), (F::UdpDst, Any)],
    &[IPV4, UDP, (F::Ipv4Src, Bits(0xffff_00ff)), (F::UdpSrc, Any)],
    &[PORT, IPV4, SCTP, (F::Ipv4Dst, Prefix(24)), (F::SctpDst, Any)],
    &[IPV4, ICMPV4, (F::Ipv4Dst, Prefix(18)), (F::Icmpv4Type, Below(19)), (F::Icmpv4Code, Below(4))],
    &[PORT, ARP, (F::ArpOp, Below(3)), (F::ArpSpa, Prefix(24))],
    &[ARP, (F::ArpTpa, Any), (F::ArpSha, Any)],
    &[PORT, ARP, (F::ArpTha, Bits(MAKER)), (F::ArpSpa, Any)],
    &[PORT, IPV6, (F::Ipv6Src, Prefix(48)), (F::Ipv6Dst, Prefix(64))],
    &[PORT, IPV6, TCP, (F::Ipv6Dst, Any), (F::TcpDst, Any)],
    &[IPV6, (F::Ipv6Src, Prefix(32)), (F::Ipv6Flabel, Any)],
    &[PORT, IPV6, UDP, (F::Ipv6Dst, Prefix(56)), (F::UdpDst, Any)],
    &[IPV6, SCTP, (F::Ipv6Src, Prefix(44)), (F::SctpSrc, Any)],
    &[PORT, IPV6, ICMPV6, (F::Ipv6Dst, Prefix(40)), (F::Icmpv6Type, Below(8)), (F::Icmpv6Code, Below(8))],
    &[PORT, IPV6, ICMPV6, SOLICITATION, (F::Ipv6NdTarget, Any)],
    &[IPV6, ICMPV6, SOLICITATION, (F::Ipv6NdSll, Any)],
    &[IPV6, ICMPV6, ADVERTISEMENT, (F::Ipv6NdTll, Any)],
    &[PORT, MPLS, (F::MplsLabel, Any), (F::MplsTc, Any)],
    &[MPLS, (F::MplsLabel, Any), (F::MplsBos, Is(1))],
];

/// One flow.
pub(super) fn draw(random: &mut Random) -> (Vec<Field>, Outcome) {
    let shape = random.pick(SHAPES);
    let mut fields = Vec::new();
    for (field, draw) in shape {
        let any = random.wide() & field.ones();
        fields.push(match draw {
            Is(value) => exact(*field, *value),
            Any => exact(*field, any),
            Below(end) => {
                let value = u128::from(random.below(*end));
                let tag = if *field == F::VlanVid { VLAN_VID_PRESENT } else { 0 };
                exact(*field, value | u128::from(tag))
            }
            Prefix(bits) => prefix(*field, any, *bits),
            Bits(mask) => (*field, any & mask, *mask),
        });
    }
    // Only what names a port that is no sensor's may send.
    let may_send = fields.iter().any(|(field, _, _)| *field == F::InPort);
    let outcome = if may_send && random.below(2) == 0 { Outcome::Output } else { Outcome::Drop };
    (fields, outcome)
}

/// What the frame meets.
pub(super) fn last() -> Vec<Field> {
    vec![
        exact(F::InPort, IN_PORT.into()),
        (F::EthDst, 0x0200_0000_0000, MAKER),
        exact(F::EthType, eth_type::IPV4.into()),
        exact(F::IpDscp, 0),
        exact(F::IpProto, ip_proto::UDP.into()),
        prefix(F::Ipv4Src, u32::from_be_bytes(super::FRAME_SOURCE).into(), 20),
        prefix(F::Ipv4Dst, u32::from_be_bytes([203, 0, 113, 0]).into(), 28),
        exact(F::UdpDst, 5300),
    ]
}
