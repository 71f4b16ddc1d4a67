//! What a flow does with its frames: instructions (§7.2.4).

use super::action::{Action, body_bytes};
use super::error::{BadInstruction, ErrorKind};
use super::message::Fault;
use super::numbered::numbered;
use super::wire::{pad, put_u16, put_u32, put_u64, with_length};
use crate::wire::{Reader, WireError};

numbered! {
    /// `enum ofp_instruction_type` (§7.2.4).
    InstructionType:
    GotoTable = 1 "OFPIT_GOTO_TABLE",
    WriteMetadata = 2 "OFPIT_WRITE_METADATA",
    WriteActions = 3 "OFPIT_WRITE_ACTIONS",
    ApplyActions = 4 "OFPIT_APPLY_ACTIONS",
    ClearActions = 5 "OFPIT_CLEAR_ACTIONS",
    Meter = 6 "OFPIT_METER",
    Experimenter = 0xffff "OFPIT_EXPERIMENTER",
}

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
    /// `OFPIT_EXPERIMENTER`
    Experimenter {
        /// Who defined it.
        experimenter: u32,
        /// What follows; with type, length and experimenter a multiple of 8 bytes.
        data: Vec<u8>,
    },
    /// One that 1.3.5 doesn't have.
    Other {
        /// Its number.
        instruction_type: u16,
        /// What follows its type and length; with these a multiple of 8 bytes.
        body: Vec<u8>,
    },
}

impl Instruction {
    /// Its type, if 1.3.5 has it.
    #[must_use]
    pub fn instruction_type(&self) -> Option<InstructionType> {
        InstructionType::from_u16(self.number())
    }

    /// The number of its type.
    #[must_use]
    pub fn number(&self) -> u16 {
        let of = match self {
            Self::GotoTable(_) => InstructionType::GotoTable,
            Self::WriteMetadata { .. } => InstructionType::WriteMetadata,
            Self::WriteActions(_) => InstructionType::WriteActions,
            Self::ApplyActions(_) => InstructionType::ApplyActions,
            Self::ClearActions => InstructionType::ClearActions,
            Self::Meter(_) => InstructionType::Meter,
            Self::Experimenter { .. } => InstructionType::Experimenter,
            Self::Other { instruction_type, .. } => return *instruction_type,
        };
        of as u16
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        with_length(out, 2, |out| {
            put_u16(out, self.number());
            put_u16(out, 0);
            match self {
                Self::GotoTable(table) => {
                    out.push(*table);
                    pad(out, 3);
                }
                Self::WriteMetadata { metadata, mask } => {
                    pad(out, 4);
                    put_u64(out, *metadata);
                    put_u64(out, *mask);
                }
                Self::WriteActions(actions) | Self::ApplyActions(actions) => {
                    pad(out, 4);
                    for action in actions {
                        action.encode(out);
                    }
                }
                Self::ClearActions => pad(out, 4),
                Self::Meter(meter) => put_u32(out, *meter),
                Self::Experimenter { experimenter, data } => {
                    put_u32(out, *experimenter);
                    out.extend(data);
                }
                Self::Other { body, .. } => out.extend(body),
            }
        });
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let number = reader.u16("instruction type").map_err(bad_length)?;
        let length = reader.u16("instruction length").map_err(bad_length)?;
        let bytes = body_bytes(length);
        let bytes = bytes.ok_or(Fault::Standard(ErrorKind::BadInstruction(BadInstruction::BadLen)))?;
        let mut body = Reader::new(reader.take("instruction", bytes).map_err(bad_length)?);
        let instruction = match InstructionType::from_u16(number) {
            Some(InstructionType::GotoTable) => {
                let table = body.u8("table_id").map_err(bad_length)?;
                body.take("padding", 3).map_err(bad_length)?;
                Self::GotoTable(table)
            }
            Some(InstructionType::WriteMetadata) => {
                body.take("padding", 4).map_err(bad_length)?;
                let metadata = body.u64("metadata").map_err(bad_length)?;
                Self::WriteMetadata { metadata, mask: body.u64("metadata_mask").map_err(bad_length)? }
            }
            Some(InstructionType::WriteActions) => Self::WriteActions(decode_actions(&mut body)?),
            Some(InstructionType::ApplyActions) => Self::ApplyActions(decode_actions(&mut body)?),
            Some(InstructionType::ClearActions) => {
                body.take("padding", 4).map_err(bad_length)?;
                Self::ClearActions
            }
            Some(InstructionType::Meter) => Self::Meter(body.u32("meter").map_err(bad_length)?),
            Some(InstructionType::Experimenter) => {
                let experimenter = body.u32("experimenter").map_err(bad_length)?;
                Self::Experimenter { experimenter, data: body.rest().to_vec() }
            }
            None => Self::Other { instruction_type: number, body: body.rest().to_vec() },
        };
        body.finish().map_err(bad_length)?;
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

fn bad_length(_source: WireError) -> Fault {
    Fault::Standard(ErrorKind::BadInstruction(BadInstruction::BadLen))
}

fn decode_actions(body: &mut Reader<'_>) -> Result<Vec<Action>, Fault> {
    body.take("padding", 4).map_err(bad_length)?;
    Action::decode_all(body.rest())
}
