//! Sensors that remember what they published and what was acknowledged, and repeat the rest on each new connection.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caregate_tests::sensor::tracker::Tracker;
use rumqttc::{AsyncClient, Event, MqttOptions, Outgoing, Packet, QoS};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::site::SECRET;

/// Readings on their way at once.
const WINDOW: usize = 48;
/// A reading this often, so that a run's length is in seconds and not in readings.
const PACE: Duration = Duration::from_millis(4);
/// Between attempts to connect.
const RETRY: Duration = Duration::from_millis(30);

/// A reading by its device, stream and number.
pub(crate) type Name = (String, &'static str, u64);

/// What all sensors together have published and been told.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Published, not acknowledged.
    pub(crate) open: BTreeSet<Name>,
    pub(crate) acknowledged: BTreeSet<Name>,
    /// PUBLISH packets, with repetitions.
    pub(crate) sent: u64,
}

pub(crate) type Shared = Arc<Mutex<Ledger>>;

/// What a device measures: by turns one of four streams, one of each lane.
const STREAMS: [(&str, &str); 4] =
    [("num", "heart-rate"), ("wave", "ecg-ii"), ("event", "fall"), ("event", "walk")];

fn payload(stream: &str, seq: u64) -> Vec<u8> {
    match stream {
        "heart-rate" => {
            let t = 1_790_000_000_000 + seq;
            format!(r#"{{"v":{},"seq":{seq},"t":{t}}}"#, 50 + seq % 100).into_bytes()
        }
        "ecg-ii" => {
            let mut map = minicbor::Encoder::new(Vec::new());
            map.map(6).unwrap();
            map.str("t0").unwrap().u64(1_790_000_000_000_000 + seq * 250_000).unwrap();
            map.str("period").unwrap().u32(2_777_778).unwrap();
            map.str("seq").unwrap().u64(seq).unwrap();
            map.str("scale").unwrap().f64(0.005).unwrap();
            map.str("unit").unwrap().str("mV").unwrap();
            map.str("data").unwrap().bytes(&seq.to_le_bytes().repeat(500)).unwrap();
            map.into_writer()
        }
        _ => format!(r#"{{"seq":{seq},"t":{}}}"#, 1_790_000_000_000 + seq).into_bytes(),
    }
}

/// Where each stream of a device goes on.
fn next_of(device: &str, ledger: &Ledger) -> BTreeMap<&'static str, u64> {
    let mut next = BTreeMap::from(STREAMS.map(|(_, stream)| (stream, 0)));
    for (of, stream, seq) in ledger.open.iter().chain(&ledger.acknowledged) {
        if of == device
            && let Some(next) = next.get_mut(stream)
        {
            *next = (*next).max(seq + 1);
        }
    }
    next
}

/// Publishes as one device until `stop`, and then until all is acknowledged.
pub(crate) async fn run(device: String, gateway: SocketAddr, ledger: Shared, stop: CancellationToken) {
    let mut next = next_of(&device, &ledger.lock().unwrap());
    let mut turn = 0;
    for connection in 0_u64.. {
        if stop.is_cancelled() && !ledger.lock().unwrap().open.iter().any(|(of, _, _)| *of == device) {
            return;
        }
        let mut session = Session::open(&device, connection, gateway, &ledger);
        let mut tick = tokio::time::interval(PACE);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                event = session.events.recv() => {
                    let Some(event) = event else { break };
                    session.handle(&event);
                }
                _ = tick.tick(), if session.connected && session.outstanding < WINDOW => {
                    let again = session.again.pop_front();
                    let fresh = again.is_none() && !stop.is_cancelled();
                    let name = again.or_else(|| fresh.then(|| {
                        turn += 1;
                        let (_, stream) = STREAMS[turn % STREAMS.len()];
                        let seq = next.get_mut(stream).unwrap();
                        *seq += 1;
                        (device.clone(), stream, *seq - 1)
                    }));
                    let Some(name) = name else {
                        if session.outstanding == 0 {
                            return;
                        }
                        continue;
                    };
                    if !session.publish(name) {
                        break;
                    }
                }
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

struct Session<'a> {
    device: &'a str,
    ledger: &'a Shared,
    client: AsyncClient,
    events: mpsc::Receiver<Event>,
    tracker: Tracker<Name>,
    /// Acknowledged to nobody's knowledge: repeated first.
    again: VecDeque<Name>,
    outstanding: usize,
    connected: bool,
}

impl<'a> Session<'a> {
    fn open(device: &'a str, connection: u64, gateway: SocketAddr, ledger: &'a Shared) -> Self {
        let id = format!("{device}-{connection}");
        let mut options = MqttOptions::new(id, gateway.ip().to_string(), gateway.port());
        options.set_credentials(device, SECRET).set_keep_alive(Duration::from_secs(5));
        options.set_inflight(u16::try_from(4 * WINDOW).unwrap());
        let (client, mut polled) = AsyncClient::new(options, 2 * WINDOW);
        let (sender, events) = mpsc::channel(4 * WINDOW);
        tokio::spawn(async move {
            // The first error ends this connection; the next one is a client of its own, with nothing left from this one.
            while let Ok(event) = polled.poll().await {
                if sender.send(event).await.is_err() {
                    return;
                }
            }
        });
        let again = ledger.lock().unwrap().open.iter().filter(|(of, _, _)| of == device).cloned().collect();
        let tracker = Tracker::default();
        Self { device, ledger, client, events, tracker, again, outstanding: 0, connected: false }
    }

    fn handle(&mut self, event: &Event) {
        match event {
            Event::Incoming(Packet::ConnAck(_)) => self.connected = true,
            Event::Incoming(Packet::PubAck(puback)) => {
                let name =
                    self.tracker.handle_puback(puback.pkid).expect("a PUBACK for something that was sent");
                self.outstanding -= 1;
                let mut ledger = self.ledger.lock().unwrap();
                assert!(ledger.open.remove(&name), "{name:?} was not open");
                ledger.acknowledged.insert(name);
            }
            Event::Outgoing(Outgoing::Publish(id)) => assert!(self.tracker.handle_sent(*id)),
            Event::Incoming(_) | Event::Outgoing(_) => {}
        }
    }

    /// False where the connection is gone: then it is open, and repeated on the next one.
    fn publish(&mut self, name: Name) -> bool {
        let (_, stream, seq) = name;
        let (kind, _) = STREAMS.into_iter().find(|(_, of)| *of == stream).unwrap();
        let topic = format!("vitals/v1/{}/{kind}/{stream}", self.device);
        self.ledger.lock().unwrap().open.insert(name.clone());
        let sent = self.client.try_publish(topic, QoS::AtLeastOnce, false, payload(stream, seq)).is_ok();
        if sent {
            self.tracker.handle_hand_over(name);
            self.outstanding += 1;
            self.ledger.lock().unwrap().sent += 1;
        }
        sent
    }
}
