//! One simulated device: a pacer that makes readings when they are due, and an MQTT session that loses none.
//!
//! ```text
//! items ─pace─▶ outbox ─publish─▶ rumqttc ═══▶ gateway
//!                        window ◀─ PUBACK ────────┘
//! ```
//! rumqttc 0.25.1 keeps unacknowledged packets in `EventLoop::pending`, but empties that when a broker answers CONNECT
//! without "session present", as one does that was killed and lost its sessions. So pending packets are taken out on every
//! error and put back after CONNACK, in the order of their first leaving: at least once, whatever the broker remembers.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caregate_host::clock;
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet, QoS, Request,
};
use serde_json::json;
use thiserror::Error;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::config::{Config, DeviceConfig};
use super::journal::{Journal, Kind, Line};
use super::payload;
use super::source::{Body, Source};
use super::tracker::Tracker;

/// Publications on their way at once: a group commit every 20 ms then carries 5,000 readings a second per device.
const WINDOW: u32 = 100;
/// Packet ids in use: far more than [`WINDOW`], so that a PUBACK out of order never makes rumqttc's ids collide.
const PACKET_IDS: u16 = 8192;
/// Readings a device keeps while the gateway is away: an hour of four channels at five chunks a second, about 20 MB.
const OUTBOX_MAX: usize = 72_000;
/// Requests between us and rumqttc; small, so that what waits waits in our own outbox.
const REQUESTS_MAX: usize = 8;
/// A cut link is noticed within one and a half of these (MQTT 3.1.1 §3.1.2.10).
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Longest wait for CONNACK, in seconds.
const CONNECT_S_MAX: u64 = 5;
/// Longest wait for DISCONNECT to leave.
const FAREWELL: Duration = Duration::from_secs(2);
/// First and longest pause between attempts to connect.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// Refusals in a row (wrong password, not authorised) after which a device gives up: no restart cures those.
const REFUSALS_MAX: u32 = 5;
/// A chunk of [`caregate_protocol::reading::SAMPLES_MAX`] with its topic fits; rumqttc's default of 10 kB does not hold it.
const PACKET_BYTES_MAX: usize = 64 * 1024;

/// What became of a device's readings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The device.
    pub device: String,
    /// Readings handed to the session.
    pub published: u64,
    /// Of those, acknowledged.
    pub acked: u64,
}

/// Why a device stopped early.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// The broker address of the configuration.
    #[error("`broker`: '{0}' is not HOST:PORT")]
    Broker(String),
    /// The gateway refuses its credentials.
    #[error("device {device}: refused {REFUSALS_MAX} times in a row, last: {source}")]
    Refused {
        /// The device.
        device: String,
        /// rumqttc's reason.
        source: Box<ConnectionError>,
    },
}

/// When a run started, by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// Unix microseconds.
    pub wall_us: i64,
    /// For pacing.
    pub instant: Instant,
}

impl Start {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self { wall_us: clock::now_us(), instant: Instant::now() }
    }
}

/// A reading's name in the journal.
#[derive(Debug, Clone)]
struct Name {
    stream: &'static str,
    seq: u64,
}

struct Parcel {
    name: Name,
    topic: String,
    payload: Vec<u8>,
}

struct Session<'a> {
    config: &'a Config,
    device: &'a DeviceConfig,
    start: Start,
    journal: Journal,
    /// `None` for meta and status.
    tracker: Mutex<Tracker<Option<Name>>>,
    window: Semaphore,
    connected: Notify,
    /// Nothing more will be sent or received.
    over: CancellationToken,
}

/// Runs a device until `stop`, the configured seconds or the end of its record, then waits for outstanding PUBACKs.
pub async fn run(
    config: &Config,
    device: &DeviceConfig,
    source: Source,
    start: Start,
    journal: Journal,
    stop: CancellationToken,
) -> Result<Outcome, DeviceError> {
    let (client, eventloop) = connect(config, device)?;
    let session = Session {
        config,
        device,
        start,
        journal,
        tracker: Mutex::default(),
        window: Semaphore::new(WINDOW as usize),
        connected: Notify::new(),
        over: CancellationToken::new(),
    };
    let meta = json!({
        "manufacturer": "Caregate",
        "model": "sensor-sim",
        "firmware": env!("CARGO_PKG_VERSION"),
        "streams": source.streams(),
    })
    .to_string();
    let (outbox, parcels) = mpsc::channel(OUTBOX_MAX);
    let (published, (), acked) = tokio::join!(
        session.pace(&source, outbox, &stop),
        session.publish(client, parcels, &meta),
        session.poll(eventloop)
    );
    Ok(Outcome { device: device.id.to_string(), published, acked: acked? })
}

fn connect(config: &Config, device: &DeviceConfig) -> Result<(AsyncClient, EventLoop), DeviceError> {
    let (host, port) = config.broker_address().ok_or_else(|| DeviceError::Broker(config.broker.clone()))?;
    let mut options = MqttOptions::new(device.id.as_str(), host, port);
    options
        .set_credentials(&device.username, &device.password)
        .set_clean_session(false)
        .set_keep_alive(KEEP_ALIVE)
        .set_inflight(PACKET_IDS)
        .set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX)
        .set_last_will(LastWill::new(status_topic(device), "offline", QoS::AtLeastOnce, true));
    let (client, mut eventloop) = AsyncClient::new(options, REQUESTS_MAX);
    let mut network = eventloop.network_options();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(CONNECT_S_MAX);
    if let Some(interface) = &device.interface {
        network.set_bind_device(interface);
    }
    eventloop.set_network_options(network);
    Ok((client, eventloop))
}

fn status_topic(device: &DeviceConfig) -> String {
    format!("vitals/v1/{}/status", device.id)
}

impl Session<'_> {
    fn tracker(&self) -> MutexGuard<'_, Tracker<Option<Name>>> {
        self.tracker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts each reading into the outbox when it is due; answers with how many.
    async fn pace(&self, source: &Source, outbox: mpsc::Sender<Parcel>, stop: &CancellationToken) -> u64 {
        let mut published = 0;
        for item in source.items() {
            let due_s = item.due_us as f64 / 1e6 / self.config.speed;
            if self.config.seconds.is_some_and(|seconds| due_s > seconds) {
                break;
            }
            let due = self.start.instant + Duration::try_from_secs_f64(due_s).unwrap_or(Duration::MAX);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.over.cancelled() => break,
                () = sleep_until(due) => {}
            }
            let start_us = self.start.wall_us;
            let name = Name { stream: item.stream, seq: item.seq };
            let line = Line::Published {
                device: self.device.id.to_string(),
                stream: item.stream.to_owned(),
                seq: item.seq,
                published_ms: unix_ms(),
                kind: match item.body {
                    Body::Wave { .. } => Kind::Wave,
                    Body::Numeric { .. } => Kind::Num,
                },
                t_us: payload::sensor_us(&item, start_us),
            };
            let topic = payload::topic(self.device.id.as_str(), &item);
            let payload = payload::encode(&item, start_us, self.device.payload);
            if !self.journal.add(line).await || outbox.send(Parcel { name, topic, payload }).await.is_err() {
                break;
            }
            published += 1;
        }
        published
    }

    /// Hands parcels to the client while the window has room; at the end, waits until it is empty again.
    async fn publish(&self, client: AsyncClient, mut parcels: mpsc::Receiver<Parcel>, meta: &str) {
        let work = async {
            loop {
                tokio::select! {
                    biased;
                    () = self.connected.notified() => {
                        self.publish_retained(&client, format!("vitals/v1/{}/meta", self.device.id), meta).await?;
                        self.publish_retained(&client, status_topic(self.device), "online").await?;
                    }
                    parcel = parcels.recv() => match parcel {
                        Some(Parcel { name, topic, payload }) => {
                            self.hand_over(&client, Some(name), topic, false, payload).await?;
                        }
                        None => break,
                    },
                }
            }
            self.publish_retained(&client, status_topic(self.device), "offline").await?;
            Some(())
        };
        let drain = async {
            tokio::select! {
                _ = self.window.acquire_many(WINDOW) => {}
                () = self.over.cancelled() => {}
            }
        };
        tokio::select! { _ = work => {}, () = self.over.cancelled() => {} }
        let limit = Duration::try_from_secs_f64(self.config.drain_s).unwrap_or(Duration::MAX);
        if timeout(limit, drain).await.is_err() {
            tracing::error!(device = %self.device.id, "PUBACKs are still missing after drain_s");
        }
        let farewell = async {
            // An error means that the event loop is gone already.
            client.disconnect().await.ok();
            self.over.cancelled().await;
        };
        // Everything is acknowledged or given up: when the link is down, nobody need hear the goodbye.
        timeout(FAREWELL, farewell).await.ok();
        self.over.cancel();
    }

    async fn publish_retained(&self, client: &AsyncClient, topic: String, text: &str) -> Option<()> {
        self.hand_over(client, None, topic, true, text.as_bytes().to_vec()).await
    }

    /// `None` when nobody takes publications any more.
    async fn hand_over(
        &self,
        client: &AsyncClient,
        name: Option<Name>,
        topic: String,
        retain: bool,
        payload: Vec<u8>,
    ) -> Option<()> {
        // Its PUBACK gives the permit back.
        self.window.acquire().await.ok()?.forget();
        self.tracker().handle_hand_over(name);
        client.publish(topic, QoS::AtLeastOnce, retain, payload).await.ok()
    }

    /// Drives the connection until the session disconnects; answers with the readings acknowledged.
    async fn poll(&self, mut eventloop: EventLoop) -> Result<u64, DeviceError> {
        let (mut acked, mut refusals, mut pause) = (0, 0, RETRY.0);
        let mut unacked = VecDeque::new();
        loop {
            let polled = tokio::select! {
                biased;
                () = self.over.cancelled() => return Ok(acked),
                polled = eventloop.poll() => polled,
            };
            let error = match polled {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    (refusals, pause) = (0, RETRY.0);
                    eventloop.pending = std::mem::take(&mut unacked);
                    self.connected.notify_one();
                    continue;
                }
                Ok(Event::Outgoing(Outgoing::Disconnect)) => {
                    self.over.cancel();
                    return Ok(acked);
                }
                Ok(event) => {
                    acked += self.handle_event(event).await;
                    continue;
                }
                Err(error) => error,
            };
            for event in std::mem::take(&mut eventloop.state.events) {
                acked += self.handle_event(event).await;
            }
            unacked.extend(std::mem::take(&mut eventloop.pending));
            self.prepare_redelivery(&mut unacked);
            tracing::info!(device = %self.device.id, unacked = unacked.len(), "connection lost: {error}");
            refusals = if matches!(error, ConnectionError::ConnectionRefused(_)) { refusals + 1 } else { 0 };
            if refusals >= REFUSALS_MAX {
                self.over.cancel();
                return Err(DeviceError::Refused {
                    device: self.device.id.to_string(),
                    source: Box::new(error),
                });
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }

    /// 1 for the PUBACK of a reading.
    async fn handle_event(&self, event: Event) -> u64 {
        if let Event::Outgoing(Outgoing::Publish(packet_id)) = event {
            if !self.tracker().handle_sent(packet_id) {
                tracing::error!(device = %self.device.id, packet_id, "a packet left that nobody handed over");
            }
            return 0;
        }
        let Event::Incoming(Packet::PubAck(ack)) = event else { return 0 };
        let Some(name) = self.tracker().handle_puback(ack.pkid) else { return 0 };
        self.window.add_permits(1);
        let Some(Name { stream, seq }) = name else { return 0 };
        let device = self.device.id.to_string();
        self.journal.add(Line::Acked { device, stream: stream.to_owned(), seq, acked_ms: unix_ms() }).await;
        1
    }

    /// First what has left already, in its old order and marked as duplicate; then what has not.
    fn prepare_redelivery(&self, unacked: &mut VecDeque<Request>) {
        let tracker = self.tracker();
        for request in unacked.iter_mut() {
            if let Request::Publish(publish) = request {
                publish.dup = publish.pkid != 0;
            }
        }
        unacked.make_contiguous().sort_by_key(|request| {
            let Request::Publish(publish) = request else { return u64::MAX };
            tracker.order(publish.pkid).unwrap_or(u64::MAX)
        });
    }
}

fn unix_ms() -> f64 {
    clock::now_us() as f64 / 1000.0
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
