//! Flow-mods (§7.3.4.1), and that a flow has gone (§7.4.2).

use std::time::Duration;

use super::error::{ErrorKind, FlowModFailed};
use super::instruction::Instruction;
use super::message::Fault;
use super::oxm::Match;
use super::port;
use super::wire::{pad, put_u16, put_u32, put_u64};
use crate::wire::{Reader, WireError};

/// `OFPTT_ALL`: all tables, for deletes and statistics.
pub const TABLE_ALL: u8 = 0xff;
/// `OFP_NO_BUFFER`
pub const NO_BUFFER: u32 = 0xffff_ffff;

/// Bits of a flow-mod's `flags`.
pub mod flags {
    /// `OFPFF_SEND_FLOW_REM`
    pub const SEND_FLOW_REM: u16 = 1;
    /// `OFPFF_CHECK_OVERLAP`
    pub const CHECK_OVERLAP: u16 = 1 << 1;
    /// `OFPFF_RESET_COUNTS`
    pub const RESET_COUNTS: u16 = 1 << 2;
    /// `OFPFF_NO_PKT_COUNTS`
    pub const NO_PKT_COUNTS: u16 = 1 << 3;
    /// `OFPFF_NO_BYT_COUNTS`
    pub const NO_BYT_COUNTS: u16 = 1 << 4;
    /// All that 1.3.5 has.
    pub const ALL: u16 = 0x1f;
}

/// `enum ofp_flow_mod_command`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Command {
    /// `OFPFC_ADD`
    Add = 0,
    /// `OFPFC_MODIFY`
    Modify = 1,
    /// `OFPFC_MODIFY_STRICT`
    ModifyStrict = 2,
    /// `OFPFC_DELETE`
    Delete = 3,
    /// `OFPFC_DELETE_STRICT`
    DeleteStrict = 4,
}

impl Command {
    fn of(number: u8) -> Result<Self, Fault> {
        Ok(match number {
            0 => Self::Add,
            1 => Self::Modify,
            2 => Self::ModifyStrict,
            3 => Self::Delete,
            4 => Self::DeleteStrict,
            _ => return Err(Fault::Standard(ErrorKind::FlowModFailed(FlowModFailed::BadCommand))),
        })
    }
}

/// `struct ofp_flow_mod` (§7.3.4.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FlowMod {
    /// The controller's own mark.
    pub cookie: u64,
    /// For modify and delete: the bits of `cookie` that a flow's must equal.
    pub cookie_mask: u64,
    /// Which table; for deletes also [`TABLE_ALL`].
    pub table_id: u8,
    /// What to do.
    pub command: Command,
    /// Seconds without a frame; 0 for ever.
    pub idle_timeout_s: u16,
    /// Seconds; 0 for ever.
    pub hard_timeout_s: u16,
    /// Higher comes first.
    pub priority: u16,
    /// [`NO_BUFFER`], or the frame to which the flow is applied.
    pub buffer_id: u32,
    /// For deletes: only flows with an output to this port; [`port::ANY`] for all.
    pub out_port: u32,
    /// For deletes: only flows with this group; [`port::ANY`] (`OFPG_ANY`) for all.
    pub out_group: u32,
    /// [`flags`].
    pub flags: u16,
    /// Which frames.
    pub pattern: Match,
    /// What is done with them.
    pub instructions: Vec<Instruction>,
}

impl FlowMod {
    /// With no match and no instructions, nothing filtered, no timeouts, cookie 0.
    #[must_use]
    pub fn new(command: Command, table_id: u8, priority: u16) -> Self {
        Self {
            cookie: 0,
            cookie_mask: 0,
            table_id,
            command,
            idle_timeout_s: 0,
            hard_timeout_s: 0,
            priority,
            buffer_id: NO_BUFFER,
            out_port: port::ANY,
            out_group: port::ANY,
            flags: 0,
            pattern: Match::any(),
            instructions: Vec::new(),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.cookie);
        put_u64(out, self.cookie_mask);
        out.extend([self.table_id, self.command as u8]);
        for value in [self.idle_timeout_s, self.hard_timeout_s, self.priority] {
            put_u16(out, value);
        }
        for value in [self.buffer_id, self.out_port, self.out_group] {
            put_u32(out, value);
        }
        put_u16(out, self.flags);
        pad(out, 2);
        self.pattern.encode(out);
        for instruction in &self.instructions {
            instruction.encode(out);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let (cookie, cookie_mask) = (reader.u64("cookie")?, reader.u64("cookie_mask")?);
        let table_id = reader.u8("table_id")?;
        let command = reader.u8("command")?;
        let (idle_timeout_s, hard_timeout_s) = (reader.u16("idle_timeout")?, reader.u16("hard_timeout")?);
        let priority = reader.u16("priority")?;
        let buffer_id = reader.u32("buffer_id")?;
        let (out_port, out_group) = (reader.u32("out_port")?, reader.u32("out_group")?);
        let flags = reader.u16("flags")?;
        reader.take("pad", 2)?;
        Ok(Self {
            cookie,
            cookie_mask,
            table_id,
            command: Command::of(command)?,
            idle_timeout_s,
            hard_timeout_s,
            priority,
            buffer_id,
            out_port,
            out_group,
            flags,
            pattern: Match::decode(reader)?,
            instructions: Instruction::decode_all(reader)?,
        })
    }
}

/// How long something has been there: seconds, and nanoseconds beyond them. All ones where a switch can't say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lasted {
    /// Seconds.
    pub seconds: u32,
    /// Nanoseconds beyond them.
    pub nanoseconds: u32,
}

impl From<Duration> for Lasted {
    fn from(duration: Duration) -> Self {
        let seconds = u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
        Self { seconds, nanoseconds: duration.subsec_nanos() }
    }
}

impl Lasted {
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        put_u32(out, self.seconds);
        put_u32(out, self.nanoseconds);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self { seconds: reader.u32("duration_sec")?, nanoseconds: reader.u32("duration_nsec")? })
    }
}

/// `enum ofp_flow_removed_reason`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RemovedReason {
    /// `OFPRR_IDLE_TIMEOUT`
    IdleTimeout = 0,
    /// `OFPRR_HARD_TIMEOUT`
    HardTimeout = 1,
    /// `OFPRR_DELETE`
    Delete = 2,
    /// `OFPRR_GROUP_DELETE`
    GroupDelete = 3,
}

/// `struct ofp_flow_removed` (§7.4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowRemoved {
    /// The controller's own mark.
    pub cookie: u64,
    /// Of the flow.
    pub priority: u16,
    /// Why it went.
    pub reason: RemovedReason,
    /// Where it was.
    pub table_id: u8,
    /// How long.
    pub lasted: Lasted,
    /// Of the flow-mod.
    pub idle_timeout_s: u16,
    /// Of the flow-mod.
    pub hard_timeout_s: u16,
    /// Frames that it matched.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Which frames.
    pub pattern: Match,
}

impl FlowRemoved {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.cookie);
        put_u16(out, self.priority);
        out.extend([self.reason as u8, self.table_id]);
        self.lasted.encode(out);
        put_u16(out, self.idle_timeout_s);
        put_u16(out, self.hard_timeout_s);
        put_u64(out, self.packets);
        put_u64(out, self.bytes);
        self.pattern.encode(out);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let cookie = reader.u64("cookie")?;
        let priority = reader.u16("priority")?;
        let reason = match reader.u8("reason")? {
            0 => RemovedReason::IdleTimeout,
            1 => RemovedReason::HardTimeout,
            2 => RemovedReason::Delete,
            3 => RemovedReason::GroupDelete,
            other => return Err(Fault::Value { field: "reason", value: other.into() }),
        };
        Ok(Self {
            cookie,
            priority,
            reason,
            table_id: reader.u8("table_id")?,
            lasted: Lasted::decode(reader)?,
            idle_timeout_s: reader.u16("idle_timeout")?,
            hard_timeout_s: reader.u16("hard_timeout")?,
            packets: reader.u64("packet_count")?,
            bytes: reader.u64("byte_count")?,
            pattern: Match::decode(reader)?,
        })
    }
}
