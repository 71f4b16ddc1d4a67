//! How what was changed was before; nothing where it was not there.

use std::collections::BTreeMap;

use super::super::flow::{Flow, FlowId};
use super::super::groups::Group;
use super::super::meters::Meter;

/// As large as what was touched: at most all that there was and all that came since.
#[derive(Debug, Default)]
pub(super) struct Journal {
    pub(super) flows: BTreeMap<FlowId, Option<Box<Flow>>>,
    pub(super) groups: BTreeMap<u32, Option<Group>>,
    pub(super) meters: BTreeMap<u32, Option<Meter>>,
}

impl Journal {
    pub(super) fn is_empty(&self) -> bool {
        self.flows.is_empty() && self.groups.is_empty() && self.meters.is_empty()
    }

    pub(super) fn note_flow(&mut self, id: FlowId, before: impl FnOnce() -> Option<Flow>) {
        self.flows.entry(id).or_insert_with(|| before().map(Box::new));
    }

    pub(super) fn note_group(&mut self, id: u32, before: impl FnOnce() -> Option<Group>) {
        self.groups.entry(id).or_insert_with(before);
    }

    pub(super) fn note_meter(&mut self, id: u32, before: impl FnOnce() -> Option<Meter>) {
        self.meters.entry(id).or_insert_with(before);
    }
}
