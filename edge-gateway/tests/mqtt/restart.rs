//! Sessions and retained messages over a restart of the server, in good order and after a kill.

use std::time::Duration;

use edge_gateway::mqtt::access::{Access, Reader};
use edge_gateway::mqtt::hub::{Hub, SessionKey};
use edge_gateway::mqtt::kept::SessionFile;
use edge_gateway::mqtt::limits::Limits;
use edge_gateway::mqtt::wire::Reason;
use rumqttc::{MqttOptions, Packet, QoS};

use crate::mqtt_support::{Client, Door, device, options, within};

const TOPIC: &str = "vitals/v1/a/num/heart-rate";
const KEY: [u8; 32] = [7; 32];

fn display(door: &Door) -> MqttOptions {
    let mut options = options(door, "display", "wall");
    options.set_clean_session(false);
    options
}

fn reader() -> Reader {
    Reader { device: device("display"), filters: vec!["vitals/v1/#".to_owned()] }
}

/// What a display that comes back is sent: whether its session was there, and the payloads.
async fn back(door: &mut Door, payloads: usize) -> (bool, Vec<(String, bool)>) {
    let mut client = Client::start(display(door));
    let present = match client.event().await {
        Ok(Packet::ConnAck(ack)) => ack.session_present,
        other => panic!("expected CONNACK, got {other:?}"),
    };
    let mut got = Vec::new();
    while got.len() < payloads {
        match client.event().await {
            Ok(Packet::Publish(p)) => got.push((String::from_utf8(p.payload.to_vec()).unwrap(), p.retain)),
            other => panic!("expected PUBLISH, got {other:?}"),
        }
    }
    client.assert_silent();
    (present, got)
}

/// A display that subscribed and left, a retained reading, and one that waits for it.
async fn lived(door: &mut Door) {
    let mut client = Client::up(display(door)).await;
    client.client.subscribe("vitals/v1/#", QoS::AtLeastOnce).await.unwrap();
    assert!(matches!(client.event().await, Ok(Packet::SubAck(_))));
    client.client.disconnect().await.unwrap();
    door.closed("disconnect", 1).await;
    let mut sensor = Client::up(options(door, "a", "one")).await;
    sensor.client.publish(TOPIC, QoS::AtLeastOnce, true, "71").await.unwrap();
    door.next_stored().await;
    sensor.puback().await;
    sensor.client.disconnect().await.unwrap();
    door.closed("disconnect", 2).await;
}

async fn stopped(door: Door) -> std::sync::Arc<edge_gateway::mqtt::server::Server> {
    door.shutdown.cancel();
    within("the server's end", door.task).await.unwrap();
    door.server
}

#[tokio::test]
async fn a_display_finds_its_session_and_what_was_retained_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let file = SessionFile::new(dir.path(), &KEY);
    let mut door = Door::restored(&file).await;
    lived(&mut door).await;
    stopped(door).await.keep_whole(&file);

    let mut door = Door::restored(&file).await;
    assert_eq!(back(&mut door, 1).await, (true, vec![("71".to_owned(), false)]), "it waited for it");
    // And what is retained goes to who subscribes anew.
    let mut second = Client::up(options(&door, "display-2", "hall")).await;
    second.client.subscribe("vitals/v1/#", QoS::AtLeastOnce).await.unwrap();
    let mut retained = None;
    while retained.is_none() {
        match second.event().await {
            Ok(Packet::Publish(p)) => retained = Some((p.payload, p.retain)),
            Ok(Packet::SubAck(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(retained.unwrap(), ("71".into(), true));
    assert_eq!(door.metrics.kept.with_label_values(&["written"]).get(), 1, "at the start: old from now on");
}

#[tokio::test]
async fn what_changes_is_kept_without_a_stop_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = std::sync::Arc::new(SessionFile::new(dir.path(), &KEY));
    let mut door = Door::restored(&file).await;
    let keeping = tokio::spawn(std::sync::Arc::clone(&door.server).keep(file.clone(), door.shutdown.clone()));
    lived(&mut door).await;
    let kept = || {
        let bytes = file.read().unwrap().unwrap();
        let (mut hub, access) = (Hub::new(9), Access::new([reader()]).unwrap());
        hub.restore(&bytes, Duration::ZERO, 0, &access).unwrap();
        let key = SessionKey { device: device("display"), client_id: "wall".to_owned() };
        hub.has_session(&key) && hub.unsubscribe(&key, &["vitals/v1/#".to_owned()]) == [Reason::SUCCESS]
    };
    within("the subscription is on the disk", async {
        while !kept() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // As after a kill: nothing is written any more.
    keeping.abort();
    drop(stopped(door).await);
    let mut door = Door::restored(&file).await;
    let mut client = Client::start(display(&door));
    match client.event().await {
        Ok(Packet::ConnAck(ack)) => assert!(ack.session_present),
        other => panic!("expected CONNACK, got {other:?}"),
    }
    // Its subscription is there: what is published now comes.
    let sensor = Client::up(options(&door, "a", "one")).await;
    sensor.client.publish(TOPIC, QoS::AtLeastOnce, false, "now").await.unwrap();
    door.next_stored().await;
    loop {
        match client.event().await {
            Ok(Packet::Publish(p)) if &p.payload[..] == b"now" => break,
            Ok(Packet::Publish(_)) => {}
            other => panic!("expected PUBLISH, got {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_file_that_is_damaged_costs_the_sessions_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let file = SessionFile::new(dir.path(), &KEY);
    let mut door = Door::restored(&file).await;
    lived(&mut door).await;
    stopped(door).await.keep_whole(&file);
    let path = dir.path().join("mqtt.sessions");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[30] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let mut door = Door::restored(&file).await;
    assert_eq!(door.metrics.kept.with_label_values(&["unreadable"]).get(), 1);
    assert_eq!(back(&mut door, 0).await, (false, Vec::new()));
    let fresh = Door::open(Limits::default()).await;
    drop(fresh);
}
