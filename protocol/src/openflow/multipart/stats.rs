//! The bodies of multipart messages: description (§7.3.5.1), flows (§7.3.5.2, §7.3.5.3), tables (§7.3.5.4), ports (§7.3.5.6).

use super::super::error::{BadRequest, ErrorKind};
use super::super::flow::{Lasted, TABLE_ALL};
use super::super::instruction::Instruction;
use super::super::message::Fault;
use super::super::oxm::Match;
use super::super::port;
use super::super::text::Text;
use super::super::wire::{pad, put_u16, put_u32, put_u64, with_length};
use crate::wire::{Reader, WireError};

/// `DESC_STR_LEN`
pub const DESC_BYTES: usize = 256;
/// `SERIAL_NUM_LEN`
pub const SERIAL_BYTES: usize = 32;

/// `struct ofp_desc`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desc {
    /// Who made it.
    pub manufacturer: Text<DESC_BYTES>,
    /// The hardware.
    pub hardware: Text<DESC_BYTES>,
    /// The software.
    pub software: Text<DESC_BYTES>,
    /// Serial number.
    pub serial: Text<SERIAL_BYTES>,
    /// For people.
    pub datapath: Text<DESC_BYTES>,
}

impl Desc {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.manufacturer.bytes());
        out.extend(self.hardware.bytes());
        out.extend(self.software.bytes());
        out.extend(self.serial.bytes());
        out.extend(self.datapath.bytes());
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            manufacturer: Text::of_bytes(reader.array("mfr_desc")?),
            hardware: Text::of_bytes(reader.array("hw_desc")?),
            software: Text::of_bytes(reader.array("sw_desc")?),
            serial: Text::of_bytes(reader.array("serial_num")?),
            datapath: Text::of_bytes(reader.array("dp_desc")?),
        })
    }
}

/// `struct ofp_flow_stats_request`, which is `ofp_aggregate_stats_request` too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowStatsRequest {
    /// [`TABLE_ALL`] for all.
    pub table_id: u8,
    /// Only flows with an output to this port; [`port::ANY`] for all.
    pub out_port: u32,
    /// Only flows with this group; [`port::ANY`] for all.
    pub out_group: u32,
    /// What a flow's cookie must equal.
    pub cookie: u64,
    /// In these bits.
    pub cookie_mask: u64,
    /// Flows that are part of this.
    pub pattern: Match,
}

impl FlowStatsRequest {
    /// Every flow of every table.
    #[must_use]
    pub fn all() -> Self {
        Self {
            table_id: TABLE_ALL,
            out_port: port::ANY,
            out_group: port::ANY,
            cookie: 0,
            cookie_mask: 0,
            pattern: Match::any(),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.table_id);
        pad(out, 3);
        put_u32(out, self.out_port);
        put_u32(out, self.out_group);
        pad(out, 4);
        put_u64(out, self.cookie);
        put_u64(out, self.cookie_mask);
        self.pattern.encode(out);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let table_id = reader.u8("table_id")?;
        reader.take("pad", 3)?;
        let (out_port, out_group) = (reader.u32("out_port")?, reader.u32("out_group")?);
        reader.take("pad", 4)?;
        let (cookie, cookie_mask) = (reader.u64("cookie")?, reader.u64("cookie_mask")?);
        Ok(Self { table_id, out_port, out_group, cookie, cookie_mask, pattern: Match::decode(reader)? })
    }
}

/// `struct ofp_flow_stats`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowStats {
    /// Where the flow is.
    pub table_id: u8,
    /// How long.
    pub lasted: Lasted,
    /// Higher comes first.
    pub priority: u16,
    /// Of the flow-mod.
    pub idle_timeout_s: u16,
    /// Of the flow-mod.
    pub hard_timeout_s: u16,
    /// [`flags`](super::super::flags).
    pub flags: u16,
    /// The controller's own mark.
    pub cookie: u64,
    /// Frames that it matched.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Which frames.
    pub pattern: Match,
    /// What is done with them.
    pub instructions: Vec<Instruction>,
}

impl FlowStats {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        with_length(out, 0, |out| {
            put_u16(out, 0);
            out.extend([self.table_id, 0]);
            self.lasted.encode(out);
            for value in [self.priority, self.idle_timeout_s, self.hard_timeout_s, self.flags] {
                put_u16(out, value);
            }
            pad(out, 4);
            put_u64(out, self.cookie);
            put_u64(out, self.packets);
            put_u64(out, self.bytes);
            self.pattern.encode(out);
            for instruction in &self.instructions {
                instruction.encode(out);
            }
        });
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let bad_length = Fault::Standard(ErrorKind::BadRequest(BadRequest::BadLen));
        let length = reader.u16("flow length")?.checked_sub(2).ok_or(bad_length)?;
        let mut reader = Reader::new(reader.take("flow", length.into())?);
        let reader = &mut reader;
        let table_id = reader.u8("table_id")?;
        reader.take("pad", 1)?;
        let lasted = Lasted::decode(reader)?;
        let (priority, idle_timeout_s) = (reader.u16("priority")?, reader.u16("idle_timeout")?);
        let (hard_timeout_s, flags) = (reader.u16("hard_timeout")?, reader.u16("flags")?);
        reader.take("pad", 4)?;
        Ok(Self {
            table_id,
            lasted,
            priority,
            idle_timeout_s,
            hard_timeout_s,
            flags,
            cookie: reader.u64("cookie")?,
            packets: reader.u64("packet_count")?,
            bytes: reader.u64("byte_count")?,
            pattern: Match::decode(reader)?,
            instructions: Instruction::decode_all(reader)?,
        })
    }
}

/// `struct ofp_aggregate_stats_reply`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Aggregate {
    /// Frames that the flows matched.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many flows.
    pub flows: u32,
}

impl Aggregate {
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        put_u64(out, self.packets);
        put_u64(out, self.bytes);
        put_u32(out, self.flows);
        pad(out, 4);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let (packets, bytes) = (reader.u64("packet_count")?, reader.u64("byte_count")?);
        let flows = reader.u32("flow_count")?;
        reader.take("pad", 4)?;
        Ok(Self { packets, bytes, flows })
    }
}

/// `struct ofp_table_stats`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TableStats {
    /// Which table.
    pub table_id: u8,
    /// Flows in it.
    pub active: u32,
    /// Frames looked up.
    pub lookups: u64,
    /// Frames that a flow matched.
    pub matched: u64,
}

impl TableStats {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.table_id);
        pad(out, 3);
        put_u32(out, self.active);
        put_u64(out, self.lookups);
        put_u64(out, self.matched);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let table_id = reader.u8("table_id")?;
        reader.take("pad", 3)?;
        Ok(Self {
            table_id,
            active: reader.u32("active_count")?,
            lookups: reader.u64("lookup_count")?,
            matched: reader.u64("matched_count")?,
        })
    }
}

/// What a port counted. All ones where a switch doesn't count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortCounters {
    /// Frames received.
    pub rx_packets: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Received and dropped.
    pub rx_dropped: u64,
    /// Dropped before they were sent.
    pub tx_dropped: u64,
    /// Received with an error of any kind.
    pub rx_errors: u64,
    /// Not sent for an error.
    pub tx_errors: u64,
    /// Frame alignment errors.
    pub rx_frame_err: u64,
    /// Overruns.
    pub rx_over_err: u64,
    /// Checksum errors.
    pub rx_crc_err: u64,
    /// Collisions.
    pub collisions: u64,
}

/// `struct ofp_port_stats`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortStats {
    /// Which port.
    pub port: u32,
    /// What it counted.
    pub counters: PortCounters,
    /// How long it has been there.
    pub lasted: Lasted,
}

impl PortStats {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let counters = &self.counters;
        put_u32(out, self.port);
        pad(out, 4);
        for value in [
            counters.rx_packets,
            counters.tx_packets,
            counters.rx_bytes,
            counters.tx_bytes,
            counters.rx_dropped,
            counters.tx_dropped,
            counters.rx_errors,
            counters.tx_errors,
            counters.rx_frame_err,
            counters.rx_over_err,
            counters.rx_crc_err,
            counters.collisions,
        ] {
            put_u64(out, value);
        }
        self.lasted.encode(out);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let port = reader.u32("port_no")?;
        reader.take("pad", 4)?;
        let counters = PortCounters {
            rx_packets: reader.u64("rx_packets")?,
            tx_packets: reader.u64("tx_packets")?,
            rx_bytes: reader.u64("rx_bytes")?,
            tx_bytes: reader.u64("tx_bytes")?,
            rx_dropped: reader.u64("rx_dropped")?,
            tx_dropped: reader.u64("tx_dropped")?,
            rx_errors: reader.u64("rx_errors")?,
            tx_errors: reader.u64("tx_errors")?,
            rx_frame_err: reader.u64("rx_frame_err")?,
            rx_over_err: reader.u64("rx_over_err")?,
            rx_crc_err: reader.u64("rx_crc_err")?,
            collisions: reader.u64("collisions")?,
        };
        Ok(Self { port, counters, lasted: Lasted::decode(reader)? })
    }
}
