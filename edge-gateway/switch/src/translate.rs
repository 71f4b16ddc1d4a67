//! Between what stands in OpenFlow's messages, and what the switch's tables and its helper hold.

use std::time::Duration;

use caregate_protocol::datapath::switch::{ACTIONS_MAX, FlowAction, FlowInstructions};
use caregate_protocol::openflow::multipart::FlowStats;
use caregate_protocol::openflow::{
    self, Action, BadAction, BadInstruction, ErrorKind, FlowRemoved, Instruction, Lasted, MatchField, Oxm,
    VLAN_VID_PRESENT, eth_type,
};

use super::flow::{Flow, Removed};
use super::pattern::Pattern;

/// What a flow's instructions come to.
///
/// # Errors
/// `OFPBIC_UNSUP_INST` for two of one type, `UNKNOWN_INST`, `BAD_EXPERIMENTER`; for actions as [`actions`].
pub fn instructions(of: &[Instruction]) -> Result<FlowInstructions, ErrorKind> {
    let refuse = |code| Err(ErrorKind::BadInstruction(code));
    let mut all = FlowInstructions::default();
    for (at, instruction) in of.iter().enumerate() {
        // At most one of each type (§5.9).
        if of[..at].iter().any(|before| before.number() == instruction.number()) {
            return refuse(BadInstruction::UnsupInst);
        }
        match instruction {
            Instruction::GotoTable(table) => all.goto = Some(*table),
            Instruction::WriteMetadata { metadata, mask } => all.metadata = Some((metadata & mask, *mask)),
            Instruction::WriteActions(written) => all.write = actions(written)?,
            Instruction::ApplyActions(applied) => all.apply = actions(applied)?,
            Instruction::ClearActions => all.clear = true,
            Instruction::Meter(meter) => all.meter = Some(*meter),
            Instruction::Experimenter { .. } => return refuse(BadInstruction::BadExperimenter),
            Instruction::Other { .. } => return refuse(BadInstruction::UnknownInst),
        }
    }
    Ok(all)
}

/// The instructions that come to this, by their type.
#[must_use]
pub fn to_instructions(all: &FlowInstructions) -> Vec<Instruction> {
    let list = |actions: &[FlowAction]| actions.iter().map(to_action).collect::<Vec<_>>();
    let goto = all.goto.map(Instruction::GotoTable);
    let metadata = all.metadata.map(|(metadata, mask)| Instruction::WriteMetadata { metadata, mask });
    let write = (!all.write.is_empty()).then(|| Instruction::WriteActions(list(&all.write)));
    let apply = (!all.apply.is_empty()).then(|| Instruction::ApplyActions(list(&all.apply)));
    let clear = all.clear.then_some(Instruction::ClearActions);
    let meter = all.meter.map(Instruction::Meter);
    [goto, metadata, write, apply, clear, meter].into_iter().flatten().collect()
}

/// A list of actions of those that this switch has.
///
/// # Errors
/// `OFPBAC_TOO_MANY`, `BAD_TYPE` for what this switch doesn't have (PBB), `BAD_EXPERIMENTER`, `BAD_ARGUMENT` for an Ethertype
/// that is no tag's, `BAD_SET_TYPE`, `BAD_SET_LEN`, `BAD_SET_ARGUMENT`.
pub fn actions(of: &[Action]) -> Result<Vec<FlowAction>, ErrorKind> {
    if of.len() > ACTIONS_MAX {
        return Err(ErrorKind::BadAction(BadAction::TooMany));
    }
    of.iter().map(action).collect::<Result<_, _>>().map_err(ErrorKind::BadAction)
}

fn action(of: &Action) -> Result<FlowAction, BadAction> {
    Ok(match of {
        Action::Output { port, max_len } => FlowAction::Output { port: *port, max_len: *max_len },
        Action::CopyTtlOut => FlowAction::CopyTtlOut,
        Action::CopyTtlIn => FlowAction::CopyTtlIn,
        Action::SetMplsTtl(ttl) => FlowAction::SetMplsTtl(*ttl),
        Action::DecMplsTtl => FlowAction::DecMplsTtl,
        Action::PushVlan(tag @ (eth_type::VLAN | eth_type::SERVICE_VLAN)) => FlowAction::PushVlan(*tag),
        Action::PopVlan => FlowAction::PopVlan,
        Action::PushMpls(tag @ (eth_type::MPLS | eth_type::MPLS_MULTICAST)) => FlowAction::PushMpls(*tag),
        Action::PushVlan(_) | Action::PushMpls(_) => return Err(BadAction::BadArgument),
        Action::PopMpls(below) => FlowAction::PopMpls(*below),
        Action::SetQueue(queue) => FlowAction::SetQueue(*queue),
        Action::Group(group) => FlowAction::Group(*group),
        Action::SetNwTtl(ttl) => FlowAction::SetNwTtl(*ttl),
        Action::DecNwTtl => FlowAction::DecNwTtl,
        Action::SetField(oxm) => set_field(oxm)?,
        Action::Experimenter { .. } => return Err(BadAction::BadExperimenter),
        Action::PushPbb(_) | Action::PopPbb | Action::Other { .. } => return Err(BadAction::BadType),
    })
}

fn set_field(oxm: &Oxm) -> Result<FlowAction, BadAction> {
    use caregate_ebpf_common::switch::place;
    let field = oxm.field().filter(|field| field.is_settable() && place(field.number()).is_some());
    let field = field.ok_or(BadAction::BadSetType)?;
    if oxm.value().len() != field.bytes() {
        return Err(BadAction::BadSetLen);
    }
    let value = oxm.value_number().ok_or(BadAction::BadSetLen)?;
    // A tag's number is told from "no tag" by OFPVID_PRESENT (§7.2.3.8).
    let is_vid = field != MatchField::VlanVid || value & u128::from(VLAN_VID_PRESENT) != 0;
    if value & !field.ones() != 0 || !is_vid {
        return Err(BadAction::BadSetArgument);
    }
    Ok(FlowAction::SetField { field: field.number(), value })
}

/// The action that comes to this.
#[must_use]
pub fn to_action(of: &FlowAction) -> Action {
    match *of {
        FlowAction::Output { port, max_len } => Action::Output { port, max_len },
        FlowAction::Group(group) => Action::Group(group),
        FlowAction::SetQueue(queue) => Action::SetQueue(queue),
        FlowAction::PushVlan(tag) => Action::PushVlan(tag),
        FlowAction::PopVlan => Action::PopVlan,
        FlowAction::PushMpls(tag) => Action::PushMpls(tag),
        FlowAction::PopMpls(below) => Action::PopMpls(below),
        FlowAction::CopyTtlOut => Action::CopyTtlOut,
        FlowAction::CopyTtlIn => Action::CopyTtlIn,
        FlowAction::SetMplsTtl(ttl) => Action::SetMplsTtl(ttl),
        FlowAction::DecMplsTtl => Action::DecMplsTtl,
        FlowAction::SetNwTtl(ttl) => Action::SetNwTtl(ttl),
        FlowAction::DecNwTtl => Action::DecNwTtl,
        FlowAction::SetField { field, value } => {
            let oxm = MatchField::from_u8(field).and_then(|field| Oxm::exact(field, value).ok());
            // Of those that came in a message, each has a field.
            oxm.map_or(Action::Other { action_type: 25, body: Vec::new() }, Action::SetField)
        }
    }
}

/// The flow-mod that would add the flow again.
#[must_use]
pub fn stored(flow: &Flow) -> openflow::FlowMod {
    openflow::FlowMod {
        cookie: flow.cookie,
        idle_timeout_s: flow.idle_timeout_s,
        hard_timeout_s: flow.hard_timeout_s,
        flags: flow.flags & !openflow::flags::CHECK_OVERLAP,
        pattern: flow.pattern.to_match(),
        instructions: to_instructions(&flow.instructions),
        ..openflow::FlowMod::new(openflow::Command::Add, flow.table, flow.priority)
    }
}

/// What a flow's statistics say (§7.3.5.2).
#[must_use]
pub fn stats(flow: &Flow, now: Duration) -> FlowStats {
    let traffic = flow.reported();
    FlowStats {
        table_id: flow.table,
        lasted: Lasted::from(now.saturating_sub(flow.added)),
        priority: flow.priority,
        idle_timeout_s: flow.idle_timeout_s,
        hard_timeout_s: flow.hard_timeout_s,
        flags: flow.flags,
        cookie: flow.cookie,
        packets: traffic.packets,
        bytes: traffic.bytes,
        pattern: flow.pattern.to_match(),
        instructions: to_instructions(&flow.instructions),
    }
}

/// That a flow has gone (§7.4.2).
#[must_use]
pub fn removed(removed: &Removed) -> FlowRemoved {
    let (flow, traffic) = (&removed.flow, removed.flow.reported());
    FlowRemoved {
        cookie: flow.cookie,
        priority: flow.priority,
        reason: removed.reason,
        table_id: flow.table,
        lasted: removed.lasted.into(),
        idle_timeout_s: flow.idle_timeout_s,
        hard_timeout_s: flow.hard_timeout_s,
        packets: traffic.packets,
        bytes: traffic.bytes,
        pattern: flow.pattern.to_match(),
    }
}

/// The pattern of a match, as an error of a message.
///
/// # Errors
/// As [`Pattern::of`].
pub fn pattern(of: &openflow::Match) -> Result<Pattern, ErrorKind> {
    Pattern::of(of).map_err(ErrorKind::BadMatch)
}

#[cfg(test)]
mod tests;
