//! Table 1 (OpenFlow 1.3.5 §5, §6.4): at most [`FLOWS_MAX`] flows in order of priority, changed by flow-mods, each of
//! them taken wholly or refused wholly.

use std::time::Duration;

use caregate_protocol::openflow::{BadRequest, ErrorKind, FlowModFailed};
pub use caregate_protocol::openflow::{NO_BUFFER, TABLE_ALL};

use super::flow::{Command, Flow, FlowId, FlowMod, Removed, RemovedReason, Traffic, flags};
use super::pattern::Pattern;
use super::port;
use super::translate;
use super::treatment::{PortRole, Ports};

/// Flows: the kernel tries them one by one for each frame, and 64 comparisons are within what a frame may cost there.
pub const FLOWS_MAX: usize = 64;

/// The table that verified policy alone fills.
pub const TABLE_POLICY: u8 = 0;
/// The controller's table.
pub const TABLE_CONTROLLER: u8 = 1;

/// What followed from a flow-mod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the kernel's table has to be replaced.
    pub changed: bool,
    /// To be reported to the controller.
    pub removed: Vec<Removed>,
}

/// What a delete, a modify or a request for statistics names (§7.3.4.1, §7.3.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// Flows that are part of this.
    pub pattern: Pattern,
    /// Only flows with exactly this pattern, and this priority.
    pub strict: Option<u16>,
    /// Value and mask.
    pub cookie: (u64, u64),
    /// [`port::ANY`] for all.
    pub out_port: u32,
    /// [`port::ANY`] for all.
    pub out_group: u32,
}

impl Filter {
    /// Whether the filter means this flow.
    #[must_use]
    pub fn selects(&self, flow: &Flow) -> bool {
        let (cookie, mask) = self.cookie;
        let matched = match self.strict {
            Some(priority) => flow.priority == priority && flow.pattern == self.pattern,
            None => flow.pattern.is_part_of(&self.pattern),
        };
        matched
            && (flow.cookie ^ cookie) & mask == 0
            && (self.out_port == port::ANY || flow.treatment.port == Some(self.out_port))
            && self.out_group == port::ANY
    }
}

/// The table and what it has counted.
#[derive(Debug)]
pub struct FlowTable {
    ports: Ports,
    /// By falling priority, among equals the older first; at most [`FLOWS_MAX`].
    flows: Vec<Flow>,
    next_id: u64,
}

impl FlowTable {
    /// An empty table: what table 0 decided stands for every frame.
    #[must_use]
    pub fn new(ports: Ports) -> Self {
        Self { ports, flows: Vec::new(), next_id: 1 }
    }

    /// The flows in the order in which a frame meets them.
    #[must_use]
    pub fn flows(&self) -> &[Flow] {
        &self.flows
    }

    /// The flows that a request for statistics names.
    pub fn select(&self, filter: Filter) -> impl Iterator<Item = &Flow> {
        self.flows.iter().filter(move |flow| filter.selects(flow))
    }

    /// Takes a flow-mod, or refuses it and changes nothing.
    ///
    /// # Errors
    /// The standard's error: table 0 is `OFPBRC_EPERM`, others are named where they are checked.
    pub fn apply(&mut self, change: &FlowMod, now: Duration) -> Result<Outcome, ErrorKind> {
        self.check(change)?;
        match change.command {
            Command::Add => self.add(change, now),
            Command::Modify => self.modify(change, None),
            Command::ModifyStrict => self.modify(change, Some(change.priority)),
            Command::Delete => Ok(self.delete(change, None, now)),
            Command::DeleteStrict => Ok(self.delete(change, Some(change.priority), now)),
        }
    }

    /// Whether a flow-mod may name this table at all, whatever else it says.
    ///
    /// # Errors
    /// `OFPBRC_EPERM` for table 0, `OFPFMFC_BAD_TABLE_ID`.
    pub fn check_table(command: Command, table_id: u8) -> Result<(), ErrorKind> {
        match table_id {
            TABLE_CONTROLLER => Ok(()),
            // What policy admits is not the controller's: a delete of all tables means all that are.
            TABLE_ALL if is_delete(command) => Ok(()),
            TABLE_POLICY => Err(ErrorKind::BadRequest(BadRequest::Eperm)),
            _ => Err(ErrorKind::FlowModFailed(FlowModFailed::BadTableId)),
        }
    }

    fn check(&self, change: &FlowMod) -> Result<(), ErrorKind> {
        Self::check_table(change.command, change.table_id)?;
        if change.flags & !flags::ALL != 0 {
            return Err(ErrorKind::FlowModFailed(FlowModFailed::BadFlags));
        }
        if is_delete(change.command) {
            return Ok(());
        }
        if change.buffer_id != NO_BUFFER {
            return Err(ErrorKind::BadRequest(BadRequest::BufferUnknown));
        }
        self.ports.check_match(&change.pattern)?;
        self.ports.treatment(&change.pattern, &change.actions).map(drop)
    }

    fn add(&mut self, change: &FlowMod, now: Duration) -> Result<Outcome, ErrorKind> {
        let peers = |flow: &&Flow| flow.priority == change.priority;
        if change.flags & flags::CHECK_OVERLAP != 0
            && self.flows.iter().filter(peers).any(|flow| flow.pattern.overlaps(&change.pattern))
        {
            return Err(ErrorKind::FlowModFailed(FlowModFailed::Overlap));
        }
        let treatment = self.ports.treatment(&change.pattern, &change.actions)?;
        let same = |flow: &Flow| flow.priority == change.priority && flow.pattern == change.pattern;
        let replaced = self.flows.iter().position(same);
        if replaced.is_none() && self.flows.len() >= FLOWS_MAX {
            return Err(ErrorKind::FlowModFailed(FlowModFailed::TableFull));
        }
        // A replaced flow goes without a flow-removed; its counters pass on unless they are to be reset (§6.4).
        let inherited = replaced
            .map(|at| self.flows.remove(at).traffic())
            .filter(|_| change.flags & flags::RESET_COUNTS == 0)
            .unwrap_or_default();
        let flow = Flow {
            id: FlowId(self.next_id),
            priority: change.priority,
            pattern: change.pattern,
            treatment,
            instructions: change.instructions.clone(),
            cookie: change.cookie,
            idle_timeout_s: change.idle_timeout_s,
            hard_timeout_s: change.hard_timeout_s,
            flags: change.flags,
            added: now,
            used: now,
            seen: Traffic::default(),
            reset: Traffic::default(),
            inherited,
        };
        self.next_id += 1;
        let at = self.flows.partition_point(|flow| flow.priority >= change.priority);
        self.flows.insert(at, flow);
        Ok(Outcome { changed: true, removed: Vec::new() })
    }

    /// Cookie, timeouts, flags and duration stay (§6.4). A modify that finds nothing is no error.
    fn modify(&mut self, change: &FlowMod, strict: Option<u16>) -> Result<Outcome, ErrorKind> {
        let filter = Filter { out_port: port::ANY, out_group: port::ANY, ..filter(change, strict) };
        let mut treatments = Vec::new();
        for (at, flow) in self.flows.iter().enumerate().filter(|(_, flow)| filter.selects(flow)) {
            // Each flow again, because it is narrower than the request: LOCAL is no output for what comes from LOCAL.
            treatments.push((at, self.ports.treatment(&flow.pattern, &change.actions)?));
        }
        let changed = !treatments.is_empty();
        for (at, treatment) in treatments {
            let Some(flow) = self.flows.get_mut(at) else { continue };
            flow.treatment = treatment;
            flow.instructions.clone_from(&change.instructions);
            if change.flags & flags::RESET_COUNTS != 0 {
                flow.forget_traffic();
            }
        }
        Ok(Outcome { changed, removed: Vec::new() })
    }

    fn delete(&mut self, change: &FlowMod, strict: Option<u16>, now: Duration) -> Outcome {
        let filter = filter(change, strict);
        self.remove(now, |flow| filter.selects(flow).then_some(RemovedReason::Delete))
    }

    fn remove(&mut self, now: Duration, which: impl Fn(&Flow) -> Option<RemovedReason>) -> Outcome {
        let mut outcome = Outcome::default();
        self.flows.retain(|flow| {
            let Some(reason) = which(flow) else { return true };
            outcome.changed = true;
            if flow.flags & flags::SEND_FLOW_REM != 0 {
                let lasted = now.saturating_sub(flow.added);
                outcome.removed.push(Removed { flow: flow.clone(), reason, lasted });
            }
            false
        });
        outcome
    }

    /// Takes back what was applied: `flows` are those of before.
    pub fn roll_back(&mut self, flows: Vec<Flow>) {
        self.flows = flows;
    }

    /// Takes other ports and drops the flows that mean nothing with them; says which.
    pub fn set_ports(&mut self, ports: Ports, now: Duration) -> Outcome {
        self.ports = ports;
        let ports = self.ports.clone();
        self.remove(now, |flow| {
            let change = translate::stored(flow);
            let stands = translate::flow_mod(&change).and_then(|change| {
                ports.check_match(&change.pattern)?;
                ports.treatment(&change.pattern, &change.actions)
            });
            stands.is_err().then_some(RemovedReason::Delete)
        })
    }

    /// Takes what the helper has counted for flows since they have their ids, and the time at which it did.
    /// An id that is gone means nothing.
    pub fn observe(&mut self, counted: &[(FlowId, Traffic)], now: Duration) {
        for (id, traffic) in counted {
            let Some(flow) = self.flows.iter_mut().find(|flow| flow.id == *id) else { continue };
            if traffic.packets != flow.seen.packets {
                flow.used = now;
            }
            flow.seen = *traffic;
        }
    }

    /// When [`expire`](Self::expire) is next due, if nothing more matches.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        self.flows.iter().filter_map(Flow::expiry).map(|(due, _)| due).min()
    }

    /// Removes what has timed out. Counters have to be [`observe`](Self::observe)d just before, or a flow in use may seem idle.
    pub fn expire(&mut self, now: Duration) -> Outcome {
        self.remove(now, |flow| flow.expiry().filter(|(due, _)| *due <= now).map(|(_, reason)| reason))
    }

    /// Whether a packet-out may leave by `number` (§7.3.7).
    ///
    /// # Errors
    /// `OFPBRC_EPERM` for a sensor port, since a controller could speak to a sensor in the gateway's name;
    /// `OFPBRC_BAD_PORT` for what is no uplink.
    pub fn check_packet_out(&self, number: u32) -> Result<(), ErrorKind> {
        match self.ports.role(number) {
            Some(PortRole::Uplink) => Ok(()),
            Some(PortRole::Sensor) => Err(ErrorKind::BadRequest(BadRequest::Eperm)),
            // Sensor ports are among them.
            None if matches!(number, port::ALL | port::FLOOD) => {
                Err(ErrorKind::BadRequest(BadRequest::Eperm))
            }
            None => Err(ErrorKind::BadRequest(BadRequest::BadPort)),
        }
    }
}

/// Whether the command takes flows away.
pub(super) fn is_delete(command: Command) -> bool {
    matches!(command, Command::Delete | Command::DeleteStrict)
}

fn filter(change: &FlowMod, strict: Option<u16>) -> Filter {
    Filter {
        pattern: change.pattern,
        strict,
        cookie: (change.cookie, change.cookie_mask),
        out_port: change.out_port,
        out_group: change.out_group,
    }
}

#[cfg(test)]
mod tests;
