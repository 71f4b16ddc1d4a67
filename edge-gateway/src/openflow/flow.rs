//! One flow of table 1, and the flow-mod that changes the table (OpenFlow 1.3.5 §7.3.4.1).

use std::time::Duration;

use caregate_protocol::openflow::Instruction;
pub use caregate_protocol::openflow::{Command, RemovedReason, flags};

use super::pattern::Pattern;
use super::treatment::{Action, Treatment};

/// A decoded flow-mod. Match and actions are of those that this switch has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowMod {
    /// What to do.
    pub command: Command,
    /// 1; for deletes also [`TABLE_ALL`](caregate_protocol::openflow::TABLE_ALL).
    pub table_id: u8,
    /// The controller's own mark.
    pub cookie: u64,
    /// For modify and delete: the bits of `cookie` that a flow's must equal.
    pub cookie_mask: u64,
    /// Seconds without a frame; 0 for ever.
    pub idle_timeout_s: u16,
    /// Seconds; 0 for ever.
    pub hard_timeout_s: u16,
    /// Higher comes first.
    pub priority: u16,
    /// [`NO_BUFFER`](caregate_protocol::openflow::NO_BUFFER), since nothing is buffered here.
    pub buffer_id: u32,
    /// For deletes: only flows with an output to this port; [`port::ANY`](super::port::ANY) for all.
    pub out_port: u32,
    /// For deletes: [`port::ANY`](super::port::ANY), which is `OFPG_ANY` too; no flow here has a group.
    pub out_group: u32,
    /// [`flags`].
    pub flags: u16,
    /// Which frames.
    pub pattern: Pattern,
    /// What is done with them, as the controller wrote it.
    pub instructions: Vec<Instruction>,
    /// What that comes to; none drops.
    pub actions: Vec<Action>,
}

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

    pub(super) fn and(self, other: Self) -> Self {
        Self {
            packets: self.packets.saturating_add(other.packets),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// Names a flow's counters at the helper; never used twice while the table lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u64);

/// One flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Of its counters.
    pub id: FlowId,
    /// Higher comes first.
    pub priority: u16,
    /// Which frames.
    pub pattern: Pattern,
    /// What is done with them.
    pub treatment: Treatment,
    /// The same, as the controller wrote it; a flow's statistics show it.
    pub instructions: Vec<Instruction>,
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
    /// Of the flow that it replaced.
    pub(super) inherited: Traffic,
}

impl Flow {
    /// What it has matched.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.seen.since(self.reset).and(self.inherited)
    }

    pub(super) fn forget_traffic(&mut self) {
        (self.reset, self.inherited) = (self.seen, Traffic::default());
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
