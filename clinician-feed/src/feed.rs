//! What was opened, for all readers; and the thread that opens it.
//!
//! Signatures and HPKE are work for a processor, so the opener has a thread of its own and never holds up the pages.
//! Readers are told the newest number by a watch and read the ring themselves.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use caregate_host::admin::Condition;
use caregate_host::clock;
use caregate_protocol::erasure::{Issuer, NOBODY, Receipt};
use caregate_protocol::id::{DataClass, PatientId};
use caregate_protocol::uplink::Timing;
use tokio::sync::{broadcast, mpsc, watch};
use tracing::{debug, info, warn};

use crate::bedside::Bedside;
use crate::erasures::Erasures;
use crate::link::Event;
use crate::metrics::Metrics;
use crate::opener::{ChainState, OpenError, Opened, Opener, Taken};
use crate::receipts::Receipts;
use crate::ring::{Entry, Fallen, Place, Ring, Sent, entries};

/// Live events between the link and the opener: some 100 ms of a busy hospital, at most 256 MiB if every record were of the
/// greatest length; beyond it QUIC's flow control holds the core.
pub const EVENTS_MAX: usize = 256;
/// Records of the past between them: enough that the opener never waits for the link.
pub const BACKLOG_MAX: usize = 32;
/// Provisional readings that a page may be behind: a second of a busy hospital. What it misses comes when it is durable.
const PROVISIONAL_MAX: usize = 1024;
/// Readings taken from the ring at once by a scan: what the opener may have to wait for stays below a millisecond.
const SCAN_READINGS: usize = 4096;

/// How far the feed is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// The number of the next reading.
    pub next: u64,
    /// Whether the core is connected.
    pub link_up: bool,
}

/// The state of each chain of patient and class.
pub type Chains = BTreeMap<(PatientId, DataClass), ChainState>;

/// The time of each patient's newest reading, Unix microseconds by the gateway's clock.
pub type Newest = BTreeMap<PatientId, i64>;

/// What was opened, for all readers.
#[derive(Debug)]
pub struct Feed {
    ring: RwLock<Ring>,
    chains: RwLock<Chains>,
    newest: RwLock<Newest>,
    bedside: Bedside,
    receipts: Receipts,
    erasures: Erasures,
    progress: watch::Sender<Progress>,
    provisional: broadcast::Sender<Arc<Entry>>,
}

impl Feed {
    /// Nothing yet; keeps about `bytes_max` of readings.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            ring: RwLock::new(Ring::new(bytes_max)),
            chains: RwLock::default(),
            newest: RwLock::default(),
            bedside: Bedside::default(),
            receipts: Receipts::default(),
            erasures: Erasures::default(),
            progress: watch::Sender::default(),
            provisional: broadcast::Sender::new(PROVISIONAL_MAX),
        }
    }

    /// Appends opened segments that came live, with their chains' states, then wakes the readers.
    pub fn append(&self, opened: Vec<Opened>, states: Chains, opened_ms: i64) {
        self.append_as(opened, states, opened_ms, Timing::Live);
    }

    /// The same of what came as `timing` says.
    pub fn append_as(&self, opened: Vec<Opened>, states: Chains, opened_ms: i64, timing: Timing) {
        self.chains.write().unwrap_or_else(PoisonError::into_inner).extend(states);
        let mut newest = self.newest.write().unwrap_or_else(PoisonError::into_inner);
        for segment in &opened {
            let time = segment.readings.iter().map(|reading| reading.gateway_time_us).max();
            let known = newest.entry(segment.patient).or_insert(i64::MIN);
            *known = time.map_or(*known, |time| time.max(*known));
        }
        drop(newest);
        for segment in &opened {
            self.bedside.opened(segment);
        }
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        for segment in opened {
            ring.append(segment, opened_ms, timing);
        }
        let next = ring.next();
        drop(ring);
        self.progress.send_modify(|progress| progress.next = next);
    }

    /// Shows what is not durable at the core. It is in no answer but that of streams which are open, and has no number.
    pub fn show_provisional(&self, segment: Opened, opened_ms: i64) {
        self.bedside.provisional(&segment);
        for entry in entries(segment, 0, opened_ms) {
            // Where nobody looks there is nobody to be shown it.
            drop(self.provisional.send(Arc::new(entry)));
        }
    }

    /// Provisional readings from now on.
    #[must_use]
    pub fn provisional(&self) -> broadcast::Receiver<Arc<Entry>> {
        self.provisional.subscribe()
    }

    /// Drops all that is held of a patient. Answers with how many readings that were, and their bytes.
    pub fn forget(&self, patient: PatientId) -> (u64, u64) {
        let gone = self.ring.write().unwrap_or_else(PoisonError::into_inner).forget(patient);
        self.chains.write().unwrap_or_else(PoisonError::into_inner).retain(|(of, _), _| *of != patient);
        self.newest.write().unwrap_or_else(PoisonError::into_inner).remove(&patient);
        self.bedside.forget(patient);
        gone
    }

    /// What gateways' watches say.
    #[must_use]
    pub fn bedside(&self) -> &Bedside {
        &self.bedside
    }

    /// What was received since it was last noted.
    #[must_use]
    pub fn receipts(&self) -> &Receipts {
        &self.receipts
    }

    /// Receipts of erasures.
    #[must_use]
    pub fn erasures(&self) -> &Erasures {
        &self.erasures
    }

    /// Says whether the core is connected. What was provisional before never was, where the queue does not say otherwise.
    pub fn set_link(&self, up: bool) {
        if up {
            self.bedside.withdraw();
        }
        self.progress.send_modify(|progress| progress.link_up = up);
    }

    /// Follows the newest number and the link.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// The lowest number held, one past the highest, and the bytes held.
    #[must_use]
    pub fn held(&self) -> (u64, u64, usize) {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        (ring.tail(), ring.next(), ring.bytes())
    }

    /// As [`Ring::read`].
    ///
    /// # Errors
    /// [`Fallen`].
    pub fn read(&self, from: u64, count: usize) -> Result<Vec<Arc<Entry>>, Fallen> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).read(from, count)
    }

    /// As [`Ring::take`].
    ///
    /// # Errors
    /// [`Fallen`].
    pub fn take(&self, place: &mut Place) -> Result<Vec<Sent>, Fallen> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).take(place)
    }

    /// Shows each reading held to `visit`, oldest first, without holding up the opener for long.
    pub fn scan(&self, mut visit: impl FnMut(&Arc<Entry>)) {
        let mut at = self.held().0;
        loop {
            match self.read(at, SCAN_READINGS) {
                Ok(page) => {
                    page.iter().for_each(&mut visit);
                    let Some(last) = page.last() else { return };
                    at = last.n + 1;
                }
                Err(Fallen { tail }) => at = tail,
            }
        }
    }

    /// Every patient of whom something was opened, and when the newest of it was measured.
    #[must_use]
    pub fn newest(&self) -> Newest {
        self.newest.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How each chain stands.
    #[must_use]
    pub fn chains(&self) -> Chains {
        self.chains.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the link delivers, live before backlog: at most one record of the past is opened while something live waits.
#[derive(Debug)]
pub struct Inbox {
    live: mpsc::Receiver<Event>,
    backlog: mpsc::Receiver<Event>,
}

impl Inbox {
    /// The ends for the link (what is live, and all else) and the one for [`run`].
    #[must_use]
    pub fn new() -> (mpsc::Sender<Event>, mpsc::Sender<Event>, Self) {
        let (to_live, live) = mpsc::channel(EVENTS_MAX);
        let (to_backlog, backlog) = mpsc::channel(BACKLOG_MAX);
        (to_live, to_backlog, Self { live, backlog })
    }

    /// The next event; none when the link is gone and all has been taken.
    async fn next(&mut self) -> Option<Event> {
        tokio::select! {
            biased;
            Some(event) = self.live.recv() => Some(event),
            Some(event) = self.backlog.recv() => Some(event),
            else => None,
        }
    }
}

/// Opens what the link delivers until the link is gone. For a thread of its own.
///
/// # Errors
/// The system gives no event queue.
pub fn run(
    mut inbox: Inbox,
    mut opener: Opener,
    feed: &Feed,
    metrics: &Metrics,
    connected: &Condition,
) -> std::io::Result<()> {
    let waiting = tokio::runtime::Builder::new_current_thread().build()?;
    while let Some(event) = waiting.block_on(inbox.next()) {
        match event {
            Event::Up => set_link(true, feed, metrics, connected),
            Event::Down(reason) => {
                metrics.link_lost.with_label_values(&[reason]).inc();
                set_link(false, feed, metrics, connected);
            }
            Event::CaughtUp => info!("history is complete"),
            Event::Inquiry(question) => opener.answer(question),
            Event::Record(record) => take(&record, Timing::Live, &mut opener, feed, metrics),
            Event::Backlog(record) => take(&record, Timing::Backlog, &mut opener, feed, metrics),
            Event::Provisional(record) => {
                feed.receipts.add(&record);
                let taken = opener.preview(&record);
                preview(taken, &opener, feed, metrics);
            }
        }
    }
    set_link(false, feed, metrics, connected);
    Ok(())
}

fn set_link(up: bool, feed: &Feed, metrics: &Metrics, connected: &Condition) {
    feed.set_link(up);
    metrics.link_up.set(i64::from(up));
    connected.set(up);
}

fn refused(error: &OpenError, metrics: &Metrics) {
    let counter = metrics.refused.with_label_values(&[error.reason()]);
    counter.inc();
    // One broken gateway must not fill the log; the counter has the number.
    if counter.get().is_power_of_two() {
        warn!(reason = error.reason(), count = counter.get(), %error, "a record was refused");
    } else {
        debug!(%error, "a record was refused");
    }
}

fn preview(mut taken: Taken, opener: &Opener, feed: &Feed, metrics: &Metrics) {
    taken.refused.drain(..).for_each(|error| refused(&error, metrics));
    if let Some(segment) = taken.provisional {
        metrics.provisional.inc();
        feed.show_provisional(segment, clock::now_ms());
    }
    if !taken.opened.is_empty() {
        show((taken.opened, Timing::Live), opener, feed, metrics);
    }
}

fn take(record: &[u8], timing: Timing, opener: &mut Opener, feed: &Feed, metrics: &Metrics) {
    feed.receipts.add(record);
    let taken = opener.take(record);
    taken_as(taken, timing, opener, feed, metrics);
}

fn taken_as(taken: Taken, timing: Timing, opener: &Opener, feed: &Feed, metrics: &Metrics) {
    let Taken { opened, provisional: _, head, gap, erased, refused: errors } = taken;
    if let Some((patient, request)) = erased {
        let (records, bytes) = feed.forget(patient);
        let (erased_us, recipient) = (clock::now_us(), NOBODY);
        let receipt =
            Receipt { issuer: Issuer::Feed, patient, request, records, bytes, erased_us, recipient };
        feed.erasures.add(&receipt);
        info!("a patient's gateway had its data erased: what was held here is dropped");
    }
    metrics.waiting_bytes.set(gauge(opener.waiting_bytes()));
    errors.iter().for_each(|error| refused(error, metrics));
    // A wrap that opened some of what waited for it, and not all, is not whole.
    let outcome = match (errors.is_empty(), opened.is_empty()) {
        (false, _) => "refused",
        (true, true) if erased.is_some() => "erased",
        (true, true) if head.is_some() => "head",
        (true, true) if gap.is_some() => "gap",
        (true, true) => "kept",
        (true, false) => "opened",
    };
    metrics.records.with_label_values(&[outcome]).inc();
    if let Some((_, missing)) = gap {
        let segments = missing.last - missing.first + 1;
        metrics.missing.with_label_values(&[missing.why.as_str()]).inc_by(segments);
        info!(why = missing.why.as_str(), segments, "a gateway tells that segments are missing");
    }
    if let Some(key) = head.or_else(|| gap.map(|(key, _)| key))
        && let Some(state) = opener.chain(key.0, key.1)
    {
        feed.append(Vec::new(), [(key, state)].into(), 0);
    }
    if !opened.is_empty() {
        show((opened, timing), opener, feed, metrics);
    }
}

fn show((opened, timing): (Vec<Opened>, Timing), opener: &Opener, feed: &Feed, metrics: &Metrics) {
    let now_us = clock::now_us();
    for segment in &opened {
        let readings = u64::try_from(segment.readings.len()).unwrap_or(u64::MAX);
        metrics.readings.with_label_values(&[segment.class.as_str()]).inc_by(readings);
        for reading in &segment.readings {
            let delay_us = now_us.saturating_sub(reading.gateway_time_us).max(0);
            #[expect(clippy::cast_precision_loss, reason = "a delay for a histogram")]
            metrics.delay.observe(delay_us as f64 / 1e6);
        }
    }
    let states = opened
        .iter()
        .filter_map(|o| Some(((o.patient, o.class), opener.chain(o.patient, o.class)?)))
        .collect();
    feed.append_as(opened, states, now_us.div_euclid(1000), timing);
    let (tail, next, bytes) = feed.held();
    metrics.ring_bytes.set(gauge(bytes));
    metrics.ring_readings.set(i64::try_from(next - tail).unwrap_or(i64::MAX));
}

fn gauge(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::tests::{numeric, segment};

    #[test]
    fn a_scan_sees_every_reading_once_and_progress_names_the_next() {
        let feed = Feed::new(usize::MAX);
        let progress = feed.progress();
        let count = 3 * SCAN_READINGS as u64 + 5;
        for n in 0..count {
            feed.append(vec![segment(n, vec![numeric("heart-rate", 1, 60.0, None)])], Chains::new(), 9);
        }
        assert_eq!(progress.borrow().next, count);
        let mut seen = Vec::new();
        feed.scan(|entry| seen.push(entry.n));
        assert!(seen.into_iter().eq(0..count));
    }

    #[test]
    fn a_forgotten_patient_is_in_no_answer_and_the_others_are_where_they_were() {
        let feed = Feed::new(usize::MAX);
        let one = || segment(0, vec![numeric("heart-rate", 1, 60.0, None)]);
        let other = PatientId([0xee; 16]);
        for patient in [one().patient, other, one().patient, other] {
            feed.append(vec![Opened { patient, ..one() }], Chains::new(), 9);
        }
        let (readings, bytes) = feed.forget(one().patient);
        assert!(readings == 2 && bytes > 0);
        let mut seen = Vec::new();
        feed.scan(|entry| seen.push((entry.n, entry.patient)));
        assert_eq!(seen, [(1, other), (3, other)]);
        assert_eq!(feed.newest().into_keys().collect::<Vec<_>>(), [other]);
        assert_eq!(feed.read(2, 9).unwrap().len(), 1, "a reader goes on where it was");
        feed.append(vec![one()], Chains::new(), 9);
        assert_eq!(feed.held().1, 5);
    }

    #[test]
    fn what_can_not_be_opened_is_counted_and_the_next_is_taken() {
        let registry = prometheus::Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let (private, _) = caregate_protocol::wrap::generate_keypair();
        let opener = Opener::new(caregate_protocol::id::RecipientId([5; 20]), private, []);
        let (out, _, inbox) = Inbox::new();
        let condition = caregate_host::admin::Health::new().condition("core");
        out.try_send(Event::Up).unwrap();
        out.try_send(Event::Record(b"rubbish".to_vec())).unwrap();
        out.try_send(Event::Record(Vec::new())).unwrap();
        out.try_send(Event::Down("transport")).unwrap();
        drop(out);
        run(inbox, opener, &Feed::new(1), &metrics, &condition).unwrap();
        assert_eq!(metrics.refused.with_label_values(&["magic"]).get(), 2);
        assert_eq!(metrics.link_lost.with_label_values(&["transport"]).get(), 1);
        assert!(!condition.holds());
    }

    #[tokio::test]
    async fn what_is_live_is_next_however_much_backlog_waits() {
        let (live, backlog, mut inbox) = Inbox::new();
        for n in 0..BACKLOG_MAX {
            backlog.try_send(Event::Backlog(vec![u8::try_from(n).unwrap()])).unwrap();
        }
        backlog.try_send(Event::CaughtUp).unwrap_err();
        let mut backlog_at = 0;
        for n in [200, 201, 202] {
            let Some(Event::Backlog(record)) = inbox.next().await else { panic!("backlog waits") };
            assert_eq!(record, [backlog_at]);
            backlog_at += 1;
            live.try_send(Event::Record(vec![n])).unwrap();
            let Some(Event::Record(record)) = inbox.next().await else { panic!("not what is live") };
            assert_eq!(record, [n]);
        }
        drop((live, backlog));
        while let Some(Event::Backlog(record)) = inbox.next().await {
            assert_eq!(record, [backlog_at]);
            backlog_at += 1;
        }
        assert_eq!(usize::from(backlog_at), BACKLOG_MAX, "and all of it came, in its order");
    }
}
