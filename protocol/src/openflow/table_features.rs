//! Tables: what a controller configures (§7.3.3), and what each can do (§7.3.5.5).

use super::error::{ErrorKind, TableFeaturesFailed};
use super::group::entry;
use super::message::Fault;
use super::oxm::{CLASS_BASIC, CLASS_EXPERIMENTER, MatchField};
use super::text::Text;
use super::wire::{pad, padding, put_u16, put_u32, put_u64, with_length};
use crate::wire::{Reader, WireError};

/// `OFPTT_MAX`: tables are numbered up to here.
pub const TABLE_MAX: u8 = 0xfe;
/// `OFP_MAX_TABLE_NAME_LEN`
pub const TABLE_NAME_BYTES: usize = 32;

/// Bytes of a property's type and length.
const PROPERTY_HEADER_BYTES: u16 = 4;

/// `struct ofp_table_mod` (§7.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TableMod {
    /// Which table; [`TABLE_ALL`](super::TABLE_ALL) for all.
    pub table_id: u8,
    /// Bits of `enum ofp_table_config`, of which 1.3 has deprecated ones alone.
    pub config: u32,
}

impl TableMod {
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        out.extend([self.table_id, 0, 0, 0]);
        put_u32(out, self.config);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let table_id = reader.u8("table_id")?;
        reader.take("pad", 3)?;
        Ok(Self { table_id, config: reader.u32("config")? })
    }
}

/// An instruction or action by its type alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TypeId {
    /// By its number, as [`InstructionType`](super::InstructionType) or [`ActionType`](super::ActionType) has it.
    Standard(u16),
    /// Of an experimenter.
    Experimenter {
        /// Who defined it.
        experimenter: u32,
        /// What follows.
        data: Vec<u8>,
    },
}

impl TypeId {
    const EXPERIMENTER: u16 = 0xffff;

    fn encode(&self, out: &mut Vec<u8>) {
        with_length(out, 2, |out| match self {
            Self::Standard(number) => {
                put_u16(out, *number);
                put_u16(out, 0);
            }
            Self::Experimenter { experimenter, data } => {
                put_u16(out, Self::EXPERIMENTER);
                put_u16(out, 0);
                put_u32(out, *experimenter);
                out.extend(data);
            }
        });
    }

    /// Some write padding behind type and length; it is skipped.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let (number, length) =
            (reader.u16("type").map_err(bad_length)?, reader.u16("length").map_err(bad_length)?);
        let bytes = length.checked_sub(PROPERTY_HEADER_BYTES).ok_or(BAD_LENGTH)?;
        let mut body = Reader::new(reader.take("id", bytes.into()).map_err(bad_length)?);
        if number != Self::EXPERIMENTER {
            return Ok(Self::Standard(number));
        }
        let experimenter = body.u32("experimenter").map_err(bad_length)?;
        Ok(Self::Experimenter { experimenter, data: body.rest().to_vec() })
    }
}

/// A match field by the header of its TLV (§7.2.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OxmId {
    /// `OFPXMC_…` (§7.2.3.3).
    pub class: u16,
    /// Seven bits: its number within the class.
    pub number: u8,
    /// Whether masks are allowed.
    pub has_mask: bool,
    /// Of the payload, as it was given.
    pub length: u8,
    /// Who defined it, of class `OFPXMC_EXPERIMENTER` alone.
    pub experimenter: Option<u32>,
}

impl OxmId {
    /// A field of class `OFPXMC_OPENFLOW_BASIC`.
    #[must_use]
    pub fn of(field: MatchField, has_mask: bool) -> Self {
        let bytes = u8::try_from(field.bytes()).unwrap_or(u8::MAX);
        let length = if has_mask { bytes.saturating_mul(2) } else { bytes };
        Self { class: CLASS_BASIC, number: field.number(), has_mask, length, experimenter: None }
    }

    /// Which field it is, if 1.3.5 has it.
    #[must_use]
    pub fn field(&self) -> Option<MatchField> {
        if self.class == CLASS_BASIC { MatchField::from_u8(self.number) } else { None }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_u16(out, self.class);
        out.push((self.number << 1) | u8::from(self.has_mask));
        out.push(self.length);
        if let Some(experimenter) = self.experimenter {
            put_u32(out, experimenter);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let class = reader.u16("oxm class").map_err(bad_length)?;
        let field = reader.u8("oxm field").map_err(bad_length)?;
        let length = reader.u8("oxm length").map_err(bad_length)?;
        let experimenter = match class {
            CLASS_EXPERIMENTER => Some(reader.u32("experimenter").map_err(bad_length)?),
            _ => None,
        };
        Ok(Self { class, number: field >> 1, has_mask: field & 1 != 0, length, experimenter })
    }
}

/// One property (`enum ofp_table_feature_prop_type`). `miss` is for the table-miss flow, where that differs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TableProperty {
    /// `OFPTFPT_INSTRUCTIONS`, `OFPTFPT_INSTRUCTIONS_MISS`
    Instructions {
        /// For table misses.
        miss: bool,
        /// Those that it has.
        ids: Vec<TypeId>,
    },
    /// `OFPTFPT_NEXT_TABLES`, `OFPTFPT_NEXT_TABLES_MISS`
    NextTables {
        /// For table misses.
        miss: bool,
        /// Tables that a goto may lead to.
        tables: Vec<u8>,
    },
    /// `OFPTFPT_WRITE_ACTIONS`, `OFPTFPT_WRITE_ACTIONS_MISS`
    WriteActions {
        /// For table misses.
        miss: bool,
        /// Those that may be written.
        ids: Vec<TypeId>,
    },
    /// `OFPTFPT_APPLY_ACTIONS`, `OFPTFPT_APPLY_ACTIONS_MISS`
    ApplyActions {
        /// For table misses.
        miss: bool,
        /// Those that may be applied.
        ids: Vec<TypeId>,
    },
    /// `OFPTFPT_MATCH`: fields that may be matched.
    Match(Vec<OxmId>),
    /// `OFPTFPT_WILDCARDS`: fields that may be left out.
    Wildcards(Vec<OxmId>),
    /// `OFPTFPT_WRITE_SETFIELD`, `OFPTFPT_WRITE_SETFIELD_MISS`
    WriteSetField {
        /// For table misses.
        miss: bool,
        /// Fields that written actions may set.
        fields: Vec<OxmId>,
    },
    /// `OFPTFPT_APPLY_SETFIELD`, `OFPTFPT_APPLY_SETFIELD_MISS`
    ApplySetField {
        /// For table misses.
        miss: bool,
        /// Fields that applied actions may set.
        fields: Vec<OxmId>,
    },
    /// `OFPTFPT_EXPERIMENTER`, `OFPTFPT_EXPERIMENTER_MISS`
    Experimenter {
        /// For table misses.
        miss: bool,
        /// Who defined it.
        experimenter: u32,
        /// The experimenter's own type.
        exp_type: u32,
        /// What follows.
        data: Vec<u8>,
    },
    /// One that 1.3.5 doesn't have; a switch answers `OFPTFFC_BAD_TYPE`.
    Other {
        /// Its number.
        property_type: u16,
        /// What follows its type and length.
        body: Vec<u8>,
    },
}

impl TableProperty {
    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        match self {
            Self::Instructions { miss, .. } => u16::from(*miss),
            Self::NextTables { miss, .. } => 2 + u16::from(*miss),
            Self::WriteActions { miss, .. } => 4 + u16::from(*miss),
            Self::ApplyActions { miss, .. } => 6 + u16::from(*miss),
            Self::Match(_) => 8,
            Self::Wildcards(_) => 10,
            Self::WriteSetField { miss, .. } => 12 + u16::from(*miss),
            Self::ApplySetField { miss, .. } => 14 + u16::from(*miss),
            Self::Experimenter { miss, .. } => 0xfffe + u16::from(*miss),
            Self::Other { property_type, .. } => *property_type,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        with_length(out, 2, |out| {
            put_u16(out, self.number());
            put_u16(out, 0);
            match self {
                Self::Instructions { ids, .. }
                | Self::WriteActions { ids, .. }
                | Self::ApplyActions { ids, .. } => ids.iter().for_each(|id| id.encode(out)),
                Self::NextTables { tables, .. } => out.extend(tables),
                Self::Match(fields)
                | Self::Wildcards(fields)
                | Self::WriteSetField { fields, .. }
                | Self::ApplySetField { fields, .. } => fields.iter().for_each(|field| field.encode(out)),
                Self::Experimenter { experimenter, exp_type, data, .. } => {
                    put_u32(out, *experimenter);
                    put_u32(out, *exp_type);
                    out.extend(data);
                }
                Self::Other { body, .. } => out.extend(body),
            }
        });
        // The padding doesn't count.
        pad(out, padding(out.len() - start));
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let (number, length) =
            (reader.u16("property").map_err(bad_length)?, reader.u16("length").map_err(bad_length)?);
        let bytes = length.checked_sub(PROPERTY_HEADER_BYTES).ok_or(BAD_LENGTH)?;
        let mut body = Reader::new(reader.take("property", bytes.into()).map_err(bad_length)?);
        reader.take("property padding", padding(length.into())).map_err(bad_length)?;
        let miss = number & 1 != 0;
        let body = &mut body;
        Ok(match number {
            0 | 1 => Self::Instructions { miss, ids: list(body, TypeId::decode)? },
            2 | 3 => Self::NextTables { miss, tables: body.rest().to_vec() },
            4 | 5 => Self::WriteActions { miss, ids: list(body, TypeId::decode)? },
            6 | 7 => Self::ApplyActions { miss, ids: list(body, TypeId::decode)? },
            8 => Self::Match(list(body, OxmId::decode)?),
            10 => Self::Wildcards(list(body, OxmId::decode)?),
            12 | 13 => Self::WriteSetField { miss, fields: list(body, OxmId::decode)? },
            14 | 15 => Self::ApplySetField { miss, fields: list(body, OxmId::decode)? },
            0xfffe | 0xffff => Self::Experimenter {
                miss,
                experimenter: body.u32("experimenter").map_err(bad_length)?,
                exp_type: body.u32("exp_type").map_err(bad_length)?,
                data: body.rest().to_vec(),
            },
            property_type => Self::Other { property_type, body: body.rest().to_vec() },
        })
    }
}

const BAD_LENGTH: Fault = Fault::Standard(ErrorKind::TableFeaturesFailed(TableFeaturesFailed::BadLen));

fn bad_length(_source: WireError) -> Fault {
    BAD_LENGTH
}

fn list<T>(
    reader: &mut Reader<'_>,
    decode: fn(&mut Reader<'_>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let mut entries = Vec::new();
    while reader.finish().is_err() {
        entries.push(decode(reader)?);
    }
    Ok(entries)
}

/// `struct ofp_table_features` (§7.3.5.5).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TableFeatures {
    /// Which table.
    pub table_id: u8,
    /// For people.
    pub name: Text<TABLE_NAME_BYTES>,
    /// Bits of the metadata that can be matched.
    pub metadata_match: u64,
    /// Bits of the metadata that can be written.
    pub metadata_write: u64,
    /// As [`TableMod::config`].
    pub config: u32,
    /// Most flows.
    pub entries_max: u32,
    /// What it can do.
    pub properties: Vec<TableProperty>,
}

impl TableFeatures {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        with_length(out, 0, |out| {
            put_u16(out, 0);
            out.push(self.table_id);
            pad(out, 5);
            out.extend(self.name.bytes());
            put_u64(out, self.metadata_match);
            put_u64(out, self.metadata_write);
            put_u32(out, self.config);
            put_u32(out, self.entries_max);
            for property in &self.properties {
                property.encode(out);
            }
        });
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let mut reader = entry(reader, "table features")?;
        let reader = &mut reader;
        let table_id = reader.u8("table_id")?;
        reader.take("pad", 5)?;
        Ok(Self {
            table_id,
            name: Text::of_bytes(reader.array("name")?),
            metadata_match: reader.u64("metadata_match")?,
            metadata_write: reader.u64("metadata_write")?,
            config: reader.u32("config")?,
            entries_max: reader.u32("max_entries")?,
            properties: list(reader, TableProperty::decode)?,
        })
    }
}
