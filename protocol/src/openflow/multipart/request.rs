//! What a controller asks for.

use super::super::experimenter::Experimenter;
use super::super::message::Fault;
use super::super::queue::{QueueStatsRequest, decode_port, encode_port};
use super::super::table_features::TableFeatures;
use super::{FlowStatsRequest, MultipartType, all, decode_head, encode_head};
use crate::wire::Reader;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestBody {
    /// `OFPMP_DESC`
    Desc,
    /// `OFPMP_FLOW`
    Flow(FlowStatsRequest),
    /// `OFPMP_AGGREGATE`
    Aggregate(FlowStatsRequest),
    /// `OFPMP_TABLE`
    Table,
    /// `OFPMP_PORT_STATS`, of this port; of all for [`ANY`](super::super::port::ANY).
    PortStats(u32),
    /// `OFPMP_QUEUE`
    Queue(QueueStatsRequest),
    /// `OFPMP_GROUP`, of this group; of all for [`ALL`](super::super::group::ALL).
    Group(u32),
    /// `OFPMP_GROUP_DESC`
    GroupDesc,
    /// `OFPMP_GROUP_FEATURES`
    GroupFeatures,
    /// `OFPMP_METER`, of this meter; of all for [`ALL`](super::super::meter::ALL).
    Meter(u32),
    /// `OFPMP_METER_CONFIG`, of this meter; of all for [`ALL`](super::super::meter::ALL).
    MeterConfig(u32),
    /// `OFPMP_METER_FEATURES`
    MeterFeatures,
    /// `OFPMP_TABLE_FEATURES`: asks for them where there are none, else sets them.
    TableFeatures(Vec<TableFeatures>),
    /// `OFPMP_PORT_DESC`
    PortDesc,
    /// `OFPMP_EXPERIMENTER`
    Experimenter(Experimenter),
    /// One that 1.3.5 doesn't have, which a switch answers with `OFPBRC_BAD_MULTIPART`.
    Other {
        /// Its number, `enum ofp_multipart_type`.
        multipart_type: u16,
        /// As it came.
        body: Vec<u8>,
    },
}

impl RequestBody {
    /// Its number, `enum ofp_multipart_type`.
    #[must_use]
    pub fn number(&self) -> u16 {
        let of = match self {
            Self::Desc => MultipartType::Desc,
            Self::Flow(_) => MultipartType::Flow,
            Self::Aggregate(_) => MultipartType::Aggregate,
            Self::Table => MultipartType::Table,
            Self::PortStats(_) => MultipartType::PortStats,
            Self::Queue(_) => MultipartType::Queue,
            Self::Group(_) => MultipartType::Group,
            Self::GroupDesc => MultipartType::GroupDesc,
            Self::GroupFeatures => MultipartType::GroupFeatures,
            Self::Meter(_) => MultipartType::Meter,
            Self::MeterConfig(_) => MultipartType::MeterConfig,
            Self::MeterFeatures => MultipartType::MeterFeatures,
            Self::TableFeatures(_) => MultipartType::TableFeatures,
            Self::PortDesc => MultipartType::PortDesc,
            Self::Experimenter(_) => MultipartType::Experimenter,
            Self::Other { multipart_type, .. } => return *multipart_type,
        };
        of as u16
    }
}

/// `struct ofp_multipart_request` (§7.3.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultipartRequest {
    /// More of the same request follows.
    pub more: bool,
    /// What is asked for.
    pub body: RequestBody,
}

impl From<RequestBody> for MultipartRequest {
    fn from(body: RequestBody) -> Self {
        Self { more: false, body }
    }
}

impl MultipartRequest {
    pub(in super::super) fn encode(&self, out: &mut Vec<u8>) {
        encode_head(self.body.number(), self.more, out);
        match &self.body {
            RequestBody::Desc
            | RequestBody::Table
            | RequestBody::GroupDesc
            | RequestBody::GroupFeatures
            | RequestBody::MeterFeatures
            | RequestBody::PortDesc => {}
            RequestBody::Flow(request) | RequestBody::Aggregate(request) => request.encode(out),
            RequestBody::PortStats(number)
            | RequestBody::Group(number)
            | RequestBody::Meter(number)
            | RequestBody::MeterConfig(number) => encode_port(*number, out),
            RequestBody::Queue(request) => request.encode(out),
            RequestBody::TableFeatures(tables) => tables.iter().for_each(|table| table.encode(out)),
            RequestBody::Experimenter(body) => body.encode(out),
            RequestBody::Other { body, .. } => out.extend(body),
        }
    }

    pub(in super::super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let (number, more) = decode_head(reader)?;
        let Some(of) = MultipartType::from_u16(number) else {
            let body = RequestBody::Other { multipart_type: number, body: reader.rest().to_vec() };
            return Ok(Self { more, body });
        };
        let body = match of {
            MultipartType::Desc => RequestBody::Desc,
            MultipartType::Flow => RequestBody::Flow(FlowStatsRequest::decode(reader)?),
            MultipartType::Aggregate => RequestBody::Aggregate(FlowStatsRequest::decode(reader)?),
            MultipartType::Table => RequestBody::Table,
            MultipartType::PortStats => RequestBody::PortStats(decode_port(reader)?),
            MultipartType::Queue => RequestBody::Queue(QueueStatsRequest::decode(reader)?),
            MultipartType::Group => RequestBody::Group(decode_port(reader)?),
            MultipartType::GroupDesc => RequestBody::GroupDesc,
            MultipartType::GroupFeatures => RequestBody::GroupFeatures,
            MultipartType::Meter => RequestBody::Meter(decode_port(reader)?),
            MultipartType::MeterConfig => RequestBody::MeterConfig(decode_port(reader)?),
            MultipartType::MeterFeatures => RequestBody::MeterFeatures,
            MultipartType::TableFeatures => RequestBody::TableFeatures(all(reader, TableFeatures::decode)?),
            MultipartType::PortDesc => RequestBody::PortDesc,
            MultipartType::Experimenter => RequestBody::Experimenter(Experimenter::decode(reader)?),
        };
        Ok(Self { more, body })
    }
}
