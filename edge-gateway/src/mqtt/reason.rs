//! Why connections are refused and why they end: what the CONNACK says and what the counters are labelled with.

use rumqttc::mqttbytes::v4::ConnectReturnCode;

/// Why a CONNECT was refused (return codes of §3.2.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectRefusal {
    /// Not MQTT 3.1.1 (MQTT-3.1.2-2).
    ProtocolLevel,
    /// Empty without `CleanSession` (MQTT-3.1.3-8), or longer than this server takes.
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
}

impl ConnectRefusal {
    /// The code in the CONNACK.
    #[must_use]
    pub fn return_code(self) -> ConnectReturnCode {
        match self {
            Self::ProtocolLevel => ConnectReturnCode::RefusedProtocolVersion,
            Self::ClientId => ConnectReturnCode::BadClientId,
            Self::Full => ConnectReturnCode::ServiceUnavailable,
            Self::BadCredentials => ConnectReturnCode::BadUserNamePassword,
            Self::Anonymous | Self::Certificate | Self::ForeignWill => ConnectReturnCode::NotAuthorized,
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
    /// Nothing heard for one and a half keep-alives (MQTT-3.1.2-24).
    KeepAlive,
    /// The CONNECT was answered with a refusal.
    ConnectRefused(ConnectRefusal),
    /// Bytes that are no packet (MQTT-4.8.0-1); the label of the [`DecodeError`](super::codec::DecodeError).
    Malformed(&'static str),
    /// A packet out of turn: before CONNECT (MQTT-3.1.0-1), or a second CONNECT (MQTT-3.1.0-2).
    OutOfTurn,
    /// A PUBLISH at QoS 2, which this server does not speak yet.
    Qos2,
    /// A PUBLISH to another device's topic, or outside `vitals/v1/`.
    ForeignTopic,
    /// A topic longer than [`TOPIC_BYTES_MAX`](super::limits::TOPIC_BYTES_MAX).
    TopicTooLong,
    /// Another connection with the same client id, or the device's newer ones (MQTT-3.1.4-2).
    TakenOver,
    /// The pipeline refused a QoS 1 PUBLISH.
    Refused,
    /// The gateway is shutting down.
    Shutdown,
}

impl CloseReason {
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
            Self::Malformed(label) => label,
            Self::OutOfTurn => "out-of-turn",
            Self::Qos2 => "qos2",
            Self::ForeignTopic => "foreign-topic",
            Self::TopicTooLong => "topic-too-long",
            Self::TakenOver => "taken-over",
            Self::Refused => "refused",
            Self::Shutdown => "shutdown",
        }
    }
}
