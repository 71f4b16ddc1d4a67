//! The packets of MQTT 3.1.1 and 5.0 as values. What 3.1.1 lacks (properties, most reason codes) is empty or 0 there.

use std::num::NonZeroU16;

use bytes::Bytes;

use super::properties::Properties;

/// Which protocol a connection speaks (§3.1.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V4,
    /// MQTT 5.0, protocol level 5.
    V5,
}

/// Quality of service (§4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QoS {
    /// 0.
    AtMostOnce,
    /// 1.
    AtLeastOnce,
    /// 2.
    ExactlyOnce,
}

impl QoS {
    /// From its two bits; 3 is none.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }

    /// Its two bits.
    #[must_use]
    pub fn bits(self) -> u8 {
        match self {
            Self::AtMostOnce => 0,
            Self::AtLeastOnce => 1,
            Self::ExactlyOnce => 2,
        }
    }
}

/// A reason code (§2.4); from 0x80 on a failure. Return codes of 3.1.1 stand here too where a packet has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason(pub u8);

#[expect(missing_docs, reason = "each is named as in §2.4")]
impl Reason {
    /// Also Normal disconnection, and Granted QoS 0.
    pub const SUCCESS: Self = Self(0x00);
    pub const DISCONNECT_WITH_WILL: Self = Self(0x04);
    pub const NO_MATCHING_SUBSCRIBERS: Self = Self(0x10);
    pub const NO_SUBSCRIPTION_EXISTED: Self = Self(0x11);
    pub const UNSPECIFIED_ERROR: Self = Self(0x80);
    pub const MALFORMED_PACKET: Self = Self(0x81);
    pub const PROTOCOL_ERROR: Self = Self(0x82);
    pub const UNSUPPORTED_PROTOCOL_VERSION: Self = Self(0x84);
    pub const CLIENT_IDENTIFIER_NOT_VALID: Self = Self(0x85);
    pub const BAD_USER_NAME_OR_PASSWORD: Self = Self(0x86);
    pub const NOT_AUTHORIZED: Self = Self(0x87);
    pub const SERVER_UNAVAILABLE: Self = Self(0x88);
    pub const SERVER_SHUTTING_DOWN: Self = Self(0x8B);
    pub const BAD_AUTHENTICATION_METHOD: Self = Self(0x8C);
    pub const KEEP_ALIVE_TIMEOUT: Self = Self(0x8D);
    pub const SESSION_TAKEN_OVER: Self = Self(0x8E);
    pub const TOPIC_FILTER_INVALID: Self = Self(0x8F);
    pub const TOPIC_NAME_INVALID: Self = Self(0x90);
    pub const PACKET_IDENTIFIER_IN_USE: Self = Self(0x91);
    pub const PACKET_IDENTIFIER_NOT_FOUND: Self = Self(0x92);
    pub const RECEIVE_MAXIMUM_EXCEEDED: Self = Self(0x93);
    pub const TOPIC_ALIAS_INVALID: Self = Self(0x94);
    pub const PACKET_TOO_LARGE: Self = Self(0x95);
    pub const QUOTA_EXCEEDED: Self = Self(0x97);
    pub const PAYLOAD_FORMAT_INVALID: Self = Self(0x99);
}

impl Reason {
    /// Whether it says that something failed.
    #[must_use]
    pub fn is_failure(self) -> bool {
        self.0 >= 0x80
    }
}

/// A packet identifier: never 0 (MQTT-2.2.1-3).
pub type PacketId = NonZeroU16;

/// CONNECT (§3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// The protocol of this connection from here on.
    pub version: Version,
    /// Clean Start; in 3.1.1 `CleanSession`.
    pub clean_start: bool,
    /// Seconds; 0 is none.
    pub keep_alive: u16,
    /// May be empty.
    pub client_id: String,
    /// What is to be published when the client is lost.
    pub will: Option<Will>,
    /// User name.
    pub username: Option<String>,
    /// Password: any bytes.
    pub password: Option<Bytes>,
    /// Session Expiry Interval, Receive Maximum, Maximum Packet Size, Topic Alias Maximum, …
    pub properties: Properties,
}

/// A will message (§3.1.3.2 ff.).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// Where to.
    pub topic: String,
    /// What.
    pub payload: Bytes,
    /// Its QoS.
    pub qos: QoS,
    /// Whether it is retained.
    pub retain: bool,
    /// Will Delay Interval and those of a PUBLISH.
    pub properties: Properties,
}

/// CONNACK (§3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnAck {
    /// Whether a session was there.
    pub session_present: bool,
    /// Reason code in 5.0, return code in 3.1.1.
    pub reason: Reason,
    /// What the server grants.
    pub properties: Properties,
}

/// PUBLISH (§3.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Sent again.
    pub dup: bool,
    /// Its QoS.
    pub qos: QoS,
    /// To be retained; to a client: was retained.
    pub retain: bool,
    /// Empty where an alias stands for it.
    pub topic: String,
    /// Present above QoS 0.
    pub packet_id: Option<PacketId>,
    /// What.
    pub payload: Bytes,
    /// Topic Alias, Message Expiry Interval, Response Topic, …
    pub properties: Properties,
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP (§3.4 to §3.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// Of which PUBLISH.
    pub packet_id: PacketId,
    /// Always success in 3.1.1.
    pub reason: Reason,
    /// Reason String, user properties.
    pub properties: Properties,
}

impl Ack {
    /// Without properties.
    #[must_use]
    pub fn new(packet_id: PacketId, reason: Reason) -> Self {
        Self { packet_id, reason, properties: Properties::default() }
    }
}

/// What happens with retained messages when a subscription is made (§3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetainHandling {
    /// 0: they are sent.
    Send,
    /// 1: only if the subscription is new.
    SendIfNew,
    /// 2: they are not.
    DontSend,
}

/// One filter of a SUBSCRIBE with its options (§3.8.3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// As sent, `$share/…` included.
    pub path: String,
    /// The most at which messages come.
    pub qos: QoS,
    /// Own messages don't come back.
    pub no_local: bool,
    /// The retain flag stays as it was published.
    pub retain_as_published: bool,
    /// Of retained messages.
    pub retain_handling: RetainHandling,
}

/// SUBSCRIBE (§3.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// To be repeated in SUBACK.
    pub packet_id: PacketId,
    /// At least one.
    pub filters: Vec<Filter>,
    /// Subscription Identifier, user properties.
    pub properties: Properties,
}

/// UNSUBSCRIBE (§3.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// To be repeated in UNSUBACK.
    pub packet_id: PacketId,
    /// At least one.
    pub filters: Vec<String>,
    /// User properties.
    pub properties: Properties,
}

/// SUBACK and UNSUBACK (§3.9, §3.11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubAck {
    /// Of which SUBSCRIBE or UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// One a filter.
    pub reasons: Vec<Reason>,
}

/// DISCONNECT (§3.14) and AUTH (§3.15).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect {
    /// Why; success in 3.1.1.
    pub reason: Reason,
    /// Session Expiry Interval, Reason String, ….
    pub properties: Properties,
}

impl Disconnect {
    /// Without properties.
    #[must_use]
    pub fn new(reason: Reason) -> Self {
        Self { reason, properties: Properties::default() }
    }
}

/// Any control packet (§2.1.2).
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named as in §2.1.2")]
pub enum Packet {
    Connect(Box<Connect>),
    ConnAck(ConnAck),
    Publish(Publish),
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    Subscribe(Subscribe),
    SubAck(SubAck),
    Unsubscribe(Unsubscribe),
    UnsubAck(SubAck),
    PingReq,
    PingResp,
    Disconnect(Disconnect),
    Auth(Disconnect),
}

impl Packet {
    /// A label for counters.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::ConnAck(_) => "connack",
            Self::Publish(_) => "publish",
            Self::PubAck(_) => "puback",
            Self::PubRec(_) => "pubrec",
            Self::PubRel(_) => "pubrel",
            Self::PubComp(_) => "pubcomp",
            Self::Subscribe(_) => "subscribe",
            Self::SubAck(_) => "suback",
            Self::Unsubscribe(_) => "unsubscribe",
            Self::UnsubAck(_) => "unsuback",
            Self::PingReq => "pingreq",
            Self::PingResp => "pingresp",
            Self::Disconnect(_) => "disconnect",
            Self::Auth(_) => "auth",
        }
    }
}
