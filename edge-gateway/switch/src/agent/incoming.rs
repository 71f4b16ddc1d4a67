//! A message on its way to the agent: all that follows from it alone is done before it gets there, by whoever reads the socket.

use caregate_protocol::datapath::switch::SharedInstructions;
use caregate_protocol::openflow::{DecodeError, ErrorKind, ErrorMessage, Message, QUOTED_BYTES};

use super::super::tables::FlowRequest;

/// What an error quotes of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quoted {
    bytes: [u8; QUOTED_BYTES],
    length: usize,
}

impl Quoted {
    fn of(frame: &[u8]) -> Self {
        let length = frame.len().min(QUOTED_BYTES);
        let mut bytes = [0; QUOTED_BYTES];
        bytes[..length].copy_from_slice(&frame[..length]);
        Self { bytes, length }
    }

    /// An error of this kind about it.
    pub(super) fn error(&self, kind: ErrorKind) -> ErrorMessage {
        ErrorMessage::about(kind, &self.bytes[..self.length])
    }
}

/// What a message says.
#[derive(Debug)]
pub(super) enum Content {
    FlowMod(FlowRequest),
    /// Any other.
    Message(Message),
    /// None, and what its sender is told.
    Fault(DecodeError, Option<ErrorMessage>),
}

/// A whole message, decoded; of a flow-mod also with match and instructions as tables hold them.
#[derive(Debug)]
pub struct Incoming {
    pub(super) quoted: Quoted,
    pub(super) xid: u32,
    pub(super) content: Content,
}

impl Incoming {
    /// The message in `frame`, header included; `shared` is of its connection.
    #[must_use]
    pub fn of(frame: &[u8], shared: &mut SharedInstructions) -> Self {
        let (xid, content) = match Message::decode(frame) {
            Ok((xid, Message::FlowMod(wanted))) => (xid, Content::FlowMod(FlowRequest::of(wanted, shared))),
            Ok((xid, message)) => (xid, Content::Message(message)),
            Err(error) => {
                let answer = error.answer(frame);
                (error.header().map_or(0, |header| header.xid), Content::Fault(error, answer))
            }
        };
        Self { quoted: Quoted::of(frame), xid, content }
    }
}
