//! Queues: how they are configured (§7.3.6, §7.2.2), and what they counted (§7.3.5.8).

use super::error::{BadRequest, ErrorKind};
use super::flow::Lasted;
use super::message::Fault;
use super::wire::{pad, put_u16, put_u32, put_u64, with_length};
use crate::wire::{Reader, WireError};

/// `OFPQ_ALL`: all queues.
pub const ALL: u32 = 0xffff_ffff;
/// `OFPQ_MIN_RATE_UNCFG` and `OFPQ_MAX_RATE_UNCFG`: any rate above 1000 is none.
pub const RATE_UNCONFIGURED: u16 = 0xffff;

/// Bytes of a queue before its properties.
const QUEUE_HEADER_BYTES: u16 = 16;
/// Bytes of a property's type, length and padding.
const PROPERTY_HEADER_BYTES: u16 = 8;

const MIN_RATE: u16 = 1;
const MAX_RATE: u16 = 2;
const EXPERIMENTER: u16 = 0xffff;

/// One property of a queue: `struct ofp_queue_prop_header` and what follows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum QueueProperty {
    /// `OFPQT_MIN_RATE`: guaranteed, in 1/10 of a percent of the port's rate.
    MinRate(u16),
    /// `OFPQT_MAX_RATE`: most, in 1/10 of a percent of the port's rate.
    MaxRate(u16),
    /// `OFPQT_EXPERIMENTER`
    Experimenter {
        /// Who defined it.
        experimenter: u32,
        /// What follows.
        data: Vec<u8>,
    },
    /// One that 1.3.5 doesn't have.
    Other {
        /// Its number.
        property: u16,
        /// What follows its header.
        body: Vec<u8>,
    },
}

impl QueueProperty {
    fn encode(&self, out: &mut Vec<u8>) {
        let number = match self {
            Self::MinRate(_) => MIN_RATE,
            Self::MaxRate(_) => MAX_RATE,
            Self::Experimenter { .. } => EXPERIMENTER,
            Self::Other { property, .. } => *property,
        };
        with_length(out, 2, |out| {
            put_u16(out, number);
            pad(out, 6);
            match self {
                Self::MinRate(rate) | Self::MaxRate(rate) => {
                    put_u16(out, *rate);
                    pad(out, 6);
                }
                Self::Experimenter { experimenter, data } => {
                    put_u32(out, *experimenter);
                    pad(out, 4);
                    out.extend(data);
                }
                Self::Other { body, .. } => out.extend(body),
            }
        });
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let (property, length) = (reader.u16("property")?, reader.u16("property length")?);
        reader.take("pad", 4)?;
        let bytes = length.checked_sub(PROPERTY_HEADER_BYTES).ok_or(BAD_LENGTH)?;
        let mut body = Reader::new(reader.take("property", bytes.into())?);
        let rate = |body: &mut Reader<'_>| -> Result<u16, WireError> {
            let rate = body.u16("rate")?;
            body.take("pad", 6)?;
            Ok(rate)
        };
        let property = match property {
            MIN_RATE => Self::MinRate(rate(&mut body)?),
            MAX_RATE => Self::MaxRate(rate(&mut body)?),
            EXPERIMENTER => {
                let experimenter = body.u32("experimenter")?;
                body.take("pad", 4)?;
                Self::Experimenter { experimenter, data: body.rest().to_vec() }
            }
            property => Self::Other { property, body: body.rest().to_vec() },
        };
        body.finish()?;
        Ok(property)
    }
}

const BAD_LENGTH: Fault = Fault::Standard(ErrorKind::BadRequest(BadRequest::BadLen));

/// `struct ofp_packet_queue` (§7.2.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PacketQueue {
    /// Its number.
    pub queue_id: u32,
    /// The port that it is attached to.
    pub port: u32,
    /// How it is configured.
    pub properties: Vec<QueueProperty>,
}

impl PacketQueue {
    fn encode(&self, out: &mut Vec<u8>) {
        with_length(out, 8, |out| {
            put_u32(out, self.queue_id);
            put_u32(out, self.port);
            pad(out, 8);
            for property in &self.properties {
                property.encode(out);
            }
        });
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let (queue_id, port) = (reader.u32("queue_id")?, reader.u32("port")?);
        let length = reader.u16("queue length")?;
        reader.take("pad", 6)?;
        let bytes = length.checked_sub(QUEUE_HEADER_BYTES).ok_or(BAD_LENGTH)?;
        let mut reader = Reader::new(reader.take("queue properties", bytes.into())?);
        let mut properties = Vec::new();
        while reader.finish().is_err() {
            properties.push(QueueProperty::decode(&mut reader)?);
        }
        Ok(Self { queue_id, port, properties })
    }
}

/// `struct ofp_queue_get_config_reply` (§7.3.6).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QueueConfig {
    /// That was asked for.
    pub port: u32,
    /// Its queues.
    pub queues: Vec<PacketQueue>,
}

impl QueueConfig {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_u32(out, self.port);
        pad(out, 4);
        for queue in &self.queues {
            queue.encode(out);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let port = decode_port(reader)?;
        let mut queues = Vec::new();
        while reader.finish().is_err() {
            queues.push(PacketQueue::decode(reader)?);
        }
        Ok(Self { port, queues })
    }
}

/// A number and padding up to 8 bytes, which is all of some requests.
pub(super) fn encode_port(number: u32, out: &mut Vec<u8>) {
    put_u32(out, number);
    pad(out, 4);
}

pub(super) fn decode_port(reader: &mut Reader<'_>) -> Result<u32, WireError> {
    let number = reader.u32("number")?;
    reader.take("pad", 4)?;
    Ok(number)
}

/// `struct ofp_queue_stats_request` (§7.3.5.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QueueStatsRequest {
    /// Which port; [`port::ANY`](super::port::ANY) for all.
    pub port: u32,
    /// Which queue; [`ALL`] for all.
    pub queue_id: u32,
}

impl QueueStatsRequest {
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        put_u32(out, self.port);
        put_u32(out, self.queue_id);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self { port: reader.u32("port_no")?, queue_id: reader.u32("queue_id")? })
    }
}

/// `struct ofp_queue_stats`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueStats {
    /// The port that it is attached to.
    pub port: u32,
    /// Its number.
    pub queue_id: u32,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Dropped, because it was full.
    pub tx_errors: u64,
    /// How long it has been there.
    pub lasted: Lasted,
}

impl QueueStats {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_u32(out, self.port);
        put_u32(out, self.queue_id);
        for value in [self.tx_bytes, self.tx_packets, self.tx_errors] {
            put_u64(out, value);
        }
        self.lasted.encode(out);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            port: reader.u32("port_no")?,
            queue_id: reader.u32("queue_id")?,
            tx_bytes: reader.u64("tx_bytes")?,
            tx_packets: reader.u64("tx_packets")?,
            tx_errors: reader.u64("tx_errors")?,
            lasted: Lasted::decode(reader)?,
        })
    }
}
