//! Multipart messages (§7.3.5): what a controller asks for and a switch reports, in one message or in several.

mod assembler;
mod reply;
mod request;
mod stats;

pub use assembler::{Assembler, AssemblyError, PENDING_MAX, REPLY_PARTS_MAX};
pub use reply::{MultipartReply, ReplyBody};
pub use request::{MultipartRequest, RequestBody};
pub use stats::{
    Aggregate, DESC_BYTES, Desc, FlowStats, FlowStatsRequest, PortCounters, PortStats, SERIAL_BYTES,
    TableStats,
};

use super::message::Fault;
use super::numbered::numbered;
use super::port::PORT_BYTES;
use super::wire::{pad, put_u16};
use super::{HEADER_BYTES, MESSAGE_BYTES_MAX};
use crate::wire::Reader;

/// `OFPMPF_REQ_MORE` and `OFPMPF_REPLY_MORE`.
const FLAG_MORE: u16 = 1;

/// Bytes of a multipart message before its body: header, type, flags, padding.
const MULTIPART_HEADER_BYTES: usize = HEADER_BYTES + 8;

numbered! {
    /// `enum ofp_multipart_type` (§7.3.5).
    MultipartType:
    Desc = 0 "OFPMP_DESC",
    Flow = 1 "OFPMP_FLOW",
    Aggregate = 2 "OFPMP_AGGREGATE",
    Table = 3 "OFPMP_TABLE",
    PortStats = 4 "OFPMP_PORT_STATS",
    Queue = 5 "OFPMP_QUEUE",
    Group = 6 "OFPMP_GROUP",
    GroupDesc = 7 "OFPMP_GROUP_DESC",
    GroupFeatures = 8 "OFPMP_GROUP_FEATURES",
    Meter = 9 "OFPMP_METER",
    MeterConfig = 10 "OFPMP_METER_CONFIG",
    MeterFeatures = 11 "OFPMP_METER_FEATURES",
    TableFeatures = 12 "OFPMP_TABLE_FEATURES",
    PortDesc = 13 "OFPMP_PORT_DESC",
    Experimenter = 0xffff "OFPMP_EXPERIMENTER",
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
