//! The uplink against a core that the test plays: order, redelivery, lies and garbage, an unreadable record, the drain; and
//! what one connection's fate does to the others.

#![expect(clippy::unwrap_used, reason = "tests")]

mod pipeline_support;
#[path = "../../core-cloud/tests/support/pki.rs"]
mod pki;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caregate_host::admin::{Condition, Health};
use caregate_host::identity::Role;
use caregate_protocol::id::Lane;
use caregate_protocol::uplink::{ALPN, Frame, Framer, Refusal, VERSION, ack_frames};
use edge_gateway::ingest::{Inbound, Verdict};
use edge_gateway::metrics::Metrics;
use edge_gateway::pipeline::commit::Spooled;
use edge_gateway::pipeline::thread::{self, Inputs};
use edge_gateway::spool::{Limits, Log, Position};
use edge_gateway::uplink::Uplink;
use edge_gateway::uplink::connection::{Link, LinkError};
use edge_gateway::uplink::ports::LanePorts;
use edge_gateway::uplink::schedule::Part;
use pipeline_support::{Home, Publish};
use pki::Ca;
use prometheus::Registry;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream, ServerConfig, TransportConfig, VarInt};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(30);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: did not happen within {PATIENCE:?}"),
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    within(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// The core's end, played by the test.
struct Core {
    endpoint: Endpoint,
    address: SocketAddr,
}

impl Core {
    /// `window`: bytes in flight on each connection, so that little waits in buffers.
    fn new(ca: &Ca, window: u32) -> Self {
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
    async fn accept(&self) -> Line {
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

    async fn welcome_one(&self) -> Line {
        let mut line = self.accept().await;
        line.control.write_all(&Frame::Welcome { version: VERSION }.encode()).await.unwrap();
        line
    }

    /// All connections of one gateway, when it counts them as such.
    async fn welcome(&self, gateway: &Gateway) -> Session {
        let mut session = Session::default();
        while session.lines.len() < Part::ALL.len() {
            session.lines.push(self.welcome_one().await);
        }
        until("the gateway is connected", || gateway.ready()).await;
        session
    }
}

async fn frame(framer: &mut Framer, stream: &mut RecvStream) -> Option<Frame> {
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
type Received = (Lane, bool, u64);

/// One connection, after its hello.
struct Line {
    connection: Connection,
    control: SendStream,
}

impl Line {
    async fn say(&mut self, frame: &Frame) {
        self.control.write_all(&frame.encode()).await.unwrap();
    }

    /// The gateway's port.
    fn port(&self) -> u16 {
        self.connection.remote_address().port()
    }
}

/// All connections of a gateway, and which of them each position came on.
#[derive(Default)]
struct Session {
    lines: Vec<Line>,
    carried: Arc<Mutex<BTreeMap<u64, usize>>>,
}

impl Session {
    /// Everything that comes on any connection, in the order in which it is read; each stream is read as fast as `received`.
    fn receive(&self) -> mpsc::Receiver<Received> {
        self.receive_but(|_| false)
    }

    /// Without those connections that `deaf` names, which are not read at all.
    fn receive_but(&self, deaf: impl Fn(&Line) -> bool) -> mpsc::Receiver<Received> {
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
    async fn ack(&mut self, ranges: &[(u64, u64)]) {
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

    fn close(&self) {
        self.lines.iter().for_each(|line| line.connection.close(0_u32.into(), b""));
    }

    fn line(&mut self, port: u16) -> &mut Line {
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

async fn next(received: &mut mpsc::Receiver<Received>) -> Received {
    within("a record", received.recv()).await.unwrap()
}

async fn take(received: &mut mpsc::Receiver<Received>, count: usize) -> Vec<Received> {
    let mut all = Vec::new();
    while all.len() < count {
        all.push(next(received).await);
    }
    all
}

/// A gateway's spool and uplink.
struct Gateway {
    dir: TempDir,
    log: Log,
    uplink: Arc<Uplink>,
    metrics: Metrics,
    acked: mpsc::Receiver<std::ops::RangeInclusive<u64>>,
    connected: Condition,
    stop: CancellationToken,
    link: JoinHandle<Result<(), LinkError>>,
}

impl Gateway {
    /// With these records in the spool when it starts.
    fn start(ca: &Ca, core: SocketAddr, records: &[(Lane, usize)]) -> Self {
        Self::start_with(ca, core, records, None, |_, _| {})
    }

    /// `meddle` gets the folder and the log before the uplink starts.
    fn start_with(
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

    fn spool(&mut self, lane: Lane, bytes: usize) -> u64 {
        let position = append(&mut self.log, lane, bytes);
        let (_, record) = self.log.reader().read(Position(position)).unwrap().unwrap();
        self.uplink.spooled(vec![Spooled { position, lane, record }]);
        position
    }

    /// Appends without a sync and lets it go up.
    fn early(&mut self, lane: Lane) -> u64 {
        let record = self.log.next().to_be_bytes().repeat(50);
        let Position(position) = self.log.append(lane, &record).unwrap();
        self.uplink.early(vec![Spooled { position, lane, record }]);
        position
    }

    fn sync(&mut self) {
        self.log.sync().unwrap();
        self.uplink.durable(self.log.durable());
    }

    /// All five connections stand.
    fn ready(&self) -> bool {
        let stands = |part: Part| self.metrics.lane_connected.with_label_values(&[part.as_str()]).get() == 1;
        self.connected.holds() && Part::ALL.into_iter().all(stands)
    }

    fn failures(&self, reason: &str) -> u64 {
        self.metrics.uplink_failures.with_label_values(&[reason]).get()
    }

    async fn stopped(self) {
        self.stop.cancel();
        within("the uplink's end", self.link).await.unwrap().unwrap();
    }
}

fn append(log: &mut Log, lane: Lane, bytes: usize) -> u64 {
    if log.rotation_due() {
        log.rotate(b"").unwrap();
    }
    let next = log.stats().next.0;
    let record: Vec<u8> = next.to_be_bytes().into_iter().cycle().take(bytes).collect();
    let Position(position) = log.append(lane, &record).unwrap();
    log.sync().unwrap();
    position
}

#[tokio::test(flavor = "multi_thread")]
async fn the_present_overtakes_the_past_and_both_arrive_whole() {
    const PAST: usize = 1500;
    let ca = Ca::new();
    let core = Core::new(&ca, 64 << 10);
    let mut gateway = Gateway::start(&ca, core.address, &[(Lane::Vitals, 2000); PAST]);
    let mut session = core.welcome(&gateway).await;
    assert_eq!(gateway.uplink.take_behind(), [Lane::Vitals].into(), "its wraps are to be given again");
    let mut received = session.receive();
    let mut all = take(&mut received, 50).await;
    assert!(all.iter().all(|(lane, backlog, _)| (*lane, *backlog) == (Lane::Vitals, true)));
    let live: Vec<_> = Lane::ALL.into_iter().map(|lane| gateway.spool(lane, 100)).collect();
    let mut ahead = BTreeMap::new();
    while ahead.len() < live.len() {
        let record = next(&mut received).await;
        all.push(record);
        if !record.1 {
            ahead.insert(record.2, all.len());
        }
    }
    assert_eq!(ahead.keys().copied().collect::<Vec<_>>(), live);
    // What QUIC and the windows hold may be before it: 256 KiB there and 64 KiB here, so 160 records and the test's own.
    assert!(all.len() < 300, "live came behind {} records of backlog", all.len());
    all.extend(take(&mut received, PAST + live.len() - all.len()).await);
    let backlog: Vec<_> =
        all.iter().filter(|(_, backlog, _)| *backlog).map(|(_, _, position)| *position).collect();
    assert_eq!(backlog, (1..=PAST as u64).collect::<Vec<_>>(), "in order, none twice");
    session.ack(&[(1, PAST as u64 + 4)]).await;
    until("all is acknowledged", || gateway.uplink.waiting() == 0).await;
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_acknowledged_comes_again_in_order_and_the_rest_does_not() {
    let ca = Ca::new();
    let core = Core::new(&ca, 1 << 20);
    let mut gateway = Gateway::start(&ca, core.address, &[(Lane::Vitals, 300); 10]);
    let mut session = core.welcome(&gateway).await;
    let mut received = session.receive();
    take(&mut received, 10).await;
    let live = gateway.spool(Lane::Alarm, 300);
    assert_eq!(next(&mut received).await, (Lane::Alarm, false, live));
    session.ack(&[(2, 4), (7, 7)]).await;
    until("four are acknowledged", || gateway.uplink.waiting() == 7).await;
    assert_eq!(within("a range", gateway.acked.recv()).await, Some(2..=4));
    assert_eq!(within("a range", gateway.acked.recv()).await, Some(7..=7));
    session.close();
    let while_away = gateway.spool(Lane::Vitals, 300);
    let mut session = core.welcome(&gateway).await;
    let mut received = session.receive();
    let mut again = take(&mut received, 8).await;
    again.sort_unstable();
    let vitals = [1, 5, 6, 8, 9, 10, while_away].map(|position| (Lane::Vitals, true, position));
    assert_eq!(again, [vec![(Lane::Alarm, true, live)], vitals.to_vec()].concat());
    session.ack(&[(0, u64::MAX)]).await;
    until("all is acknowledged", || gateway.uplink.waiting() == 0).await;
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_core_that_lies_or_talks_garbage_costs_a_connection_and_nothing_else() {
    let ca = Ca::new();
    let core = Core::new(&ca, 1 << 20);
    let gateway = Gateway::start(&ca, core.address, &[(Lane::Vitals, 300); 5]);
    let [high, low] = VERSION.to_be_bytes();
    let cases: [(&[u8], &str); 6] = [
        (b"HTTP/1.1 200 OK\r\n", "length"),
        (&[0, 0, 0, 3, 2, 0, 9], "version"),
        (&[0, 0, 0, 3, 1, 0, 1], "unexpected"),
        (&[0, 0, 0, 3, 2, high, low, 0, 0, 0, 3, 2, high, low], "unexpected"),
        (&[0, 0, 0, 3, 2, high, low, 0, 0, 0, 2, 99, 0], "type"),
        (&[0, 0, 0, 3, 2, high, low, 0, 0, 0, 5, 5, 1, 2, 3, 4], "ranges"),
    ];
    for (bytes, reason) in cases {
        let before = gateway.failures(reason);
        let mut line = core.accept().await;
        line.control.write_all(bytes).await.unwrap();
        until(reason, || gateway.failures(reason) > before).await;
        within("the gateway's close", line.connection.closed()).await;
    }
    let mut session = core.welcome(&gateway).await;
    let mut received = session.receive();
    // Positions that were never sent, that do not exist, and one twice.
    for line in &mut session.lines {
        line.say(&Frame::Ack { ranges: vec![(0, 0), (1 << 40, u64::MAX), (2, 2), (2, 2)] }).await;
    }
    session.lines[0].say(&Frame::Refuse { position: 3, refusal: Refusal::Fork }).await;
    let refused = gateway.metrics.uplink_refused.with_label_values(&["fork"]);
    until("the refusal is counted", || refused.get() == 1).await;
    let positions: std::collections::BTreeSet<_> =
        take(&mut received, 4).await.into_iter().map(|r| r.2).collect();
    assert!([1, 3, 4, 5].iter().filter(|p| positions.contains(p)).count() >= 3, "{positions:?}");
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cant_be_read_does_not_hold_up_the_others() {
    let ca = Ca::new();
    let core = Core::new(&ca, 1 << 20);
    let gateway = Gateway::start_with(&ca, core.address, &[(Lane::Vitals, 300); 6], None, |dir, log| {
        let record = log.reader().read(Position(3)).unwrap().unwrap().1;
        let mut paths = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let path = paths.find(|path| path.extension().is_some_and(|e| e == "log")).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(300).position(|window| window == record).unwrap();
        bytes[at + 100] ^= 1;
        // In place, as a bad sector: the log has the file open.
        std::fs::write(&path, bytes).unwrap();
    });
    for round in 1..=2 {
        let session = core.welcome(&gateway).await;
        let mut received = session.receive();
        let mut positions: Vec<_> = take(&mut received, 5).await.into_iter().map(|r| r.2).collect();
        positions.sort_unstable();
        assert_eq!(positions, [1, 2, 4, 5, 6]);
        let unreadable = gateway.metrics.uplink_refused.with_label_values(&["unreadable"]);
        until("it is counted", || unreadable.get() == round).await;
        session.close();
    }
    let mut session = core.welcome(&gateway).await;
    let mut received = session.receive();
    take(&mut received, 5).await;
    session.ack(&[(1, 2), (4, 6)]).await;
    until("it alone waits", || gateway.uplink.waiting() == 1).await;
    assert!(gateway.dir.path().is_dir());
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_what_is_in_flight_and_not_for_ever() {
    let ca = Ca::new();
    for answers in [true, false] {
        let core = Core::new(&ca, 1 << 20);
        let mut gateway = Gateway::start(&ca, core.address, &[(Lane::Waveform, 1000); 20]);
        let mut session = core.welcome(&gateway).await;
        let mut received = session.receive();
        take(&mut received, 20).await;
        gateway.stop.cancel();
        if answers {
            session.ack(&[(1, 20)]).await;
            assert_eq!(within("the range", gateway.acked.recv()).await, Some(1..=20));
        }
        within("the uplink's end", &mut gateway.link).await.unwrap().unwrap();
        assert_eq!(gateway.uplink.waiting(), if answers { 0 } else { 20 });
        for line in &session.lines {
            let closed = within("the close", line.connection.closed()).await;
            assert!(closed.to_string().contains("closed by peer"), "{closed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_core_that_is_not_there() {
    let ca = Ca::new();
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let gateway = Gateway::start(&ca, nobody.local_addr().unwrap(), &[(Lane::Alarm, 100)]);
    let mut packet = [0; 2000];
    nobody.set_read_timeout(Some(PATIENCE)).unwrap();
    tokio::task::spawn_blocking(move || nobody.recv_from(&mut packet).unwrap()).await.unwrap();
    gateway.stopped().await;
}

fn are_free(ports: LanePorts) -> bool {
    let free = |part| std::net::UdpSocket::bind(("0.0.0.0", ports.of(part))).is_ok();
    Part::ALL.into_iter().all(free)
}

/// Five ports in a row that nobody has at this moment; others for each caller.
fn free_ports() -> LanePorts {
    // Below the range from which the kernel takes ports for sockets that do not care.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let from = 20_000 + u16::try_from(std::process::id() % 200).unwrap() * 50;
    let next = || LanePorts::try_from(from + NEXT.fetch_add(5, Ordering::SeqCst)).unwrap();
    std::iter::repeat_with(next).find(|ports| are_free(*ports)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_lane_comes_from_its_own_port_and_again_after_a_kill() {
    let (ca, ports) = (Ca::new(), free_ports());
    let core = Core::new(&ca, 1 << 20);
    for killed in [true, false] {
        let start =
            || Gateway::start_with(&ca, core.address, &[(Lane::Waveform, 300)], Some(ports), |_, _| {});
        let mut gateway = start();
        let mut session = core.welcome(&gateway).await;
        let mut received = session.receive();
        assert_eq!(next(&mut received).await, (Lane::Waveform, true, 1));
        for lane in Lane::ALL {
            let position = gateway.spool(lane, 100);
            assert_eq!(next(&mut received).await, (lane, false, position));
            let from = session.lines[session.carried.lock().unwrap()[&position]].port();
            assert_eq!(from, ports.of(Part::Live(lane)));
        }
        let from = session.lines[session.carried.lock().unwrap()[&1]].port();
        assert_eq!(from, ports.of(Part::Backlog));
        let second = start();
        let error = within("the second's end", second.link).await.unwrap().unwrap_err();
        assert_eq!(error.reason(), "port");
        let named = format!("UDP port {} (core.lane_ports, alarm)", ports.of(Part::Live(Lane::Alarm)));
        assert!(error.to_string().starts_with(&named), "{error}");
        if killed {
            // No farewell to the core; what a kill leaves behind.
            gateway.link.abort();
            assert!(within("the abort", &mut gateway.link).await.is_err());
            until("the ports are free", || are_free(ports)).await;
        } else {
            session.ack(&[(0, u64::MAX)]).await;
            gateway.stopped().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_the_core_does_not_read_holds_up_no_other() {
    const STUCK: usize = 400;
    let (ca, ports) = (Ca::new(), free_ports());
    let core = Core::new(&ca, 32 << 10);
    let mut gateway =
        Gateway::start_with(&ca, core.address, &[(Lane::Vitals, 2000); 50], Some(ports), |_, _| {});
    let mut session = core.welcome(&gateway).await;
    let waveform = ports.of(Part::Live(Lane::Waveform));
    let mut received = session.receive_but(|line| line.port() == waveform);
    // More than QUIC and the windows hold, so that its sender is stuck in the middle.
    let stuck: Vec<_> = (0..STUCK).map(|_| gateway.spool(Lane::Waveform, 2000)).collect();
    let mut past = 0;
    for round in 0..40 {
        let lane = [Lane::Alarm, Lane::Vitals, Lane::Activity][round % 3];
        let position = gateway.spool(lane, 200);
        loop {
            let record = next(&mut received).await;
            if record.1 {
                past += 1;
                continue;
            }
            assert_eq!(record, (lane, false, position), "as live, so within 2 s");
            break;
        }
    }
    // What the stuck lane has not sent after 2 s goes with the backlog; the rest is on its way there and stays.
    let mut by_backlog = Vec::new();
    while by_backlog.last() != stuck.last() || past < 50 {
        match next(&mut received).await {
            (Lane::Waveform, true, position) => by_backlog.push(position),
            (Lane::Vitals, true, _) => past += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!((1..STUCK).contains(&by_backlog.len()), "{} took the other way", by_backlog.len());
    assert_eq!(by_backlog, stuck[STUCK - by_backlog.len()..], "in order, none twice");
    session.ack(&[(0, u64::MAX)]).await;
    until("the stuck ones alone wait", || gateway.uplink.waiting() == STUCK - by_backlog.len()).await;
    session.line(waveform).connection.close(0_u32.into(), b"");
    let mut rest = take(&mut received, STUCK - by_backlog.len()).await;
    rest.sort_unstable();
    let expected = &stuck[..STUCK - by_backlog.len()];
    assert_eq!(rest, expected.iter().map(|position| (Lane::Waveform, true, *position)).collect::<Vec<_>>());
    session.ack(&[(0, u64::MAX)]).await;
    until("all is acknowledged", || gateway.uplink.waiting() == 0).await;
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lane_moves_to_the_backlog_and_returns_while_the_others_go_on() {
    let (ca, ports) = (Ca::new(), free_ports());
    let core = Core::new(&ca, 1 << 20);
    let mut gateway = Gateway::start_with(&ca, core.address, &[], Some(ports), |_, _| {});
    let mut session = core.welcome(&gateway).await;
    let mut received = session.receive();
    let mut sent = Vec::new();
    for lane in [Lane::Alarm, Lane::Vitals, Lane::Vitals, Lane::Waveform] {
        let position = gateway.spool(lane, 300);
        assert_eq!(next(&mut received).await, (lane, false, position));
        sent.push(position);
    }
    let vitals = ports.of(Part::Live(Lane::Vitals));
    session.line(vitals).connection.close(0_u32.into(), b"");
    until("the gateway is not ready", || !gateway.connected.holds()).await;
    let while_away = gateway.spool(Lane::Vitals, 300);
    let mut again = take(&mut received, 3).await;
    again.sort_unstable();
    // By the connection that stood all the time; what the other lanes sent is not sent again.
    assert_eq!(again, [sent[1], sent[2], while_away].map(|position| (Lane::Vitals, true, position)));
    let live = gateway.spool(Lane::Alarm, 300);
    assert_eq!(next(&mut received).await, (Lane::Alarm, false, live));
    let mut returned = Session { lines: vec![core.welcome_one().await], ..Session::default() };
    assert_eq!(returned.lines[0].port(), vitals);
    until("the gateway is ready", || gateway.ready()).await;
    let mut received_there = returned.receive();
    let live = gateway.spool(Lane::Vitals, 300);
    assert_eq!(next(&mut received_there).await, (Lane::Vitals, false, live));
    session.ack(&[(0, u64::MAX)]).await;
    until("one waits", || gateway.uplink.waiting() == 1).await;
    returned.ack(&[(0, u64::MAX)]).await;
    until("all is acknowledged", || gateway.uplink.waiting() == 0).await;
    assert!(received.try_recv().is_err(), "nothing came twice");
    gateway.stopped().await;
}

/// What comes on the streams of all connections, frame by frame; of each stream whether it is the backlog's.
fn frames(session: &Session) -> mpsc::Receiver<(bool, Frame)> {
    let (sender, received) = mpsc::channel(64);
    for connection in session.lines.iter().map(|line| line.connection.clone()) {
        let sender = sender.clone();
        tokio::spawn(async move {
            while let Ok(mut stream) = connection.accept_uni().await {
                let (sender, mut framer) = (sender.clone(), Framer::new());
                tokio::spawn(async move {
                    let Some(Frame::Lane { backlog, .. }) = frame(&mut framer, &mut stream).await else {
                        panic!("a stream begins with its lane")
                    };
                    while let Some(frame) = frame(&mut framer, &mut stream).await {
                        sender.send((backlog, frame)).await.unwrap();
                    }
                });
            }
        });
    }
    received
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_goes_up_before_its_sync_and_counts_after_it() {
    let ca = Ca::new();
    let core = Core::new(&ca, 1 << 20);
    let mut gateway = Gateway::start(&ca, core.address, &[]);
    let mut session = core.welcome(&gateway).await;
    let mut received = frames(&session);
    let first = gateway.early(Lane::Vitals);
    let Some((false, Frame::Early { position, record })) = within("it early", received.recv()).await else {
        panic!("not early")
    };
    assert_eq!((position, record), (first, first.to_be_bytes().repeat(50)));
    let second = gateway.early(Lane::Vitals);
    let early = within("the second", received.recv()).await.unwrap().1;
    assert!(matches!(early, Frame::Early { position, .. } if position == second), "{early:?}");
    gateway.sync();
    let durable = within("the word", received.recv()).await;
    assert_eq!(durable, Some((false, Frame::Durable { below: second + 1 })));
    let third = gateway.spool(Lane::Vitals, 300);
    let data = within("the third", received.recv()).await.unwrap().1;
    assert!(matches!(data, Frame::Data { position, .. } if position == third), "{data:?}");
    for line in &mut session.lines {
        line.say(&Frame::Ack { ranges: vec![(first, third)] }).await;
    }
    until("all is acknowledged", || gateway.uplink.waiting() == 0).await;
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_up_early_on_a_lost_connection_goes_up_again_when_it_is_durable() {
    let ca = Ca::new();
    let core = Core::new(&ca, 1 << 20);
    let mut gateway = Gateway::start(&ca, core.address, &[]);
    let session = core.welcome(&gateway).await;
    let mut received = frames(&session);
    let position = gateway.early(Lane::Vitals);
    assert!(matches!(within("it", received.recv()).await, Some((false, Frame::Early { .. }))));
    session.close();
    until("the gateway has noticed", || !gateway.ready()).await;
    let session = core.welcome(&gateway).await;
    let mut received = frames(&session);
    // Whoever sends the backlog has it, and it is in no place from which it could be read: it waits.
    let other = gateway.early(Lane::Alarm);
    let early = within("the other", received.recv()).await.unwrap();
    assert!(matches!(early, (false, Frame::Early { position, .. }) if position == other), "{early:?}");
    gateway.sync();
    let mut both = Vec::new();
    while both.len() < 2 {
        both.push(within("both", received.recv()).await.unwrap());
    }
    both.sort_by_key(|(backlog, _)| *backlog);
    assert_eq!(both[0], (false, Frame::Durable { below: other + 1 }));
    let is_it = |frame: &Frame| matches!(frame, Frame::Data { position: p, .. } if *p == position);
    assert!(both[1].0 && is_it(&both[1].1), "{both:?}");
    assert_eq!(gateway.uplink.waiting(), 2);
    gateway.stop.cancel();
    session.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_without_end_do_not_keep_sensors_waiting() {
    let home = Home::new(Limits::with_budget(64 << 20));
    let committer = home.start().committer;
    let (inbound, inbound_in) = mpsc::channel(16);
    let (acked, acked_in) = mpsc::channel(1024);
    let (_proposals, proposals_in) = mpsc::channel(1);
    let inputs = Inputs {
        inbound: inbound_in,
        acked: acked_in,
        proposals: proposals_in,
        standings: mpsc::channel(1).1,
        linger: Duration::ZERO,
    };
    let running = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let uplink = Arc::new(Uplink::new([]));
        runtime.block_on(thread::run(committer, inputs, uplink, CancellationToken::new())).unwrap();
    });
    let stop = Arc::new(AtomicBool::new(false));
    // More of them than the one that takes them can keep up with.
    let flood: Vec<_> = (0..4)
        .map(|_| {
            let (stop, acked) = (Arc::clone(&stop), acked.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) && !acked.is_closed() {
                    drop(acked.try_send(0..=u64::MAX));
                }
            })
        })
        .collect();
    drop(acked);
    for seq in 0..200 {
        let Publish { device, topic, payload } = Publish::beat(seq);
        let (verdict, answered) = oneshot::channel();
        let publish = Inbound { device, topic, payload: payload.into(), received_us: 0, verdict };
        within("room for a PUBLISH", inbound.send(publish)).await.unwrap();
        // Without a policy nobody's reading is anybody's: it is refused, but it is answered.
        assert_eq!(within("a verdict", answered).await.unwrap(), Verdict::Refused);
    }
    stop.store(true, Ordering::SeqCst);
    flood.into_iter().for_each(|thread| thread.join().unwrap());
    drop(inbound);
    within("the thread's end", tokio::task::spawn_blocking(move || running.join().unwrap())).await.unwrap();
}
