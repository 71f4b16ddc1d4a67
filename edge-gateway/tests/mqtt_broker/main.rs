//! The client of an existing broker, against mosquitto. Where mosquitto is missing these tests fail and say so.

#![expect(clippy::unwrap_used, reason = "a test's own helpers may panic")]

#[path = "../mqtt_support/mod.rs"]
mod mqtt_support;
mod quiet;
mod tls;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use edge_gateway::ingest::{self, Fault, Inbound, Inlet, Intake, Verdict};
use edge_gateway::mqtt::broker::{BrokerConfig, run, run_with_quiet};
use edge_gateway::mqtt::metrics::BrokerMetrics;
use mqtt_support::{Client, device, within};
use prometheus::Registry;
use rumqttc::{MqttOptions, QoS};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const TOPIC: &str = "vitals/v1/a/num/heart-rate";

/// Debian has mosquitto in `/usr/sbin`, which is not on everybody's path.
fn mosquitto_path() -> &'static str {
    if Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" }
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
        Self::start_with(max_inflight, "").await
    }

    /// With more lines for its listener.
    async fn start_with(max_inflight: u16, more: &str) -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("mosquitto.conf");
        let text = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_inflight_messages {max_inflight}\n{more}",
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

/// Device `a` is the only one that is taken.
fn config_of(address: SocketAddr, socket: Option<PathBuf>) -> BrokerConfig {
    BrokerConfig {
        host: address.ip().to_string(),
        port: address.port(),
        client_id: "caregate-test".to_owned(),
        login: None,
        devices: BTreeSet::from([device("a")]),
        socket,
    }
}

/// The door under test.
struct Door {
    inbound: Intake,
    metrics: BrokerMetrics,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Door {
    async fn open(address: SocketAddr) -> Self {
        Self::open_on(address, None, ingest::queue()).await
    }

    /// Behind a tunnel.
    async fn open_by(address: SocketAddr, socket: PathBuf) -> Self {
        Self::open_on(address, Some(socket), ingest::queue()).await
    }

    async fn open_on(
        address: SocketAddr,
        socket: Option<PathBuf>,
        (inlet, inbound): (Inlet, Intake),
    ) -> Self {
        let metrics = BrokerMetrics::register(&Registry::new()).unwrap();
        let shutdown = CancellationToken::new();
        let config = config_of(address, socket);
        let task = tokio::spawn(run(config, inlet, metrics.clone(), shutdown.clone()));
        Self { inbound, metrics, shutdown, task }.subscribed().await
    }

    /// To which a broker is quiet after so long.
    async fn open_quiet(address: SocketAddr, quiet: Duration) -> Self {
        let (inlet, inbound) = ingest::queue();
        let metrics = BrokerMetrics::register(&Registry::new()).unwrap();
        let shutdown = CancellationToken::new();
        let config = config_of(address, None);
        let task = tokio::spawn(run_with_quiet(config, inlet, metrics.clone(), shutdown.clone(), quiet));
        Self { inbound, metrics, shutdown, task }.subscribed().await
    }

    async fn subscribed(self) -> Self {
        within("the subscription", async {
            while self.metrics.subscribed.get() == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        self
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
    for (payload, verdict) in [("2", Verdict::Quarantined(Fault::Payload)), ("3", Verdict::Stored)] {
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

/// The next connection to a broker that knows 3.1.1 only, and whether it wants a clean session; CONNACK says that the session is there.
async fn accept_3_1_1(listener: &TcpListener) -> (mqtt_support::Raw, bool) {
    loop {
        let (stream, _) = within("the next attempt", listener.accept()).await.unwrap();
        let mut raw = mqtt_support::Raw(stream);
        let head = raw.receive(2).await;
        let connect = raw.receive(usize::from(head[1])).await;
        if connect[6] == 4 {
            raw.send(&[0x20, 2, 1, 0]).await;
            return (raw, connect[7] & 2 != 0);
        }
        assert_eq!(connect[6], 5);
        // "Unacceptable protocol version", as 3.1.1 says it.
        raw.send(&[0x20, 2, 0, 1]).await;
    }
}

/// SUBSCRIBE has come and is granted.
async fn subscribed(raw: &mut mqtt_support::Raw) {
    let subscribe = raw.receive(2).await;
    assert_eq!(subscribe[0], 0x82);
    let body = raw.receive(usize::from(subscribe[1])).await;
    raw.send(&[0x90, 3, body[0], body[1], 1]).await;
}

/// Whoever may publish to the broker sends what is longer than is read at all: it is the broker's to drop, be the gateway there or away.
#[tokio::test]
async fn what_is_longer_than_is_read_ends_nothing() {
    // As many as mosquitto has by default: 2.0.11 does not give back the place of a message that it drops.
    let broker = Mosquitto::start(20).await;
    let mut door = Door::open(broker.address).await;
    let mut options = broker.options("publisher");
    options.set_max_packet_size(2 << 20, 2 << 20);
    let mut publisher = Client::up(options).await;
    let large = "x".repeat((1 << 20) + 1);
    for fit in ["1", "2"] {
        publish(&mut publisher, "vitals/v1/anything", &[&large]).await;
        publish(&mut publisher, TOPIC, &[fit]).await;
        let inbound = door.next().await;
        assert_eq!(inbound.payload, fit);
        inbound.verdict.send(Verdict::Stored).unwrap();
    }
    door.counted("stored", 2).await;
    for reason in ["connection", "too-large"] {
        assert_eq!(door.metrics.closes.with_label_values(&[reason]).get(), 0, "{reason}");
    }
    door.close().await;
    publish(&mut publisher, "vitals/v1/anything", &[&large]).await;
    publish(&mut publisher, TOPIC, &["3"]).await;
    let mut door = Door::open(broker.address).await;
    let inbound = door.next().await;
    assert_eq!(inbound.payload, "3");
    inbound.verdict.send(Verdict::Stored).unwrap();
    door.counted("stored", 1).await;
    door.close().await;
}

/// A broker of 3.1.1 can't be told how much is read: it sends the same again, until its session is thrown away.
#[tokio::test]
async fn a_session_that_begins_with_what_is_too_long_is_thrown_away() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, broker) = tokio::sync::oneshot::channel();
    let served = tokio::spawn(async move {
        for _ in 0..2 {
            let (mut raw, clean) = accept_3_1_1(&listener).await;
            assert!(!clean);
            subscribed(&mut raw).await;
            // The head of a PUBLISH of 2 MiB.
            raw.send(&[0x32, 0x80, 0x80, 0x80, 1]).await;
            raw.rest().await;
        }
        let (mut raw, clean) = accept_3_1_1(&listener).await;
        assert!(clean, "the third time it is thrown away");
        raw.rest().await;
        let (mut raw, clean) = accept_3_1_1(&listener).await;
        assert!(!clean);
        subscribed(&mut raw).await;
        raw.send(&mqtt_support::publish(TOPIC, 9, b"72")).await;
        assert_eq!(raw.receive(4).await, [0x40, 2, 0, 9]);
        sender.send(()).unwrap();
        raw.rest().await;
    });
    let mut door = Door::open(address).await;
    let inbound = door.next().await;
    assert_eq!(&inbound.payload[..], b"72");
    inbound.verdict.send(Verdict::Stored).unwrap();
    within("the PUBACK", broker).await.unwrap();
    let closes = |reason| door.metrics.closes.with_label_values(&[reason]).get();
    assert_eq!((closes("too-large"), closes("session-discarded")), (2, 1));
    door.close().await;
    within("the broker's end", served).await.unwrap();
}

/// What comes before a message that is too long, in one burst with it, is taken and acknowledged, so that the message comes to the head of
/// the broker's queue; only then does it cost the session, and nothing that was good.
#[tokio::test]
async fn what_comes_before_what_is_too_long_is_acknowledged() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        // The head of a PUBLISH of 2 MiB.
        let large = [0x32, 0x80, 0x80, 0x80, 1];
        for _ in 0..2 {
            let (mut raw, clean) = accept_3_1_1(&listener).await;
            assert!(!clean);
            subscribed(&mut raw).await;
            let mut burst: Vec<u8> = Vec::new();
            (1..=15).for_each(|id| burst.extend(mqtt_support::publish(TOPIC, id, b"72")));
            burst.extend(large);
            raw.send(&burst).await;
            let mut expected: Vec<u8> = (1..=15).flat_map(|id| [0x40, 2, 0, id]).collect();
            expected.extend([0xe0, 0]);
            assert_eq!(raw.rest().await, expected, "all are acknowledged, in their order");
        }
        let (mut raw, clean) = accept_3_1_1(&listener).await;
        assert!(!clean, "something came both times");
        subscribed(&mut raw).await;
        raw.send(&large).await;
        assert_eq!(raw.rest().await, [0xe0, 0]);
        let (_raw, clean) = accept_3_1_1(&listener).await;
        assert!(clean, "and now nothing did");
    });
    let mut door = Door::open(address).await;
    for _ in 0..2 {
        let mut taken = Vec::new();
        for _ in 0..15 {
            taken.push(door.next().await);
        }
        // The door has long seen the end of the burst.
        tokio::time::sleep(Duration::from_millis(100)).await;
        for inbound in taken {
            inbound.verdict.send(Verdict::Stored).unwrap();
        }
    }
    within("the broker's end", served).await.unwrap();
    door.counted("stored", 30).await;
    assert_eq!(door.metrics.closes.with_label_values(&["too-large"]).get(), 3);
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
    // An MQTT server comes back: the subscription is asked for again.
    let (mut raw, _) = accept_3_1_1(&noise).await;
    subscribed(&mut raw).await;
    raw.send(&mqtt_support::publish(TOPIC, 9, b"72")).await;
    let inbound = door.next().await;
    inbound.verdict.send(Verdict::Stored).unwrap();
    assert_eq!(raw.receive(4).await, [0x40, 2, 0, 9]);
    drop(raw);
    door.shutdown.cancel();
    within("the door to close", &mut door.task).await.unwrap();
}

/// The pipeline takes nothing for a while: what is outstanding is answered all the same, nothing is refused, and the door closes when it
/// is told to.
#[tokio::test]
async fn a_full_queue_holds_up_neither_verdicts_nor_a_stop() {
    let broker = Mosquitto::start(20).await;
    let mut door = Door::open_on(broker.address, None, ingest::queue_of(1, 1)).await;
    let mut publisher = Client::up(broker.options("publisher")).await;
    publish(&mut publisher, TOPIC, &["1"]).await;
    let first = door.next().await;
    // "2" has the queue's only place, "3" waits for it, and the rest is the broker's to keep.
    publish(&mut publisher, TOPIC, &["2", "3", "4", "5"]).await;
    first.verdict.send(Verdict::Stored).unwrap();
    door.counted("stored", 1).await;
    for payload in ["2", "3"] {
        let inbound = door.next().await;
        assert_eq!(&inbound.payload[..], payload.as_bytes());
        inbound.verdict.send(Verdict::Stored).unwrap();
    }
    door.counted("stored", 3).await;
    // "4" and "5" are taken by nobody.
    door.close().await;
    // The next one gets them.
    let mut door = Door::open(broker.address).await;
    for payload in ["4", "5"] {
        let inbound = door.next().await;
        assert_eq!(&inbound.payload[..], payload.as_bytes());
        inbound.verdict.send(Verdict::Stored).unwrap();
    }
    door.close().await;
}
