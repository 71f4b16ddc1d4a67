//! Frames to the controller (§7.4.1) and from it (§7.3.7).

use super::action::Action;
use super::error::{BadRequest, ErrorKind};
use super::message::Fault;
use super::oxm::Match;
use super::wire::{pad, put_u16, put_u32, put_u64};
use crate::wire::Reader;

/// `enum ofp_packet_in_reason`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PacketInReason {
    /// `OFPR_NO_MATCH`
    NoMatch = 0,
    /// `OFPR_ACTION`
    Action = 1,
    /// `OFPR_INVALID_TTL`
    InvalidTtl = 2,
}

/// `struct ofp_packet_in` (§7.4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketIn {
    /// Where the switch keeps the frame; [`NO_BUFFER`](super::NO_BUFFER) where it is all in `data`.
    pub buffer_id: u32,
    /// Bytes of the frame.
    pub total_len: u16,
    /// Why it comes.
    pub reason: PacketInReason,
    /// Of the table that was looked up.
    pub table_id: u8,
    /// Of the flow that sent it; all ones where none did.
    pub cookie: u64,
    /// How it came in: `in_port`, and what else was known.
    pub pattern: Match,
    /// The frame, or its beginning.
    pub data: Vec<u8>,
}

impl PacketIn {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_u32(out, self.buffer_id);
        put_u16(out, self.total_len);
        out.extend([self.reason as u8, self.table_id]);
        put_u64(out, self.cookie);
        self.pattern.encode(out);
        pad(out, 2);
        out.extend(&self.data);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let buffer_id = reader.u32("buffer_id")?;
        let total_len = reader.u16("total_len")?;
        let reason = match reader.u8("reason")? {
            0 => PacketInReason::NoMatch,
            1 => PacketInReason::Action,
            2 => PacketInReason::InvalidTtl,
            other => return Err(Fault::Value { field: "reason", value: other.into() }),
        };
        let table_id = reader.u8("table_id")?;
        let cookie = reader.u64("cookie")?;
        let pattern = Match::decode(reader)?;
        reader.take("pad", 2)?;
        Ok(Self { buffer_id, total_len, reason, table_id, cookie, pattern, data: reader.rest().to_vec() })
    }
}

/// `struct ofp_packet_out` (§7.3.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketOut {
    /// [`NO_BUFFER`](super::NO_BUFFER) where the frame is in `data`.
    pub buffer_id: u32,
    /// By which port it is to have come in: [`CONTROLLER`](super::port::CONTROLLER) where none.
    pub in_port: u32,
    /// What is done with it.
    pub actions: Vec<Action>,
    /// The frame.
    pub data: Vec<u8>,
}

impl PacketOut {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut actions = Vec::new();
        for action in &self.actions {
            action.encode(&mut actions);
        }
        put_u32(out, self.buffer_id);
        put_u32(out, self.in_port);
        // What doesn't fit doesn't fit the message either, whose length is checked.
        put_u16(out, u16::try_from(actions.len()).unwrap_or(u16::MAX));
        pad(out, 6);
        out.extend(actions);
        out.extend(&self.data);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let (buffer_id, in_port) = (reader.u32("buffer_id")?, reader.u32("in_port")?);
        let actions_len = reader.u16("actions_len")?;
        reader.take("pad", 6)?;
        let actions = reader
            .take("actions", actions_len.into())
            .map_err(|_source| Fault::Standard(ErrorKind::BadRequest(BadRequest::BadLen)))?;
        let actions = Action::decode_all(actions)?;
        Ok(Self { buffer_id, in_port, actions, data: reader.rest().to_vec() })
    }
}
