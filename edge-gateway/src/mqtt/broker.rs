//! The second door: a client of the broker that a home already has, subscribed to `vitals/v1/#` at QoS 1.
//!
//! MQTT 5.0 is spoken where the broker does, and else 3.1.1 (`client`). The broker is told PUBACK only after the pipeline's verdict
//! (`set_manual_acks`), in the order of receipt, and keeps the session, so what was not acknowledged comes again after a reconnect. A refused publish is not
//! acknowledged: the connection is dropped, and after a pause the broker sends it again. What no repetition can mend (a device
//! that is not allowed, a topic that names none, a payload too large) is acknowledged and counted, since a broker repeats the
//! head of its queue for ever. What is longer than is read at all a broker of 5.0 drops. One of 3.1.1 sends it again and again: what came
//! before it is answered first, and where it then ends a second connection in a row, the session is thrown away, or nothing else would ever
//! come.
//!
//! Each connection gets a fresh client and event loop: rumqttc keeps packets that it had read, but not yet handed out,
//! over a reconnect, and a PUBACK for one of those would carry a packet identifier of the old connection.

mod client;
mod quiet;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use caregate_protocol::id::{DeviceId, Lane};
use rumqttc::QoS;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use self::client::{Client, Failure, News, Protocol, Publish};
use self::quiet::{Patience, QUIET};
use super::limits::DRAIN_TIMEOUT;
use super::metrics::{BrokerMetrics, verdict_label};
use super::topic;
use super::window::{Window, cost};
use crate::ingest::{Inbound, Inlet, Verdict, lane_of};
use crate::pipeline::duplicates::WINDOW;

/// What is subscribed to.
const FILTER: &str = "vitals/v1/#";

/// Largest packet from the broker. Larger than what is admitted, so that a message which is too large can be acknowledged
/// and counted; what is longer a broker of 5.0 drops, and one of 3.1.1 ends the connection with.
const PACKET_BYTES_MAX: usize = 1024 * 1024;

/// Largest payload that is admitted: the same as the embedded server's packet.
const PAYLOAD_BYTES_MAX: usize = 256 * 1024;

/// Publishes that await their verdict. Brokers send 20 (mosquitto) to a few hundred without a PUBACK; above this one that
/// knows no window is cut off. All of them come again after a lost connection, so half the window in which a repetition is
/// recognised, also if all are of one stream.
const OUTSTANDING_MAX: usize = 256;
const _: () = assert!(OUTSTANDING_MAX <= WINDOW / 2, "what comes again must be recognised");

/// Their bytes.
const OUTSTANDING_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The broker's keep-alive: short enough that a dead broker shows within a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// After so many connections in a row that a packet longer than [`PACKET_BYTES_MAX`] ended, the session is thrown away. Once may be a
/// message that the broker holds for nobody and does not send again.
const TOO_LARGE_MAX: u32 = 2;

/// First and longest pause before connecting again. A broker that restarts is back in a second or two; half a minute is what
/// an installer waits without giving up.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Where the broker is, and whose readings are taken from it.
#[derive(Clone)]
pub struct BrokerConfig {
    /// Host name or address.
    pub host: String,
    /// TCP port, usually 1883.
    pub port: u16,
    /// The client id under which the broker keeps the session: unique at that broker, and the same after a restart.
    pub client_id: String,
    /// User name and password, where the broker asks for them.
    pub login: Option<(String, String)>,
    /// The devices whose topics are taken: a broker says nothing about who published.
    pub devices: BTreeSet<DeviceId>,
    /// The Unix socket behind which it is ([`Tunnel`](super::tunnel::Tunnel)), where it is reached by TLS.
    pub socket: Option<PathBuf>,
}

impl std::fmt::Debug for BrokerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BrokerConfig")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// Why a publish is not for the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unfit {
    ForeignTopic,
    UnknownDevice,
    TooLarge,
}

impl Unfit {
    fn label(self) -> &'static str {
        match self {
            Self::ForeignTopic => "foreign-topic",
            Self::UnknownDevice => "unknown-device",
            Self::TooLarge => "too-large",
        }
    }
}

/// Whose publish this is.
fn device_of(topic: &str, bytes: usize, devices: &BTreeSet<DeviceId>) -> Result<DeviceId, Unfit> {
    let device = topic::device_of(topic).ok_or(Unfit::ForeignTopic)?;
    if !devices.contains(&device) {
        return Err(Unfit::UnknownDevice);
    }
    if bytes > PAYLOAD_BYTES_MAX { Err(Unfit::TooLarge) } else { Ok(device) }
}

/// Pauses between connections: doubling from [`BACKOFF_MIN`] to [`BACKOFF_MAX`]. Without jitter: there is one gateway per broker.
#[derive(Debug)]
struct Backoff(Duration);

impl Backoff {
    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(BACKOFF_MAX);
        pause
    }

    fn reset(&mut self) {
        self.0 = BACKOFF_MIN;
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Shutdown,
    Connection,
    /// A packet longer than [`PACKET_BYTES_MAX`], and what came before it is acknowledged, or can't be any more.
    TooLarge,
    /// The same, behind what was refused or had no verdict in time, and so comes again before it.
    TooLargeBehind,
    /// Nothing has come above QoS 0 for too long ([`quiet`]): the next connection takes this one's place.
    Quiet,
    /// What the broker had kept for the session was thrown away, as was wanted.
    SessionDiscarded,
    SubscriptionRefused,
    PublishRefused,
    WindowFull,
    PipelineGone,
}

impl End {
    fn label(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::Connection => "connection",
            Self::TooLarge | Self::TooLargeBehind => "too-large",
            Self::Quiet => "quiet",
            Self::SessionDiscarded => "session-discarded",
            Self::SubscriptionRefused => "subscription-refused",
            Self::PublishRefused => "refused",
            Self::WindowFull => "window-full",
            Self::PipelineGone => "pipeline-gone",
        }
    }
}

/// How the next connection is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Attempt {
    protocol: Protocol,
    /// Connections in a row, but for those that didn't come up, that a packet ended which was too large.
    too_large: u32,
}

impl Attempt {
    const FIRST: Self = Self { protocol: Protocol::V5, too_large: 0 };

    /// Only to throw away what the broker has kept.
    fn discards(self) -> bool {
        self.too_large >= TOO_LARGE_MAX
    }

    /// After one that came up or not. A broker that knows no 5.0 says so in words that are none of 5.0, or closes.
    fn next(self, end: End, was_up: bool, too_large: u32) -> Self {
        let protocol = match (self.protocol, was_up) {
            (Protocol::V5, false) => Protocol::V4,
            (Protocol::V5, true) | (Protocol::V4, _) => Protocol::V5,
        };
        let too_large = match end {
            End::TooLarge => too_large + 1,
            End::SessionDiscarded => 0,
            End::Shutdown
            | End::Connection
            | End::TooLargeBehind
            | End::Quiet
            | End::SubscriptionRefused
            | End::PublishRefused
            | End::WindowFull
            | End::PipelineGone => too_large,
        };
        Self { protocol, too_large }
    }
}

/// Takes readings from the broker until `shutdown`; then answers what is outstanding (at most [`DRAIN_TIMEOUT`]) and returns. Connects
/// again, for ever, whatever ends a connection.
pub async fn run(config: BrokerConfig, inbound: Inlet, metrics: BrokerMetrics, shutdown: CancellationToken) {
    run_with_quiet(config, inbound, metrics, shutdown, QUIET).await;
}

/// [`run`], to which a broker of 5.0 is quiet after another time than five minutes: for tests.
pub async fn run_with_quiet(
    config: BrokerConfig,
    inbound: Inlet,
    metrics: BrokerMetrics,
    shutdown: CancellationToken,
    quiet: Duration,
) {
    let (mut backoff, mut attempt) = (Backoff(BACKOFF_MIN), Attempt::FIRST);
    let (mut patience, mut previous) = (Patience::new(quiet), None);
    while !shutdown.is_cancelled() {
        let mut link = Link::new(&config, &inbound, &metrics, attempt, patience, previous.take());
        let end = link.run(&shutdown, &mut backoff).await;
        metrics.closes.with_label_values(&[end.label()]).inc();
        patience = link.patience;
        if end == End::Quiet {
            attempt = attempt.next(end, link.was_up, link.too_large);
            patience = patience.next();
            // It still is subscribed: the broker ends it when the next one comes.
            previous = Some((link.client, link.outstanding));
            continue;
        }
        metrics.subscribed.set(0);
        if end == End::PipelineGone {
            tracing::error!("the pipeline has gone: no more readings are taken from the broker");
            return;
        }
        let is_old = attempt.protocol == Protocol::V5 && !link.was_up;
        attempt = attempt.next(end, link.was_up, link.too_large);
        if is_old {
            // It may be one that knows 3.1.1 only: no pause between the two.
            continue;
        }
        // The link lives on meanwhile: what was acknowledged before its end is still written.
        let pause = backoff.next();
        tracing::info!(reason = end.label(), pause_ms = pause.as_millis(), "broker connection ended");
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    metrics.subscribed.set(0);
}

struct Outstanding {
    publish: Publish,
    /// What to do when its turn comes.
    answer: Answer,
}

enum Answer {
    /// Not for the pipeline: acknowledge.
    Unfit(Unfit),
    Awaited(oneshot::Receiver<Verdict>),
}

/// One connection to the broker.
struct Link<'a> {
    config: &'a BrokerConfig,
    inbound: &'a Inlet,
    metrics: &'a BrokerMetrics,
    protocol: Protocol,
    client: Client,
    /// The connection before, where it was quiet: what still comes over it at QoS 0 comes over no other.
    previous: Option<Client>,
    /// There was such a one.
    renews: bool,
    outstanding: Window<Outstanding>,
    /// Waits for its place; nothing more is taken meanwhile. Nobody is refused here for want of one: what waits is the broker's to keep.
    waiting: Option<(Lane, Inbound)>,
    discards: bool,
    /// CONNACK has come.
    was_up: bool,
    subscribed: bool,
    /// The last PUBLISH above QoS 0, its answer, or the subscription.
    heard: Instant,
    patience: Patience,
    /// [`Attempt::too_large`]; none as soon as a PUBLISH is acknowledged.
    too_large: u32,
}

impl<'a> Link<'a> {
    fn new(
        config: &'a BrokerConfig,
        inbound: &'a Inlet,
        metrics: &'a BrokerMetrics,
        attempt: Attempt,
        patience: Patience,
        previous: Option<(Client, Window<Outstanding>)>,
    ) -> Self {
        let discards = attempt.discards();
        let client = Client::connect(config, attempt.protocol, discards);
        // What has no verdict yet came at QoS 0, or that one would not have been quiet.
        let (previous, outstanding) = previous.unzip();
        let outstanding = outstanding.unwrap_or_else(|| Window::new(OUTSTANDING_MAX, OUTSTANDING_BYTES_MAX));
        let too_large = attempt.too_large;
        Self {
            config,
            inbound,
            metrics,
            protocol: attempt.protocol,
            client,
            renews: previous.is_some(),
            previous,
            outstanding,
            waiting: None,
            discards,
            was_up: false,
            subscribed: false,
            heard: Instant::now(),
            patience,
            too_large,
        }
    }

    async fn run(&mut self, shutdown: &CancellationToken, backoff: &mut Backoff) -> End {
        loop {
            let quiet = self.quiet_at();
            // Before what comes next, for at QoS 0 there may always be something.
            if quiet.is_some_and(|at| at <= Instant::now()) {
                return End::Quiet;
            }
            let end = tokio::select! {
                biased;
                () = shutdown.cancelled() => ControlFlow::Break(End::Shutdown),
                answered = oldest_answer(&mut self.outstanding) => self.handle_answer(answered, backoff),
                placed = place(self.inbound, &mut self.waiting), if self.waiting.is_some() => placed,
                news = next_of(&mut self.previous), if self.waiting.is_none() => self.handle_previous(news),
                news = self.client.next(), if self.waiting.is_none() => self.handle_news(news),
                () = until(quiet) => ControlFlow::Break(End::Quiet),
            };
            match end {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(End::Shutdown) => {
                    // Whatever is not answered comes again at the next start.
                    let _unanswered = self.drain(backoff).await;
                    return End::Shutdown;
                }
                ControlFlow::Break(End::TooLarge) => {
                    return end_of_too_large(self.drain(backoff).await);
                }
                ControlFlow::Break(end) => return end,
            }
        }
    }

    /// When this connection is too quiet, if ever.
    fn quiet_at(&self) -> Option<Instant> {
        let awaits_ours = |entry: &Outstanding| entry.publish.qos != QoS::AtMostOnce;
        let is_owed =
            !self.subscribed || self.waiting.is_some() || self.outstanding.position(awaits_ours).is_some();
        self.patience.end(self.protocol, is_owed, self.heard)
    }

    /// Of the connection before. What comes over it at QoS 1 is not acknowledged there, and so comes again over this one.
    fn handle_previous(&mut self, news: Option<Result<News, Failure>>) -> ControlFlow<End> {
        match news {
            Some(Ok(News::Publish(publish))) if publish.qos == QoS::AtMostOnce => {
                return self.handle_publish(publish);
            }
            Some(Ok(News::Up | News::Subscribed(_) | News::Publish(_) | News::Other)) => {}
            Some(Err(_)) | None => self.previous = None,
        }
        ControlFlow::Continue(())
    }

    fn handle_news(&mut self, news: Option<Result<News, Failure>>) -> ControlFlow<End> {
        match news {
            Some(Ok(News::Up)) => self.handle_up(),
            Some(Ok(News::Subscribed(true))) => {
                self.subscribed = true;
                self.heard = Instant::now();
                self.metrics.subscribed.set(1);
                ControlFlow::Continue(())
            }
            Some(Ok(News::Subscribed(false))) => {
                tracing::warn!(filter = FILTER, "the broker refuses the subscription");
                ControlFlow::Break(End::SubscriptionRefused)
            }
            Some(Ok(News::Publish(publish))) => self.handle_publish(publish),
            Some(Ok(News::Other)) => ControlFlow::Continue(()),
            Some(Err(Failure { is_too_large, text })) => {
                tracing::warn!(error = text, "broker connection");
                ControlFlow::Break(if is_too_large { End::TooLarge } else { End::Connection })
            }
            None => ControlFlow::Break(End::Connection),
        }
    }

    fn handle_up(&mut self) -> ControlFlow<End> {
        self.was_up = true;
        if self.discards {
            tracing::error!(
                "what the broker kept is thrown away: a message too large ended two connections in a row"
            );
            return ControlFlow::Break(End::SessionDiscarded);
        }
        match self.client.subscribe(self.renews) {
            Ok(()) => ControlFlow::Continue(()),
            Err(client::Gone) => ControlFlow::Break(End::Connection),
        }
    }

    fn handle_publish(&mut self, publish: Publish) -> ControlFlow<End> {
        if publish.qos != QoS::AtMostOnce {
            self.heard = Instant::now();
            self.patience.hear();
        }
        if self.outstanding.is_full() {
            self.metrics.publishes.with_label_values(&["window-full"]).inc();
            // QoS 0 knows no window and may be lost (§4.3.1); QoS 1 comes again.
            if publish.qos == QoS::AtMostOnce {
                return ControlFlow::Continue(());
            }
            return ControlFlow::Break(End::WindowFull);
        }
        let bytes = cost(&publish.topic, &publish.payload);
        let answer = match device_of(&publish.topic, publish.payload.len(), &self.config.devices) {
            Err(unfit) => Answer::Unfit(unfit),
            Ok(device) => {
                let (verdict, receiver) = oneshot::channel();
                let inbound = Inbound {
                    device,
                    topic: publish.topic.clone(),
                    payload: publish.payload.clone(),
                    received_us: unix_us(),
                    verdict,
                };
                let lane = lane_of(&publish.topic, publish.payload.len());
                match self.inbound.of(lane).try_send(inbound) {
                    Ok(()) => {}
                    Err(TrySendError::Full(inbound)) => self.waiting = Some((lane, inbound)),
                    Err(TrySendError::Closed(_)) => return ControlFlow::Break(End::PipelineGone),
                }
                Answer::Awaited(receiver)
            }
        };
        self.outstanding.push(bytes, Outstanding { publish, answer });
        ControlFlow::Continue(())
    }

    /// Takes in the answer to the oldest publish.
    fn handle_answer(
        &mut self,
        answer: Result<Option<Verdict>, Unfit>,
        backoff: &mut Backoff,
    ) -> ControlFlow<End> {
        let Some(Outstanding { publish, .. }) = self.outstanding.pop() else {
            return ControlFlow::Continue(());
        };
        let label = match answer {
            Ok(verdict) => verdict_label(verdict),
            Err(unfit) => unfit.label(),
        };
        self.metrics.publishes.with_label_values(&[label]).inc();
        if publish.qos == QoS::AtMostOnce {
            return ControlFlow::Continue(());
        }
        self.heard = Instant::now();
        match answer {
            Ok(Some(Verdict::Stored | Verdict::Quarantined(_))) | Err(_) => {
                backoff.reset();
                match self.client.acknowledge(&publish) {
                    Ok(()) => {
                        self.too_large = 0;
                        ControlFlow::Continue(())
                    }
                    Err(client::Gone) => ControlFlow::Break(End::Connection),
                }
            }
            Ok(Some(Verdict::Refused) | None) => ControlFlow::Break(End::PublishRefused),
        }
    }

    /// Answers what is outstanding, then says DISCONNECT; the broker keeps the rest for the next connection. Breaks where not all could be
    /// answered: [`End::PublishRefused`] also where the time was up.
    async fn drain(&mut self, backoff: &mut Backoff) -> ControlFlow<End> {
        let answered = async {
            if self.waiting.is_some() {
                let placed = place(self.inbound, &mut self.waiting).await;
                if placed.is_break() {
                    return placed;
                }
            }
            while !self.outstanding.is_empty() {
                let answer = oldest_answer(&mut self.outstanding).await;
                let answered = self.handle_answer(answer, backoff);
                if answered.is_break() {
                    return answered;
                }
            }
            // The poller writes the PUBACKs and then the DISCONNECT, after which the broker closes.
            if self.client.disconnect().is_ok() {
                while let Some(Ok(_)) = self.client.next().await {}
            }
            ControlFlow::Continue(())
        };
        if let Ok(answered) = timeout(DRAIN_TIMEOUT, answered).await {
            return answered;
        }
        tracing::warn!("publishes of the broker unanswered when a connection ends; it will send them again");
        ControlFlow::Break(End::PublishRefused)
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What comes next over a connection; waits for ever where there is none. May be dropped and called again.
async fn next_of(client: &mut Option<Client>) -> Option<Result<News, Failure>> {
    match client {
        Some(client) => client.next().await,
        None => std::future::pending().await,
    }
}

/// Why a connection that a packet ended which was too large has ended, by what became of those before it.
fn end_of_too_large(drained: ControlFlow<End>) -> End {
    match drained {
        ControlFlow::Break(End::PublishRefused) => End::TooLargeBehind,
        ControlFlow::Break(End::PipelineGone) => End::PipelineGone,
        // Nothing can be acknowledged any more, as always in 5.0.
        ControlFlow::Continue(()) | ControlFlow::Break(_) => End::TooLarge,
    }
}

/// Waits until what waits has its place. May be dropped and called again.
async fn place(inbound: &Inlet, waiting: &mut Option<(Lane, Inbound)>) -> ControlFlow<End> {
    let Some((lane, _)) = waiting else { return ControlFlow::Continue(()) };
    let Ok(place) = inbound.of(*lane).reserve().await else {
        return ControlFlow::Break(End::PipelineGone);
    };
    if let Some((_, inbound)) = waiting.take() {
        place.send(inbound);
    }
    ControlFlow::Continue(())
}

/// The answer to the oldest outstanding publish; waits for ever where there is none. May be dropped and called again.
async fn oldest_answer(outstanding: &mut Window<Outstanding>) -> Result<Option<Verdict>, Unfit> {
    match outstanding.oldest_mut().map(|oldest| &mut oldest.answer) {
        Some(Answer::Unfit(unfit)) => Err(*unfit),
        Some(Answer::Awaited(receiver)) => Ok(receiver.await.ok()),
        None => std::future::pending().await,
    }
}

/// Unix time in microseconds by the gateway's clock; the only place where this door reads it.
#[expect(clippy::disallowed_methods, reason = "the I/O shell stamps what comes in")]
fn unix_us() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
