//! What goes up next. Pure: positions in, positions out.
//!
//! Live first: a record spooled while connected goes on its lane's live queue; what was there before the connection, and
//! what could not be sent within [`LIVE_AGE_MAX`], is backlog. So after an outage the present is never behind the past.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use caregate_protocol::id::Lane;

/// How long a live record may wait for its turn before it becomes backlog: the sweep on a clinician's page spans some
/// seconds, and what is older is no longer the present.
pub const LIVE_AGE_MAX: Duration = Duration::from_secs(2);

/// Which queue of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// The present.
    Live,
    /// The rest.
    Backlog,
}

/// Positions waiting to be sent, and positions sent but not acknowledged.
#[derive(Debug, Default)]
pub struct Schedule {
    live: [VecDeque<(u64, Instant)>; 4],
    backlog: [VecDeque<u64>; 4],
    sent: BTreeMap<u64, Lane>,
    next: u64,
    connected: bool,
}

impl Schedule {
    /// A schedule for what the spool held at start.
    pub fn new(unacked: impl IntoIterator<Item = (u64, Lane)>) -> Self {
        let mut schedule = Self::default();
        for (position, lane) in unacked {
            schedule.backlog[lane as usize].push_back(position);
            schedule.next = schedule.next.max(position + 1);
        }
        schedule
    }

    /// A connection is up: live records count as such from now on.
    pub fn connected(&mut self) {
        self.connected = true;
    }

    /// The connection is gone: whatever was not acknowledged is backlog, in the order of positions.
    pub fn disconnected(&mut self) {
        self.connected = false;
        for (position, lane) in std::mem::take(&mut self.sent) {
            self.backlog[lane as usize].push_back(position);
        }
        for lane in Lane::ALL {
            let live = std::mem::take(&mut self.live[lane as usize]);
            let backlog = &mut self.backlog[lane as usize];
            backlog.extend(live.into_iter().map(|(position, _)| position));
            backlog.make_contiguous().sort_unstable();
        }
    }

    /// A record is in the spool.
    pub fn spooled(&mut self, position: u64, lane: Lane, now: Instant) {
        self.next = self.next.max(position + 1);
        if self.connected {
            self.live[lane as usize].push_back((position, now));
        } else {
            self.backlog[lane as usize].push_back(position);
        }
    }

    /// The next position of a queue; it counts as sent.
    pub fn next_position(&mut self, lane: Lane, part: Part, now: Instant) -> Option<u64> {
        let position = match part {
            Part::Live => self.next_live(lane, now)?,
            Part::Backlog => self.backlog[lane as usize].pop_front()?,
        };
        self.sent.insert(position, lane);
        Some(position)
    }

    fn next_live(&mut self, lane: Lane, now: Instant) -> Option<u64> {
        while let Some((position, spooled)) = self.live[lane as usize].pop_front() {
            if now.saturating_duration_since(spooled) <= LIVE_AGE_MAX {
                return Some(position);
            }
            self.backlog[lane as usize].push_back(position);
        }
        None
    }

    /// The core has these positions.
    pub fn acked(&mut self, first: u64, last: u64) {
        // Split instead of walking the range: a peer may acknowledge 0..=u64::MAX.
        let mut tail = self.sent.split_off(&first);
        if let Some(after) = last.checked_add(1) {
            self.sent.append(&mut tail.split_off(&after));
        }
    }

    /// Positions not acknowledged yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let live: usize = self.live.iter().map(VecDeque::len).sum();
        let backlog: usize = self.backlog.iter().map(VecDeque::len).sum();
        live + backlog + self.sent.len()
    }

    /// One past the newest position.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The oldest position that is not acknowledged; [`Self::next`] where all are.
    #[must_use]
    pub fn oldest_waiting(&self) -> u64 {
        let live = self.live.iter().filter_map(|queue| queue.front().map(|(position, _)| *position));
        let backlog = self.backlog.iter().filter_map(|queue| queue.front().copied());
        let sent = self.sent.keys().next().copied();
        live.chain(backlog).chain(sent).min().unwrap_or(self.next)
    }

    /// Positions in the backlog that have not been sent on this connection.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.backlog.iter().map(VecDeque::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drain(schedule: &mut Schedule, lane: Lane, part: Part, now: Instant) -> Vec<u64> {
        std::iter::from_fn(|| schedule.next_position(lane, part, now)).collect()
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn what_was_there_before_the_connection_is_backlog_and_the_rest_is_live() {
        let now = start();
        let mut schedule = Schedule::new([(0, Lane::Vitals), (1, Lane::Waveform)]);
        schedule.spooled(2, Lane::Vitals, now);
        schedule.connected();
        schedule.spooled(3, Lane::Vitals, now);
        assert_eq!(drain(&mut schedule, Lane::Vitals, Part::Live, now), [3]);
        assert_eq!(drain(&mut schedule, Lane::Vitals, Part::Backlog, now), [0, 2]);
        assert_eq!(drain(&mut schedule, Lane::Waveform, Part::Backlog, now), [1]);
    }

    #[test]
    fn a_live_record_that_waited_too_long_becomes_backlog() {
        let now = start();
        let mut schedule = Schedule::default();
        schedule.connected();
        schedule.spooled(0, Lane::Alarm, now);
        let later = now + LIVE_AGE_MAX + Duration::from_millis(1);
        schedule.spooled(1, Lane::Alarm, later);
        assert_eq!(drain(&mut schedule, Lane::Alarm, Part::Live, later), [1]);
        assert_eq!(drain(&mut schedule, Lane::Alarm, Part::Backlog, later), [0]);
    }

    #[test]
    fn what_was_sent_but_not_acknowledged_is_sent_again_in_order() {
        let now = start();
        let mut schedule = Schedule::default();
        schedule.connected();
        for position in 0..4 {
            schedule.spooled(position, Lane::Vitals, now);
        }
        assert_eq!(drain(&mut schedule, Lane::Vitals, Part::Live, now), [0, 1, 2, 3]);
        schedule.acked(1, 2);
        schedule.spooled(4, Lane::Vitals, now);
        schedule.disconnected();
        assert_eq!((schedule.waiting(), schedule.oldest_waiting(), schedule.next()), (3, 0, 5));
        schedule.connected();
        assert_eq!(drain(&mut schedule, Lane::Vitals, Part::Backlog, now), [0, 3, 4]);
    }

    #[test]
    fn an_acknowledgement_of_everything_is_no_work() {
        let now = start();
        let mut schedule = Schedule::default();
        schedule.connected();
        schedule.spooled(0, Lane::Vitals, now);
        drain(&mut schedule, Lane::Vitals, Part::Live, now);
        schedule.acked(0, u64::MAX);
        assert_eq!(schedule.waiting(), 0);
    }

    proptest! {
        /// However connections come and go, each record that is not acknowledged stays known, and none comes from nothing.
        #[test]
        fn nothing_is_forgotten(steps in proptest::collection::vec(0_u8..5, 0..200)) {
            let now = start();
            let mut schedule = Schedule::default();
            let (mut next, mut unacked) = (0_u64, std::collections::BTreeSet::new());
            let mut sent = Vec::new();
            for step in steps {
                match step {
                    0 => schedule.connected(),
                    1 => { schedule.disconnected(); sent.clear(); }
                    2 => { schedule.spooled(next, Lane::Vitals, now); unacked.insert(next); next += 1; }
                    3 => for part in [Part::Live, Part::Backlog] {
                        sent.extend(schedule.next_position(Lane::Vitals, part, now));
                    },
                    _ => if let Some(position) = sent.pop() {
                        schedule.acked(position, position);
                        unacked.remove(&position);
                    },
                }
                prop_assert_eq!(schedule.waiting(), unacked.len());
            }
        }
    }
}
