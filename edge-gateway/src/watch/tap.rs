//! What the commit thread hands over: every admitted reading, before it is durable.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caregate_protocol::id::{DataClass, DeviceId, PatientId};
use caregate_protocol::reading::Reading;
use prometheus::IntCounter;
use tokio::sync::mpsc;

use super::engine::{Observation, What};

/// What waits in one batch at most, but for events: a megabyte. The watch takes microseconds for each.
pub const BATCH_MAX: usize = 8_192;
/// Batches on their way. While the watch writes to its disk, what comes gathers in one more.
const BATCHES_MAX: usize = 2;

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
}

/// Of each device's events of each kind one: as many as the policy binds devices, times the kinds that there are.
#[derive(Debug, Default)]
pub struct Events(BTreeMap<(PatientId, DeviceId, u16), Observation>);

impl Events {
    /// Takes an event. Of two that differ in time alone the one of now stays: another says nothing more while the first is not heard.
    pub fn push(&mut self, event: Observation) {
        let key = (event.patient, event.device.clone(), event.quantity);
        let is_later = self.0.get(&key).is_some_and(|known| known.lag_us() < event.lag_us());
        if !is_later {
            self.0.insert(key, event);
        }
    }

    /// All of them.
    pub fn take(&mut self) -> impl Iterator<Item = Observation> + use<> {
        std::mem::take(&mut self.0).into_values()
    }
}

impl Tap {
    /// A tap and what comes out of it; what does not fit is counted in `dropped`.
    #[must_use]
    pub fn new(dropped: IntCounter) -> (Self, mpsc::Receiver<Batch>) {
        let (out, seen) = mpsc::channel(BATCHES_MAX);
        let (pending, events) = (Vec::new(), Events::default());
        let shown = Shown { out, pending, events, below: 0, has_more: false, is_news: false, dropped };
        (Self(Arc::new(Mutex::new(shown))), seen)
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a reading to the watch.
    pub fn reading(&self, patient: PatientId, class: DataClass, reading: &Reading) {
        if let Some(observation) = Observation::of(patient, class, reading) {
            self.shown().show(Seen::Reading(observation));
        }
    }

    /// Shows that a device sent what nobody can have.
    pub fn implausible(&self, patient: PatientId, device: &DeviceId) {
        self.shown().show(Seen::Implausible { patient, device: device.clone() });
    }

    /// What was shown already is in the commit that is being made.
    pub fn again(&self) {
        self.shown().has_more = true;
    }

    /// Hands over what was shown; all of it that was stored lies below this position. Call between a commit's append and its sync.
    pub fn flush(&self, below: u64) {
        let mut shown = self.shown();
        if std::mem::take(&mut shown.has_more) {
            (shown.below, shown.is_news) = (below, true);
        }
        shown.offer();
    }

    /// Hands over what waits, if the watch has room for it. Call about every second too: nothing else may come.
    pub fn offer(&self) {
        self.shown().offer();
    }
}

impl Shown {
    fn show(&mut self, seen: Seen) {
        self.has_more = true;
        if self.pending.len() >= BATCH_MAX {
            self.offer();
        }
        match seen {
            seen if self.pending.len() < BATCH_MAX => self.pending.push(seen),
            Seen::Reading(event) if event.what == What::Event => self.events.push(event),
            Seen::Reading(_) | Seen::Implausible { .. } => self.dropped.inc(),
        }
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
    use super::*;

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
            tap.shown().show(seen(1, 513, what, 0));
            tap.flush(commit + 1);
        }
        let mut heard = Vec::new();
        while let Ok(batch) = out.try_recv() {
            heard.push(batch);
            tap.offer();
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
            tap.shown().show(number());
            tap.flush(below);
        }
        (0..BATCH_MAX + 5).for_each(|_| tap.shown().show(number()));
        for lag_us in [7, 3, 9] {
            (0..100).for_each(|device| tap.shown().show(seen(device, 513, What::Event, lag_us)));
        }
        tap.flush(2);
        assert_eq!(dropped.get(), 5);
        assert!(out.try_recv().is_ok() && out.try_recv().is_ok() && out.try_recv().is_err());
        tap.offer();
        let batch = out.try_recv().unwrap();
        assert_eq!((batch.seen.len(), batch.below), (BATCH_MAX + 100, 2));
        assert!(batch.seen[BATCH_MAX..].iter().all(|seen| {
            matches!(seen, Seen::Reading(event) if event.what == What::Event && event.lag_us() == Some(3))
        }));
        tap.shown().show(number());
        tap.flush(3);
        assert_eq!(out.try_recv().unwrap().seen.len(), 1, "it goes on");
    }

    #[test]
    fn what_was_shown_ahead_is_marked_by_the_commit_that_has_it() {
        let (tap, mut out, _dropped) = tap();
        tap.shown().show(seen(1, 513, What::Event, 0));
        tap.offer();
        assert_eq!(out.try_recv().unwrap().below, 0, "it is nowhere yet");
        tap.flush(3);
        let of_before = out.try_recv().unwrap();
        assert_eq!((of_before.seen.len(), of_before.below), (0, 3), "of a commit that was on its way");
        tap.again();
        tap.flush(5);
        let its_own = out.try_recv().unwrap();
        assert_eq!((its_own.seen.len(), its_own.below), (0, 5));
        tap.flush(7);
        assert!(out.try_recv().is_err(), "nothing was shown");
    }

    /// A batch that is cut says of no more than what is in it that it was heard.
    #[test]
    fn what_is_cut_off_in_the_middle_of_a_commit_marks_only_what_came_before() {
        let (tap, mut out, _dropped) = tap();
        tap.shown().show(seen(1, 1, What::Numeric(70.0), 0));
        tap.flush(5);
        assert_eq!(out.try_recv().unwrap().below, 5);
        (0..=BATCH_MAX).for_each(|_| tap.shown().show(seen(1, 1, What::Numeric(70.0), 0)));
        tap.flush(9_000);
        let below: Vec<_> = std::iter::from_fn(|| out.try_recv().ok()).map(|batch| batch.below).collect();
        assert_eq!(below, [5, 9_000]);
    }
}
