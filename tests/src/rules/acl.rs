//! Access lists in the shape of `ClassBench`'s acl seeds (Taylor and Turner, INFOCOM 2005): most rules name one destination or a small
//! network, a protocol and one destination port; sources are wildcards, networks or hosts; a few have ranges of ports. Addresses are of
//! few networks, in which there are many, so that rules overlap and nest.
//!
//! `OpenFlow` 1.3 has no masks for ports (§7.2.3.7, table 12), so a range becomes as many flows as it has ports; the two wide
//! ranges of `ClassBench` (below 1,024, and from there on) become wildcards.

use caregate_protocol::openflow::{MatchField, eth_type, ip_proto};

use super::{Field, IN_PORT, Outcome, Random, exact, prefix};

const PROTOCOLS: [(Option<u8>, u64); 4] =
    [(Some(ip_proto::TCP), 55), (Some(ip_proto::UDP), 30), (Some(ip_proto::ICMPV4), 10), (None, 5)];
/// Bits of a prefix, and percent.
const SOURCES: [(u32, u64); 6] = [(0, 35), (8, 3), (16, 10), (24, 22), (28, 5), (32, 25)];
const DESTINATIONS: [(u32, u64); 5] = [(0, 5), (16, 10), (24, 20), (28, 5), (32, 60)];
/// How a port is given.
#[derive(Debug, Clone, Copy)]
enum Ports {
    Any,
    One,
    Range,
}
const SOURCE_PORTS: [(Ports, u64); 3] = [(Ports::Any, 92), (Ports::One, 5), (Ports::Range, 3)];
const DESTINATION_PORTS: [(Ports, u64); 3] = [(Ports::Any, 25), (Ports::One, 63), (Ports::Range, 12)];
/// Ports that many rules name; the others are drawn.
const SERVICES: [u16; 16] = [20, 21, 22, 23, 25, 53, 80, 110, 123, 143, 161, 389, 443, 445, 1521, 3306];
/// Percent of ports that are of [`SERVICES`].
const SERVICE_PERCENT: u64 = 70;
/// Ports of a range, at most.
const RANGE_MAX: u64 = 6;
/// Networks of 16 bits that addresses are of, all in 10/8: how many.
const NETWORKS: u64 = 12;
/// Networks of 24 bits in each.
const SUBNETS: u64 = 24;

/// Flows of one rule.
pub(super) fn draw(random: &mut Random) -> Vec<(Vec<Field>, Outcome)> {
    let protocol = random.weighed(&PROTOCOLS);
    let mut fields =
        vec![exact(MatchField::InPort, IN_PORT.into()), exact(MatchField::EthType, eth_type::IPV4.into())];
    fields.extend(protocol.map(|protocol| exact(MatchField::IpProto, protocol.into())));
    for (field, lengths) in [(MatchField::Ipv4Src, &SOURCES[..]), (MatchField::Ipv4Dst, &DESTINATIONS[..])] {
        let bits = random.weighed(lengths);
        let address = address(random);
        if bits > 0 {
            fields.push(prefix(field, address, bits));
        }
    }
    let outcome = if random.below(2) == 0 { Outcome::Drop } else { Outcome::Output };
    let (source, destination) = match protocol {
        Some(ip_proto::TCP) => (MatchField::TcpSrc, MatchField::TcpDst),
        Some(ip_proto::UDP) => (MatchField::UdpSrc, MatchField::UdpDst),
        Some(_) | None => return vec![(fields, outcome)],
    };
    let from = ports(random, &SOURCE_PORTS);
    let to = ports(random, &DESTINATION_PORTS);
    let with = |fields: &Vec<Field>, field, port: Option<u16>| {
        let mut fields = fields.clone();
        fields.extend(port.map(|port| exact(field, port.into())));
        fields
    };
    let mut flows = Vec::new();
    for one in &from {
        let fields = with(&fields, source, *one);
        flows.extend(to.iter().map(|other| (with(&fields, destination, *other), outcome)));
    }
    flows
}

fn address(random: &mut Random) -> u128 {
    let (network, subnet) = (random.below(NETWORKS), random.below(SUBNETS));
    u128::from(10 << 24 | (network * 7 + 1) << 16 | (subnet * 9 + 2) << 8 | random.below(256))
}

/// The ports of a rule, none for all.
fn ports(random: &mut Random, kinds: &[(Ports, u64)]) -> Vec<Option<u16>> {
    let kind = random.weighed(kinds);
    let service = random.pick(&SERVICES);
    let drawn = u16::try_from(1024 + random.below(60_000)).unwrap_or(1024);
    let first = if random.below(100) < SERVICE_PERCENT { service } else { drawn };
    let count = u16::try_from(2 + random.below(RANGE_MAX - 1)).unwrap_or(2);
    match kind {
        Ports::Any => vec![None],
        Ports::One => vec![Some(first)],
        Ports::Range => (first..first + count).map(Some).collect(),
    }
}

/// What the frame meets.
pub(super) fn last() -> Vec<Field> {
    vec![
        exact(MatchField::InPort, IN_PORT.into()),
        exact(MatchField::EthType, eth_type::IPV4.into()),
        exact(MatchField::IpProto, ip_proto::UDP.into()),
        prefix(MatchField::Ipv4Src, u32::from_be_bytes(super::FRAME_SOURCE).into(), 24),
        prefix(MatchField::Ipv4Dst, u32::from_be_bytes([203, 0, 113, 9]).into(), 32),
        exact(MatchField::UdpDst, 5300),
    ]
}
