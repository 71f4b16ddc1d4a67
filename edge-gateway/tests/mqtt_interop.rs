//! The embedded server against clients that others wrote, in both versions of the protocol: Eclipse paho (Python), MQTT.js over TCP and
//! WebSocket, mosquitto_pub and mosquitto_sub, rumqttc. The scripts are in `tests/interop/mqtt`; `cargo xtask interop --mqtt` installs
//! their packages. What is missing fails by name.

#![expect(clippy::unwrap_used, reason = "a test's own helpers may panic")]

mod mqtt_support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use edge_gateway::ingest::{Inbound, Verdict};
use edge_gateway::mqtt::limits::Limits;
use mqtt_support::{Door, PATIENCE, SECRET, within};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    Filter, LastWill, LastWillProperties, Packet, PubAckReason, PubRecReason, PublishProperties,
    SubscribeProperties, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// All cases of one script take some 20 s.
const SCRIPT_PATIENCE: Duration = Duration::from_secs(180);

const TOPIC: &str = "vitals/v1/a/num/heart-rate";

/// A pipeline that stores all but what says `refuse`.
async fn store(mut inbound: mpsc::Receiver<Inbound>) {
    while let Some(inbound) = inbound.recv().await {
        let verdict = if &inbound.payload[..] == b"refuse" { Verdict::Refused } else { Verdict::Stored };
        inbound.verdict.send(verdict).ok();
    }
}

/// A server with its pipeline, and one with a Server Keep Alive of 2 s and a Receive Maximum of 2.
struct Servers {
    plain: Door,
    short: Door,
}

impl Servers {
    async fn open() -> Self {
        let mut plain = Door::open(Limits::default()).await;
        let limits = Limits { keep_alive_s_max: 2, inflight_max: 2, ..Limits::default() };
        let mut short = Door::open(limits).await;
        for door in [&mut plain, &mut short] {
            let (_, none) = mpsc::channel(1);
            tokio::spawn(store(std::mem::replace(&mut door.inbound, none)));
        }
        Self { plain, short }
    }
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop/mqtt")
}

/// Runs a client to its end; it must exist, and end well.
async fn runs(program: PathBuf, args: Vec<String>) -> String {
    let name = format!("{} {}", program.display(), args.join(" "));
    let mut command = Command::new(program);
    command.args(args).current_dir(scripts()).stdin(Stdio::null());
    let ran = tokio::task::spawn_blocking(move || command.output());
    let output: Output = match timeout(SCRIPT_PATIENCE, ran).await {
        Ok(ended) => match ended.unwrap() {
            Ok(output) => output,
            Err(error) => panic!("{name} can't run ({error}); `cargo xtask interop --mqtt` installs it"),
        },
        Err(_) => panic!("{name}: did not end within {SCRIPT_PATIENCE:?}"),
    };
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {}\n{said}\n{complained}", output.status);
    said.into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paho() {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../interop/paho/bin/python3");
    for protocol in ["4", "5"] {
        let servers = Servers::open().await;
        let ports = [&servers.plain, &servers.short].map(|door| door.address.port().to_string());
        let script = scripts().join("paho_client.py").display().to_string();
        let args = [vec![script], ports.to_vec(), vec![protocol.to_owned()]].concat();
        let said = runs(python.clone(), args).await;
        assert_eq!(said.lines().count(), 10, "{said}");
    }
}

async fn mqtt_js(protocol: &str, websocket: bool) {
    assert!(
        scripts().join("node_modules/mqtt").exists(),
        "MQTT.js is missing: `cargo xtask interop --mqtt` installs it"
    );
    let servers = Servers::open().await;
    let url = |door: &Door| match websocket {
        true => format!("ws://127.0.0.1:{}/mqtt", door.websocket.port()),
        false => format!("mqtt://127.0.0.1:{}", door.address.port()),
    };
    let args =
        vec!["mqttjs_client.mjs".to_owned(), url(&servers.plain), url(&servers.short), protocol.to_owned()];
    let said = runs("node".into(), args).await;
    assert_eq!(said.lines().count(), 10, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_js_over_tcp() {
    mqtt_js("4", false).await;
    mqtt_js("5", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_js_over_websocket() {
    mqtt_js("4", true).await;
    mqtt_js("5", true).await;
}

/// A mosquitto program of Debian's, in one version of the protocol.
struct Mosquitto<'a> {
    door: &'a Door,
    version: &'static str,
}

impl Mosquitto<'_> {
    fn args(&self, device: &str, more: &[&str]) -> Vec<String> {
        let (port, user) = (self.door.address.port().to_string(), format!("user-{device}"));
        let login = ["-h", "127.0.0.1", "-p", &port, "-V", self.version, "-u", &user, "-P", SECRET];
        login.iter().chain(more).map(|argument| (*argument).to_owned()).collect()
    }

    async fn publishes(&self, more: &[&str]) {
        runs("mosquitto_pub".into(), self.args("a", more)).await;
    }

    /// Subscribes as a display, and returns once it has; it ends after `count` messages.
    async fn subscribes(&self, count: usize, more: &[&str]) -> JoinHandle<String> {
        let before = self.door.metrics.packets.with_label_values(&["subscribe"]).get();
        let count = count.to_string();
        let args = self.args("display", &[&["-C", &count, "-W", "60"], more].concat());
        let running = tokio::spawn(runs("mosquitto_sub".into(), args));
        within("the subscription", async {
            while self.door.metrics.packets.with_label_values(&["subscribe"]).get() == before {
                tokio::task::yield_now().await;
            }
        })
        .await;
        running
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mosquitto() {
    for version in ["mqttv311", "mqttv5"] {
        let servers = Servers::open().await;
        let mosquitto = Mosquitto { door: &servers.plain, version };
        let all = ["-t", "vitals/v1/#", "-q", "2", "-F", "%q %r %p"];
        let display = mosquitto.subscribes(4, &[&all[..], &["-k", "60", "-t", TOPIC]].concat()).await;
        for qos in ["0", "1", "2"] {
            mosquitto.publishes(&["-t", TOPIC, "-q", qos, "-m", qos]).await;
        }
        mosquitto.publishes(&["-t", "vitals/v1/a/status", "-q", "1", "-r", "-m", "online"]).await;
        assert_eq!(display.await.unwrap(), "0 0 0\n1 0 1\n2 0 2\n1 0 online\n");
        let display = mosquitto.subscribes(1, &all).await;
        assert_eq!(display.await.unwrap(), "1 1 online\n", "retained");
        mosquitto.publishes(&["-t", "vitals/v1/a/status", "-q", "1", "-r", "-n"]).await;

        // A session that is kept.
        let kept = ["-c", "-i", "kept"];
        let display = mosquitto.subscribes(1, &[&all[..], &kept].concat()).await;
        mosquitto.publishes(&["-t", TOPIC, "-q", "2", "-m", "first"]).await;
        assert_eq!(display.await.unwrap(), "2 0 first\n");
        mosquitto.publishes(&["-t", TOPIC, "-q", "2", "-m", "while it was away"]).await;
        let display = mosquitto.subscribes(1, &[&all[..], &kept].concat()).await;
        assert_eq!(display.await.unwrap(), "2 0 while it was away\n");
        if version == "mqttv5" {
            let display = mosquitto
                .subscribes(2, &[&all[..], &["-D", "connect", "receive-maximum", "1"]].concat())
                .await;
            mosquitto
                .publishes(&["-t", TOPIC, "-q", "2", "-m", "1", "-D", "publish", "topic-alias", "4"])
                .await;
            mosquitto
                .publishes(&["-t", TOPIC, "-q", "1", "-m", "2", "-D", "publish", "user-property", "k", "v"])
                .await;
            assert_eq!(display.await.unwrap(), "2 0 1\n1 0 2\n");
        }
    }
}

/// rumqttc's client of MQTT 5.0, whose packets a task collects.
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
async fn rumqttc_5() {
    let servers = Servers::open().await;
    let (mut display, _) = Client::up(options(&servers.plain, "display", "d")).await;
    let subscription = SubscribeProperties { id: Some(300), user_properties: Vec::new() };
    let mut filter = Filter::new("vitals/v1/a/#", QoS::ExactlyOnce);
    filter.preserve_retain = true;
    display.client.subscribe_many_with_properties([filter], subscription).await.unwrap();
    let Packet::SubAck(ack) = display.packet().await else { panic!("not a SUBACK") };
    assert_eq!(ack.return_codes, [SubscribeReasonCode::Success(QoS::ExactlyOnce)]);

    let mut sensor = options(&servers.plain, "a", "sensor");
    let delay = LastWillProperties {
        delay_interval: Some(1),
        payload_format_indicator: None,
        message_expiry_interval: None,
        content_type: None,
        response_topic: None,
        correlation_data: None,
        user_properties: Vec::new(),
    };
    sensor.set_last_will(LastWill::new("vitals/v1/a/status", "lost", QoS::AtLeastOnce, true, Some(delay)));
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
    sensor.client.publish("vitals/v1/b/num/x", QoS::AtLeastOnce, false, "72").await.unwrap();
    assert!(
        matches!(sensor.packet().await, Packet::PubAck(ack) if ack.reason == PubAckReason::NotAuthorized)
    );
    drop(sensor);
    let message = display.message().await;
    assert_eq!((&message.topic[..], &message.payload[..]), (&b"vitals/v1/a/status"[..], &b"lost"[..]));

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

/// With 3.1.1: a session with QoS 2 that is kept over a lost connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rumqttc_3_1_1() {
    let servers = Servers::open().await;
    let kept = || {
        let mut options = mqtt_support::options(&servers.plain, "display", "kept");
        options.set_clean_session(false);
        options
    };
    let mut display = mqtt_support::Client::up(kept()).await;
    display.client.subscribe("vitals/v1/a/#", rumqttc::QoS::ExactlyOnce).await.unwrap();
    assert!(matches!(display.event().await, Ok(rumqttc::Packet::SubAck(_))));
    let mut sensor = mqtt_support::Client::up(mqtt_support::options(&servers.plain, "a", "sensor")).await;
    drop(display);
    for value in 0..3 {
        sensor.client.publish(TOPIC, rumqttc::QoS::ExactlyOnce, false, value.to_string()).await.unwrap();
    }
    let mut complete = 0;
    while complete < 3 {
        complete += usize::from(matches!(sensor.event().await, Ok(rumqttc::Packet::PubComp(_))));
    }
    let mut display = mqtt_support::Client::start(kept());
    assert!(matches!(display.event().await, Ok(rumqttc::Packet::ConnAck(ack)) if ack.session_present));
    let mut values = Vec::new();
    while values.len() < 3 {
        if let Ok(rumqttc::Packet::Publish(publish)) = display.event().await {
            values.push(String::from_utf8(publish.payload.to_vec()).unwrap());
        }
    }
    assert_eq!(values, ["0", "1", "2"]);
}
