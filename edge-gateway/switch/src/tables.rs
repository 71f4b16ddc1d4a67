//! All that a controller can write: flows, groups and meters, and the ports that they name (OpenFlow 1.3.5 §5, §6.4, §6.5).
//!
//! Each change is taken wholly or refused wholly. A **journal** keeps, of what was changed since the last [`commit`](Tables::commit), how
//! it was before: it says what the helper has to be told ([`changes`](Tables::changes)) and takes all of it back
//! ([`roll_back`](Tables::roll_back)), at a cost that follows what was changed and not what there is.

mod flow_mod;
mod group_mod;
mod journal;
mod kept;
mod view;

use std::time::Duration;

use caregate_protocol::datapath::switch::{Change, FlowCounters};

use super::check::Surroundings;
use super::flow::{Flow, FlowId, Removed, RemovedReason, flags};
use super::groups::{Group, Groups};
use super::meters::{Meter, Meters};
use super::pattern::Pattern;
use super::ports::Ports;
use super::table::FlowTable;
pub use flow_mod::FlowRequest;
use journal::{Journal, Noted};

/// What followed from a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Whether anything is other than before.
    pub changed: bool,
    /// To be reported to the controller.
    pub removed: Vec<Removed>,
}

/// The tables.
#[derive(Debug)]
pub struct Tables {
    ports: Ports,
    flows: FlowTable,
    groups: Groups,
    meters: Meters,
    journal: Journal,
    next_id: u64,
    /// Counted up at each change, also at those that are taken back.
    revision: u64,
}

/// What is read of them, by the slow path too.
impl Tables {
    /// The ports.
    #[must_use]
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// The flows.
    #[must_use]
    pub fn flows(&self) -> &FlowTable {
        &self.flows
    }

    /// The groups, by number.
    #[must_use]
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// The meters, by number.
    #[must_use]
    pub fn meters(&self) -> &Meters {
        &self.meters
    }

    /// The first table that is the controller's.
    #[must_use]
    pub fn first_table(&self) -> u8 {
        self.ports.guard().first_table()
    }

    /// Another number after each change.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }
}

impl Tables {
    /// Empty tables: what misses is dropped, and of a sensor's frames what table 0 decided stands.
    #[must_use]
    pub fn new(ports: Ports) -> Self {
        Self {
            ports,
            flows: FlowTable::default(),
            groups: Groups::new(),
            meters: Meters::new(),
            journal: Journal::default(),
            next_id: 1,
            revision: 0,
        }
    }

    pub(super) fn ports_mut(&mut self) -> &mut Ports {
        &mut self.ports
    }

    pub(super) fn surroundings(&self) -> Surroundings<'_> {
        Surroundings { ports: &self.ports, groups: &self.groups, meters: &self.meters }
    }

    fn count_change(&mut self, pattern: &Pattern) {
        self.revision += 1;
        self.journal.touches_sensors |= self.ports.covers_sensors(pattern);
    }

    fn put_flow(&mut self, flow: Flow) {
        self.count_change(&flow.pattern);
        self.journal.note_flow(flow.id, || self.flows.get(flow.id).cloned());
        self.flows.put(flow);
    }

    fn take_flow(&mut self, id: FlowId) -> Option<Flow> {
        let flow = self.flows.remove(id)?;
        self.count_change(&flow.pattern);
        self.journal.note_flow(id, || Some(flow.clone()));
        Some(flow)
    }

    fn put_group(&mut self, group: Group) {
        self.revision += 1;
        let before = self.groups.insert(group.entry.id, group.clone());
        self.journal.note_group(group.entry.id, || before);
    }

    fn take_group(&mut self, id: u32) {
        self.revision += 1;
        let before = self.groups.remove(&id);
        self.journal.note_group(id, || before);
    }

    fn put_meter(&mut self, meter: Meter) {
        self.revision += 1;
        let id = meter.id;
        let before = self.meters.insert(id, meter);
        self.journal.note_meter(id, || before);
    }

    fn take_meter(&mut self, id: u32) {
        self.revision += 1;
        let before = self.meters.remove(&id);
        self.journal.note_meter(id, || before);
    }

    /// Takes flows away and says which of them are to be reported.
    fn remove_flows(&mut self, ids: Vec<(FlowId, RemovedReason)>, now: Duration) -> Outcome {
        let mut outcome = Outcome { changed: !ids.is_empty(), removed: Vec::new() };
        for (id, reason) in ids {
            let Some(flow) = self.take_flow(id) else { continue };
            if flow.flags & flags::SEND_FLOW_REM != 0 {
                let lasted = now.saturating_sub(flow.added);
                outcome.removed.push(Removed { flow, reason, lasted });
            }
        }
        outcome
    }

    /// Takes what the helper has counted, at this time.
    pub fn observe(&mut self, counted: &[FlowCounters], now: Duration) {
        self.flows.observe(counted, now);
    }

    /// Removes what has timed out. Counters have to be [`observe`](Self::observe)d just before, or a flow in use may seem idle.
    pub fn expire(&mut self, now: Duration) -> Outcome {
        self.remove_flows(self.flows.ended(now), now)
    }

    /// After other ports were taken: drops the flows that mean nothing with them. Groups stay; what they send to a port that is gone
    /// goes nowhere.
    pub fn recheck(&mut self, now: Duration) -> Outcome {
        let around = self.surroundings();
        let stands = |flow: &Flow| {
            around.ports.check_match(&flow.pattern)?;
            around.flow(flow.table, &flow.pattern, &flow.instructions)
        };
        let fallen = self.flows.iter().filter(|flow| stands(flow).is_err());
        let ids = fallen.map(|flow| (flow.id, RemovedReason::Delete)).collect();
        self.remove_flows(ids, now)
    }

    /// Whether anything was changed since the last [`commit`](Self::commit).
    #[must_use]
    pub fn is_changed(&self) -> bool {
        !self.journal.is_empty()
    }

    /// Whether what was changed decides which of the sensors' frames come through.
    #[must_use]
    pub fn touches_sensors(&self) -> bool {
        self.journal.touches_sensors
    }

    /// What has to be told to a helper that knows how it was at the last [`commit`](Self::commit), and what it was told since. What a flow
    /// names is there before it, and goes after it.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        let Journal { groups, meters, .. } = &self.journal;
        let mut changes = Vec::new();
        for (id, before) in meters {
            let meter = self.meters.get(id).filter(|meter| before.as_ref() != Some(meter));
            changes.extend(meter.map(|meter| Change::PutMeter(meter.entry())));
        }
        for (id, before) in groups {
            let group = self.groups.get(id).filter(|group| before.as_ref() != Some(group));
            changes.extend(group.map(|group| Change::PutGroup(group.entry.clone())));
        }
        changes.append(&mut self.changes_of_flows());
        let gone = groups.iter().filter(|(id, before)| before.is_some() && !self.groups.contains_key(id));
        changes.extend(gone.map(|(id, _)| Change::RemoveGroup(*id)));
        let gone = meters.iter().filter(|(id, before)| before.is_some() && !self.meters.contains_key(id));
        changes.extend(gone.map(|(id, _)| Change::RemoveMeter(*id)));
        changes
    }

    /// The flows among them: those that go, then those that come.
    fn changes_of_flows(&self) -> Vec<Change> {
        let untold = self.journal.untold();
        let (mut gone, mut put) = (Vec::new(), Vec::with_capacity(untold.len()));
        for id in untold {
            let Some(Noted { before, is_told, .. }) = self.journal.flows.get(id) else { continue };
            match self.flows.get(*id) {
                Some(flow) if *is_told || before.as_ref().is_none_or(|old| !old.acts_as(flow)) => {
                    put.push(Change::PutFlow(flow.entry()));
                }
                None if *is_told || before.is_some() => gone.push(Change::RemoveFlow(id.0)),
                Some(_) | None => {}
            }
        }
        gone.append(&mut put);
        gone
    }

    /// As many flows as the helper has yet to be told of.
    #[must_use]
    pub fn untold(&self) -> usize {
        self.journal.untold().len()
    }

    /// Says what has to be told of flows, and counts it as told.
    pub fn tell_flows(&mut self) -> Vec<Change> {
        let changes = self.changes_of_flows();
        self.journal.flows_told();
        changes
    }

    /// All there is, for a helper that knows nothing of it.
    #[must_use]
    pub fn everything(&self) -> Vec<Change> {
        let meters = self.meters.values().map(|meter| Change::PutMeter(meter.entry()));
        let groups = self.groups.values().map(|group| Change::PutGroup(group.entry.clone()));
        let flows = self.flows.iter().map(|flow| Change::PutFlow(flow.entry()));
        std::iter::once(Change::Clear).chain(meters).chain(groups).chain(flows).collect()
    }

    /// What was changed stands.
    pub fn commit(&mut self) {
        self.journal = Journal::default();
    }

    /// Takes back what was changed since the last [`commit`](Self::commit).
    pub fn roll_back(&mut self) {
        let Journal { flows, groups, meters, .. } = std::mem::take(&mut self.journal);
        self.revision += 1;
        for id in flows.keys() {
            drop(self.flows.remove(*id));
        }
        for flow in flows.into_values().filter_map(|noted| noted.before) {
            self.flows.put(*flow);
        }
        for (id, before) in groups {
            match before {
                Some(group) => drop(self.groups.insert(id, group)),
                None => drop(self.groups.remove(&id)),
            }
        }
        for (id, before) in meters {
            match before {
                Some(meter) => drop(self.meters.insert(id, meter)),
                None => drop(self.meters.remove(&id)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
