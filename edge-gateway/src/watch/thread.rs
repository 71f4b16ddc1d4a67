//! The shell around the engine: its clock, its channels, and where what it says goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caregate_host::clock;
use caregate_protocol::alarm::view::AlarmView;
use caregate_protocol::alarm::{Alarm, Priority, Standing, State};
use caregate_protocol::beat::{BEAT_BYTES, BEAT_EVERY, Beat, PolicyState};
use caregate_protocol::id::PatientId;
use caregate_protocol::policy::{BoundDevice, VerifiedPolicy};
use ed25519_dalek::SigningKey;
use ledger_client::verify::Pins;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Standings;
use super::command::{Heard, hear};
use super::engine::{Engine, Kept, LetGo, Now, Observation, Told, What};
use super::metrics::WatchMetrics;
use super::store::WatchStore;
use super::tap::{Batch, Seen};
use super::topic::{ALARMS_MAX, Payload, Publish, TOPIC};
use super::webhook::{Webhook, Word};
use super::writer::{Work, Writer, Written};
use crate::keys::erasures::Asked;
use crate::policy::trail::{Event, label_of};
use crate::policy::{PolicyHandle, PolicyStore};

/// How often the engine looks at the clock.
const TICK: Duration = Duration::from_secs(1);
/// Standings on their way to the commit thread.
pub const STANDINGS_MAX: usize = 64;
/// Commands that wait: a ward's, all at once. They come again where one finds no room.
pub const COMMANDS_MAX: usize = 64;

/// Positions after which it is noted at the latest how far the spool was heard: so many a restart reads again, where no events came.
const HEARD_EVERY: u64 = 4_096;

/// How long what is to be told waits for being durable first: some ten syncs of a flash card. A card that clears blocks stalls for seconds, and
/// an alarm does not.
const KEPT_WITHIN: Duration = Duration::from_millis(500);

/// What the watch listens to.
#[derive(Debug)]
pub struct Inputs {
    /// From the commit thread.
    pub seen: mpsc::Receiver<Batch>,
    /// Sealed commands, from the uplink.
    pub commands: mpsc::Receiver<Vec<u8>>,
    /// The policy in force.
    pub policy: watch::Receiver<Arc<VerifiedPolicy>>,
    /// How it stands.
    pub handle: PolicyHandle,
    /// Who wears what.
    pub devices: watch::Receiver<Arc<Vec<BoundDevice>>>,
    /// Of whom nothing is to stay.
    pub erased: watch::Receiver<BTreeMap<PatientId, Asked>>,
}

/// Where what it says goes.
pub struct Outputs {
    /// To the local page.
    pub views: watch::Sender<Arc<Standings>>,
    /// To displays in the home.
    pub publisher: Option<Arc<dyn Publish>>,
    /// To whoever was configured.
    pub webhook: Option<Webhook>,
    /// To the commit thread, to be sealed.
    pub standings: mpsc::Sender<(PatientId, Standing)>,
    /// To the uplink.
    pub beats: watch::Sender<Option<[u8; BEAT_BYTES]>>,
}

/// The engine and all around it.
pub struct Shell {
    /// The engine.
    pub engine: Engine,
    /// To what survives a restart, and to the trail.
    writer: Writer,
    /// Opens commands, and signs heartbeats.
    pub device: SigningKey,
    /// The ledger at which domains are registered, and what relationships are called.
    pub pins: watch::Receiver<Arc<Pins>>,
    /// Counters.
    pub metrics: WatchMetrics,
    /// Where what it says goes.
    pub outputs: Outputs,
    /// Places among those enrolled, from 1: they stand for patients where pseudonyms must not be.
    places: BTreeMap<PatientId, usize>,
    /// As it is on disk, or is being written.
    kept: BTreeMap<PatientId, Kept>,
    heard: Progress,
    /// What staff said, on its way to the trail.
    commanded: Vec<(u64, Event)>,
    /// What the commit thread had no room for: the newest of each patient.
    waiting: BTreeMap<PatientId, Standing>,
    counter: u64,
    started: Instant,
    /// Unix microseconds at the start. Heartbeats count from there by the monotonic clock: a clock that is set says nothing of life.
    started_us: i64,
}

/// How far the events in the spool are in what the engine knows, and in what is on disk.
#[derive(Debug)]
struct Progress {
    below: u64,
    kept: u64,
    /// There are events between the two.
    has_events: bool,
    /// There are some that were shown before the commit that has them: they are below the next position that is told.
    are_ahead: bool,
    /// Whose state could not be written.
    unwritten: BTreeSet<PatientId>,
    /// Writing failed since the last look at the clock: it is tried once a second.
    has_failed: bool,
}

impl Progress {
    fn is_due(&self) -> bool {
        self.has_events || self.below.abs_diff(self.kept) >= HEARD_EVERY
    }
}

/// Why an alarm is spoken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum News {
    Raised,
    Acknowledged,
    Latched,
    Ended,
}

#[derive(Serialize)]
struct Spoken<'a> {
    what: News,
    patient: usize,
    at_ms: i64,
    alarm: &'a AlarmView,
}

/// The parts that a [`Shell`] is made of.
pub struct Parts {
    /// As in [`Shell`].
    pub engine: Engine,
    /// As in [`Shell`].
    pub store: WatchStore,
    /// As in [`Shell`].
    pub trail: PolicyStore,
    /// As in [`Shell`].
    pub device: SigningKey,
    /// As in [`Shell`].
    pub pins: watch::Receiver<Arc<Pins>>,
    /// As in [`Shell`].
    pub metrics: WatchMetrics,
    /// As in [`Shell`].
    pub outputs: Outputs,
    /// Below which position of the spool the engine knows all events.
    pub heard: u64,
}

impl Shell {
    /// Nothing told yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { engine, store, trail, device, pins, metrics, outputs, heard } = parts;
        let (writer, commanded) = (Writer::new(store, trail), Vec::new());
        let (kept, waiting) = (BTreeMap::new(), BTreeMap::new());
        let places = pins.borrow().patients.clone();
        let (started, started_us) = (clock::monotonic(), clock::now_us());
        let counter = 0;
        let (has_events, are_ahead, has_failed) = (true, false, false);
        let unwritten = BTreeSet::new();
        let heard = Progress { below: heard, kept: 0, has_events, are_ahead, unwritten, has_failed };
        Self {
            engine,
            writer,
            device,
            pins,
            metrics,
            outputs,
            places,
            kept,
            heard,
            commanded,
            waiting,
            counter,
            started,
            started_us,
        }
    }

    fn now(&self) -> Now {
        Now { at: clock::monotonic().duration_since(self.started), unix_us: clock::now_us() }
    }

    /// Events that were stored before the start and of which nobody knows. They count as of when they came.
    pub fn hear(&mut self, unheard: &[Observation]) {
        let now = self.now();
        for event in unheard {
            let unix_us = event.received_us.min(now.unix_us);
            self.engine.observe(event, Now { unix_us, ..now });
        }
    }

    /// Runs until `stop`. Call on a thread of its own: it writes to disk.
    pub async fn run(mut self, mut inputs: Inputs, stop: CancellationToken) {
        let (mut ticks, mut beats) = (tokio::time::interval(TICK), tokio::time::interval(BEAT_EVERY));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        inputs.devices.mark_changed();
        inputs.erased.mark_changed();
        loop {
            // Before a policy says who wears what, nobody is known to have taken anything off.
            let is_known = inputs.policy.borrow().epoch() > 0;
            let has_room = self.commanded.len() < COMMANDS_MAX;
            tokio::select! {
                () = stop.cancelled() => break,
                Some(batch) = inputs.seen.recv() => self.see_all(batch),
                Some(bytes) = inputs.commands.recv(), if has_room => {
                    let policy = Arc::clone(&inputs.policy.borrow());
                    self.command(&bytes, &policy);
                }
                Ok(()) = inputs.devices.changed(), if is_known => {
                    let devices = Arc::clone(&inputs.devices.borrow_and_update());
                    self.follow(&devices);
                }
                Ok(()) = inputs.erased.changed() => {
                    let erased: Vec<_> = inputs.erased.borrow_and_update().keys().copied().collect();
                    erased.into_iter().for_each(|patient| self.forget(patient));
                }
                _ = ticks.tick() => {
                    let now = self.now();
                    self.engine.tick(now);
                    self.heard.has_failed = false;
                    self.hand_over();
                }
                _ = beats.tick() => {
                    let now_s = clock::now_s();
                    self.beat(inputs.handle.state(now_s));
                }
            }
            self.tell().await;
        }
        // What is being written ends; what came meanwhile is written as well.
        for _ in 0..2 {
            let written = self.writer.written(KEPT_WITHIN).await;
            written.into_iter().for_each(|written| self.note(written));
            self.keep(&[]).await;
        }
    }

    fn see_all(&mut self, batch: Batch) {
        let is_event = |seen: &Seen| matches!(seen, Seen::Reading(reading) if reading.what == What::Event);
        let (has_events, moves) = (batch.seen.iter().any(is_event), batch.below > self.heard.below);
        let heard = &mut self.heard;
        heard.has_events |= has_events || (moves && heard.are_ahead);
        heard.are_ahead = !moves && (has_events || heard.are_ahead);
        heard.below = heard.below.max(batch.below);
        batch.seen.into_iter().for_each(|seen| self.see(seen));
    }

    fn see(&mut self, seen: Seen) {
        let now = self.now();
        match seen {
            Seen::Reading(observation) => self.engine.observe(&observation, now),
            Seen::Implausible { patient, device } => self.engine.implausible(patient, &device, now),
        }
    }

    fn follow(&mut self, devices: &[BoundDevice]) {
        let mut worn: BTreeMap<PatientId, BTreeSet<_>> = BTreeMap::new();
        for bound in devices {
            worn.entry(bound.patient).or_default().insert(bound.device.clone());
        }
        self.engine.follow(&worn);
        self.outputs.views.send_if_modified(|views| {
            let gone = views.keys().any(|patient| !worn.contains_key(patient));
            if gone {
                Arc::make_mut(views).retain(|patient, _| worn.contains_key(patient));
            }
            gone
        });
    }

    /// Nothing of an erased patient stays: not here, not on the page, not with displays in the home, not on disk.
    fn forget(&mut self, patient: PatientId) {
        let place = self.places.remove(&patient);
        if !self.engine.forget(patient) {
            return;
        }
        self.kept.remove(&patient);
        self.heard.unwritten.remove(&patient);
        self.waiting.remove(&patient);
        self.outputs.views.send_if_modified(|views| {
            let was_there = views.contains_key(&patient);
            if was_there {
                Arc::make_mut(views).remove(&patient);
            }
            was_there
        });
        if let (Some(publisher), Some(place)) = (&self.outputs.publisher, place) {
            // An empty message takes the retained one away (MQTT 5 §3.3.1.3).
            publisher.publish(&format!("{TOPIC}{place}"), Vec::new());
        }
    }

    fn beat(&mut self, policy: PolicyState) {
        let elapsed_us = i64::try_from(self.now().at.as_micros()).unwrap_or(i64::MAX);
        let at_us = u64::try_from(self.started_us.saturating_add(elapsed_us)).unwrap_or(0);
        let beat = Beat::sign(self.counter, at_us, policy, &self.device);
        self.counter += 1;
        self.outputs.beats.send_replace(Some(beat));
    }

    /// Verifies a command, does it, and notes it. What it changed is told next.
    fn command(&mut self, bytes: &[u8], policy: &VerifiedPolicy) {
        let now_ms = u64::try_from(clock::now_ms()).unwrap_or(0);
        let pins = Arc::clone(&self.pins.borrow());
        let heard = match hear(bytes, &self.device, policy, &pins.domain, now_ms) {
            Ok(heard) => heard,
            Err(unheard) => {
                self.metrics.commands.with_label_values(&["unheard", unheard.reason()]).inc();
                warn!(reason = unheard.reason(), "a command was not heard: {unheard}");
                return;
            }
        };
        let Heard { patient, domain, sequence, clinician, action, refused } = heard;
        let done = self.engine.command(patient, (domain, sequence), &action, refused, self.now());
        let outcome = done.err().unwrap_or("done");
        self.metrics.commands.with_label_values(&[action.as_str(), outcome]).inc();
        if outcome == "replayed" {
            // The feed repeats it until it has seen the standing.
            return;
        }
        info!(action = action.as_str(), outcome, "a command of staff");
        let refused = done.err().map(str::to_owned);
        let mut grants = policy.standing();
        let grant = grants.find(|(of, grant)| *of == patient && grant.grantee == domain);
        let label = grant.map(|(_, grant)| label_of(Some(&pins), &grant.relationship)).unwrap_or_default();
        let action = action.as_str().into();
        let event = Event::Commanded { patient, label, domain, clinician, action, refused };
        self.commanded.push((now_ms / 1000, event));
    }

    async fn tell(&mut self) {
        let now = self.now();
        let all = self.engine.told(now);
        self.keep(&all).await;
        for Told { patient, standing } in all {
            self.speak(patient, &standing);
            let standing = Arc::new(standing);
            self.outputs.views.send_modify(|views| {
                Arc::make_mut(views).insert(patient, Arc::clone(&standing));
            });
            self.waiting.insert(patient, Arc::unwrap_or_clone(standing));
        }
        self.hand_over();
        let losses = self.engine.take_losses();
        self.metrics.missing.inc_by(losses.missing);
        self.metrics.unwatched.inc_by(losses.unwatched);
        self.metrics.crowded.inc_by(losses.crowded);
        self.note_let_go(losses.let_go);
    }

    /// Who made room for others: said in the log, since nothing is watched of them until something comes.
    fn note_let_go(&mut self, let_go: LetGo) {
        let LetGo { alarms, settings, nothing, forgotten } = let_go;
        for (had, count) in [("alarms", alarms), ("settings", settings), ("nothing", nothing)] {
            if count > 0 {
                self.metrics.let_go.with_label_values(&[had]).inc_by(count);
                warn!(had, count, "patients who wear nothing made room for others at the watch");
            }
        }
        if forgotten > 0 {
            self.metrics.let_go.with_label_values(&["forgotten"]).inc_by(forgotten);
            error!(forgotten, "what staff have set for patients who are long away must be set again");
            self.kept.retain(|patient, _| self.engine.kept(patient).is_some());
        }
    }

    /// To the commit thread, as much as it has room for.
    fn hand_over(&mut self) {
        while let Some((patient, standing)) = self.waiting.pop_first() {
            if let Err(mpsc::error::TrySendError::Full((patient, standing))) =
                self.outputs.standings.try_send((patient, standing))
            {
                self.metrics.failures.with_label_values(&["standing"]).inc();
                self.waiting.insert(patient, standing);
                return;
            }
        }
    }

    /// Durable before it is told, unless the disk hangs.
    async fn keep(&mut self, told: &[Told]) {
        self.heard.unwritten.extend(told.iter().map(|told| told.patient));
        let before = self.writer.written(Duration::ZERO).await;
        before.into_iter().for_each(|written| self.note(written));
        if self.heard.has_failed || !self.writer.is_idle() {
            return;
        }
        let unwritten = std::mem::take(&mut self.heard.unwritten);
        let changed = unwritten.into_iter().filter_map(|patient| {
            let kept = self.engine.kept(&patient)?;
            (self.kept.get(&patient) != Some(&kept)).then_some((patient, kept))
        });
        let changed: Vec<_> = changed.collect();
        if changed.is_empty() && self.commanded.is_empty() && !self.heard.is_due() {
            return;
        }
        self.kept.extend(changed.iter().cloned());
        let (below, events) = (self.heard.below, std::mem::take(&mut self.commanded));
        self.heard.has_events = false;
        self.writer.begin(Work { changed, below, events });
        match self.writer.written(KEPT_WITHIN).await {
            Some(written) => self.note(written),
            None => {
                // It is told all the same: an alarm that is forgotten by a restart is better than one that is not told.
                self.metrics.failures.with_label_values(&["slow"]).inc();
                warn!("the disk is slow; alarms are told before they are kept");
            }
        }
    }

    /// What has become of what was written.
    fn note(&mut self, Written { work, noted, kept }: Written) {
        if let Err(failure) = noted {
            self.metrics.failures.with_label_values(&["trail"]).inc();
            error!(%failure, "the audit trail could not be written");
        }
        match kept {
            Ok(()) => self.heard.kept = work.below,
            Err(failure) => {
                for (patient, _) in work.changed {
                    self.kept.remove(&patient);
                    self.heard.unwritten.insert(patient);
                }
                (self.heard.has_failed, self.heard.has_events) = (true, true);
                self.metrics.failures.with_label_values(&["store"]).inc();
                error!(%failure, "what the watch must remember could not be written");
            }
        }
    }

    /// To MQTT, webhook and counters: what changed since the last standing.
    fn speak(&self, patient: PatientId, standing: &Standing) {
        let before = self.outputs.views.borrow().get(&patient).cloned();
        let before = before.as_deref().map_or(&[][..], |standing| &standing.alarms);
        let views: Vec<AlarmView> = standing.alarms.iter().map(AlarmView::from).collect();
        let place = self.places.get(&patient).copied();
        for (what, alarm) in news(before, &standing.alarms) {
            if what == News::Raised {
                self.metrics.raised.with_label_values(&[alarm.kind.as_str(), alarm.priority.as_str()]).inc();
            }
            let (Some(webhook), Some(place)) = (&self.outputs.webhook, place) else { continue };
            let view = AlarmView::from(alarm);
            let spoken = Spoken { what, patient: place, at_ms: standing.at_us / 1000, alarm: &view };
            if let Ok(body) = serde_json::to_vec(&spoken) {
                webhook.offer(Word { about: (place, alarm.number), priority: alarm.priority, body });
            }
        }
        self.count(patient, standing);
        let (Some(publisher), Some(place)) = (&self.outputs.publisher, place) else { return };
        let payload = Payload {
            at_ms: standing.at_us / 1000,
            paused_until_ms: standing.settings.paused_until_us.map(|us| us / 1000),
            loudest: standing.loudest().map(Priority::as_str),
            alarms: views.get(..ALARMS_MAX).unwrap_or(&views),
            more: views.len().saturating_sub(ALARMS_MAX),
        };
        if let Ok(payload) = serde_json::to_vec(&payload) {
            publisher.publish(&format!("{TOPIC}{place}"), payload);
        }
    }

    fn count(&self, patient: PatientId, standing: &Standing) {
        let views = self.outputs.views.borrow();
        let others = views.iter().filter(|(id, _)| **id != patient).map(|(_, standing)| &**standing);
        let open: Vec<&Alarm> = others
            .chain([standing])
            .flat_map(|standing| &standing.alarms)
            .filter(|alarm| alarm.state != State::Acknowledged)
            .collect();
        for priority in Priority::ALL {
            let count = open.iter().filter(|alarm| alarm.priority == priority).count();
            let gauge = self.metrics.alarms.with_label_values(&[priority.as_str()]);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

/// What became of which alarm.
fn news<'a>(before: &'a [Alarm], after: &'a [Alarm]) -> Vec<(News, &'a Alarm)> {
    let state = |alarm: &Alarm| match alarm.state {
        State::Active => News::Raised,
        State::Acknowledged => News::Acknowledged,
        State::Latched => News::Latched,
    };
    let known = |alarm: &Alarm| before.iter().find(|other| other.number == alarm.number);
    let changed = after.iter().filter(|alarm| known(alarm).is_none_or(|before| before.state != alarm.state));
    let mut news: Vec<_> = changed.map(|alarm| (state(alarm), alarm)).collect();
    let ended = before.iter().filter(|alarm| after.iter().all(|other| other.number != alarm.number));
    news.extend(ended.map(|alarm| (News::Ended, alarm)));
    news
}
