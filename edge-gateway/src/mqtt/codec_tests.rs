//! Each refusal has its bytes; random and mutated bytes never panic and never yield a packet that breaks a rule.

use bytes::Bytes;
use proptest::prelude::*;
use rumqttc::mqttbytes::v4::{Connect, LastWill, Publish, Subscribe, Unsubscribe};

use super::*;

const MAX: usize = 4096;

fn decode_all(bytes: &[u8]) -> Result<Option<Packet>, DecodeError> {
    decode(&mut BytesMut::from(bytes), MAX)
}

fn encode(packet: &Packet) -> Vec<u8> {
    let mut out = BytesMut::new();
    packet.write(&mut out, MAX).unwrap();
    out.to_vec()
}

/// A CONNECT with this level, these flags and this payload.
fn connect_bytes(name: &[u8], level: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![0, u8::try_from(name.len()).unwrap()];
    body.extend_from_slice(name);
    body.extend_from_slice(&[level, flags, 0, 30]);
    body.extend_from_slice(payload);
    let mut out = vec![0x10, u8::try_from(body.len()).unwrap()];
    out.extend_from_slice(&body);
    out
}

fn full_connect() -> Packet {
    let mut connect = Connect::new("client");
    connect.set_login("user", "secret");
    connect.last_will = Some(LastWill::new("vitals/v1/a/status", "gone", QoS::AtLeastOnce, true));
    Packet::Connect(connect)
}

fn publish(qos: QoS) -> Publish {
    let mut publish = Publish::new("vitals/v1/a/num/x", qos, *b"72");
    publish.pkid = u16::from(qos != QoS::AtMostOnce);
    publish
}

fn samples() -> Vec<Packet> {
    let mut subscribe = Subscribe::new("vitals/v1/a/#", QoS::AtLeastOnce);
    subscribe.pkid = 7;
    let mut unsubscribe = Unsubscribe::new("vitals/v1/+/x");
    unsubscribe.pkid = 8;
    vec![
        full_connect(),
        Packet::Publish(publish(QoS::AtMostOnce)),
        Packet::Publish(publish(QoS::AtLeastOnce)),
        Packet::Publish(publish(QoS::ExactlyOnce)),
        Packet::Subscribe(subscribe),
        Packet::Unsubscribe(unsubscribe),
        Packet::PingReq,
        Packet::Disconnect,
    ]
}

#[test]
fn what_a_client_sends_is_read_back_and_nothing_of_the_next_packet_is_taken() {
    for packet in samples() {
        let bytes = encode(&packet);
        for cut in 0..bytes.len() {
            assert_eq!(decode_all(&bytes[..cut]), Ok(None), "{packet:?} cut at {cut}");
        }
        let mut buf = BytesMut::from(&bytes[..]);
        buf.extend_from_slice(&[0xc0, 0x00]);
        assert_eq!(decode(&mut buf, MAX), Ok(Some(packet)));
        assert_eq!(&buf[..], [0xc0, 0x00]);
    }
}

#[test]
fn fixed_headers_are_refused_before_the_body_arrives() {
    let flags = |kind, flags| Err(DecodeError::Flags { kind, flags });
    assert_eq!(decode_all(&[0x00]), Err(DecodeError::Type(0)));
    assert_eq!(decode_all(&[0xf0]), Err(DecodeError::Type(15)));
    assert_eq!(decode_all(&[0x20, 2]), Err(DecodeError::Type(2)), "CONNACK");
    assert_eq!(decode_all(&[0x40, 2, 0, 1]), Err(DecodeError::Type(4)), "PUBACK");
    assert_eq!(decode_all(&[0x62, 2, 0, 1]), Err(DecodeError::Type(6)), "PUBREL");
    assert_eq!(decode_all(&[0x11]), flags(1, 1));
    assert_eq!(decode_all(&[0x36]), flags(3, 6), "QoS 3");
    assert_eq!(decode_all(&[0x38]), flags(3, 8), "DUP on QoS 0");
    assert_eq!(decode_all(&[0x80]), flags(8, 0));
    assert_eq!(decode_all(&[0xa0]), flags(10, 0));
    assert_eq!(decode_all(&[0xc1]), flags(12, 1));
    assert_eq!(decode_all(&[0xe8]), flags(14, 8));
    assert_eq!(decode_all(&[0x30, 0x80, 0x80, 0x80, 0x80]), Err(DecodeError::LengthField));
    assert_eq!(decode_all(&[0x30, 0x80, 0x80, 0x80]), Ok(None));
    assert_eq!(decode_all(&[0x30, 0x81, 0x20]), Err(DecodeError::TooLarge { len: MAX + 1, max: MAX }));
    assert_eq!(decode_all(&[0x30, 0x80, 0x20]), Ok(None), "exactly the bound");
    assert_eq!(decode_all(&[0xc0, 1, 0]), Err(DecodeError::Length("PINGREQ")));
    assert_eq!(decode_all(&[0xe0, 1, 0]), Err(DecodeError::Length("DISCONNECT")));
}

#[test]
fn connects_that_contradict_themselves_are_refused() {
    let id = b"\0\x01c";
    assert!(matches!(decode_all(&connect_bytes(b"MQTT", 4, 2, id)), Ok(Some(Packet::Connect(_)))));
    assert_eq!(decode_all(&connect_bytes(b"MQTT", 5, 2, id)), Err(DecodeError::ProtocolLevel(5)));
    assert_eq!(decode_all(&connect_bytes(b"MQTT", 0x84, 2, id)), Err(DecodeError::ProtocolLevel(0x84)));
    assert_eq!(decode_all(&connect_bytes(b"MQIsdp", 3, 2, id)), Err(DecodeError::ProtocolLevel(3)));
    assert_eq!(decode_all(&connect_bytes(b"HTTP", 4, 2, id)), Err(DecodeError::ProtocolName));
    for flags in [0x03, 0x0a, 0x22, 0x42, 0x1e] {
        assert_eq!(decode_all(&connect_bytes(b"MQTT", 4, flags, id)), Err(DecodeError::ConnectFlags(flags)));
    }
    assert_eq!(
        decode_all(&connect_bytes(b"MQTT", 4, 2, b"\0\x01c!")),
        Err(DecodeError::Length("CONNECT")),
        "trailing"
    );
    assert_eq!(
        decode_all(&connect_bytes(b"MQTT", 4, 2, b"\0\x02c")),
        Err(DecodeError::Length("CONNECT")),
        "short"
    );
    assert_eq!(
        decode_all(&connect_bytes(b"MQTT", 4, 0x82, id)),
        Err(DecodeError::Length("CONNECT")),
        "no user name"
    );
    assert_eq!(decode_all(&connect_bytes(b"MQTT", 4, 2, b"\0\x01\0")), Err(DecodeError::Nul("client id")));
    assert_eq!(
        decode_all(&connect_bytes(b"MQTT", 4, 6, b"\0\x01c\0\x01#\0\0")),
        Err(DecodeError::Topic("will topic"))
    );
    assert!(matches!(decode_all(&connect_bytes(b"MQTT", 4, 2, b"\0\x01\xff")), Err(DecodeError::Codec(_))));
}

#[test]
fn publishes_and_filters_that_break_a_rule_are_refused() {
    assert_eq!(decode_all(b"\x30\x02\0\0"), Err(DecodeError::Topic("topic")));
    assert_eq!(decode_all(b"\x30\x05\0\x03a/#"), Err(DecodeError::Topic("topic")));
    assert_eq!(decode_all(b"\x30\x05\0\x03a/+"), Err(DecodeError::Topic("topic")));
    assert_eq!(decode_all(b"\x30\x03\0\x01\0"), Err(DecodeError::Nul("topic")));
    assert!(matches!(decode_all(b"\x32\x05\0\x01a\0\0"), Err(DecodeError::Codec(_))), "packet id 0");
    assert!(matches!(decode_all(b"\x30\x00"), Err(DecodeError::Codec(_))));
    assert!(matches!(decode_all(b"\x30\x03\0\x09a"), Err(DecodeError::Codec(_))), "topic over the end");
    assert_eq!(decode_all(b"\x82\x06\0\0\0\x01a\0"), Err(DecodeError::PacketId));
    assert_eq!(decode_all(b"\x82\x06\0\x01\0\x01a\x04"), Err(DecodeError::RequestedQos(4)));
    assert_eq!(decode_all(b"\x82\x02\0\x01"), Err(DecodeError::Filter), "none");
    assert_eq!(decode_all(b"\x82\x05\0\x01\0\0\0"), Err(DecodeError::Filter), "empty");
    assert_eq!(decode_all(b"\x82\x07\0\x01\0\x02a#\0"), Err(DecodeError::Filter));
    assert_eq!(decode_all(b"\xa2\x02\0\x01"), Err(DecodeError::Filter), "none");
    assert_eq!(decode_all(b"\xa2\x05\0\0\0\x01a"), Err(DecodeError::PacketId));
    let many: Vec<u8> = [&b"\x82\xc2\x02\0\x01"[..], &b"\0\x02ab\0".repeat(64)].concat();
    assert!(matches!(decode_all(&many), Ok(Some(Packet::Subscribe(_)))));
    let too_many: Vec<u8> = [&b"\x82\xc7\x02\0\x01"[..], &b"\0\x02ab\0".repeat(65)].concat();
    assert_eq!(decode_all(&too_many), Err(DecodeError::Filter));
}

/// What this server sends, read by the codec's own reader.
#[test]
fn the_codec_writes_what_a_server_sends() {
    use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, PubAck, SubAck, SubscribeReasonCode, UnsubAck};
    let unsuback = UnsubAck::new(9);
    let packets = [
        (Packet::ConnAck(ConnAck::new(ConnectReturnCode::NotAuthorized, false)), &b"\x20\x02\0\x05"[..]),
        (Packet::PubAck(PubAck::new(258)), b"\x40\x02\x01\x02"),
        (Packet::SubAck(SubAck::new(1, vec![SubscribeReasonCode::Failure])), b"\x90\x03\0\x01\x80"),
        (Packet::UnsubAck(unsuback), b"\xb0\x02\0\x09"),
        (Packet::PingResp, b"\xd0\0"),
    ];
    for (packet, bytes) in packets {
        assert_eq!(encode(&packet), bytes);
        assert_eq!(Packet::read(&mut BytesMut::from(bytes), MAX).unwrap(), packet);
    }
}

/// Whatever comes out holds what the sections ask for.
fn assert_valid(packet: &Packet) {
    match packet {
        Packet::Publish(publish) => {
            assert!(!publish.topic.is_empty() && !publish.topic.contains(['\0', '+', '#']));
            assert!(publish.qos == QoS::AtMostOnce || publish.pkid != 0);
        }
        Packet::Subscribe(subscribe) => assert!(subscribe.pkid != 0 && !subscribe.filters.is_empty()),
        Packet::Unsubscribe(unsubscribe) => assert!(unsubscribe.pkid != 0 && !unsubscribe.topics.is_empty()),
        Packet::Connect(connect) => assert!(!connect.client_id.contains('\0')),
        Packet::PingReq | Packet::Disconnect => {}
        Packet::ConnAck(_)
        | Packet::PubAck(_)
        | Packet::PubRec(_)
        | Packet::PubRel(_)
        | Packet::PubComp(_)
        | Packet::SubAck(_)
        | Packet::UnsubAck(_)
        | Packet::PingResp => panic!("{packet:?} is not for a client to send"),
    }
}

/// Reads until the bytes are used up or refused; each step either takes bytes or stops.
fn drain(bytes: &[u8]) {
    let mut buf = BytesMut::from(bytes);
    loop {
        let before = buf.len();
        match decode(&mut buf, MAX) {
            Ok(Some(packet)) => {
                assert!(buf.len() < before);
                assert_valid(&packet);
            }
            Ok(None) => {
                assert_eq!(buf.len(), before);
                return;
            }
            Err(error) => {
                assert!(!error.label().is_empty());
                return;
            }
        }
    }
}

fn packet_bytes() -> impl Strategy<Value = Vec<u8>> {
    let topic = "[a-z/+#\\x00é]{0,12}";
    let packet = prop_oneof![
        (topic, prop::collection::vec(any::<u8>(), 0..64), 1..u16::MAX, 0..3u8).prop_map(
            |(topic, payload, pkid, qos)| {
                let qos = rumqttc::mqttbytes::qos(qos).unwrap();
                Packet::Publish(Publish {
                    dup: false,
                    qos,
                    retain: false,
                    topic,
                    pkid,
                    payload: Bytes::from(payload),
                })
            }
        ),
        prop::sample::select(samples()),
    ];
    packet.prop_map(|packet| encode(&packet))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        drain(&bytes);
    }

    /// A valid type with a length that fits, and noise behind it: the codec's inner readers are reached.
    #[test]
    fn framed_noise_never_panics(
        first in prop::sample::select(vec![0x10u8, 0x30, 0x31, 0x32, 0x3a, 0x34, 0x82, 0xa2, 0xc0, 0xe0]),
        body in prop::collection::vec(prop_oneof![Just(0u8), 0..8u8, any::<u8>()], 0..120),
    ) {
        let len = u8::try_from(body.len()).unwrap();
        drain(&[&[first, len][..], &body].concat());
    }

    /// The codec without our checks, over every type and flag: it returns an error or a packet, and never panics. Should a new
    /// version do so, this says that the checks have become the only guard.
    #[test]
    fn the_codec_alone_never_panics(
        first in any::<u8>(),
        body in prop::collection::vec(prop_oneof![Just(0u8), 0..8u8, any::<u8>()], 0..120),
    ) {
        let len = u8::try_from(body.len()).unwrap();
        let mut buf = BytesMut::from(&[&[first, len][..], &body].concat()[..]);
        if Packet::read(&mut buf, MAX).is_ok() {
            prop_assert!(buf.is_empty(), "one packet, all of it");
        }
    }

    #[test]
    fn mutated_packets_never_panic(
        packets in prop::collection::vec(packet_bytes(), 1..4),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = packets.concat();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        drain(&bytes);
    }

    /// How the bytes are cut into reads makes no difference.
    #[test]
    fn cuts_make_no_difference(packets in prop::collection::vec(packet_bytes(), 1..4), step in 1..40usize) {
        let bytes = packets.concat();
        let read = |chunks: Vec<&[u8]>| {
            let (mut buf, mut out) = (BytesMut::new(), Vec::new());
            for chunk in chunks {
                buf.extend_from_slice(chunk);
                loop {
                    match decode(&mut buf, MAX) {
                        Ok(Some(packet)) => out.push(Ok(packet)),
                        Ok(None) => break,
                        Err(error) => {
                            out.push(Err(error));
                            return out;
                        }
                    }
                }
            }
            out
        };
        prop_assert_eq!(read(vec![&bytes]), read(bytes.chunks(step).collect()));
    }
}
