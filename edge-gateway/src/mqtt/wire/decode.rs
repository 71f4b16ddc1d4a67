//! From bytes to packets that a client may send.

use bytes::{Bytes, BytesMut};

use super::error::DecodeError;
use super::packet::{
    Ack, Connect, Disconnect, Filter, Packet, Publish, QoS, Reason, RetainHandling, Subscribe, Unsubscribe,
    Version, Will,
};
use super::properties::{Allowed, Properties};
use super::reader::Reader;
use crate::mqtt::filter;
use crate::mqtt::limits::FILTERS_MAX;

/// Packet types by their number (§2.1.2).
pub(super) mod kind {
    pub(crate) const CONNECT: u8 = 1;
    pub(crate) const CONNACK: u8 = 2;
    pub(crate) const PUBLISH: u8 = 3;
    pub(crate) const PUBACK: u8 = 4;
    pub(crate) const PUBREC: u8 = 5;
    pub(crate) const PUBREL: u8 = 6;
    pub(crate) const PUBCOMP: u8 = 7;
    pub(crate) const SUBSCRIBE: u8 = 8;
    pub(crate) const SUBACK: u8 = 9;
    pub(crate) const UNSUBSCRIBE: u8 = 10;
    pub(crate) const UNSUBACK: u8 = 11;
    pub(crate) const PINGREQ: u8 = 12;
    pub(crate) const PINGRESP: u8 = 13;
    pub(crate) const DISCONNECT: u8 = 14;
    pub(crate) const AUTH: u8 = 15;
}

/// A fixed header that has passed its checks (§2.1).
struct Header {
    kind: u8,
    flags: u8,
    /// Bytes of the header itself: 2 to 5.
    len: usize,
    /// Bytes that follow it.
    remaining: usize,
}

/// Takes one packet off the front of `buf`, if all of it is there. `max` bounds the remaining length. `version` is that of the
/// connection's CONNECT; before it, any.
///
/// `Ok(None)` leaves `buf` as it is: more bytes are needed. After an error the connection can't be read any further
/// (§4.13: close it); `buf` is then of no use.
///
/// # Errors
/// [`DecodeError`] as soon as the bytes that are there can't begin a packet that a client may send.
pub fn decode(buf: &mut BytesMut, version: Version, max: usize) -> Result<Option<Packet>, DecodeError> {
    let Some(header) = header(buf, version, max)? else { return Ok(None) };
    let frame_len = header.len + header.remaining;
    if buf.len() < frame_len {
        return Ok(None);
    }
    let mut frame = buf.split_to(frame_len);
    let body = frame.split_off(header.len).freeze();
    packet(&header, version, body).map(Some)
}

/// Reads and checks the fixed header; `None` while it is incomplete.
fn header(buf: &[u8], version: Version, max: usize) -> Result<Option<Header>, DecodeError> {
    let Some((&first, rest)) = buf.split_first() else { return Ok(None) };
    let (kind, flags) = (first >> 4, first & 0x0f);
    let flags_valid = match kind {
        kind::CONNECT | kind::PUBACK | kind::PUBREC | kind::PUBCOMP | kind::PINGREQ | kind::DISCONNECT => {
            flags == 0
        }
        kind::AUTH if version == Version::V5 => flags == 0,
        kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE => flags == 0b0010,
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
            return Ok(Some(Header { kind, flags, len: at + 2, remaining }));
        }
    }
    if rest.len() >= 4 { Err(DecodeError::LengthField) } else { Ok(None) }
}

fn packet(header: &Header, version: Version, body: Bytes) -> Result<Packet, DecodeError> {
    match header.kind {
        kind::CONNECT => {
            connect(Reader::new(body, "CONNECT")).map(|connect| Packet::Connect(Box::new(connect)))
        }
        kind::PUBLISH => publish(header.flags, version, Reader::new(body, "PUBLISH")).map(Packet::Publish),
        kind::PUBACK => ack(version, Reader::new(body, "PUBACK")).map(Packet::PubAck),
        kind::PUBREC => ack(version, Reader::new(body, "PUBREC")).map(Packet::PubRec),
        kind::PUBREL => ack(version, Reader::new(body, "PUBREL")).map(Packet::PubRel),
        kind::PUBCOMP => ack(version, Reader::new(body, "PUBCOMP")).map(Packet::PubComp),
        kind::SUBSCRIBE => subscribe(version, Reader::new(body, "SUBSCRIBE")).map(Packet::Subscribe),
        kind::UNSUBSCRIBE => unsubscribe(version, Reader::new(body, "UNSUBSCRIBE")).map(Packet::Unsubscribe),
        kind::PINGREQ => Reader::new(body, "PINGREQ").end().map(|()| Packet::PingReq),
        kind::DISCONNECT => {
            disconnect(version, Allowed::DISCONNECT, Reader::new(body, "DISCONNECT")).map(Packet::Disconnect)
        }
        kind::AUTH => disconnect(version, Allowed::AUTH, Reader::new(body, "AUTH")).map(Packet::Auth),
        other => Err(DecodeError::Type(other)),
    }
}

/// CONNECT (§3.1).
fn connect(mut reader: Reader) -> Result<Connect, DecodeError> {
    let name = reader.binary()?;
    let level = reader.byte()?;
    let version = match (&name[..], level) {
        (b"MQTT", 4) => Version::V4,
        (b"MQTT", 5) => Version::V5,
        (b"MQTT", _) | (b"MQIsdp", 3) => return Err(DecodeError::ProtocolLevel(level)),
        _ => return Err(DecodeError::ProtocolName),
    };
    let v5 = version == Version::V5;
    let flags = reader.byte()?;
    let (has_will, will_qos, will_retain) = (flags & 0x04 != 0, (flags >> 3) & 0b11, flags & 0x20 != 0);
    let (has_password, has_username) = (flags & 0x40 != 0, flags & 0x80 != 0);
    let Some(will_qos) = QoS::from_bits(will_qos) else { return Err(DecodeError::ConnectFlags(flags)) };
    let stray_will = !has_will && (will_qos != QoS::AtMostOnce || will_retain);
    if flags & 1 != 0 || stray_will || (!v5 && has_password && !has_username) {
        return Err(DecodeError::ConnectFlags(flags));
    }
    let keep_alive = reader.two_bytes()?;
    let properties = properties(version, &mut reader, Allowed::CONNECT)?;
    let client_id = reader.text("client id")?;
    let will = if has_will { Some(will(version, will_qos, will_retain, &mut reader)?) } else { None };
    let username = if has_username { Some(reader.text("user name")?) } else { None };
    let password = if has_password { Some(reader.binary()?) } else { None };
    reader.end()?;
    let clean_start = flags & 0x02 != 0;
    Ok(Connect { version, clean_start, keep_alive, client_id, will, username, password, properties })
}

fn will(version: Version, qos: QoS, retain: bool, reader: &mut Reader) -> Result<Will, DecodeError> {
    let properties = properties(version, reader, Allowed::WILL)?;
    let topic = reader.text("will topic")?;
    check_topic("will topic", &topic)?;
    Ok(Will { topic, payload: reader.binary()?, qos, retain, properties })
}

/// PUBLISH (§3.3). The topic may be empty where an alias stands for it.
fn publish(flags: u8, version: Version, mut reader: Reader) -> Result<Publish, DecodeError> {
    let qos = QoS::from_bits((flags >> 1) & 0b11).ok_or(DecodeError::Flags { kind: kind::PUBLISH, flags })?;
    let topic = reader.text("topic")?;
    let packet_id = if qos == QoS::AtMostOnce { None } else { Some(reader.packet_id()?) };
    let properties = properties(version, &mut reader, Allowed::PUBLISH)?;
    if !topic.is_empty() || properties.topic_alias.is_none() {
        check_topic("topic", &topic)?;
    }
    let (dup, retain) = (flags & 0b1000 != 0, flags & 1 != 0);
    Ok(Publish { dup, qos, retain, topic, packet_id, payload: reader.rest(), properties })
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP (§3.4 to §3.7).
fn ack(version: Version, mut reader: Reader) -> Result<Ack, DecodeError> {
    let mut ack = Ack::new(reader.packet_id()?, Reason::SUCCESS);
    if version == Version::V5 && !reader.is_empty() {
        ack.reason = Reason(reader.byte()?);
        let allowed: &[u8] = match reader.packet {
            "PUBREL" | "PUBCOMP" => &[0, 0x92],
            _ => &[0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99],
        };
        check_reason(ack.reason, allowed, reader.packet)?;
        if !reader.is_empty() {
            ack.properties = Properties::read(&mut reader, Allowed::ACK)?;
        }
    }
    reader.end()?;
    Ok(ack)
}

/// SUBSCRIBE (§3.8).
fn subscribe(version: Version, mut reader: Reader) -> Result<Subscribe, DecodeError> {
    let packet_id = reader.packet_id()?;
    let properties = properties(version, &mut reader, Allowed::SUBSCRIBE)?;
    let mut filters = Vec::new();
    while !reader.is_empty() {
        let path = reader.text("topic filter")?;
        let options = reader.byte()?;
        if filters.len() >= FILTERS_MAX || !filter::is_valid(&path) {
            return Err(DecodeError::Filter);
        }
        filters.push(subscription(version, path, options).ok_or(DecodeError::SubscribeOptions(options))?);
    }
    if filters.is_empty() {
        Err(DecodeError::Filter)
    } else {
        Ok(Subscribe { packet_id, filters, properties })
    }
}

/// One filter with its options (§3.8.3.1); in 3.1.1 they are its QoS alone.
fn subscription(version: Version, path: String, options: u8) -> Option<Filter> {
    let known = if version == Version::V5 { 0b0011_1111 } else { 0b11 };
    let qos = QoS::from_bits(options & 0b11).filter(|_| options & !known == 0)?;
    let retain_handling = match options >> 4 {
        0 => RetainHandling::Send,
        1 => RetainHandling::SendIfNew,
        2 => RetainHandling::DontSend,
        _ => return None,
    };
    let no_local = options & 0b100 != 0;
    if no_local && filter::is_shared(&path) {
        return None;
    }
    Some(Filter { path, qos, no_local, retain_as_published: options & 0b1000 != 0, retain_handling })
}

/// UNSUBSCRIBE (§3.10).
fn unsubscribe(version: Version, mut reader: Reader) -> Result<Unsubscribe, DecodeError> {
    let packet_id = reader.packet_id()?;
    let properties = properties(version, &mut reader, Allowed::UNSUBSCRIBE)?;
    let mut filters = Vec::new();
    while !reader.is_empty() {
        let path = reader.text("topic filter")?;
        if filters.len() >= FILTERS_MAX || !filter::is_valid(&path) {
            return Err(DecodeError::Filter);
        }
        filters.push(path);
    }
    if filters.is_empty() {
        Err(DecodeError::Filter)
    } else {
        Ok(Unsubscribe { packet_id, filters, properties })
    }
}

/// DISCONNECT (§3.14) and AUTH (§3.15).
fn disconnect(version: Version, allowed: Allowed, mut reader: Reader) -> Result<Disconnect, DecodeError> {
    let mut disconnect = Disconnect::new(Reason::SUCCESS);
    if version == Version::V5 && !reader.is_empty() {
        disconnect.reason = Reason(reader.byte()?);
        let codes: &[u8] = match reader.packet {
            "AUTH" => &[0, 0x18, 0x19],
            _ => &[0, 4, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99],
        };
        check_reason(disconnect.reason, codes, reader.packet)?;
        if !reader.is_empty() {
            disconnect.properties = Properties::read(&mut reader, allowed)?;
        }
    }
    reader.end()?;
    Ok(disconnect)
}

fn properties(version: Version, reader: &mut Reader, allowed: Allowed) -> Result<Properties, DecodeError> {
    match version {
        Version::V4 => Ok(Properties::default()),
        Version::V5 => Properties::read(reader, allowed),
    }
}

fn check_reason(reason: Reason, allowed: &[u8], packet: &'static str) -> Result<(), DecodeError> {
    if allowed.contains(&reason.0) { Ok(()) } else { Err(DecodeError::ReasonCode { code: reason.0, packet }) }
}

fn check_topic(what: &'static str, topic: &str) -> Result<(), DecodeError> {
    if topic.is_empty() || topic.contains(['+', '#']) { Err(DecodeError::Topic(what)) } else { Ok(()) }
}
