//! By which way a connection to the core is made: QUIC, and TCP where UDP does not get through. Pure.
//!
//! ```text
//!            no connection for PATIENCE
//!   QUIC ───────────────────────────────▶ TCP and QUIC by turns ──TCP stands──▶ TCP, and QUIC is tried beside it
//!     ▲                                         │ QUIC stands                       │ each PROBE_MIN, doubled to PROBE_MAX
//!     └─────────────────────────────────────────┴───────────────────────────────────┘ QUIC stands: it takes over
//! ```

use std::time::{Duration, Instant};

/// How long QUIC alone is tried: two attempts of a handshake, so that an outage that ends soon costs nobody the better way.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// First pause until QUIC is tried beside a TCP connection: after an outage it is back at once.
pub const PROBE_MIN: Duration = Duration::from_secs(2);
/// Longest pause: a network that lets UDP through again is found within this time, and one that doesn't sees a packet or two.
pub const PROBE_MAX: Duration = Duration::from_secs(300);
/// A QUIC connection that held for so long begins the pauses anew; one that didn't is not tried as often as it fails.
pub const STEADY: Duration = Duration::from_secs(60);

/// A way to the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// QUIC, over UDP.
    Quic,
    /// TLS over TCP.
    Tcp,
}

/// The ways of one connection, and what became of each.
#[derive(Debug)]
pub struct Path {
    has_tcp: bool,
    /// Since when there is no QUIC connection, though one was tried.
    without_quic: Option<Instant>,
    tried_last: Way,
    quic_since: Option<Instant>,
    pause: Duration,
    probe_at: Option<Instant>,
}

impl Path {
    /// At start. Without `has_tcp` there is QUIC alone.
    #[must_use]
    pub fn new(has_tcp: bool) -> Self {
        Self {
            has_tcp,
            without_quic: None,
            tried_last: Way::Tcp,
            quic_since: None,
            pause: PROBE_MIN,
            probe_at: None,
        }
    }

    /// The way to try now.
    pub fn next(&mut self, now: Instant) -> Way {
        let since = *self.without_quic.get_or_insert(now);
        let patient = now.saturating_duration_since(since) < PATIENCE;
        let way = if !self.has_tcp || patient || self.tried_last == Way::Tcp { Way::Quic } else { Way::Tcp };
        self.tried_last = way;
        way
    }

    /// A connection stands.
    pub fn stands(&mut self, way: Way, now: Instant) {
        match way {
            Way::Quic => {
                (self.without_quic, self.quic_since, self.probe_at) = (None, Some(now), None);
                self.tried_last = Way::Quic;
            }
            Way::Tcp => self.probe_at = Some(now + self.pause),
        }
    }

    /// A connection that stood is lost.
    pub fn lost(&mut self, way: Way, now: Instant) {
        match way {
            Way::Quic => {
                if self.quic_since.is_some_and(|since| now.saturating_duration_since(since) >= STEADY) {
                    self.pause = PROBE_MIN;
                }
                (self.without_quic, self.quic_since) = (Some(now), None);
            }
            Way::Tcp => self.probe_at = None,
        }
    }

    /// When QUIC is to be tried beside the TCP connection that stands.
    #[must_use]
    pub fn probe_at(&self) -> Option<Instant> {
        self.probe_at
    }

    /// It was tried, and is not tried again for a while.
    pub fn probed(&mut self, now: Instant) {
        self.pause = (self.pause * 2).min(PROBE_MAX);
        self.probe_at = Some(now + self.pause);
    }
}

#[cfg(test)]
mod tests {
    use caregate_host::clock;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn without_tcp_there_is_quic_alone() {
        let (mut path, start) = (Path::new(false), clock::monotonic());
        for second in 0..100 {
            assert_eq!(path.next(start + second * SECOND), Way::Quic);
        }
        assert_eq!(path.probe_at(), None);
    }

    #[test]
    fn tcp_is_tried_when_quic_has_not_stood_for_a_while() {
        let (mut path, start) = (Path::new(true), clock::monotonic());
        assert_eq!(path.next(start), Way::Quic);
        assert_eq!(path.next(start + PATIENCE - SECOND), Way::Quic);
        let later = start + PATIENCE;
        // By turns, so that neither keeps the other from being found.
        let ways: Vec<_> = (0..4).map(|n| path.next(later + n * SECOND)).collect();
        assert_eq!(ways, [Way::Tcp, Way::Quic, Way::Tcp, Way::Quic]);
        path.stands(Way::Quic, later + 4 * SECOND);
        path.lost(Way::Quic, later + 100 * SECOND);
        assert_eq!(path.next(later + 101 * SECOND), Way::Quic, "patient again");
        assert_eq!(path.next(later + 109 * SECOND), Way::Quic);
        assert_eq!(path.next(later + 110 * SECOND), Way::Tcp);
    }

    #[test]
    fn quic_is_tried_beside_tcp_more_and_more_seldom() {
        let (mut path, start) = (Path::new(true), clock::monotonic());
        path.next(start);
        let mut now = start + PATIENCE;
        assert_eq!(path.next(now), Way::Tcp);
        path.stands(Way::Tcp, now);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let at = path.probe_at().unwrap();
            pauses.push((at - now).as_secs());
            now = at;
            path.probed(now);
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        // It is found, and does not hold: the pauses stay long.
        path.stands(Way::Quic, now);
        assert_eq!(path.probe_at(), None);
        path.lost(Way::Quic, now + STEADY - SECOND);
        now += STEADY + PATIENCE;
        while path.next(now) != Way::Tcp {}
        path.stands(Way::Tcp, now);
        assert_eq!(path.probe_at(), Some(now + PROBE_MAX));
        // Lost as well: there is nothing to try it beside.
        path.lost(Way::Tcp, now);
        assert_eq!((path.probe_at(), path.next(now)), (None, Way::Quic));
        // And where it holds they begin anew.
        path.stands(Way::Quic, now);
        path.lost(Way::Quic, now + STEADY);
        path.next(now + STEADY);
        path.stands(Way::Tcp, now + STEADY);
        assert_eq!(path.probe_at(), Some(now + STEADY + PROBE_MIN));
    }
}
