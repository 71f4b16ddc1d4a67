//! Why bytes are no packet.

use thiserror::Error;

use super::packet::Reason;

/// Why bytes are no packet that a client may send. Statements named `MQTT-…` are of MQTT 5.0 (OASIS, 7 March 2019); those of
/// 3.1.1 say the same where both have one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// A packet type that no client sends to a server (§2.1.2): 0, what servers send, and AUTH in 3.1.1.
    #[error("packet type {0} is not for a client to send")]
    Type(u8),
    /// Flags other than those reserved for the type (§2.1.3), or DUP on QoS 0 (MQTT-3.3.1-2), or QoS 3 (MQTT-3.3.1-4).
    #[error("packet type {kind} with flags {flags:#06b}")]
    Flags {
        /// The packet type.
        kind: u8,
        /// The four bits.
        flags: u8,
    },
    /// A length of more than four bytes, or of more bytes than it needs (§1.5.5).
    #[error("variable byte integer over four bytes, or longer than it must be")]
    LengthField,
    /// More bytes than this server said it takes (§3.2.2.3.6).
    #[error("{len} bytes, allowed are {max}")]
    TooLarge {
        /// The remaining length that was announced.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// Fewer bytes than the type needs, or bytes left over behind its last field.
    #[error("{0} has the wrong length")]
    Length(&'static str),
    /// Not the protocol name `MQTT` (MQTT-3.1.2-1).
    #[error("not the protocol name MQTT")]
    ProtocolName,
    /// Neither protocol level 4 nor 5 (MQTT-3.1.2-2): the client is answered before it is closed.
    #[error("protocol level {0}, spoken are 4 and 5")]
    ProtocolLevel(u8),
    /// Connect flags that contradict themselves: reserved bit, will flags without a will, will QoS 3, and in 3.1.1 a password
    /// without a user name (§3.1.2.3 ff.).
    #[error("connect flags {0:#010b}")]
    ConnectFlags(u8),
    /// Not UTF-8, or with U+0000 (MQTT-1.5.4-1, -2).
    #[error("{0} is no text")]
    Text(&'static str),
    /// An empty topic without an alias (MQTT-4.7.3-1), or one with wildcards (MQTT-3.3.2-2).
    #[error("{0} is empty or has wildcards")]
    Topic(&'static str),
    /// A filter that is empty or has wildcards in the wrong place (§4.7.1), a shared one without name or filter (§4.8.2), or
    /// none, or too many of them.
    #[error("topic filter")]
    Filter,
    /// Subscription options with reserved bits or values (MQTT-3.8.3-5), or No Local on a shared subscription (MQTT-3.8.3-4).
    #[error("subscription options {0:#010b}")]
    SubscribeOptions(u8),
    /// Packet identifier 0 (MQTT-2.2.1-3).
    #[error("packet identifier 0")]
    PacketId,
    /// A property that is none, or not one of this packet (§2.2.2.2).
    #[error("property {id} in {packet}")]
    Property {
        /// Its identifier.
        id: u32,
        /// In which packet.
        packet: &'static str,
    },
    /// A property that may stand once (§2.2.2.2), or more user properties than are taken.
    #[error("property {0} stands too often")]
    PropertyTwice(u8),
    /// A property whose value is not allowed: a flag other than 0 and 1, a Receive Maximum or Topic Alias of 0, ….
    #[error("property {0} has a value that is not allowed")]
    PropertyValue(u8),
    /// A reason code that this packet can't have (§2.4).
    #[error("reason code {code:#04x} in {packet}")]
    ReasonCode {
        /// The code.
        code: u8,
        /// In which packet.
        packet: &'static str,
    },
}

impl DecodeError {
    /// A label for counters: few values, none of them from the peer.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Type(_) => "type",
            Self::Flags { .. } => "flags",
            Self::LengthField => "length-field",
            Self::TooLarge { .. } => "too-large",
            Self::Length(_) => "length",
            Self::ProtocolName => "protocol-name",
            Self::ProtocolLevel(_) => "protocol-level",
            Self::ConnectFlags(_) => "connect-flags",
            Self::Text(_) => "text",
            Self::Topic(_) => "topic",
            Self::Filter => "filter",
            Self::SubscribeOptions(_) => "subscribe-options",
            Self::PacketId => "packet-id",
            Self::Property { .. } => "property",
            Self::PropertyTwice(_) => "property-twice",
            Self::PropertyValue(_) => "property-value",
            Self::ReasonCode { .. } => "reason-code",
        }
    }

    /// What an MQTT 5.0 client is told before it is closed (§4.13.1).
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::TooLarge { .. } => Reason::PACKET_TOO_LARGE,
            Self::Topic(_) => Reason::TOPIC_NAME_INVALID,
            Self::Filter => Reason::TOPIC_FILTER_INVALID,
            Self::PropertyTwice(_)
            | Self::PropertyValue(_)
            | Self::Property { .. }
            | Self::PacketId
            | Self::SubscribeOptions(_) => Reason::PROTOCOL_ERROR,
            Self::ProtocolLevel(_) => Reason::UNSUPPORTED_PROTOCOL_VERSION,
            Self::Type(_)
            | Self::Flags { .. }
            | Self::LengthField
            | Self::Length(_)
            | Self::ProtocolName
            | Self::ConnectFlags(_)
            | Self::Text(_)
            | Self::ReasonCode { .. } => Reason::MALFORMED_PACKET,
        }
    }
}
