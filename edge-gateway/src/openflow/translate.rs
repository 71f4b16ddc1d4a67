//! Between what stands in OpenFlow's messages, what table 1 holds, and what the helper is told.

use std::time::Duration;

use caregate_protocol::datapath;
use caregate_protocol::openflow::multipart::FlowStats;
use caregate_protocol::openflow::{
    self, BadAction, BadInstruction, BadMatch, CLASS_BASIC, ErrorKind, FlowRemoved, Instruction, Lasted,
    Match, MatchField, Oxm,
};

use super::flow::{Flow, FlowMod, Removed};
use super::pattern::{Field, Part, Pattern};
use super::table::{self, TABLE_CONTROLLER};
use super::treatment::{Action, Output};

/// Actions of one flow: set-field, set-queue and output in both of its instructions, and some to spare.
const ACTIONS_MAX: usize = 16;

/// The pattern of a match.
///
/// # Errors
/// `OFPBMC_BAD_FIELD` for a field that this switch doesn't have, else what [`Pattern::with`] says.
pub fn pattern(of: &Match) -> Result<Pattern, BadMatch> {
    let add = |pattern: Pattern, oxm: &Oxm| {
        let field = if oxm.class() == CLASS_BASIC {
            Field::of_oxm(oxm.number())?
        } else {
            return Err(BadMatch::BadField);
        };
        pattern.with(field, oxm.value(), oxm.mask())
    };
    of.fields.iter().try_fold(Pattern::any(), add)
}

/// The match that has this pattern.
#[must_use]
pub fn to_match(pattern: &Pattern) -> Match {
    let oxm = |(field, value, mask): Part<'_>| Oxm::new(MatchField::from_u8(field.oxm())?, value, mask).ok();
    Match { fields: pattern.fields().into_iter().filter_map(oxm).collect() }
}

/// What a flow's instructions come to in table 1, the last: actions that are applied, in their order, then those that were
/// written, in the order of the standard's action set (§5.10).
///
/// # Errors
/// `OFPBIC_BAD_TABLE_ID` for a goto, since no table follows; `UNSUP_INST`, `UNKNOWN_INST`, `BAD_EXPERIMENTER`; for actions
/// `OFPBAC_TOO_MANY`, `BAD_TYPE`, `BAD_EXPERIMENTER`, `BAD_SET_TYPE`, `BAD_SET_LEN`.
pub fn actions(instructions: &[Instruction]) -> Result<Vec<Action>, ErrorKind> {
    let refuse = |code| Err(ErrorKind::BadInstruction(code));
    let (mut applied, mut written) = (None, None);
    for instruction in instructions {
        let place = match instruction {
            // Nothing was written before this table.
            Instruction::ClearActions => continue,
            Instruction::ApplyActions(actions) => (&mut applied, actions),
            Instruction::WriteActions(actions) => (&mut written, actions),
            Instruction::GotoTable(_) => return refuse(BadInstruction::BadTableId),
            Instruction::WriteMetadata { .. } | Instruction::Meter(_) => {
                return refuse(BadInstruction::UnsupInst);
            }
            Instruction::Experimenter { .. } => return refuse(BadInstruction::BadExperimenter),
            Instruction::Other { .. } => return refuse(BadInstruction::UnknownInst),
        };
        let (list, actions) = place;
        // At most one of each type (§5.9).
        if list.is_some() {
            return refuse(BadInstruction::UnsupInst);
        }
        if actions.len() > ACTIONS_MAX {
            return Err(ErrorKind::BadAction(BadAction::TooMany));
        }
        *list =
            Some(actions.iter().map(action).collect::<Result<Vec<_>, _>>().map_err(ErrorKind::BadAction)?);
    }
    let mut actions = applied.unwrap_or_default();
    actions.extend(action_set(&written.unwrap_or_default()));
    Ok(actions)
}

/// One of each kind, the last that was written, with the output at the end.
fn action_set(written: &[Action]) -> impl Iterator<Item = Action> {
    let last = |kind: fn(&Action) -> bool| written.iter().copied().rfind(kind);
    let dscp = last(|action| matches!(action, Action::SetDscp(_)));
    let queue = last(|action| matches!(action, Action::SetQueue(_)));
    let output = last(|action| matches!(action, Action::Output { .. }));
    [dscp, queue, output].into_iter().flatten()
}

fn action(action: &openflow::Action) -> Result<Action, BadAction> {
    match action {
        openflow::Action::Output { port, max_len } => Ok(Action::Output { port: *port, max_len: *max_len }),
        openflow::Action::SetQueue(queue) => Ok(Action::SetQueue(*queue)),
        openflow::Action::SetField(oxm) => match (oxm.field(), oxm.value()) {
            (Some(MatchField::IpDscp), [dscp]) => Ok(Action::SetDscp(*dscp)),
            (Some(MatchField::IpDscp), _) => Err(BadAction::BadSetLen),
            _ => Err(BadAction::BadSetType),
        },
        openflow::Action::Experimenter { .. } => Err(BadAction::BadExperimenter),
        openflow::Action::Group(_)
        | openflow::Action::CopyTtlOut
        | openflow::Action::CopyTtlIn
        | openflow::Action::SetMplsTtl(_)
        | openflow::Action::DecMplsTtl
        | openflow::Action::PushVlan(_)
        | openflow::Action::PopVlan
        | openflow::Action::PushMpls(_)
        | openflow::Action::PopMpls(_)
        | openflow::Action::SetNwTtl(_)
        | openflow::Action::DecNwTtl
        | openflow::Action::PushPbb(_)
        | openflow::Action::PopPbb
        | openflow::Action::Other { .. } => Err(BadAction::BadType),
    }
}

/// A flow-mod of which this switch has all fields and actions. A delete's instructions mean nothing (§6.4).
///
/// # Errors
/// As [`pattern`] and [`actions`].
pub fn flow_mod(of: &openflow::FlowMod) -> Result<FlowMod, ErrorKind> {
    let pattern = pattern(&of.pattern).map_err(ErrorKind::BadMatch)?;
    let deletes = table::is_delete(of.command);
    Ok(FlowMod {
        command: of.command,
        table_id: of.table_id,
        cookie: of.cookie,
        cookie_mask: of.cookie_mask,
        idle_timeout_s: of.idle_timeout_s,
        hard_timeout_s: of.hard_timeout_s,
        priority: of.priority,
        buffer_id: of.buffer_id,
        out_port: of.out_port,
        out_group: of.out_group,
        flags: of.flags,
        pattern,
        instructions: if deletes { Vec::new() } else { of.instructions.clone() },
        actions: if deletes { Vec::new() } else { actions(&of.instructions)? },
    })
}

/// The flow-mod that would add the flow again.
#[must_use]
pub fn stored(flow: &Flow) -> openflow::FlowMod {
    openflow::FlowMod {
        cookie: flow.cookie,
        idle_timeout_s: flow.idle_timeout_s,
        hard_timeout_s: flow.hard_timeout_s,
        flags: flow.flags & !openflow::flags::CHECK_OVERLAP,
        pattern: to_match(&flow.pattern),
        instructions: flow.instructions.clone(),
        ..openflow::FlowMod::new(openflow::Command::Add, TABLE_CONTROLLER, flow.priority)
    }
}

/// What the helper is told of a flow.
#[must_use]
pub fn rule(flow: &Flow) -> datapath::Rule {
    let (value, mask) = flow.pattern.key();
    let output = match flow.treatment.output {
        Output::Drop => datapath::Output::Drop,
        Output::Local => datapath::Output::Local,
        Output::Normal => datapath::Output::Normal,
        Output::Controller { max_len } => datapath::Output::Controller { max_len },
    };
    let treatment = datapath::Treatment { dscp: flow.treatment.dscp, queue: flow.treatment.queue, output };
    datapath::Rule { id: flow.id.0, value: *value, mask: *mask, treatment }
}

/// What a flow's statistics say (§7.3.5.2).
#[must_use]
pub fn stats(flow: &Flow, now: Duration) -> FlowStats {
    let traffic = flow.traffic();
    FlowStats {
        table_id: TABLE_CONTROLLER,
        lasted: Lasted::from(now.saturating_sub(flow.added)),
        priority: flow.priority,
        idle_timeout_s: flow.idle_timeout_s,
        hard_timeout_s: flow.hard_timeout_s,
        flags: flow.flags,
        cookie: flow.cookie,
        packets: traffic.packets,
        bytes: traffic.bytes,
        pattern: to_match(&flow.pattern),
        instructions: flow.instructions.clone(),
    }
}

/// That a flow has gone (§7.4.2).
#[must_use]
pub fn removed(removed: &Removed) -> FlowRemoved {
    let (flow, traffic) = (&removed.flow, removed.flow.traffic());
    FlowRemoved {
        cookie: flow.cookie,
        priority: flow.priority,
        reason: removed.reason,
        table_id: TABLE_CONTROLLER,
        lasted: removed.lasted.into(),
        idle_timeout_s: flow.idle_timeout_s,
        hard_timeout_s: flow.hard_timeout_s,
        packets: traffic.packets,
        bytes: traffic.bytes,
        pattern: to_match(&flow.pattern),
    }
}

#[cfg(test)]
mod tests;
