//! Whether a flow, a group or a meter means something, and whether it keeps to the guard (ADR 17, "The guard"). The daemon checks
//! the same; this process has the privilege, so it does not take the daemon's word. Pure.

use std::fmt;

use caregate_ebpf_common::switch::op::port;
use caregate_ebpf_common::switch::set_field;
use caregate_protocol::datapath::QUEUES;
use caregate_protocol::datapath::switch::{
    BandKind, FLOWS_MAX, FlowAction, FlowEntry, GROUPS_MAX, GroupEntry, GroupKind, METERS_MAX, MeterEntry,
    TABLES,
};
use thiserror::Error;

/// What a change is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A flow, by the daemon's name for it.
    Flow(u64),
    /// A group.
    Group(u32),
    /// A meter.
    Meter(u32),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flow(id) => write!(f, "flow {id}"),
            Self::Group(id) => write!(f, "group {id}"),
            Self::Meter(id) => write!(f, "meter {id}"),
        }
    }
}

/// Why a change is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChangeError {
    /// A bit outside the mask is set.
    #[error("flow {0} has a value outside its mask")]
    Value(u64),
    /// No such table, or a way back.
    #[error("flow {0} is in no table, or goes to one that is not above its own")]
    Table(u64),
    /// Table 0 is policy's.
    #[error("flow {0} is for table 0, which is the policy's")]
    Policy(u64),
    /// What frames of sensors can meet would send them elsewhere, or change them.
    #[error(
        "flow {0} covers sensors' frames and does more than to drop or meter them, to go on or to leave them to the gateway"
    )]
    Widens(u64),
    /// Nobody sends to sensors.
    #[error("{0} has an output to sensor port {1}")]
    SensorPort(Subject, u32),
    /// The id has another match, table or priority already.
    #[error("flow {0} is there with another match")]
    Match(u64),
    /// An action that can't be done.
    #[error("{0} has an action that means nothing: {1:?}")]
    Action(Subject, FlowAction),
    /// An indirect group has one bucket.
    #[error("group {0} has not the buckets that its kind has")]
    Buckets(u32),
    /// It names a group that is not there.
    #[error("{0} names group {1}, which is not there")]
    NoGroup(Subject, u32),
    /// It names a meter that is not there.
    #[error("{0} names meter {1}, which is not there")]
    NoMeter(Subject, u32),
    /// Groups that lead to one another in a circle.
    #[error("group {0} leads to itself")]
    Circle(u32),
    /// There is no room.
    #[error("there is no room for so many {0}")]
    TooMany(&'static str),
    /// An earlier part of the series was refused.
    #[error("an earlier part of the series was refused")]
    Broken,
}

/// What holds for this switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    /// Ports 1 to this one lead to sensors.
    pub sensor_ports: u32,
    /// Off in a build for conformance suites alone: there are no sensors, and table 0 is the controller's.
    pub is_on: bool,
}

impl Guard {
    /// The first table of a frame; table 0 is the policy's, where there is one.
    #[must_use]
    pub fn first_table(&self) -> u8 {
        self.is_on.into()
    }

    fn is_sensor(&self, port: u32) -> bool {
        (1..=self.sensor_ports).contains(&port)
    }

    /// Whether no frame of a sensor can match.
    fn excludes_sensors(&self, flow: &FlowEntry) -> bool {
        if self.sensor_ports == 0 {
            return true;
        }
        let (port, mask) = (flow.value.first_chunk(), flow.mask.first_chunk());
        let port = port.map_or(0, |bytes| u32::from_be_bytes(*bytes));
        self.sensor_ports == 0 || mask == Some(&[0xff; 4]) && !self.is_sensor(port)
    }

    fn check(&self, flow: &FlowEntry) -> Result<(), ChangeError> {
        if !self.is_on {
            return Ok(());
        }
        if flow.table == 0 {
            return Err(ChangeError::Policy(flow.id));
        }
        let instructions = &flow.instructions;
        let mut actions = instructions.apply.iter().chain(&instructions.write);
        let stays = |action: &FlowAction| matches!(action, FlowAction::Output { port: port::LOCAL, .. });
        if !self.excludes_sensors(flow) && !actions.all(stays) {
            return Err(ChangeError::Widens(flow.id));
        }
        Ok(())
    }

    /// What a flow is metered by: no mark of a sensor's frame is changed.
    pub(super) fn check_meter(&self, flow: &FlowEntry, meter: &MeterEntry) -> Result<(), ChangeError> {
        let remarks = meter.bands.iter().any(|band| matches!(band.kind, BandKind::DscpRemark(_)));
        if self.is_on && remarks && !self.excludes_sensors(flow) {
            return Err(ChangeError::Widens(flow.id));
        }
        Ok(())
    }

    fn check_action(&self, subject: Subject, action: &FlowAction) -> Result<(), ChangeError> {
        let can_be_done = match *action {
            FlowAction::Output { port, .. } if self.is_on && self.is_sensor(port) => {
                return Err(ChangeError::SensorPort(subject, port));
            }
            FlowAction::SetField { field, value } => set_field(field, value).is_some(),
            FlowAction::PushVlan(ether_type) => matches!(ether_type, 0x8100 | 0x88a8),
            FlowAction::PushMpls(ether_type) => matches!(ether_type, 0x8847 | 0x8848),
            FlowAction::SetQueue(queue) => queue < QUEUES,
            FlowAction::Output { .. }
            | FlowAction::Group(_)
            | FlowAction::PopVlan
            | FlowAction::PopMpls(_)
            | FlowAction::CopyTtlOut
            | FlowAction::CopyTtlIn
            | FlowAction::SetMplsTtl(_)
            | FlowAction::DecMplsTtl
            | FlowAction::SetNwTtl(_)
            | FlowAction::DecNwTtl => true,
        };
        if can_be_done { Ok(()) } else { Err(ChangeError::Action(subject, *action)) }
    }
}

/// Checks a flow by itself.
///
/// # Errors
/// [`ChangeError`].
pub fn flow(flow: &FlowEntry, guard: &Guard) -> Result<(), ChangeError> {
    if flow.value.iter().zip(&flow.mask).any(|(value, mask)| value & !mask != 0) {
        return Err(ChangeError::Value(flow.id));
    }
    let goes_up = flow.instructions.goto.is_none_or(|table| table > flow.table && table < TABLES);
    if flow.table >= TABLES || !goes_up {
        return Err(ChangeError::Table(flow.id));
    }
    guard.check(flow)?;
    let mut actions = flow.instructions.apply.iter().chain(&flow.instructions.write);
    actions.try_for_each(|action| guard.check_action(Subject::Flow(flow.id), action))
}

/// Checks a group by itself.
///
/// # Errors
/// [`ChangeError`].
pub fn group(group: &GroupEntry, guard: &Guard) -> Result<(), ChangeError> {
    if group.kind == GroupKind::Indirect && group.buckets.len() != 1 {
        return Err(ChangeError::Buckets(group.id));
    }
    let mut actions = group.buckets.iter().flat_map(|bucket| &bucket.actions);
    actions.try_for_each(|action| guard.check_action(Subject::Group(group.id), action))
}

/// Whether so many are allowed.
///
/// # Errors
/// [`ChangeError::TooMany`].
pub fn counts(flows: usize, groups: usize, meters: usize) -> Result<(), ChangeError> {
    let of = [(flows, FLOWS_MAX, "flows"), (groups, GROUPS_MAX, "groups"), (meters, METERS_MAX, "meters")];
    match of.into_iter().find(|(count, most, _)| count > most) {
        Some((_, _, what)) => Err(ChangeError::TooMany(what)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
