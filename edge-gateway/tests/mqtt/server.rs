//! The embedded server against rumqttc's client and bare sockets.

use std::time::Duration;

use caregate_host::clock;
use edge_gateway::ingest::{Fault, Verdict};
use edge_gateway::mqtt::limits::{CONNECTIONS_PER_DEVICE, HANDSHAKES_MAX, Limits};
use edge_gateway::mqtt::metrics::ServerMetrics;
use rumqttc::{LastWill, Packet, QoS, SubscribeReasonCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::mqtt_support::{Client, Door, Raw, SECRET, connect, device, encode, options, publish, within};

const TOPIC: &str = "vitals/v1/a/num/heart-rate";

#[tokio::test]
async fn qos_0_and_1_arrive_as_sent_and_qos_1_is_acknowledged() {
    let mut door = Door::open(Limits::default()).await;
    let mut client = Client::up(options(&door, "a", "one")).await;
    client.client.publish(TOPIC, QoS::AtMostOnce, false, "71").await.unwrap();
    client.client.publish(TOPIC, QoS::AtLeastOnce, true, "72").await.unwrap();
    for payload in ["71", "72"] {
        let inbound = door.next().await;
        assert_eq!(
            (inbound.device, &inbound.topic[..], &inbound.payload[..]),
            (device("a"), TOPIC, payload.as_bytes())
        );
        assert!(inbound.received_us > 1_700_000_000_000_000, "Unix time in microseconds");
        inbound.verdict.send(Verdict::Stored).unwrap();
    }
    assert_eq!(client.puback().await, 1);
    client.client.disconnect().await.unwrap();
    door.closed("disconnect", 1).await;
    let stored = |metrics: &ServerMetrics| metrics.publishes.with_label_values(&["stored"]).get();
    door.counted("stored", 2, stored).await;
}

#[tokio::test]
async fn strangers_who_hold_sockets_open_keep_nobody_out() {
    let door = Door::open(Limits::default()).await;
    let mut strangers = Vec::new();
    for _ in 0..HANDSHAKES_MAX {
        strangers.push(Raw::open(door.address).await);
    }
    // The first is let go for the sensor, the second for another stranger.
    drop(Client::up(options(&door, "a", "one")).await);
    assert!(strangers[0].rest().await.is_empty());
    door.closed("made-room", 1).await;
    strangers.push(Raw::open(door.address).await);
    strangers.push(Raw::open(door.address).await);
    assert!(strangers[1].rest().await.is_empty());
    door.closed("made-room", 2).await;
    // Nor do such that were refused and don't close.
    for stranger in &mut strangers[2..] {
        stranger.send(&[0xff; 5]).await;
    }
    drop(Client::up(options(&door, "b", "two")).await);
}

/// CONNECT of MQTT 5.0 with Maximum Packet Size.
fn connect_taking(bytes: u8) -> Vec<u8> {
    let text = |text: &str| [&[0, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let properties = [5, 0x27, 0, 0, 0, bytes];
    let head = [0, 4, b'M', b'Q', b'T', b'T', 5, 0xc2, 0, 30];
    let body = [&head[..], &properties, &text("small"), &text("user-a"), &text(SECRET)].concat();
    [&[0x10, u8::try_from(body.len()).unwrap()], &body[..]].concat()
}

#[tokio::test]
async fn no_answer_is_longer_than_the_client_takes() {
    let door = Door::open(Limits::default()).await;
    // All that is granted has 16 bytes; without topic aliases 13.
    let mut whole = Raw::open(door.address).await;
    whole.send(&connect_taking(16)).await;
    let ack = whole.receive(16).await;
    assert_eq!((ack[0], ack[1], ack[3], ack[4]), (0x20, 14, 0, 11), "{ack:?}");
    let mut shorter = Raw::open(door.address).await;
    shorter.send(&connect_taking(15)).await;
    let ack = shorter.receive(13).await;
    assert_eq!((ack[0], ack[1], ack[3], ack[4]), (0x20, 11, 0, 8), "{ack:?}");
    // A SUBACK of eleven codes has 16 bytes: within 15 it can't be said, and the client is told why.
    let filter = [&[0, 12], &b"local/v1/a/#"[..], &[0]].concat();
    let body = [&[0, 7, 0][..], &filter.repeat(11)].concat();
    shorter.send(&[&[0x82, u8::try_from(body.len()).unwrap() | 0x80, 1], &body[..]].concat()).await;
    assert_eq!(shorter.rest().await, [0xe0, 2, 0x95, 0], "packet too large");
    door.closed("answer-too-large", 1).await;
    // Who takes less than any CONNACK is told nothing.
    let mut none = Raw::open(door.address).await;
    none.send(&connect_taking(4)).await;
    assert!(none.rest().await.is_empty());
    door.closed("connack-too-large", 1).await;
}

#[tokio::test]
async fn no_puback_before_the_verdict_and_then_in_the_order_of_receipt() {
    let mut door = Door::open(Limits::default()).await;
    let mut client = Client::up(options(&door, "a", "one")).await;
    let mut inbounds = Vec::new();
    for value in 0..20 {
        client.client.publish(TOPIC, QoS::AtLeastOnce, false, value.to_string()).await.unwrap();
        inbounds.push(door.next().await);
    }
    // All but the first are stored, the last ones first: still nothing may be acknowledged.
    let first = inbounds.remove(0);
    for inbound in inbounds.into_iter().rev() {
        inbound.verdict.send(Verdict::Stored).unwrap();
    }
    // The server handles a connection's packets in order: had it sent a PUBACK, it would be here before this SUBACK.
    client.client.subscribe("local/v1/a/#", QoS::AtMostOnce).await.unwrap();
    match client.event().await {
        Ok(Packet::SubAck(suback)) => {
            assert_eq!(suback.return_codes, [SubscribeReasonCode::Success(QoS::AtMostOnce)]);
        }
        other => panic!("expected SUBACK, got {other:?}"),
    }
    client.assert_silent();
    first.verdict.send(Verdict::Quarantined(Fault::Payload)).unwrap();
    for packet_id in 1..=20 {
        assert_eq!(client.puback().await, packet_id);
    }
}

#[tokio::test]
async fn a_refused_publish_gets_no_puback_and_ends_the_connection() {
    let mut door = Door::open(Limits::default()).await;
    let mut client = Client::up(options(&door, "a", "one")).await;
    let mut inbounds = Vec::new();
    for _ in 0..3 {
        client.client.publish(TOPIC, QoS::AtLeastOnce, false, "72").await.unwrap();
        inbounds.push(door.next().await);
    }
    for (inbound, verdict) in inbounds.into_iter().zip([Verdict::Stored, Verdict::Refused, Verdict::Stored]) {
        inbound.verdict.send(verdict).unwrap();
    }
    assert_eq!(client.puback().await, 1);
    assert_eq!(client.puback().await, 3, "2 is withheld");
    client.ended().await;
    door.closed("refused", 1).await;
}

#[tokio::test]
async fn wrong_and_missing_credentials_are_refused_by_their_codes() {
    let door = Door::open(Limits::default()).await;
    let answer = async |bytes: &[u8]| {
        let mut raw = Raw::open(door.address).await;
        raw.send(bytes).await;
        raw.rest().await
    };
    assert_eq!(answer(&connect("c", "user-a", "wrong", 30)).await, [0x20, 2, 0, 4]);
    assert_eq!(answer(&connect("c", "nobody", SECRET, 30)).await, [0x20, 2, 0, 4]);
    assert_eq!(answer(b"\x10\x0d\0\x04MQTT\x04\x02\0\x1e\0\x01c").await, [0x20, 2, 0, 5], "anonymous");
    assert_eq!(answer(b"\x10\x0e\0\x04MQTT\x05\x02\0\x1e\0\0\x01c").await, [0x20, 3, 0, 0x87, 0], "MQTT 5");
    assert_eq!(answer(b"\x10\x0e\0\x04MQTT\x06\x02\0\x1e\0\0\x01c").await, [0x20, 3, 0, 0x84, 0], "MQTT 6");
    assert_eq!(answer(b"\x10\x0f\0\x06MQIsdp\x03\x02\0\x1e\0\x01c").await, [0x20, 2, 0, 1], "MQTT 3.1");
    assert_eq!(
        answer(b"\x10\x0c\0\x04MQTT\x04\0\0\x1e\0\0").await,
        [0x20, 2, 0, 2],
        "no id, no clean session"
    );
    door.refused("bad-credentials", 2).await;
    door.refused("anonymous", 2).await;
    door.refused("protocol-level", 2).await;
    door.refused("client-id", 1).await;
}

#[tokio::test]
async fn another_devices_topic_ends_the_connection() {
    let mut door = Door::open(Limits::default()).await;
    let mut client = Client::up(options(&door, "a", "one")).await;
    client.client.publish("vitals/v1/b/num/heart-rate", QoS::AtLeastOnce, false, "72").await.unwrap();
    client.ended().await;
    door.closed("foreign-topic", 1).await;
    assert!(door.inbound.try_recv().is_err(), "nothing reached the pipeline");
}

#[tokio::test]
async fn qos_2_is_received_when_stored_and_a_repetition_is_answered_without_it() {
    let mut door = Door::open(Limits::default()).await;
    let mut raw = Raw::open(door.address).await;
    let mut connect = rumqttc::mqttbytes::v4::Connect::new("kept");
    connect.set_login("user-a", SECRET);
    connect.clean_session = false;
    let connect = encode(&Packet::Connect(connect));
    raw.send(&connect).await;
    assert_eq!(raw.receive(4).await, [0x20, 2, 0, 0]);
    let mut publish = rumqttc::Publish::new(TOPIC, QoS::ExactlyOnce, *b"72");
    publish.pkid = 9;
    let bytes = encode(&Packet::Publish(publish.clone()));
    raw.send(&bytes).await;
    let inbound = door.next().await;
    raw.send(&[0xc0, 0]).await;
    assert_eq!(raw.receive(2).await, [0xd0, 0], "no PUBREC before the verdict");
    inbound.verdict.send(Verdict::Stored).unwrap();
    assert_eq!(raw.receive(4).await, [0x50, 2, 0, 9]);
    drop(raw);

    let mut raw = Raw::open(door.address).await;
    raw.send(&connect).await;
    assert_eq!(raw.receive(4).await, [0x20, 2, 1, 0], "the session is there");
    publish.dup = true;
    raw.send(&encode(&Packet::Publish(publish))).await;
    assert_eq!(raw.receive(4).await, [0x50, 2, 0, 9]);
    assert!(door.inbound.try_recv().is_err(), "once");
    raw.send(&[0x62, 2, 0, 9]).await;
    assert_eq!(raw.receive(4).await, [0x70, 2, 0, 9]);
    raw.send(&bytes).await;
    door.next_stored().await;
    assert_eq!(raw.receive(4).await, [0x50, 2, 0, 9], "another message");
}

/// The reading has no time of the device's, by which it would be recognised: that it comes once is the session's doing.
#[tokio::test]
async fn qos_2_comes_once_also_where_the_connection_breaks_before_the_verdict() {
    let mut door = Door::open(Limits::default()).await;
    let mut connect = rumqttc::mqttbytes::v4::Connect::new("kept");
    connect.set_login("user-a", SECRET);
    connect.clean_session = false;
    let connect = encode(&Packet::Connect(connect));
    let mut raw = Raw::open(door.address).await;
    raw.send(&connect).await;
    assert_eq!(raw.receive(4).await, [0x20, 2, 0, 0]);
    let mut publish = rumqttc::Publish::new(TOPIC, QoS::ExactlyOnce, *br#"{"v":72}"#);
    publish.pkid = 9;
    raw.send(&encode(&Packet::Publish(publish.clone()))).await;
    let inbound = door.next().await;
    drop(raw);
    door.closed("peer-closed", 1).await;

    let mut raw = Raw::open(door.address).await;
    raw.send(&connect).await;
    assert_eq!(raw.receive(4).await, [0x20, 2, 1, 0], "the session is there");
    publish.dup = true;
    raw.send(&[encode(&Packet::Publish(publish)), vec![0xc0, 0]].concat()).await;
    assert_eq!(raw.receive(2).await, [0xd0, 0], "no PUBREC before the verdict");
    assert!(door.inbound.try_recv().is_err(), "once");
    inbound.verdict.send(Verdict::Stored).unwrap();
    assert_eq!(raw.receive(4).await, [0x50, 2, 0, 9], "told over the new connection");
    raw.send(&[0x62, 2, 0, 9]).await;
    assert_eq!(raw.receive(4).await, [0x70, 2, 0, 9]);
    assert!(door.inbound.try_recv().is_err());
}

#[tokio::test]
async fn the_same_client_id_takes_over_within_a_device_only() {
    let mut door = Door::open(Limits::default()).await;
    let mut first = Client::up(options(&door, "a", "same")).await;
    let mut other = Client::up(options(&door, "b", "same")).await;
    let mut second = Client::up(options(&door, "a", "same")).await;
    first.ended().await;
    door.closed("taken-over", 1).await;
    second.client.publish(TOPIC, QoS::AtLeastOnce, false, "1").await.unwrap();
    door.next_stored().await;
    assert_eq!(second.puback().await, 1);
    other.client.publish("vitals/v1/b/num/x", QoS::AtLeastOnce, false, "1").await.unwrap();
    door.next_stored().await;
    assert_eq!(other.puback().await, 1);
}

#[tokio::test]
async fn the_oldest_of_too_many_connections_of_one_device_makes_room() {
    let door = Door::open(Limits::default()).await;
    let mut clients = Vec::new();
    for number in 0..CONNECTIONS_PER_DEVICE {
        clients.push(Client::up(options(&door, "a", &format!("client-{number}"))).await);
    }
    let _newest = Client::up(options(&door, "a", "newest")).await;
    clients[0].ended().await;
    door.closed("taken-over", 1).await;
    clients[1].assert_silent();
}

#[tokio::test]
async fn a_will_arrives_when_the_connection_drops_and_not_after_disconnect() {
    let mut door = Door::open(Limits::default()).await;
    let with_will = |id: &str, message: &str| {
        let mut options = options(&door, "a", id);
        options.set_last_will(LastWill::new("vitals/v1/a/status", message, QoS::AtLeastOnce, true));
        options
    };
    let (polite, rude) = (with_will("polite", "polite"), with_will("rude", "rude"));
    let polite = Client::up(polite).await;
    polite.client.disconnect().await.unwrap();
    door.closed("disconnect", 1).await;
    drop(Client::up(rude).await);
    assert_eq!(door.next_stored().await, ("vitals/v1/a/status".to_owned(), b"rude".to_vec()));
    assert!(door.inbound.try_recv().is_err());
}

#[tokio::test]
async fn garbage_on_the_port_does_not_touch_another_client() {
    let mut door = Door::open(Limits::default()).await;
    let mut client = Client::up(options(&door, "a", "one")).await;
    let garbage: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        &[0xff; 4096],
        &[0; 64],
        b"\x10\xff\xff\xff\xff\x7f",
        b"\x10\x0d\0\x04MQTT\x04\x03\0\x1e\0\x01c",
    ];
    for (number, bytes) in (1..).zip(garbage) {
        let mut raw = Raw::open(door.address).await;
        raw.send(bytes).await;
        assert_eq!(raw.rest().await, b"", "nothing to say");
        client.client.publish(TOPIC, QoS::AtLeastOnce, false, "72").await.unwrap();
        door.next_stored().await;
        assert_eq!(client.puback().await, number);
    }
    let closes = door.closes();
    let malformed: u64 = closes.iter().map(|(_, count)| count).sum();
    assert_eq!(malformed, 6, "{closes:?}");
    for reason in ["flags", "type", "length-field", "connect-flags"] {
        assert!(closes.iter().any(|(name, _)| name == reason), "{reason} in {closes:?}");
    }
}

#[tokio::test]
async fn an_oversized_packet_is_refused_by_its_length_alone() {
    let door = Door::open(Limits { packet_bytes_max: 1000, ..Limits::default() }).await;
    let mut raw = Raw::up(door.address, "c", 30).await;
    // 1,001 bytes are announced, none of them sent.
    raw.send(&[0x32, 0xe9, 0x07]).await;
    assert_eq!(raw.rest().await, b"");
    door.closed("too-large", 1).await;
}

#[tokio::test]
async fn a_full_server_says_so_and_has_room_again_later() {
    let door = Door::open(Limits { connections_max: 1, ..Limits::default() }).await;
    let first = Client::up(options(&door, "a", "one")).await;
    let mut raw = Raw::open(door.address).await;
    raw.send(&connect("c", "user-b", SECRET, 30)).await;
    assert_eq!(raw.rest().await, [0x20, 2, 0, 3]);
    door.refused("full", 1).await;
    first.client.disconnect().await.unwrap();
    within("the slot to come free", async {
        while door.metrics.connections.get() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    Client::up(options(&door, "b", "two")).await;
}

#[tokio::test]
async fn who_sends_no_connect_or_no_ping_is_closed_in_time() {
    let door = Door::open(Limits::default()).await;
    // Both clocks run at once: 5 s for a CONNECT, and one and a half times a keep-alive of 4 s.
    let mut silent = Raw::open(door.address).await;
    let mut lost = Raw::up(door.address, "c", 4).await;
    let started = tokio::time::Instant::now();
    silent.send(&[0x10]).await;
    assert_eq!(silent.rest().await, b"");
    let elapsed = started.elapsed().as_millis();
    assert!((4_500..6_000).contains(&elapsed), "{elapsed} ms");
    door.closed("connect-timeout", 1).await;
    assert_eq!(lost.rest().await, b"");
    let elapsed = started.elapsed().as_millis();
    assert!((6_000..7_500).contains(&elapsed), "{elapsed} ms");
    door.closed("keep-alive", 1).await;
}

/// So many of a hundred PUBLISHes are taken in before there is a verdict, and the rest when there is.
async fn stops_reading(limits: Limits, payload: &[u8], taken_in: u64) {
    let mut door = Door::open(limits).await;
    let mut raw = Raw::up(door.address, "c", 0).await;
    let packets: Vec<u8> = (1..=100)
        .flat_map(|packet_id| {
            publish(TOPIC, packet_id, &[packet_id.to_string().as_bytes(), payload].concat())
        })
        .collect();
    raw.send(&packets).await;
    let mut held = Vec::new();
    for _ in 0..taken_in {
        held.push(door.next().await);
    }
    let taken = |metrics: &ServerMetrics| metrics.packets.with_label_values(&["publish"]).get();
    door.counted("publishes taken in", taken_in, taken).await;
    assert!(door.inbound.try_recv().is_err(), "the next one waits");
    for inbound in held {
        inbound.verdict.send(Verdict::Stored).unwrap();
    }
    for number in taken_in + 1..=100 {
        assert_eq!(door.next_stored().await.1, [number.to_string().as_bytes(), payload].concat());
    }
    let acks = raw.receive(400).await;
    for (packet_id, ack) in (1u16..).zip(acks.chunks(4)) {
        assert_eq!(ack, [&[0x40, 2][..], &packet_id.to_be_bytes()].concat());
    }
}

#[tokio::test]
async fn a_full_window_stops_reading_and_nothing_is_lost() {
    stops_reading(Limits { inflight_max: 4, ..Limits::default() }, b"", 4).await;
    // By bytes: one may reach over it.
    stops_reading(Limits { inflight_bytes_max: 3000, ..Limits::default() }, &[7; 1000], 3).await;
}

/// The pipeline's queue (64 in these tests) is full and nobody takes from it: other connections still come and go.
#[tokio::test]
async fn a_stuck_pipeline_blocks_nobody_from_connecting() {
    let mut door = Door::open(Limits::default()).await;
    let mut raw = Raw::up(door.address, "c", 0).await;
    for packet_id in 1..=200 {
        raw.send(&publish(TOPIC, packet_id, b"1")).await;
    }
    let taken = |metrics: &ServerMetrics| metrics.packets.with_label_values(&["publish"]).get();
    door.counted("publishes taken in", 65, taken).await;
    let other = Client::up(options(&door, "b", "two")).await;
    other.client.disconnect().await.unwrap();
    door.closed("disconnect", 1).await;
    for _ in 0..200 {
        door.next_stored().await;
    }
    assert_eq!(raw.receive(800).await.len(), 800);
}

/// CONNECT of device `a` in 5.0, accepted.
async fn up_5(door: &Door) -> Raw {
    let mut raw = Raw::open(door.address).await;
    let mut connect = connect("five", "user-a", SECRET, 0);
    // 5.0's level, and no properties after the keep-alive.
    connect[8] = 5;
    connect.insert(12, 0);
    connect[1] += 1;
    raw.send(&connect).await;
    let head = raw.receive(2).await;
    assert_eq!((head[0], raw.receive(head[1].into()).await[1]), (0x20, 0));
    raw
}

/// A PUBLISH at QoS 1 in 5.0, without properties.
fn publish_5(topic: &str, packet_id: u8) -> Vec<u8> {
    let (topic_bytes, payload) = (u8::try_from(topic.len()).unwrap(), b"1");
    [&[0x32, topic_bytes + 6, 0, topic_bytes], topic.as_bytes(), &[0, packet_id, 0], payload].concat()
}

/// What sends it should throw it away and tell somebody, or have the device bound, and not send it again.
#[tokio::test]
async fn quarantine_is_told_in_5_0_and_acknowledged_in_3_1_1() {
    let mut door = Door::open(Limits::default()).await;
    let mut five = up_5(&door).await;
    let mut three = Raw::up(door.address, "three", 0).await;
    for (fault, reason) in [(Fault::Payload, 0x99), (Fault::Device, 0x87)] {
        five.send(&publish_5(TOPIC, 1)).await;
        door.next().await.verdict.send(Verdict::Quarantined(fault)).unwrap();
        assert_eq!(five.receive(6).await, [0x40, 4, 0, 1, reason, 0]);
        // At QoS 2 the PUBREC ends it (§4.3.3): the identifier is free, nothing is to be released, and the next is another message.
        let mut exactly = publish_5(TOPIC, 2);
        exactly[0] = 0x34;
        five.send(&exactly).await;
        door.next().await.verdict.send(Verdict::Quarantined(fault)).unwrap();
        assert_eq!(five.receive(6).await, [0x50, 4, 0, 2, reason, 0]);
        five.send(&[0x62, 2, 0, 2]).await;
        assert_eq!(five.receive(6).await, [0x70, 4, 0, 2, 0x92, 0]);
        five.send(&exactly).await;
        assert_eq!(door.next_stored().await.0, TOPIC);
        assert_eq!(five.receive(4).await, [0x50, 2, 0, 2]);
        five.send(&[0x62, 2, 0, 2]).await;
        assert_eq!(five.receive(4).await, [0x70, 2, 0, 2]);
        three.send(&publish(TOPIC, 1, b"72")).await;
        door.next().await.verdict.send(Verdict::Quarantined(fault)).unwrap();
        assert_eq!(three.receive(4).await, [0x40, 2, 0, 1]);
    }
    door.counted("quarantined", 6, |metrics| metrics.publishes.with_label_values(&["quarantined"]).get())
        .await;
}

/// Nothing is taken from the pipeline's queue and it is full: who is of a low rank is refused, one after the other, and never an alarm.
#[tokio::test]
async fn overload_refuses_the_lowest_first_and_has_places_for_alarms() {
    const WAVEFORM: &str = "vitals/v1/a/wave/ecg-ii";
    const ALARM: &str = "vitals/v1/a/event/fall";
    const AFTER_MS: u32 = 100;
    let mut door = Door::open(Limits { overload_after_ms: AFTER_MS, ..Limits::default() }).await;
    let refused =
        |rank: &'static str| move |metrics: &ServerMetrics| metrics.overload.with_label_values(&[rank]).get();
    let taken = |metrics: &ServerMetrics| metrics.packets.with_label_values(&["publish"]).get();
    let mut filler = Raw::up(door.address, "filler", 0).await;
    let full = (0..64).flat_map(|_| publish("vitals/v1/a/num/spo2", 0, b"97")).collect::<Vec<_>>();
    filler.send(&full).await;
    door.counted("taken in", 64, taken).await;
    // 5.0 is told and goes on. A waveform that comes behind one that waited in vain does not wait again, and a number does.
    let mut five = up_5(&door).await;
    let begun = clock::monotonic();
    five.send(&[publish_5(WAVEFORM, 1), publish_5(WAVEFORM, 2), publish_5(TOPIC, 3)].concat()).await;
    assert_eq!(five.receive(12).await, [0x40, 4, 0, 1, 0x97, 0, 0x40, 4, 0, 2, 0x97, 0]);
    let waveform = begun.elapsed();
    assert_eq!(five.receive(6).await, [0x40, 4, 0, 3, 0x97, 0]);
    assert!(waveform >= Duration::from_millis(AFTER_MS.into()), "{waveform:?}");
    assert!(begun.elapsed() >= Duration::from_millis((2 * AFTER_MS).into()), "{:?}", begun.elapsed());
    door.counted("waveforms", 2, refused("waveform")).await;
    door.counted("numbers", 1, refused("vitals")).await;
    five.send(&publish_5(ALARM, 4)).await;
    door.counted("the alarm too", 68, taken).await;
    let alarm = door.next().await;
    assert_eq!(alarm.topic, ALARM, "it stands before what came first");
    alarm.verdict.send(Verdict::Stored).unwrap();
    assert_eq!(five.receive(4).await, [0x40, 2, 0, 4]);
    // 3.1.1 has no word for it.
    let mut three = Raw::up(door.address, "three", 0).await;
    three.send(&publish(TOPIC, 1, b"72")).await;
    assert_eq!(three.rest().await, [0; 0]);
    door.counted("numbers", 2, refused("vitals")).await;
    door.closed("refused", 1).await;
    // What has its place is kept; when there is room again, all is taken, and who was refused may wait again.
    for _ in 0..64 {
        assert_eq!(door.next_stored().await.1, b"97");
    }
    five.send(&publish_5(WAVEFORM, 5)).await;
    assert_eq!(door.next_stored().await.0, WAVEFORM);
    assert_eq!(five.receive(4).await, [0x40, 2, 0, 5]);
    let before = taken(&door.metrics);
    filler.send(&full).await;
    door.counted("taken in", before + 64, taken).await;
    let begun = clock::monotonic();
    five.send(&publish_5(WAVEFORM, 6)).await;
    assert_eq!(five.receive(6).await, [0x40, 4, 0, 6, 0x97, 0]);
    assert!(begun.elapsed() >= Duration::from_millis(AFTER_MS.into()), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn shutdown_answers_what_is_outstanding_and_then_closes() {
    let mut door = Door::open(Limits::default()).await;
    let mut client = Client::up(options(&door, "a", "one")).await;
    let mut idle = Client::up(options(&door, "b", "two")).await;
    client.client.publish(TOPIC, QoS::AtLeastOnce, false, "72").await.unwrap();
    let inbound = door.next().await;
    door.shutdown.cancel();
    idle.ended().await;
    client.assert_silent();
    inbound.verdict.send(Verdict::Stored).unwrap();
    assert_eq!(client.puback().await, 1);
    client.ended().await;
    within("the server to end", &mut door.task).await.unwrap();
    assert_eq!(door.closes(), [("shutdown".to_owned(), 2)]);
    assert_eq!(door.metrics.connections.get(), 0);
}

#[tokio::test]
async fn the_pipelines_end_withholds_pubacks() {
    let mut door = Door::open(Limits::default()).await;
    let mut client = Client::up(options(&door, "a", "one")).await;
    client.client.publish(TOPIC, QoS::AtLeastOnce, false, "72").await.unwrap();
    drop(door.next().await);
    client.ended().await;
    door.closed("refused", 1).await;
}

/// As many clients as two devices may have, each with more to send than its window: all is acknowledged, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_at_once_lose_nothing() {
    const EACH: u16 = 5_000;
    let mut door = Door::open(Limits::default()).await;
    let (mut writers, mut readers) = (Vec::new(), Vec::new());
    for number in 0..2 * CONNECTIONS_PER_DEVICE {
        let device = if number % 2 == 0 { "a" } else { "b" };
        let mut raw = Raw::open(door.address).await;
        raw.send(&connect(&format!("client-{number}"), &format!("user-{device}"), SECRET, 0)).await;
        assert_eq!(raw.receive(4).await, [0x20, 2, 0, 0]);
        let topic = format!("vitals/v1/{device}/num/x");
        let packets: Vec<u8> = (1..=EACH).flat_map(|id| publish(&topic, id, &[7; 100])).collect();
        let (mut reader, mut writer) = raw.0.into_split();
        writers.push(tokio::spawn(async move { writer.write_all(&packets).await.map(|()| writer).unwrap() }));
        readers.push(tokio::spawn(async move {
            for id in 1..=EACH {
                let mut ack = [0; 4];
                reader.read_exact(&mut ack).await.unwrap();
                assert_eq!(ack, [&[0x40, 2][..], &id.to_be_bytes()].concat()[..]);
            }
        }));
    }
    for _ in 0..usize::from(EACH) * 2 * CONNECTIONS_PER_DEVICE {
        door.next().await.verdict.send(Verdict::Stored).unwrap();
    }
    for reader in readers {
        within("a client's PUBACKs", reader).await.unwrap();
    }
}
