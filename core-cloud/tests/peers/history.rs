//! A time of a patient's history, on real QUIC.

use crate::support::records::{EPOCH, Sealing, recipient};
use crate::support::{Feed, Site, close_reason, send};
use caregate_protocol::id::{DataClass, Lane};
use caregate_protocol::uplink::{Frame, HistoryPlace, Question, VERSION};

/// Records of an answer, and where to go on.
async fn ask(feed: &Feed, question: Question) -> (Vec<Vec<u8>>, Option<HistoryPlace>) {
    let mut frames = feed.ask(&Frame::History { version: VERSION, question }).await;
    let mut records = Vec::new();
    loop {
        match frames.next().await {
            Some(Frame::Past { record }) => records.push(record),
            Some(Frame::PastEnd { next }) => {
                assert_eq!(frames.next().await, None);
                return (records, next);
            }
            other => panic!("no history but {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_asks_for_a_time_and_goes_on_where_an_answer_ended() {
    let site = Site::new();
    let core = site.core();
    let sealing = Sealing::new(1);
    let mut gateway = site.gateway(&core, "gateway-1").await;
    let mut lane = gateway.lane(Lane::Vitals, true).await;
    let wrap = sealing.wrap(1);
    send(&mut lane, 0, &wrap).await;
    // 20 MiB, of which an answer has eight.
    let all: Vec<_> = (0..40).map(|sequence| sealing.segment_of(sequence, 512 << 10)).collect();
    for (position, record) in (1..).zip(&all) {
        send(&mut lane, position, record).await;
    }
    gateway.acked(0..41).await;
    let feed = site.feed(&core, "hospital-1").await;
    let mut question = Question {
        recipient: recipient(1),
        patient: sealing.patient,
        class: DataClass::Vitals,
        from: EPOCH,
        until: EPOCH + 1,
        at: HistoryPlace::FIRST,
    };
    let (mut came, mut answers) = (Vec::new(), 0);
    loop {
        let (records, next) = ask(&feed, question).await;
        answers += 1;
        assert_eq!(records[0], wrap, "each answer can be opened by itself");
        came.extend(records.into_iter().filter(|record| *record != wrap));
        match next {
            Some(next) => question.at = next,
            None => break,
        }
    }
    assert!(came == all && answers == 3, "{} records in {answers} answers", came.len());
    question.at = HistoryPlace::FIRST;
    assert_eq!(ask(&feed, Question { from: EPOCH + 1, until: EPOCH + 9, ..question }).await, (vec![], None));
    assert_eq!(ask(&feed, Question { recipient: recipient(2), ..question }).await, (vec![], None));
    let other = Question { recipient: recipient(3), ..question };
    let _refused = feed.ask(&Frame::History { version: VERSION, question: other }).await;
    assert_eq!(close_reason(&feed.connection).await, "not_configured");
}
