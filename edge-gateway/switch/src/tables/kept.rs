//! What is kept on disk, and taken from there.

use std::time::Duration;

use super::super::groups::Group;
use super::super::kept::Kept;
use super::super::meters::Meter;
use super::super::translate;
use super::Tables;

impl Tables {
    /// All that there is, as messages that add it.
    #[must_use]
    pub fn kept(&self) -> Kept {
        Kept {
            meters: self.meters.values().map(Meter::stored).collect(),
            groups: self.stored_groups(),
            flows: self.flows.iter().map(translate::stored).collect(),
        }
    }

    /// Groups that others watch before these.
    fn stored_groups(&self) -> Vec<caregate_protocol::openflow::GroupMod> {
        let mut ordered: Vec<&Group> = Vec::new();
        // In each round at least one, since no group watches itself over others.
        while ordered.len() < self.groups.len() {
            let before = ordered.len();
            for group in self.groups.values() {
                let is_done = |id: u32| ordered.iter().any(|done| done.entry.id == id);
                if !is_done(group.entry.id) && group.watched().all(is_done) {
                    ordered.push(group);
                }
            }
            if ordered.len() == before {
                break;
            }
        }
        ordered.into_iter().map(Group::stored).collect()
    }

    /// Takes what was kept; says how much of it means nothing here, and is left out.
    pub fn restore(&mut self, kept: &Kept, now: Duration) -> usize {
        let meters = kept.meters.iter().filter(|wanted| self.meter_mod(wanted, now).is_err()).count();
        let groups = kept.groups.iter().filter(|wanted| self.group_mod(wanted, now).is_err()).count();
        let flows = kept.flows.iter().filter(|wanted| self.flow_mod(wanted, now).is_err()).count();
        meters + groups + flows
    }
}
