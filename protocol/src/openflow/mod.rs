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
mod error;
mod flow;
mod framer;
mod hello;
mod message;
pub mod multipart;
mod oxm;
mod packet;
pub mod port;
mod role;
pub mod session;
mod switch;
mod text;
mod wire;

pub use action::{Action, CONTROLLER_MAX_LEN_NO_BUFFER, Instruction};
pub use error::{
    BadAction, BadInstruction, BadMatch, BadRequest, ErrorKind, ErrorMessage, FlowModFailed, GroupModFailed,
    HelloFailed, MeterModFailed, PortModFailed, QueueOpFailed, RoleRequestFailed, SwitchConfigFailed,
    TableFeaturesFailed, TableModFailed,
};
pub use flow::{Command, FlowMod, FlowRemoved, Lasted, NO_BUFFER, RemovedReason, TABLE_ALL, flags};
pub use framer::{FrameError, Framer};
pub use hello::{Hello, Versions};
pub use message::{DecodeError, EncodeError, Header, Message, MessageType};
pub use multipart::{MultipartReply, MultipartRequest};
pub use oxm::{CLASS_BASIC, Match, MatchField, Oxm, OxmError};
pub use packet::{PacketIn, PacketInReason, PacketOut};
pub use port::{Port, PortReason, PortStatus};
pub use role::{ControllerRole, Role};
pub use switch::{Capabilities, Features, FragmentHandling, SwitchConfig};
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
