//! Whether the way to the core is congested, and how long records wait for each other then. Pure.
//!
//! Records that are sent together share packets, and a packet costs a congested link some 60 bytes and a turn. While nothing is
//! congested nobody waits.

use std::time::{Duration, Instant};

use caregate_protocol::id::Lane;

/// A way counts as congested for so long after the last sign of it: longer than a congestion window takes to grow back.
const HOLD: Duration = Duration::from_secs(2);
/// A round trip that takes so many times the shortest one has a queue on it.
const RTT_FACTOR: u32 = 3;
/// And so much more, or a home's own network would count as congested by its jitter.
const RTT_MORE: Duration = Duration::from_millis(50);

/// How long a lane's records wait for each other while its way is congested: an alarm never, and the others no longer than nobody sees.
#[must_use]
pub fn window(lane: Lane) -> Duration {
    match lane {
        Lane::Alarm => Duration::ZERO,
        Lane::Vitals => Duration::from_millis(50),
        Lane::Waveform | Lane::Activity => Duration::from_millis(250),
    }
}

/// What QUIC says of a connection's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Congestion events so far: losses by which the congestion window was cut.
    pub events: u64,
    /// The round trip, smoothed.
    pub rtt: Duration,
}

/// One connection's way.
#[derive(Debug, Default)]
pub struct Congestion {
    events: u64,
    rtt_min: Option<Duration>,
    seen: Option<Instant>,
}

impl Congestion {
    /// Takes a sample; returns whether the way is congested.
    pub fn take(&mut self, sample: Sample, now: Instant) -> bool {
        let rtt_min = self.rtt_min.map_or(sample.rtt, |min| min.min(sample.rtt));
        self.rtt_min = Some(rtt_min);
        let queued = sample.rtt >= rtt_min * RTT_FACTOR && sample.rtt >= rtt_min + RTT_MORE;
        if sample.events > self.events || queued {
            self.seen = Some(now);
        }
        self.events = sample.events;
        self.seen.is_some_and(|seen| now.saturating_duration_since(seen) < HOLD)
    }
}

#[cfg(test)]
mod tests {
    use caregate_host::clock;

    use super::*;

    fn sample(events: u64, rtt_ms: u64) -> Sample {
        Sample { events, rtt: Duration::from_millis(rtt_ms) }
    }

    #[test]
    fn loss_is_congestion_for_a_while() {
        let (mut way, start) = (Congestion::default(), clock::monotonic());
        assert!(!way.take(sample(0, 20), start));
        assert!(way.take(sample(1, 20), start));
        assert!(way.take(sample(1, 20), start + HOLD - Duration::from_millis(1)));
        assert!(!way.take(sample(1, 20), start + HOLD));
        assert!(way.take(sample(2, 20), start + 2 * HOLD));
    }

    #[test]
    fn a_queue_on_the_way_is_congestion_and_jitter_is_not() {
        let (mut way, start) = (Congestion::default(), clock::monotonic());
        assert!(!way.take(sample(0, 2), start));
        assert!(!way.take(sample(0, 40), start), "twenty times as long, and nobody cares");
        let (mut way, start) = (Congestion::default(), clock::monotonic());
        assert!(!way.take(sample(0, 200), start));
        assert!(!way.take(sample(0, 400), start));
        assert!(way.take(sample(0, 600), start));
    }

    #[test]
    fn alarms_never_wait() {
        assert_eq!(window(Lane::Alarm), Duration::ZERO);
        assert!(window(Lane::Vitals) <= Duration::from_millis(50));
        assert!(window(Lane::Waveform) <= Duration::from_millis(250));
    }
}
