//! What the switch says of itself, and what it has counted.

use std::time::Duration;

use caregate_protocol::datapath::{self, Counted, Mode, Role};
use caregate_protocol::openflow::multipart::{
    Aggregate, Desc, FlowStatsRequest, PortCounters, PortStats, ReplyBody, RequestBody, TableStats,
};
use caregate_protocol::openflow::{
    BadRequest, Capabilities, ErrorKind, Features, Lasted, Message, Port, TABLE_ALL, Text, port,
};

use super::super::table::{Filter, TABLE_CONTROLLER, TABLE_POLICY};
use super::super::translate;
use super::conversation::Pending;
use super::{Action, Agent, PortEntry};

/// Table 0 and table 1.
const TABLES: u8 = 2;
/// Flows, tables and ports are counted (§7.3.1).
const CAPABILITIES: u32 = 0b111;
/// What a port that doesn't count something says (§7.3.5.6).
const NOT_COUNTED: u64 = u64::MAX;
/// What the helper says of a frame that goes on (`ebpf/common`, `Verdict`).
const PASSED: [&str; 6] = ["admitted", "discovery", "sent", "sent_by_rule", "floor", "forwarded"];
/// On a sensor port, of those that table 0 lets through.
const BY_POLICY: [&str; 3] = ["admitted", "discovery", "rule"];
/// On any port, of those that table 1 was asked about.
const BY_TABLE_1: [&str; 8] = [
    "admitted",
    "rule",
    "sent",
    "sent_by_rule",
    "send_dropped",
    "floor",
    "to_controller",
    "to_controller_lost",
];

/// A port, as OpenFlow says it. Names are Linux', so they fit.
pub(super) fn describe(port: &datapath::Port) -> Port {
    let is_down = !port.up || port.mode == Mode::None;
    Port {
        number: port.number,
        hw_addr: port.mac,
        name: Text::new(&port.name),
        config: 0,
        state: if is_down { port::state::LINK_DOWN } else { port::state::LIVE },
        current: 0,
        advertised: 0,
        supported: 0,
        peer: 0,
        current_speed: 0,
        max_speed: 0,
    }
}

fn sum(counted: &[Counted], wanted: impl Fn(&str) -> bool) -> datapath::Traffic {
    let mut sum = datapath::Traffic::default();
    for Counted { traffic, .. } in counted.iter().filter(|counted| wanted(&counted.word)) {
        sum.frames = sum.frames.saturating_add(traffic.frames);
        sum.bytes = sum.bytes.saturating_add(traffic.bytes);
    }
    sum
}

impl Agent {
    pub(super) fn features(&self) -> Features {
        Features {
            datapath_id: self.settings.datapath_id,
            n_buffers: 0,
            n_tables: TABLES,
            auxiliary_id: 0,
            capabilities: Capabilities(CAPABILITIES),
        }
    }

    pub(super) fn describe(&self) -> Desc {
        Desc {
            manufacturer: Text::new("Caregate"),
            hardware: Text::new("edge gateway"),
            software: Text::new(self.settings.version),
            serial: Text::new(""),
            datapath: Text::new(&self.settings.name),
        }
    }

    pub(super) fn port_descriptions(&self) -> Vec<Port> {
        self.ports.iter().map(|entry| describe(&entry.port)).collect()
    }

    /// Whether statistics of this port can be asked for.
    pub(super) fn check_port(&self, number: u32) -> Result<(), ErrorKind> {
        let is_known = self.ports.iter().any(|entry| entry.port.number == number);
        if number == port::ANY || is_known { Ok(()) } else { Err(ErrorKind::BadRequest(BadRequest::BadPort)) }
    }

    /// The flows that a request names: `None` where it names a table without any, which table 0 is to a controller.
    pub(super) fn filter(&self, request: &FlowStatsRequest) -> Result<Option<Filter>, ErrorKind> {
        let pattern = translate::pattern(&request.pattern).map_err(ErrorKind::BadMatch)?;
        let filter = Filter {
            pattern,
            strict: None,
            cookie: (request.cookie, request.cookie_mask),
            out_port: request.out_port,
            out_group: request.out_group,
        };
        match request.table_id {
            TABLE_CONTROLLER | TABLE_ALL => Ok(Some(filter)),
            TABLE_POLICY => Ok(None),
            _ => Err(ErrorKind::BadRequest(BadRequest::BadTableId)),
        }
    }

    /// Answers a waiting request for statistics by the counters that are at hand.
    pub(super) fn answer_statistics(&mut self, now: Duration, actions: &mut Vec<Action>) {
        // What is not yet confirmed is not shown: it is asked for again when it is.
        if self.batch.is_some() {
            return;
        }
        let Some(talk) = &mut self.conversation else { return };
        let Some((xid, pending)) = talk.pending.take_if(|(_, pending)| *pending != Pending::Barrier) else {
            return;
        };
        let Pending::Statistics(body) = pending else { return };
        let reply = self.statistics(body, now);
        let Some(talk) = &self.conversation else { return };
        for part in reply.split() {
            talk.answer(xid, &Message::MultipartReply(part), actions);
        }
    }

    fn statistics(&self, body: RequestBody, now: Duration) -> ReplyBody {
        let selected = |request| {
            let filter = self.filter(request).ok().flatten();
            filter.into_iter().flat_map(|filter| self.table.select(filter))
        };
        match body {
            RequestBody::Flow(request) => {
                ReplyBody::Flow(selected(&request).map(|flow| translate::stats(flow, now)).collect())
            }
            RequestBody::Aggregate(request) => {
                let mut total = Aggregate::default();
                for flow in selected(&request) {
                    let traffic = flow.traffic();
                    total.packets = total.packets.saturating_add(traffic.packets);
                    total.bytes = total.bytes.saturating_add(traffic.bytes);
                    total.flows += 1;
                }
                ReplyBody::Aggregate(total)
            }
            RequestBody::Table => ReplyBody::Table(self.tables()),
            RequestBody::PortStats(number) => {
                let wanted = |entry: &&PortEntry| number == port::ANY || entry.port.number == number;
                let ports = self.ports.iter().filter(wanted);
                ReplyBody::PortStats(ports.map(|entry| self.port_stats(entry, now)).collect())
            }
            RequestBody::Desc => ReplyBody::Desc(Box::new(self.describe())),
            RequestBody::PortDesc => ReplyBody::PortDesc(self.port_descriptions()),
            // Refused before they come here.
            RequestBody::Queue(_)
            | RequestBody::Group(_)
            | RequestBody::GroupDesc
            | RequestBody::GroupFeatures
            | RequestBody::Meter(_)
            | RequestBody::MeterConfig(_)
            | RequestBody::MeterFeatures
            | RequestBody::TableFeatures(_)
            | RequestBody::Experimenter(_)
            | RequestBody::Other { .. } => {
                ReplyBody::Other { multipart_type: body.number(), body: Vec::new() }
            }
        }
    }

    fn tables(&self) -> Vec<TableStats> {
        let (mut policy, mut rules) = (TableStats::default(), TableStats::default());
        (policy.table_id, rules.table_id) = (TABLE_POLICY, TABLE_CONTROLLER);
        for counted in &self.counters.ports {
            let of = |words: &[&str]| sum(&counted.verdicts, |word| words.contains(&word)).frames;
            if self.role(counted.number) == Some(Role::Sensor) {
                policy.lookups = policy.lookups.saturating_add(sum(&counted.verdicts, |_| true).frames);
                policy.matched = policy.matched.saturating_add(of(&BY_POLICY));
            }
            rules.lookups = rules.lookups.saturating_add(of(&BY_TABLE_1));
        }
        for flow in self.table.flows() {
            rules.active += 1;
            rules.matched = rules.matched.saturating_add(flow.traffic().packets);
        }
        vec![policy, rules]
    }

    fn role(&self, number: u32) -> Option<Role> {
        self.ports.iter().find(|entry| entry.port.number == number).map(|entry| entry.port.role)
    }

    /// A sensor port counts what comes in, an uplink what goes out.
    fn port_stats(&self, entry: &PortEntry, now: Duration) -> PortStats {
        let counted = self.counters.ports.iter().find(|counted| counted.number == entry.port.number);
        let (kinds, verdicts) =
            counted.map_or((&[][..], &[][..]), |counted| (&counted.kinds[..], &counted.verdicts[..]));
        let all = sum(kinds, |_| true);
        let dropped = sum(verdicts, |word| !PASSED.contains(&word)).frames;
        let mut counters = PortCounters {
            rx_packets: NOT_COUNTED,
            tx_packets: NOT_COUNTED,
            rx_bytes: NOT_COUNTED,
            tx_bytes: NOT_COUNTED,
            rx_dropped: NOT_COUNTED,
            tx_dropped: NOT_COUNTED,
            rx_errors: NOT_COUNTED,
            tx_errors: NOT_COUNTED,
            rx_frame_err: NOT_COUNTED,
            rx_over_err: NOT_COUNTED,
            rx_crc_err: NOT_COUNTED,
            collisions: NOT_COUNTED,
        };
        match entry.port.role {
            Role::Sensor | Role::Switch => {
                (counters.rx_packets, counters.rx_bytes) = (all.frames, all.bytes);
                counters.rx_dropped = dropped;
                counters.rx_errors = sum(verdicts, |word| word == "malformed").frames;
            }
            Role::Uplink => {
                (counters.tx_packets, counters.tx_bytes) = (all.frames, all.bytes);
                counters.tx_dropped = dropped;
            }
        }
        PortStats { port: entry.port.number, counters, lasted: Lasted::from(now.saturating_sub(entry.since)) }
    }
}
