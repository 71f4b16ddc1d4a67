//! rumqttc's client of MQTT 3.1.1.

use std::time::Duration;

use rumqttc::{LastWill, Packet, QoS};

use super::mqtt_support::{Client, Door, options};
use super::{Servers, TOPIC, a_silent_one_is_closed};

/// With QoS 2, and kept over a lost connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session() {
    let servers = Servers::open().await;
    let kept = || {
        let mut options = options(&servers.plain, "display", "kept");
        options.set_clean_session(false);
        options
    };
    let mut display = Client::up(kept()).await;
    display.client.subscribe("vitals/v1/a/#", QoS::ExactlyOnce).await.unwrap();
    assert!(matches!(display.event().await, Ok(Packet::SubAck(_))));
    let mut sensor = Client::up(options(&servers.plain, "a", "sensor")).await;
    drop(display);
    for value in 0..3 {
        sensor.client.publish(TOPIC, QoS::ExactlyOnce, false, value.to_string()).await.unwrap();
    }
    let mut complete = 0;
    while complete < 3 {
        complete += usize::from(matches!(sensor.event().await, Ok(Packet::PubComp(_))));
    }
    let mut display = Client::start(kept());
    assert!(matches!(display.event().await, Ok(Packet::ConnAck(ack)) if ack.session_present));
    let mut values = Vec::new();
    while values.len() < 3 {
        if let Ok(Packet::Publish(publish)) = display.event().await {
            values.push(String::from_utf8(publish.payload.to_vec()).unwrap());
        }
    }
    assert_eq!(values, ["0", "1", "2"]);
}

async fn subscribed(door: &Door, device: &str, id: &str, filters: &[(&str, QoS)]) -> Client {
    let mut client = Client::up(options(door, device, id)).await;
    for (filter, qos) in filters {
        client.client.subscribe(*filter, *qos).await.unwrap();
        assert!(matches!(client.event().await, Ok(Packet::SubAck(_))));
    }
    client
}

async fn message(client: &mut Client) -> rumqttc::Publish {
    loop {
        match client.event().await {
            Ok(Packet::Publish(publish)) => return publish,
            Ok(_) => {}
            Err(error) => panic!("a message: {error}"),
        }
    }
}

async fn published(sensor: &mut Client, topic: &str, is_retained: bool, payload: &str) {
    sensor.client.publish(topic, QoS::AtLeastOnce, is_retained, payload).await.unwrap();
    sensor.puback().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retained_messages_wills_and_a_keep_alive_of_0() {
    const STATUS: &str = "vitals/v1/a/status";
    let servers = Servers::open().await;
    let mut silent = options(&servers.short, "a", "silent");
    silent.set_keep_alive(Duration::ZERO);
    let mut silent = Client::up(silent).await;

    let mut sensor = options(&servers.plain, "a", "sensor");
    sensor.set_last_will(LastWill::new(STATUS, "lost", QoS::AtLeastOnce, true));
    let mut sensor = Client::up(sensor).await;
    published(&mut sensor, STATUS, true, "online").await;
    let mut display = subscribed(&servers.plain, "display", "d", &[(STATUS, QoS::AtLeastOnce)]).await;
    let retained = message(&mut display).await;
    assert!(retained.retain && &retained.payload[..] == b"online");
    drop(sensor);
    assert_eq!(&message(&mut display).await.payload[..], b"lost");
    let mut late = subscribed(&servers.plain, "display", "late", &[(STATUS, QoS::AtLeastOnce)]).await;
    let retained = message(&mut late).await;
    assert!(retained.retain && &retained.payload[..] == b"lost", "a will may be retained");

    a_silent_one_is_closed(&servers.short).await;
    assert_eq!(servers.short.metrics.packets.with_label_values(&["pingreq"]).get(), 0);
    published(&mut silent, TOPIC, false, "still there").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_and_overlapping_subscriptions() {
    let servers = Servers::open().await;
    let overlapping = [("vitals/v1/a/#", QoS::AtMostOnce), ("vitals/v1/+/num/heart-rate", QoS::AtLeastOnce)];
    let mut display = subscribed(&servers.plain, "display", "d", &overlapping).await;
    let share = [("$share/ward/vitals/v1/a/#", QoS::AtLeastOnce)];
    let mut members = [
        subscribed(&servers.plain, "display", "one", &share).await,
        subscribed(&servers.plain, "display-2", "two", &share).await,
    ];
    let mut sensor = Client::up(options(&servers.plain, "a", "sensor")).await;
    for value in 0..10 {
        published(&mut sensor, TOPIC, false, &value.to_string()).await;
    }
    let mut shared = Vec::new();
    for member in &mut members {
        for _ in 0..5 {
            shared.push(String::from_utf8(message(member).await.payload.to_vec()).unwrap());
        }
    }
    shared.sort_unstable();
    assert_eq!(shared, (0..10).map(|value| value.to_string()).collect::<Vec<_>>());
    for value in 0..10 {
        let message = message(&mut display).await;
        assert_eq!((message.qos, &message.payload[..]), (QoS::AtLeastOnce, value.to_string().as_bytes()));
    }
}

/// A server of 3.1.1 has no word for a refusal: it withholds the PUBACK, and ends the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals() {
    let servers = Servers::open().await;
    for (topic, payload) in [(TOPIC, "refuse"), ("vitals/v1/b/num/x", "72")] {
        let mut sensor = Client::up(options(&servers.plain, "a", "sensor")).await;
        sensor.client.publish(topic, QoS::AtLeastOnce, false, payload).await.unwrap();
        sensor.ended().await;
    }
    let mut wrong = options(&servers.plain, "a", "sensor");
    wrong.set_credentials("user-a", "wrong");
    let said = Client::start(wrong).ended().await;
    assert!(said.contains("BadUserNamePassword"), "{said}");
}
