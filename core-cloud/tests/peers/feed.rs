//! Feeds on real QUIC: history, live, resuming, and what one subscriber can do to another.

use std::path::Path;

use crate::support::records::{Sealing, recipient};
use crate::support::{Client, Core, Feed, Frames, Site, deliveries, send, until, within};
use caregate_host::clock;
use caregate_host::identity::Role;
use caregate_host::journal::Journal;
use caregate_protocol::audit::verify::{self, Disagreement, SLACK_MS};
use caregate_protocol::audit::{Delivered, Entry, Line, Run, What};
use caregate_protocol::id::DataClass;
use caregate_protocol::search::Token;
use caregate_protocol::uplink::{Frame, VERSION};

/// Stores as a gateway does, and waits for the acknowledgement.
async fn store(site: &Site, core: &Core, records: Vec<Vec<u8>>) {
    let mut gateway = site.gateway(core, "gateway-1").await;
    let mut lane = gateway.lane(caregate_protocol::id::Lane::Vitals, false).await;
    let count = records.len() as u64;
    for (position, record) in (0..).zip(&records) {
        send(&mut lane, position, record).await;
    }
    gateway.acked(0..count).await;
}

fn records(to: u8, segments: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    let sealing = Sealing::new(1);
    let wrap = (segments.start == 0).then(|| sealing.wrap(to));
    wrap.into_iter().chain(segments.map(|sequence| sealing.segment(sequence))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn history_ends_where_it_was_asked_to_and_live_goes_on_from_there() {
    let site = Site::new();
    let core = site.core();
    let past = records(1, 0..5);
    store(&site, &core, past.clone()).await;
    let feed = site.feed(&core, "hospital-1").await;
    let (mut live, next) = feed.subscribe(recipient(1), u64::MAX, u64::MAX).await;
    assert_eq!(next, 6);
    let (mut history, _) = feed.subscribe(recipient(1), 0, next).await;
    assert_eq!(deliveries(&mut history, 0, 6).await, past);
    assert_eq!(history.next().await, None, "history ends");
    let present = records(1, 5..9);
    store(&site, &core, present.clone()).await;
    assert_eq!(deliveries(&mut live, 6, 10).await, present);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_resumes_by_number_also_over_a_restart_of_the_core() {
    let site = Site::new();
    let core = site.core();
    let all = records(1, 0..20);
    store(&site, &core, all.clone()).await;
    let feed = site.feed(&core, "hospital-1").await;
    let (mut frames, _) = feed.subscribe(recipient(1), 0, u64::MAX).await;
    assert_eq!(deliveries(&mut frames, 0, 7).await, all[..7]);
    drop((frames, feed));
    drop(core.stop().await);
    let core = site.core();
    let feed = site.feed(&core, "hospital-1").await;
    let (mut frames, next) = feed.subscribe(recipient(1), 7, u64::MAX).await;
    assert_eq!(next, 21);
    assert_eq!(deliveries(&mut frames, 7, 21).await, all[7..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_reaches_into_the_future_ends_when_it_has_come() {
    let site = Site::new();
    let core = site.core();
    let feed = site.feed(&core, "hospital-1").await;
    let (mut frames, next) = feed.subscribe(recipient(1), 0, 3).await;
    assert_eq!(next, 0);
    let all = records(1, 0..5);
    store(&site, &core, all.clone()).await;
    assert_eq!(deliveries(&mut frames, 0, 3).await, all[..3]);
    assert_eq!(frames.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_recipient_gets_its_own_wraps_and_what_they_open() {
    let site = Site::new();
    let core = site.core();
    let sealing = Sealing::new(1);
    let (mine, theirs, segment) = (sealing.wrap(1), sealing.wrap(3), sealing.segment(0));
    store(&site, &core, vec![mine.clone(), segment.clone(), theirs.clone()]).await;
    for (name, to, wrap) in [("hospital-1", 1, mine), ("hospital-2", 3, theirs)] {
        let feed = site.feed(&core, name).await;
        let (mut frames, next) = feed.subscribe(recipient(to), 0, 2).await;
        assert_eq!((next, deliveries(&mut frames, 0, 2).await), (2, vec![wrap, segment.clone()]));
    }
    let feed = site.feed(&core, "hospital-1").await;
    let (_, next) = feed.subscribe(recipient(2), 0, 0).await;
    assert_eq!(next, 0, "a recipient without a wrap has nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_does_not_read_holds_up_nobody_and_misses_nothing() {
    const SEGMENTS: u64 = 300;
    let site = Site::new();
    let core = site.core();
    let slow = {
        let client = Client::with_windows(&site.ca.identity(Role::Feed, "hospital-1"), Some(4096));
        let connection = within("a feed's handshake", client.connect(core.address)).await.unwrap();
        Feed::new(connection, client)
    };
    let (mut unread, _) = slow.subscribe(recipient(1), 0, u64::MAX).await;
    let fast = site.feed(&core, "hospital-1").await;
    let (mut read, _) = fast.subscribe(recipient(1), 0, u64::MAX).await;
    let sealing = Sealing::new(1);
    let segments = (0..SEGMENTS).map(|sequence| sealing.segment_of(sequence, 20_000));
    let all: Vec<_> = [sealing.wrap(1)].into_iter().chain(segments).collect();
    store(&site, &core, all.clone()).await;
    assert!(deliveries(&mut read, 0, SEGMENTS + 1).await == all);
    // Both of hospital-1's subscriptions count here; the slow one's part is what its windows hold.
    let delivered = core.metrics.delivered.get();
    assert!(
        delivered < 2 * SEGMENTS,
        "{delivered} records were handed out, so somebody buffers without bound"
    );
    assert!(deliveries(&mut unread, 0, SEGMENTS + 1).await == all);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lets_go_of_one_subscription_keeps_the_others() {
    let site = Site::new();
    let core = site.core();
    let all = records(1, 0..40);
    store(&site, &core, all.clone()).await;
    // A window of some ten records, so that the core is in the middle of writing when nobody reads any more.
    let client = Client::with_windows(&site.ca.identity(Role::Feed, "hospital-1"), Some(4096));
    let connection = within("a feed's handshake", client.connect(core.address)).await.unwrap();
    let feed = Feed::new(connection, client);
    let (idle, _) = feed.subscribe(recipient(1), u64::MAX, u64::MAX).await;
    let (mut kept, _) = feed.subscribe(recipient(1), u64::MAX, u64::MAX).await;
    let (dropped, _) = feed.subscribe(recipient(1), 0, u64::MAX).await;
    until("the core writes", || core.metrics.delivered.get() >= 8).await;
    drop((dropped, idle));
    let present = records(1, 40..60);
    store(&site, &core, present.clone()).await;
    assert_eq!(deliveries(&mut kept, 41, 61).await, present);
    assert!(feed.connection.close_reason().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_of_one_feed_are_bounded_and_free_when_they_end() {
    let site = Site::new();
    let core = site.core();
    store(&site, &core, records(1, 0..1)).await;
    let feed = site.feed(&core, "hospital-1").await;
    for _ in 0..100 {
        let (mut frames, _) = feed.subscribe(recipient(1), 0, 2).await;
        deliveries(&mut frames, 0, 2).await;
        assert_eq!(frames.next().await, None);
    }
    let mut open: Vec<Frames> = Vec::new();
    for _ in 0..12 {
        open.push(feed.subscribe(recipient(1), u64::MAX, u64::MAX).await.0);
    }
    let subscribe =
        Frame::Subscribe { version: VERSION, recipient: recipient(1), from: 0, until: 1, of: None };
    let mut one_more = Box::pin(feed.ask(&subscribe));
    tokio::select! {
        biased;
        _ = &mut one_more => panic!("a thirteenth subscription was opened"),
        () = tokio::task::yield_now() => {}
    }
    // QUIC tells of places that came free when they are more than an eighth of all, so of one alone it does not.
    open.truncate(6);
    let mut frames = within("the thirteenth subscription", one_more).await;
    assert!(matches!(frames.next().await, Some(Frame::Subscribed { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_counted_while_they_last() {
    let site = Site::new();
    let core = site.core();
    let connected = |role: &str| core.metrics.connections.with_label_values(&[role]).get();
    let (gateway, feed) = (site.gateway(&core, "gateway-1").await, site.feed(&core, "hospital-1").await);
    until("both are counted", || (connected("gateway"), connected("feed")) == (1, 1)).await;
    gateway.connection.close(0_u32.into(), b"");
    feed.connection.close(0_u32.into(), b"");
    until("neither is counted", || (connected("gateway"), connected("feed")) == (0, 0)).await;
}

/// What goes to a feed is in the core's audit log, whole and by chain: the feed's own can be held against it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_delivered_is_in_the_audit_log() {
    let site = Site::new();
    let core = site.core();
    store(&site, &core, records(1, 0..5)).await;
    let feed = site.feed(&core, "hospital-1").await;
    for _ in 0..2 {
        let (mut frames, _) = feed.subscribe(recipient(1), 0, 6).await;
        deliveries(&mut frames, 0, 6).await;
        assert_eq!(frames.next().await, None);
    }
    let (mut live, _) = feed.subscribe(recipient(1), 3, u64::MAX).await;
    deliveries(&mut live, 3, 6).await;
    drop((live, feed));
    drop(core.stop().await);
    let text = std::fs::read(site.dir.path().join("journal.jsonl")).unwrap();
    let log = verify::log(&text, &[]).unwrap();
    let noted = log.lines.iter().map(|line| {
        let What::Fetched { recipient: to, feed, delivered } = &line.entry.what else { panic!("{line:?}") };
        assert_eq!((*to, feed.as_str()), (recipient(1), "hospital-1"));
        (delivered.segments.clone(), delivered.wraps.len())
    });
    let history = (vec![Run(0, 4)], 1);
    assert_eq!(noted.collect::<Vec<_>>(), [history.clone(), history, (vec![Run(2, 4)], 0)]);
}

/// The log of this file, with an entry that is later than all that is compared.
fn ended(path: &Path) -> Vec<Line> {
    let end = Entry { at_ms: clock::now_ms() + 2 * SLACK_MS, what: What::PolicyFresh };
    Journal::open(path).unwrap().0.append(&[end]).unwrap();
    verify::log(&std::fs::read(path).unwrap(), &[]).unwrap().lines
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_search_gave_is_in_the_audit_log_and_who_hides_it_is_named() {
    let site = Site::new();
    let core = site.core();
    let sealing = Sealing::new(1);
    let token = |n: usize| Token([u8::try_from(n).unwrap(); 16]);
    let [first, second] = [0, 100].map(|from| std::array::from_fn(|n| token(from + n)));
    let (found, other) = (sealing.alarm(3), sealing.alarm(4));
    let past = vec![found.clone(), sealing.tokens(3, first), other, sealing.tokens(4, second)];
    store(&site, &core, past).await;
    let feed = site.feed(&core, "hospital-1").await;
    let (patient, class) = (sealing.patient, DataClass::Alarm);
    for (n, expected) in [(7, Some(Frame::Found { record: found })), (50, None)] {
        let tokens = vec![token(n)];
        let question = Frame::Search { version: VERSION, recipient: recipient(1), patient, class, tokens };
        let mut frames = feed.ask(&question).await;
        assert_eq!(frames.next().await, expected);
        if expected.is_some() {
            assert_eq!(frames.next().await, None);
        }
    }
    assert_eq!((core.metrics.searches.get(), core.metrics.delivered.get()), (2, 1));
    drop(feed);
    drop(core.stop().await);
    let core = ended(&site.dir.path().join("journal.jsonl"));
    let delivered = Delivered { patient, class, segments: vec![Run(3, 3)], wraps: Vec::new() };
    let (to, feed) = (recipient(1), "hospital-1".to_owned());
    assert_eq!(core[0].entry.what, What::Fetched { recipient: to, feed, delivered: delivered.clone() });
    assert_eq!(core.len(), 2, "a search that finds nothing gives nothing");
    let path = site.dir.path().join("feed.jsonl");
    let hidden = Disagreement::Unreceived { n: 1, patient, class, segment: 3 };
    assert_eq!(verify::agree(to, &ended(&path), &core, &[]), Err(hidden));
    let received = Entry { at_ms: clock::now_ms(), what: What::Received { recipient: to, delivered } };
    Journal::open(&path).unwrap().0.append(&[received]).unwrap();
    assert!(verify::agree(to, &ended(&path), &core, &[]).is_ok());
}
