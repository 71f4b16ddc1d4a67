//! Multipart messages (§7.3.5): what a controller asks for and a switch reports, in one message or in several.

mod assembler;
mod stats;

pub use assembler::{Assembler, AssemblyError, PENDING_MAX, REPLY_PARTS_MAX};
pub use stats::{
    Aggregate, DESC_BYTES, Desc, FlowStats, FlowStatsRequest, PortCounters, PortStats, SERIAL_BYTES,
    TableStats,
};

use super::message::Fault;
use super::port::{PORT_BYTES, Port};
use super::wire::{pad, put_u16, put_u32};
use super::{HEADER_BYTES, MESSAGE_BYTES_MAX};
use crate::wire::Reader;

/// `OFPMPF_REQ_MORE` and `OFPMPF_REPLY_MORE`.
const FLAG_MORE: u16 = 1;

const DESC: u16 = 0;
const FLOW: u16 = 1;
const AGGREGATE: u16 = 2;
const TABLE: u16 = 3;
const PORT_STATS: u16 = 4;
const PORT_DESC: u16 = 13;

/// Bytes of a multipart message before its body: header, type, flags, padding.
const MULTIPART_HEADER_BYTES: usize = HEADER_BYTES + 8;

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
    /// `OFPMP_PORT_STATS`, of this port; of all for [`ANY`](super::port::ANY).
    PortStats(u32),
    /// `OFPMP_PORT_DESC`
    PortDesc,
    /// Another one, which a switch of ours answers with `OFPBRC_BAD_MULTIPART`.
    Other {
        /// Its number, `enum ofp_multipart_type`.
        multipart_type: u16,
        /// As it came.
        body: Vec<u8>,
    },
}

/// `struct ofp_multipart_request` (§7.3.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultipartRequest {
    /// More of the same request follows. None of ours is that long.
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
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let kind = match &self.body {
            RequestBody::Desc => DESC,
            RequestBody::Flow(_) => FLOW,
            RequestBody::Aggregate(_) => AGGREGATE,
            RequestBody::Table => TABLE,
            RequestBody::PortStats(_) => PORT_STATS,
            RequestBody::PortDesc => PORT_DESC,
            RequestBody::Other { multipart_type, .. } => *multipart_type,
        };
        encode_head(kind, self.more, out);
        match &self.body {
            RequestBody::Desc | RequestBody::Table | RequestBody::PortDesc => {}
            RequestBody::Flow(request) | RequestBody::Aggregate(request) => request.encode(out),
            RequestBody::PortStats(port) => {
                put_u32(out, *port);
                pad(out, 4);
            }
            RequestBody::Other { body, .. } => out.extend(body),
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let (kind, more) = decode_head(reader)?;
        let body = match kind {
            DESC => RequestBody::Desc,
            FLOW => RequestBody::Flow(FlowStatsRequest::decode(reader)?),
            AGGREGATE => RequestBody::Aggregate(FlowStatsRequest::decode(reader)?),
            TABLE => RequestBody::Table,
            PORT_STATS => {
                let port = reader.u32("port_no")?;
                reader.take("pad", 4)?;
                RequestBody::PortStats(port)
            }
            PORT_DESC => RequestBody::PortDesc,
            multipart_type => RequestBody::Other { multipart_type, body: reader.rest().to_vec() },
        };
        Ok(Self { more, body })
    }
}

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
    /// `OFPMP_PORT_DESC`
    PortDesc(Vec<Port>),
    /// Another one.
    Other {
        /// Its number, `enum ofp_multipart_type`.
        multipart_type: u16,
        /// As it came.
        body: Vec<u8>,
    },
}

impl ReplyBody {
    fn kind(&self) -> u16 {
        match self {
            Self::Desc(_) => DESC,
            Self::Flow(_) => FLOW,
            Self::Aggregate(_) => AGGREGATE,
            Self::Table(_) => TABLE,
            Self::PortStats(_) => PORT_STATS,
            Self::PortDesc(_) => PORT_DESC,
            Self::Other { multipart_type, .. } => *multipart_type,
        }
    }

    /// Messages of at most [`MESSAGE_BYTES_MAX`] that carry all of it, in their order; at least one.
    #[must_use]
    pub fn split(self) -> Vec<MultipartReply> {
        match self {
            Self::Flow(flows) => pack(flows, FlowStats::encode, Self::Flow),
            Self::Table(tables) => pack(tables, TableStats::encode, Self::Table),
            Self::PortStats(ports) => pack(ports, PortStats::encode, Self::PortStats),
            Self::PortDesc(ports) => pack(ports, Port::encode, Self::PortDesc),
            body @ (Self::Desc(_) | Self::Aggregate(_) | Self::Other { .. }) => {
                vec![MultipartReply { more: false, body }]
            }
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
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        encode_head(self.body.kind(), self.more, out);
        match &self.body {
            ReplyBody::Desc(desc) => desc.encode(out),
            ReplyBody::Flow(flows) => flows.iter().for_each(|flow| flow.encode(out)),
            ReplyBody::Aggregate(sum) => sum.encode(out),
            ReplyBody::Table(tables) => tables.iter().for_each(|table| table.encode(out)),
            ReplyBody::PortStats(ports) => ports.iter().for_each(|port| port.encode(out)),
            ReplyBody::PortDesc(ports) => ports.iter().for_each(|port| port.encode(out)),
            ReplyBody::Other { body, .. } => out.extend(body),
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let (kind, more) = decode_head(reader)?;
        let body = match kind {
            DESC => ReplyBody::Desc(Box::new(Desc::decode(reader)?)),
            FLOW => ReplyBody::Flow(all(reader, FlowStats::decode)?),
            AGGREGATE => ReplyBody::Aggregate(Aggregate::decode(reader)?),
            TABLE => ReplyBody::Table(all(reader, |reader| Ok(TableStats::decode(reader)?))?),
            PORT_STATS => ReplyBody::PortStats(all(reader, |reader| Ok(PortStats::decode(reader)?))?),
            PORT_DESC => ReplyBody::PortDesc(all(reader, |reader| Ok(Port::decode(reader)?))?),
            multipart_type => ReplyBody::Other { multipart_type, body: reader.rest().to_vec() },
        };
        Ok(Self { more, body })
    }
}

/// Entries to the end of the message; each takes bytes, so a message's length bounds them.
fn all<T>(
    reader: &mut Reader<'_>,
    decode: impl Fn(&mut Reader<'_>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let mut entries = Vec::new();
    while reader.finish().is_err() {
        entries.push(decode(reader)?);
    }
    Ok(entries)
}

fn encode_head(kind: u16, more: bool, out: &mut Vec<u8>) {
    put_u16(out, kind);
    put_u16(out, if more { FLAG_MORE } else { 0 });
    pad(out, 4);
}

fn decode_head(reader: &mut Reader<'_>) -> Result<(u16, bool), Fault> {
    let kind = reader.u16("multipart type")?;
    let flags = reader.u16("multipart flags")?;
    reader.take("pad", 4)?;
    Ok((kind, flags & FLAG_MORE != 0))
}

const _: () = assert!(MULTIPART_HEADER_BYTES + PORT_BYTES <= MESSAGE_BYTES_MAX, "an entry fits a message");

#[cfg(test)]
mod tests;
