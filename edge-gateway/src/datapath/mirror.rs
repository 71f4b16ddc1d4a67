//! What is in force of the switch, so that a helper that comes back can be told before it is told anything else.

use std::collections::BTreeMap;

use caregate_protocol::datapath::switch::{CHANGES_MAX, Change, FlowEntry, GroupEntry, MeterEntry};

/// At most as much as the switch holds.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    flows: BTreeMap<u64, FlowEntry>,
    groups: BTreeMap<u32, GroupEntry>,
    meters: BTreeMap<u32, MeterEntry>,
}

impl Mirror {
    /// Takes changes that are in force.
    pub(super) fn take(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Clear => *self = Self::default(),
                Change::PutFlow(flow) => drop(self.flows.insert(flow.id, flow)),
                Change::RemoveFlow(id) => drop(self.flows.remove(&id)),
                Change::PutGroup(group) => drop(self.groups.insert(group.id, group)),
                Change::RemoveGroup(id) => drop(self.groups.remove(&id)),
                Change::PutMeter(meter) => drop(self.meters.insert(meter.id, meter)),
                Change::RemoveMeter(id) => drop(self.meters.remove(&id)),
            }
        }
    }

    /// All of it, for a helper that knows nothing.
    pub(super) fn everything(&self) -> Vec<Change> {
        let meters = self.meters.values().cloned().map(Change::PutMeter);
        let groups = self.groups.values().cloned().map(Change::PutGroup);
        let flows = self.flows.values().cloned().map(Change::PutFlow);
        std::iter::once(Change::Clear).chain(meters).chain(groups).chain(flows).collect()
    }
}

/// The series of `Request::Change`s that is these changes, one at least; with `more` it goes on afterwards. Of each its changes, and
/// whether another follows.
pub(super) fn series(changes: &[Change], more: bool) -> impl Iterator<Item = (&[Change], bool)> {
    let count = changes.len().div_ceil(CHANGES_MAX).max(1);
    (0..count).map(move |number| {
        let rest = changes.get(number * CHANGES_MAX..).unwrap_or_default();
        let part = rest.get(..CHANGES_MAX).unwrap_or(rest);
        (part, more || number + 1 < count)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_cut_where_a_frame_is_full_and_ends_with_its_last() {
        let removes = |count: u64| (0..count).map(Change::RemoveFlow).collect::<Vec<_>>();
        let sizes = |count, more| {
            series(&removes(count), more).map(|(part, more)| (part.len(), more)).collect::<Vec<_>>()
        };
        assert_eq!(sizes(0, false), [(0, false)], "the end of a series that had parts");
        assert_eq!(sizes(1, false), [(1, false)]);
        assert_eq!(sizes(128, true), [(128, true)]);
        assert_eq!(sizes(300, false), [(128, true), (128, true), (44, false)]);
    }

    #[test]
    fn what_is_in_force_is_told_again_and_what_went_is_not() {
        let meter = |id| MeterEntry { id, counts_packets: true, bands: Vec::new() };
        let mut mirror = Mirror::default();
        mirror.take(vec![Change::PutMeter(meter(1)), Change::PutMeter(meter(2)), Change::RemoveMeter(1)]);
        assert_eq!(mirror.everything(), [Change::Clear, Change::PutMeter(meter(2))]);
        mirror.take(vec![Change::Clear, Change::PutMeter(meter(3))]);
        assert_eq!(mirror.everything(), [Change::Clear, Change::PutMeter(meter(3))]);
    }
}
