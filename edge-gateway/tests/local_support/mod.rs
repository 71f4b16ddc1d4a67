//! A local door on a real socket in front of the real policy side: a ledger in memory, a decider with its store on disk, and a
//! client that says exactly what the test says.

#![allow(dead_code, clippy::unwrap_used, reason = "a test's own helpers, of which each file uses its part")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use caregate_host::clock;
use caregate_host::http::{self, Options};
use caregate_protocol::policy::{Mac, RecipientKind, RecipientStatus};
use edge_gateway::hints::Hints;
use edge_gateway::inventory::oui::Vendors;
use edge_gateway::inventory::table::Inventory;
use edge_gateway::inventory::{InventoryMetrics, Shared, follow};
use edge_gateway::keys::KeyStore;
use edge_gateway::local::{AccessCodeEntry, App, LocalMetrics, Login, Offers, router};
use edge_gateway::metrics::Metrics;
use edge_gateway::policy::{Decider, Now, PolicyHandle, Proposal};
use edge_gateway::watch::Standings;
use ledger_client::fixture::{Hospital, Signer, Site};
use ledger_client::revoke::{RevokeKeyEntry, RevokeKeyFile, RevokeKeys, RevokeSecret};
use prometheus::Registry;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// The code on the label.
pub(crate) const CODE: &str = "7f3a-09bc-d1e2-5566";
/// Far above what an answer needs, so that only a fault runs into it.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn now_s() -> u64 {
    u64::try_from(clock::now_us() / 1_000_000).unwrap()
}

fn now() -> Now {
    Now { unix_s: now_s(), at: clock::monotonic() }
}

/// A gateway's local door and all that is behind it.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) site: Site,
    pub(crate) city: Hospital,
    pub(crate) rescue: Hospital,
    pub(crate) policy: PolicyHandle,
    pub(crate) inventory: Shared,
    pub(crate) hints: Hints,
    pub(crate) quarantined: watch::Sender<Arc<BTreeSet<Mac>>>,
    pub(crate) views: watch::Sender<Arc<Standings>>,
    pub(crate) registry: Registry,
    pub(crate) stop: CancellationToken,
    _folder: TempDir,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The revoke-only keys of relationships 0 and 1; that of 2 is the wallet's alone.
fn revoke_keys() -> RevokeKeys {
    let entry = |relation: u8| RevokeKeyEntry {
        grant_key: Site::grant_key(relation).address(),
        secret: RevokeSecret::from_bytes(Site::revoke_key(relation).key().to_bytes().into()),
    };
    RevokeKeys::new(&RevokeKeyFile { keys: vec![entry(0), entry(1)] }).unwrap()
}

/// Decides as the commit thread does, on a thread of its own.
fn decide(mut decider: Decider, mut proposals: mpsc::Receiver<Proposal>) {
    std::thread::spawn(move || {
        while let Some(proposal) = proposals.blocking_recv() {
            proposal.decide(&mut decider, now(), |_, _| {});
        }
    });
}

impl Gateway {
    /// On a ledger where the city hospital treats and a rescue service may break the glass; nothing is granted yet.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut site = Site::new(4);
        let (city, rescue) = (Hospital::new(0x51, [0x61; 32]), Hospital::new(0x52, [0x62; 32]));
        site.register(&city, RecipientStatus::Active, RecipientKind::Treating, false);
        site.register(&rescue, RecipientStatus::Active, RecipientKind::Treating, true);
        let pins = Arc::new(site.enrolment.pins().unwrap());
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let keys = KeyStore::open(folder.path()).unwrap();
        let decider = Decider::open(&keys, Some(Arc::clone(&pins)), metrics.clone(), now()).unwrap();
        let (proposals, proposed) = mpsc::channel(1);
        let policy = PolicyHandle::new(Arc::clone(&pins), &decider, proposals, metrics);
        decide(decider, proposed);
        let inventory = Shared::new(Inventory::default(), InventoryMetrics::register(&registry).unwrap());
        let hints = Hints::open(&folder.path().join("hints"), &[7; 32]).unwrap();
        let (quarantined, quarantine) = watch::channel(Arc::default());
        let (views, shown) = watch::channel(Arc::default());
        let stop = CancellationToken::new();
        tokio::spawn(follow(inventory.clone(), policy.bound_devices(), stop.clone()));
        let app = App {
            policy: policy.clone(),
            keys: RwLock::new(revoke_keys()),
            inventory: inventory.clone(),
            vendors: Vendors::read(&b"286FB9 Nokia Shanghai Bell\n"[..]).unwrap(),
            hints: hints.clone(),
            quarantined: quarantine,
            views: shown,
            login: Login::new(&AccessCodeEntry::new(b"salt-of-the-test", CODE)).unwrap(),
            metrics: LocalMetrics::register(&registry).unwrap(),
            secure: false,
            offers: Offers::default(),
        };
        let listener = caregate_host::net::listen("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let options = Options { connections_max: 32, tls: None };
        tokio::spawn(http::serve(listener, router(Arc::new(app)), options, stop.clone()));
        let _folder = folder;
        Self {
            address,
            site,
            city,
            rescue,
            policy,
            inventory,
            hints,
            quarantined,
            views,
            registry,
            stop,
            _folder,
        }
    }

    /// Hands in the ledger as it is now.
    pub(crate) async fn deliver(&mut self) -> Answer {
        let bundle = self.site.bytes(now_s());
        self.post("/policy/bundle", &[], &bundle).await
    }

    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(&request("GET", path, headers, b"")).await
    }

    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.send(&request("POST", path, headers, body)).await
    }

    /// A POST as the page's script sends it.
    pub(crate) async fn post_json(&self, path: &str, session: &str, body: &serde_json::Value) -> Answer {
        let origin = format!("http://{}", self.address);
        let headers =
            [("Content-Type", "application/json"), ("Origin", origin.as_str()), ("Cookie", session)];
        self.post(path, &headers, body.to_string().as_bytes()).await
    }

    /// Sends bytes as they are and reads to the end.
    pub(crate) async fn send(&self, bytes: &[u8]) -> Answer {
        let stream = TcpStream::connect(self.address).await.unwrap();
        exchange(stream, bytes).await
    }

    /// Logs in; answers with the cookie.
    pub(crate) async fn log_in(&self) -> String {
        let answer = self.post_json("/api/login", "", &serde_json::json!({ "code": CODE })).await;
        assert_eq!(answer.status, 204, "{}", answer.text());
        answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
    }

    pub(crate) async fn state(&self, session: &str) -> serde_json::Value {
        let answer = self.get("/api/state", &[("Cookie", session)]).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// A counter of the local door.
    pub(crate) fn counted(&self, name: &str, labels: &[&str]) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.into_iter().flat_map(prometheus::proto::MetricFamily::get_metric);
        let labelled = metrics.filter(|metric| {
            labels.iter().all(|label| metric.get_label().iter().any(|pair| pair.value() == *label))
        });
        labelled.map(|metric| metric.get_counter().get_value()).sum()
    }
}

/// A whole request, after which the connection closes.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "Host") {
        let origin = headers.iter().find(|(name, _)| *name == "Origin").map(|(_, value)| *value);
        let host = origin.and_then(|origin| origin.split("//").nth(1)).unwrap_or("gateway");
        text.push_str(&format!("Host: {host}\r\n"));
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    [text.as_bytes(), body].concat()
}

/// Writes bytes and reads what comes until the other end closes.
pub(crate) async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> Answer {
    let talk = async {
        // A server that refuses a body may close before all of it was read.
        let written = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer).await;
        assert!(!answer.is_empty(), "no answer: {written:?}, {read:?}");
        Answer::read(&answer)
    };
    tokio::time::timeout(PATIENCE, talk).await.expect("an answer in time")
}

/// What the server said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    fn read(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head") + 4;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head, body: bytes[end..].to_vec() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// A key that nobody enrolled.
pub(crate) fn stranger() -> Signer {
    Signer::of(0x77)
}
