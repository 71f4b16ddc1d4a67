//! Flow-mods (§6.4, §7.3.4.1).

use std::sync::Arc;
use std::time::Duration;

use caregate_protocol::datapath::switch::{FLOWS_MAX, FlowInstructions, SharedInstructions, TABLES};
use caregate_protocol::openflow::{BadRequest, ErrorKind, FlowMod, FlowModFailed};

use super::super::flow::{Command, Flow, FlowId, RemovedReason, Traffic, flags};
use super::super::pattern::Pattern;
use super::super::table::{Filter, NO_BUFFER, TABLE_ALL};
use super::super::{port, translate};
use super::{Outcome, Tables};

/// A flow-mod with match and instructions as the tables hold them. It follows from the message alone, so that it can be made beside
/// the tables.
#[derive(Debug, Clone)]
pub struct FlowRequest {
    /// Without match and instructions.
    head: FlowMod,
    /// What is wrong with them is told where the tables come to them: other things are told first.
    pattern: Result<Arc<Pattern>, ErrorKind>,
    instructions: Result<Arc<FlowInstructions>, ErrorKind>,
}

impl FlowRequest {
    /// Of a message.
    #[must_use]
    pub fn of(mut head: FlowMod, shared: &mut SharedInstructions) -> Self {
        let pattern = translate::pattern(&std::mem::take(&mut head.pattern)).map(Arc::new);
        let instructions = translate::instructions(&std::mem::take(&mut head.instructions));
        let instructions = instructions.map(|instructions| shared.share(instructions));
        Self { head, pattern, instructions }
    }
}

impl Tables {
    /// As [`request`](Self::request).
    ///
    /// # Errors
    /// As that.
    pub fn flow_mod(&mut self, wanted: &FlowMod, now: Duration) -> Result<Outcome, ErrorKind> {
        self.request(FlowRequest::of(wanted.clone(), &mut SharedInstructions::default()), now)
    }

    /// Takes a flow-mod, or refuses it and changes nothing.
    ///
    /// # Errors
    /// The standard's error: `OFPBRC_EPERM` for table 0 under guard, `OFPFMFC_BAD_TABLE_ID`, `BAD_FLAGS`, `OVERLAP`, `TABLE_FULL`,
    /// `OFPBRC_BUFFER_UNKNOWN`; of its match as [`Pattern::of`](super::super::pattern::Pattern::of), of its instructions as
    /// [`translate::instructions`] and what they name.
    pub fn request(&mut self, wanted: FlowRequest, now: Duration) -> Result<Outcome, ErrorKind> {
        let (command, priority) = (wanted.head.command, wanted.head.priority);
        self.check_table(&wanted.head)?;
        if wanted.head.flags & !flags::ALL != 0 {
            return Err(ErrorKind::FlowModFailed(FlowModFailed::BadFlags));
        }
        match command {
            Command::Add => self.add(wanted, now),
            Command::Modify => self.modify(wanted, None),
            Command::ModifyStrict => self.modify(wanted, Some(priority)),
            Command::Delete => self.delete(wanted, None, now),
            Command::DeleteStrict => self.delete(wanted, Some(priority), now),
        }
    }

    fn check_table(&self, wanted: &FlowMod) -> Result<(), ErrorKind> {
        match wanted.table_id {
            // What policy admits is not the controller's: a delete of all tables means all that are.
            TABLE_ALL if is_delete(wanted.command) => Ok(()),
            table if table < self.first_table() => Err(ErrorKind::BadRequest(BadRequest::Eperm)),
            table if table < TABLES => Ok(()),
            _ => Err(ErrorKind::FlowModFailed(FlowModFailed::BadTableId)),
        }
    }

    fn add(&mut self, wanted: FlowRequest, now: Duration) -> Result<Outcome, ErrorKind> {
        let FlowRequest { head: wanted, pattern, instructions } = wanted;
        let (pattern, instructions) = (pattern?, instructions?);
        check_buffer(&wanted)?;
        self.ports.check_match(&pattern)?;
        self.surroundings().flow(wanted.table_id, &pattern, &instructions)?;
        let overlaps = |flow: &Flow| flow.pattern.overlaps(&pattern);
        let checks = wanted.flags & flags::CHECK_OVERLAP != 0;
        if checks && self.flows.peers(wanted.table_id, wanted.priority).any(overlaps) {
            return Err(ErrorKind::FlowModFailed(FlowModFailed::Overlap));
        }
        let replaced = self.flows.find(wanted.table_id, wanted.priority, &pattern);
        if replaced.is_none() && self.flows.len() >= FLOWS_MAX {
            return Err(ErrorKind::FlowModFailed(FlowModFailed::TableFull));
        }
        // A replaced flow goes without a flow-removed; its counters stay unless they are to be reset (§6.4).
        let (id, seen, reset) = match replaced {
            Some(flow) => (flow.id, flow.seen, flow.reset),
            None => (FlowId(self.next_id), Traffic::default(), Traffic::default()),
        };
        let mut flow = Flow {
            id,
            table: wanted.table_id,
            priority: wanted.priority,
            pattern,
            instructions,
            cookie: wanted.cookie,
            idle_timeout_s: wanted.idle_timeout_s,
            hard_timeout_s: wanted.hard_timeout_s,
            flags: wanted.flags,
            added: now,
            used: now,
            seen,
            reset,
        };
        if wanted.flags & flags::RESET_COUNTS != 0 {
            flow.forget_traffic();
        }
        self.next_id = self.next_id.max(id.0 + 1);
        self.put_flow(flow);
        Ok(Outcome { changed: true, removed: Vec::new() })
    }

    /// Cookie, timeouts, flags and duration stay (§6.4). A modify that finds nothing is no error, if it could have been an add.
    fn modify(&mut self, wanted: FlowRequest, strict: Option<u16>) -> Result<Outcome, ErrorKind> {
        let filter = Filter { out_port: port::ANY, out_group: port::ANY, ..filter(&wanted, strict)? };
        let instructions = wanted.instructions?;
        let wanted = &wanted.head;
        check_buffer(wanted)?;
        let found = self.flows.select(&filter);
        let around = self.surroundings();
        if found.is_empty() {
            self.ports.check_match(&filter.pattern)?;
            around.flow(wanted.table_id, &filter.pattern, &instructions)?;
        }
        // Each flow by itself, because it is narrower than the request: it may exclude sensor ports, or say what a field needs.
        for flow in &found {
            around.flow(flow.table, &flow.pattern, &instructions)?;
        }
        let found: Vec<Flow> = found.into_iter().cloned().collect();
        let changed = !found.is_empty();
        for mut flow in found {
            flow.instructions = Arc::clone(&instructions);
            if wanted.flags & flags::RESET_COUNTS != 0 {
                flow.forget_traffic();
            }
            self.put_flow(flow);
        }
        Ok(Outcome { changed, removed: Vec::new() })
    }

    /// A delete's instructions mean nothing (§6.4).
    fn delete(
        &mut self,
        wanted: FlowRequest,
        strict: Option<u16>,
        now: Duration,
    ) -> Result<Outcome, ErrorKind> {
        let filter = filter(&wanted, strict)?;
        let found = self.flows.select(&filter);
        let ids = found.into_iter().map(|flow| (flow.id, RemovedReason::Delete)).collect();
        Ok(self.remove_flows(ids, now))
    }
}

fn check_buffer(wanted: &FlowMod) -> Result<(), ErrorKind> {
    // Nothing is buffered here.
    if wanted.buffer_id == NO_BUFFER { Ok(()) } else { Err(ErrorKind::BadRequest(BadRequest::BufferUnknown)) }
}

fn is_delete(command: Command) -> bool {
    matches!(command, Command::Delete | Command::DeleteStrict)
}

fn filter(wanted: &FlowRequest, strict: Option<u16>) -> Result<Filter, ErrorKind> {
    let pattern = *wanted.pattern.clone()?;
    let wanted = &wanted.head;
    Ok(Filter {
        table: wanted.table_id,
        pattern,
        strict,
        cookie: (wanted.cookie, wanted.cookie_mask),
        out_port: wanted.out_port,
        out_group: wanted.out_group,
    })
}
