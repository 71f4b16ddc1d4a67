//! The gateway's end of an OpenFlow 1.3.5 connection, and the tables that outlive it.
//!
//! ```text
//!   controller ──frames──▶ Agent ──Install, PacketOut, ReadCounters──▶ helper
//!              ◀──Send────        ◀──installed, counters, punts──────
//! ```
//! Pure: each call is given `now`, a span since an instant of the caller's choice that never goes back, and returns what to do.
//!
//! **What a controller changes is gathered and installed together** (`batch`): when nothing follows for [`FLUSH_IDLE`], when much
//! waits, or when something is asked whose answer depends on it (a barrier, statistics). The helper is told of it part by part, so that it
//! works while the controller writes. Until it has confirmed the last, no further
//! frame is taken: [`Agent::is_waiting`] says so and the shell leaves the socket alone. So a barrier's reply means that the kernel judges
//! by all that came before it (§7.3.8), there is no queue to bound, and a refusal by the helper is told to each message that it
//! concerned, under its transaction id, with the tables as they were before.

mod batch;
mod conversation;
mod features;
mod incoming;
mod packets;
mod requests;
mod statistics;

use std::collections::BTreeMap;
use std::time::Duration;

use caregate_protocol::datapath::switch::{Change, SwitchCounters};
use caregate_protocol::datapath::{self, Counters, Welcome};
use caregate_protocol::openflow::{Message, PortReason, PortStatus};

use super::kept::Kept;
use super::ports::{Guard, PortEntry, Ports};
use super::tables::Tables;
pub use batch::{BATCH_MAX, FLUSH_IDLE, FLUSH_MAX, KEEP_INTERVAL};
use batch::{Batch, Request};
use conversation::Conversation;
pub use conversation::{CloseReason, ECHO_INTERVAL, ECHO_TIMEOUT, FAULTS_MAX, HANDSHAKE_TIMEOUT};
pub use incoming::Incoming;

/// Packet-outs that the helper has not confirmed: a flood of a few frames, and 100 kB at most.
pub const PACKET_OUTS_MAX: usize = 64;
/// Frames that the helper has not confirmed, above which no punted frame is taken: a helper that is slow drops frames, and the
/// controller's own go first.
pub const PUNTS_MAX: usize = 256;
/// Packet-ins a second, and at once: a controller answers thousands, and the kernel's ring has a meter of its own.
pub const PACKET_INS_PER_S: u32 = 1000;
/// How often counters are read while a flow has an idle timeout, whose unit is a second.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// What does not change while the daemon runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// From the configuration.
    pub datapath_id: u64,
    /// The gateway's name in its certificate; `dp_desc` (§7.3.5.1).
    pub name: String,
    /// Of the daemon.
    pub version: &'static str,
    /// [`Guard::built`], but in tests.
    pub guard: Guard,
}

/// A part of a batch of changes: parts are told to the helper while the controller still writes, so that it need not be told all at
/// the end. They come into force together, with the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Of the batch; another for each.
    pub batch: u64,
    /// Parts of it that were told before this one.
    pub before: u32,
}

impl Part {
    /// Of changes that are told all at once.
    pub const WHOLE: Self = Self { batch: 0, before: 0 };
}

/// What to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send these bytes, one whole message.
    Send(Vec<u8>),
    /// Have the helper make itself ready for these changes; none of them is in force before the batch is installed. Nothing is to be
    /// called: where this fails, so does [`Action::Install`].
    Prepare {
        /// Which of its batch.
        part: Part,
        /// What is other than before.
        changes: Vec<Change>,
    },
    /// Make durable what is to be, then have the helper change its tables in one step, then call [`Agent::handle_installed`].
    Install {
        /// All that there is; none where it may be lost with the power.
        kept: Option<Kept>,
        /// The last of its batch.
        part: Part,
        /// What is other than before.
        changes: Vec<Change>,
    },
    /// Make this durable; nobody waits for it.
    Keep(Kept),
    /// Have the helper send this frame, then call [`Agent::handle_packet_out`].
    PacketOut {
        /// To be given back.
        ticket: u64,
        /// To no sensor port.
        packet: datapath::PacketOut,
    },
    /// Ask the helper for its counters, then call [`Agent::handle_counters`].
    ReadCounters,
    /// The controller has said hello, in a version that is spoken here.
    Established,
    /// Something was refused or left alone; the word is for a counter.
    Refused(&'static str),
    /// Send what is due, then close the connection. Nothing follows for it.
    Close(CloseReason),
}

/// The helper did not do it, or is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HelperRefused;

/// What the helper has counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readings {
    /// Of ports.
    pub ports: Counters,
    /// Of tables, flows, groups and meters.
    pub switch: SwitchCounters,
}

/// A frame on its way to the helper.
#[derive(Debug)]
enum Sending {
    /// A packet-out's.
    Asked(Request),
    /// One whose connection is gone.
    Orphan,
    /// A punted frame's.
    Punt,
}

/// The switch.
#[derive(Debug)]
pub struct Agent {
    settings: Settings,
    tables: Tables,
    /// The helper answers.
    is_helper_there: bool,
    batch: Option<Batch>,
    /// The helper went while it had something to confirm, and may have taken it, or take it when it comes back.
    is_unsure: bool,
    /// Since when what is in force is not on disk.
    unkept: Option<Duration>,
    /// As last read.
    readings: Readings,
    is_reading: bool,
    polled: Duration,
    /// When flows may be timed out again, after the helper has refused.
    not_before: Duration,
    /// Frames that the helper has not confirmed, by ticket; [`PACKET_OUTS_MAX`] and [`PUNTS_MAX`], and the other copies of the
    /// last of them.
    packet_outs: BTreeMap<u64, Sending>,
    conversation: Option<Conversation>,
    /// Of a master or slave, whichever connection it came by (§6.3.5).
    generation: Option<u64>,
    next_ticket: u64,
    next_batch: u64,
}

impl Agent {
    /// With the helper's ports and what was kept; what means nothing with these ports is left out, and the number of such entries is
    /// returned. The first action installs the others.
    #[must_use]
    pub fn new(
        settings: Settings,
        welcome: &Welcome,
        kept: &Kept,
        now: Duration,
    ) -> (Self, Vec<Action>, usize) {
        let ports = Ports::new(settings.guard, welcome, now);
        let mut agent = Self {
            settings,
            tables: Tables::new(ports),
            is_helper_there: true,
            batch: None,
            is_unsure: false,
            unkept: None,
            readings: Readings::default(),
            is_reading: false,
            polled: now,
            not_before: now,
            packet_outs: BTreeMap::new(),
            conversation: None,
            generation: None,
            next_ticket: 1,
            next_batch: 1,
        };
        let lost = agent.tables.restore(kept, now);
        let batch = agent.begin_batch(now);
        batch.is_installing = true;
        let (part, changes) = (batch.next_part(), agent.tables.everything());
        let install = Action::Install { kept: Some(agent.tables.kept()), part, changes };
        (agent, vec![install], lost)
    }

    /// Flows, groups, meters and ports, for whoever only reads.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// True while no frame may be given to [`handle_frame`](Self::handle_frame): the helper has something to confirm first.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.is_installing()
            || self.asked_outs() >= PACKET_OUTS_MAX
            || self.conversation.as_ref().is_some_and(Conversation::is_waiting)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        let talk = self.conversation.as_ref().and_then(|talk| talk.next_timeout());
        [talk, self.flows_due(), self.flush_due(), self.keep_due()].into_iter().flatten().min()
    }

    /// When counters are to be read, to see which flows have timed out. Tables that can't be changed or counted now wait for what
    /// the helper has to say.
    fn flows_due(&self) -> Option<Duration> {
        let is_free = self.is_helper_there && !self.is_reading && !self.is_installing();
        let due = self.tables.flows().next_timeout().into_iter().chain(self.next_poll()).min();
        due.filter(|_| is_free).map(|due| due.max(self.not_before))
    }

    fn next_poll(&self) -> Option<Duration> {
        self.tables.flows().has_idle().then_some(self.polled + POLL_INTERVAL)
    }

    /// To be called at [`next_timeout`](Self::next_timeout) or later; earlier it does nothing.
    #[must_use]
    pub fn handle_timeout(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Some(talk) = &mut self.conversation {
            talk.handle_timeout(now, &mut actions);
        }
        if self.flush_due().is_some_and(|due| due <= now) {
            self.flush_batch(&mut actions);
        }
        if self.flows_due().is_some_and(|due| due <= now) {
            self.read_counters(&mut actions);
        }
        if self.keep_due().is_some_and(|due| due <= now) {
            self.keep(&mut actions);
        }
        actions
    }

    /// Takes what came of [`Action::ReadCounters`].
    #[must_use]
    pub fn handle_counters(&mut self, result: Result<Readings, HelperRefused>, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        self.is_reading = false;
        self.polled = now;
        if let Ok(readings) = result {
            self.tables.observe(&readings.switch.flows, now);
            self.readings = readings;
            self.expire(now, &mut actions);
        } else {
            self.not_before = now + POLL_INTERVAL;
        }
        self.answer_statistics(now, &mut actions);
        self.proceed(now, &mut actions);
        actions
    }

    /// Counters are fresh: what has timed out goes.
    fn expire(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.is_installing() || self.tables.flows().next_timeout().is_none_or(|due| now < due) {
            return;
        }
        let outcome = self.tables.expire(now);
        self.begin_batch(now).removed.extend(outcome.removed);
        self.flush_batch(actions);
    }

    fn read_counters(&mut self, actions: &mut Vec<Action>) {
        if !self.is_reading {
            self.is_reading = true;
            actions.push(Action::ReadCounters);
        }
    }

    /// The helper went, or does not answer: what waits for it is refused, and flows stay as the kernel has them.
    #[must_use]
    pub fn handle_helper_lost(&mut self, now: Duration) -> Vec<Action> {
        self.is_helper_there = false;
        self.is_unsure |= self.is_installing();
        let mut actions = self.handle_installed(Err(HelperRefused), now);
        if let Some(batch) = self.batch.take() {
            self.roll_back(batch, &mut actions);
        }
        let tickets: Vec<_> = self.packet_outs.keys().copied().collect();
        for ticket in tickets {
            actions.extend(self.handle_packet_out(ticket, Err(HelperRefused), now));
        }
        if self.is_reading {
            actions.extend(self.handle_counters(Err(HelperRefused), now));
        }
        actions
    }

    /// The helper is there again, and knows what was in force when it went: its ports are taken, and what means nothing with them goes.
    #[must_use]
    pub fn handle_helper(&mut self, welcome: &Welcome, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        for port in &welcome.ports {
            self.take_port(port, now, &mut actions);
        }
        for gone in self.tables.ports_mut().retain(welcome) {
            self.tell_port(PortReason::Delete, &gone, &mut actions);
        }
        self.is_helper_there = true;
        let outcome = self.tables.recheck(now);
        if outcome.changed || self.is_unsure {
            self.begin_batch(now).removed.extend(outcome.removed);
            self.flush_batch(&mut actions);
        }
        actions
    }

    /// A port has changed.
    #[must_use]
    pub fn handle_port(&mut self, port: &datapath::Port, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        self.take_port(port, now, &mut actions);
        actions
    }

    fn take_port(&mut self, port: &datapath::Port, now: Duration, actions: &mut Vec<Action>) {
        let ports = self.tables.ports_mut();
        let reason = match ports.find_mut(port.number) {
            Some(entry) if entry.port == *port => return,
            Some(entry) => {
                (entry.port, entry.since) = (port.clone(), now);
                PortReason::Modify
            }
            None => {
                ports.add(port.clone(), now);
                PortReason::Add
            }
        };
        let entry = self.tables.ports().find(port.number).cloned();
        entry.iter().for_each(|entry| self.tell_port(reason, entry, actions));
    }

    fn tell_port(&self, reason: PortReason, entry: &PortEntry, actions: &mut Vec<Action>) {
        let wants = |talk: &Conversation| talk.wants_port_status(reason);
        let status = PortStatus { reason, port: entry.describe() };
        self.tell(wants, &Message::PortStatus(status), actions);
    }

    /// Tells the controller what it did not ask for, if it wants that (§7.3.10).
    fn tell(&self, wants: impl Fn(&Conversation) -> bool, message: &Message, actions: &mut Vec<Action>) {
        if let Some(talk) = self.conversation.as_ref().filter(|talk| talk.is_open() && wants(talk)) {
            talk.answer(0, message, actions);
        }
    }

    fn tell_error(&self, request: Request, actions: &mut Vec<Action>) {
        if let Some(talk) = &self.conversation {
            talk.answer(request.xid, &Message::Error(request.error()), actions);
        }
    }
}

#[cfg(test)]
mod tests;
