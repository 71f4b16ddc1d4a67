//! A token bucket that is given `now`.

use std::time::Duration;

/// Parts of one token: refilling by the microsecond stays exact in whole numbers.
const PARTS: u64 = 1_000_000;

/// Lets a burst through and then a steady rate.
#[derive(Debug)]
pub struct TokenBucket {
    per_s: u64,
    parts_max: u64,
    parts: u64,
    filled_at: Duration,
}

impl TokenBucket {
    /// A full bucket of `burst` tokens that gains `per_s` a second; both at least 1.
    pub fn new(per_s: u32, burst: u32, now: Duration) -> Self {
        let parts_max = u64::from(burst.max(1)) * PARTS;
        Self { per_s: u64::from(per_s.max(1)), parts_max, parts: parts_max, filled_at: now }
    }

    fn fill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.filled_at);
        let gained = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).saturating_mul(self.per_s);
        self.parts = self.parts.saturating_add(gained).min(self.parts_max);
        self.filled_at = self.filled_at.max(now);
    }

    /// Whether a token is there.
    pub fn is_ready(&mut self, now: Duration) -> bool {
        self.fill(now);
        self.parts >= PARTS
    }

    /// Takes one token, if there is one.
    pub fn take(&mut self, now: Duration) {
        self.fill(now);
        self.parts = self.parts.saturating_sub(PARTS);
    }

    /// When the next token is there; `None` where one is there already.
    pub fn ready_at(&self) -> Option<Duration> {
        let missing = PARTS.checked_sub(self.parts).filter(|parts| *parts > 0)?;
        Some(self.filled_at + Duration::from_micros(missing.div_ceil(self.per_s)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let at = Duration::from_millis;
        let mut bucket = TokenBucket::new(10, 3, at(0));
        for _ in 0..3 {
            assert!(bucket.is_ready(at(0)));
            bucket.take(at(0));
        }
        assert!(!bucket.is_ready(at(99)));
        assert_eq!(bucket.ready_at(), Some(at(100)));
        assert!(bucket.is_ready(at(100)));
        assert_eq!(bucket.ready_at(), None);
        bucket.take(at(100));
        assert!(!bucket.is_ready(at(199)) && bucket.is_ready(at(200)));
        assert!(bucket.is_ready(at(10_000_000)), "long idle");
        for _ in 0..3 {
            bucket.take(at(10_000_000));
        }
        assert!(!bucket.is_ready(at(10_000_000)), "never more than the burst");
        assert!(!bucket.is_ready(at(1)), "time never runs back");
    }
}
