//! How long a broker of 5.0 may be quiet before another connection takes the place of the one there is.
//!
//! mosquitto 2.0.11 loses a place in flight with each message above QoS 0 that it drops for its length, until the next connection; without
//! places it is silent for good, but for what has QoS 0, which needs none. So what comes at QoS 0 does not count.

use std::time::Duration;

use tokio::time::Instant;

use super::client::Protocol;

/// How long at first, and always once something has come above QoS 0. Long enough that in a home where something is measured it never comes to
/// that, and short beside what a silent broker would cost; one connection in five minutes costs it nothing.
pub(super) const QUIET: Duration = Duration::from_secs(5 * 60);

/// How many times as long at most, while nothing has come above QoS 0.
const SLOWEST: u32 = 4;

/// How long is waited now; outlives connections.
///
/// Where a home publishes at QoS 0 only, a connection that takes another's place brings nothing, so these become rarer. They don't end, since
/// the places may be lost before the first message above QoS 0 came through; nor do they become much rarer, since it may be a call button's.
/// Once such messages are known to come, the time stays short, however rarely they do: those that are rare are the alarms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    first: Duration,
    now: Duration,
    /// Something has come above QoS 0.
    was_heard: bool,
}

impl Patience {
    pub(super) fn new(first: Duration) -> Self {
        Self { first, now: first, was_heard: false }
    }

    /// Something came above QoS 0.
    pub(super) fn hear(&mut self) {
        (self.now, self.was_heard) = (self.first, true);
    }

    /// After a connection that was too quiet.
    pub(super) fn next(self) -> Self {
        let now = if self.was_heard { self.first } else { (self.now * 2).min(self.first * SLOWEST) };
        Self { now, ..self }
    }

    /// When a connection is too quiet over which nothing has come since `heard`, if ever: not while something of ours is owed to the broker,
    /// which may be what it waits for, nor in 3.1.1, where it drops nothing for its length.
    pub(super) fn end(self, protocol: Protocol, is_owed: bool, heard: Instant) -> Option<Instant> {
        match protocol {
            Protocol::V5 if !is_owed => Some(heard + self.now),
            Protocol::V5 | Protocol::V4 => None,
        }
    }
}
