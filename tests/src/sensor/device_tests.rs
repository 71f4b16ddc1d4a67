//! A device against a broker that forgets: it dies with publications unacknowledged and comes back without a session.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, PubAck, Publish};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::super::journal::Line;
use super::super::{PayloadFormat, SourceConfig, config::Generator};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn config(broker: SocketAddr, source: Generator) -> Config {
    let device = DeviceConfig {
        id: "d1".parse().unwrap(),
        username: "d1".to_owned(),
        password: "secret".to_owned(),
        source: SourceConfig::Generator(source),
        chunk_ms: 200,
        payload: PayloadFormat::Json,
        seed: None,
        interface: None,
    };
    // Ten seconds of signal in half a second.
    let broker = broker.to_string();
    Config { broker, seed: 1, speed: 20.0, seconds: Some(0.5), drain_s: 30.0, devices: vec![device] }
}

/// The broker's end of one connection.
struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Connection {
    async fn accept(listener: &TcpListener, code: ConnectReturnCode) -> Self {
        let (stream, _peer) = listener.accept().await.unwrap();
        let mut connection = Self { stream, buffer: BytesMut::new() };
        let Packet::Connect(connect) = connection.packet().await.unwrap() else { panic!("no CONNECT") };
        assert!(!connect.clean_session && connect.last_will.is_some() && connect.client_id == "d1");
        let mut answer = BytesMut::new();
        ConnAck::new(code, false).write(&mut answer).unwrap();
        connection.stream.write_all(&answer).await.unwrap();
        connection
    }

    /// The next packet; none when the device is gone.
    async fn packet(&mut self) -> Option<Packet> {
        loop {
            if let Ok(packet) = Packet::read(&mut self.buffer, PACKET_BYTES_MAX) {
                return Some(packet);
            }
            if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }

    async fn publish(&mut self) -> Option<Publish> {
        loop {
            if let Packet::Publish(publish) = self.packet().await? {
                return Some(publish);
            }
        }
    }

    async fn ack(&mut self, packet_id: u16) {
        let mut answer = BytesMut::new();
        PubAck::new(packet_id).write(&mut answer).unwrap();
        self.stream.write_all(&answer).await.unwrap();
    }
}

fn is_reading(publish: &Publish) -> bool {
    publish.topic.contains("/wave/") || publish.topic.contains("/num/")
}

async fn run_device(config: Config, journal: Journal) -> Result<Outcome, DeviceError> {
    let source = Source::open(&config.devices[0], config.seed).unwrap();
    run(&config, &config.devices[0], source, Start::now(), journal, CancellationToken::new()).await
}

#[tokio::test]
async fn nothing_is_forgotten_when_the_broker_forgets_its_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let path = dir.path().join("journal.jsonl");
    let (journal, writer) = Journal::create(&path).unwrap();
    let device = tokio::spawn(run_device(config(listener.local_addr().unwrap(), Generator::Ecg), journal));
    let mut acked = BTreeMap::new();
    let mut unacked_before: Vec<bytes::Bytes> = Vec::new();
    for life in 0..3 {
        let mut connection = Connection::accept(&listener, ConnectReturnCode::Success).await;
        let mut expected = std::mem::take(&mut unacked_before).into_iter();
        for count in 0.. {
            // It dies after twelve publications, of which every third was acknowledged; the last life answers all.
            if life < 2 && count == 12 {
                break;
            }
            let Some(publish) = connection.publish().await else { break };
            if let Some(expected) = expected.next() {
                assert_eq!(publish.payload, expected, "redelivery keeps the order and comes first");
                assert!(publish.dup);
            }
            if life == 2 || count % 3 == 2 {
                if is_reading(&publish) {
                    *acked.entry(publish.payload.clone()).or_insert(0) += 1;
                }
                connection.ack(publish.pkid).await;
            } else {
                unacked_before.push(publish.payload.clone());
            }
        }
        // An orderly end lets the device see the PUBACKs before; what it still sent meanwhile goes unanswered.
        connection.stream.shutdown().await.unwrap();
        while let Some(publish) = connection.publish().await {
            unacked_before.push(publish.payload);
        }
    }
    let outcome = device.await.unwrap().unwrap();
    writer.await.unwrap().unwrap();
    assert_eq!((outcome.published, outcome.acked), (50, 50));
    assert_eq!(acked.len(), 50, "each chunk arrived");
    assert!(acked.values().all(|times| *times == 1), "and none was sent again after its PUBACK");
    let lines: Vec<Line> = std::fs::read_to_string(&path)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let published = lines.iter().filter(|line| matches!(line, Line::Published { .. })).count();
    assert_eq!((published, lines.len()), (50, 100));
}

#[tokio::test]
async fn status_and_meta_are_retained_and_the_end_is_announced() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (journal, _writer) = Journal::create(&dir.path().join("j")).unwrap();
    let device =
        tokio::spawn(run_device(config(listener.local_addr().unwrap(), Generator::Numerics), journal));
    let mut connection = Connection::accept(&listener, ConnectReturnCode::Success).await;
    let (mut retained, mut topics) = (Vec::new(), Vec::new());
    while let Some(publish) = connection.publish().await {
        assert_eq!((publish.qos, publish.retain), (QoS::AtLeastOnce, !is_reading(&publish)));
        if publish.retain {
            retained.push((publish.topic.clone(), String::from_utf8(publish.payload.to_vec()).unwrap()));
        } else {
            topics.push(publish.topic.clone());
        }
        connection.ack(publish.pkid).await;
    }
    device.await.unwrap().unwrap();
    let texts: Vec<_> = retained.iter().map(|(topic, text)| (topic.as_str(), text.as_str())).collect();
    assert_eq!(texts[0].0, "vitals/v1/d1/meta");
    assert!(texts[0].1.contains("heart-rate"));
    assert_eq!(texts[1..], [("vitals/v1/d1/status", "online"), ("vitals/v1/d1/status", "offline")]);
    assert_eq!(topics.iter().filter(|topic| *topic == "vitals/v1/d1/num/heart-rate").count(), 10);
}

#[tokio::test]
async fn what_is_never_acknowledged_ends_after_the_drain_and_counts() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (journal, _writer) = Journal::create(&dir.path().join("j")).unwrap();
    let mut config = config(listener.local_addr().unwrap(), Generator::Ecg);
    config.drain_s = 0.1;
    let device = tokio::spawn(run_device(config, journal));
    let mut connection = Connection::accept(&listener, ConnectReturnCode::Success).await;
    while let Some(publish) = connection.publish().await {
        if !publish.topic.ends_with("ecg-ii") {
            connection.ack(publish.pkid).await;
        }
    }
    let outcome = timeout(30 * SECOND, device).await.unwrap().unwrap().unwrap();
    assert_eq!((outcome.published, outcome.acked), (50, 0));
}

#[tokio::test]
async fn a_refused_device_gives_up_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (journal, _writer) = Journal::create(&dir.path().join("j")).unwrap();
    let device = tokio::spawn(run_device(config(listener.local_addr().unwrap(), Generator::Ecg), journal));
    for _ in 0..REFUSALS_MAX {
        Connection::accept(&listener, ConnectReturnCode::NotAuthorized).await;
    }
    let error = timeout(30 * SECOND, device).await.unwrap().unwrap().unwrap_err().to_string();
    assert!(error.contains("device d1: refused 5 times") && error.contains("NotAuthorized"), "{error}");
}
