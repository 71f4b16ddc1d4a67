//! The types of messages and their header (§7.1).

use crate::wire::{Reader, WireError};

macro_rules! message_types {
    ($($name:ident = $number:literal $standard:literal,)*) => {
        /// `enum ofp_type` (§7.1).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum MessageType {
            $(#[doc = $standard] $name = $number,)*
        }

        impl MessageType {
            /// All of them, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The standard's name.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $standard),* }
            }
        }
    };
}

message_types! {
    Hello = 0 "OFPT_HELLO",
    Error = 1 "OFPT_ERROR",
    EchoRequest = 2 "OFPT_ECHO_REQUEST",
    EchoReply = 3 "OFPT_ECHO_REPLY",
    Experimenter = 4 "OFPT_EXPERIMENTER",
    FeaturesRequest = 5 "OFPT_FEATURES_REQUEST",
    FeaturesReply = 6 "OFPT_FEATURES_REPLY",
    GetConfigRequest = 7 "OFPT_GET_CONFIG_REQUEST",
    GetConfigReply = 8 "OFPT_GET_CONFIG_REPLY",
    SetConfig = 9 "OFPT_SET_CONFIG",
    PacketIn = 10 "OFPT_PACKET_IN",
    FlowRemoved = 11 "OFPT_FLOW_REMOVED",
    PortStatus = 12 "OFPT_PORT_STATUS",
    PacketOut = 13 "OFPT_PACKET_OUT",
    FlowMod = 14 "OFPT_FLOW_MOD",
    GroupMod = 15 "OFPT_GROUP_MOD",
    PortMod = 16 "OFPT_PORT_MOD",
    TableMod = 17 "OFPT_TABLE_MOD",
    MultipartRequest = 18 "OFPT_MULTIPART_REQUEST",
    MultipartReply = 19 "OFPT_MULTIPART_REPLY",
    BarrierRequest = 20 "OFPT_BARRIER_REQUEST",
    BarrierReply = 21 "OFPT_BARRIER_REPLY",
    QueueGetConfigRequest = 22 "OFPT_QUEUE_GET_CONFIG_REQUEST",
    QueueGetConfigReply = 23 "OFPT_QUEUE_GET_CONFIG_REPLY",
    RoleRequest = 24 "OFPT_ROLE_REQUEST",
    RoleReply = 25 "OFPT_ROLE_REPLY",
    GetAsyncRequest = 26 "OFPT_GET_ASYNC_REQUEST",
    GetAsyncReply = 27 "OFPT_GET_ASYNC_REPLY",
    SetAsync = 28 "OFPT_SET_ASYNC",
    MeterMod = 29 "OFPT_METER_MOD",
}

impl MessageType {
    /// The type with this number, if 1.3 has one.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// True for what a switch sends unasked (§6.1.2); nobody waits for an answer to it.
    #[must_use]
    pub fn is_asynchronous(self) -> bool {
        matches!(self, Self::PacketIn | Self::FlowRemoved | Self::PortStatus)
    }
}

/// `struct ofp_header` (§7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Protocol version, [`VERSION`](crate::openflow::VERSION) for 1.3.
    pub version: u8,
    /// The number of the type; [`MessageType::from_u8`] names it.
    pub message_type: u8,
    /// Bytes of the whole message.
    pub length: u16,
    /// Transaction id; a reply carries its request's.
    pub xid: u32,
}

impl Header {
    /// Reads the first [`HEADER_BYTES`](crate::openflow::HEADER_BYTES) of `bytes` and leaves the rest alone.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        Ok(Self {
            version: reader.u8("version")?,
            message_type: reader.u8("type")?,
            length: reader.u16("length")?,
            xid: reader.u32("xid")?,
        })
    }
}
