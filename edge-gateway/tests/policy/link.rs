//! The policy connection against a controller that the test plays.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use caregate_host::clock;
use caregate_host::identity::{Identity, Role};
use caregate_protocol::id::DataClass;
use caregate_protocol::policy::delivery::{self, Anchor, Frame, Verdict, frame_length};
use caregate_protocol::policy::{RecipientKind, RecipientStatus};
use edge_gateway::keys::KeyStore;
use edge_gateway::local::PolicySide;
use edge_gateway::metrics::Metrics;
use edge_gateway::policy::trail::Origin;
use edge_gateway::policy::{ControllerLink, Decider, Now, PolicyHandle, Proposal};
use ledger_client::fixture::{Hospital, Signer, Site, Stranger, forgeries};
use prometheus::Registry;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream, ServerConfig};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::pki::Pki;

const PATIENCE: Duration = Duration::from_secs(20);

async fn within<T>(what: &str, waited: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, waited).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

fn now_s() -> u64 {
    u64::try_from(clock::now_us() / 1_000_000).unwrap()
}

fn now() -> Now {
    Now { unix_s: now_s(), at: clock::monotonic() }
}

struct Gateway {
    site: Site,
    policy: PolicyHandle,
    metrics: Metrics,
    stop: CancellationToken,
    _dir: TempDir,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Gateway {
    fn start(controller: SocketAddr, name: Option<&str>, identity: Arc<Identity>) -> Self {
        let mut site = Site::new(4);
        let city = Hospital::new(0x50, [0xd4; 32]);
        site.register(&city, RecipientStatus::Active, RecipientKind::Treating, false);
        site.grant(0, &city, 1, |_| ());
        let pins = Arc::new(site.enrolment.pins().unwrap());
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let keys = KeyStore::open(dir.path()).unwrap();
        let mut decider = Decider::open(&keys, Some(Arc::clone(&pins)), metrics.clone(), now()).unwrap();
        let (proposals, mut proposed) = mpsc::channel::<Proposal>(1);
        let policy = PolicyHandle::new(pins, &decider, proposals, metrics.clone());
        std::thread::spawn(move || {
            while let Some(proposal) = proposed.blocking_recv() {
                proposal.decide(&mut decider, now(), |_, _| ());
            }
        });
        let stop = CancellationToken::new();
        let name = name.map(str::to_owned);
        let link = ControllerLink { controller, name, identity, policy: policy.clone() };
        tokio::spawn(link.run(stop.clone()));
        Self { site, policy, metrics, stop, _dir: dir }
    }

    fn may_open(&self) -> usize {
        self.policy.current().recipients(&Site::PATIENT, DataClass::Vitals, now_s()).count()
    }

    async fn failed(&self, reason: &str, times: u64) {
        let failures = self.metrics.policy.failures.with_label_values(&[reason]);
        let waiting = async {
            while failures.get() < times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(&format!("{times} failures by {reason}"), waiting).await;
    }
}

/// A controller: the test says what it sends.
struct Controller {
    endpoint: Endpoint,
}

struct Session {
    connection: Connection,
    out: SendStream,
    incoming: RecvStream,
}

impl Controller {
    fn listen(identity: &Arc<Identity>, at: SocketAddr) -> Self {
        let tls = identity.server_config(&[Role::Gateway], &[delivery::ALPN]);
        let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        Self { endpoint: Endpoint::server(config, at).unwrap() }
    }

    /// Where another one was a moment ago.
    async fn listen_again(identity: &Arc<Identity>, at: SocketAddr) -> Self {
        let free = async {
            while std::net::UdpSocket::bind(at).is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within("the address is free", free).await;
        Self::listen(identity, at)
    }

    fn new(pki: &Pki) -> Self {
        Self::listen(&pki.identity(Role::Controller, "controller-1"), (Ipv4Addr::LOCALHOST, 0).into())
    }

    fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    /// A gateway's next connection, and what it watches.
    async fn accept(&self) -> (Session, Frame) {
        let opening = async {
            let connection = self.endpoint.accept().await.unwrap().await.unwrap();
            let (out, incoming) = connection.accept_bi().await.unwrap();
            Session { connection, out, incoming }
        };
        let mut session = within("a gateway connects", opening).await;
        let watch = session.next().await;
        (session, watch)
    }
}

impl Session {
    async fn send(&mut self, frame: &Frame) {
        within("a frame is taken", self.out.write_all(&frame.encode())).await.unwrap();
    }

    async fn next(&mut self) -> Frame {
        let reading = async {
            let mut head = [0; 4];
            self.incoming.read_exact(&mut head).await.unwrap();
            let mut body = vec![0; frame_length(head).unwrap()];
            self.incoming.read_exact(&mut body).await.unwrap();
            Frame::decode(&body).unwrap()
        };
        within("a frame comes", reading).await
    }

    /// Sends a bundle and waits for its verdict; anchors that come before it are returned as well.
    async fn deliver(&mut self, bytes: Vec<u8>) -> (Verdict, Vec<Anchor>) {
        self.send(&Frame::Bundle(bytes)).await;
        let mut anchors = Vec::new();
        loop {
            match self.next().await {
                Frame::Verdict(verdict) => return (verdict, anchors),
                Frame::Anchor(anchor) => anchors.push(anchor),
                other @ (Frame::Watch(_) | Frame::Bundle(_) | Frame::Revocation(_) | Frame::Emergency(_)) => {
                    panic!("{other:?} is not a gateway's")
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bundles_verdicts_and_a_controller_that_goes_and_returns() {
    let pki = Pki::new();
    let controller = Controller::new(&pki);
    let address = controller.address();
    let mut gateway = Gateway::start(address, Some("controller-1"), pki.identity(Role::Gateway, "home-1"));
    let (mut session, watch) = controller.accept().await;
    assert_eq!(watch, Frame::Watch(gateway.site.enrolment.pins().unwrap().watch()));
    let good = gateway.site.bytes(now_s());
    let (verdict, _) = session.deliver(good.clone()).await;
    assert_eq!(verdict, Verdict { number: 1, epoch: gateway.site.epoch, refused: None });
    assert_eq!((gateway.may_open(), gateway.metrics.policy.connected.get()), (1, 1));
    // A hostile controller: each forgery by name, and the connection stands.
    let stranger = Stranger { key: Signer::of(0x66), hpke_public_key: [0x66; 32] };
    let domain = gateway.policy.pins().domain;
    for forged in forgeries(&good, None, &domain, &stranger).unwrap() {
        // Larger than a frame may be: it ends the connection, see below.
        if forged.expected != "too_large" {
            let (verdict, _) = session.deliver(forged.bytes).await;
            assert_eq!(verdict.refused.as_deref(), Some(forged.expected), "{}", forged.name);
        }
    }
    assert_eq!(gateway.may_open(), 1);
    // It is killed; policy goes on; another one at the same address is heard.
    let identity = pki.identity(Role::Controller, "controller-1");
    session.connection.close(0_u32.into(), b"");
    drop(session);
    controller.endpoint.close(0_u32.into(), b"");
    controller.endpoint.wait_idle().await;
    drop(controller);
    gateway.failed("transport", 1).await;
    assert_eq!((gateway.may_open(), gateway.metrics.policy.connected.get()), (1, 0));
    let again = Controller::listen_again(&identity, address).await;
    let (mut session, again_watch) = again.accept().await;
    assert_eq!(again_watch, watch);
    gateway.site.revoke(0, 1);
    let (verdict, _) = session.deliver(gateway.site.bytes(now_s())).await;
    assert_eq!((verdict.refused, gateway.may_open()), (None, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn revocations_go_down_at_once_and_up_until_the_ledger_shows_them() {
    let pki = Pki::new();
    let controller = Controller::new(&pki);
    let mut gateway = Gateway::start(controller.address(), None, pki.identity(Role::Gateway, "home-1"));
    let (mut session, _) = controller.accept().await;
    session.deliver(gateway.site.bytes(now_s())).await;
    // Down: pushed ahead of the bundle that will show it.
    let signed = gateway.site.signed_revocation(0, 1);
    session.send(&Frame::Revocation(signed.clone())).await;
    let anchor = Anchor { revocation: signed.clone(), other_key: Site::grant_key(0).address().0 };
    assert_eq!(session.next().await, Frame::Anchor(anchor.clone()), "in force, and for the ledger");
    assert_eq!(gateway.may_open(), 0);
    // Up: with each bundle that does not show it, and on each new connection.
    let (verdict, _) = session.deliver(gateway.site.bytes(now_s())).await;
    assert_eq!((verdict.refused, gateway.may_open()), (None, 0));
    assert_eq!(session.next().await, Frame::Anchor(anchor.clone()));
    session.connection.close(0_u32.into(), b"");
    let (mut session, _) = controller.accept().await;
    assert_eq!(session.next().await, Frame::Anchor(anchor));
    // Taken at the local door while connected.
    gateway.policy.offer_revocation(gateway.site.signed_revocation(1, 4), Origin::Door).await;
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let Frame::Anchor(anchor) = session.next().await else { panic!("an anchor") };
        waiting.push((anchor.revocation.revocation.relationship, anchor.revocation.revocation.version));
    }
    waiting.sort_unstable();
    let mut expected = vec![(Site::relationship(0), 1), (Site::relationship(1), 4)];
    expected.sort_unstable();
    assert_eq!(waiting, expected);
    gateway.site.revoke(0, 1);
    gateway.site.revoke(1, 4);
    session.deliver(gateway.site.bytes(now_s())).await;
    let (_, anchors) = session.deliver(gateway.site.bytes(now_s())).await;
    assert_eq!(anchors, [], "the ledger has shown them");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_controller_and_who_does_not_speak_the_protocol() {
    let pki = Pki::new();
    // A core's certificate, and a controller of another name.
    for (role, name) in [(Role::Core, "controller-1"), (Role::Controller, "controller-2")] {
        let identity = pki.identity(role, name);
        let stranger = Controller::listen(&identity, (Ipv4Addr::LOCALHOST, 0).into());
        let gateway =
            Gateway::start(stranger.address(), Some("controller-1"), pki.identity(Role::Gateway, "home-1"));
        let accepting = tokio::spawn(async move {
            while let Some(incoming) = stranger.endpoint.accept().await {
                drop(incoming.await);
            }
        });
        gateway.failed("transport", 2).await;
        assert_eq!(gateway.metrics.policy.connected.get(), 0);
        accepting.abort();
    }
    let controller = Controller::new(&pki);
    let mut gateway = Gateway::start(controller.address(), None, pki.identity(Role::Gateway, "home-1"));
    let (mut session, _) = controller.accept().await;
    session.deliver(gateway.site.bytes(now_s())).await;
    let verdict = Verdict { number: 1, epoch: 1, refused: None };
    session.send(&Frame::Verdict(verdict)).await;
    gateway.failed("unexpected", 1).await;
    let (mut session, _) = controller.accept().await;
    session.out.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    gateway.failed("length", 1).await;
    let (mut session, _) = controller.accept().await;
    session.out.write_all(&[0, 0, 0, 2, 0x82, 9]).await.unwrap();
    gateway.failed("type", 1).await;
    // A frame in pieces is a frame.
    let (mut session, _) = controller.accept().await;
    let frame = Frame::Bundle(gateway.site.bytes(now_s())).encode();
    for piece in frame.chunks(997) {
        session.out.write_all(piece).await.unwrap();
    }
    assert!(matches!(session.next().await, Frame::Verdict(Verdict { refused: None, .. })));
    assert_eq!(gateway.may_open(), 1);
}
