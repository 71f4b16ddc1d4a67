//! What the switch has counted, and what its tables hold (§7.3.5).

use std::time::Duration;

use caregate_protocol::datapath::switch::{GroupCounters, MeterCounters, TABLES};
use caregate_protocol::datapath::{self, Counted, LinkCounters, Role};
use caregate_protocol::openflow::group::{self, BucketCounter, GroupDesc, GroupStats};
use caregate_protocol::openflow::meter::{self, BandStats, MeterConfig, MeterStats};
use caregate_protocol::openflow::multipart::{
    Aggregate, FlowStatsRequest, PortCounters, PortStats, ReplyBody, RequestBody, TableStats,
};
use caregate_protocol::openflow::queue::{self, QueueStats, QueueStatsRequest};
use caregate_protocol::openflow::{
    BadRequest, ErrorKind, GroupModFailed, Lasted, Message, MeterModFailed, MultipartRequest, QueueOpFailed,
    TABLE_ALL, TableFeaturesFailed, port,
};

use super::super::flow::Flow;
use super::super::groups::Group;
use super::super::meters::Meter;
use super::super::ports::{Guard, PortEntry};
use super::super::table::{Filter, TABLE_POLICY};
use super::super::translate;
use super::conversation::Pending;
use super::{Action, Agent, features};

/// What is not counted says so (§7.3.5.6).
const NOT_COUNTED: u64 = u64::MAX;
/// What the helper says of a frame that goes on (`ebpf/common`, `Verdict`).
const PASSED: [&str; 9] = [
    "admitted",
    "discovery",
    "sent",
    "sent_by_rule",
    "floor",
    "forwarded",
    "redirected",
    "delivered",
    // The slow path counts nothing.
    "punted",
];
/// On a sensor port, of those that table 0 lets through.
const BY_POLICY: [&str; 3] = ["admitted", "discovery", "rule"];

fn sum(counted: &[Counted], wanted: impl Fn(&str) -> bool) -> datapath::Traffic {
    let mut sum = datapath::Traffic::default();
    for Counted { traffic, .. } in counted.iter().filter(|counted| wanted(&counted.word)) {
        sum.frames = sum.frames.saturating_add(traffic.frames);
        sum.bytes = sum.bytes.saturating_add(traffic.bytes);
    }
    sum
}

impl Agent {
    pub(super) fn multipart(
        &mut self,
        xid: u32,
        request: MultipartRequest,
        actions: &mut Vec<Action>,
    ) -> Result<(), ErrorKind> {
        let MultipartRequest { more, body } = request;
        // No request that is answered here is longer than a message.
        if more {
            return Err(ErrorKind::BadRequest(BadRequest::MultipartBufferOverflow));
        }
        let reply = match &body {
            RequestBody::Desc => Some(ReplyBody::Desc(Box::new(self.describe()))),
            RequestBody::PortDesc => {
                let ports = self.tables.ports().list();
                Some(ReplyBody::PortDesc(ports.iter().map(PortEntry::describe).collect()))
            }
            RequestBody::GroupFeatures => Some(ReplyBody::GroupFeatures(features::groups())),
            RequestBody::MeterFeatures => Some(ReplyBody::MeterFeatures(features::meters())),
            RequestBody::TableFeatures(wanted) if wanted.is_empty() => {
                Some(ReplyBody::TableFeatures(self.table_features()))
            }
            RequestBody::TableFeatures(_) => {
                self.check_writer()?;
                return Err(ErrorKind::TableFeaturesFailed(TableFeaturesFailed::Eperm));
            }
            RequestBody::Flow(_)
            | RequestBody::Aggregate(_)
            | RequestBody::Table
            | RequestBody::PortStats(_)
            | RequestBody::Queue(_)
            | RequestBody::Group(_)
            | RequestBody::GroupDesc
            | RequestBody::Meter(_)
            | RequestBody::MeterConfig(_)
            | RequestBody::Experimenter(_)
            | RequestBody::Other { .. } => {
                self.check_counted(&body)?;
                None
            }
        };
        let Some(talk) = &mut self.conversation else { return Ok(()) };
        match reply {
            Some(reply) => {
                for part in reply.split() {
                    talk.answer(xid, &Message::MultipartReply(part), actions);
                }
            }
            None => talk.pending = Some((xid, Pending::Statistics(body))),
        }
        Ok(())
    }

    /// Whether what is asked for can be.
    fn check_counted(&self, body: &RequestBody) -> Result<(), ErrorKind> {
        let groups = self.tables.groups();
        let meters = self.tables.meters();
        match body {
            RequestBody::Flow(request) | RequestBody::Aggregate(request) => self.filter(request).map(drop),
            RequestBody::PortStats(number) => self.check_port(*number, BadRequest::BadPort),
            RequestBody::Queue(request) => self.check_queue(request),
            RequestBody::Group(id) if *id != group::ALL && !groups.contains_key(id) => {
                Err(ErrorKind::GroupModFailed(GroupModFailed::UnknownGroup))
            }
            RequestBody::Meter(id) | RequestBody::MeterConfig(id)
                if *id != meter::ALL && !meters.contains_key(id) =>
            {
                Err(ErrorKind::MeterModFailed(MeterModFailed::UnknownMeter))
            }
            RequestBody::Experimenter(_) => Err(ErrorKind::BadRequest(BadRequest::BadExperimenter)),
            RequestBody::Other { .. } => Err(ErrorKind::BadRequest(BadRequest::BadMultipart)),
            RequestBody::Table
            | RequestBody::Group(_)
            | RequestBody::GroupDesc
            | RequestBody::Meter(_)
            | RequestBody::MeterConfig(_)
            // Answered before.
            | RequestBody::Desc
            | RequestBody::PortDesc
            | RequestBody::GroupFeatures
            | RequestBody::MeterFeatures
            | RequestBody::TableFeatures(_) => Ok(()),
        }
    }

    fn check_port(&self, number: u32, code: BadRequest) -> Result<(), ErrorKind> {
        let is_known = number == port::ANY || self.tables.ports().find(number).is_some();
        if is_known { Ok(()) } else { Err(ErrorKind::BadRequest(code)) }
    }

    fn check_queue(&self, request: &QueueStatsRequest) -> Result<(), ErrorKind> {
        let refuse = |code| Err(ErrorKind::QueueOpFailed(code));
        if self.check_port(request.port, BadRequest::BadPort).is_err() {
            return refuse(QueueOpFailed::BadPort);
        }
        let is_there = self.queues(request.port).iter().any(|queue| queue.queue_id == request.queue_id);
        if request.queue_id == queue::ALL || is_there { Ok(()) } else { refuse(QueueOpFailed::BadQueue) }
    }

    /// The flows that a request names: `None` where it names a table without any, which table 0 is to a controller.
    fn filter(&self, request: &FlowStatsRequest) -> Result<Option<Filter>, ErrorKind> {
        let filter = Filter {
            table: request.table_id,
            pattern: translate::pattern(&request.pattern)?,
            strict: None,
            cookie: (request.cookie, request.cookie_mask),
            out_port: request.out_port,
            out_group: request.out_group,
        };
        match request.table_id {
            TABLE_ALL => Ok(Some(filter)),
            table if table < TABLES => Ok((table >= self.tables.first_table()).then_some(filter)),
            _ => Err(ErrorKind::BadRequest(BadRequest::BadTableId)),
        }
    }

    fn selected(&self, request: &FlowStatsRequest) -> Vec<&Flow> {
        let filter = self.filter(request).ok().flatten();
        filter.map_or_else(Vec::new, |filter| self.tables.flows().select(&filter))
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
        let tables = &self.tables;
        match body {
            RequestBody::Flow(request) => {
                let flows = self.selected(&request);
                ReplyBody::Flow(flows.into_iter().map(|flow| translate::stats(flow, now)).collect())
            }
            RequestBody::Aggregate(request) => ReplyBody::Aggregate(aggregate(self.selected(&request))),
            RequestBody::PortStats(number) => {
                let wanted = |entry: &&PortEntry| number == port::ANY || entry.port.number == number;
                let ports = tables.ports().list().iter().filter(wanted);
                ReplyBody::PortStats(ports.map(|entry| self.port_stats(entry, now)).collect())
            }
            RequestBody::Queue(request) => ReplyBody::Queue(self.queue_stats(&request, now)),
            RequestBody::Group(wanted) => {
                let groups = tables.groups().values();
                let meant = groups.filter(|group| wanted == group::ALL || group.entry.id == wanted);
                ReplyBody::Group(meant.map(|group| self.group_stats(group, now)).collect())
            }
            RequestBody::GroupDesc => ReplyBody::GroupDesc(tables.groups().values().map(desc).collect()),
            RequestBody::Meter(wanted) => {
                let meters = tables.meters().values();
                let meant = meters.filter(|meter| wanted == meter::ALL || meter.id == wanted);
                ReplyBody::Meter(meant.map(|meter| self.meter_stats(meter, now)).collect())
            }
            RequestBody::MeterConfig(wanted) => {
                let meters = tables.meters().values();
                let meant = meters.filter(|meter| wanted == meter::ALL || meter.id == wanted);
                ReplyBody::MeterConfig(meant.map(config).collect())
            }
            RequestBody::Table
            // Answered, or refused, when they came.
            | RequestBody::Desc
            | RequestBody::PortDesc
            | RequestBody::GroupFeatures
            | RequestBody::MeterFeatures
            | RequestBody::TableFeatures(_)
            | RequestBody::Experimenter(_)
            | RequestBody::Other { .. } => ReplyBody::Table(self.table_stats()),
        }
    }

    fn table_stats(&self) -> Vec<TableStats> {
        let tables =
            (0..TABLES).zip(self.readings.switch.tables.iter().map(Some).chain(std::iter::repeat(None)));
        let stats = |(table_id, counted): (u8, Option<&datapath::switch::TableCounters>)| {
            let counted = counted.copied().unwrap_or_default();
            let active = u32::try_from(self.tables.flows().of_table(table_id).count()).unwrap_or(u32::MAX);
            TableStats { table_id, active, lookups: counted.lookups, matched: counted.matched }
        };
        let mut all: Vec<_> = tables.map(stats).collect();
        if let (Guard::On, Some(policy)) = (self.tables.ports().guard(), all.first_mut()) {
            *policy = self.policy_stats();
        }
        all
    }

    /// Of table 0 as policy fills it: what sensor ports counted.
    fn policy_stats(&self) -> TableStats {
        let mut policy = TableStats { table_id: TABLE_POLICY, ..TableStats::default() };
        for counted in &self.readings.ports.ports {
            if self.tables.ports().is_sensor(counted.number) {
                let by_policy = sum(&counted.verdicts, |word| BY_POLICY.contains(&word)).frames;
                policy.lookups = policy.lookups.saturating_add(sum(&counted.verdicts, |_| true).frames);
                policy.matched = policy.matched.saturating_add(by_policy);
            }
        }
        policy
    }

    /// A sensor port and a port of the switch count what comes in, an uplink what goes out; of the other direction, and of errors, the
    /// kernel's own counters of the interface are told.
    fn port_stats(&self, entry: &PortEntry, now: Duration) -> PortStats {
        let counted = self.readings.ports.ports.iter().find(|counted| counted.number == entry.port.number);
        let (kinds, verdicts) =
            counted.map_or((&[][..], &[][..]), |counted| (&counted.kinds[..], &counted.verdicts[..]));
        let all = sum(kinds, |_| true);
        let dropped = sum(verdicts, |word| !PASSED.contains(&word)).frames;
        let link = counted.and_then(|counted| counted.link);
        let of_link = |number: fn(&LinkCounters) -> u64| link.as_ref().map_or(NOT_COUNTED, number);
        let mut counters = PortCounters {
            rx_packets: of_link(|link| link.rx.frames),
            tx_packets: of_link(|link| link.tx.frames),
            rx_bytes: of_link(|link| link.rx.bytes),
            tx_bytes: of_link(|link| link.tx.bytes),
            rx_dropped: of_link(|link| link.rx_dropped),
            tx_dropped: of_link(|link| link.tx_dropped),
            rx_errors: of_link(|link| link.rx_errors),
            tx_errors: of_link(|link| link.tx_errors),
            rx_frame_err: of_link(|link| link.rx_frame_errors),
            rx_over_err: of_link(|link| link.rx_over_errors),
            rx_crc_err: of_link(|link| link.rx_crc_errors),
            collisions: of_link(|link| link.collisions),
        };
        // Of switch ports' frames the kernel tells no kinds.
        let all = if entry.port.role == Role::Switch { sum(verdicts, |_| true) } else { all };
        match entry.port.role {
            Role::Sensor | Role::Switch => {
                (counters.rx_packets, counters.rx_bytes) = (all.frames, all.bytes);
                counters.rx_dropped = dropped;
                let malformed = sum(verdicts, |word| word == "malformed").frames;
                counters.rx_errors = malformed.saturating_add(link.map_or(0, |link| link.rx_errors));
            }
            Role::Uplink => {
                (counters.tx_packets, counters.tx_bytes) = (all.frames, all.bytes);
                counters.tx_dropped = dropped;
            }
        }
        PortStats { port: entry.port.number, counters, lasted: Lasted::from(now.saturating_sub(entry.since)) }
    }

    /// What the kernel's queues then drop it counts for itself.
    fn queue_stats(&self, request: &QueueStatsRequest, now: Duration) -> Vec<QueueStats> {
        let queues = self.queues(request.port).into_iter();
        let meant =
            queues.filter(|queue| request.queue_id == queue::ALL || queue.queue_id == request.queue_id);
        let since = |number| self.tables.ports().find(number).map_or(now, |entry| entry.since);
        let stats = meant.map(|queue| {
            let traffic = self.queue_traffic(queue.port, queue.queue_id);
            QueueStats {
                port: queue.port,
                queue_id: queue.queue_id,
                tx_bytes: traffic.map_or(NOT_COUNTED, |traffic| traffic.bytes),
                tx_packets: traffic.map_or(NOT_COUNTED, |traffic| traffic.frames),
                tx_errors: NOT_COUNTED,
                lasted: Lasted::from(now.saturating_sub(since(queue.port))),
            }
        });
        stats.collect()
    }

    fn queue_traffic(&self, port: u32, queue: u32) -> Option<datapath::Traffic> {
        let counted = self.readings.ports.ports.iter().find(|counted| counted.number == port)?;
        counted.queues.get(usize::try_from(queue).ok()?).copied()
    }

    fn group_stats(&self, group: &Group, now: Duration) -> GroupStats {
        let id = group.entry.id;
        let counted = self.readings.switch.groups.iter().find(|counted| counted.id == id);
        let none = GroupCounters { id, traffic: datapath::Traffic::default(), buckets: Vec::new() };
        let counted = counted.unwrap_or(&none);
        let bucket = |at: usize| {
            let of = counted.buckets.get(at).copied().unwrap_or_default();
            BucketCounter { packets: of.frames, bytes: of.bytes }
        };
        GroupStats {
            group_id: id,
            ref_count: self.tables.references(id),
            packets: counted.traffic.frames,
            bytes: counted.traffic.bytes,
            lasted: Lasted::from(now.saturating_sub(group.added)),
            buckets: (0..group.entry.buckets.len()).map(bucket).collect(),
        }
    }

    fn meter_stats(&self, meter: &Meter, now: Duration) -> MeterStats {
        let id = meter.id;
        let counted = self.readings.switch.meters.iter().find(|counted| counted.id == id);
        let none = MeterCounters { id, traffic: datapath::Traffic::default(), bands: Vec::new() };
        let counted = counted.unwrap_or(&none);
        let band = |at: usize| {
            let of = counted.bands.get(at).copied().unwrap_or_default();
            BandStats { packets: of.frames, bytes: of.bytes }
        };
        MeterStats {
            meter_id: id,
            flow_count: self.tables.metered(id),
            packets_in: counted.traffic.frames,
            bytes_in: counted.traffic.bytes,
            lasted: Lasted::from(now.saturating_sub(meter.added)),
            bands: (0..meter.bands.len()).map(band).collect(),
        }
    }
}

fn aggregate(flows: Vec<&Flow>) -> Aggregate {
    let mut total = Aggregate::default();
    for flow in flows {
        let traffic = flow.traffic();
        total.packets = total.packets.saturating_add(traffic.packets);
        total.bytes = total.bytes.saturating_add(traffic.bytes);
        total.flows += 1;
    }
    total
}

fn desc(group: &Group) -> GroupDesc {
    GroupDesc { group_type: group.group_type(), group_id: group.entry.id, buckets: group.buckets() }
}

fn config(meter: &Meter) -> MeterConfig {
    MeterConfig { flags: meter.flags, meter_id: meter.id, bands: meter.bands.clone() }
}
