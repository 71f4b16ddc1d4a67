//! How a conversation begins, and what ends it there.

use super::*;

#[test]
fn no_connect_in_time_closes() {
    let mut pair = Pair::new(Limits::default());
    assert_eq!(pair.conversation.next_deadline(), Some(T0 + CONNECT_TIMEOUT));
    assert_eq!(pair.tick(T0 + CONNECT_TIMEOUT - Duration::from_micros(1)), []);
    assert_eq!(pair.tick(T0 + CONNECT_TIMEOUT), [Action::Close(CloseReason::ConnectTimeout)]);
    assert_eq!(pair.tick(T0 + CONNECT_TIMEOUT), [], "closes once");
}

#[test]
fn packets_out_of_turn_close() {
    for packet in [publish(1), Packet::PingReq, disconnect()] {
        let mut pair = Pair::new(Limits::default());
        assert_eq!(pair.packet(packet, T0), [Action::Close(CloseReason::OutOfTurn)]);
    }
    for version in [Version::V4, Version::V5] {
        let up = || Pair::up(Limits::default(), connect(version, 60));
        up().closes(Packet::Connect(Box::new(connect(version, 60))), CloseReason::OutOfTurn);
        up().closes(Packet::Auth(Disconnect::new(Reason(0x18))), CloseReason::OutOfTurn);
        up().closes(disconnect(), CloseReason::Disconnect);
        for foreign in ["vitals/v1/b/num/x", "elsewhere", "gateway/v1/x"] {
            up().closes(Packet::Publish(publish_to(foreign, QoS::AtMostOnce, 0)), CloseReason::ForeignTopic);
        }
        let long = format!("vitals/v1/a/{}", "x".repeat(TOPIC_BYTES_MAX));
        up().closes(Packet::Publish(publish_to(&long, QoS::AtMostOnce, 0)), CloseReason::TopicTooLong);
    }
    let foreign = |qos| Packet::Publish(publish_to("vitals/v1/b/num/x", qos, 1));
    Pair::up(Limits::default(), connect(Version::V4, 60))
        .closes(foreign(QoS::AtLeastOnce), CloseReason::ForeignTopic);
    let mut pair = Pair::up(Limits::default(), connect(Version::V5, 60));
    assert_eq!(pair.packet(foreign(QoS::AtLeastOnce), T0), [puback(1, Reason::NOT_AUTHORIZED)]);
    assert_eq!(pair.packet(foreign(QoS::ExactlyOnce), T0), [pubrec(1, Reason::NOT_AUTHORIZED)]);
}

#[test]
fn refused_connects_are_told_why_in_their_own_protocol() {
    for (refusal, v4, v5) in [
        (ConnectRefusal::Anonymous, 5, 0x87),
        (ConnectRefusal::BadCredentials, 4, 0x86),
        (ConnectRefusal::Full, 3, 0x97),
        (ConnectRefusal::Certificate, 5, 0x87),
        (ConnectRefusal::ClientId, 2, 0x85),
    ] {
        for (version, code) in [(Version::V4, v4), (Version::V5, v5)] {
            let mut pair = Pair::new(Limits::default());
            pair.packet(Packet::Connect(Box::new(connect(version, 60))), T0);
            let actions = pair.collect(|c, hub, out| c.handle_admission(Err(refusal), T0, hub, out));
            let ack =
                ConnAck { session_present: false, reason: Reason(code), properties: Properties::default() };
            assert_eq!(
                actions,
                [Action::Send(Packet::ConnAck(ack)), Action::Close(CloseReason::ConnectRefused(refusal))]
            );
        }
    }
    let answer = |connect: Connect| {
        let mut pair = Pair::new(Limits::default());
        let actions = pair.packet(Packet::Connect(Box::new(connect)), T0);
        if let Some(Action::Send(Packet::ConnAck(ack))) = actions.first() {
            return Some(ack.reason);
        }
        assert!(matches!(actions[..], [Action::Admit(_)]), "{actions:?}");
        None
    };
    let named = |version, client_id: &str, clean_start| Connect {
        client_id: client_id.to_owned(),
        clean_start,
        ..connect(version, 60)
    };
    assert_eq!(answer(named(Version::V4, "", false)), Some(Reason(2)));
    assert_eq!(answer(named(Version::V5, "", false)), None, "5.0 assigns one");
    assert_eq!(answer(named(Version::V4, "", true)), None);
    let long = "x".repeat(CLIENT_ID_BYTES_MAX + 1);
    assert_eq!(answer(named(Version::V5, &long, true)), Some(Reason::CLIENT_IDENTIFIER_NOT_VALID));
    let mut enhanced = connect(Version::V5, 60);
    enhanced.properties.auth_method = Some("SCRAM".to_owned());
    assert_eq!(answer(enhanced), Some(Reason::BAD_AUTHENTICATION_METHOD));
    for topic in ["vitals/v1/b/status", "elsewhere", &format!("vitals/v1/a/{long}{long}")] {
        let mut pair = Pair::new(Limits::default());
        pair.packet(Packet::Connect(Box::new(with_will(Version::V5, topic))), T0);
        let actions = pair.collect(|c, hub, out| c.handle_admission(Ok((device("a"), 1)), T0, hub, out));
        assert_eq!(actions[1], Action::Close(CloseReason::ConnectRefused(ConnectRefusal::ForeignWill)));
        assert_eq!(pair.hub.connections(), 0);
    }
}

#[test]
fn connack_says_what_is_granted() {
    let granted = |connect: Connect, limits: Limits| Pair::up_with(limits, connect).1.properties;
    let mut asks = connect(Version::V5, 0);
    asks.client_id = String::new();
    asks.properties.session_expiry = Some(u32::MAX);
    let told = granted(asks.clone(), Limits::default());
    assert_eq!(told.assigned_client_id.as_deref(), Some("assigned-7"));
    assert_eq!(told.session_expiry, Some(u32::try_from(SESSION_EXPIRY_MAX.as_secs()).unwrap()));
    assert_eq!(told.server_keep_alive, Some(600));
    assert_eq!((told.receive_max, told.topic_alias_max), (Some(256), Some(TOPIC_ALIASES_MAX)));
    assert_eq!(told.packet_size_max, Some(256 * 1024));
    let told = granted(asks, Limits { keep_alive_s_max: 0, ..Limits::default() });
    assert_eq!(told.server_keep_alive, None, "none is allowed");
    let mut modest = connect(Version::V5, 600);
    modest.properties.session_expiry = Some(60);
    let told = granted(modest, Limits::default());
    assert_eq!(
        (told.server_keep_alive, told.session_expiry, told.assigned_client_id.clone()),
        (None, None, None)
    );
    assert_eq!(granted(connect(Version::V5, 601), Limits::default()).server_keep_alive, Some(600));
}

#[test]
fn other_protocol_levels_are_answered_and_other_noise_is_not() {
    let error = |pair: &mut Pair, error: DecodeError| {
        pair.collect(|c, hub, out| c.handle_decode_error(&error, T0, hub, out))
    };
    for (level, version, code) in [(3, Version::V4, 1), (6, Version::V5, 0x84)] {
        let mut pair = Pair::new(Limits::default());
        let actions = error(&mut pair, DecodeError::ProtocolLevel(level));
        assert!(
            matches!(&actions[0], Action::Send(Packet::ConnAck(ack)) if ack.reason == Reason(code)),
            "{actions:?}"
        );
        assert_eq!(pair.conversation.version(), version);
    }
    let malformed = Action::Close(CloseReason::Malformed("type", Reason::MALFORMED_PACKET));
    assert_eq!(
        error(&mut Pair::new(Limits::default()), DecodeError::Type(0)),
        std::slice::from_ref(&malformed)
    );
    let mut up = Pair::up(Limits::default(), connect(Version::V4, 60));
    assert_eq!(error(&mut up, DecodeError::Type(0)), std::slice::from_ref(&malformed));
    let mut up = Pair::up(Limits::default(), connect(Version::V5, 60));
    assert_eq!(error(&mut up, DecodeError::Type(0)), [told(Reason::MALFORMED_PACKET), malformed]);
}
