//! The way to the core: QUIC streams by lane, live before backlog, and the core's acknowledgements back to the spool.

pub mod connection;
pub mod schedule;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use caregate_host::clock;
use caregate_protocol::id::Lane;
use tokio::sync::Notify;

use self::schedule::{Part, Schedule};
use crate::metrics::Metrics;
use crate::pipeline::commit::Spooled;

/// What the committer and the connection share: the schedule, and a wake-up for the senders.
#[derive(Debug)]
pub struct Uplink {
    schedule: Mutex<Schedule>,
    wake: Notify,
}

impl Uplink {
    /// For what the spool held at start.
    pub fn new(unacked: impl IntoIterator<Item = (u64, Lane)>) -> Self {
        Self { schedule: Mutex::new(Schedule::new(unacked)), wake: Notify::new() }
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        // The schedule is a handful of queues; a panic between two of its steps leaves at worst a record to be sent twice.
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now() -> Instant {
        clock::monotonic()
    }

    /// Records are in the spool.
    pub fn spooled(&self, records: &[Spooled]) {
        let now = Self::now();
        {
            let mut schedule = self.schedule();
            for record in records {
                schedule.spooled(record.position, record.lane, now);
            }
        }
        self.wake.notify_waiters();
    }

    /// Publishes how much waits, and since which position.
    pub fn observe(&self, metrics: &Metrics) {
        let schedule = self.schedule();
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        metrics.waiting.set(i64::try_from(schedule.waiting()).unwrap_or(i64::MAX));
        metrics.spool_next.set(gauge(schedule.next()));
        metrics.oldest_waiting.set(gauge(schedule.oldest_waiting()));
    }

    /// Records not acknowledged by the core.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.schedule().waiting()
    }

    /// Waits for the next position of one queue.
    async fn next_position(&self, lane: Lane, part: Part) -> u64 {
        loop {
            let woken = self.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let (position, aged) = {
                let mut schedule = self.schedule();
                let before = schedule.backlog();
                let position = schedule.next_position(lane, part, Self::now());
                (position, schedule.backlog() > before)
            };
            if aged {
                // Live records became backlog: its sender may be asleep.
                self.wake.notify_waiters();
            }
            if let Some(position) = position {
                return position;
            }
            woken.await;
        }
    }
}
