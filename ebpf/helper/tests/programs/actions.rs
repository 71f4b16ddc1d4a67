//! Each action by itself, on a frame of each kind, in the running kernel and in a plain pipeline: the same fate, and the same bytes. Needs root.

use caregate_protocol::datapath::switch::{FlowAction, FlowInstructions};

use crate::switch_rig::frames::all;
use crate::switch_rig::reference::{self, Rule};
use crate::switch_rig::{Fate, Rig, apply, flow, output, set};

/// Those of OpenFlow 1.3.5 §5.12 that change a frame or how it goes; where it goes is looked at elsewhere.
const ACTIONS: [FlowAction; 16] = [
    FlowAction::PushVlan(0x8100),
    FlowAction::PushVlan(0x88a8),
    FlowAction::PopVlan,
    FlowAction::PushMpls(0x8847),
    FlowAction::PushMpls(0x8848),
    FlowAction::PopMpls(0x0800),
    FlowAction::PopMpls(0x86dd),
    FlowAction::PopMpls(0x8847),
    FlowAction::CopyTtlOut,
    FlowAction::CopyTtlIn,
    FlowAction::SetMplsTtl(9),
    FlowAction::DecMplsTtl,
    FlowAction::SetNwTtl(9),
    FlowAction::DecNwTtl,
    FlowAction::SetQueue(3),
    FlowAction::SetField { field: 4, value: 0x0a0b_0c0d_0e0f },
];

/// One of each kind, and those with a label once more with another TTL than what is behind it has.
fn frames() -> Vec<Vec<u8>> {
    let mut frames = all();
    let labelled: Vec<_> = frames.iter().filter(|frame| frame[12..14] == [0x88, 0x47]).cloned().collect();
    frames.extend(labelled.into_iter().map(|mut frame| {
        frame[17] = 9;
        frame
    }));
    frames
}

/// Sends a frame of each kind through one flow; how many became another frame, or went another way, than the plain output's.
fn differ(rig: &mut Rig, instructions: &FlowInstructions) -> usize {
    rig.flows(vec![flow(1, 0, 1, &[], instructions.clone())]);
    let frames = frames();
    let judge = |frame: &Vec<u8>| {
        let rule = Rule { table: 0, priority: 1, fields: vec![], instructions: instructions.clone() };
        let wanted = reference::run(&[rule], frame);
        assert_eq!(rig.send(frame), wanted, "{instructions:?} on {frame:x?}");
        wanted != Fate::Sent(frame.clone())
    };
    frames.iter().map(judge).filter(|differs| *differs).count()
}

#[test]
fn every_action_does_to_every_frame_what_a_plain_pipeline_does() {
    let mut rig = Rig::new();
    for action in ACTIONS {
        let applied = differ(&mut rig, &apply(&[action, output(2)]));
        assert!(applied > 0, "{action:?} did nothing to any frame");
        let written = FlowInstructions { write: vec![output(2), action], ..FlowInstructions::default() };
        assert_eq!(differ(&mut rig, &written), applied, "{action:?} in the action set");
    }
    assert_eq!(differ(&mut rig, &apply(&[output(2)])), 0);
    assert_eq!(differ(&mut rig, &FlowInstructions::default()), frames().len(), "a drop");
}

/// Two of a kind in a list are both done, in a set the last one.
#[test]
fn a_list_does_all_and_a_set_one_of_each_kind() {
    let mut rig = Rig::new();
    let twice = [FlowAction::PushVlan(0x8100), FlowAction::PushVlan(0x88a8), set(6, 0x1007), output(2)];
    assert_eq!(differ(&mut rig, &apply(&twice)), frames().len());
    let written = FlowInstructions { write: twice.to_vec(), ..FlowInstructions::default() };
    assert_eq!(differ(&mut rig, &written), frames().len());
    let frame = frames().remove(0);
    let Fate::Sent(bytes) = rig.send(&frame) else { panic!("not sent") };
    assert_eq!((bytes.len(), &bytes[12..16]), (frame.len() + 4, &[0x88, 0xa8, 0, 7][..]));
}
