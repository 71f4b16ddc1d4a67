//! What can be wrong with a message, and how its sender is told.

use thiserror::Error;

use super::super::VERSION;
use super::super::error::{BadRequest, ErrorKind, ErrorMessage, SwitchConfigFailed};
use super::{Header, MessageType};
use crate::wire::WireError;

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
    /// A type that 1.3 doesn't have.
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

/// What a body's reader finds wrong; the header is added where all of them pass.
pub(in super::super) enum Fault {
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
    pub(super) fn about(self, header: Header) -> DecodeError {
        match self {
            Self::Wire(source) => DecodeError::Length { header, source },
            Self::Value { field, value } => DecodeError::Value { header, field, value },
            Self::Standard(kind) => DecodeError::Standard { header, kind },
            Self::Unsupported => DecodeError::Unsupported { header },
        }
    }
}
