//! How fast the backlog goes: what the present leaves. Pure.
//!
//! By the delay that live records have, as LEDBAT does (RFC 6817): a queue that others notice slows what is in no hurry long before a packet
//! is lost. What is measured is not the path alone but all that a live record waits for, at the core too: the time from its sending to its
//! acknowledgement. Other than there it is a rate that follows, not a window: on a fast line two packets in flight are enough to keep a
//! router's processor, or the core's, from what is live. While nothing live is sent the backlog has all there is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Bytes a second to begin with: fifty times what 18 leads write, and some hundredths of what a small router's processor can send.
const RATE_START: u64 = 4_000_000;
/// Least bytes a second beside what is live and waits a little longer: 18 leads catch up at 25 times their pace.
const RATE_LOW: u64 = 2_000_000;
/// Least bytes a second where the backlog fills the way ([`FULL`]): two leads catch up at 20 times their pace.
const RATE_MIN: u64 = 160_000;
/// Most bytes a second beside what is live: far above what the disk of a small router reads.
const RATE_MAX: u64 = 64_000_000;
/// What may go at once, as the time that it takes at the rate: two turns of the runtime's timer.
const BURST: Duration = Duration::from_millis(2);
/// How long after the last live record there is none: longer than the pause between two numerics of most sensors, and well below the
/// ten seconds between two heads of a chain, which come where nobody wears a sensor.
const LIVE_LASTS: Duration = Duration::from_secs(3);
/// Live records of whose delays the median decides, and the least time between two decisions: the rate's effect has to be seen in between.
const SAMPLES: usize = 32;
const DECISION: Duration = Duration::from_millis(200);
/// How long the backlog waits for the first median after the connection came up, as long as live records are sent: what waits for nothing is
/// to be known before it waits for the backlog.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// For each of the last minutes the least median is kept (BASE_HISTORY): a way that has become longer is known as that in ten.
const BASE_MINUTES: usize = 10;
const MINUTE: Duration = Duration::from_secs(60);
/// The extra delay that is aimed at (TARGET): this part of the least, and not below what a median of so few wanders by itself.
const TARGET_PART: u32 = 10;
const TARGET_MIN: Duration = Duration::from_micros(200);
/// A delay of so many times the least, or longer by [`FULL_MIN`] if that is more, is that of a way that is full: no processor's turn takes so long.
const FULL: u32 = 2;
const FULL_MIN: Duration = Duration::from_millis(10);
/// By what the rate grows with a decision that finds less than that, and shrinks with one that finds more: one step down takes back three up.
const GROWS: f64 = 1.1;
const SHRINKS: f64 = 0.75;

/// The rate, and the delays that it follows.
#[derive(Debug)]
pub struct Pace {
    rate: f64,
    /// When what was sent has taken its time at the rate.
    paid_at: Option<Instant>,
    /// Since the last decision.
    delays: Vec<Duration>,
    decided_at: Option<Instant>,
    /// The least median of each minute, newest last.
    base: VecDeque<(Instant, Duration)>,
    /// When a live record was first sent, and last.
    live: Option<(Instant, Instant)>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            rate: RATE_START as f64,
            paid_at: None,
            delays: Vec::with_capacity(SAMPLES),
            decided_at: None,
            base: VecDeque::new(),
            live: None,
        }
    }
}

impl Pace {
    /// Bytes a second that the backlog may have; none where nothing live is sent, so that it has all there is.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
    pub fn rate(&self, now: Instant) -> Option<u64> {
        self.is_live(now).then_some(self.rate as u64)
    }

    /// Until when the backlog waits, if it does.
    #[must_use]
    pub fn waits(&self, now: Instant) -> Option<Instant> {
        let (first, last) = self.live?;
        let look = first + FIRST_LOOK;
        let until = if self.base.is_empty() && look > now {
            look
        } else {
            self.paid_at.and_then(|at| at.checked_sub(BURST))?
        };
        // Where nothing live comes any more it waits for nothing.
        Some(until.min(last + LIVE_LASTS)).filter(|until| *until > now)
    }

    /// So many bytes of the backlog are sent.
    pub fn sent(&mut self, bytes: usize, now: Instant) {
        let from = self.paid_at.map_or(now, |at| at.max(now));
        self.paid_at = self.is_live(now).then(|| from + Duration::from_secs_f64(bytes as f64 / self.rate));
    }

    /// A live record was sent.
    pub fn live_sent(&mut self, now: Instant) {
        let first = self.live.filter(|_| self.is_live(now)).map_or(now, |(first, _)| first);
        if first == now {
            // It had all there was meanwhile: what the last time left says nothing.
            self.rate = RATE_START as f64;
        }
        self.live = Some((first, now));
    }

    /// A live record was acknowledged, so long after it was sent.
    pub fn live_acked(&mut self, delay: Duration, now: Instant) {
        if self.delays.len() < SAMPLES {
            self.delays.push(delay);
        }
        let is_soon = |at: Instant| now.saturating_duration_since(at) < DECISION;
        if self.delays.len() < SAMPLES || self.decided_at.is_some_and(is_soon) {
            return;
        }
        self.delays.sort_unstable();
        let median = self.delays[SAMPLES / 2];
        self.delays.clear();
        self.decided_at = Some(now);
        self.decide(median, now);
    }

    /// The connection is a new one: what the last one had found says little about it.
    pub fn begin(&mut self) {
        *self = Self::default();
    }

    fn decide(&mut self, median: Duration, now: Instant) {
        let known = self.base.iter().map(|(_, least)| *least).min();
        match self.base.back_mut() {
            Some((since, least)) if now.saturating_duration_since(*since) < MINUTE => {
                *least = median.min(*least)
            }
            _ => {
                if self.base.len() == BASE_MINUTES {
                    self.base.pop_front();
                }
                self.base.push_back((now, median));
            }
        }
        let Some(least) = known else { return };
        let target = (least / TARGET_PART).max(TARGET_MIN);
        let is_full = median > (least * FULL).max(least + FULL_MIN);
        self.rate = if is_full {
            (self.rate * SHRINKS).max(RATE_MIN as f64)
        } else if median > least + target {
            (self.rate * SHRINKS).max(self.rate.min(RATE_LOW as f64))
        } else {
            (self.rate * GROWS).min(RATE_MAX as f64)
        };
    }

    fn is_live(&self, now: Instant) -> bool {
        self.live.is_some_and(|(_, last)| now.saturating_duration_since(last) < LIVE_LASTS)
    }
}

#[cfg(test)]
mod tests {
    use caregate_host::clock;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Live records of this delay, a millisecond each, for so long; what of the backlog went meanwhile, in pieces of a KiB.
    fn go_on(pace: &mut Pace, now: &mut Instant, span: Duration, delay: Duration) -> usize {
        let (ends, mut bytes) = (*now + span, 0);
        while *now < ends {
            *now += MS;
            pace.live_sent(*now);
            pace.live_acked(delay, *now);
            while pace.waits(*now).is_none() {
                pace.sent(1024, *now);
                bytes += 1024;
            }
        }
        bytes
    }

    /// After the first look.
    fn looked(now: &mut Instant) -> Pace {
        let mut pace = Pace::default();
        assert_eq!(go_on(&mut pace, now, MS * 20, 4 * MS), 0);
        assert!(go_on(&mut pace, now, MS * 20, 4 * MS) > 0);
        pace
    }

    #[test]
    fn alone_the_backlog_has_all_there_is() {
        let (mut pace, now) = (Pace::default(), clock::monotonic());
        for _ in 0..1_000_000 {
            assert_eq!((pace.waits(now), pace.rate(now)), (None, None));
            pace.sent(1024, now);
        }
        pace.live_sent(now);
        assert_eq!(pace.waits(now), Some(now + FIRST_LOOK), "what went alone is not owed");
        assert_eq!(pace.waits(now + FIRST_LOOK), None);
        pace.sent(1 << 30, now + FIRST_LOOK);
        assert_eq!(
            pace.waits(now + FIRST_LOOK),
            Some(now + LIVE_LASTS),
            "nor longer than something live is sent"
        );
        assert_eq!(pace.waits(now + LIVE_LASTS), None);
    }

    #[test]
    fn beside_what_is_live_it_goes_at_its_rate() {
        let mut now = clock::monotonic();
        let mut pace = looked(&mut now);
        let (rate, bytes) = (pace.rate(now).unwrap(), go_on(&mut pace, &mut now, MS * 100, 4 * MS));
        assert!(bytes.abs_diff(usize::try_from(rate / 10).unwrap()) < 16 << 10, "{rate} {bytes}");
        assert!(pace.waits(now).is_some_and(|until| until <= now + MS), "it goes on in a moment");
    }

    #[test]
    fn it_grows_while_live_records_wait_for_nothing_and_shrinks_when_they_wait() {
        let mut now = clock::monotonic();
        let mut pace = looked(&mut now);
        go_on(&mut pace, &mut now, Duration::from_secs(20), 4 * MS);
        assert_eq!(pace.rate(now), Some(RATE_MAX));
        go_on(&mut pace, &mut now, Duration::from_secs(10), 5 * MS);
        assert_eq!(pace.rate(now), Some(RATE_LOW), "as slow as that is slow enough");
        go_on(&mut pace, &mut now, Duration::from_secs(10), 15 * MS);
        assert_eq!(pace.rate(now), Some(RATE_MIN), "the way is full, and never nothing");
        let before = pace.rate(now);
        go_on(&mut pace, &mut now, Duration::from_secs(1), 4 * MS);
        assert!(pace.rate(now) > before);
        pace.begin();
        assert_eq!(pace.rate(now), None);
    }

    #[test]
    fn what_it_aims_at_is_a_tenth_of_the_delay() {
        let mut now = clock::monotonic();
        let mut pace = looked(&mut now);
        let rates: Vec<_> = [109, 111]
            .map(|delay| {
                let before = pace.rate(now);
                go_on(&mut pace, &mut now, Duration::from_secs(1), delay * MS / 25);
                pace.rate(now).cmp(&before)
            })
            .into();
        assert_eq!(rates, [std::cmp::Ordering::Greater, std::cmp::Ordering::Less]);
    }

    #[test]
    fn a_way_that_has_become_longer_is_known_as_that_after_ten_minutes() {
        let mut now = clock::monotonic();
        let mut pace = looked(&mut now);
        go_on(&mut pace, &mut now, MINUTE * 9, 40 * MS);
        assert_eq!(pace.rate(now), Some(RATE_MIN));
        go_on(&mut pace, &mut now, MINUTE * 2, 40 * MS);
        assert!(pace.base.len() <= BASE_MINUTES);
        assert!(pace.rate(now) > Some(RATE_MIN));
    }
}
