//! What a switch reports.

use super::super::MESSAGE_BYTES_MAX;
use super::super::experimenter::Experimenter;
use super::super::group::{GroupDesc, GroupFeatures, GroupStats};
use super::super::message::Fault;
use super::super::meter::{MeterConfig, MeterFeatures, MeterStats};
use super::super::port::Port;
use super::super::queue::QueueStats;
use super::super::table_features::TableFeatures;
use super::{
    Aggregate, Desc, FlowStats, MULTIPART_HEADER_BYTES, MultipartType, PortStats, TableStats, all,
    decode_head, encode_head,
};
use crate::wire::Reader;

/// What is reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyBody {
    /// `OFPMP_DESC`
    Desc(Box<Desc>),
    /// `OFPMP_FLOW`
    Flow(Vec<FlowStats>),
    /// `OFPMP_AGGREGATE`
    Aggregate(Aggregate),
    /// `OFPMP_TABLE`
    Table(Vec<TableStats>),
    /// `OFPMP_PORT_STATS`
    PortStats(Vec<PortStats>),
    /// `OFPMP_QUEUE`
    Queue(Vec<QueueStats>),
    /// `OFPMP_GROUP`
    Group(Vec<GroupStats>),
    /// `OFPMP_GROUP_DESC`
    GroupDesc(Vec<GroupDesc>),
    /// `OFPMP_GROUP_FEATURES`
    GroupFeatures(GroupFeatures),
    /// `OFPMP_METER`
    Meter(Vec<MeterStats>),
    /// `OFPMP_METER_CONFIG`
    MeterConfig(Vec<MeterConfig>),
    /// `OFPMP_METER_FEATURES`
    MeterFeatures(MeterFeatures),
    /// `OFPMP_TABLE_FEATURES`
    TableFeatures(Vec<TableFeatures>),
    /// `OFPMP_PORT_DESC`
    PortDesc(Vec<Port>),
    /// `OFPMP_EXPERIMENTER`
    Experimenter(Experimenter),
    /// One that 1.3.5 doesn't have.
    Other {
        /// Its number, `enum ofp_multipart_type`.
        multipart_type: u16,
        /// As it came.
        body: Vec<u8>,
    },
}

impl ReplyBody {
    /// Its number, `enum ofp_multipart_type`.
    #[must_use]
    pub fn number(&self) -> u16 {
        let of = match self {
            Self::Desc(_) => MultipartType::Desc,
            Self::Flow(_) => MultipartType::Flow,
            Self::Aggregate(_) => MultipartType::Aggregate,
            Self::Table(_) => MultipartType::Table,
            Self::PortStats(_) => MultipartType::PortStats,
            Self::Queue(_) => MultipartType::Queue,
            Self::Group(_) => MultipartType::Group,
            Self::GroupDesc(_) => MultipartType::GroupDesc,
            Self::GroupFeatures(_) => MultipartType::GroupFeatures,
            Self::Meter(_) => MultipartType::Meter,
            Self::MeterConfig(_) => MultipartType::MeterConfig,
            Self::MeterFeatures(_) => MultipartType::MeterFeatures,
            Self::TableFeatures(_) => MultipartType::TableFeatures,
            Self::PortDesc(_) => MultipartType::PortDesc,
            Self::Experimenter(_) => MultipartType::Experimenter,
            Self::Other { multipart_type, .. } => return *multipart_type,
        };
        of as u16
    }

    /// Messages of at most [`MESSAGE_BYTES_MAX`] that carry all of it, in their order; at least one.
    #[must_use]
    pub fn split(self) -> Vec<MultipartReply> {
        match self {
            Self::Flow(flows) => pack(flows, FlowStats::encode, Self::Flow),
            Self::Table(tables) => pack(tables, TableStats::encode, Self::Table),
            Self::PortStats(ports) => pack(ports, PortStats::encode, Self::PortStats),
            Self::Queue(queues) => pack(queues, QueueStats::encode, Self::Queue),
            Self::Group(groups) => pack(groups, GroupStats::encode, Self::Group),
            Self::GroupDesc(groups) => pack(groups, GroupDesc::encode, Self::GroupDesc),
            Self::Meter(meters) => pack(meters, MeterStats::encode, Self::Meter),
            Self::MeterConfig(meters) => pack(meters, MeterConfig::encode, Self::MeterConfig),
            Self::TableFeatures(tables) => pack(tables, TableFeatures::encode, Self::TableFeatures),
            Self::PortDesc(ports) => pack(ports, Port::encode, Self::PortDesc),
            body @ (Self::Desc(_)
            | Self::Aggregate(_)
            | Self::GroupFeatures(_)
            | Self::MeterFeatures(_)
            | Self::Experimenter(_)
            | Self::Other { .. }) => vec![MultipartReply { more: false, body }],
        }
    }
}

fn pack<T>(
    entries: Vec<T>,
    encode: fn(&T, &mut Vec<u8>),
    body: fn(Vec<T>) -> ReplyBody,
) -> Vec<MultipartReply> {
    let mut parts = Vec::new();
    let (mut part, mut bytes) = (Vec::new(), MULTIPART_HEADER_BYTES);
    let mut encoded = Vec::new();
    for entry in entries {
        encoded.clear();
        encode(&entry, &mut encoded);
        if bytes + encoded.len() > MESSAGE_BYTES_MAX && !part.is_empty() {
            parts.push(MultipartReply { more: true, body: body(std::mem::take(&mut part)) });
            bytes = MULTIPART_HEADER_BYTES;
        }
        bytes += encoded.len();
        part.push(entry);
    }
    parts.push(MultipartReply { more: false, body: body(part) });
    parts
}

/// `struct ofp_multipart_reply` (§7.3.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultipartReply {
    /// More of the same reply follows, under the same transaction id.
    pub more: bool,
    /// What is reported.
    pub body: ReplyBody,
}

impl MultipartReply {
    pub(in super::super) fn encode(&self, out: &mut Vec<u8>) {
        encode_head(self.body.number(), self.more, out);
        match &self.body {
            ReplyBody::Desc(desc) => desc.encode(out),
            ReplyBody::Flow(flows) => flows.iter().for_each(|flow| flow.encode(out)),
            ReplyBody::Aggregate(sum) => sum.encode(out),
            ReplyBody::Table(tables) => tables.iter().for_each(|table| table.encode(out)),
            ReplyBody::PortStats(ports) => ports.iter().for_each(|port| port.encode(out)),
            ReplyBody::Queue(queues) => queues.iter().for_each(|queue| queue.encode(out)),
            ReplyBody::Group(groups) => groups.iter().for_each(|group| group.encode(out)),
            ReplyBody::GroupDesc(groups) => groups.iter().for_each(|group| group.encode(out)),
            ReplyBody::GroupFeatures(features) => features.encode(out),
            ReplyBody::Meter(meters) => meters.iter().for_each(|meter| meter.encode(out)),
            ReplyBody::MeterConfig(meters) => meters.iter().for_each(|meter| meter.encode(out)),
            ReplyBody::MeterFeatures(features) => features.encode(out),
            ReplyBody::TableFeatures(tables) => tables.iter().for_each(|table| table.encode(out)),
            ReplyBody::PortDesc(ports) => ports.iter().for_each(|port| port.encode(out)),
            ReplyBody::Experimenter(body) => body.encode(out),
            ReplyBody::Other { body, .. } => out.extend(body),
        }
    }

    pub(in super::super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let (number, more) = decode_head(reader)?;
        let Some(of) = MultipartType::from_u16(number) else {
            let body = ReplyBody::Other { multipart_type: number, body: reader.rest().to_vec() };
            return Ok(Self { more, body });
        };
        let body = match of {
            MultipartType::Desc => ReplyBody::Desc(Box::new(Desc::decode(reader)?)),
            MultipartType::Flow => ReplyBody::Flow(all(reader, FlowStats::decode)?),
            MultipartType::Aggregate => ReplyBody::Aggregate(Aggregate::decode(reader)?),
            MultipartType::Table => ReplyBody::Table(all(reader, |reader| Ok(TableStats::decode(reader)?))?),
            MultipartType::PortStats => {
                ReplyBody::PortStats(all(reader, |reader| Ok(PortStats::decode(reader)?))?)
            }
            MultipartType::Queue => ReplyBody::Queue(all(reader, |reader| Ok(QueueStats::decode(reader)?))?),
            MultipartType::Group => ReplyBody::Group(all(reader, GroupStats::decode)?),
            MultipartType::GroupDesc => ReplyBody::GroupDesc(all(reader, GroupDesc::decode)?),
            MultipartType::GroupFeatures => ReplyBody::GroupFeatures(GroupFeatures::decode(reader)?),
            MultipartType::Meter => ReplyBody::Meter(all(reader, MeterStats::decode)?),
            MultipartType::MeterConfig => ReplyBody::MeterConfig(all(reader, MeterConfig::decode)?),
            MultipartType::MeterFeatures => ReplyBody::MeterFeatures(MeterFeatures::decode(reader)?),
            MultipartType::TableFeatures => ReplyBody::TableFeatures(all(reader, TableFeatures::decode)?),
            MultipartType::PortDesc => ReplyBody::PortDesc(all(reader, |reader| Ok(Port::decode(reader)?))?),
            MultipartType::Experimenter => ReplyBody::Experimenter(Experimenter::decode(reader)?),
        };
        Ok(Self { more, body })
    }
}
