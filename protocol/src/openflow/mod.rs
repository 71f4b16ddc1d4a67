//! OpenFlow 1.3.5 (ONF TS-023): the messages of a controller and a switch, and the controller's side of a connection.
//!
//! Both ends use it: `sdn-controller`, and the gateway as a switch. Decoding is strict where the standard
//! fixes a length, and ignores what it says to ignore (padding, reserved fields, unknown hello elements). Whatever is
//! refused says which standard error its sender should be told ([`DecodeError::answer`]).
//!
//! ```text
//!  0               8               16                              32
//! +---------------+---------------+-------------------------------+
//! | version       | type          | length (header and body)      |   §7.1, every message
//! +---------------+---------------+-------------------------------+
//! | xid                                                           |
//! +---------------------------------------------------------------+
//! | body, length - 8 bytes                                        |
//! ```

mod action;
mod async_config;
mod error;
mod experimenter;
mod flow;
mod framer;
pub mod group;
mod hello;
mod instruction;
mod message;
pub mod meter;
pub mod multipart;
mod numbered;
mod oxm;
mod packet;
pub mod port;
pub mod queue;
mod role;
pub mod session;
mod switch;
mod table_features;
mod text;
mod wire;

pub use action::{Action, ActionType, CONTROLLER_MAX_LEN, CONTROLLER_MAX_LEN_NO_BUFFER};
pub use async_config::AsyncConfig;
pub use error::{
    BadAction, BadInstruction, BadMatch, BadRequest, ErrorKind, ErrorMessage, FlowModFailed, GroupModFailed,
    HelloFailed, MeterModFailed, PortModFailed, QUOTED_BYTES, QueueOpFailed, RoleRequestFailed,
    SwitchConfigFailed, TableFeaturesFailed, TableModFailed,
};
pub use experimenter::Experimenter;
pub use flow::{Command, FlowMod, FlowRemoved, Lasted, NO_BUFFER, RemovedReason, TABLE_ALL, flags};
pub use framer::{FrameError, Framer};
pub use group::{Bucket, GroupCommand, GroupMod, GroupType};
pub use hello::{Hello, Versions};
pub use instruction::{Instruction, InstructionType};
pub use message::{DecodeError, EncodeError, Header, Message, MessageType};
pub use meter::{Band, BandAction, MeterCommand, MeterMod};
pub use multipart::{MultipartReply, MultipartRequest, MultipartType};
pub use oxm::{
    CLASS_BASIC, CLASS_EXPERIMENTER, Checked, Masked, Match, MatchField, Oxm, OxmError, Prerequisite,
    VLAN_VID_NONE, VLAN_VID_PRESENT, eth_type, ip_proto,
};
pub use packet::{PacketIn, PacketInReason, PacketOut};
pub use port::{Port, PortMod, PortReason, PortStatus};
pub use queue::{PacketQueue, QueueConfig, QueueProperty};
pub use role::{ControllerRole, Role};
pub use switch::{Capabilities, Features, FragmentHandling, SwitchConfig};
pub use table_features::{
    OxmId, TABLE_MAX, TABLE_NAME_BYTES, TableFeatures, TableMod, TableProperty, TypeId,
};
pub use text::Text;

/// The version number of OpenFlow 1.3.x on the wire (§7.1).
pub const VERSION: u8 = 4;

/// The port that IANA assigned (§6.3.1).
pub const PORT: u16 = 6653;

/// Bytes of a header (§7.1).
pub const HEADER_BYTES: usize = 8;

/// Longest message: the header's length field has 16 bits.
pub const MESSAGE_BYTES_MAX: usize = 0xffff;

#[cfg(test)]
mod tests;
