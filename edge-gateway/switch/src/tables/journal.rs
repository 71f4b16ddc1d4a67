//! How what was changed was before, nothing where it was not there; and of which flows the helper has yet to be told.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::super::flow::{Flow, FlowId};
use super::super::groups::Group;
use super::super::meters::Meter;

/// A flow that was changed.
#[derive(Debug)]
pub(super) struct Noted {
    pub(super) before: Option<Box<Flow>>,
    /// The helper has been told something of it since.
    pub(super) is_told: bool,
    /// It is among those that the helper has yet to be told of.
    waits: bool,
}

/// As large as what was touched: at most all that there was and all that came since.
#[derive(Debug, Default)]
pub(super) struct Journal {
    pub(super) flows: FxHashMap<FlowId, Noted>,
    /// Those that wait, each once.
    untold: Vec<FlowId>,
    /// Any of the flows decides over sensors' frames.
    pub(super) touches_sensors: bool,
    pub(super) groups: BTreeMap<u32, Option<Group>>,
    pub(super) meters: BTreeMap<u32, Option<Meter>>,
}

impl Journal {
    pub(super) fn is_empty(&self) -> bool {
        self.flows.is_empty() && self.groups.is_empty() && self.meters.is_empty()
    }

    pub(super) fn note_flow(&mut self, id: FlowId, before: impl FnOnce() -> Option<Flow>) {
        let noted = self.flows.entry(id).or_insert_with(|| Noted {
            before: before().map(Box::new),
            is_told: false,
            waits: false,
        });
        if !std::mem::replace(&mut noted.waits, true) {
            self.untold.push(id);
        }
    }

    /// The flows that wait, in the order in which they were changed first.
    pub(super) fn untold(&self) -> &[FlowId] {
        &self.untold
    }

    /// The helper knows of all flows that waited.
    pub(super) fn flows_told(&mut self) {
        for id in self.untold.drain(..) {
            if let Some(noted) = self.flows.get_mut(&id) {
                (noted.is_told, noted.waits) = (true, false);
            }
        }
    }

    pub(super) fn note_group(&mut self, id: u32, before: impl FnOnce() -> Option<Group>) {
        self.groups.entry(id).or_insert_with(before);
    }

    pub(super) fn note_meter(&mut self, id: u32, before: impl FnOnce() -> Option<Meter>) {
        self.meters.entry(id).or_insert_with(before);
    }
}
