//! All that goes on between the controller and one switch after the handshake: the reconcile, readings of ports and tables, and
//! experts' flow-mods. Pure; [`crate::connection`] gives it messages and time, and sends what it says.

use std::sync::Arc;
use std::time::Duration;

use caregate_protocol::openflow::multipart::{Assembler, PortStats, ReplyBody, RequestBody, TableStats};
use caregate_protocol::openflow::{ErrorKind, FlowMod, Message, MultipartReply, Port, PortReason, port};

use crate::reconcile::{self, READ_INTERVAL, REPLY_TIMEOUT, Reconciler, Send};
use crate::rule::Rule;

/// Experts' flow-mods and readings for somebody of one switch at once: several operators' tools.
pub const REQUESTS_MAX: usize = 16;
/// Ports that are kept to be shown: more than any switch that we know has.
pub const PORTS_KEPT_MAX: usize = 1024;

/// One request of somebody's, until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Done,
    /// The switch refuses it.
    Refused(ErrorKind),
    /// No answer in time.
    TimedOut,
    /// More than [`REQUESTS_MAX`] at once.
    Busy,
}

/// What is worth a line in the events, a counter, or somebody's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// Of the reconcile.
    Reconcile(reconcile::Happened),
    /// Of a request.
    Answered(Token, Answer),
    /// A port has come, gone or changed.
    Port(PortReason, Port),
    /// A message that nobody waits for; the word is for a counter.
    Unexpected(&'static str),
}

/// What was read besides flows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Census {
    /// At most [`PORTS_KEPT_MAX`].
    pub ports: Vec<Port>,
    /// At most [`PORTS_KEPT_MAX`].
    pub port_stats: Vec<PortStats>,
    /// Those that hold a flow or were looked up; at most 256, as a table's number has eight bits.
    pub tables: Vec<TableStats>,
}

#[derive(Debug)]
struct Written {
    token: Token,
    flow_mod: u32,
    barrier: u32,
    error: Option<ErrorKind>,
    deadline: Duration,
}

#[derive(Debug)]
struct Reader {
    token: Token,
    /// Of the reconciler's readings.
    flows: u64,
    /// Of the censuses.
    census: u64,
    deadline: Duration,
}

/// One switch's.
#[derive(Debug)]
pub struct Exchange {
    reconciler: Reconciler,
    assembler: Assembler,
    census: Arc<Census>,
    /// What is still to be answered: ports, port statistics, tables.
    asked: Vec<u32>,
    census_at: Duration,
    census_since: Duration,
    census_begun: u64,
    census_done: u64,
    /// At most [`REQUESTS_MAX`].
    written: Vec<Written>,
    /// At most [`REQUESTS_MAX`].
    readers: Vec<Reader>,
}

impl Exchange {
    /// A connection that has just been established.
    pub fn start(version: u64, rules: Vec<Rule>, now: Duration, send: Send<'_>) -> Self {
        let mut exchange = Self {
            reconciler: Reconciler::start(version, rules, now, send),
            assembler: Assembler::new(),
            census: Arc::default(),
            asked: Vec::new(),
            census_at: now,
            census_since: now,
            census_begun: 0,
            census_done: 0,
            written: Vec::new(),
            readers: Vec::new(),
        };
        exchange.begin_census(now, send);
        exchange
    }

    /// The reconcile, to be looked at.
    #[must_use]
    pub fn reconciler(&self) -> &Reconciler {
        &self.reconciler
    }

    /// Ports and tables, to be looked at.
    #[must_use]
    pub fn census(&self) -> &Arc<Census> {
        &self.census
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn next_timeout(&self) -> Duration {
        let written = self.written.iter().map(|written| written.deadline);
        let readers = self.readers.iter().map(|reader| reader.deadline);
        let due = self.reconciler.next_timeout().min(self.census_at);
        written.chain(readers).fold(due, Duration::min)
    }

    /// To be called at [`next_timeout`](Self::next_timeout) or later.
    pub fn handle_timeout(&mut self, now: Duration, send: Send<'_>) -> Vec<Happened> {
        let mut happened = all(self.reconciler.handle_timeout(now, send));
        if now >= self.census_at {
            // Those that were not answered until now are not answered at all.
            self.end_census();
            self.begin_census(now, send);
        }
        self.written.retain(|written| {
            let is_late = now >= written.deadline;
            happened.extend(is_late.then_some(Happened::Answered(written.token, Answer::TimedOut)));
            !is_late
        });
        self.readers.retain(|reader| {
            let is_late = now >= reader.deadline;
            happened.extend(is_late.then_some(Happened::Answered(reader.token, Answer::TimedOut)));
            !is_late
        });
        self.answer_readers(&mut happened);
        happened
    }

    /// The rules that intents ask for now.
    pub fn set_rules(
        &mut self,
        version: u64,
        rules: Vec<Rule>,
        now: Duration,
        send: Send<'_>,
    ) -> Vec<Happened> {
        all(self.reconciler.set_rules(version, rules, now, send))
    }

    /// An expert's flow-mod, answered when the barrier behind it is.
    pub fn write(&mut self, token: Token, flow_mod: FlowMod, now: Duration, send: Send<'_>) -> Vec<Happened> {
        if self.written.len() >= REQUESTS_MAX {
            return vec![Happened::Answered(token, Answer::Busy)];
        }
        let flow_mod = send(&Message::FlowMod(flow_mod));
        let barrier = send(&Message::BarrierRequest);
        let deadline = now + REPLY_TIMEOUT;
        self.written.push(Written { token, flow_mod, barrier, error: None, deadline });
        Vec::new()
    }

    /// Answered when flows, ports and tables have been read from now on.
    pub fn read(&mut self, token: Token, now: Duration, send: Send<'_>) -> Vec<Happened> {
        if self.readers.len() >= REQUESTS_MAX {
            return vec![Happened::Answered(token, Answer::Busy)];
        }
        let flows = self.reconciler.read(now, send);
        let census = self.census_begun + 1;
        if self.asked.is_empty() {
            self.begin_census(now, send);
        }
        self.readers.push(Reader { token, flows, census, deadline: now + REPLY_TIMEOUT });
        Vec::new()
    }

    /// A message that the session passes on.
    pub fn handle(&mut self, xid: u32, message: Message, now: Duration, send: Send<'_>) -> Vec<Happened> {
        let word = message.message_type().as_str();
        let mut happened = match message {
            Message::MultipartReply(part) => self.handle_part(xid, part, now, send),
            Message::BarrierReply => self.handle_barrier(xid, now, send),
            Message::Error(error) => self.handle_error(xid, error.kind, now),
            Message::PortStatus(status) => {
                if self.asked.is_empty() {
                    self.census_at = now;
                }
                vec![Happened::Port(status.reason, status.port)]
            }
            Message::FlowRemoved(_) => {
                self.reconciler.read(now, send);
                Vec::new()
            }
            // Nothing asks for packet-ins, and nothing is made of them.
            Message::PacketIn(_)
            | Message::RoleReply(_)
            | Message::Hello(_)
            | Message::EchoRequest(_)
            | Message::EchoReply(_)
            | Message::FeaturesRequest
            | Message::FeaturesReply(_)
            | Message::GetConfigRequest
            | Message::GetConfigReply(_)
            | Message::SetConfig(_)
            | Message::PacketOut(_)
            | Message::FlowMod(_)
            | Message::MultipartRequest(_)
            | Message::BarrierRequest
            | Message::RoleRequest(_)
            | Message::Experimenter(_)
            | Message::GroupMod(_)
            | Message::PortMod(_)
            | Message::TableMod(_)
            | Message::QueueGetConfigRequest(_)
            | Message::QueueGetConfigReply(_)
            | Message::GetAsyncRequest
            | Message::GetAsyncReply(_)
            | Message::SetAsync(_)
            | Message::MeterMod(_) => vec![Happened::Unexpected(word)],
        };
        self.answer_readers(&mut happened);
        happened
    }

    fn handle_part(
        &mut self,
        xid: u32,
        part: MultipartReply,
        now: Duration,
        send: Send<'_>,
    ) -> Vec<Happened> {
        if !self.reconciler.awaits(xid) && !self.asked.contains(&xid) {
            return vec![Happened::Unexpected("OFPT_MULTIPART_REPLY")];
        }
        match self.assembler.accept(xid, part) {
            Ok(None) => Vec::new(),
            Ok(Some(ReplyBody::Flow(flows))) if self.reconciler.awaits(xid) => {
                all(self.reconciler.handle_flows(xid, flows, now, send))
            }
            Ok(Some(body)) if self.asked.contains(&xid) => self.take_census(xid, body),
            Ok(Some(_)) | Err(_) => vec![Happened::Unexpected("OFPT_MULTIPART_REPLY")],
        }
    }

    fn take_census(&mut self, xid: u32, body: ReplyBody) -> Vec<Happened> {
        let mut happened = Vec::new();
        let census = Arc::make_mut(&mut self.census);
        match body {
            ReplyBody::PortDesc(mut ports) => {
                ports.truncate(PORTS_KEPT_MAX);
                census.ports = ports;
            }
            ReplyBody::PortStats(mut stats) => {
                stats.truncate(PORTS_KEPT_MAX);
                census.port_stats = stats;
            }
            ReplyBody::Table(mut tables) => {
                // Open vSwitch reports 254 tables, most of them empty.
                tables.retain(|table| table.active > 0 || table.lookups > 0);
                tables.truncate(usize::from(u8::MAX) + 1);
                census.tables = tables;
            }
            ReplyBody::Desc(_)
            | ReplyBody::Flow(_)
            | ReplyBody::Aggregate(_)
            | ReplyBody::Queue(_)
            | ReplyBody::Group(_)
            | ReplyBody::GroupDesc(_)
            | ReplyBody::GroupFeatures(_)
            | ReplyBody::Meter(_)
            | ReplyBody::MeterConfig(_)
            | ReplyBody::MeterFeatures(_)
            | ReplyBody::TableFeatures(_)
            | ReplyBody::Experimenter(_)
            | ReplyBody::Other { .. } => {
                happened.push(Happened::Unexpected("OFPT_MULTIPART_REPLY"));
            }
        }
        self.end_of(xid);
        happened
    }

    fn handle_barrier(&mut self, xid: u32, now: Duration, send: Send<'_>) -> Vec<Happened> {
        if let Some(at) = self.written.iter().position(|written| written.barrier == xid) {
            let Written { token, error, .. } = self.written.remove(at);
            // It may have touched what is ours.
            self.reconciler.read(now, send);
            return vec![Happened::Answered(token, error.map_or(Answer::Done, Answer::Refused))];
        }
        if self.reconciler.awaits(xid) {
            Vec::new()
        } else {
            vec![Happened::Unexpected("OFPT_BARRIER_REPLY")]
        }
    }

    fn handle_error(&mut self, xid: u32, kind: ErrorKind, now: Duration) -> Vec<Happened> {
        if let Some(written) = self.written.iter_mut().find(|written| written.flow_mod == xid) {
            written.error.get_or_insert(kind);
            return Vec::new();
        }
        if self.asked.contains(&xid) {
            self.end_of(xid);
            return Vec::new();
        }
        self.assembler.forget(xid);
        all(self.reconciler.handle_error(xid, kind, now))
    }

    fn begin_census(&mut self, now: Duration, send: Send<'_>) {
        let bodies = [RequestBody::PortDesc, RequestBody::PortStats(port::ANY), RequestBody::Table];
        self.asked = bodies.map(|body| send(&Message::MultipartRequest(body.into()))).to_vec();
        self.census_begun += 1;
        self.census_at = now + REPLY_TIMEOUT;
        self.census_since = now;
    }

    fn end_of(&mut self, xid: u32) {
        self.asked.retain(|asked| *asked != xid);
        if self.asked.is_empty() {
            self.end_census();
        }
    }

    fn end_census(&mut self) {
        for xid in self.asked.drain(..) {
            self.assembler.forget(xid);
        }
        self.census_done = self.census_begun;
        let is_awaited = self.readers.iter().any(|reader| reader.census > self.census_done);
        self.census_at = self.census_since + if is_awaited { Duration::ZERO } else { READ_INTERVAL };
    }

    fn answer_readers(&mut self, happened: &mut Vec<Happened>) {
        let (flows, census) = (self.reconciler.reads_done(), self.census_done);
        self.readers.retain(|reader| {
            let is_done = flows >= reader.flows && census >= reader.census;
            happened.extend(is_done.then_some(Happened::Answered(reader.token, Answer::Done)));
            !is_done
        });
    }
}

fn all(happened: Vec<reconcile::Happened>) -> Vec<Happened> {
    happened.into_iter().map(Happened::Reconcile).collect()
}

#[cfg(test)]
mod tests;
