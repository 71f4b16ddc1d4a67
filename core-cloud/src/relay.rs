//! What is carried and never stored: gateways' heartbeats to feeds, and staff's sealed commands to gateways. Nothing is opened,
//! answered or kept here; whoever sent a command sends it again until it has seen what became of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use caregate_host::clock;
use caregate_protocol::command;
use caregate_protocol::id::SignerId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, watch};

use crate::metrics::Metrics;
use crate::offers::Offers;
use crate::writer::Answer;

/// Heartbeats that a feed may be behind: of 128 gateways; what it misses is followed by the next.
const BEATS_MAX: usize = 128;
/// Heartbeats of one connection that come sooner than this after the one before are passed over; they are sent every 2 s, so half of that
/// is room for jitter.
const BEAT_EVERY_MIN: Duration = Duration::from_secs(1);

/// Commands of one feed in a second: a ward's staff, each repeated every 2 s. What is more is passed over; a gateway's watch has better to do.
const COMMANDS_A_SECOND: u32 = 32;
/// Erasures at once, of all gateways: each takes turns with the writer for the store's commits.
const ERASURES_MAX: usize = 4;
const SECOND: Duration = Duration::from_secs(1);

/// A gateway's connection that takes commands: its number, and its control stream.
type Line = (u64, mpsc::Sender<Answer>);

/// Those that there are.
#[derive(Debug, Default)]
struct Lines {
    /// The number of the newest.
    newest: u64,
    by_signer: HashMap<SignerId, Vec<Line>>,
}

/// What all sessions share; cheap to clone.
#[derive(Debug, Clone)]
pub struct Relay {
    beats: broadcast::Sender<Vec<u8>>,
    lines: Arc<Mutex<Lines>>,
    erasures: watch::Sender<u64>,
    places: Arc<Semaphore>,
    offers: Offers,
    metrics: Metrics,
}

impl Relay {
    /// Nobody is connected yet.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self {
            beats: broadcast::Sender::new(BEATS_MAX),
            lines: Arc::default(),
            erasures: watch::Sender::default(),
            places: Arc::new(Semaphore::new(ERASURES_MAX)),
            offers: Offers::new(metrics.clone()),
            metrics,
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A gateway's connection that sends heartbeats takes commands too, until the line is dropped.
    #[must_use]
    pub fn line(&self, signers: Vec<SignerId>, control: &mpsc::Sender<Answer>) -> RelayLine {
        let mut lines = self.lines();
        lines.newest += 1;
        let number = lines.newest;
        for signer in &signers {
            lines.by_signer.entry(*signer).or_default().push((number, control.clone()));
        }
        drop(lines);
        RelayLine { relay: self.clone(), signers, number, newest: None }
    }

    /// Policy that feeds hand to gateways.
    #[must_use]
    pub fn offers(&self) -> &Offers {
        &self.offers
    }

    /// Raised with each erasure, which puts into queues what no commit of the writer does.
    #[must_use]
    pub fn erasures(&self) -> watch::Receiver<u64> {
        self.erasures.subscribe()
    }

    /// A place for an erasure, where there is one.
    #[must_use]
    pub fn erasure_place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Wakes the queues' readers.
    pub fn erased(&self) {
        self.erasures.send_modify(|count| *count += 1);
    }

    /// Heartbeats from now on.
    #[must_use]
    pub fn beats(&self) -> broadcast::Receiver<Vec<u8>> {
        self.beats.subscribe()
    }

    /// One feed's commands.
    #[must_use]
    pub fn staff(&self) -> Staff {
        Staff { relay: self.clone(), window: None }
    }

    /// Where the command went.
    fn carry(&self, bytes: Vec<u8>) -> &'static str {
        match command::addressee(&bytes) {
            Err(error) => error.reason(),
            Ok(signer) => {
                // The newest connection: an older one may be dead and not know it yet.
                let line = self.lines().by_signer.get(&signer).and_then(|lines| lines.last().cloned());
                match line.map(|(_, control)| control.try_send(Answer::Command(bytes))) {
                    None => "no_gateway",
                    Some(Err(_full_or_gone)) => "not_taken",
                    Some(Ok(())) => "carried",
                }
            }
        }
    }
}

/// One feed in the relay.
#[derive(Debug)]
pub struct Staff {
    relay: Relay,
    /// When the present second began, and how many commands came in it.
    window: Option<(Instant, u32)>,
}

impl Staff {
    /// Carries a sealed command to the gateway that it names, where that is connected and reads what it is sent.
    pub fn command(&mut self, bytes: Vec<u8>) {
        let now = clock::monotonic();
        let (since, count) = match self.window {
            Some((since, count)) if now.duration_since(since) < SECOND => (since, count + 1),
            Some(_) | None => (now, 1),
        };
        self.window = Some((since, count));
        let outcome = if count > COMMANDS_A_SECOND { "too_often" } else { self.relay.carry(bytes) };
        self.relay.metrics.commands.with_label_values(&[outcome]).inc();
    }
}

/// One gateway's connection in the relay.
#[derive(Debug)]
pub struct RelayLine {
    relay: Relay,
    signers: Vec<SignerId>,
    number: u64,
    newest: Option<Instant>,
}

impl RelayLine {
    /// Carries a heartbeat to every feed that follows.
    pub fn beat(&mut self, bytes: Vec<u8>) {
        let now = clock::monotonic();
        if self.newest.is_some_and(|newest| now.duration_since(newest) < BEAT_EVERY_MIN) {
            self.relay.metrics.beats.with_label_values(&["too_often"]).inc();
            return;
        }
        self.newest = Some(now);
        self.relay.metrics.beats.with_label_values(&["carried"]).inc();
        // Without a feed there is nobody to carry it to.
        drop(self.relay.beats.send(bytes));
    }
}

impl Drop for RelayLine {
    fn drop(&mut self) {
        let mut lines = self.relay.lines();
        for signer in &self.signers {
            if let Some(of) = lines.by_signer.get_mut(signer) {
                of.retain(|(number, _)| *number != self.number);
            }
        }
        lines.by_signer.retain(|_, of| !of.is_empty());
    }
}
