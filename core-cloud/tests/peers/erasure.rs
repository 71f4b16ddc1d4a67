//! Erasure on real QUIC: who may ask, what comes back, and what a feed is told.

use crate::support::records::{Sealing, recipient};
use crate::support::{Site, deliveries, send, until};
use caregate_protocol::erasure::{Erasure, Issuer, Receipt, RequestHash};
use caregate_protocol::id::{Lane, PatientId, RecipientId};
use caregate_protocol::uplink::{EraseRefusal, Frame, Refusal, VERSION};

fn request(by: u8, patient: PatientId) -> Vec<u8> {
    Erasure { patient, made_us: 7 }.sign(&Sealing::new(by).device).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_that_sealed_gets_a_receipt_and_the_feed_is_told() {
    let site = Site::new();
    let core = site.core();
    let sealing = Sealing::new(1);
    let mut gateway = site.gateway(&core, "gateway-1").await;
    let mut lane = gateway.lane(Lane::Vitals, false).await;
    send(&mut lane, 0, &sealing.wrap(1)).await;
    send(&mut lane, 1, &sealing.segment(0)).await;
    gateway.acked([0, 1]).await;
    let feed = site.feed(&core, "hospital-1").await;
    let (mut live, next) = feed.subscribe(recipient(1), u64::MAX, u64::MAX).await;
    assert_eq!(next, 2);
    let asked = request(1, sealing.patient);
    for _ in 0..2 {
        gateway.control.write_all(&Frame::Erase { request: asked.clone() }.encode()).await.unwrap();
        let Some(Frame::Erased { receipt }) = gateway.answers.next().await else { panic!("no receipt") };
        let (receipt, _key) = Receipt::verify(&receipt).unwrap();
        assert_eq!((receipt.issuer, receipt.patient, receipt.records), (Issuer::Core, sealing.patient, 2));
        assert_eq!(receipt.request, RequestHash::of(&asked));
    }
    assert_eq!(deliveries(&mut live, 2, 3).await, [asked], "although no commit of the writer came");
    send(&mut lane, 2, &sealing.segment(1)).await;
    let refused = Frame::Refuse { position: 2, refusal: Refusal::Erased };
    assert_eq!(gateway.answers.next().await, Some(refused));
    assert_eq!(core.metrics.erasures.with_label_values(&["erased"]).get(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_names_its_reason_and_erases_nothing() {
    let site = Site::new();
    let core = site.core();
    let sealing = Sealing::new(1);
    let mut gateway = site.gateway(&core, "gateway-1").await;
    let mut lane = gateway.lane(Lane::Vitals, false).await;
    send(&mut lane, 0, &sealing.segment(0)).await;
    gateway.acked([0]).await;
    let mut other = site.gateway(&core, "gateway-2").await;
    let mut forged = request(2, sealing.patient);
    forged[50] ^= 1;
    for (asked, refusal) in [
        (request(2, sealing.patient), EraseRefusal::Stranger),
        (request(1, sealing.patient), EraseRefusal::Signature),
        (forged, EraseRefusal::Signature),
        (vec![0; 104], EraseRefusal::Malformed),
    ] {
        other.control.write_all(&Frame::Erase { request: asked.clone() }.encode()).await.unwrap();
        let expected = Frame::EraseRefused { request: RequestHash::of(&asked), refusal };
        assert_eq!(other.answers.next().await, Some(expected));
        assert!(core.metrics.erasures.with_label_values(&[refusal.as_str()]).get() > 0);
    }
    send(&mut lane, 1, &sealing.segment(1)).await;
    gateway.acked([1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn feeds_receipts_are_kept_and_told_to_the_gateway_that_asks() {
    let site = Site::new();
    let core = site.core();
    let sealing = Sealing::new(1);
    let mut gateway = site.gateway(&core, "gateway-1").await;
    let asked = request(1, sealing.patient);
    let receipt_of = |recipient: u8, issuer, patient, key: u8, records| {
        let (request, recipient) = (RequestHash::of(&asked), RecipientId([recipient; 20]));
        let receipt = Receipt { issuer, patient, request, records, bytes: 9, erased_us: 7, recipient };
        receipt.sign(&Sealing::new(key).device).to_vec()
    };
    let receipt = |issuer, patient, key, records| receipt_of(1, issuer, patient, key, records);
    gateway.control.write_all(&Frame::Erase { request: asked.clone() }.encode()).await.unwrap();
    assert!(matches!(gateway.answers.next().await, Some(Frame::Erased { .. })));
    let feed = site.feed(&core, "hospital-1").await;
    let (mut out, _incoming) = feed.connection.open_bi().await.unwrap();
    out.write_all(&Frame::Follow { version: VERSION }.encode()).await.unwrap();
    let mut forged = receipt(Issuer::Feed, sealing.patient, 50, 3);
    forged[60] ^= 1;
    let (first, second) =
        (receipt(Issuer::Feed, sealing.patient, 50, 3), receipt(Issuer::Feed, sealing.patient, 51, 4));
    for bytes in [
        forged,
        receipt(Issuer::Core, sealing.patient, 50, 3),
        receipt(Issuer::Feed, PatientId([9; 16]), 50, 3),
        receipt_of(3, Issuer::Feed, sealing.patient, 50, 3),
        first.clone(),
        second.clone(),
        receipt(Issuer::Feed, sealing.patient, 50, 0),
    ] {
        out.write_all(&Frame::Erased { receipt: bytes }.encode()).await.unwrap();
    }
    let count = |outcome: &str| core.metrics.erasures.with_label_values(&[outcome]).get();
    until("all were judged", || count("receipt") == 3).await;
    assert_eq!((count("receipt_malformed"), count("receipt_unknown")), (2, 1));
    assert_eq!(count("receipt_stranger"), 1, "a feed speaks for its own recipients");
    gateway.control.write_all(&Frame::Erase { request: asked.clone() }.encode()).await.unwrap();
    let mut told = Vec::new();
    for _ in 0..3 {
        let Some(Frame::Erased { receipt }) = gateway.answers.next().await else { panic!("no receipt") };
        told.push(receipt);
    }
    assert_eq!(Receipt::verify(&told[0]).unwrap().0.issuer, Issuer::Core);
    told.remove(0);
    told.sort_unstable();
    let mut expected = [first, second];
    expected.sort_unstable();
    assert_eq!(told, expected, "of each feed the first that it told");
}
