//! Whose turn it is at the writer: what is live, or backlog. Pure.
//!
//! A commit can't be cut short, so whatever comes live waits for the one under way. That is why backlog is written in small commits while
//! anything live comes, and rests after each for a multiple of what it took: a live record mostly finds no commit of backlog before it.

use std::time::{Duration, Instant};

use caregate_protocol::uplink::Timing;

/// Most bytes in one commit of what is live, and of backlog where nothing live comes: large enough that a backlog drains at disk speed,
/// small enough to stay under 50 ms.
pub(crate) const BATCH_BYTES_MAX: usize = 8 << 20;
/// Most bytes in a commit of backlog beside what is live: some milliseconds, and no less than the largest segment of one group commit.
const BESIDE_LIVE_BYTES_MAX: usize = 512 << 10;
/// Times as long as a commit of backlog took nothing more of it is written while anything live comes: a quarter of the writer's time is
/// the backlog's, which on a disk that takes 2 MB/s at a time is still some 20 leads drained at 20 times their pace.
const REST_TIMES: u32 = 3;
/// So long after the last live record there is none: several times the pause between two numerics of one sensor.
const LIVE_LASTS: Duration = Duration::from_secs(1);
/// Backlog that waited for so long has its turn also where what is live never ends, so that it goes on a little under any load.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// What the writer does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Commits what waits of this, up to so many bytes.
    Write(Timing, usize),
    /// Nothing, until something comes, or until then.
    Wait(Option<Instant>),
}

/// The writer's turns.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// When something live was there last.
    live_at: Option<Instant>,
    /// Until when backlog rests.
    rests_until: Option<Instant>,
    /// Since when backlog waits and would not rest.
    waits_since: Option<Instant>,
}

impl Pace {
    /// `live` and `backlog` say whether any waits.
    pub(crate) fn turn(&mut self, live: bool, backlog: bool, now: Instant) -> Turn {
        if live {
            self.live_at = Some(now);
        }
        let beside_live = self.live_at.is_some_and(|at| now.saturating_duration_since(at) < LIVE_LASTS);
        let rests_until = self.rests_until.filter(|until| beside_live && *until > now);
        if !backlog || rests_until.is_some() {
            self.waits_since = None;
            return if live {
                Turn::Write(Timing::Live, BATCH_BYTES_MAX)
            } else {
                Turn::Wait(rests_until.filter(|_| backlog))
            };
        }
        let waits_since = *self.waits_since.get_or_insert(now);
        if live && now.saturating_duration_since(waits_since) < WAIT_MAX {
            return Turn::Write(Timing::Live, BATCH_BYTES_MAX);
        }
        self.waits_since = None;
        Turn::Write(Timing::Backlog, if beside_live { BESIDE_LIVE_BYTES_MAX } else { BATCH_BYTES_MAX })
    }

    /// A commit of backlog took so long.
    pub(crate) fn wrote_backlog(&mut self, began: Instant, ended: Instant) {
        self.rests_until = Some(ended + ended.saturating_duration_since(began) * REST_TIMES);
    }
}

#[cfg(test)]
mod tests {
    use caregate_host::clock;

    use super::*;

    const LIVE: Turn = Turn::Write(Timing::Live, BATCH_BYTES_MAX);
    const SMALL: Turn = Turn::Write(Timing::Backlog, BESIDE_LIVE_BYTES_MAX);
    const LARGE: Turn = Turn::Write(Timing::Backlog, BATCH_BYTES_MAX);
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_is_live_is_next_however_much_backlog_waits() {
        let (mut pace, now) = (Pace::default(), clock::monotonic());
        for n in 0..100 {
            assert_eq!(pace.turn(false, true, now + MS * n), LARGE);
            pace.wrote_backlog(now + MS * n, now + MS * n);
        }
        assert_eq!(pace.turn(true, true, now + MS * 100), LIVE);
        assert_eq!(pace.turn(true, true, now + MS * 101), LIVE);
        assert_eq!(pace.turn(false, true, now + MS * 102), SMALL, "what is live was there a moment ago");
    }

    #[test]
    fn backlog_rests_beside_what_is_live_and_not_without_it() {
        let (mut pace, now) = (Pace::default(), clock::monotonic());
        assert_eq!(pace.turn(true, false, now), LIVE);
        assert_eq!(pace.turn(false, true, now), SMALL);
        pace.wrote_backlog(now, now + MS * 4);
        let rested = now + MS * 16;
        assert_eq!(pace.turn(false, true, now + MS * 4), Turn::Wait(Some(rested)));
        assert_eq!(pace.turn(true, true, now + MS * 5), LIVE);
        assert_eq!(pace.turn(false, false, now + MS * 6), Turn::Wait(None));
        assert_eq!(pace.turn(false, true, rested), SMALL);
        pace.wrote_backlog(rested, rested + LIVE_LASTS * 2);
        assert_eq!(pace.turn(false, true, rested + LIVE_LASTS * 2), LARGE, "nothing live has come since");
    }

    #[test]
    fn backlog_goes_on_where_what_is_live_never_ends() {
        let (mut pace, now) = (Pace::default(), clock::monotonic());
        let turns = |pace: &mut Pace| -> Vec<u32> {
            (0..4000).filter(|ms| pace.turn(true, true, now + MS * *ms) == SMALL).collect()
        };
        assert_eq!(turns(&mut pace), [1000, 2001, 3002]);
    }
}
