//! A broker that says nothing more above QoS 0, though it is there: mosquitto 2.0.11 loses a place in flight with each message that it
//! drops for its length.

use std::time::Duration;

use edge_gateway::ingest::{Inbound, Verdict};
use rumqttc::QoS;
use tokio::task::JoinHandle;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::mqtt_support::{Client, within};
use super::{Door, Mosquitto, TOPIC, publish};

/// After which a broker counts as quiet here. Far longer than it takes to lose all places.
const QUIET: Duration = Duration::from_secs(1);

/// What is published at QoS 0 and at QoS 1 each comes so often.
const PACE: Duration = Duration::from_millis(20);

/// Messages of QoS 1, for twice [`QUIET`]: before another connection takes over, while it does, and after.
const COUNT: usize = 100;

/// Messages that may be unacknowledged.
const PLACES: u16 = 2;

/// What is published at QoS 0.
const UNHELD: &[u8] = b"unheld";

/// Publishes at QoS 0 until `stop`, and returns how often.
fn stream(mut publisher: Client, stop: CancellationToken) -> JoinHandle<(Client, u64)> {
    tokio::spawn(async move {
        let (mut pace, mut count) = (interval(PACE), 0);
        while !stop.is_cancelled() {
            pace.tick().await;
            publisher.client.publish(TOPIC, QoS::AtMostOnce, false, UNHELD).await.unwrap();
            count += 1;
        }
        publisher.assert_silent();
        (publisher, count)
    })
}

/// The pipeline's end. Something of QoS 0 waits for its verdict all the while: the one before gets its own when another has come.
struct Taker {
    door: Door,
    unanswered: Option<Inbound>,
    unheld: u64,
}

impl Taker {
    /// What comes next, if it is of QoS 1.
    async fn take(&mut self) -> Option<Inbound> {
        let inbound = self.door.next().await;
        if &inbound.payload[..] != UNHELD {
            return Some(inbound);
        }
        self.unheld += 1;
        if let Some(before) = self.unanswered.replace(inbound) {
            before.verdict.send(Verdict::Stored).unwrap();
        }
        None
    }

    /// The next of QoS 1.
    async fn held(&mut self) -> Inbound {
        within("a message of QoS 1", async {
            loop {
                if let Some(inbound) = self.take().await {
                    break inbound;
                }
            }
        })
        .await
    }
}

#[tokio::test]
async fn lost_places_come_back_though_qos_0_goes_on() {
    let broker = Mosquitto::start(PLACES).await;
    let mut options = broker.options("publisher");
    options.set_max_packet_size(2 << 20, 2 << 20);
    let (mut publisher, streamer) = (Client::up(options).await, Client::up(broker.options("stream")).await);
    let large = "x".repeat((1 << 20) + 1);
    let door = Door::open_quiet(broker.address, QUIET).await;
    let mut taker = Taker { door, unanswered: None, unheld: 0 };
    for _ in 0..PLACES {
        publish(&mut publisher, "vitals/v1/anything", &[&large]).await;
    }
    let stop = CancellationToken::new();
    let streaming = stream(streamer, stop.clone());
    let publishing = tokio::spawn(async move {
        let mut pace = interval(PACE);
        for number in 0..COUNT {
            pace.tick().await;
            publish(&mut publisher, TOPIC, &[&number.to_string()]).await;
        }
    });

    // The places are there again, and as many as before: no third message comes before the verdict of the first.
    let held = [taker.held().await, taker.held().await];
    for _ in 0..10 {
        assert!(taker.take().await.is_none(), "a message without a place");
    }
    let mut came = Vec::new();
    for inbound in held {
        came.push(inbound.payload);
        inbound.verdict.send(Verdict::Stored).unwrap();
    }
    while came.len() < COUNT {
        let inbound = taker.held().await;
        came.push(inbound.payload);
        inbound.verdict.send(Verdict::Stored).unwrap();
    }
    let expected: Vec<String> = (0..COUNT).map(|number| number.to_string()).collect();
    assert_eq!(came, expected, "none is lost, and none comes twice");
    within("the publisher's end", publishing).await.unwrap();
    assert!(taker.door.metrics.closes.with_label_values(&["quiet"]).get() > 0);
    assert_eq!(taker.door.metrics.closes.with_label_values(&["connection"]).get(), 0);

    // Behind all that the same client has sent at QoS 0.
    stop.cancel();
    let (mut streamer, sent) = within("the stream's end", streaming).await.unwrap();
    // The last of the numbers may wait behind it, and "last" for their places.
    if let Some(inbound) = taker.unanswered.take() {
        inbound.verdict.send(Verdict::Stored).unwrap();
    }
    publish(&mut streamer, TOPIC, &["last"]).await;
    let last = taker.held().await;
    assert_eq!(&last.payload[..], b"last");
    let Taker { door, unanswered, unheld } = taker;
    assert_eq!(unheld, sent, "none of QoS 0 is lost either");
    for inbound in unanswered.into_iter().chain([last]) {
        inbound.verdict.send(Verdict::Stored).unwrap();
    }
    door.counted("stored", sent + u64::try_from(COUNT).unwrap() + 1).await;
    door.close().await;

    // All were acknowledged: nothing of it comes again.
    let mut door = Door::open(broker.address).await;
    publish(&mut streamer, TOPIC, &["new"]).await;
    let inbound = door.next().await;
    assert_eq!(&inbound.payload[..], b"new");
    inbound.verdict.send(Verdict::Stored).unwrap();
    door.close().await;
}
