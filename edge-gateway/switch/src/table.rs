//! The flows of all tables (OpenFlow 1.3.5 §5), found by what they are asked for: by id, by match and priority, in the order in
//! which a frame meets them, and by when they end.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use caregate_protocol::datapath::switch::{FLOWS_MAX, FlowAction, FlowCounters};
pub use caregate_protocol::openflow::{NO_BUFFER, TABLE_ALL};
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::flow::{Flow, FlowId, RemovedReason};
use super::pattern::Pattern;
use super::port;
use super::quarantine;

/// The table that verified policy alone fills.
pub const TABLE_POLICY: u8 = 0;

/// What a delete, a modify or a request for statistics names (§7.3.4.1, §7.3.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// [`TABLE_ALL`] for all.
    pub table: u8,
    /// Flows that are part of this.
    pub pattern: Pattern,
    /// Only flows with exactly this pattern, and this priority.
    pub strict: Option<u16>,
    /// Value and mask.
    pub cookie: (u64, u64),
    /// [`port::ANY`] for all.
    pub out_port: u32,
    /// [`port::ANY`], which is `OFPG_ANY` too, for all.
    pub out_group: u32,
}

impl Filter {
    /// Whether the filter means this flow.
    #[must_use]
    pub fn selects(&self, flow: &Flow) -> bool {
        let (cookie, mask) = self.cookie;
        (flow.cookie ^ cookie) & mask == 0
            && match self.strict {
                Some(priority) => flow.priority == priority && *flow.pattern == self.pattern,
                None => flow.pattern.is_part_of(&self.pattern),
            }
            && (self.out_port == port::ANY || outputs_to(flow, self.out_port))
            && (self.out_group == port::ANY || uses_group(flow, self.out_group))
    }
}

fn outputs_to(flow: &Flow, number: u32) -> bool {
    flow.actions().any(|action| matches!(action, FlowAction::Output { port, .. } if *port == number))
}

/// Whether one of its actions is this group.
pub(super) fn uses_group(flow: &Flow, group: u32) -> bool {
    flow.actions().any(|action| *action == FlowAction::Group(group))
}

/// Where a flow stands: by table, by falling priority, among equals the older first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    table: u8,
    priority: Reverse<u16>,
    id: FlowId,
}

impl Rank {
    fn of(flow: &Flow) -> Self {
        Self { table: flow.table, priority: Reverse(flow.priority), id: flow.id }
    }
}

/// What no two flows have in common (§6.4).
type Identity = (u8, u16, Arc<Pattern>);

/// The flows. Their hash can be foreseen: who chooses flows that collide slows down nobody but its own flow-mods, of which
/// [`FLOWS_MAX`] can.
#[derive(Debug)]
pub struct FlowTable {
    flows: FxHashMap<FlowId, Flow>,
    /// Of each flow its rank: the order in which frames meet them.
    order: BTreeSet<Rank>,
    /// Of each flow its id.
    identities: FxHashMap<Identity, FlowId>,
    /// Of each flow that ends of itself, when.
    deadlines: BTreeSet<(Duration, FlowId)>,
    /// Of each flow that shuts an address out, or lets it in, its rank.
    sources: BTreeSet<Rank>,
    /// Flows with an idle timeout.
    idle: usize,
}

impl Default for FlowTable {
    /// None, and room for all that there can be: tables that grow while a controller fills them are hashed anew at each doubling.
    fn default() -> Self {
        Self {
            flows: FxHashMap::with_capacity_and_hasher(FLOWS_MAX, FxBuildHasher),
            order: BTreeSet::new(),
            identities: FxHashMap::with_capacity_and_hasher(FLOWS_MAX, FxBuildHasher),
            deadlines: BTreeSet::new(),
            sources: BTreeSet::new(),
            idle: 0,
        }
    }
}

impl FlowTable {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Whether any of them ends when it is not used.
    #[must_use]
    pub fn has_idle(&self) -> bool {
        self.idle > 0
    }

    /// All flows: table by table, in the order in which a frame meets them.
    pub fn iter(&self) -> impl Iterator<Item = &Flow> {
        self.order.iter().filter_map(|rank| self.flows.get(&rank.id))
    }

    /// The flows of one table, in the order in which a frame meets them.
    pub fn of_table(&self, table: u8) -> impl Iterator<Item = &Flow> {
        let first = Rank { table, priority: Reverse(u16::MAX), id: FlowId(0) };
        let last = Rank { table, priority: Reverse(0), id: FlowId(u64::MAX) };
        self.between(first, last)
    }

    fn between(&self, first: Rank, last: Rank) -> impl Iterator<Item = &Flow> {
        self.order.range(first..=last).filter_map(|rank| self.flows.get(&rank.id))
    }

    /// Those of all tables that are about all frames from one address, in the order in which a frame meets them.
    pub(super) fn of_sources(&self) -> impl Iterator<Item = &Flow> {
        self.sources.iter().filter_map(|rank| self.flows.get(&rank.id))
    }

    /// The flows of one table and priority.
    pub(super) fn peers(&self, table: u8, priority: u16) -> impl Iterator<Item = &Flow> {
        let priority = Reverse(priority);
        let first = Rank { table, priority, id: FlowId(0) };
        let last = Rank { table, priority, id: FlowId(u64::MAX) };
        self.between(first, last)
    }

    /// The flow of this id.
    #[must_use]
    pub fn get(&self, id: FlowId) -> Option<&Flow> {
        self.flows.get(&id)
    }

    /// The flow of this table and priority with exactly this pattern.
    #[must_use]
    pub(super) fn find(&self, table: u8, priority: u16, pattern: &Arc<Pattern>) -> Option<&Flow> {
        self.get(*self.identities.get(&(table, priority, Arc::clone(pattern)))?)
    }

    /// The flows that a filter means, by their order.
    pub fn select(&self, filter: &Filter) -> Vec<&Flow> {
        if let Some(priority) = filter.strict
            && filter.table != TABLE_ALL
        {
            let found = self.find(filter.table, priority, &Arc::new(filter.pattern));
            return found.filter(|flow| filter.selects(flow)).into_iter().collect();
        }
        if filter.table == TABLE_ALL {
            self.iter().filter(|flow| filter.selects(flow)).collect()
        } else {
            self.of_table(filter.table).filter(|flow| filter.selects(flow)).collect()
        }
    }

    /// Takes a flow, in place of the one with its id.
    pub(super) fn put(&mut self, flow: Flow) {
        drop(self.remove(flow.id));
        self.order.insert(Rank::of(&flow));
        if quarantine::source(&flow.pattern).is_some() {
            self.sources.insert(Rank::of(&flow));
        }
        self.identities.insert((flow.table, flow.priority, Arc::clone(&flow.pattern)), flow.id);
        self.await_end(&flow);
        self.idle += usize::from(flow.idle_timeout_s > 0);
        self.flows.insert(flow.id, flow);
    }

    pub(super) fn remove(&mut self, id: FlowId) -> Option<Flow> {
        let flow = self.flows.remove(&id)?;
        self.order.remove(&Rank::of(&flow));
        self.sources.remove(&Rank::of(&flow));
        self.identities.remove(&(flow.table, flow.priority, Arc::clone(&flow.pattern)));
        self.forget_end(&flow);
        self.idle -= usize::from(flow.idle_timeout_s > 0);
        Some(flow)
    }

    fn await_end(&mut self, flow: &Flow) {
        if let Some((due, _)) = flow.expiry() {
            self.deadlines.insert((due, flow.id));
        }
    }

    fn forget_end(&mut self, flow: &Flow) {
        if let Some((due, _)) = flow.expiry() {
            self.deadlines.remove(&(due, flow.id));
        }
    }

    /// Takes what the helper has counted for flows since they have their ids, and the time at which it did.
    /// An id that is gone means nothing.
    pub fn observe(&mut self, counted: &[FlowCounters], now: Duration) {
        for FlowCounters { id, traffic } in counted {
            let Some(flow) = self.flows.get_mut(&FlowId(*id)) else { continue };
            let traffic = (*traffic).into();
            if flow.seen == traffic {
                continue;
            }
            let before = flow.expiry();
            (flow.seen, flow.used) = (traffic, now);
            let after = flow.expiry();
            if before != after {
                let ends = |of: Option<(Duration, RemovedReason)>| of.map(|(due, _)| (due, FlowId(*id)));
                if let Some(before) = ends(before) {
                    self.deadlines.remove(&before);
                }
                self.deadlines.extend(ends(after));
            }
        }
    }

    /// When a flow ends next, if nothing more matches.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        self.deadlines.first().map(|(due, _)| *due)
    }

    /// The flows that have ended by now.
    pub(super) fn ended(&self, now: Duration) -> Vec<(FlowId, RemovedReason)> {
        let ids = self.deadlines.iter().take_while(|(due, _)| *due <= now).map(|(_, id)| *id);
        ids.filter_map(|id| Some((id, self.get(id)?.expiry()?.1))).collect()
    }
}
