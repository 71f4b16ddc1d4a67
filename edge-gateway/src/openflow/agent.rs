//! The gateway's end of an OpenFlow 1.3.5 connection, and the table that outlives it.
//!
//! ```text
//!   controller ──frames──▶ Agent ──Install, PacketOut, ReadCounters──▶ helper
//!              ◀──Send────        ◀──installed, counters, packet-in────
//! ```
//! Pure: each call is given `now`, a span since an instant of the caller's choice that never goes back, and returns what to do.
//!
//! **Flow-mods are gathered and installed together**, when the shell has no more frames at hand, when [`BATCH_MAX`] of them wait, or
//! when something is asked whose answer depends on them (a barrier, statistics). Until the helper has confirmed, no further frame is
//! taken: [`Agent::is_waiting`] says so and the shell leaves the socket alone. So a barrier's reply means that the kernel judges by
//! all that came before it (§7.3.8), there is no queue to bound, and a refusal by the helper is told to each flow-mod that it
//! concerned, under its transaction id, with the table as it was before.

mod conversation;
mod requests;
mod statistics;

use std::collections::BTreeMap;
use std::time::Duration;

use caregate_protocol::datapath::{self, Counters, Rule, Welcome};
use caregate_protocol::openflow::{self, ErrorMessage, Message, PortReason, PortStatus};

use super::flow::{Flow, FlowId, Removed, Traffic};
use super::table::FlowTable;
use super::translate;
use super::treatment::{PortRole, Ports};
use conversation::Conversation;
pub use conversation::{CloseReason, ECHO_INTERVAL, ECHO_TIMEOUT, FAULTS_MAX, HANDSHAKE_TIMEOUT};

/// Flow-mods that are installed together: a whole table. Each is one that may have to be told of a refusal.
pub const BATCH_MAX: usize = 64;
/// Packet-outs that the helper has not confirmed: a few LLDP frames for each port, and 100 kB at most.
pub const PACKET_OUTS_MAX: usize = 64;
/// Packet-ins a second, and at once: a controller answers thousands, and the kernel's ring has a meter of its own.
pub const PACKET_INS_PER_S: u32 = 200;
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
}

/// What to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send these bytes, one whole message.
    Send(Vec<u8>),
    /// Make these flows durable, then replace the kernel's table, then call [`Agent::handle_installed`].
    Install {
        /// As flow-mods that add them.
        flows: Vec<openflow::FlowMod>,
        /// The same for the helper.
        rules: Vec<Rule>,
    },
    /// Make these flows durable: the helper refused what came after them.
    Keep(Vec<openflow::FlowMod>),
    /// Have the helper send this frame, then call [`Agent::handle_packet_out`].
    PacketOut {
        /// To be given back.
        ticket: u64,
        /// An uplink.
        port: u32,
        /// From its Ethernet header on.
        frame: Vec<u8>,
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

/// One port and since when it is as it is.
#[derive(Debug, Clone)]
struct PortEntry {
    port: datapath::Port,
    since: Duration,
}

/// A flow-mod that is told if the helper refuses.
#[derive(Debug, Clone)]
struct Request {
    xid: u32,
    error: ErrorMessage,
}

/// Changes of the table that the helper has not confirmed.
#[derive(Debug)]
struct Batch {
    /// The flows before them.
    before: Vec<Flow>,
    /// At most [`BATCH_MAX`].
    requests: Vec<Request>,
    /// To be reported once it is true.
    removed: Vec<Removed>,
    /// The helper has them.
    is_installing: bool,
}

/// The switch.
#[derive(Debug)]
pub struct Agent {
    settings: Settings,
    table: FlowTable,
    /// By number, from 1.
    ports: Vec<PortEntry>,
    /// The helper answers.
    is_helper_there: bool,
    batch: Option<Batch>,
    /// As last read.
    counters: Counters,
    is_reading: bool,
    polled: Duration,
    /// When flows may be timed out again, after the helper has refused.
    not_before: Duration,
    /// Frames that the helper has not confirmed, by ticket; [`PACKET_OUTS_MAX`], and the other outputs of the last of them.
    /// `None` where whoever sent them is gone.
    packet_outs: BTreeMap<u64, Option<Request>>,
    conversation: Option<Conversation>,
    /// Of a master or slave, whichever connection it came by (§6.3.5).
    generation: Option<u64>,
    next_ticket: u64,
}

impl Agent {
    /// With the helper's ports and the flows that were kept; those that mean nothing with these ports are left out, and their
    /// number is returned. The first action installs the others.
    #[must_use]
    pub fn new(
        settings: Settings,
        welcome: &Welcome,
        kept: &[openflow::FlowMod],
        now: Duration,
    ) -> (Self, Vec<Action>, usize) {
        let mut agent = Self {
            settings,
            table: FlowTable::new(roles(welcome)),
            ports: entries(welcome, now),
            is_helper_there: true,
            batch: None,
            counters: Counters::default(),
            is_reading: false,
            polled: now,
            not_before: now,
            packet_outs: BTreeMap::new(),
            conversation: None,
            generation: None,
            next_ticket: 1,
        };
        let mut add =
            |flow| translate::flow_mod(flow).and_then(|change| agent.table.apply(&change, now)).is_err();
        let lost = kept.iter().filter(|flow| add(flow)).count();
        let mut actions = Vec::new();
        agent.begin_batch();
        agent.flush_batch(&mut actions);
        (agent, actions, lost)
    }

    /// The flows, in the order in which a frame meets them.
    #[must_use]
    pub fn flows(&self) -> &[Flow] {
        self.table.flows()
    }

    /// True while no frame may be given to [`handle_frame`](Self::handle_frame): the helper has something to confirm first.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.is_installing()
            || self.packet_outs.len() >= PACKET_OUTS_MAX
            || self.conversation.as_ref().is_some_and(Conversation::is_waiting)
    }

    fn is_installing(&self) -> bool {
        self.batch.as_ref().is_some_and(|batch| batch.is_installing)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        let talk = self.conversation.as_ref().and_then(|talk| talk.next_timeout());
        talk.into_iter().chain(self.flows_due()).min()
    }

    /// When counters are to be read, to see which flows have timed out. A table that can't be changed or counted now waits for what
    /// the helper has to say.
    fn flows_due(&self) -> Option<Duration> {
        let is_free = self.is_helper_there && !self.is_reading && !self.is_installing();
        let due = self.table.next_timeout().into_iter().chain(self.next_poll()).min();
        due.filter(|_| is_free).map(|due| due.max(self.not_before))
    }

    fn next_poll(&self) -> Option<Duration> {
        let has_idle = self.table.flows().iter().any(|flow| flow.idle_timeout_s > 0);
        has_idle.then_some(self.polled + POLL_INTERVAL)
    }

    /// To be called at [`next_timeout`](Self::next_timeout) or later; earlier it does nothing.
    #[must_use]
    pub fn handle_timeout(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Some(talk) = &mut self.conversation {
            talk.handle_timeout(now, &mut actions);
        }
        if self.flows_due().is_some_and(|due| due <= now) {
            self.read_counters(&mut actions);
        }
        actions
    }

    /// To be called when no more frames are at hand: installs what was gathered.
    #[must_use]
    pub fn flush(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        self.flush_batch(&mut actions);
        actions
    }

    fn begin_batch(&mut self) -> &mut Batch {
        let before = self.table.flows();
        self.batch.get_or_insert_with(|| Batch {
            before: before.to_vec(),
            requests: Vec::new(),
            removed: Vec::new(),
            is_installing: false,
        })
    }

    fn flush_batch(&mut self, actions: &mut Vec<Action>) {
        let Some(batch) = &mut self.batch else { return };
        if !batch.is_installing {
            batch.is_installing = true;
            let flows = self.table.flows();
            actions.push(Action::Install {
                flows: flows.iter().map(translate::stored).collect(),
                rules: flows.iter().map(translate::rule).collect(),
            });
        }
    }

    /// Takes what came of [`Action::Install`].
    #[must_use]
    pub fn handle_installed(&mut self, result: Result<(), HelperRefused>, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(batch) = self.batch.take_if(|batch| batch.is_installing) else { return actions };
        if result.is_ok() {
            for removed in &batch.removed {
                self.tell(&Message::FlowRemoved(translate::removed(removed)), &mut actions);
            }
        } else {
            self.not_before = now + POLL_INTERVAL;
            self.roll_back(batch, &mut actions);
        }
        self.proceed(now, &mut actions);
        actions
    }

    fn roll_back(&mut self, batch: Batch, actions: &mut Vec<Action>) {
        self.table.roll_back(batch.before);
        actions.push(Action::Refused("helper"));
        if let Some(talk) = &self.conversation {
            for Request { xid, error } in batch.requests {
                talk.answer(xid, &Message::Error(error), actions);
            }
        }
        actions.push(Action::Keep(self.table.flows().iter().map(translate::stored).collect()));
    }

    /// Takes what came of [`Action::ReadCounters`].
    #[must_use]
    pub fn handle_counters(&mut self, result: Result<Counters, HelperRefused>, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        self.is_reading = false;
        self.polled = now;
        if let Ok(counters) = result {
            let traffic = |of: datapath::Traffic| Traffic { packets: of.frames, bytes: of.bytes };
            let rules: Vec<_> =
                counters.rules.iter().map(|rule| (FlowId(rule.id), traffic(rule.traffic))).collect();
            self.table.observe(&rules, now);
            self.counters = counters;
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
        if self.is_installing() || self.table.next_timeout().is_none_or(|due| now < due) {
            return;
        }
        self.begin_batch();
        let outcome = self.table.expire(now);
        if let Some(batch) = &mut self.batch {
            batch.removed.extend(outcome.removed);
        }
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

    /// The helper is there again: its ports are taken, and it is given the table anew.
    #[must_use]
    pub fn handle_helper(&mut self, welcome: &Welcome, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        for entry in entries(welcome, now) {
            self.take_port(entry.port, now, &mut actions);
        }
        let known: Vec<u32> = welcome.ports.iter().map(|port| port.number).collect();
        for gone in self.ports.extract_if(.., |entry| !known.contains(&entry.port.number)).collect::<Vec<_>>()
        {
            self.tell_port(PortReason::Delete, &gone.port, &mut actions);
        }
        self.is_helper_there = true;
        self.begin_batch();
        let outcome = self.table.set_ports(roles(welcome), now);
        if let Some(batch) = &mut self.batch {
            // What means nothing with these ports can't come back.
            batch.before = self.table.flows().to_vec();
            batch.removed.extend(outcome.removed);
        }
        self.flush_batch(&mut actions);
        actions
    }

    /// A port has changed.
    #[must_use]
    pub fn handle_port(&mut self, port: datapath::Port, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        self.take_port(port, now, &mut actions);
        actions
    }

    fn take_port(&mut self, port: datapath::Port, now: Duration, actions: &mut Vec<Action>) {
        let reason = match self.ports.iter_mut().find(|entry| entry.port.number == port.number) {
            Some(entry) if entry.port == port => return,
            Some(entry) => {
                *entry = PortEntry { port: port.clone(), since: now };
                PortReason::Modify
            }
            None => {
                self.ports.push(PortEntry { port: port.clone(), since: now });
                PortReason::Add
            }
        };
        self.tell_port(reason, &port, actions);
    }

    fn tell_port(&self, reason: PortReason, port: &datapath::Port, actions: &mut Vec<Action>) {
        let Some(talk) = self.conversation.as_ref().filter(|talk| talk.is_open()) else { return };
        talk.answer(
            0,
            &Message::PortStatus(PortStatus { reason, port: statistics::describe(port) }),
            actions,
        );
    }

    /// Tells the controller what it did not ask for, unless it is a slave (§6.3.5).
    fn tell(&self, message: &Message, actions: &mut Vec<Action>) {
        if let Some(talk) = self.conversation.as_ref().filter(|talk| talk.is_open() && !talk.is_slave()) {
            talk.answer(0, message, actions);
        }
    }
}

fn roles(welcome: &Welcome) -> Ports {
    let role = |port: &datapath::Port| match port.role {
        datapath::Role::Sensor => PortRole::Sensor,
        datapath::Role::Uplink | datapath::Role::Switch => PortRole::Uplink,
    };
    Ports::new(welcome.ports.iter().map(role).collect(), welcome.queues)
}

fn entries(welcome: &Welcome, now: Duration) -> Vec<PortEntry> {
    welcome.ports.iter().map(|port| PortEntry { port: port.clone(), since: now }).collect()
}

#[cfg(test)]
mod tests;
