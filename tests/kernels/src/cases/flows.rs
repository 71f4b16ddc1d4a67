//! Flows, groups and meters that the frames meet. Table 1 is the first one of a controller's; a sensor port's frames meet it too.

use caregate_ebpf_common::switch::place;
use caregate_protocol::datapath::switch::{
    BandKind, Change, FlowAction, FlowEntry, FlowInstructions, GroupBucket, GroupEntry, GroupKind,
    MATCH_BYTES, MeterBand, MeterEntry,
};

use super::{PORT_SWITCH, PORT_UPLINK};
use crate::frames::{BROADCAST, OWN, SENSOR};

/// OXM fields (OpenFlow 1.3.5, table 12).
const IN_PORT: u8 = 0;
const ETH_DST: u8 = 3;
const ETH_SRC: u8 = 4;
const ETH_TYPE: u8 = 5;
const VLAN_VID: u8 = 6;
const IP_PROTO: u8 = 10;
const IPV4_DST: u8 = 12;
const UDP_DST: u8 = 16;

const OFPP_LOCAL: u32 = 0xffff_fffe;
const OFPP_IN_PORT: u32 = 0xffff_fff8;
const NONE: u32 = u32::MAX;
/// No port has it.
const PORT_DEAD: u32 = 9;
const GROUP: u32 = 1;
const METER: u32 = 1;
pub(super) const VLAN: u16 = 42;

/// What the flows of a switch port tell apart: the UDP port that a datagram is for.
pub(super) mod to {
    pub(in crate::cases) const FORWARDED: u16 = 1;
    pub(in crate::cases) const TAGGED: u16 = 2;
    pub(in crate::cases) const SECOND_TABLE: u16 = 3;
    pub(in crate::cases) const COPIED: u16 = 4;
    pub(in crate::cases) const FAILOVER: u16 = 5;
    pub(in crate::cases) const METERED: u16 = 6;
    pub(in crate::cases) const DROPPED: u16 = 7;
    pub(in crate::cases) const ACTION_SET: u16 = 8;
    pub(in crate::cases) const UNKNOWN: u16 = 99;
}

fn flow(id: u64, table: u8, fields: &[(u8, u128)], instructions: FlowInstructions) -> Change {
    let (mut value, mut mask) = ([0; MATCH_BYTES], [0; MATCH_BYTES]);
    for (oxm, wanted) in fields {
        let Some(place) = place(*oxm) else { continue };
        let all = u128::MAX >> (128 - place.bits);
        for (bytes, whole) in [(&mut value, wanted & all), (&mut mask, all)] {
            let shifted = (whole << place.shift).to_be_bytes();
            let used = shifted.iter().skip(shifted.len() - place.bytes);
            bytes.iter_mut().skip(place.byte).zip(used).for_each(|(byte, bits)| *byte |= bits);
        }
    }
    Change::PutFlow(FlowEntry { id, table, priority: 1, value, mask, instructions: instructions.into() })
}

fn apply(actions: &[FlowAction]) -> FlowInstructions {
    FlowInstructions { apply: actions.to_vec(), ..FlowInstructions::default() }
}

const fn output(port: u32) -> FlowAction {
    FlowAction::Output { port, max_len: 0xffff }
}

const fn set(field: u8, value: u128) -> FlowAction {
    FlowAction::SetField { field, value }
}

fn mac(address: [u8; 6]) -> u128 {
    address.iter().fold(0, |word, byte| word << 8 | u128::from(*byte))
}

/// On the switch port, to this UDP port.
fn datagram(id: u64, table: u8, port: u16, instructions: FlowInstructions) -> Change {
    let fields = [(IN_PORT, PORT_SWITCH.into()), (ETH_TYPE, 0x800), (IP_PROTO, 17), (UDP_DST, port.into())];
    flow(id, table, &fields, instructions)
}

/// The first bucket's port is dead; the second changes where the frame goes.
fn failover() -> GroupEntry {
    let bucket = |port, actions: &[FlowAction]| GroupBucket {
        weight: 0,
        watch_port: port,
        watch_group: NONE,
        actions: actions.to_vec(),
    };
    let buckets = vec![
        bucket(PORT_DEAD, &[output(PORT_UPLINK)]),
        bucket(PORT_UPLINK, &[set(ETH_DST, mac(BROADCAST)), output(PORT_UPLINK)]),
    ];
    GroupEntry { id: GROUP, kind: GroupKind::FastFailover, buckets }
}

/// All of it.
pub(crate) fn all() -> Vec<Change> {
    let drop = FlowInstructions::default;
    // Two frames at once are the least; a third within a second is above it.
    let band = MeterBand { kind: BandKind::Drop, rate: 1, burst: 2 };
    let tagged =
        [FlowAction::PushVlan(0x8100), set(VLAN_VID, u128::from(0x1000 | VLAN)), output(PORT_UPLINK)];
    vec![
        Change::PutGroup(failover()),
        Change::PutMeter(MeterEntry { id: METER, counts_packets: true, bands: vec![band] }),
        // A bound sensor's IPv6, and what the gateway itself sends by UDP, go nowhere.
        flow(1, 1, &[(ETH_SRC, mac(SENSOR)), (ETH_TYPE, 0x86dd)], drop()),
        flow(2, 1, &[(IN_PORT, OFPP_LOCAL.into()), (ETH_TYPE, 0x800), (IP_PROTO, 17)], drop()),
        datagram(11, 1, to::FORWARDED, apply(&[output(PORT_UPLINK)])),
        datagram(12, 1, to::TAGGED, apply(&tagged)),
        datagram(13, 1, to::SECOND_TABLE, FlowInstructions { goto: Some(2), ..drop() }),
        datagram(14, 2, to::SECOND_TABLE, apply(&[set(IPV4_DST, OWN.to_bits().into()), output(PORT_UPLINK)])),
        datagram(15, 1, to::COPIED, apply(&[output(PORT_UPLINK), output(OFPP_IN_PORT)])),
        datagram(16, 1, to::FAILOVER, apply(&[FlowAction::Group(GROUP)])),
        datagram(
            17,
            1,
            to::METERED,
            FlowInstructions { meter: Some(METER), ..apply(&[output(PORT_UPLINK)]) },
        ),
        datagram(18, 1, to::DROPPED, drop()),
        datagram(19, 1, to::ACTION_SET, FlowInstructions { write: vec![output(OFPP_IN_PORT)], ..drop() }),
        flow(20, 1, &[(IN_PORT, PORT_SWITCH.into()), (ETH_TYPE, 0x806)], apply(&[output(OFPP_LOCAL)])),
    ]
}
