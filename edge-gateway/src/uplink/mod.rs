//! The way to the core: a connection per lane and one for the backlog (QUIC, or TCP where UDP does not get through), live before backlog, and the core's
//! acknowledgements back to the spool.

mod asking;
mod carrier;
pub mod congestion;
pub mod connection;
mod learning;
mod line;
pub mod pace;
pub mod path;
pub mod ports;
mod questions;
mod recent;
pub mod schedule;

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use caregate_host::clock;
use caregate_protocol::id::Lane;
use tokio::sync::{Notify, watch};

use self::recent::Recent;
use self::schedule::{Part, Schedule, Turn};
use crate::metrics::Metrics;
use crate::pipeline::commit::Spooled;

/// What the committer and the connections share: the schedule, and a wake-up for the senders.
#[derive(Debug)]
pub struct Uplink {
    schedule: Mutex<Schedule>,
    recent: Mutex<Recent>,
    wake: Notify,
    /// All records below this position are on disk here.
    durable: watch::Sender<u64>,
}

impl Uplink {
    /// For what the spool held at start.
    pub fn new(unacked: impl IntoIterator<Item = (u64, Lane)>) -> Self {
        let schedule = Schedule::new(unacked);
        let durable = watch::Sender::new(schedule.next());
        Self { schedule: Mutex::new(schedule), recent: Mutex::default(), wake: Notify::new(), durable }
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        // The schedule is a handful of queues; a panic between two of its steps leaves at worst a record to be sent twice.
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now() -> Instant {
        clock::monotonic()
    }

    /// Records are in the spool, durably.
    pub fn spooled(&self, records: Vec<Spooled>) {
        if let Some(last) = records.last() {
            self.durable(last.position + 1);
        }
        self.early(records);
    }

    /// All records below this position are durable: what went up early counts from now on.
    pub fn durable(&self, below: u64) {
        self.durable.send_if_modified(|durable| {
            let more = below > *durable;
            *durable = below.max(*durable);
            more
        });
    }

    /// Records are appended to the spool. They may go up at once; those that are not durable yet go up as that.
    pub fn early(&self, records: Vec<Spooled>) {
        if records.is_empty() {
            return;
        }
        let now = Self::now();
        {
            let (mut schedule, mut recent) = (self.schedule(), self.recent());
            for Spooled { position, lane, record } in records {
                if schedule.spooled(position, lane, now) {
                    recent.keep(position, record);
                }
            }
        }
        self.wake.notify_waiters();
    }

    /// The core has these positions.
    fn acked(&self, first: u64, last: u64) {
        self.schedule().acked(first, last, Self::now());
    }

    /// A record that is about to be sent has so many bytes.
    fn measured(&self, part: Part, lane: Lane, bytes: usize) {
        self.schedule().measured(part, lane, bytes, Self::now());
    }

    /// The gateway stops: what is left goes as it can.
    fn end(&self) {
        self.schedule().end();
        self.wake.notify_waiters();
    }

    /// Whether a connection's way is congested.
    fn congested(&self, part: Part, congested: bool) {
        self.schedule().congested(part, congested);
    }

    /// Records are let go without the core's word.
    pub fn expired(&self, positions: &[u64]) {
        if !positions.is_empty() {
            self.schedule().expired(&positions.iter().copied().collect());
        }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        // What is not there is read from the spool.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record that was spooled a moment ago; none where it must be read from the spool, or has more than `bytes_max`.
    fn take_recent(&self, position: u64, bytes_max: usize) -> Option<Vec<u8>> {
        self.recent().take(position, bytes_max)
    }

    /// A connection is up or gone. `told` learns, in the order in which it happens, whether every lane has its connection.
    fn connected(&self, part: Part, up: bool, told: impl FnOnce(bool)) {
        {
            let mut schedule = self.schedule();
            if up {
                schedule.connected(part);
            } else {
                schedule.disconnected(part);
            }
            told(schedule.live_connected());
        }
        // What a lost connection had is backlog now, whose sender may be asleep.
        self.wake.notify_waiters();
    }

    /// Lanes whose present waits for wraps in their backlog ([`Schedule::take_behind`]).
    pub fn take_behind(&self) -> BTreeSet<Lane> {
        self.schedule().take_behind()
    }

    /// Publishes how much waits, and since which position.
    pub fn observe(&self, metrics: &Metrics) {
        let schedule = self.schedule();
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let spool = &metrics.spool;
        spool.waiting.set(i64::try_from(schedule.waiting()).unwrap_or(i64::MAX));
        spool.next.set(gauge(schedule.next()));
        spool.oldest_waiting.set(gauge(schedule.oldest_waiting()));
        spool.backlog_rate.set(gauge(schedule.backlog_rate(Self::now()).unwrap_or(0)));
    }

    /// Records not acknowledged by the core.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.schedule().waiting()
    }

    /// Of these, what one connection has to see acknowledged.
    fn waiting_on(&self, part: Part) -> usize {
        self.schedule().waiting_on(part)
    }

    /// Waits for the next position of one lane on one connection.
    async fn next_position(&self, part: Part, lane: Lane) -> u64 {
        loop {
            let woken = self.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let (turn, aged) = {
                let mut schedule = self.schedule();
                let before = schedule.backlog();
                let turn = schedule.turn(part, lane, Self::now());
                (turn, schedule.backlog() > before)
            };
            let live = matches!((part, turn), (Part::Live(_), Turn::Send(_)));
            if live || aged {
                // Others may have waited for this one, or live records became backlog whose sender is asleep.
                self.wake.notify_waiters();
            }
            match turn {
                Turn::Send(position) => return position,
                Turn::Yield(until) => drop(tokio::time::timeout_at(until.into(), woken).await),
                Turn::Idle => woken.await,
            }
        }
    }
}
