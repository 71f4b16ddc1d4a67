//! What is done with a frame: actions (§7.2.5) and the instructions that hold them (§7.2.4).
//!
//! Those that neither end makes use of are kept as they came, as `Other`: a switch answers `OFPBAC_BAD_TYPE` or
//! `OFPBIC_UNSUP_INST`, and a controller shows what a switch holds.

use super::error::{BadAction, BadInstruction, ErrorKind};
use super::message::Fault;
use super::oxm::Oxm;
use super::wire::{pad, padding, put_u16, put_u32, put_u64, with_length};
use crate::wire::{Reader, WireError};

/// Bytes of the type and length of an action and of an instruction, which the length includes.
const TLV_HEADER_BYTES: u16 = 4;

/// `OFPCML_NO_BUFFER` (§7.2.5): the controller gets the whole frame.
pub const CONTROLLER_MAX_LEN_NO_BUFFER: u16 = 0xffff;

const OUTPUT: u16 = 0;
const SET_QUEUE: u16 = 21;
const GROUP: u16 = 22;
const SET_FIELD: u16 = 25;

/// One action (§7.2.5).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// `OFPAT_OUTPUT`
    Output {
        /// [`port`](super::port) has the reserved numbers.
        port: u32,
        /// Bytes of the frame for the controller, of no meaning for other ports.
        max_len: u16,
    },
    /// `OFPAT_SET_QUEUE`
    SetQueue(u32),
    /// `OFPAT_GROUP`
    Group(u32),
    /// `OFPAT_SET_FIELD`; never with a mask.
    SetField(Oxm),
    /// Another one.
    Other {
        /// Its number, `enum ofp_action_type`.
        action_type: u16,
        /// What follows its type and length; with these a multiple of 8 bytes.
        body: Vec<u8>,
    },
}

impl Action {
    /// Out by a port; nothing of it to the controller.
    #[must_use]
    pub fn output(port: u32) -> Self {
        Self::Output { port, max_len: 0 }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        with_length(out, 2, |out| match self {
            Self::Output { port, max_len } => {
                put_u16(out, OUTPUT);
                put_u16(out, 0);
                put_u32(out, *port);
                put_u16(out, *max_len);
                pad(out, 6);
            }
            Self::SetQueue(number) => numbered(SET_QUEUE, *number, out),
            Self::Group(number) => numbered(GROUP, *number, out),
            Self::SetField(field) => {
                put_u16(out, SET_FIELD);
                put_u16(out, 0);
                field.encode(out);
                pad(out, padding(usize::from(TLV_HEADER_BYTES) + field.bytes()));
            }
            Self::Other { action_type, body } => {
                put_u16(out, *action_type);
                put_u16(out, 0);
                out.extend(body);
            }
        });
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let fault = |_source: WireError| Fault::Standard(ErrorKind::BadAction(BadAction::BadLen));
        let action_type = reader.u16("action type").map_err(fault)?;
        let length = reader.u16("action length").map_err(fault)?;
        let bytes = body_bytes(length).ok_or(Fault::Standard(ErrorKind::BadAction(BadAction::BadLen)))?;
        let mut body = Reader::new(reader.take("action", bytes).map_err(fault)?);
        let action = match action_type {
            OUTPUT => {
                let port = body.u32("output port").map_err(fault)?;
                let max_len = body.u16("output max_len").map_err(fault)?;
                body.take("output padding", 6).map_err(fault)?;
                Self::Output { port, max_len }
            }
            SET_QUEUE => Self::SetQueue(body.u32("queue").map_err(fault)?),
            GROUP => Self::Group(body.u32("group").map_err(fault)?),
            SET_FIELD => Self::SetField(decode_set_field(&mut body)?),
            action_type => Self::Other { action_type, body: body.rest().to_vec() },
        };
        body.finish().map_err(fault)?;
        Ok(action)
    }

    /// All of `bytes`.
    pub(super) fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, Fault> {
        let mut reader = Reader::new(bytes);
        let mut actions = Vec::new();
        while reader.finish().is_err() {
            actions.push(Self::decode(&mut reader)?);
        }
        Ok(actions)
    }
}

fn numbered(kind: u16, number: u32, out: &mut Vec<u8>) {
    put_u16(out, kind);
    put_u16(out, 0);
    put_u32(out, number);
}

/// What follows type and length, which together must be a multiple of 8 bytes.
fn body_bytes(length: u16) -> Option<usize> {
    let bytes = length.checked_sub(TLV_HEADER_BYTES)?;
    (length.is_multiple_of(8) && length > 0).then_some(usize::from(bytes))
}

fn decode_set_field(body: &mut Reader<'_>) -> Result<Oxm, Fault> {
    let bad_length = ErrorKind::BadAction(BadAction::BadSetLen);
    let field = Oxm::decode(body, bad_length)?;
    if field.mask().is_some() {
        return Err(Fault::Standard(ErrorKind::BadAction(BadAction::BadSetType)));
    }
    let padding = padding(usize::from(TLV_HEADER_BYTES) + field.bytes());
    body.take("set-field padding", padding).map_err(|_source| Fault::Standard(bad_length))?;
    Ok(field)
}

const GOTO_TABLE: u16 = 1;
const WRITE_METADATA: u16 = 2;
const WRITE_ACTIONS: u16 = 3;
const APPLY_ACTIONS: u16 = 4;
const CLEAR_ACTIONS: u16 = 5;
const METER: u16 = 6;

/// One instruction of a flow (§7.2.4).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Instruction {
    /// `OFPIT_GOTO_TABLE`
    GotoTable(u8),
    /// `OFPIT_WRITE_METADATA`
    WriteMetadata {
        /// The bits.
        metadata: u64,
        /// Which of them are written.
        mask: u64,
    },
    /// `OFPIT_WRITE_ACTIONS`: into the action set, which is carried out at the pipeline's end.
    WriteActions(Vec<Action>),
    /// `OFPIT_APPLY_ACTIONS`: at once, in their order.
    ApplyActions(Vec<Action>),
    /// `OFPIT_CLEAR_ACTIONS`: empties the action set.
    ClearActions,
    /// `OFPIT_METER`
    Meter(u32),
    /// Another one, experimenters' included.
    Other {
        /// Its number, `enum ofp_instruction_type`.
        instruction_type: u16,
        /// What follows its type and length; with these a multiple of 8 bytes.
        body: Vec<u8>,
    },
}

impl Instruction {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        with_length(out, 2, |out| match self {
            Self::GotoTable(table) => {
                put_u16(out, GOTO_TABLE);
                put_u16(out, 0);
                out.push(*table);
                pad(out, 3);
            }
            Self::WriteMetadata { metadata, mask } => {
                put_u16(out, WRITE_METADATA);
                pad(out, 6);
                put_u64(out, *metadata);
                put_u64(out, *mask);
            }
            Self::WriteActions(actions) => encode_actions(WRITE_ACTIONS, actions, out),
            Self::ApplyActions(actions) => encode_actions(APPLY_ACTIONS, actions, out),
            Self::ClearActions => encode_actions(CLEAR_ACTIONS, &[], out),
            Self::Meter(meter) => numbered(METER, *meter, out),
            Self::Other { instruction_type, body } => {
                put_u16(out, *instruction_type);
                put_u16(out, 0);
                out.extend(body);
            }
        });
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let bad_length = ErrorKind::BadInstruction(BadInstruction::BadLen);
        let fault = |_source: WireError| Fault::Standard(bad_length);
        let instruction_type = reader.u16("instruction type").map_err(fault)?;
        let length = reader.u16("instruction length").map_err(fault)?;
        let bytes = body_bytes(length).ok_or(Fault::Standard(bad_length))?;
        let mut body = Reader::new(reader.take("instruction", bytes).map_err(fault)?);
        let instruction = match instruction_type {
            GOTO_TABLE => {
                let table = body.u8("table_id").map_err(fault)?;
                body.take("padding", 3).map_err(fault)?;
                Self::GotoTable(table)
            }
            WRITE_METADATA => {
                body.take("padding", 4).map_err(fault)?;
                let metadata = body.u64("metadata").map_err(fault)?;
                Self::WriteMetadata { metadata, mask: body.u64("metadata_mask").map_err(fault)? }
            }
            WRITE_ACTIONS => Self::WriteActions(decode_actions(&mut body)?),
            APPLY_ACTIONS => Self::ApplyActions(decode_actions(&mut body)?),
            CLEAR_ACTIONS => {
                body.take("padding", 4).map_err(fault)?;
                Self::ClearActions
            }
            METER => Self::Meter(body.u32("meter").map_err(fault)?),
            instruction_type => Self::Other { instruction_type, body: body.rest().to_vec() },
        };
        body.finish().map_err(fault)?;
        Ok(instruction)
    }

    /// All that is left in `reader`.
    pub(super) fn decode_all(reader: &mut Reader<'_>) -> Result<Vec<Self>, Fault> {
        let mut instructions = Vec::new();
        while reader.finish().is_err() {
            instructions.push(Self::decode(reader)?);
        }
        Ok(instructions)
    }
}

fn encode_actions(kind: u16, actions: &[Action], out: &mut Vec<u8>) {
    put_u16(out, kind);
    pad(out, 6);
    for action in actions {
        action.encode(out);
    }
}

fn decode_actions(body: &mut Reader<'_>) -> Result<Vec<Action>, Fault> {
    let bad_length = ErrorKind::BadInstruction(BadInstruction::BadLen);
    body.take("padding", 4).map_err(|_source| Fault::Standard(bad_length))?;
    Action::decode_all(body.rest())
}
