//! Gateways by TCP: the same session as by QUIC, and no other peers.

use std::sync::Arc;

use crate::support::records::Sealing;
use crate::support::{Core, Site, send, until, within};
use caregate_host::identity::Role;
use caregate_protocol::id::Lane;
use caregate_protocol::offer::{Kind, Offer, OfferHash, SignedVerdict};
use caregate_protocol::policy::delivery::Verdict;
use caregate_protocol::uplink::{ALPN, Frame, Framer, Refusal, VERSION};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The gateway's end of a connection.
struct Peer {
    stream: TlsStream<TcpStream>,
    framer: Framer,
}

impl Peer {
    async fn connect(site: &Site, core: &Core, role: Role, name: &str) -> Self {
        let tls = site.ca.identity(role, name).client_config(Role::Core, Some("core-1"), &[ALPN]);
        let stream = TcpStream::connect(core.tcp).await.unwrap();
        let name = ServerName::try_from("core").unwrap();
        let stream = within("TLS", TlsConnector::from(Arc::new(tls)).connect(name, stream)).await.unwrap();
        Self { stream, framer: Framer::new() }
    }

    async fn say(&mut self, frame: &Frame) {
        self.stream.write_all(&frame.encode()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The core's next frame; `None` where it has closed the connection.
    async fn next(&mut self) -> Option<Frame> {
        within("a frame or the end", async {
            loop {
                if let Some(frame) = self.framer.next_frame().unwrap() {
                    return Some(frame);
                }
                let mut bytes = [0; 4096];
                match self.stream.read(&mut bytes).await {
                    Ok(0) | Err(_) => return None,
                    Ok(read) => self.framer.push(&bytes[..read]),
                }
            }
        })
        .await
    }

    /// A gateway after its hello, in a lane.
    async fn gateway(site: &Site, core: &Core) -> Self {
        let mut peer = Self::connect(site, core, Role::Gateway, "gateway-1").await;
        peer.say(&Frame::Hello { version: VERSION }).await;
        assert_eq!(peer.next().await, Some(Frame::Welcome { version: VERSION }));
        peer.say(&Frame::Lane { lane: Lane::Vitals, backlog: false }).await;
        peer
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_by_tcp_is_the_same_as_by_quic() {
    let site = Site::new();
    let core = site.core();
    let (wrap, segment) = (Sealing::new(1).wrap(1), Sealing::new(1).segment(0));
    let mut peer = Peer::gateway(&site, &core).await;
    peer.say(&Frame::Data { position: 1, record: wrap.clone() }).await;
    assert_eq!(peer.next().await, Some(Frame::Ack { ranges: vec![(1, 1)] }));
    peer.say(&Frame::Lane { lane: Lane::Alarm, backlog: true }).await;
    peer.say(&Frame::Data { position: 2, record: segment.clone() }).await;
    assert_eq!(peer.next().await, Some(Frame::Ack { ranges: vec![(2, 2)] }));
    peer.say(&Frame::Data { position: 3, record: b"no record".to_vec() }).await;
    assert_eq!(peer.next().await, Some(Frame::Refuse { position: 3, refusal: Refusal::Malformed }));
    assert_eq!((core.records("stored"), core.queued(1), core.metrics.tcp_connections.get()), (2, 2, 1));
    // Again by QUIC, as after a change of the way: known, and stored once.
    let mut gateway = site.gateway(&core, "gateway-1").await;
    let mut lane = gateway.lane(Lane::Vitals, true).await;
    send(&mut lane, 2, &segment).await;
    gateway.acked([2]).await;
    assert_eq!((core.records("stored"), core.records("known")), (2, 1));
    drop(peer);
    until("the core has noticed", || core.metrics.tcp_connections.get() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_breaks_the_protocol_is_closed_by_reason_and_nobody_else_comes_in() {
    let site = Site::new();
    let core = site.core();
    let mut early = Peer::connect(&site, &core, Role::Gateway, "gateway-1").await;
    early.say(&Frame::Data { position: 1, record: Vec::new() }).await;
    assert_eq!(early.next().await, None);
    let mut newer = Peer::connect(&site, &core, Role::Gateway, "gateway-1").await;
    newer.say(&Frame::Hello { version: VERSION + 1 }).await;
    assert_eq!(newer.next().await, None);
    let mut stranger = Peer::connect(&site, &core, Role::Gateway, "gateway-9").await;
    assert_eq!(stranger.next().await, None);
    let mut second = Peer::gateway(&site, &core).await;
    second.say(&Frame::Hello { version: VERSION }).await;
    assert_eq!(second.next().await, None);
    let mut garbage = Peer::gateway(&site, &core).await;
    garbage.stream.write_all(&[0xff; 64]).await.unwrap();
    garbage.stream.flush().await.unwrap();
    assert_eq!(garbage.next().await, None);
    until("each is counted", || {
        let reasons = ["unexpected", "protocol_version", "not_configured", "length"];
        reasons.map(|reason| core.closed_for(reason)) == [2, 1, 1, 1]
    })
    .await;
    // A feed has no business here: its certificate ends the handshake.
    let mut feed = Peer::connect(&site, &core, Role::Feed, "hospital-1").await;
    assert_eq!(feed.next().await, None);
    until("the handshake is counted", || core.closed_for("handshake") == 1).await;
    assert_eq!(core.metrics.tcp_connections.get(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn places_are_the_same_for_both_ways_and_a_stop_ends_it() {
    let site = Site::new();
    let core = site.core();
    let mut peers = Vec::new();
    for _ in 0..15 {
        peers.push(Peer::gateway(&site, &core).await);
    }
    let _by_quic = site.gateway(&core, "gateway-1").await;
    let mut more = Peer::connect(&site, &core, Role::Gateway, "gateway-1").await;
    assert_eq!(more.next().await, None);
    until("it is counted", || core.closed_for("too_many_of_gateway") == 1).await;
    core.stop().await;
    for mut peer in peers {
        assert_eq!(peer.next().await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_goes_by_tcp_as_well() {
    let site = Site::new();
    let core = site.core();
    let device = Sealing::new(1).device;
    let mut peer = Peer::gateway(&site, &core).await;
    peer.say(&Frame::TakesOffers).await;
    peer.say(&Frame::Erase { request: vec![0; 104] }).await;
    assert!(matches!(peer.next().await, Some(Frame::EraseRefused { .. })));
    let message = Offer { kind: Kind::Revocation, message: vec![7; 112] };
    let sealed = message.seal(&device.verifying_key()).unwrap();
    let feed = site.feed(&core, "hospital-1").await;
    let offer = Frame::Offer { version: VERSION, sealed: sealed.clone() };
    let mut frames = feed.ask(&offer).await;
    assert_eq!(peer.next().await, Some(offer));
    assert_eq!(Offer::open(&sealed, &device), Ok(message));
    let verdict = Verdict { number: 1, epoch: 1, refused: None };
    let told =
        Frame::Verdict { bytes: SignedVerdict::sign(&verdict, OfferHash::of(&sealed), &device).to_vec() };
    peer.say(&told).await;
    assert_eq!(frames.next().await, Some(told));
}
