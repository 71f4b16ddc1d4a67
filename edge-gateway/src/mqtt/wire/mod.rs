//! MQTT 3.1.1 and 5.0 on the wire: bytes to packets that a client may send, and packets to bytes. No I/O.
//!
//! [`decode()`] refuses by type, flags and length before a packet's body has arrived, and refuses everything that the standard
//! calls malformed or a protocol error of one packet. What depends on packets before it is the connection's to judge.
//!
//! ```text
//!  byte 1   type (4 bits) │ flags (4 bits)      §2.1
//!  byte 2…5 remaining length, 7 bits a byte     §2.1.4
//!  …        variable header (in 5.0 with properties), payload
//! ```
//!
//! Why a codec of our own: ADR 18. Sections and statements are those of MQTT 5.0.

mod decode;
mod encode;
mod error;
mod packet;
mod properties;
mod reader;

pub use decode::decode;
pub use encode::{encode, encoded_len};
pub use error::DecodeError;
pub use packet::{
    Ack, ConnAck, Connect, Disconnect, Filter, Packet, PacketId, Publish, QoS, Reason, RetainHandling,
    SubAck, Subscribe, Unsubscribe, Version, Will,
};
pub use properties::{Fields, Properties, USER_PROPERTIES_MAX};

#[cfg(test)]
mod tests;
