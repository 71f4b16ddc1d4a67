//! What the commit thread hands over: every admitted reading, before it is durable.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use caregate_host::clock;
use caregate_protocol::id::{DataClass, DeviceId, PatientId};
use caregate_protocol::reading::Reading;
use prometheus::IntCounter;
use tokio::sync::mpsc;

use super::engine::{Clock, Now, Observation, What};

/// What waits in one batch at most, but for events: a megabyte. The watch takes microseconds for each.
pub const BATCH_MAX: usize = 8_192;
/// Batches on their way. While the watch writes to its disk, what comes gathers in one more.
const BATCHES_MAX: usize = 2;
/// How often the gateway's clock may be set while the watch stands still without an event being held against one of another setting.
const SETS_MAX: u8 = 3;

/// What was seen.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// A reading.
    Reading(Observation),
    /// A value that nobody can have.
    Implausible {
        /// Whose device.
        patient: PatientId,
        /// Which.
        device: DeviceId,
    },
}

/// What was seen since the last one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// In the order in which it came; events that found no place among the rest are at the end.
    pub seen: Vec<Seen>,
    /// All events that lie in the spool below this position are in this batch or in one before.
    pub below: u64,
}

/// The commit thread's end, and of who looks out in its place. It never waits, and wakes the watch once a group commit. Clones are of the same.
#[derive(Debug, Clone)]
pub struct Tap(Arc<Mutex<Shown>>);

#[derive(Debug)]
struct Shown {
    out: mpsc::Sender<Batch>,
    pending: Vec<Seen>,
    events: Events,
    below: u64,
    /// Something was shown of the commit that is being made.
    has_more: bool,
    /// The watch has yet to hear of `below`.
    is_news: bool,
    dropped: IntCounter,
    /// The gateway's: while events wait it may be set.
    clock: Clock,
    started: Instant,
}

/// Of each device's events of each kind one, and another for each time that the gateway's clock was set meanwhile: as many as the policy binds
/// devices, times the kinds that there are.
#[derive(Debug, Default)]
pub struct Events {
    /// By how often the clock had been set, too.
    waiting: BTreeMap<(PatientId, DeviceId, u16, u8), Observation>,
    sets: u8,
}

impl Events {
    /// Takes an event. Of two that differ in time alone the one of now stays: another says nothing more while the first is not heard.
    pub fn push(&mut self, event: Observation) {
        let key = (event.patient, event.device.clone(), event.quantity, self.sets);
        let is_later = self.waiting.get(&key).is_some_and(|known| known.lag_us() < event.lag_us());
        if !is_later {
            self.waiting.insert(key, event);
        }
    }

    /// The gateway's clock was set. A lag of before says nothing beside one of after: it is another by as much, or the same, where the device was
    /// set with it. So one of each waits, and which is of now the engine says.
    fn clock_set(&mut self) {
        self.sets = if self.waiting.is_empty() { 0 } else { (self.sets + 1).min(SETS_MAX) };
    }

    /// All of them.
    pub fn take(&mut self) -> impl Iterator<Item = Observation> + use<> {
        self.sets = 0;
        std::mem::take(&mut self.waiting).into_values()
    }
}

impl Tap {
    /// A tap and what comes out of it; what does not fit is counted in `dropped`.
    #[must_use]
    pub fn new(dropped: IntCounter) -> (Self, mpsc::Receiver<Batch>) {
        let (out, seen) = mpsc::channel(BATCHES_MAX);
        let (pending, events) = (Vec::new(), Events::default());
        let (clock, started) = (Clock::default(), clock::monotonic());
        let (below, has_more, is_news) = (0, false, false);
        let shown = Shown { out, pending, events, below, has_more, is_news, dropped, clock, started };
        (Self(Arc::new(Mutex::new(shown))), seen)
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, once the gateway's clock was looked at.
    fn looked(&self) -> MutexGuard<'_, Shown> {
        let mut shown = self.shown();
        let now = shown.now();
        shown.look(now);
        shown
    }

    fn show(&self, seen: Seen) {
        self.shown().show(seen, Shown::now);
    }

    /// Shows a reading to the watch.
    pub fn reading(&self, patient: PatientId, class: DataClass, reading: &Reading) {
        if let Some(observation) = Observation::of(patient, class, reading) {
            self.show(Seen::Reading(observation));
        }
    }

    /// Shows that a device sent what nobody can have.
    pub fn implausible(&self, patient: PatientId, device: &DeviceId) {
        self.show(Seen::Implausible { patient, device: device.clone() });
    }

    /// What was shown already is in the commit that is being made.
    pub fn again(&self) {
        self.shown().has_more = true;
    }

    /// Hands over what was shown; all of it that was stored lies below this position. Call between a commit's append and its sync.
    pub fn flush(&self, below: u64) {
        self.looked().flush(below);
    }

    /// Hands over what waits, if the watch has room for it. Call about every second too: nothing else may come.
    pub fn offer(&self) {
        self.looked().offer();
    }
}

impl Shown {
    fn look(&mut self, now: Now) {
        if self.clock.look(now).is_some() {
            self.events.clock_set();
        }
    }

    fn now(&self) -> Now {
        Now { at: clock::monotonic().duration_since(self.started), unix_us: clock::now_us() }
    }

    fn show(&mut self, seen: Seen, now: impl FnOnce(&Self) -> Now) {
        self.has_more = true;
        if self.pending.len() < BATCH_MAX {
            self.pending.push(seen);
            return;
        }
        // Events wait only from here on: most readings cost no look at a clock.
        let now = now(self);
        self.look(now);
        self.offer();
        match seen {
            seen if self.pending.len() < BATCH_MAX => self.pending.push(seen),
            Seen::Reading(event) if event.what == What::Event => {
                // It may have been on its way while the clock was set.
                let received_us = self.clock.received_us(event.received_us, now);
                self.events.push(Observation { received_us, ..event });
            }
            Seen::Reading(_) | Seen::Implausible { .. } => self.dropped.inc(),
        }
    }

    fn flush(&mut self, below: u64) {
        if std::mem::take(&mut self.has_more) {
            (self.below, self.is_news) = (below, true);
        }
        self.offer();
    }

    fn offer(&mut self) {
        if self.pending.is_empty() && !self.is_news {
            return;
        }
        match self.out.try_reserve() {
            Ok(place) => {
                let mut seen = std::mem::take(&mut self.pending);
                seen.extend(self.events.take().map(Seen::Reading));
                place.send(Batch { seen, below: self.below });
                self.is_news = false;
            }
            Err(mpsc::error::TrySendError::Full(())) => {}
            // A gateway without a watch has no receiver; nothing is missed there.
            Err(mpsc::error::TrySendError::Closed(())) => {
                (self.pending, self.is_news) = (Vec::new(), false);
                drop(self.events.take());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Now = Now { at: Duration::ZERO, unix_us: 0 };

    fn seen(device: usize, quantity: u16, what: What, lag_us: i64) -> Seen {
        Seen::Reading(Observation {
            patient: PatientId([1; 16]),
            device: DeviceId::new(&format!("d{device}")).unwrap(),
            quantity,
            what,
            is_withheld: false,
            seq: None,
            sensor_us: Some(-lag_us),
            received_us: 0,
        })
    }

    fn tap() -> (Tap, mpsc::Receiver<Batch>, IntCounter) {
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let (tap, out) = Tap::new(dropped.clone());
        (tap, out, dropped)
    }

    #[test]
    fn an_event_among_hundreds_of_commits_is_heard_by_a_watch_that_stood_still() {
        let (tap, mut out, dropped) = tap();
        for commit in 0..700 {
            let what = if commit == 350 { What::Event } else { What::Numeric(70.0) };
            tap.shown().show(seen(1, 513, what, 0), |_| NOW);
            tap.shown().flush(commit + 1);
        }
        let mut heard = Vec::new();
        while let Ok(batch) = out.try_recv() {
            heard.push(batch);
            tap.shown().offer();
        }
        let all: Vec<_> = heard.iter().flat_map(|batch| &batch.seen).collect();
        assert_eq!(all.len(), 700);
        assert_eq!(all[350], &seen(1, 513, What::Event, 0));
        assert!(heard.is_sorted_by_key(|batch| batch.below));
        assert_eq!((heard.last().map(|batch| batch.below), dropped.get()), (Some(700), 0));
    }

    #[test]
    fn numbers_beyond_the_bound_are_dropped_and_counted_and_events_are_not() {
        let (tap, mut out, dropped) = tap();
        let number = || seen(1, 1, What::Numeric(70.0), 0);
        for below in 0..2 {
            tap.shown().show(number(), |_| NOW);
            tap.shown().flush(below);
        }
        (0..BATCH_MAX + 5).for_each(|_| tap.shown().show(number(), |_| NOW));
        for lag_us in [7, 3, 9] {
            (0..100).for_each(|device| tap.shown().show(seen(device, 513, What::Event, lag_us), |_| NOW));
        }
        tap.shown().flush(2);
        assert_eq!(dropped.get(), 5);
        assert!(out.try_recv().is_ok() && out.try_recv().is_ok() && out.try_recv().is_err());
        tap.shown().offer();
        let batch = out.try_recv().unwrap();
        assert_eq!((batch.seen.len(), batch.below), (BATCH_MAX + 100, 2));
        assert!(batch.seen[BATCH_MAX..].iter().all(|seen| {
            matches!(seen, Seen::Reading(event) if event.what == What::Event && event.lag_us() == Some(3))
        }));
        tap.shown().show(number(), |_| NOW);
        tap.shown().flush(3);
        assert_eq!(out.try_recv().unwrap().seen.len(), 1, "it goes on");
    }

    /// Something of a device whose clock is right, so many seconds after the start, when ours was set by so much.
    fn stamped(quantity: u16, s: u32, set_us: i64, ago_us: i64) -> (Observation, Now) {
        let Seen::Reading(event) = seen(1, quantity, What::Event, 0) else { panic!("a reading") };
        let now = Now { at: Duration::from_secs(s.into()), unix_us: i64::from(s) * 1_000_000 + set_us };
        let sensor_us = Some(now.unix_us - set_us - ago_us);
        (Observation { sensor_us, received_us: now.unix_us, ..event }, now)
    }

    #[test]
    fn an_event_of_now_is_hidden_by_none_of_the_past_from_before_or_after_the_clock_was_set() {
        const HOUR_US: i64 = 3_600_000_000;
        for (by_us, before_us, after_us) in [(HOUR_US, HOUR_US / 2, 0), (-HOUR_US, 0, HOUR_US / 2)] {
            let (tap, mut out, _dropped) = tap();
            let number = || seen(1, 1, What::Numeric(70.0), 0);
            for below in 0..2 {
                tap.shown().show(number(), |_| NOW);
                tap.shown().flush(below);
            }
            (0..BATCH_MAX).for_each(|_| tap.shown().show(number(), |_| NOW));
            // Of each setting a second one is later than the first.
            for (s, set_us, ago_us) in
                [(1, 0, before_us), (2, 0, 2 * HOUR_US), (3, by_us, after_us), (4, by_us, 2 * HOUR_US)]
            {
                let (event, now) = stamped(513, s, set_us, ago_us);
                tap.shown().show(Seen::Reading(event), |_| now);
            }
            // This one was on its way when the clock was set.
            let ((event, _), (_, now)) = (stamped(514, 2, 0, 0), stamped(514, 5, by_us, 0));
            tap.shown().show(Seen::Reading(event), |_| now);
            assert!(out.try_recv().is_ok() && out.try_recv().is_ok() && out.try_recv().is_err());
            tap.shown().offer();
            let batch = out.try_recv().unwrap();
            let lag = |seen: &Seen| match seen {
                Seen::Reading(event) => event.lag_us().unwrap(),
                Seen::Implausible { .. } => panic!("a reading"),
            };
            let lags: Vec<_> = batch.seen[BATCH_MAX..].iter().map(lag).collect();
            assert_eq!(lags[..2], [before_us, by_us + after_us], "{by_us}");
            // As late as what was known of the clock leaves open.
            assert!((0..=3_000_000).contains(&(lags[2] - by_us)), "{by_us}: {lags:?}");
            assert_eq!(lags.len(), 3);
        }
    }

    #[test]
    fn what_was_shown_ahead_is_marked_by_the_commit_that_has_it() {
        let (tap, mut out, _dropped) = tap();
        tap.shown().show(seen(1, 513, What::Event, 0), |_| NOW);
        tap.shown().offer();
        assert_eq!(out.try_recv().unwrap().below, 0, "it is nowhere yet");
        tap.shown().flush(3);
        let of_before = out.try_recv().unwrap();
        assert_eq!((of_before.seen.len(), of_before.below), (0, 3), "of a commit that was on its way");
        tap.again();
        tap.shown().flush(5);
        let its_own = out.try_recv().unwrap();
        assert_eq!((its_own.seen.len(), its_own.below), (0, 5));
        tap.shown().flush(7);
        assert!(out.try_recv().is_err(), "nothing was shown");
    }

    /// A batch that is cut says of no more than what is in it that it was heard.
    #[test]
    fn what_is_cut_off_in_the_middle_of_a_commit_marks_only_what_came_before() {
        let (tap, mut out, _dropped) = tap();
        tap.shown().show(seen(1, 1, What::Numeric(70.0), 0), |_| NOW);
        tap.shown().flush(5);
        assert_eq!(out.try_recv().unwrap().below, 5);
        (0..=BATCH_MAX).for_each(|_| tap.shown().show(seen(1, 1, What::Numeric(70.0), 0), |_| NOW));
        tap.shown().flush(9_000);
        let below: Vec<_> = std::iter::from_fn(|| out.try_recv().ok()).map(|batch| batch.below).collect();
        assert_eq!(below, [5, 9_000]);
    }
}
