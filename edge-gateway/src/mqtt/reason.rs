//! Why connections are refused and why they end: what CONNACK and DISCONNECT say and what the counters are labelled with.

use super::wire::{DecodeError, Reason, Version};

/// Why a CONNECT was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectRefusal {
    /// Neither MQTT 3.1.1 nor 5.0 (MQTT-3.1.2-2).
    ProtocolLevel,
    /// Empty without `CleanSession` in 3.1.1 (MQTT-3.1.3-8 there), or longer than this server takes.
    ClientId,
    /// No slot is free.
    Full,
    /// User name and secret are no pair.
    BadCredentials,
    /// Neither user name nor client certificate.
    Anonymous,
    /// A client certificate that names no sensor.
    Certificate,
    /// A will that would be published to another device's topic.
    ForeignWill,
    /// Enhanced authentication (§4.12), of which this server knows no method.
    AuthMethod,
}

impl ConnectRefusal {
    /// The code in the CONNACK: §3.2.2.2 of 5.0, §3.2.2.3 of 3.1.1.
    #[must_use]
    pub fn reason(self, version: Version) -> Reason {
        match (version, self) {
            (Version::V5, Self::ProtocolLevel) => Reason::UNSUPPORTED_PROTOCOL_VERSION,
            (Version::V5, Self::ClientId) => Reason::CLIENT_IDENTIFIER_NOT_VALID,
            (Version::V5, Self::Full) => Reason::QUOTA_EXCEEDED,
            (Version::V5, Self::BadCredentials) => Reason::BAD_USER_NAME_OR_PASSWORD,
            (Version::V5, Self::Anonymous | Self::Certificate | Self::ForeignWill) => Reason::NOT_AUTHORIZED,
            (_, Self::AuthMethod) => Reason::BAD_AUTHENTICATION_METHOD,
            (Version::V4, Self::ProtocolLevel) => Reason(1),
            (Version::V4, Self::ClientId) => Reason(2),
            (Version::V4, Self::Full) => Reason(3),
            (Version::V4, Self::BadCredentials) => Reason(4),
            (Version::V4, Self::Anonymous | Self::Certificate | Self::ForeignWill) => Reason(5),
        }
    }

    /// A label for counters.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::ProtocolLevel => "protocol-level",
            Self::ClientId => "client-id",
            Self::Full => "full",
            Self::BadCredentials => "bad-credentials",
            Self::Anonymous => "anonymous",
            Self::Certificate => "certificate",
            Self::ForeignWill => "foreign-will",
            Self::AuthMethod => "auth-method",
        }
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The client said DISCONNECT.
    Disconnect,
    /// The client closed without DISCONNECT.
    PeerClosed,
    /// The socket failed.
    Io,
    /// The client left our bytes unread.
    WriteTimeout,
    /// No CONNECT in time.
    ConnectTimeout,
    /// Nothing heard for one and a half keep-alives (MQTT-3.1.2-22).
    KeepAlive,
    /// The CONNECT was answered with a refusal.
    ConnectRefused(ConnectRefusal),
    /// Bytes that are no packet (§4.13): label and reason of the [`DecodeError`].
    Malformed(&'static str, Reason),
    /// A packet out of turn: before CONNECT (MQTT-3.1.0-1), a second CONNECT (MQTT-3.1.0-2), an AUTH.
    OutOfTurn,
    /// A Session Expiry Interval in DISCONNECT where CONNECT had none (§3.14.2.2.2).
    SessionExpiry,
    /// A topic alias above what was granted, or one that stands for nothing (§3.3.2.3.4).
    TopicAlias,
    /// More QoS 1 and 2 messages than Receive Maximum (MQTT-3.3.4-9), or in 3.1.1 than this server keeps unreleased.
    ReceiveMaximum,
    /// A PUBLISH to a topic that is not the client's own.
    ForeignTopic,
    /// A topic longer than [`TOPIC_BYTES_MAX`](super::limits::TOPIC_BYTES_MAX).
    TopicTooLong,
    /// Another connection with the same client id, or the device's newer ones (MQTT-3.1.4-3).
    TakenOver,
    /// Before its CONNECT, for one that came later.
    MadeRoom,
    /// The pipeline refused a QoS 1 or 2 PUBLISH of a client of 3.1.1.
    Refused,
    /// An answer is longer than the client takes.
    AnswerTooLarge,
    /// So is CONNACK, before which no DISCONNECT may be sent (MQTT-3.14.0-1).
    ConnAckTooLarge,
    /// The gateway is shutting down.
    Shutdown,
}

impl CloseReason {
    /// For bytes that are no packet.
    #[must_use]
    pub fn malformed(error: &DecodeError) -> Self {
        Self::Malformed(error.label(), error.reason())
    }

    /// What a client of 5.0 is told in DISCONNECT; nothing where it has gone, or was told already.
    #[must_use]
    pub fn reason(self) -> Option<Reason> {
        match self {
            Self::Disconnect
            | Self::PeerClosed
            | Self::Io
            | Self::WriteTimeout
            | Self::ConnectTimeout
            | Self::ConnAckTooLarge
            | Self::MadeRoom
            | Self::ConnectRefused(_) => None,
            Self::KeepAlive => Some(Reason::KEEP_ALIVE_TIMEOUT),
            Self::Malformed(_, reason) => Some(reason),
            Self::OutOfTurn | Self::SessionExpiry => Some(Reason::PROTOCOL_ERROR),
            Self::TopicAlias => Some(Reason::TOPIC_ALIAS_INVALID),
            Self::ReceiveMaximum => Some(Reason::RECEIVE_MAXIMUM_EXCEEDED),
            Self::ForeignTopic => Some(Reason::NOT_AUTHORIZED),
            Self::TopicTooLong => Some(Reason::TOPIC_NAME_INVALID),
            Self::TakenOver => Some(Reason::SESSION_TAKEN_OVER),
            Self::Refused => Some(Reason::QUOTA_EXCEEDED),
            Self::AnswerTooLarge => Some(Reason::PACKET_TOO_LARGE),
            Self::Shutdown => Some(Reason::SERVER_SHUTTING_DOWN),
        }
    }

    /// A label for counters.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Disconnect => "disconnect",
            Self::PeerClosed => "peer-closed",
            Self::Io => "io",
            Self::WriteTimeout => "write-timeout",
            Self::ConnectTimeout => "connect-timeout",
            Self::KeepAlive => "keep-alive",
            Self::ConnectRefused(_) => "connect-refused",
            Self::Malformed(label, _) => label,
            Self::OutOfTurn => "out-of-turn",
            Self::SessionExpiry => "session-expiry",
            Self::TopicAlias => "topic-alias",
            Self::ReceiveMaximum => "receive-maximum",
            Self::ForeignTopic => "foreign-topic",
            Self::TopicTooLong => "topic-too-long",
            Self::TakenOver => "taken-over",
            Self::MadeRoom => "made-room",
            Self::Refused => "refused",
            Self::AnswerTooLarge => "answer-too-large",
            Self::ConnAckTooLarge => "connack-too-large",
            Self::Shutdown => "shutdown",
        }
    }
}
