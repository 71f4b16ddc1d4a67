//! One flow (OpenFlow 1.3.5 §5.2).

use std::sync::Arc;
use std::time::Duration;

use caregate_protocol::datapath::switch::{FlowAction, FlowEntry, FlowInstructions};
pub use caregate_protocol::openflow::{Command, RemovedReason, flags};

use super::pattern::Pattern;

/// Frames and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Traffic {
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(earlier.packets),
            bytes: self.bytes.saturating_sub(earlier.bytes),
        }
    }
}

impl From<caregate_protocol::datapath::Traffic> for Traffic {
    fn from(of: caregate_protocol::datapath::Traffic) -> Self {
        Self { packets: of.frames, bytes: of.bytes }
    }
}

/// Names a flow and its counters at the helper; a flow with another match never has the id of an earlier one while the tables live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u64);

/// One flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Of its counters.
    pub id: FlowId,
    /// Where it is.
    pub table: u8,
    /// Higher comes first.
    pub priority: u16,
    /// Which frames.
    pub pattern: Arc<Pattern>,
    /// What is done with them.
    pub instructions: Arc<FlowInstructions>,
    /// The controller's own mark.
    pub cookie: u64,
    /// Seconds without a frame; 0 for ever.
    pub idle_timeout_s: u16,
    /// Seconds; 0 for ever.
    pub hard_timeout_s: u16,
    /// [`flags`].
    pub flags: u16,
    /// When it was added.
    pub added: Duration,
    /// When it was added or last seen to have matched.
    pub(super) used: Duration,
    /// As last read from the helper, since the flow has its id.
    pub(super) seen: Traffic,
    /// What `seen` was when counters were reset.
    pub(super) reset: Traffic,
}

impl Flow {
    /// What it has matched.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.seen.since(self.reset)
    }

    /// The same as statistics say it: all ones for what the controller doesn't want counted (`OFPFF_NO_PKT_COUNTS`,
    /// `OFPFF_NO_BYT_COUNTS`).
    #[must_use]
    pub fn reported(&self) -> Traffic {
        let traffic = self.traffic();
        let unless = |flag: u16, count: u64| if self.flags & flag == 0 { count } else { u64::MAX };
        Traffic {
            packets: unless(flags::NO_PKT_COUNTS, traffic.packets),
            bytes: unless(flags::NO_BYT_COUNTS, traffic.bytes),
        }
    }

    pub(super) fn forget_traffic(&mut self) {
        self.reset = self.seen;
    }

    /// Its actions, applied and written.
    pub fn actions(&self) -> impl Iterator<Item = &FlowAction> {
        self.instructions.apply.iter().chain(&self.instructions.write)
    }

    /// Whether frames end here and go nowhere.
    #[must_use]
    pub fn drops(&self) -> bool {
        self.instructions.goto.is_none() && self.actions().next().is_none()
    }

    /// Whether the helper is told the same of both.
    #[must_use]
    pub(super) fn acts_as(&self, other: &Self) -> bool {
        self.id == other.id && self.instructions == other.instructions
    }

    /// What the helper is told.
    #[must_use]
    pub fn entry(&self) -> FlowEntry {
        let (value, mask) = self.pattern.bytes();
        FlowEntry {
            id: self.id.0,
            table: self.table,
            priority: self.priority,
            value,
            mask,
            instructions: Arc::clone(&self.instructions),
        }
    }

    /// When it ends of itself if nothing more matches, and why.
    pub(super) fn expiry(&self) -> Option<(Duration, RemovedReason)> {
        let after = |since: Duration, seconds: u16| since + Duration::from_secs(u64::from(seconds));
        let hard = (self.hard_timeout_s > 0)
            .then(|| (after(self.added, self.hard_timeout_s), RemovedReason::HardTimeout));
        let idle = (self.idle_timeout_s > 0)
            .then(|| (after(self.used, self.idle_timeout_s), RemovedReason::IdleTimeout));
        match (hard, idle) {
            (Some(hard), Some(idle)) => Some(if idle.0 < hard.0 { idle } else { hard }),
            (hard, idle) => hard.or(idle),
        }
    }
}

/// A flow that went, of those whose controller wants to be told (`OFPFF_SEND_FLOW_REM`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// As it was.
    pub flow: Flow,
    /// Why.
    pub reason: RemovedReason,
    /// How long it was in the table.
    pub lasted: Duration,
}
