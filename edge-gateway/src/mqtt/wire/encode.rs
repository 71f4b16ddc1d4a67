//! From packets to bytes. What a server sends, and what a client sends as well, so that tests and fuzzers can go round.

use bytes::{BufMut, BytesMut};

use super::decode::kind;
use super::packet::{Ack, Connect, Disconnect, Filter, Packet, Publish, RetainHandling, SubAck, Version};
use super::properties::Properties;

/// Appends one packet. Strings and payloads of this server are far below the protocol's own bounds (65,535 bytes a field,
/// 268,435,455 a packet); a longer field would be cut off.
pub fn encode(packet: &Packet, version: Version, out: &mut BytesMut) {
    let short = match packet {
        Packet::PubAck(ack) => Some((kind::PUBACK << 4, ack)),
        Packet::PubRec(ack) => Some((kind::PUBREC << 4, ack)),
        Packet::PubRel(ack) => Some((kind::PUBREL << 4 | 2, ack)),
        Packet::PubComp(ack) => Some((kind::PUBCOMP << 4, ack)),
        Packet::Connect(_)
        | Packet::ConnAck(_)
        | Packet::Publish(_)
        | Packet::Subscribe(_)
        | Packet::SubAck(_)
        | Packet::Unsubscribe(_)
        | Packet::UnsubAck(_)
        | Packet::PingReq
        | Packet::PingResp
        | Packet::Disconnect(_)
        | Packet::Auth(_) => None,
    };
    if let Some((first, ack)) = short.filter(|(_, ack)| is_short(ack, version)) {
        return put_short(first, ack, out);
    }
    let mut body = BytesMut::new();
    let first = put_body(packet, version, &mut body);
    out.reserve(body.len() + 5);
    out.put_u8(first);
    put_variable(out, body.len());
    out.extend_from_slice(&body);
}

/// Bytes of the packet on the wire.
#[must_use]
pub fn encoded_len(packet: &Packet, version: Version) -> usize {
    let mut out = BytesMut::new();
    encode(packet, version, &mut out);
    out.len()
}

/// An acknowledgement of the packet identifier alone (§3.4.2.1).
fn is_short(ack: &Ack, version: Version) -> bool {
    version == Version::V4 || (ack.reason.0 == 0 && ack.properties.is_empty())
}

fn put_short(first: u8, ack: &Ack, out: &mut BytesMut) {
    out.extend_from_slice(&[first, 2]);
    out.put_u16(ack.packet_id.get());
}

/// Writes what follows the fixed header; returns its first byte.
fn put_body(packet: &Packet, version: Version, out: &mut BytesMut) -> u8 {
    let v5 = version == Version::V5;
    match packet {
        Packet::Connect(connect) => put_connect(connect, out),
        Packet::ConnAck(ack) => {
            out.extend_from_slice(&[u8::from(ack.session_present), ack.reason.0]);
            if v5 {
                ack.properties.write(out);
            }
            kind::CONNACK << 4
        }
        Packet::Publish(publish) => put_publish(publish, version, out),
        Packet::PubAck(ack) => put_ack(kind::PUBACK << 4, ack, out),
        Packet::PubRec(ack) => put_ack(kind::PUBREC << 4, ack, out),
        Packet::PubRel(ack) => put_ack(kind::PUBREL << 4 | 2, ack, out),
        Packet::PubComp(ack) => put_ack(kind::PUBCOMP << 4, ack, out),
        Packet::Subscribe(subscribe) => {
            put_id(subscribe.packet_id.get(), &subscribe.properties, v5, out);
            for filter in &subscribe.filters {
                put_binary(out, filter.path.as_bytes());
                out.put_u8(options(filter, v5));
            }
            kind::SUBSCRIBE << 4 | 2
        }
        Packet::Unsubscribe(unsubscribe) => {
            put_id(unsubscribe.packet_id.get(), &unsubscribe.properties, v5, out);
            for filter in &unsubscribe.filters {
                put_binary(out, filter.as_bytes());
            }
            kind::UNSUBSCRIBE << 4 | 2
        }
        Packet::SubAck(ack) => {
            put_codes(ack, v5, true, out);
            kind::SUBACK << 4
        }
        Packet::UnsubAck(ack) => {
            put_codes(ack, v5, v5, out);
            kind::UNSUBACK << 4
        }
        Packet::Disconnect(disconnect) => {
            put_disconnect(disconnect, v5, out);
            kind::DISCONNECT << 4
        }
        Packet::Auth(auth) => {
            put_disconnect(auth, true, out);
            kind::AUTH << 4
        }
        Packet::PingReq => kind::PINGREQ << 4,
        Packet::PingResp => kind::PINGRESP << 4,
    }
}

fn put_connect(connect: &Connect, out: &mut BytesMut) -> u8 {
    let v5 = connect.version == Version::V5;
    put_binary(out, b"MQTT");
    out.put_u8(if v5 { 5 } else { 4 });
    let will = connect.will.as_ref();
    let flags = u8::from(connect.clean_start) << 1
        | will.map_or(0, |will| 0x04 | will.qos.bits() << 3 | u8::from(will.retain) << 5)
        | u8::from(connect.password.is_some()) << 6
        | u8::from(connect.username.is_some()) << 7;
    out.put_u8(flags);
    out.put_u16(connect.keep_alive);
    if v5 {
        connect.properties.write(out);
    }
    put_binary(out, connect.client_id.as_bytes());
    if let Some(will) = will {
        if v5 {
            will.properties.write(out);
        }
        put_binary(out, will.topic.as_bytes());
        put_binary(out, &will.payload);
    }
    if let Some(username) = &connect.username {
        put_binary(out, username.as_bytes());
    }
    if let Some(password) = &connect.password {
        put_binary(out, password);
    }
    kind::CONNECT << 4
}

fn put_publish(publish: &Publish, version: Version, out: &mut BytesMut) -> u8 {
    out.reserve(publish.topic.len() + publish.payload.len() + 8);
    put_binary(out, publish.topic.as_bytes());
    if let Some(packet_id) = publish.packet_id {
        out.put_u16(packet_id.get());
    }
    if version == Version::V5 {
        publish.properties.write(out);
    }
    out.extend_from_slice(&publish.payload);
    kind::PUBLISH << 4 | u8::from(publish.dup) << 3 | publish.qos.bits() << 1 | u8::from(publish.retain)
}

fn put_ack(first: u8, ack: &Ack, out: &mut BytesMut) -> u8 {
    out.put_u16(ack.packet_id.get());
    out.put_u8(ack.reason.0);
    ack.properties.write(out);
    first
}

fn put_id(packet_id: u16, properties: &Properties, v5: bool, out: &mut BytesMut) {
    out.put_u16(packet_id);
    if v5 {
        properties.write(out);
    }
}

fn put_codes(ack: &SubAck, v5: bool, codes: bool, out: &mut BytesMut) {
    put_id(ack.packet_id.get(), &Properties::default(), v5, out);
    if codes {
        out.extend(ack.reasons.iter().map(|reason| reason.0));
    }
}

fn put_disconnect(disconnect: &Disconnect, v5: bool, out: &mut BytesMut) {
    let plain = disconnect.reason.0 == 0 && disconnect.properties.is_empty();
    if v5 && !plain {
        out.put_u8(disconnect.reason.0);
        disconnect.properties.write(out);
    }
}

fn options(filter: &Filter, v5: bool) -> u8 {
    if !v5 {
        return filter.qos.bits();
    }
    let handling = match filter.retain_handling {
        RetainHandling::Send => 0,
        RetainHandling::SendIfNew => 1,
        RetainHandling::DontSend => 2,
    };
    filter.qos.bits()
        | u8::from(filter.no_local) << 2
        | u8::from(filter.retain_as_published) << 3
        | handling << 4
}

/// Two bytes of length and the bytes (§1.5.4, §1.5.6).
pub(super) fn put_binary(out: &mut BytesMut, bytes: &[u8]) {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.put_u16(len);
    out.extend_from_slice(&bytes[..usize::from(len)]);
}

/// A variable byte integer (§1.5.5).
pub(super) fn put_variable(out: &mut BytesMut, value: usize) {
    let mut left = value.min(0x0fff_ffff);
    loop {
        let low = u8::try_from(left & 0x7f).unwrap_or(0x7f);
        left >>= 7;
        if left == 0 {
            return out.put_u8(low);
        }
        out.put_u8(low | 0x80);
    }
}

/// Its length: 1 to 4.
pub(super) fn variable_len(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}
