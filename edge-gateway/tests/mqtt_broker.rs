//! The client of an existing broker, against mosquitto. Where mosquitto is missing these tests fail and say so.

#![expect(clippy::unwrap_used, reason = "a test's own helpers may panic")]

mod mqtt_support;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use edge_gateway::ingest::{Inbound, Verdict};
use edge_gateway::mqtt::broker::{BrokerConfig, run};
use edge_gateway::mqtt::metrics::BrokerMetrics;
use mqtt_support::{Client, device, within};
use prometheus::Registry;
use rumqttc::{MqttOptions, QoS};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const TOPIC: &str = "vitals/v1/a/num/heart-rate";

/// Debian has mosquitto in `/usr/sbin`, which is not on everybody's path.
fn mosquitto_path() -> &'static str {
    if std::path::Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" }
}

/// mosquitto on a free port of the loopback; killed when dropped.
struct Mosquitto {
    address: SocketAddr,
    child: Child,
    _directory: tempfile::TempDir,
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Mosquitto {
    async fn start(max_inflight: u16) -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("mosquitto.conf");
        let text = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_inflight_messages {max_inflight}\n",
            address.port()
        );
        std::fs::write(&config, text).unwrap();
        let started = Command::new(mosquitto_path())
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match started {
            Ok(child) => child,
            Err(error) => panic!("mosquitto can't run ({error}); it is in Debian's package of the same name"),
        };
        within("mosquitto to listen", async {
            while TcpStream::connect(address).await.is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        Self { address, child, _directory: directory }
    }

    fn options(&self, client_id: &str) -> MqttOptions {
        let mut options = MqttOptions::new(client_id, "127.0.0.1", self.address.port());
        options.set_keep_alive(Duration::from_secs(30));
        options
    }
}

/// The door under test.
struct Door {
    inbound: mpsc::Receiver<Inbound>,
    metrics: BrokerMetrics,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Door {
    async fn open(address: SocketAddr) -> Self {
        let (sender, inbound) = mpsc::channel(8);
        let metrics = BrokerMetrics::register(&Registry::new()).unwrap();
        let shutdown = CancellationToken::new();
        let config = BrokerConfig {
            host: address.ip().to_string(),
            port: address.port(),
            client_id: "caregate-test".to_owned(),
            login: None,
            devices: BTreeSet::from([device("a")]),
        };
        let task = tokio::spawn(run(config, sender, metrics.clone(), shutdown.clone()));
        let door = Self { inbound, metrics, shutdown, task };
        within("the subscription", async {
            while door.metrics.subscribed.get() == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        door
    }

    async fn next(&mut self) -> Inbound {
        within("a publish", self.inbound.recv()).await.unwrap()
    }

    async fn counted(&self, verdict: &str, count: u64) {
        within(verdict, async {
            while self.metrics.publishes.with_label_values(&[verdict]).get() < count {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    async fn close(self) {
        self.shutdown.cancel();
        within("the door to close", self.task).await.unwrap();
    }
}

async fn publish(publisher: &mut Client, topic: &str, payloads: &[&str]) {
    for payload in payloads {
        publisher.client.publish(topic, QoS::AtLeastOnce, false, *payload).await.unwrap();
        publisher.puback().await;
    }
}

/// The broker may have one publish of ours unacknowledged: the second comes only after our PUBACK of the first, so when it
/// comes shows when we acknowledged.
#[tokio::test]
async fn the_broker_is_acknowledged_only_after_the_verdict() {
    let broker = Mosquitto::start(1).await;
    let mut door = Door::open(broker.address).await;
    let mut publisher = Client::up(broker.options("publisher")).await;
    publish(&mut publisher, TOPIC, &["1", "2", "3"]).await;
    let first = door.next().await;
    assert_eq!((first.device.as_str(), &first.payload[..]), ("a", &b"1"[..]));
    // A round trip through the broker and the door, at QoS 0, which no window holds up: had there been a PUBACK, "2" would be first.
    publisher.client.publish(TOPIC, QoS::AtMostOnce, false, "unheld").await.unwrap();
    let unheld = door.next().await;
    assert_eq!(&unheld.payload[..], b"unheld");
    unheld.verdict.send(Verdict::Stored).unwrap();
    first.verdict.send(Verdict::Stored).unwrap();
    for (payload, verdict) in [("2", Verdict::Quarantined), ("3", Verdict::Stored)] {
        let inbound = door.next().await;
        assert_eq!(inbound.payload, payload);
        inbound.verdict.send(verdict).unwrap();
    }
    door.counted("stored", 3).await;
    door.counted("quarantined", 1).await;
    door.close().await;
}

#[tokio::test]
async fn what_was_refused_or_unanswered_comes_again() {
    let broker = Mosquitto::start(20).await;
    let mut door = Door::open(broker.address).await;
    let mut publisher = Client::up(broker.options("publisher")).await;
    publish(&mut publisher, TOPIC, &["1", "2", "3"]).await;
    let (first, second, third) = (door.next().await, door.next().await, door.next().await);
    // The third is stored, but behind a refusal: it is not acknowledged either.
    third.verdict.send(Verdict::Stored).unwrap();
    second.verdict.send(Verdict::Refused).unwrap();
    first.verdict.send(Verdict::Stored).unwrap();
    for payload in ["2", "3"] {
        let inbound = door.next().await;
        assert_eq!(inbound.payload, payload, "redelivered, and 1 is not");
        inbound.verdict.send(Verdict::Stored).unwrap();
    }
    door.counted("refused", 1).await;
    assert_eq!(door.metrics.closes.with_label_values(&["refused"]).get(), 1);

    // Unanswered at shutdown: it comes again in the next run.
    publish(&mut publisher, TOPIC, &["4"]).await;
    let fourth = door.next().await;
    assert_eq!(fourth.payload, "4");
    drop(fourth);
    door.close().await;
    let mut door = Door::open(broker.address).await;
    let fourth = door.next().await;
    assert_eq!(fourth.payload, "4");
    fourth.verdict.send(Verdict::Stored).unwrap();
    door.counted("stored", 1).await;
    door.close().await;

    let mut door = Door::open(broker.address).await;
    publish(&mut publisher, TOPIC, &["5"]).await;
    let fifth = door.next().await;
    assert_eq!(fifth.payload, "5", "4 was acknowledged before the door closed");
    fifth.verdict.send(Verdict::Stored).unwrap();
    door.close().await;
}

/// With a window of one, an unfit message that was not acknowledged would hold up everything behind it.
#[tokio::test]
async fn what_no_repetition_can_mend_is_acknowledged_and_counted() {
    let broker = Mosquitto::start(1).await;
    let mut door = Door::open(broker.address).await;
    let mut publisher = Client::up({
        let mut options = broker.options("publisher");
        options.set_max_packet_size(1 << 20, 1 << 20);
        options
    })
    .await;
    let large = "x".repeat(300_000);
    publish(&mut publisher, "vitals/v1/stranger/num/x", &["1"]).await;
    publish(&mut publisher, "vitals/v1/a", &["2"]).await;
    publish(&mut publisher, "vitals/v1/a/wave/x", &[&large]).await;
    publish(&mut publisher, TOPIC, &["fit"]).await;
    let inbound = door.next().await;
    assert_eq!(inbound.payload, "fit");
    inbound.verdict.send(Verdict::Stored).unwrap();
    for reason in ["unknown-device", "foreign-topic", "too-large", "stored"] {
        door.counted(reason, 1).await;
    }
    door.close().await;
}

#[tokio::test]
async fn a_broker_that_comes_back_is_subscribed_to_again() {
    let broker = Mosquitto::start(20).await;
    let address = broker.address;
    let mut door = Door::open(address).await;
    drop(broker);
    within("the end of the subscription", async {
        while door.metrics.subscribed.get() == 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Another server takes the port: it accepts, says nothing that is MQTT, and closes.
    let noise = within("the port", async {
        loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    let (mut stream, _) = within("the next attempt", noise.accept()).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    drop(stream);
    // An MQTT server comes back: one attempt later the subscription is asked for again.
    let (stream, _) = within("one more attempt", noise.accept()).await.unwrap();
    let mut raw = mqtt_support::Raw(stream);
    let connect = raw.receive(2).await;
    raw.receive(usize::from(connect[1])).await;
    raw.send(&[0x20, 2, 1, 0]).await;
    let subscribe = raw.receive(2).await;
    assert_eq!(subscribe[0], 0x82);
    let body = raw.receive(usize::from(subscribe[1])).await;
    raw.send(&[0x90, 3, body[0], body[1], 1]).await;
    raw.send(&mqtt_support::publish(TOPIC, 9, b"72")).await;
    let inbound = door.next().await;
    inbound.verdict.send(Verdict::Stored).unwrap();
    assert_eq!(raw.receive(4).await, [0x40, 2, 0, 9]);
    drop(raw);
    door.shutdown.cancel();
    within("the door to close", &mut door.task).await.unwrap();
}
