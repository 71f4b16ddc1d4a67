//! What is done with a frame: actions (§7.2.5).
//!
//! All of 1.3.5's are read. What neither the standard nor this module knows is kept as it came, as `Other`: a switch answers
//! `OFPBAC_BAD_TYPE`, and a controller shows what a switch holds.

use super::error::{BadAction, ErrorKind};
use super::message::Fault;
use super::numbered::numbered;
use super::oxm::Oxm;
use super::wire::{pad, padding, put_u16, put_u32, with_length};
use crate::wire::{Reader, WireError};

/// Bytes of the type and length of an action and of an instruction, which the length includes.
pub(super) const TLV_HEADER_BYTES: u16 = 4;

/// `OFPCML_NO_BUFFER` (§7.2.5): the controller gets the whole frame.
pub const CONTROLLER_MAX_LEN_NO_BUFFER: u16 = 0xffff;
/// `OFPCML_MAX` (§7.2.5): the longest beginning of a frame that a controller may ask for.
pub const CONTROLLER_MAX_LEN: u16 = 0xffe5;

numbered! {
    /// `enum ofp_action_type` (§7.2.5).
    ActionType:
    Output = 0 "OFPAT_OUTPUT",
    CopyTtlOut = 11 "OFPAT_COPY_TTL_OUT",
    CopyTtlIn = 12 "OFPAT_COPY_TTL_IN",
    SetMplsTtl = 15 "OFPAT_SET_MPLS_TTL",
    DecMplsTtl = 16 "OFPAT_DEC_MPLS_TTL",
    PushVlan = 17 "OFPAT_PUSH_VLAN",
    PopVlan = 18 "OFPAT_POP_VLAN",
    PushMpls = 19 "OFPAT_PUSH_MPLS",
    PopMpls = 20 "OFPAT_POP_MPLS",
    SetQueue = 21 "OFPAT_SET_QUEUE",
    Group = 22 "OFPAT_GROUP",
    SetNwTtl = 23 "OFPAT_SET_NW_TTL",
    DecNwTtl = 24 "OFPAT_DEC_NW_TTL",
    SetField = 25 "OFPAT_SET_FIELD",
    PushPbb = 26 "OFPAT_PUSH_PBB",
    PopPbb = 27 "OFPAT_POP_PBB",
    Experimenter = 0xffff "OFPAT_EXPERIMENTER",
}

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
    /// `OFPAT_COPY_TTL_OUT`: from the next-to-outermost header to the outermost.
    CopyTtlOut,
    /// `OFPAT_COPY_TTL_IN`: from the outermost header to the next-to-outermost.
    CopyTtlIn,
    /// `OFPAT_SET_MPLS_TTL`
    SetMplsTtl(u8),
    /// `OFPAT_DEC_MPLS_TTL`
    DecMplsTtl,
    /// `OFPAT_PUSH_VLAN`: a tag of this Ethertype.
    PushVlan(u16),
    /// `OFPAT_POP_VLAN`: the outermost tag.
    PopVlan,
    /// `OFPAT_PUSH_MPLS`: a label, under this Ethertype.
    PushMpls(u16),
    /// `OFPAT_POP_MPLS`: the outermost label; what follows has this Ethertype.
    PopMpls(u16),
    /// `OFPAT_SET_QUEUE`
    SetQueue(u32),
    /// `OFPAT_GROUP`
    Group(u32),
    /// `OFPAT_SET_NW_TTL`
    SetNwTtl(u8),
    /// `OFPAT_DEC_NW_TTL`
    DecNwTtl,
    /// `OFPAT_SET_FIELD`; never with a mask.
    SetField(Oxm),
    /// `OFPAT_PUSH_PBB`: an I-TAG of this Ethertype.
    PushPbb(u16),
    /// `OFPAT_POP_PBB`
    PopPbb,
    /// `OFPAT_EXPERIMENTER`
    Experimenter {
        /// Who defined it.
        experimenter: u32,
        /// What follows; with type, length and experimenter a multiple of 8 bytes.
        data: Vec<u8>,
    },
    /// One that 1.3.5 doesn't have.
    Other {
        /// Its number.
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

    /// Its type, if 1.3.5 has it.
    #[must_use]
    pub fn action_type(&self) -> Option<ActionType> {
        ActionType::from_u16(self.number())
    }

    /// The number of its type.
    #[must_use]
    pub fn number(&self) -> u16 {
        let of = match self {
            Self::Output { .. } => ActionType::Output,
            Self::CopyTtlOut => ActionType::CopyTtlOut,
            Self::CopyTtlIn => ActionType::CopyTtlIn,
            Self::SetMplsTtl(_) => ActionType::SetMplsTtl,
            Self::DecMplsTtl => ActionType::DecMplsTtl,
            Self::PushVlan(_) => ActionType::PushVlan,
            Self::PopVlan => ActionType::PopVlan,
            Self::PushMpls(_) => ActionType::PushMpls,
            Self::PopMpls(_) => ActionType::PopMpls,
            Self::SetQueue(_) => ActionType::SetQueue,
            Self::Group(_) => ActionType::Group,
            Self::SetNwTtl(_) => ActionType::SetNwTtl,
            Self::DecNwTtl => ActionType::DecNwTtl,
            Self::SetField(_) => ActionType::SetField,
            Self::PushPbb(_) => ActionType::PushPbb,
            Self::PopPbb => ActionType::PopPbb,
            Self::Experimenter { .. } => ActionType::Experimenter,
            Self::Other { action_type, .. } => return *action_type,
        };
        of as u16
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        with_length(out, 2, |out| {
            put_u16(out, self.number());
            put_u16(out, 0);
            match self {
                Self::Output { port, max_len } => {
                    put_u32(out, *port);
                    put_u16(out, *max_len);
                    pad(out, 6);
                }
                Self::SetQueue(number) | Self::Group(number) => put_u32(out, *number),
                Self::SetMplsTtl(ttl) | Self::SetNwTtl(ttl) => {
                    out.push(*ttl);
                    pad(out, 3);
                }
                Self::PushVlan(eth_type)
                | Self::PushMpls(eth_type)
                | Self::PopMpls(eth_type)
                | Self::PushPbb(eth_type) => {
                    put_u16(out, *eth_type);
                    pad(out, 2);
                }
                Self::CopyTtlOut
                | Self::CopyTtlIn
                | Self::DecMplsTtl
                | Self::PopVlan
                | Self::DecNwTtl
                | Self::PopPbb => pad(out, 4),
                Self::SetField(field) => {
                    field.encode(out);
                    pad(out, padding(usize::from(TLV_HEADER_BYTES) + field.bytes()));
                }
                Self::Experimenter { experimenter, data } => {
                    put_u32(out, *experimenter);
                    out.extend(data);
                }
                Self::Other { body, .. } => out.extend(body),
            }
        });
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let action_type = reader.u16("action type").map_err(bad_length)?;
        let length = reader.u16("action length").map_err(bad_length)?;
        let bytes = body_bytes(length).ok_or(Fault::Standard(ErrorKind::BadAction(BadAction::BadLen)))?;
        let mut body = Reader::new(reader.take("action", bytes).map_err(bad_length)?);
        let action = match ActionType::from_u16(action_type) {
            Some(of) => Self::decode_body(of, &mut body)?,
            None => Self::Other { action_type, body: body.rest().to_vec() },
        };
        body.finish().map_err(bad_length)?;
        Ok(action)
    }

    fn decode_body(of: ActionType, body: &mut Reader<'_>) -> Result<Self, Fault> {
        let number = |body: &mut Reader<'_>| body.u32("number").map_err(bad_length);
        Ok(match of {
            ActionType::Output => {
                let port = number(body)?;
                let max_len = body.u16("output max_len").map_err(bad_length)?;
                body.take("output padding", 6).map_err(bad_length)?;
                Self::Output { port, max_len }
            }
            ActionType::SetQueue => Self::SetQueue(number(body)?),
            ActionType::Group => Self::Group(number(body)?),
            ActionType::SetMplsTtl => Self::SetMplsTtl(decode_ttl(body)?),
            ActionType::SetNwTtl => Self::SetNwTtl(decode_ttl(body)?),
            ActionType::PushVlan => Self::PushVlan(decode_eth_type(body)?),
            ActionType::PushMpls => Self::PushMpls(decode_eth_type(body)?),
            ActionType::PopMpls => Self::PopMpls(decode_eth_type(body)?),
            ActionType::PushPbb => Self::PushPbb(decode_eth_type(body)?),
            ActionType::CopyTtlOut => plain(Self::CopyTtlOut, body)?,
            ActionType::CopyTtlIn => plain(Self::CopyTtlIn, body)?,
            ActionType::DecMplsTtl => plain(Self::DecMplsTtl, body)?,
            ActionType::PopVlan => plain(Self::PopVlan, body)?,
            ActionType::DecNwTtl => plain(Self::DecNwTtl, body)?,
            ActionType::PopPbb => plain(Self::PopPbb, body)?,
            ActionType::SetField => Self::SetField(decode_set_field(body)?),
            ActionType::Experimenter => {
                Self::Experimenter { experimenter: number(body)?, data: body.rest().to_vec() }
            }
        })
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

fn bad_length(_source: WireError) -> Fault {
    Fault::Standard(ErrorKind::BadAction(BadAction::BadLen))
}

fn decode_ttl(body: &mut Reader<'_>) -> Result<u8, Fault> {
    let ttl = body.u8("ttl").map_err(bad_length)?;
    body.take("ttl padding", 3).map_err(bad_length)?;
    Ok(ttl)
}

fn decode_eth_type(body: &mut Reader<'_>) -> Result<u16, Fault> {
    let eth_type = body.u16("ethertype").map_err(bad_length)?;
    body.take("ethertype padding", 2).map_err(bad_length)?;
    Ok(eth_type)
}

fn plain(action: Action, body: &mut Reader<'_>) -> Result<Action, Fault> {
    body.take("action padding", 4).map_err(bad_length)?;
    Ok(action)
}

/// What follows type and length, which together must be a multiple of 8 bytes.
pub(super) fn body_bytes(length: u16) -> Option<usize> {
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
