use std::sync::Arc;

use caregate_ebpf_common::switch::KEY_BYTES;
use caregate_protocol::datapath::switch::{Change, FlowInstructions, GroupBucket, MeterBand};

use super::*;

const GUARD: Guard = Guard { sensor_ports: 2, is_on: true };

fn entry(in_port: Option<u32>, apply: &[FlowAction]) -> FlowEntry {
    let (mut value, mut mask) = ([0; KEY_BYTES], [0; KEY_BYTES]);
    if let Some(port) = in_port {
        value[..4].copy_from_slice(&port.to_be_bytes());
        mask[..4].fill(0xff);
    }
    let instructions = FlowInstructions { apply: apply.to_vec(), ..FlowInstructions::default() };
    FlowEntry { id: 5, table: 1, priority: 1, value, mask, instructions: instructions.into() }
}

fn output(port: u32) -> FlowAction {
    FlowAction::Output { port, max_len: 0 }
}

#[test]
fn what_sensors_frames_can_meet_only_narrows() {
    let wide = [output(3), output(port::NORMAL), output(port::CONTROLLER), output(port::FLOOD)];
    let changes = [FlowAction::Group(1), FlowAction::DecNwTtl, FlowAction::SetQueue(1), FlowAction::PopVlan];
    let set = FlowAction::SetField { field: 10, value: 6 };
    for action in wide.into_iter().chain(changes).chain([set]) {
        for in_port in [None, Some(1), Some(2)] {
            for actions in [vec![action], vec![output(port::LOCAL), action]] {
                let mut apply = entry(in_port, &actions);
                assert_eq!(flow(&apply, &GUARD), Err(ChangeError::Widens(5)), "{action:?}");
                let instructions = Arc::make_mut(&mut apply.instructions);
                instructions.write = std::mem::take(&mut instructions.apply);
                assert_eq!(flow(&apply, &GUARD), Err(ChangeError::Widens(5)), "{action:?} written");
            }
        }
        // Of other ports, and of the gateway itself, they are the controller's.
        assert_eq!(flow(&entry(Some(3), &[action]), &GUARD), Ok(()));
        assert_eq!(flow(&entry(Some(port::LOCAL), &[action]), &GUARD), Ok(()));
        let off = Guard { is_on: false, ..GUARD };
        assert_eq!(flow(&entry(None, &[action]), &off), Ok(()));
        assert_eq!(flow(&entry(None, &[action]), &Guard { sensor_ports: 0, is_on: true }), Ok(()));
    }
    let mut nearly = entry(Some(3), &[output(3)]);
    nearly.mask[3] = 0xfe;
    nearly.value[3] = 2;
    assert_eq!(flow(&nearly, &GUARD), Err(ChangeError::Widens(5)), "not exactly one port");
    for actions in [vec![], vec![output(port::LOCAL)]] {
        let mut narrows = entry(None, &actions);
        Arc::make_mut(&mut narrows.instructions).meter = Some(1);
        Arc::make_mut(&mut narrows.instructions).goto = Some(2);
        assert_eq!(flow(&narrows, &GUARD), Ok(()));
    }
}

#[test]
fn no_meter_remarks_what_sensors_send() {
    let band = |kind| MeterBand { kind, rate: 1, burst: 0 };
    let meter =
        |kind| MeterEntry { id: 3, counts_packets: true, bands: vec![band(BandKind::Drop), band(kind)] };
    let (drops, remarks) = (meter(BandKind::Drop), meter(BandKind::DscpRemark(1)));
    for in_port in [None, Some(1)] {
        assert_eq!(GUARD.check_meter(&entry(in_port, &[]), &drops), Ok(()));
        assert_eq!(GUARD.check_meter(&entry(in_port, &[]), &remarks), Err(ChangeError::Widens(5)));
    }
    assert_eq!(GUARD.check_meter(&entry(Some(3), &[]), &remarks), Ok(()));
    // Whichever of the two comes first.
    let mut mirror = super::super::mirror::Mirror::default();
    let mut flow = entry(None, &[]);
    Arc::make_mut(&mut flow.instructions).meter = Some(3);
    for change in [Change::PutMeter(drops), Change::PutFlow(flow)] {
        mirror.apply(change, &GUARD).unwrap();
    }
    assert_eq!(mirror.check_references(&GUARD), Ok(()));
    mirror.apply(Change::PutMeter(remarks), &GUARD).unwrap();
    assert_eq!(mirror.check_references(&GUARD), Err(ChangeError::Widens(5)));
}

#[test]
fn nobody_sends_to_sensors_and_table_0_is_the_policys() {
    assert_eq!(
        flow(&entry(Some(3), &[output(2)]), &GUARD),
        Err(ChangeError::SensorPort(Subject::Flow(5), 2))
    );
    let bucket =
        GroupBucket { weight: 1, watch_port: port::ANY, watch_group: port::ANY, actions: vec![output(1)] };
    let of = |kind, buckets| GroupEntry { id: 8, kind, buckets };
    let refused = group(&of(GroupKind::All, vec![bucket.clone()]), &GUARD);
    assert_eq!(refused, Err(ChangeError::SensorPort(Subject::Group(8), 1)));
    let to_switch = GroupBucket { actions: vec![output(3)], ..bucket };
    assert_eq!(group(&of(GroupKind::Indirect, vec![to_switch.clone()]), &GUARD), Ok(()));
    assert_eq!(group(&of(GroupKind::Indirect, vec![to_switch; 2]), &GUARD), Err(ChangeError::Buckets(8)));
    let first = FlowEntry { table: 0, ..entry(Some(3), &[]) };
    assert_eq!(flow(&first, &GUARD), Err(ChangeError::Policy(5)));
    assert_eq!(flow(&first, &Guard { is_on: false, ..GUARD }), Ok(()));
}

#[test]
fn what_means_nothing_is_refused() {
    let refused = |action| flow(&entry(Some(3), &[action]), &GUARD);
    let nothing = [
        FlowAction::SetField { field: 0, value: 1 },
        FlowAction::SetField { field: 200, value: 1 },
        FlowAction::PushVlan(0x0800),
        FlowAction::PushMpls(0x8100),
        FlowAction::SetQueue(QUEUES),
    ];
    for action in nothing {
        assert_eq!(refused(action), Err(ChangeError::Action(Subject::Flow(5), action)));
    }
    let mut wrong = entry(Some(3), &[]);
    wrong.value[9] = 1;
    assert_eq!(flow(&wrong, &GUARD), Err(ChangeError::Value(5)));
    for (table, goto) in [(8, None), (1, Some(1)), (1, Some(0)), (1, Some(8)), (7, Some(8))] {
        let mut wrong = FlowEntry { table, ..entry(Some(3), &[]) };
        Arc::make_mut(&mut wrong.instructions).goto = goto;
        assert_eq!(flow(&wrong, &GUARD), Err(ChangeError::Table(5)));
    }
}
