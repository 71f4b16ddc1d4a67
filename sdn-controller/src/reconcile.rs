//! Brings one switch's flows to what intents ask for, and keeps them there.
//!
//! ```text
//!           ┌───────────── nothing differs: confirmed ────────────┐
//!           ▼                                                     │
//!  Idle ──due──▶ Reading ──differs──▶ Writing (mods, barrier, read back) ──differs still──▶ Writing …
//!   ▲  new rules ────────────────────▲      │
//!   └── no answer, or no progress in ATTEMPTS_MAX ──┘  (again after RETRY_INTERVAL)
//! ```
//! What a switch reports is the only truth: rules count as confirmed when they were read back behind a barrier (§6.1.3), and are
//! read again every [`READ_INTERVAL`], so that what somebody else took away comes back. Pure: each call is given `now` and a
//! function that sends a message and says under which transaction id.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use caregate_protocol::openflow::multipart::{FlowStats, FlowStatsRequest, RequestBody};
use caregate_protocol::openflow::{ErrorKind, Message};

use crate::rule::{Change, Rule, difference, is_own};

/// Between two readings of a switch's flows; a drift is mended within it.
pub const READ_INTERVAL: Duration = Duration::from_secs(1);
/// A switch that takes long to report is asked less often: so many times as long as its last report took.
const READ_PAUSE_FACTOR: u32 = 10;
/// For one answer. The echo notices a dead connection in the same time.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// Writings without progress, or readings without answer, before a pause.
pub const ATTEMPTS_MAX: u32 = 3;
/// The pause after that, and until a refused rule is tried again.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// Flow-mods between two barriers: 16 kB, which any switch takes in one go.
pub const CHANGES_MAX: usize = 128;
/// Flows of others that are kept to be shown: the 64 of a gateway many times over.
pub const OTHERS_KEPT_MAX: usize = 1024;

/// Sends a message; its transaction id.
pub type Send<'s> = &'s mut dyn FnMut(&Message) -> u32;

/// What a switch was found to hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flows {
    /// Own ones, and [`OTHERS_KEPT_MAX`] of others.
    pub kept: Vec<FlowStats>,
    /// How many it has.
    pub total: usize,
}

impl Flows {
    fn of(flows: Vec<FlowStats>) -> Self {
        let total = flows.len();
        let mut others = 0;
        let mut keep = |flow: &FlowStats| {
            others += usize::from(!is_own(flow.cookie));
            is_own(flow.cookie) || others <= OTHERS_KEPT_MAX
        };
        Self { kept: flows.into_iter().filter(|flow| keep(flow)).collect(), total }
    }
}

/// What is worth a line in the events, or a counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// The switch holds the rules of this version, as far as it takes them.
    Confirmed(u64),
    /// So many of the confirmed flows were gone or changed.
    Drifted(usize),
    /// The switch refuses a rule of this intent.
    Refused(String, ErrorKind),
    /// So many flows still differ after [`ATTEMPTS_MAX`].
    Diverged(usize),
    /// No answer within [`REPLY_TIMEOUT`].
    TimedOut,
    /// The switch won't report its flows.
    Unreadable(ErrorKind),
}

/// What is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The last reading found what there should be.
    InSync,
    /// Flows are being read or written.
    Busy,
    /// The switch did not come to what there should be; it is tried again.
    Waiting,
}

#[derive(Debug)]
enum State {
    Idle {
        read_at: Duration,
    },
    Reading {
        xid: u32,
        since: Duration,
    },
    Writing {
        /// Which intent each flow-mod is for.
        mods: BTreeMap<u32, Option<String>>,
        /// Its answer says nothing that the reading behind it doesn't.
        barrier: u32,
        xid: u32,
        since: Duration,
        /// Flows that differed before.
        before: usize,
    },
}

/// One switch's.
#[derive(Debug)]
pub struct Reconciler {
    rules: Vec<Rule>,
    version: u64,
    state: State,
    /// Less than [`ATTEMPTS_MAX`].
    attempts: u32,
    confirmed: Option<u64>,
    /// Of the present version, one for each intent.
    refused: BTreeMap<String, ErrorKind>,
    refused_until: Duration,
    flows: Arc<Flows>,
    /// The switch has said what it holds, and nothing speaks against it yet.
    known: bool,
    differing: usize,
    reads_begun: u64,
    reads_done: u64,
    /// Somebody wants a reading that begins later than the present one.
    again: bool,
}

impl Reconciler {
    /// A connection that has just been established: reads at once.
    pub fn start(version: u64, rules: Vec<Rule>, now: Duration, send: Send<'_>) -> Self {
        let mut reconciler = Self {
            rules,
            version,
            state: State::Idle { read_at: now },
            attempts: 0,
            confirmed: None,
            refused: BTreeMap::new(),
            refused_until: now,
            flows: Arc::default(),
            known: false,
            differing: 0,
            reads_begun: 0,
            reads_done: 0,
            again: false,
        };
        reconciler.begin_reading(now, send);
        reconciler
    }

    /// New rules. What differs from the last reading is written at once, unless something is under way: then behind that.
    pub fn set_rules(
        &mut self,
        version: u64,
        rules: Vec<Rule>,
        now: Duration,
        send: Send<'_>,
    ) -> Vec<Happened> {
        self.version = version;
        if rules == self.rules && matches!(self.state, State::Idle { .. }) && self.is_in_sync() {
            self.confirmed = Some(version);
            return vec![Happened::Confirmed(version)];
        }
        self.rules = rules;
        self.attempts = 0;
        self.refused.clear();
        match &mut self.state {
            State::Idle { .. } => {
                let changes = self.changes();
                self.write_or_rest(changes, now, send)
            }
            // What they answer is about rules that may not be wanted any more.
            State::Writing { mods, .. } => {
                mods.values_mut().for_each(|intent| *intent = None);
                Vec::new()
            }
            State::Reading { .. } => Vec::new(),
        }
    }

    /// Asks for a reading that begins now or later; it is done when [`reads_done`](Self::reads_done) has reached the number.
    pub fn read(&mut self, now: Duration, send: Send<'_>) -> u64 {
        if matches!(self.state, State::Idle { .. }) {
            self.begin_reading(now, send);
            self.reads_begun
        } else {
            self.again = true;
            self.reads_begun + 1
        }
    }

    /// How many readings have ended.
    #[must_use]
    pub fn reads_done(&self) -> u64 {
        self.reads_done
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn next_timeout(&self) -> Duration {
        match self.state {
            State::Idle { read_at } => read_at,
            State::Reading { since, .. } | State::Writing { since, .. } => since + REPLY_TIMEOUT,
        }
    }

    /// To be called at [`next_timeout`](Self::next_timeout) or later; earlier it does nothing.
    pub fn handle_timeout(&mut self, now: Duration, send: Send<'_>) -> Vec<Happened> {
        if now < self.next_timeout() {
            return Vec::new();
        }
        match self.state {
            State::Idle { .. } => {
                if now >= self.refused_until {
                    self.refused.clear();
                }
                self.begin_reading(now, send);
                Vec::new()
            }
            State::Reading { .. } | State::Writing { .. } => {
                self.reads_done = self.reads_begun;
                self.known = false;
                self.attempts += 1;
                if self.attempts < ATTEMPTS_MAX {
                    self.begin_reading(now, send);
                } else {
                    self.pause(now);
                }
                vec![Happened::TimedOut]
            }
        }
    }

    /// Whether a reply under this transaction id is this machine's.
    #[must_use]
    pub fn awaits(&self, asked: u32) -> bool {
        match &self.state {
            State::Idle { .. } => false,
            State::Reading { xid, .. } => *xid == asked,
            State::Writing { mods, barrier, xid, .. } => {
                *xid == asked || *barrier == asked || mods.contains_key(&asked)
            }
        }
    }

    /// The switch's flows, whole.
    pub fn handle_flows(
        &mut self,
        asked: u32,
        flows: Vec<FlowStats>,
        now: Duration,
        send: Send<'_>,
    ) -> Vec<Happened> {
        let (since, before) = match &self.state {
            State::Reading { xid, since } if *xid == asked => (*since, None),
            State::Writing { xid, since, before, .. } if *xid == asked => (*since, Some(*before)),
            State::Idle { .. } | State::Reading { .. } | State::Writing { .. } => return Vec::new(),
        };
        self.reads_done = self.reads_begun;
        self.flows = Arc::new(Flows::of(flows));
        self.known = true;
        let changes = self.changes();
        let pause = READ_INTERVAL.max(now.saturating_sub(since) * READ_PAUSE_FACTOR);
        self.state = State::Idle { read_at: now + pause };
        let mut happened = Vec::new();
        if before.is_none() && self.confirmed == Some(self.version) && !changes.is_empty() {
            happened.push(Happened::Drifted(changes.len()));
        }
        match before {
            Some(before) if changes.len() >= before => self.attempts += 1,
            Some(_) | None => self.attempts = 0,
        }
        if self.attempts >= ATTEMPTS_MAX && !changes.is_empty() {
            happened.push(Happened::Diverged(changes.len()));
            self.pause(now);
        } else {
            happened.extend(self.write_or_rest(changes, now, send));
        }
        if self.again && matches!(self.state, State::Idle { .. }) {
            self.begin_reading(now, send);
        }
        happened
    }

    /// An error about one of this machine's messages.
    pub fn handle_error(&mut self, asked: u32, kind: ErrorKind, now: Duration) -> Vec<Happened> {
        match &mut self.state {
            State::Idle { .. } => Vec::new(),
            State::Reading { xid, .. } if *xid == asked => self.unreadable(kind, now),
            State::Writing { xid, .. } if *xid == asked => self.unreadable(kind, now),
            State::Reading { .. } => Vec::new(),
            State::Writing { mods, .. } => match mods.get_mut(&asked).and_then(Option::take) {
                Some(intent) => {
                    self.refused_until = now + RETRY_INTERVAL;
                    self.refused.insert(intent.clone(), kind);
                    vec![Happened::Refused(intent, kind)]
                }
                None => Vec::new(),
            },
        }
    }

    /// What is going on.
    #[must_use]
    pub fn phase(&self) -> Phase {
        let is_confirmed = self.is_in_sync() && self.confirmed == Some(self.version);
        match self.state {
            State::Writing { .. } => Phase::Busy,
            State::Idle { .. } | State::Reading { .. } if is_confirmed => Phase::InSync,
            State::Reading { .. } => Phase::Busy,
            State::Idle { .. } => Phase::Waiting,
        }
    }

    /// The version of the rules that it is to hold.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The version that it was last found to hold.
    #[must_use]
    pub fn confirmed(&self) -> Option<u64> {
        self.confirmed
    }

    /// Rules that it is to hold.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.rules.len()
    }

    /// Flows that differ from them, without those that it refuses.
    #[must_use]
    pub fn differing(&self) -> usize {
        self.differing
    }

    /// The intents whose rules it refuses, and how.
    #[must_use]
    pub fn refused(&self) -> &BTreeMap<String, ErrorKind> {
        &self.refused
    }

    /// What it held at the last reading.
    #[must_use]
    pub fn flows(&self) -> &Arc<Flows> {
        &self.flows
    }

    fn is_in_sync(&self) -> bool {
        self.known && self.differing == 0 && self.attempts == 0
    }

    fn changes(&mut self) -> Vec<Change> {
        let mut changes = difference(&self.rules, &self.flows.kept);
        let refused = &self.refused;
        changes.retain(|change| change.intent.as_ref().is_none_or(|intent| !refused.contains_key(intent)));
        self.differing = changes.len();
        changes
    }

    fn write_or_rest(&mut self, changes: Vec<Change>, now: Duration, send: Send<'_>) -> Vec<Happened> {
        if !changes.is_empty() {
            self.write(changes, now, send);
            return Vec::new();
        }
        if !self.known {
            self.begin_reading(now, send);
            return Vec::new();
        }
        let first = self.confirmed.replace(self.version) != Some(self.version);
        if first { vec![Happened::Confirmed(self.version)] } else { Vec::new() }
    }

    fn write(&mut self, changes: Vec<Change>, now: Duration, send: Send<'_>) {
        let before = changes.len();
        let changes = changes.into_iter().take(CHANGES_MAX);
        let mods = changes.map(|change| (send(&Message::FlowMod(change.flow_mod)), change.intent)).collect();
        let barrier = send(&Message::BarrierRequest);
        let xid = self.request_flows(send);
        self.state = State::Writing { mods, barrier, xid, since: now, before };
    }

    fn begin_reading(&mut self, now: Duration, send: Send<'_>) {
        let xid = self.request_flows(send);
        self.state = State::Reading { xid, since: now };
    }

    fn request_flows(&mut self, send: Send<'_>) -> u32 {
        self.reads_begun += 1;
        self.again = false;
        send(&Message::MultipartRequest(RequestBody::Flow(FlowStatsRequest::all()).into()))
    }

    fn unreadable(&mut self, kind: ErrorKind, now: Duration) -> Vec<Happened> {
        self.reads_done = self.reads_begun;
        self.pause(now);
        self.known = false;
        vec![Happened::Unreadable(kind)]
    }

    fn pause(&mut self, now: Duration) {
        self.attempts = ATTEMPTS_MAX - 1;
        self.state = State::Idle { read_at: now + RETRY_INTERVAL };
    }
}

#[cfg(test)]
mod tests;
