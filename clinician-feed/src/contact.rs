//! Whether a gateway is heard: its newest heartbeat, and whether that is as new as it looks. Pure.

use std::time::{Duration, Instant};

use caregate_protocol::beat::{Beat, PolicyState};

/// After so long without a heartbeat a gateway is not heard: four of them, and a page says so within 10 s.
pub const HEARD_FOR: Duration = Duration::from_secs(8);
/// A heartbeat that is later than the promptest by more than this is one that somebody has held back, in microseconds.
const LATE_US: i64 = 8_000_000;
/// The promptest is forgotten slowly, in microseconds a heartbeat: clocks drift, by some 50 µs in 2 s at worst.
const DRIFT_US: i64 = 200;

/// What is known of one gateway.
#[derive(Debug, Clone, Copy, Default)]
pub struct Contact {
    /// The gateway's time and counter of the newest heartbeat.
    newest: Option<(u64, u64)>,
    /// When the first came: our clock counts from there, and is never set.
    first: Option<Instant>,
    /// The least by which our clock was ahead of a heartbeat's, since the gateway started.
    least_us: Option<i64>,
    heard: Option<Instant>,
    policy: PolicyState,
}

impl Contact {
    /// Takes a heartbeat whose signature holds. Returns whether it counts: one that came before, or that was held back, does not.
    ///
    /// A gateway that started again counts from 0, at a later time; by how much its heartbeats are late is learned anew.
    pub fn take(&mut self, beat: &Beat, now: Instant) -> bool {
        let since_us = now.duration_since(*self.first.get_or_insert(now)).as_micros();
        let ours_us = i64::try_from(since_us).unwrap_or(i64::MAX);
        let lag_us = ours_us.saturating_sub(i64::try_from(beat.at_us).unwrap_or(i64::MAX));
        let least_us = match self.newest {
            Some((at_us, counter)) if beat.at_us <= at_us || beat.counter == counter => return false,
            Some((_, counter)) if beat.counter > counter => self.least_us,
            Some(_) | None => None,
        };
        self.newest = Some((beat.at_us, beat.counter));
        let least_us = least_us.map_or(lag_us, |least| least.saturating_add(DRIFT_US).min(lag_us));
        self.least_us = Some(least_us);
        if lag_us > least_us.saturating_add(LATE_US) {
            return false;
        }
        self.heard = Some(now);
        self.policy = beat.policy;
        true
    }

    /// Whether the gateway was heard a moment ago.
    #[must_use]
    pub fn is_heard(&self, now: Instant) -> bool {
        self.heard.is_some_and(|heard| now.duration_since(heard) < HEARD_FOR)
    }

    /// What it said of its policy last; none where it was never heard.
    #[must_use]
    pub fn policy(&self) -> Option<PolicyState> {
        self.heard.map(|_when| self.policy)
    }
}

#[cfg(test)]
mod tests {
    use caregate_host::clock;
    use ed25519_dalek::SigningKey;

    use super::*;

    fn beat(counter: u64, at_s: i64) -> Beat {
        let at_us = u64::try_from(at_s * 1_000_000).unwrap();
        Beat::decode(&Beat::sign(counter, at_us, PolicyState::default(), &SigningKey::from_bytes(&[3; 32])))
            .unwrap()
    }

    #[test]
    fn a_gateway_is_heard_until_eight_seconds_after_its_last_heartbeat() {
        let (mut contact, start) = (Contact::default(), clock::monotonic());
        let at = |s: u64| start + Duration::from_secs(s);
        assert!(!contact.is_heard(start));
        assert!(contact.take(&beat(0, 100), at(0)));
        assert!(contact.take(&beat(1, 102), at(2)));
        assert!(contact.is_heard(at(9)) && !contact.is_heard(at(10)));
        assert!(!contact.take(&beat(1, 102), at(3)), "again");
        assert!(!contact.take(&beat(0, 100), at(3)), "older");
        assert!(contact.take(&beat(0, 106), at(60)), "started again");
        assert!(contact.take(&beat(1, 108), at(62)));
        assert!(!contact.take(&beat(7, 107), at(63)), "of the run before");
    }

    #[test]
    fn heartbeats_that_were_held_back_keep_nothing_alive() {
        let (mut contact, start) = (Contact::default(), clock::monotonic());
        let at = |s: i64| start + Duration::from_secs(u64::try_from(s).unwrap());
        let at_s = |n: u64| i64::try_from(n).unwrap();
        assert!((0..10).all(|n| contact.take(&beat(n, 1000 + 2 * at_s(n)), at(2 * at_s(n)))));
        // The core keeps those of a minute, and plays them one each 4 s.
        let counted =
            (10..40).filter(|n| contact.take(&beat(*n, 1000 + 2 * at_s(*n)), at(20 + 4 * at_s(n - 10))));
        assert_eq!(counted.count(), 5, "the lag grows by 2 s with each, and 8 s is the most");
    }
}
