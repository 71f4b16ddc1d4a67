//! Group-mods (§6.5, §7.3.4.2) and meter-mods (§7.3.4.4).

use std::time::Duration;

use caregate_protocol::datapath::switch::{GROUPS_MAX, METERS_MAX};
use caregate_protocol::openflow::{
    ErrorKind, GroupCommand, GroupMod, GroupModFailed, MeterCommand, MeterMod, MeterModFailed, group, meter,
};

use super::super::flow::{Flow, RemovedReason};
use super::super::groups::{self, Group};
use super::super::meters::{self, Meter};
use super::super::table::uses_group;
use super::{Outcome, Tables};

impl Tables {
    /// Takes a group-mod, or refuses it and changes nothing. With a group go the flows that use it.
    ///
    /// # Errors
    /// `OFPGMFC_GROUP_EXISTS`, `UNKNOWN_GROUP`, `OUT_OF_GROUPS`, `CHAINED_GROUP` for one that another watches; else what is wrong with
    /// the group, see [`groups`].
    pub fn group_mod(&mut self, wanted: &GroupMod, now: Duration) -> Result<Outcome, ErrorKind> {
        let refuse = |code| Err(ErrorKind::GroupModFailed(code));
        let known = self.groups.get(&wanted.group_id);
        let added = match (wanted.command, known) {
            (GroupCommand::Delete, _) => return self.delete_groups(wanted.group_id, now),
            (GroupCommand::Add, Some(_)) => return refuse(GroupModFailed::GroupExists),
            (GroupCommand::Modify, None) if wanted.group_id <= group::MAX => {
                return refuse(GroupModFailed::UnknownGroup);
            }
            (GroupCommand::Add | GroupCommand::Modify, None) => now,
            (GroupCommand::Modify, Some(known)) => known.added,
        };
        let entry = groups::entry(wanted, &self.ports, &self.groups)?;
        if known.is_none() && self.groups.len() >= GROUPS_MAX {
            return refuse(GroupModFailed::OutOfGroups);
        }
        self.put_group(Group { entry, added });
        Ok(Outcome { changed: true, removed: Vec::new() })
    }

    fn delete_groups(&mut self, id: u32, now: Duration) -> Result<Outcome, ErrorKind> {
        let ids: Vec<u32> = match id {
            group::ALL => self.groups.keys().copied().collect(),
            id if self.groups.contains_key(&id) => vec![id],
            _ => return Ok(Outcome::default()),
        };
        if id != group::ALL && self.groups.values().any(|group| group.watched().any(|watched| watched == id))
        {
            return Err(ErrorKind::GroupModFailed(GroupModFailed::ChainedGroup));
        }
        let uses = |flow: &&Flow| ids.iter().any(|id| uses_group(flow, *id));
        let flows =
            self.flows.iter().filter(uses).map(|flow| (flow.id, RemovedReason::GroupDelete)).collect();
        let outcome = self.remove_flows(flows, now);
        let changed = !ids.is_empty();
        for id in ids {
            self.take_group(id);
        }
        Ok(Outcome { changed, ..outcome })
    }

    /// Flows that lead to each group.
    #[must_use]
    pub fn references(&self, group: u32) -> u32 {
        let flows = self.flows.iter().filter(|flow| uses_group(flow, group)).count();
        u32::try_from(flows).unwrap_or(u32::MAX)
    }

    /// Takes a meter-mod, or refuses it and changes nothing. With a meter go the flows that use it.
    ///
    /// # Errors
    /// `OFPMMFC_METER_EXISTS`, `UNKNOWN_METER`, `OUT_OF_METERS`, `BAD_BAND` for one that would write to a sensor's frames; else what is
    /// wrong with the meter, see [`meters`].
    pub fn meter_mod(&mut self, wanted: &MeterMod, now: Duration) -> Result<Outcome, ErrorKind> {
        let refuse = |code| Err(ErrorKind::MeterModFailed(code));
        let known = self.meters.get(&wanted.meter_id);
        let added = match (wanted.command, known) {
            (MeterCommand::Delete, _) => return Ok(self.delete_meters(wanted.meter_id, now)),
            (MeterCommand::Add, Some(_)) => return refuse(MeterModFailed::MeterExists),
            (MeterCommand::Modify, None) => return refuse(MeterModFailed::UnknownMeter),
            (MeterCommand::Add, None) => now,
            (MeterCommand::Modify, Some(known)) => known.added,
        };
        let meter: Meter = meters::meter(wanted, added)?;
        if known.is_none() && self.meters.len() >= METERS_MAX {
            return refuse(MeterModFailed::OutOfMeters);
        }
        let of_sensors = |flow: &Flow| {
            flow.instructions.meter == Some(wanted.meter_id) && self.ports.covers_sensors(&flow.pattern)
        };
        if meter.remarks() && self.flows.iter().any(of_sensors) {
            return refuse(MeterModFailed::BadBand);
        }
        self.put_meter(meter);
        Ok(Outcome { changed: true, removed: Vec::new() })
    }

    /// Flows that lead to a meter.
    #[must_use]
    pub fn metered(&self, meter: u32) -> u32 {
        let flows = self.flows.iter().filter(|flow| flow.instructions.meter == Some(meter)).count();
        u32::try_from(flows).unwrap_or(u32::MAX)
    }

    fn delete_meters(&mut self, id: u32, now: Duration) -> Outcome {
        let ids: Vec<u32> = match id {
            meter::ALL => self.meters.keys().copied().collect(),
            id if self.meters.contains_key(&id) => vec![id],
            _ => return Outcome::default(),
        };
        let uses = |flow: &&Flow| flow.instructions.meter.is_some_and(|meter| ids.contains(&meter));
        let flows = self.flows.iter().filter(uses).map(|flow| (flow.id, RemovedReason::Delete)).collect();
        let outcome = self.remove_flows(flows, now);
        let changed = !ids.is_empty();
        for id in ids {
            self.take_meter(id);
        }
        Outcome { changed, ..outcome }
    }
}
