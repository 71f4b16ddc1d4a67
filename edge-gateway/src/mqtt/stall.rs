//! How long a connection's PUBLISHes have found no place in the pipeline's queue, and what follows for the next one (ADR 49). Pure.

use std::time::Duration;

use caregate_protocol::id::Lane;

use super::limits::Limits;

/// Ends when one finds its place. All lanes are held against its beginning, so that what stands behind two that are refused waits once.
#[derive(Debug, Default)]
pub(super) struct Stall {
    since: Option<Duration>,
}

impl Stall {
    /// How long one that finds no place may wait; `None`: for ever, zero: not at all.
    ///
    /// Whoever does not wait is behind all who do. So after as long again as the most patient waits, it is as if nobody had waited
    /// yet: else a connection on which something was refused once had no place any more while others wait.
    pub(super) fn left(&mut self, limits: &Limits, lane: Lane, now: Duration) -> Option<Duration> {
        let patience = limits.patience(lane)?;
        let over = limits.patience(Lane::Vitals).map_or(Duration::MAX, |most| most.saturating_mul(2));
        let since = match self.since {
            Some(since) if now.saturating_sub(since) < over => since,
            Some(_) | None => *self.since.insert(now),
        };
        Some(patience.saturating_sub(now.saturating_sub(since)))
    }

    /// One of this lane has its place. Alarms have their own, which say nothing of the others'.
    pub(super) fn placed(&mut self, lane: Lane) {
        if lane != Lane::Alarm {
            self.since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn the_lowest_is_refused_first_and_an_alarm_never() {
        let (mut stall, limits) = (Stall::default(), Limits { overload_after_ms: 3000, ..Limits::default() });
        let mut left = |lane, at: Duration| stall.left(&limits, lane, S * 100 + at);
        assert_eq!(left(Lane::Waveform, Duration::ZERO), Some(S * 3));
        assert_eq!(left(Lane::Activity, S), Some(S / 2));
        assert_eq!(left(Lane::Activity, S * 2), Some(Duration::ZERO));
        // What stands behind a chunk that was refused does not begin anew.
        assert_eq!(
            (left(Lane::Waveform, S * 3), left(Lane::Vitals, S * 3)),
            (Some(Duration::ZERO), Some(S * 3))
        );
        assert_eq!((left(Lane::Vitals, S * 6), left(Lane::Alarm, S * 60)), (Some(Duration::ZERO), None));
    }

    #[test]
    fn a_place_ends_it_and_so_does_time() {
        let (mut stall, limits) = (Stall::default(), Limits { overload_after_ms: 3000, ..Limits::default() });
        stall.left(&limits, Lane::Vitals, S);
        stall.placed(Lane::Alarm);
        assert_eq!(stall.left(&limits, Lane::Waveform, S * 5), Some(Duration::ZERO));
        stall.placed(Lane::Vitals);
        assert_eq!(stall.left(&limits, Lane::Waveform, S * 5), Some(S * 3));
        assert_eq!(stall.left(&limits, Lane::Vitals, S * 16), Some(Duration::ZERO));
        assert_eq!(stall.left(&limits, Lane::Vitals, S * 17), Some(S * 6), "it may wait again");
    }
}
