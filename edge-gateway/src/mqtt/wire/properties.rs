//! The properties of MQTT 5.0 (§2.2.2): one set of fields for all packets, and for each packet which of them it may have.

use std::ops::{Deref, DerefMut};

use bytes::{BufMut, Bytes, BytesMut};

use super::encode::{put_binary, put_variable, variable_len};
use super::error::DecodeError;
use super::reader::Reader;

/// Most user properties of one packet. Each costs some fifty bytes here for as few as five on the wire; nobody who means well
/// sends more than a dozen.
pub const USER_PROPERTIES_MAX: usize = 32;

/// Identifiers (§2.2.2.2).
mod id {
    pub(super) const PAYLOAD_FORMAT: u8 = 1;
    pub(super) const MESSAGE_EXPIRY: u8 = 2;
    pub(super) const CONTENT_TYPE: u8 = 3;
    pub(super) const RESPONSE_TOPIC: u8 = 8;
    pub(super) const CORRELATION_DATA: u8 = 9;
    pub(super) const SUBSCRIPTION_ID: u8 = 11;
    pub(super) const SESSION_EXPIRY: u8 = 17;
    pub(super) const ASSIGNED_CLIENT_ID: u8 = 18;
    pub(super) const SERVER_KEEP_ALIVE: u8 = 19;
    pub(super) const AUTH_METHOD: u8 = 21;
    pub(super) const AUTH_DATA: u8 = 22;
    pub(super) const REQUEST_PROBLEM_INFORMATION: u8 = 23;
    pub(super) const WILL_DELAY: u8 = 24;
    pub(super) const REQUEST_RESPONSE_INFORMATION: u8 = 25;
    pub(super) const REASON_STRING: u8 = 31;
    pub(super) const RECEIVE_MAX: u8 = 33;
    pub(super) const TOPIC_ALIAS_MAX: u8 = 34;
    pub(super) const TOPIC_ALIAS: u8 = 35;
    pub(super) const USER: u8 = 38;
    pub(super) const PACKET_SIZE_MAX: u8 = 39;
}

/// Which identifiers a packet may have: bit n for identifier n.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed(u64);

impl Allowed {
    const fn of(ids: &[u8]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < ids.len() {
            bits |= 1 << ids[at];
            at += 1;
        }
        Self(bits)
    }

    fn has(self, id: u32) -> bool {
        id < 64 && self.0 & (1 << id) != 0
    }

    pub(super) const CONNECT: Self = Self::of(&[
        id::SESSION_EXPIRY,
        id::AUTH_METHOD,
        id::AUTH_DATA,
        id::REQUEST_PROBLEM_INFORMATION,
        id::REQUEST_RESPONSE_INFORMATION,
        id::RECEIVE_MAX,
        id::TOPIC_ALIAS_MAX,
        id::USER,
        id::PACKET_SIZE_MAX,
    ]);
    pub(super) const WILL: Self = Self::of(&[
        id::PAYLOAD_FORMAT,
        id::MESSAGE_EXPIRY,
        id::CONTENT_TYPE,
        id::RESPONSE_TOPIC,
        id::CORRELATION_DATA,
        id::WILL_DELAY,
        id::USER,
    ]);
    /// Of a client: no Subscription Identifier (MQTT-3.3.4-6).
    pub(super) const PUBLISH: Self = Self::of(&[
        id::PAYLOAD_FORMAT,
        id::MESSAGE_EXPIRY,
        id::CONTENT_TYPE,
        id::RESPONSE_TOPIC,
        id::CORRELATION_DATA,
        id::TOPIC_ALIAS,
        id::USER,
    ]);
    pub(super) const ACK: Self = Self::of(&[id::REASON_STRING, id::USER]);
    pub(super) const SUBSCRIBE: Self = Self::of(&[id::SUBSCRIPTION_ID, id::USER]);
    pub(super) const UNSUBSCRIBE: Self = Self::of(&[id::USER]);
    /// Of a client: no Server Reference.
    pub(super) const DISCONNECT: Self = Self::of(&[id::SESSION_EXPIRY, id::REASON_STRING, id::USER]);
    pub(super) const AUTH: Self = Self::of(&[id::AUTH_METHOD, id::AUTH_DATA, id::REASON_STRING, id::USER]);
}

/// All fields, each named as in §2.2.2.2. Server Reference, Response Information and those by which a server says that it can't do
/// something are not here: this server has no use for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the standard")]
pub struct Fields {
    pub payload_is_text: Option<bool>,
    /// Seconds.
    pub message_expiry: Option<u32>,
    pub content_type: Option<String>,
    pub response_topic: Option<String>,
    pub correlation_data: Option<Bytes>,
    /// One in a SUBSCRIBE; in a PUBLISH to a client one for each subscription that matched.
    pub subscription_ids: Vec<u32>,
    /// Seconds; all ones is for ever.
    pub session_expiry: Option<u32>,
    pub assigned_client_id: Option<String>,
    /// Seconds.
    pub server_keep_alive: Option<u16>,
    pub auth_method: Option<String>,
    pub auth_data: Option<Bytes>,
    pub request_problem_information: Option<bool>,
    /// Seconds.
    pub will_delay: Option<u32>,
    pub request_response_information: Option<bool>,
    pub reason_string: Option<String>,
    pub receive_max: Option<u16>,
    pub topic_alias_max: Option<u16>,
    pub topic_alias: Option<u16>,
    pub user: Vec<(String, String)>,
    /// Bytes of a whole packet.
    pub packet_size_max: Option<u32>,
}

static NONE: Fields = Fields {
    payload_is_text: None,
    message_expiry: None,
    content_type: None,
    response_topic: None,
    correlation_data: None,
    subscription_ids: Vec::new(),
    session_expiry: None,
    assigned_client_id: None,
    server_keep_alive: None,
    auth_method: None,
    auth_data: None,
    request_problem_information: None,
    will_delay: None,
    request_response_information: None,
    reason_string: None,
    receive_max: None,
    topic_alias_max: None,
    topic_alias: None,
    user: Vec::new(),
    packet_size_max: None,
};

/// A packet's properties; none take a word of memory only, since most packets have none.
#[derive(Debug, Clone, Default)]
pub struct Properties(Option<Box<Fields>>);

impl Deref for Properties {
    type Target = Fields;

    fn deref(&self) -> &Fields {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl DerefMut for Properties {
    fn deref_mut(&mut self) -> &mut Fields {
        self.0.get_or_insert_default()
    }
}

impl PartialEq for Properties {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Properties {}

impl Properties {
    /// Reads the length and the properties behind it (§2.2.2).
    pub(super) fn read(reader: &mut Reader, allowed: Allowed) -> Result<Self, DecodeError> {
        let len = reader.variable()?;
        let mut part = reader.part(len)?;
        let mut properties = Self::default();
        while !part.is_empty() {
            let number = part.variable()?;
            let (true, Ok(id)) = (allowed.has(number), u8::try_from(number)) else {
                return Err(DecodeError::Property { id: number, packet: part.packet });
            };
            properties.read_one(id, &mut part)?;
        }
        Ok(properties)
    }

    fn read_one(&mut self, id: u8, reader: &mut Reader) -> Result<(), DecodeError> {
        match id {
            id::PAYLOAD_FORMAT => once(&mut self.payload_is_text, id, flag(id, reader)?),
            id::MESSAGE_EXPIRY => once(&mut self.message_expiry, id, reader.four_bytes()?),
            id::CONTENT_TYPE => once(&mut self.content_type, id, reader.text("content type")?),
            id::RESPONSE_TOPIC => {
                let topic = reader.text("response topic")?;
                if topic.is_empty() || topic.contains(['+', '#']) {
                    return Err(DecodeError::Topic("response topic"));
                }
                once(&mut self.response_topic, id, topic)
            }
            id::CORRELATION_DATA => once(&mut self.correlation_data, id, reader.binary()?),
            id::SUBSCRIPTION_ID => {
                let value = not_zero(id, reader.variable()?)?;
                if !self.subscription_ids.is_empty() {
                    return Err(DecodeError::PropertyTwice(id));
                }
                self.subscription_ids.push(value);
                Ok(())
            }
            id::SESSION_EXPIRY => once(&mut self.session_expiry, id, reader.four_bytes()?),
            id::AUTH_METHOD => once(&mut self.auth_method, id, reader.text("authentication method")?),
            id::AUTH_DATA => once(&mut self.auth_data, id, reader.binary()?),
            id::REQUEST_PROBLEM_INFORMATION => {
                once(&mut self.request_problem_information, id, flag(id, reader)?)
            }
            id::WILL_DELAY => once(&mut self.will_delay, id, reader.four_bytes()?),
            id::REQUEST_RESPONSE_INFORMATION => {
                once(&mut self.request_response_information, id, flag(id, reader)?)
            }
            id::REASON_STRING => once(&mut self.reason_string, id, reader.text("reason string")?),
            id::RECEIVE_MAX => once(&mut self.receive_max, id, not_zero(id, reader.two_bytes()?)?),
            id::TOPIC_ALIAS_MAX => once(&mut self.topic_alias_max, id, reader.two_bytes()?),
            id::TOPIC_ALIAS => once(&mut self.topic_alias, id, not_zero(id, reader.two_bytes()?)?),
            id::USER => {
                let pair = (reader.text("user property")?, reader.text("user property")?);
                if self.user.len() >= USER_PROPERTIES_MAX {
                    return Err(DecodeError::PropertyTwice(id));
                }
                self.user.push(pair);
                Ok(())
            }
            id::PACKET_SIZE_MAX => once(&mut self.packet_size_max, id, not_zero(id, reader.four_bytes()?)?),
            _ => Err(DecodeError::Property { id: u32::from(id), packet: reader.packet }),
        }
    }

    /// Writes the length and the properties behind it.
    pub(super) fn write(&self, out: &mut BytesMut) {
        let Some(fields) = self.0.as_deref() else { return out.put_u8(0) };
        let mut part = BytesMut::new();
        fields.write(&mut part);
        put_variable(out, part.len());
        out.extend_from_slice(&part);
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        **self == NONE
    }

    /// Bytes of what is written, roughly and never less, for what a message costs in memory.
    #[must_use]
    pub fn cost(&self) -> usize {
        let Some(fields) = self.0.as_deref() else { return 1 };
        let mut part = BytesMut::new();
        fields.write(&mut part);
        variable_len(part.len()) + part.len() + 64 * fields.user.len()
    }
}

impl Fields {
    fn write(&self, out: &mut BytesMut) {
        let byte = |out: &mut BytesMut, id: u8, value: Option<bool>| {
            if let Some(value) = value {
                out.extend_from_slice(&[id, u8::from(value)]);
            }
        };
        let two = |out: &mut BytesMut, id: u8, value: Option<u16>| {
            if let Some(value) = value {
                out.put_u8(id);
                out.put_u16(value);
            }
        };
        let four = |out: &mut BytesMut, id: u8, value: Option<u32>| {
            if let Some(value) = value {
                out.put_u8(id);
                out.put_u32(value);
            }
        };
        let binary = |out: &mut BytesMut, id: u8, value: Option<&[u8]>| {
            if let Some(value) = value {
                out.put_u8(id);
                put_binary(out, value);
            }
        };
        let text = |value: &Option<String>| value.clone().map(String::into_bytes);
        byte(out, id::PAYLOAD_FORMAT, self.payload_is_text);
        four(out, id::MESSAGE_EXPIRY, self.message_expiry);
        binary(out, id::CONTENT_TYPE, text(&self.content_type).as_deref());
        binary(out, id::RESPONSE_TOPIC, text(&self.response_topic).as_deref());
        binary(out, id::CORRELATION_DATA, self.correlation_data.as_deref());
        for value in &self.subscription_ids {
            out.put_u8(id::SUBSCRIPTION_ID);
            put_variable(out, usize::try_from(*value).unwrap_or(usize::MAX));
        }
        four(out, id::SESSION_EXPIRY, self.session_expiry);
        binary(out, id::ASSIGNED_CLIENT_ID, text(&self.assigned_client_id).as_deref());
        two(out, id::SERVER_KEEP_ALIVE, self.server_keep_alive);
        binary(out, id::AUTH_METHOD, text(&self.auth_method).as_deref());
        binary(out, id::AUTH_DATA, self.auth_data.as_deref());
        byte(out, id::REQUEST_PROBLEM_INFORMATION, self.request_problem_information);
        four(out, id::WILL_DELAY, self.will_delay);
        byte(out, id::REQUEST_RESPONSE_INFORMATION, self.request_response_information);
        binary(out, id::REASON_STRING, text(&self.reason_string).as_deref());
        two(out, id::RECEIVE_MAX, self.receive_max);
        two(out, id::TOPIC_ALIAS_MAX, self.topic_alias_max);
        two(out, id::TOPIC_ALIAS, self.topic_alias);
        for (name, value) in &self.user {
            out.put_u8(id::USER);
            put_binary(out, name.as_bytes());
            put_binary(out, value.as_bytes());
        }
        four(out, id::PACKET_SIZE_MAX, self.packet_size_max);
    }
}

fn once<T>(slot: &mut Option<T>, id: u8, value: T) -> Result<(), DecodeError> {
    if slot.replace(value).is_some() { Err(DecodeError::PropertyTwice(id)) } else { Ok(()) }
}

fn flag(id: u8, reader: &mut Reader) -> Result<bool, DecodeError> {
    match reader.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::PropertyValue(id)),
    }
}

fn not_zero<T: Default + PartialEq>(id: u8, value: T) -> Result<T, DecodeError> {
    if value == T::default() { Err(DecodeError::PropertyValue(id)) } else { Ok(value) }
}
