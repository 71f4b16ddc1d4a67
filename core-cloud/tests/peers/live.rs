//! Live before backlog: in the writer, in the queue, and over a connection that is lost.

use crate::support::records::{Sealing, recipient};
use crate::support::{Frames, Site, deliveries, send, until};
use caregate_protocol::id::Lane;
use caregate_protocol::uplink::{Frame, Timing};
use core_cloud::store::Span;

/// More than the core tells of one by one.
const BACKLOG: u64 = 300;

fn of(timing: Timing, from: u64) -> Span {
    Span { from, until: u64::MAX, of: Some(timing) }
}

async fn delivered(frames: &mut Frames) -> (u64, Vec<u8>) {
    match frames.next().await {
        Some(Frame::Delivery { number, record }) => (number, record),
        other => panic!("no delivery but {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_live_is_stored_first_however_much_backlog_waits() {
    let site = Site::new();
    // Nothing is stored before all of it waits.
    let mut core = site.paused();
    let sealing = Sealing::new(1);
    let mut gateway = site.gateway(&core, "gateway-1").await;
    let mut backlog = gateway.lane(Lane::Vitals, true).await;
    let mut live = gateway.lane(Lane::Vitals, false).await;
    for sequence in 0..BACKLOG {
        send(&mut backlog, sequence, &sealing.segment(sequence)).await;
    }
    until("the backlog waits", || core.waiting(Timing::Backlog) == BACKLOG).await;
    let present = [sealing.wrap(1), sealing.segment(BACKLOG)];
    send(&mut live, BACKLOG, &present[0]).await;
    send(&mut live, BACKLOG + 1, &present[1]).await;
    until("so does what is live", || core.waiting(Timing::Live) == 2).await;
    core.start_writer();
    gateway.acked(0..BACKLOG + 2).await;
    let feed = site.feed(&core, "hospital-1").await;
    let (mut queue, next) = feed.subscribe(recipient(1), 0, u64::MAX).await;
    assert_eq!((next, deliveries(&mut queue, 0, 2).await), (BACKLOG + 2, present.to_vec()));
    assert_eq!((core.waiting(Timing::Live), core.waiting(Timing::Backlog)), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_that_fills_the_core_does_not_hold_up_what_is_live() {
    let site = Site::new();
    let mut core = site.paused();
    let sealing = Sealing::new(1);
    let mut gateway = site.gateway(&core, "gateway-1").await;
    let mut lane = gateway.lane(Lane::Waveform, true).await;
    // 20 MB: more than the core takes while it stores nothing.
    let large = sealing.clone();
    let filling = tokio::spawn(async move {
        for sequence in 0..20 {
            send(&mut lane, sequence, &large.segment_of(sequence, 1_000_000)).await;
        }
        lane
    });
    until("the core takes no more", || core.waiting(Timing::Backlog) >= 17).await;
    let other = site.gateway(&core, "gateway-1").await;
    let mut live = other.lane(Lane::Vitals, false).await;
    for sequence in 20..30 {
        send(&mut live, sequence, &sealing.segment(sequence)).await;
    }
    until("what is live has come in", || core.waiting(Timing::Live) == 10).await;
    core.start_writer();
    drop(filling.await.unwrap());
    gateway.acked(0..20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_timing_is_delivered_in_its_order_and_what_is_passed_over_is_told() {
    let site = Site::new();
    let core = site.core();
    let sealing = Sealing::new(1);
    let mut gateway = site.gateway(&core, "gateway-1").await;
    let mut backlog = gateway.lane(Lane::Vitals, true).await;
    let mut lane = gateway.lane(Lane::Vitals, false).await;
    // A wrap goes before what it opens, also one of the backlog's.
    let wrap = sealing.wrap(1);
    send(&mut backlog, 0, &wrap).await;
    gateway.acked([0]).await;
    for sequence in 0..BACKLOG {
        send(&mut backlog, 1 + sequence, &sealing.segment(sequence)).await;
    }
    gateway.acked(1..=BACKLOG).await;
    send(&mut lane, BACKLOG + 1, &sealing.segment(BACKLOG)).await;
    gateway.acked([BACKLOG + 1]).await;

    let feed = site.feed(&core, "hospital-1").await;
    let (mut live, next) = feed.subscribe_to(recipient(1), of(Timing::Live, 0)).await;
    assert_eq!(next, BACKLOG + 2);
    assert_eq!(delivered(&mut live).await, (0, wrap));
    assert_eq!(delivered(&mut live).await, (BACKLOG + 1, sealing.segment(BACKLOG)));
    let (mut past, _) = feed.subscribe_to(recipient(1), of(Timing::Backlog, 0)).await;
    let segments: Vec<_> = (0..BACKLOG).map(|sequence| sealing.segment(sequence)).collect();
    assert_eq!(deliveries(&mut past, 1, BACKLOG + 1).await, segments);
    // So much live, and no backlog: the feed learns how far it is, and asks from there when it comes again.
    for sequence in BACKLOG + 1..=2 * BACKLOG {
        send(&mut lane, sequence + 1, &sealing.segment(sequence)).await;
    }
    gateway.acked(BACKLOG + 2..=2 * BACKLOG + 1).await;
    let Some(Frame::Passed { below }) = past.next().await else { panic!("not told what was passed over") };
    assert!(below > BACKLOG + 256 && below <= 2 * BACKLOG + 2, "{below}");
    drop((past, live, feed));
    let feed = site.feed(&core, "hospital-1").await;
    let (mut past, _) = feed.subscribe_to(recipient(1), of(Timing::Backlog, below)).await;
    send(&mut backlog, 5000, &sealing.segment(5000)).await;
    assert_eq!(delivered(&mut past).await, (2 * BACKLOG + 2, sealing.segment(5000)));
}
