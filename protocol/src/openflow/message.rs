//! Headers and messages.

mod fault;
mod types;

pub use fault::DecodeError;
pub(super) use fault::Fault;
use thiserror::Error;
pub use types::{Header, MessageType};

use super::async_config::AsyncConfig;
use super::error::ErrorMessage;
use super::experimenter::Experimenter;
use super::group::GroupMod;
use super::meter::MeterMod;
use super::port::PortMod;
use super::queue::{QueueConfig, decode_port, encode_port};
use super::table_features::TableMod;
use super::{
    Features, FlowMod, FlowRemoved, HEADER_BYTES, Hello, MESSAGE_BYTES_MAX, MultipartReply, MultipartRequest,
    PacketIn, PacketOut, PortStatus, Role, SwitchConfig, VERSION,
};
use crate::wire::Reader;

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
    /// §7.5.4
    Experimenter(Experimenter),
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
    /// §7.3.4.2
    GroupMod(GroupMod),
    /// §7.3.4.3
    PortMod(PortMod),
    /// §7.3.3
    TableMod(TableMod),
    /// §7.3.5
    MultipartRequest(MultipartRequest),
    /// §7.3.5
    MultipartReply(MultipartReply),
    /// §7.3.8
    BarrierRequest,
    /// §7.3.8
    BarrierReply,
    /// §7.3.6, of this port; of all for [`ANY`](super::port::ANY).
    QueueGetConfigRequest(u32),
    /// §7.3.6
    QueueGetConfigReply(QueueConfig),
    /// §7.3.9
    RoleRequest(Role),
    /// §7.3.9
    RoleReply(Role),
    /// §7.3.10
    GetAsyncRequest,
    /// §7.3.10
    GetAsyncReply(AsyncConfig),
    /// §7.3.10
    SetAsync(AsyncConfig),
    /// §7.3.4.4
    MeterMod(MeterMod),
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
            Self::Experimenter(_) => MessageType::Experimenter,
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
            Self::GroupMod(_) => MessageType::GroupMod,
            Self::PortMod(_) => MessageType::PortMod,
            Self::TableMod(_) => MessageType::TableMod,
            Self::MultipartRequest(_) => MessageType::MultipartRequest,
            Self::MultipartReply(_) => MessageType::MultipartReply,
            Self::BarrierRequest => MessageType::BarrierRequest,
            Self::BarrierReply => MessageType::BarrierReply,
            Self::QueueGetConfigRequest(_) => MessageType::QueueGetConfigRequest,
            Self::QueueGetConfigReply(_) => MessageType::QueueGetConfigReply,
            Self::RoleRequest(_) => MessageType::RoleRequest,
            Self::RoleReply(_) => MessageType::RoleReply,
            Self::GetAsyncRequest => MessageType::GetAsyncRequest,
            Self::GetAsyncReply(_) => MessageType::GetAsyncReply,
            Self::SetAsync(_) => MessageType::SetAsync,
            Self::MeterMod(_) => MessageType::MeterMod,
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
            Self::Experimenter(message) => message.encode(&mut out),
            Self::FeaturesReply(features) => features.encode(&mut out),
            Self::GetConfigReply(config) | Self::SetConfig(config) => config.encode(&mut out),
            Self::PacketIn(packet) => packet.encode(&mut out),
            Self::FlowRemoved(removed) => removed.encode(&mut out),
            Self::PortStatus(status) => status.encode(&mut out),
            Self::PacketOut(packet) => packet.encode(&mut out),
            Self::FlowMod(change) => change.encode(&mut out),
            Self::GroupMod(change) => change.encode(&mut out),
            Self::PortMod(change) => change.encode(&mut out),
            Self::TableMod(change) => change.encode(&mut out),
            Self::MultipartRequest(request) => request.encode(&mut out),
            Self::MultipartReply(reply) => reply.encode(&mut out),
            Self::QueueGetConfigRequest(port) => encode_port(*port, &mut out),
            Self::QueueGetConfigReply(config) => config.encode(&mut out),
            Self::RoleRequest(role) | Self::RoleReply(role) => role.encode(&mut out),
            Self::GetAsyncReply(config) | Self::SetAsync(config) => config.encode(&mut out),
            Self::MeterMod(change) => change.encode(&mut out),
            Self::FeaturesRequest
            | Self::GetConfigRequest
            | Self::BarrierRequest
            | Self::BarrierReply
            | Self::GetAsyncRequest => {}
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

fn decode_body(header: Header, of: Option<MessageType>, reader: &mut Reader<'_>) -> Result<Message, Fault> {
    Ok(match of.ok_or(Fault::Unsupported)? {
        MessageType::Hello => Message::Hello(Hello::decode(header.version, reader)?),
        MessageType::Error => Message::Error(ErrorMessage::decode(reader)?),
        MessageType::EchoRequest => Message::EchoRequest(reader.rest().to_vec()),
        MessageType::EchoReply => Message::EchoReply(reader.rest().to_vec()),
        MessageType::Experimenter => Message::Experimenter(Experimenter::decode(reader)?),
        MessageType::FeaturesRequest => Message::FeaturesRequest,
        MessageType::FeaturesReply => Message::FeaturesReply(Features::decode(reader)?),
        MessageType::GetConfigRequest => Message::GetConfigRequest,
        MessageType::GetConfigReply => Message::GetConfigReply(SwitchConfig::decode(reader)?),
        MessageType::SetConfig => Message::SetConfig(SwitchConfig::decode(reader)?),
        MessageType::PacketIn => Message::PacketIn(PacketIn::decode(reader)?),
        MessageType::FlowRemoved => Message::FlowRemoved(FlowRemoved::decode(reader)?),
        MessageType::PortStatus => Message::PortStatus(PortStatus::decode(reader)?),
        MessageType::PacketOut => Message::PacketOut(PacketOut::decode(reader)?),
        MessageType::FlowMod => Message::FlowMod(FlowMod::decode(reader)?),
        MessageType::GroupMod => Message::GroupMod(GroupMod::decode(reader)?),
        MessageType::PortMod => Message::PortMod(PortMod::decode(reader)?),
        MessageType::TableMod => Message::TableMod(TableMod::decode(reader)?),
        MessageType::MultipartRequest => Message::MultipartRequest(MultipartRequest::decode(reader)?),
        MessageType::MultipartReply => Message::MultipartReply(MultipartReply::decode(reader)?),
        MessageType::BarrierRequest => Message::BarrierRequest,
        MessageType::BarrierReply => Message::BarrierReply,
        MessageType::QueueGetConfigRequest => Message::QueueGetConfigRequest(decode_port(reader)?),
        MessageType::QueueGetConfigReply => Message::QueueGetConfigReply(QueueConfig::decode(reader)?),
        MessageType::RoleRequest => Message::RoleRequest(Role::decode(reader)?),
        MessageType::RoleReply => Message::RoleReply(Role::decode(reader)?),
        MessageType::GetAsyncRequest => Message::GetAsyncRequest,
        MessageType::GetAsyncReply => Message::GetAsyncReply(AsyncConfig::decode(reader)?),
        MessageType::SetAsync => Message::SetAsync(AsyncConfig::decode(reader)?),
        MessageType::MeterMod => Message::MeterMod(MeterMod::decode(reader)?),
    })
}

#[cfg(test)]
pub(super) mod tests;
