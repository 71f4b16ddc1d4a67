//! Each refusal has its bytes; every packet goes round; rumqttc's codec reads what is written; random and mutated bytes never panic.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use rumqttc::v5::mqttbytes::v5 as peer;

use super::*;

const MAX: usize = 4096;

fn decode_all(version: Version, bytes: &[u8]) -> Result<Option<Packet>, DecodeError> {
    decode(&mut BytesMut::from(bytes), version, MAX)
}

fn v4(bytes: &[u8]) -> Result<Option<Packet>, DecodeError> {
    decode_all(Version::V4, bytes)
}

fn v5(bytes: &[u8]) -> Result<Option<Packet>, DecodeError> {
    decode_all(Version::V5, bytes)
}

fn bytes_of(packet: &Packet, version: Version) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode(packet, version, &mut out);
    assert_eq!(out.len(), encoded_len(packet, version));
    out.to_vec()
}

fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

/// A CONNECT with this level, these flags and what follows the keep-alive.
fn connect_bytes(name: &[u8], level: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
    let mut body = vec![0, u8::try_from(name.len()).unwrap()];
    body.extend_from_slice(name);
    body.extend_from_slice(&[level, flags, 0, 30]);
    body.extend_from_slice(rest);
    let mut out = vec![0x10, u8::try_from(body.len()).unwrap()];
    out.extend_from_slice(&body);
    out
}

#[test]
fn fixed_headers_are_refused_before_the_body_arrives() {
    let flags = |kind, flags| Err(DecodeError::Flags { kind, flags });
    for version in [Version::V4, Version::V5] {
        let decode_all = |bytes: &[u8]| decode_all(version, bytes);
        for kind in [0, 2, 9, 11, 13] {
            assert_eq!(decode_all(&[kind << 4, 2]), Err(DecodeError::Type(kind)));
        }
        for (kind, bits) in
            [(1, 1), (3, 6), (3, 8), (4, 2), (6, 0), (7, 2), (8, 0), (10, 0), (12, 1), (14, 8)]
        {
            assert_eq!(decode_all(&[kind << 4 | bits]), flags(kind, bits));
        }
        assert_eq!(decode_all(&[0x30, 0x80, 0x80, 0x80, 0x80]), Err(DecodeError::LengthField));
        assert_eq!(decode_all(&[0x30, 0x80, 0x80, 0x80]), Ok(None));
        assert_eq!(decode_all(&[0x30, 0x81, 0x20]), Err(DecodeError::TooLarge { len: MAX + 1, max: MAX }));
        assert_eq!(decode_all(&[0x30, 0x80, 0x20]), Ok(None), "exactly the bound");
        assert_eq!(decode_all(&[0xc0, 1, 0]), Err(DecodeError::Length("PINGREQ")));
    }
    assert_eq!(v4(&[0xf0]), Err(DecodeError::Type(15)), "AUTH is of 5.0");
    assert_eq!(v4(&[0xe0, 1, 0]), Err(DecodeError::Length("DISCONNECT")));
}

#[test]
fn connects_that_contradict_themselves_are_refused() {
    let client = b"\0\x01c";
    for (level, rest) in [(4, &b"\0\x01c"[..]), (5, b"\0\0\x01c")] {
        let read = v4(&connect_bytes(b"MQTT", level, 2, rest));
        assert!(matches!(read, Ok(Some(Packet::Connect(_)))), "{read:?}");
    }
    assert_eq!(v4(&connect_bytes(b"MQTT", 6, 2, client)), Err(DecodeError::ProtocolLevel(6)));
    assert_eq!(v4(&connect_bytes(b"MQIsdp", 3, 2, client)), Err(DecodeError::ProtocolLevel(3)));
    assert_eq!(v4(&connect_bytes(b"HTTP", 4, 2, client)), Err(DecodeError::ProtocolName));
    for flags in [0x03, 0x0a, 0x22, 0x42, 0x1e] {
        assert_eq!(v4(&connect_bytes(b"MQTT", 4, flags, client)), Err(DecodeError::ConnectFlags(flags)));
    }
    let password_alone = v4(&connect_bytes(b"MQTT", 5, 0x42, b"\0\0\x01c\0\x01\xff"));
    assert!(matches!(password_alone, Ok(Some(Packet::Connect(_)))), "allowed in 5.0: {password_alone:?}");
    for (rest, error) in [
        (&b"\0\x01c!"[..], DecodeError::Length("CONNECT")),
        (b"\0\x02c", DecodeError::Length("CONNECT")),
        (b"\0\x01\0", DecodeError::Text("client id")),
        (b"\0\x01\xff", DecodeError::Text("client id")),
    ] {
        assert_eq!(v4(&connect_bytes(b"MQTT", 4, 2, rest)), Err(error));
    }
    let wildcard = v4(&connect_bytes(b"MQTT", 4, 6, b"\0\x01c\0\x01#\0\0"));
    assert_eq!(wildcard, Err(DecodeError::Topic("will topic")));
}

#[test]
fn publishes_and_filters_that_break_a_rule_are_refused() {
    for bytes in [&b"\x30\x02\0\0"[..], b"\x30\x05\0\x03a/#", b"\x30\x05\0\x03a/+"] {
        assert_eq!(v4(bytes), Err(DecodeError::Topic("topic")));
    }
    assert_eq!(v4(b"\x30\x03\0\x01\0"), Err(DecodeError::Text("topic")));
    assert_eq!(v4(b"\x32\x05\0\x01a\0\0"), Err(DecodeError::PacketId));
    assert_eq!(v4(b"\x30\0"), Err(DecodeError::Length("PUBLISH")));
    assert_eq!(v5(b"\x30\x03\0\0\0"), Err(DecodeError::Topic("topic")), "no alias");
    assert!(matches!(v5(b"\x30\x06\0\0\x03\x23\0\x01"), Ok(Some(Packet::Publish(_)))), "an alias");
    assert_eq!(v4(b"\x82\x02\0\x01"), Err(DecodeError::Filter), "no filter");
    assert_eq!(v4(b"\x82\x07\0\x01\0\x02a#\0"), Err(DecodeError::Filter));
    assert_eq!(v4(b"\x82\x06\0\x01\0\x01a\x03"), Err(DecodeError::SubscribeOptions(3)));
    assert_eq!(v4(b"\x82\x06\0\x01\0\x01a\x04"), Err(DecodeError::SubscribeOptions(4)), "No Local is of 5.0");
    assert_eq!(v5(b"\x82\x07\0\x01\0\0\x01a\x30"), Err(DecodeError::SubscribeOptions(0x30)));
    assert_eq!(v5(b"\x82\x07\0\x01\0\0\x01a\x40"), Err(DecodeError::SubscribeOptions(0x40)));
    assert_eq!(v5(b"\x82\x10\0\x01\0\0\x0a$share/g/a\x04"), Err(DecodeError::SubscribeOptions(4)));
    assert_eq!(v4(b"\x82\x06\0\0\0\x01a\0"), Err(DecodeError::PacketId));
    assert_eq!(v4(b"\xa2\x02\0\x01"), Err(DecodeError::Filter));
}

#[test]
fn properties_have_their_place_their_number_and_their_values() {
    let publish = |properties: &[u8]| {
        let len = u8::try_from(properties.len()).unwrap();
        let mut bytes = vec![0x30, 4 + len, 0, 1, b'a', len];
        bytes.extend_from_slice(properties);
        v5(&bytes)
    };
    let property = |id| Err(DecodeError::Property { id, packet: "PUBLISH" });
    assert_eq!(publish(&[0]), property(0));
    assert_eq!(publish(&[0x11, 0, 0, 0, 1]), property(17), "Session Expiry Interval");
    assert_eq!(publish(&[11, 1]), property(11), "MQTT-3.3.4-6");
    assert_eq!(publish(&[0x80, 1]), property(128));
    assert_eq!(publish(&[1, 1, 1, 1]), Err(DecodeError::PropertyTwice(1)));
    assert_eq!(publish(&[1, 2]), Err(DecodeError::PropertyValue(1)));
    assert_eq!(publish(&[0x23, 0, 0]), Err(DecodeError::PropertyValue(35)));
    assert_eq!(publish(&[8, 0, 1, b'#']), Err(DecodeError::Topic("response topic")));
    assert_eq!(publish(&[3, 0, 2, b'x']), Err(DecodeError::Length("PUBLISH")));
    let user: Vec<u8> = [0x26, 0, 1, b'k', 0, 1, b'v'].repeat(USER_PROPERTIES_MAX + 1)[7..].to_vec();
    assert_eq!(user.len() / 7, USER_PROPERTIES_MAX);
    let mut bytes = vec![0x30, 0xff, 0x7f, 0, 1, b'a', 0, 0];
    bytes[6] = u8::try_from((user.len() + 7) & 0x7f).unwrap() | 0x80;
    bytes[7] = u8::try_from((user.len() + 7) >> 7).unwrap();
    bytes.extend_from_slice(&user);
    bytes.extend_from_slice(&user[..7]);
    let len = bytes.len() - 3;
    bytes[1] = u8::try_from(len & 0x7f).unwrap() | 0x80;
    bytes[2] = u8::try_from(len >> 7).unwrap();
    assert_eq!(v5(&bytes), Err(DecodeError::PropertyTwice(38)), "one too many");
    assert_eq!(v5(b"\x30\x05\0\x01a\x80\0"), Err(DecodeError::LengthField), "longer than it must be");
    assert_eq!(v5(b"\x82\x08\0\x01\x02\x0b\0\0\x01a"), Err(DecodeError::PropertyValue(11)));
    assert_eq!(v5(b"\x40\x03\0\x01\x92"), Err(DecodeError::ReasonCode { code: 0x92, packet: "PUBACK" }));
    assert_eq!(v5(b"\x62\x03\0\x01\x10"), Err(DecodeError::ReasonCode { code: 0x10, packet: "PUBREL" }));
    assert_eq!(v5(b"\xe0\x01\x8e"), Err(DecodeError::ReasonCode { code: 0x8e, packet: "DISCONNECT" }));
    assert!(matches!(v5(b"\xe0\0"), Ok(Some(Packet::Disconnect(_)))));
    assert!(matches!(v5(b"\xe0\x07\x04\x05\x11\0\0\0\x01"), Ok(Some(Packet::Disconnect(_)))));
}

#[test]
fn every_refusal_has_a_label_and_a_reason() {
    for error in [
        DecodeError::Type(0),
        DecodeError::TooLarge { len: 2, max: 1 },
        DecodeError::PropertyTwice(1),
        DecodeError::Topic("topic"),
        DecodeError::Filter,
    ] {
        assert!(error.reason().is_failure() && !error.label().is_empty() && !error.to_string().is_empty());
    }
}

/// What a server writes, rumqttc's reader of MQTT 5.0 reads.
#[test]
fn another_codec_reads_what_the_server_writes() {
    let read = |packet: &Packet| {
        let mut bytes = BytesMut::from(&bytes_of(packet, Version::V5)[..]);
        let packet = peer::Packet::read(&mut bytes, Some(1 << 20)).unwrap();
        assert!(bytes.is_empty());
        packet
    };
    let mut properties = Properties::default();
    properties.assigned_client_id = Some("given".to_owned());
    properties.server_keep_alive = Some(600);
    properties.receive_max = Some(256);
    properties.topic_alias_max = Some(16);
    properties.packet_size_max = Some(1000);
    properties.session_expiry = Some(60);
    let ack = Packet::ConnAck(ConnAck { session_present: true, reason: Reason::SUCCESS, properties });
    let peer::Packet::ConnAck(ack) = read(&ack) else { panic!("not a CONNACK") };
    let told = ack.properties.unwrap();
    assert!(ack.session_present && told.assigned_client_identifier.as_deref() == Some("given"));
    assert_eq!(
        (told.server_keep_alive, told.receive_max, told.max_packet_size),
        (Some(600), Some(256), Some(1000))
    );

    let mut properties = Properties::default();
    properties.payload_is_text = Some(true);
    properties.message_expiry = Some(9);
    properties.content_type = Some("text/plain".to_owned());
    properties.response_topic = Some("r".to_owned());
    properties.correlation_data = Some(Bytes::from_static(b"\0\xff"));
    properties.subscription_ids = vec![1, 300, 0x0fff_ffff];
    properties.topic_alias = Some(3);
    properties.user = vec![("k".to_owned(), "v".to_owned()), ("k".to_owned(), "w".to_owned())];
    let publish = Publish {
        dup: true,
        qos: QoS::ExactlyOnce,
        retain: true,
        topic: "t".to_owned(),
        packet_id: Some(id(77)),
        payload: Bytes::from_static(b"72"),
        properties,
    };
    let peer::Packet::Publish(publish) = read(&Packet::Publish(publish)) else { panic!("not a PUBLISH") };
    let told = publish.properties.unwrap();
    assert!(publish.dup && publish.retain && publish.pkid == 77 && &publish.payload[..] == b"72");
    assert_eq!(told.subscription_identifiers, [1, 300, 0x0fff_ffff]);
    assert_eq!(
        (told.topic_alias, told.user_properties.len(), told.message_expiry_interval),
        (Some(3), 2, Some(9))
    );

    let refused = Packet::PubAck(Ack::new(id(5), Reason::QUOTA_EXCEEDED));
    assert!(
        matches!(read(&refused), peer::Packet::PubAck(ack) if ack.reason == peer::PubAckReason::QuotaExceeded)
    );
    let suback =
        Packet::SubAck(SubAck { packet_id: id(5), reasons: vec![Reason(2), Reason::NOT_AUTHORIZED] });
    assert!(matches!(read(&suback), peer::Packet::SubAck(ack) if ack.return_codes.len() == 2));
    let disconnect = Packet::Disconnect(Disconnect::new(Reason::SESSION_TAKEN_OVER));
    assert!(matches!(read(&disconnect), peer::Packet::Disconnect(told)
        if told.reason_code == peer::DisconnectReasonCode::SessionTakenOver));
    assert_eq!(
        bytes_of(&Packet::UnsubAck(SubAck { packet_id: id(5), reasons: vec![Reason(0)] }), Version::V4),
        [0xb0, 2, 0, 5]
    );
}

fn text() -> impl Strategy<Value = String> {
    "[a-z/é]{1,12}"
}

fn properties(with: fn(&mut Fields)) -> impl Strategy<Value = Properties> {
    (any::<bool>(), prop::collection::vec((text(), text()), 0..3)).prop_map(move |(some, user)| {
        let mut properties = Properties::default();
        if some {
            with(&mut properties);
            properties.user = user;
        }
        properties
    })
}

fn message_properties() -> impl Strategy<Value = Properties> {
    properties(|fields| {
        fields.payload_is_text = Some(false);
        fields.message_expiry = Some(70_000);
        fields.content_type = Some("a/b".to_owned());
        fields.response_topic = Some("r/s".to_owned());
        fields.correlation_data = Some(Bytes::from_static(b"c"));
    })
}

fn qos() -> impl Strategy<Value = QoS> {
    prop::sample::select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(id)
}

fn payload() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn connect() -> impl Strategy<Value = Packet> {
    let settings = properties(|fields| {
        fields.session_expiry = Some(u32::MAX);
        fields.receive_max = Some(1);
        fields.packet_size_max = Some(99);
        fields.topic_alias_max = Some(0);
        fields.request_problem_information = Some(true);
        fields.request_response_information = Some(false);
        fields.auth_method = Some("x".to_owned());
        fields.auth_data = Some(Bytes::from_static(b"y"));
    });
    let will = (text(), payload(), qos(), any::<bool>(), message_properties()).prop_map(
        |(topic, payload, qos, retain, mut properties)| {
            properties.will_delay = Some(5);
            Will { topic, payload, qos, retain, properties }
        },
    );
    let login = (prop::option::of(text()), prop::option::of(payload()));
    (any::<bool>(), any::<u16>(), text(), prop::option::of(will), login, settings).prop_map(
        |(clean_start, keep_alive, client_id, will, (username, password), properties)| {
            let version = Version::V5;
            Packet::Connect(Box::new(Connect {
                version,
                clean_start,
                keep_alive,
                client_id,
                will,
                username,
                password,
                properties,
            }))
        },
    )
}

fn publish() -> impl Strategy<Value = Packet> {
    (any::<bool>(), qos(), any::<bool>(), text(), packet_id(), payload(), message_properties()).prop_map(
        |(dup, qos, retain, topic, packet_id, payload, mut properties)| {
            properties.topic_alias = Some(7);
            let packet_id = Some(packet_id).filter(|_| qos != QoS::AtMostOnce);
            Packet::Publish(Publish {
                dup: dup && packet_id.is_some(),
                qos,
                retain,
                topic,
                packet_id,
                payload,
                properties,
            })
        },
    )
}

fn other() -> impl Strategy<Value = Packet> {
    let ack_properties = properties(|fields| fields.reason_string = Some("why".to_owned()));
    let handling =
        prop::sample::select(vec![RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DontSend]);
    let filter = (text(), qos(), any::<bool>(), any::<bool>(), handling).prop_map(
        |(path, qos, no_local, retain_as_published, retain_handling)| Filter {
            path,
            qos,
            no_local,
            retain_as_published,
            retain_handling,
        },
    );
    let subscribe = (
        packet_id(),
        prop::collection::vec(filter, 1..4),
        properties(|fields| fields.subscription_ids = vec![9]),
    )
        .prop_map(|(packet_id, filters, properties)| {
            Packet::Subscribe(Subscribe { packet_id, filters, properties })
        });
    let unsubscribe = (packet_id(), prop::collection::vec(text(), 1..4), properties(|_| {})).prop_map(
        |(packet_id, filters, properties)| {
            Packet::Unsubscribe(Unsubscribe { packet_id, filters, properties })
        },
    );
    let ack = (packet_id(), ack_properties, 0..4u8).prop_map(|(packet_id, properties, kind)| {
        let ack = |reason| Ack { packet_id, reason, properties: properties.clone() };
        match kind {
            0 => Packet::PubAck(ack(Reason::QUOTA_EXCEEDED)),
            1 => Packet::PubRec(ack(Reason::SUCCESS)),
            2 => Packet::PubRel(ack(Reason::PACKET_IDENTIFIER_NOT_FOUND)),
            _ => Packet::PubComp(ack(Reason::SUCCESS)),
        }
    });
    let disconnect = properties(|fields| fields.session_expiry = Some(3)).prop_map(|properties| {
        Packet::Disconnect(Disconnect { reason: Reason::DISCONNECT_WITH_WILL, properties })
    });
    prop_oneof![subscribe, unsubscribe, ack, disconnect, Just(Packet::PingReq)]
}

proptest! {
    #[test]
    fn every_packet_of_a_client_goes_round_and_nothing_behind_it_is_taken(
        packet in prop_oneof![connect(), publish(), other()],
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = bytes_of(&packet, Version::V5);
        prop_assert_eq!(v5(&bytes[..cut.index(bytes.len())]), Ok(None));
        let mut buf = BytesMut::from(&bytes[..]);
        buf.extend_from_slice(&[0xc0, 0]);
        prop_assert_eq!(decode(&mut buf, Version::V5, MAX), Ok(Some(packet)));
        prop_assert_eq!(&buf[..], &[0xc0, 0][..]);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), five in any::<bool>()) {
        let version = if five { Version::V5 } else { Version::V4 };
        if let Ok(Some(packet)) = decode_all(version, &bytes) {
            let version = if let Packet::Connect(connect) = &packet { connect.version } else { version };
            prop_assert_eq!(decode_all(version, &bytes_of(&packet, version)), Ok(Some(packet)));
        }
    }

    #[test]
    fn a_changed_byte_is_read_or_refused(
        packet in prop_oneof![connect(), publish(), other()],
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = bytes_of(&packet, Version::V5);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(Some(packet)) = v5(&bytes) {
            let version = if let Packet::Connect(connect) = &packet { connect.version } else { Version::V5 };
            prop_assert_eq!(decode_all(version, &bytes_of(&packet, version)), Ok(Some(packet)));
        }
    }
}
