//! A real core on loopback, and the two kinds of peers that talk to it.

#![allow(dead_code, clippy::unwrap_used, reason = "a test's own helpers, of which each file uses its part")]

pub(crate) mod pki;
pub(crate) mod records;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caregate_host::identity::{Identity, Role};
use caregate_host::journal::Journal;
use caregate_host::net;
use caregate_protocol::id::{Lane, RecipientId};
use caregate_protocol::segment::signer_id;
use caregate_protocol::uplink::{ALPN, Frame, Framer, Timing, VERSION};
use core_cloud::config::Peers;
use core_cloud::metrics::Metrics;
use core_cloud::owners::{Owners, Revocations};
use core_cloud::preview::Previews;
use core_cloud::search::SearchIndex;
use core_cloud::server::{self, Shared};
use core_cloud::store::{Embedded, Span, Store};
use core_cloud::tcp::TcpDoor;
use core_cloud::tenants::{Quota, Tenant, Tenants};
use core_cloud::writer::{self, Inbox, Stores};
use ed25519_dalek::SigningKey;
use prometheus::Registry;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig, VarInt,
};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::pki::Ca;
use self::records::{Sealing, recipient};

/// How long any one condition may take: far above what it needs, so that only a fault runs into it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for `future` and fails by name if it does not come.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: did not happen within {PATIENCE:?}"),
    }
}

/// Waits until a condition that can only be looked at holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    within(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// Who says which gateways own nothing any more, in the ledger's place. It ends no connection of theirs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Governors(Arc<Mutex<BTreeSet<String>>>);

impl Governors {
    pub(crate) fn suspend(&self, gateway: &str) {
        self.0.lock().unwrap().insert(gateway.to_owned());
    }

    pub(crate) fn reinstate(&self, gateway: &str) {
        self.0.lock().unwrap().remove(gateway);
    }
}

impl Revocations for Governors {
    fn revokes(&self, gateway: &str) -> bool {
        self.0.lock().unwrap().contains(gateway)
    }
}

/// The core's deployment: folder, authority, governors and what it is told of its peers.
pub(crate) struct Site {
    pub(crate) dir: TempDir,
    pub(crate) ca: Ca,
    pub(crate) governors: Governors,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), ca: Ca::new(), governors: Governors::default() }
    }

    /// Gateways `gateway-1` to `gateway-3` with the device keys of [`Sealing`] 1 to 3 (and 11 for the first); feeds
    /// `hospital-1` for recipients 1 and 2, `hospital-2` for recipient 3.
    fn peers() -> Peers {
        let key = |n: u8| Sealing::new(n).device.verifying_key();
        Peers {
            gateways: HashMap::from([
                ("gateway-1".to_owned(), vec![key(1), key(11)]),
                ("gateway-2".to_owned(), vec![key(2)]),
                ("gateway-3".to_owned(), vec![key(3)]),
            ]),
            feeds: HashMap::from([
                ("hospital-1".to_owned(), vec![recipient(1), recipient(2)]),
                ("hospital-2".to_owned(), vec![recipient(3)]),
            ]),
        }
    }

    /// A core whose writer does not run yet.
    pub(crate) fn paused(&self) -> Core {
        Core::start(self, |_| Tenants::default())
    }

    pub(crate) fn core(&self) -> Core {
        let mut core = self.paused();
        core.start_writer();
        core
    }

    /// Where `gateway-1` is a tenant's, and `gateway-2` is not limited.
    pub(crate) fn core_with(&self, quota: Quota) -> Core {
        let gateway = Sealing::new(1).device.verifying_key();
        let mut core = Core::start(self, |metrics| {
            let tenant = Arc::new(Tenant::new("clinic".to_owned(), quota, metrics.clone()));
            Tenants::new([("gateway-1".to_owned(), vec![signer_id(&gateway)], tenant)])
        });
        core.start_writer();
        core
    }

    pub(crate) async fn gateway(&self, core: &Core, name: &str) -> Gateway {
        Gateway::open(&Client::new(&self.ca.identity(Role::Gateway, name)), core.address).await
    }

    pub(crate) async fn feed(&self, core: &Core, name: &str) -> Feed {
        let client = Client::new(&self.ca.identity(Role::Feed, name));
        let connection = within("a feed's handshake", client.connect(core.address)).await.unwrap();
        Feed { connection, _client: client }
    }
}

/// A running core.
pub(crate) struct Core {
    pub(crate) address: SocketAddr,
    pub(crate) tcp: SocketAddr,
    pub(crate) store: Arc<dyn Store>,
    search: Arc<SearchIndex>,
    owners: Owners,
    pub(crate) metrics: Metrics,
    pub(crate) previews: Previews,
    pub(crate) tenants: Tenants,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    waiting: Option<(Inbox, watch::Sender<u64>)>,
    writer: Option<std::thread::JoinHandle<()>>,
}

impl Core {
    fn start(site: &Site, tenants: impl FnOnce(&Metrics) -> Tenants) -> Self {
        let (dir, ca) = (site.dir.path(), &site.ca);
        let store: Arc<dyn Store> = Arc::new(Embedded::open(dir).unwrap());
        let search = Arc::new(SearchIndex::open(dir).unwrap());
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let endpoint =
            server::bind("127.0.0.1:0".parse().unwrap(), &ca.identity(Role::Core, "core-1")).unwrap();
        let address = endpoint.local_addr().unwrap();
        let listener = net::listen("127.0.0.1:0").unwrap();
        let tcp = listener.local_addr().unwrap();
        let door = TcpDoor::new(listener, &ca.identity(Role::Core, "core-1"));
        let (queue, incoming) = writer::queue(&metrics);
        let (stored_out, stored) = watch::channel(0);
        let tenants = tenants(&metrics);
        let previews = Previews::new(store.erased().unwrap(), metrics.clone());
        let (peers, revoked) = (Site::peers(), ledger_chain::RevokedGateways::none());
        let owners = Owners::new(store.owners().unwrap(), &peers, site.governors.clone());
        let shared = Shared {
            owners: owners.clone(),
            revoked,
            peers: Arc::new(peers),
            store: Arc::clone(&store),
            search: Arc::clone(&search),
            writer: queue,
            stored,
            journal: Arc::new(Journal::open(&dir.join("journal.jsonl")).unwrap().0),
            receipt_key: SigningKey::from_bytes(&[42; 32]),
            previews: previews.clone(),
            tenants: tenants.clone(),
            metrics: metrics.clone(),
        };
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server::serve(endpoint, Some(door), shared, stop.clone()));
        Self {
            address,
            tcp,
            store,
            search,
            owners,
            metrics,
            previews,
            tenants,
            stop,
            serving,
            waiting: Some((incoming, stored_out)),
            writer: None,
        }
    }

    pub(crate) fn start_writer(&mut self) {
        let (incoming, stored) = self.waiting.take().unwrap();
        let (store, search) = (Arc::clone(&self.store), Arc::clone(&self.search));
        let stores = Stores { owners: self.owners.clone(), store, search };
        let metrics = self.metrics.clone();
        let run = move || writer::run(&stores, incoming, &stored, &metrics).unwrap();
        self.writer = Some(std::thread::spawn(run));
    }

    /// As when the writer has ended by a failure of the store.
    pub(crate) fn lose_writer(&mut self) {
        self.waiting = None;
    }

    /// As SIGTERM does it: closes the listener, and returns when everything that had come in is stored.
    pub(crate) async fn stop(mut self) -> Arc<dyn Store> {
        self.stop.cancel();
        within("the listener's end", &mut self.serving).await.unwrap();
        let writer = self.writer.take().unwrap();
        within("the writer's end", tokio::task::spawn_blocking(move || writer.join().unwrap()))
            .await
            .unwrap();
        self.store
    }

    /// As a crash ends it, for its peers: nothing more is stored of what had come in.
    pub(crate) async fn lost(mut self) {
        self.stop.cancel();
        within("the listener's end", &mut self.serving).await.unwrap();
    }

    /// Feeds' views of what is provisional.
    pub(crate) fn views(&self) -> usize {
        self.previews.views()
    }

    /// Records in a recipient's queue.
    pub(crate) fn queued(&self, to: u8) -> u64 {
        self.store.next_number(recipient(to)).unwrap()
    }

    pub(crate) fn closed_for(&self, reason: &str) -> u64 {
        self.metrics.connections_refused.with_label_values(&[reason]).get()
    }

    pub(crate) fn refused_for(&self, reason: &str) -> u64 {
        self.metrics.refused.with_label_values(&[reason]).get()
    }

    /// Records that wait for the writer, or for room before it.
    pub(crate) fn waiting(&self, timing: Timing) -> u64 {
        u64::try_from(self.metrics.waiting.with_label_values(&[timing.as_str()]).get()).unwrap()
    }

    pub(crate) fn records(&self, outcome: &str) -> u64 {
        self.metrics.records.with_label_values(&[outcome]).get()
    }
}

/// The QUIC end of any peer.
pub(crate) struct Client {
    pub(crate) endpoint: Endpoint,
}

impl Client {
    pub(crate) fn new(identity: &Identity) -> Self {
        Self::with_windows(identity, None)
    }

    /// With small receive windows, so that a peer that does not read is soon full.
    pub(crate) fn with_windows(identity: &Identity, bytes: Option<u32>) -> Self {
        let tls = identity.client_config(Role::Core, None, &[ALPN]);
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let mut parameters = TransportConfig::default();
        // As gateways do; else the core closes an idle connection after 10 s.
        parameters.keep_alive_interval(Some(Duration::from_secs(2)));
        if let Some(bytes) = bytes {
            parameters.stream_receive_window(VarInt::from_u32(bytes));
        }
        config.transport_config(Arc::new(parameters));
        let mut endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        endpoint.set_default_client_config(config);
        Self { endpoint }
    }

    pub(crate) async fn connect(&self, core: SocketAddr) -> Result<Connection, ConnectionError> {
        self.endpoint.connect(core, "core").unwrap().await
    }
}

/// Frames of a receiving stream.
pub(crate) struct Frames {
    stream: RecvStream,
    framer: Framer,
}

impl Frames {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self { stream, framer: Framer::new() }
    }

    /// The next frame; `None` at the stream's end. Panics where the connection is lost.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        within("a frame", async {
            loop {
                if let Some(frame) = self.framer.next_frame().unwrap() {
                    return Some(frame);
                }
                let chunk = self.stream.read_chunk(64 << 10, true).await.unwrap();
                self.framer.push(&chunk?.bytes);
            }
        })
        .await
    }
}

/// A gateway's session after its hello.
pub(crate) struct Gateway {
    pub(crate) connection: Connection,
    pub(crate) control: SendStream,
    pub(crate) answers: Frames,
    _client: Option<Client>,
}

impl Gateway {
    pub(crate) async fn open(client: &Client, core: SocketAddr) -> Self {
        let connection = within("a gateway's handshake", client.connect(core)).await.unwrap();
        let (mut control, incoming) = connection.open_bi().await.unwrap();
        control.write_all(&Frame::Hello { version: VERSION }.encode()).await.unwrap();
        let mut answers = Frames::new(incoming);
        assert_eq!(answers.next().await, Some(Frame::Welcome { version: VERSION }));
        Self { connection, control, answers, _client: Some(Client { endpoint: client.endpoint.clone() }) }
    }

    pub(crate) async fn lane(&self, lane: Lane, backlog: bool) -> SendStream {
        let mut stream = self.connection.open_uni().await.unwrap();
        stream.write_all(&Frame::Lane { lane, backlog }.encode()).await.unwrap();
        stream
    }

    /// Waits until exactly `positions` are acknowledged, and nothing is refused.
    pub(crate) async fn acked(&mut self, positions: impl IntoIterator<Item = u64>) {
        let mut left: BTreeSet<u64> = positions.into_iter().collect();
        while !left.is_empty() {
            match self.answers.next().await {
                Some(Frame::Ack { ranges }) => {
                    for position in ranges.into_iter().flat_map(|(first, last)| first..=last) {
                        assert!(left.remove(&position), "{position} was acknowledged, which nobody expected");
                    }
                }
                other => panic!("{left:?} are not acknowledged, instead came {other:?}"),
            }
        }
    }
}

pub(crate) async fn send(stream: &mut SendStream, position: u64, record: &[u8]) {
    let frame = Frame::Data { position, record: record.to_vec() };
    stream.write_all(&frame.encode()).await.unwrap();
}

/// A feed's connection.
pub(crate) struct Feed {
    pub(crate) connection: Connection,
    _client: Client,
}

impl Feed {
    pub(crate) fn new(connection: Connection, client: Client) -> Self {
        Self { connection, _client: client }
    }

    pub(crate) async fn ask(&self, frame: &Frame) -> Frames {
        let (mut out, incoming) = self.connection.open_bi().await.unwrap();
        out.write_all(&frame.encode()).await.unwrap();
        out.finish().unwrap();
        Frames::new(incoming)
    }

    /// Subscribes; returns the frames and the queue's next number.
    pub(crate) async fn subscribe(&self, recipient: RecipientId, from: u64, until: u64) -> (Frames, u64) {
        self.subscribe_to(recipient, Span { from, until, of: None }).await
    }

    pub(crate) async fn subscribe_to(&self, recipient: RecipientId, span: Span) -> (Frames, u64) {
        let Span { from, until, of } = span;
        let mut frames = self.ask(&Frame::Subscribe { version: VERSION, recipient, from, until, of }).await;
        match frames.next().await {
            Some(Frame::Subscribed { version: VERSION, next }) => (frames, next),
            other => panic!("no subscription but {other:?}"),
        }
    }
}

/// Reads deliveries `from..until`, which must come in order and without a gap.
pub(crate) async fn deliveries(frames: &mut Frames, from: u64, until: u64) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    for expected in from..until {
        match frames.next().await {
            Some(Frame::Delivery { number, record }) => {
                assert_eq!(number, expected);
                records.push(record);
            }
            other => panic!("delivery {expected} expected, got {other:?}"),
        }
    }
    records
}

/// The reason with which the core closed a connection, as text.
pub(crate) async fn close_reason(connection: &Connection) -> String {
    let closed = within("the core's close", connection.closed()).await;
    let ConnectionError::ApplicationClosed(close) = closed else {
        panic!("not closed by the core but: {closed}")
    };
    String::from_utf8_lossy(&close.reason).into_owned()
}
