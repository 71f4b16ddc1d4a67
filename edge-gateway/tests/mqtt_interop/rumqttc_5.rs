//! rumqttc's client of MQTT 5.0.

use std::time::Duration;

use bytes::BytesMut;
use caregate_host::clock;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    Connect, DisconnectReasonCode, Filter, LastWill, LastWillProperties, Login, Packet, PubAckReason,
    PubRecReason, PublishProperties, SubscribeProperties, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::mqtt_support::{Door, PATIENCE, Raw, SECRET};
use super::{Servers, TOPIC};

const STATUS: &str = "vitals/v1/a/status";

/// One whose packets a task collects.
struct Client {
    client: AsyncClient,
    packets: mpsc::UnboundedReceiver<Packet>,
    task: JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn options(door: &Door, device: &str, client_id: &str) -> MqttOptions {
    let mut options = MqttOptions::new(client_id, door.address.ip().to_string(), door.address.port());
    options.set_credentials(format!("user-{device}"), SECRET);
    options
}

fn delayed(delay_s: u32) -> LastWillProperties {
    LastWillProperties {
        delay_interval: Some(delay_s),
        payload_format_indicator: None,
        message_expiry_interval: None,
        content_type: None,
        response_topic: None,
        correlation_data: None,
        user_properties: Vec::new(),
    }
}

impl Client {
    async fn up(options: MqttOptions) -> (Self, Packet) {
        let (client, event_loop) = AsyncClient::new(options, 64);
        let (sender, packets) = mpsc::unbounded_channel();
        let task = tokio::spawn(collect(event_loop, sender));
        let mut client = Self { client, packets, task };
        let connack = client.packet().await;
        assert!(matches!(connack, Packet::ConnAck(_)), "{connack:?}");
        (client, connack)
    }

    async fn packet(&mut self) -> Packet {
        match timeout(PATIENCE, self.packets.recv()).await {
            Ok(Some(packet)) => packet,
            other => panic!("a packet of the server: {other:?}"),
        }
    }

    async fn message(&mut self) -> rumqttc::v5::mqttbytes::v5::Publish {
        loop {
            if let Packet::Publish(publish) = self.packet().await {
                return publish;
            }
        }
    }
}

async fn collect(mut event_loop: EventLoop, sender: mpsc::UnboundedSender<Packet>) {
    while let Ok(event) = event_loop.poll().await {
        if let Event::Incoming(packet) = event
            && sender.send(packet).is_err()
        {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wills_reasons_and_properties() {
    let servers = Servers::open().await;
    let (mut display, _) = Client::up(options(&servers.plain, "display", "d")).await;
    let subscription = SubscribeProperties { id: Some(300), user_properties: Vec::new() };
    let mut filter = Filter::new("vitals/v1/a/#", QoS::ExactlyOnce);
    filter.preserve_retain = true;
    display.client.subscribe_many_with_properties([filter], subscription).await.unwrap();
    let Packet::SubAck(ack) = display.packet().await else { panic!("not a SUBACK") };
    assert_eq!(ack.return_codes, [SubscribeReasonCode::Success(QoS::ExactlyOnce)]);

    let mut sensor = options(&servers.plain, "a", "sensor");
    sensor.set_last_will(LastWill::new(STATUS, "lost", QoS::AtLeastOnce, true, Some(delayed(1))));
    sensor.set_session_expiry_interval(Some(60));
    let (mut sensor, _) = Client::up(sensor).await;
    let properties =
        PublishProperties { user_properties: vec![("k".into(), "v".into())], ..PublishProperties::default() };
    sensor.client.publish_with_properties(TOPIC, QoS::ExactlyOnce, true, "72", properties).await.unwrap();
    assert!(matches!(sensor.packet().await, Packet::PubRec(rec) if rec.reason == PubRecReason::Success));
    assert!(matches!(sensor.packet().await, Packet::PubComp(_)));
    let message = display.message().await;
    let told = message.properties.unwrap();
    assert!(message.retain && message.qos == QoS::ExactlyOnce && &message.payload[..] == b"72");
    assert_eq!((told.subscription_identifiers, told.user_properties.len()), (vec![300], 1));

    sensor.client.publish(TOPIC, QoS::AtLeastOnce, false, "refuse").await.unwrap();
    assert!(
        matches!(sensor.packet().await, Packet::PubAck(ack) if ack.reason == PubAckReason::QuotaExceeded)
    );
    for (said, at_1, at_2) in [
        ("garbage", PubAckReason::PayloadFormatInvalid, PubRecReason::PayloadFormatInvalid),
        ("unbound", PubAckReason::NotAuthorized, PubRecReason::NotAuthorized),
    ] {
        sensor.client.publish(TOPIC, QoS::AtLeastOnce, false, said).await.unwrap();
        assert!(matches!(sensor.packet().await, Packet::PubAck(ack) if ack.reason == at_1), "{said}");
        sensor.client.publish(TOPIC, QoS::ExactlyOnce, false, said).await.unwrap();
        assert!(matches!(sensor.packet().await, Packet::PubRec(rec) if rec.reason == at_2), "{said}");
    }
    sensor.client.publish("vitals/v1/b/num/x", QoS::AtLeastOnce, false, "72").await.unwrap();
    assert!(
        matches!(sensor.packet().await, Packet::PubAck(ack) if ack.reason == PubAckReason::NotAuthorized)
    );
    drop(sensor);
    let message = display.message().await;
    assert_eq!((&message.topic[..], &message.payload[..]), (STATUS.as_bytes(), &b"lost"[..]));

    servers.plain.publisher.publish("gateway/v1/alarm/a", "low".into(), true).unwrap();
    let (mut late, _) = Client::up(options(&servers.plain, "display-2", "late")).await;
    late.client.subscribe("gateway/v1/#", QoS::AtLeastOnce).await.unwrap();
    let message = late.message().await;
    assert!(message.retain && &message.payload[..] == b"low");
    let (_short, connack) = Client::up(options(&servers.short, "a", "short")).await;
    let Packet::ConnAck(connack) = connack else { panic!("not a CONNACK") };
    let told = connack.properties.unwrap();
    assert_eq!((told.server_keep_alive, told.receive_max), (Some(2), Some(2)));
}

/// By a subscriber's clock: a will comes no sooner than its delay or its session is over, and not at all where its client is back by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_will_waits_for_its_delay_and_is_dropped_for_one_who_is_back() {
    let servers = Servers::open().await;
    let (mut display, _) = Client::up(options(&servers.plain, "display", "d")).await;
    display.client.subscribe(STATUS, QoS::AtLeastOnce).await.unwrap();
    assert!(matches!(display.packet().await, Packet::SubAck(_)));
    let leaving = |id: &str, delay_s, expiry_s| {
        let mut options = options(&servers.plain, "a", id);
        options.set_clean_start(false).set_session_expiry_interval(Some(expiry_s));
        options.set_last_will(LastWill::new(STATUS, id, QoS::AtLeastOnce, false, Some(delayed(delay_s))));
        options
    };
    let (back, _) = Client::up(leaving("back", 3, 60)).await;
    drop(back);
    servers.plain.closed("peer-closed", 1).await;
    let (_back, connack) = Client::up(leaving("back", 3, 60)).await;
    assert!(matches!(connack, Packet::ConnAck(ack) if ack.session_present));

    // The will of the one who is back would have been due between these two.
    let mut lost = Vec::new();
    for (id, delay_s, expiry_s) in [("session over", 60, 2), ("delay over", 4, 60)] {
        let (client, _) = Client::up(leaving(id, delay_s, expiry_s)).await;
        let least = Duration::from_secs(u64::from(delay_s.min(expiry_s)));
        lost.push((id, clock::monotonic(), least));
        drop(client);
    }
    for (id, since, least) in lost {
        let message = display.message().await;
        let waited = since.elapsed();
        assert_eq!(&message.payload[..], id.as_bytes());
        assert!(waited >= least, "{id}: {waited:?}");
    }
}

/// rumqttc's client asks for no keep-alive below 5 s, but its packets can. Version 5.0 has a word for what the server grants instead: who does
/// not keep to it is told so and closed, and the client, which asked for 60 s, keeps to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keep_alive_of_0_is_granted_the_servers() {
    let servers = Servers::open().await;
    let (mut told, _) = Client::up(options(&servers.short, "a", "told")).await;
    let login = Login::new("user-a", SECRET);
    let connect =
        Connect { keep_alive: 0, client_id: "silent".to_owned(), clean_start: true, properties: None };
    let mut bytes = BytesMut::new();
    Packet::Connect(connect, None, Some(login)).write(&mut bytes, None).unwrap();
    let (mut silent, began) = (Raw::open(servers.short.address).await, clock::monotonic());
    silent.send(&bytes).await;
    let mut answers = BytesMut::from(&silent.rest().await[..]);
    let waited = began.elapsed();
    let Ok(Packet::ConnAck(granted)) = Packet::read(&mut answers, None) else { panic!("not a CONNACK") };
    assert_eq!(granted.properties.unwrap().server_keep_alive, Some(2));
    let end = Packet::read(&mut answers, None);
    let is_told = matches!(&end, Ok(Packet::Disconnect(end)) if end.reason_code == DisconnectReasonCode::KeepAliveTimeout);
    assert!(is_told && answers.is_empty(), "{end:?}");
    assert!(waited >= Duration::from_secs(3), "one and a half of it: {waited:?}");

    told.client.publish(TOPIC, QoS::AtLeastOnce, false, "still there").await.unwrap();
    while !matches!(told.packet().await, Packet::PubAck(_)) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_aliases_and_flow_control() {
    let servers = Servers::open().await;
    let kept = |clean| {
        let mut options = options(&servers.plain, "display", "kept");
        options.set_clean_start(clean).set_session_expiry_interval(Some(300)).set_receive_maximum(Some(1));
        options
    };
    let (mut display, connack) = Client::up(kept(true)).await;
    assert!(matches!(connack, Packet::ConnAck(ack) if !ack.session_present));
    display.client.subscribe("vitals/v1/a/#", QoS::ExactlyOnce).await.unwrap();
    assert!(matches!(display.packet().await, Packet::SubAck(_)));
    drop(display);
    let (mut sensor, _) = Client::up(options(&servers.plain, "a", "sensor")).await;
    let alias = || PublishProperties { topic_alias: Some(3), ..PublishProperties::default() };
    for (topic, value) in [(TOPIC, "0"), ("", "1"), ("", "2")] {
        let publish = sensor.client.publish_with_properties(topic, QoS::ExactlyOnce, false, value, alias());
        publish.await.unwrap();
        assert!(matches!(sensor.packet().await, Packet::PubRec(_)));
        assert!(matches!(sensor.packet().await, Packet::PubComp(_)));
    }
    let (mut display, connack) = Client::up(kept(false)).await;
    assert!(matches!(connack, Packet::ConnAck(ack) if ack.session_present));
    for value in ["0", "1", "2"] {
        let message = display.message().await;
        assert_eq!((&message.topic[..], &message.payload[..]), (TOPIC.as_bytes(), value.as_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_and_overlapping_subscriptions() {
    let servers = Servers::open().await;
    let (mut display, _) = Client::up(options(&servers.plain, "display", "d")).await;
    for (filter, qos) in
        [("vitals/v1/a/#", QoS::AtMostOnce), ("vitals/v1/+/num/heart-rate", QoS::AtLeastOnce)]
    {
        display.client.subscribe(filter, qos).await.unwrap();
        assert!(matches!(display.packet().await, Packet::SubAck(_)));
    }
    let mut members = Vec::new();
    for (device, id) in [("display", "one"), ("display-2", "two")] {
        let (mut member, _) = Client::up(options(&servers.plain, device, id)).await;
        member.client.subscribe("$share/ward/vitals/v1/a/#", QoS::AtLeastOnce).await.unwrap();
        assert!(matches!(member.packet().await, Packet::SubAck(_)));
        members.push(member);
    }
    let (mut sensor, _) = Client::up(options(&servers.plain, "a", "sensor")).await;
    for value in 0..10 {
        sensor.client.publish(TOPIC, QoS::AtLeastOnce, false, value.to_string()).await.unwrap();
        assert!(matches!(sensor.packet().await, Packet::PubAck(_)));
    }
    let mut shared = Vec::new();
    for member in &mut members {
        for _ in 0..5 {
            shared.push(String::from_utf8(member.message().await.payload.to_vec()).unwrap());
        }
    }
    shared.sort_unstable();
    assert_eq!(shared, (0..10).map(|value| value.to_string()).collect::<Vec<_>>());
    // Each once, at the higher QoS of the two.
    for value in 0..10 {
        let message = display.message().await;
        assert_eq!((message.qos, &message.payload[..]), (QoS::AtLeastOnce, value.to_string().as_bytes()));
    }
}
