//! Headers and messages.

use thiserror::Error;

use super::error::{BadRequest, ErrorKind, ErrorMessage, SwitchConfigFailed};
use super::{
    Features, FlowMod, FlowRemoved, HEADER_BYTES, Hello, MESSAGE_BYTES_MAX, MultipartReply, MultipartRequest,
    PacketIn, PacketOut, PortStatus, Role, SwitchConfig, VERSION,
};
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
    /// Protocol version, [`VERSION`] for 1.3.
    pub version: u8,
    /// The number of the type; [`MessageType::from_u8`] names it.
    pub message_type: u8,
    /// Bytes of the whole message.
    pub length: u16,
    /// Transaction id; a reply carries its request's.
    pub xid: u32,
}

impl Header {
    /// Reads the first [`HEADER_BYTES`] of `bytes` and leaves the rest alone.
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

/// One message, without its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// §7.5.1
    Hello(Hello),
    /// §7.4.4
    Error(ErrorMessage),
    /// §7.5.2, with whatever the sender wants back.
    EchoRequest(Vec<u8>),
    /// §7.5.3, with the request's bytes.
    EchoReply(Vec<u8>),
    /// §7.3.1
    FeaturesRequest,
    /// §7.3.1
    FeaturesReply(Features),
    /// §7.3.2
    GetConfigRequest,
    /// §7.3.2
    GetConfigReply(SwitchConfig),
    /// §7.3.2
    SetConfig(SwitchConfig),
    /// §7.4.1
    PacketIn(PacketIn),
    /// §7.4.2
    FlowRemoved(FlowRemoved),
    /// §7.4.3
    PortStatus(PortStatus),
    /// §7.3.7
    PacketOut(PacketOut),
    /// §7.3.4.1
    FlowMod(FlowMod),
    /// §7.3.5
    MultipartRequest(MultipartRequest),
    /// §7.3.5
    MultipartReply(MultipartReply),
    /// §7.3.8
    BarrierRequest,
    /// §7.3.8
    BarrierReply,
    /// §7.3.9
    RoleRequest(Role),
    /// §7.3.9
    RoleReply(Role),
}

/// Why bytes are no message for us.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Fewer bytes than a header.
    #[error("no header: {0}")]
    Header(WireError),
    /// The header's length isn't that of the frame.
    #[error("header says {} bytes, the frame has {has}", .header.length)]
    Declared {
        /// As received.
        header: Header,
        /// Bytes of the frame.
        has: usize,
    },
    /// Another version than 1.3, in a message that isn't a hello.
    #[error("version {} where {VERSION} was agreed", .header.version)]
    Version {
        /// As received.
        header: Header,
    },
    /// A type that isn't in [`Message`], or that 1.3 doesn't have.
    #[error("message type {} is not supported", .header.message_type)]
    Unsupported {
        /// As received.
        header: Header,
    },
    /// Fields and length don't fit.
    #[error("message type {}: {source}", .header.message_type)]
    Length {
        /// As received.
        header: Header,
        /// Which field.
        source: WireError,
    },
    /// A field holds what the standard doesn't allow.
    #[error("message type {}: {field} can't be {value:#x}", .header.message_type)]
    Value {
        /// As received.
        header: Header,
        /// Which field.
        field: &'static str,
        /// What it holds.
        value: u32,
    },
    /// A part of the message is wrong in a way that has an error of its own.
    #[error("message type {}: {}", .header.message_type, .kind.as_str())]
    Standard {
        /// As received.
        header: Header,
        /// The error.
        kind: ErrorKind,
    },
}

impl DecodeError {
    /// The header, where there was one.
    #[must_use]
    pub fn header(&self) -> Option<Header> {
        match self {
            Self::Header(_) => None,
            Self::Declared { header, .. }
            | Self::Version { header }
            | Self::Unsupported { header }
            | Self::Length { header, .. }
            | Self::Value { header, .. }
            | Self::Standard { header, .. } => Some(*header),
        }
    }

    /// A word for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Header(_) => "header",
            Self::Declared { .. } | Self::Length { .. } => "length",
            Self::Version { .. } => "version",
            Self::Unsupported { .. } => "unsupported",
            Self::Value { .. } => "value",
            Self::Standard { kind, .. } => kind.as_str(),
        }
    }

    /// What the standard has for this fault (§7.4.4), about the message in `frame`.
    ///
    /// None where no answer is due: to an error message, which would answer an error with an error, and to a message
    /// that a switch sends unasked.
    #[must_use]
    pub fn answer(&self, frame: &[u8]) -> Option<ErrorMessage> {
        let kind = match self.header().map(|header| MessageType::from_u8(header.message_type)) {
            Some(Some(MessageType::Error)) => return None,
            Some(Some(of)) if of.is_asynchronous() => return None,
            Some(Some(MessageType::SetConfig)) if matches!(self, Self::Value { .. }) => {
                ErrorKind::SwitchConfigFailed(SwitchConfigFailed::BadFlags)
            }
            Some(_) | None => match self {
                Self::Header(_) | Self::Declared { .. } | Self::Length { .. } | Self::Value { .. } => {
                    ErrorKind::BadRequest(BadRequest::BadLen)
                }
                Self::Version { .. } => ErrorKind::BadRequest(BadRequest::BadVersion),
                Self::Unsupported { .. } => ErrorKind::BadRequest(BadRequest::BadType),
                Self::Standard { kind, .. } => *kind,
            },
        };
        Some(ErrorMessage::about(kind, frame))
    }
}

/// A message doesn't fit the 16 bits of its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{} of {bytes} bytes, a message has at most {MESSAGE_BYTES_MAX}", .message_type.as_str())]
pub struct EncodeError {
    /// Which message.
    pub message_type: MessageType,
    /// Its length in bytes.
    pub bytes: usize,
}

impl Message {
    /// Its type.
    #[must_use]
    pub fn message_type(&self) -> MessageType {
        match self {
            Self::Hello(_) => MessageType::Hello,
            Self::Error(_) => MessageType::Error,
            Self::EchoRequest(_) => MessageType::EchoRequest,
            Self::EchoReply(_) => MessageType::EchoReply,
            Self::FeaturesRequest => MessageType::FeaturesRequest,
            Self::FeaturesReply(_) => MessageType::FeaturesReply,
            Self::GetConfigRequest => MessageType::GetConfigRequest,
            Self::GetConfigReply(_) => MessageType::GetConfigReply,
            Self::SetConfig(_) => MessageType::SetConfig,
            Self::PacketIn(_) => MessageType::PacketIn,
            Self::FlowRemoved(_) => MessageType::FlowRemoved,
            Self::PortStatus(_) => MessageType::PortStatus,
            Self::PacketOut(_) => MessageType::PacketOut,
            Self::FlowMod(_) => MessageType::FlowMod,
            Self::MultipartRequest(_) => MessageType::MultipartRequest,
            Self::MultipartReply(_) => MessageType::MultipartReply,
            Self::BarrierRequest => MessageType::BarrierRequest,
            Self::BarrierReply => MessageType::BarrierReply,
            Self::RoleRequest(_) => MessageType::RoleRequest,
            Self::RoleReply(_) => MessageType::RoleReply,
        }
    }

    /// The whole message with its header.
    ///
    /// # Errors
    /// [`EncodeError`] where data, flows or actions make it longer than [`MESSAGE_BYTES_MAX`].
    pub fn encode(&self, xid: u32) -> Result<Vec<u8>, EncodeError> {
        let message_type = self.message_type();
        let version = if let Self::Hello(hello) = self { hello.version } else { VERSION };
        let mut out = vec![version, message_type as u8, 0, 0];
        out.extend(xid.to_be_bytes());
        match self {
            Self::Hello(hello) => hello.encode(&mut out),
            Self::Error(error) => error.encode(&mut out),
            Self::EchoRequest(data) | Self::EchoReply(data) => out.extend(data),
            Self::FeaturesReply(features) => features.encode(&mut out),
            Self::GetConfigReply(config) | Self::SetConfig(config) => config.encode(&mut out),
            Self::PacketIn(packet) => packet.encode(&mut out),
            Self::FlowRemoved(removed) => removed.encode(&mut out),
            Self::PortStatus(status) => status.encode(&mut out),
            Self::PacketOut(packet) => packet.encode(&mut out),
            Self::FlowMod(change) => change.encode(&mut out),
            Self::MultipartRequest(request) => request.encode(&mut out),
            Self::MultipartReply(reply) => reply.encode(&mut out),
            Self::RoleRequest(role) | Self::RoleReply(role) => role.encode(&mut out),
            Self::FeaturesRequest | Self::GetConfigRequest | Self::BarrierRequest | Self::BarrierReply => {}
        }
        let bytes = out.len();
        let length = u16::try_from(bytes).map_err(|_source| EncodeError { message_type, bytes })?;
        out[2..4].copy_from_slice(&length.to_be_bytes());
        Ok(out)
    }

    /// Reads one whole frame, as [`super::Framer`] cuts it, into transaction id and message.
    ///
    /// A hello is read in any version, because it is how versions are agreed (§6.3.1).
    ///
    /// # Errors
    /// [`DecodeError`]; the bytes after the message count as one.
    pub fn decode(frame: &[u8]) -> Result<(u32, Self), DecodeError> {
        let header = Header::decode(frame).map_err(DecodeError::Header)?;
        if usize::from(header.length) != frame.len() {
            return Err(DecodeError::Declared { header, has: frame.len() });
        }
        let body = frame.get(HEADER_BYTES..).unwrap_or_default();
        let message_type = MessageType::from_u8(header.message_type);
        if header.version != VERSION && message_type != Some(MessageType::Hello) {
            return Err(DecodeError::Version { header });
        }
        let mut reader = Reader::new(body);
        let message = decode_body(header, message_type, &mut reader).map_err(|fault| fault.about(header))?;
        reader.finish().map_err(|source| DecodeError::Length { header, source })?;
        Ok((header.xid, message))
    }
}

/// What a body's reader finds wrong; the header is added where all of them pass.
pub(super) enum Fault {
    Wire(WireError),
    Value { field: &'static str, value: u32 },
    Standard(ErrorKind),
    Unsupported,
}

impl From<WireError> for Fault {
    fn from(source: WireError) -> Self {
        Self::Wire(source)
    }
}

impl Fault {
    fn about(self, header: Header) -> DecodeError {
        match self {
            Self::Wire(source) => DecodeError::Length { header, source },
            Self::Value { field, value } => DecodeError::Value { header, field, value },
            Self::Standard(kind) => DecodeError::Standard { header, kind },
            Self::Unsupported => DecodeError::Unsupported { header },
        }
    }
}

fn decode_body(header: Header, of: Option<MessageType>, reader: &mut Reader<'_>) -> Result<Message, Fault> {
    Ok(match of {
        Some(MessageType::Hello) => Message::Hello(Hello::decode(header.version, reader)?),
        Some(MessageType::Error) => Message::Error(ErrorMessage::decode(reader)?),
        Some(MessageType::EchoRequest) => Message::EchoRequest(reader.rest().to_vec()),
        Some(MessageType::EchoReply) => Message::EchoReply(reader.rest().to_vec()),
        Some(MessageType::FeaturesRequest) => Message::FeaturesRequest,
        Some(MessageType::FeaturesReply) => Message::FeaturesReply(Features::decode(reader)?),
        Some(MessageType::GetConfigRequest) => Message::GetConfigRequest,
        Some(MessageType::GetConfigReply) => Message::GetConfigReply(SwitchConfig::decode(reader)?),
        Some(MessageType::SetConfig) => Message::SetConfig(SwitchConfig::decode(reader)?),
        Some(MessageType::PacketIn) => Message::PacketIn(PacketIn::decode(reader)?),
        Some(MessageType::FlowRemoved) => Message::FlowRemoved(FlowRemoved::decode(reader)?),
        Some(MessageType::PortStatus) => Message::PortStatus(PortStatus::decode(reader)?),
        Some(MessageType::PacketOut) => Message::PacketOut(PacketOut::decode(reader)?),
        Some(MessageType::FlowMod) => Message::FlowMod(FlowMod::decode(reader)?),
        Some(MessageType::MultipartRequest) => Message::MultipartRequest(MultipartRequest::decode(reader)?),
        Some(MessageType::MultipartReply) => Message::MultipartReply(MultipartReply::decode(reader)?),
        Some(MessageType::BarrierRequest) => Message::BarrierRequest,
        Some(MessageType::BarrierReply) => Message::BarrierReply,
        Some(MessageType::RoleRequest) => Message::RoleRequest(Role::decode(reader)?),
        Some(MessageType::RoleReply) => Message::RoleReply(Role::decode(reader)?),
        Some(
            MessageType::Experimenter
            | MessageType::GroupMod
            | MessageType::PortMod
            | MessageType::TableMod
            | MessageType::QueueGetConfigRequest
            | MessageType::QueueGetConfigReply
            | MessageType::GetAsyncRequest
            | MessageType::GetAsyncReply
            | MessageType::SetAsync
            | MessageType::MeterMod,
        )
        | None => return Err(Fault::Unsupported),
    })
}

#[cfg(test)]
mod tests;
