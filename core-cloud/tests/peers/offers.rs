//! Policy that feeds hand to gateways through the core: carried to the one that it is for, answered by that one alone, and never kept.

use crate::support::records::Sealing;
use crate::support::{Core, Gateway, Site, close_reason, until};
use caregate_protocol::offer::{Kind, Offer, OfferHash, Refusal, SignedVerdict};
use caregate_protocol::policy::BUNDLE_BYTES_MAX;
use caregate_protocol::policy::delivery::Verdict;
use caregate_protocol::uplink::{Frame, VERSION};
use ed25519_dalek::SigningKey;

fn sealed(to: &SigningKey, kind: Kind, bytes: usize) -> Vec<u8> {
    Offer { kind, message: vec![9; bytes] }.seal(&to.verifying_key()).unwrap()
}

fn offer(sealed: &[u8]) -> Frame {
    Frame::Offer { version: VERSION, sealed: sealed.to_vec() }
}

fn verdict(sealed: &[u8], by: &SigningKey) -> Vec<u8> {
    let verdict = Verdict { number: 3, epoch: 2, refused: Some("not_pinned".into()) };
    SignedVerdict::sign(&verdict, OfferHash::of(sealed), by).to_vec()
}

/// A gateway whose connection takes offers, as the core has heard by now.
async fn taking(site: &Site, core: &Core, name: &str) -> Gateway {
    let mut gateway = site.gateway(core, name).await;
    gateway.control.write_all(&Frame::TakesOffers.encode()).await.unwrap();
    // Answered in their order: an erasure that is none says that the frame before was read.
    gateway.control.write_all(&Frame::Erase { request: vec![0; 104] }.encode()).await.unwrap();
    assert!(matches!(gateway.answers.next().await, Some(Frame::EraseRefused { .. })));
    gateway
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_reaches_the_gateway_that_it_is_for_and_its_verdict_the_feed() {
    let site = Site::new();
    let core = site.core();
    let (one, other) = (Sealing::new(1).device, Sealing::new(2).device);
    let feed = site.feed(&core, "hospital-1").await;
    let bytes = sealed(&one, Kind::Bundle, BUNDLE_BYTES_MAX);
    let not_connected = Some(Frame::NotOffered { refusal: Refusal::NotConnected });
    assert_eq!(feed.ask(&offer(&bytes)).await.next().await, not_connected);
    // One that has not said that it takes them is not given any.
    let _silent = site.gateway(&core, "gateway-1").await;
    assert_eq!(feed.ask(&offer(&bytes)).await.next().await, not_connected);

    let mut gateway = taking(&site, &core, "gateway-1").await;
    let mut stranger = taking(&site, &core, "gateway-2").await;
    let mut frames = feed.ask(&offer(&bytes)).await;
    assert_eq!(gateway.answers.next().await, Some(offer(&bytes)));
    // Another gateway has no say, in its own name or in that one's.
    for by in [&one, &other] {
        let frame = Frame::Verdict { bytes: verdict(&bytes, by) };
        stranger.control.write_all(&frame.encode()).await.unwrap();
    }
    let counted = |outcome: &str| core.metrics.verdicts.with_label_values(&[outcome]).get();
    until("both are passed over", || counted("stranger") == 1 && counted("late") == 1).await;
    let told = Frame::Verdict { bytes: verdict(&bytes, &one) };
    gateway.control.write_all(&told.encode()).await.unwrap();
    assert_eq!(frames.next().await, Some(told));
    assert_eq!(frames.next().await, None);

    let malformed = feed.ask(&offer(b"rubbish")).await.next().await;
    assert_eq!(malformed, Some(Frame::NotOffered { refusal: Refusal::Malformed }));
    // The gateway goes while one is on its way.
    let bytes = sealed(&one, Kind::Emergency, 200);
    let mut frames = feed.ask(&offer(&bytes)).await;
    assert_eq!(gateway.answers.next().await, Some(offer(&bytes)));
    gateway.connection.close(0_u32.into(), b"");
    assert_eq!(frames.next().await, Some(Frame::NotOffered { refusal: Refusal::NoAnswer }));
    assert_eq!(feed.ask(&offer(&bytes)).await.next().await, not_connected);
    assert_eq!(core.metrics.offers.with_label_values(&["carried"]).get(), 1);
    assert_eq!(core.queued(1), 0, "nothing of it was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_that_nobody_asked_for_ends_the_connection() {
    let site = Site::new();
    let core = site.core();
    let mut gateway = site.gateway(&core, "gateway-1").await;
    let frame = Frame::Verdict { bytes: verdict(b"none", &Sealing::new(1).device) };
    gateway.control.write_all(&frame.encode()).await.unwrap();
    assert_eq!(close_reason(&gateway.connection).await, "unexpected");
    // An offer is the feed's to make, not a gateway's.
    let mut gateway = site.gateway(&core, "gateway-1").await;
    gateway.control.write_all(&offer(b"x").encode()).await.unwrap();
    assert_eq!(close_reason(&gateway.connection).await, "unexpected");
}
