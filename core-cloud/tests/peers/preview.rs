//! Live records shown before they are durable, on real QUIC.

use crate::support::records::{Sealing, recipient};
use crate::support::{Feed, Frames, Site, close_reason, deliveries, send, until};
use caregate_protocol::erasure::Erasure;
use caregate_protocol::id::{DataClass, Lane};
use caregate_protocol::uplink::{Classes, Frame, Refusal, VERSION};

async fn preview(feed: &Feed, to: u8, classes: Classes) -> Frames {
    feed.ask(&Frame::Preview { version: VERSION, recipient: recipient(to), classes }).await
}

fn all() -> Classes {
    Classes::of(&DataClass::ALL)
}

fn shown(record: Vec<u8>) -> Option<Frame> {
    Some(Frame::Provisional { record })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_record_is_shown_before_it_is_stored_and_delivered_once_it_is() {
    let site = Site::new();
    // Nothing is stored yet: what comes now is provisional.
    let mut core = site.paused();
    let sealing = Sealing::new(1);
    let feed = site.feed(&core, "hospital-1").await;
    let mut provisional = preview(&feed, 1, all()).await;
    let alarms = preview(&feed, 1, Classes::of(&[DataClass::Alarm])).await;
    let others = preview(&feed, 2, all()).await;
    let (mut live, next) = feed.subscribe(recipient(1), u64::MAX, u64::MAX).await;
    assert_eq!(next, 0);
    let mut gateway = site.gateway(&core, "gateway-1").await;
    let mut backlog = gateway.lane(Lane::Vitals, true).await;
    let mut lane = gateway.lane(Lane::Vitals, false).await;
    let (wrap, segment) = (sealing.wrap(1), sealing.segment(0));
    until("the views are there", || core.views() == 3).await;
    send(&mut lane, 0, &wrap).await;
    send(&mut lane, 1, &segment).await;
    assert_eq!(provisional.next().await, shown(wrap.clone()));
    assert_eq!(provisional.next().await, shown(segment.clone()));
    send(&mut backlog, 2, &sealing.segment(1)).await;
    send(&mut lane, 3, &sealing.segment(2)).await;
    assert_eq!(provisional.next().await, shown(sealing.segment(2)), "and no backlog");
    assert_eq!(core.queued(1), 0);
    core.start_writer();
    gateway.acked(0..4).await;
    let delivered = deliveries(&mut live, 0, 4).await;
    assert!([wrap, segment].iter().all(|record| delivered.contains(record)));
    assert_eq!(core.metrics.provisional.with_label_values(&["shown"]).get(), 3, "to one view of the three");
    drop((provisional, others, alarms));
    until("the views are gone", || core.views() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_shown_and_never_stored_comes_again_and_is_delivered_once() {
    let site = Site::new();
    let core = site.paused();
    let sealing = Sealing::new(1);
    let feed = site.feed(&core, "hospital-1").await;
    let mut provisional = preview(&feed, 1, all()).await;
    let gateway = site.gateway(&core, "gateway-1").await;
    let mut lane = gateway.lane(Lane::Vitals, false).await;
    until("the view is there", || core.views() == 1).await;
    send(&mut lane, 0, &sealing.wrap(1)).await;
    send(&mut lane, 1, &sealing.segment(0)).await;
    for _ in 0..2 {
        assert!(matches!(provisional.next().await, Some(Frame::Provisional { .. })));
    }
    // As with a crash: nothing of it was stored, nothing acknowledged.
    core.lost().await;
    drop((gateway, feed));
    let core = site.core();
    assert_eq!(core.queued(1), 0);
    let feed = site.feed(&core, "hospital-1").await;
    let (mut live, _) = feed.subscribe(recipient(1), 0, u64::MAX).await;
    let mut gateway = site.gateway(&core, "gateway-1").await;
    let mut lane = gateway.lane(Lane::Vitals, false).await;
    let wrap = sealing.wrap(1);
    send(&mut lane, 0, &wrap).await;
    send(&mut lane, 1, &sealing.segment(0)).await;
    gateway.acked(0..2).await;
    assert_eq!(deliveries(&mut live, 0, 2).await, [wrap, sealing.segment(0)]);
    assert_eq!(core.queued(1), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_erased_patient_nothing_is_shown_also_after_a_restart() {
    let site = Site::new();
    let core = site.core();
    let sealing = Sealing::new(1);
    let mut gateway = site.gateway(&core, "gateway-1").await;
    let request = Erasure { patient: sealing.patient, made_us: 7 }.sign(&sealing.device).to_vec();
    gateway.control.write_all(&Frame::Erase { request }.encode()).await.unwrap();
    assert!(matches!(gateway.answers.next().await, Some(Frame::Erased { .. })));
    drop(core.stop().await);
    let core = site.core();
    let feed = site.feed(&core, "hospital-1").await;
    let _provisional = preview(&feed, 1, all()).await;
    until("the view is there", || core.views() == 1).await;
    let mut gateway = site.gateway(&core, "gateway-1").await;
    let mut lane = gateway.lane(Lane::Vitals, false).await;
    send(&mut lane, 0, &sealing.wrap(1)).await;
    send(&mut lane, 1, &sealing.segment(0)).await;
    for position in 0..2 {
        let refused = Frame::Refuse { position, refusal: Refusal::Erased };
        assert_eq!(gateway.answers.next().await, Some(refused));
    }
    assert_eq!(core.metrics.provisional.with_label_values(&["shown"]).get(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_is_shown_its_own_recipients_records_alone() {
    let site = Site::new();
    let core = site.core();
    let feed = site.feed(&core, "hospital-1").await;
    let _refused = preview(&feed, 3, all()).await;
    assert_eq!(close_reason(&feed.connection).await, "not_configured");
}
