//! How fast the backlog goes: what the present leaves. Pure.
//!
//! By the delay that live records have, as LEDBAT does (RFC 6817): a queue that others notice slows what is in no hurry long before a packet
//! is lost. What is measured is not the path alone but all that a live record waits for, at the core too: the time from its sending to its
//! acknowledgement. Other than there it is a rate that follows, not a window: on a fast line two packets in flight are enough to keep a
//! router's processor, or the core's, from what is live. While nothing live is sent the backlog has all there is.
//!
//! ```text
//!  live records that go on ──▶ look: the backlog waits ──▶ follow: up or down with each median ──5 min──▶ look …
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Bytes a second to begin with: fifty times what 18 leads write, and some hundredths of what a small router's processor can send.
const RATE_START: u64 = 4_000_000;
/// Least bytes a second: a quarter of a line of 1 Mbit/s. It goes at that where too little is live to be measured.
const RATE_MIN: u64 = 32_000;
/// Most bytes a second beside what is live: far above what the disk of a small router reads.
const RATE_MAX: u64 = 64_000_000;
/// The backlog has so many times what is live, also where that waits a little for it: it is to be gone in a twentieth of the time in which
/// it came, and a little more.
const TIMES_LIVE: u64 = 22;
/// What may go at once, as the time that it takes at the rate: two turns of the runtime's timer.
const BURST: Duration = Duration::from_millis(2);
/// How long after the last live record there is none: longer than the pause between two numerics of most sensors, and well below the
/// ten seconds between two heads of a chain, which come where nobody wears a sensor.
const LIVE_LASTS: Duration = Duration::from_secs(3);
/// Live records go on where some were sent in so many slots of this length: a head, or the wraps of a new connection, are soon over, and nobody
/// looks for them. Until then the backlog has [`RATE_START`].
const SLOTS: u32 = 3;
const SLOT: Duration = Duration::from_millis(250);
/// Live records of whose delays the median decides, all sent since the last decision; and the least time between two.
const SAMPLES: usize = 32;
const DECISION: Duration = Duration::from_millis(200);
/// With so few it is decided where no more have come for so long.
const SAMPLES_FEW: usize = 4;
const DECISION_FEW: Duration = Duration::from_secs(2);
/// How long the backlog waits for a median, at the longest: what waits for nothing is to be known before it waits for the backlog.
const LOOK: Duration = Duration::from_secs(1);
/// How often it looks again: before the last minute in which nothing was in the way is forgotten.
const LOOK_EVERY: Duration = Duration::from_mins(5);
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
    /// Live bytes sent since then.
    live_bytes: u64,
    /// Live bytes a second, as of the last decision.
    live_rate: f64,
    /// The least median of each minute, newest last.
    base: VecDeque<(Instant, Duration)>,
    /// Since when it looks, or last looked.
    look: Option<Instant>,
    /// When a live record was last sent, when the newest slot began, and how many there were in a row.
    live_at: Option<Instant>,
    slot: Option<Instant>,
    slots: u32,
    /// The gateway stops: what is left goes as it can.
    ends: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            rate: RATE_START as f64,
            paid_at: None,
            delays: Vec::with_capacity(SAMPLES),
            decided_at: None,
            live_bytes: 0,
            live_rate: 0.0,
            base: VecDeque::new(),
            look: None,
            live_at: None,
            slot: None,
            slots: 0,
            ends: false,
        }
    }
}

impl Pace {
    /// Bytes a second that the backlog may have; none where nothing live is sent, so that it has all there is.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
    pub fn rate(&self, now: Instant) -> Option<u64> {
        self.is_live(now).then(|| self.known_rate() as u64)
    }

    /// Until when the backlog waits, if it does.
    #[must_use]
    pub fn waits(&self, now: Instant) -> Option<Instant> {
        let live_at = self.live_at.filter(|_| self.is_live(now))?;
        let looks =
            self.look.filter(|look| self.decided_at.is_none_or(|at| at <= *look)).map(|look| look + LOOK);
        let owes = self.paid_at.and_then(|at| at.checked_sub(BURST));
        // Where nothing live comes any more it waits for nothing.
        looks.max(owes).map(|until| until.min(live_at + LIVE_LASTS)).filter(|until| *until > now)
    }

    /// So many bytes of the backlog are sent.
    pub fn sent(&mut self, bytes: usize, now: Instant) {
        if !self.is_live(now) {
            self.paid_at = None;
            return;
        }
        if self.look.is_some_and(|look| now.saturating_duration_since(look) >= LOOK_EVERY) {
            self.look(now);
        }
        let from = self.paid_at.map_or(now, |at| at.max(now));
        self.paid_at = Some(from + Duration::from_secs_f64(bytes as f64 / self.known_rate()));
    }

    /// A live record of so many bytes is sent.
    pub fn live_sent(&mut self, bytes: usize, now: Instant) {
        if !self.is_live(now) {
            // It had all there was meanwhile: what the last time left says nothing.
            self.rate = RATE_START as f64;
            (self.paid_at, self.look, self.slot, self.slots) = (None, None, None, 0);
        }
        if self.slot.is_none_or(|began| now.saturating_duration_since(began) >= SLOT) {
            self.slot = Some(now);
            self.slots = (self.slots + 1).min(SLOTS);
            if self.slots == SLOTS && self.look.is_none() {
                self.look(now);
            }
        }
        self.live_bytes += bytes as u64;
        self.live_at = Some(now);
    }

    /// A live record was acknowledged, so long after it was sent.
    pub fn live_acked(&mut self, delay: Duration, now: Instant) {
        let Some(look) = self.look else { return };
        let since = self.decided_at.map_or(look, |at| at.max(look));
        // One that was sent before shows what was before.
        if now.checked_sub(delay).is_none_or(|sent| sent < since) {
            return;
        }
        if self.delays.len() < SAMPLES {
            self.delays.push(delay);
        }
        let enough = match now.saturating_duration_since(since) {
            past if past >= DECISION_FEW => SAMPLES_FEW,
            past if past >= DECISION => SAMPLES,
            _ => return,
        };
        if self.delays.len() >= enough {
            self.delays.sort_unstable();
            let median = self.delays[self.delays.len() / 2];
            self.live_rate = self.live_bytes as f64 / now.saturating_duration_since(since).as_secs_f64();
            self.decided_at = Some(now);
            self.forget_samples();
            self.decide(median, now);
        }
    }

    /// A connection is a new one: what the last had found says little about it.
    pub fn begin(&mut self) {
        *self = Self { ends: self.ends, ..Self::default() };
    }

    /// Nothing live will come any more: what is left goes as it can.
    pub fn end(&mut self) {
        self.ends = true;
    }

    fn look(&mut self, now: Instant) {
        self.look = Some(now);
        self.forget_samples();
    }

    fn forget_samples(&mut self) {
        self.delays.clear();
        self.live_bytes = 0;
    }

    /// Before anything is known it goes slowly, so that what is found is not of its own making.
    fn known_rate(&self) -> f64 {
        if self.look.is_some() && self.base.is_empty() { RATE_MIN as f64 } else { self.rate }
    }

    fn decide(&mut self, median: Duration, now: Instant) {
        let known = self.base.iter().map(|(_, least)| *least).min();
        match self.base.back_mut() {
            Some((since, least)) if now.saturating_duration_since(*since) < MINUTE => {
                *least = median.min(*least);
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
        let least_rate =
            if is_full { RATE_MIN as f64 } else { (self.live_rate * TIMES_LIVE as f64).max(RATE_MIN as f64) };
        let step = if median > least + target { SHRINKS } else { GROWS };
        self.rate = (self.rate * step).max(least_rate).min(RATE_MAX as f64);
    }

    fn is_live(&self, now: Instant) -> bool {
        !self.ends && self.live_at.is_some_and(|last| now.saturating_duration_since(last) < LIVE_LASTS)
    }
}

#[cfg(test)]
mod tests;
