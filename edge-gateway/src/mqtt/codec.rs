//! From bytes to MQTT 3.1.1 packets that a client may send, and nothing else.
//!
//! The parsing is rumqttc's (`mqttbytes::v4`), which was written for a client and trusts a broker: it passes over reserved
//! flags, trailing bytes, wildcards, U+0000 and an empty UNSUBSCRIBE, and reads a packet of any direction. [`decode`] frames
//! the packet itself, refuses by type, flags and length before the body has arrived, and checks what the codec leaves out.
//!
//! ```text
//!  byte 1   type (4 bits) │ flags (4 bits)      §2.2
//!  byte 2…5 remaining length, 7 bits a byte     §2.2.3
//!  …        variable header, payload
//! ```

use bytes::{Buf, BytesMut};
use rumqttc::mqttbytes::v4::Packet;
use rumqttc::mqttbytes::{QoS, valid_filter};
use thiserror::Error;

use super::limits::FILTERS_MAX;

/// Why bytes are no packet that a client may send. Sections are of MQTT 3.1.1 (OASIS, 29 October 2014).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// A packet type that no client sends to a server here (§2.2.1): 0, 15, what servers send, and the QoS 2 handshake
    /// and PUBACK, since this server publishes nothing.
    #[error("packet type {0} is not for a client to send here")]
    Type(u8),
    /// Flags other than those reserved for the type (MQTT-2.2.2-2), or DUP on QoS 0 (MQTT-3.3.1-2), or QoS 3 (MQTT-3.3.1-4).
    #[error("packet type {kind} with flags {flags:#06b}")]
    Flags {
        /// The packet type.
        kind: u8,
        /// The four bits.
        flags: u8,
    },
    /// A remaining length of more than four bytes (§2.2.3).
    #[error("remaining length runs over four bytes")]
    LengthField,
    /// More bytes than the operator allows.
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
    /// Another protocol level than 4 (MQTT-3.1.2-2): the client is answered before it is closed.
    #[error("protocol level {0}, spoken is 4")]
    ProtocolLevel(u8),
    /// Connect flags that contradict themselves: reserved bit (MQTT-3.1.2-3), will flags without a will (MQTT-3.1.2-11,
    /// -13, -15), will QoS 3 (MQTT-3.1.2-14), a password without a user name (MQTT-3.1.2-22).
    #[error("connect flags {0:#010b}")]
    ConnectFlags(u8),
    /// U+0000 in a string (MQTT-1.5.3-2).
    #[error("{0} holds U+0000")]
    Nul(&'static str),
    /// An empty topic (MQTT-4.7.3-1), or one with wildcards (MQTT-3.3.2-2).
    #[error("{0} is empty or has wildcards")]
    Topic(&'static str),
    /// A filter that is empty or has wildcards in the wrong place (MQTT-4.7.1-1 to -3), or none, or too many of them.
    #[error("topic filter")]
    Filter,
    /// Reserved bits in a requested QoS (MQTT-3-8.3-4).
    #[error("requested QoS {0:#010b}")]
    RequestedQos(u8),
    /// Packet identifier 0 (MQTT-2.3.1-1).
    #[error("packet identifier 0")]
    PacketId,
    /// What the codec itself refuses: not UTF-8 (MQTT-1.5.3-1), or a field over the end of its packet.
    #[error("codec: {0}")]
    Codec(String),
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
            Self::Nul(_) => "nul",
            Self::Topic(_) => "topic",
            Self::Filter => "filter",
            Self::RequestedQos(_) => "requested-qos",
            Self::PacketId => "packet-id",
            Self::Codec(_) => "codec",
        }
    }
}

/// Packet types by their number (§2.2.1), as far as a client sends them to this server.
mod kind {
    pub(super) const CONNECT: u8 = 1;
    pub(super) const PUBLISH: u8 = 3;
    pub(super) const SUBSCRIBE: u8 = 8;
    pub(super) const UNSUBSCRIBE: u8 = 10;
    pub(super) const PINGREQ: u8 = 12;
    pub(super) const DISCONNECT: u8 = 14;
}

/// A fixed header that has passed its checks (§2.2).
struct Header {
    kind: u8,
    /// Bytes of the header itself: 2 to 5.
    len: usize,
    /// Bytes that follow it.
    remaining: usize,
}

/// Takes one packet off the front of `buf`, if all of it is there. `max` bounds the remaining length.
///
/// `Ok(None)` leaves `buf` as it is: more bytes are needed. After an error the connection can't be read any further
/// (§4.8: close it); `buf` is then of no use.
///
/// # Errors
/// [`DecodeError`] as soon as the bytes that are there can't begin a packet that a client may send.
pub fn decode(buf: &mut BytesMut, max: usize) -> Result<Option<Packet>, DecodeError> {
    let Some(header) = header(buf, max)? else { return Ok(None) };
    let frame_len = header.len + header.remaining;
    if buf.len() < frame_len {
        return Ok(None);
    }
    let mut frame = buf.split_to(frame_len);
    check_before(header.kind, &frame[header.len..])?;
    let packet = Packet::read(&mut frame, max).map_err(|error| DecodeError::Codec(error.to_string()))?;
    check_after(header.kind, &packet)?;
    Ok(Some(packet))
}

/// Reads and checks the fixed header; `None` while it is incomplete.
fn header(buf: &[u8], max: usize) -> Result<Option<Header>, DecodeError> {
    let Some((&first, rest)) = buf.split_first() else { return Ok(None) };
    let (kind, flags) = (first >> 4, first & 0x0f);
    let flags_valid = match kind {
        kind::CONNECT | kind::PINGREQ | kind::DISCONNECT => flags == 0,
        kind::SUBSCRIBE | kind::UNSUBSCRIBE => flags == 0b0010,
        kind::PUBLISH => flags & 0b0110 != 0b0110 && (flags & 0b1000 == 0 || flags & 0b0110 != 0),
        _ => return Err(DecodeError::Type(kind)),
    };
    if !flags_valid {
        return Err(DecodeError::Flags { kind, flags });
    }
    let mut remaining = 0;
    for (at, byte) in rest.iter().take(4).enumerate() {
        remaining |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            if remaining > max {
                return Err(DecodeError::TooLarge { len: remaining, max });
            }
            return Ok(Some(Header { kind, len: at + 2, remaining }));
        }
    }
    if rest.len() >= 4 { Err(DecodeError::LengthField) } else { Ok(None) }
}

/// What must hold before the codec sees the packet, since it would misread or pass it.
fn check_before(kind: u8, body: &[u8]) -> Result<(), DecodeError> {
    match kind {
        kind::CONNECT => check_connect(body),
        kind::PINGREQ if !body.is_empty() => Err(DecodeError::Length("PINGREQ")),
        kind::DISCONNECT if !body.is_empty() => Err(DecodeError::Length("DISCONNECT")),
        kind::SUBSCRIBE => check_requested_qos(body),
        _ => Ok(()),
    }
}

/// Walks a CONNECT (§3.1) for what the codec passes over: level first, then flags, then that nothing is left over.
fn check_connect(mut body: &[u8]) -> Result<(), DecodeError> {
    const SHORT: DecodeError = DecodeError::Length("CONNECT");
    let name = take_field(&mut body).ok_or(SHORT)?;
    let level = body.try_get_u8().map_err(|_short| SHORT)?;
    match (name, level) {
        (b"MQTT", 4) => {}
        (b"MQTT", _) | (b"MQIsdp", 3) => return Err(DecodeError::ProtocolLevel(level)),
        _ => return Err(DecodeError::ProtocolName),
    }
    let flags = body.try_get_u8().map_err(|_short| SHORT)?;
    let (will, will_qos, will_retain) = (flags & 0x04 != 0, (flags >> 3) & 0b11, flags & 0x20 != 0);
    let (password, username) = (flags & 0x40 != 0, flags & 0x80 != 0);
    if flags & 1 != 0 || (!will && (will_qos != 0 || will_retain)) || will_qos == 3 || (password && !username)
    {
        return Err(DecodeError::ConnectFlags(flags));
    }
    body.try_get_u16().map_err(|_short| SHORT)?;
    let fields = 1 + 2 * usize::from(will) + usize::from(username) + usize::from(password);
    for _ in 0..fields {
        take_field(&mut body).ok_or(SHORT)?;
    }
    if body.is_empty() { Ok(()) } else { Err(SHORT) }
}

/// Walks a SUBSCRIBE (§3.8) for the reserved bits of each requested QoS, which the codec masks away.
fn check_requested_qos(mut body: &[u8]) -> Result<(), DecodeError> {
    const SHORT: DecodeError = DecodeError::Length("SUBSCRIBE");
    body.try_get_u16().map_err(|_short| SHORT)?;
    let mut filters = 0;
    while !body.is_empty() {
        take_field(&mut body).ok_or(SHORT)?;
        let qos = body.try_get_u8().map_err(|_short| SHORT)?;
        if qos > 2 {
            return Err(DecodeError::RequestedQos(qos));
        }
        filters += 1;
    }
    if (1..=FILTERS_MAX).contains(&filters) { Ok(()) } else { Err(DecodeError::Filter) }
}

/// Takes a field of a 16-bit length and as many bytes (§1.5.3).
fn take_field<'a>(body: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::from(body.try_get_u16().ok()?);
    let (field, rest) = body.split_at_checked(len)?;
    *body = rest;
    Some(field)
}

/// What must hold of the packet as the codec read it.
fn check_after(kind: u8, packet: &Packet) -> Result<(), DecodeError> {
    match packet {
        Packet::Connect(connect) => {
            no_nul("client id", &connect.client_id)?;
            if let Some(login) = &connect.login {
                no_nul("user name", &login.username)?;
            }
            connect.last_will.as_ref().map_or(Ok(()), |will| check_topic("will topic", &will.topic))
        }
        Packet::Publish(publish) => {
            if publish.qos != QoS::AtMostOnce && publish.pkid == 0 {
                return Err(DecodeError::PacketId);
            }
            check_topic("topic", &publish.topic)
        }
        Packet::Subscribe(subscribe) => {
            check_filters(subscribe.pkid, subscribe.filters.iter().map(|filter| filter.path.as_str()))
        }
        Packet::Unsubscribe(unsubscribe) => {
            check_filters(unsubscribe.pkid, unsubscribe.topics.iter().map(String::as_str))
        }
        Packet::PingReq | Packet::Disconnect => Ok(()),
        Packet::ConnAck(_)
        | Packet::PubAck(_)
        | Packet::PubRec(_)
        | Packet::PubRel(_)
        | Packet::PubComp(_)
        | Packet::SubAck(_)
        | Packet::UnsubAck(_)
        | Packet::PingResp => Err(DecodeError::Type(kind)),
    }
}

fn check_topic(what: &'static str, topic: &str) -> Result<(), DecodeError> {
    no_nul(what, topic)?;
    if topic.is_empty() || topic.contains(['+', '#']) { Err(DecodeError::Topic(what)) } else { Ok(()) }
}

fn check_filters<'a>(packet_id: u16, filters: impl Iterator<Item = &'a str>) -> Result<(), DecodeError> {
    if packet_id == 0 {
        return Err(DecodeError::PacketId);
    }
    let mut count = 0;
    for filter in filters {
        no_nul("topic filter", filter)?;
        count += 1;
        if count > FILTERS_MAX || !valid_filter(filter) {
            return Err(DecodeError::Filter);
        }
    }
    if count == 0 { Err(DecodeError::Filter) } else { Ok(()) }
}

fn no_nul(what: &'static str, text: &str) -> Result<(), DecodeError> {
    if text.contains('\0') { Err(DecodeError::Nul(what)) } else { Ok(()) }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
