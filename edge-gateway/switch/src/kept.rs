//! What outlasts the process.

use caregate_protocol::openflow::{FlowMod, GroupMod, MeterMod};

/// What is kept, as messages that add it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// First, because flows name them.
    pub meters: Vec<MeterMod>,
    /// Then these, for the same reason.
    pub groups: Vec<GroupMod>,
    /// In the order in which a frame meets them.
    pub flows: Vec<FlowMod>,
}

impl Kept {
    /// Flows, groups and meters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.meters.len() + self.groups.len() + self.flows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Vec<FlowMod>> for Kept {
    fn from(flows: Vec<FlowMod>) -> Self {
        Self { flows, ..Self::default() }
    }
}
