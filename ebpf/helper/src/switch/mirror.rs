//! The flows, groups and meters that the daemon has asked for, by id. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use caregate_ebpf_common::switch::{KEY_BYTES, KEY_WORDS, Key};
use caregate_protocol::datapath::switch::{
    Change, FlowAction, FlowEntry, FlowInstructions, GroupEntry, MATCH_BYTES, MeterEntry, TABLES,
};

use rustc_hash::FxHashMap;

use super::check::{self, ChangeError, Guard, Subject};
use super::chunks::Pattern;

const _: () = assert!(MATCH_BYTES == KEY_BYTES);

/// How flows of one table come before one another: by priority, and of those that are equal, which OpenFlow leaves open, the
/// older first.
type Order = (u8, Reverse<u16>, u64);

/// A flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// As the daemon has it.
    pub entry: FlowEntry,
    /// Its match in words.
    pub pattern: Pattern,
}

/// All of them. Clones share what they have in common.
#[derive(Debug, Clone, Default)]
pub struct Mirror {
    /// Of the daemon; with another one no id means what it meant.
    session: u64,
    flows: BTreeMap<Order, Arc<Flow>>,
    orders: FxHashMap<u64, Order>,
    /// Flows that name groups or a meter.
    referring: BTreeSet<Order>,
    groups: BTreeMap<u32, Arc<GroupEntry>>,
    meters: BTreeMap<u32, Arc<MeterEntry>>,
    /// Put since this was last put in force; their buckets become full.
    refilled: BTreeSet<u32>,
}

/// Key, value or mask in words.
#[must_use]
pub fn words(bytes: &[u8; KEY_BYTES]) -> Key {
    let mut words = [0; KEY_WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_be_bytes(*bytes);
    }
    words
}

impl Mirror {
    /// The same for changes of a daemon; nothing where it is another one.
    #[must_use]
    pub fn of_session(&self, session: u64) -> Self {
        if self.session == session { self.clone() } else { Self { session, ..Self::default() } }
    }

    /// The daemon's.
    #[must_use]
    pub fn session(&self) -> u64 {
        self.session
    }

    /// Flows, groups and meters.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.flows.len(), self.groups.len(), self.meters.len())
    }

    /// The flows of a table, in the order in which a frame meets them.
    pub fn table(&self, number: u8) -> impl Iterator<Item = &Arc<Flow>> {
        let first = (number, Reverse(u16::MAX), 0);
        self.flows.range(first..=(number, Reverse(0), u64::MAX)).map(|(_, flow)| flow)
    }

    /// All flows.
    pub fn flows(&self) -> impl Iterator<Item = &Arc<Flow>> {
        self.flows.values()
    }

    /// All groups, by number.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<GroupEntry>> {
        self.groups.values()
    }

    /// A group.
    #[must_use]
    pub fn group(&self, id: u32) -> Option<&Arc<GroupEntry>> {
        self.groups.get(&id)
    }

    /// All meters, by number.
    pub fn meters(&self) -> impl Iterator<Item = &Arc<MeterEntry>> {
        self.meters.values()
    }

    /// The meters whose buckets become full.
    pub fn refilled(&self) -> impl Iterator<Item = u32> {
        self.refilled.iter().copied()
    }

    /// To be called when this was put in force.
    pub fn is_in_force(&mut self) {
        self.refilled.clear();
    }

    /// Does one change. What a flow or group names is looked for in [`check_references`](Self::check_references), once all changes
    /// of a series are there.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn apply(&mut self, change: Change, guard: &Guard) -> Result<(), ChangeError> {
        match change {
            Change::Clear => *self = Self { session: self.session, ..Self::default() },
            Change::PutFlow(flow) => self.put_flow(flow, guard)?,
            Change::RemoveFlow(id) => {
                if let Some(order) = self.orders.remove(&id) {
                    self.flows.remove(&order);
                    self.referring.remove(&order);
                }
            }
            Change::PutGroup(group) => {
                check::group(&group, guard)?;
                self.groups.insert(group.id, Arc::new(group));
            }
            Change::RemoveGroup(id) => drop(self.groups.remove(&id)),
            Change::PutMeter(meter) => {
                self.refilled.insert(meter.id);
                self.meters.insert(meter.id, Arc::new(meter));
            }
            Change::RemoveMeter(id) => drop(self.meters.remove(&id)),
        }
        Ok(())
    }

    fn put_flow(&mut self, flow: FlowEntry, guard: &Guard) -> Result<(), ChangeError> {
        check::flow(&flow, guard)?;
        let order = (flow.table, Reverse(flow.priority), flow.id);
        let pattern = Pattern { value: words(&flow.value), mask: words(&flow.mask) };
        let is_other = |old: &Arc<Flow>| old.pattern != pattern;
        match self.orders.insert(flow.id, order) {
            Some(old) if old != order || self.flows.get(&old).is_some_and(is_other) => {
                Err(ChangeError::Match(flow.id))
            }
            Some(_) | None => {
                if refers(&flow.instructions) {
                    self.referring.insert(order);
                } else {
                    self.referring.remove(&order);
                }
                self.flows.insert(order, Arc::new(Flow { entry: flow, pattern }));
                Ok(())
            }
        }
    }

    /// Whether all groups and meters that are named are there, no group leads to itself, no meter remarks sensors' frames, and there
    /// are no more than allowed.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn check_references(&self, guard: &Guard) -> Result<(), ChangeError> {
        check::counts(self.flows.len(), self.groups.len(), self.meters.len())?;
        for flow in self.referring.iter().filter_map(|order| self.flows.get(order)) {
            let (subject, instructions) = (Subject::Flow(flow.entry.id), &flow.entry.instructions);
            self.check_groups(subject, instructions.apply.iter().chain(&instructions.write))?;
            if let Some(id) = instructions.meter {
                let meter = self.meters.get(&id).ok_or(ChangeError::NoMeter(subject, id))?;
                guard.check_meter(&flow.entry, meter)?;
            }
        }
        for group in self.groups.values() {
            let actions = group.buckets.iter().flat_map(|bucket| &bucket.actions);
            self.check_groups(Subject::Group(group.id), actions)?;
        }
        self.check_circles()
    }

    fn check_groups<'a>(
        &self,
        subject: Subject,
        actions: impl Iterator<Item = &'a FlowAction>,
    ) -> Result<(), ChangeError> {
        for action in actions {
            if let FlowAction::Group(id) = action
                && !self.groups.contains_key(id)
            {
                return Err(ChangeError::NoGroup(subject, *id));
            }
        }
        Ok(())
    }

    /// Takes away, again and again, the groups that lead to none that is left; those that stay lead to one another.
    fn check_circles(&self) -> Result<(), ChangeError> {
        let mut left: BTreeSet<u32> = self.groups.keys().copied().collect();
        loop {
            let ends: Vec<u32> = left.iter().copied().filter(|id| !self.leads_into(*id, &left)).collect();
            if ends.is_empty() {
                return left.first().map_or(Ok(()), |id| Err(ChangeError::Circle(*id)));
            }
            for id in ends {
                left.remove(&id);
            }
        }
    }

    fn leads_into(&self, id: u32, left: &BTreeSet<u32>) -> bool {
        let buckets = self.groups.get(&id).map(|group| group.buckets.as_slice()).unwrap_or_default();
        buckets.iter().any(|bucket| {
            let leads =
                |action: &FlowAction| matches!(action, FlowAction::Group(other) if left.contains(other));
            bucket.actions.iter().any(leads) || left.contains(&bucket.watch_group)
        })
    }
}

fn refers(instructions: &FlowInstructions) -> bool {
    let mut actions = instructions.apply.iter().chain(&instructions.write);
    instructions.meter.is_some() || actions.any(|action| matches!(action, FlowAction::Group(_)))
}

/// Numbers of all tables.
pub(super) fn tables() -> std::ops::Range<u8> {
    0..TABLES
}
