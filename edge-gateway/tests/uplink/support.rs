//! A core that the test plays, and a gateway's spool and uplink.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caregate_host::admin::{Condition, Health};
use caregate_host::identity::Role;
use caregate_protocol::id::Lane;
use caregate_protocol::uplink::{ALPN, Frame, Framer, VERSION, ack_frames};
use edge_gateway::metrics::Metrics;
use edge_gateway::pipeline::commit::Spooled;
use edge_gateway::spool::{Limits, Log, Position};
use edge_gateway::uplink::Uplink;
use edge_gateway::uplink::connection::{Link, LinkError};
use edge_gateway::uplink::ports::LanePorts;
use edge_gateway::uplink::schedule::Part;
use prometheus::Registry;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream, ServerConfig, TransportConfig, VarInt};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::pki::Ca;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: did not happen within {PATIENCE:?}"),
    }
}

pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    within(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// The core's end, played by the test.
pub(crate) struct Core {
    pub(crate) endpoint: Endpoint,
    pub(crate) address: SocketAddr,
}

impl Core {
    /// `window`: bytes in flight on each connection, so that little waits in buffers.
    pub(crate) fn new(ca: &Ca, window: u32) -> Self {
        let tls = ca.identity(Role::Core, "core-1").server_config(&[Role::Gateway], &[ALPN]);
        let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        let mut parameters = TransportConfig::default();
        parameters
            .receive_window(VarInt::from_u32(window))
            .stream_receive_window(VarInt::from_u32(window / 2));
        config.transport_config(Arc::new(parameters));
        let endpoint = Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
        let address = endpoint.local_addr().unwrap();
        Self { endpoint, address }
    }

    /// The next connection, before any word of ours.
    pub(crate) async fn accept(&self) -> Line {
        within("a connection", async {
            let connection = self.endpoint.accept().await.unwrap().await.unwrap();
            let (control, mut incoming) = connection.accept_bi().await.unwrap();
            assert_eq!(
                frame(&mut Framer::new(), &mut incoming).await,
                Some(Frame::Hello { version: VERSION })
            );
            // The gateway says nothing more on it; kept so that it is not reset.
            tokio::spawn(async move { drop(incoming.read_to_end(usize::MAX).await) });
            Line { connection, control }
        })
        .await
    }

    pub(crate) async fn welcome_one(&self) -> Line {
        let mut line = self.accept().await;
        line.control.write_all(&Frame::Welcome { version: VERSION }.encode()).await.unwrap();
        line
    }

    /// All connections of one gateway, when it counts them as such.
    pub(crate) async fn welcome(&self, gateway: &Gateway) -> Session {
        let mut session = Session::default();
        while session.lines.len() < Part::ALL.len() {
            session.lines.push(self.welcome_one().await);
        }
        until("the gateway is connected", || gateway.ready()).await;
        session
    }
}

pub(crate) async fn frame(framer: &mut Framer, stream: &mut RecvStream) -> Option<Frame> {
    loop {
        if let Some(frame) = framer.next_frame().unwrap() {
            return Some(frame);
        }
        match stream.read_chunk(16 << 10, true).await {
            Ok(Some(chunk)) => framer.push(&chunk.bytes),
            Ok(None) | Err(_) => return None,
        }
    }
}

/// A record as it came: lane, whether as backlog, position.
pub(crate) type Received = (Lane, bool, u64);

/// One connection, after its hello.
pub(crate) struct Line {
    pub(crate) connection: Connection,
    pub(crate) control: SendStream,
}

impl Line {
    pub(crate) async fn say(&mut self, frame: &Frame) {
        self.control.write_all(&frame.encode()).await.unwrap();
    }

    /// The gateway's port.
    pub(crate) fn port(&self) -> u16 {
        self.connection.remote_address().port()
    }
}

/// All connections of a gateway, and which of them each position came on.
#[derive(Default)]
pub(crate) struct Session {
    pub(crate) lines: Vec<Line>,
    pub(crate) carried: Arc<Mutex<BTreeMap<u64, usize>>>,
}

impl Session {
    /// Everything that comes on any connection, in the order in which it is read; each stream is read as fast as `received`.
    pub(crate) fn receive(&self) -> mpsc::Receiver<Received> {
        self.receive_but(|_| false)
    }

    /// Without those connections that `deaf` names, which are not read at all.
    pub(crate) fn receive_but(&self, deaf: impl Fn(&Line) -> bool) -> mpsc::Receiver<Received> {
        let (sender, received) = mpsc::channel(1);
        for (number, line) in self.lines.iter().enumerate().filter(|(_, line)| !deaf(line)) {
            let (connection, sender, carried) =
                (line.connection.clone(), sender.clone(), Arc::clone(&self.carried));
            tokio::spawn(async move {
                while let Ok(stream) = connection.accept_uni().await {
                    tokio::spawn(read(stream, number, sender.clone(), Arc::clone(&carried)));
                }
            });
        }
        received
    }

    /// Acknowledges what came within these ranges, on the connections on which it came.
    pub(crate) async fn ack(&mut self, ranges: &[(u64, u64)]) {
        let mut by_line = vec![Vec::new(); self.lines.len()];
        for (position, line) in &*self.carried.lock().unwrap() {
            if ranges.iter().any(|(first, last)| (first..=last).contains(&position)) {
                by_line[*line].push(*position);
            }
        }
        for (line, mut positions) in self.lines.iter_mut().zip(by_line) {
            for frame in ack_frames(&mut positions) {
                line.say(&frame).await;
            }
        }
    }

    pub(crate) fn close(&self) {
        self.lines.iter().for_each(|line| line.connection.close(0_u32.into(), b""));
    }

    pub(crate) fn line(&mut self, port: u16) -> &mut Line {
        self.lines.iter_mut().find(|line| line.port() == port).unwrap()
    }
}

async fn read(
    mut stream: RecvStream,
    line: usize,
    sender: mpsc::Sender<Received>,
    carried: Arc<Mutex<BTreeMap<u64, usize>>>,
) {
    let mut framer = Framer::new();
    let Some(Frame::Lane { lane, backlog }) = frame(&mut framer, &mut stream).await else {
        panic!("a stream begins with its lane")
    };
    while let Some(Frame::Data { position, .. }) = frame(&mut framer, &mut stream).await {
        carried.lock().unwrap().insert(position, line);
        if sender.send((lane, backlog, position)).await.is_err() {
            return;
        }
    }
}

pub(crate) async fn next(received: &mut mpsc::Receiver<Received>) -> Received {
    within("a record", received.recv()).await.unwrap()
}

pub(crate) async fn take(received: &mut mpsc::Receiver<Received>, count: usize) -> Vec<Received> {
    let mut all = Vec::new();
    while all.len() < count {
        all.push(next(received).await);
    }
    all
}

/// A gateway's spool and uplink.
pub(crate) struct Gateway {
    pub(crate) dir: TempDir,
    pub(crate) log: Log,
    pub(crate) uplink: Arc<Uplink>,
    pub(crate) metrics: Metrics,
    pub(crate) acked: mpsc::Receiver<std::ops::RangeInclusive<u64>>,
    pub(crate) connected: Condition,
    pub(crate) stop: CancellationToken,
    pub(crate) link: JoinHandle<Result<(), LinkError>>,
}

impl Gateway {
    /// With these records in the spool when it starts.
    pub(crate) fn start(ca: &Ca, core: SocketAddr, records: &[(Lane, usize)]) -> Self {
        Self::start_with(ca, core, records, None, |_, _| {})
    }

    /// `meddle` gets the folder and the log before the uplink starts.
    pub(crate) fn start_with(
        ca: &Ca,
        core: SocketAddr,
        records: &[(Lane, usize)],
        lane_ports: Option<LanePorts>,
        meddle: impl FnOnce(&TempDir, &mut Log),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(dir.path(), Limits::with_budget(64 << 20)).unwrap();
        let unacked: Vec<_> =
            records.iter().map(|(lane, bytes)| (append(&mut log, *lane, *bytes), *lane)).collect();
        meddle(&dir, &mut log);
        let uplink = Arc::new(Uplink::new(unacked));
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let (acked_out, acked) = mpsc::channel(1024);
        let connected = Health::new().condition("core");
        let link = Link {
            core_tcp: None,
            core,
            core_name: Some("core-1".into()),
            lane_ports,
            identity: ca.identity(Role::Gateway, "gateway-1"),
            reader: log.reader(),
            uplink: Arc::clone(&uplink),
            acked: acked_out,
            metrics: metrics.clone(),
            connected: connected.clone(),
            staff: None,
            offers: None,
        };
        let stop = CancellationToken::new();
        let link = tokio::spawn(link.run(stop.clone()));
        Self { dir, log, uplink, metrics, acked, connected, stop, link }
    }

    pub(crate) fn spool(&mut self, lane: Lane, bytes: usize) -> u64 {
        let position = append(&mut self.log, lane, bytes);
        let (_, record) = self.log.reader().read(Position(position)).unwrap().unwrap();
        self.uplink.spooled(vec![Spooled { position, lane, record }]);
        position
    }

    /// Appends without a sync and lets it go up.
    pub(crate) fn early(&mut self, lane: Lane) -> u64 {
        let record = self.log.next().to_be_bytes().repeat(50);
        let Position(position) = self.log.append(lane, &record).unwrap();
        self.uplink.early(vec![Spooled { position, lane, record }]);
        position
    }

    pub(crate) fn sync(&mut self) {
        self.log.sync().unwrap();
        self.uplink.durable(self.log.durable());
    }

    /// All five connections stand.
    pub(crate) fn ready(&self) -> bool {
        let stands = |part: Part| self.metrics.lane_connected.with_label_values(&[part.as_str()]).get() == 1;
        self.connected.holds() && Part::ALL.into_iter().all(stands)
    }

    pub(crate) fn failures(&self, reason: &str) -> u64 {
        self.metrics.uplink_failures.with_label_values(&[reason]).get()
    }

    pub(crate) async fn stopped(self) {
        self.stop.cancel();
        within("the uplink's end", self.link).await.unwrap().unwrap();
    }
}

pub(crate) fn append(log: &mut Log, lane: Lane, bytes: usize) -> u64 {
    if log.rotation_due() {
        log.rotate(b"").unwrap();
    }
    let next = log.stats().next.0;
    let record: Vec<u8> = next.to_be_bytes().into_iter().cycle().take(bytes).collect();
    let Position(position) = log.append(lane, &record).unwrap();
    log.sync().unwrap();
    position
}
