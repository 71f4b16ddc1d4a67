//! A server on a free port, a pipeline that the test answers by hand, and clients.

#![allow(dead_code, clippy::unwrap_used, reason = "a test's own helpers, of which each file uses its part")]

pub(crate) mod pki;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use caregate_protocol::id::DeviceId;
use edge_gateway::ingest::{self, Inbound, Intake, Verdict};
use edge_gateway::mqtt::access::{Access, Reader};
use edge_gateway::mqtt::credentials::{Credential, Credentials};
use edge_gateway::mqtt::kept::SessionFile;
use edge_gateway::mqtt::limits::Limits;
use edge_gateway::mqtt::metrics::ServerMetrics;
use edge_gateway::mqtt::publisher::Publisher;
use edge_gateway::mqtt::server::{Server, TlsDoor};
use prometheus::IntCounterVec;
use prometheus::Registry;
use prometheus::core::Collector;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long any one condition may take: far above what it needs, so that only a fault runs into it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The secret of every device here; enrolment would draw one for each.
pub(crate) const SECRET: &str = "000102030405060708090a0b0c0d0e0f";

pub(crate) fn device(name: &str) -> DeviceId {
    DeviceId::new(name).unwrap()
}

/// Waits for `future` and fails by name if it does not come.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: did not happen within {PATIENCE:?}"),
    }
}

/// A running server.
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) inbound: Intake,
    pub(crate) metrics: ServerMetrics,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: JoinHandle<()>,
    /// The same server over WebSocket.
    pub(crate) websocket: SocketAddr,
    pub(crate) publisher: Publisher,
    pub(crate) server: Arc<Server>,
}

impl Door {
    pub(crate) async fn open(limits: Limits) -> Self {
        Self::open_with(limits, None).await
    }

    /// One that finds what a server before it kept.
    pub(crate) async fn restored(file: &SessionFile) -> Self {
        let door = Self::open(Limits::default()).await;
        door.server.restore(file);
        door
    }

    /// Devices `a`, `b`, `display` and `display-2` have the user names `user-a`, …; the displays may read all readings, what the
    /// gateway says and what `a` says locally, and `a` what a display asks.
    pub(crate) async fn open_with(limits: Limits, tls: Option<TlsDoor>) -> Self {
        let credential =
            |name: &str| Credential::new(device(name), &format!("user-{name}"), b"salt-of-the-test", SECRET);
        let credentials = Credentials::new(["a", "b", "display", "display-2"].map(credential)).unwrap();
        let filters = ["vitals/v1/#", "gateway/v1/#", "local/v1/a/#"].map(str::to_owned).to_vec();
        let reader = |name| Reader { device: device(name), filters: filters.clone() };
        let sensor = Reader { device: device("a"), filters: vec!["local/v1/display/request/#".to_owned()] };
        let access = Access::new([reader("display"), reader("display-2"), sensor]).unwrap();
        let metrics = ServerMetrics::register(&Registry::new()).unwrap();
        let (inlet, inbound) = ingest::queue_of(16, 64);
        let server = Server::new(limits, credentials, access, inlet, metrics.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(Arc::clone(&server).serve(listener, tls.clone(), shutdown.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let websocket = listener.local_addr().unwrap();
        tokio::spawn(Arc::clone(&server).serve_websocket(listener, tls, shutdown.clone()));
        let publisher = server.publisher();
        Self { address, inbound, metrics, shutdown, task, websocket, publisher, server }
    }

    /// What the pipeline would take from here on; the door's own is empty then.
    pub(crate) fn take_inbound(&mut self) -> Intake {
        std::mem::replace(&mut self.inbound, ingest::queue_of(1, 1).1)
    }

    /// The next publish that the pipeline gets.
    pub(crate) async fn next(&mut self) -> Inbound {
        within("a publish", self.inbound.recv()).await.unwrap()
    }

    /// The next publish, answered at once.
    pub(crate) async fn next_stored(&mut self) -> (String, Vec<u8>) {
        let inbound = self.next().await;
        inbound.verdict.send(Verdict::Stored).ok();
        (inbound.topic, inbound.payload.to_vec())
    }

    /// Waits until a counter reaches `count`.
    pub(crate) async fn counted(&self, what: &str, count: u64, read: impl Fn(&ServerMetrics) -> u64) {
        within(what, async {
            while read(&self.metrics) < count {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(read(&self.metrics), count, "{what}");
    }

    pub(crate) async fn closed(&self, reason: &str, count: u64) {
        self.counted(reason, count, |metrics| metrics.closes.with_label_values(&[reason]).get()).await;
    }

    pub(crate) async fn refused(&self, reason: &str, count: u64) {
        self.counted(reason, count, |metrics| metrics.refused.with_label_values(&[reason]).get()).await;
    }

    /// All reasons for which connections ended, with their numbers.
    pub(crate) fn closes(&self) -> Vec<(String, u64)> {
        Self::counts(&self.metrics.closes)
    }

    /// Why connections were refused, and how often.
    pub(crate) fn refusals(&self) -> Vec<(String, u64)> {
        Self::counts(&self.metrics.refused)
    }

    fn counts(counters: &IntCounterVec) -> Vec<(String, u64)> {
        let families = counters.collect();
        let mut counts: Vec<(String, u64)> = families
            .iter()
            .flat_map(|family| family.get_metric())
            .map(|metric| {
                let count = metric.get_counter().get_value();
                (metric.get_label()[0].value().to_owned(), format!("{count}").parse().unwrap())
            })
            .collect();
        counts.sort();
        counts
    }
}

/// A rumqttc client whose events a task collects.
pub(crate) struct Client {
    pub(crate) client: AsyncClient,
    events: mpsc::UnboundedReceiver<Result<Packet, String>>,
    task: JoinHandle<()>,
}

impl Drop for Client {
    /// The socket closes without DISCONNECT.
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn options(door: &Door, device: &str, client_id: &str) -> MqttOptions {
    let mut options = MqttOptions::new(client_id, door.address.ip().to_string(), door.address.port());
    options.set_credentials(format!("user-{device}"), SECRET).set_keep_alive(Duration::from_secs(30));
    options
}

impl Client {
    /// Starts to connect.
    pub(crate) fn start(options: MqttOptions) -> Self {
        let (client, event_loop) = AsyncClient::new(options, 64);
        let (sender, events) = mpsc::unbounded_channel();
        let task = tokio::spawn(collect(event_loop, sender));
        Self { client, events, task }
    }

    /// Connects, and is accepted.
    pub(crate) async fn up(options: MqttOptions) -> Self {
        let mut client = Self::start(options);
        match client.event().await {
            Ok(Packet::ConnAck(ack)) => assert!(!ack.session_present),
            other => panic!("expected CONNACK, got {other:?}"),
        }
        client
    }

    /// The next incoming packet, or why the connection ended.
    pub(crate) async fn event(&mut self) -> Result<Packet, String> {
        within("an event of the client", self.events.recv()).await.unwrap()
    }

    pub(crate) async fn puback(&mut self) -> u16 {
        match self.event().await {
            Ok(Packet::PubAck(ack)) => ack.pkid,
            other => panic!("expected PUBACK, got {other:?}"),
        }
    }

    pub(crate) async fn ended(&mut self) -> String {
        match self.event().await {
            Err(error) => error,
            Ok(packet) => panic!("expected the end of the connection, got {packet:?}"),
        }
    }

    /// Nothing has come in so far.
    pub(crate) fn assert_silent(&mut self) {
        if let Ok(event) = self.events.try_recv() {
            panic!("expected silence, got {event:?}");
        }
    }
}

async fn collect(mut event_loop: EventLoop, sender: mpsc::UnboundedSender<Result<Packet, String>>) {
    loop {
        match event_loop.poll().await {
            Ok(Event::Incoming(packet)) => {
                if sender.send(Ok(packet)).is_err() {
                    return;
                }
            }
            Ok(Event::Outgoing(_)) => {}
            Err(error) => {
                // rumqttc reports the end before the packets that it read along with it.
                for event in std::mem::take(&mut event_loop.state.events) {
                    if let Event::Incoming(packet) = event {
                        sender.send(Ok(packet)).ok();
                    }
                }
                sender.send(Err(error.to_string())).ok();
                return;
            }
        }
    }
}

/// Bytes over a bare socket.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    /// CONNECT of device `a`, accepted.
    pub(crate) async fn up(address: SocketAddr, client_id: &str, keep_alive: u16) -> Self {
        let mut raw = Self::open(address).await;
        raw.send(&connect(client_id, "user-a", SECRET, keep_alive)).await;
        assert_eq!(raw.receive(4).await, [0x20, 2, 0, 0]);
        raw
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn receive(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        within("bytes of the server", self.0.read_exact(&mut bytes)).await.unwrap();
        bytes
    }

    /// Everything up to the server's end of the connection.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        within("the server's end", self.0.read_to_end(&mut bytes)).await.unwrap();
        bytes
    }
}

pub(crate) fn connect(client_id: &str, username: &str, password: &str, keep_alive: u16) -> Vec<u8> {
    let mut connect = rumqttc::mqttbytes::v4::Connect::new(client_id);
    connect.set_login(username, password);
    connect.keep_alive = keep_alive;
    encode(&Packet::Connect(connect))
}

pub(crate) fn publish(topic: &str, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    let qos = if packet_id == 0 { rumqttc::QoS::AtMostOnce } else { rumqttc::QoS::AtLeastOnce };
    let mut publish = rumqttc::Publish::new(topic, qos, payload);
    publish.pkid = packet_id;
    encode(&Packet::Publish(publish))
}

pub(crate) fn encode(packet: &Packet) -> Vec<u8> {
    let mut bytes = bytes::BytesMut::new();
    packet.write(&mut bytes, 1 << 20).unwrap();
    bytes.to_vec()
}
